INSERT INTO contacts (tenant_id, id, phone)
SELECT $1::uuid, id, '+1555' || lpad(n::text, 7, '0')
FROM unnest($3::uuid[]) WITH ORDINALITY AS m (id, n)
WHERE $2::uuid IS NOT NULL;
INSERT INTO conversations (tenant_id, id, contact_id, channel_account_id, state, origin, last_message_at, last_message_direction, window_expires_at, last_send_seq)
SELECT $1::uuid, id, id, $2::uuid, 'open', 'inbound', now(), 'out', now() + interval '1 day', 1
FROM unnest($3::uuid[]) AS m (id);
INSERT INTO messages (tenant_id, id, conversation_id, direction, kind, text, content, at)
SELECT $1::uuid, id, id, 'out', 'text', 'Your parcel left our warehouse.', '{"type": "text", "text": "Your parcel left our warehouse."}', now()
FROM unnest($3::uuid[]) AS m (id)
WHERE $2::uuid IS NOT NULL;
INSERT INTO sends (tenant_id, message_id, conversation_id, channel_account_id, seq, recipient_kind, recipient, needs_window, state)
SELECT $1::uuid, id, id, $2::uuid, 1, 'phone', '+1555' || lpad(n::text, 7, '0'), true, 'queued'
FROM unnest($3::uuid[]) WITH ORDINALITY AS m (id, n);
