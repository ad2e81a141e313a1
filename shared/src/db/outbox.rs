//! Jobs written in the transaction that makes them due. Published right after the commit by whoever committed, deleted on
//! the broker's confirm; what a crash left behind, and what is due later, the sweep publishes.

use super::{Databases, Placement, error::Result, scope::FleetTx};
use crate::{
    domain::ids::{JobId, TenantId},
    jobs::{Headers, Job},
};
use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use uuid::Uuid;

/// One job in the outbox.
#[derive(Clone, Debug)]
pub struct OutboxRow {
    /// Whose job.
    pub tenant_id: TenantId,
    /// The queue's name in the topology.
    pub queue: String,
    /// The job; its id is the row's.
    pub job: Job,
    /// How long it is to wait, from the transaction's start.
    pub(super) after: Option<TimeDelta>,
}

/// A job but for its body, as kept in a row.
#[derive(Serialize, Deserialize)]
struct Envelope {
    kind: String,
    version: u16,
    attempt: u32,
    created_at: DateTime<Utc>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tenant: Option<TenantId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    traceparent: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    first_error: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last_error: Option<String>,
}

impl OutboxRow {
    pub(super) fn new(tenant_id: TenantId, queue: &'static str, job: Job, after: Option<TimeDelta>) -> Self {
        Self { tenant_id, queue: queue.to_owned(), job, after }
    }
}

fn envelope(job: &Job) -> serde_json::Value {
    let Headers { version, tenant, attempt, traceparent, created_at, first_error, last_error } = job.headers.clone();
    let envelope =
        Envelope { kind: job.kind.clone(), version, attempt, created_at, tenant, traceparent, first_error, last_error };
    serde_json::to_value(envelope).expect("plain fields are always JSON")
}

fn job(id: Uuid, envelope: serde_json::Value, body: Vec<u8>) -> serde_json::Result<Job> {
    let e: Envelope = serde_json::from_value(envelope)?;
    Ok(Job {
        id: JobId(id),
        kind: e.kind,
        headers: Headers {
            version: e.version,
            tenant: e.tenant,
            attempt: e.attempt,
            traceparent: e.traceparent,
            created_at: e.created_at,
            first_error: e.first_error,
            last_error: e.last_error,
        },
        body: Bytes::from(body),
    })
}

pub(super) fn due_now(rows: Vec<OutboxRow>) -> Vec<OutboxRow> {
    rows.into_iter().filter(|row| row.after.is_none()).collect()
}

/// A row that its writer publishes itself is left to it for so long before the sweep takes it.
const HEAD_START: TimeDelta = TimeDelta::seconds(5);

/// Rows as columns, for `unnest`.
struct Columns {
    tenant_ids: Vec<Uuid>,
    ids: Vec<Uuid>,
    queues: Vec<String>,
    jobs: Vec<serde_json::Value>,
    bodies: Vec<Vec<u8>>,
    waits: Vec<f64>,
}

impl Columns {
    fn of(rows: &[OutboxRow]) -> Self {
        Self {
            tenant_ids: rows.iter().map(|r| r.tenant_id.0).collect(),
            ids: rows.iter().map(|r| r.job.id.0).collect(),
            queues: rows.iter().map(|r| r.queue.clone()).collect(),
            jobs: rows.iter().map(|r| envelope(&r.job)).collect(),
            bodies: rows.iter().map(|r| r.job.body.to_vec()).collect(),
            waits: rows.iter().map(|r| r.after.unwrap_or(HEAD_START).as_seconds_f64().max(0.0)).collect(),
        }
    }
}

/// Writes rows; a job that is there already (a retry of it) takes the place of the one before.
pub(super) async fn insert(conn: &mut PgConnection, rows: &[OutboxRow]) -> Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    let Columns { tenant_ids, ids, queues, jobs, bodies, waits } = Columns::of(rows);
    sqlx::query!(
        "INSERT INTO outbox (tenant_id, id, queue, job, body, publish_after)
        SELECT tenant_id, id, queue, job, body, clock_timestamp() + make_interval(secs => wait)
        FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::jsonb[], $5::bytea[], $6::float8[])
            AS row (tenant_id, id, queue, job, body, wait)
        ON CONFLICT (tenant_id, id) DO UPDATE
            SET job = excluded.job, body = excluded.body, publish_after = excluded.publish_after",
        &tenant_ids,
        &ids,
        &queues,
        &jobs,
        &bodies,
        &waits,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Writes rows of new jobs. All that a request does, so that its role need not be able to change a row.
