-- Claims sends for attempts, as of a moment. One that another worker has claimed meanwhile, or has called for in vain and put
-- off, is missing from the answer; one whose person has opted out is in it as such, and is not claimed.
--
-- Why nothing is granted after an opt-out has committed: the moment ($4) was read before this statement began, and consent is
-- looked up here, in this statement's snapshot. What it does not see commits after the snapshot, and so after the moment.
-- (A send that the opting out has ended, or is ending, is not waiting or queued any more: its row is waited for.)
WITH claim AS MATERIALIZED (
    SELECT c.*, EXISTS (
        SELECT FROM suppressions x
        WHERE x.tenant_id = c.tenant_id AND x.contact_id = c.contact_id AND x.channel = c.channel AND x.state = 'opted_out'
            -- What people and automation send is stopped only where nothing at all may be sent.
            AND (c.lane = $8 OR x.purpose = 'all')
    ) AS opted_out
    FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $6::uuid[], $7::text[], $9::smallint[], $10::float8[])
        AS c (tenant_id, message_id, attempt_id, contact_id, channel, lane, longer)
),
granted AS (
    UPDATE sends s
    SET state = 'sending', attempt_id = claim.attempt_id, attempts = s.attempts + 1, granted_at = $4::timestamptz,
        deadline = $4::timestamptz + make_interval(secs => $5 + claim.longer), wait_reason = NULL, due_at = NULL, updated_at = $4::timestamptz
    FROM claim
    WHERE s.tenant_id = claim.tenant_id AND s.message_id = claim.message_id AND s.state IN ('waiting', 'queued')
        AND (s.due_at IS NULL OR s.due_at <= $4 OR s.wait_reason = 'account_down')
        AND NOT claim.opted_out
    RETURNING s.tenant_id, s.message_id, s.conversation_id, s.attempts, s.recipient_kind, s.recipient, s.retried_at, s.needs_window AND s.human_agent AS by_a_person,
        s.expires_at
)
SELECT
    g.tenant_id AS "tenant_id!", g.message_id AS "message_id!", false AS "opted_out!", g.attempts AS "attempts!",
    g.recipient_kind AS "recipient_kind!", g.recipient AS "recipient!",
    -- How long it has only waited does not count; one that was let go again begins anew.
    coalesce(CASE WHEN g.attempts > 1 THEN (
        SELECT min(a.granted_at)
        FROM send_attempts a
        WHERE a.tenant_id = g.tenant_id AND a.message_id = g.message_id AND (g.retried_at IS NULL OR a.granted_at > g.retried_at)
            -- What found the account down has waited since.
            AND a.outcome IS DISTINCT FROM 'account_down'
    ) END, $4) AS "tried_since!", m.content::text AS "content!", m.refers_to,
    -- What it has failed with before, and how often.
    CASE WHEN g.attempts > 1 THEN (
        SELECT jsonb_object_agg(failed.class, failed.times)
        FROM (
            SELECT a.class, count(*) AS times
            FROM send_attempts a
            WHERE a.tenant_id = g.tenant_id AND a.message_id = g.message_id AND a.class IS NOT NULL
                AND (g.retried_at IS NULL OR a.granted_at > g.retried_at)
            GROUP BY a.class
        ) AS failed
    ) END AS "failed_before: Json<BTreeMap<String, u32>>",
    -- Only as a person's answer, if the window has closed.
    CASE WHEN g.by_a_person THEN NOT EXISTS (
        SELECT FROM conversations v WHERE v.tenant_id = g.tenant_id AND v.id = g.conversation_id AND v.window_expires_at > $4
    ) ELSE false END AS "human_agent!",
    EXTRACT(epoch FROM g.expires_at - $4)::float8 AS valid_for_seconds
FROM granted g
CROSS JOIN LATERAL (
    SELECT content, refers_to FROM messages WHERE tenant_id = g.tenant_id AND id = g.message_id LIMIT 1
) AS m
UNION ALL
SELECT tenant_id, message_id, true, 0, '', '', $4, '', NULL, NULL, false, NULL FROM claim WHERE opted_out
