-- The programs log in as these roles. None may bypass row-level security; start-up refuses one that could.
-- Roles belong to the whole server, so another database's migration may have made them already.
CREATE SCHEMA IF NOT EXISTS control;

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
    -- The operator's tools do what workers do and besides keep the control tables.
    IF NOT pg_has_role('mijra_operator', 'mijra_worker', 'MEMBER') THEN
        GRANT mijra_worker TO mijra_operator;
    END IF;
END $$;

GRANT USAGE ON SCHEMA control TO mijra_api, mijra_worker, mijra_operator;
