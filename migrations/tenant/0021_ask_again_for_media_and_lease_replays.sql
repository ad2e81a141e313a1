-- A file can be asked for again by hand, is charged only for what happened while it was looked at, and a replay is held by a lease.
ALTER TABLE media
    -- When somebody asked for it again: how long it is tried counts from then.
    ADD COLUMN asked_at timestamptz,
    -- The claim that is looking at it now, and is counted in `claims` until somebody says that it went well.
    ADD COLUMN examining uuid;
GRANT UPDATE (state, attempts, claims, examining, code, reason, settled_at, asked_at) ON media TO mijra_api;

-- Whose slice it is, and until when: so no transaction is open while the broker is waited for.
ALTER TABLE webhook_replays
    ADD COLUMN working uuid,
    ADD COLUMN working_until timestamptz;
