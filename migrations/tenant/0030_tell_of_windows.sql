-- What happened, for those who follow a tenant: so far, of customer service windows. A window that ends is found by an index on when that
-- is, by one clock for all tenants; one that opens is seen by the batch that opens it.
SET LOCAL lock_timeout = '5s';
ALTER TABLE conversations ADD COLUMN window_opened_at timestamptz;
COMMENT ON COLUMN conversations.window_opened_at IS 'Since when the window has been open without a break, as far as known.';

CREATE TABLE events (
    tenant_id uuid NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    -- The transaction that wrote it. Who has read up to the oldest transaction that is still under way misses none that commits later.
    position bigint NOT NULL DEFAULT pg_current_xact_id()::text::bigint,
    kind text NOT NULL,
    conversation_id uuid,
    details jsonb NOT NULL DEFAULT '{}',
    PRIMARY KEY (tenant_id, at, id)
) PARTITION BY RANGE (at);
CREATE INDEX events_in_order ON events (tenant_id, position, id);
CREATE INDEX events_of_conversation ON events (tenant_id, conversation_id, position, id);
SELECT isolate_tenants('events');
GRANT SELECT ON events TO mijra_api;
GRANT SELECT, INSERT ON events TO mijra_worker;

-- How far something that goes by the clock has come, in the whole database. Nobody's secret.
CREATE TABLE clocks (
    name text PRIMARY KEY,
    at timestamptz NOT NULL,
    id uuid NOT NULL
);
GRANT SELECT, UPDATE ON clocks TO mijra_worker;
-- What ended before is no news.
INSERT INTO clocks (name, at, id) VALUES
    ('window_closing', now() + interval '1 hour', '00000000-0000-0000-0000-000000000000'),
    ('window_closed', now(), '00000000-0000-0000-0000-000000000000');

-- As in 0014, with one more table.
CREATE OR REPLACE FUNCTION maintain_partitions(keep_log interval, keep_trail interval, keep_audit interval) RETURNS int
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp
-- Days and months begin in UTC, whatever the session thinks.
SET timezone = 'UTC'
-- Everybody else queues behind a lock that we wait for.
SET lock_timeout = '2s' AS $$
DECLARE
    -- Moving more would not be done within a statement's time. They stay in the default partition until they are too old.
    move_at_most CONSTANT bigint := 50000;
    remove_at_most CONSTANT bigint := 10000;
    parent text;
    ranged_by text;
    -- When a row was written: the trail is ranged by the provider's time, which may be any.
    written_at text;
    step interval;
    ahead int;
    keep interval;
    first_at timestamptz;
    from_at timestamptz;
    rest text;
    child text;
    waiting bigint;
    removed bigint;
    changed int := 0;
    old record;
BEGIN
    -- One at a time; whoever comes second has nothing left to do.
    IF NOT pg_try_advisory_xact_lock(hashtext('mijra partitions')) THEN
        RETURN 0;
    END IF;
    FOR parent, ranged_by, written_at, step, ahead, keep IN VALUES
        ('webhook_log', 'received_at', 'received_at', interval '1 day', 14, keep_log),
        ('trail', 'at', 'recorded_at', interval '1 month', 3, keep_trail),
        ('audit', 'at', 'at', interval '1 month', 3, keep_audit),
        ('events', 'at', 'at', interval '1 day', 14, interval '30 days')
    LOOP
        rest := parent || '_default';
        IF to_regclass(rest) IS NULL THEN
            EXECUTE format('CREATE TABLE %I PARTITION OF %I DEFAULT', rest, parent);
            PERFORM isolate_tenants(rest::regclass);
            changed := changed + 1;
        END IF;
        first_at := date_trunc(CASE WHEN step = interval '1 day' THEN 'day' ELSE 'month' END, now());
        FOR nth IN 0..ahead LOOP
            from_at := first_at + nth * step;
            child := parent || to_char(from_at, '_YYYYMMDD');
            CONTINUE WHEN to_regclass(child) IS NOT NULL;
            BEGIN
                -- By itself first: attaching locks the parent far less than making it in place.
                EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING ALL)', child, parent);
                IF pg_relation_size(rest::regclass) > 0 THEN
                    -- The tables' owner is isolated, too, but for this: nobody else gets in before the commit.
                    EXECUTE format('ALTER TABLE %I NO FORCE ROW LEVEL SECURITY', rest);
                    EXECUTE format('SELECT count(*) FROM (SELECT FROM %I WHERE %I >= $1 AND %I < $2 LIMIT $3) AS here', rest, ranged_by, ranged_by)
                        INTO waiting USING from_at, from_at + step, move_at_most + 1;
                    IF waiting > move_at_most THEN
                        RAISE EXCEPTION 'more than % rows of it are in %', move_at_most, rest;
                    END IF;
                    EXECUTE format(
                        'WITH moved AS (DELETE FROM %I WHERE %I >= $1 AND %I < $2 RETURNING *) INSERT INTO %I SELECT * FROM moved',
                        rest, ranged_by, ranged_by, child)
                        USING from_at, from_at + step;
                    EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', rest);
                END IF;
                PERFORM isolate_tenants(child::regclass);
                EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', parent, child, from_at, from_at + step);
                changed := changed + 1;
            EXCEPTION WHEN OTHERS THEN
                RAISE WARNING 'partition % is not made now: %', child, SQLERRM;
            END;
        END LOOP;
        FOR old IN
            SELECT c.oid::regclass AS name
            FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
            WHERE i.inhparent = parent::regclass
                AND c.relname ~ '_[0-9]{8}$'
                AND to_date(right(c.relname, 8), 'YYYYMMDD') + step < now() - keep
        LOOP
            BEGIN
                EXECUTE format('DROP TABLE %s', old.name);
                changed := changed + 1;
            EXCEPTION WHEN OTHERS THEN
                RAISE WARNING 'partition % is not dropped now: %', old.name, SQLERRM;
            END;
        END LOOP;
        IF pg_relation_size(rest::regclass) > 0 THEN
            BEGIN
                EXECUTE format('ALTER TABLE %I NO FORCE ROW LEVEL SECURITY', rest);
                EXECUTE format('DELETE FROM %I WHERE ctid = ANY (ARRAY(SELECT ctid FROM %I WHERE %I < $1 LIMIT $2))', rest, rest, written_at)
                    USING now() - keep, remove_at_most;
                GET DIAGNOSTICS removed = ROW_COUNT;
                EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', rest);
                IF removed > 0 THEN
                    changed := changed + 1;
                END IF;
            EXCEPTION WHEN OTHERS THEN
                RAISE WARNING 'what is too old stays in % for now: %', rest, SQLERRM;
            END;
        END IF;
    END LOOP;
    RETURN changed;
END $$;

-- How long is kept what there is, is the scheduler's to say: nothing is dropped here.
SELECT maintain_partitions(interval '1000 years', interval '1000 years', interval '1000 years');
