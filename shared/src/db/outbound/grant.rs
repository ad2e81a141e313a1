//! The grant, in one transaction: what may go is found (`judge.sql`), the meters of its accounts are locked (`meter.sql`), as
//! many as they allow are claimed (`claim.sql`), and the meters move on by as many. Small statements rather than one: joining
//! the parts of one with each other took time by the square of a question's size.

use crate::{
    db::{error::Result, scope::FleetTx},
    domain::{
        ids::{AttemptId, ChannelAccountId, ConversationId, MessageId, TenantId},
        sends::SendState,
    },
};
use chrono::{DateTime, TimeDelta, Utc};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};
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

/// How many calls a worker can make at once, so that an account whose provider is slow does not take all of them.
#[derive(Clone, Debug, Default)]
pub struct Room {
    /// For an account with no call under way.
    pub per_account: usize,
    /// What is left for those with calls under way.
    pub left: Vec<(ChannelAccountId, usize)>,
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
    /// What to send, as the API stored it: JSON.
    pub content: String,
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
    /// So many calls for the account are under way in this worker that there is no room for another.
    Room,
    /// It is due in so long, by the database's clock.
    NotDue(Duration),
    /// The account cannot send; its return wakes this one.
    AccountDown,
    /// Its campaign is paused; that it goes on wakes this one.
    CampaignPaused,
    /// Its campaign has ended without it.
    CampaignOver,
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

/// A send that may go as far as it itself is concerned.
struct Eligible {
    lane: i16,
    judged: usize,
    attempt_id: AttemptId,
}

/// What an account's meter allows.
struct Meter {
    sustained: f64,
    start_at: DateTime<Utc>,
    allowed: usize,
    burst: f64,
    free_in: f64,
    stopped_for: f64,
}

type Account = (TenantId, ChannelAccountId);

/// Asks for grants for sends of one placement, no more of an account than there is room for. `call_within` is how long a
/// granted one may take until its fate counts as unknown. A send that does not exist is missing from the answer.
///
/// # Errors
/// If the database does not answer.
pub async fn grant(tx: &mut FleetTx, held: &[Held], call_within: Duration, room: &Room) -> Result<Vec<Judged>> {
    let (mut judged, eligible) = judge(tx, held).await?;
    if eligible.is_empty() {
        return Ok(judged);
    }
    let accounts: BTreeSet<Account> = eligible.keys().copied().collect();
    let (now, meters) = meters(tx, &accounts).await?;
    let mut claims = Vec::new();
    for (account, mut sends) in eligible {
        // `now` before `bulk`, then in the order of acceptance.
        sends.sort_by_key(|send| (send.lane, judged[send.judged].message_id));
        let left = room.left.iter().find(|(id, _)| *id == account.1).map_or(room.per_account, |(_, left)| *left);
        let meter = meters.get(&account);
        for (position, send) in sends.into_iter().enumerate() {
            let answer = &mut judged[send.judged].answer;
            match meter {
                _ if position >= left => *answer = Answer::NotNow(Obstacle::Room),
                Some(meter) if position >= meter.allowed => {
                    let wait = meter.free_in + ((position + 1) as f64 - meter.burst) / meter.sustained;
                    *answer = Answer::NotNow(Obstacle::Rate(seconds(wait.max(meter.stopped_for))));
                }
                _ => claims.push(send),
            }
        }
    }
    let granted = claim(tx, &mut judged, &claims, now, call_within).await?;
    advance(tx, &granted, &meters).await?;
    Ok(judged)
}

async fn judge(tx: &mut FleetTx, held: &[Held]) -> Result<(Vec<Judged>, BTreeMap<Account, Vec<Eligible>>)> {
    let tenants: Vec<Uuid> = held.iter().map(|h| h.tenant_id.0).collect();
    let messages: Vec<Uuid> = held.iter().map(|h| h.message_id.0).collect();
    let attempts: Vec<Uuid> = held.iter().map(|h| h.attempt_id.0).collect();
    let rows =
        sqlx::query_file!("src/db/outbound/judge.sql", &tenants, &messages, &attempts).fetch_all(tx.conn()).await?;
    let mut eligible: BTreeMap<Account, Vec<Eligible>> = BTreeMap::new();
    let mut judged = Vec::with_capacity(rows.len());
    for row in rows {
        let (tenant_id, channel_account_id) = (TenantId(row.tenant_id), ChannelAccountId(row.channel_account_id));
        let state = SendState::from_name(&row.state).unwrap_or(SendState::Failed);
        let obstacle = match row.obstacle.as_deref() {
            None => {
                let send = Eligible { lane: row.lane, judged: judged.len(), attempt_id: AttemptId(row.new_attempt_id) };
                eligible.entry((tenant_id, channel_account_id)).or_default().push(send);
                // Until its claim is answered: somebody else may be first.
                Obstacle::Rate(Duration::ZERO)
            }
            Some("turn") => Obstacle::Turn,
            Some("not_due") => Obstacle::NotDue(seconds(row.due_in_seconds.unwrap_or(0.0))),
            Some("account_down") => Obstacle::AccountDown,
            Some("campaign_paused") => Obstacle::CampaignPaused,
            Some("campaign_over") => Obstacle::CampaignOver,
            Some("window_closed") => Obstacle::WindowClosed,
            Some(_) if state == SendState::Sending => Obstacle::Claimed {
                attempt_id: row.attempt_id.map(AttemptId),
                left: row.deadline_in_seconds.filter(|s| *s > 0.0).map(seconds),
            },
            Some(_) => Obstacle::Settled(state),
        };
        judged.push(Judged {
            tenant_id,
            message_id: MessageId(row.message_id),
            channel_account_id,
            account_revision: row.account_revision,
            conversation_id: ConversationId(row.conversation_id),
            answer: Answer::NotNow(obstacle),
        });
    }
    Ok((judged, eligible))
}

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds.clamp(0.0, 86_400.0))
}

