//! `/api/{tenant}/messages` and `/api/{tenant}/conversations/{id}/messages`: what was said, and saying something.
//!
//! Sending is accepted here and done elsewhere: the message, its place in the conversation's order and its job are committed
//! together, and the answer is 202.

mod fate;
mod files;
mod sending;
mod templates;

pub(super) use sending::{check_as_written, check_content, check_provider, facts};
pub(super) use templates::{Asked, By, Sayable, Settled, To, files, read, settle};

use super::{Page, media::FileView};
use crate::{
    auth::{Caller, MessagesRead, MessagesSend},
    error::{Problem, Result},
    extract::{Cursor, Id, Json, Params, take_id},
    idempotency::IdempotencyKey,
    state::App,
};
use axum::{Json as View, extract::State, http::HeaderMap, response::IntoResponse};
use chrono::{DateTime, Utc};
use sending::{Into, Saying};
use serde::Serialize;
use serde_json::{Map, Value};
use shared::{
    db::{self, TenantTx, media::reading, messages},
    domain::{
        ids::{ConversationId, MessageId},
        messages::{Direction, MessageKind},
        sends::{AttemptOutcome, SendState, WaitReason},
    },
};
use std::collections::HashMap;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

/// The routes.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list, send_into_conversation))
        .routes(routes!(send_to_contact))
        .routes(routes!(show))
        .merge(fate::router())
        .merge(files::router())
}

/// What to say in a conversation.
#[derive(Serialize, ToSchema)]
pub struct NewMessage {
    /// The message of the conversation that this one answers.
    reply_to: Option<Uuid>,
    /// After so many seconds it is of no use any more, and not sent; at most a day.
    expires_in_seconds: Option<u32>,
    #[schema(inline)]
    #[serde(flatten)]
    content: Sayable,
}

/// What to say to a contact.
#[derive(Serialize, ToSchema)]
pub struct NewMessageToContact {
    /// To whom.
    contact_id: Uuid,
    /// From which account.
    channel_account_id: Uuid,
    /// The message of the conversation that this one answers.
    reply_to: Option<Uuid>,
    /// After so many seconds it is of no use any more, and not sent; at most a day.
    expires_in_seconds: Option<u32>,
    #[schema(inline)]
    #[serde(flatten)]
    content: Sayable,
}

/// A message.
#[derive(Serialize, ToSchema)]
#[schema(as = Message)]
pub struct MessageView {
    id: Uuid,
    conversation_id: Uuid,
    #[schema(value_type = Direction)]
    direction: String,
    #[schema(value_type = MessageKind)]
    kind: String,
    /// What a person reads.
    text: Option<String>,
    /// The files, by reference.
    #[serde(skip_serializing_if = "Option::is_none")]
    media: Option<Value>,
    /// The files, as we have them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    files: Vec<FileView>,
    /// In: the provider's element. Out: what was asked to be sent.
    content: Value,
    /// The provider's id of the message this one answers, reacts to, edits or revokes.
    #[serde(skip_serializing_if = "Option::is_none")]
    refers_to: Option<String>,
    /// The provider's id of this one.
    provider_message_id: Option<String>,
    /// The provider's time (in), the time of acceptance (out).
    at: DateTime<Utc>,
    /// Whether it was written to the person outside of Mijra (the Page's inbox, the telephone's app), as its provider told us (out).
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    written_elsewhere: bool,
    /// Where it stands on its way to the provider (out).
    #[serde(skip_serializing_if = "Option::is_none")]
    send: Option<SendView>,
}

/// Where a message stands on its way.
#[derive(Serialize, ToSchema)]
#[schema(as = Send)]
pub struct SendView {
    /// Where it stands.
    #[schema(value_type = SendState)]
    state: String,
    /// Why it waits, if it is `waiting`.
    #[schema(value_type = Option<WaitReason>)]
    wait_reason: Option<String>,
    attempts: i32,
    /// Sent again although an earlier attempt may have arrived.
    possibly_doubled: bool,
    /// The provider's code of a failure.
    code: Option<String>,
    /// What it means.
    reason: Option<String>,
    sent_at: Option<DateTime<Utc>>,
    delivered_at: Option<DateTime<Utc>>,
    read_at: Option<DateTime<Utc>>,
    failed_at: Option<DateTime<Utc>>,
}

