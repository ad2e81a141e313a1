//! Where tenants' data lives: one pool for the control database and one for each further placement.

use super::{
    error::{Error, Result},
    schema::{self, NotReady},
    scope::{ControlTx, FleetTx, TenantTx},
};
use crate::domain::ids::TenantId;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use sqlx::{
    Connection, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use std::{collections::BTreeMap, fmt, io, str::FromStr, sync::Arc, time::Duration};

/// The name of a database in which tenants are placed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Placement(Arc<str>);

impl Placement {
    /// The control database, where tenants are placed unless told otherwise.
    pub fn primary() -> Self {
        Self::named("primary")
    }

    /// The placement of that name.
    pub fn named(name: &str) -> Self {
        Self(name.into())
    }

    /// Its name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How to reach the databases.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The control database (also the placement `primary`).
    pub control: SecretString,
    /// Further placements by name.
    pub placements: BTreeMap<String, SecretString>,
    /// Connections per database, at most.
    pub max_connections: u32,
    /// Shown in `pg_stat_activity`.
    pub application_name: String,
}

/// All databases of this installation. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Databases {
    control: PgPool,
    placements: Arc<BTreeMap<Placement, PgPool>>,
}

/// No statement of ours takes longer; one that does is cut off rather than holding locks.
const STATEMENT_TIMEOUT: &str = "30s";
/// Waiting longer for a lock is contention, to be tried again.
const LOCK_TIMEOUT: &str = "10s";
/// A connection that is given back in the middle of something answers within this, or it is closed.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(3);
/// A process that dies or stops inside a transaction frees its locks after this long.
const IDLE_IN_TRANSACTION_TIMEOUT: &str = "15s";

impl Databases {
    /// Prepares the pools; connections are made when first needed.
    ///
    /// # Errors
    /// If an URL is not one.
    pub fn new(settings: &Settings) -> Result<Self> {
        let control = pool(&settings.control, settings)?;
        let mut placements = BTreeMap::from([(Placement::primary(), control.clone())]);
        for (name, url) in &settings.placements {
            placements.insert(Placement::named(name), pool(url, settings)?);
        }
        Ok(Self { control, placements: Arc::new(placements) })
    }

    /// Checks every database: that the schema is at the version this release knows, and that the role cannot bypass
    /// row-level security.
    ///
    /// # Errors
    /// If one is not as it must be; the message says what to do.
    pub async fn check(&self) -> std::result::Result<(), NotReady> {
        // Roles first: one that may bypass everything is refused whatever else is wrong.
        for (placement, pool) in self.placements.iter() {
            schema::check_role(placement, pool).await?;
        }
        schema::check_control(&self.control).await?;
        for (placement, pool) in self.placements.iter() {
            schema::check_tenant(placement, pool).await?;
        }
        Ok(())
    }

    /// How each database is reached, outside its pool.
    pub(super) fn connect_options(&self) -> impl Iterator<Item = (Placement, PgConnectOptions)> {
        self.placements.iter().map(|(placement, pool)| (placement.clone(), pool.connect_options().as_ref().clone()))
    }

    /// The placements this process can reach.
    pub fn placements(&self) -> impl Iterator<Item = &Placement> {
        self.placements.keys()
    }

    /// A transaction for one tenant.
    ///
    /// # Errors
    /// If the database is away or the placement is not configured here.
    pub async fn tenant(&self, placement: &Placement, tenant_id: TenantId) -> Result<TenantTx> {
        TenantTx::begin(self.pool(placement)?, tenant_id).await
    }

    /// A transaction for the tenants of a batch, all of one placement.
    ///
    /// # Errors
    /// If the database is away or the placement is not configured here.
    pub async fn fleet(&self, placement: &Placement, tenants: &[TenantId]) -> Result<FleetTx> {
        FleetTx::begin(self.pool(placement)?, tenants).await
    }

    /// A transaction on what belongs to no tenant.
    ///
    /// # Errors
    /// If the database is away.
    pub async fn control(&self) -> Result<ControlTx> {
        ControlTx::begin(&self.control).await
    }

    /// Closes all connections.
    pub async fn close(&self) {
        for pool in self.placements.values() {
            pool.close().await;
        }
    }

    fn pool(&self, placement: &Placement) -> Result<&PgPool> {
        self.placements.get(placement).ok_or_else(|| {
            let why = format!("placement {placement} is not configured for this process (PLACEMENTS)");
            Error::from(sqlx::Error::Configuration(why.into()))
        })
    }
}

fn pool(url: &SecretString, settings: &Settings) -> Result<PgPool> {
    let options =
        PgConnectOptions::from_str(url.expose_secret())?.application_name(&settings.application_name).options([
            ("statement_timeout", STATEMENT_TIMEOUT),
            ("lock_timeout", LOCK_TIMEOUT),
            ("idle_in_transaction_session_timeout", IDLE_IN_TRANSACTION_TIMEOUT),
            // All rows here are found by key. While a table is small the planner would rather read the whole of it, and a
            // prepared statement keeps that plan until the table is analysed, however much it has grown by then.
            ("enable_seqscan", "off"),
            // What then cannot be done without reading a table looks so dear that it would be compiled each time.
            ("jit", "off"),
        ]);
    Ok(PgPoolOptions::new()
        .max_connections(settings.max_connections)
        .acquire_timeout(Duration::from_secs(5))
        // A dead connection shows at its first use and the work is done again; asking first would cost a round trip each time.
        .test_before_acquire(false)
        // The pool itself pings what it is given back, without a limit of time and with the connection's place taken: after a
        // failover that no packet told us of, all places would stay taken until TCP gives up. What has answered here is pinged
        // once more at once; an error closes the connection without a farewell.
        .after_release(|connection, _| {
            let ping = tokio::time::timeout(RELEASE_TIMEOUT, connection.ping());
            Box::pin(async move {
                ping.await.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into())).map(|()| true)
            })
        })
        .connect_lazy_with(options))
}
