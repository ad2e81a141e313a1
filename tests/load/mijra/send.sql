INSERT INTO contacts (tenant_id, id, phone)
SELECT $1::uuid, id, '+1555' || lpad(n::text, 7, '0')
FROM unnest($2::uuid[], $3::uuid[]) WITH ORDINALITY AS m (id, account, n)
WHERE $4::text || $5::text <> '' AND $6::boolean IS NOT NULL;
INSERT INTO conversations (tenant_id, id, contact_id, channel_account_id, state, origin, last_message_at, last_message_direction, window_expires_at, last_send_seq)
SELECT $1::uuid, id, id, account, 'open', 'inbound', now(), 'out', CASE WHEN $6::boolean THEN now() + interval '1 day' END, 1
FROM unnest($2::uuid[], $3::uuid[]) AS m (id, account)
WHERE $4::text || $5::text <> '';
INSERT INTO messages (tenant_id, id, conversation_id, direction, kind, text, content, at)
SELECT $1::uuid, id, id, 'out', 'text', 'Your parcel left our warehouse.', '{"type": "text", "text": "Your parcel left our warehouse."}', now()
FROM unnest($2::uuid[], $3::uuid[]) AS m (id, account)
WHERE $4::text || $5::text <> '' AND $6::boolean IS NOT NULL;
INSERT INTO sends (tenant_id, message_id, conversation_id, channel_account_id, seq, recipient_kind, recipient, needs_window, state)
SELECT $1::uuid, id, id, account, 1, $4::text, $5::text || lpad(n::text, 7, '0'), $6::boolean, 'queued'
FROM unnest($2::uuid[], $3::uuid[]) WITH ORDINALITY AS m (id, account, n);
