//! `/api/{tenant}/limits`: what providers allow an account, a person and a portfolio, and how it stands.

use crate::{
    auth::{Caller, LimitsRead, LimitsWrite},
    error::{Error, Kind, Problem, Result},
    extract::{Id, Json, Params},
    state::App,
};
use axum::{
    Json as View,
    extract::{FromRequestParts, RawPathParams, State},
    http::{StatusCode, request::Parts},
};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use shared::{
    db::{
        self,
        limits::{Limit, Removed, Set},
    },
    domain::limits::{LimitChange, LimitValues, Scope},
};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

/// The routes.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(put, remove))
}

/// A limit to be set.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewLimit {
    /// Messages a second (one in six seconds is 0.1667), of text messages their segments. portfolio: people in any 24 hours.
    rate: f64,
    /// So many at once; as before unless given. Of an account that never had one it follows from the rate: as many as keep every
    /// second within it.
    burst: Option<i32>,
    /// What a message that is received takes of an account's limit: 1 where the provider counts both ways, else 0; as before, or
    /// as the provider is known for, unless given.
    inbound_cost: Option<f64>,
}

/// All limits.
#[derive(Serialize, ToSchema)]
pub struct Limits {
    data: Vec<LimitView>,
}

/// A limit, and how it stands.
#[derive(Serialize, ToSchema)]
#[schema(as = Limit)]
pub struct LimitView {
    /// account (what is sent a second), heavy (films and recordings a second), pair (messages a second to one person), portfolio (people
    /// in any 24 hours) or provider_account (what all accounts of a portfolio send a second).
    scope: Scope,
    /// The account (account, pair) or portfolio.
    id: Uuid,
    /// What that is called.
    name: String,
    /// As it was set.
    rate: f64,
    burst: Option<i32>,
    inbound_cost: f64,
    /// As lowered for now, because the provider refused messages as too many.
    current_rate: f64,
    /// What of it is kept free for messages yet to be received.
    reserved: f64,
    /// Nothing is sent before this: the provider asked for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    stopped_until: Option<DateTime<Utc>>,
    /// People that a portfolio has reached in the last 24 hours.
    #[serde(skip_serializing_if = "Option::is_none")]
    used: Option<i64>,
}

impl From<Limit> for LimitView {
    fn from(limit: Limit) -> Self {
        let Limit { scope, key, name, values, current_rate, reserved, stopped_until, used, .. } = limit;
        let LimitValues { rate, burst, inbound_cost } = values;
        let used = (scope == Scope::Portfolio).then_some(used);
        Self { scope, id: key, name, rate, burst, inbound_cost, current_rate, reserved, stopped_until, used }
    }
}

/// The scope in the path. What is none is a limit that nobody has.
struct InPath(Scope);

impl<S: Send + Sync> FromRequestParts<S> for InPath {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> std::result::Result<Self, Error> {
        let params = RawPathParams::from_request_parts(parts, state).await.ok();
        let scope = params.iter().flatten().find(|(name, _)| *name == "scope").and_then(|(_, text)| text.parse().ok());
        scope.map(InPath).ok_or_else(|| {
            Problem::new(Kind::NotFound).detail("There are limits of an account, a pair and a portfolio.").into()
        })
    }
}

/// Lists the limits.
#[utoipa::path(
    get, path = "/limits", tag = "limits", description = "Needs `limits:read`.",
    params(("tenant" = String, Path, description = "The tenant's name in URLs")),
    responses(
        (status = OK, body = Limits),
        (status = "default", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn list(State(app): State<App>, caller: Caller<LimitsRead>, params: Params) -> Result<View<Limits>> {
    params.finish()?;
    let mut tx = caller.begin(&app).await?;
    let limits = db::limits::list(&mut tx).await?;
    tx.commit().await?;
    Ok(View(Limits { data: limits.into_iter().map(LimitView::from).collect() }))
}

/// Sets a limit. It holds from the next message on; one that has been put off for its sake is tried again within seconds, at the
/// latest after a minute.
#[utoipa::path(
    put, path = "/limits/{scope}/{id}", tag = "limits", description = "Needs `limits:write`.",
    params(
        ("tenant" = String, Path),
        ("scope" = inline(Scope), Path),
        ("id" = Uuid, Path, description = "The account (account, heavy, pair) or the portfolio (portfolio, provider_account)"),
    ),
    request_body = NewLimit,
    responses(
        (status = OK, body = LimitView),
        (status = "default", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn put(
    State(app): State<App>,
    caller: Caller<LimitsWrite>,
    InPath(scope): InPath,
    Id(id): Id<Uuid>,
    Json { value: new, .. }: Json<NewLimit>,
) -> Result<View<LimitView>> {
    let NewLimit { rate, burst, inbound_cost } = new;
    let change = LimitChange { rate, burst, inbound_cost };
    let mut tx = caller.begin(&app).await?;
    match db::limits::set(&mut tx, scope, id, change, caller.actor()).await? {
        Set::Done => tx.commit().await?,
        Set::NoSuchThing => {
            let kind = if scope.is_of_portfolio() { "portfolio" } else { "channel account" };
            return Err(Problem::not_found(kind).into());
        }
        Set::Bad(bad) => return Err(Problem::new(Kind::Invalid).field(bad.field(), bad.to_string()).into()),
    };
    // Senders wait for the limit's row: it is let go before anything is counted.
    let mut tx = caller.begin(&app).await?;
    let limits = db::limits::list(&mut tx).await?;
    tx.commit().await?;
    let limit = limits.into_iter().find(|limit| (limit.scope, limit.key) == (scope, id));
    Ok(View(limit.map(LimitView::from).ok_or_else(|| Problem::not_found("limit"))?))
}

/// Removes a limit: nothing is held back any more for its sake. The rate of a gateway whose calls come one at a time stays (`wrong_state`).
#[utoipa::path(
    delete, path = "/limits/{scope}/{id}", tag = "limits", description = "Needs `limits:write`.",
    params(("tenant" = String, Path), ("scope" = inline(Scope), Path), ("id" = Uuid, Path)),
    responses(
        (status = NO_CONTENT),
        (status = "default", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn remove(
    State(app): State<App>,
    caller: Caller<LimitsWrite>,
    InPath(scope): InPath,
    Id(id): Id<Uuid>,
) -> Result<StatusCode> {
    let mut tx = caller.begin(&app).await?;
    match db::limits::remove(&mut tx, scope, id, caller.actor()).await? {
        Removed::Done => {}
        Removed::NoSuchLimit => return Err(Problem::not_found("limit").into()),
        Removed::OneAtATime => {
            let detail =
                "This gateway's calls come one at a time, which its rate keeps: it can be changed, not removed.";
            return Err(Problem::new(Kind::WrongState).detail(detail).into());
        }
    }
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}
