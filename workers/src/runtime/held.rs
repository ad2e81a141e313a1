//! The jobs this process holds: from the start of a job to its acknowledgement. A [`Held`] counts what must still happen
//! before its delivery may be acknowledged; the [`Ledger`] knows all of them, for draining, for taking a job alone and for
//! the watch over jobs held too long.

use super::{panics, settle::Disposal};
use shared::{
    jobs::Job,
    queue::{Delivery, Queue},
    telemetry::TraceContext,
};
use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::{Notify, mpsc::UnboundedSender};

/// What a lane (one channel to the broker) is told about its deliveries.
#[derive(Debug)]
pub(crate) enum Settled {
    /// Acknowledge it; the slot is freed once that is written.
    Ack { tag: u64, slot: Slot },
    /// Give it back: it was never started.
    Requeue { tag: u64 },
}

/// One started job.
#[derive(Debug)]
pub(crate) struct Held {
    delivery: Delivery,
    started_at: Instant,
    /// What must still happen before the acknowledgement: the verdict, each placement's commit, each dead part.
    open: AtomicUsize,
    /// Whether a verdict is given.
    settled: AtomicBool,
    /// Whether others are performed in the same call, so that a panic does not say whose it is.
    in_company: AtomicBool,
    /// Whether it was put back because it was held too long; what its verdict asks for beyond effects is ignored then.
    handed_back: AtomicBool,
    /// Whether the whole job is on its way to the dead letters already.
    doomed: AtomicBool,
    release: Mutex<Option<Release>>,
}

#[derive(Debug)]
struct Release {
    lane: UnboundedSender<Settled>,
    slot: Slot,
}

impl Held {
    /// Starts a job: from now on it is in the ledger until it is acknowledged or abandoned.
    pub(crate) fn start(
        delivery: Delivery,
        lane: UnboundedSender<Settled>,
        ledger: &Arc<Ledger>,
        in_company: bool,
    ) -> Arc<Self> {
        Arc::new_cyclic(|held| Self {
            delivery,
            started_at: Instant::now(),
            open: AtomicUsize::new(1),
            settled: AtomicBool::new(false),
            in_company: AtomicBool::new(in_company),
            handed_back: AtomicBool::new(false),
            doomed: AtomicBool::new(false),
            release: Mutex::new(Some(Release { lane, slot: ledger.enter(held.clone()) })),
        })
    }

    #[cfg(test)]
    pub(crate) fn delivery(&self) -> &Delivery {
        &self.delivery
    }

    pub(crate) fn job(&self) -> &Job {
        &self.delivery.job
    }

    pub(crate) fn queue(&self) -> &'static Queue {
        self.delivery.queue
    }

    /// One more thing must happen before the acknowledgement.
    pub(crate) fn open(&self) {
        self.open.fetch_add(1, Ordering::AcqRel);
    }

    /// One of the things has happened; after the last the delivery is acknowledged.
    pub(crate) fn close(&self) {
        let before = self.open.fetch_sub(1, Ordering::AcqRel);
        debug_assert!(before > 0, "closed more often than opened");
        if before == 1 {
            self.release();
        }
    }

    /// Acknowledges, once. If the session is gone, the broker delivers the job again, which is harmless.
    fn release(&self) {
        let release = self.release.lock().expect("nothing panics while this is locked").take();
        if let Some(Release { lane, slot }) = release {
            let _ = lane.send(Settled::Ack { tag: self.delivery.tag, slot });
        }
    }

    /// Takes the one verdict; false if there was one.
    pub(crate) fn settle(&self) -> bool {
        !self.settled.swap(true, Ordering::AcqRel)
    }

    /// Whether its verdict was given: nothing more comes of it.
    pub(crate) fn is_settled(&self) -> bool {
        self.settled.load(Ordering::Acquire)
    }

    /// Takes the one decision that the whole job is dead; false if it was taken.
    pub(crate) fn doom(&self) -> bool {
        !self.doomed.swap(true, Ordering::AcqRel)
    }

    /// Marks it put back, if no verdict was given yet; false if there is nothing to put back.
    pub(crate) fn hand_back(&self) -> bool {
        !self.settled.load(Ordering::Acquire) && !self.handed_back.swap(true, Ordering::AcqRel)
    }

    pub(crate) fn is_handed_back(&self) -> bool {
        self.handed_back.load(Ordering::Acquire)
    }

    /// The job put back is safe in the outbox: acknowledge, whatever else is still going on.
    pub(crate) fn release_handed_back(&self) {
        self.release();
    }

    pub(crate) fn is_in_company(&self) -> bool {
        self.in_company.load(Ordering::Acquire)
    }

    /// After a panic in company the verdict is open again, and it is performed by itself.
    pub(crate) fn reopen_alone(&self) {
        self.in_company.store(false, Ordering::Release);
        self.settled.store(false, Ordering::Release);
    }

    pub(crate) fn age(&self) -> Duration {
        self.started_at.elapsed()
    }
}

