-- The tables of the bare chain: one of messages with three indexes, one of conversations that the inbox lists by time.
CREATE TABLE messages (
    id uuid PRIMARY KEY,
    tenant_id uuid NOT NULL,
    channel_account_id uuid NOT NULL,
    conversation_id uuid NOT NULL,
    sender text NOT NULL,
    provider_message_id text NOT NULL,
    provider_ts timestamptz NOT NULL,
    received_at timestamptz NOT NULL DEFAULT now(),
    content jsonb NOT NULL,
    CONSTRAINT messages_provider_message_id_key UNIQUE (channel_account_id, provider_message_id)
);

CREATE INDEX messages_conversation_idx ON messages (conversation_id, provider_ts DESC);

CREATE TABLE conversations (
    id uuid PRIMARY KEY,
    tenant_id uuid NOT NULL,
    channel_account_id uuid NOT NULL,
    unread_count integer NOT NULL,
    last_message_at timestamptz NOT NULL
);

CREATE INDEX conversations_inbox_idx ON conversations (tenant_id, last_message_at);
