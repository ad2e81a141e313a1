-- Templates change as their provider says, on every account that shares them, each thing only if it is newer than what is known.
-- What was fetched since counts for what it says (status and category); the provider's times are whole seconds.
WITH told AS MATERIALIZED (
    SELECT t.tenant_id, t.channel_account_id, t.name, t.language, n.status, n.reason, n.quality, n.category,
        n.status_at, n.quality_at, n.category_at,
        (n.status_at, n.status) > (coalesce(t.status_told_at, '-infinity'), CASE WHEN t.status_told_at IS NULL THEN '' ELSE t.status END)
            AND n.status_at >= date_trunc('second', greatest(t.synced_at, s.templates_synced_at))
            AND t.status <> 'DELETING' AS is_status,
        (n.quality_at, n.quality) > (coalesce(t.quality_told_at, '-infinity'), coalesce(t.quality, '')) AS is_quality,
        (n.category_at, n.category)
            > (coalesce(t.category_told_at, '-infinity'), CASE WHEN t.category_told_at IS NULL THEN '' ELSE t.category END)
            AND n.category_at >= date_trunc('second', greatest(t.synced_at, s.templates_synced_at)) AS is_category
    FROM unnest(
        $1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::timestamptz[], $8::text[], $9::timestamptz[],
        $10::text[], $11::timestamptz[]
    ) AS n (
        tenant_id, account_id, name, language, status, reason, status_at, quality, quality_at, category, category_at
    )
    JOIN channel_accounts a ON a.tenant_id = n.tenant_id AND a.id = n.account_id
    JOIN channel_accounts s
        ON s.tenant_id = a.tenant_id
        AND (s.id = a.id OR (s.provider = a.provider AND s.business_account_id = a.business_account_id))
    JOIN templates t
        ON t.tenant_id = s.tenant_id AND t.channel_account_id = s.id AND t.name = n.name AND t.language = n.language
    ORDER BY t.tenant_id, t.channel_account_id, t.name, t.language
    FOR UPDATE OF t
)
UPDATE templates t
SET status = CASE WHEN is_status THEN told.status ELSE t.status END,
    reason = CASE WHEN is_status THEN told.reason ELSE t.reason END,
    status_told_at = CASE WHEN is_status THEN told.status_at ELSE t.status_told_at END,
    quality = CASE WHEN is_quality THEN told.quality ELSE t.quality END,
    quality_told_at = CASE WHEN is_quality THEN told.quality_at ELSE t.quality_told_at END,
    category = CASE WHEN is_category THEN told.category ELSE t.category END,
    category_told_at = CASE WHEN is_category THEN told.category_at ELSE t.category_told_at END
FROM told
WHERE t.tenant_id = told.tenant_id AND t.channel_account_id = told.channel_account_id AND t.name = told.name
    AND t.language = told.language
