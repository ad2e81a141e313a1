-- In a migration of its own: while it is built conversations are read, and written to by nobody.
SET LOCAL lock_timeout = '5s';
CREATE INDEX conversations_by_window ON conversations (window_expires_at, id) WHERE state <> 'resolved' AND window_expires_at IS NOT NULL;
