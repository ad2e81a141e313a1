
-- Beside them what had been sent, found by the provider's id or by who got it, and what became of it.
CREATE TABLE sends (
    message_id uuid PRIMARY KEY,
    tenant_id uuid NOT NULL,
    channel_account_id uuid NOT NULL,
    conversation_id uuid NOT NULL,
    recipient text NOT NULL,
    provider_message_id text NOT NULL,
    state text NOT NULL,
    sent_at timestamptz NOT NULL,
    delivered_at timestamptz,
    read_at timestamptz,
    failed_at timestamptz,
    CONSTRAINT sends_provider_message_id_key UNIQUE (channel_account_id, provider_message_id)
) WITH (fillfactor = 50);

CREATE INDEX sends_recipient_idx ON sends (channel_account_id, recipient);

CREATE TABLE trail (
    tenant_id uuid NOT NULL,
    message_id uuid NOT NULL,
    event text NOT NULL,
    at timestamptz NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (message_id, event, at)
);
