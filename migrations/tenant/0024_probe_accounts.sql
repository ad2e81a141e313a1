-- An account that is down is tried again by itself, with one message, ever more seldom; once one is taken it is back.
ALTER TABLE channel_accounts
    -- The message it went down with, which is the one to try again.
    ADD COLUMN probe_with uuid,
    -- The try for which that message was brought: once for each.
    ADD COLUMN probe_brought_for timestamptz,
    -- What waits for it is being woken, after this message's id.
    ADD COLUMN wake_after uuid;
CREATE INDEX channel_accounts_to_see_to ON channel_accounts (tenant_id, id) WHERE state = 'down' OR wake_after IS NOT NULL;
GRANT UPDATE (wake_after) ON channel_accounts TO mijra_api;

-- The last part of an account's own webhook URL: what each send tells its provider to report to (Twilio).
ALTER TABLE channel_accounts ADD COLUMN webhook_key text;
