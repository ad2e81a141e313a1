-- Claims sends for attempts, as of a moment. One that another worker has claimed meanwhile, or has called for in vain and put
-- off, is missing from the answer.
WITH granted AS (
    UPDATE sends s
    SET state = 'sending', attempt_id = claim.attempt_id, attempts = s.attempts + 1, granted_at = $4::timestamptz,
        deadline = $4::timestamptz + make_interval(secs => $5), wait_reason = NULL, due_at = NULL, updated_at = $4::timestamptz
    FROM unnest($1::uuid[], $2::uuid[], $3::uuid[]) AS claim (tenant_id, message_id, attempt_id)
    WHERE s.tenant_id = claim.tenant_id AND s.message_id = claim.message_id AND s.state IN ('waiting', 'queued')
        AND (s.due_at IS NULL OR s.due_at <= $4 OR s.wait_reason = 'account_down')
    RETURNING s.tenant_id, s.message_id, s.attempts, s.recipient_kind, s.recipient, s.retried_at
)
SELECT
    g.tenant_id, g.message_id, g.attempts, g.recipient_kind, g.recipient,
    -- How long it has only waited does not count; one that was let go again begins anew.
    coalesce(CASE WHEN g.attempts > 1 THEN (
        SELECT min(a.granted_at)
        FROM send_attempts a
        WHERE a.tenant_id = g.tenant_id AND a.message_id = g.message_id AND (g.retried_at IS NULL OR a.granted_at > g.retried_at)
    ) END, $4) AS "tried_since!", m.content::text AS "content!", m.refers_to
FROM granted g
CROSS JOIN LATERAL (
    SELECT content, refers_to FROM messages WHERE tenant_id = g.tenant_id AND id = g.message_id LIMIT 1
) AS m
