-- The limits of these accounts, locked until the end of the transaction, and how their meters stand. Locked in key order, so that
-- two workers never wait for each other; what is read is the latest committed.
WITH meter AS MATERIALIZED (
    SELECT l.*
    FROM limits l
    WHERE (l.tenant_id, l.scope, l.key) IN (SELECT * FROM unnest($1::uuid[], $2::text[], $3::uuid[]))
    ORDER BY l.tenant_id, l.scope, l.key
    FOR UPDATE
),
-- The time after all locks are held: the one clock by which rates and deadlines go.
moment AS MATERIALIZED (
    SELECT clock_timestamp() AS now FROM (SELECT count(*) FROM meter) AS locked
)
SELECT
    moment.now AS "now!", l.tenant_id AS "tenant_id?", l.scope AS "scope?", l.key AS "key?", l.rate AS "rate?", l.current_rate AS "current_rate?", l.burst AS "burst?",
    l.cost AS "cost?", l.inbound_cost AS "inbound_cost?", l.used AS "used?", greatest(l.next_at, moment.now) AS "next_at?",
    greatest(l.stopped_until, moment.now) AS "stopped_until?", greatest(l.answers_wait_until, moment.now) AS "answers_wait_until?",
    -- The busiest of the last ten seconds, this one included.
    CASE WHEN l.scope = 'account' AND l.inbound_cost > 0 THEN (
        SELECT max(r.messages)
        FROM received_seconds r
        WHERE r.tenant_id = l.tenant_id AND r.channel_account_id = l.key
            AND r.second BETWEEN floor(EXTRACT(epoch FROM moment.now))::bigint - 9 AND floor(EXTRACT(epoch FROM moment.now))::bigint
    ) END AS "busiest_second?"
FROM moment
LEFT JOIN meter l ON true
