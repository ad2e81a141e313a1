-- What is looked for in the log is mostly what did not go as it should, which is rare: so this is cheap to keep and spares reading weeks
-- of the rest. Whoever looks for an account or a provider reads the log in order, so much at a time.
--
-- New partitions have it from their beginning, and those that are small get it now. On a large one it would hold up those who write
-- for minutes: there it is built by hand (see the changelog), or not at all: each partition goes after some weeks.
SET LOCAL lock_timeout = '5s';
CREATE INDEX webhook_log_by_outcome ON ONLY webhook_log (tenant_id, outcome, received_at, webhook_id) WHERE outcome <> 'stored';
DO $$
DECLARE
    small_bytes CONSTANT bigint := 32 * 1024 * 1024;
    part record;
BEGIN
    FOR part IN
        SELECT c.relname AS name, pg_relation_size(c.oid) AS bytes
        FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'webhook_log'::regclass
        ORDER BY c.relname
    LOOP
        IF part.bytes > small_bytes THEN
            RAISE NOTICE '% is large: its index is to be built by hand', part.name;
            CONTINUE;
        END IF;
        EXECUTE format(
            'CREATE INDEX %I ON %I (tenant_id, outcome, received_at, webhook_id) WHERE outcome <> ''stored''',
            part.name || '_by_outcome', part.name);
        EXECUTE format('ALTER INDEX webhook_log_by_outcome ATTACH PARTITION %I', part.name || '_by_outcome');
    END LOOP;
END $$;
