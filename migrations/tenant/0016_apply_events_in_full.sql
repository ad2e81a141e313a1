-- What the events of four providers need: who does not want to be written to, who was erased or merged, up to where people have
-- read, what was written elsewhere, and what providers say of accounts and templates.

-- a. People who do not want to be written to, or want to again: for each contact and channel, by what it is about.
CREATE TABLE suppressions (
    tenant_id uuid NOT NULL,
    contact_id uuid NOT NULL,
    channel text NOT NULL,
    purpose text NOT NULL CHECK (purpose IN ('marketing', 'all')),
    state text NOT NULL CHECK (state IN ('opted_out', 'opted_in')),
    -- Since when, by the provider's time: what was said earlier changes nothing, however late it comes.
    since timestamptz NOT NULL,
    -- keyword, the provider's word for it, or by hand.
    source text NOT NULL CHECK (source <> ''),
    -- By hand: the token of the API that was used, if it was one.
    token_id uuid,
    changed_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, contact_id, channel, purpose),
    FOREIGN KEY (tenant_id, contact_id) REFERENCES contacts (tenant_id, id)
);

-- b. People who were erased. What was told of them before that is not stored again: of the names they had only digests are left.
CREATE TABLE erased_people (
    tenant_id uuid NOT NULL,
    -- SHA-256 of the tenant, the kind of name and the name (domain::people::Alias::digest).
    digest bytea NOT NULL CHECK (octet_length(digest) = 32),
    erased_at timestamptz NOT NULL,
    -- What they had opted out of by then holds for who comes back by the name: [{"channel", "purpose", "since", "source"}].
    opted_out jsonb NOT NULL DEFAULT '[]',
    PRIMARY KEY (tenant_id, digest)
);
-- Who writes anew is a new contact by an old name: what is older than this is not theirs.
ALTER TABLE contact_aliases ADD COLUMN erased_before timestamptz;
ALTER TABLE contacts
    -- It turned out to be this one, who has all it had. It answers in its place.
    ADD COLUMN merged_into uuid,
    -- Nothing is left of it but what others point at.
    ADD COLUMN erased_at timestamptz,
    -- When it was merged or erased: batches that were under way then may have added something, which is moved or erased after them.
    ADD COLUMN gone_at timestamptz,
    -- When that is done next; NULL: not any more.
    ADD COLUMN settle_at timestamptz,
    -- The provider's time of the message that brought the names: what an older one says, or one that is played again, is no news.
    ADD COLUMN named_at timestamptz,
    ADD FOREIGN KEY (tenant_id, merged_into) REFERENCES contacts (tenant_id, id);
CREATE INDEX contacts_to_settle ON contacts (tenant_id, settle_at) WHERE settle_at IS NOT NULL;
CREATE INDEX contacts_merged_into ON contacts (tenant_id, merged_into) WHERE merged_into IS NOT NULL;

-- c. Conversations that were folded into another, and those begun outside of Mijra.
ALTER TABLE conversations
    DROP CONSTRAINT conversations_origin_check,
    ADD CONSTRAINT conversations_origin_check CHECK (origin IN ('inbound', 'agent', 'campaign', 'elsewhere')),
    ADD COLUMN merged_into uuid;

-- d. Up to where people received and read what an account wrote to them; kept, because what it was about may be recorded later.
CREATE TABLE watermarks (
    tenant_id uuid NOT NULL,
    contact_id uuid NOT NULL,
    channel_account_id uuid NOT NULL,
    -- All that was sent by then, and when the person's device, or the person, said so.
    delivered_through timestamptz,
    delivered_at timestamptz,
    read_through timestamptz,
    read_at timestamptz,
    PRIMARY KEY (tenant_id, contact_id, channel_account_id),
    FOREIGN KEY (tenant_id, contact_id) REFERENCES contacts (tenant_id, id)
) WITH (fillfactor = 70);

