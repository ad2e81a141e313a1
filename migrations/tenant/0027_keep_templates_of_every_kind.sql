-- Templates of Twilio beside WhatsApp's, and a tenant's own; in which language people are written to; how often each is used.
--
-- Until now a template was known by its account, name and language. It gets an id of its own, because a tenant's own belong to no account.
-- (Keys are swapped under the table's lock; there are some thousand templates at most.)
SET LOCAL lock_timeout = '5s';
ALTER TABLE templates
    ADD COLUMN id uuid NOT NULL DEFAULT gen_random_uuid(),
    -- provider: as last fetched from there. local: the tenant's own, words to be filled in and sent as any others.
    ADD COLUMN kind text NOT NULL DEFAULT 'provider' CHECK (kind IN ('provider', 'local')),
    -- WhatsApp: the template's id; Twilio: the content's SID, by which it is sent.
    ADD COLUMN provider_id text,
    -- As the provider describes it: header, footer, buttons.
    ADD COLUMN components jsonb,
    -- What is to be made at the provider, and what became of that if it came to nothing: {"code", "field", "message"}. Meanwhile the status
    -- is a word of ours: QUEUED, CALLING, REFUSED; DELETING.
    ADD COLUMN request jsonb,
    ADD COLUMN problem jsonb,
    -- local: the uploaded files that go with the words.
    ADD COLUMN files uuid[] NOT NULL DEFAULT '{}',
    ADD COLUMN created_at timestamptz NOT NULL DEFAULT now();
ALTER TABLE templates DROP CONSTRAINT templates_pkey;
ALTER TABLE templates ALTER COLUMN channel_account_id DROP NOT NULL;
ALTER TABLE templates
    ADD PRIMARY KEY (tenant_id, id),
    ADD CONSTRAINT templates_name_key UNIQUE (tenant_id, channel_account_id, name, language),
    ADD CONSTRAINT templates_owner_check CHECK ((kind = 'local') = (channel_account_id IS NULL));
CREATE UNIQUE INDEX templates_local_key ON templates (tenant_id, name, language) WHERE channel_account_id IS NULL;
CREATE INDEX templates_by_age ON templates (tenant_id, created_at DESC, id DESC);
CREATE INDEX templates_by_provider_id ON templates (tenant_id, channel_account_id, provider_id);
-- The API makes and changes a tenant's own, and writes down what it has made at a provider.
GRANT INSERT, UPDATE, DELETE ON templates TO mijra_api;

ALTER TABLE channel_accounts
    -- When its templates were last asked for, and when a webhook last named one that nobody knew.
    ADD COLUMN templates_asked_at timestamptz,
    ADD COLUMN templates_stale_at timestamptz,
    -- Why they could not be fetched the last time.
    ADD COLUMN templates_failure text;
GRANT UPDATE (templates_asked_at) ON channel_accounts TO mijra_api;

-- BCP 47, as providers spell it: en, en_US, pt-BR.
ALTER TABLE contacts ADD COLUMN language text;
-- Nobody has one yet: nothing is looked through.
ALTER TABLE contacts
    ADD CONSTRAINT contacts_language_check CHECK (language ~ '^[A-Za-z]{2,3}([-_][A-Za-z0-9]{2,8})*$') NOT VALID;
ALTER TABLE tenant_settings
    ADD COLUMN default_language text CHECK (default_language ~ '^[A-Za-z]{2,3}([-_][A-Za-z0-9]{2,8})*$');

-- The tenant's own template whose words a campaign says, to be counted.
ALTER TABLE campaigns ADD COLUMN template_id uuid;

-- How many messages a template was accepted for, by the day (what is older than 30 days stands together on the first of 1970); in several rows, so that those who send it at once do not wait for each
-- other. Without a foreign key: who counts does not wait for who fetches.
CREATE TABLE template_uses (
    tenant_id uuid NOT NULL,
    template_id uuid NOT NULL,
    day date NOT NULL,
    slot smallint NOT NULL,
    uses bigint NOT NULL,
    PRIMARY KEY (tenant_id, template_id, day, slot)
) WITH (fillfactor = 50);
SELECT isolate_tenants('template_uses');
GRANT SELECT, INSERT, UPDATE, DELETE ON template_uses TO mijra_api, mijra_worker;
