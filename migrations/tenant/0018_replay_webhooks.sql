-- The log is searched and played again: the rest of what the receiver knew of a webhook, and what is being played again.
-- Every partition is locked for the moment that it takes; whoever cannot have that in time tries again, for everybody else waits.
SET LOCAL lock_timeout = '5s';
ALTER TABLE webhook_log
    -- The query of the URL it was sent to, where the provider says something there.
    ADD COLUMN query text;

-- Webhooks being published once more: which, and how far it is. Whoever goes on with one locks its row.
CREATE TABLE webhook_replays (
    tenant_id uuid NOT NULL,
    id uuid NOT NULL,
    state text NOT NULL DEFAULT 'counting' CHECK (state IN ('counting', 'running', 'completed', 'stopped')),
    since timestamptz NOT NULL,
    until timestamptz NOT NULL,
    provider text,
    outcome text,
    channel_account_id uuid,
    -- The token of the API that asked for it; NULL: an operator at the command line.
    token_id uuid,
    asked_at timestamptz NOT NULL DEFAULT now(),
    -- When it had been counted.
    started_at timestamptz,
    ended_at timestamptz,
    worked_at timestamptz NOT NULL DEFAULT now(),
    -- The last webhook that has been counted, then the last that has been published.
    behind_at timestamptz,
    behind_id uuid,
    -- How many there are, have been published, and could not be.
    selected bigint NOT NULL DEFAULT 0,
    published bigint NOT NULL DEFAULT 0,
    unreadable bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant_id, id),
    CHECK (since < until),
    CHECK ((behind_at IS NULL) = (behind_id IS NULL)),
    CHECK ((ended_at IS NULL) = (state IN ('counting', 'running')))
);
CREATE UNIQUE INDEX webhook_replays_one_at_a_time ON webhook_replays (tenant_id) WHERE state IN ('counting', 'running');
SELECT isolate_tenants('webhook_replays');
GRANT SELECT, INSERT ON webhook_replays TO mijra_api;
GRANT SELECT, INSERT, UPDATE ON webhook_replays TO mijra_worker;
