-- One message each to people who had got none.
WITH known AS (
    SELECT *
    FROM unnest($2::uuid[], $3::uuid[], $4::uuid[], $5::text[], $6::text[])
        AS known (message_id, channel_account_id, conversation_id, recipient, provider_message_id)
),
message AS (
    INSERT INTO messages
        (id, tenant_id, channel_account_id, conversation_id, sender, provider_message_id, provider_ts, content)
    SELECT message_id, $1, channel_account_id, conversation_id, recipient, provider_message_id, to_timestamp($7), '{}'
    FROM known
),
conversation AS (
    INSERT INTO conversations (id, tenant_id, channel_account_id, unread_count, last_message_at)
    SELECT conversation_id, $1, channel_account_id, 0, to_timestamp($7)
    FROM known
)
INSERT INTO sends
    (message_id, tenant_id, channel_account_id, conversation_id, recipient, provider_message_id, state, sent_at)
SELECT message_id, $1, channel_account_id, conversation_id, recipient, provider_message_id, 'sent', to_timestamp($7)
FROM known
