//! `/api/{tenant}/contacts`: the people a tenant talks with.

mod ending;
pub(crate) mod import;
mod suppressions;

use self::suppressions::SuppressionView;
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
        self, TenantTx,
        contacts::{Contact, Created},
    },
    domain::{
        ids::{ContactId, MediaId, TenantId},
        languages,
        media::Linked,
        people::{self, PhoneNumber},
    },
};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

/// The routes.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(show, change))
        .merge(import::router())
        .merge(ending::router())
        .merge(suppressions::router())
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
    /// The language in which the person is written to where a message leaves it open.
    #[schema(example = "pt_BR")]
    language: Option<String>,
}

/// What is to be changed of a person.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeContact {
    /// The language in which the person is written to where a message leaves it open; null: none is known.
    #[schema(example = "pt_BR")]
    #[serde(deserialize_with = "is_given")]
    language: Option<String>,
}

/// A field that must be there, if only as null.
fn is_given<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Option::deserialize(deserializer)
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
    /// The language in which the person is written to where a message leaves it open.
    language: Option<String>,
    /// The names providers have for the person: `{"kind", "value"}`.
    aliases: Value,
    /// Where a copy of their picture can be had, until `link_expires_at`: a path on this host. Needs no token.
    #[serde(skip_serializing_if = "Option::is_none")]
    avatar_url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    link_expires_at: Option<DateTime<Utc>>,
    /// What they do not want to be written to about, and what they want again: at most one of each channel and purpose. Absent where
    /// contacts are listed.
    #[serde(skip_serializing_if = "Option::is_none")]
    suppressions: Option<Vec<SuppressionView>>,
    created_at: DateTime<Utc>,
}

impl ContactView {
    fn of(contact: Contact, tenant_id: TenantId, app: &App) -> Self {
        let Contact { id, name, username, phone, language, created_at, aliases, has_avatar } = contact;
        let link = has_avatar.then(|| app.links.make(tenant_id, MediaId(id.0), Linked::Avatar, app.clock.now()));
        let (avatar_url, link_expires_at) = link.unzip();
        let suppressions = None;
        Self {
            id: id.0,
            name,
            username,
            phone,
            language,
            aliases,
            avatar_url,
            link_expires_at,
            suppressions,
            created_at,
        }
    }

    /// With what they do not want.
    async fn of_one(tx: &mut TenantTx, contact: Contact, app: &App) -> db::Result<Self> {
        let wishes = db::suppressions::list(tx, contact.id).await?;
        let suppressions = Some(wishes.into_iter().map(SuppressionView::from).collect());
        Ok(Self { suppressions, ..Self::of(contact, tx.tenant_id(), app) })
    }
}

/// Lists contacts, the newest first; with `name` by name, with `phone` who has that number.
#[utoipa::path(
    get, path = "/contacts", tag = "contacts", description = "Needs `contacts:read`.",
    params(
        ("tenant" = String, Path, description = "The tenant's name in URLs"),
        ("phone" = Option<String>, Query, description = "Only who has this number, written as for a new contact"),
        ("name" = Option<String>, Query, description = "Only whose name begins so, whatever the case; by name"),
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
    let phone = params.take::<String>("phone")?;
    let name = params.take::<String>("name")?;
    params.finish()?;
    let mut tx = caller.begin(&app).await?;
    let rows = match (phone, name) {
        (None, None) => db::contacts::list(&mut tx, before, limit + 1).await?,
        (None, Some(name)) => db::contacts::by_name(&mut tx, beginning(&name)?, before, limit + 1).await?,
        (Some(phone), None) => {
            let region = db::tenants::default_region(&mut tx).await?;
            let found = db::contacts::by_phone(&mut tx, &number(&phone, region.as_deref())?).await?;
            tx.commit().await?;
            let view = |contact| ContactView::of(contact, caller.tenant_id, &app);
            return Ok(View(Page { data: found.into_iter().map(view).collect(), next: None }));
        }
        (Some(_), Some(_)) => {
            let message = "cannot be asked for together with a name: a number is one person's";
            return Err(Problem::new(Kind::BadParameter).field("phone", message).into());
        }
    };
    tx.commit().await?;
    let cursor = |c: &Contact| Cursor { at: c.created_at, id: c.id.0 }.to_string();
    Ok(View(Page::of(rows, limit, cursor, |contact| ContactView::of(contact, caller.tenant_id, &app))))
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
    let view = ContactView::of_one(&mut tx, contact, &app).await?;
    tx.commit().await?;
    Ok(View(view))
}

