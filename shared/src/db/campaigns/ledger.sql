-- Everything that a campaign's books are made of, as of one moment: what was frozen, what is shown, and the people by where they
-- and their sends stand, with the attempts of these sends.
WITH person AS (
    SELECT
        r.state, s.state AS send_state, s.campaign_id IS DISTINCT FROM $2 AS elsewhere, s.attempts, s.possibly_doubled,
        r.skip_reason, CASE WHEN s.state = 'failed' THEN s.code END AS code, CASE WHEN s.state = 'failed' THEN s.reason END AS reason,
        attempt.ended, attempt.accepted
    FROM campaign_recipients r
    LEFT JOIN sends s ON s.tenant_id = r.tenant_id AND s.message_id = r.message_id
    CROSS JOIN LATERAL (
        SELECT count(*) AS ended, count(*) FILTER (WHERE outcome = 'accepted') AS accepted
        FROM send_attempts a
        WHERE a.tenant_id = r.tenant_id AND a.message_id = r.message_id
    ) AS attempt
    WHERE r.tenant_id = $1 AND r.campaign_id = $2
),
grouped AS (
    SELECT
        state, send_state, code, coalesce(skip_reason, min(reason)) AS reason, count(*) AS people, coalesce(sum(ended), 0)::bigint AS attempts,
        count(*) FILTER (WHERE send_state IS NOT NULL AND elsewhere) AS elsewhere,
        -- One that failed before anybody was called has no attempt.
        count(*) FILTER (
            WHERE ended = 0 AND (send_state IN ('sent', 'delivered', 'read', 'unknown', 'held') OR (send_state = 'failed' AND attempts > 0))
        ) AS unattempted,
        count(*) FILTER (WHERE accepted > 1 AND NOT possibly_doubled) AS taken_twice,
        count(*) FILTER (WHERE accepted > 0 AND send_state IN ('waiting', 'queued', 'cancelled')) AS taken_unasked
    FROM person
    GROUP BY state, send_state, skip_reason, code
)
SELECT
    c.frozen_count,
    n.skipped, n.waiting, n.in_flight, n.unknown, n.held, n.sent, n.delivered, n.read, n.failed, n.cancelled,
    g.state AS "state?", g.send_state AS "send_state?", g.code AS "code?", g.reason AS "reason?", g.people AS "people?", g.attempts AS "attempts?", g.elsewhere AS "elsewhere?",
    g.unattempted AS "unattempted?", g.taken_twice AS "taken_twice?", g.taken_unasked AS "taken_unasked?"
FROM campaigns c
JOIN campaign_counts n ON n.tenant_id = c.tenant_id AND n.campaign_id = c.id
LEFT JOIN grouped g ON true
WHERE c.tenant_id = $1 AND c.id = $2