/// Locks the meters of these accounts. The time once all are locked, and what those that are limited allow.
async fn meters(tx: &mut FleetTx, accounts: &BTreeSet<Account>) -> Result<(DateTime<Utc>, BTreeMap<Account, Meter>)> {
    let tenants: Vec<Uuid> = accounts.iter().map(|(tenant_id, _)| tenant_id.0).collect();
    let ids: Vec<Uuid> = accounts.iter().map(|(_, id)| id.0).collect();
    let rows = sqlx::query_file!("src/db/outbound/meter.sql", &tenants, &ids).fetch_all(tx.conn()).await?;
    let now = rows.first().map(|row| row.now).unwrap_or_default();
    let meters = rows.into_iter().filter_map(|row| {
        let meter = Meter {
            sustained: row.sustained?,
            start_at: row.start_at?,
            // A float to an integer saturates, and the statement leaves nothing below zero.
            allowed: row.allowed? as usize,
            burst: row.burst?,
            free_in: row.free_in_seconds?,
            stopped_for: row.stopped_for_seconds?,
        };
        Some(((TenantId(row.tenant_id?), ChannelAccountId(row.channel_account_id?)), meter))
    });
    Ok((now, meters.collect()))
}

/// Claims these and writes the grants among the answers. How many were granted on each account.
async fn claim(
    tx: &mut FleetTx,
    judged: &mut [Judged],
    claims: &[Eligible],
    now: DateTime<Utc>,
    call_within: Duration,
) -> Result<BTreeMap<Account, usize>> {
    let mut granted: BTreeMap<Account, usize> = BTreeMap::new();
    if claims.is_empty() {
        return Ok(granted);
    }
    let tenants: Vec<Uuid> = claims.iter().map(|send| judged[send.judged].tenant_id.0).collect();
    let messages: Vec<Uuid> = claims.iter().map(|send| judged[send.judged].message_id.0).collect();
    let attempts: Vec<Uuid> = claims.iter().map(|send| send.attempt_id.0).collect();
    let within = call_within.as_secs_f64();
    let rows = sqlx::query_file!("src/db/outbound/claim.sql", &tenants, &messages, &attempts, now, within)
        .fetch_all(tx.conn())
        .await?;
    let claims: HashMap<(TenantId, MessageId), &Eligible> =
        claims.iter().map(|send| ((judged[send.judged].tenant_id, judged[send.judged].message_id), send)).collect();
    for row in rows {
        let Some(send) = claims.get(&(TenantId(row.tenant_id), MessageId(row.message_id))) else { continue };
        let judged = &mut judged[send.judged];
        judged.answer = Answer::Granted(Box::new(Grant {
            attempt_id: send.attempt_id,
            attempts: row.attempts,
            granted_at: now,
            created_at: row.created_at,
            recipient_kind: row.recipient_kind,
            recipient: row.recipient,
            content: row.content,
            quotes: row.refers_to,
        }));
        *granted.entry((judged.tenant_id, judged.channel_account_id)).or_default() += 1;
    }
    Ok(granted)
}

/// The meters move on by what was granted.
async fn advance(
    tx: &mut FleetTx,
    granted: &BTreeMap<Account, usize>,
    meters: &BTreeMap<Account, Meter>,
) -> Result<()> {
    let advanced: Vec<(Account, &Meter, usize)> =
        granted.iter().filter_map(|(account, count)| Some((*account, meters.get(account)?, *count))).collect();
    if advanced.is_empty() {
        return Ok(());
    }
    let tenants: Vec<Uuid> = advanced.iter().map(|((tenant_id, _), ..)| tenant_id.0).collect();
    let ids: Vec<Uuid> = advanced.iter().map(|((_, id), ..)| id.0).collect();
    // Whole microseconds, rounded up: the clock's grain must not let one more through in a second.
    let next: Vec<DateTime<Utc>> = advanced
        .iter()
        .map(|(_, meter, count)| {
            let micros = (*count as f64 * 1_000_000.0 / meter.sustained).ceil();
            meter.start_at + TimeDelta::microseconds(micros as i64)
        })
        .collect();
    sqlx::query!(
        "UPDATE limits l
        SET next_at = moved.next_at
        FROM unnest($1::uuid[], $2::uuid[], $3::timestamptz[]) AS moved (tenant_id, key, next_at)
        WHERE l.tenant_id = moved.tenant_id AND l.scope = 'account' AND l.key = moved.key",
        &tenants,
        &ids,
        &next,
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}
