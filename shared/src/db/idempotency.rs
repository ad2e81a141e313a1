//! What an API call with an `Idempotency-Key` answered, kept in the transaction that did it.

use super::{TenantTx, error::Result};
use serde_json::Value;

/// An answer given before.
#[derive(Clone, Debug)]
pub struct Answered {
    /// What was asked (SHA-256 over method, path and body).
    pub request_digest: Vec<u8>,
    /// The status.
    pub status: u16,
    /// The body.
    pub response: Value,
}

/// Holds the key until this transaction ends, so that of several requests with one key at once one acts and the others
/// then find its answer. The answer given before, if any.
///
/// # Errors
/// If the database does not answer; contention if the other one takes longer than the lock timeout.
pub async fn hold(tx: &mut TenantTx, key: &str) -> Result<Option<Answered>> {
    let tenant_id = tx.tenant_id();
    sqlx::query!(
        "SELECT pg_advisory_xact_lock(hashtextextended('idempotency ' || $1::uuid || ' ' || $2::text, 0))",
        tenant_id.0,
        key,
    )
    .execute(tx.conn())
    .await?;
    let row = sqlx::query!(
        "SELECT request_digest, status, response FROM idempotency_keys WHERE tenant_id = $1 AND key = $2",
        tenant_id.0,
        key,
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(row.map(|row| Answered {
        request_digest: row.request_digest,
        status: u16::try_from(row.status).unwrap_or(200),
        response: row.response,
    }))
}

/// Keeps an answer.
///
/// # Errors
/// If the database does not answer.
pub async fn keep(tx: &mut TenantTx, key: &str, answered: &Answered) -> Result<()> {
    let tenant_id = tx.tenant_id();
    sqlx::query!(
        "INSERT INTO idempotency_keys (tenant_id, key, request_digest, status, response) VALUES ($1, $2, $3, $4, $5)",
        tenant_id.0,
        key,
        answered.request_digest,
        i16::try_from(answered.status).unwrap_or(200),
        answered.response,
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}
