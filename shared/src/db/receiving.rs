//! What the receiver keeps and asks: webhooks spilled while the broker is away, bodies too large for it, webhooks with a wrong
//! signature, and which account an URL's key belongs to.

use super::{ControlTx, error::Result};
use crate::{
    domain::{
        channel::Provider,
        ids::{ChannelAccountId, TenantId, WebhookId},
    },
    jobs::inbound::RawWebhook,
};
use chrono::{DateTime, Utc};
use uuid::Uuid;

/// An account with an URL of its own.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Whose webhooks come there.
    pub provider: String,
    /// The tenant.
    pub tenant_id: TenantId,
    /// The account.
    pub channel_account_id: ChannelAccountId,
    /// Its [`EndpointSecrets`](super::channel_accounts::EndpointSecrets), sealed.
    pub sealed_secrets: Vec<u8>,
    /// With which key.
    pub secret_key_id: String,
}

/// A webhook whose signature did not fit.
#[derive(Clone, Debug)]
pub struct Suspect {
    /// Its id.
    pub id: WebhookId,
    /// Whose it claims to be.
    pub provider: String,
    /// The key in its URL, or empty for the platform's endpoint.
    pub endpoint: String,
    /// Where it came from.
    pub source: String,
    /// What is wrong with it.
    pub reason: String,
    /// How it was sent.
    pub method: String,
    /// The path and query it was sent to, as they came, after scheme and host if a proxy of ours said them; empty for one that an
    /// earlier release kept.
    pub target: String,
    /// What its body is, by its header.
    pub content_type: Option<String>,
    /// The signature it came with.
    pub signature: Option<String>,
    /// The first bytes of its body.
    pub body: Vec<u8>,
    /// How long its body was.
    pub body_bytes: i64,
    /// When it came.
    pub received_at: DateTime<Utc>,
    /// When an operator had it taken after all.
    pub replayed_at: Option<DateTime<Utc>>,
}

/// How much of suspects is kept; of more, the newest.
#[derive(Clone, Copy, Debug)]
pub struct Caps {
    /// Of those that came with a signature: a secret that is wrong here makes everything a provider sends one of them.
    pub signed: Room,
    /// Of those without one: no mending makes them genuine.
    pub unsigned: Room,
}

/// How much there is room for.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// Webhooks of one source at one endpoint.
    pub of_source: i64,
    /// Webhooks at one endpoint.
    pub of_endpoint: i64,
    /// Bytes of their bodies at one endpoint, as far as they are kept; half of it for one source.
    pub bytes: i64,
}

/// Which suspects are asked for; the newest first.
#[derive(Clone, Debug, Default)]
pub struct SuspectFilter {
    /// Received at this time or later.
    pub since: Option<DateTime<Utc>>,
    /// Received before this time.
    pub until: Option<DateTime<Utc>>,
    /// Of this provider.
    pub provider: Option<Provider>,
    /// That came to this key, or to the platform's address (empty).
    pub endpoint: Option<String>,
    /// Only those that nobody has had taken yet.
    pub waiting: bool,
}

