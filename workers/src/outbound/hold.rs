//! What a worker holds: sends with a job, waiting for a grant. About every 20 ms Postgres is asked, once per placement, for
//! all that is held; what is granted is called at once, what cannot go soon is written down as waiting and its job
//! acknowledged.

use super::{call::Caller, carrier::Carrier};
use crate::worker::{Placed, Settle};
use shared::{
    crash::{self, CrashPoint},
    db::{
        self, Databases, Placement,
        outbound::{
            grant::{self, Answer, Grant, Held, Judged, Obstacle, Room},
            outcomes::{ACCOUNT_DOWN_AGAIN, OPTED_OUT, OPTED_OUT_REASON, Patience, Place, Record, What},
        },
    },
    domain::{
        ids::{AttemptId, ChannelAccountId, MessageId, TenantId},
        sends::WaitReason,
    },
    lifecycle::Lifecycle,
    telemetry::names,
};
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior},
};

/// How the outbound worker goes about it.
#[derive(Clone, Debug)]
pub struct OutboundSettings {
    /// The address at which providers reach the receiver, without a slash at its end.
    pub public_url: String,
    /// How long the fate of a send may stay unknown.
    pub patience: Patience,
    /// A granted send whose fate is not known by then counts as unknown; longer than a call can take.
    pub call_within: Duration,
    /// So many calls at once; one account gets a quarter of them at most, so that one whose provider hangs leaves room.
    pub max_calls: usize,
}

/// How often grants are asked for.
const ASK_EVERY: Duration = Duration::from_millis(20);
/// What is not granted within this time goes back to waiting, so that held jobs do not crowd out those that can go.
const HOLD_FOR: Duration = Duration::from_secs(2);
/// A campaign's message whose turn is far off is looked at again after this time: the rate of an account that was throttled rises
/// again, and as long as it waits nobody else of its campaign is released.
const CAMPAIGN_AGAIN: Duration = Duration::from_secs(10);
/// So near to its turn at the meter an answer is asked for each time.
const NEAR: Duration = Duration::from_millis(250);
/// What waits because of whom it goes to is looked at again after this time at the latest: the limit may have been raised.
const LIMIT_AGAIN: Duration = Duration::from_secs(60);
/// At most so many sends in one question.
const ASK_AT_MOST: usize = 500;
/// When so many are held, those that wait for room on their account make room for others.
const CROWDED: usize = 2000;

/// A send with what brought it.
pub(super) struct HeldSend {
    pub(super) tenant_id: TenantId,
    pub(super) message_id: MessageId,
    placement: Placement,
    pub(super) carrier: Carrier,
    settle: Settle<Record>,
    attempt_id: AttemptId,
    since: Instant,
    /// The account, where the job or an answer has said so.
    account: Option<ChannelAccountId>,
    /// Not worth asking for again before this.
    ask_at: Instant,
}

impl HeldSend {
    /// Settles it with what happened.
    pub(super) fn record(self, place: Option<Place>, what: What) {
        self.record_all(place, [what]);
    }

    /// Settles it with what happened to it, and what else that shows.
    pub(super) fn record_all(self, place: Option<Place>, whats: impl IntoIterator<Item = What>) {
        let Self { tenant_id, message_id, placement, carrier, settle, .. } = self;
        let slice = carrier.slice_account();
        let effect = |what| Record { tenant_id, message_id, place, what, slice };
        let records = whats
            .into_iter()
            .map(|what| Placed { placement: placement.clone(), tenant: tenant_id, effect: effect(what) })
            .collect();
        carrier.record(&settle, records);
    }

    /// There is nothing to do about it.
    fn nothing(self) {
        self.carrier.nothing(&self.settle);
    }

    /// It comes back, uncharged.
    fn later(self, wait: Duration) {
        self.carrier.later(&self.settle, wait);
    }

    /// There is no such send.
    fn reject(self) {
        self.carrier.reject(&self.settle, self.tenant_id, self.message_id);
    }
}

/// A send that a job brings.
pub(super) struct Brought {
    pub(super) tenant_id: TenantId,
    pub(super) message_id: MessageId,
    /// The account, where the job says so.
    pub(super) account: Option<ChannelAccountId>,
    pub(super) carrier: Carrier,
}

