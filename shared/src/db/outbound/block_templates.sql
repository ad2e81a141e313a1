-- Templates that were refused get the status that the refusal says, on every account that shares them, and the campaigns that run with
-- them are paused; without a status all that run with a template are. What was told or fetched since the attempt stands: a refusal
-- from before says nothing about a template that has come back.
WITH refused AS MATERIALIZED (
    SELECT m.tenant_id, s.id AS account_id, m.content ->> 'name' AS name, coalesce(m.content ->> 'language', '') AS language,
        r.status, max(r.code) AS code, max(r.reason) AS reason, max(coalesce(r.as_of, clock_timestamp())) AS as_of,
        -- What was fetched and found unchanged is not written anew.
        max(s.templates_synced_at) AS fetched_at
    FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::timestamptz[])
        AS r (tenant_id, message_id, status, code, reason, as_of)
    JOIN messages m ON m.tenant_id = r.tenant_id AND m.id = r.message_id
    JOIN sends ON sends.tenant_id = r.tenant_id AND sends.message_id = r.message_id
    JOIN channel_accounts a ON a.tenant_id = r.tenant_id AND a.id = sends.channel_account_id
    JOIN channel_accounts s
        ON s.tenant_id = a.tenant_id
        AND (s.id = a.id OR (s.provider = a.provider AND s.business_account_id = a.business_account_id))
    WHERE m.content ->> 'type' = 'template'
    GROUP BY 1, 2, 3, 4, 5
),
known AS MATERIALIZED (
    SELECT t.tenant_id, t.channel_account_id, t.name, t.language, r.status, r.code, r.reason, r.as_of,
        coalesce(greatest(t.status_told_at, t.synced_at, r.fetched_at), '-infinity') <= r.as_of AS is_news,
        t.status = 'APPROVED' AND greatest(t.status_told_at, t.synced_at, r.fetched_at) > r.as_of AS is_back
    FROM refused r
    JOIN templates t
        ON t.tenant_id = r.tenant_id AND t.channel_account_id = r.account_id AND t.name = r.name AND r.language IN ('', t.language)
    ORDER BY t.tenant_id, t.channel_account_id, t.name, t.language
    FOR UPDATE OF t
),
blocked AS (
    UPDATE templates t
    -- As of the attempt: what is told of the time since, and comes later, is news.
    SET status = known.status, reason = known.reason, status_told_at = known.as_of
    FROM known
    WHERE t.tenant_id = known.tenant_id AND t.channel_account_id = known.channel_account_id AND t.name = known.name
        AND t.language = known.language AND known.status IS NOT NULL AND t.status <> known.status AND known.is_news
),
running AS MATERIALIZED (
    SELECT c.tenant_id, c.id, r.code, r.reason
    FROM refused r
    JOIN campaigns c ON c.tenant_id = r.tenant_id AND c.channel_account_id = r.account_id
    WHERE c.state = 'running' AND c.content ->> 'type' = 'template'
        AND (r.status IS NULL OR (
            c.content ->> 'name' = r.name AND (r.language = '' OR coalesce(c.content ->> 'language', '') IN ('', r.language))
        ))
        AND NOT EXISTS (
            SELECT FROM known k
            WHERE k.is_back AND k.tenant_id = r.tenant_id AND k.channel_account_id = r.account_id AND k.name = r.name
                AND k.status IS NOT DISTINCT FROM r.status
        )
    ORDER BY c.tenant_id, c.id
    FOR NO KEY UPDATE OF c
)
UPDATE campaigns c
SET state = 'paused', paused_code = running.code, paused_reason = running.reason, sampled_at = NULL, sampled_before_at = NULL,
    sampled_handed_over = NULL, sampled_before_handed_over = NULL
FROM running
WHERE c.tenant_id = running.tenant_id AND c.id = running.id
RETURNING c.id AS "id: CampaignId", running.code AS "code!"
