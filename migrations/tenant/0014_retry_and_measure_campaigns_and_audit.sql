-- Trying failed people of a campaign again: what was asked for and how far it is, and which attempts of a send are behind it.
ALTER TABLE campaigns
    -- Set while it is under way: who had failed by then is tried again.
    ADD COLUMN retry_asked_at timestamptz,
    -- Only those with one of these codes; NULL: all.
    ADD COLUMN retry_codes text[],
    -- People from here on have been looked at: it goes from the last to the first.
    ADD COLUMN retry_through uuid;

ALTER TABLE sends
    ADD COLUMN retried_at timestamptz,
    -- Attempts that had failed when it was tried again: what is heard of them later is not about the one under way.
    ADD COLUMN retried_attempts uuid[];

-- How fast a campaign goes: each hand-over is counted, and two samples of the count are kept, both at most some seconds old.
ALTER TABLE campaign_counts ADD COLUMN handed_over bigint NOT NULL DEFAULT 0;
ALTER TABLE campaigns
    ADD COLUMN sampled_at timestamptz,
    ADD COLUMN sampled_handed_over bigint,
    ADD COLUMN sampled_before_at timestamptz,
    ADD COLUMN sampled_before_handed_over bigint;

-- Who changed what and when: added to by whoever makes the change, in the same transaction, and never changed.
CREATE TABLE audit (
    tenant_id uuid NOT NULL,
    at timestamptz NOT NULL DEFAULT now(),
    id uuid NOT NULL,
    -- The token of the API that was used; NULL: an operator at the command line.
    token_id uuid,
    -- campaign.started, token.revoked …
    action text NOT NULL CHECK (action <> ''),
    target_kind text NOT NULL CHECK (target_kind <> ''),
    target_id uuid NOT NULL,
    -- Before and after, where that says something. Never secrets.
    details jsonb NOT NULL DEFAULT '{}',
    PRIMARY KEY (tenant_id, at, id)
) PARTITION BY RANGE (at);
CREATE INDEX audit_of_target ON audit (tenant_id, target_id, at, id);
SELECT isolate_tenants('audit');
GRANT SELECT, INSERT ON audit TO mijra_api, mijra_worker;

-- As in 0009, with one more table. The function of before stays for programs of before.
CREATE FUNCTION maintain_partitions(keep_log interval, keep_trail interval, keep_audit interval) RETURNS int
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
        ('audit', 'at', 'at', interval '1 month', 3, keep_audit)
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
REVOKE ALL ON FUNCTION maintain_partitions(interval, interval, interval) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION maintain_partitions(interval, interval, interval) TO mijra_worker;
CREATE OR REPLACE FUNCTION maintain_partitions(keep_log interval, keep_trail interval) RETURNS int
LANGUAGE sql SECURITY INVOKER SET search_path = public, pg_temp AS $$
    SELECT maintain_partitions(keep_log, keep_trail, interval '25 months')
$$;

SELECT maintain_partitions(interval '30 days', interval '13 months', interval '25 months');
