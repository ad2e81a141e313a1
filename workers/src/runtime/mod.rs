//! The one runtime of all workers: receive → decode → perform → collect → apply, outbox, commit by placement → publish →
//! acknowledge. It alone decides when a delivery is acknowledged, and what a failure means:
//!
//! - *ours* (database, broker): no new deliveries, what is held is kept and tried again, not ready; nobody is charged;
//! - *contention*: the same batch again at once, a few times;
//! - *the data's*: the batch is halved until the bad effects stand alone; those are dead, the rest is stored.
//!
//! | module | what it is about |
//! |---|---|
//! | `receive`, `ramp`, `lane`, `acks` | deliveries in, acknowledgements out |
//! | `decode`, `held` | jobs that are started, and what must happen before each is acknowledged |
//! | `settle`, `postpone`, `bury` | verdicts; jobs that come back; dead letters |
//! | `commit`, `store` | batches, transactions, the outbox |
//! | `pause`, `outlast` | outages |
//! | `watch`, `drain`, `panics` | jobs held too long, stopping, panics |

mod acks;
mod bury;
mod commit;
mod decode;
mod drain;
pub(crate) mod held;
mod lane;
mod outlast;
mod panics;
mod pause;
mod postpone;
mod ramp;
mod receive;
pub(crate) mod settle;
mod store;
mod watch;

use crate::worker::{Settle, Ticket, Worker};
use held::{Held, Ledger};
use pause::Pause;
use receive::{End, Receiving};
use settle::Disposal;
use shared::{
    clock::Clock,
    db::Databases,
    health::{Condition, Readiness},
    lifecycle::Lifecycle,
    queue::{Broker, Publisher, Session},
    retry::Pauses,
    telemetry::names,
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, field};

/// What the runtime works with. Cheap to clone.
#[derive(Clone)]
pub struct Parts {
    /// The process's life: stopping it drains the runtime.
    pub life: Lifecycle,
    /// The databases.
    pub databases: Databases,
    /// The broker.
    pub broker: Broker,
    /// For what is published.
    pub publisher: Publisher,
    /// The time.
    pub clock: Clock,
    /// Where the runtime says whether it can work.
    pub readiness: Readiness,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// Jobs that were not finished within the grace period; the broker delivers them again.
    pub left: usize,
}

/// A session that lasted so long was a good one: the next is made without delay.
const STABLE: Duration = Duration::from_secs(30);

pub(crate) struct Runtime<W: Worker> {
    worker: Arc<W>,
    parts: Parts,
    ledger: Arc<Ledger>,
    pause: Pause,
    settle: Settle<W::Effect>,
    desk: UnboundedSender<Disposal>,
}

/// Works until the process stops, then drains. Must be awaited to its end before the process exits.
pub async fn run<W: Worker>(worker: W, parts: Parts) -> Drained {
    panics::install();
    let condition = parts.readiness.condition("broker");
    let finished = CancellationToken::new();
    let runtime = start(Arc::new(worker), parts, &finished);
    let mut pauses = Pauses::for_outage();
    while let Some(session) = connect(&runtime, &condition, &mut pauses).await {
        condition.ready();
        let since = Instant::now();
        match Receiving::new(runtime.clone(), session).run().await {
            End::Stopping => return finish(&runtime, &finished),
            End::Lost(error) => {
                condition.not_ready(error.to_string());
                metrics::counter!(names::SESSIONS_LOST_TOTAL, "worker" => W::NAME).increment(1);
                tracing::warn!(%error, held = runtime.ledger.len(), "the session with the broker is lost");
                if since.elapsed() > STABLE {
                    pauses.reset();
                }
                wait(&runtime, pauses.next_wait()).await;
            }
        }
    }
    // Stopped without a session: what is held can still be committed.
    let _ = tokio::time::timeout(drain::most(&runtime.parts.life), runtime.ledger.empty()).await;
    finish(&runtime, &finished)
}

fn finish<W: Worker>(runtime: &Runtime<W>, finished: &CancellationToken) -> Drained {
    finished.cancel();
    Drained { left: runtime.ledger.len() }
}

