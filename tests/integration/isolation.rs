//! Tenants are kept apart by the database itself. Which tables there are is asked of the catalogue, so that a new one cannot be
//! forgotten: it needs a row in [`ROWS`] here, or the test says so.

use serde_json::Value;
use shared::{
    db::{
        NotReady,
        channel_accounts::{self, route},
    },
    domain::{
        channel::Provider,
        ids::{ChannelAccountId, TenantId},
    },
};
use sqlx::{AssertSqlSafe, PgConnection, Row};
use std::collections::BTreeSet;
use support::database::{Database, Role, database};
use uuid::Uuid;

/// One row of each table for the tenant `$1`; `$2` is an account of its own, `$3` a person, `$4` a conversation, `$5` a message.
const ROWS: &[(&str, &str)] = &[
    ("tenant_settings", "INSERT INTO tenant_settings (tenant_id) VALUES ($1)"),
    (
        "channel_accounts",
        "INSERT INTO channel_accounts (tenant_id, id, provider, name, external_id, sealed_secrets, secret_key_id)
        VALUES ($1, $2, 'whatsapp', 'Shop', $2::text, 'sealed', 'test')",
    ),
    (
        "templates",
        "INSERT INTO templates (tenant_id, channel_account_id, name, language, status, category, body, variables, synced_at)
        VALUES ($1, $2, 'reminder', 'en', 'APPROVED', 'UTILITY', 'Hi', 0, now())",
    ),
    ("template_uses", "INSERT INTO template_uses (tenant_id, template_id, day, slot, uses) VALUES ($1, $2, current_date, 0, 1)"),
    ("limits", "INSERT INTO limits (tenant_id, scope, key, rate, current_rate) VALUES ($1, 'account', $2, 80, 80)"),
    (
        "api_tokens",
        "INSERT INTO api_tokens (tenant_id, id, name, digest, permissions) VALUES ($1, $2, 'token', sha256($2::text::bytea), '{}')",
    ),
    ("contacts", "INSERT INTO contacts (tenant_id, id, name) VALUES ($1, $3, 'Ada')"),
    ("contact_aliases", "INSERT INTO contact_aliases (tenant_id, kind, value, contact_id) VALUES ($1, 'phone', '+15557770123', $3)"),
    (
        "conversations",
        "INSERT INTO conversations (tenant_id, id, contact_id, channel_account_id, state, origin, last_message_at, last_message_direction)
        VALUES ($1, $4, $3, $2, 'open', 'inbound', now(), 'in')",
    ),
    (
        "messages",
        "INSERT INTO messages (tenant_id, id, conversation_id, direction, kind, content, at) VALUES ($1, $5, $4, 'out', 'text', '{}', now())",
    ),
    (
        "provider_refs",
        "INSERT INTO provider_refs (tenant_id, channel_account_id, provider_message_id, message_id) VALUES ($1, $2, 'wamid.1', $5)",
    ),
    (
        "parked_reports",
        "INSERT INTO parked_reports (tenant_id, channel_account_id, provider_message_id, state, event, at)
        VALUES ($1, $2, 'wamid.2', 'sent', 'sent', now())",
    ),
    (
        "sends",
        "INSERT INTO sends (tenant_id, message_id, conversation_id, channel_account_id, seq, recipient_kind, recipient, needs_window, state)
        VALUES ($1, $5, $4, $2, 1, 'phone', '+15557770123', true, 'queued')",
    ),
    (
        "send_attempts",
        "INSERT INTO send_attempts (tenant_id, message_id, id, number, outcome, ended_at) VALUES ($1, $5, $2, 1, 'accepted', now())",
    ),
    ("trail", "INSERT INTO trail (tenant_id, message_id, event, at) VALUES ($1, $5, 'sent', now())"),
    (
        "webhook_log",
        "INSERT INTO webhook_log (tenant_id, received_at, webhook_id, provider, outcome, body_lz4, body_bytes)
        VALUES ($1, now(), $5, 'whatsapp', 'stored', 'body', 4)",
    ),
    (
        "webhook_replays",
        "INSERT INTO webhook_replays (tenant_id, id, since, until) VALUES ($1, $5, now() - interval '1 day', now())",
    ),
    (
        "outbox",
        "INSERT INTO outbox (tenant_id, id, queue, job, body, publish_after) VALUES ($1, $5, 'outbound.now', '{}', 'body', now())",
    ),
    (
        "idempotency_keys",
        "INSERT INTO idempotency_keys (tenant_id, key, request_digest, status, response) VALUES ($1, 'key', 'digest', 202, '{}')",
    ),
    (
        "campaigns",
        "INSERT INTO campaigns (tenant_id, id, name, channel_account_id, content, audience) VALUES ($1, $5, 'Spring', $2, '{}', '{}')",
    ),
    (
        "campaign_recipients",
        "INSERT INTO campaign_recipients (tenant_id, campaign_id, contact_id, state) VALUES ($1, $5, $3, 'waiting')",
    ),
    (
        "received_seconds",
        "INSERT INTO received_seconds (tenant_id, channel_account_id, slot, second, messages) VALUES ($1, $2, 0, 0, 1)",
    ),
    (
        "pair_meters",
        "INSERT INTO pair_meters (tenant_id, channel_account_id, contact_id, next_at) VALUES ($1, $2, $3, now())",
    ),
    ("portfolios", "INSERT INTO portfolios (tenant_id, id, provider, external_id) VALUES ($1, $2, 'whatsapp', $2::text)"),
    (
        "portfolio_people",
        "INSERT INTO portfolio_people (tenant_id, portfolio_id, contact_id, reached_at) VALUES ($1, $2, $3, now())",
    ),
    (
        "suppressions",
        "INSERT INTO suppressions (tenant_id, contact_id, channel, purpose, state, since, source)
        VALUES ($1, $3, 'sms', 'all', 'opted_out', now(), 'keyword')",
    ),
    ("erased_people", "INSERT INTO erased_people (tenant_id, digest, erased_at) VALUES ($1, sha256($3::text::bytea), now())"),
    ("watermarks", "INSERT INTO watermarks (tenant_id, contact_id, channel_account_id, read_through, read_at) VALUES ($1, $3, $2, now(), now())"),
    (
        "audit",
        "INSERT INTO audit (tenant_id, id, action, target_kind, target_id) VALUES ($1, $5, 'campaign.started', 'campaign', $5)",
    ),
    ("events", "INSERT INTO events (tenant_id, kind) VALUES ($1, 'conversation.window_closed')"),
    ("campaign_counts", "INSERT INTO campaign_counts (tenant_id, campaign_id) VALUES ($1, $5)"),
    (
        "media",
        "INSERT INTO media (tenant_id, id, message_id, position, channel_account_id, provider, channel, kind, at)
        VALUES ($1, $5, $5, 0, $2, 'whatsapp', 'whatsapp', 'image', now())",
    ),
    (
        "contact_profiles",
        "INSERT INTO contact_profiles (tenant_id, contact_id, channel_account_id, provider, provider_person_id, ask_again_at)
        VALUES ($1, $3, $2, 'messenger', '24', now())",
    ),
    (
        "files",
        "INSERT INTO files (tenant_id, id, storage_key, sha256, size_bytes, content_type, created_by)
        VALUES ($1, $5, 'key', sha256('x'), 1, 'image/png', $2)",
    ),
    (
        "provider_files",
        "INSERT INTO provider_files (tenant_id, channel_account_id, file_id, provider_file_id, expires_at)
        VALUES ($1, $2, $5, '77', now())",
    ),
    ("undecided", "INSERT INTO undecided (tenant_id, message_id, channel_account_id, since) VALUES ($1, $5, $2, now())"),
    ("media_objects", "INSERT INTO media_objects (tenant_id, key) VALUES ($1, 'key')"),
    (
        "control.channel_routes",
        "INSERT INTO control.channel_routes (provider, kind, external_id, tenant_id, channel_account_id)
        VALUES ('whatsapp', 'phone_number_id', $2::text, $1, $2)",
    ),
    (
        "control.webhook_endpoints",
        "INSERT INTO control.webhook_endpoints (key, provider, tenant_id, channel_account_id, sealed_secrets, secret_key_id)
        VALUES ($2::text, 'whatsapp', $1, $2, 'sealed', 'test')",
    ),
];

