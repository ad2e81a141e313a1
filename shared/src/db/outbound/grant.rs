//! The grant: claim and metering in one statement (`grant.sql`).

use crate::{
    db::{error::Result, scope::FleetTx},
    domain::{
        ids::{AttemptId, ChannelAccountId, ConversationId, MessageId, TenantId},
        sends::SendState,
    },
};
use chrono::{DateTime, Utc};
use std::time::Duration;
use uuid::Uuid;

/// A send that a worker holds a job for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Whose.
    pub tenant_id: TenantId,
    /// Which.
    pub message_id: MessageId,
    /// The attempt it becomes if granted.
    pub attempt_id: AttemptId,
}

/// What a worker learns of a send it asked for.
#[derive(Debug)]
pub struct Judged {
    /// Whose.
    pub tenant_id: TenantId,
    /// Which.
    pub message_id: MessageId,
    /// On which account.
    pub channel_account_id: ChannelAccountId,
    /// The account's revision.
    pub account_revision: i32,
    /// In which conversation.
    pub conversation_id: ConversationId,
    /// The answer.
    pub answer: Answer,
}

/// Whether a send may go.
#[derive(Debug)]
pub enum Answer {
    /// It is claimed for this attempt: call the provider at once.
    Granted(Box<Grant>),
    /// It may not go now.
    NotNow(Obstacle),
}

/// A claimed send.
#[derive(Debug)]
pub struct Grant {
    /// The attempt.
    pub attempt_id: AttemptId,
    /// How many attempts there were, this one included.
    pub attempts: i32,
    /// When it was granted, by the database's clock.
    pub granted_at: DateTime<Utc>,
    /// When the send was accepted from its author.
    pub created_at: DateTime<Utc>,
    /// `phone` or `bsuid`.
    pub recipient_kind: String,
    /// The address.
    pub recipient: String,
    /// What to send, as the API stored it.
    pub content: serde_json::Value,
    /// The provider's id of the message it answers.
    pub quotes: Option<String>,
}

/// Why a send may not go now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// An earlier message of the conversation is not settled yet; settling it wakes this one.
    Turn,
    /// The account's rate is spent: its turn at the meter comes after so long.
    Rate(Duration),
    /// It is due in so long, by the database's clock.
    NotDue(Duration),
    /// The account cannot send; its return wakes this one.
    AccountDown,
    /// The customer service window is closed.
    WindowClosed,
    /// Another attempt has it until its deadline, so long from now; `None`: the deadline has passed.
    Claimed {
        /// The other attempt.
        attempt_id: Option<AttemptId>,
        /// Time left.
        left: Option<Duration>,
    },
    /// It is settled, held or unknown: there is nothing to send.
    Settled(SendState),
}

/// Asks for grants for sends of one placement. `call_within` is how long a granted one may take until its fate counts as
/// unknown. A send that does not exist is missing from the answer.
///
/// # Errors
/// If the database does not answer.
pub async fn grant(tx: &mut FleetTx, held: &[Held], call_within: Duration) -> Result<Vec<Judged>> {
    let tenants: Vec<Uuid> = held.iter().map(|h| h.tenant_id.0).collect();
    let messages: Vec<Uuid> = held.iter().map(|h| h.message_id.0).collect();
    let attempts: Vec<Uuid> = held.iter().map(|h| h.attempt_id.0).collect();
    let rows =
        sqlx::query_file!("src/db/outbound/grant.sql", &tenants, &messages, &attempts, call_within.as_secs_f64(),)
            .fetch_all(tx.conn())
            .await?;
    Ok(rows
        .into_iter()
        .map(|row| {
            let seconds = |s: Option<f64>| Duration::from_secs_f64(s.unwrap_or(0.0).clamp(0.0, 86_400.0));
            let answer = match (row.obstacle.as_deref(), row.recipient_kind, row.recipient, row.content) {
                (None, Some(recipient_kind), Some(recipient), Some(content)) => Answer::Granted(Box::new(Grant {
                    attempt_id: AttemptId(row.new_attempt_id),
                    attempts: row.attempts.unwrap_or(1),
                    granted_at: row.granted_at.unwrap_or_default(),
                    created_at: row.created_at.unwrap_or_default(),
                    recipient_kind,
                    recipient,
                    content,
                    quotes: row.refers_to,
                })),
                (obstacle, ..) => Answer::NotNow(match obstacle {
                    Some("turn") => Obstacle::Turn,
                    Some("not_due") => Obstacle::NotDue(seconds(row.due_in_seconds)),
                    Some("account_down") => Obstacle::AccountDown,
                    Some("window_closed") => Obstacle::WindowClosed,
                    Some("state") if row.state == "sending" => Obstacle::Claimed {
                        attempt_id: row.attempt_id.map(AttemptId),
                        left: row.deadline_in_seconds.filter(|s| *s > 0.0).map(|s| seconds(Some(s))),
                    },
                    Some("state") => Obstacle::Settled(SendState::from_name(&row.state).unwrap_or(SendState::Failed)),
                    _ => Obstacle::Rate(seconds(row.rate_wait_seconds)),
                }),
            };
            Judged {
                tenant_id: TenantId(row.tenant_id),
                message_id: MessageId(row.message_id),
                channel_account_id: ChannelAccountId(row.channel_account_id),
                account_revision: row.account_revision,
                conversation_id: ConversationId(row.conversation_id),
                answer,
            }
        })
        .collect())
}
