-- What isolates tenants: one function that every later migration calls for every table with a tenant_id.
-- A request sees one tenant (app.tenant_id), a batch the tenants in it (app.tenant_ids).
DO $$
DECLARE
    role_name text;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('mijra roles'));
    FOREACH role_name IN ARRAY ARRAY['mijra_api', 'mijra_worker', 'mijra_operator'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role_name) THEN
            EXECUTE format('CREATE ROLE %I NOLOGIN NOSUPERUSER NOBYPASSRLS', role_name);
        END IF;
    END LOOP;
    IF NOT pg_has_role('mijra_operator', 'mijra_worker', 'MEMBER') THEN
        GRANT mijra_worker TO mijra_operator;
    END IF;
END $$;

-- The sub-selects are evaluated once per statement and can serve as index conditions; a bare current_setting() would not.
CREATE FUNCTION isolate_tenants(target regclass) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', target);
    EXECUTE format('ALTER TABLE %s FORCE ROW LEVEL SECURITY', target);
    EXECUTE format($policy$
        CREATE POLICY one_tenant ON %s TO mijra_api
        USING (tenant_id = (SELECT NULLIF(current_setting('app.tenant_id', true), '')::uuid))
        WITH CHECK (tenant_id = (SELECT NULLIF(current_setting('app.tenant_id', true), '')::uuid))
    $policy$, target);
    EXECUTE format($policy$
        CREATE POLICY tenants_of_batch ON %s TO mijra_worker
        USING (tenant_id = ANY (COALESCE((SELECT NULLIF(current_setting('app.tenant_ids', true), '')::uuid[]), '{}')))
        WITH CHECK (tenant_id = ANY (COALESCE((SELECT NULLIF(current_setting('app.tenant_ids', true), '')::uuid[]), '{}')))
    $policy$, target);
END $$;
REVOKE ALL ON FUNCTION isolate_tenants(regclass) FROM PUBLIC;

GRANT USAGE ON SCHEMA public TO mijra_api, mijra_worker, mijra_operator;
