//! What housekeeping does to a database, as the role the workers have.

use crate::queue::until;
use shared::{
    db::{
        Databases, Placement,
        retention::{self, Removed},
        webhook_log::replays,
    },
    domain::ids::TenantId,
    jobs::Job,
};
use sqlx::{AssertSqlSafe, PgConnection};
use support::database::{Role, database};

async fn execute(admin: &mut PgConnection, statements: impl Into<String>) {
    sqlx::raw_sql(AssertSqlSafe(statements.into())).execute(admin).await.unwrap();
}

async fn ask(admin: &mut PgConnection, question: &'static str) -> i64 {
    sqlx::query_scalar(question).fetch_one(admin).await.unwrap()
}

/// As after a long time without a scheduler: there are no partitions but those for all the rest.
async fn lose_partitions(admin: &mut PgConnection) {
    let drop = "DO $$
        DECLARE
            child regclass;
        BEGIN
            FOR child IN SELECT inhrelid FROM pg_inherits WHERE inhparent IN ('webhook_log'::regclass, 'trail'::regclass, 'audit'::regclass, 'events'::regclass) LOOP
                IF child::text !~ 'default' THEN
                    EXECUTE format('DROP TABLE %s', child);
                END IF;
            END LOOP;
        END $$";
    execute(admin, drop).await;
}

async fn missing(workers: &Databases) -> i64 {
    let mut tx = workers.fleet(&Placement::primary(), &[]).await.unwrap();
    retention::missing_partitions(&mut tx).await.unwrap()
}

async fn maintain(workers: &Databases) -> i32 {
    let mut tx = workers.fleet(&Placement::primary(), &[]).await.unwrap();
    let changed = retention::maintain_partitions(&mut tx, 30).await.unwrap();
    tx.commit().await.unwrap();
    changed
}

#[tokio::test]
async fn rows_in_the_default_partition_are_moved_into_the_one_that_was_missing() {
    let mut database = database().await;
    let workers = database.databases(Role::Worker);
    let owner = database.make_role("").await;
    let mut admin = database.admin().await;
    lose_partitions(&mut admin).await;
    // Rows of now, of before, and too old ones.
    execute(
        &mut admin,
        "INSERT INTO webhook_log (tenant_id, received_at, webhook_id, provider, outcome, body_lz4, body_bytes)
        SELECT gen_random_uuid(), at, gen_random_uuid(), 'whatsapp', 'stored', 'body', 4
        FROM unnest(ARRAY[now(), now() + interval '3 days', now() - interval '10 days', now() - interval '40 days']) AS at;
        INSERT INTO trail (tenant_id, message_id, event, at, recorded_at)
        SELECT gen_random_uuid(), gen_random_uuid(), 'sent', at, recorded_at
        FROM (VALUES (now(), now()), ('2001-01-01', now()), ('2001-01-01', now() - interval '2 years')) AS row (at, recorded_at);
        INSERT INTO audit (tenant_id, at, id, action, target_kind, target_id)
        SELECT gen_random_uuid(), at, gen_random_uuid(), 'campaign.started', 'campaign', gen_random_uuid()
        FROM unnest(ARRAY[now(), now() - interval '2 years', now() - interval '27 months']) AS at",
    )
    .await;
    // The tables' owner need not be a superuser: then it is isolated like everybody.
    execute(
        &mut admin,
        format!(
            "GRANT CREATE ON SCHEMA public TO {owner};
            GRANT EXECUTE ON FUNCTION isolate_tenants(regclass) TO {owner};
            ALTER FUNCTION maintain_partitions(interval, interval, interval) OWNER TO {owner};
            ALTER TABLE webhook_log OWNER TO {owner};
            ALTER TABLE webhook_log_default OWNER TO {owner};
            ALTER TABLE audit OWNER TO {owner};
            ALTER TABLE audit_default OWNER TO {owner};
            ALTER TABLE events OWNER TO {owner};
            ALTER TABLE events_default OWNER TO {owner};
            ALTER TABLE trail OWNER TO {owner};
            ALTER TABLE trail_default OWNER TO {owner}"
        ),
    )
    .await;
    assert_eq!(missing(&workers).await, 6);
    assert!(maintain(&workers).await > 0);
    assert_eq!((maintain(&workers).await, missing(&workers).await), (0, 0), "all is done");
    let log = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'webhook_log'::regclass";
    assert!(ask(&mut admin, log).await >= 16, "today, 14 days ahead, and the default");
    let unindexed = "SELECT count(*)
        FROM pg_inherits t
        WHERE inhparent = 'webhook_log'::regclass AND NOT EXISTS (
            SELECT FROM pg_inherits i JOIN pg_index x ON x.indexrelid = i.inhrelid
            WHERE i.inhparent = 'webhook_log_by_outcome'::regclass AND x.indrelid = t.inhrelid AND x.indisvalid
        )";
    assert_eq!(ask(&mut admin, unindexed).await, 0, "those of before, and new ones");
    let trail = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'trail'::regclass";
    assert!(ask(&mut admin, trail).await >= 5, "this month, three ahead, and the default");
    assert_eq!(ask(&mut admin, "SELECT count(*) FROM webhook_log").await, 3, "one was too old");
    assert_eq!(
        ask(&mut admin, "SELECT count(*) FROM webhook_log_default").await,
        1,
        "the others are where they belong"
    );
    assert_eq!(ask(&mut admin, "SELECT count(*) FROM trail").await, 2, "one was recorded too long ago");
    assert_eq!(ask(&mut admin, "SELECT count(*) FROM trail_default").await, 1);
    assert_eq!(ask(&mut admin, "SELECT count(*) FROM audit").await, 2, "one is older than two years and a month");
    assert_eq!(ask(&mut admin, "SELECT count(*) FROM audit_default").await, 1);
    let open = "SELECT count(*)
        FROM pg_class c
        WHERE c.relispartition AND c.relkind = 'r'
            AND NOT (relrowsecurity AND relforcerowsecurity AND (SELECT count(*) FROM pg_policy WHERE polrelid = c.oid) = 2)";
    assert_eq!(ask(&mut admin, open).await, 0, "every partition is isolated");
}

