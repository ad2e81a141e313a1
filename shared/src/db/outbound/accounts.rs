//! Channel accounts as the senders need them.

use super::{
    probes,
    turns::{self, CAMPAIGN_LANE, Settled},
};
use crate::{
    db::{
        audit::{self, Actor, Entry},
        error::Result,
        scope::{FleetTx, TenantTx},
    },
    domain::{
        channel::Provider,
        ids::{ChannelAccountId, ConversationId, MessageId, TenantId},
        retrying::Policy,
    },
    jobs::outbound::{OutboundSlice, SLICE},
};
use sqlx::{PgConnection, types::Json};
use uuid::Uuid;

/// An account that can be called for. Its secrets are sealed.
#[derive(Clone, Debug)]
pub struct Account {
    /// Whose.
    pub tenant_id: TenantId,
    /// Which.
    pub id: ChannelAccountId,
    /// Counts up with each change by an operator.
    pub revision: i32,
    /// At whom.
    pub provider: Provider,
    /// The provider's id of it (WhatsApp: `phone_number_id`).
    pub external_id: String,
    /// The provider's id of the account it belongs to.
    pub business_account_id: Option<String>,
    /// The last part of its own webhook URL, if it has one.
    pub webhook_key: Option<String>,
    /// How a gateway is called.
    pub gateway: Option<serde_json::Value>,
    /// Which key sealed its secrets.
    pub secret_key_id: String,
    /// The sealed secrets.
    pub sealed_secrets: Vec<u8>,
    /// Its configured rate per second, if it has one: the ceiling of each worker's own spacing.
    pub rate: Option<f64>,
    /// When its tenant wants what was not sent tried again.
    pub retry: Policy,
}

/// Loads accounts; one that does not exist is missing from the answer.
///
/// # Errors
/// If the database does not answer.
pub async fn load(tx: &mut FleetTx, ids: &[(TenantId, ChannelAccountId)]) -> Result<Vec<Account>> {
    let tenants: Vec<Uuid> = ids.iter().map(|(tenant_id, _)| tenant_id.0).collect();
    let accounts: Vec<Uuid> = ids.iter().map(|(_, id)| id.0).collect();
    let rows = sqlx::query!(
        r#"SELECT a.tenant_id, a.id, a.revision, a.provider, a.external_id, a.business_account_id, a.webhook_key, a.gateway, a.secret_key_id, a.sealed_secrets, l.rate AS "rate?",
            s.retry AS "retry?: Json<Policy>"
        FROM unnest($1::uuid[], $2::uuid[]) AS asked (tenant_id, id)
        JOIN channel_accounts a ON a.tenant_id = asked.tenant_id AND a.id = asked.id
        LEFT JOIN limits l ON l.tenant_id = a.tenant_id AND l.scope = 'account' AND l.key = a.id
        LEFT JOIN tenant_settings s ON s.tenant_id = a.tenant_id"#,
        &tenants,
        &accounts,
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(rows
        .into_iter()
        .filter_map(|row| {
            Some(Account {
                tenant_id: TenantId(row.tenant_id),
                id: ChannelAccountId(row.id),
                revision: row.revision,
                provider: row.provider.parse().ok()?,
                external_id: row.external_id,
                business_account_id: row.business_account_id,
                webhook_key: row.webhook_key,
                gateway: row.gateway,
                secret_key_id: row.secret_key_id,
                sealed_secrets: row.sealed_secrets,
                rate: row.rate,
                retry: row.retry.map(|retry| retry.0).unwrap_or_default(),
            })
        })
        .collect())
}

/// Puts an account back to work if it was down, as a new revision. The state it was in; `None` if there is no such account.
/// What waits for it is woken afterwards, in transactions of its own ([`wake`]): senders wait for this one.
///
/// # Errors
/// If the database does not answer.
pub async fn resume(tx: &mut FleetTx, tenant_id: TenantId, id: ChannelAccountId) -> Result<Option<String>> {
    put_back(tx.conn(), tenant_id, id).await
}

/// The same for somebody who asks for it by the API; what waits for the account is woken by and by. One that is not down stays as it is.
///
/// # Errors
/// If the database does not answer.
pub async fn resume_for(tx: &mut TenantTx, id: ChannelAccountId, actor: Actor) -> Result<Option<String>> {
    let tenant_id = tx.tenant_id();
    let before = sqlx::query_scalar!(
        "SELECT state FROM channel_accounts WHERE tenant_id = $1 AND id = $2 FOR NO KEY UPDATE",
        tenant_id.0,
        id.0,
    )
    .fetch_optional(tx.conn())
    .await?;
    if before.as_deref() == Some("down") {
        put_back(tx.conn(), tenant_id, id).await?;
        probes::wake_by_and_by(tx.conn(), tenant_id, id).await?;
        let (action, target_kind) = ("channel_account.resumed", "channel_account");
        let details = serde_json::json!({"before": "down"});
        audit::record(tx, &Entry { actor, action, target_kind, target_id: id.0, details }).await?;
    }
    Ok(before)
}

async fn put_back(conn: &mut PgConnection, tenant_id: TenantId, id: ChannelAccountId) -> Result<Option<String>> {
    let before = sqlx::query_scalar!(
        "WITH before AS MATERIALIZED (
            SELECT tenant_id, id, state FROM channel_accounts WHERE tenant_id = $1 AND id = $2 FOR NO KEY UPDATE
        )
        UPDATE channel_accounts a
        SET state = CASE before.state WHEN 'down' THEN 'active' ELSE before.state END, revision = revision + 1,
            down_code = NULL, down_reason = NULL, down_at = NULL, down_by_report = false, state_told_at = now(), probes = 0, probe_at = NULL, probe_with = NULL
        FROM before
        WHERE a.tenant_id = before.tenant_id AND a.id = before.id
        RETURNING before.state",
        tenant_id.0,
        id.0,
    )
    .fetch_optional(conn)
    .await?;
    Ok(before)
}

