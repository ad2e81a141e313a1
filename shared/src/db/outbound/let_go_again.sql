-- Sends that have failed begin anew, with what their last attempt left on them taken off; the attempt itself is remembered, so
-- that what is heard of it later is not taken for news of the next one.
WITH failed AS MATERIALIZED (
    -- Who was refused because their window had closed, or because they had opted out, was not called for: an attempt that is still on the send is another one, and
    -- what is heard of it stays news.
    SELECT s.tenant_id, s.message_id, CASE WHEN s.code IN ('window_closed', 'opted_out') THEN NULL ELSE s.attempt_id END AS attempt_id,
        s.code, s.reason, asked.wait_reason, asked.wait, asked.in_doubt, asked.class
    FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::float8[], $5::bool[], $6::text[])
        AS asked (tenant_id, message_id, wait_reason, wait, in_doubt, class)
    JOIN sends s ON s.tenant_id = asked.tenant_id AND s.message_id = asked.message_id
    WHERE s.state = 'failed'
    ORDER BY s.tenant_id, s.message_id
    FOR UPDATE OF s
),
retried AS (
    UPDATE sends s
    SET state = CASE WHEN failed.wait_reason IS NULL THEN 'queued' ELSE 'waiting' END, wait_reason = failed.wait_reason,
        due_at = clock_timestamp() + make_interval(secs => failed.wait),
        retried_at = clock_timestamp(),
        retried_attempts = CASE
            WHEN failed.attempt_id IS NULL THEN s.retried_attempts
            ELSE array_append(s.retried_attempts, failed.attempt_id)
        END,
        possibly_doubled = s.possibly_doubled OR failed.in_doubt,
        attempt_id = NULL, granted_at = NULL, deadline = NULL, unknown_at = NULL, turn_released = false,
        provider_message_id = NULL, code = NULL, reason = NULL, sent_at = NULL, failed_at = NULL,
        updated_at = clock_timestamp()
    FROM failed
    WHERE s.tenant_id = failed.tenant_id AND s.message_id = failed.message_id
    RETURNING s.tenant_id, s.message_id, s.updated_at
),
attempt AS (
    UPDATE send_attempts a
    SET outcome = 'failed', code = failed.code, reason = failed.reason, class = coalesce(failed.class, a.class)
    FROM failed
    WHERE a.tenant_id = failed.tenant_id AND a.message_id = failed.message_id AND a.id = failed.attempt_id
        AND a.outcome IN ('accepted', 'unknown', 'expired')
),
note AS (
    INSERT INTO trail (tenant_id, message_id, event, at)
    SELECT tenant_id, message_id, 'retried', updated_at FROM retried
    ON CONFLICT (tenant_id, message_id, event, at) DO NOTHING
)
SELECT tenant_id AS "tenant_id: TenantId", message_id AS "message_id: MessageId" FROM retried
