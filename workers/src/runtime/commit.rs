//! Writing effects down: gathered into batches by placement, each batch one transaction. A failure of ours waits, contention
//! tries again, bad data is halved until it stands alone. What is committed is announced, and only then may its jobs be
//! acknowledged.

use super::{
    held::{Held, Ledger},
    outlast::CONTENTIONS,
    panics,
    pause::{Pause, Waiting},
    settle::{Collected, Disposal},
};
use crate::worker::Part;
use futures_util::FutureExt;
use shared::{
    crash::{self, CrashPoint},
    db::{self, Kind, Placement, outbox::OutboxRow},
    domain::ids::TenantId,
    lifecycle::Lifecycle,
    retry::Pauses,
    telemetry::names,
};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    future::Future,
    ops::Range,
    panic::AssertUnwindSafe,
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::{
        Mutex,
        mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    },
    time::Instant,
};

/// A batch that was not stored in time so many times in a row is tried in halves.
const TIME_OUTS: u32 = 2;

/// Where effects go.
pub(crate) trait Store: Send + Sync + 'static {
    type Effect: Send + Sync + 'static;

    /// Begins, applies and commits. Returns what is to be published.
    fn store(
        &self,
        placement: &Placement,
        tenants: &[TenantId],
        effects: &[Self::Effect],
    ) -> impl Future<Output = db::Result<Vec<OutboxRow>>> + Send;

    /// Publishes what was committed; what cannot be is left to the sweep.
    fn announce(&self, placement: &Placement, rows: Vec<OutboxRow>) -> impl Future<Output = ()> + Send;

    /// These are committed.
    fn committed(&self, _effects: &[Self::Effect]) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }
}

/// How one worker's effects are gathered and committed.
pub(crate) struct Committing<S: Store> {
    pub(crate) worker: &'static str,
    pub(crate) store: S,
    pub(crate) part: fn(&S::Effect) -> Option<Part>,
    pub(crate) weight: fn(&S::Effect) -> usize,
    pub(crate) batch: usize,
    pub(crate) batch_weight: usize,
    /// A batch that is not stored within this time is not going to be.
    pub(crate) answer_timeout: Duration,
    pub(crate) linger: Duration,
    pub(crate) committers: usize,
    pub(crate) after_commit: Option<CrashPoint>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) pause: Pause,
    pub(crate) desk: UnboundedSender<Disposal>,
}

/// One job's effects in one placement.
struct Group<E> {
    held: Arc<Held>,
    effects: Vec<(TenantId, E)>,
    since: Instant,
}

/// Why some effects are not stored.
#[derive(Clone, Debug)]
enum Unstored {
    /// Ever.
    Bad(Bad),
    /// Together: they take longer than an answer may, which is nobody's fault.
    TooMuch,
}

/// Why a batch cannot be stored, ever.
#[derive(Clone, Debug)]
enum Bad {
    Data(String),
    Panic(String),
}

/// An outage of ours while a batch waits, with the time to wait next.
type Outage = Option<(Waiting, Pauses)>;

/// Hands each job's effects to the committers of their placements, which are started at its first use.
pub(crate) async fn collect<S: Store>(
    mut incoming: UnboundedReceiver<Collected<S::Effect>>,
    committing: Arc<Committing<S>>,
    life: Lifecycle,
) {
    let mut pools: HashMap<Placement, UnboundedSender<Group<S::Effect>>> = HashMap::new();
    while let Some(Collected { held, effects }) = incoming.recv().await {
        let mut by_placement: BTreeMap<Placement, Vec<(TenantId, S::Effect)>> = BTreeMap::new();
        for placed in effects {
            by_placement.entry(placed.placement).or_default().push((placed.tenant, placed.effect));
        }
        // The verdict itself is open once; that is the first placement's now.
        (1..by_placement.len()).for_each(|_| held.open());
        for (placement, effects) in by_placement {
            let pool = pools.entry(placement).or_insert_with_key(|placement| start(&committing, placement, &life));
            let _ = pool.send(Group { held: held.clone(), effects, since: Instant::now() });
        }
    }
}

