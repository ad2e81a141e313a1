-- Gives the planner statistics of tables that have doubled since it last had some. Autovacuum looks once a minute, and until
-- then a new database or a large new tenant is planned for as if it were empty: a batch has taken 20 s. Workers may call
-- this, but own no table.
CREATE FUNCTION analyze_grown_tables() RETURNS int
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp
-- A table that somebody else is at is passed over without a word.
SET client_min_messages = 'error' AS $$
DECLARE
    grown regclass;
    analysed int := 0;
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtext('mijra statistics')) THEN
        RETURN 0;
    END IF;
    FOR grown IN
        SELECT c.oid::regclass
        FROM pg_stat_user_tables s
        JOIN pg_class c ON c.oid = s.relid
        WHERE s.schemaname IN ('public', 'control')
            AND c.relkind = 'r'
            AND s.n_mod_since_analyze > 500
            AND s.n_mod_since_analyze > greatest(c.reltuples, 0)
            -- Beyond this autovacuum is soon enough, and looking takes longer.
            AND c.reltuples < 1000000
        ORDER BY c.oid
    LOOP
        EXECUTE format('ANALYZE (SKIP_LOCKED) %s', grown);
        analysed := analysed + 1;
    END LOOP;
    RETURN analysed;
END $$;
REVOKE ALL ON FUNCTION analyze_grown_tables() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION analyze_grown_tables() TO mijra_worker;
