-- Every limit of a provider's is a row of one table: an account's per second, what one person may get, people reached in a day.
ALTER TABLE limits
    DROP CONSTRAINT limits_scope_check,
    -- account: messages a second, key is the account. pair: messages a second to one person, key is the account. portfolio: people
    -- reached outside their window in any 24 hours, key is the portfolio.
    ADD CONSTRAINT limits_scope_check CHECK (scope IN ('account', 'pair', 'portfolio')),
    -- So many at once. An account without one has as many as keep every sliding second within its rate.
    ADD COLUMN burst int CHECK (burst >= 1),
    -- What a send takes of it.
    ADD COLUMN cost double precision NOT NULL DEFAULT 1 CHECK (cost > 0),
    -- What a message that is received takes of it. All accounts so far are WhatsApp's, where both ways count.
    ADD COLUMN inbound_cost double precision NOT NULL DEFAULT 1 CHECK (inbound_cost >= 0),
    -- portfolio: how many people are reached now, as many as it has rows in portfolio_people.
    ADD COLUMN used bigint NOT NULL DEFAULT 0 CHECK (used >= 0),
    -- An answer has been told to wait for its turn until then: no campaign's message takes it.
    ADD COLUMN answers_wait_until timestamptz NOT NULL DEFAULT '-infinity';
ALTER TABLE limits ALTER COLUMN inbound_cost SET DEFAULT 0;

-- How many messages an account received in each of the last sixteen seconds: what is kept free for those to come. A table of its
-- own, because receivers must not wait for a meter that senders hold.
CREATE TABLE received_seconds (
    tenant_id uuid NOT NULL,
    channel_account_id uuid NOT NULL,
    -- The second modulo 16, and the second itself (Unix).
    slot smallint NOT NULL,
    second bigint NOT NULL,
    messages int NOT NULL,
    PRIMARY KEY (tenant_id, channel_account_id, slot)
) WITH (fillfactor = 25, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 500);

-- What a person may get from an account now: when the next message to them would be due at the limit's rate (GCRA).
CREATE TABLE pair_meters (
    tenant_id uuid NOT NULL,
    channel_account_id uuid NOT NULL,
    contact_id uuid NOT NULL,
    next_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, channel_account_id, contact_id)
) WITH (fillfactor = 80);

-- Whom accounts belong to at their provider: limits of a portfolio are shared by its accounts.
CREATE TABLE portfolios (
    tenant_id uuid NOT NULL,
    id uuid NOT NULL,
    provider text NOT NULL,
    -- WhatsApp: the business portfolio's id.
    external_id text NOT NULL,
    PRIMARY KEY (tenant_id, id),
    UNIQUE (tenant_id, provider, external_id)
);
ALTER TABLE channel_accounts
    ADD COLUMN portfolio_id uuid,
    ADD FOREIGN KEY (tenant_id, portfolio_id) REFERENCES portfolios (tenant_id, id);

-- People reached outside their window, and when last: those of the last 24 hours count.
CREATE TABLE portfolio_people (
    tenant_id uuid NOT NULL,
    portfolio_id uuid NOT NULL,
    contact_id uuid NOT NULL,
    reached_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, portfolio_id, contact_id)
);
CREATE INDEX portfolio_people_by_time ON portfolio_people (tenant_id, portfolio_id, reached_at);

SELECT isolate_tenants(t)
FROM unnest(ARRAY['received_seconds', 'pair_meters', 'portfolios', 'portfolio_people']::regclass[]) t;
GRANT SELECT ON received_seconds, portfolios, portfolio_people TO mijra_api;
GRANT SELECT, INSERT, UPDATE ON received_seconds, portfolios TO mijra_worker;
GRANT SELECT, INSERT, UPDATE, DELETE ON pair_meters, portfolio_people TO mijra_worker;
-- Limits are changed through the API, and senders notice by the account's revision.
GRANT INSERT, UPDATE, DELETE ON limits TO mijra_api;
GRANT DELETE ON limits TO mijra_worker;
GRANT UPDATE (revision) ON channel_accounts TO mijra_api;
