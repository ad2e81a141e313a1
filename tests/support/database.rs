//! A Postgres database of one test's own, migrated, with the roles the programs log in as. It is dropped with its value.
//! The server is the one at `DATABASE_URL`, whose role must be an administrator's.

use secrecy::SecretString;
use shared::db::{self, Databases};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use std::{collections::BTreeMap, thread};
use url::Url;
use uuid::Uuid;

/// A database of its own.
pub struct Database {
    server: Url,
    name: String,
    roles: Vec<String>,
}

/// As whom to log in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// `mijra_api`: the HTTP API.
    Api,
    /// `mijra_worker`: every worker.
    Worker,
    /// `mijra_operator`: the command line.
    Operator,
}

impl Role {
    /// All of them.
    pub const ALL: [Role; 3] = [Role::Api, Role::Worker, Role::Operator];

    /// Its name on the server.
    pub fn name(self) -> &'static str {
        match self {
            Role::Api => "mijra_api",
            Role::Worker => "mijra_worker",
            Role::Operator => "mijra_operator",
        }
    }

    /// Roles belong to the whole server: where others use it too, the environment says which passwords they have.
    pub fn password(self) -> String {
        let setting = format!("{}_PASSWORD", self.name().to_uppercase());
        std::env::var(setting).unwrap_or_else(|_| "mijra-tests".to_owned())
    }
}

/// Two tests must not make the server's roles at the same time.
const ROLES_LOCK: i64 = 0x6d69_6a72_6100;

/// A database with all tables: the control tables and those of tenants placed there.
///
/// # Panics
/// If `DATABASE_URL` is missing or its server refuses.
pub async fn database() -> Database {
    Database::create(true).await
}

/// A database for tenants alone: a further placement.
///
/// # Panics
/// If `DATABASE_URL` is missing or its server refuses.
pub async fn placement() -> Database {
    Database::create(false).await
}

impl Database {
    async fn create(control: bool) -> Self {
        let server = std::env::var("DATABASE_URL");
        let server = server.expect("DATABASE_URL is not set: the tests need a running server, see deploy/dev test");
        let server: Url = server.parse().expect("DATABASE_URL is a URL");
        // The name says to whom it belongs, should a test be killed.
        let name = format!("mijra_test_{}_{}", std::process::id(), &Uuid::new_v4().simple().to_string()[..12]);
        let mut admin = connect(&server).await;
        execute(&mut admin, format!("CREATE DATABASE {name}")).await;
        let database = Self { server, name, roles: Vec::new() };
        let url = SecretString::from(database.admin_url().to_string());
        execute(&mut admin, format!("SELECT pg_advisory_lock({ROLES_LOCK})")).await;
        db::migrate(&url, control).await.expect("the migrations run");
        for role in Role::ALL {
            let can_log_in: bool = sqlx::query_scalar("SELECT rolcanlogin FROM pg_roles WHERE rolname = $1")
                .bind(role.name())
                .fetch_one(&mut admin)
                .await
                .expect("the migrations have made the role");
            if !can_log_in {
                db::allow_login(&url, role.name(), &role.password().into()).await.expect("roles may log in");
            }
        }
        // With the connection goes the lock.
        admin.close().await.expect("the server hangs up");
        database
    }

    /// Its name on the server.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where an administrator finds it.
    pub fn admin_url(&self) -> Url {
        let mut url = self.server.clone();
        url.set_path(&self.name);
        url
    }

    /// Where one of our roles finds it.
    pub fn url(&self, role: Role) -> Url {
        self.url_as(role.name(), &role.password())
    }

    /// Where somebody finds it.
    ///
    /// # Panics
    /// If the server's URL cannot name a user.
    pub fn url_as(&self, user: &str, password: &str) -> Url {
        let mut url = self.admin_url();
        url.set_username(user).expect("a URL with a host");
        url.set_password(Some(password)).expect("a URL with a host");
        url
    }

    /// A connection past row-level security: to arrange and to look.
    pub async fn admin(&self) -> PgConnection {
        connect(&self.admin_url()).await
    }

    /// What a program of that role has.
    pub fn databases(&self, role: Role) -> Databases {
        self.databases_with(role, &[])
    }

    /// What a program of that role has that knows further placements.
    ///
    /// # Panics
    /// If the URLs cannot be used.
    pub fn databases_with(&self, role: Role, placements: &[(&str, &Database)]) -> Databases {
        let secret = |database: &Database| SecretString::from(database.url(role).to_string());
        let placements: BTreeMap<String, SecretString> =
            placements.iter().map(|(name, database)| ((*name).to_owned(), secret(database))).collect();
        let settings = db::Settings {
            control: secret(self),
            placements,
            max_connections: 8,
            application_name: "mijra-tests".into(),
        };
        Databases::new(&settings).expect("the URLs are good")
    }

    /// A role of the server that goes with this database.
    ///
    /// # Panics
    /// If the server refuses.
    pub async fn make_role(&mut self, rights: &str) -> String {
        let role = format!("{}_{}", self.name, self.roles.len());
        let mut admin = self.admin().await;
        execute(&mut admin, format!("CREATE ROLE {role} LOGIN PASSWORD 'mijra-tests' {rights}")).await;
        self.roles.push(role.clone());
        role
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let (server, name, roles) = (self.server.clone(), self.name.clone(), std::mem::take(&mut self.roles));
        // A destructor cannot wait on the runtime it may be running in.
        let dropping = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
            runtime.block_on(async {
                let mut admin = PgConnection::connect(server.as_str()).await.ok()?;
                let drop_database = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
                sqlx::raw_sql(AssertSqlSafe(drop_database)).execute(&mut admin).await.ok()?;
                for role in roles {
                    sqlx::raw_sql(AssertSqlSafe(format!("DROP ROLE IF EXISTS {role}")))
                        .execute(&mut admin)
                        .await
                        .ok()?;
                }
                Some(())
            })
        });
        let _ = dropping.join();
    }
}

async fn connect(url: &Url) -> PgConnection {
    let connection = PgConnection::connect(url.as_str()).await;
    connection.unwrap_or_else(|error| panic!("the database server at DATABASE_URL does not answer: {error}"))
}

/// The names in it are ours and need no quoting.
async fn execute(connection: &mut PgConnection, statement: String) {
    let done = sqlx::raw_sql(AssertSqlSafe(statement.clone())).execute(connection).await;
    done.unwrap_or_else(|error| panic!("{statement}: {error}"));
}
