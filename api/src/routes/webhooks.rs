//! `/api/{tenant}/webhooks`: the raw log: what providers told us of the tenant's accounts, as it came, and what became of it.

mod replays;

pub(crate) use replays::ReplayView;

use super::Page;
use crate::{
    auth::{Caller, WebhooksRead},
    error::{Kind, Problem, Result},
    extract::{Cursor, Id, Params},
    state::App,
    words::WebhookProvider,
};
use axum::{Json as View, extract::State};
use base64::{Engine, engine::general_purpose::STANDARD};
use chrono::{DateTime, Utc};
use serde::Serialize;
use shared::{
    db::{
        TenantTx, channel_accounts,
        inbound::log::Outcome,
        webhook_log::{self, Filter, Listed, Logged},
    },
    domain::{channel::Provider, ids::WebhookId},
};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

/// The routes.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(show)).merge(replays::router())
}

/// A webhook of the log.
#[derive(Serialize, ToSchema)]
#[schema(as = Webhook)]
pub struct WebhookView {
    id: Uuid,
    received_at: DateTime<Utc>,
    #[schema(value_type = Provider)]
    provider: String,
    /// For which account; of several accounts of the tenant, one.
    channel_account_id: Option<Uuid>,
    /// What became of it: `stored`, `duplicate` (all of it was known), `notice` (nothing about a message), `partly_bad` (some of it
    /// could not be read), `erased` (it told of somebody who was erased: its body is not kept).
    #[schema(value_type = Outcome)]
    outcome: String,
    /// More, for a person.
    detail: Option<String>,
    body_bytes: i32,
}

/// A webhook with its body.
#[derive(Serialize, ToSchema)]
#[schema(as = WebhookWithBody)]
pub struct WholeWebhookView {
    #[serde(flatten)]
    webhook: WebhookView,
    /// The query of the URL it was sent to, where the provider says something there.
    query: Option<String>,
    #[serde(flatten)]
    body: BodyView,
}

/// A body as it came.
#[derive(Serialize, ToSchema)]
#[schema(as = WebhookBody)]
pub struct BodyView {
    /// As text; what is not UTF-8 is replaced. Absent if what is kept cannot be read.
    body: Option<String>,
    /// Its bytes, where they are not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    body_base64: Option<String>,
}

impl From<Listed> for WebhookView {
    fn from(listed: Listed) -> Self {
        let Listed { id, received_at, provider, channel_account_id, outcome, detail, body_bytes } = listed;
        let channel_account_id = channel_account_id.map(|id| id.0);
        Self { id: id.0, received_at, provider, channel_account_id, outcome, detail, body_bytes }
    }
}

impl From<&Logged> for WholeWebhookView {
    fn from(logged: &Logged) -> Self {
        let body = BodyView::of(logged.body());
        Self { webhook: logged.listed.clone().into(), query: logged.query.clone(), body }
    }
}

impl BodyView {
    /// Of what is kept, if it can be read.
    pub(crate) fn of(body: Option<Vec<u8>>) -> Self {
        match body.map(String::from_utf8) {
            None => Self { body: None, body_base64: None },
            Some(Ok(text)) => Self { body: Some(text), body_base64: None },
            Some(Err(error)) => {
                let bytes = error.as_bytes();
                Self {
                    body: Some(String::from_utf8_lossy(bytes).into_owned()),
                    body_base64: Some(STANDARD.encode(bytes)),
                }
            }
        }
    }
}

