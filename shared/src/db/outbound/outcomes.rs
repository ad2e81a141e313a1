//! What became of attempts, and of sends that could not go: written down set by set.

use super::{
    aftermath::{self, Reported},
    again::{self, Again},
    counts::{self, Moved},
    probes,
    turns::{self, CAMPAIGN_LANE, NOW_LANE, Settled},
};
use crate::{
    db::{
        error::Result,
        files,
        inbound::{
            messages,
            refs::{self, Ref},
            reports::{self, Report},
            watermarks::{self, Reached},
        },
        scope::FleetTx,
        suppressions::{self, OptedOut, Wish, Wishes},
    },
    domain::{
        channel::Channel,
        consent::{Consent, Purpose},
        ids::{AttemptId, CampaignId, ChannelAccountId, ContactId, ConversationId, FileId, MessageId, TenantId},
        messages::Direction,
        outcome::{Block, Class},
        sends::{SendState, WaitReason},
    },
    jobs::outbound::{Decision, OutboundJob, OutboundSlice, Task},
};
use chrono::{DateTime, TimeDelta, Utc};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    time::Duration,
};
use uuid::Uuid;

/// The code of a send of which a person has decided that it did not arrive.
pub const DECIDED: &str = "decided";

/// What that means.
const DECIDED_REASON: &str = "nobody knows whether it arrived; a person has decided that it did not";

/// How an opt-out is written down that a provider's refusal told.
const REFUSED: &str = "refused by the provider";

/// The code of a send whose person does not want it.
pub const OPTED_OUT: &str = "opted_out";

/// What that means.
pub const OPTED_OUT_REASON: &str = "the person does not want to be written to on this channel";

/// It is looked at again after this long, should the account's return have been missed.
pub const ACCOUNT_DOWN_AGAIN: Duration = Duration::from_secs(600);

/// Something to be written down about one send.
#[derive(Clone, Debug)]
pub struct Record {
    /// Whose.
    pub tenant_id: TenantId,
    /// Which.
    pub message_id: MessageId,
    /// Where it belongs, as the grant said; a timer does not know.
    pub place: Option<Place>,
    /// What happened.
    pub what: What,
    /// The account of the slice that brought it, if it did not come alone.
    pub slice: Option<ChannelAccountId>,
}

/// Where a send belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The account it is sent from.
    pub channel_account_id: ChannelAccountId,
    /// On which channel: where people's receipts come as watermarks, one may have come first.
    pub channel: Channel,
    /// The revision of the account that was called for.
    pub account_revision: i32,
    /// Its conversation.
    pub conversation_id: ConversationId,
    /// Whether the account was down, and this was to find out if it is back.
    pub probe: bool,
    /// Whether the account's calls come one at a time.
    pub serial: bool,
}

/// What happened to a send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// The provider took it.
    Accepted {
        /// By which attempt.
        attempt_id: AttemptId,
        /// The provider's id.
        provider_message_id: String,
    },
    /// It was definitely not sent: again after a while.
    NotSent {
        /// By which attempt.
        attempt_id: AttemptId,
        /// The provider's code or ours.
        code: String,
        /// What happened.
        reason: String,
        /// What kind of obstacle it was.
        class: Class,
        /// How long to wait.
        after: Duration,
        /// Whether a rate is to be lowered, the account's or that of the provider's account, as the class says, and nothing to be
        /// granted for so long.
        slow: Option<Duration>,
    },
    /// Perhaps it was sent.
    Unknown {
        /// By which attempt.
        attempt_id: AttemptId,
        /// What happened.
        reason: String,
    },
    /// The provider refused it for good.
    Failed {
        /// By which attempt.
        attempt_id: AttemptId,
        /// The provider's code.
        code: String,
        /// What it means.
        reason: String,
        /// Whether it says something about more than this message.
        says: Says,
    },
    /// The account cannot send: it and all it has wait.
    AccountDown {
        /// By which attempt.
        attempt_id: AttemptId,
        /// The provider's code.
        code: String,
        /// What it means.
        reason: String,
    },
    /// Nothing happened to this one; but its account fails too often, and is taken for down.
    Tripped {
        /// How often.
        reason: String,
    },
    /// What the answer said, of a provider whose answers are still to be understood.
    Answered {
        /// To which attempt.
        attempt_id: AttemptId,
        /// Its beginning.
        answer: String,
    },
    /// The provider keeps its file under this id.
    FileKept {
        /// Which.
        file_id: FileId,
        /// The provider's id of it.
        provider_file_id: String,
    },
    /// The provider does not know the ids of its files any more.
    FilesLost {
        /// Which, and by which ids it was told.
        files: Vec<(FileId, String)>,
    },
    /// It was claimed and never called: as if it had not been claimed.
    GivenBack {
        /// By which attempt.
        attempt_id: AttemptId,
        /// Why.
        reason: String,
        /// How long to wait before it is tried again; at once if it is not said.
        after: Option<Duration>,
    },
    /// Another attempt's deadline has passed without a word: perhaps it was sent.
    Expired {
        /// That attempt.
        attempt_id: Option<AttemptId>,
    },
    /// It was not granted: it waits for a time, or for what `reason` names.
    Waits {
        /// For what.
        reason: WaitReason,
        /// How long, if it is a time.
        after: Option<Duration>,
    },
    /// It cannot be sent any more (`window_closed`, `opted_out`, `unsendable`).
    Refused {
        /// Our code.
        code: &'static str,
        /// What it means.
        reason: String,
    },
    /// Its campaign has ended without it.
    Cancelled,
    /// It has been unknown for 30 s: the next of its conversation may go.
    TurnReleased,
    /// It has been unknown for the time evidence is given: held, or sent again if the account says so.
    Settled,
    /// It is held, and a person has decided.
    Decided(Decision),
    /// It has failed, and a person wants it tried again.
    Retried,
    /// It has failed by a report, which says something about more than that.
    Reported(Box<Reported>),
    /// It has failed by a report for a reason that passes, and the time has come to send it anew.
    SendAnew {
        /// Unless it is at another attempt meanwhile.
        attempt_id: AttemptId,
        /// Whether it may have arrived all the same.
        in_doubt: bool,
    },
}

