-- Sends move on as their provider reports. The rule is SendState::after_report; a test compares the two. It holds for the attempt
-- that a send is at. That an earlier one was taken or failed says nothing about it; that an earlier one arrived does: the person
-- has the message, whatever was decided since.
WITH report AS MATERIALIZED (
    SELECT s.tenant_id, s.message_id, s.lane, s.campaign_id, s.state AS before, s.turn_released AS released_before,
        r.state, r.code, r.reason, r.sent_at, r.delivered_at, r.read_at, r.failed_at, r.provider_message_id, r.attempt_id,
        -- Not of the one that counts: that is the last, or an earlier one as long as only that is known to have been taken.
        coalesce(r.attempt_id <> s.attempt_id, r.attempt_id IS NOT NULL AND s.retried_at IS NOT NULL)
            AND r.provider_message_id IS DISTINCT FROM s.provider_message_id AS of_another,
        -- Of an attempt that had failed when the send was let go again. Where our token did not come back, the provider's id says so.
        CASE
            WHEN s.retried_at IS NULL THEN false
            WHEN r.attempt_id IS NULL THEN r.provider_message_id IS DISTINCT FROM s.provider_message_id
            ELSE coalesce(r.attempt_id = ANY (s.retried_attempts), false)
        END AS of_retried
    FROM unnest(
        $1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::timestamptz[], $7::timestamptz[], $8::timestamptz[],
        $9::timestamptz[], $10::text[], $11::uuid[]
    ) AS r (tenant_id, message_id, state, code, reason, sent_at, delivered_at, read_at, failed_at, provider_message_id, attempt_id)
    JOIN sends s ON s.tenant_id = r.tenant_id AND s.message_id = r.message_id
    ORDER BY s.tenant_id, s.message_id
    FOR UPDATE OF s
),
moved AS (
    UPDATE sends s
    SET state = CASE
            WHEN report.before = 'cancelled' AND NOT report.of_retried THEN report.before
            WHEN report.state = 'failed' AND report.before IN ('delivered', 'read') THEN report.before
            WHEN report.state = 'failed' THEN 'failed'
            WHEN report.before = 'failed' AND report.state = 'sent' THEN 'failed'
            WHEN report.before IN ('failed', 'cancelled') THEN report.state
            WHEN array_position(ARRAY['waiting', 'queued', 'sending', 'unknown', 'held', 'sent', 'delivered', 'read'], report.before)
                < array_position(ARRAY['waiting', 'queued', 'sending', 'unknown', 'held', 'sent', 'delivered', 'read'], report.state)
                THEN report.state
            ELSE report.before
        END,
        code = CASE WHEN report.state = 'failed' AND report.before NOT IN ('delivered', 'read', 'cancelled') THEN report.code
            WHEN report.state IN ('delivered', 'read') THEN NULL ELSE s.code END,
        reason = CASE WHEN report.state = 'failed' AND report.before NOT IN ('delivered', 'read', 'cancelled') THEN report.reason
            WHEN report.state IN ('delivered', 'read') THEN NULL ELSE s.reason END,
        provider_message_id = coalesce(s.provider_message_id, report.provider_message_id),
        possibly_doubled = s.possibly_doubled
            -- Another attempt has been called since, or is being.
            OR (report.of_retried AND (
                report.before IN ('sending', 'unknown', 'held', 'sent')
                OR (report.before IN ('delivered', 'read') AND s.provider_message_id IS DISTINCT FROM report.provider_message_id)
            )),
        wait_reason = NULL,
        -- When what has failed is sent anew.
        due_at = CASE WHEN report.before = 'failed' AND report.state IN ('failed', 'sent') THEN s.due_at END,
        sent_at = least(s.sent_at, report.sent_at),
        delivered_at = least(s.delivered_at, report.delivered_at),
        read_at = least(s.read_at, report.read_at),
        failed_at = least(s.failed_at, report.failed_at),
        updated_at = clock_timestamp()
    FROM report
    WHERE s.tenant_id = report.tenant_id AND s.message_id = report.message_id
        AND NOT (report.state = 'failed' AND report.of_another)
        AND NOT (report.state IN ('sent', 'failed') AND report.of_retried)
    RETURNING s.tenant_id, s.message_id, s.channel_account_id, s.conversation_id, s.seq, s.attempt_id, s.attempts, s.granted_at, s.state,
        report.lane, report.campaign_id, report.before, report.released_before, report.attempt_id AS reported_attempt_id
),
-- Who made the call may have died before writing it down: then this is the only word on the attempt. Its own, should it come, is
-- the same.
attempt AS (
    INSERT INTO send_attempts (tenant_id, message_id, id, number, outcome, reason, granted_at, ended_at)
    SELECT tenant_id, message_id, attempt_id, attempts, 'accepted', 'as the provider reported', granted_at, clock_timestamp()
    FROM moved
    WHERE before = 'sending' AND reported_attempt_id = attempt_id
    ON CONFLICT (tenant_id, message_id, id) DO NOTHING
)
SELECT tenant_id AS "tenant_id!", message_id AS "message_id!", channel_account_id AS "channel_account_id!", attempt_id, granted_at,
    clock_timestamp() AS "now!", conversation_id AS "conversation_id!", seq AS "seq!", lane AS "lane!", campaign_id,
    before AS "before!", state AS "state!",
    (before IN ('waiting', 'queued', 'sending') OR (before = 'unknown' AND NOT released_before)) AS "held_up!"
FROM moved