fn start<S: Store>(
    committing: &Arc<Committing<S>>,
    placement: &Placement,
    life: &Lifecycle,
) -> UnboundedSender<Group<S::Effect>> {
    let (pool, groups) = unbounded_channel();
    let groups = Arc::new(Mutex::new(groups));
    for _ in 0..committing.committers {
        let (committing, groups, placement) = (committing.clone(), groups.clone(), placement.clone());
        life.spawn(async move {
            while let Some(batch) = committing.gather(&groups).await {
                committing.commit(&placement, batch).await;
            }
        });
    }
    pool
}

impl<S: Store> Committing<S> {
    /// The next batch; `None` when there will be no more. One committer gathers at a time, so that what comes meanwhile
    /// gathers for the next.
    async fn gather(&self, groups: &Mutex<UnboundedReceiver<Group<S::Effect>>>) -> Option<Vec<Group<S::Effect>>> {
        let mut groups = groups.lock().await;
        let first = groups.recv().await?;
        let deadline = first.since + self.linger;
        let (mut effects, mut weight) = (first.effects.len(), self.weigh(&first));
        let mut jobs = HashSet::from([Arc::as_ptr(&first.held).addr()]);
        let mut batch = vec![first];
        while effects < self.batch && weight < self.batch_weight {
            let next = match groups.try_recv() {
                Ok(group) => Some(group),
                // Every job held is in this batch, and has said all it had to say: there is nobody to wait for.
                Err(_) if self.ledger.len() <= jobs.len() && batch.iter().all(|group| group.held.is_settled()) => None,
                Err(_) => tokio::time::timeout_at(deadline, groups.recv()).await.ok().flatten(),
            };
            let Some(group) = next else { break };
            effects += group.effects.len();
            weight += self.weigh(&group);
            jobs.insert(Arc::as_ptr(&group.held).addr());
            batch.push(group);
        }
        Some(batch)
    }

    fn weigh(&self, group: &Group<S::Effect>) -> usize {
        group.effects.iter().map(|(_, effect)| (self.weight)(effect)).sum()
    }

    /// Stores a batch, whatever it takes, and closes its jobs' places.
    async fn commit(&self, placement: &Placement, batch: Vec<Group<S::Effect>>) {
        let (mut owners, mut tenants, mut effects) = (Vec::new(), Vec::new(), Vec::new());
        let mut jobs = Vec::with_capacity(batch.len());
        for (owner, Group { held, effects: of_job, .. }) in batch.into_iter().enumerate() {
            jobs.push((held, of_job.len()));
            for (tenant, effect) in of_job {
                owners.push(owner);
                tenants.push(tenant);
                effects.push(effect);
            }
        }
        let size = u32::try_from(effects.len()).unwrap_or(u32::MAX);
        metrics::histogram!(names::BATCH_EFFECTS, "worker" => self.worker).record(f64::from(size));
        let weights: Vec<usize> = effects.iter().map(self.weight).collect();
        let mut ranges = cut(&weights, self.batch_weight);
        let mut outage: Outage = None;
        while let Some(range) = ranges.pop() {
            let stored = self.insist(placement, &tenants[range.clone()], &effects[range.clone()], &mut outage).await;
            // What takes too long may do so because the database is half away: then the parts go on waiting.
            if !matches!(stored, Err(Unstored::TooMuch)) {
                outage = None;
            }
            match stored {
                Ok(rows) => {
                    if let Some(point) = self.after_commit {
                        crash::pass(point);
                    }
                    if !rows.is_empty() {
                        self.store.announce(placement, rows).await;
                    }
                    self.store.committed(&effects[range.clone()]).await;
                }
                Err(why) if range.len() > 1 => {
                    self.count(why.cause());
                    let middle = range.start + range.len() / 2;
                    ranges.push(middle..range.end);
                    ranges.push(range.start..middle);
                    continue;
                }
                Err(Unstored::TooMuch) => {
                    ranges.push(range);
                    continue;
                }
                Err(Unstored::Bad(bad)) => self.condemn(&jobs[owners[range.start]].0, &effects[range.start], bad),
            }
            for owner in &owners[range] {
                let (held, left) = &mut jobs[*owner];
                *left -= 1;
                if *left == 0 {
                    held.close();
                }
            }
        }
    }

