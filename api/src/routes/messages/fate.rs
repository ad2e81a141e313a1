//! What became of a message, in full; and what a person decides where nobody else can.

use super::{AttemptView, MessageView, StepView, attempt_view, files_of, step_view};
use crate::{
    auth::{Caller, MessagesRead, MessagesSend},
    error::{Kind, Problem, Result},
    extract::{Cursor, Id, Json, Params},
    routes::Page,
    state::App,
    words::{DecisionWord, UndecidedState},
};
use axum::{Json as View, extract::State, http::StatusCode};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use shared::{
    db::{
        audit::{self, Entry},
        messages,
        outbound::undecided::{self, Undecided},
        trace,
        webhook_log::Listed,
    },
    domain::{
        channel::{AccountState, Provider},
        ids::{ChannelAccountId, MessageId},
    },
    jobs::outbound::{Decision, OutboundJob, Task},
    queue::topology::OUTBOUND_NOW,
};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

/// The routes.
pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(show_trace))
        .routes(routes!(list_undecided))
        .routes(routes!(decide))
        .routes(routes!(retry))
}

/// Why a message is where it is.
#[derive(Serialize, ToSchema)]
pub(super) struct Trace {
    message: MessageView,
    /// The send as it stands; absent of a message that was received or written elsewhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    send: Option<TraceSend>,
    /// The attempts that have ended, in order.
    attempts: Vec<AttemptView>,
    /// What the provider reported, what was decided and what it waited for, in order.
    trail: Vec<StepView>,
    /// The jobs that will bring it, or look after it.
    jobs: Vec<TraceJob>,
    /// The webhooks in the raw log that name it.
    webhooks: Vec<TraceWebhook>,
}

/// A send as it stands.
#[derive(Serialize, ToSchema)]
pub(super) struct TraceSend {
    channel_account_id: Uuid,
    account_name: String,
    #[schema(value_type = AccountState)]
    account_state: String,
    /// With which code the account is down: its provider's, or `error_rate` (too many of its calls failed) or `secrets` (they are of no
    /// use).
    #[serde(skip_serializing_if = "Option::is_none")]
    account_code: Option<String>,
    /// Why the account is down.
    #[serde(skip_serializing_if = "Option::is_none")]
    account_reason: Option<String>,
    /// When one message is let through to find out whether the account is back.
    #[serde(skip_serializing_if = "Option::is_none")]
    account_probe_at: Option<DateTime<Utc>>,
    /// Whether the provider tells what becomes of a message that it took. If not, sent is the last that is heard of it.
    receipts: bool,
    /// Its place in the conversation's order.
    place: i64,
    /// The earlier message that it waits for.
    #[serde(skip_serializing_if = "Option::is_none")]
    waits_for: Option<Uuid>,
    /// What it takes of the account's rate: segments of a text message, else 1.
    units: i16,
    /// It is not tried again before this.
    #[serde(skip_serializing_if = "Option::is_none")]
    due_at: Option<DateTime<Utc>>,
    /// The attempt under way counts as unknown after this.
    #[serde(skip_serializing_if = "Option::is_none")]
    deadline: Option<DateTime<Utc>>,
    /// It is of no use after this.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<DateTime<Utc>>,
    /// When it was last allowed to go.
    #[serde(skip_serializing_if = "Option::is_none")]
    granted_at: Option<DateTime<Utc>>,
}

/// A job that is due later.
#[derive(Serialize, ToSchema)]
pub(super) struct TraceJob {
    queue: String,
    /// outbound.send, outbound.slice, outbound.release_turn, outbound.settle …
    kind: String,
    publish_after: DateTime<Utc>,
}

/// A webhook that names the message.
#[derive(Serialize, ToSchema)]
pub(super) struct TraceWebhook {
    /// Its id in the raw log.
    id: Uuid,
    received_at: DateTime<Utc>,
    #[schema(value_type = Provider)]
    provider: String,
    #[schema(value_type = shared::db::inbound::log::Outcome)]
    outcome: String,
}

impl From<trace::Send> for TraceSend {
    fn from(send: trace::Send) -> Self {
        Self {
            channel_account_id: send.channel_account_id.0,
            account_name: send.account_name,
            account_state: send.account_state,
            account_code: send.account_code,
            account_reason: send.account_reason,
            receipts: send.provider.parse().is_ok_and(Provider::has_receipts),
            account_probe_at: send.account_probe_at,
            place: send.place,
            waits_for: send.waits_for.map(|id| id.0),
            units: send.units,
            due_at: send.due_at,
            deadline: send.deadline,
            expires_at: send.expires_at,
            granted_at: send.granted_at,
        }
    }
}

