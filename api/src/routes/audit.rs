//! `/api/{tenant}/audit`: who changed what, when. It is added to by whatever makes a change, never from here.

use super::Page;
use crate::{
    auth::{AuditRead, Caller},
    error::{Problem, Result},
    extract::{Cursor, Params},
    state::App,
    words::AuditActor,
};
use axum::{Json as View, extract::State};
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use shared::db::{self, audit::Recorded};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

/// The routes.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list))
}

/// One change.
#[derive(Serialize, ToSchema)]
#[schema(as = AuditEntry)]
pub struct AuditView {
    id: Uuid,
    at: DateTime<Utc>,
    #[schema(value_type = AuditActor)]
    actor: &'static str,
    /// Which token of the API was used; absent of an operator's.
    #[serde(skip_serializing_if = "Option::is_none")]
    token_id: Option<Uuid>,
    /// What was done: `campaign.started`, `token.revoked` …
    action: String,
    /// To what: `campaign`, `channel_account`, `portfolio`, `replay`, `token`, `tenant`.
    target_kind: String,
    /// To which.
    target_id: Uuid,
    /// What was before and after, where that says something.
    details: Value,
}

impl From<Recorded> for AuditView {
    fn from(recorded: Recorded) -> Self {
        let Recorded { id, at, token_id, action, target_kind, target_id, details } = recorded;
        let actor = if token_id.is_some() { "token" } else { "operator" };
        Self { id, at, actor, token_id, action, target_kind, target_id, details }
    }
}

/// Lists changes, the newest first.
#[utoipa::path(
    get, path = "/audit", tag = "audit", description = "Needs `audit:read`. Kept for 25 months.",
    params(
        ("tenant" = String, Path, description = "The tenant's name in URLs"),
        ("target" = Option<Uuid>, Query, description = "Only changes to the thing with this id"),
        ("limit" = Option<i64>, Query, description = "1 to 200, default 50"),
        ("cursor" = Option<String>, Query, description = "`next` of the page before"),
    ),
    responses(
        (status = OK, body = Page<AuditView>),
        (status = "default", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn list(State(app): State<App>, caller: Caller<AuditRead>, mut params: Params) -> Result<View<Page<AuditView>>> {
    let limit = params.limit()?;
    let target = params.take::<Uuid>("target")?;
    let before = params.take::<Cursor>("cursor")?.map(|cursor| (cursor.at, cursor.id));
    params.finish()?;
    let mut tx = caller.begin(&app).await?;
    let rows = db::audit::list(&mut tx, target, before, limit + 1).await?;
    tx.commit().await?;
    let cursor = |row: &Recorded| Cursor { at: row.at, id: row.id }.to_string();
    Ok(View(Page::of(rows, limit, cursor, AuditView::from)))
}
