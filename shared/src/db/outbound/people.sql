-- Whom sends go to, and how the limits stand that are about this person: the pair's meter, and whether the account's portfolio has
-- reached them within 24 hours. Only where an account has such a limit.
SELECT
    asked.tenant_id AS "tenant_id!", asked.message_id AS "message_id!", c.contact_id AS "contact_id!",
    coalesce(c.window_expires_at > $4::timestamptz, false) AS "window_open!", greatest(pair.next_at, $4::timestamptz) AS "pair_next_at!",
    reached.reached_at IS NOT NULL AS "reached!"
FROM unnest($1::uuid[], $2::uuid[], $3::uuid[]) AS asked (tenant_id, message_id, portfolio_id)
CROSS JOIN LATERAL (
    SELECT conversation_id, channel_account_id FROM sends WHERE tenant_id = asked.tenant_id AND message_id = asked.message_id LIMIT 1
) AS s
CROSS JOIN LATERAL (
    SELECT contact_id, window_expires_at FROM conversations WHERE tenant_id = asked.tenant_id AND id = s.conversation_id LIMIT 1
) AS c
LEFT JOIN LATERAL (
    SELECT next_at
    FROM pair_meters
    WHERE tenant_id = asked.tenant_id AND channel_account_id = s.channel_account_id AND contact_id = c.contact_id
    LIMIT 1
) AS pair ON true
LEFT JOIN LATERAL (
    SELECT reached_at
    FROM portfolio_people
    WHERE tenant_id = asked.tenant_id AND portfolio_id = asked.portfolio_id AND contact_id = c.contact_id
        AND reached_at > $4::timestamptz - interval '24 hours'
    LIMIT 1
) AS reached ON true