#[tokio::test]
async fn a_partition_that_cannot_be_made_now_keeps_no_other_from_being_made() {
    let database = database().await;
    let workers = database.databases(Role::Worker);
    let mut admin = database.admin().await;
    lose_partitions(&mut admin).await;
    execute(
        &mut admin,
        "INSERT INTO webhook_log (tenant_id, received_at, webhook_id, provider, outcome, body_lz4, body_bytes)
        SELECT gen_random_uuid(), now(), gen_random_uuid(), 'whatsapp', 'stored', '', 0 FROM generate_series(1, 50001)",
    )
    .await;
    assert!(maintain(&workers).await > 0);
    let log = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'webhook_log'::regclass";
    assert_eq!(ask(&mut admin, log).await, 15, "there is too much of today to be moved, the others are made");
    let trail = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'trail'::regclass";
    assert_eq!(ask(&mut admin, trail).await, 5);
    assert_eq!(ask(&mut admin, "SELECT count(*) FROM webhook_log").await, 50001);
}

#[tokio::test]
async fn tables_that_have_grown_are_analysed_at_once() {
    let database = database().await;
    let workers = database.databases(Role::Worker);
    let mut admin = database.admin().await;
    // Only we look.
    execute(&mut admin, "ALTER TABLE outbox SET (autovacuum_enabled = off); ALTER TABLE webhook_log_default SET (autovacuum_enabled = off)").await;
    let tenant = TenantId::new();
    let mut tx = workers.fleet(&Placement::primary(), &[tenant]).await.unwrap();
    let now = tx.now().await.unwrap();
    for _ in 0..1000 {
        let job = Job::new("test.job", 1, Some(tenant), now, "{}");
        tx.enqueue(tenant, "outbound.now", job, Some(chrono::TimeDelta::hours(1)));
    }
    tx.commit().await.unwrap();
    execute(
        &mut admin,
        "INSERT INTO webhook_log (tenant_id, received_at, webhook_id, provider, outcome, body_lz4, body_bytes)
        SELECT gen_random_uuid(), '2001-01-01', gen_random_uuid(), 'whatsapp', 'stored', '', 0 FROM generate_series(1, 1000);
        INSERT INTO contacts (tenant_id, id) SELECT gen_random_uuid(), gen_random_uuid() FROM generate_series(1, 100)",
    )
    .await;
    // What a session has done is counted up to a second later.
    let mut analysed = 0;
    until("both are analysed", async || {
        let mut tx = workers.fleet(&Placement::primary(), &[]).await.unwrap();
        analysed += retention::analyze_grown_tables(&mut tx).await.unwrap();
        tx.commit().await.unwrap();
        analysed >= 2
    })
    .await;
    assert_eq!(ask(&mut admin, "SELECT reltuples::bigint FROM pg_class WHERE oid = 'outbox'::regclass").await, 1000);
    let log = "SELECT reltuples::bigint FROM pg_class WHERE oid = 'webhook_log_default'::regclass";
    assert_eq!(ask(&mut admin, log).await, 1000);
    assert_eq!(ask(&mut admin, "SELECT reltuples::bigint FROM pg_class WHERE oid = 'contacts'::regclass").await, -1);
    let may = "SELECT count(*) FROM unnest(ARRAY['mijra_api', 'mijra_worker']) AS role
        WHERE has_function_privilege(role, 'analyze_grown_tables()', 'EXECUTE')";
    assert_eq!(ask(&mut admin, may).await, 1, "the workers, and not the API");
}