/// Holds sends until they are granted. Each database is asked by a task of its own: one that is away holds up its own sends.
pub(super) struct Holder {
    asking: Arc<Asking>,
    askers: Mutex<BTreeMap<Placement, mpsc::UnboundedSender<HeldSend>>>,
}

/// What asking for grants works with.
struct Asking {
    databases: Databases,
    caller: Caller,
    settings: OutboundSettings,
    life: Lifecycle,
}

impl Holder {
    /// Makes calls with this.
    pub(super) fn new(databases: Databases, caller: Caller, settings: OutboundSettings, life: &Lifecycle) -> Self {
        let asking = Asking { databases, caller, settings, life: life.clone() };
        Self { asking: Arc::new(asking), askers: Mutex::default() }
    }

    /// Takes a send in.
    pub(super) fn hold(&self, brought: Brought, placement: Placement, settle: Settle<Record>) {
        let now = Instant::now();
        let asker = self.asker(&placement);
        let Brought { tenant_id, message_id, account, carrier } = brought;
        let attempt_id = AttemptId::new();
        let send = HeldSend {
            tenant_id,
            message_id,
            placement,
            carrier,
            settle,
            attempt_id,
            since: now,
            account,
            ask_at: now,
        };
        if let Err(mpsc::error::SendError(send)) = asker.send(send) {
            // The process is ending and asks no more: the job goes to another worker.
            send.later(Duration::ZERO);
        }
    }

    fn asker(&self, placement: &Placement) -> mpsc::UnboundedSender<HeldSend> {
        let mut askers = self.askers.lock().expect("nothing panics while this is locked");
        if let Some(asker) = askers.get(placement) {
            return asker.clone();
        }
        // Bounded by the consumer's prefetch: the runtime holds no more tickets than that.
        let (asker, held) = mpsc::unbounded_channel();
        self.asking.life.spawn(ask_for_grants(self.asking.clone(), placement.clone(), held));
        askers.insert(placement.clone(), asker.clone());
        asker
    }
}

async fn ask_for_grants(asking: Arc<Asking>, placement: Placement, mut incoming: mpsc::UnboundedReceiver<HeldSend>) {
    let life = &asking.life;
    let mut held: Vec<HeldSend> = Vec::new();
    let mut tick = tokio::time::interval(ASK_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        if held.is_empty() {
            tokio::select! {
                send = incoming.recv() => match send { Some(send) => held.push(send), None => return },
                () = life.stopping() => return drain(held, incoming),
            }
        }
        while let Ok(send) = incoming.try_recv() {
            held.push(send);
        }
        if life.is_stopping() {
            return drain(held, incoming);
        }
        held = asking.ask(&placement, held).await;
        metrics::gauge!(names::OUTBOUND_HELD, "placement" => placement.as_str().to_owned()).set(held.len() as f64);
        // A full house is asked for again at once, a half-empty one is given time to fill.
        tokio::select! {
            _ = tick.tick() => {},
            () = life.stopping() => {},
        }
    }
}

/// The process ends: what is held goes back at once, uncharged.
fn drain(held: Vec<HeldSend>, mut incoming: mpsc::UnboundedReceiver<HeldSend>) {
    incoming.close();
    let mut rest = held;
    while let Ok(send) = incoming.try_recv() {
        rest.push(send);
    }
    for send in rest {
        send.later(Duration::ZERO);
    }
}