pub(super) async fn insert_new(conn: &mut PgConnection, rows: &[OutboxRow]) -> Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    let Columns { tenant_ids, ids, queues, jobs, bodies, waits } = Columns::of(rows);
    sqlx::query!(
        "INSERT INTO outbox (tenant_id, id, queue, job, body, publish_after)
        SELECT tenant_id, id, queue, job, body, clock_timestamp() + make_interval(secs => wait)
        FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::jsonb[], $5::bytea[], $6::float8[])
            AS row (tenant_id, id, queue, job, body, wait)",
        &tenant_ids,
        &ids,
        &queues,
        &jobs,
        &bodies,
        &waits,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Deletes what the broker has confirmed.
///
/// # Errors
/// If the database does not answer; the sweep will then publish the rows again, which is harmless.
pub async fn delete(databases: &Databases, placement: &Placement, rows: &[OutboxRow]) -> Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    let mut tenants: Vec<TenantId> = rows.iter().map(|r| r.tenant_id).collect();
    tenants.sort_unstable();
    tenants.dedup();
    let mut tx = databases.fleet(placement, &tenants).await?;
    let ids = rows.iter().map(|r| (r.tenant_id, r.job.id)).collect::<Vec<_>>();
    delete_published(&mut tx, &ids).await?;
    tx.commit().await?;
    Ok(())
}