#[tokio::test]
async fn what_is_too_old_is_removed_a_bounded_number_at_a_time() {
    let database = database().await;
    let workers = database.databases(Role::Worker);
    let mut admin = database.admin().await;
    let tenant = TenantId::new();
    execute(
        &mut admin,
        format!(
            "INSERT INTO idempotency_keys (tenant_id, key, request_digest, status, response, created_at)
            SELECT '{tenant}', n::text, '', 202, '{{}}', now() - interval '3 days' FROM generate_series(1, 5001) n;
            INSERT INTO idempotency_keys (tenant_id, key, request_digest, status, response) VALUES ('{tenant}', 'new', '', 202, '{{}}')"
        ),
    )
    .await;
    for expected in [Removed { rows: 5000, more: true }, Removed { rows: 1, more: false }] {
        let mut tx = workers.fleet(&Placement::primary(), &[tenant]).await.unwrap();
        assert_eq!(retention::expire_idempotency_keys(&mut tx).await.unwrap(), expected);
        tx.commit().await.unwrap();
    }
    assert_eq!(ask(&mut admin, "SELECT count(*) FROM idempotency_keys").await, 1);
}

#[tokio::test]
async fn a_replay_that_only_a_newer_release_understands_is_left_to_it_and_holds_up_no_other() {
    let database = database().await;
    let mut admin = database.admin().await;
    let [ours, newer, also_newer] = [TenantId::new(), TenantId::new(), TenantId::new()];
    let rows = format!(
        "INSERT INTO webhook_replays (tenant_id, id, since, until, provider, outcome, worked_at)
        VALUES ('{newer}', gen_random_uuid(), now() - interval '1 day', now(), 'telegram', NULL, now() - interval '1 hour'),
            ('{also_newer}', gen_random_uuid(), now() - interval '1 day', now(), NULL, 'postponed', now() - interval '1 hour'),
            ('{ours}', gen_random_uuid(), now() - interval '1 day', now(), 'twilio', 'partly_bad', now())"
    );
    execute(&mut admin, rows).await;
    let all = [ours, newer, also_newer];
    let mut tx = database.databases(Role::Worker).fleet(&Placement::primary(), &all).await.unwrap();
    let under_way = replays::under_way(&mut tx).await.unwrap();
    let tenants: Vec<TenantId> = under_way.ours.iter().map(|(tenant, _)| *tenant).collect();
    assert_eq!((tenants, under_way.newer), (vec![ours], 2));
}
