//! Channel accounts with their sealed secrets, their limits, and the routes and URLs by which webhooks find them.

use super::{ControlTx, FleetTx, TenantTx, error::Result, limits};
use crate::{
    domain::{
        channel::{InstagramLogin, Provider},
        ids::{ChannelAccountId, TenantId},
        limits::{LimitChange, Scope},
    },
    seal::Sealed,
};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use uuid::Uuid;

/// What is sealed with an account, as JSON: with what, and as whom, its provider is called.
#[derive(Default, Serialize, Deserialize)]
pub struct AccountSecrets {
    /// A token; for Twilio the account's auth token or an API key's secret.
    pub access_token: String,
    /// Twilio: the SID of the API key whose secret that is; none: it is the auth token, and the account's SID
    /// (`business_account_id`) goes with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// Instagram: by which login it was connected. It decides where its API is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login: Option<InstagramLogin>,
}

/// What is sealed with an account's own URL, as JSON.
#[derive(Default, Serialize, Deserialize)]
pub struct EndpointSecrets {
    /// With what its webhooks are signed: an app's secret, or Twilio's auth token.
    pub app_secret: String,
    /// With what else they may be signed: during a rotation, or where another account's token signs for some of the numbers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub further_secrets: Vec<String>,
    /// The word of its handshake.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify_token: Option<String>,
}

/// What a channel account's secrets are sealed for.
pub fn seal_context(id: ChannelAccountId) -> Vec<u8> {
    format!("channel_account/{id}").into_bytes()
}

/// What the secrets of an account's own URL are sealed for.
pub fn endpoint_seal_context(id: ChannelAccountId) -> Vec<u8> {
    format!("webhook_endpoint/{id}").into_bytes()
}

/// What must be known of an account to write in its name.
#[derive(Clone, Debug)]
pub struct Sender {
    /// active, down, disabled.
    pub state: String,
    /// At which provider it is.
    pub provider: String,
    /// On which channel.
    pub channel: String,
    /// How a gateway is called.
    pub gateway: Option<serde_json::Value>,
    /// When its templates were last fetched from the provider.
    pub templates_synced_at: Option<DateTime<Utc>>,
}

/// A channel account to be.
#[derive(Debug)]
pub struct NewAccount<'a> {
    /// Its id.
    pub id: ChannelAccountId,
    /// At which provider.
    pub provider: Provider,
    /// What its owner calls it; `None`: of a new one its provider's id, else as it was.
    pub name: Option<&'a str>,
    /// The provider's id of it (WhatsApp's phone_number_id, a Page, an Instagram account, an address of Twilio's).
    pub external_id: &'a str,
    /// The provider's id of the account it belongs to (WhatsApp's business account, Twilio's account SID).
    pub business_account_id: Option<&'a str>,
    /// What customers see (a number).
    pub display_address: Option<&'a str>,
    /// [`AccountSecrets`], sealed.
    pub secrets: &'a Sealed,
    /// The provider's id of the portfolio it belongs to, if that is known.
    pub portfolio: Option<&'a str>,
    /// Its limits, and its portfolio's.
    pub limits: &'a [(Scope, LimitChange)],
    /// Limits that its provider documents: set where there are none yet.
    pub defaults: &'a [(Scope, LimitChange)],
    /// The last part of its own webhook URL, if it has one.
    pub webhook_key: Option<&'a str>,
    /// How a gateway is called; `None`: as it was.
    pub gateway: Option<&'a serde_json::Value>,
    /// Whether its app may send a person's answers for seven days; `None`: as it was.
    pub human_agent: Option<bool>,
}

