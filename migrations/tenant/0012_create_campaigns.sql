-- Campaigns: their frozen audience, what is shown of them, and the sends that are theirs.
CREATE TABLE campaigns (
    tenant_id uuid NOT NULL,
    id uuid NOT NULL,
    name text NOT NULL CHECK (name <> ''),
    channel_account_id uuid NOT NULL,
    -- draft → running ⇄ paused → completed or cancelled.
    state text NOT NULL DEFAULT 'draft' CHECK (state IN ('draft', 'running', 'paused', 'completed', 'cancelled')),
    -- A text or a template; its words may have variables that each contact fills in.
    content jsonb NOT NULL,
    -- {"all": true} or {"contact_ids": […]}.
    audience jsonb NOT NULL,
    -- Its share of the account beside that of other campaigns.
    weight int NOT NULL DEFAULT 1 CHECK (weight BETWEEN 1 AND 100),
    -- The audience is frozen chunk by chunk, in the order of contacts' ids: this far it is.
    frozen_through uuid,
    frozen_at timestamptz,
    -- How many were frozen, skipped ones included. Written once: what the books are held against.
    frozen_count bigint,
    created_by uuid,
    created_at timestamptz NOT NULL DEFAULT now(),
    started_at timestamptz,
    ended_at timestamptz,
    -- When a scheduler last asked for a release: of several, one a second does.
    release_asked_at timestamptz NOT NULL DEFAULT '-infinity',
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, channel_account_id) REFERENCES channel_accounts (tenant_id, id)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);
CREATE INDEX campaigns_running ON campaigns (tenant_id, channel_account_id) WHERE state = 'running';

-- One row for each person of a frozen audience. What became of one that is released is its send's state.
CREATE TABLE campaign_recipients (
    tenant_id uuid NOT NULL,
    campaign_id uuid NOT NULL,
    contact_id uuid NOT NULL,
    state text NOT NULL CHECK (state IN ('skipped', 'waiting', 'released', 'cancelled')),
    skip_reason text CHECK ((skip_reason IS NOT NULL) = (state = 'skipped')),
    message_id uuid CHECK ((message_id IS NOT NULL) = (state = 'released')),
    PRIMARY KEY (tenant_id, campaign_id, contact_id),
    FOREIGN KEY (tenant_id, campaign_id) REFERENCES campaigns (tenant_id, id),
    FOREIGN KEY (tenant_id, contact_id) REFERENCES contacts (tenant_id, id)
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 5000);
-- Whom to release next.
CREATE INDEX campaign_recipients_waiting ON campaign_recipients (tenant_id, campaign_id, contact_id) WHERE state = 'waiting';

-- What is shown of a campaign; together always as many as are frozen. Kept by whoever moves a recipient or a send, in the same
-- transaction and after everything else in it; the books check it against the rows.
CREATE TABLE campaign_counts (
    tenant_id uuid NOT NULL,
    campaign_id uuid NOT NULL,
    skipped bigint NOT NULL DEFAULT 0,
    waiting bigint NOT NULL DEFAULT 0,
    -- Released, and neither with the provider nor given up.
    in_flight bigint NOT NULL DEFAULT 0,
    unknown bigint NOT NULL DEFAULT 0,
    held bigint NOT NULL DEFAULT 0,
    sent bigint NOT NULL DEFAULT 0,
    delivered bigint NOT NULL DEFAULT 0,
    read bigint NOT NULL DEFAULT 0,
    failed bigint NOT NULL DEFAULT 0,
    cancelled bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant_id, campaign_id),
    FOREIGN KEY (tenant_id, campaign_id) REFERENCES campaigns (tenant_id, id)
) WITH (fillfactor = 20, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

-- The campaign that a send is counted in. One that was replaced by another attempt at the person is counted in none.
ALTER TABLE sends ADD COLUMN campaign_id uuid;

SELECT isolate_tenants(t) FROM unnest(ARRAY['campaigns', 'campaign_recipients', 'campaign_counts']::regclass[]) t;
GRANT SELECT, INSERT, UPDATE ON campaigns, campaign_counts TO mijra_api, mijra_worker;
GRANT SELECT ON campaign_recipients TO mijra_api;
GRANT SELECT, INSERT, UPDATE ON campaign_recipients TO mijra_worker;
