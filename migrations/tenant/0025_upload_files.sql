-- Files that are uploaded to be sent, and the ids by which providers keep them.
CREATE TABLE files (
    tenant_id uuid NOT NULL,
    id uuid NOT NULL,
    storage_key text NOT NULL,
    sha256 bytea NOT NULL CHECK (octet_length(sha256) = 32),
    size_bytes bigint NOT NULL,
    -- As its bytes say.
    content_type text NOT NULL,
    filename text,
    created_by uuid NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, id)
);
CREATE INDEX files_by_storage_key ON files (tenant_id, storage_key);
CREATE TRIGGER files_deleted AFTER DELETE ON files FOR EACH ROW EXECUTE FUNCTION let_go_of_objects();

CREATE TABLE provider_files (
    tenant_id uuid NOT NULL,
    channel_account_id uuid NOT NULL,
    file_id uuid NOT NULL,
    provider_file_id text NOT NULL,
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, channel_account_id, file_id),
    FOREIGN KEY (tenant_id, file_id) REFERENCES files (tenant_id, id) ON DELETE CASCADE
);

SELECT isolate_tenants(t) FROM unnest(ARRAY['files', 'provider_files']::regclass[]) t;
GRANT SELECT, INSERT, DELETE ON files TO mijra_api;
GRANT SELECT ON files TO mijra_worker;
GRANT SELECT, INSERT, UPDATE, DELETE ON provider_files TO mijra_worker;
GRANT DELETE ON provider_files TO mijra_api;
-- What the API stores is announced and held by it.
GRANT INSERT, UPDATE ON media_objects TO mijra_api;