/// Changes a contact.
#[utoipa::path(
    patch, path = "/contacts/{id}", tag = "contacts", description = "Needs `contacts:write`.",
    params(("tenant" = String, Path), ("id" = Uuid, Path)),
    request_body = ChangeContact,
    responses(
        (status = OK, body = ContactView),
        (status = "default", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn change(
    State(app): State<App>,
    caller: Caller<ContactsWrite>,
    Id(id): Id<ContactId>,
    Json { value: change, .. }: Json<ChangeContact>,
) -> Result<View<ContactView>> {
    let language = change.language.as_deref().map(languages::typed).transpose();
    let language = language.map_err(|error| Problem::new(Kind::Invalid).field("language", error.to_string()))?;
    let mut tx = caller.begin(&app).await?;
    if !db::contacts::set_language(&mut tx, id, language).await? {
        return Err(Problem::not_found("contact").into());
    }
    let contact = db::contacts::find(&mut tx, id).await?.ok_or_else(|| Problem::not_found("contact"))?;
    let view = ContactView::of_one(&mut tx, contact, &app).await?;
    tx.commit().await?;
    Ok(View(view))
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
    let language = new.language.as_deref().map(languages::typed).transpose();
    let language = language.map_err(|error| refuse("language", error.to_string()))?;
    let mut tx = caller.begin(&app).await?;
    if let Some(answer) = key.answered(&mut tx, &digest).await? {
        return Ok(answer);
    }
    let region = db::tenants::default_region(&mut tx).await?;
    let phone = PhoneNumber::typed(&new.phone, region.as_deref()).map_err(|message| refuse("phone", message))?;
    let id = match db::contacts::create(&mut tx, name, &phone, &new.phone, language).await? {
        Created::New(id) => id,
        Created::Exists(id) => {
            let detail = "This number is a contact's already.";
            let problem = Problem::new(Kind::Exists).detail(detail).field("phone", "belongs to another contact");
            return Err(problem.existing(id).into());
        }
    };
    let contact = db::contacts::find(&mut tx, id).await?.ok_or_else(|| Problem::new(Kind::Internal))?;
    let view = ContactView::of_one(&mut tx, contact, &app).await?;
    let body = serde_json::to_value(view).expect("plain fields are always JSON");
    let answer = Answer::new(StatusCode::CREATED, body);
    key.keep(&mut tx, &digest, &answer).await?;
    tx.commit().await?;
    Ok(answer)
}

fn beginning(name: &str) -> Result<&str, Problem> {
    let refuse = |message: String| Problem::new(Kind::BadParameter).field("name", message);
    let name = people::typed_name(name).map_err(|error| refuse(error.to_string()))?;
    name.ok_or_else(|| refuse("must not be empty".to_owned()))
}

/// A `+` that is not encoded comes as a space.
fn number(text: &str, region: Option<&str>) -> Result<PhoneNumber, Problem> {
    let text = text.strip_prefix(' ').map_or_else(|| text.to_owned(), |digits| format!("+{}", digits.trim_start()));
    PhoneNumber::typed(&text, region).map_err(|message| Problem::new(Kind::BadParameter).field("phone", message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_in_a_query_is_read_as_it_was_meant() {
        for (text, region) in [("+4915123456789", None), (" 4915123456789", None), ("0151 23456789", Some("DE"))] {
            assert_eq!(number(text, region).unwrap().as_str(), "+4915123456789", "{text:?}");
        }
        let refused = number("0151 23456789", None).unwrap_err();
        assert_eq!((refused.status, refused.errors[0].field.as_str()), (400, "phone"));
    }

    #[test]
    fn a_name_to_look_for_has_a_beginning() {
        assert_eq!(beginning(" Ada L"), Ok("Ada L"));
        for wrong in ["", " ", "a\0"] {
            assert_eq!(beginning(wrong).unwrap_err().errors[0].field, "name", "{wrong:?}");
        }
    }
}
