//! `/api/{tenant}/channel-accounts`: a tenant's accounts at their providers, how they are, and bringing one back that is down.

use crate::{
    auth::{AccountsRead, AccountsWrite, Caller},
    error::{Kind, Problem, Result},
    extract::{Id, Params},
    state::App,
};
use axum::{Json as View, extract::State, http::StatusCode};
use chrono::{DateTime, Utc};
use serde::Serialize;
use shared::{
    db::{
        channel_accounts::{self, Account},
        outbound::accounts,
    },
    domain::{
        channel::{AccountState, Channel, Provider},
        ids::ChannelAccountId,
    },
};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

/// The routes.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(resume))
}

/// All accounts.
#[derive(Serialize, ToSchema)]
pub struct Accounts {
    data: Vec<AccountView>,
}

/// An account at a provider, and how it is.
#[derive(Serialize, ToSchema)]
#[schema(as = ChannelAccount)]
pub struct AccountView {
    id: Uuid,
    #[schema(value_type = Provider)]
    provider: String,
    #[schema(value_type = Channel)]
    channel: String,
    name: String,
    /// The provider's id of it.
    external_id: String,
    #[schema(value_type = AccountState)]
    state: String,
    /// With which code it is down: its provider's, or `error_rate` (too many of its calls failed) or `secrets` (they are of no use).
    #[serde(skip_serializing_if = "Option::is_none")]
    down_code: Option<String>,
    /// What that means.
    #[serde(skip_serializing_if = "Option::is_none")]
    down_reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    down_at: Option<DateTime<Utc>>,
    /// When one message is let through to find out whether it is back.
    #[serde(skip_serializing_if = "Option::is_none")]
    probe_at: Option<DateTime<Utc>>,
    /// Whether its provider tells what becomes of a message that it took. If not, sent is the last that is heard of it.
    receipts: bool,
    /// How well customers take its messages, in the provider's word.
    #[serde(skip_serializing_if = "Option::is_none")]
    quality: Option<String>,
    /// What the provider last said that somebody should look at.
    #[serde(skip_serializing_if = "Option::is_none")]
    alert: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    alert_at: Option<DateTime<Utc>>,
    /// Messages a second; absent if it is not limited.
    #[serde(skip_serializing_if = "Option::is_none")]
    rate: Option<f64>,
    /// As lowered for now, because the provider refused messages as too many.
    #[serde(skip_serializing_if = "Option::is_none")]
    current_rate: Option<f64>,
}

impl From<Account> for AccountView {
    fn from(account: Account) -> Self {
        Self {
            id: account.id.0,
            receipts: account.provider.parse().is_ok_and(Provider::has_receipts),
            provider: account.provider,
            channel: account.channel,
            name: account.name,
            external_id: account.external_id,
            state: account.state,
            down_code: account.down_code,
            down_reason: account.down_reason,
            down_at: account.down_at,
            probe_at: account.probe_at,
            quality: account.quality,
            alert: account.alert,
            alert_at: account.alert_at,
            rate: account.rate,
            current_rate: account.current_rate,
        }
    }
}

/// Lists the channel accounts.
#[utoipa::path(
    get, path = "/channel-accounts", tag = "channel accounts", description = "Needs `accounts:read`.",
    params(("tenant" = String, Path, description = "The tenant's name in URLs")),
    responses(
        (status = OK, body = Accounts),
        (status = "default", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn list(State(app): State<App>, caller: Caller<AccountsRead>, params: Params) -> Result<View<Accounts>> {
    params.finish()?;
    let mut tx = caller.begin(&app).await?;
    let accounts = channel_accounts::list_of(&mut tx).await?;
    tx.commit().await?;
    Ok(View(Accounts { data: accounts.into_iter().map(AccountView::from).collect() }))
}

/// Brings an account back that is down, once what its provider complained about is mended; what waits for it is sent.
#[utoipa::path(
    post, path = "/channel-accounts/{id}/resume", tag = "channel accounts", description = "Needs `accounts:write`.",
    params(("tenant" = String, Path), ("id" = Uuid, Path)),
    responses(
        (status = NO_CONTENT),
        (status = "default", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn resume(
    State(app): State<App>,
    caller: Caller<AccountsWrite>,
    Id(id): Id<ChannelAccountId>,
) -> Result<StatusCode> {
    let mut tx = caller.begin(&app).await?;
    let before = accounts::resume_for(&mut tx, id, caller.actor()).await?;
    match before.as_deref() {
        None => return Err(Problem::not_found("channel account").into()),
        Some("disabled") => {
            let detail = "The account is disabled: an operator has done so, or its provider for good.";
            return Err(Problem::new(Kind::WrongState).detail(detail).into());
        }
        Some(_) => drop(tx.commit().await?),
    }
    Ok(StatusCode::NO_CONTENT)
}