/// A job in the hands of a worker, to be settled exactly once.
pub struct Ticket<J> {
    /// The payload.
    pub job: J,
    receipt: Receipt,
}

/// Settles the job as failed if it is dropped.
struct Receipt {
    held: Arc<Held>,
    desk: UnboundedSender<Disposal>,
}

impl<J> Ticket<J> {
    pub(crate) fn new(job: J, held: Arc<Held>, desk: UnboundedSender<Disposal>) -> Self {
        Self { job, receipt: Receipt { held, desk } }
    }

    /// The payload by value, and the ticket that must still be settled.
    pub fn take(self) -> (J, Ticket<()>) {
        (self.job, Ticket { job: (), receipt: self.receipt })
    }

    /// The job as it was received.
    pub fn raw(&self) -> &Job {
        self.receipt.held.job()
    }

    /// The queue it came from.
    pub fn queue(&self) -> &'static Queue {
        self.receipt.held.queue()
    }

    /// How many times it was tried and charged before.
    pub fn attempt(&self) -> u32 {
        self.raw().headers.attempt
    }

    /// How many times the broker has delivered it, counting this one.
    pub fn deliveries(&self) -> u32 {
        self.receipt.held.delivery.deliveries
    }

    /// When the job was first published.
    pub fn created_at(&self) -> chrono::DateTime<chrono::Utc> {
        self.raw().headers.created_at
    }

    /// The trace it belongs to; a new one if it came without.
    pub fn trace(&self) -> TraceContext {
        TraceContext::from_header(self.raw().headers.traceparent.as_deref())
    }

    /// A span for this job's own log lines.
    pub fn span(&self) -> tracing::Span {
        let trace = self.trace();
        tracing::info_span!("job", id = %self.raw().id, kind = %self.raw().kind, attempt = self.attempt(), trace_id = %trace.trace_id())
    }

    pub(crate) fn held(&self) -> &Arc<Held> {
        &self.receipt.held
    }
}

impl<J> fmt::Debug for Ticket<J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ticket({} from {})", self.raw().id, self.queue().name)
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        if !self.held.settle() {
            return;
        }
        // Nobody listens any more only when the process ends; the broker then delivers the job again.
        let _ = self.desk.send(Disposal::Dropped { held: self.held.clone(), panic: panics::current() });
    }
}

/// Every job this process holds.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    next: AtomicU64,
    held: Mutex<BTreeMap<u64, Weak<Held>>>,
    changed: Notify,
}

/// A job's place in the ledger; dropped, it is free.
#[derive(Debug)]
pub(crate) struct Slot {
    number: u64,
    ledger: Arc<Ledger>,
}

impl Ledger {
    fn enter(self: &Arc<Self>, held: Weak<Held>) -> Slot {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.held.lock().expect("nothing panics while this is locked").insert(number, held);
        Slot { number, ledger: self.clone() }
    }