ALTER TABLE provider_refs
    -- The message that was stored because of an echo. Once a send of ours turns out to be it, that takes its place.
    ADD COLUMN echo_message_id uuid,
    -- It was taken back: nothing of it is kept, whichever comes first.
    ADD COLUMN revoked_at timestamptz;

-- What was reported of an id while no send had it: whoever ties it to one takes them. (At the id itself the furthest is noted.)
CREATE TABLE parked_reports (
    tenant_id uuid NOT NULL,
    channel_account_id uuid NOT NULL,
    provider_message_id text NOT NULL,
    state text NOT NULL,
    -- The provider's word, and its time.
    event text NOT NULL,
    at timestamptz NOT NULL,
    code text,
    reason text,
    parked_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, channel_account_id, provider_message_id, event, at)
);
-- The tables' owner is isolated, too, but for this.
ALTER TABLE provider_refs NO FORCE ROW LEVEL SECURITY;
INSERT INTO parked_reports (tenant_id, channel_account_id, provider_message_id, state, event, at, code, reason)
SELECT tenant_id, channel_account_id, provider_message_id, parked_state, parked_state, parked_at, parked_code, parked_reason
FROM provider_refs
WHERE message_id IS NULL AND parked_state IS NOT NULL AND parked_at IS NOT NULL;
ALTER TABLE provider_refs FORCE ROW LEVEL SECURITY;

-- e. What providers say of accounts. Older news never undoes newer.
ALTER TABLE channel_accounts
    -- As domain::channel::Channel::of_account; a test compares the two.
    ADD COLUMN channel text NOT NULL GENERATED ALWAYS AS (
        CASE
            WHEN provider <> 'twilio' THEN provider
            WHEN starts_with(external_id, 'whatsapp:') THEN 'whatsapp'
            ELSE 'sms'
        END
    ) STORED,
    -- How well customers take its messages, in the provider's word.
    ADD COLUMN quality text,
    ADD COLUMN quality_at timestamptz,
    -- What an operator should look at.
    ADD COLUMN alert_code text,
    ADD COLUMN alert_reason text,
    ADD COLUMN alert_at timestamptz,
    -- When the provider, or an operator, last said whether it can send.
    ADD COLUMN state_told_at timestamptz;
ALTER TABLE limits
    -- As an operator set it: what providers say may lower, but not exceed it. NULL: nobody has.
    ADD COLUMN wanted double precision CHECK (wanted > 0),
    -- When the provider last said what it is.
    ADD COLUMN told_at timestamptz;
-- The tables' owner is isolated, too, but for this.
ALTER TABLE limits NO FORCE ROW LEVEL SECURITY;
UPDATE limits SET wanted = rate;
ALTER TABLE limits FORCE ROW LEVEL SECURITY;
ALTER TABLE templates
    ADD COLUMN quality text,
    -- Why it has its status, in the provider's words.
    ADD COLUMN reason text,
    ADD COLUMN status_told_at timestamptz,
    ADD COLUMN quality_told_at timestamptz,
    ADD COLUMN category_told_at timestamptz;

SELECT isolate_tenants(t) FROM unnest(ARRAY['suppressions', 'erased_people', 'watermarks', 'parked_reports']::regclass[]) t;
GRANT SELECT, INSERT, UPDATE ON suppressions, erased_people TO mijra_api, mijra_worker;
GRANT SELECT, INSERT, UPDATE, DELETE ON watermarks TO mijra_api, mijra_worker;
GRANT SELECT, INSERT, DELETE ON parked_reports TO mijra_worker;
GRANT DELETE ON suppressions, contact_aliases TO mijra_api, mijra_worker;
-- Messages are immutable but for this: what a person takes back, or has erased, is gone; those of a folded conversation go where it
-- goes; and one that was stored because of an echo goes when it turns out to be a send of ours.
GRANT UPDATE (conversation_id, text, content, media, refers_to) ON messages TO mijra_api, mijra_worker;
GRANT DELETE ON messages TO mijra_worker;
GRANT UPDATE ON campaign_recipients TO mijra_api;
GRANT INSERT ON trail TO mijra_api;
