//! Webhooks for accounts that nobody had when they came (`routing::record_unroutable`), as the operator sees them and sends them
//! on their way again. They go by way of the spill, so that taking them away here and publishing them there is one commit.

use super::{ControlTx, error::Result, receiving};
use crate::{
    domain::{channel::Provider, ids::WebhookId},
    jobs::inbound::{Meta, RawWebhook},
};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use uuid::Uuid;

/// A place among them.
pub type Place = (DateTime<Utc>, WebhookId);

/// Which.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Only this one.
    pub webhook_id: Option<WebhookId>,
    /// Received at this time or later.
    pub since: Option<DateTime<Utc>>,
    /// Received before this time.
    pub until: Option<DateTime<Utc>>,
    /// Only of this provider.
    pub provider: Option<Provider>,
    /// Only for this account, by the provider's id of it.
    pub external_id: Option<String>,
}

/// One of them.
#[derive(Debug)]
pub struct Unroutable {
    /// Which.
    pub id: WebhookId,
    /// When it came.
    pub received_at: DateTime<Utc>,
    /// From whom.
    pub provider: String,
    /// For which account that nobody had; the first of several.
    pub external_id: String,
    /// Further ones, as far as they are kept.
    pub other_ids: serde_json::Value,
    /// How many further ones there are.
    pub others: i32,
    /// What the receiver knew of it; `None` of one that an earlier release kept, or that a newer one alone can read.
    pub meta: Option<Meta>,
    body_lz4: Vec<u8>,
}

impl Unroutable {
    /// The body as it came; `None` if what is kept does not hold together.
    pub fn body(&self) -> Option<Vec<u8>> {
        lz4_flex::decompress_size_prepended(&self.body_lz4).ok()
    }

    /// As it came in; `None` where it is not known who had signed it.
    pub fn to_webhook(&self) -> Option<RawWebhook> {
        let body = Bytes::from(self.body()?);
        Some(RawWebhook { meta: self.meta.clone()?, body })
    }
}

/// The next of them, the oldest first, behind a place.
///
/// # Errors
/// If the database does not answer.
pub async fn list(tx: &mut ControlTx, filter: &Filter, behind: Option<Place>, limit: i64) -> Result<Vec<Unroutable>> {
    let (at, id) = behind.unzip();
    let rows = sqlx::query!(
        r#"SELECT webhook_id AS "id: WebhookId", received_at, provider, external_id, other_ids, others, meta, body_lz4
        FROM control.unroutable
        WHERE ($1::uuid IS NULL OR webhook_id = $1)
            AND received_at >= coalesce($2::timestamptz, '-infinity') AND received_at < coalesce($3::timestamptz, 'infinity')
            AND ($4::text IS NULL OR provider = $4)
            AND ($5::text IS NULL OR external_id = $5 OR other_ids ? $5)
            AND (received_at, webhook_id) > (coalesce($6::timestamptz, '-infinity'), coalesce($7::uuid, $8::uuid))
        ORDER BY received_at, webhook_id
        LIMIT $9"#,
        filter.webhook_id.map(|id| id.0),
        filter.since,
        filter.until,
        filter.provider.map(Provider::as_str),
        filter.external_id,
        at,
        id.map(|id| id.0),
        Uuid::nil(),
        limit,
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Unroutable {
            id: row.id,
            received_at: row.received_at,
            provider: row.provider,
            external_id: row.external_id,
            other_ids: row.other_ids,
            others: row.others,
            meta: row.meta.and_then(|meta| serde_json::from_value(meta).ok()),
            body_lz4: row.body_lz4,
        })
        .collect())
}

/// Takes these away and puts each, if it was still there, into the spill as it is given here. How many.
///
/// # Errors
/// If the database does not answer.
pub async fn send_on(tx: &mut ControlTx, webhooks: &[(WebhookId, RawWebhook)]) -> Result<usize> {
    let ids: Vec<Uuid> = webhooks.iter().map(|(id, _)| id.0).collect();
    let gone = sqlx::query_scalar!(
        r#"DELETE FROM control.unroutable WHERE webhook_id = ANY ($1) RETURNING webhook_id AS "id: WebhookId""#,
        &ids,
    )
    .fetch_all(tx.conn())
    .await?;
    let mut on: Vec<RawWebhook> = Vec::with_capacity(gone.len());
    for (_, webhook) in webhooks.iter().filter(|(id, _)| gone.contains(id)) {
        if webhook.meta.stored {
            receiving::store_large_body(tx, webhook.meta.id, &webhook.body).await?;
        }
        on.push(webhook.to_travel());
    }
    receiving::spill(tx, &on).await?;
    Ok(on.len())
}

/// How many webhooks are in the spill, of at most `limit`: who adds many waits until there are few.
///
/// # Errors
/// If the database does not answer.
pub async fn spilled(tx: &mut ControlTx, limit: i64) -> Result<i64> {
    let count =
        sqlx::query_scalar!(r#"SELECT count(*) AS "count!" FROM (SELECT FROM control.spill LIMIT $1) AS few"#, limit,)
            .fetch_one(tx.conn())
            .await?;
    Ok(count)
}
