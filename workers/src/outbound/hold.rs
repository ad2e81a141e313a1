//! What a worker holds: sends with a job, waiting for a grant. About every 20 ms Postgres is asked, once per placement, for
//! all that is held; what is granted is called at once, what cannot go soon is written down as waiting and its job
//! acknowledged.

use super::{accounts::Accounts, call::Caller};
use crate::worker::{Placed, Settle, Ticket};
use anyhow::anyhow;
use shared::{
    crash::{self, CrashPoint},
    db::{
        self, Databases, Placement,
        outbound::{
            grant::{self, Answer, Grant, Held, Judged, Obstacle},
            outcomes::{ACCOUNT_DOWN, Patience, Place, Record, What},
        },
    },
    domain::ids::{AttemptId, MessageId, TenantId},
    jobs::outbound::OutboundJob,
    lifecycle::Lifecycle,
    providers::http::ProviderClient,
    telemetry::names,
};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior},
};

/// How the outbound worker goes about it.
#[derive(Clone, Copy, Debug)]
pub struct OutboundSettings {
    /// How long the fate of a send may stay unknown.
    pub patience: Patience,
    /// A granted send whose fate is not known by then counts as unknown; longer than a call can take.
    pub call_within: Duration,
    /// So many calls at once.
    pub max_calls: usize,
}

/// How often grants are asked for.
const ASK_EVERY: Duration = Duration::from_millis(20);
/// What is not granted within this time goes back to waiting, so that held jobs do not crowd out those that can go.
const HOLD_FOR: Duration = Duration::from_secs(2);
/// At most so many sends in one question.
const ASK_AT_MOST: usize = 500;
/// An account that is down is looked at again after this long, should its return have been missed.
const DOWN_AGAIN: Duration = Duration::from_secs(600);

/// A send with its job.
pub(super) struct HeldSend {
    pub(super) job: OutboundJob,
    pub(super) placement: Placement,
    pub(super) ticket: Ticket<()>,
    pub(super) settle: Settle<Record>,
    attempt_id: AttemptId,
    since: Instant,
    /// Not worth asking for again before this.
    ask_at: Instant,
}

impl HeldSend {
    /// Settles the job with what happened.
    pub(super) fn record(self, place: Option<Place>, what: What) {
        let OutboundJob { tenant_id, message_id, .. } = self.job;
        let effect = Record { tenant_id, message_id, place, what };
        self.settle.done(self.ticket, vec![Placed { placement: self.placement, tenant: tenant_id, effect }]);
    }
}

/// Holds sends until they are granted.
pub(super) struct Holder {
    incoming: mpsc::UnboundedSender<HeldSend>,
}

impl Holder {
    /// Starts asking for grants.
    pub(super) fn start(
        databases: Databases,
        client: ProviderClient,
        accounts: Arc<Accounts>,
        settings: OutboundSettings,
        life: &Lifecycle,
    ) -> Self {
        // Bounded by the consumer's prefetch: the runtime holds no more tickets than that.
        let (incoming, held) = mpsc::unbounded_channel();
        let caller = Caller::new(client, accounts, settings, life.clone());
        life.spawn(ask_for_grants(databases, caller, settings, held, life.clone()));
        Self { incoming }
    }

    /// Takes a send in.
    pub(super) fn hold(&self, job: OutboundJob, placement: Placement, ticket: Ticket<()>, settle: Settle<Record>) {
        let now = Instant::now();
        let send = HeldSend { job, placement, ticket, settle, attempt_id: AttemptId::new(), since: now, ask_at: now };
        if let Err(mpsc::error::SendError(send)) = self.incoming.send(send) {
            // The process is ending and asks no more: the job goes to another worker.
            send.settle.later(send.ticket, Duration::ZERO);
        }
    }
}

async fn ask_for_grants(
    databases: Databases,
    caller: Caller,
    settings: OutboundSettings,
    mut incoming: mpsc::UnboundedReceiver<HeldSend>,
    life: Lifecycle,
) {
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
        held = ask(&databases, &caller, settings, held).await;
        metrics::gauge!(names::OUTBOUND_HELD).set(held.len() as f64);
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
        send.settle.later(send.ticket, Duration::ZERO);
    }
}

/// Asks for what is due to be asked for. Returns what is still held.
async fn ask(databases: &Databases, caller: &Caller, settings: OutboundSettings, held: Vec<HeldSend>) -> Vec<HeldSend> {
    let now = Instant::now();
    let room = caller.room();
    let (due, mut keep): (Vec<_>, Vec<_>) = held.into_iter().partition(|send| send.ask_at <= now);
    let mut due = due;
    // Never more than can be called at once: a grant that waits in a queue of ours would be stale when its turn comes.
    let rest = due.split_off(due.len().min(room).min(ASK_AT_MOST));
    keep.extend(rest);
    let mut by_placement: BTreeMap<Placement, Vec<HeldSend>> = BTreeMap::new();
    for send in due {
        by_placement.entry(send.placement.clone()).or_default().push(send);
    }
    for (placement, sends) in by_placement {
        keep.extend(ask_placement(databases, caller, settings, &placement, sends).await);
    }
    keep
}

