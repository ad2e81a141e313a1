//! `/api/{tenant}/events`: what has happened, for those who follow it.

use crate::{
    auth::{Caller, ConversationsRead},
    error::{self, Problem, Result},
    extract::{NotACursor, Params},
    state::App,
};
use axum::{Json as View, extract::State};
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use shared::{
    db::feed::{self, Feed, Filter, Happened, NotYet},
    domain::{feed::Kind, ids::ConversationId},
};
use std::{fmt, str::FromStr};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

/// The routes.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list))
}

/// Something that has happened.
#[derive(Serialize, ToSchema)]
#[schema(as = Event)]
pub struct EventView {
    id: Uuid,
    at: DateTime<Utc>,
    /// `conversation.window_closing`: from `details.window_expires_at` on only templates can be sent, unless the customer writes
    /// again. `conversation.window_closed`: it is so now. `conversation.window_opened`: the customer has written to a
    /// conversation whose window was closed. Of a new conversation it goes without saying.
    #[schema(example = "conversation.window_closing")]
    #[schema(value_type = Kind)]
    kind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    conversation_id: Option<Uuid>,
    /// `window_expires_at`.
    #[schema(value_type = Object)]
    details: Value,
}

impl From<Happened> for EventView {
    fn from(Happened { id, at, kind, conversation_id, details, .. }: Happened) -> Self {
        Self { id, at, kind, conversation_id, details }
    }
}

/// What has happened, in order.
#[derive(Serialize, ToSchema)]
pub struct Events {
    data: Vec<EventView>,
    /// Pass it as `cursor` to go on from here, now or later: nothing is missed and nothing comes twice.
    next: String,
    /// Whether there is more at once.
    more: bool,
}

/// How far somebody has followed.
struct Place(i64, Uuid);

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}.{}", self.0, self.1.simple())
    }
}

impl FromStr for Place {
    type Err = NotACursor;
    fn from_str(text: &str) -> Result<Self, NotACursor> {
        let (position, id) = text.split_once('.').ok_or(NotACursor)?;
        let position = i64::from_str_radix(position, 16).map_err(|_| NotACursor)?;
        Ok(Self(position, id.parse().map_err(|_| NotACursor)?))
    }
}

/// The name of a kind.
struct Named(Kind);

impl FromStr for Named {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Kind::from_name(text)
            .map(Named)
            .ok_or_else(|| format!("must be one of {}", Kind::ALL.map(Kind::as_str).join(", ")))
    }
}

/// Lists what has happened, the oldest first. What was written down while a long change was under way comes late, in its place.
#[utoipa::path(
    get, path = "/events", tag = "events", description = "Needs `conversations:read`. Kept for 30 days.",
    params(
        ("tenant" = String, Path, description = "The tenant's name in URLs"),
        ("kind" = inline(Option<Kind>), Query, description = "Only of this kind"),
        ("conversation_id" = Option<Uuid>, Query, description = "Only in this conversation"),
        ("since" = Option<DateTime<Utc>>, Query, description = "Only from this time on; who begins to follow passes now"),
        ("limit" = Option<i64>, Query, description = "1 to 200, default 50"),
        ("cursor" = Option<String>, Query, description = "`next` of the answer before"),
    ),
    responses(
        (status = OK, body = Events),
        (status = "default", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn list(State(app): State<App>, caller: Caller<ConversationsRead>, mut params: Params) -> Result<View<Events>> {
    let limit = params.limit()?;
    let filter = Filter {
        kind: params.take::<Named>("kind")?.map(|Named(kind)| kind),
        conversation_id: params.take::<Uuid>("conversation_id")?.map(ConversationId),
        since: params.take::<DateTime<Utc>>("since")?,
    };
    let after = params.take::<Place>("cursor")?.map(|Place(position, id)| (position, id));
    params.finish()?;
    let mut tx = caller.begin(&app).await?;
    let listed = feed::list(&mut tx, filter, after, limit).await?;
    tx.commit().await?;
    let Feed { events, next: (position, id), more } = listed.map_err(|NotYet| {
        let message = "is of another database, or of this one before it was restored: begin anew, with `since`";
        Problem::new(error::Kind::BadParameter).field("cursor", message)
    })?;
    let data = events.into_iter().map(EventView::from).collect();
    Ok(View(Events { data, next: Place(position, id).to_string(), more }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_leads_back_and_nonsense_is_none() {
        let id = Uuid::max();
        let Place(position, same) = Place(0x2f, id).to_string().parse().ok().unwrap();
        assert_eq!((position, same), (0x2f, id));
        for nonsense in ["", "2f", "zz.0", "2f.zz"] {
            assert!(nonsense.parse::<Place>().is_err(), "{nonsense}");
        }
    }
}
