//! `/api/{tenant}/templates`: providers' templates, as they were last fetched, and a tenant's own.
//!
//! No provider is called here: what is to be made, deleted or fetched there is written down with the job that does it.

use super::{Page, messages};
use crate::{
    auth::{Caller, TemplatesRead, TemplatesWrite},
    error::{Kind, Problem, Result},
    extract::{Cursor, Id, Json, OrEmpty, Params},
    idempotency::{Answer, IdempotencyKey},
    state::App,
    words::{LocalCategory, TemplateKind},
};
use axum::{Json as View, extract::State, http::StatusCode, response::IntoResponse};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use shared::{
    db::{
        self, TenantTx,
        templates::{
            Filter, Reader, Shown,
            local::{self, Changed},
            making::{self, Asked, Proposed},
            sync,
        },
    },
    domain::{
        channel::Provider,
        content,
        ids::{ChannelAccountId, ContactId, FileId, TemplateId},
        languages,
        local_templates::{self, CATEGORIES, MAX_FILES},
        templates::{filled, placeholders},
    },
    providers::templates::{Form, Made, NewTemplate, has_templates},
};
use std::collections::BTreeMap;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

const MAX_NAME_CHARACTERS: usize = 200;
/// The longest text that any channel takes.
const MAX_BODY_CHARACTERS: usize = 4096;

/// The routes.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(sync_now))
        .routes(routes!(show, change, remove))
        .routes(routes!(preview))
}

/// A template.
#[derive(Serialize, ToSchema)]
#[schema(as = Template)]
pub struct TemplateView {
    id: Uuid,
    #[schema(value_type = TemplateKind)]
    kind: String,
    /// Of a provider's: the account by which it is sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    channel_account_id: Option<Uuid>,
    name: String,
    language: String,
    /// The provider's word in upper case; APPROVED can be sent at any time. A word of ours while it is made (QUEUED, CALLING), when that came
    /// to nothing (REFUSED), and while it is deleted (DELETING) or if that came to nothing (NOT_DELETED). Of the tenant's own ACTIVE.
    status: String,
    /// Why, in the provider's words.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// MARKETING, UTILITY or AUTHENTICATION; of the tenant's own greeting, follow_up, reminder, promotional or custom.
    category: String,
    /// The words with their variables.
    body: String,
    /// The body's variables, in the order in which they stand.
    variables: Vec<String>,
    /// All that each sending has to give, as far as that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    needs: Option<Value>,
    /// The provider's id of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    provider_id: Option<String>,
    /// As the provider describes it: WhatsApp's components, Twilio's types.
    #[serde(skip_serializing_if = "Option::is_none")]
    components: Option<Value>,
    /// Why it could not be made or deleted.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<TemplateProblem>)]
    problem: Option<Value>,
    /// The uploaded files that go with the words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    files: Vec<Uuid>,
    /// How well people take it, in the provider's word.
    #[serde(skip_serializing_if = "Option::is_none")]
    quality: Option<String>,
    /// For how many messages it was accepted, whatever became of them.
    uses: i64,
    /// The same in the last 30 days.
    uses_in_30_days: i64,
    /// When it was last fetched, or changed.
    updated_at: DateTime<Utc>,
    created_at: DateTime<Utc>,
}

/// Why a provider would not do what was asked.
#[derive(Serialize, ToSchema)]
#[allow(dead_code, reason = "only described: it is kept as it is shown")]
pub struct TemplateProblem {
    /// The provider's code; `away`: it did not answer; `unknown`: nobody knows what became of it.
    code: String,
    /// The field of the request that it is about, if the provider says so.
    field: Option<String>,
    /// The provider's words.
    message: String,
}

