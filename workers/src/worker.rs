//! The contract between a kind of work and the runtime. A worker says how a job is read, performed and written down; the
//! runtime alone owns the order perform → apply → commit → publish → acknowledge, so that no worker can acknowledge what is
//! not stored.

pub use crate::runtime::{held::Ticket, settle::Settle};

use shared::{
    crash::CrashPoint,
    db::{self, FleetTx, Placement},
    domain::ids::TenantId,
    jobs::{Job, Undecodable},
    queue::Queue,
};
use std::{future::Future, time::Duration};

/// One kind of work: which queues it drains and what its jobs lead to.
pub trait Worker: Send + Sync + 'static {
    /// The process's name in logs and metrics, e.g. `inbound`.
    const NAME: &'static str;
    /// The queues it drains, in order of preference: while the first has deliveries, the second waits.
    const QUEUES: &'static [&'static Queue];
    /// A transaction is begun when so many effects of one placement wait.
    const BATCH: usize = 100;
    /// Or when what waits weighs so much; unless it is one effect, no transaction weighs more.
    const BATCH_WEIGHT: usize = 5_000;
    /// Or when the first of them has waited so long.
    const LINGER: Duration = Duration::from_millis(20);
    /// So many transactions of one placement are open at once.
    const COMMITTERS: usize = 2;
    /// So many deliveries of a queue are held at once, unless [`Worker::prefetch`] says otherwise.
    const PREFETCH: u16 = 500;

    /// A job's payload, read.
    type Job: Send + 'static;
    /// What performing produced, to be written down.
    type Effect: Send + Sync + 'static;

    /// So many deliveries of this queue are held at once.
    fn prefetch(_queue: &Queue) -> u16 {
        Self::PREFETCH
    }

    /// From bytes and headers. A newer payload version than ours is `NotYet` (comes back later), never dead.
    ///
    /// # Errors
    /// If the payload cannot be read, by this release or at all.
    fn decode(job: &Job) -> Result<Self::Job, Undecodable>;

    /// The slow part. No transaction is held. Each ticket is settled when its own job is done, in any order; a dropped ticket
    /// counts as a failure of that job alone. After a panic the jobs of the same call that are not settled are performed
    /// again, each by itself, to find the one to charge.
    fn perform(&self, jobs: Vec<Ticket<Self::Job>>, settle: &Settle<Self::Effect>) -> impl Future<Output = ()> + Send;

    /// The fast part: effects of one placement, in the runtime's transaction. No network. Twice = once: after an answer that
    /// was lost, or a redelivery, the same effects are applied again, perhaps in other company.
    fn apply(&self, tx: &mut FleetTx, effects: &[Self::Effect]) -> impl Future<Output = Result<(), db::Error>> + Send;

    /// These effects are committed. For what is no longer wanted then and may also be left behind; the job is acknowledged after it.
    fn committed(&self, _effects: &[Self::Effect]) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }

    /// How heavy an effect is for the database, in rows or so, where that differs: a batch must be stored within the time that
    /// an answer may take.
    fn weight(_effect: &Self::Effect) -> usize {
        1
    }

    /// What of a job is dead-lettered when this effect can never be stored but the job has others; `None`: the whole job.
    fn part(_effect: &Self::Effect) -> Option<Part> {
        None
    }

    /// The independent parts of a job, each a job of the same queue. One that brings its process down, or panics, with more
    /// than one part is replaced by its parts, so that only the bad one ends among the dead letters.
    fn divide(_job: &Job) -> Vec<Job> {
        Vec::new()
    }

    /// Where fault tests may abort this worker.
    fn crash_points() -> CrashPoints {
        CrashPoints::default()
    }
}

/// How a job ended: exactly one per ticket.
#[derive(Debug)]
pub enum Verdict<E> {
    /// Acknowledged when every placement it touches has committed. A provider's "no" is a result, too.
    Done(Vec<Placed<E>>),
    /// Comes back after at most ten minutes, no attempt counted. Longer waits are rows, not jobs.
    Later(Duration),
    /// Failed and charged; comes back after `after` (the provider's Retry-After) or by policy, a bounded number of times.
    Retry {
        /// When the provider said how long to wait.
        after: Option<Duration>,
        /// Why.
        error: anyhow::Error,
    },
    /// Can never succeed: dead-lettered now, with the reason.
    Reject(anyhow::Error),
    /// Too much to be done at once: replaced by these jobs of the same queue, at least two, uncharged.
    Divide(Vec<Job>),
}

/// An effect and where it belongs.
#[derive(Clone, Debug)]
pub struct Placed<E> {
    /// The database.
    pub placement: Placement,
    /// Whose rows it touches.
    pub tenant: TenantId,
    /// What is to be written down.
    pub effect: E,
}

/// The part of a job that is dead-lettered by itself while the rest proceeds.
#[derive(Clone, Debug)]
pub struct Part {
    /// A job of the same queue with this part alone, so that it can be replayed.
    pub job: Job,
}

/// The places a worker passes in the runtime (see [`shared::crash`]).
#[derive(Clone, Copy, Debug, Default)]
pub struct CrashPoints {
    /// Applied, not committed.
    pub before_commit: Option<CrashPoint>,
    /// Committed, the outbox not published.
    pub after_commit: Option<CrashPoint>,
    /// Everything done but the acknowledgement.
    pub before_ack: Option<CrashPoint>,
}
