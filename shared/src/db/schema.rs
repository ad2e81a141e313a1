//! Migrations, and what a process demands of a database before it starts.

use super::placements::Placement;
use secrecy::{ExposeSecret, SecretString};
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool, migrate::Migrator};
use std::time::Duration;

static CONTROL: Migrator = sqlx::migrate!("../migrations/control");
static TENANT: Migrator = sqlx::migrate!("../migrations/tenant");
const CONTROL_TABLE: &str = "control.migrations";
const TENANT_TABLE: &str = "public.tenant_migrations";

/// Why a process does not start on a database.
#[derive(Debug, thiserror::Error)]
pub enum NotReady {
    /// It cannot be asked.
    #[error("database {placement} does not answer: {why}")]
    Away {
        /// Which.
        placement: String,
        /// Why.
        why: sqlx::Error,
    },
    /// Its schema is another than this release's.
    #[error("database {placement}: schema {set} is at version {found}, this release needs {needed}: {advice}")]
    Schema {
        /// Which.
        placement: String,
        /// Control or tenant.
        set: &'static str,
        /// What was found; 0 if never migrated.
        found: i64,
        /// What is needed.
        needed: i64,
        /// What to do.
        advice: &'static str,
    },
    /// The role could see every tenant.
    #[error(
        "database {placement}: role {role} could bypass row-level security ({why}); log in as mijra_api, mijra_worker or mijra_operator"
    )]
    Role {
        /// Which.
        placement: String,
        /// The role.
        role: String,
        /// Superuser, BYPASSRLS, owner.
        why: &'static str,
    },
}

impl NotReady {
    /// Whether waiting may help (the database is away), as opposed to a mistake of set-up.
    pub fn is_away(&self) -> bool {
        matches!(self, NotReady::Away { .. })
    }
}

/// Why migrating failed.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// The database does not answer or refuses.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    /// A migration failed or the history differs from ours.
    #[error(transparent)]
    Migration(#[from] sqlx::migrate::MigrateError),
}

/// Which versions a database is at now.
#[derive(Clone, Copy, Debug)]
pub struct Migrated {
    /// Version of the control tables, where they are.
    pub control: Option<i64>,
    /// Version of the tenants' tables.
    pub tenant: i64,
}

/// Brings a database to this release's schema; `control` says whether the control tables live there too. Safe to call from
/// several processes at once.
///
/// # Errors
/// If a migration fails (it is rolled back) or the database's history is not ours.
pub async fn migrate(url: &SecretString, control: bool) -> Result<Migrated, MigrateError> {
    let mut tries = 1;
    loop {
        match migrate_once(url, control).await {
            Err(error) if error.is_race() && tries < TRIES => {
                tracing::info!(%error, "another database is being migrated at the same time: once more");
                tries += 1;
                tokio::time::sleep(AGAIN).await;
            }
            done => return done,
        }
    }
}

/// Roles belong to the whole server, and there is no lock across its databases: two that are migrated for the first time at
/// once get into each other's way, a few times at most.
const TRIES: u32 = 10;
const AGAIN: Duration = Duration::from_millis(200);

impl MigrateError {
    /// Whether somebody else has just made the role, or granted it: then it is there at the next try.
    fn is_race(&self) -> bool {
        use sqlx::migrate::MigrateError as Failed;
        let error = match self {
            Self::Database(error) => error,
            Self::Migration(Failed::Execute(error) | Failed::ExecuteMigration(error, _)) => error,
            Self::Migration(_) => return false,
        };
        let Some(error) = error.as_database_error() else { return false };
        match error.code().as_deref() {
            // unique_violation in the catalogue of roles, duplicate_object
            Some("23505") => error.constraint().is_some_and(|name| name.starts_with("pg_auth")),
            Some("42710") => true,
            // An internal error, which has no name but its text: "tuple concurrently updated" (or deleted).
            Some("XX000") => error.message().starts_with("tuple concurrently"),
            _ => false,
        }
    }
}

async fn migrate_once(url: &SecretString, control: bool) -> Result<Migrated, MigrateError> {
    // A connection of its own: with it goes the migrator's lock, should this fail.
    let mut conn = PgConnection::connect(url.expose_secret()).await?;
    if control {
        migrator(&CONTROL, CONTROL_TABLE, Some("control")).run(&mut conn).await?;
    }
    migrator(&TENANT, TENANT_TABLE, None).run(&mut conn).await?;
    // Programs may read the history to know whether they fit.
    sqlx::raw_sql(AssertSqlSafe(format!("GRANT SELECT ON {TENANT_TABLE} TO mijra_api, mijra_worker")))
        .execute(&mut conn)
        .await?;
    if control {
        sqlx::raw_sql(AssertSqlSafe(format!("GRANT SELECT ON {CONTROL_TABLE} TO mijra_api, mijra_worker")))
            .execute(&mut conn)
            .await?;
    }
    conn.close().await?;
    Ok(Migrated { control: control.then(|| latest(&CONTROL)), tenant: latest(&TENANT) })
}

