//! The scheduler against real servers: one thing that cannot be done keeps no other from being done.

use crate::queue::{SOON, staged, until};
use serde_json::json;
use shared::{
    clock::Clock,
    db::{Databases, receiving},
    domain::{
        channel::Provider,
        ids::{TenantId, WebhookId},
    },
    health::Readiness,
    jobs::inbound::{Meta, RawWebhook},
    lifecycle::Lifecycle,
    queue::{Broker, Publisher},
};
use sqlx::{AssertSqlSafe, PgConnection};
use support::database::{Role, database, placement};
use workers::scheduler::Scheduler;

/// More than one batch of each table.
const UNREADABLE: [(&str, i64, &str); 3] = [
    ("outbox", 600, "INSERT INTO outbox (tenant_id, id, queue, job, body, publish_after)
        SELECT $1, gen_random_uuid(), 'outbound.now', '{}', '', now() - interval '1 hour' FROM generate_series(1, 600)"),
    ("control.outbox", 600, "INSERT INTO control.outbox (id, queue, job, body, publish_after)
        SELECT gen_random_uuid(), 'inbound', '{}', '', now() - interval '1 hour' FROM generate_series(1, 600) WHERE $1 IS NOT NULL"),
    ("control.spill", 100, "INSERT INTO control.spill (id, meta, body)
        SELECT ('00000000-0000-7000-8000-' || lpad(n::text, 12, '0'))::uuid, '{}', '' FROM generate_series(1, 100) n WHERE $1 IS NOT NULL"),
];

async fn count(admin: &mut PgConnection, table: &str) -> i64 {
    sqlx::query_scalar(AssertSqlSafe(format!("SELECT count(*) FROM {table}"))).fetch_one(admin).await.unwrap()
}

fn scheduler(databases: Databases, broker: Broker, publisher: Publisher) -> Scheduler {
    Scheduler {
        databases,
        broker,
        publisher,
        clock: Clock::system(),
        log_days: workers::scheduler::LOG_DAYS,
        window_closing_minutes: workers::scheduler::WINDOW_CLOSING_MINUTES,
        templates_max_age: None,
    }
}

#[tokio::test]
async fn a_database_that_is_away_and_rows_nobody_can_read_hold_up_nothing_else() {
    staged(async |stage| {
        let (database, gone) = (database().await, placement().await);
        let databases = database.databases_with(Role::Worker, &[("away", &gone)]);
        drop(gone);
        let mut admin = database.admin().await;
        let (near, far) = (TenantId::new(), TenantId::new());
        sqlx::query("INSERT INTO control.placements (name) VALUES ('away')").execute(&mut admin).await.unwrap();
        for (tenant, slug, placement) in [(near, "near", "primary"), (far, "far", "away")] {
            sqlx::query("INSERT INTO control.tenants (id, slug, name, placement) VALUES ($1, $2, $2, $3)")
                .bind(tenant)
                .bind(slug)
                .bind(placement)
                .execute(&mut admin)
                .await
                .unwrap();
        }
        for (_, _, statement) in UNREADABLE {
            sqlx::query(statement).bind(near).execute(&mut admin).await.unwrap();
        }
        // Behind them, one of each that can be read.
        let envelope = json!({"kind": "test.job", "version": 1, "attempt": 0, "created_at": "2026-11-21T10:00:00Z"});
        sqlx::query(
            "WITH control AS (
                INSERT INTO control.outbox (id, queue, job, body, publish_after) VALUES (gen_random_uuid(), 'inbound', $2, '', now())
            )
            INSERT INTO outbox (tenant_id, id, queue, job, body, publish_after) VALUES ($1, gen_random_uuid(), 'outbound.now', $2, '', now())",
        )
        .bind(near)
        .bind(envelope)
        .execute(&mut admin)
        .await
        .unwrap();
        let meta = Meta {
            id: WebhookId::new(),
            provider: Provider::Whatsapp,
            received_at: Clock::system().now(),
            account: None,
query: None,
            stored: false,
            replay: false,
        };
        let mut tx = database.databases(Role::Api).control().await.unwrap();
        receiving::spill(&mut tx, &[RawWebhook { meta, body: "{}".into() }]).await.unwrap();
        tx.commit().await.unwrap();

        let (readiness, life) = (Readiness::default(), Lifecycle::new(SOON));
        let condition = readiness.condition("sweep");
        let broker = stage.broker();
        let publisher = stage.publisher(&broker).await;
        let running = workers::scheduler::run(scheduler(databases, broker, publisher), life.clone(), condition);
        let watching = async {
            for (table, unreadable, _) in UNREADABLE {
                until(table, async || count(&mut admin, table).await == unreadable).await;
            }
            let reason = || readiness.report().conditions["sweep"].clone();
            until("what is away is named, and nothing else", async || {
                reason().contains("sweeping the outbox (placement away)") && !reason().contains("placement primary")
            })
            .await;
            life.stop();
        };
        tokio::join!(running, watching);
        for (table, unreadable, _) in UNREADABLE {
            assert_eq!(count(&mut admin, table).await, unreadable, "{table}: kept for a release that can read them");
        }
    })
    .await;
}

/// A tenant with a conversation whose window has just ended.
const CLOSING: [&str; 4] = [
    "INSERT INTO control.tenants (id, slug, name) VALUES ($1, 'acme', 'Acme')",
    "INSERT INTO channel_accounts (tenant_id, id, provider, name, external_id, sealed_secrets, secret_key_id)
    VALUES ($1, $1, 'whatsapp', 'Shop', '106', 'sealed', 'test')",
    "INSERT INTO contacts (tenant_id, id, name) VALUES ($1, $1, 'Ada')",
    "INSERT INTO conversations (tenant_id, id, contact_id, channel_account_id, state, origin, last_message_at, last_message_direction,
        window_expires_at)
    VALUES ($1, $1, $1, $1, 'open', 'inbound', now(), 'in', now() - interval '30 seconds')",
];

#[tokio::test]
async fn windows_are_told_of_by_the_clock_alone() {
    staged(async |stage| {
        let database = database().await;
        let mut admin = database.admin().await;
        let tenant = TenantId::new();
        for statement in CLOSING {
            sqlx::query(statement).bind(tenant).execute(&mut admin).await.unwrap();
        }
        // As if nobody had looked for a minute.
        sqlx::query("UPDATE clocks SET at = now() - interval '1 minute'").execute(&mut admin).await.unwrap();
        let (readiness, life) = (Readiness::default(), Lifecycle::new(SOON));
        let condition = readiness.condition("sweep");
        let broker = stage.broker();
        let publisher = stage.publisher(&broker).await;
        let scheduler = scheduler(database.databases(Role::Worker), broker, publisher);
        let running = workers::scheduler::run(scheduler, life.clone(), condition);
        let watching = async {
            let told = "SELECT coalesce(string_agg(kind, ' ' ORDER BY position), '') FROM events";
            let both = "conversation.window_closing conversation.window_closed";
            until("both are told", async || {
                sqlx::query_scalar::<_, String>(told).fetch_one(&mut admin).await.unwrap() == both
            })
            .await;
            life.stop();
        };
        tokio::join!(running, watching);
    })
    .await;
}