impl From<Listed> for TraceWebhook {
    fn from(listed: Listed) -> Self {
        let Listed { id, received_at, provider, outcome, .. } = listed;
        Self { id: id.0, received_at, provider, outcome }
    }
}

/// A send of which nobody knows whether it arrived.
#[derive(Serialize, ToSchema)]
#[schema(as = UndecidedSend)]
pub(super) struct UndecidedView {
    message_id: Uuid,
    conversation_id: Uuid,
    channel_account_id: Uuid,
    #[schema(value_type = UndecidedState)]
    state: String,
    since: DateTime<Utc>,
    /// What happened.
    reason: Option<String>,
    /// The message's words.
    text: Option<String>,
    /// Sent again although an earlier attempt may have arrived.
    possibly_doubled: bool,
}

impl From<Undecided> for UndecidedView {
    fn from(u: Undecided) -> Self {
        Self {
            message_id: u.message_id.0,
            conversation_id: u.conversation_id.0,
            channel_account_id: u.channel_account_id.0,
            state: u.state,
            since: u.since,
            reason: u.reason,
            text: u.text,
            possibly_doubled: u.possibly_doubled,
        }
    }
}

/// What a person decides.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewDecision {
    #[schema(value_type = DecisionWord, example = "resend")]
    decision: Decision,
}