/// Lets a role log in with a password (`mijra migrate --with-logins`).
///
/// # Errors
/// If the database refuses.
pub async fn allow_login(url: &SecretString, role: &str, password: &SecretString) -> Result<(), MigrateError> {
    let mut conn = PgConnection::connect(url.expose_secret()).await?;
    // ALTER ROLE takes no parameters; format() on the server quotes both.
    let statement = sqlx::query_scalar!(
        r#"SELECT format('ALTER ROLE %I LOGIN PASSWORD %L', $1::text, $2::text) AS "statement!""#,
        role,
        password.expose_secret(),
    )
    .fetch_one(&mut conn)
    .await?;
    sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut conn).await?;
    conn.close().await?;
    Ok(())
}

pub(super) async fn check_control(pool: &PgPool) -> Result<(), NotReady> {
    check_version(&Placement::primary(), pool, "control", CONTROL_TABLE, latest(&CONTROL)).await
}

pub(super) async fn check_tenant(placement: &Placement, pool: &PgPool) -> Result<(), NotReady> {
    check_version(placement, pool, "tenant", TENANT_TABLE, latest(&TENANT)).await
}

pub(super) async fn check_role(placement: &Placement, pool: &PgPool) -> Result<(), NotReady> {
    // The session's role, not the current one: who may SET ROLE to it may also reset it.
    let role = sqlx::query!(
        r#"SELECT rolname::text AS "name!", rolsuper, rolbypassrls,
            EXISTS (
                SELECT FROM pg_roles stronger
                WHERE (stronger.rolsuper OR stronger.rolbypassrls) AND pg_has_role(session_user, stronger.oid, 'MEMBER')
            ) AS "member_of_stronger!",
            EXISTS (
                SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                WHERE n.nspname IN ('public', 'control') AND c.relkind IN ('r', 'p') AND pg_has_role(session_user, c.relowner, 'MEMBER')
            ) AS "owner!"
        FROM pg_roles
        WHERE rolname = session_user"#
    )
    .fetch_one(pool)
    .await
    .map_err(|why| NotReady::Away { placement: placement.to_string(), why })?;
    let why = if role.rolsuper == Some(true) {
        "it is a superuser"
    } else if role.rolbypassrls == Some(true) {
        "it has BYPASSRLS"
    } else if role.member_of_stronger {
        "it is a member of such a role"
    } else if role.owner {
        "it owns the tables"
    } else {
        return Ok(());
    };
    Err(NotReady::Role { placement: placement.to_string(), role: role.name, why })
}

async fn check_version(
    placement: &Placement,
    pool: &PgPool,
    set: &'static str,
    table: &'static str,
    needed: i64,
) -> Result<(), NotReady> {
    let found: Result<Option<i64>, sqlx::Error> =
        sqlx::query_scalar(AssertSqlSafe(format!("SELECT max(version) FROM {table} WHERE success")))
            .fetch_one(pool)
            .await;
    let found = match found {
        Ok(version) => version.unwrap_or(0),
        // Undefined table or schema, or no right to see it: never migrated (by us).
        Err(sqlx::Error::Database(error)) if matches!(error.code().as_deref(), Some("42P01" | "3F000" | "42501")) => 0,
        Err(why) => return Err(NotReady::Away { placement: placement.to_string(), why }),
    };
    let advice = match found.cmp(&needed) {
        std::cmp::Ordering::Equal => return Ok(()),
        std::cmp::Ordering::Less => "run `mijra migrate`",
        std::cmp::Ordering::Greater => "this program is older than the database, deploy the newer release",
    };
    Err(NotReady::Schema { placement: placement.to_string(), set, found, needed, advice })
}

fn migrator(of: &Migrator, table: &'static str, schema: Option<&'static str>) -> Migrator {
    let mut migrator = Migrator::with_migrations(of.iter().cloned().collect());
    migrator.dangerous_set_table_name(table);
    if let Some(schema) = schema {
        migrator.create_schema(schema);
    }
    migrator
}

fn latest(of: &Migrator) -> i64 {
    of.iter().map(|migration| migration.version).max().unwrap_or(0)
}