    /// Stores some effects, waiting out what is not their fault.
    async fn insist(
        &self,
        placement: &Placement,
        tenants: &[TenantId],
        effects: &[S::Effect],
        outage: &mut Outage,
    ) -> Result<Vec<OutboxRow>, Unstored> {
        let (mut contended, mut quick) = (0, Pauses::for_contention());
        let mut timed_out = 0;
        loop {
            let stored = tokio::time::timeout(self.answer_timeout, self.store.store(placement, tenants, effects));
            let stored = AssertUnwindSafe(stored).catch_unwind().await;
            timed_out = if matches!(stored, Ok(Err(_))) { timed_out + 1 } else { 0 };
            let error = match stored {
                Ok(Ok(Ok(rows))) => return Ok(rows),
                Ok(Ok(Err(error))) => error,
                Ok(Err(_)) if timed_out >= TIME_OUTS && effects.len() > 1 => return Err(Unstored::TooMuch),
                Ok(Err(_)) => db::Error::timed_out("storing a batch"),
                Err(_) => return Err(Unstored::Bad(Bad::Panic(panics::last()))),
            };
            match error.kind() {
                Kind::Data => return Err(Unstored::Bad(Bad::Data(error.to_string()))),
                Kind::Contention if contended < CONTENTIONS => {
                    self.count("contention");
                    contended += 1;
                    tokio::time::sleep(quick.next_wait()).await;
                }
                Kind::Contention | Kind::Ours => {
                    self.count("ours");
                    let (_, pauses) = outage.get_or_insert_with(|| {
                        tracing::warn!(%error, %placement, effects = effects.len(), "cannot commit: holding the batch until it works");
                        (self.pause.enter("database", &error.to_string()), Pauses::for_outage())
                    });
                    tokio::time::sleep(pauses.next_wait()).await;
                }
            }
        }
    }

    /// One effect can never be stored.
    fn condemn(&self, held: &Arc<Held>, effect: &S::Effect, bad: Bad) {
        let disposal = match (bad, (self.part)(effect)) {
            (Bad::Data(reason), Some(part)) => Disposal::DeadPart { held: held.clone(), job: part.job, reason },
            (Bad::Panic(message), Some(part)) => {
                Disposal::FailedPart { held: held.clone(), job: part.job, error: panicked(&message) }
            }
            // The whole job, once, however many of its effects are bad.
            (_, None) if !held.doom() => return,
            (Bad::Data(reason), None) => Disposal::Dead { held: held.clone(), reason, label: "data" },
            (Bad::Panic(message), None) => {
                Disposal::Failed { held: held.clone(), error: panicked(&message), after: None }
            }
        };
        held.open();
        let _ = self.desk.send(disposal);
    }

    fn count(&self, cause: &'static str) {
        metrics::counter!(names::COMMIT_RETRIES_TOTAL, "worker" => self.worker, "cause" => cause).increment(1);
    }
}

impl Unstored {
    /// The metric's word.
    fn cause(&self) -> &'static str {
        match self {
            Unstored::Bad(Bad::Data(_)) => "data",
            Unstored::Bad(Bad::Panic(_)) => "panic",
            Unstored::TooMuch => "too_much",
        }
    }
}

/// Effects of these weights in portions that weigh at most so much, or are one effect; the first portion last.
fn cut(weights: &[usize], most: usize) -> Vec<Range<usize>> {
    let mut portions = Vec::new();
    let (mut start, mut together) = (0, 0_usize);
    for (at, weight) in weights.iter().enumerate() {
        if at > start && together + weight > most {
            portions.push(start..at);
            (start, together) = (at, 0);
        }
        together += weight;
    }
    portions.push(start..weights.len());
    portions.reverse();
    portions
}

fn panicked(message: &str) -> String {
    format!("panicked while storing: {message}")
}

#[cfg(test)]
mod tests;