/// A table with a `tenant_id`.
struct Table {
    name: String,
    enabled: bool,
    forced: bool,
    /// Its rows are also its parent's.
    is_partition: bool,
}

async fn tables(admin: &mut PgConnection) -> Vec<Table> {
    sqlx::query(
        "SELECT CASE n.nspname WHEN 'public' THEN '' ELSE quote_ident(n.nspname) || '.' END || quote_ident(c.relname),
            c.relrowsecurity, c.relforcerowsecurity, c.relispartition
        FROM pg_class c
        JOIN pg_namespace n ON n.oid = c.relnamespace
        JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant_id' AND NOT a.attisdropped
        WHERE c.relkind IN ('r', 'p', 'f', 'm', 'v') AND n.nspname NOT IN ('pg_catalog', 'information_schema')
        ORDER BY 1",
    )
    .fetch_all(admin)
    .await
    .unwrap()
    .iter()
    .map(|row| Table { name: row.get(0), enabled: row.get(1), forced: row.get(2), is_partition: row.get(3) })
    .collect()
}

/// Two tenants with a row in every table.
struct Neighbours {
    database: Database,
    admin: PgConnection,
    ours: Uuid,
    theirs: Uuid,
}

impl Neighbours {
    async fn new() -> Self {
        let database = database().await;
        let mut admin = database.admin().await;
        let (ours, theirs) = (Uuid::now_v7(), Uuid::now_v7());
        for tenant in [ours, theirs] {
            sqlx::query("INSERT INTO control.tenants (id, slug, name) VALUES ($1, $1::text, 'Somebody')")
                .bind(tenant)
                .execute(&mut admin)
                .await
                .unwrap();
            let ids: [Uuid; 4] = std::array::from_fn(|_| Uuid::now_v7());
            for (table, statement) in ROWS {
                // A parameter that a statement does not use still needs a type.
                let statement = format!("{statement} RETURNING $1::uuid, $2::uuid, $3::uuid, $4::uuid, $5::uuid");
                let mut row = sqlx::query(AssertSqlSafe(statement)).bind(tenant);
                for id in ids {
                    row = row.bind(id);
                }
                row.fetch_one(&mut admin).await.unwrap_or_else(|error| panic!("a row of {table}: {error}"));
            }
        }
        Self { database, admin, ours, theirs }
    }