/// Starts everything that outlives a session.
fn start<W: Worker>(worker: Arc<W>, parts: Parts, finished: &CancellationToken) -> Arc<Runtime<W>> {
    let (life, databases) = (&parts.life, &parts.databases);
    let ledger = Arc::new(Ledger::default());
    let pause = Pause::new(parts.readiness.condition("work"));
    let (collect, collected) = unbounded_channel();
    let (desk, disposals) = unbounded_channel();
    let (postpone, postponed) = unbounded_channel();
    let (bury, burials) = unbounded_channel();
    let (alone, to_repeat) = unbounded_channel();
    let (published, deletable) = unbounded_channel();

    life.spawn(store::delete_published(deletable, databases.clone()));
    life.spawn(bury::bury(burials, parts.publisher.clone(), pause.clone()));
    life.spawn(postpone::postpone(postponed, databases.clone(), pause.clone(), bury.clone()));
    let desk_work =
        settle::Desk { worker: W::NAME, clock: parts.clock.clone(), divide: W::divide, postpone, bury, alone };
    life.spawn(desk_work.work(disposals, finished.clone()));
    life.spawn(watch::watch(W::NAME, ledger.clone(), pause.clone(), desk.clone(), finished.clone()));
    let committing = commit::Committing {
        worker: W::NAME,
        store: store::Transactions {
            worker: worker.clone(),
            databases: databases.clone(),
            publisher: parts.publisher.clone(),
            pause: pause.clone(),
            published,
        },
        part: W::part,
        weight: W::weight,
        batch: W::BATCH,
        batch_weight: W::BATCH_WEIGHT,
        answer_timeout: settle::ANSWER_TIMEOUT,
        linger: W::LINGER,
        committers: W::COMMITTERS,
        after_commit: W::crash_points().after_commit,
        ledger: ledger.clone(),
        pause: pause.clone(),
        desk: desk.clone(),
    };
    life.spawn(commit::collect(collected, Arc::new(committing), life.clone()));
    let settle = Settle::new(W::NAME, collect, desk.clone(), pause.clone());
    let runtime = Arc::new(Runtime { worker, parts: parts.clone(), ledger, pause, settle, desk });
    life.spawn(repeat_alone(runtime.clone(), to_repeat, finished.clone()));
    runtime
}

/// A session, when there is no outage of ours; `None` when the process stops.
async fn connect<W: Worker>(runtime: &Runtime<W>, condition: &Condition, pauses: &mut Pauses) -> Option<Session> {
    let stopping = runtime.parts.life.token();
    loop {
        // Deliveries taken in an outage would only be held, and counted when this session is lost in turn.
        stopping.run_until_cancelled(runtime.pause.resumed()).await?;
        match stopping.run_until_cancelled(runtime.parts.broker.session()).await? {
            Ok(session) => {
                stopping.run_until_cancelled(runtime.parts.publisher.ready()).await?;
                return Some(session);
            }
            Err(error) => {
                tracing::warn!(%error, "no session with the broker");
                condition.not_ready(error.to_string());
                wait(runtime, pauses.next_wait()).await;
            }
        }
    }
}

async fn wait<W: Worker>(runtime: &Runtime<W>, pause: Duration) {
    runtime.parts.life.token().run_until_cancelled(tokio::time::sleep(pause)).await;
}

/// Performs again, each by itself, what was in one call with a job that panicked.
async fn repeat_alone<W: Worker>(
    runtime: Arc<Runtime<W>>,
    mut to_repeat: UnboundedReceiver<Arc<Held>>,
    finished: CancellationToken,
) {
    while let Some(Some(held)) = finished.run_until_cancelled(to_repeat.recv()).await {
        let ticket = runtime.ticket(held);
        runtime.perform(ticket.into_iter().collect());
    }
}

impl<W: Worker> Runtime<W> {
    /// Performs jobs in a task of their own.
    pub(crate) fn perform(self: &Arc<Self>, tickets: Vec<Ticket<W::Job>>) {
        if tickets.is_empty() {
            return;
        }
        let span = tracing::info_span!("perform", worker = W::NAME, jobs = tickets.len(), trace_id = field::Empty);
        if let [ticket] = tickets.as_slice()
            && !span.is_disabled()
        {
            span.record("trace_id", field::display(ticket.trace().trace_id()));
        }
        let runtime = self.clone();
        self.parts.life.spawn(async move { runtime.worker.perform(tickets, &runtime.settle).await }.instrument(span));
    }
}
