//! `/api/{tenant}/campaigns`: one message, or one template, to many people.
//!
//! A request writes down what is wanted and the job that does it; freezing, releasing and cancelling are done elsewhere.

mod recipients;
mod retry;

pub(crate) use retry::nobody_failed_so;

use super::{
    Page,
    messages::{self, Asked, By, Sayable, Settled, To, check_as_written, check_content, check_provider, facts},
};
use crate::{
    auth::{Caller, CampaignsRead, CampaignsWrite},
    error::{Error, Kind, Problem, Result},
    extract::{Cursor, Id, Json, Params},
    idempotency::{Answer, IdempotencyKey},
    state::App,
};
use axum::{Json as View, extract::State, http::StatusCode, response::IntoResponse};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use shared::{
    db::{
        self, TenantTx,
        campaigns::{Campaign, Changed, ledger::Ledger},
    },
    domain::{
        campaigns::{
            Action, Audience, AudienceFields, CampaignContent, CampaignState, RecipientState, UnknownVariable,
        },
        channel::Channel,
        content::OutboundContent,
        ids::{CampaignId, ChannelAccountId, ContactId, TemplateId},
    },
};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

const MAX_NAME_CHARACTERS: usize = 200;
/// More ids do not fit a request; whoever has more of them writes to everybody, or makes several campaigns.
const MAX_CONTACTS: usize = 5_000;
const UNCHECKED_TEMPLATE: &str = "The template is not checked: the account's templates have never been fetched. An operator does so \
    with `mijra templates sync`.";
/// So many ids that are nobody's are named.
const STRANGERS_NAMED: usize = 20;

/// The routes.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(show))
        .routes(routes!(start))
        .routes(routes!(pause))
        .routes(routes!(resume))
        .routes(routes!(cancel))
        .routes(routes!(ledger))
        .merge(recipients::router())
        .merge(retry::router())
}

/// A campaign to be.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewCampaign {
    /// 1 to 200 characters.
    name: String,
    /// From which account.
    #[schema(value_type = Uuid)]
    channel_account_id: ChannelAccountId,
    /// What to say. The words of a text, and the values for a template's variables, may hold `{{name}}` and `{{phone}}`,
    /// filled in for each person.
    #[schema(value_type = CampaignMessage)]
    content: Map<String, Value>,
    /// To whom.
    audience: NewAudience,
    /// Its share of the account beside other campaigns, 1 to 100; 1 unless given.
    weight: Option<i32>,
}

/// What a campaign says to each of its people: what a message says that is about no other message.
#[derive(Serialize, ToSchema)]
pub struct CampaignMessage {
    #[schema(inline)]
    #[serde(flatten)]
    content: Sayable,
}

/// Either everybody or a list.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewAudience {
    /// `true`: everybody who is a contact when the campaign is started.
    all: Option<bool>,
    /// These, at most 5000.
    #[schema(value_type = Option<Vec<Uuid>>)]
    contact_ids: Option<Vec<ContactId>>,
}

/// A campaign.
#[derive(Serialize, ToSchema)]
#[schema(as = Campaign)]
pub struct CampaignView {
    id: Uuid,
    name: String,
    channel_account_id: Uuid,
    #[schema(value_type = CampaignState)]
    state: String,
    /// What it says, its variables not filled in.
    content: Value,
    /// How many contacts were named; absent if it goes to everybody.
    #[serde(skip_serializing_if = "Option::is_none")]
    audience_contacts: Option<i32>,
    weight: i32,
    /// How many people were frozen, skipped ones included; absent until all are.
    frozen_count: Option<i64>,
    counts: CountsView,
    /// With which code its template was refused, if that has paused it; resuming is for a person, once the template is back.
    #[serde(skip_serializing_if = "Option::is_none")]
    paused_code: Option<String>,
    /// What that means.
    #[serde(skip_serializing_if = "Option::is_none")]
    paused_reason: Option<String>,
    /// Since when who had failed is being tried again; absent unless that is under way.
    #[serde(skip_serializing_if = "Option::is_none")]
    retrying_since: Option<DateTime<Utc>>,
    /// How many they were then.
    #[serde(skip_serializing_if = "Option::is_none")]
    retrying_count: Option<i64>,
    /// What nobody has checked, a sentence each: its template, as long as its account's templates were never fetched.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<&'static str>,
    /// How many of its messages were handed to the provider per second, over the last 10 to 20 seconds; 0 when nothing moves.
    rate_per_second: f64,
    /// In how many seconds everybody will have been written to, at that rate; or, in its first ten seconds and those after it was
    /// resumed or its account's limit was changed, at its share of what the account may send. Absent unless it runs, all are frozen
    /// and something can move.
    #[serde(skip_serializing_if = "Option::is_none")]
    eta_seconds: Option<i64>,
    created_at: DateTime<Utc>,
    started_at: Option<DateTime<Utc>>,
    frozen_at: Option<DateTime<Utc>>,
    /// When it was completed or cancelled.
    ended_at: Option<DateTime<Utc>>,
}