/// Keeps webhooks until the broker is back. Twice is once.
///
/// # Errors
/// If the database does not answer.
pub async fn spill(tx: &mut ControlTx, webhooks: &[RawWebhook]) -> Result<()> {
    let ids: Vec<Uuid> = webhooks.iter().map(|w| w.meta.id.0).collect();
    let metas: Vec<serde_json::Value> =
        webhooks.iter().map(|w| serde_json::to_value(&w.meta).expect("plain fields are always JSON")).collect();
    let bodies: Vec<Vec<u8>> = webhooks.iter().map(|w| w.body.to_vec()).collect();
    sqlx::query!(
        "INSERT INTO control.spill (id, meta, body)
        SELECT id, meta, body
        FROM unnest($1::uuid[], $2::jsonb[], $3::bytea[]) AS webhook (id, meta, body)
        ON CONFLICT (id) DO NOTHING",
        &ids,
        &metas,
        &bodies,
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Keeps a body too large for the broker; the job refers to it. Twice is once.
///
/// # Errors
/// If the database does not answer.
pub async fn store_large_body(tx: &mut ControlTx, id: WebhookId, body: &[u8]) -> Result<()> {
    sqlx::query!(
        "INSERT INTO control.large_bodies (webhook_id, body) VALUES ($1, $2) ON CONFLICT (webhook_id) DO NOTHING",
        id.0,
        body,
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Drops copies of bodies that are in a log and have been played again.
///
/// # Errors
/// If the database does not answer; they go by themselves after some days.
pub async fn forget_bodies(tx: &mut ControlTx, ids: &[WebhookId]) -> Result<()> {
    let ids: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
    sqlx::query!("DELETE FROM control.large_bodies WHERE webhook_id = ANY ($1)", &ids).execute(tx.conn()).await?;
    Ok(())
}

/// Which account the key in an URL belongs to.
///
/// # Errors
/// If the database does not answer.
pub async fn find_endpoint(tx: &mut ControlTx, key: &str) -> Result<Option<Endpoint>> {
    let endpoint = sqlx::query_as!(
        Endpoint,
        r#"SELECT provider AS "provider!", tenant_id AS "tenant_id!: TenantId",
            channel_account_id AS "channel_account_id!: ChannelAccountId",
            sealed_secrets AS "sealed_secrets!", secret_key_id AS "secret_key_id!"
        FROM control.find_endpoint($1)"#,
        key,
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(endpoint)
}

/// Keeps suspects, and of those at their endpoints no more than the caps allow. How many were let go for others.
///
/// # Errors
/// If the database does not answer.
pub async fn quarantine(tx: &mut ControlTx, suspects: &[Suspect], caps: Caps) -> Result<u64> {
    let ids: Vec<Uuid> = suspects.iter().map(|s| s.id.0).collect();
    let providers: Vec<String> = suspects.iter().map(|s| s.provider.clone()).collect();
    let endpoints: Vec<String> = suspects.iter().map(|s| s.endpoint.clone()).collect();
    let sources: Vec<String> = suspects.iter().map(|s| s.source.clone()).collect();
    let reasons: Vec<String> = suspects.iter().map(|s| s.reason.clone()).collect();
    let methods: Vec<String> = suspects.iter().map(|s| s.method.clone()).collect();
    let targets: Vec<String> = suspects.iter().map(|s| s.target.clone()).collect();
    let content_types: Vec<Option<String>> = suspects.iter().map(|s| s.content_type.clone()).collect();
    let signatures: Vec<Option<String>> = suspects.iter().map(|s| s.signature.clone()).collect();
    let bodies: Vec<Vec<u8>> = suspects.iter().map(|s| s.body.clone()).collect();
    let lengths: Vec<i64> = suspects.iter().map(|s| s.body_bytes).collect();
    let times: Vec<DateTime<Utc>> = suspects.iter().map(|s| s.received_at).collect();
    sqlx::query!(
        "INSERT INTO control.quarantine (id, provider, endpoint, source, reason, method, target, content_type, signature, body,
            body_bytes, received_at)
        SELECT id, provider, endpoint, source, reason, method, target, content_type, signature, body, body_bytes, received_at
        FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[],
                $10::bytea[], $11::bigint[], $12::timestamptz[])
            AS suspect (id, provider, endpoint, source, reason, method, target, content_type, signature, body, body_bytes,
                received_at)
        ON CONFLICT (id) DO NOTHING",
        &ids,
        &providers,
        &endpoints,
        &sources,
        &reasons,
        &methods,
        &targets,
        &content_types as &[Option<String>],
        &signatures as &[Option<String>],
        &bodies,
        &lengths,
        &times,
    )
    .execute(tx.conn())
    .await?;
    let rooms = [caps.signed, caps.unsigned];
    let gone = sqlx::query!(
        "WITH room AS MATERIALIZED (
            SELECT * FROM unnest($2::bool[], $3::bigint[], $4::bigint[], $5::bigint[]) AS room (signed, of_source, of_endpoint, bytes)
        ), ranked AS MATERIALIZED (
            SELECT id, signature IS NOT NULL AS signed,
                row_number() OVER source AS of_source, row_number() OVER address AS of_endpoint,
                sum(octet_length(body)) OVER source AS source_bytes, sum(octet_length(body)) OVER address AS bytes
            FROM control.quarantine
            WHERE endpoint = ANY ($1)
            WINDOW source AS (PARTITION BY provider, endpoint, signature IS NOT NULL, source ORDER BY received_at DESC, id),
                address AS (PARTITION BY provider, endpoint, signature IS NOT NULL ORDER BY received_at DESC, id)
        )
        DELETE FROM control.quarantine
        USING ranked, room
        WHERE quarantine.id = ranked.id AND room.signed = ranked.signed
            AND (ranked.of_source > room.of_source OR ranked.of_endpoint > room.of_endpoint
                OR ranked.source_bytes > room.bytes / 2 OR ranked.bytes > room.bytes)",
        &endpoints,
        &[true, false],
        &rooms.map(|room| room.of_source),
        &rooms.map(|room| room.of_endpoint),
        &rooms.map(|room| room.bytes),
    )
    .execute(tx.conn())
    .await?;
    Ok(gone.rows_affected())
}

/// The newest suspects of those that are asked for.
///
/// # Errors
/// If the database does not answer.
pub async fn list_quarantine(tx: &mut ControlTx, filter: &SuspectFilter, limit: i64) -> Result<Vec<Suspect>> {
    let suspects = sqlx::query_as!(
        Suspect,
        r#"SELECT id AS "id: WebhookId", provider, endpoint, source, reason, method, target, content_type, signature, body,
            body_bytes, received_at, replayed_at
        FROM control.quarantine
        WHERE ($2::timestamptz IS NULL OR received_at >= $2) AND ($3::timestamptz IS NULL OR received_at < $3)
            AND ($4::text IS NULL OR provider = $4) AND ($5::text IS NULL OR endpoint = $5)
            AND NOT ($6 AND replayed_at IS NOT NULL)
        ORDER BY received_at DESC
        LIMIT $1"#,
        limit,
        filter.since,
        filter.until,
        filter.provider.map(Provider::as_str),
        filter.endpoint,
        filter.waiting,
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(suspects)
}

/// Which those are, the oldest first, as they would have come.
///
/// # Errors
/// If the database does not answer.
pub async fn find_quarantined(tx: &mut ControlTx, filter: &SuspectFilter, limit: i64) -> Result<Vec<WebhookId>> {
    let ids = sqlx::query_scalar!(
        r#"SELECT id AS "id: WebhookId"
        FROM control.quarantine
        WHERE ($2::timestamptz IS NULL OR received_at >= $2) AND ($3::timestamptz IS NULL OR received_at < $3)
            AND ($4::text IS NULL OR provider = $4) AND ($5::text IS NULL OR endpoint = $5)
            AND NOT ($6 AND replayed_at IS NOT NULL)
        ORDER BY received_at, id
        LIMIT $1"#,
        limit,
        filter.since,
        filter.until,
        filter.provider.map(Provider::as_str),
        filter.endpoint,
        filter.waiting,
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(ids)
}

/// One suspect, locked: who takes it after all does so once.
///
/// # Errors
/// If the database does not answer.
pub async fn lock_suspect(tx: &mut ControlTx, id: WebhookId) -> Result<Option<Suspect>> {
    let suspect = sqlx::query_as!(
        Suspect,
        r#"SELECT id AS "id: WebhookId", provider, endpoint, source, reason, method, target, content_type, signature, body,
            body_bytes, received_at, replayed_at
        FROM control.quarantine
        WHERE id = $1
        FOR UPDATE"#,
        id.0,
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(suspect)
}

/// Notes that a suspect was taken after all.
///
/// # Errors
/// If the database does not answer.
pub async fn mark_replayed(tx: &mut ControlTx, id: WebhookId, at: DateTime<Utc>) -> Result<()> {
    sqlx::query!("UPDATE control.quarantine SET replayed_at = $2 WHERE id = $1", id.0, at).execute(tx.conn()).await?;
    Ok(())
}
