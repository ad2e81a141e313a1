-- What the receiver keeps when it cannot simply publish.

-- Accepted while the broker was away; swept back into the queue and deleted there.
CREATE TABLE control.spill (
    id uuid PRIMARY KEY,
    meta jsonb NOT NULL,
    body bytea NOT NULL,
    spilled_at timestamptz NOT NULL DEFAULT now()
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000);

-- Bodies too large for the broker: the job refers to them. Kept as long as a dead letter may still want them.
CREATE TABLE control.large_bodies (
    webhook_id uuid PRIMARY KEY,
    body bytea NOT NULL,
    stored_at timestamptz NOT NULL DEFAULT now()
);
ALTER TABLE control.large_bodies ALTER COLUMN body SET STORAGE EXTERNAL;
CREATE INDEX large_bodies_stored_at ON control.large_bodies (stored_at);

-- Webhooks whose signature did not fit: bounded in size (at most 64 KiB of each) and number (by endpoint and source).
CREATE TABLE control.quarantine (
    id uuid PRIMARY KEY,
    provider text NOT NULL,
    -- The key in the URL, or '' for the platform's endpoint.
    endpoint text NOT NULL,
    source text NOT NULL,
    reason text NOT NULL,
    signature text,
    body bytea NOT NULL CHECK (octet_length(body) <= 65536),
    body_bytes bigint NOT NULL,
    received_at timestamptz NOT NULL
);
CREATE INDEX quarantine_by_source ON control.quarantine (endpoint, source, received_at DESC);
CREATE INDEX quarantine_by_endpoint ON control.quarantine (endpoint, received_at DESC);

-- Webhooks for an account nobody has: answered 200 (the provider would only repeat them) and shown to the operator.
CREATE TABLE control.unroutable (
    webhook_id uuid NOT NULL,
    provider text NOT NULL,
    external_id text NOT NULL,
    received_at timestamptz NOT NULL,
    body_lz4 bytea NOT NULL,
    PRIMARY KEY (webhook_id, external_id)
);
CREATE INDEX unroutable_received_at ON control.unroutable (received_at);

-- Jobs that belong to no tenant and are due later (a retry of an inbound bundle).
CREATE TABLE control.outbox (
    id uuid PRIMARY KEY,
    queue text NOT NULL,
    job jsonb NOT NULL,
    body bytea NOT NULL,
    publish_after timestamptz NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000);
CREATE INDEX outbox_due ON control.outbox (publish_after);

GRANT SELECT, INSERT, DELETE ON control.spill, control.large_bodies, control.quarantine TO mijra_api;
GRANT SELECT, INSERT, UPDATE, DELETE ON control.spill, control.large_bodies, control.quarantine, control.unroutable, control.outbox TO mijra_worker;
GRANT SELECT, INSERT, DELETE ON control.outbox TO mijra_api;