/// So many sends are looked through in one transaction.
const WAKE_AT_ONCE: i64 = 20_000;

/// Writes the jobs of what waits for an account, among the tenant's next sends after this one. Returns where to go on; `None`
/// when all have been looked at. No index leads to them: that would cost each change of a send's state more than this does.
///
/// # Errors
/// If the database does not answer.
pub async fn wake(
    tx: &mut FleetTx,
    tenant_id: TenantId,
    id: ChannelAccountId,
    after: Option<MessageId>,
) -> Result<Option<MessageId>> {
    let after = after.map_or(Uuid::nil(), |id| id.0);
    let last = sqlx::query_scalar!(
        "SELECT message_id FROM sends WHERE tenant_id = $1 AND message_id > $2 ORDER BY message_id OFFSET $3 LIMIT 1",
        tenant_id.0,
        after,
        WAKE_AT_ONCE,
    )
    .fetch_optional(tx.conn())
    .await?;
    let waiting = sqlx::query!(
        r#"SELECT message_id AS "message_id: MessageId", conversation_id AS "conversation_id: ConversationId", seq, lane, now() AS "now!"
        FROM sends
        WHERE tenant_id = $1 AND message_id > $3 AND message_id <= $4
            AND channel_account_id = $2 AND state = 'waiting' AND wait_reason = 'account_down'
        ORDER BY message_id"#,
        tenant_id.0,
        id.0,
        after,
        last.unwrap_or(Uuid::max()),
    )
    .fetch_all(tx.conn())
    .await?;
    // Campaigns' sends wait for nobody's turn; of a conversation's others the head goes first.
    let (bulk, in_turn): (Vec<_>, Vec<_>) = waiting.into_iter().partition(|row| row.lane == CAMPAIGN_LANE);
    let settled: Vec<Settled> = in_turn
        .into_iter()
        .map(|row| Settled { tenant_id, conversation_id: row.conversation_id, seq: row.seq - 1 })
        .collect();
    turns::wake_next(tx, &settled).await?;
    for slice in bulk.chunks(SLICE) {
        let message_ids = slice.iter().map(|row| row.message_id).collect();
        let job = OutboundSlice { tenant_id, account: id, message_ids }.to_job(slice[0].now);
        tx.enqueue(tenant_id, turns::BULK_QUEUE, job, None);
    }
    Ok(last.map(MessageId))
}