/// Searches the log, the newest first.
#[utoipa::path(
    get, path = "/webhooks", tag = "webhooks", operation_id = "list_webhooks",
    description = "Needs `webhooks:read`. A page looks at 10,000 webhooks at most: with filters it may hold fewer than asked for, even none, and there may be more as long as it has `next`. Kept for 30 days unless the installation is set otherwise.",
    params(
        ("tenant" = String, Path, description = "The tenant's name in URLs"),
        ("since" = Option<DateTime<Utc>>, Query, description = "Received at this time or later"),
        ("until" = Option<DateTime<Utc>>, Query, description = "Received before this time"),
        ("provider" = inline(Option<WebhookProvider>), Query),
        ("outcome" = inline(Option<Outcome>), Query, description = "Only what became this"),
        ("account" = Option<Uuid>, Query, description = "Only for this channel account"),
        ("limit" = Option<i64>, Query, description = "1 to 200, default 50"),
        ("cursor" = Option<String>, Query, description = "`next` of the page before"),
    ),
    responses(
        (status = OK, body = Page<WebhookView>),
        (status = "default", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn list(
    State(app): State<App>,
    caller: Caller<WebhooksRead>,
    mut params: Params,
) -> Result<View<Page<WebhookView>>> {
    let limit = usize::try_from(params.limit()?).expect("a limit is 1 to 200");
    let filter = Filter {
        since: params.take("since")?,
        until: params.take("until")?,
        provider: params.take("provider")?,
        outcome: params.take("outcome")?,
        channel_account_id: params.take("account")?,
    };
    let before = params.take::<Cursor>("cursor")?.map(|cursor| (cursor.at, WebhookId(cursor.id)));
    params.finish()?;
    let mut tx = caller.begin(&app).await?;
    check_names(&mut tx, &filter, Kind::BadParameter).await?;
    let page = webhook_log::list(&mut tx, &filter, before, limit).await?;
    tx.commit().await?;
    let cursor = |(at, id): (DateTime<Utc>, WebhookId)| Cursor { at, id: id.0 }.to_string();
    Ok(View(Page { data: page.webhooks.into_iter().map(WebhookView::from).collect(), next: page.next.map(cursor) }))
}

/// That a filter names what there is: anything else finds nothing, and would look like an empty log.
async fn check_names(tx: &mut TenantTx, filter: &Filter, kind: Kind) -> Result<()> {
    if let Some(provider) = filter.provider.filter(|provider| !Provider::WITH_WEBHOOKS.contains(provider)) {
        let others: Vec<&str> = Provider::WITH_WEBHOOKS.iter().map(|provider| provider.as_str()).collect();
        let why = format!("{provider} sends no webhooks; there are {}", others.join(", "));
        return Err(Problem::new(kind).field("provider", why).into());
    }
    if let Some(id) = filter.channel_account_id
        && !channel_accounts::exists(tx, id).await?
    {
        return Err(Problem::new(kind).field("account", "this tenant has no such channel account").into());
    }
    Ok(())
}

/// Shows a webhook with its body.
#[utoipa::path(
    get, path = "/webhooks/{id}", tag = "webhooks", operation_id = "show_webhook",
    description = "Needs `webhooks:read`. Of a webhook that was for accounts of several tenants the body holds what is this tenant's.",
    params(("tenant" = String, Path), ("id" = Uuid, Path)),
    responses(
        (status = OK, body = WholeWebhookView),
        (status = "default", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn show(
    State(app): State<App>,
    caller: Caller<WebhooksRead>,
    Id(id): Id<WebhookId>,
) -> Result<View<WholeWebhookView>> {
    let mut tx = caller.begin(&app).await?;
    let found = webhook_log::find(&mut tx, id).await?;
    tx.commit().await?;
    let logged = found.ok_or_else(|| Problem::not_found("webhook"))?;
    Ok(View(WholeWebhookView::from(&logged)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_shown_as_text_and_exactly_where_it_is_none() {
        let shown = |body: Option<&[u8]>| serde_json::to_value(BodyView::of(body.map(<[u8]>::to_vec))).unwrap();
        assert_eq!(shown(Some(b"a\0b")), serde_json::json!({"body": "a\0b"}));
        assert_eq!(shown(Some(b"a\xff")), serde_json::json!({"body": "a\u{fffd}", "body_base64": "Yf8="}));
        assert_eq!(shown(None), serde_json::json!({"body": null}));
    }
}