/// Where people stand; each is in exactly one.
#[derive(Serialize, ToSchema)]
#[schema(as = CampaignCounts)]
pub struct CountsView {
    /// Left out, with a reason.
    skipped: i64,
    /// Not released yet.
    waiting: i64,
    /// Released, and neither with the provider nor given up.
    in_flight: i64,
    /// Perhaps with the provider; evidence is awaited.
    unknown: i64,
    /// For a person to decide.
    held: i64,
    sent: i64,
    delivered: i64,
    read: i64,
    failed: i64,
    cancelled: i64,
}

/// A campaign's books: five accounts of the same people held against each other.
#[derive(Serialize, ToSchema)]
#[schema(as = CampaignLedger)]
pub struct LedgerView {
    /// Whether nothing disagrees.
    agrees: bool,
    frozen_count: Option<i64>,
    lines: Vec<LineView>,
    /// Why people failed or were skipped, the commonest first.
    causes: Vec<CauseView>,
    /// What does not agree, a sentence each.
    disagreements: Vec<String>,
}

/// One state.
#[derive(Serialize, ToSchema)]
#[schema(as = CampaignLedgerLine)]
pub struct LineView {
    #[schema(value_type = RecipientState)]
    state: &'static str,
    /// People in it, by their rows and their sends.
    people: i64,
    /// Attempts at them that have ended.
    attempts: i64,
    /// As many are shown.
    shown: i64,
}

/// Why some people got nothing.
#[derive(Serialize, ToSchema)]
#[schema(as = CampaignLedgerCause)]
pub struct CauseView {
    /// Only `failed` or `skipped`.
    #[schema(value_type = RecipientState)]
    state: &'static str,
    /// With which code they failed, the provider's or ours.
    code: Option<String>,
    /// Of who failed what was said of one of them; of who was skipped no_address, no_name, no_phone, opted_out or merged.
    reason: Option<String>,
    people: i64,
}

impl From<Campaign> for CampaignView {
    fn from(c: Campaign) -> Self {
        let (eta_seconds, warnings) = (eta_seconds(&c), warnings(&c));
        Self {
            id: c.id.0,
            name: c.name,
            channel_account_id: c.channel_account_id.0,
            state: c.state,
            content: c.content,
            audience_contacts: c.audience_contacts,
            weight: c.weight,
            eta_seconds,
            rate_per_second: (c.rate * 100.0).round() / 100.0,
            frozen_count: c.frozen_count,
            counts: CountsView {
                skipped: c.skipped,
                waiting: c.waiting,
                in_flight: c.in_flight,
                unknown: c.unknown,
                held: c.held,
                sent: c.sent,
                delivered: c.delivered,
                read: c.read,
                failed: c.failed,
                cancelled: c.cancelled,
            },
            paused_code: c.paused_code,
            paused_reason: c.paused_reason,
            retrying_since: c.retrying_since,
            retrying_count: c.retrying_count,
            warnings,
            created_at: c.created_at,
            started_at: c.started_at,
            frozen_at: c.frozen_at,
            ended_at: c.ended_at,
        }
    }
}

