-- Partitions are made ahead and dropped when too old by this one function; workers may call it but own no table.
-- A partition is isolated like its parent and, having no grants, cannot be read around it.
CREATE FUNCTION maintain_partitions(keep_log interval, keep_trail interval) RETURNS int
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$
DECLARE
    parent text;
    step interval;
    keep interval;
    first_at timestamptz;
    child text;
    changed int := 0;
    old record;
BEGIN
    -- One at a time; whoever comes second has nothing left to do.
    IF NOT pg_try_advisory_xact_lock(hashtext('mijra partitions')) THEN
        RETURN 0;
    END IF;
    FOR parent, step, keep IN VALUES ('webhook_log', interval '1 day', keep_log), ('trail', interval '1 month', keep_trail) LOOP
        child := parent || '_default';
        IF to_regclass(child) IS NULL THEN
            EXECUTE format('CREATE TABLE %I PARTITION OF %I DEFAULT', child, parent);
            PERFORM isolate_tenants(child::regclass);
            changed := changed + 1;
        END IF;
        first_at := CASE WHEN step = interval '1 day' THEN date_trunc('day', now(), 'UTC') ELSE date_trunc('month', now(), 'UTC') END;
        FOR ahead IN 0..3 LOOP
            child := parent || to_char((first_at + ahead * step) AT TIME ZONE 'UTC', '_YYYYMMDD');
            IF to_regclass(child) IS NULL THEN
                EXECUTE format('CREATE TABLE %I PARTITION OF %I FOR VALUES FROM (%L) TO (%L)',
                    child, parent, first_at + ahead * step, first_at + (ahead + 1) * step);
                PERFORM isolate_tenants(child::regclass);
                changed := changed + 1;
            END IF;
        END LOOP;
        FOR old IN
            SELECT c.oid::regclass AS name
            FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
            WHERE i.inhparent = parent::regclass
                AND c.relname ~ '_[0-9]{8}$'
                AND to_date(right(c.relname, 8), 'YYYYMMDD') + step < now() - keep
        LOOP
            EXECUTE format('DROP TABLE %s', old.name);
            changed := changed + 1;
        END LOOP;
    END LOOP;
    RETURN changed;
END $$;
REVOKE ALL ON FUNCTION maintain_partitions(interval, interval) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION maintain_partitions(interval, interval) TO mijra_worker;

SELECT maintain_partitions(interval '30 days', interval '13 months');
