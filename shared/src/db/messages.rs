//! Messages, as the API lists, shows and accepts them.

use super::{TenantTx, conversations::Locked, error::Result};
use crate::domain::{
    content::{Class, OutboundContent},
    ids::{ApiTokenId, AttemptId, ConversationId, MessageId},
    people::Address,
    sends::SendState,
};
use chrono::{DateTime, Utc};
use serde_json::Value;

/// A message with where its send stands.
#[derive(Clone, Debug)]
pub struct Message {
    /// Its id.
    pub id: MessageId,
    /// In which conversation.
    pub conversation_id: ConversationId,
    /// in or out.
    pub direction: String,
    /// text, image, template …
    pub kind: String,
    /// What a person reads.
    pub text: Option<String>,
    /// The files, by reference.
    pub media: Option<Value>,
    /// In: the provider's element. Out: what we were asked to send.
    pub content: Value,
    /// The provider's id of the message this one answers, reacts to, edits or revokes.
    pub refers_to: Option<String>,
    /// The provider's id of this one.
    pub provider_message_id: Option<String>,
    /// The provider's time (in), the time of acceptance (out).
    pub at: DateTime<Utc>,
    /// Where the send stands (out); waiting for its turn if it is queued behind another of its conversation.
    pub state: Option<String>,
    /// Why it waits.
    pub wait_reason: Option<String>,
    /// How often it was tried.
    pub attempts: Option<i32>,
    /// Whether it may have arrived twice.
    pub possibly_doubled: Option<bool>,
    /// The provider's code of a failure.
    pub code: Option<String>,
    /// What it means.
    pub reason: Option<String>,
    /// When the provider took it.
    pub sent_at: Option<DateTime<Utc>>,
    /// When the person's device had it.
    pub delivered_at: Option<DateTime<Utc>>,
    /// When the person saw it.
    pub read_at: Option<DateTime<Utc>>,
    /// When it failed.
    pub failed_at: Option<DateTime<Utc>>,
    /// Whether a campaign sends it.
    pub of_campaign: Option<bool>,
}

/// One try at handing a message to the provider that has ended.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// Its id.
    pub id: AttemptId,
    /// 1 for the first.
    pub number: i32,
    /// accepted, not_sent, unknown, failed …
    pub outcome: String,
    /// The provider's code.
    pub code: Option<String>,
    /// What it means.
    pub reason: Option<String>,
    /// When it was allowed to be made.
    pub granted_at: Option<DateTime<Utc>>,
    /// When it ended.
    pub ended_at: DateTime<Utc>,
}

/// One thing that was reported or decided about a message.
#[derive(Clone, Debug)]
pub struct Step {
    /// What.
    pub event: String,
    /// When, by the provider's time where it was the provider's.
    pub at: DateTime<Utc>,
    /// The provider's code.
    pub code: Option<String>,
    /// What it means.
    pub reason: Option<String>,
}

/// What is to be sent, as it was checked.
#[derive(Clone, Copy, Debug)]
pub struct Sending<'a> {
    /// To whom.
    pub address: &'a Address,
    /// What is said.
    pub content: &'a OutboundContent,
    /// The provider's id of the message that it answers or reacts to.
    pub refers_to: Option<&'a str>,
    /// What it takes of its account's rate.
    pub units: i16,
    /// Whether it may only go inside the customer service window.
    pub needs_window: bool,
    /// Whether it goes as a person's answer where the window is closed.
    pub human_agent: bool,
    /// After this it is of no use any more.
    pub expires_at: Option<DateTime<Utc>>,
}

/// A message accepted for sending.
#[derive(Clone, Copy, Debug)]
pub struct Accepted {
    /// Its id.
    pub id: MessageId,
    /// When it was accepted, by the database's clock.
    pub at: DateTime<Utc>,
    /// Whether no earlier message of the conversation is unsettled. Only the head has a job; the transaction that settles
    /// a message writes the next one's.
    pub head: bool,
}

