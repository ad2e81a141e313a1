-- Accounts change as their providers say, each thing only if it is newer than what is known; of two things said at the same time
-- always the same one holds. A call that was refused, and an operator who brought an account back, are news of their own time.
WITH told AS MATERIALIZED (
    SELECT a.tenant_id, a.id, a.state AS before, n.quality, n.alert_code, n.alert_reason, n.up, n.code, n.reason, n.quality_at, n.state_at,
        n.alert_at, n.revise,
        (n.quality_at, n.quality) > (coalesce(a.quality_at, '-infinity'), coalesce(a.quality, '')) AS is_quality,
        (n.alert_at, n.alert_code, n.alert_reason)
            > (coalesce(a.alert_at, '-infinity'), coalesce(a.alert_code, ''), coalesce(a.alert_reason, '')) AS is_alert,
        n.state_at > known.at OR (n.state_at = known.at AND NOT n.up) AS is_state
    FROM unnest(
        $1::uuid[], $2::uuid[], $3::text[], $4::timestamptz[], $5::bool[], $6::text[], $7::text[], $8::timestamptz[], $9::text[],
        $10::text[], $11::timestamptz[], $12::bool[]
    ) AS n (
        tenant_id, id, quality, quality_at, up, code, reason, state_at, alert_code, alert_reason, alert_at, revise
    )
    JOIN channel_accounts a ON a.tenant_id = n.tenant_id AND a.id = n.id
    CROSS JOIN LATERAL (
        SELECT greatest(a.state_told_at, CASE WHEN n.up THEN a.down_at END, '-infinity') AS at
    ) AS known
    ORDER BY a.tenant_id, a.id
    FOR NO KEY UPDATE OF a
)
UPDATE channel_accounts a
SET quality = CASE WHEN is_quality THEN told.quality ELSE a.quality END,
    quality_at = CASE WHEN is_quality THEN told.quality_at ELSE a.quality_at END,
    alert_code = CASE WHEN is_alert THEN told.alert_code ELSE a.alert_code END,
    alert_reason = CASE WHEN is_alert THEN told.alert_reason ELSE a.alert_reason END,
    alert_at = CASE WHEN is_alert THEN told.alert_at ELSE a.alert_at END,
    state = CASE
        WHEN is_state AND NOT told.up AND a.state = 'active' THEN 'down'
        WHEN is_state AND told.up AND a.state = 'down' THEN 'active'
        ELSE a.state
    END,
    down_code = CASE WHEN is_state THEN CASE WHEN NOT told.up AND a.state <> 'disabled' THEN told.code END ELSE a.down_code END,
    down_reason = CASE WHEN is_state THEN CASE WHEN NOT told.up AND a.state <> 'disabled' THEN told.reason END ELSE a.down_reason END,
    down_at = CASE WHEN is_state THEN CASE WHEN NOT told.up AND a.state <> 'disabled' THEN told.state_at END ELSE a.down_at END,
    -- What comes back, and what is told to be down, is not tried for what it was down with before.
    probes = CASE WHEN is_state AND (told.up OR a.state = 'active') THEN 0 ELSE a.probes END,
    probe_at = CASE WHEN is_state AND (told.up OR a.state = 'active') THEN NULL ELSE a.probe_at END,
    probe_with = CASE WHEN is_state AND (told.up OR a.state = 'active') THEN NULL ELSE a.probe_with END,
    state_told_at = CASE WHEN is_state THEN told.state_at ELSE a.state_told_at END,
    -- What was called for before it came back says nothing about it any more.
    revision = a.revision + CASE WHEN told.revise OR (is_state AND told.up AND a.state = 'down') THEN 1 ELSE 0 END
FROM told
WHERE a.tenant_id = told.tenant_id AND a.id = told.id
RETURNING a.tenant_id, a.id, told.before, a.state, now() AS "now!"