/// A channel account as an operator sees it.
#[derive(Clone, Debug)]
pub struct Account {
    /// Whose.
    pub tenant_id: TenantId,
    /// Its id.
    pub id: ChannelAccountId,
    /// At which provider.
    pub provider: String,
    /// What its owner calls it.
    pub name: String,
    /// The provider's id of it.
    pub external_id: String,
    /// The provider's id of the account it belongs to.
    pub business_account_id: Option<String>,
    /// active, down, disabled.
    pub state: String,
    /// With which code it is down: the provider's, or a word of ours.
    pub down_code: Option<String>,
    /// Why it is down.
    pub down_reason: Option<String>,
    /// Since when.
    pub down_at: Option<DateTime<Utc>>,
    /// When one message is let through to find out whether it is back.
    pub probe_at: Option<DateTime<Utc>>,
    /// On which channel people write to it.
    pub channel: String,
    /// How well customers take its messages, in the provider's word.
    pub quality: Option<String>,
    /// What the provider last said that an operator should look at.
    pub alert: Option<String>,
    /// When it said so.
    pub alert_at: Option<DateTime<Utc>>,
    /// Messages a second, as configured.
    pub rate: Option<f64>,
    /// Messages a second, as lowered for now.
    pub current_rate: Option<f64>,
    /// When its templates were last fetched.
    pub templates_synced_at: Option<DateTime<Utc>>,
    /// Why they could not be, the last time.
    pub templates_failure: Option<String>,
    /// Its secrets, sealed.
    pub sealed_secrets: Vec<u8>,
    /// With which key.
    pub secret_key_id: String,
}

/// Keeps a new account with its limits. Whether it is new; if the tenant has it already, nothing has changed.
///
/// # Errors
/// If the database does not answer.
pub async fn insert(tx: &mut FleetTx, tenant_id: TenantId, account: &NewAccount<'_>) -> Result<bool> {
    let done = sqlx::query!(
        "INSERT INTO channel_accounts (tenant_id, id, provider, name, external_id, business_account_id, display_address,
            sealed_secrets, secret_key_id, webhook_key, human_agent, gateway)
        VALUES ($1, $2, $3, coalesce($4, $5), $5, $6, $7, $8, $9, $10, coalesce($11, false), $12)
        ON CONFLICT ON CONSTRAINT channel_accounts_external_key DO NOTHING",
        tenant_id.0,
        account.id.0,
        account.provider.as_str(),
        account.name,
        account.external_id,
        account.business_account_id,
        account.display_address,
        account.secrets.bytes,
        account.secrets.key_id,
        account.webhook_key,
        account.human_agent,
        account.gateway,
    )
    .execute(tx.conn())
    .await?;
    if done.rows_affected() == 0 {
        return Ok(false);
    }
    set_limits(tx, tenant_id, account).await?;
    Ok(true)
}

