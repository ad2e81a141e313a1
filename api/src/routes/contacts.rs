//! `/api/{tenant}/contacts`: the people a tenant talks with.

pub(crate) mod import;

use super::Page;
use crate::{
    auth::{Caller, ContactsRead, ContactsWrite},
    error::{Kind, Problem, Result},
    extract::{Cursor, Id, Json, Params},
    idempotency::{Answer, IdempotencyKey},
    state::App,
};
use axum::{Json as View, extract::State, http::StatusCode, response::IntoResponse};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use shared::{
    db::{
        self,
        contacts::{Contact, Created},
    },
    domain::{
        ids::ContactId,
        people::{self, PhoneNumber},
    },
};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

/// The routes.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(show)).merge(import::router())
}

/// A person to be known.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewContact {
    /// At most 200 characters.
    name: Option<String>,
    /// As a person writes it. Without a country code the tenant's default region is assumed.
    #[schema(example = "+1 555 777 0142")]
    phone: String,
}

/// A person.
#[derive(Serialize, ToSchema)]
#[schema(as = Contact)]
pub struct ContactView {
    id: Uuid,
    name: Option<String>,
    /// The provider's user name.
    username: Option<String>,
    /// E.164.
    phone: Option<String>,
    /// The names providers have for the person: `{"kind", "value"}`.
    aliases: Value,
    created_at: DateTime<Utc>,
}

impl From<Contact> for ContactView {
    fn from(contact: Contact) -> Self {
        let Contact { id, name, username, phone, created_at, aliases } = contact;
        Self { id: id.0, name, username, phone, aliases, created_at }
    }
}

/// Lists contacts, the newest first.
#[utoipa::path(
    get, path = "/contacts", tag = "contacts", description = "Needs `contacts:read`.",
    params(
        ("tenant" = String, Path, description = "The tenant's name in URLs"),
        ("limit" = Option<i64>, Query, description = "1 to 200, default 50"),
        ("cursor" = Option<String>, Query, description = "`next` of the page before"),
    ),
    responses(
        (status = OK, body = Page<ContactView>),
        (status = "default", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn list(
    State(app): State<App>,
    caller: Caller<ContactsRead>,
    mut params: Params,
) -> Result<View<Page<ContactView>>> {
    let limit = params.limit()?;
    let before = params.take::<Cursor>("cursor")?.map(|cursor| ContactId(cursor.id));
    params.finish()?;
    let mut tx = caller.begin(&app).await?;
    let rows = db::contacts::list(&mut tx, before, limit + 1).await?;
    tx.commit().await?;
    let cursor = |c: &Contact| Cursor { at: c.created_at, id: c.id.0 }.to_string();
    Ok(View(Page::of(rows, limit, cursor, ContactView::from)))
}

/// Shows a contact.
#[utoipa::path(
    get, path = "/contacts/{id}", tag = "contacts", description = "Needs `contacts:read`.",
    params(("tenant" = String, Path), ("id" = Uuid, Path)),
    responses(
        (status = OK, body = ContactView),
        (status = "default", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn show(
    State(app): State<App>,
    caller: Caller<ContactsRead>,
    Id(id): Id<ContactId>,
) -> Result<View<ContactView>> {
    let mut tx = caller.begin(&app).await?;
    let contact = db::contacts::find(&mut tx, id).await?.ok_or_else(|| Problem::not_found("contact"))?;
    tx.commit().await?;
    Ok(View(contact.into()))
}

/// Creates a contact. A number names one person: if the tenant knows it already, the answer is 409 with the contact's id.
#[utoipa::path(
    post, path = "/contacts", tag = "contacts", description = "Needs `contacts:write`.",
    params(("tenant" = String, Path), ("Idempotency-Key" = Option<String>, Header)),
    request_body = NewContact,
    responses(
        (status = CREATED, body = ContactView),
        (status = "default", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn create(
    State(app): State<App>,
    caller: Caller<ContactsWrite>,
    key: IdempotencyKey,
    Json { value: new, digest }: Json<NewContact>,
) -> Result<impl IntoResponse> {
    let refuse = |field: &str, message: String| Problem::new(Kind::Invalid).field(field, message);
    let name = new.name.as_deref().map(people::typed_name).transpose();
    let name = name.map_err(|error| refuse("name", error.to_string()))?.flatten();
    let mut tx = caller.begin(&app).await?;
    if let Some(answer) = key.answered(&mut tx, &digest).await? {
        return Ok(answer);
    }
    let region = db::tenants::default_region(&mut tx).await?;
    let phone = PhoneNumber::typed(&new.phone, region.as_deref()).map_err(|message| refuse("phone", message))?;
    let id = match db::contacts::create(&mut tx, name, &phone, &new.phone).await? {
        Created::New(id) => id,
        Created::Exists(id) => {
            let detail = "This number is a contact's already.";
            let problem = Problem::new(Kind::Exists).detail(detail).field("phone", "belongs to another contact");
            return Err(problem.existing(id).into());
        }
    };
    let contact = db::contacts::find(&mut tx, id).await?.ok_or_else(|| Problem::new(Kind::Internal))?;
    let body = serde_json::to_value(ContactView::from(contact)).expect("plain fields are always JSON");
    let answer = Answer::new(StatusCode::CREATED, body);
    key.keep(&mut tx, &digest, &answer).await?;
    tx.commit().await?;
    Ok(answer)
}
