-- What a contact and an account say to each other. Last-message columns, window and counters are stored, kept by
-- commutative updates (the greatest provider time wins), so batches may commit in any order.
CREATE TABLE conversations (
    tenant_id uuid NOT NULL,
    id uuid NOT NULL,
    contact_id uuid NOT NULL,
    channel_account_id uuid NOT NULL,
    state text NOT NULL CHECK (state IN ('new', 'open', 'pending', 'snoozed', 'resolved')),
    origin text NOT NULL CHECK (origin IN ('inbound', 'agent', 'campaign')),
    -- Made by a campaign and not answered yet: not in anybody's inbox.
    listed boolean NOT NULL DEFAULT true,
    unread int NOT NULL DEFAULT 0,
    messages_in int NOT NULL DEFAULT 0,
    messages_out int NOT NULL DEFAULT 0,
    last_message_at timestamptz NOT NULL,
    last_message_text text,
    last_message_direction text NOT NULL,
    last_inbound_at timestamptz,
    -- Free words may be sent until then (the provider's customer service window).
    window_expires_at timestamptz,
    -- The order in which the sends of this conversation were accepted.
    last_send_seq bigint NOT NULL DEFAULT 0,
    resolved_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, contact_id) REFERENCES contacts (tenant_id, id),
    FOREIGN KEY (tenant_id, channel_account_id) REFERENCES channel_accounts (tenant_id, id)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05);
-- At most one open conversation per contact and account.
CREATE UNIQUE INDEX conversations_one_open ON conversations (tenant_id, contact_id, channel_account_id) WHERE state <> 'resolved';
CREATE INDEX conversations_of_contact ON conversations (tenant_id, contact_id, channel_account_id, resolved_at) WHERE state = 'resolved';
-- The inbox. Costs each update its HOT chance (about a sixth more CPU), and is what an agent looks at all day.
CREATE INDEX conversations_inbox ON conversations (tenant_id, last_message_at DESC, id DESC) WHERE listed;

-- Immutable after insert; what moves (a send's state) is in a narrow table of its own.
CREATE TABLE messages (
    tenant_id uuid NOT NULL,
    id uuid NOT NULL,
    conversation_id uuid NOT NULL,
    direction text NOT NULL CHECK (direction IN ('in', 'out')),
    kind text NOT NULL,
    text text,
    -- In: the provider's element as it came. Out: what we were asked to send.
    content jsonb NOT NULL,
    media jsonb,
    -- The provider's id of the message this one answers, reacts to, edits or revokes.
    refers_to text,
    -- The provider's id, of inbound messages (an outbound one's is its send's).
    provider_message_id text,
    -- The provider's time (in), the time of acceptance (out): what a conversation is ordered by.
    at timestamptz NOT NULL,
    author uuid,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, conversation_id) REFERENCES conversations (tenant_id, id)
);
CREATE INDEX messages_of_conversation ON messages (tenant_id, conversation_id, at DESC, id DESC);

-- A provider's id of a message is at once the dedupe key and where a status and its send meet: both sides upsert it,
-- whichever comes first waits here for the other. No foreign key: the status may be first.
CREATE TABLE provider_refs (
    tenant_id uuid NOT NULL,
    channel_account_id uuid NOT NULL,
    provider_message_id text NOT NULL,
    message_id uuid,
    -- The furthest status reported while no send was known.
    parked_state text,
    parked_at timestamptz,
    parked_code text,
    parked_reason text,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, channel_account_id, provider_message_id)
);

SELECT isolate_tenants(t) FROM unnest(ARRAY['conversations', 'messages', 'provider_refs']::regclass[]) t;
GRANT SELECT, INSERT, UPDATE ON conversations TO mijra_api, mijra_worker;
GRANT SELECT, INSERT ON messages TO mijra_api, mijra_worker;
GRANT SELECT, INSERT, UPDATE ON provider_refs TO mijra_worker;
GRANT SELECT ON provider_refs TO mijra_api;