/// Shows why a message is where it is: its send, attempts, trail, what will bring it, and the webhooks that speak of it.
#[utoipa::path(
    get, path = "/messages/{id}/trace", tag = "messages", description = "Needs `messages:read`.",
    params(("tenant" = String, Path), ("id" = Uuid, Path)),
    responses(
        (status = OK, body = Trace),
        (status = "default", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn show_trace(
    State(app): State<App>,
    caller: Caller<MessagesRead>,
    Id(id): Id<MessageId>,
) -> Result<View<Trace>> {
    let mut tx = caller.begin(&app).await?;
    let message = messages::find(&mut tx, id).await?.ok_or_else(|| Problem::not_found("message"))?;
    let files = files_of(&mut tx, &app, std::slice::from_ref(&message)).await?.remove(&id).unwrap_or_default();
    let send = trace::send(&mut tx, id).await?;
    let attempts = messages::attempts(&mut tx, id).await?;
    let trail = messages::trail(&mut tx, id).await?;
    let jobs = trace::jobs(&mut tx, id).await?;
    let told = trail.iter().filter(|step| matches!(step.event.as_str(), "sent" | "delivered" | "read" | "failed"));
    let times: Vec<DateTime<Utc>> = std::iter::once(message.at).chain(told.map(|step| step.at)).collect();
    let account = send.as_ref().map(|send| send.channel_account_id);
    let webhooks = trace::webhooks(&mut tx, &message, account, &times).await?;
    tx.commit().await?;
    let job = |job: trace::Job| TraceJob { queue: job.queue, kind: job.kind, publish_after: job.publish_after };
    Ok(View(Trace {
        message: MessageView { files, ..message.into() },
        send: send.map(TraceSend::from),
        attempts: attempts.into_iter().map(attempt_view).collect(),
        trail: trail.into_iter().map(step_view).collect(),
        jobs: jobs.into_iter().map(job).collect(),
        webhooks: webhooks.into_iter().map(TraceWebhook::from).collect(),
    }))
}

/// Lists sends of which nobody knows whether they arrived, the oldest first.
#[utoipa::path(
    get, path = "/undecided", tag = "messages", description = "Needs `messages:read`.",
    params(
        ("tenant" = String, Path),
        ("state" = inline(Option<UndecidedState>), Query),
        ("channel_account_id" = Option<Uuid>, Query, description = "Only of this account"),
        ("limit" = Option<i64>, Query, description = "1 to 200, default 50"),
        ("cursor" = Option<String>, Query, description = "`next` of the page before"),
    ),
    responses(
        (status = OK, body = Page<UndecidedView>),
        (status = "default", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn list_undecided(
    State(app): State<App>,
    caller: Caller<MessagesRead>,
    mut params: Params,
) -> Result<View<Page<UndecidedView>>> {
    let limit = params.limit()?;
    let after = params.take::<Cursor>("cursor")?.map(|cursor| (cursor.at, MessageId(cursor.id)));
    let state = params.take::<String>("state")?;
    let account = params.take::<ChannelAccountId>("channel_account_id")?;
    params.finish()?;
    if let Some(state) = state.as_deref().filter(|state| !matches!(*state, "unknown" | "held")) {
        let message = format!("must be unknown or held, not {state}");
        return Err(Problem::new(Kind::BadParameter).field("state", message).into());
    }
    let mut tx = caller.begin(&app).await?;
    let rows = undecided::list(&mut tx, state.as_deref(), account, after, limit + 1).await?;
    tx.commit().await?;
    let cursor = |u: &Undecided| Cursor { at: u.since, id: u.message_id.0 }.to_string();
    Ok(View(Page::of(rows, limit, cursor, UndecidedView::from)))
}

/// Decides about a send that is held: whether it arrived, or is sent again. It is done by a sender a moment later.
#[utoipa::path(
    post, path = "/messages/{id}/decide", tag = "messages", description = "Needs `messages:send`.",
    params(("tenant" = String, Path), ("id" = Uuid, Path)),
    request_body = NewDecision,
    responses(
        (status = ACCEPTED),
        (status = "default", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn decide(
    State(app): State<App>,
    caller: Caller<MessagesSend>,
    Id(id): Id<MessageId>,
    Json { value: NewDecision { decision }, .. }: Json<NewDecision>,
) -> Result<StatusCode> {
    ask(&app, &caller, id, "held", Task::Decide(decision)).await
}

/// Tries a message again that has failed: a new attempt; what became of the earlier ones stays. (A campaign's are tried again by
/// their campaign.)
#[utoipa::path(
    post, path = "/messages/{id}/retry", tag = "messages", description = "Needs `messages:send`.",
    params(("tenant" = String, Path), ("id" = Uuid, Path)),
    responses(
        (status = ACCEPTED),
        (status = "default", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn retry(State(app): State<App>, caller: Caller<MessagesSend>, Id(id): Id<MessageId>) -> Result<StatusCode> {
    ask(&app, &caller, id, "failed", Task::Retry).await
}

/// Writes the job for a task about a send that is in this state.
async fn ask(app: &App, caller: &Caller<MessagesSend>, id: MessageId, needed: &str, task: Task) -> Result<StatusCode> {
    let mut tx = caller.begin(app).await?;
    let message = messages::find(&mut tx, id).await?.ok_or_else(|| Problem::not_found("message"))?;
    let refuse = |detail: String| Err(Problem::new(Kind::WrongState).detail(detail).into());
    match message.state.as_deref() {
        Some(state) if state == needed => {}
        Some(state) => return refuse(format!("The message's send is {state}, not {needed}.")),
        None => return refuse("The message was not sent from here.".to_owned()),
    }
    if task == Task::Retry && message.of_campaign.unwrap_or(false) {
        return refuse("It is a campaign's: retry who failed there.".to_owned());
    }
    let send = trace::send(&mut tx, id).await?;
    let (expires_at, campaign) = send.map_or((None, None), |send| (send.expires_at, send.campaign_state));
    if let (Task::Decide(Decision::Resend), Some(state @ ("completed" | "cancelled"))) = (task, campaign.as_deref()) {
        return refuse(format!("Its campaign is {state}: decide whether it arrived, and retry who failed there."));
    }
    if task == Task::Retry && expires_at.is_some_and(|at| at <= app.clock.now()) {
        return refuse("It is of no use any more: its time has passed.".to_owned());
    }
    let (action, details) = match task {
        Task::Decide(decision) => ("send.decided", serde_json::json!({"decision": decision})),
        _ => ("send.retried", serde_json::json!({"code": message.code})),
    };
    let entry = Entry { actor: caller.actor(), action, target_kind: "message", target_id: id.0, details };
    audit::record(&mut tx, &entry).await?;
    let job = OutboundJob { tenant_id: caller.tenant_id, message_id: id, account: None, task };
    tx.enqueue(OUTBOUND_NOW.name, job.to_job(app.clock.now()), None);
    let due = tx.commit().await?;
    app.relay.publish(caller.placement.clone(), due).await;
    Ok(StatusCode::ACCEPTED)
}
