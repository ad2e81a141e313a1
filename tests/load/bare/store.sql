-- One batch: what is new becomes a message, and only what is new counts in its conversation. Ordered, because two
-- batches lock conversations at the same time.
WITH incoming AS (
    SELECT *
    FROM unnest($2::uuid[], $3::uuid[], $4::uuid[], $5::text[], $6::text[], $7::timestamptz[], $8::text[])
        AS incoming (id, channel_account_id, conversation_id, sender, provider_message_id, provider_ts, content)
),
stored AS (
    INSERT INTO messages
        (id, tenant_id, channel_account_id, conversation_id, sender, provider_message_id, provider_ts, content)
    SELECT id, $1, channel_account_id, conversation_id, sender, provider_message_id, provider_ts, content::jsonb
    FROM incoming
    ON CONFLICT ON CONSTRAINT messages_provider_message_id_key DO NOTHING
    RETURNING channel_account_id, conversation_id, provider_ts
)
INSERT INTO conversations (id, tenant_id, channel_account_id, unread_count, last_message_at)
SELECT conversation_id, $1, channel_account_id, count(*), max(provider_ts)
FROM stored
GROUP BY conversation_id, channel_account_id
ORDER BY conversation_id
ON CONFLICT (id) DO UPDATE
SET unread_count = conversations.unread_count + excluded.unread_count,
    last_message_at = greatest(conversations.last_message_at, excluded.last_message_at)