/// Changes what an operator gave for an account that is there: name, business account, secrets, portfolio, limits. One that is down stays
/// so until it is resumed ([`super::outbound::accounts::resume`]). Its secrets are made of those `before`: if they are others by now, it
/// is false, and the transaction is not to be committed.
///
/// # Errors
/// If the database does not answer.
pub async fn update(tx: &mut FleetTx, tenant_id: TenantId, account: &NewAccount<'_>, before: &[u8]) -> Result<bool> {
    set_limits(tx, tenant_id, account).await?;
    let done = sqlx::query!(
        "UPDATE channel_accounts
        SET name = COALESCE($3, name), business_account_id = COALESCE($4, business_account_id),
            display_address = COALESCE($5, display_address), sealed_secrets = $6, secret_key_id = $7,
            webhook_key = COALESCE($8, webhook_key), human_agent = COALESCE($9, human_agent), gateway = COALESCE($10, gateway),
            -- Senders notice that it has changed.
            revision = revision + 1
        WHERE tenant_id = $1 AND id = $2 AND sealed_secrets = $11",
        tenant_id.0,
        account.id.0,
        account.name,
        account.business_account_id,
        account.display_address,
        account.secrets.bytes,
        account.secrets.key_id,
        account.webhook_key,
        account.human_agent,
        account.gateway,
        before,
    )
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Sets the limits given, and ties the account to its portfolio.
async fn set_limits(tx: &mut FleetTx, tenant_id: TenantId, account: &NewAccount<'_>) -> Result<()> {
    let portfolio = match account.portfolio {
        Some(external_id) => Some(find_portfolio(tx, tenant_id, account.provider, external_id).await?),
        None => None,
    };
    let key = |scope: Scope| if scope.is_of_portfolio() { portfolio } else { Some(account.id.0) };
    for (scope, change) in account.limits {
        if let Some(key) = key(*scope) {
            limits::change(tx.conn(), tenant_id, (*scope, key), *change, account.provider).await?;
        }
    }
    for (scope, change) in account.defaults {
        if let Some(key) = key(*scope) {
            limits::begin(tx.conn(), tenant_id, (*scope, key), *change, account.provider).await?;
        }
    }
    // After the limits: whoever locks both does so in this order.
    if let Some(portfolio) = portfolio {
        sqlx::query!(
            "UPDATE channel_accounts SET portfolio_id = $3 WHERE tenant_id = $1 AND id = $2",
            tenant_id.0,
            account.id.0,
            portfolio,
        )
        .execute(tx.conn())
        .await?;
    }
    Ok(())
}

/// The portfolio of this id at the provider; made if there is none.
async fn find_portfolio(tx: &mut FleetTx, tenant_id: TenantId, provider: Provider, external_id: &str) -> Result<Uuid> {
    Ok(sqlx::query_scalar!(
        "INSERT INTO portfolios (tenant_id, id, provider, external_id)
        VALUES ($1, $2, $3, $4)
        ON CONFLICT (tenant_id, provider, external_id) DO UPDATE SET external_id = excluded.external_id
        RETURNING id",
        tenant_id.0,
        Uuid::now_v7(),
        provider.as_str(),
        external_id,
    )
    .fetch_one(tx.conn())
    .await?)
}

/// The accounts of the tenants in scope, by tenant and name.
///
/// # Errors
/// If the database does not answer.
pub async fn list(tx: &mut FleetTx) -> Result<Vec<Account>> {
    read(tx.conn(), None).await
}

/// The accounts of one tenant, by name.
///
/// # Errors
/// If the database does not answer.
pub async fn list_of(tx: &mut TenantTx) -> Result<Vec<Account>> {
    let tenant_id = tx.tenant_id();
    read(tx.conn(), Some(tenant_id)).await
}

async fn read(conn: &mut PgConnection, only: Option<TenantId>) -> Result<Vec<Account>> {
    let accounts = sqlx::query_as!(
        Account,
        r#"SELECT a.tenant_id AS "tenant_id: TenantId", a.id AS "id: ChannelAccountId", a.provider, a.name, a.external_id,
            a.business_account_id, a.state, a.down_code, a.down_reason, a.down_at, CASE WHEN a.state = 'down' THEN a.probe_at END AS probe_at,
            a.channel, a.quality, a.alert_reason AS alert, a.alert_at, l.rate AS "rate?", l.current_rate AS "current_rate?",
            a.templates_synced_at, a.templates_failure, a.sealed_secrets, a.secret_key_id
        FROM channel_accounts a
        LEFT JOIN limits l ON l.tenant_id = a.tenant_id AND l.scope = 'account' AND l.key = a.id
        WHERE $1::uuid IS NULL OR a.tenant_id = $1
        ORDER BY a.tenant_id, a.name, a.id"#,
        only.map(|tenant_id| tenant_id.0),
    )
    .fetch_all(conn)
    .await?;
    Ok(accounts)
}

/// Replaces an account's sealed secrets, if they are still those of before. Whether they were.
///
/// # Errors
/// If the database does not answer.
pub async fn reseal(
    tx: &mut FleetTx,
    tenant_id: TenantId,
    id: ChannelAccountId,
    before: &[u8],
    after: &Sealed,
) -> Result<bool> {
    let done = sqlx::query!(
        "UPDATE channel_accounts
        SET sealed_secrets = $4, secret_key_id = $5
        WHERE tenant_id = $1 AND id = $2 AND sealed_secrets = $3",
        tenant_id.0,
        id.0,
        before,
        after.bytes,
        after.key_id,
    )
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Lets this transaction on the control tables see one tenant's routes and URLs.
///
/// # Errors
/// If the database does not answer.
pub async fn scope_routes(tx: &mut ControlTx, tenant_id: TenantId) -> Result<()> {
    let ids = format!("{{{tenant_id}}}");
    sqlx::query_scalar!("SELECT set_config('app.tenant_ids', $1, true)", ids).fetch_one(tx.conn()).await?;
    Ok(())
}

/// Routes a provider's id to an account. Whether it does now: false if it is another account's, or another tenant's at all (a
/// business account may hold several accounts, but of one tenant only: it is told of all of them). Whoever routes several does so
/// in the order of kind and id, for each is locked.
///
/// # Errors
/// If the database does not answer.
pub async fn route(
    tx: &mut ControlTx,
    tenant_id: TenantId,
    id: ChannelAccountId,
    provider: Provider,
    kind: &str,
    external_id: &str,
) -> Result<bool> {
    // Who routes the same id at this moment for another tenant commits first, and the next statement sees it.
    let key = format!("{}\u{1f}{kind}\u{1f}{external_id}", provider.as_str());
    sqlx::query!("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", key).fetch_one(tx.conn()).await?;
    let done = sqlx::query!(
        "INSERT INTO control.channel_routes (provider, kind, external_id, tenant_id, channel_account_id)
        SELECT $1, $2, $3, $4, $5
        WHERE NOT EXISTS (SELECT FROM control.find_routes($1, ARRAY[$2], ARRAY[$3]) WHERE tenant_id <> $4)
        ON CONFLICT DO NOTHING",
        provider.as_str(),
        kind,
        external_id,
        tenant_id.0,
        id.0,
    )
    .execute(tx.conn())
    .await?;
    if done.rows_affected() == 1 {
        return Ok(true);
    }
    let ours = sqlx::query_scalar!(
        r#"SELECT EXISTS (
            SELECT FROM control.channel_routes
            WHERE provider = $1 AND kind = $2 AND external_id = $3 AND channel_account_id = $4
        ) AS "ours!""#,
        provider.as_str(),
        kind,
        external_id,
        id.0,
    )
    .fetch_one(tx.conn())
    .await?;
    Ok(ours)
}

/// Whether the tenant has this account.
///
/// # Errors
/// If the database does not answer.
pub async fn exists(tx: &mut TenantTx, id: ChannelAccountId) -> Result<bool> {
    let tenant_id = tx.tenant_id();
    let exists = sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM channel_accounts WHERE tenant_id = $1 AND id = $2) AS "exists!""#,
        tenant_id.0,
        id.0,
    )
    .fetch_one(tx.conn())
    .await?;
    Ok(exists)
}