/// A message with all that became of it.
#[derive(Serialize, ToSchema)]
pub struct MessageHistory {
    #[serde(flatten)]
    message: MessageView,
    /// The attempts that have ended, in order.
    attempts: Vec<AttemptView>,
    /// What the provider reported and what was decided, in order.
    trail: Vec<StepView>,
}

/// One try at handing a message to the provider.
#[derive(Serialize, ToSchema)]
#[schema(as = Attempt)]
pub struct AttemptView {
    id: Uuid,
    number: i32,
    /// What became of it.
    #[schema(value_type = AttemptOutcome)]
    outcome: String,
    code: Option<String>,
    reason: Option<String>,
    granted_at: Option<DateTime<Utc>>,
    ended_at: DateTime<Utc>,
}

/// One thing that was reported or decided.
#[derive(Serialize, ToSchema)]
#[schema(as = Step)]
pub struct StepView {
    /// The provider's word for what it reported (`sent`, `delivered`, `read`, `failed` …), or ours: `waits` (for what `code` names, as
    /// `wait_reason`), `not_sent`, `unknown`, `turn_released` (the next of its conversation may go), `held`, `sent_again`, `retried`,
    /// `cancelled`, `decided_sent`, `decided_failed`, `decided_resend`.
    event: String,
    at: DateTime<Utc>,
    code: Option<String>,
    reason: Option<String>,
}

impl From<messages::Message> for MessageView {
    fn from(m: messages::Message) -> Self {
        let send = m.state.map(|state| SendView {
            state,
            wait_reason: m.wait_reason,
            attempts: m.attempts.unwrap_or(0),
            possibly_doubled: m.possibly_doubled.unwrap_or(false),
            code: m.code,
            reason: m.reason,
            sent_at: m.sent_at,
            delivered_at: m.delivered_at,
            read_at: m.read_at,
            failed_at: m.failed_at,
        });
        let written_elsewhere = send.is_none() && m.direction == "out";
        Self {
            id: m.id.0,
            conversation_id: m.conversation_id.0,
            direction: m.direction,
            kind: m.kind,
            text: m.text,
            media: m.media,
            files: Vec::new(),
            content: m.content,
            refers_to: m.refers_to,
            written_elsewhere,
            provider_message_id: m.provider_message_id,
            at: m.at,
            send,
        }
    }
}

