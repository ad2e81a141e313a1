-- Of the sends a worker holds: which may go as far as they themselves are concerned, and for every other one the reason why
-- not. Every table is looked up by key, for each send by itself: LIMIT, and the clock that is read each time, keep the planner
-- from thinking of anything else.
SELECT
    s.tenant_id AS "tenant_id!", s.message_id AS "message_id!", held.attempt_id AS "new_attempt_id!",
    s.channel_account_id AS "channel_account_id!", a.revision AS "account_revision!", a.state <> 'active' AS "probe!", a.portfolio_id, a.channel AS "channel!",
    a.provider AS "provider!",
    -- A gateway's calls take as long as its description says; some of them come one at a time.
    CASE WHEN a.provider = 'gateway' THEN coalesce((a.gateway ->> 'timeout_seconds')::int, 0) ELSE 0 END AS "gateway_seconds!",
    a.provider = 'gateway' AND coalesce((a.gateway ->> 'serial')::boolean, false) AS "serial!",
    -- Whose consent is looked up at the claim.
    v.contact_id AS "contact_id!",
    s.conversation_id AS "conversation_id!",
    s.lane AS "lane!", s.state AS "state!", s.attempt_id, s.units AS "units!", s.heavy AS "heavy!",
    EXTRACT(epoch FROM s.due_at - clock_timestamp())::float8 AS due_in_seconds,
    EXTRACT(epoch FROM s.deadline - clock_timestamp())::float8 AS deadline_in_seconds,
    -- NULL: it may go.
    CASE
        WHEN s.state NOT IN ('waiting', 'queued') THEN 'state'
        WHEN s.due_at > clock_timestamp() AND s.wait_reason <> 'account_down' THEN 'not_due'
        WHEN c.state = 'paused' THEN 'campaign_paused'
        WHEN c.state <> 'running' THEN 'campaign_over'
        WHEN s.expires_at <= clock_timestamp() THEN 'expired'
        WHEN a.state <> 'active' AND (a.state <> 'down' OR a.probe_at IS NULL OR a.probe_at > clock_timestamp()) THEN 'account_down'
        -- A person's answer may be given for seven days, of which the window is the first.
        WHEN s.needs_window AND coalesce(
            v.window_expires_at <= clock_timestamp() - CASE WHEN s.human_agent THEN interval '6 days' ELSE interval '0' END,
            true
        ) THEN 'window_closed'
        -- The first of a conversation waits for none.
        WHEN s.lane = 0 AND s.seq > 1 AND EXISTS (
            SELECT FROM sends earlier
            WHERE earlier.tenant_id = s.tenant_id AND earlier.conversation_id = s.conversation_id AND earlier.seq < s.seq AND earlier.lane = 0
                AND (earlier.state IN ('waiting', 'queued', 'sending') OR (earlier.state = 'unknown' AND NOT earlier.turn_released))
        ) THEN 'turn'
    END AS obstacle
FROM unnest($1::uuid[], $2::uuid[], $3::uuid[]) AS held (tenant_id, message_id, attempt_id)
CROSS JOIN LATERAL (
    SELECT tenant_id, message_id, conversation_id, channel_account_id, campaign_id, seq, lane, state, wait_reason, due_at, expires_at,
        attempt_id, deadline, units, heavy, needs_window, human_agent
    FROM sends
    WHERE tenant_id = held.tenant_id AND message_id = held.message_id LIMIT 1
) AS s
LEFT JOIN LATERAL (
    SELECT contact_id, window_expires_at FROM conversations WHERE tenant_id = held.tenant_id AND id = s.conversation_id LIMIT 1
) AS v ON true
CROSS JOIN LATERAL (
    SELECT state, revision, portfolio_id, channel, probe_at, provider, gateway FROM channel_accounts WHERE tenant_id = held.tenant_id AND id = s.channel_account_id LIMIT 1
) AS a
LEFT JOIN LATERAL (
    SELECT state FROM campaigns WHERE tenant_id = held.tenant_id AND id = s.campaign_id LIMIT 1
) AS c ON s.campaign_id IS NOT NULL
