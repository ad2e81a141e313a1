-- A batch of messages and reports. Messages as in store.sql; reports find their sends by the provider's id or, up to a time, by
-- who got them, move them on, and are written into their trail.
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
),
rolled_up AS (
    INSERT INTO conversations (id, tenant_id, channel_account_id, unread_count, last_message_at)
    SELECT conversation_id, $1, channel_account_id, count(*), max(provider_ts)
    FROM stored
    GROUP BY conversation_id, channel_account_id
    ORDER BY conversation_id
    ON CONFLICT (id) DO UPDATE
    SET unread_count = conversations.unread_count + excluded.unread_count,
        last_message_at = greatest(conversations.last_message_at, excluded.last_message_at)
),
report AS (
    SELECT s.message_id, r.state, r.at
    FROM unnest($9::uuid[], $10::text[], $11::text[], $12::timestamptz[])
        AS r (channel_account_id, provider_message_id, state, at)
    JOIN sends s USING (channel_account_id, provider_message_id)
    UNION ALL
    SELECT s.message_id, r.state, r.at
    FROM unnest($13::uuid[], $14::text[], $15::text[], $16::timestamptz[], $17::timestamptz[])
        AS r (channel_account_id, recipient, state, at, through)
    JOIN sends s ON s.channel_account_id = r.channel_account_id AND s.recipient = r.recipient AND s.sent_at <= r.through
),
moved AS (
    UPDATE sends s
    SET state = report.state,
        delivered_at = CASE report.state WHEN 'delivered' THEN report.at ELSE s.delivered_at END,
        read_at = CASE report.state WHEN 'read' THEN report.at ELSE s.read_at END,
        failed_at = CASE report.state WHEN 'undelivered' THEN report.at ELSE s.failed_at END
    FROM report
    WHERE s.message_id = report.message_id
)
INSERT INTO trail (tenant_id, message_id, event, at)
SELECT $1, message_id, state, at
FROM report
ON CONFLICT (message_id, event, at) DO NOTHING