/// What a refusal says beside that the message failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Says {
    /// Nothing.
    Nothing,
    /// That the customer service window is closed.
    WindowClosed,
    /// That the person wants nothing from the account any more.
    OptedOut,
    /// That its template cannot be sent to anybody.
    TemplateBlocked(Block),
}

/// How long the fate of a send may stay unknown.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Until the next of the conversation may go (DESIGN promise 4: 30 s).
    pub turn: Duration,
    /// Until it is held or sent again.
    pub evidence: Duration,
}

impl What {
    fn kind(&self) -> &'static str {
        match self {
            What::Accepted { .. } => "accepted",
            What::NotSent { .. } => "not_sent",
            What::Unknown { .. } => "unknown",
            What::Failed { .. } => "failed",
            What::AccountDown { .. } => "account_down",
            What::Tripped { .. } => "tripped",
            What::Answered { .. } => "answered",
            What::FileKept { .. } => "file_kept",
            What::FilesLost { .. } => "files_lost",
            What::GivenBack { .. } => "given_back",
            What::Expired { .. } => "expired",
            What::Waits { .. } => "waits",
            What::Refused { .. } => "refused",
            What::Cancelled => "cancelled",
            What::TurnReleased => "turn_released",
            What::Settled => "settled",
            What::Decided(Decision::Sent) => "decided_sent",
            What::Decided(Decision::Failed) => "decided_failed",
            What::Decided(Decision::Resend) => "decided_resend",
            What::Retried => "retried",
            What::Reported(_) => "reported",
            What::SendAnew { .. } => "send_anew",
        }
    }

    fn attempt_id(&self) -> Option<AttemptId> {
        match self {
            What::Accepted { attempt_id, .. }
            | What::NotSent { attempt_id, .. }
            | What::Unknown { attempt_id, .. }
            | What::Failed { attempt_id, .. }
            | What::AccountDown { attempt_id, .. }
            | What::GivenBack { attempt_id, .. } => Some(*attempt_id),
            What::Expired { attempt_id } => *attempt_id,
            What::Tripped { .. }
            | What::Answered { .. }
            | What::FileKept { .. }
            | What::FilesLost { .. }
            | What::Waits { .. }
            | What::Refused { .. }
            | What::Cancelled
            | What::TurnReleased
            | What::Settled
            | What::Decided(_)
            | What::Retried
            | What::Reported(_)
            | What::SendAnew { .. } => None,
        }
    }

    fn code(&self) -> Option<&str> {
        match self {
            What::NotSent { code, .. } | What::Failed { code, .. } | What::AccountDown { code, .. } => Some(code),
            What::Refused { code, .. } => Some(code),
            What::Waits { reason, .. } => Some(reason.as_str()),
            What::GivenBack { after: Some(_), .. } => Some(WaitReason::GivenBack.as_str()),
            What::Decided(Decision::Failed) => Some(DECIDED),
            _ => None,
        }
    }

    fn reason(&self) -> Option<&str> {
        match self {
            What::NotSent { reason, .. }
            | What::Failed { reason, .. }
            | What::AccountDown { reason, .. }
            | What::Unknown { reason, .. }
            | What::GivenBack { reason, .. }
            | What::Refused { reason, .. } => Some(reason),
            What::Decided(Decision::Failed) => Some(DECIDED_REASON),
            _ => None,
        }
    }

    fn class(&self) -> Option<Class> {
        match self {
            What::NotSent { class, .. } => Some(*class),
            _ => None,
        }
    }

    fn after(&self) -> Option<Duration> {
        match self {
            What::NotSent { after, .. } => Some(*after),
            What::AccountDown { .. } => Some(ACCOUNT_DOWN_AGAIN),
            What::Waits { after, .. } | What::GivenBack { after, .. } => *after,
            _ => None,
        }
    }
}

/// Writes records down: limits, accounts, provider ids, states, attempts, trail, timers, and the jobs of what may go next.
///
/// # Errors
/// If the database does not answer.
pub async fn record(tx: &mut FleetTx, records: &[Record], patience: Patience) -> Result<()> {
    if records.is_empty() {
        return Ok(());
    }
    tx.look_up_by_key().await?;
    let_next_call(tx, records).await?;
    slow_down(tx, records).await?;
    take_down(tx, records).await?;
    put_back(tx, records).await?;
    aftermath::block_templates(tx, records).await?;
    look_at_campaigns(tx, records).await?;
    let opted_out = opt_out(tx, records).await?;
    let parked = link(tx, records).await?;
    close_windows(tx, records).await?;
    aftermath::close_windows(tx, records).await?;
    let accepted = told_by_watermarks(records);
    let reached = reached(&accepted, &parked);
    watermarks::hold(tx, &[], &reached).await?;
    // One send twice in a batch (a job and its redelivery): in the order they came, each in a statement of its own.
    let mut rounds: Vec<Vec<&Record>> = Vec::new();
    let mut seen: HashMap<(TenantId, MessageId), usize> = HashMap::with_capacity(records.len());
    for record in records {
        let round = seen.entry((record.tenant_id, record.message_id)).and_modify(|n| *n += 1).or_insert(0);
        if rounds.len() <= *round {
            rounds.push(Vec::new());
        }
        rounds[*round].push(record);
    }
    note_files(tx, records).await?;
    let mut went = Went::default();
    let_go_again(tx, records).await?;
    aftermath::plan(tx, records).await?;
    went.moved.extend(aftermath::send_anew(tx, records).await?);
    for mut round in rounds {
        accept(tx, &mut round, &mut went).await?;
        move_on(tx, &round, patience, &mut went).await?;
    }
    note_answers(tx, records).await?;
    went.moved.extend(reports::apply(tx, &parked).await?);
    went.moved.extend(watermarks::reach(tx, &reached).await?);
    // A receipt may have come before the send that it covers was written down.
    went.moved.extend(watermarks::catch_up(tx, &accepted).await?);
    went.moved.extend(suppressions::end_sends(tx, &opted_out).await?);
    turns::wake_next(tx, &went.settled).await?;
    counts::count(tx, &went.moved).await
}

