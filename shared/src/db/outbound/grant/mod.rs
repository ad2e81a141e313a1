//! The grant, in one transaction: what may go is found (`judge.sql`), the limits of its accounts are locked (`meter.sql`) and,
//! where an account has limits about people, these are read (`people.sql`); as many as all allow are claimed (`claim.sql`), and
//! the meters move on by as many. Small statements rather than one: joining the parts of one with each other took time by the
//! square of a question's size.
//!
//! Who grants for an account holds all its limits, so what is read after that (people, what was received) changes under nobody.

mod meters;
mod people;

pub use meters::ANSWER_AGAIN;

use self::{
    meters::{Meters, Move, Rates, Taken, rates},
    people::{Asked, People, Refusal},
};
use super::{
    probes,
    turns::{CAMPAIGN_LANE, NOW_LANE},
};
use crate::{
    db::{error::Result, scope::FleetTx},
    domain::{
        channel::{Channel, Provider},
        content::Class,
        ids::{AttemptId, ChannelAccountId, ConversationId, MessageId, TenantId},
        sends::SendState,
    },
};
use chrono::{DateTime, Utc};
use sqlx::types::Json;
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
    /// On which channel.
    pub channel: Channel,
    /// The account's revision.
    pub account_revision: i32,
    /// Whether the account is down, and this finds out if it is back.
    pub probe: bool,
    /// Whether the account's calls come one at a time, whoever makes them.
    pub serial: bool,
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
    /// How often it has failed with an obstacle of each class (`domain::outcome::Class`).
    pub failed_before: BTreeMap<String, u32>,
    /// Since when it has been tried: the first attempt's grant, or the first since it was let go again.
    pub tried_since: DateTime<Utc>,
    /// What kind of address it is, as `domain::people::RecipientKind` says.
    pub recipient_kind: String,
    /// The address.
    pub recipient: String,
    /// What to send, as the API stored it: JSON.
    pub content: String,
    /// The provider's id of the message it answers or reacts to.
    pub refers_to: Option<String>,
    /// Whether the window is closed, and it goes as a person's answer.
    pub human_agent: bool,
    /// For how long it is of use, if that is said.
    pub valid_for: Option<Duration>,
}

/// Why a send may not go now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// An earlier message of the conversation is not settled yet; settling it wakes this one.
    Turn,
    /// The account's rate is spent: its turn at the meter comes after so long.
    Rate(Duration),
    /// The person gets no more for so long.
    Pair(Duration),
    /// The account's portfolio has reached as many people as it may in a day; the next place is free in so long.
    Portfolio(Duration),
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
    /// It is of no use any more.
    Expired,
    /// The person does not want it.
    OptedOut,
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
    units: usize,
    heavy: bool,
    judged: usize,
    attempt_id: AttemptId,
    contact_id: Uuid,
    /// For how much longer than others its call may take.
    longer: Duration,
}

/// The sends of an account that may go as far as they themselves are concerned.
#[derive(Default)]
struct Candidates {
    portfolio: Option<Uuid>,
    sends: Vec<Eligible>,
}

type Account = (TenantId, ChannelAccountId);

/// What waits for another call of an account whose calls come one at a time asks again after this.
const SERIAL_AGAIN: Duration = Duration::from_millis(250);

/// Where limits are about people, so many more than may go are looked at: some may have to wait because of whom they go to.
const SPARE: usize = 20;

