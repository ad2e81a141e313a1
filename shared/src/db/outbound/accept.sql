-- What becomes of most sends: taken by the provider at the attempt that has them. Those of which that is not true any more are
-- missing from the answer.
WITH sent AS (
    UPDATE sends s
    SET state = 'sent', provider_message_id = taken.provider_message_id, code = NULL, reason = NULL,
        sent_at = coalesce(s.sent_at, clock_timestamp()), updated_at = clock_timestamp()
    FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::text[]) AS taken (tenant_id, message_id, attempt_id, provider_message_id)
    WHERE s.tenant_id = taken.tenant_id AND s.message_id = taken.message_id AND s.attempt_id = taken.attempt_id AND s.state = 'sending'
    RETURNING s.tenant_id, s.message_id, s.attempt_id, s.attempts, s.granted_at, s.updated_at, s.conversation_id, s.seq, s.lane,
        s.campaign_id
),
attempt AS (
    INSERT INTO send_attempts (tenant_id, message_id, id, number, outcome, granted_at, ended_at)
    SELECT tenant_id, message_id, attempt_id, attempts, 'accepted', granted_at, updated_at FROM sent
    ON CONFLICT (tenant_id, message_id, id) DO UPDATE
        SET outcome = excluded.outcome, code = NULL, reason = NULL, ended_at = excluded.ended_at
        WHERE send_attempts.outcome = 'expired'
)
SELECT tenant_id AS "tenant_id!", message_id AS "message_id!", conversation_id AS "conversation_id!", seq AS "seq!", lane AS "lane!",
    campaign_id
FROM sent
