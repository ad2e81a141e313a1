-- A page of a campaign's people in the order of their ids, of those that are wanted among the next ones looked at. Each look-up
-- is by key (LIMIT keeps the order of joining), and looking ends with the page.
SELECT
    found.contact_id AS "contact_id: ContactId", person.name, coalesce(found.recipient, person.phone) AS address,
    found.shown AS "state!", found.code, found.reason, coalesce(found.attempts, 0) AS "attempts!",
    found.message_id AS "message_id: MessageId", found.released_at AS "released_at?", found.sent_at, found.delivered_at, found.read_at, found.failed_at
FROM (
    SELECT
        looked.contact_id, looked.message_id, shown.state AS shown, send.recipient, send.code,
        coalesce(looked.skip_reason, send.reason) AS reason, send.attempts, send.created_at AS released_at, send.sent_at,
        send.delivered_at, send.read_at, send.failed_at
    FROM (
        SELECT contact_id, state, skip_reason, message_id
        FROM campaign_recipients
        WHERE tenant_id = $1 AND campaign_id = $2 AND contact_id > $3
        ORDER BY contact_id
        LIMIT $4
    ) AS looked
    LEFT JOIN LATERAL (
        SELECT state, recipient, code, reason, attempts, created_at, sent_at, delivered_at, read_at, failed_at
        FROM sends
        WHERE tenant_id = $1 AND message_id = looked.message_id
        LIMIT 1
    ) AS send ON true
    CROSS JOIN LATERAL (
        SELECT CASE
            WHEN looked.state <> 'released' THEN looked.state
            WHEN send.state IN ('waiting', 'queued', 'sending') THEN 'in_flight'
            -- Without a send, which the books report, a person is only released.
            ELSE coalesce(send.state, looked.state)
        END AS state
    ) AS shown
    WHERE ($5::text IS NULL OR shown.state = $5) AND ($6::text IS NULL OR send.code = $6)
    ORDER BY looked.contact_id
    LIMIT $7
) AS found
CROSS JOIN LATERAL (
    SELECT name, phone FROM contacts WHERE tenant_id = $1 AND id = found.contact_id LIMIT 1
) AS person
ORDER BY found.contact_id