    /// How many jobs are held.
    pub(crate) fn len(&self) -> usize {
        self.held.lock().expect("nothing panics while this is locked").len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Waits until none is held.
    pub(crate) async fn empty(&self) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.is_empty() {
                return;
            }
            changed.await;
        }
    }

    /// The jobs held longer than this.
    pub(crate) fn older_than(&self, age: Duration) -> Vec<Arc<Held>> {
        let held: Vec<_> = self.held.lock().expect("nothing panics while this is locked").values().cloned().collect();
        // Outside the lock: what is upgraded here may be dropped here, and dropping takes the lock.
        held.iter().filter_map(Weak::upgrade).filter(|held| held.age() > age).collect()
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut held = self.ledger.held.lock().expect("nothing panics while this is locked");
        held.remove(&self.number);
        if held.is_empty() {
            self.ledger.changed.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::DateTime;
    use shared::queue::topology::INBOUND;
    use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

    struct Stage {
        ledger: Arc<Ledger>,
        lane: UnboundedSender<Settled>,
        acks: UnboundedReceiver<Settled>,
        desk: UnboundedSender<Disposal>,
        disposals: UnboundedReceiver<Disposal>,
    }

    fn stage() -> Stage {
        panics::install();
        let ((lane, acks), (desk, disposals)) = (unbounded_channel(), unbounded_channel());
        Stage { ledger: Arc::default(), lane, acks, desk, disposals }
    }

    impl Stage {
        fn held(&self, tag: u64) -> Arc<Held> {
            let job = Job::new("toy", 1, None, DateTime::UNIX_EPOCH, "");
            Held::start(Delivery::made_up(job, &INBOUND, tag, 1), self.lane.clone(), &self.ledger, true)
        }

        fn ticket(&self, tag: u64) -> Ticket<&'static str> {
            Ticket::new("payload", self.held(tag), self.desk.clone())
        }
    }

    #[test]
    fn it_is_acknowledged_once_after_the_last_thing_has_happened() {
        let mut stage = stage();
        let held = stage.held(7);
        held.open();
        held.close();
        assert!(stage.acks.try_recv().is_err());
        held.close();
        let Ok(Settled::Ack { tag: 7, slot }) = stage.acks.try_recv() else { panic!("not acknowledged") };
        held.release_handed_back();
        assert!(stage.acks.try_recv().is_err(), "acknowledged twice");
        assert_eq!(stage.ledger.len(), 1, "free only once the acknowledgement is written");
        drop(slot);
        assert!(stage.ledger.is_empty());
    }

    #[test]
    fn a_dropped_ticket_is_a_failure_of_its_job_and_a_settled_one_is_not() {
        let mut stage = stage();
        let (_, rest) = stage.ticket(1).take();
        drop(rest);
        let Ok(Disposal::Dropped { held, panic: None }) = stage.disposals.try_recv() else { panic!("not noticed") };
        assert_eq!(held.delivery().tag, 1);
        let settled = stage.ticket(2);
        assert!(settled.held().settle());
        drop(settled);
        assert!(stage.disposals.try_recv().is_err());
    }

    #[test]
    fn a_panic_says_what_it_said() {
        let mut stage = stage();
        let ticket = stage.ticket(1);
        let panicked = std::thread::spawn(move || {
            let _ticket = ticket;
            panic!("ouch");
        });
        assert!(panicked.join().is_err());
        let Ok(Disposal::Dropped { panic: Some(said), .. }) = stage.disposals.try_recv() else { panic!("not noticed") };
        assert!(said.starts_with("ouch at "), "{said}");
    }

    #[test]
    fn what_is_abandoned_is_not_acknowledged() {
        let mut stage = stage();
        drop(stage.held(1));
        assert!(stage.acks.try_recv().is_err());
        assert!(stage.ledger.is_empty());
    }

    #[test]
    fn only_a_job_without_a_verdict_is_put_back() {
        let stage = stage();
        let (open, settled) = (stage.held(1), stage.held(2));
        assert!(settled.settle());
        assert!(!settled.hand_back());
        assert!(open.hand_back());
        assert!(!open.hand_back(), "put back twice");
        assert_eq!(stage.ledger.older_than(Duration::ZERO).len(), 2);
        assert!(stage.ledger.older_than(Duration::from_secs(1)).is_empty());
    }
}
