-- One message's way to the provider. No column that changes is indexed, so that every change is a HOT update.
CREATE TABLE sends (
    tenant_id uuid NOT NULL,
    message_id uuid NOT NULL,
    conversation_id uuid NOT NULL,
    channel_account_id uuid NOT NULL,
    -- Order within the conversation, as accepted.
    seq bigint NOT NULL,
    -- 0: people and automation. 1: campaigns.
    lane smallint NOT NULL DEFAULT 0,
    recipient_kind text NOT NULL,
    recipient text NOT NULL,
    needs_window boolean NOT NULL,
    state text NOT NULL CHECK (state IN ('waiting', 'queued', 'sending', 'unknown', 'held', 'sent', 'delivered', 'read', 'failed', 'cancelled')),
    wait_reason text,
    due_at timestamptz,
    attempt_id uuid,
    attempts int NOT NULL DEFAULT 0,
    granted_at timestamptz,
    deadline timestamptz,
    unknown_at timestamptz,
    -- An unknown send stops holding up its conversation after 30 s.
    turn_released boolean NOT NULL DEFAULT false,
    -- Sent again although an earlier attempt may have arrived.
    possibly_doubled boolean NOT NULL DEFAULT false,
    provider_message_id text,
    code text,
    reason text,
    sent_at timestamptz,
    delivered_at timestamptz,
    read_at timestamptz,
    failed_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, message_id),
    FOREIGN KEY (tenant_id, message_id) REFERENCES messages (tenant_id, id)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05);
CREATE INDEX sends_of_conversation ON sends (tenant_id, conversation_id, seq);

-- One row for each attempt that ended, however it ended. One under way is on the send's own row.
CREATE TABLE send_attempts (
    tenant_id uuid NOT NULL,
    message_id uuid NOT NULL,
    id uuid NOT NULL,
    number int NOT NULL,
    -- accepted, not_sent, unknown, failed, needs_template, account_down, given_back, expired
    outcome text NOT NULL,
    code text,
    reason text,
    granted_at timestamptz,
    ended_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, message_id, id)
);

-- What a provider reported and what we decided, in order, for a person who asks what became of a message.
CREATE TABLE trail (
    tenant_id uuid NOT NULL,
    message_id uuid NOT NULL,
    event text NOT NULL,
    at timestamptz NOT NULL,
    code text,
    reason text,
    recorded_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, message_id, event, at)
) PARTITION BY RANGE (at);

-- Every webhook as it came, for who wants to know or to play it again.
CREATE TABLE webhook_log (
    tenant_id uuid NOT NULL,
    received_at timestamptz NOT NULL,
    webhook_id uuid NOT NULL,
    provider text NOT NULL,
    channel_account_id uuid,
    -- stored, duplicate, notice, partly_bad …
    outcome text NOT NULL,
    detail text,
    body_lz4 bytea NOT NULL,
    body_bytes int NOT NULL,
    PRIMARY KEY (tenant_id, received_at, webhook_id)
) PARTITION BY RANGE (received_at);
ALTER TABLE webhook_log ALTER COLUMN body_lz4 SET STORAGE EXTERNAL;

-- Jobs written in the transaction that makes them due: published right after commit and deleted on confirm, or by the
-- sweep (a crash came between, or they are due later: a retry is a row here).
CREATE TABLE outbox (
    tenant_id uuid NOT NULL,
    id uuid NOT NULL,
    queue text NOT NULL,
    job jsonb NOT NULL,
    body bytea NOT NULL,
    publish_after timestamptz NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, id)
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000);
CREATE INDEX outbox_due ON outbox (publish_after);

-- What an API call with an Idempotency-Key answered.
CREATE TABLE idempotency_keys (
    tenant_id uuid NOT NULL,
    key text NOT NULL CHECK (length(key) BETWEEN 1 AND 255),
    request_digest bytea NOT NULL,
    status smallint NOT NULL,
    response jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, key)
);
CREATE INDEX idempotency_keys_created_at ON idempotency_keys (created_at);

SELECT isolate_tenants(t) FROM unnest(ARRAY['sends', 'send_attempts', 'trail', 'webhook_log', 'outbox', 'idempotency_keys']::regclass[]) t;
GRANT SELECT, INSERT, UPDATE ON sends TO mijra_api, mijra_worker;
GRANT SELECT, INSERT, UPDATE ON send_attempts TO mijra_worker;
GRANT SELECT, INSERT ON trail TO mijra_worker;
GRANT SELECT ON send_attempts, trail, webhook_log TO mijra_api;
GRANT SELECT, INSERT ON webhook_log TO mijra_worker;
GRANT SELECT, INSERT, DELETE ON outbox TO mijra_api;
GRANT SELECT, INSERT, UPDATE, DELETE ON outbox TO mijra_worker;
GRANT SELECT, INSERT ON idempotency_keys TO mijra_api;
GRANT SELECT, DELETE ON idempotency_keys TO mijra_worker;