impl Asking {
    /// Asks for what is due to be asked for. Returns what is still held.
    async fn ask(&self, placement: &Placement, mut held: Vec<HeldSend>) -> Vec<HeldSend> {
        let now = Instant::now();
        // An answer asks before any number of campaigns' messages that wait; among equals who came first.
        held.sort_by_key(|send| send.carrier.lane());
        let crowded = held.len() >= CROWDED;
        let room = self.caller.room_by_account();
        let mut left: HashMap<ChannelAccountId, usize> = room.left.iter().copied().collect();
        // Never more than can be called at once: a grant that waits in a queue of ours would be stale when its turn comes.
        let at_most = self.caller.room().min(ASK_AT_MOST);
        let (mut due, mut keep) = (Vec::new(), Vec::new());
        for send in held {
            let overdue = crowded && send.since.elapsed() > HOLD_FOR;
            if send.ask_at > now || (due.len() == at_most && !overdue) {
                keep.push(send);
                continue;
            }
            match send.account.map(|id| left.entry(id).or_insert(room.per_account)) {
                Some(0) if overdue => {
                    send.record(None, What::Waits { reason: WaitReason::Room, after: Some(HOLD_FOR) })
                }
                Some(0) => keep.push(send),
                left => {
                    // Also for one that must wait for others: what there is no room for on its account is told from it.
                    if let Some(left) = left {
                        *left -= 1;
                    }
                    if due.len() == at_most { keep.push(send) } else { due.push(send) }
                }
            }
        }
        let Some(first) = due.first() else { return keep };
        let settle = first.settle.clone();
        // A send has one place in the question; a second job for it is answered like the first.
        let mut by_id: BTreeMap<(TenantId, MessageId), Vec<HeldSend>> = BTreeMap::new();
        for send in due {
            by_id.entry((send.tenant_id, send.message_id)).or_default().push(send);
        }
        let wanted: Vec<Held> = by_id
            .iter()
            .map(|((tenant_id, message_id), sends)| Held {
                tenant_id: *tenant_id,
                message_id: *message_id,
                attempt_id: sends[0].attempt_id,
            })
            .collect();
        let began = Instant::now();
        let (asked_at, answers) = match self.question(placement, &wanted, &room, &settle).await {
            Ok(answers) => answers,
            Err(error) => {
                // Nothing but ids went in, so this is no fault of one of them: all come back later.
                tracing::error!(%error, "grants could not be asked for");
                for send in by_id.into_values().flatten() {
                    send.later(HOLD_FOR);
                }
                return keep;
            }
        };
        metrics::histogram!(names::OUTBOUND_GRANT_SECONDS).record(began.elapsed().as_secs_f64());
        crash::pass(CrashPoint::OutboundAfterClaim);
        let granted = answered(by_id, answers, &mut keep);
        metrics::counter!(names::OUTBOUND_GRANTED).increment(granted.len() as u64);
        self.caller.call(asked_at, placement, granted).await;
        keep
    }

    /// Asks, and again while the database is away. With the time of the question that was answered.
    async fn question(
        &self,
        placement: &Placement,
        wanted: &[Held],
        room: &Room,
        settle: &Settle<Record>,
    ) -> Result<(Instant, Vec<Judged>), db::Error> {
        let mut tenants: Vec<TenantId> = wanted.iter().map(|h| h.tenant_id).collect();
        tenants.dedup();
        let tenants = tenants.as_slice();
        let question = || async move {
            // Taken before the question: however long the answer or this process is delayed, the grant is never older than this says.
            let asked_at = Instant::now();
            let mut tx = self.databases.fleet(placement, tenants).await?;
            let answers = grant::grant(&mut tx, wanted, self.settings.call_within, room).await?;
            tx.commit().await?;
            Ok::<_, db::Error>((asked_at, answers))
        };
        settle.outlast("asking for grants", question).await
    }
}

type Granted = (HeldSend, Place, Box<Grant>);

/// What is granted; what is held on is kept, the rest is settled.
fn answered(
    by_id: BTreeMap<(TenantId, MessageId), Vec<HeldSend>>,
    answers: Vec<Judged>,
    keep: &mut Vec<HeldSend>,
) -> Vec<Granted> {
    let mut granted: Vec<Granted> = Vec::new();
    let mut answers: HashMap<(TenantId, MessageId), Judged> =
        answers.into_iter().map(|j| ((j.tenant_id, j.message_id), j)).collect();
    for (id, mut sends) in by_id {
        let Some(judged) = answers.remove(&id) else {
            sends.into_iter().for_each(HeldSend::reject);
            continue;
        };
        let place = Place {
            channel_account_id: judged.channel_account_id,
            channel: judged.channel,
            account_revision: judged.account_revision,
            conversation_id: judged.conversation_id,
            probe: judged.probe,
            serial: judged.serial,
        };
        let send = sends.remove(0);
        // Further jobs for the same send have nothing to add to this one.
        sends.into_iter().for_each(HeldSend::nothing);
        match judged.answer {
            Answer::Granted(grant) => granted.push((send, place, grant)),
            Answer::NotNow(obstacle) => keep.extend(not_now(send, place, obstacle)),
        }
    }
    granted
}

