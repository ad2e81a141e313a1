//! Webhooks accepted while the broker was away (`receiving::spill`), on their way back to it.

use super::{error::Result, scope::ControlTx};
use crate::{
    domain::ids::WebhookId,
    jobs::inbound::{Meta, RawWebhook},
};
use bytes::Bytes;
use uuid::Uuid;

/// Some of what is spilled.
#[derive(Debug)]
pub struct Spilled {
    /// To be published.
    pub webhooks: Vec<RawWebhook>,
    /// Rows that only a newer release can read, or nobody, with why.
    pub unreadable: Vec<(Uuid, String)>,
    /// The last row looked at; none if there was none.
    pub last: Option<Uuid>,
}

/// The eldest webhooks behind a row, locked for this transaction; those another sweep holds are passed over.
///
/// # Errors
/// If the database does not answer.
pub async fn take(tx: &mut ControlTx, behind: Uuid, limit: usize) -> Result<Spilled> {
    let rows = sqlx::query!(
        "SELECT id, meta, body FROM control.spill WHERE id > $1 ORDER BY id LIMIT $2 FOR UPDATE SKIP LOCKED",
        behind,
        i64::try_from(limit).unwrap_or(i64::MAX),
    )
    .fetch_all(tx.conn())
    .await?;
    let last = rows.last().map(|row| row.id);
    let mut spilled = Spilled { webhooks: Vec::with_capacity(rows.len()), unreadable: Vec::new(), last };
    for row in rows {
        match serde_json::from_value::<Meta>(row.meta) {
            Ok(meta) => spilled.webhooks.push(RawWebhook { meta, body: Bytes::from(row.body) }),
            Err(error) => spilled.unreadable.push((row.id, error.to_string())),
        }
    }
    Ok(spilled)
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
