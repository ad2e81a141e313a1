//! A database of a yardstick's own on the given Postgres server.

use std::path::Path;
use std::str::FromStr;

use anyhow::{Context, Result};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection};

const PREFIX: &str = "load_bare_";

pub(crate) struct PrivateDatabase {
    admin: PgConnection,
    connection: PgConnection,
    name: String,
}

impl PrivateDatabase {
    /// Creates the database and its tables. Databases of harnesses that were killed go first.
    pub(crate) async fn create(database_url: &str, schema: &'static str) -> Result<Self> {
        let name = format!("{PREFIX}{}_{:08x}", std::process::id(), rand::random::<u32>());
        let mut admin = PgConnection::connect(database_url).await.context("connect to Postgres")?;
        remove_abandoned(&mut admin).await?;
        execute(&mut admin, format!("CREATE DATABASE {name}")).await?;
        let mut connection = connect(database_url, &name).await?;
        sqlx::raw_sql(schema).execute(&mut connection).await.context("create the tables")?;
        // Counting must not take a second core from what is measured.
        execute(&mut connection, "SET max_parallel_workers_per_gather = 0".into()).await?;
        Ok(Self { admin, connection, name })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn connection(&mut self) -> &mut PgConnection {
        &mut self.connection
    }

    pub(crate) async fn count(&mut self, query: &'static str) -> Result<u64> {
        let count: i64 = sqlx::query_scalar(query).fetch_one(&mut self.connection).await?;
        Ok(u64::try_from(count)?)
    }

    pub(crate) async fn checkpoint(&mut self) -> Result<()> {
        execute(&mut self.admin, "CHECKPOINT".into()).await.context("the role may not checkpoint")
    }

    pub(crate) async fn remove(mut self) -> Result<()> {
        self.connection.close().await?;
        execute(&mut self.admin, format!("DROP DATABASE {} WITH (FORCE)", self.name)).await?;
        self.admin.close().await?;
        Ok(())
    }
}

/// One more connection to that database, for a part.
pub(crate) async fn connect(database_url: &str, name: &str) -> Result<PgConnection> {
    let options = PgConnectOptions::from_str(database_url)?.database(name).disable_statement_logging();
    PgConnection::connect_with(&options).await.context("connect to Postgres")
}

/// A database's name holds the process id of the harness that made it.
async fn remove_abandoned(admin: &mut PgConnection) -> Result<()> {
    let names: Vec<String> = sqlx::query_scalar("SELECT datname FROM pg_database WHERE starts_with(datname, $1)")
        .bind(PREFIX)
        .fetch_all(&mut *admin)
        .await?;
    for name in names {
        let harness = name[PREFIX.len()..].split('_').next().unwrap_or_default();
        if harness.parse::<u32>().is_ok() && !Path::new("/proc").join(harness).exists() {
            execute(admin, format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await?;
        }
    }
    Ok(())
}

/// The name in it is ours and needs no quoting.
async fn execute(connection: &mut PgConnection, statement: String) -> Result<()> {
    sqlx::raw_sql(AssertSqlSafe(statement)).execute(connection).await?;
    Ok(())
}