/// Deletes rows by id.
///
/// # Errors
/// If the database does not answer.
pub async fn delete_published(tx: &mut FleetTx, ids: &[(TenantId, JobId)]) -> Result<()> {
    let tenant_ids: Vec<Uuid> = ids.iter().map(|(tenant, _)| tenant.0).collect();
    let ids: Vec<Uuid> = ids.iter().map(|(_, id)| id.0).collect();
    sqlx::query!(
        "DELETE FROM outbox
        USING unnest($1::uuid[], $2::uuid[]) AS published (tenant_id, id)
        WHERE outbox.tenant_id = published.tenant_id AND outbox.id = published.id",
        &tenant_ids,
        &ids,
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// What is due.
#[derive(Debug)]
pub struct Due<R> {
    /// To be published.
    pub rows: Vec<R>,
    /// Rows whose job only a newer release can read, or nobody: by name, with why.
    pub unreadable: Vec<(String, String)>,
}

impl<R> Due<R> {
    /// How many rows were found.
    pub fn found(&self) -> usize {
        self.rows.len() + self.unreadable.len()
    }
}

/// A row that cannot be read is looked at again after this long: it must not stand before the others, and a newer release
/// may read it.
const UNREADABLE_AGAIN: &str = "1 minute";

/// Rows that are due for queues of these names, locked for this transaction; rows that another sweep holds are passed over,
/// and so are rows for a queue that only a newer release knows. Those that cannot be read are put off.
///
/// # Errors
/// If the database does not answer.
pub async fn take_due(tx: &mut FleetTx, queues: &[String], limit: i64) -> Result<Due<OutboxRow>> {
    by_index(tx.conn()).await?;
    // The transaction has just begun. clock_timestamp() would be no condition for the index: every row would be read.
    let found = sqlx::query!(
        "SELECT tenant_id, id, queue, job, body
        FROM outbox
        WHERE publish_after <= now() AND queue = ANY ($1)
        ORDER BY publish_after
        LIMIT $2
        FOR UPDATE SKIP LOCKED",
        queues,
        limit,
    )
    .fetch_all(tx.conn())
    .await?;
    let mut due = Due { rows: Vec::with_capacity(found.len()), unreadable: Vec::new() };
    let (mut tenant_ids, mut ids) = (Vec::new(), Vec::new());
    for row in found {
        match job(row.id, row.job, row.body) {
            Ok(job) => {
                let tenant_id = TenantId(row.tenant_id);
                due.rows.push(OutboxRow { tenant_id, queue: row.queue, job, after: None });
            }
            Err(error) => {
                due.unreadable.push((format!("{} of tenant {}", row.id, row.tenant_id), error.to_string()));
                tenant_ids.push(row.tenant_id);
                ids.push(row.id);
            }
        }
    }
    if !ids.is_empty() {
        sqlx::query!(
            "UPDATE outbox
            SET publish_after = clock_timestamp() + $3::text::interval
            FROM unnest($1::uuid[], $2::uuid[]) AS unreadable (tenant_id, id)
            WHERE outbox.tenant_id = unreadable.tenant_id AND outbox.id = unreadable.id",
            &tenant_ids,
            &ids,
            UNREADABLE_AGAIN,
        )
        .execute(tx.conn())
        .await?;
    }
    Ok(due)
}

/// Rows are to be found in the order of the index on what is due, and only there. Without statistics the planner would find
/// them by tenant, read all that are not due yet, and sort.
async fn by_index(conn: &mut PgConnection) -> Result<()> {
    sqlx::query!("SELECT set_config('enable_sort', 'off', true)").fetch_one(conn).await?;
    Ok(())
}

pub mod control {
    //! The outbox of jobs that belong to no tenant.

    use super::{Due, Result, UNREADABLE_AGAIN, by_index, envelope, job};
    use crate::{db::scope::ControlTx, domain::ids::JobId, jobs::Job};
    use chrono::TimeDelta;
    use uuid::Uuid;

    /// Puts a job in, to be published after a while.
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn enqueue(tx: &mut ControlTx, queue: &str, job: &Job, after: TimeDelta) -> Result<()> {
        sqlx::query!(
            "INSERT INTO control.outbox (id, queue, job, body, publish_after)
            VALUES ($1, $2, $3, $4, clock_timestamp() + make_interval(secs => $5))
            ON CONFLICT (id) DO UPDATE
                SET job = excluded.job, body = excluded.body, publish_after = excluded.publish_after",
            job.id.0,
            queue,
            envelope(job),
            &job.body[..],
            after.as_seconds_f64().max(0.0),
        )
        .execute(tx.conn())
        .await?;
        Ok(())
    }

    /// Jobs that are due for queues of these names, each with its queue's, locked for this transaction. Those that cannot be
    /// read are put off.
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn take_due(tx: &mut ControlTx, queues: &[String], limit: i64) -> Result<Due<(String, Job)>> {
        by_index(tx.conn()).await?;
        let found = sqlx::query!(
            "SELECT id, queue, job, body
            FROM control.outbox
            WHERE publish_after <= now() AND queue = ANY ($1)
            ORDER BY publish_after
            LIMIT $2
            FOR UPDATE SKIP LOCKED",
            queues,
            limit,
        )
        .fetch_all(tx.conn())
        .await?;
        let mut due = Due { rows: Vec::with_capacity(found.len()), unreadable: Vec::new() };
        let mut ids = Vec::new();
        for row in found {
            match job(row.id, row.job, row.body) {
                Ok(job) => due.rows.push((row.queue, job)),
                Err(error) => {
                    due.unreadable.push((row.id.to_string(), error.to_string()));
                    ids.push(row.id);
                }
            }
        }
        if !ids.is_empty() {
            sqlx::query!(
                "UPDATE control.outbox SET publish_after = clock_timestamp() + $2::text::interval WHERE id = ANY ($1)",
                &ids,
                UNREADABLE_AGAIN,
            )
            .execute(tx.conn())
            .await?;
        }
        Ok(due)
    }

    /// Deletes jobs that the broker has confirmed.
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn delete_published(tx: &mut ControlTx, ids: &[JobId]) -> Result<()> {
        let ids: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
        sqlx::query!("DELETE FROM control.outbox WHERE id = ANY ($1)", &ids).execute(tx.conn()).await?;
        Ok(())
    }
}
