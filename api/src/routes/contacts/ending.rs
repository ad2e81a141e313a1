//! `/api/{tenant}/contacts/{id}`: contacts who turn out to be one, and those who are to be erased.

use super::ContactView;
use crate::{
    auth::{Caller, ContactsWrite},
    error::{Kind, Problem, Result},
    extract::{Id, Json},
    state::App,
};
use axum::{Json as View, extract::State, http::StatusCode};
use serde::Deserialize;
use shared::{
    db::{self, merging::Merged},
    domain::ids::ContactId,
};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

/// Batches of webhooks may be at the same people; the next try waits for them.
const TRIES: usize = 3;

/// The routes.
pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(merge)).routes(routes!(erase))
}

/// Who is the same person.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Merge {
    /// All that this contact has becomes the other's, and its id answers with the other.
    #[schema(value_type = Uuid)]
    contact_id: ContactId,
}

/// Merges another contact into this one: names, conversations, wishes (the stricter wins) and places in campaigns. It cannot be
/// undone; doing it again changes nothing.
#[utoipa::path(
    post, path = "/contacts/{id}/merge", tag = "contacts", description = "Needs `contacts:write`.",
    params(("tenant" = String, Path), ("id" = Uuid, Path)),
    request_body = Merge,
    responses(
        (status = OK, body = ContactView),
        (status = "default", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn merge(
    State(app): State<App>,
    caller: Caller<ContactsWrite>,
    Id(id): Id<ContactId>,
    Json { value: Merge { contact_id: other }, .. }: Json<Merge>,
) -> Result<View<ContactView>> {
    let mut tries = 1;
    loop {
        match merge_once(&app, &caller, id, other).await {
            Err(error) if error.is_contention() && tries < TRIES => tries += 1,
            answer => return answer,
        }
    }
}

async fn merge_once(
    app: &App,
    caller: &Caller<ContactsWrite>,
    id: ContactId,
    other: ContactId,
) -> Result<View<ContactView>> {
    let mut tx = caller.begin(app).await?;
    let winner = match db::merging::merge(&mut tx, id, other, caller.actor()).await? {
        Merged::Into(winner) | Merged::Already(winner) => winner,
        Merged::NoSuchContact(unknown) if unknown == id => return Err(Problem::not_found("contact").into()),
        Merged::NoSuchContact(_) => {
            let message = "must be a contact of this tenant that was not merged into a third";
            return Err(Problem::new(Kind::Invalid).field("contact_id", message).into());
        }
        Merged::TooMuch => {
            let detail =
                "Both have open conversations with too many messages to be moved at once. Resolve one of them first.";
            let problem = Problem::new(Kind::WrongState).detail(detail);
            return Err(problem.field("contact_id", "has too many messages").into());
        }
    };
    let contact = db::contacts::find(&mut tx, winner).await?.ok_or_else(|| Problem::new(Kind::Internal))?;
    tx.commit().await?;
    Ok(View(ContactView::of(contact, caller.tenant_id, app)))
}

/// Erases a contact: words, files, names and addresses are gone, what has not been sent is cancelled; messages remain as empty rows
/// for what counts them. What was said before and comes late is not stored; who writes anew is a new contact. Files go within minutes.
#[utoipa::path(
    delete, path = "/contacts/{id}", tag = "contacts", description = "Needs `contacts:write`.",
    params(("tenant" = String, Path), ("id" = Uuid, Path)),
    responses(
        (status = NO_CONTENT),
        (status = "default", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn erase(State(app): State<App>, caller: Caller<ContactsWrite>, Id(id): Id<ContactId>) -> Result<StatusCode> {
    let mut tries = 1;
    loop {
        match erase_once(&app, &caller, id).await {
            Err(error) if error.is_contention() && tries < TRIES => tries += 1,
            answer => return answer,
        }
    }
}

async fn erase_once(app: &App, caller: &Caller<ContactsWrite>, id: ContactId) -> Result<StatusCode> {
    let mut tx = caller.begin(app).await?;
    if !db::erasing::erase(&mut tx, id, caller.actor()).await? {
        return Err(Problem::not_found("contact").into());
    }
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}
