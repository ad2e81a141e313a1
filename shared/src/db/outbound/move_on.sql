-- Moves sends on by what happened to them, and writes the attempts that ended and the trail. What does not apply any more
-- (another attempt has it, it is settled) changes nothing, so a record written twice is written once.
WITH record AS MATERIALIZED (
    SELECT
        s.tenant_id, s.message_id, s.state AS before, s.turn_released, s.attempt_id AS current_attempt_id, s.attempts, s.granted_at,
        s.unknown_at, s.due_at, s.wait_reason, s.possibly_doubled AS doubled, s.lane, s.campaign_id, s.channel_account_id, s.conversation_id, s.seq, r.attempt_id, r.kind, r.code, r.reason, r.wait AS asked_wait, r.provider_message_id, r.class,
        r.attempt_id IS NOT DISTINCT FROM s.attempt_id AS mine,
        -- That the provider took it is no news where it said afterwards that it failed.
        coalesce(r.attempt_id = ANY (s.retried_attempts), false) AS refuted,
        clock_timestamp() AS now
    FROM unnest(
        $1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::text[], $6::text[], $7::float8[], $8::text[], $11::text[]
    ) AS r (tenant_id, message_id, attempt_id, kind, code, reason, wait, provider_message_id, class)
    JOIN sends s ON s.tenant_id = r.tenant_id AND s.message_id = r.message_id
    ORDER BY s.tenant_id, s.message_id
    FOR UPDATE OF s
),
verdict AS MATERIALIZED (
    SELECT record.*, a.when_unknown,
        -- What was to wait for its account, or its campaign, and finds it back goes at once.
        CASE
            WHEN a.state = 'active' AND (kind = 'account_down' OR (kind = 'waits' AND code = 'account_down')) THEN 0
            WHEN c.state <> 'paused' AND kind = 'waits' AND code = 'campaign' THEN 0
            ELSE asked_wait
        END AS wait,
        CASE
            -- It was taken: that settles whatever was not known, whichever attempt it was. Never backwards.
            WHEN kind = 'accepted' AND NOT refuted AND (before IN ('waiting', 'queued', 'sending', 'unknown', 'held')) THEN 'sent'
            -- It was not sent, and we know it, but its campaign has ended meanwhile: it can be retried there.
            WHEN kind IN ('not_sent', 'account_down', 'given_back') AND mine AND before = 'held' AND c.state = 'completed' THEN 'failed'
            -- It was not sent, and we know it: also after somebody else gave it up as unknown.
            WHEN kind = 'not_sent' AND mine AND before IN ('sending', 'unknown', 'held') THEN 'waiting'
            WHEN kind = 'account_down' AND mine AND before IN ('sending', 'unknown', 'held') THEN 'waiting'
            WHEN kind = 'given_back' AND mine AND before IN ('sending', 'unknown', 'held') THEN CASE WHEN asked_wait IS NULL THEN 'queued' ELSE 'waiting' END
            WHEN kind = 'failed' AND mine AND before IN ('sending', 'unknown', 'held') THEN 'failed'
            WHEN kind = 'unknown' AND mine AND before = 'sending' THEN 'unknown'
            WHEN kind = 'expired' AND mine AND before = 'sending' THEN 'unknown'
            -- What waits for a time already has its job for then: another one that came meanwhile brings nothing forward.
            WHEN kind = 'waits' AND before = 'waiting' AND due_at > now AND wait_reason <> 'account_down' THEN NULL
            WHEN kind = 'waits' AND before IN ('waiting', 'queued') THEN 'waiting'
            WHEN kind = 'refused' AND before IN ('waiting', 'queued') THEN CASE WHEN doubled THEN 'held' ELSE 'failed' END
            -- What may have arrived is for a person to decide.
            WHEN kind = 'cancelled' AND before IN ('waiting', 'queued') THEN CASE WHEN doubled THEN 'held' ELSE 'cancelled' END
            WHEN kind = 'turn_released' AND before = 'unknown' AND NOT turn_released THEN 'unknown'
            -- No evidence came in time.
            WHEN kind = 'settled' AND before = 'unknown' AND a.when_unknown = 'resend'
                AND (c.state IS NULL OR c.state IN ('running', 'paused')) THEN 'queued'
            WHEN kind = 'settled' AND before = 'unknown' THEN 'held'
            -- A person has decided. What its campaign no longer asks for is not sent again.
            WHEN kind = 'decided_sent' AND before = 'held' THEN 'sent'
            WHEN kind = 'decided_failed' AND before = 'held' THEN 'failed'
            WHEN kind = 'decided_resend' AND before = 'held' AND (c.state IS NULL OR c.state IN ('running', 'paused')) THEN 'queued'
        END AS state,
        -- By so many seconds a timer comes too early for what is unknown now: it is one of an earlier unknown, or the time has
        -- been raised since. It comes again: this unknown's own may have gone the same way.
        CASE
            WHEN before <> 'unknown' THEN NULL
            WHEN kind = 'settled' AND unknown_at > now - make_interval(secs => 0.9 * $9::float8)
                THEN EXTRACT(epoch FROM unknown_at - now)::float8 + $9::float8
            WHEN kind = 'turn_released' AND NOT turn_released AND unknown_at > now - make_interval(secs => 0.9 * $10::float8)
                THEN EXTRACT(epoch FROM unknown_at - now)::float8 + $10::float8
        END AS early
    FROM record
    JOIN channel_accounts a ON a.tenant_id = record.tenant_id AND a.id = record.channel_account_id
    LEFT JOIN campaigns c ON c.tenant_id = record.tenant_id AND c.id = record.campaign_id
),
moved AS (
    UPDATE sends s
    SET state = v.state,
        -- Claimed and never called is no attempt.
        attempts = s.attempts - CASE WHEN v.kind = 'given_back' THEN 1 ELSE 0 END,
        wait_reason = CASE WHEN v.state = 'waiting' THEN coalesce(CASE WHEN v.kind IN ('not_sent', 'account_down') THEN v.kind END, v.code) END,
        due_at = CASE WHEN v.state = 'waiting' THEN v.now + make_interval(secs => v.wait) END,
        unknown_at = CASE WHEN v.state = 'unknown' THEN coalesce(CASE WHEN v.before = 'unknown' THEN s.unknown_at END, v.now) ELSE s.unknown_at END,
        turn_released = CASE
            WHEN v.kind = 'turn_released' THEN true
            WHEN v.kind IN ('unknown', 'expired') THEN false
            ELSE s.turn_released
        END,
        -- The later attempt is being called when the earlier turns out to have been taken.
        possibly_doubled = s.possibly_doubled OR (v.kind IN ('settled', 'decided_resend') AND v.state = 'queued')
            OR (v.kind = 'accepted' AND NOT v.mine AND v.before = 'sending'),
        provider_message_id = coalesce(v.provider_message_id, s.provider_message_id),
        code = CASE WHEN v.state IN ('failed', 'waiting') AND v.kind <> 'waits' THEN v.code WHEN v.state = 'sent' THEN NULL ELSE s.code END,
        reason = CASE WHEN v.state IN ('failed', 'waiting', 'unknown') AND v.kind <> 'waits' THEN coalesce(v.reason, s.reason) WHEN v.state = 'sent' THEN NULL ELSE s.reason END,
        sent_at = CASE WHEN v.state = 'sent' THEN coalesce(s.sent_at, v.now) ELSE s.sent_at END,
        failed_at = CASE WHEN v.state = 'failed' THEN v.now ELSE s.failed_at END,
        updated_at = v.now
    FROM verdict v
    WHERE s.tenant_id = v.tenant_id AND s.message_id = v.message_id AND v.state IS NOT NULL AND v.early IS NULL
    RETURNING s.tenant_id, s.message_id, s.channel_account_id, s.conversation_id, s.seq, s.state, s.turn_released, s.lane, s.campaign_id, v.before,
        v.turn_released AS released_before, v.kind, v.code, v.reason, v.wait, v.now
),
-- A send that is past `sent` already keeps its state but learns its provider's id; two attempts that were both taken are shown.
noted AS (
    UPDATE sends s
    SET provider_message_id = CASE WHEN v.mine THEN v.provider_message_id ELSE coalesce(s.provider_message_id, v.provider_message_id) END,
        sent_at = coalesce(s.sent_at, v.now)
    FROM verdict v
    WHERE s.tenant_id = v.tenant_id AND s.message_id = v.message_id AND v.kind = 'accepted' AND v.state IS NULL AND NOT v.refuted
    RETURNING s.message_id
),
attempt AS (
    INSERT INTO send_attempts (tenant_id, message_id, id, number, outcome, code, reason, granted_at, ended_at, class)
    SELECT tenant_id, message_id, attempt_id, attempts, kind, code, reason, granted_at, now, class
    FROM verdict
    WHERE attempt_id IS NOT NULL AND kind <> 'given_back' AND (kind <> 'expired' OR state IS NOT NULL)
    -- An attempt given up as expired may turn out better; the first word on anything else stands.
    ON CONFLICT (tenant_id, message_id, id) DO UPDATE
        SET outcome = excluded.outcome, code = excluded.code, reason = excluded.reason, ended_at = excluded.ended_at, class = excluded.class
        WHERE send_attempts.outcome = 'expired' AND excluded.outcome <> 'expired'
),
-- One that was given up as expired turns out never to have been called.
struck AS (
    UPDATE send_attempts a
    SET outcome = v.kind, code = NULL, reason = v.reason, ended_at = v.now
    FROM verdict v
    WHERE a.tenant_id = v.tenant_id AND a.message_id = v.message_id AND a.id = v.attempt_id
        AND v.kind = 'given_back' AND v.state IS NOT NULL AND a.outcome = 'expired'
    RETURNING a.id
),
note AS (
    INSERT INTO trail (tenant_id, message_id, event, at, code, reason)
    SELECT tenant_id, message_id,
        CASE
            WHEN kind IN ('decided_sent', 'decided_failed', 'decided_resend') THEN kind
            WHEN state = 'queued' AND kind = 'settled' THEN 'sent_again'
            WHEN state = 'waiting' THEN 'not_sent'
            WHEN kind = 'turn_released' THEN 'turn_released'
            ELSE state
        END,
        now, code, reason
    FROM moved
    WHERE state IN ('unknown', 'held', 'failed', 'cancelled')
        OR kind IN ('settled', 'not_sent', 'account_down', 'decided_sent', 'decided_resend')
    ON CONFLICT (tenant_id, message_id, event, at) DO NOTHING
),
-- Why an answer waits is told whenever it is another reason than before; campaigns' messages wait for their turn as a rule.
waited AS (
    INSERT INTO trail (tenant_id, message_id, event, at, code)
    SELECT m.tenant_id, m.message_id, 'waits', m.now, m.code
    FROM moved m
    JOIN verdict v ON v.tenant_id = m.tenant_id AND v.message_id = m.message_id
    WHERE m.kind = 'waits' AND m.state = 'waiting' AND (m.lane = 0 OR m.code NOT IN ('rate', 'room')) AND v.wait_reason IS DISTINCT FROM m.code
    ON CONFLICT (tenant_id, message_id, event, at) DO NOTHING
),
open AS (
    INSERT INTO undecided (tenant_id, message_id, channel_account_id, since)
    SELECT tenant_id, message_id, channel_account_id, now FROM moved WHERE state IN ('unknown', 'held') AND before NOT IN ('unknown', 'held')
    ON CONFLICT (tenant_id, message_id) DO UPDATE SET since = excluded.since
)
SELECT tenant_id AS "tenant_id!", message_id AS "message_id!", channel_account_id AS "channel_account_id!", conversation_id AS "conversation_id!", seq AS "seq!",
    lane AS "lane!", campaign_id, state AS "state!", before AS "before!", kind AS "kind!", wait AS "wait_seconds?", NULL::float8 AS "early_seconds?", now AS "now!",
    (before IN ('waiting', 'queued', 'sending') OR (before = 'unknown' AND NOT released_before)) AS "held_up!",
    (state IN ('waiting', 'queued', 'sending') OR (state = 'unknown' AND NOT turn_released)) AS "holds_up!"
FROM moved
UNION ALL
SELECT tenant_id, message_id, channel_account_id, conversation_id, seq, lane, campaign_id, before, before, kind, NULL, early, now, false, false
FROM verdict
WHERE early IS NOT NULL
