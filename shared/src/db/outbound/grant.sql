-- Claim and metering in one statement: of the sends a worker holds, those that may go now become `sending` with its attempt,
-- and the meters of their accounts move on by as many. For every other one the reason why not.
WITH held AS (
    SELECT tenant_id, message_id, attempt_id
    FROM unnest($1::uuid[], $2::uuid[], $3::uuid[]) AS held (tenant_id, message_id, attempt_id)
),
found AS MATERIALIZED (
    SELECT
        s.tenant_id, s.message_id, held.attempt_id AS new_attempt_id, s.channel_account_id, s.conversation_id, s.seq, s.lane,
        s.state, s.due_at, s.wait_reason, s.deadline, s.attempt_id, s.needs_window
    FROM held
    JOIN sends s ON s.tenant_id = held.tenant_id AND s.message_id = held.message_id
),
-- Locked in key order, so that two workers never wait for each other; what is read here is the latest committed.
meter AS MATERIALIZED (
    SELECT l.tenant_id, l.key, l.current_rate, l.next_at, l.stopped_until
    FROM limits l
    WHERE l.scope = 'account'
        AND (l.tenant_id, l.key) IN (SELECT tenant_id, channel_account_id FROM found WHERE state IN ('waiting', 'queued'))
    ORDER BY l.tenant_id, l.key
    FOR UPDATE
),
-- The time after all locks are held: the one clock by which rates and deadlines go.
moment AS MATERIALIZED (
    SELECT clock_timestamp() AS now FROM (SELECT count(*) FROM meter) AS locked
),
-- GCRA (ITU-T I.371): burst b = max(1, ceil(R / 32)) and sustained rate R - (b - 1), so that no sliding second exceeds R.
allowance AS MATERIALIZED (
    SELECT
        m.tenant_id, m.key, m.sustained, greatest(m.next_at, moment.now) AS start_at,
        CASE
            WHEN m.stopped_until > moment.now THEN 0
            ELSE greatest(0, floor(m.burst - m.sustained * EXTRACT(epoch FROM greatest(m.next_at, moment.now) - moment.now)::float8))
        END AS allowed,
        greatest(m.next_at, m.stopped_until) AS free_at
    FROM (
        SELECT *, greatest(1, ceil(current_rate / 32)) AS burst, current_rate - (greatest(1, ceil(current_rate / 32)) - 1) AS sustained
        FROM meter
    ) AS m
    CROSS JOIN moment
),
judged AS MATERIALIZED (
    SELECT
        f.*, a.revision,
        CASE
            WHEN f.state NOT IN ('waiting', 'queued') THEN 'state'
            WHEN f.due_at > moment.now AND f.wait_reason <> 'account_down' THEN 'not_due'
            WHEN a.state <> 'active' THEN 'account_down'
            WHEN f.needs_window AND (c.window_expires_at IS NULL OR c.window_expires_at <= moment.now) THEN 'window_closed'
            WHEN f.lane = 0 AND EXISTS (
                SELECT FROM sends earlier
                WHERE earlier.tenant_id = f.tenant_id AND earlier.conversation_id = f.conversation_id AND earlier.seq < f.seq
                    AND (earlier.state IN ('waiting', 'queued', 'sending') OR (earlier.state = 'unknown' AND NOT earlier.turn_released))
            ) THEN 'turn'
        END AS obstacle
    FROM found f
    CROSS JOIN moment
    JOIN channel_accounts a ON a.tenant_id = f.tenant_id AND a.id = f.channel_account_id
    JOIN conversations c ON c.tenant_id = f.tenant_id AND c.id = f.conversation_id
),
-- `now` before `bulk`, then in the order of acceptance.
ranked AS MATERIALIZED (
    SELECT
        j.*, al.allowed, al.sustained, al.free_at,
        row_number() OVER (PARTITION BY j.tenant_id, j.channel_account_id ORDER BY j.lane, j.message_id) AS position
    FROM judged j
    LEFT JOIN allowance al ON al.tenant_id = j.tenant_id AND al.key = j.channel_account_id
    WHERE j.obstacle IS NULL
),
granted AS (
    UPDATE sends s
    SET state = 'sending', attempt_id = r.new_attempt_id, attempts = s.attempts + 1, granted_at = moment.now,
        deadline = moment.now + make_interval(secs => $4), wait_reason = NULL, due_at = NULL, updated_at = moment.now
    FROM ranked r
    CROSS JOIN moment
    WHERE s.tenant_id = r.tenant_id AND s.message_id = r.message_id
        AND r.position <= coalesce(r.allowed, r.position)
        -- Looked at again after the locks: another worker may have claimed it meanwhile.
        AND s.state IN ('waiting', 'queued')
    RETURNING s.tenant_id, s.message_id, s.channel_account_id, s.attempts, s.recipient_kind, s.recipient, s.granted_at, s.created_at
),
advanced AS (
    UPDATE limits l
    -- Whole microseconds, rounded up: the clock's grain must not let one more through in a second.
    SET next_at = al.start_at + make_interval(secs => ceil(g.granted * 1000000.0 / al.sustained) / 1000000.0)
    FROM (SELECT tenant_id, channel_account_id, count(*)::float8 AS granted FROM granted GROUP BY tenant_id, channel_account_id) AS g
    JOIN allowance al ON al.tenant_id = g.tenant_id AND al.key = g.channel_account_id
    WHERE l.tenant_id = g.tenant_id AND l.scope = 'account' AND l.key = g.channel_account_id
)
SELECT
    j.tenant_id AS "tenant_id!", j.message_id AS "message_id!", j.channel_account_id AS "channel_account_id!",
    j.revision AS "account_revision!", j.conversation_id AS "conversation_id!", j.state AS "state!", j.attempt_id,
    -- NULL: granted.
    CASE WHEN g.message_id IS NULL THEN coalesce(j.obstacle, 'rate') END AS obstacle,
    -- When its turn at the meter comes, if nothing changes.
    CASE
        WHEN g.message_id IS NULL AND j.obstacle IS NULL
        THEN EXTRACT(epoch FROM greatest(r.free_at, moment.now) - moment.now)::float8 + (r.position - coalesce(r.allowed, 0)) / r.sustained
    END AS rate_wait_seconds,
    EXTRACT(epoch FROM j.deadline - moment.now)::float8 AS deadline_in_seconds,
    EXTRACT(epoch FROM j.due_at - moment.now)::float8 AS due_in_seconds,
    j.new_attempt_id AS "new_attempt_id!", g.attempts AS "attempts?", g.recipient_kind AS "recipient_kind?", g.recipient AS "recipient?",
    g.granted_at AS "granted_at?", g.created_at AS "created_at?", m.content AS "content?", m.refers_to AS "refers_to?"
FROM judged j
CROSS JOIN moment
LEFT JOIN ranked r ON r.tenant_id = j.tenant_id AND r.message_id = j.message_id
LEFT JOIN granted g ON g.tenant_id = j.tenant_id AND g.message_id = j.message_id
LEFT JOIN messages m ON m.tenant_id = g.tenant_id AND m.id = g.message_id