async fn ask_placement(
    databases: &Databases,
    caller: &Caller,
    settings: OutboundSettings,
    placement: &Placement,
    sends: Vec<HeldSend>,
) -> Vec<HeldSend> {
    let Some(first) = sends.first() else { return sends };
    let settle = first.settle.clone();
    // A send has one place in the question; a second job for it is answered like the first.
    let mut by_id: BTreeMap<(TenantId, MessageId), Vec<HeldSend>> = BTreeMap::new();
    for send in sends {
        by_id.entry((send.job.tenant_id, send.job.message_id)).or_default().push(send);
    }
    let wanted: Vec<Held> = by_id
        .iter()
        .map(|((tenant_id, message_id), sends)| Held {
            tenant_id: *tenant_id,
            message_id: *message_id,
            attempt_id: sends[0].attempt_id,
        })
        .collect();
    let mut tenants: Vec<TenantId> = wanted.iter().map(|h| h.tenant_id).collect();
    tenants.dedup();
    let (wanted, tenants) = (wanted.as_slice(), tenants.as_slice());
    let question = || async move {
        // Taken before the question: however long the answer or this process is delayed, the grant is never older than this says.
        let asked_at = Instant::now();
        let mut tx = databases.fleet(placement, tenants).await?;
        let answers = grant::grant(&mut tx, wanted, settings.call_within).await?;
        tx.commit().await?;
        Ok::<_, db::Error>((asked_at, answers))
    };
    let began = Instant::now();
    let (asked_at, answers) = match settle.outlast("asking for grants", question).await {
        Ok(answers) => answers,
        Err(error) => {
            // Nothing but ids went in, so this is no fault of one of them: all come back later.
            tracing::error!(%error, "grants could not be asked for");
            for send in by_id.into_values().flatten() {
                send.settle.later(send.ticket, HOLD_FOR);
            }
            return Vec::new();
        }
    };
    metrics::histogram!(names::OUTBOUND_GRANT_SECONDS).record(began.elapsed().as_secs_f64());
    crash::pass(CrashPoint::OutboundAfterClaim);
    let mut keep = Vec::new();
    let mut granted: Vec<(HeldSend, Place, Box<Grant>)> = Vec::new();
    let mut answers: HashMap<(TenantId, MessageId), Judged> =
        answers.into_iter().map(|j| ((j.tenant_id, j.message_id), j)).collect();
    for (id, mut sends) in by_id {
        let Some(judged) = answers.remove(&id) else {
            for send in sends {
                let why = anyhow!("there is no send {} of tenant {}", id.1, id.0);
                send.settle.reject(send.ticket, why);
            }
            continue;
        };
        let place = Place {
            channel_account_id: judged.channel_account_id,
            account_revision: judged.account_revision,
            conversation_id: judged.conversation_id,
        };
        let send = sends.remove(0);
        // Further jobs for the same send have nothing to add to this one.
        for double in sends {
            double.settle.done(double.ticket, Vec::new());
        }
        match judged.answer {
            Answer::Granted(grant) => granted.push((send, place, grant)),
            Answer::NotNow(obstacle) => keep.extend(not_now(send, place, obstacle)),
        }
    }
    metrics::counter!(names::OUTBOUND_GRANTED).increment(granted.len() as u64);
    caller.call(asked_at, placement, granted).await;
    keep
}

/// What becomes of a send that may not go now. Returned: it is held on.
fn not_now(mut send: HeldSend, place: Place, obstacle: Obstacle) -> Option<HeldSend> {
    let held_for = send.since.elapsed();
    match obstacle {
        Obstacle::Rate(wait) if held_for + wait < HOLD_FOR => {
            send.ask_at = Instant::now() + wait.min(HOLD_FOR);
            return Some(send);
        }
        Obstacle::Rate(wait) => send.record(Some(place), What::Waits { reason: "rate", after: Some(wait) }),
        Obstacle::Turn => send.record(Some(place), What::Waits { reason: "turn", after: None }),
        Obstacle::AccountDown => {
            send.record(Some(place), What::Waits { reason: ACCOUNT_DOWN, after: Some(DOWN_AGAIN) });
        }
        Obstacle::WindowClosed => {
            let reason =
                "more than 24 hours have passed since the customer's last message; only a template can be sent";
            send.record(Some(place), What::Refused { code: "window_closed", reason: reason.into() });
        }
        // Our own claim, committed although its answer was lost: not called, so it is given back.
        Obstacle::Claimed { attempt_id: Some(id), .. } if id == send.attempt_id => {
            send.record(Some(place), What::GivenBack { attempt_id: id, reason: "the grant's answer was lost".into() });
        }
        Obstacle::Claimed { attempt_id, left: None } => send.record(Some(place), What::Expired { attempt_id }),
        Obstacle::Claimed { left: Some(left), .. } => send.settle.later(send.ticket, left + ASK_EVERY),
        // This may be the job that was to come when it is due: the clock has stepped back, or another server's has taken over.
        Obstacle::NotDue(left) => send.settle.later(send.ticket, left.max(ASK_EVERY)),
        Obstacle::Settled(_) => send.settle.done(send.ticket, Vec::new()),
    }
    None
}
