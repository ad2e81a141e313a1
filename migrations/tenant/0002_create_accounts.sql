-- A tenant's settings, its channel accounts, their limits and templates, and the tokens of its API.
CREATE TABLE tenant_settings (
    tenant_id uuid PRIMARY KEY,
    -- A customer's message reopens a conversation resolved less than this long ago; else a new one starts.
    reopen_within interval NOT NULL DEFAULT '7 days',
    -- ISO 3166-1 alpha-2: assumed for telephone numbers written without a country code.
    default_region text CHECK (default_region ~ '^[A-Z]{2}$')
);

CREATE TABLE channel_accounts (
    tenant_id uuid NOT NULL,
    id uuid NOT NULL,
    provider text NOT NULL,
    name text NOT NULL,
    -- WhatsApp: phone_number_id and the business account (two columns: Meta is separating them).
    external_id text NOT NULL,
    business_account_id text,
    display_address text,
    -- Sealed: {"access_token": …}
    sealed_secrets bytea NOT NULL,
    secret_key_id text NOT NULL,
    state text NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'down', 'disabled')),
    down_code text,
    down_reason text,
    down_at timestamptz,
    -- What becomes of a send whose fate stays unknown: held for a person, or sent again and marked possibly doubled.
    when_unknown text NOT NULL DEFAULT 'hold' CHECK (when_unknown IN ('hold', 'resend')),
    templates_synced_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, id),
    CONSTRAINT channel_accounts_external_key UNIQUE (tenant_id, provider, external_id)
);

CREATE TABLE templates (
    tenant_id uuid NOT NULL,
    channel_account_id uuid NOT NULL,
    name text NOT NULL,
    language text NOT NULL,
    status text NOT NULL,
    category text NOT NULL,
    body text NOT NULL,
    variables int NOT NULL,
    synced_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, channel_account_id, name, language),
    FOREIGN KEY (tenant_id, channel_account_id) REFERENCES channel_accounts (tenant_id, id)
);

-- One row a limit: so many a second for this key of this scope, metered by GCRA on this database's clock.
CREATE TABLE limits (
    tenant_id uuid NOT NULL,
    scope text NOT NULL CHECK (scope IN ('account')),
    key uuid NOT NULL,
    -- As configured, and as lowered by the provider's throttling for now; per second.
    rate double precision NOT NULL CHECK (rate > 0),
    current_rate double precision NOT NULL CHECK (current_rate > 0),
    -- Theoretical arrival time of the next grant (GCRA).
    next_at timestamptz NOT NULL DEFAULT '-infinity',
    -- Nothing is granted before this (Retry-After).
    stopped_until timestamptz NOT NULL DEFAULT '-infinity',
    lowered_at timestamptz,
    PRIMARY KEY (tenant_id, scope, key)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 500);

CREATE TABLE api_tokens (
    tenant_id uuid NOT NULL,
    id uuid NOT NULL,
    name text NOT NULL,
    -- SHA-256 of 256 random bits: nothing to guess, so nothing to slow down.
    digest bytea NOT NULL CHECK (octet_length(digest) = 32),
    permissions text[] NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz,
    revoked_at timestamptz,
    PRIMARY KEY (tenant_id, id),
    CONSTRAINT api_tokens_digest_key UNIQUE (tenant_id, digest)
);

SELECT isolate_tenants(t) FROM unnest(ARRAY['tenant_settings', 'channel_accounts', 'templates', 'limits', 'api_tokens']::regclass[]) t;
GRANT SELECT ON tenant_settings, channel_accounts, templates, limits, api_tokens TO mijra_api, mijra_worker;
GRANT INSERT, UPDATE ON channel_accounts, limits, templates TO mijra_worker;
GRANT DELETE ON templates TO mijra_worker;
GRANT INSERT, UPDATE ON tenant_settings, api_tokens TO mijra_operator;