/// One of the tenant's accounts, to write in its name.
///
/// # Errors
/// If the database does not answer.
pub async fn sender(tx: &mut TenantTx, id: ChannelAccountId) -> Result<Option<Sender>> {
    let tenant_id = tx.tenant_id();
    let sender = sqlx::query_as!(
        Sender,
        "SELECT state, provider, channel AS \"channel!\", gateway, templates_synced_at FROM channel_accounts WHERE tenant_id = $1 AND id = $2",
        tenant_id.0,
        id.0,
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(sender)
}

/// The key of an account's own URL, if it has one.
///
/// # Errors
/// If the database does not answer.
pub async fn endpoint_key(tx: &mut ControlTx, id: ChannelAccountId) -> Result<Option<String>> {
    let key = sqlx::query_scalar!("SELECT key FROM control.webhook_endpoints WHERE channel_account_id = $1", id.0)
        .fetch_optional(tx.conn())
        .await?;
    Ok(key)
}

/// Gives an account an URL of its own, or the one it has other secrets.
///
/// # Errors
/// If the database does not answer.
pub async fn upsert_endpoint(
    tx: &mut ControlTx,
    tenant_id: TenantId,
    id: ChannelAccountId,
    provider: Provider,
    key: &str,
    secrets: &Sealed,
) -> Result<()> {
    sqlx::query!(
        "INSERT INTO control.webhook_endpoints (key, provider, tenant_id, channel_account_id, sealed_secrets, secret_key_id)
        VALUES ($1, $2, $3, $4, $5, $6)
        ON CONFLICT (key) DO UPDATE SET sealed_secrets = excluded.sealed_secrets, secret_key_id = excluded.secret_key_id",
        key,
        provider.as_str(),
        tenant_id.0,
        id.0,
        secrets.bytes,
        secrets.key_id,
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// The URLs in scope with their sealed secrets: key, account, key id, bytes.
///
/// # Errors
/// If the database does not answer.
pub async fn list_endpoints(tx: &mut ControlTx) -> Result<Vec<(String, ChannelAccountId, Sealed)>> {
    let rows = sqlx::query!(
        "SELECT key, channel_account_id, sealed_secrets, secret_key_id FROM control.webhook_endpoints ORDER BY key FOR UPDATE"
    )
    .fetch_all(tx.conn())
    .await?;
    let endpoint = |key, id: Uuid, bytes, key_id| (key, ChannelAccountId(id), Sealed { key_id, bytes });
    Ok(rows.into_iter().map(|r| endpoint(r.key, r.channel_account_id, r.sealed_secrets, r.secret_key_id)).collect())
}