/// A page of a conversation's messages, the latest first, below `before`.
///
/// # Errors
/// If the database does not answer.
pub async fn list(
    tx: &mut TenantTx,
    conversation_id: ConversationId,
    before: Option<(DateTime<Utc>, MessageId)>,
    limit: i64,
) -> Result<Vec<Message>> {
    let tenant_id = tx.tenant_id();
    let messages = sqlx::query_as!(
        Message,
        r#"SELECT m.id AS "id: MessageId", m.conversation_id AS "conversation_id: ConversationId", m.direction, m.kind,
            m.text, m.media, m.content, m.refers_to,
            COALESCE(m.provider_message_id, s.provider_message_id) AS provider_message_id, m.at,
            CASE WHEN turn.is_anothers THEN 'waiting' ELSE s.state END AS "state?",
            CASE WHEN turn.is_anothers THEN 'turn' ELSE s.wait_reason END AS "wait_reason?", s.attempts AS "attempts?",
            s.possibly_doubled AS "possibly_doubled?", s.code AS "code?", s.reason AS "reason?",
            s.sent_at, s.delivered_at, s.read_at, s.failed_at, s.campaign_id IS NOT NULL AS "of_campaign?"
        FROM messages m
        LEFT JOIN sends s ON s.tenant_id = m.tenant_id AND s.message_id = m.id
        -- What is accepted behind another has no job, and is queued by its row alone: it waits for its turn.
        LEFT JOIN LATERAL (
            SELECT true AS is_anothers
            FROM sends earlier
            WHERE s.state = 'queued' AND s.lane = 0 AND s.seq > 1 AND earlier.lane = 0
                AND earlier.tenant_id = s.tenant_id AND earlier.conversation_id = s.conversation_id AND earlier.seq < s.seq
                AND (earlier.state IN ('waiting', 'queued', 'sending') OR (earlier.state = 'unknown' AND NOT earlier.turn_released))
            ORDER BY earlier.seq DESC
            LIMIT 1
        ) AS turn ON true
        WHERE m.tenant_id = $1
            -- What was folded into another is there.
            AND m.conversation_id = (SELECT coalesce(merged_into, id) FROM conversations WHERE tenant_id = $1 AND id = $2)
            AND (m.at, m.id)
                < (COALESCE($3, 'infinity'::timestamptz), COALESCE($4, 'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid))
        ORDER BY m.at DESC, m.id DESC
        LIMIT $5"#,
        tenant_id.0,
        conversation_id.0,
        before.map(|(at, _)| at),
        before.map(|(_, id)| id.0),
        limit,
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(messages)
}

/// One message.
///
/// # Errors
/// If the database does not answer.
pub async fn find(tx: &mut TenantTx, id: MessageId) -> Result<Option<Message>> {
    read(tx, id, None).await
}

/// One that was just accepted: whether it waits for its turn need not be looked for.
///
/// # Errors
/// If the database does not answer.
pub async fn find_accepted(tx: &mut TenantTx, accepted: &Accepted) -> Result<Option<Message>> {
    read(tx, accepted.id, Some(!accepted.head)).await
}

/// `waits` is whether it waits for its turn, where that is known.
async fn read(tx: &mut TenantTx, id: MessageId, waits: Option<bool>) -> Result<Option<Message>> {
    let tenant_id = tx.tenant_id();
    let message = sqlx::query_as!(
        Message,
        r#"SELECT m.id AS "id: MessageId", m.conversation_id AS "conversation_id: ConversationId", m.direction, m.kind,
            m.text, m.media, m.content, m.refers_to,
            COALESCE(m.provider_message_id, s.provider_message_id) AS provider_message_id, m.at,
            CASE WHEN coalesce($3, turn.is_anothers) THEN 'waiting' ELSE s.state END AS "state?",
            CASE WHEN coalesce($3, turn.is_anothers) THEN 'turn' ELSE s.wait_reason END AS "wait_reason?", s.attempts AS "attempts?",
            s.possibly_doubled AS "possibly_doubled?", s.code AS "code?", s.reason AS "reason?",
            s.sent_at, s.delivered_at, s.read_at, s.failed_at, s.campaign_id IS NOT NULL AS "of_campaign?"
        FROM messages m
        LEFT JOIN sends s ON s.tenant_id = m.tenant_id AND s.message_id = m.id
        -- What is accepted behind another has no job, and is queued by its row alone: it waits for its turn.
        LEFT JOIN LATERAL (
            SELECT true AS is_anothers
            FROM sends earlier
            WHERE $3::bool IS NULL AND s.state = 'queued' AND s.lane = 0 AND s.seq > 1 AND earlier.lane = 0
                AND earlier.tenant_id = s.tenant_id AND earlier.conversation_id = s.conversation_id AND earlier.seq < s.seq
                AND (earlier.state IN ('waiting', 'queued', 'sending') OR (earlier.state = 'unknown' AND NOT earlier.turn_released))
            ORDER BY earlier.seq DESC
            LIMIT 1
        ) AS turn ON true
        WHERE m.tenant_id = $1 AND m.id = $2"#,
        tenant_id.0,
        id.0,
        waits,
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(message)
}

/// The message that a provider calls so, over whichever account of the tenant it went; of several the newest.
///
/// # Errors
/// If the database does not answer.
pub async fn called(tx: &mut TenantTx, provider_message_id: &str) -> Result<Option<MessageId>> {
    let tenant_id = tx.tenant_id();
    // Account by account: the key begins so.
    let id = sqlx::query_scalar!(
        r#"SELECT r.message_id AS "id!: MessageId"
        FROM channel_accounts a
        JOIN provider_refs r ON r.tenant_id = a.tenant_id AND r.channel_account_id = a.id AND r.provider_message_id = $2
        WHERE a.tenant_id = $1 AND r.message_id IS NOT NULL
        ORDER BY r.created_at DESC
        LIMIT 1"#,
        tenant_id.0,
        provider_message_id,
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(id)
}

/// The provider's id of a message of a conversation; `None` if there is no such message there, or the provider does not know it.
///
/// # Errors
/// If the database does not answer.
pub async fn provider_id(tx: &mut TenantTx, conversation_id: ConversationId, id: MessageId) -> Result<Option<String>> {
    let tenant_id = tx.tenant_id();
    let found = sqlx::query_scalar!(
        r#"SELECT coalesce(m.provider_message_id, s.provider_message_id) AS id
        FROM messages m
        LEFT JOIN sends s ON s.tenant_id = m.tenant_id AND s.message_id = m.id
        WHERE m.tenant_id = $1 AND m.id = $2 AND m.conversation_id = $3"#,
        tenant_id.0,
        id.0,
        conversation_id.0,
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(found.flatten())
}

/// A message's attempts that have ended, in order.
///
/// # Errors
/// If the database does not answer.
pub async fn attempts(tx: &mut TenantTx, id: MessageId) -> Result<Vec<Attempt>> {
    let tenant_id = tx.tenant_id();
    let attempts = sqlx::query_as!(
        Attempt,
        r#"SELECT id AS "id: AttemptId", number, outcome, code, reason, granted_at, ended_at
        FROM send_attempts
        WHERE tenant_id = $1 AND message_id = $2
        ORDER BY number, ended_at"#,
        tenant_id.0,
        id.0,
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(attempts)
}

/// What was reported and decided about a message, in order.
///
/// # Errors
/// If the database does not answer.
pub async fn trail(tx: &mut TenantTx, id: MessageId) -> Result<Vec<Step>> {
    let tenant_id = tx.tenant_id();
    let steps = sqlx::query_as!(
        Step,
        "SELECT event, at, code, reason
        FROM trail
        WHERE tenant_id = $1 AND message_id = $2
        ORDER BY at, recorded_at",
        tenant_id.0,
        id.0,
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(steps)
}

/// Accepts a message for sending into a conversation locked by this transaction.
///
/// # Errors
/// If the database does not answer.
pub async fn accept(
    tx: &mut TenantTx,
    conversation: &Locked,
    sending: &Sending<'_>,
    author: ApiTokenId,
) -> Result<Accepted> {
    let tenant_id = tx.tenant_id();
    // Whoever settles one of these holds its row until it has committed, and then looks for a next one. So either we see
    // it settled and are the head, or it sees us and writes our job.
    let unsettled = sqlx::query!(
        "SELECT message_id
        FROM sends
        WHERE tenant_id = $1
            AND conversation_id = $2
            AND lane = 0
            AND (state IN ('waiting', 'queued', 'sending') OR (state = 'unknown' AND NOT turn_released))
        ORDER BY message_id
        FOR UPDATE",
        tenant_id.0,
        conversation.id.0,
    )
    .fetch_all(tx.conn())
    .await?;
    let Sending { address, content, refers_to, units, needs_window, human_agent, expires_at } = *sending;
    let id = MessageId::new();
    let at = sqlx::query_scalar!(
        r#"WITH conversation AS (
            UPDATE conversations
            SET last_send_seq = last_send_seq + 1,
                messages_out = messages_out + 1,
                state = CASE state WHEN 'new' THEN 'open' ELSE state END,
                listed = true,
                last_message_text = CASE WHEN clock_timestamp() >= last_message_at THEN $4 ELSE last_message_text END,
                last_message_direction = CASE WHEN clock_timestamp() >= last_message_at THEN 'out' ELSE last_message_direction END,
                last_message_at = GREATEST(last_message_at, clock_timestamp())
            WHERE tenant_id = $1 AND id = $2
            RETURNING last_send_seq
        ), message AS (
            INSERT INTO messages (tenant_id, id, conversation_id, direction, kind, text, content, refers_to, at, author)
            VALUES ($1, $3, $2, 'out', $5, $4, $6, $13, clock_timestamp(), $7)
            RETURNING at
        )
        INSERT INTO sends (tenant_id, message_id, conversation_id, channel_account_id, seq, lane,
            recipient_kind, recipient, needs_window, state, units, heavy, human_agent, expires_at)
        SELECT $1, $3, $2, $8, conversation.last_send_seq, 0, $9, $10, $11, $12, $14, $15, $16, $17
        FROM conversation
        RETURNING (SELECT at FROM message) AS "at!""#,
        tenant_id.0,
        conversation.id.0,
        id.0,
        content.preview(),
        content.kind().as_str(),
        serde_json::to_value(content).expect("plain fields are always JSON"),
        author.0,
        conversation.channel_account_id.0,
        address.kind.as_str(),
        address.value,
        needs_window,
        SendState::Queued.as_str(),
        refers_to,
        units,
        content.class() == Class::Heavy,
        human_agent,
        expires_at,
    )
    .fetch_one(tx.conn())
    .await?;
    Ok(Accepted { id, at, head: unsettled.is_empty() })
}
