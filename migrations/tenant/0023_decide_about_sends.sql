-- Sends that are, or were lately, unknown or held: so that they can be listed although a send's state has no index. Who lists looks at the
-- send itself; the scheduler takes away what is settled.
SET LOCAL lock_timeout = '5s';
CREATE TABLE undecided (
    tenant_id uuid NOT NULL,
    message_id uuid NOT NULL,
    channel_account_id uuid NOT NULL,
    since timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, message_id)
);
CREATE INDEX undecided_by_time ON undecided (tenant_id, since, message_id);
-- The tables' owner is isolated, too, but for this. From here to the end nobody else reads or writes sends, which are looked through
-- once: where there are many, this is for an hour without traffic.
ALTER TABLE sends NO FORCE ROW LEVEL SECURITY;
INSERT INTO undecided (tenant_id, message_id, channel_account_id, since)
SELECT tenant_id, message_id, channel_account_id, coalesce(unknown_at, updated_at) FROM sends WHERE state IN ('unknown', 'held');
ALTER TABLE sends FORCE ROW LEVEL SECURITY;
-- Last: nothing can be written to messages from here on either.
ALTER TABLE undecided ADD FOREIGN KEY (tenant_id, message_id) REFERENCES messages (tenant_id, id);
SELECT isolate_tenants('undecided'::regclass);
GRANT SELECT ON undecided TO mijra_api;
GRANT SELECT, INSERT, UPDATE, DELETE ON undecided TO mijra_worker;
