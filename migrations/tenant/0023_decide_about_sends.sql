-- Sends that are, or were lately, unknown or held: so that they can be listed although a send's state has no index. Who lists looks at the
-- send itself; the scheduler takes away what is settled.
CREATE TABLE undecided (
    tenant_id uuid NOT NULL,
    message_id uuid NOT NULL,
    channel_account_id uuid NOT NULL,
    since timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, message_id),
    FOREIGN KEY (tenant_id, message_id) REFERENCES messages (tenant_id, id)
);
CREATE INDEX undecided_by_time ON undecided (tenant_id, since, message_id);
INSERT INTO undecided (tenant_id, message_id, channel_account_id, since)
SELECT tenant_id, message_id, channel_account_id, coalesce(unknown_at, updated_at) FROM sends WHERE state IN ('unknown', 'held');
SELECT isolate_tenants('undecided'::regclass);
GRANT SELECT ON undecided TO mijra_api;
GRANT SELECT, INSERT, DELETE ON undecided TO mijra_worker;
