//! `/api/{tenant}/conversations`: the inbox.

use super::Page;
use crate::{
    auth::{Caller, ConversationsRead, MessagesSend},
    error::{Problem, Result},
    extract::{Cursor, Id, Params},
    state::App,
};
use axum::{Json as View, extract::State, http::StatusCode};
use chrono::{DateTime, Utc};
use serde::Serialize;
use shared::{
    db::{
        self,
        conversations::{Conversation, Filter},
    },
    domain::{
        conversations::{ConversationOrigin, ConversationState},
        ids::{ChannelAccountId, ContactId, ConversationId},
        messages::Direction,
    },
    jobs::outbound::{SignalJob, SignalKind},
    queue::topology::OUTBOUND_NOW,
};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

/// The routes.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(show)).routes(routes!(read)).routes(routes!(typing))
}

/// What a contact and an account say to each other.
#[derive(Serialize, ToSchema)]
#[schema(as = Conversation)]
pub struct ConversationView {
    id: Uuid,
    contact: ContactOf,
    channel_account_id: Uuid,
    #[schema(value_type = ConversationState)]
    state: String,
    #[schema(value_type = ConversationOrigin)]
    origin: String,
    unread: i32,
    messages_in: i32,
    messages_out: i32,
    last_message: LastMessage,
    /// Whether free text may be sent now; by SMS and gateways always. Otherwise only a template.
    window_open: bool,
    /// Until when free text may be sent; absent if the contact has never written, or where that has no end.
    window_expires_at: Option<DateTime<Utc>>,
    resolved_at: Option<DateTime<Utc>>,
    created_at: DateTime<Utc>,
}

/// With whom a conversation is.
#[derive(Serialize, ToSchema)]
pub struct ContactOf {
    id: Uuid,
    name: Option<String>,
    phone: Option<String>,
}

/// The last message of a conversation, by the provider's time.
#[derive(Serialize, ToSchema)]
pub struct LastMessage {
    at: DateTime<Utc>,
    text: Option<String>,
    #[schema(value_type = Direction)]
    direction: String,
}

impl ConversationView {
    fn of(c: Conversation, now: DateTime<Utc>) -> Self {
        let window_open = c.is_open(now);
        Self {
            id: c.id.0,
            contact: ContactOf { id: c.contact_id.0, name: c.contact_name, phone: c.contact_phone },
            channel_account_id: c.channel_account_id.0,
            state: c.state,
            origin: c.origin,
            unread: c.unread,
            messages_in: c.messages_in,
            messages_out: c.messages_out,
            last_message: LastMessage {
                at: c.last_message_at,
                text: c.last_message_text,
                direction: c.last_message_direction,
            },
            window_open,
            window_expires_at: c.window_expires_at,
            resolved_at: c.resolved_at,
            created_at: c.created_at,
        }
    }
}

/// Lists conversations, the latest message first.
#[utoipa::path(
    get, path = "/conversations", tag = "conversations", description = "Needs `conversations:read`.",
    params(
        ("tenant" = String, Path, description = "The tenant's name in URLs"),
        ("state" = inline(Option<ConversationState>), Query),
        ("channel_account_id" = Option<Uuid>, Query),
        ("contact_id" = Option<Uuid>, Query),
        ("unread" = Option<bool>, Query, description = "Only with (true) or only without (false) unread messages"),
        ("limit" = Option<i64>, Query, description = "1 to 200, default 50"),
        ("cursor" = Option<String>, Query, description = "`next` of the page before"),
    ),
    responses(
        (status = OK, body = Page<ConversationView>),
        (status = "default", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn list(
    State(app): State<App>,
    caller: Caller<ConversationsRead>,
    mut params: Params,
) -> Result<View<Page<ConversationView>>> {
    let limit = params.limit()?;
    let before = params.take::<Cursor>("cursor")?.map(|cursor| (cursor.at, ConversationId(cursor.id)));
    let filter = Filter {
        state: params.take::<ConversationState>("state")?.map(ConversationState::as_str),
        channel_account_id: params.take::<ChannelAccountId>("channel_account_id")?,
        contact_id: params.take::<ContactId>("contact_id")?,
        unread: params.take::<bool>("unread")?,
    };
    params.finish()?;
    let mut tx = caller.begin(&app).await?;
    let rows = db::conversations::list(&mut tx, &filter, before, limit + 1).await?;
    tx.commit().await?;
    let now = app.clock.now();
    let cursor = |c: &Conversation| Cursor { at: c.last_message_at, id: c.id.0 }.to_string();
    Ok(View(Page::of(rows, limit, cursor, |c| ConversationView::of(c, now))))
}

/// Shows a conversation.
#[utoipa::path(
    get, path = "/conversations/{id}", tag = "conversations", description = "Needs `conversations:read`.",
    params(("tenant" = String, Path), ("id" = Uuid, Path)),
    responses(
        (status = OK, body = ConversationView),
        (status = "default", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn show(
    State(app): State<App>,
    caller: Caller<ConversationsRead>,
    Id(id): Id<ConversationId>,
) -> Result<View<ConversationView>> {
    let mut tx = caller.begin(&app).await?;
    let found = db::conversations::find(&mut tx, id).await?.ok_or_else(|| Problem::not_found("conversation"))?;
    tx.commit().await?;
    Ok(View(ConversationView::of(found, app.clock.now())))
}

/// Marks everything in a conversation as read, and tells the person so where the channel has read receipts.
#[utoipa::path(
    post, path = "/conversations/{id}/read", tag = "conversations", description = "Needs `messages:send`.",
    params(("tenant" = String, Path), ("id" = Uuid, Path)),
    responses(
        (status = ACCEPTED),
        (status = "default", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn read(State(app): State<App>, caller: Caller<MessagesSend>, Id(id): Id<ConversationId>) -> Result<StatusCode> {
    let mut tx = caller.begin(&app).await?;
    if !db::conversations::mark_read(&mut tx, id).await? {
        return Err(Problem::not_found("conversation").into());
    }
    signal(&app, &caller, tx, id, SignalKind::Read).await
}

/// Tells the person that an answer is being written, where the channel can; it shows for about 20 seconds. On WhatsApp they see that
/// they are read, too.
#[utoipa::path(
    post, path = "/conversations/{id}/typing", tag = "conversations", description = "Needs `messages:send`.",
    params(("tenant" = String, Path), ("id" = Uuid, Path)),
    responses(
        (status = ACCEPTED),
        (status = "default", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn typing(
    State(app): State<App>,
    caller: Caller<MessagesSend>,
    Id(id): Id<ConversationId>,
) -> Result<StatusCode> {
    let mut tx = caller.begin(&app).await?;
    if db::conversations::find(&mut tx, id).await?.is_none() {
        return Err(Problem::not_found("conversation").into());
    }
    signal(&app, &caller, tx, id, SignalKind::Typing).await
}

async fn signal(
    app: &App,
    caller: &Caller<MessagesSend>,
    mut tx: db::TenantTx,
    conversation_id: ConversationId,
    signal: SignalKind,
) -> Result<StatusCode> {
    let job = SignalJob { tenant_id: caller.tenant_id, conversation_id, signal, at: app.clock.now() };
    tx.enqueue(OUTBOUND_NOW.name, job.to_job(), None);
    let due = tx.commit().await?;
    app.relay.publish(caller.placement.clone(), due).await;
    Ok(StatusCode::ACCEPTED)
}