/// Asks for grants for sends of one placement, no more of an account than there is room for. `call_within` is how long an ordinary
/// granted one may take until its fate counts as unknown; one that its provider takes longer for has so much longer. A send that does not exist is missing from the answer.
///
/// # Errors
/// If the database does not answer.
pub async fn grant(tx: &mut FleetTx, held: &[Held], call_within: Duration, room: &Room) -> Result<Vec<Judged>> {
    tx.look_up_by_key().await?;
    let (mut judged, mut eligible) = judge(tx, held).await?;
    if eligible.is_empty() {
        return Ok(judged);
    }
    for account in eligible.values_mut() {
        // `now` before `bulk`, then in the order of acceptance.
        account.sends.sort_by_key(|send| (send.lane, judged[send.judged].message_id));
    }
    let down: BTreeSet<Account> = eligible
        .iter()
        .filter(|(_, candidates)| candidates.sends.iter().any(|send| judged[send.judged].probe))
        .map(|(account, _)| *account)
        .collect();
    let portfolios = eligible.iter().map(|(account, candidates)| (*account, candidates.portfolio)).collect();
    let mut meters = Meters::lock(tx, &portfolios).await?;
    let asked = about_people(&judged, &eligible, &meters, room);
    let mut people = People::read(tx, &asked, &mut meters).await?;
    let asked: HashMap<(TenantId, MessageId), Asked> =
        asked.into_iter().map(|send| ((send.account.0, send.message_id), send)).collect();
    let mut moves: BTreeMap<Account, Move> = BTreeMap::new();
    let (mut claims, mut taken) = (Vec::new(), Taken::default());
    for (account, candidates) in eligible {
        // Of an account that is down one message goes, if it is time.
        let is_down = down.contains(&account);
        let is_serial = candidates.sends.iter().any(|send| judged[send.judged].serial);
        let mut left = match (is_down, is_serial) {
            (true, _) => 1,
            (false, true) => usize::from(!room.left.iter().any(|(id, _)| *id == account.1)),
            (false, false) => room_for(room, &account),
        };
        let about_people = is_about_people(&meters, &account, candidates.portfolio);
        let answers_wait = meters.answers_wait(&account);
        // The call that is under way ends when it ends, and nobody is told.
        let look_again = if is_serial { SERIAL_AGAIN } else { Duration::MAX };
        let moved = moves.entry(account).or_default();
        let (mut calls, mut waiting, mut answered) = (0, 0, false);
        for send in candidates.sends {
            let Judged { message_id, answer, .. } = &mut judged[send.judged];
            let rates = rates(&account, candidates.portfolio, send.heavy);
            let answer_waits = answers_wait.filter(|_| send.lane != NOW_LANE && !answered);
            let obstacle = if calls >= left {
                Some(match (is_down, is_serial) {
                    (true, _) => Obstacle::AccountDown,
                    // Of many that wait for a call only the first asks again soon.
                    (false, true) => {
                        let wait = meters.wait(&rates, &taken, send.units, waiting, look_again);
                        waiting += send.units;
                        Obstacle::Rate(wait.unwrap_or_default().max(SERIAL_AGAIN))
                    }
                    (false, false) => Obstacle::Room,
                })
            } else if let Some(wait) = answer_waits {
                Some(Obstacle::Rate(wait))
            } else if let Some(wait) = meters.wait(&rates, &taken, send.units, waiting, look_again) {
                waiting += send.units;
                if is_down {
                    left = 0;
                }
                if send.lane == NOW_LANE && moved.answer_waits.is_none() {
                    moved.answer_waits = Some(wait);
                }
                Some(Obstacle::Rate(wait))
            } else if about_people {
                match asked.get(&(account.0, *message_id)) {
                    Some(send) => people.admit(send, &mut meters).err().map(Into::into),
                    // So many before it had to wait for their people that it was not looked at: next time.
                    None => Some(Obstacle::Rate(Duration::ZERO)),
                }
            } else {
                None
            };
            match obstacle {
                Some(obstacle) => *answer = Answer::NotNow(obstacle),
                None => {
                    calls += 1;
                    taken.add(&rates, send.units);
                    answered |= send.lane == NOW_LANE;
                    claims.push((rates, send));
                }
            }
        }
    }
    // A try that nothing else is in the way of. After the limits: whoever locks both does so in this order.
    let may_try: BTreeSet<Account> = claims.iter().map(|(_, send)| account(&judged[send.judged])).collect();
    let may_try: BTreeSet<Account> = may_try.intersection(&down).copied().collect();
    let tried = probes::claim(tx, &may_try).await?;
    claims.retain(|(_, send)| {
        let judged = &mut judged[send.judged];
        let goes = !may_try.contains(&account(judged)) || tried.contains(&account(judged));
        if !goes {
            judged.answer = Answer::NotNow(Obstacle::AccountDown);
        }
        goes
    });
    let taken = claim(tx, &mut judged, &claims, meters.now, call_within, &mut moves).await?;
    // One that somebody else has, or who has opted out, was no try.
    let mut not_made: BTreeMap<Account, Duration> = tried.iter().map(|account| (*account, Duration::ZERO)).collect();
    judged.iter().filter(|judged| matches!(judged.answer, Answer::Granted(_))).for_each(|granted| {
        not_made.remove(&account(granted));
    });
    probes::not_made(tx, &not_made).await?;
    let granted: Vec<Asked> = judged
        .iter()
        .filter(|judged| matches!(judged.answer, Answer::Granted(_)))
        .filter_map(|judged| asked.get(&(judged.tenant_id, judged.message_id)).copied())
        .collect();
    people.keep(tx, &granted, &meters).await?;
    meters.advance(tx, &moves, &taken).await?;
    Ok(judged)
}

