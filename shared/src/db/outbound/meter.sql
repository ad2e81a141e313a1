-- The meters of these accounts, locked until the end of the transaction, and what they allow now. Locked in key order, so that
-- two workers never wait for each other; what is read is the latest committed.
WITH meter AS MATERIALIZED (
    SELECT l.tenant_id, l.key, l.current_rate, l.next_at, l.stopped_until
    FROM limits l
    WHERE l.scope = 'account' AND (l.tenant_id, l.key) IN (SELECT * FROM unnest($1::uuid[], $2::uuid[]))
    ORDER BY l.tenant_id, l.key
    FOR UPDATE
),
-- The time after all locks are held: the one clock by which rates and deadlines go.
moment AS MATERIALIZED (
    SELECT clock_timestamp() AS now FROM (SELECT count(*) FROM meter) AS locked
),
-- GCRA (ITU-T I.371): burst b = max(1, ceil(R / 32)) and sustained rate R - (b - 1), so that no sliding second exceeds R.
shape AS (
    SELECT
        tenant_id, key, next_at, stopped_until, greatest(1, ceil(current_rate / 32)) AS burst,
        current_rate - (greatest(1, ceil(current_rate / 32)) - 1) AS sustained
    FROM meter
)
SELECT
    moment.now AS "now!", s.tenant_id AS "tenant_id?", s.key AS "channel_account_id?", s.sustained AS "sustained?",
    greatest(s.next_at, moment.now) AS "start_at?",
    CASE
        WHEN s.stopped_until > moment.now THEN 0
        ELSE greatest(0, floor(s.burst - s.sustained * EXTRACT(epoch FROM greatest(s.next_at, moment.now) - moment.now)::float8))
    END AS "allowed?",
    -- When the whole burst is allowed again, and when anything is, if nothing changes.
    s.burst AS "burst?", EXTRACT(epoch FROM greatest(s.next_at, moment.now) - moment.now)::float8 AS "free_in_seconds?",
    EXTRACT(epoch FROM greatest(s.stopped_until, moment.now) - moment.now)::float8 AS "stopped_for_seconds?"
FROM moment
LEFT JOIN shape s ON true