/// Ends sends, no send twice, that may not go any more and that nobody has claimed. Returns those of campaigns that moved.
pub(in crate::db) async fn refuse(
    tx: &mut FleetTx,
    sends: &[(TenantId, MessageId)],
    code: &'static str,
    reason: &str,
) -> Result<Vec<Moved>> {
    let refused = What::Refused { code, reason: reason.to_owned() };
    let record = |&(tenant_id, message_id): &(TenantId, MessageId)| Record {
        tenant_id,
        message_id,
        place: None,
        what: refused.clone(),
        slice: None,
    };
    let records: Vec<Record> = sends.iter().map(record).collect();
    let mut went = Went::default();
    // No timer follows from a refusal.
    let patience = Patience { turn: Duration::ZERO, evidence: Duration::ZERO };
    move_on(tx, &records.iter().collect::<Vec<_>>(), patience, &mut went).await?;
    turns::wake_next(tx, &went.settled).await?;
    Ok(went.moved)
}

/// What follows from how sends went.
#[derive(Debug, Default)]
struct Went {
    /// Those that no longer hold up their conversation.
    settled: Vec<Settled>,
    /// Those of campaigns, with their states.
    moved: Vec<Moved>,
}

/// One way a send went, as a row says.
struct Way {
    tenant_id: TenantId,
    conversation_id: ConversationId,
    seq: i64,
    lane: i16,
    campaign_id: Option<CampaignId>,
    before: SendState,
    after: SendState,
    settled: bool,
}

impl Went {
    fn note(&mut self, way: Way) {
        let Way { tenant_id, conversation_id, seq, lane, campaign_id, before, after, settled } = way;
        if settled && lane != CAMPAIGN_LANE {
            self.settled.push(Settled { tenant_id, conversation_id, seq });
        }
        if let Some(campaign_id) = campaign_id {
            self.moved.push(Moved { tenant_id, campaign_id, before, after });
        }
    }
}