    /// A connection of a program that works for our tenant, as `shared::db` sets it up.
    async fn program(&self, role: Role) -> PgConnection {
        use sqlx::Connection;
        let mut connection = PgConnection::connect(self.database.url(role).as_str()).await.unwrap();
        sqlx::query("SELECT set_config('app.tenant_id', $1, false), set_config('app.tenant_ids', $2, false)")
            .bind(self.ours.to_string())
            .bind(format!("{{{}}}", self.ours))
            .execute(&mut connection)
            .await
            .unwrap();
        connection
    }

    /// The columns of a table that can be written.
    async fn columns(&mut self, table: &str) -> String {
        sqlx::query_scalar(
            "SELECT string_agg(quote_ident(attname), ', ')
            FROM pg_attribute
            WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = ''",
        )
        .bind(table)
        .fetch_one(&mut self.admin)
        .await
        .unwrap()
    }

    /// All that is theirs in a table.
    async fn theirs(&mut self, table: &str) -> Vec<Value> {
        let question = format!("SELECT to_jsonb(t) FROM {table} t WHERE tenant_id = $1 ORDER BY 1::text");
        sqlx::query_scalar(AssertSqlSafe(question)).bind(self.theirs).fetch_all(&mut self.admin).await.unwrap()
    }
}

/// What came of a statement: so many rows, or it was forbidden.
#[derive(Debug, PartialEq)]
enum Came {
    Rows(u64),
    Forbidden,
}

async fn came(program: &mut PgConnection, statement: String, binds: &[Uuid]) -> Came {
    let mut query = sqlx::query(AssertSqlSafe(statement.clone()));
    for bind in binds {
        query = query.bind(*bind);
    }
    match query.execute(program).await {
        Ok(done) => Came::Rows(done.rows_affected()),
        // 42501: no right to the table, or the row is against the policy.
        Err(error) if error.as_database_error().and_then(|e| e.code()).as_deref() == Some("42501") => Came::Forbidden,
        Err(error) => panic!("{statement}: {error}"),
    }
}

