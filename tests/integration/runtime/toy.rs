//! A worker that does what its jobs tell it.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use shared::{
    db::{self, FleetTx, Kind, Placement},
    domain::ids::{JobId, TenantId},
    jobs::{Job, Undecodable},
    queue::{
        Queue,
        topology::{INBOUND, OUTBOUND_BULK, OUTBOUND_NOW},
    },
};
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::sync::Notify;
use workers::worker::{Part, Placed, Settle, Ticket, Worker};

/// What a job tells the toy to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Task {
    /// Have an effect that is stored.
    Store,
    /// The same, after so many milliseconds.
    Slow(u64),
    /// The same, watching that nothing else is performed meanwhile.
    Alone,
    /// The same, in a second placement, too.
    Everywhere,
    /// Have an effect from which a job follows.
    Publish,
    /// Have an effect that can never be stored.
    Bad,
    /// Have two effects, of which one can never be stored.
    HalfBad,
    /// Have an effect that is stored, and go on until the test says so.
    Progress,
    Panic,
    Drop,
    Later,
    Retry,
    Reject,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Order {
    pub(super) number: u32,
    pub(super) task: Task,
}

impl Order {
    pub(super) fn to_job(self, tenant: TenantId, now: DateTime<Utc>) -> Job {
        Job::new("toy.order", 1, Some(tenant), now, serde_json::to_vec(&self).unwrap())
    }
}

/// What the toy has done.
#[derive(Default)]
pub(super) struct Log {
    /// The numbers performed, in order, each as often as it was.
    pub(super) performed: Mutex<Vec<u32>>,
    /// The numbers applied, a batch each, whether or not it was committed.
    pub(super) applied: Mutex<Vec<Vec<u32>>>,
    /// How many are being performed.
    active: AtomicUsize,
    /// Others that were performed while one was to be alone.
    pub(super) company: AtomicUsize,
    /// So many batches meet somebody else.
    pub(super) contentions: AtomicUsize,
    /// What goes on may end.
    pub(super) may_end: Notify,
    /// Done once, in the next batch.
    pub(super) in_next_batch: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl Log {
    pub(super) fn times_performed(&self, number: u32) -> usize {
        self.performed.lock().unwrap().iter().filter(|other| **other == number).count()
    }

    pub(super) fn times_applied(&self, number: u32) -> usize {
        self.applied.lock().unwrap().iter().flatten().filter(|other| **other == number).count()
    }
}

pub(super) struct Toy {
    log: Arc<Log>,
}

impl Toy {
    pub(super) fn new(log: Arc<Log>) -> Self {
        Self { log }
    }

    async fn perform_one(&self, ticket: Ticket<Order>, settle: &Settle<Effect>) {
        let (Order { number, task }, ticket) = ticket.take();
        self.log.performed.lock().unwrap().push(number);
        let others = self.log.active.fetch_add(1, Ordering::SeqCst);
        let _active = Active(&self.log.active);
        let tenant = ticket.raw().headers.tenant.expect("every order has a tenant");
        let id = ticket.raw().id;
        let at = |placement, what| Placed { placement, tenant, effect: Effect { number, id, tenant, what } };
        let here = |what| at(Placement::primary(), what);
        match task {
            Task::Store => settle.done(ticket, vec![here(What::Stored)]),
            Task::Slow(ms) => {
                tokio::time::sleep(Duration::from_millis(ms)).await;
                settle.done(ticket, vec![here(What::Stored)]);
            }
            Task::Alone => {
                self.log.company.fetch_add(others, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(300)).await;
                self.log.company.fetch_add(self.log.active.load(Ordering::SeqCst) - 1, Ordering::SeqCst);
                settle.done(ticket, vec![here(What::Stored)]);
            }
            Task::Everywhere => {
                settle.done(ticket, vec![here(What::Stored), at(Placement::named("elsewhere"), What::Stored)]);
            }
            Task::Publish => settle.done(ticket, vec![here(What::Published)]),
            Task::Bad => settle.done(ticket, vec![here(What::Unstorable)]),
            Task::HalfBad => settle.done(ticket, vec![here(What::UnstorablePart), here(What::Stored)]),
            Task::Progress => {
                settle.progress(&ticket, vec![here(What::Stored)]);
                self.log.may_end.notified().await;
                settle.done(ticket, Vec::new());
            }
            Task::Panic => panic!("told to panic"),
            Task::Drop => drop(ticket),
            Task::Later => settle.later(ticket, Duration::from_secs(60)),
            Task::Retry => settle.retry(ticket, None, anyhow::anyhow!("told to fail")),
            Task::Reject => settle.reject(ticket, anyhow::anyhow!("told to give up")),
        }
    }
}

struct Active<'a>(&'a AtomicUsize);

impl Drop for Active<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Effect {
    number: u32,
    id: JobId,
    tenant: TenantId,
    what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Stored,
    Published,
    Unstorable,
    UnstorablePart,
}

impl Worker for Toy {
    const NAME: &'static str = "toy";
    const QUEUES: &'static [&'static Queue] = &[&INBOUND, &OUTBOUND_NOW];

    type Job = Order;
    type Effect = Effect;

    fn decode(job: &Job) -> Result<Order, Undecodable> {
        if job.headers.version > 1 {
            return Err(Undecodable::NotYet { found: job.headers.version, known: 1 });
        }
        serde_json::from_slice(&job.body).map_err(|error| Undecodable::Broken(error.to_string()))
    }

    async fn perform(&self, jobs: Vec<Ticket<Order>>, settle: &Settle<Effect>) {
        futures_util::future::join_all(jobs.into_iter().map(|ticket| self.perform_one(ticket, settle))).await;
    }

    /// What is stored are rows of the outbox that are not due: the one table that anybody may write without more ado.
    async fn apply(&self, tx: &mut FleetTx, effects: &[Effect]) -> Result<(), db::Error> {
        self.log.applied.lock().unwrap().push(effects.iter().map(|effect| effect.number).collect());
        if let Some(todo) = self.log.in_next_batch.lock().unwrap().take() {
            todo();
        }
        let left = self.log.contentions.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        if left.is_ok() {
            return Err(db::Error::made_up(Kind::Contention, "being in somebody's way"));
        }
        for Effect { number, id, tenant, what } in effects {
            // Postgres has no NUL in JSON: an error of class 22.
            let kind = match what {
                What::Stored => "toy.stored",
                What::Published => "toy.followed",
                What::Unstorable | What::UnstorablePart => "toy.\0",
            };
            let version = u16::try_from(*number).expect("tests count to less");
            let job = Job { id: *id, ..Job::new(kind, version, Some(*tenant), DateTime::UNIX_EPOCH, "{}") };
            let after = (*what != What::Published).then(|| TimeDelta::days(1));
            tx.enqueue(*tenant, OUTBOUND_BULK.name, job, after);
        }
        Ok(())
    }

    fn part(effect: &Effect) -> Option<Part> {
        let order = Order { number: effect.number, task: Task::Bad };
        (effect.what == What::UnstorablePart).then(|| Part { job: order.to_job(effect.tenant, DateTime::UNIX_EPOCH) })
    }
}
