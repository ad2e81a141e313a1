//! Webhooks accepted while the broker was away (`receiving::spill`), on their way back to it.

use super::{error::Result, scope::ControlTx};
use crate::{
    domain::ids::WebhookId,
    jobs::inbound::{Meta, RawWebhook},
};
use bytes::Bytes;
use uuid::Uuid;

/// The eldest webhooks, locked for this transaction; those another sweep holds are passed over.
///
/// # Errors
/// If the database does not answer, or a row is not readable.
pub async fn take(tx: &mut ControlTx, limit: usize) -> Result<Vec<RawWebhook>> {
    let rows = sqlx::query!(
        "SELECT meta, body FROM control.spill ORDER BY id LIMIT $1 FOR UPDATE SKIP LOCKED",
        i64::try_from(limit).unwrap_or(i64::MAX),
    )
    .fetch_all(tx.conn())
    .await?;
    rows.into_iter()
        .map(|row| {
            let meta: Meta = serde_json::from_value(row.meta).map_err(|error| sqlx::Error::Decode(error.into()))?;
            Ok(RawWebhook { meta, body: Bytes::from(row.body) })
        })
        .collect()
}

/// Deletes what the broker has confirmed.
///
/// # Errors
/// If the database does not answer.
pub async fn delete(tx: &mut ControlTx, ids: &[WebhookId]) -> Result<()> {
    let ids: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
    sqlx::query!("DELETE FROM control.spill WHERE id = ANY ($1)", &ids).execute(tx.conn()).await?;
    Ok(())
}