/// The call of an account whose calls come one at a time has ended: the next may be granted. Up to its deadline no other is; what is
/// said later, or of an attempt that is given up, says nothing about the one that may be under way now.
async fn let_next_call(tx: &mut FleetTx, records: &[Record]) -> Result<()> {
    let ended: BTreeSet<(TenantId, ChannelAccountId, MessageId, AttemptId)> = records
        .iter()
        .filter(|r| !matches!(r.what, What::Expired { .. }))
        .filter_map(|r| {
            let account = r.place.filter(|place| place.serial)?.channel_account_id;
            Some((r.tenant_id, account, r.message_id, r.what.attempt_id()?))
        })
        .collect();
    if ended.is_empty() {
        return Ok(());
    }
    let tenants: Vec<Uuid> = ended.iter().map(|(tenant_id, ..)| tenant_id.0).collect();
    let accounts: Vec<Uuid> = ended.iter().map(|(_, id, ..)| id.0).collect();
    let messages: Vec<Uuid> = ended.iter().map(|(.., id, _)| id.0).collect();
    let attempts: Vec<Uuid> = ended.iter().map(|(.., id)| id.0).collect();
    sqlx::query!(
        "WITH ended AS MATERIALIZED (
            SELECT l.tenant_id, l.scope, l.key
            FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::uuid[]) AS ended (tenant_id, id, message_id, attempt_id)
            JOIN sends s ON s.tenant_id = ended.tenant_id AND s.message_id = ended.message_id AND s.attempt_id = ended.attempt_id
            JOIN limits l ON l.tenant_id = ended.tenant_id AND l.scope = 'account' AND l.key = ended.id
            WHERE s.state = 'sending' AND s.deadline > clock_timestamp()
            ORDER BY l.tenant_id, l.scope, l.key
            FOR UPDATE OF l
        )
        UPDATE limits l
        SET stopped_until = clock_timestamp()
        FROM ended
        WHERE l.tenant_id = ended.tenant_id AND l.scope = ended.scope AND l.key = ended.key",
        &tenants,
        &accounts,
        &messages,
        &attempts,
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Lowers the rate of throttled accounts: halved, at most once a second, and stopped for as long as the provider asked. Where all of
/// the provider's account is throttled, that of what its accounts send together; if that is not limited, each account's own.
async fn slow_down(tx: &mut FleetTx, records: &[Record]) -> Result<()> {
    let mut slow: BTreeMap<(TenantId, ChannelAccountId, bool), (Duration, DateTime<Utc>)> = BTreeMap::new();
    for r in records {
        let told = match (&r.what, r.place) {
            (What::NotSent { slow: Some(stop), class, .. }, Some(place)) => {
                Some((place.channel_account_id, *class, *stop, DateTime::<Utc>::MAX_UTC))
            }
            (What::Reported(reported), _) => {
                reported.slows().map(|(class, stop)| (reported.failed.account, class, stop, reported.failed.granted_at))
            }
            _ => None,
        };
        if let Some((account, class, stop, as_of)) = told {
            let together = class == Class::ProviderAccount;
            let most = slow.entry((r.tenant_id, account, together)).or_insert((stop, as_of));
            *most = (most.0.max(stop), most.1.max(as_of));
        }
    }
    if slow.is_empty() {
        return Ok(());
    }
    let tenants: Vec<Uuid> = slow.keys().map(|(tenant_id, ..)| tenant_id.0).collect();
    let accounts: Vec<Uuid> = slow.keys().map(|(_, id, _)| id.0).collect();
    let together: Vec<bool> = slow.keys().map(|(.., together)| *together).collect();
    let stops: Vec<f64> = slow.values().map(|(stop, _)| stop.as_secs_f64()).collect();
    // What a report tells late, of an attempt before the rate was lowered, is no news.
    let times: Vec<Option<DateTime<Utc>>> =
        slow.values().map(|(_, as_of)| Some(*as_of).filter(|at| *at < DateTime::<Utc>::MAX_UTC)).collect();
    sqlx::query!(
        "WITH asked AS MATERIALIZED (
            SELECT s.tenant_id, s.stop, coalesce(s.as_of, 'infinity') AS as_of, coalesce(shared.scope, 'account') AS scope,
                coalesce(shared.key, s.account) AS key
            FROM unnest($1::uuid[], $2::uuid[], $3::bool[], $4::float8[], $5::timestamptz[])
                AS s (tenant_id, account, together, stop, as_of)
            LEFT JOIN LATERAL (
                SELECT l.scope, l.key
                FROM channel_accounts a
                JOIN limits l ON l.tenant_id = a.tenant_id AND l.scope = 'provider_account' AND l.key = a.portfolio_id
                WHERE s.together AND a.tenant_id = s.tenant_id AND a.id = s.account
            ) AS shared ON true
        ),
        slow AS MATERIALIZED (
            SELECT l.tenant_id, l.scope, l.key, asked.stop, asked.as_of, asked.as_of > coalesce(l.lowered_at, '-infinity') AS is_news
            FROM (SELECT tenant_id, scope, key, max(stop) AS stop, max(as_of) AS as_of FROM asked GROUP BY 1, 2, 3) AS asked
            JOIN limits l ON l.tenant_id = asked.tenant_id AND l.scope = asked.scope AND l.key = asked.key
            -- That a day's limit is reached stays true whatever was lowered since.
            WHERE asked.as_of > coalesce(l.lowered_at, '-infinity') OR asked.stop >= 60
            ORDER BY l.tenant_id, l.scope, l.key
            FOR UPDATE OF l
        )
        UPDATE limits l
        SET current_rate = CASE
                WHEN NOT slow.is_news OR l.lowered_at > clock_timestamp() - interval '1 second' THEN l.current_rate
                ELSE greatest(least(1, l.rate), l.current_rate / 2)
            END,
            lowered_at = CASE WHEN NOT slow.is_news OR l.lowered_at > clock_timestamp() - interval '1 second' THEN l.lowered_at ELSE clock_timestamp() END,
            -- What is told late holds from when it happened.
            stopped_until = greatest(
                l.stopped_until,
                CASE WHEN slow.is_news THEN clock_timestamp() ELSE slow.as_of END + make_interval(secs => slow.stop)
            )
        FROM slow
        WHERE l.tenant_id = slow.tenant_id AND l.scope = slow.scope AND l.key = slow.key",
        &tenants,
        &accounts,
        &together,
        &stops,
        &times as &[Option<DateTime<Utc>>],
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// What somebody said to the provider alone is known from its refusal: they want nothing more from the account.
async fn opt_out(tx: &mut FleetTx, records: &[Record]) -> Result<OptedOut> {
    let refused: BTreeMap<(TenantId, ConversationId), Channel> = records
        .iter()
        .filter(|r| matches!(r.what, What::Failed { says: Says::OptedOut, .. }))
        .filter_map(|r| Some(((r.tenant_id, r.place?.conversation_id), r.place?.channel)))
        .collect();
    if refused.is_empty() {
        return Ok(OptedOut::default());
    }
    let now = tx.now().await?;
    let tenants: Vec<Uuid> = refused.keys().map(|(tenant_id, _)| tenant_id.0).collect();
    let ids: Vec<Uuid> = refused.keys().map(|(_, id)| id.0).collect();
    let rows = sqlx::query!(
        r#"SELECT v.tenant_id AS "tenant_id: TenantId", v.id AS "id: ConversationId", v.contact_id AS "contact_id: ContactId"
        FROM conversations v
        JOIN contacts c ON c.tenant_id = v.tenant_id AND c.id = v.contact_id
        -- Of whoever was erased meanwhile there is nobody left to remember it of.
        WHERE (v.tenant_id, v.id) IN (SELECT * FROM unnest($1::uuid[], $2::uuid[])) AND c.erased_at IS NULL"#,
        &tenants,
        &ids,
    )
    .fetch_all(tx.conn())
    .await?;
    let mut wishes = Wishes::default();
    for row in rows {
        let Some(channel) = refused.get(&(row.tenant_id, row.id)) else { continue };
        let wish = Wish { consent: Consent::OptedOut, since: now, source: REFUSED };
        wishes.add((row.tenant_id, row.contact_id, *channel, Purpose::All), wish);
    }
    suppressions::set(tx, &wishes).await
}

/// Ties the provider's ids to our messages. Returns the reports that were there first; an echo that was takes its leave.
async fn link(tx: &mut FleetTx, records: &[Record]) -> Result<Vec<Report>> {
    let accepted: Vec<Ref<'_>> = records
        .iter()
        .filter_map(|r| match &r.what {
            What::Accepted { provider_message_id, .. } => Some(Ref {
                tenant_id: r.tenant_id,
                channel_account_id: r.place?.channel_account_id,
                provider_message_id,
                message_id: r.message_id,
            }),
            _ => None,
        })
        .collect();
    let linked = refs::link(tx, &accepted).await?;
    messages::remove_echoes(tx, &linked.echoes).await?;
    messages::erase(tx, &linked.revoked, Direction::Out).await?;
    Ok(linked.parked)
}

/// The sends that the provider took where people's receipts come as watermarks.
fn told_by_watermarks(records: &[Record]) -> BTreeSet<(TenantId, MessageId)> {
    let is_told_so = |r: &&Record| {
        matches!(r.what, What::Accepted { .. }) && r.place.is_some_and(|place| place.channel.has_watermarks())
    };
    records.iter().filter(is_told_so).map(|r| (r.tenant_id, r.message_id)).collect()
}

/// Receipts among what waited for these sends: one that names a message is about all before it, too.
fn reached(accepted: &BTreeSet<(TenantId, MessageId)>, parked: &[Report]) -> Vec<Reached> {
    parked
        .iter()
        .filter_map(|report| {
            let reached = Reached {
                tenant_id: report.tenant_id,
                message_id: report.token?.message_id,
                state: report.state,
                at: report.at,
            };
            let is_receipt = matches!(report.state, SendState::Delivered | SendState::Read);
            (is_receipt && accepted.contains(&(reached.tenant_id, reached.message_id))).then_some(reached)
        })
        .collect()
}

/// The provider's verdict on a window overrides ours (providers/whatsapp section 13.1).
async fn close_windows(tx: &mut FleetTx, records: &[Record]) -> Result<()> {
    let mut closed: Vec<(TenantId, ConversationId)> = records
        .iter()
        .filter(|r| matches!(r.what, What::Failed { says: Says::WindowClosed, .. }))
        .filter_map(|r| Some((r.tenant_id, r.place?.conversation_id)))
        .collect();
    if closed.is_empty() {
        return Ok(());
    }
    closed.sort_unstable();
    let tenants: Vec<Uuid> = closed.iter().map(|(tenant_id, _)| tenant_id.0).collect();
    let ids: Vec<Uuid> = closed.iter().map(|(_, id)| id.0).collect();
    sqlx::query!(
        "WITH closed AS MATERIALIZED (
            SELECT c.tenant_id, c.id
            FROM conversations c
            WHERE (c.tenant_id, c.id) IN (SELECT * FROM unnest($1::uuid[], $2::uuid[]))
            ORDER BY c.tenant_id, c.id
            FOR UPDATE
        )
        UPDATE conversations c
        SET window_expires_at = least(c.window_expires_at, now())
        FROM closed
        WHERE c.tenant_id = closed.tenant_id AND c.id = closed.id",
        &tenants,
        &ids,
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// The ordinary end of a send, no send twice: its provider took it at the attempt that has it. What this applies to is taken out
/// of `records`; the rest is for [`move_on`], which knows all cases and costs several times as much.
async fn accept(tx: &mut FleetTx, records: &mut Vec<&Record>, went: &mut Went) -> Result<()> {
    let mut accepted: Vec<(TenantId, MessageId, AttemptId, &str)> = records
        .iter()
        .filter_map(|r| match &r.what {
            What::Accepted { attempt_id, provider_message_id } => {
                Some((r.tenant_id, r.message_id, *attempt_id, provider_message_id.as_str()))
            }
            _ => None,
        })
        .collect();
    if accepted.is_empty() {
        return Ok(());
    }
    // As everybody locks sends; that those of the same batch for [`move_on`] come after them is contention at worst, and retried.
    accepted.sort_unstable();
    let tenants: Vec<Uuid> = accepted.iter().map(|(tenant_id, ..)| tenant_id.0).collect();
    let messages: Vec<Uuid> = accepted.iter().map(|(_, message_id, ..)| message_id.0).collect();
    let attempts: Vec<Uuid> = accepted.iter().map(|(.., attempt_id, _)| attempt_id.0).collect();
    let provider_ids: Vec<&str> = accepted.iter().map(|(.., id)| *id).collect();
    let rows =
        sqlx::query_file!("src/db/outbound/accept.sql", &tenants, &messages, &attempts, &provider_ids as &[&str],)
            .fetch_all(tx.conn())
            .await?;
    let done: HashSet<(TenantId, MessageId)> =
        rows.iter().map(|row| (TenantId(row.tenant_id), MessageId(row.message_id))).collect();
    records.retain(|r| !done.contains(&(r.tenant_id, r.message_id)));
    for row in rows {
        went.note(Way {
            tenant_id: TenantId(row.tenant_id),
            conversation_id: ConversationId(row.conversation_id),
            seq: row.seq,
            lane: row.lane,
            campaign_id: row.campaign_id.map(CampaignId),
            before: SendState::Sending,
            after: SendState::Sent,
            settled: true,
        });
    }
    Ok(())
}

/// Providers keep a file that was sent once for so long (providers/messenger section 3.2).
const FILES_LIVE: TimeDelta = TimeDelta::days(90);

async fn note_files(tx: &mut FleetTx, records: &[Record]) -> Result<()> {
    let mut kept: BTreeMap<files::Wanted, &str> = BTreeMap::new();
    let mut lost: BTreeSet<(files::Wanted, &str)> = BTreeSet::new();
    for r in records {
        let Some(place) = r.place else { continue };
        match &r.what {
            What::FileKept { file_id, provider_file_id } => {
                kept.insert((r.tenant_id, place.channel_account_id, *file_id), provider_file_id);
            }
            What::FilesLost { files } => {
                lost.extend(
                    files.iter().map(|(id, theirs)| ((r.tenant_id, place.channel_account_id, *id), theirs.as_str())),
                );
            }
            _ => {}
        }
    }
    files::lose(tx, &lost.into_iter().collect::<Vec<_>>()).await?;
    for (of, provider_file_id) in kept {
        files::keep(tx, of, provider_file_id, FILES_LIVE).await?;
    }
    Ok(())
}

/// Keeps what answers said with the attempts that were taken; what was refused says it as the reason.
async fn note_answers(tx: &mut FleetTx, records: &[Record]) -> Result<()> {
    let answers: BTreeMap<(TenantId, MessageId, AttemptId), &str> = records
        .iter()
        .filter_map(|r| match &r.what {
            What::Answered { attempt_id, answer } => Some(((r.tenant_id, r.message_id, *attempt_id), answer.as_str())),
            _ => None,
        })
        .collect();
    if answers.is_empty() {
        return Ok(());
    }
    let tenants: Vec<Uuid> = answers.keys().map(|(tenant_id, ..)| tenant_id.0).collect();
    let messages: Vec<Uuid> = answers.keys().map(|(_, id, _)| id.0).collect();
    let attempts: Vec<Uuid> = answers.keys().map(|(.., id)| id.0).collect();
    let words: Vec<&str> = answers.values().copied().collect();
    sqlx::query!(
        "UPDATE send_attempts a
        SET reason = answer.words
        FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::text[]) AS answer (tenant_id, message_id, id, words)
        WHERE a.tenant_id = answer.tenant_id AND a.message_id = answer.message_id AND a.id = answer.id AND a.outcome = 'accepted'",
        &tenants,
        &messages,
        &attempts,
        &words as &[&str],
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// People's messages that have failed begin anew. (A campaign's are tried again by their campaign.) What they had been refused with
/// stays with their attempts.
async fn let_go_again(tx: &mut FleetTx, records: &[Record]) -> Result<()> {
    let asked: BTreeSet<(TenantId, MessageId)> =
        records.iter().filter(|r| r.what == What::Retried).map(|r| (r.tenant_id, r.message_id)).collect();
    for (tenant_id, message_id) in asked {
        let row = sqlx::query!(
            r#"SELECT channel_account_id AS "account: ChannelAccountId", now() AS "now!"
            FROM sends
            WHERE tenant_id = $1 AND message_id = $2 AND lane = $3 AND state = 'failed'
            FOR UPDATE"#,
            tenant_id.0,
            message_id.0,
            NOW_LANE,
        )
        .fetch_optional(tx.conn())
        .await?;
        let Some(row) = row else { continue };
        let again = Again { tenant_id, message_id, waits_for: None, wait: None, in_doubt: false, class: None };
        if !again::let_go(tx, &[again]).await?.is_empty() {
            let job = OutboundJob { tenant_id, message_id, account: Some(row.account), task: Task::Send };
            tx.enqueue(tenant_id, turns::QUEUE, job.to_job(row.now), None);
        }
    }
    Ok(())
}

/// The states, attempts, trail and timers of sends, no send twice.
async fn move_on(tx: &mut FleetTx, records: &[&Record], patience: Patience, went: &mut Went) -> Result<()> {
    if records.is_empty() {
        return Ok(());
    }
    let tenants: Vec<Uuid> = records.iter().map(|r| r.tenant_id.0).collect();
    let messages: Vec<Uuid> = records.iter().map(|r| r.message_id.0).collect();
    let attempts: Vec<Option<Uuid>> = records.iter().map(|r| r.what.attempt_id().map(|id| id.0)).collect();
    let kinds: Vec<String> = records.iter().map(|r| r.what.kind().to_owned()).collect();
    let codes: Vec<Option<String>> = records.iter().map(|r| r.what.code().map(str::to_owned)).collect();
    let reasons: Vec<Option<String>> = records.iter().map(|r| r.what.reason().map(str::to_owned)).collect();
    let waits: Vec<Option<f64>> = records.iter().map(|r| r.what.after().map(|d| d.as_secs_f64())).collect();
    let provider_ids: Vec<Option<String>> = records
        .iter()
        .map(|r| match &r.what {
            What::Accepted { provider_message_id, .. } => Some(provider_message_id.clone()),
            _ => None,
        })
        .collect();
    let classes: Vec<Option<String>> =
        records.iter().map(|r| r.what.class().map(|class| class.as_str().to_owned())).collect();
    let rows = sqlx::query_file!(
        "src/db/outbound/move_on.sql",
        &tenants,
        &messages,
        &attempts as &[Option<Uuid>],
        &kinds,
        &codes as &[Option<String>],
        &reasons as &[Option<String>],
        &waits as &[Option<f64>],
        &provider_ids as &[Option<String>],
        patience.evidence.as_secs_f64(),
        patience.turn.as_secs_f64(),
        &classes as &[Option<String>],
    )
    .fetch_all(tx.conn())
    .await?;
    for row in rows {
        let (tenant_id, message_id) = (TenantId(row.tenant_id), MessageId(row.message_id));
        let account = ChannelAccountId(row.channel_account_id);
        let in_turn = row.lane != CAMPAIGN_LANE;
        let mut enqueue = |task: Task, after: Option<Duration>| {
            let (queue, job) = if task == Task::Send && !in_turn {
                let slice = OutboundSlice { tenant_id, account, message_ids: vec![message_id] };
                (turns::BULK_QUEUE, slice.to_job(row.now))
            } else {
                let job = OutboundJob { tenant_id, message_id, account: Some(account), task };
                (turns::QUEUE, job.to_job(row.now))
            };
            let after = after.map(|d| TimeDelta::from_std(d).unwrap_or(TimeDelta::MAX));
            tx.enqueue(tenant_id, queue, job, after);
        };
        if let Some(early) = row.early_seconds {
            let timer = if row.kind == "settled" { Task::Settle } else { Task::ReleaseTurn };
            enqueue(timer, Some(Duration::from_secs_f64(early.max(0.0))));
            continue;
        }
        match row.state.as_str() {
            "waiting" => {
                if let Some(wait) = row.wait_seconds {
                    enqueue(Task::Send, Some(Duration::from_secs_f64(wait.max(0.0))));
                }
            }
            "queued" => enqueue(Task::Send, None),
            "unknown" if row.before != "unknown" => {
                if in_turn {
                    enqueue(Task::ReleaseTurn, Some(patience.turn));
                }
                enqueue(Task::Settle, Some(patience.evidence));
            }
            _ => {}
        }
        let state = |name: &str| SendState::from_name(name).unwrap_or(SendState::Failed);
        went.note(Way {
            tenant_id,
            conversation_id: ConversationId(row.conversation_id),
            seq: row.seq,
            lane: row.lane,
            campaign_id: row.campaign_id.map(CampaignId),
            before: state(&row.before),
            after: state(&row.state),
            settled: row.held_up && !row.holds_up,
        });
    }
    Ok(())
}

/// The campaigns that something is to wait for, or for which something is sent anew, are locked here, before the sends are looked at: for the reason that
/// [`take_down`] gives for accounts.
async fn look_at_campaigns(tx: &mut FleetTx, records: &[Record]) -> Result<()> {
    let waiting = records.iter().filter(|r| matches!(r.what, What::Waits { reason: WaitReason::Campaign, .. }));
    let mut sends: BTreeSet<(TenantId, MessageId)> = waiting.map(|r| (r.tenant_id, r.message_id)).collect();
    sends.extend(aftermath::perhaps_anew(records).map(|(tenant_id, message_id, ..)| (tenant_id, message_id)));
    if sends.is_empty() {
        return Ok(());
    }
    let tenants: Vec<Uuid> = sends.iter().map(|(tenant_id, _)| tenant_id.0).collect();
    let messages: Vec<Uuid> = sends.iter().map(|(_, message_id)| message_id.0).collect();
    sqlx::query!(
        "SELECT FROM campaigns
        WHERE (tenant_id, id) IN (
            SELECT s.tenant_id, s.campaign_id
            FROM unnest($1::uuid[], $2::uuid[]) AS waiting (tenant_id, message_id)
            JOIN sends s ON s.tenant_id = waiting.tenant_id AND s.message_id = waiting.message_id
        )
        ORDER BY tenant_id, id
        FOR NO KEY UPDATE",
        &tenants,
        &messages,
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// An account that the provider refuses is down until somebody mends it; its sends wait. A refusal of an earlier revision
/// of it says nothing about it as it is now.
///
/// Why no send waits for an account that is back: the accounts that something is to wait for are locked here, before the
/// sends are looked at. So either whoever brings one back waits for this transaction and then finds what waits, or it came
/// first, and `move_on.sql`, a statement of its own with a newer snapshot, finds the account active and lets its sends go.
async fn take_down(tx: &mut FleetTx, records: &[Record]) -> Result<()> {
    let mut waited_for: BTreeSet<(TenantId, ChannelAccountId)> = aftermath::accounts_down(records).collect();
    let mut down: BTreeMap<(TenantId, ChannelAccountId), (i32, &str, &str, MessageId)> = BTreeMap::new();
    for r in records {
        let Some(place) = r.place else { continue };
        let account = (r.tenant_id, place.channel_account_id);
        match &r.what {
            What::AccountDown { code, reason, .. } => {
                waited_for.insert(account);
                let this = (place.account_revision, code.as_str(), reason.as_str(), r.message_id);
                let latest = down.entry(account).or_insert(this);
                *latest = (*latest).max(this);
            }
            What::Tripped { reason } => {
                waited_for.insert(account);
                down.entry(account).or_insert((place.account_revision, probes::ERROR_RATE, reason, r.message_id));
            }
            What::Waits { reason: WaitReason::AccountDown, .. } => drop(waited_for.insert(account)),
            // Changed further on ([`put_back`]).
            What::Accepted { .. } | What::GivenBack { .. } if place.probe => drop(waited_for.insert(account)),
            _ => {}
        }
    }
    if waited_for.is_empty() {
        return Ok(());
    }
    let tenants: Vec<Uuid> = waited_for.iter().map(|(tenant_id, _)| tenant_id.0).collect();
    let accounts: Vec<Uuid> = waited_for.iter().map(|(_, id)| id.0).collect();
    sqlx::query!(
        "SELECT FROM channel_accounts
        WHERE (tenant_id, id) IN (SELECT * FROM unnest($1::uuid[], $2::uuid[]))
        ORDER BY tenant_id, id
        FOR NO KEY UPDATE",
        &tenants,
        &accounts,
    )
    .execute(tx.conn())
    .await?;
    aftermath::take_down(tx, records).await?;
    if down.is_empty() {
        return Ok(());
    }
    let tenants: Vec<Uuid> = down.keys().map(|(tenant_id, _)| tenant_id.0).collect();
    let accounts: Vec<Uuid> = down.keys().map(|(_, id)| id.0).collect();
    let revisions: Vec<i32> = down.values().map(|(revision, ..)| *revision).collect();
    let messages: Vec<Uuid> = down.values().map(|(.., message_id)| message_id.0).collect();
    let codes: Vec<String> = down.values().map(|(_, code, ..)| (*code).to_owned()).collect();
    let reasons: Vec<String> = down.values().map(|(_, _, reason, _)| (*reason).to_owned()).collect();
    sqlx::query!(
        "UPDATE channel_accounts a
        SET state = 'down', down_code = d.code, down_reason = d.reason, down_at = now(), down_by_report = false, probes = 0, probe_with = d.message_id,
            probe_at = CASE d.code
                WHEN $7 THEN NULL
                WHEN $8 THEN clock_timestamp() + make_interval(secs => $9)
                ELSE clock_timestamp() + make_interval(secs => $10)
            END
        FROM unnest($1::uuid[], $2::uuid[], $3::int[], $4::text[], $5::text[], $6::uuid[]) AS d (tenant_id, id, revision, code, reason, message_id)
        WHERE a.tenant_id = d.tenant_id AND a.id = d.id AND a.state = 'active' AND a.revision = d.revision",
        &tenants,
        &accounts,
        &revisions,
        &codes,
        &reasons,
        &messages,
        probes::SECRETS,
        probes::ERROR_RATE,
        probes::FIRST_AFTER_ERRORS,
        probes::FIRST_AFTER_REFUSAL,
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// The next try of an account that is down comes after so long, where one was given back that said no time.
const TRIED_AGAIN: Duration = Duration::from_secs(2);

/// An account that was down and with which the provider has taken a message is back. Of a try that was given back nothing is known.
async fn put_back(tx: &mut FleetTx, records: &[Record]) -> Result<()> {
    give_back_tries(tx, records).await?;
    let is_back = |r: &&Record| matches!(r.what, What::Accepted { .. }) && r.place.is_some_and(|place| place.probe);
    let back: BTreeMap<(TenantId, ChannelAccountId), MessageId> = records
        .iter()
        .filter(is_back)
        .filter_map(|r| Some(((r.tenant_id, r.place?.channel_account_id), r.message_id)))
        .collect();
    probes::passed(tx, &back).await
}

/// Tries that were given back, by who still has them and of the time for which the account is down: not what is said twice, or late.
async fn give_back_tries(tx: &mut FleetTx, records: &[Record]) -> Result<()> {
    let given_back: Vec<(&Record, Place, AttemptId, Duration)> = records
        .iter()
        .filter_map(|r| match (&r.what, r.place) {
            (What::GivenBack { attempt_id, after, .. }, Some(place)) if place.probe => {
                Some((r, place, *attempt_id, after.unwrap_or(TRIED_AGAIN)))
            }
            _ => None,
        })
        .collect();
    if given_back.is_empty() {
        return Ok(());
    }
    let tenants: Vec<Uuid> = given_back.iter().map(|(r, ..)| r.tenant_id.0).collect();
    let messages: Vec<Uuid> = given_back.iter().map(|(r, ..)| r.message_id.0).collect();
    let attempts: Vec<Uuid> = given_back.iter().map(|(.., id, _)| id.0).collect();
    let revisions: Vec<i32> = given_back.iter().map(|(_, place, ..)| place.account_revision).collect();
    let rows = sqlx::query!(
        r#"SELECT s.tenant_id AS "tenant_id: TenantId", s.message_id AS "message_id: MessageId"
        FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::int[]) AS tried (tenant_id, message_id, attempt_id, revision)
        JOIN sends s
            ON s.tenant_id = tried.tenant_id AND s.message_id = tried.message_id AND s.attempt_id = tried.attempt_id
        JOIN channel_accounts a
            ON a.tenant_id = s.tenant_id AND a.id = s.channel_account_id AND a.revision = tried.revision
        WHERE s.state = 'sending' AND s.granted_at > a.down_at"#,
        &tenants,
        &messages,
        &attempts,
        &revisions,
    )
    .fetch_all(tx.conn())
    .await?;
    let theirs: HashSet<(TenantId, MessageId)> = rows.into_iter().map(|row| (row.tenant_id, row.message_id)).collect();
    let not_made = given_back
        .into_iter()
        .filter(|(r, ..)| theirs.contains(&(r.tenant_id, r.message_id)))
        .map(|(r, place, _, after)| ((r.tenant_id, place.channel_account_id), after));
    probes::not_made(tx, &not_made.collect()).await
}

/// When a rate that was lowered may creep back: so long after the last refusal.
const CALM: &str = "5 seconds";

/// Lets lowered rates creep back towards what is configured, once things are calm: by a twentieth of it, at most once a second
/// whoever calls.
///
/// # Errors
/// If the database does not answer.
pub async fn creep_back(tx: &mut FleetTx) -> Result<u64> {
    // One that a grant has locked creeps at the next call.
    let done = sqlx::query!(
        "WITH lowered AS MATERIALIZED (
            SELECT tenant_id, scope, key
            FROM limits
            WHERE current_rate < rate
                AND lowered_at < clock_timestamp() - $1::text::interval
                AND (crept_at IS NULL OR crept_at <= clock_timestamp() - interval '1 second')
            ORDER BY tenant_id, key
            FOR UPDATE SKIP LOCKED
        )
        UPDATE limits l
        SET current_rate = least(l.rate, l.current_rate + l.rate / 20), crept_at = clock_timestamp()
        FROM lowered
        WHERE l.tenant_id = lowered.tenant_id AND l.scope = lowered.scope AND l.key = lowered.key",
        CALM,
    )
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::sends::AttemptOutcome;
    use std::collections::BTreeSet;

    /// One of each kind that ends an attempt.
    fn ends_of_attempts() -> Vec<What> {
        let (attempt_id, code, reason) = (AttemptId::new(), String::new(), String::new());
        let class = crate::domain::outcome::Class::Transient;
        vec![
            What::Accepted { attempt_id, provider_message_id: String::new() },
            What::NotSent {
                attempt_id,
                code: code.clone(),
                reason: reason.clone(),
                class,
                after: Duration::ZERO,
                slow: None,
            },
            What::Unknown { attempt_id, reason: reason.clone() },
            What::Failed { attempt_id, code: code.clone(), reason: reason.clone(), says: Says::Nothing },
            What::AccountDown { attempt_id, code, reason: reason.clone() },
            What::GivenBack { attempt_id, reason, after: Some(Duration::ZERO) },
            What::Expired { attempt_id: Some(attempt_id) },
        ]
    }

    #[test]
    fn what_is_written_down_of_attempts_is_what_the_api_lists() {
        let written: BTreeSet<&str> = ends_of_attempts().iter().map(What::kind).collect();
        assert_eq!(written, AttemptOutcome::ALL.iter().map(|outcome| outcome.as_str()).collect());
    }

    #[test]
    fn what_a_send_waits_for_after_an_attempt_is_a_reason_that_the_api_lists() {
        // As move_on.sql writes it: the kind of what failed, the code of what was given back.
        let after = ends_of_attempts().into_iter().filter_map(|what| match what {
            What::NotSent { .. } | What::AccountDown { .. } => Some(what.kind()),
            What::GivenBack { after: Some(_), .. } => Some(what.kind()),
            _ => None,
        });
        for reason in after {
            assert!(WaitReason::ALL.iter().any(|known| known.as_str() == reason), "{reason}");
        }
    }
}
