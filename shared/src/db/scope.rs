//! The three ways to touch data: [`TenantTx`] for a request (one tenant), [`FleetTx`] for a batch (the tenants in it, one
//! placement), [`ControlTx`] for what belongs to no tenant. Row-level security holds each to its scope; the settings it
//! reads are local to the transaction.

use super::{
    error::Result,
    outbox::{self, OutboxRow},
};
use crate::{domain::ids::TenantId, jobs::Job};
use chrono::{DateTime, TimeDelta, Utc};
use sqlx::{AssertSqlSafe, PgConnection, PgPool, Postgres, Transaction};

/// A transaction that sees one tenant.
pub struct TenantTx {
    pub(super) tx: Transaction<'static, Postgres>,
    tenant_id: TenantId,
    outbox: Vec<OutboxRow>,
}

/// A transaction that sees the tenants of one batch.
pub struct FleetTx {
    pub(super) tx: Transaction<'static, Postgres>,
    outbox: Vec<OutboxRow>,
}

/// A transaction on the control tables.
pub struct ControlTx {
    pub(super) tx: Transaction<'static, Postgres>,
}

impl TenantTx {
    pub(super) async fn begin(pool: &PgPool, tenant_id: TenantId) -> Result<Self> {
        let tx = pool.begin_with(scope(&[tenant_id])).await?;
        Ok(Self { tx, tenant_id, outbox: Vec::new() })
    }

    /// The tenant it sees.
    pub fn tenant_id(&self) -> TenantId {
        self.tenant_id
    }

    /// Adds a job to what is published once this has committed; `after` is how long it is to wait first.
    pub fn enqueue(&mut self, queue: &'static str, job: Job, after: Option<TimeDelta>) {
        self.outbox.push(OutboxRow::new(self.tenant_id, queue, job, after));
    }

    /// Commits. Returns the jobs to publish now; they are in the outbox until [`super::outbox::delete`]d, so a crash
    /// from here on loses none.
    ///
    /// # Errors
    /// If nothing was, or may not have been, committed.
    pub async fn commit(mut self) -> Result<Vec<OutboxRow>> {
        outbox::insert_new(&mut self.tx, &self.outbox).await?;
        self.tx.commit().await?;
        Ok(outbox::due_now(self.outbox))
    }

    pub(super) fn conn(&mut self) -> &mut PgConnection {
        &mut self.tx
    }
}

impl FleetTx {
    pub(super) async fn begin(pool: &PgPool, tenants: &[TenantId]) -> Result<Self> {
        let tx = pool.begin_with(scope(tenants)).await?;
        Ok(Self { tx, outbox: Vec::new() })
    }

    /// Adds a tenant's job to what is published once this has committed; `after` is how long it is to wait first.
    pub fn enqueue(&mut self, tenant_id: TenantId, queue: &'static str, job: Job, after: Option<TimeDelta>) {
        self.outbox.push(OutboxRow::new(tenant_id, queue, job, after));
    }

    /// Writes the outbox and returns the jobs to publish once the commit has succeeded. [`FleetTx::commit`] calls it.
    async fn write_outbox(&mut self) -> Result<Vec<OutboxRow>> {
        outbox::insert(&mut self.tx, &self.outbox).await?;
        Ok(outbox::due_now(std::mem::take(&mut self.outbox)))
    }

    /// Commits. Returns the jobs to publish now; they are in the outbox until [`super::outbox::delete`]d, so a crash
    /// from here on loses none.
    ///
    /// # Errors
    /// If nothing was, or may not have been, committed.
    pub async fn commit(mut self) -> Result<Vec<OutboxRow>> {
        let due = self.write_outbox().await?;
        self.tx.commit().await?;
        Ok(due)
    }

    /// From here on the planner keeps to plans for arrays of any length. Made for one of some hundreds, a plan walks through all rows of a
    /// tenant that has few, and compares each with each element, instead of looking each up by key. (For thousands the planner knows better.)
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn look_up_by_key(&mut self) -> Result<()> {
        sqlx::query!("SET LOCAL plan_cache_mode = 'force_generic_plan'").execute(&mut *self.tx).await?;
        Ok(())
    }

    /// The database's clock at the start of this transaction.
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn now(&mut self) -> Result<DateTime<Utc>> {
        Ok(sqlx::query_scalar!(r#"SELECT now() AS "now!""#).fetch_one(&mut *self.tx).await?)
    }

    pub(super) fn conn(&mut self) -> &mut PgConnection {
        &mut self.tx
    }
}

impl ControlTx {
    pub(super) async fn begin(pool: &PgPool) -> Result<Self> {
        Ok(Self { tx: pool.begin().await? })
    }

    /// Commits.
    ///
    /// # Errors
    /// If nothing was, or may not have been, committed.
    pub async fn commit(self) -> Result<()> {
        Ok(self.tx.commit().await?)
    }

    pub(super) fn conn(&mut self) -> &mut PgConnection {
        &mut self.tx
    }
}

/// Begins and sets the scope in one round trip. Ids are formatted by us, so there is nothing to escape. With one tenant
/// both settings name it, so that the same code serves the API's role and the workers'.
fn scope(tenants: &[TenantId]) -> AssertSqlSafe<String> {
    let ids: Vec<String> = tenants.iter().map(|id| id.0.to_string()).collect();
    let one = if let [one] = ids.as_slice() { one.as_str() } else { "" };
    AssertSqlSafe(format!(
        "BEGIN; SELECT set_config('app.tenant_id', '{one}', true), set_config('app.tenant_ids', '{{{}}}', true)",
        ids.join(",")
    ))
}
