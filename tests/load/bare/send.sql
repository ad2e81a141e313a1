-- The table of the bare send loop: a send's whole life in one narrow row, updated in place.
CREATE TABLE sends (
    id uuid PRIMARY KEY,
    tenant_id uuid NOT NULL,
    conversation_id uuid NOT NULL,
    recipient text NOT NULL,
    content text NOT NULL,
    state text NOT NULL DEFAULT 'queued',
    attempt_id uuid,
    deadline timestamptz,
    provider_message_id text,
    settled_at timestamptz
) WITH (fillfactor = 70);