/// A template can be checked only against what was fetched; without that it is found out when people are written to.
fn warnings(c: &Campaign) -> Vec<&'static str> {
    let to_come = ["draft", "running", "paused"].contains(&c.state.as_str());
    let unchecked = to_come && c.content["type"] == "template" && c.templates_synced_at.is_none();
    unchecked.then_some(UNCHECKED_TEMPLATE).into_iter().collect()
}

/// When nobody will be left, if it goes on as it goes now. A campaign that shares its account goes at its share already.
fn eta_seconds(c: &Campaign) -> Option<i64> {
    // How many a retry will find is not known before it has looked.
    if c.state != "running" || c.frozen_at.is_none() || c.retrying_since.is_some() {
        return None;
    }
    match (c.waiting + c.in_flight) as f64 {
        0.0 => Some(0),
        // A float to an integer saturates.
        left => c.pace.map(|pace| (left / pace).ceil() as i64),
    }
}

impl From<Ledger> for LedgerView {
    fn from(ledger: Ledger) -> Self {
        let Ledger { frozen, lines, causes, disagreements } = ledger;
        let cause = |c: db::campaigns::ledger::Cause| {
            let db::campaigns::ledger::Cause { state, code, reason, people } = c;
            CauseView { state, code, reason, people }
        };
        let line = |l: db::campaigns::ledger::Line| LineView {
            state: l.state,
            people: l.people,
            attempts: l.attempts,
            shown: l.shown,
        };
        Self {
            agrees: disagreements.is_empty(),
            frozen_count: frozen,
            lines: lines.into_iter().map(line).collect(),
            causes: causes.into_iter().map(cause).collect(),
            disagreements,
        }
    }
}

