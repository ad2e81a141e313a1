//! How a webhook finds its tenant: the provider's ids of accounts, looked up before any tenant is known.

use super::{Placement, error::Result, scope::ControlTx};
use crate::{
    domain::{
        channel::Provider,
        events::RouteKey,
        ids::{ChannelAccountId, TenantId},
    },
    jobs::inbound::Meta,
};
use chrono::{DateTime, Utc};
use uuid::Uuid;

/// Where an account's events go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Whose account.
    pub tenant_id: TenantId,
    /// Which.
    pub channel_account_id: ChannelAccountId,
    /// In which database.
    pub placement: Placement,
}

/// The routes of these keys; a key that nobody has is missing from the answer. Where a business account has several numbers
/// the eldest stands for it.
///
/// # Errors
/// If the database does not answer.
pub async fn find_routes(tx: &mut ControlTx, provider: Provider, keys: &[RouteKey]) -> Result<Vec<(RouteKey, Route)>> {
    let kinds: Vec<String> = keys.iter().map(|key| key.kind().to_owned()).collect();
    let ids: Vec<String> = keys.iter().map(|key| key.external_id().to_owned()).collect();
    let rows = sqlx::query!(
        r#"SELECT kind AS "kind!", external_id AS "external_id!", tenant_id AS "tenant_id!",
            channel_account_id AS "channel_account_id!", placement AS "placement!"
        FROM control.find_routes($1, $2, $3)"#,
        provider.as_str(),
        &kinds,
        &ids,
    )
    .fetch_all(tx.conn())
    .await?;
    let mut found: Vec<(RouteKey, Route)> = Vec::with_capacity(rows.len());
    for row in rows {
        let Some(key) = RouteKey::from_kind(&row.kind, row.external_id) else { continue };
        if found.iter().all(|(known, _)| *known != key) {
            let route = Route {
                tenant_id: TenantId(row.tenant_id),
                channel_account_id: ChannelAccountId(row.channel_account_id),
                placement: Placement::named(&row.placement),
            };
            found.push((key, route));
        }
    }
    Ok(found)
}

/// The placement of a tenant; `None` if there is no such tenant.
///
/// # Errors
/// If the database does not answer.
pub async fn find_placement(tx: &mut ControlTx, tenant_id: TenantId) -> Result<Option<Placement>> {
    let name = sqlx::query_scalar!("SELECT placement FROM control.tenants WHERE id = $1", tenant_id.0)
        .fetch_optional(tx.conn())
        .await?;
    Ok(name.map(|name| Placement::named(&name)))
}

/// All tenants of a placement: whom a sweep sees.
///
/// # Errors
/// If the database does not answer.
pub async fn tenants_of(tx: &mut ControlTx, placement: &Placement) -> Result<Vec<TenantId>> {
    let ids =
        sqlx::query_scalar!("SELECT id FROM control.tenants WHERE placement = $1 ORDER BY id", placement.as_str())
            .fetch_all(tx.conn())
            .await?;
    Ok(ids.into_iter().map(TenantId).collect())
}

/// A webhook for accounts that nobody has.
#[derive(Clone, Debug)]
pub struct Unroutable {
    /// What the receiver knew of the webhook.
    pub meta: Meta,
    /// The id nobody has; the first of several.
    pub external_id: String,
    /// Further such ids, as far as they are kept.
    pub other_ids: Vec<String>,
    /// How many further ids there are.
    pub others: usize,
    /// The webhook's body, LZ4 with its size before it.
    pub body_lz4: Vec<u8>,
}

/// Keeps what nobody can be given, for the operator. Again is the same as once. In one order, so that two workers that were
/// handed the same webhooks do not lock each other out.
///
/// # Errors
/// If the database does not answer.
pub async fn record_unroutable(tx: &mut ControlTx, webhooks: &[Unroutable]) -> Result<()> {
    let ids: Vec<Uuid> = webhooks.iter().map(|w| w.meta.id.0).collect();
    let providers: Vec<String> = webhooks.iter().map(|w| w.meta.provider.as_str().to_owned()).collect();
    let external_ids: Vec<String> = webhooks.iter().map(|w| w.external_id.clone()).collect();
    let other_ids: Vec<serde_json::Value> = webhooks.iter().map(|w| w.other_ids.as_slice().into()).collect();
    let others: Vec<i32> = webhooks.iter().map(|w| i32::try_from(w.others).unwrap_or(i32::MAX)).collect();
    let times: Vec<DateTime<Utc>> = webhooks.iter().map(|w| w.meta.received_at).collect();
    let metas: Vec<serde_json::Value> =
        webhooks.iter().map(|w| serde_json::to_value(&w.meta).expect("plain fields are always JSON")).collect();
    let bodies: Vec<&[u8]> = webhooks.iter().map(|w| w.body_lz4.as_slice()).collect();
    sqlx::query!(
        "INSERT INTO control.unroutable (webhook_id, provider, external_id, other_ids, others, received_at, meta, body_lz4)
        SELECT webhook_id, provider, external_id, other_ids, others, received_at, meta, body_lz4
        FROM unnest($1::uuid[], $2::text[], $3::text[], $4::jsonb[], $5::int[], $6::timestamptz[], $7::jsonb[], $8::bytea[])
            AS w (webhook_id, provider, external_id, other_ids, others, received_at, meta, body_lz4)
        ORDER BY webhook_id, external_id
        ON CONFLICT (webhook_id, external_id) DO NOTHING",
        &ids,
        &providers,
        &external_ids,
        &other_ids,
        &others,
        &times,
        &metas,
        &bodies as &[&[u8]],
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// The bodies that were too large to travel, by webhook.
///
/// # Errors
/// If the database does not answer.
pub async fn load_large_body(tx: &mut ControlTx, webhook_id: Uuid) -> Result<Option<Vec<u8>>> {
    Ok(sqlx::query_scalar!("SELECT body FROM control.large_bodies WHERE webhook_id = $1", webhook_id)
        .fetch_optional(tx.conn())
        .await?)
}
