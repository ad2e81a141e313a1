-- Messages that wait, by account and reason: sends have no index on what changes, but what waits for a time has its job in the
-- outbox, and what waits for its turn stands behind one of those. (Behind one whose job is on a queue stands what the queue tells.)
-- What waits because its campaign is paused is counted with the campaign.
WITH job AS MATERIALIZED (
    SELECT tenant_id, convert_from(body, 'UTF8')::jsonb AS body
    FROM outbox
    WHERE queue IN ('outbound.now', 'outbound.bulk')
),
named AS MATERIALIZED (
    SELECT DISTINCT job.tenant_id, id::uuid AS message_id
    FROM job
    -- A slice names many, a single job one.
    CROSS JOIN LATERAL jsonb_array_elements_text(
        coalesce(job.body -> 'message_ids', jsonb_build_array(job.body -> 'message_id'))
    ) AS id
    WHERE id IS NOT NULL
),
head AS MATERIALIZED (
    SELECT s.tenant_id, s.message_id, s.channel_account_id, s.conversation_id, s.seq, s.lane, s.state, s.wait_reason, s.campaign_id
    FROM named
    JOIN sends s ON s.tenant_id = named.tenant_id AND s.message_id = named.message_id
    WHERE s.state IN ('waiting', 'queued') OR (s.state = 'unknown' AND NOT s.turn_released)
),
behind AS (
    SELECT DISTINCT s.tenant_id, s.message_id, s.channel_account_id, s.lane
    FROM head
    JOIN sends s ON s.tenant_id = head.tenant_id AND s.conversation_id = head.conversation_id AND s.seq > head.seq
    WHERE head.lane = 0 AND s.lane = 0 AND s.state IN ('waiting', 'queued')
        AND NOT EXISTS (SELECT FROM head other WHERE other.tenant_id = s.tenant_id AND other.message_id = s.message_id)
)
SELECT tenant_id AS "tenant_id!: TenantId", channel_account_id AS "account!: ChannelAccountId", lane = 1 AS "campaign!",
    coalesce(wait_reason, 'queued') AS "reason!", count(*) AS "messages!"
FROM head
WHERE state <> 'unknown'
    AND NOT EXISTS (SELECT FROM campaigns c WHERE c.tenant_id = head.tenant_id AND c.id = head.campaign_id AND c.state = 'paused')
GROUP BY tenant_id, channel_account_id, lane, wait_reason
UNION ALL
SELECT tenant_id, channel_account_id, lane = 1, 'turn', count(*)
FROM behind
GROUP BY tenant_id, channel_account_id, lane
