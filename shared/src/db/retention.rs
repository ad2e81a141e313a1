//! What goes when it is too old. Partitions are dropped whole; small tables are emptied row by row, a bounded number at a time.

use super::{
    error::Result,
    scope::{ControlTx, FleetTx},
};

/// Days a raw webhook is kept.
const LOG_DAYS: i32 = 30;
/// Months the trail of a message is kept.
const TRAIL_MONTHS: i32 = 13;

/// Makes partitions ahead and drops those past their time. How many changed.
///
/// # Errors
/// If the database does not answer.
pub async fn maintain_partitions(tx: &mut FleetTx) -> Result<i32> {
    let changed = sqlx::query_scalar!(
        r#"SELECT maintain_partitions(make_interval(days => $1), make_interval(months => $2)) AS "changed!""#,
        LOG_DAYS,
        TRAIL_MONTHS,
    )
    .fetch_one(tx.conn())
    .await?;
    Ok(changed)
}

/// Removes answers to idempotent calls after two days (a client that repeats does so within minutes). How many.
///
/// # Errors
/// If the database does not answer.
pub async fn expire_tenants(tx: &mut FleetTx) -> Result<u64> {
    let done = sqlx::query!(
        "DELETE FROM idempotency_keys
        WHERE (tenant_id, key) IN (
            SELECT tenant_id, key FROM idempotency_keys WHERE created_at < now() - interval '2 days' LIMIT 5000
        )"
    )
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected())
}

/// Removes large bodies after 14 days (a dead letter may refer to one), quarantined and unroutable webhooks after 30. How many.
///
/// # Errors
/// If the database does not answer.
pub async fn expire_control(tx: &mut ControlTx) -> Result<u64> {
    let mut removed = 0;
    removed += sqlx::query!(
        "DELETE FROM control.large_bodies
        WHERE webhook_id IN (
            SELECT webhook_id FROM control.large_bodies WHERE stored_at < now() - interval '14 days' LIMIT 1000
        )"
    )
    .execute(tx.conn())
    .await?
    .rows_affected();
    removed += sqlx::query!(
        "DELETE FROM control.quarantine
        WHERE id IN (SELECT id FROM control.quarantine WHERE received_at < now() - interval '30 days' LIMIT 1000)"
    )
    .execute(tx.conn())
    .await?
    .rows_affected();
    removed += sqlx::query!(
        "DELETE FROM control.unroutable
        WHERE webhook_id IN (
            SELECT webhook_id FROM control.unroutable WHERE received_at < now() - interval '30 days' LIMIT 1000
        )"
    )
    .execute(tx.conn())
    .await?
    .rows_affected();
    Ok(removed)
}
