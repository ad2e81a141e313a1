//! `/api/{tenant}/contacts`: the people a tenant talks with.

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
    domain::{ids::ContactId, people::PhoneNumber},
};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

const MAX_NAME_CHARACTERS: usize = 200;

/// The routes.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(show))
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
    let name = name(new.name.as_deref())?;
    let mut tx = caller.begin(&app).await?;
    if let Some(answer) = key.answered(&mut tx, &digest).await? {
        return Ok(answer);
    }
    let region = db::tenants::default_region(&mut tx).await?;
    let phone = phone(&new.phone, region.as_deref())?;
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

fn name(name: Option<&str>) -> Result<Option<&str>, Problem> {
    let Some(name) = name else { return Ok(None) };
    let refuse = |message: &str| Err(Problem::new(Kind::Invalid).field("name", message));
    match name.trim() {
        name if name.contains('\0') => refuse("must not contain NUL"),
        name if name.chars().count() > MAX_NAME_CHARACTERS => refuse("must have at most 200 characters"),
        "" => Ok(None),
        name => Ok(Some(name)),
    }
}

fn phone(text: &str, region: Option<&str>) -> Result<PhoneNumber, Problem> {
    let refuse = |message: String| Problem::new(Kind::Invalid).field("phone", message);
    if text.contains('\0') || text.len() > 64 {
        return Err(refuse("is not a telephone number".to_owned()));
    }
    PhoneNumber::parse(text, region).map_err(|error| {
        let advice = match region {
            Some(region) => format!("; without a country code {region} is assumed"),
            None => "; write it with `+` and the country code".to_owned(),
        };
        refuse(format!("is {error}{advice}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_trimmed_and_bounded() {
        assert_eq!(name(Some("  Ada ")), Ok(Some("Ada")));
        assert_eq!(name(Some(" ")), Ok(None));
        assert!(name(Some(&"x".repeat(201))).is_err());
        assert!(name(Some("a\0b")).is_err());
    }

    #[test]
    fn a_number_is_refused_with_advice() {
        let problem = phone("0151 23456789", None).unwrap_err();
        assert!(problem.errors[0].message.contains("country code"), "{problem:?}");
        assert_eq!(phone("0151 23456789", Some("DE")).unwrap().as_str(), "+4915123456789");
        assert!(phone("1\0", Some("DE")).is_err());
    }
}