#[tokio::test]
async fn every_table_with_a_tenant_has_forced_row_level_security() {
    let database = database().await;
    let tables = tables(&mut database.admin().await).await;
    let open: Vec<&str> = tables.iter().filter(|t| !(t.enabled && t.forced)).map(|t| t.name.as_str()).collect();
    assert!(open.is_empty(), "without forced row-level security: {open:?}; call isolate_tenants() in the migration");
    assert!(tables.iter().any(|table| table.is_partition), "partitions are looked at, too");
    let known: BTreeSet<&str> = ROWS.iter().map(|(table, _)| *table).collect();
    let new: Vec<&str> =
        tables.iter().filter(|t| !t.is_partition).map(|t| t.name.as_str()).filter(|t| !known.contains(t)).collect();
    assert!(new.is_empty(), "give these tables a row in ROWS: {new:?}");
}

#[tokio::test]
async fn no_role_reads_or_writes_another_tenants_rows_through_any_table() {
    let mut neighbours = Neighbours::new().await;
    let (ours, theirs) = (neighbours.ours, neighbours.theirs);
    let mut wrong = Vec::new();
    let mut seen_of_ours = BTreeSet::new();
    for table in tables(&mut neighbours.admin).await {
        let name = &table.name;
        let before = neighbours.theirs(name).await;
        assert!(table.is_partition || !before.is_empty(), "{name} has a row of theirs");
        for role in Role::ALL {
            let mut program = neighbours.program(role).await;
            let mut expect = |what: &str, found: Came, allowed: &[Came]| {
                if !allowed.contains(&found) {
                    wrong.push(format!("{} on {name}: {what} came to {found:?}", role.name()));
                }
            };
            let nothing = [Came::Rows(0), Came::Forbidden];
            let read = came(&mut program, format!("SELECT FROM {name} WHERE tenant_id = $1"), &[theirs]).await;
            expect("reading theirs", read, &nothing);
            let read =
                came(&mut program, format!("SELECT FROM {name} WHERE tenant_id IS DISTINCT FROM $1"), &[ours]).await;
            expect("reading whatever is not ours", read, &nothing);
            let update = format!("UPDATE {name} SET tenant_id = tenant_id WHERE tenant_id = $1");
            expect("updating theirs", came(&mut program, update, &[theirs]).await, &nothing);
            let take = format!("UPDATE {name} SET tenant_id = $1 WHERE tenant_id = $2");
            expect("taking theirs", came(&mut program, take.clone(), &[ours, theirs]).await, &nothing);
            let deleted = came(&mut program, format!("DELETE FROM {name} WHERE tenant_id = $1"), &[theirs]).await;
            expect("deleting theirs", deleted, &nothing);
            // What must fail outright, not just come to nothing.
            let give = came(&mut program, take, &[theirs, ours]).await;
            expect("giving ours to them", give, if table.is_partition { &nothing } else { &nothing[1..] });
            if let Some(row) = before.first() {
                let columns = neighbours.columns(name).await;
                let insert = format!(
                    "INSERT INTO {name} ({columns}) SELECT {columns} FROM jsonb_populate_record(NULL::{name}, '{}')",
                    quoted(row)
                );
                expect("inserting for them", came(&mut program, insert, &[]).await, &nothing[1..]);
            }
            if let Came::Rows(1..) =
                came(&mut program, format!("SELECT FROM {name} WHERE tenant_id = $1"), &[ours]).await
            {
                seen_of_ours.insert(name.clone());
            }
            let unscoped = "SELECT set_config('app.tenant_id', '', false), set_config('app.tenant_ids', '', false)";
            sqlx::query(unscoped).execute(&mut program).await.unwrap();
            let read = came(&mut program, format!("SELECT FROM {name}"), &[]).await;
            expect("reading without a tenant", read, &nothing);
        }
        let after = neighbours.theirs(name).await;
        if after != before {
            wrong.push(format!("{name}: their rows were {before:?} and are {after:?}"));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    let never: Vec<&str> = ROWS.iter().map(|(table, _)| *table).filter(|t| !seen_of_ours.contains(*t)).collect();
    assert!(never.is_empty(), "nobody sees even their own rows of {never:?}, so this test shows nothing about them");
}

fn quoted(row: &Value) -> String {
    row.to_string().replace('\'', "''")
}

#[tokio::test]
async fn a_key_cannot_point_across_tenants() {
    let mut neighbours = Neighbours::new().await;
    let rows = sqlx::query(
        "SELECT c.conrelid::regclass::text, c.conname::text
        FROM pg_constraint c
        JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attname = 'tenant_id'
        WHERE c.contype IN ('p', 'u', 'f') AND c.conkey[1] <> a.attnum AND c.connamespace = 'public'::regnamespace
            AND NOT EXISTS (SELECT FROM pg_class WHERE oid = c.conrelid AND relispartition)",
    )
    .fetch_all(&mut neighbours.admin)
    .await
    .unwrap();
    let wrong: Vec<(String, String)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    assert!(wrong.is_empty(), "keys that do not start with tenant_id: {wrong:?}");
}

#[tokio::test]
async fn a_role_that_could_bypass_isolation_is_refused() {
    let mut database = database().await;
    let bypassing = database.make_role("BYPASSRLS").await;
    let member = database.make_role("").await;
    let owner = database.make_role("").await;
    let mut admin = database.admin().await;
    for statement in [format!("GRANT {bypassing} TO {member}"), format!("ALTER TABLE templates OWNER TO {owner}")] {
        sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut admin).await.unwrap();
    }
    let administrator = database.admin_url();
    let refused = [
        (administrator.clone(), "superuser"),
        (database.url_as(&bypassing, "mijra-tests"), "BYPASSRLS"),
        (database.url_as(&member, "mijra-tests"), "member"),
        (database.url_as(&owner, "mijra-tests"), "owns"),
    ];
    for (url, why) in refused {
        let settings = shared::db::Settings {
            control: url.to_string().into(),
            placements: [].into(),
            max_connections: 1,
            application_name: "mijra-tests".into(),
        };
        match shared::db::Databases::new(&settings).unwrap().check().await {
            Err(error @ NotReady::Role { .. }) => assert!(error.to_string().contains(why), "{error}"),
            other => panic!("{why}: {other:?}"),
        }
    }
    for role in Role::ALL {
        let fine = database.databases(role).check().await;
        assert!(fine.is_ok(), "{}: {fine:?}", role.name());
    }
}

#[tokio::test]
async fn a_business_account_is_one_tenants_also_if_two_add_it_at_the_same_moment() {
    let database = database().await;
    let mut admin = database.admin().await;
    let tenants = [TenantId::new(), TenantId::new()];
    for tenant in tenants {
        sqlx::query("INSERT INTO control.tenants (id, slug, name) VALUES ($1, $1::text, 'Acme')")
            .bind(tenant)
            .execute(&mut admin)
            .await
            .unwrap();
    }
    let operator = database.databases(Role::Operator);
    let begin = async |tenant| {
        let mut tx = operator.control().await.unwrap();
        channel_accounts::scope_routes(&mut tx, tenant).await.unwrap();
        tx
    };
    let account = ChannelAccountId::new;
    let (kind, id) = ("business_account_id", "102");
    let (mut first, mut second) = (begin(tenants[0]).await, begin(tenants[1]).await);
    assert!(route(&mut first, tenants[0], account(), Provider::Whatsapp, kind, id).await.unwrap());
    // The second asks before the first has committed.
    let asked = async { route(&mut second, tenants[1], account(), Provider::Whatsapp, kind, id).await.unwrap() };
    let committed = async {
        let waits =
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
        while sqlx::query_scalar::<_, i64>(waits).fetch_one(&mut admin).await.unwrap() == 0 {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        first.commit().await.unwrap();
    };
    let (routed, ()) = tokio::join!(asked, committed);
    assert!(!routed, "it is another tenant's");
    second.commit().await.unwrap();
    let mut third = begin(tenants[0]).await;
    assert!(
        route(&mut third, tenants[0], account(), Provider::Whatsapp, kind, id).await.unwrap(),
        "several of one tenant may"
    );
}