fn account(judged: &Judged) -> Account {
    (judged.tenant_id, judged.channel_account_id)
}

fn room_for(room: &Room, account: &Account) -> usize {
    room.left.iter().find(|(id, _)| *id == account.1).map_or(room.per_account, |(_, left)| *left)
}

/// Whom a portfolio reaches is known also while its day has no limit: one that is set later holds for the day up to then.
fn is_about_people(meters: &Meters, account: &Account, portfolio: Option<Uuid>) -> bool {
    meters.pair(account).is_some() || portfolio.is_some()
}

/// The sends whose people must be looked at: the first of each account with such a limit, as many as may go and some more.
fn about_people(
    judged: &[Judged],
    eligible: &BTreeMap<Account, Candidates>,
    meters: &Meters,
    room: &Room,
) -> Vec<Asked> {
    let mut asked = Vec::new();
    for (account, candidates) in eligible {
        if !is_about_people(meters, account, candidates.portfolio) {
            continue;
        }
        let may_go = meters.allowed(account).unwrap_or(usize::MAX).min(room_for(room, account));
        let looked_at = if may_go == 0 { 0 } else { may_go.saturating_add(SPARE) };
        asked.extend(candidates.sends.iter().take(looked_at).map(|send| {
            let message_id = judged[send.judged].message_id;
            Asked { account: *account, message_id, lane: send.lane, portfolio: candidates.portfolio }
        }));
    }
    asked
}

impl From<Refusal> for Obstacle {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Pair(wait) => Obstacle::Pair(wait),
            Refusal::Portfolio(wait) => Obstacle::Portfolio(wait),
        }
    }
}

async fn judge(tx: &mut FleetTx, held: &[Held]) -> Result<(Vec<Judged>, BTreeMap<Account, Candidates>)> {
    let tenants: Vec<Uuid> = held.iter().map(|h| h.tenant_id.0).collect();
    let messages: Vec<Uuid> = held.iter().map(|h| h.message_id.0).collect();
    let attempts: Vec<Uuid> = held.iter().map(|h| h.attempt_id.0).collect();
    let rows =
        sqlx::query_file!("src/db/outbound/judge.sql", &tenants, &messages, &attempts).fetch_all(tx.conn()).await?;
    let mut eligible: BTreeMap<Account, Candidates> = BTreeMap::new();
    let mut judged = Vec::with_capacity(rows.len());
    for row in rows {
        let (tenant_id, channel_account_id) = (TenantId(row.tenant_id), ChannelAccountId(row.channel_account_id));
        let state = SendState::from_name(&row.state).unwrap_or(SendState::Failed);
        let obstacle = match row.obstacle.as_deref() {
            None => {
                let send = Eligible {
                    lane: row.lane,
                    units: usize::try_from(row.units).unwrap_or(1),
                    heavy: row.heavy,
                    judged: judged.len(),
                    attempt_id: AttemptId(row.new_attempt_id),
                    contact_id: row.contact_id,
                    longer: longer(&row.provider, row.heavy, row.gateway_seconds),
                };
                let candidates = eligible.entry((tenant_id, channel_account_id)).or_default();
                candidates.portfolio = row.portfolio_id;
                candidates.sends.push(send);
                // Until its claim is answered: somebody else may be first.
                Obstacle::Rate(Duration::ZERO)
            }
            Some("turn") => Obstacle::Turn,
            Some("not_due") => Obstacle::NotDue(seconds(row.due_in_seconds.unwrap_or(0.0))),
            Some("account_down") => Obstacle::AccountDown,
            Some("campaign_paused") => Obstacle::CampaignPaused,
            Some("campaign_over") => Obstacle::CampaignOver,
            Some("window_closed") => Obstacle::WindowClosed,
            Some("expired") => Obstacle::Expired,
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
            channel: Channel::from_name(&row.channel).unwrap_or(Channel::Whatsapp),
            account_revision: row.account_revision,
            probe: row.probe,
            serial: row.serial,
            conversation_id: ConversationId(row.conversation_id),
            answer: Answer::NotNow(obstacle),
        });
    }
    Ok((judged, eligible))
}