/// What becomes of a send that may not go now. Returned: it is held on.
fn not_now(mut send: HeldSend, place: Place, obstacle: Obstacle) -> Option<HeldSend> {
    let held_for = send.since.elapsed();
    match obstacle {
        Obstacle::Rate(wait) if held_for + wait < HOLD_FOR => {
            // An answer whose turn is near is in every question, or a campaign's message that comes later takes its place.
            let again = if send.carrier.lane() == 0 && wait < NEAR { wait.min(ASK_EVERY) } else { wait };
            send.ask_at = Instant::now() + again;
            return Some(send);
        }
        Obstacle::Rate(wait) => {
            let at_most = if send.carrier.lane() == 0 { grant::ANSWER_AGAIN } else { CAMPAIGN_AGAIN };
            let after = wait.min(at_most);
            send.record(Some(place), What::Waits { reason: WaitReason::Rate, after: Some(after) });
        }
        Obstacle::Pair(wait) => {
            send.record(Some(place), What::Waits { reason: WaitReason::Pair, after: Some(wait.min(LIMIT_AGAIN)) });
        }
        Obstacle::Portfolio(wait) => {
            // The first place that is free is for an answer, and campaigns' messages do not all come for it at once.
            let spread = Duration::from_millis(rand::random_range(0..15_000));
            let after = if send.carrier.lane() == 0 { wait.min(LIMIT_AGAIN) } else { LIMIT_AGAIN - spread };
            send.record(Some(place), What::Waits { reason: WaitReason::Portfolio, after: Some(after) });
        }
        // Asked for again as soon as one of the account's calls has ended.
        Obstacle::Room => {
            send.account = Some(place.channel_account_id);
            return Some(send);
        }
        Obstacle::Turn => send.record(Some(place), What::Waits { reason: WaitReason::Turn, after: None }),
        Obstacle::AccountDown => {
            send.record(Some(place), What::Waits { reason: WaitReason::AccountDown, after: Some(ACCOUNT_DOWN_AGAIN) });
        }
        Obstacle::CampaignPaused => send.record(Some(place), What::Waits { reason: WaitReason::Campaign, after: None }),
        Obstacle::CampaignOver => send.record(Some(place), What::Cancelled),
        Obstacle::WindowClosed => {
            let reason =
                "more than 24 hours have passed since the customer's last message; only a template can be sent";
            send.record(Some(place), What::Refused { code: "window_closed", reason: reason.into() });
        }
        Obstacle::Expired => {
            let reason = "it waited for longer than it is of use".into();
            send.record(Some(place), What::Refused { code: "expired", reason });
        }
        // Our own claim, committed although its answer was lost: not called, so it is given back.
        Obstacle::OptedOut => {
            send.record(Some(place), What::Refused { code: OPTED_OUT, reason: OPTED_OUT_REASON.into() });
        }
        Obstacle::Claimed { attempt_id: Some(id), .. } if id == send.attempt_id => {
            let reason = "the grant's answer was lost".into();
            send.record(Some(place), What::GivenBack { attempt_id: id, reason, after: None });
        }
        Obstacle::Claimed { attempt_id, left: None } => send.record(Some(place), What::Expired { attempt_id }),
        Obstacle::Claimed { left: Some(left), .. } => send.later(left + ASK_EVERY),
        // This may be the job that was to come when it is due: the clock has stepped back, or another server's has taken over.
        Obstacle::NotDue(left) if send.carrier.is_sole() => send.later(left.max(ASK_EVERY)),
        Obstacle::NotDue(_) | Obstacle::Settled(_) => send.nothing(),
    }
    None
}