impl From<Shown> for TemplateView {
    fn from(t: Shown) -> Self {
        let of_body: Vec<String> = match t.kind.as_str() {
            "local" => local_templates::variables(&t.body).into_iter().map(str::to_owned).collect(),
            _ => placeholders(&t.body).into_iter().map(str::to_owned).collect(),
        };
        let needs = t.needs.map(|needs| serde_json::to_value(needs.0).expect("plain fields are always JSON"));
        Self {
            id: t.id.0,
            kind: t.kind,
            channel_account_id: t.channel_account_id,
            name: t.name,
            language: t.language,
            status: t.status,
            reason: t.reason,
            category: t.category,
            body: t.body,
            variables: of_body,
            needs,
            provider_id: t.provider_id,
            components: t.components,
            problem: t.problem,
            files: t.files,
            quality: t.quality,
            uses: t.uses,
            uses_in_30_days: t.uses_lately,
            updated_at: t.synced_at,
            created_at: t.created_at,
        }
    }
}

/// A template to be: with an account made at its provider, without the tenant's own.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateTemplate {
    /// At which account's provider; absent: the tenant's own.
    #[schema(value_type = Option<Uuid>)]
    channel_account_id: Option<ChannelAccountId>,
    /// A provider's: lower-case letters, digits and underscores. The tenant's own: 1 to 200 characters.
    name: String,
    /// The language's code.
    #[schema(example = "en_US")]
    language: String,
    /// A provider's: MARKETING, UTILITY or AUTHENTICATION. The tenant's own: greeting, follow_up, reminder, promotional or custom.
    category: String,
    /// The words: a provider's with `{{1}}`, `{{2}}` … or `{{name}}`, the tenant's own with `{{name}}` or `{name}`.
    body: Option<String>,
    /// A provider's: what stands for each variable of the body when the provider looks at it.
    #[serde(default)]
    examples: BTreeMap<String, String>,
    /// WhatsApp: the words below the body.
    footer: Option<String>,
    /// A provider's, instead of the body: in the provider's own form, WhatsApp's `components` or Twilio's `types`.
    components: Option<Value>,
    /// The tenant's own: the uploaded files that go with the words, at most 10.
    #[serde(default)]
    #[schema(value_type = Vec<Uuid>)]
    files: Vec<FileId>,
}

/// What is to be changed of a template of the tenant's own; what is absent stays.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeTemplate {
    name: Option<String>,
    #[schema(value_type = Option<LocalCategory>)]
    category: Option<String>,
    body: Option<String>,
    /// All files that go with the words.
    #[schema(value_type = Option<Vec<Uuid>>)]
    files: Option<Vec<FileId>>,
}

/// Whose templates are to be fetched.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SyncTemplates {
    /// Only this account's; absent: those of all accounts whose providers have templates.
    #[schema(value_type = Option<Uuid>)]
    channel_account_id: Option<ChannelAccountId>,
}

/// Whose templates are being fetched.
#[derive(Serialize, ToSchema)]
pub struct Syncing {
    channel_account_ids: Vec<Uuid>,
}

/// The values of one sending.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PreviewTemplate {
    /// Who would read it: fills in the name and the number of the tenant's own.
    #[schema(value_type = Option<Uuid>)]
    contact_id: Option<ContactId>,
    /// A provider's: values for the numbered variables.
    #[serde(default)]
    variables: Vec<String>,
    /// Values by name.
    #[serde(default)]
    named_variables: BTreeMap<String, String>,
}

/// What somebody would read.
#[derive(Serialize, ToSchema)]
pub struct TemplatePreview {
    language: String,
    /// The words; a variable without a value as it is written.
    text: String,
    /// What is missing or too much, and what else keeps it from being sent.
    problems: Vec<PreviewProblem>,
}

impl TemplatePreview {
    /// The words.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// What is wrong: field and sentence.
    pub(crate) fn problems(&self) -> impl Iterator<Item = (&str, &str)> {
        self.problems.iter().map(|problem| (problem.field.as_str(), problem.message.as_str()))
    }
}

/// One thing that is wrong with a sending.
#[derive(Serialize, ToSchema)]
pub struct PreviewProblem {
    field: String,
    message: String,
}