/// Lists campaigns, the newest first.
#[utoipa::path(
    get, path = "/campaigns", tag = "campaigns", description = "Needs `campaigns:read`.",
    params(
        ("tenant" = String, Path, description = "The tenant's name in URLs"),
        ("limit" = Option<i64>, Query, description = "1 to 200, default 50"),
        ("cursor" = Option<String>, Query, description = "`next` of the page before"),
    ),
    responses(
        (status = OK, body = Page<CampaignView>),
        (status = "default", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn list(
    State(app): State<App>,
    caller: Caller<CampaignsRead>,
    mut params: Params,
) -> Result<View<Page<CampaignView>>> {
    let limit = params.limit()?;
    let before = params.take::<Cursor>("cursor")?.map(|cursor| CampaignId(cursor.id));
    params.finish()?;
    let mut tx = caller.begin(&app).await?;
    let rows = db::campaigns::list(&mut tx, before, limit + 1).await?;
    tx.commit().await?;
    let cursor = |c: &Campaign| Cursor { at: c.created_at, id: c.id.0 }.to_string();
    Ok(View(Page::of(rows, limit, cursor, CampaignView::from)))
}

/// Shows a campaign.
#[utoipa::path(
    get, path = "/campaigns/{id}", tag = "campaigns", description = "Needs `campaigns:read`.",
    params(("tenant" = String, Path), ("id" = Uuid, Path)),
    responses(
        (status = OK, body = CampaignView),
        (status = "default", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn show(
    State(app): State<App>,
    caller: Caller<CampaignsRead>,
    Id(id): Id<CampaignId>,
) -> Result<View<CampaignView>> {
    let mut tx = caller.begin(&app).await?;
    let campaign = find(&mut tx, id).await?;
    tx.commit().await?;
    Ok(View(campaign))
}

/// Creates a campaign. Nothing is sent before it is started.
#[utoipa::path(
    post, path = "/campaigns", tag = "campaigns", description = "Needs `campaigns:write`.",
    params(
        ("tenant" = String, Path),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key and request again get the same answer and make nothing"),
    ),
    request_body = NewCampaign,
    responses(
        (status = CREATED, body = CampaignView),
        (status = "default", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn create(
    State(app): State<App>,
    caller: Caller<CampaignsWrite>,
    key: IdempotencyKey,
    Json { value: new, digest }: Json<NewCampaign>,
) -> Result<impl IntoResponse> {
    let NewCampaign { name, channel_account_id, content, audience, weight } = new;
    let name = checked_name(&name)?;
    let weight = checked_weight(weight)?;
    let asked = messages::read(content).map_err(|problem| problem.under("content"))?;
    if let Asked::Content(said) = &asked {
        if said.about().is_some() {
            let message = "must be something that is about no other message";
            return Err(Problem::new(Kind::Invalid).field("content.type", message).into());
        }
        with_variables(said)?;
    }
    let audience = checked_audience(audience)?;
    let mut tx = caller.begin(&app).await?;
    if let Some(answer) = key.answered(&mut tx, &digest).await? {
        return Ok(answer);
    }
    let (content, template) = check_account(&mut tx, channel_account_id, &asked).await?;
    check_contacts(&mut tx, &audience).await?;
    let new = db::campaigns::NewCampaign {
        name,
        channel_account_id,
        content: &content,
        audience: &audience,
        weight,
        author: caller.token_id,
        template,
    };
    let id = db::campaigns::create(&mut tx, &new).await?;
    let body = serde_json::to_value(find(&mut tx, id).await?).expect("plain fields are always JSON");
    let answer = Answer::new(StatusCode::CREATED, body);
    key.keep(&mut tx, &digest, &answer).await?;
    tx.commit().await?;
    Ok(answer)
}

/// Starts a campaign: its audience is frozen, then written to at the pace of the account.
#[utoipa::path(
    post, path = "/campaigns/{id}/start", tag = "campaigns", description = "Needs `campaigns:write`. Doing it again changes nothing.",
    params(("tenant" = String, Path), ("id" = Uuid, Path)),
    responses(
        (status = OK, body = CampaignView),
        (status = "default", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn start(
    State(app): State<App>,
    caller: Caller<CampaignsWrite>,
    Id(id): Id<CampaignId>,
) -> Result<View<CampaignView>> {
    change(&app, &caller, id, Action::Start).await
}

/// Pauses a campaign: nobody is handed to the provider until it is resumed.
#[utoipa::path(
    post, path = "/campaigns/{id}/pause", tag = "campaigns", description = "Needs `campaigns:write`. Doing it again changes nothing.",
    params(("tenant" = String, Path), ("id" = Uuid, Path)),
    responses(
        (status = OK, body = CampaignView),
        (status = "default", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn pause(
    State(app): State<App>,
    caller: Caller<CampaignsWrite>,
    Id(id): Id<CampaignId>,
) -> Result<View<CampaignView>> {
    change(&app, &caller, id, Action::Pause).await
}

/// Resumes a campaign where it was paused.
#[utoipa::path(
    post, path = "/campaigns/{id}/resume", tag = "campaigns", description = "Needs `campaigns:write`. Doing it again changes nothing.",
    params(("tenant" = String, Path), ("id" = Uuid, Path)),
    responses(
        (status = OK, body = CampaignView),
        (status = "default", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn resume(
    State(app): State<App>,
    caller: Caller<CampaignsWrite>,
    Id(id): Id<CampaignId>,
) -> Result<View<CampaignView>> {
    change(&app, &caller, id, Action::Resume).await
}

/// Cancels a campaign for good: who has not been written to will not be.
#[utoipa::path(
    post, path = "/campaigns/{id}/cancel", tag = "campaigns", description = "Needs `campaigns:write`. Doing it again changes nothing.",
    params(("tenant" = String, Path), ("id" = Uuid, Path)),
    responses(
        (status = OK, body = CampaignView),
        (status = "default", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn cancel(
    State(app): State<App>,
    caller: Caller<CampaignsWrite>,
    Id(id): Id<CampaignId>,
) -> Result<View<CampaignView>> {
    change(&app, &caller, id, Action::Cancel).await
}

/// Holds a campaign's books against each other. Reads all of its people, so it takes a while for a large one.
#[utoipa::path(
    get, path = "/campaigns/{id}/ledger", tag = "campaigns", description = "Needs `campaigns:read`.",
    params(("tenant" = String, Path), ("id" = Uuid, Path)),
    responses(
        (status = OK, body = LedgerView),
        (status = "default", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn ledger(
    State(app): State<App>,
    caller: Caller<CampaignsRead>,
    Id(id): Id<CampaignId>,
) -> Result<View<LedgerView>> {
    let mut tx = caller.begin(&app).await?;
    let books = db::campaigns::ledger::ledger(&mut tx, id).await?.ok_or_else(|| Problem::not_found("campaign"))?;
    tx.commit().await?;
    Ok(View(books.into()))
}

async fn find(tx: &mut TenantTx, id: CampaignId) -> Result<CampaignView> {
    let found = db::campaigns::find(tx, id).await?;
    Ok(found.ok_or_else(|| Problem::not_found("campaign"))?.into())
}

async fn change(
    app: &App,
    caller: &Caller<CampaignsWrite>,
    id: CampaignId,
    action: Action,
) -> Result<View<CampaignView>> {
    let mut tx = caller.begin(app).await?;
    match db::campaigns::change(&mut tx, id, action, caller.actor()).await? {
        Some(Changed::Done) => {}
        Some(Changed::NotFrom(state)) => {
            let detail = format!("The campaign is {state}: it cannot be {}.", action.participle());
            return Err(Problem::new(Kind::WrongState).detail(detail).into());
        }
        None => return Err(Problem::not_found("campaign").into()),
    }
    let campaign = find(&mut tx, id).await?;
    let due = tx.commit().await?;
    app.relay.publish(caller.placement.clone(), due).await;
    Ok(View(campaign))
}

fn checked_name(name: &str) -> Result<&str, Problem> {
    let refuse = |message: &str| Err(Problem::new(Kind::Invalid).field("name", message));
    match name.trim() {
        "" => refuse("must not be empty"),
        name if name.contains('\0') => refuse("must not contain NUL"),
        name if name.chars().count() > MAX_NAME_CHARACTERS => refuse("must have at most 200 characters"),
        name => Ok(name),
    }
}

fn checked_weight(weight: Option<i32>) -> Result<i32, Problem> {
    match weight.unwrap_or(1) {
        weight @ 1..=100 => Ok(weight),
        _ => Err(Problem::new(Kind::Invalid).field("weight", "must be 1 to 100")),
    }
}

/// Every variable can be filled in.
fn with_variables(said: &OutboundContent) -> Result<CampaignContent, Problem> {
    CampaignContent::new(said.clone()).map_err(|unknown| {
        let start = Problem::new(Kind::Invalid);
        unknown.into_iter().fold(start, |problem, UnknownVariable { field, variable }| {
            let message = format!("{{{{{variable}}}}} is no variable; there are {{{{name}}}} and {{{{phone}}}}");
            problem.field(format!("content.{field}"), message)
        })
    })
}

fn checked_audience(audience: NewAudience) -> Result<Audience, Problem> {
    let NewAudience { all, contact_ids } = audience;
    if contact_ids.as_ref().is_some_and(|ids| ids.len() > MAX_CONTACTS) {
        let message = format!("must be at most {MAX_CONTACTS}");
        return Err(Problem::new(Kind::Invalid).field("audience.contact_ids", message));
    }
    let refuse = |error: shared::domain::campaigns::NotAnAudience| {
        Problem::new(Kind::Invalid).field("audience", error.to_string())
    };
    Audience::try_from(AudienceFields { all, contact_ids }).map_err(refuse)
}

/// What the account is to say to everybody, and the tenant's own template whose words that are.
async fn check_account(
    tx: &mut TenantTx,
    id: ChannelAccountId,
    asked: &Asked,
) -> Result<(CampaignContent, Option<TemplateId>)> {
    let account = db::channel_accounts::sender(tx, id).await?.ok_or_else(|| {
        let message = "must be a channel account of this tenant";
        Problem::not_found("channel account").field("channel_account_id", message)
    })?;
    if account.state == "disabled" {
        return Err(Problem::new(Kind::AccountDisabled).into());
    }
    let (provider, channel) = (check_provider(&account.provider)?, Channel::from_name(&account.channel));
    let channel = channel.unwrap_or(Channel::Whatsapp);
    let by = By { account: id, provider, channel, synced_at: account.templates_synced_at };
    let under = |error: Error| match error {
        Error::Problem(problem) => Error::from((*problem).under("content")),
        error => error,
    };
    let Settled { content: said, template, needs_window } = match messages::settle(tx, by, To::Many, asked).await? {
        Ok(settled) => settled,
        Err(problem) => {
            check_as_written(tx, by, account.gateway.as_ref(), asked).await.map_err(under)?;
            return Err(problem.under("content").into());
        }
    };
    if needs_window {
        let message = "is not approved, and can be said only to who has written lately";
        return Err(Problem::new(Kind::TemplateUnusable).field("content.name", message).into());
    }
    let content = with_variables(&said)?;
    let files = facts(tx, &said).await?.map_err(|problem| problem.under("content"))?;
    // If it fits with the longest name and number filled in, everything does.
    check_content(provider, channel, account.gateway.as_ref(), &content.longest(), &files).map_err(|problem| {
        let detail = "With the longest name and number filled in, it is more than the provider takes.";
        problem.under("content").detail(detail)
    })?;
    Ok((content, template))
}

async fn check_contacts(tx: &mut TenantTx, audience: &Audience) -> Result<()> {
    let Audience::Contacts(ids) = audience else { return Ok(()) };
    let strangers = db::campaigns::strangers(tx, ids).await?;
    if strangers.is_empty() {
        return Ok(());
    }
    let start = Problem::new(Kind::Invalid).detail(format!("{} ids are no contacts of this tenant.", strangers.len()));
    let named = strangers.iter().take(STRANGERS_NAMED);
    Err(named
        .fold(start, |problem, id| problem.field("audience.contact_ids", format!("{id} is no contact of this tenant")))
        .into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::{
        domain::{channel::Provider, content},
        providers::sending::Facts,
    };

    fn fields(problem: &Problem) -> Vec<&str> {
        problem.errors.iter().map(|error| error.field.as_str()).collect()
    }

    fn text(words: &str) -> OutboundContent {
        OutboundContent::Text(content::Text { text: words.into(), ..content::Text::default() })
    }

    #[test]
    fn an_unknown_variable_is_named_with_its_field() {
        let problem = with_variables(&text("Hi {{first_name}}")).unwrap_err();
        assert_eq!(fields(&problem), ["content.text"]);
        assert_eq!(
            problem.errors[0].message, "{{first_name}} is no variable; there are {{name}} and {{phone}}",
            "{problem:?}"
        );
        assert!(with_variables(&text("Hi {{name}}, {{phone}}")).is_ok());
    }

    #[test]
    fn words_must_fit_whoever_fills_them_in() {
        let check = |words: &str| {
            let longest = with_variables(&text(words)).unwrap().longest();
            check_content(Provider::Whatsapp, Channel::Whatsapp, None, &longest, &Facts::default())
        };
        assert_eq!(check(&"x".repeat(4096)), Ok(()));
        assert_eq!(fields(&check(&format!("{}{{{{name}}}}", "x".repeat(3900))).unwrap_err()), ["text"]);
        assert_eq!(check(&format!("{}{{{{name}}}}", "x".repeat(3896))), Ok(()));
    }

    #[test]
    fn names_weights_and_audiences_are_bounded() {
        assert_eq!(checked_name("  Spring  ").unwrap(), "Spring");
        for wrong in ["", " ", "a\0b", &"x".repeat(201)] {
            assert_eq!(fields(&checked_name(wrong).unwrap_err()), ["name"]);
        }
        assert_eq!((checked_weight(None), checked_weight(Some(100))), (Ok(1), Ok(100)));
        assert!(checked_weight(Some(0)).is_err() && checked_weight(Some(101)).is_err());
        let audience = |all, ids: Option<usize>| {
            let contact_ids = ids.map(|count| (0..count).map(|_| ContactId::new()).collect());
            checked_audience(NewAudience { all, contact_ids }).map_err(|problem| problem.errors[0].field.clone())
        };
        assert!(audience(Some(true), None).is_ok() && audience(None, Some(5000)).is_ok());
        assert_eq!(audience(None, Some(5001)), Err("audience.contact_ids".to_owned()));
        for (all, ids) in [(None, None), (Some(false), None), (Some(true), Some(1)), (None, Some(0))] {
            assert_eq!(audience(all, ids), Err("audience".to_owned()), "{all:?} {ids:?}");
        }
    }
}
