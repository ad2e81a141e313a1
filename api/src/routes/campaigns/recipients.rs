//! `GET /api/{tenant}/campaigns/{id}/recipients`: the people of a campaign, one by one.

use super::super::Page;
use crate::{
    auth::{Caller, CampaignsRead},
    error::{Kind, Problem, Result},
    extract::{Cursor, Id, Params},
    state::App,
};
use axum::{Json as View, extract::State};
use chrono::{DateTime, Utc};
use serde::Serialize;
use shared::{
    db::campaigns::recipients::{self, Recipient, Wanted},
    domain::{
        campaigns::RecipientState,
        ids::{CampaignId, ContactId},
    },
};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list))
}

/// A person of a campaign.
#[derive(Serialize, ToSchema)]
#[schema(as = CampaignRecipient)]
pub(super) struct RecipientView {
    contact_id: Uuid,
    name: Option<String>,
    /// Where the message went; of who was not written to the number, if there is one.
    address: Option<String>,
    #[schema(value_type = RecipientState)]
    state: String,
    /// The code of the last refusal, the provider's or ours.
    code: Option<String>,
    /// Why they were refused, in words; of who was skipped no_address, no_name, no_phone, opted_out or merged.
    reason: Option<String>,
    /// How often they were written to.
    attempts: i32,
    /// The message, once they are released.
    message_id: Option<Uuid>,
    released_at: Option<DateTime<Utc>>,
    sent_at: Option<DateTime<Utc>>,
    delivered_at: Option<DateTime<Utc>>,
    read_at: Option<DateTime<Utc>>,
    failed_at: Option<DateTime<Utc>>,
}

impl From<Recipient> for RecipientView {
    fn from(r: Recipient) -> Self {
        Self {
            contact_id: r.contact_id.0,
            name: r.name,
            address: r.address,
            state: r.state,
            code: r.code,
            reason: r.reason,
            attempts: r.attempts,
            message_id: r.message_id.map(|id| id.0),
            released_at: r.released_at,
            sent_at: r.sent_at,
            delivered_at: r.delivered_at,
            read_at: r.read_at,
            failed_at: r.failed_at,
        }
    }
}

/// Lists the people of a campaign, in the order in which they became contacts. With `state` or `code` a page looks at 10,000
/// people at most: it may hold fewer than asked for, even none, and there are more as long as it has `next`.
#[utoipa::path(
    get, path = "/campaigns/{id}/recipients", tag = "campaigns", operation_id = "list_recipients",
    description = "Needs `campaigns:read`. With `state` or `code` a page looks at 10,000 people at most: it may hold fewer than asked for, even none, and there are more as long as it has `next`.",
    params(
        ("tenant" = String, Path),
        ("id" = Uuid, Path),
        ("state" = inline(Option<RecipientState>), Query, description = "Only who stands here"),
        ("code" = Option<String>, Query, description = "Only whose message has this code: the provider's (`131026`) or ours (`window_closed`)"),
        ("limit" = Option<i64>, Query, description = "1 to 200, default 50"),
        ("cursor" = Option<String>, Query, description = "`next` of the page before"),
    ),
    responses(
        (status = OK, body = Page<RecipientView>),
        (status = "default", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn list(
    State(app): State<App>,
    caller: Caller<CampaignsRead>,
    Id(id): Id<CampaignId>,
    mut params: Params,
) -> Result<View<Page<RecipientView>>> {
    let limit = usize::try_from(params.limit()?).expect("a limit is 1 to 200");
    let after = params.take::<Cursor>("cursor")?.map(|cursor| ContactId(cursor.id));
    let wanted = Wanted { state: params.take::<RecipientState>("state")?, code: params.take("code")? };
    params.finish()?;
    if wanted.code.as_deref().is_some_and(|code| code.contains('\0')) {
        return Err(Problem::new(Kind::BadParameter).field("code", "must not contain NUL").into());
    }
    let mut tx = caller.begin(&app).await?;
    let found = recipients::list(&mut tx, id, &wanted, after, limit).await?;
    let found = found.ok_or_else(|| Problem::not_found("campaign"))?;
    tx.commit().await?;
    // Where looking ends is a person, not a time.
    let cursor = |id: ContactId| Cursor { at: DateTime::UNIX_EPOCH, id: id.0 }.to_string();
    let data = found.recipients.into_iter().map(RecipientView::from).collect();
    Ok(View(Page { data, next: found.next.map(cursor) }))
}