/// Lists a conversation's messages, the latest first.
#[utoipa::path(
    get, path = "/conversations/{id}/messages", tag = "messages", description = "Needs `messages:read`.",
    params(
        ("tenant" = String, Path, description = "The tenant's name in URLs"),
        ("id" = Uuid, Path, description = "The conversation"),
        ("limit" = Option<i64>, Query, description = "1 to 200, default 50"),
        ("cursor" = Option<String>, Query, description = "`next` of the page before"),
    ),
    responses(
        (status = OK, body = Page<MessageView>),
        (status = "default", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn list(
    State(app): State<App>,
    caller: Caller<MessagesRead>,
    Id(id): Id<ConversationId>,
    mut params: Params,
) -> Result<View<Page<MessageView>>> {
    let limit = params.limit()?;
    let before = params.take::<Cursor>("cursor")?.map(|cursor| (cursor.at, MessageId(cursor.id)));
    params.finish()?;
    let mut tx = caller.begin(&app).await?;
    let rows = messages::list(&mut tx, id, before, limit + 1).await?;
    // An empty page is either the end or somebody else's conversation.
    if rows.is_empty() && db::conversations::find(&mut tx, id).await?.is_none() {
        return Err(Problem::not_found("conversation").into());
    }
    let mut files = files_of(&mut tx, &app, &rows).await?;
    tx.commit().await?;
    let cursor = |m: &messages::Message| Cursor { at: m.at, id: m.id.0 }.to_string();
    let view = |m: messages::Message| MessageView { files: files.remove(&m.id).unwrap_or_default(), ..m.into() };
    Ok(View(Page::of(rows, limit, cursor, view)))
}

/// Shows a message with its history.
#[utoipa::path(
    get, path = "/messages/{id}", tag = "messages", description = "Needs `messages:read`.",
    params(("tenant" = String, Path), ("id" = Uuid, Path)),
    responses(
        (status = OK, body = MessageHistory),
        (status = "default", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn show(
    State(app): State<App>,
    caller: Caller<MessagesRead>,
    Id(id): Id<MessageId>,
) -> Result<View<MessageHistory>> {
    let mut tx = caller.begin(&app).await?;
    let message = messages::find(&mut tx, id).await?.ok_or_else(|| Problem::not_found("message"))?;
    let files = files_of(&mut tx, &app, std::slice::from_ref(&message)).await?.remove(&id).unwrap_or_default();
    let attempts = messages::attempts(&mut tx, id).await?;
    let trail = messages::trail(&mut tx, id).await?;
    tx.commit().await?;
    Ok(View(MessageHistory {
        message: MessageView { files, ..message.into() },
        attempts: attempts.into_iter().map(attempt_view).collect(),
        trail: trail.into_iter().map(step_view).collect(),
    }))
}

fn attempt_view(a: messages::Attempt) -> AttemptView {
    AttemptView {
        id: a.id.0,
        number: a.number,
        outcome: a.outcome,
        code: a.code,
        reason: a.reason,
        granted_at: a.granted_at,
        ended_at: a.ended_at,
    }
}

fn step_view(s: messages::Step) -> StepView {
    StepView { event: s.event, at: s.at, code: s.code, reason: s.reason }
}

/// The files of messages, with links to them.
async fn files_of(
    tx: &mut TenantTx,
    app: &App,
    messages: &[messages::Message],
) -> db::Result<HashMap<MessageId, Vec<FileView>>> {
    let with_files: Vec<MessageId> = messages.iter().filter(|m| m.media.is_some()).map(|m| m.id).collect();
    let (tenant_id, now) = (tx.tenant_id(), app.clock.now());
    let mut files: HashMap<MessageId, Vec<FileView>> = HashMap::new();
    for file in reading::of_messages(tx, &with_files).await? {
        files.entry(file.message_id).or_default().push(FileView::of(file, tenant_id, &app.links, now));
    }
    Ok(files)
}

/// Sends into a conversation. Accepted messages are handed to the provider in the order in which they were accepted.
#[utoipa::path(
    post, path = "/conversations/{id}/messages", tag = "messages", description = "Needs `messages:send`.",
    params(
        ("tenant" = String, Path),
        ("id" = Uuid, Path, description = "The conversation"),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key and request again get the same answer and send nothing"),
    ),
    request_body = NewMessage,
    responses(
        (status = ACCEPTED, body = MessageView),
        (status = "default", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn send_into_conversation(
    State(app): State<App>,
    caller: Caller<MessagesSend>,
    Id(id): Id<ConversationId>,
    key: IdempotencyKey,
    headers: HeaderMap,
    Json { value: fields, digest }: Json<Map<String, Value>>,
) -> Result<impl IntoResponse> {
    let saying = Saying::read(fields)?;
    sending::send(&app, &caller, Into::Conversation(id), &saying, &key, &digest, &headers).await
}

/// Sends to a contact over an account: into their open conversation, or one resolved lately, or a new one.
#[utoipa::path(
    post, path = "/messages", tag = "messages", description = "Needs `messages:send`.",
    params(
        ("tenant" = String, Path),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key and request again get the same answer and send nothing"),
    ),
    request_body = NewMessageToContact,
    responses(
        (status = ACCEPTED, body = MessageView),
        (status = "default", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn send_to_contact(
    State(app): State<App>,
    caller: Caller<MessagesSend>,
    key: IdempotencyKey,
    headers: HeaderMap,
    Json { value: mut fields, digest }: Json<Map<String, Value>>,
) -> Result<impl IntoResponse> {
    let into = Into::Contact(take_id(&mut fields, "contact_id")?, take_id(&mut fields, "channel_account_id")?);
    let saying = Saying::read(fields)?;
    sending::send(&app, &caller, into, &saying, &key, &digest, &headers).await
}