fn longer(provider: &str, heavy: bool, gateway_seconds: i32) -> Duration {
    let class = if heavy { Class::Heavy } else { Class::Light };
    let fetching = provider.parse().map_or(Duration::ZERO, |provider: Provider| provider.fetches_for(class));
    fetching + Duration::from_secs(gateway_seconds.max(0).unsigned_abs().into())
}

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds.clamp(0.0, 86_400.0))
}

/// Claims these, writes the grants among the answers and says what they take.
async fn claim(
    tx: &mut FleetTx,
    judged: &mut [Judged],
    claims: &[(Rates, Eligible)],
    now: DateTime<Utc>,
    call_within: Duration,
    moves: &mut BTreeMap<Account, Move>,
) -> Result<Taken> {
    let mut taken = Taken::default();
    if claims.is_empty() {
        return Ok(taken);
    }
    let tenants: Vec<Uuid> = claims.iter().map(|(_, send)| judged[send.judged].tenant_id.0).collect();
    let messages: Vec<Uuid> = claims.iter().map(|(_, send)| judged[send.judged].message_id.0).collect();
    let attempts: Vec<Uuid> = claims.iter().map(|(_, send)| send.attempt_id.0).collect();
    let contacts: Vec<Uuid> = claims.iter().map(|(_, send)| send.contact_id).collect();
    let channels: Vec<String> =
        claims.iter().map(|(_, send)| judged[send.judged].channel.as_str().to_owned()).collect();
    let lanes: Vec<i16> = claims.iter().map(|(_, send)| send.lane).collect();
    let longer: Vec<f64> = claims.iter().map(|(_, send)| send.longer.as_secs_f64()).collect();
    let rows = sqlx::query_file!(
        "src/db/outbound/claim.sql",
        &tenants,
        &messages,
        &attempts,
        now,
        call_within.as_secs_f64(),
        &contacts,
        &channels,
        CAMPAIGN_LANE,
        &lanes,
        &longer,
    )
    .fetch_all(tx.conn())
    .await?;
    let claims: HashMap<(TenantId, MessageId), &(Rates, Eligible)> = claims
        .iter()
        .map(|claim| ((judged[claim.1.judged].tenant_id, judged[claim.1.judged].message_id), claim))
        .collect();
    for row in rows {
        let Some((rates, send)) = claims.get(&(TenantId(row.tenant_id), MessageId(row.message_id))) else { continue };
        let judged = &mut judged[send.judged];
        if row.opted_out {
            judged.answer = Answer::NotNow(Obstacle::OptedOut);
            continue;
        }
        judged.answer = Answer::Granted(Box::new(Grant {
            attempt_id: send.attempt_id,
            attempts: row.attempts,
            granted_at: now,
            failed_before: row.failed_before.map(|failed| failed.0).unwrap_or_default(),
            tried_since: row.tried_since,
            recipient_kind: row.recipient_kind,
            recipient: row.recipient,
            content: row.content,
            refers_to: row.refers_to,
            human_agent: row.human_agent,
            valid_for: row.valid_for_seconds.map(seconds),
        }));
        let moved = moves.entry((judged.tenant_id, judged.channel_account_id)).or_default();
        taken.add(rates, send.units);
        moved.answered |= send.lane == NOW_LANE;
        if judged.serial {
            moved.stopped_for = Some(call_within + send.longer);
        }
    }
    Ok(taken)
}