/// Lists templates, the newest first.
#[utoipa::path(
    get, path = "/templates", tag = "templates", description = "Needs `templates:read`.",
    params(
        ("tenant" = String, Path, description = "The tenant's name in URLs"),
        ("channel_account_id" = Option<Uuid>, Query, description = "Only of this account"),
        ("kind" = inline(Option<TemplateKind>), Query),
        ("status" = Option<String>, Query, description = "APPROVED, PENDING …"),
        ("category" = Option<String>, Query, description = "MARKETING, greeting …"),
        ("name" = Option<String>, Query, description = "Only of exactly this name"),
        ("language" = Option<String>, Query, description = "Only in exactly this language"),
        ("limit" = Option<i64>, Query, description = "1 to 200, default 50"),
        ("cursor" = Option<String>, Query, description = "`next` of the page before"),
    ),
    responses(
        (status = OK, body = Page<TemplateView>),
        (status = "default", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn list(
    State(app): State<App>,
    caller: Caller<TemplatesRead>,
    mut params: Params,
) -> Result<View<Page<TemplateView>>> {
    let limit = params.limit()?;
    let before = params.take::<Cursor>("cursor")?.map(|cursor| (cursor.at, cursor.id));
    let filter = Filter {
        id: None,
        channel_account_id: params.take("channel_account_id")?,
        kind: params.take("kind")?,
        status: params.take("status")?,
        category: params.take("category")?,
        name: params.take("name")?,
        language: params.take("language")?,
    };
    params.finish()?;
    if filter.kind.as_deref().is_some_and(|kind| !["provider", "local"].contains(&kind)) {
        return Err(Problem::new(Kind::BadParameter).field("kind", "must be provider or local").into());
    }
    let mut tx = caller.begin(&app).await?;
    let rows = db::templates::list(&mut tx, &filter, before, limit + 1).await?;
    tx.commit().await?;
    let cursor = |t: &Shown| Cursor { at: t.created_at, id: t.id.0 }.to_string();
    Ok(View(Page::of(rows, limit, cursor, TemplateView::from)))
}

/// Shows a template.
#[utoipa::path(
    get, path = "/templates/{id}", tag = "templates", description = "Needs `templates:read`.",
    params(("tenant" = String, Path), ("id" = Uuid, Path)),
    responses(
        (status = OK, body = TemplateView),
        (status = "default", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn show(
    State(app): State<App>,
    caller: Caller<TemplatesRead>,
    Id(id): Id<TemplateId>,
) -> Result<View<TemplateView>> {
    let mut tx = caller.begin(&app).await?;
    let template = find(&mut tx, id).await?;
    tx.commit().await?;
    Ok(View(template.into()))
}

/// Creates a template. The tenant's own is there at once (201). One at a provider is made by a job (202): what can be seen to be wrong is
/// refused here, what the provider says is found in the template's status and problem.
#[utoipa::path(
    post, path = "/templates", tag = "templates", description = "Needs `templates:write`.",
    params(
        ("tenant" = String, Path),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key and request again get the same answer and make nothing"),
    ),
    request_body = CreateTemplate,
    responses(
        (status = CREATED, body = TemplateView),
        (status = ACCEPTED, body = TemplateView),
        (status = "default", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn create(
    State(app): State<App>,
    caller: Caller<TemplatesWrite>,
    key: IdempotencyKey,
    Json { value: new, digest }: Json<CreateTemplate>,
) -> Result<impl IntoResponse> {
    let mut tx = caller.begin(&app).await?;
    if let Some(answer) = key.answered(&mut tx, &digest).await? {
        return Ok(answer);
    }
    let (status, id) = match new.channel_account_id {
        None => (StatusCode::CREATED, create_own(&mut tx, &caller, &new).await?),
        Some(account) => (StatusCode::ACCEPTED, propose(&mut tx, &caller, account, new).await?),
    };
    let view = TemplateView::from(find(&mut tx, id).await?);
    let answer = Answer::new(status, serde_json::to_value(view).expect("plain fields are always JSON"));
    key.keep(&mut tx, &digest, &answer).await?;
    let due = tx.commit().await?;
    app.relay.publish(caller.placement.clone(), due).await;
    Ok(answer)
}

/// Changes a template of the tenant's own. Messages that were accepted before stay as they are.
#[utoipa::path(
    patch, path = "/templates/{id}", tag = "templates", description = "Needs `templates:write`.",
    params(("tenant" = String, Path), ("id" = Uuid, Path)),
    request_body = ChangeTemplate,
    responses(
        (status = OK, body = TemplateView),
        (status = "default", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn change(
    State(app): State<App>,
    caller: Caller<TemplatesWrite>,
    Id(id): Id<TemplateId>,
    Json { value: new, .. }: Json<ChangeTemplate>,
) -> Result<View<TemplateView>> {
    let ChangeTemplate { name, category, body, files } = new;
    let mut tx = caller.begin(&app).await?;
    let before = find(&mut tx, id).await?;
    if before.kind != "local" {
        let detail = "A provider's template is not changed from here: delete it and make it anew.";
        return Err(Problem::new(Kind::WrongState).detail(detail).into());
    }
    let name = name.as_deref().map(checked_name).transpose()?;
    if let Some(category) = &category {
        check_category(category)?;
    }
    let all_files = files.clone().unwrap_or_else(|| before.files.iter().map(|id| FileId(*id)).collect());
    check_words(&mut tx, body.as_deref().unwrap_or(&before.body), &all_files).await?;
    let change = local::Change { name, category: category.as_deref(), body: body.as_deref(), files: files.as_deref() };
    match local::change(&mut tx, id, &change, caller.actor()).await? {
        Changed::Done => {}
        Changed::NoSuchThing => return Err(Problem::not_found("template").into()),
        Changed::NameTaken => return Err(taken().into()),
    }
    let template = find(&mut tx, id).await?;
    tx.commit().await?;
    Ok(View(template.into()))
}

/// Deletes a template. The tenant's own is gone at once (204). A provider's is deleted there by a job, in this language (202); should the
/// provider not do it, its status and problem say so.
#[utoipa::path(
    delete, path = "/templates/{id}", tag = "templates", description = "Needs `templates:write`.",
    params(("tenant" = String, Path), ("id" = Uuid, Path)),
    responses(
        (status = NO_CONTENT),
        (status = ACCEPTED, body = TemplateView),
        (status = "default", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn remove(
    State(app): State<App>,
    caller: Caller<TemplatesWrite>,
    Id(id): Id<TemplateId>,
) -> Result<impl IntoResponse> {
    let mut tx = caller.begin(&app).await?;
    if local::remove(&mut tx, id, caller.actor()).await? {
        tx.commit().await?;
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    match making::ask_to_delete(&mut tx, id, caller.actor()).await? {
        Asked::Queued => {}
        Asked::Gone => {
            tx.commit().await?;
            return Ok(StatusCode::NO_CONTENT.into_response());
        }
        Asked::Making => {
            let detail = "The template is being made right now.";
            return Err(Problem::new(Kind::WrongState).detail(detail).into());
        }
        Asked::NoSuchThing => return Err(Problem::not_found("template").into()),
    }
    let view = TemplateView::from(find(&mut tx, id).await?);
    let due = tx.commit().await?;
    app.relay.publish(caller.placement.clone(), due).await;
    Ok((StatusCode::ACCEPTED, View(view)).into_response())
}

/// Has templates fetched from their providers. Accounts that share them at their provider are fetched together.
#[utoipa::path(
    post, path = "/templates/sync", tag = "templates",
    description = "Needs `templates:write`. Who asks again within ten seconds is answered by the first.",
    params(("tenant" = String, Path)),
    request_body = SyncTemplates,
    responses(
        (status = ACCEPTED, body = Syncing),
        (status = "default", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn sync_now(
    State(app): State<App>,
    caller: Caller<TemplatesWrite>,
    OrEmpty(Json { value, .. }): OrEmpty<SyncTemplates>,
) -> Result<impl IntoResponse> {
    let mut tx = caller.begin(&app).await?;
    let asked = sync::ask(&mut tx, value.channel_account_id).await?;
    if asked.is_empty() && value.channel_account_id.is_some() {
        let message =
            "must be an account of this tenant whose provider's templates can be fetched: of WhatsApp or Twilio";
        return Err(Problem::not_found("channel account").field("channel_account_id", message).into());
    }
    let due = tx.commit().await?;
    app.relay.publish(caller.placement.clone(), due).await;
    let syncing = Syncing { channel_account_ids: asked.into_iter().map(|id| id.0).collect() };
    Ok((StatusCode::ACCEPTED, View(syncing)))
}

/// Shows what somebody would read, and what is wrong with such a sending. Nothing is sent.
#[utoipa::path(
    post, path = "/templates/{id}/preview", tag = "templates", description = "Needs `templates:read`.",
    params(("tenant" = String, Path), ("id" = Uuid, Path)),
    request_body = PreviewTemplate,
    responses(
        (status = OK, body = TemplatePreview),
        (status = "default", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn preview(
    State(app): State<App>,
    caller: Caller<TemplatesRead>,
    Id(id): Id<TemplateId>,
    OrEmpty(Json { value, .. }): OrEmpty<PreviewTemplate>,
) -> Result<View<TemplatePreview>> {
    let mut tx = caller.begin(&app).await?;
    let template = find(&mut tx, id).await?;
    let reader = match value.contact_id {
        None => Reader::default(),
        Some(contact) => {
            if db::contacts::find(&mut tx, contact).await?.is_none() {
                return Err(Problem::not_found("contact")
                    .field("contact_id", "must be a contact of this tenant")
                    .into());
            }
            db::templates::reader(&mut tx, Some(contact)).await?
        }
    };
    tx.commit().await?;
    let PreviewTemplate { variables, named_variables, .. } = value;
    let given = content::Template { variables, named_variables, ..content::Template::default() };
    Ok(View(previewed(template, given, &reader)))
}

/// What somebody reads of a template with these values.
pub(crate) fn previewed(template: Shown, mut given: content::Template, reader: &Reader) -> TemplatePreview {
    let problem = |(field, message): (String, String)| PreviewProblem { field, message };
    if template.kind == "local" {
        for (name, value) in [("name", &reader.name), ("phone", &reader.phone)] {
            if local_templates::variables(&template.body).contains(name)
                && let Some(value) = value
            {
                given.named_variables.entry(name.to_owned()).or_insert_with(|| value.clone());
            }
        }
        let (text, problems) = match local_templates::fill(&template.body, &given.named_variables) {
            Ok(text) => (text, Vec::new()),
            Err(lacks) => (local_templates::fill_known(&template.body, &given.named_variables), lacks),
        };
        let problems = problems.into_iter().map(problem).collect();
        return TemplatePreview { language: template.language, text, problems };
    }
    let part = |kind: &str| {
        let parts = template.components.as_ref().and_then(Value::as_array).into_iter().flatten();
        let mut texts = parts.filter(|part| part["type"].as_str().is_some_and(|word| word.eq_ignore_ascii_case(kind)));
        texts.find_map(|part| part["text"].as_str().map(str::to_owned))
    };
    let texts = [part("HEADER"), Some(template.body.clone()), part("FOOTER")];
    let texts: Vec<String> = texts.into_iter().flatten().map(|text| filled(&text, &given)).collect();
    let mut problems = Vec::new();
    if template.status != "APPROVED" {
        problems.push((
            "name".to_owned(),
            format!("is {}, and can be sent at any time only when APPROVED", template.status),
        ));
    }
    if let Some(needs) = &template.needs {
        if let Some(why) = &needs.0.beyond_us {
            problems.push(("name".to_owned(), format!("cannot be sent from here: {why}")));
        }
        problems.extend(needs.0.lacks(&given));
    }
    let problems = problems.into_iter().map(problem).collect();
    TemplatePreview { language: template.language, text: texts.join("\n"), problems }
}

async fn find(tx: &mut TenantTx, id: TemplateId) -> Result<Shown> {
    Ok(db::templates::show(tx, id).await?.ok_or_else(|| Problem::not_found("template"))?)
}

async fn create_own(tx: &mut TenantTx, caller: &Caller<TemplatesWrite>, new: &CreateTemplate) -> Result<TemplateId> {
    let mut strange = Problem::new(Kind::Invalid);
    for (field, is_there) in [
        ("examples", !new.examples.is_empty()),
        ("footer", new.footer.is_some()),
        ("components", new.components.is_some()),
    ] {
        if is_there {
            strange = strange.field(field, "must be missing: only a provider's template has it");
        }
    }
    if !strange.errors.is_empty() {
        return Err(strange.into());
    }
    let name = checked_name(&new.name)?;
    let language = checked_language(&new.language)?;
    check_category(&new.category)?;
    let body = new.body.as_deref().unwrap_or_default();
    check_words(tx, body, &new.files).await?;
    let new = local::NewLocal { name, language, category: &new.category, body, files: &new.files };
    Ok(local::create(tx, &new, caller.actor()).await?.ok_or_else(taken)?)
}

async fn propose(
    tx: &mut TenantTx,
    caller: &Caller<TemplatesWrite>,
    account: ChannelAccountId,
    new: CreateTemplate,
) -> Result<TemplateId> {
    let found = db::channel_accounts::sender(tx, account).await?.ok_or_else(|| {
        let message = "must be a channel account of this tenant";
        Problem::not_found("channel account").field("channel_account_id", message)
    })?;
    let provider = found.provider.parse::<Provider>().ok().filter(|provider| has_templates(*provider));
    let Some(provider) = provider else {
        let message = "must be an account of WhatsApp or Twilio: nowhere else are templates made";
        return Err(Problem::new(Kind::Invalid).field("channel_account_id", message).into());
    };
    if !new.files.is_empty() {
        let message = "must be missing: only a template of the tenant's own has them";
        return Err(Problem::new(Kind::Invalid).field("files", message).into());
    }
    let new = wanted(new)?;
    new.check(provider).map_err(Problem::invalid)?;
    // As it will be listed: what it needs follows from what it says.
    let made = Made { provider_id: String::new(), status: "QUEUED".into(), category: None };
    let template = new.described(provider, &made);
    let request = serde_json::to_value(&new).expect("plain fields are always JSON");
    let proposed = Proposed { account, template: &template, request: &request };
    Ok(making::propose(tx, &proposed, caller.actor()).await?.ok_or_else(taken)?)
}

/// What the provider is to be told.
fn wanted(new: CreateTemplate) -> Result<NewTemplate, Problem> {
    let CreateTemplate { name, language, category, body, examples, footer, components, .. } = new;
    let (form, is_named) = match (body, components) {
        (Some(body), None) => (Form::Words { body, examples, footer }, false),
        (None, Some(components)) => {
            for (field, is_there) in [("examples", !examples.is_empty()), ("footer", footer.is_some())] {
                if is_there {
                    return Err(Problem::new(Kind::Invalid).field(field, "must be missing beside `components`"));
                }
            }
            let words = components.to_string();
            let is_named = placeholders(&words).iter().any(|name| name.parse::<u32>().is_err());
            (Form::Raw(components), is_named)
        }
        (Some(_), Some(_)) => {
            return Err(Problem::new(Kind::Invalid).field("components", "must be missing beside `body`"));
        }
        (None, None) => return Err(Problem::new(Kind::Invalid).field("body", "is needed, or `components`")),
    };
    Ok(NewTemplate { name, language, category, form, is_named })
}

fn taken() -> Problem {
    Problem::new(Kind::Exists).field("name", "is that of another template in this language")
}

pub(crate) fn checked_name(name: &str) -> Result<&str, Problem> {
    let refuse = |message: &str| Err(Problem::new(Kind::Invalid).field("name", message));
    match name.trim() {
        "" => refuse("must not be empty"),
        name if name.contains('\0') => refuse("must not contain NUL"),
        name if name.chars().count() > MAX_NAME_CHARACTERS => refuse("must have at most 200 characters"),
        name => Ok(name),
    }
}

fn checked_language(language: &str) -> Result<&str, Problem> {
    languages::typed(language).map_err(|error| Problem::new(Kind::Invalid).field("language", error.to_string()))
}

fn check_category(category: &str) -> Result<(), Problem> {
    if CATEGORIES.contains(&category) {
        return Ok(());
    }
    Err(Problem::new(Kind::Invalid).field("category", format!("must be one of {}", CATEGORIES.join(", "))))
}

/// Words or files, and files that are there.
async fn check_words(tx: &mut TenantTx, body: &str, files: &[FileId]) -> Result<()> {
    let refuse = |field: &str, message: &str| Problem::new(Kind::Invalid).field(field, message);
    if body.trim().is_empty() && files.is_empty() {
        return Err(refuse("body", "must not be empty where there are no files").into());
    }
    if body.chars().count() > MAX_BODY_CHARACTERS {
        return Err(refuse("body", "must have at most 4096 characters").into());
    }
    if body.contains('\0') {
        return Err(refuse("body", "must not contain NUL").into());
    }
    if files.len() > MAX_FILES {
        return Err(refuse("files", "must be at most 10").into());
    }
    match messages::files(tx, files).await? {
        Ok(typed) if !body.trim().is_empty() && typed.len() == 1 && typed[0].1.starts_with("audio/") => {
            Err(refuse("files", "must not be a recording beside words: no channel carries both as one message").into())
        }
        Ok(_) => Ok(()),
        Err(missing) => {
            let at = files.iter().position(|id| *id == missing).unwrap_or_default();
            Err(refuse(&format!("files[{at}]"), "must be the id of an uploaded file").into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn shown(kind: &str, body: &str) -> Shown {
        Shown {
            id: TemplateId::new(),
            kind: kind.into(),
            channel_account_id: None,
            name: "reminder".into(),
            language: "en".into(),
            status: "APPROVED".into(),
            category: "UTILITY".into(),
            body: body.into(),
            variables: 1,
            needs: None,
            provider_id: None,
            components: None,
            problem: None,
            files: Vec::new(),
            quality: None,
            reason: None,
            synced_at: DateTime::UNIX_EPOCH,
            created_at: DateTime::UNIX_EPOCH,
            uses: 0,
            uses_lately: 0,
        }
    }

    fn fields(preview: &TemplatePreview) -> Vec<&str> {
        preview.problems.iter().map(|problem| problem.field.as_str()).collect()
    }

    #[test]
    fn a_preview_shows_what_is_read_and_what_is_missing() {
        let reader = Reader { name: Some("Ada".into()), ..Reader::default() };
        let own = previewed(shown("local", "Hi {name}, {{slot}}"), content::Template::default(), &reader);
        assert_eq!((own.text.as_str(), fields(&own)), ("Hi Ada, {{slot}}", vec!["named_variables.slot"]));
        let mut template = shown("provider", "Hi {{1}}.");
        template.components =
            Some(json!([{"type": "HEADER", "format": "TEXT", "text": "Hello"}, {"type": "footer", "text": "Bye"}]));
        template.needs = serde_json::from_value(json!({"variables": 1})).unwrap();
        let given = |values: &[&str]| content::Template {
            variables: values.iter().map(|value| (*value).to_owned()).collect(),
            ..content::Template::default()
        };
        let whole = previewed(template.clone(), given(&["Ada"]), &reader);
        assert_eq!((whole.text.as_str(), fields(&whole)), ("Hello\nHi Ada.\nBye", vec![]));
        template.status = "PAUSED".into();
        let lacking = previewed(template, given(&[]), &reader);
        assert_eq!((lacking.text.as_str(), fields(&lacking)), ("Hello\nHi {{1}}.\nBye", vec!["name", "variables[0]"]));
    }

    #[test]
    fn a_template_says_its_words_in_one_way() {
        let new = |value: Value| wanted(serde_json::from_value(value).unwrap()).map_err(|p| p.errors[0].field.clone());
        let base = |more: Value| {
            let mut value = json!({"name": "a", "language": "en", "category": "UTILITY"});
            value.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            value
        };
        assert!(new(base(json!({"body": "Hi"}))).is_ok());
        let raw = new(base(json!({"components": [{"type": "BODY", "text": "Hi {{name}}"}]}))).unwrap();
        assert!(raw.is_named);
        for (more, field) in [
            (json!({}), "body"),
            (json!({"body": "Hi", "components": []}), "components"),
            (json!({"components": [], "footer": "x"}), "footer"),
        ] {
            assert_eq!(new(base(more.clone())).unwrap_err(), field, "{more}");
        }
    }
}
