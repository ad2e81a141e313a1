-- Every provider's webhooks: whatever the kind, an id has one owner (only a business account may hold several numbers), and what
-- was refused can be verified again once the secret or the public address is right.
DROP INDEX control.channel_routes_number_key;
CREATE UNIQUE INDEX channel_routes_owner_key ON control.channel_routes (provider, kind, external_id)
    WHERE kind <> 'business_account_id';

ALTER TABLE control.quarantine
    ADD COLUMN method text NOT NULL DEFAULT 'POST',
    -- Path and query as they came, after scheme and host where a proxy of ours said them: Twilio signs all of it.
    ADD COLUMN target text NOT NULL DEFAULT '',
    ADD COLUMN content_type text,
    -- When an operator had it taken after all.
    ADD COLUMN replayed_at timestamptz;
