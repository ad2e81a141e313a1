//! What becomes of jobs: verdicts are taken here, and all that is not "done" is dealt with: jobs that come back later go into
//! the outbox, dead ones to the dead letters, each acknowledged only once that is safe.

use super::{
    bury::Burial,
    held::{Held, Ticket},
    outlast::outlast,
    panics,
    pause::{Pause, Waiting},
    postpone::Postponed,
};
use crate::worker::{Placed, Verdict};
use shared::{
    clock::Clock,
    db,
    jobs::{Headers, Job},
    queue::Queue,
    retry::before_retry,
    telemetry::names,
};
use std::{fmt, future::Future, panic::AssertUnwindSafe, sync::Arc, time::Duration};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio_util::sync::CancellationToken;

/// Waiting longer than this is a row's business, not a job's.
pub(crate) const LONGEST_LATER: Duration = Duration::from_secs(10 * 60);
/// The database answers within this, or it is away.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long an error may be where it is kept; the first words say enough.
const LONGEST_ERROR: usize = 1000;

/// Takes the verdicts of one worker's jobs. Cheap to clone.
///
/// The channels behind it have no bound of their own: what goes through them are jobs that are held, and these are bounded by
/// the prefetch.
pub struct Settle<E> {
    worker: &'static str,
    collect: UnboundedSender<Collected<E>>,
    desk: UnboundedSender<Disposal>,
    pause: Pause,
}

/// A job that is done but for its effects.
pub(crate) struct Collected<E> {
    pub(crate) held: Arc<Held>,
    pub(crate) effects: Vec<Placed<E>>,
}

/// What else can become of a job.
#[derive(Debug)]
pub(crate) enum Disposal {
    /// Comes back, not charged.
    Later { held: Arc<Held>, wait: Duration },
    /// Charged, and comes back or is dead.
    Failed { held: Arc<Held>, error: String, after: Option<Duration> },
    /// The whole job is dead.
    Dead { held: Arc<Held>, reason: String, label: &'static str },
    /// A part of it is dead.
    DeadPart { held: Arc<Held>, job: Job, reason: String },
    /// A part of it is charged, and comes back by itself or is dead.
    FailedPart { held: Arc<Held>, job: Job, error: String },
    /// It is replaced by its parts, uncharged.
    Divided { held: Arc<Held>, parts: Vec<Job> },
    /// Its worker dropped it; with what a panic said, if it was one.
    Dropped { held: Arc<Held>, panic: Option<String> },
    /// Held too long without a verdict: put back, whatever its worker is still doing.
    HandBack(Arc<Held>),
}

impl<E: Send + Sync + 'static> Settle<E> {
    pub(crate) fn new(
        worker: &'static str,
        collect: UnboundedSender<Collected<E>>,
        desk: UnboundedSender<Disposal>,
        pause: Pause,
    ) -> Self {
        Self { worker, collect, desk, pause }
    }

    /// Settles a job.
    pub fn settle<J>(&self, ticket: Ticket<J>, verdict: Verdict<E>) {
        let held = ticket.held().clone();
        if !held.settle() {
            return; // Was settled when its worker dropped it during a panic; cannot happen with a ticket in hand.
        }
        let queue = held.queue().name;
        metrics::histogram!(names::JOB_PERFORM_SECONDS, "worker" => self.worker, "queue" => queue).record(held.age());
        if held.is_handed_back() && !matches!(verdict, Verdict::Done(_)) {
            // It is in the outbox already and comes back anyway.
            held.close();
            return;
        }
        match verdict {
            Verdict::Done(effects) => {
                self.count(queue, "done");
                if effects.is_empty() {
                    held.close();
                } else {
                    let _ = self.collect.send(Collected { held, effects });
                }
            }
            Verdict::Later(wait) => {
                self.count(queue, "later");
                self.dispose(Disposal::Later { held, wait });
            }
            Verdict::Retry { after, error } => {
                self.count(queue, "retry");
                self.dispose(Disposal::Failed { held, error: format!("{error:#}"), after });
            }
            Verdict::Reject(error) => {
                self.count(queue, "reject");
                self.dispose(Disposal::Dead { held, reason: format!("{error:#}"), label: "rejected" });
            }
            Verdict::Divide(parts) => {
                self.count(queue, "divide");
                self.dispose(match several(parts) {
                    Some(parts) => Disposal::Divided { held, parts },
                    None => Disposal::Failed { held, error: "has no parts to be divided into".into(), after: None },
                });
            }
        }
    }

    /// Done: these effects are to be written down; none is fine.
    pub fn done<J>(&self, ticket: Ticket<J>, effects: Vec<Placed<E>>) {
        self.settle(ticket, Verdict::Done(effects));
    }

    /// Not done, but so far: these effects are to be written down now. The job is acknowledged when they are stored and its
    /// verdict is given.
    pub fn progress<J>(&self, ticket: &Ticket<J>, effects: Vec<Placed<E>>) {
        if effects.is_empty() {
            return;
        }
        let held = ticket.held().clone();
        held.open();
        let _ = self.collect.send(Collected { held, effects });
    }

    /// Comes back after at most ten minutes, not charged.
    pub fn later<J>(&self, ticket: Ticket<J>, wait: Duration) {
        self.settle(ticket, Verdict::Later(wait));
    }

    /// Failed: comes back by policy, or after what the provider said, a bounded number of times.
    pub fn retry<J>(&self, ticket: Ticket<J>, after: Option<Duration>, error: impl Into<anyhow::Error>) {
        self.settle(ticket, Verdict::Retry { after, error: error.into() });
    }

    /// Can never succeed: dead.
    pub fn reject<J>(&self, ticket: Ticket<J>, error: impl Into<anyhow::Error>) {
        self.settle(ticket, Verdict::Reject(error.into()));
    }

    /// Too much to be done at once: its parts take its place.
    pub fn divide<J>(&self, ticket: Ticket<J>, parts: Vec<Job>) {
        self.settle(ticket, Verdict::Divide(parts));
    }

    /// One part of a job is dead, the rest proceeds: `part` is a job of the same queue with that part alone. The ticket is
    /// acknowledged only after the part is safe among the dead letters.
    pub fn dead_part<J>(&self, ticket: &Ticket<J>, part: Job, reason: impl fmt::Display) {
        let held = ticket.held().clone();
        held.open();
        self.dispose(Disposal::DeadPart { held, job: part, reason: reason.to_string() });
    }

    /// Does something in the database again and again while it is away or somebody is in the way, with growing pauses, and in
    /// an outage takes no new work.
    ///
    /// # Errors
    /// What the data is to blame for, and nothing else.
    pub async fn outlast<T, F, Fut>(&self, what: &'static str, operation: F) -> Result<T, db::Error>
    where
        F: FnMut() -> Fut + Send,
        Fut: Future<Output = Result<T, db::Error>> + Send,
        T: Send,
    {
        outlast(&self.pause, what, operation).await
    }

    /// Takes no new work for as long as the returned guard lives, for a failure of ours that the runtime does not see by itself.
    /// `reason` is one of a few words, `detail` says more.
    pub(crate) fn pause(&self, reason: &'static str, detail: &str) -> Waiting {
        self.pause.enter(reason, detail)
    }

    fn dispose(&self, disposal: Disposal) {
        // Nobody listens only when the process has ended; the broker then delivers the job again.
        let _ = self.desk.send(disposal);
    }

    fn count(&self, queue: &'static str, verdict: &'static str) {
        metrics::counter!(names::JOBS_TOTAL, "worker" => self.worker, "queue" => queue, "verdict" => verdict)
            .increment(1);
    }
}

impl<E> Clone for Settle<E> {
    fn clone(&self) -> Self {
        Self { worker: self.worker, collect: self.collect.clone(), desk: self.desk.clone(), pause: self.pause.clone() }
    }
}

impl<E> fmt::Debug for Settle<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Settle({})", self.worker)
    }
}

/// Takes what is not done to where it belongs.
pub(crate) struct Desk {
    pub(crate) worker: &'static str,
    pub(crate) clock: Clock,
    /// [`crate::worker::Worker::divide`].
    pub(crate) divide: fn(&Job) -> Vec<Job>,
    pub(crate) postpone: UnboundedSender<Postponed>,
    pub(crate) bury: UnboundedSender<Burial>,
    pub(crate) alone: UnboundedSender<Arc<Held>>,
}

impl Desk {
    /// Works until the runtime has finished. What is disposed of after that was cut off by the end of the process, not
    /// failed: it stays unacknowledged.
    pub(crate) async fn work(self, mut disposals: UnboundedReceiver<Disposal>, finished: CancellationToken) {
        while let Some(Some(disposal)) = finished.run_until_cancelled(disposals.recv()).await {
            self.take(disposal);
        }
    }

    fn take(&self, disposal: Disposal) {
        match disposal {
            Disposal::Later { held, wait } => {
                let job = held.job().clone();
                self.postpone(held, job, wait.min(LONGEST_LATER));
            }
            Disposal::Failed { held, error, after } => {
                let job = held.job().clone();
                self.charge(held, job, &error, after);
            }
            Disposal::Dead { held, reason, label } => {
                let job = dead(held.job().clone(), &shortened(&reason));
                self.bury(held, job, label);
            }
            Disposal::DeadPart { held, job, reason } => {
                let job = dead(heir(held.job(), job), &shortened(&reason));
                self.bury(held, job, "part");
            }
            Disposal::FailedPart { held, job, error } => {
                let job = heir(held.job(), job);
                self.charge(held, job, &error, None);
            }
            Disposal::Dropped { held, panic: Some(_) } if held.is_in_company() => {
                held.reopen_alone();
                let _ = self.alone.send(held);
            }
            Disposal::Divided { held, parts } => self.replace(held, parts),
            Disposal::Dropped { held, panic } => {
                if panic.is_some()
                    && let Some(parts) = parts_of(self.divide, held.job())
                {
                    return self.replace(held, parts);
                }
                let verdict = if panic.is_some() { "panicked" } else { "dropped" };
                let error = panic.map_or("dropped without a verdict".to_owned(), |said| format!("panicked: {said}"));
                metrics::counter!(names::JOBS_TOTAL, "worker" => self.worker, "queue" => held.queue().name, "verdict" => verdict)
                    .increment(1);
                let job = held.job().clone();
                self.charge(held, job, &error, None);
            }
            Disposal::HandBack(held) => {
                let job = held.job().clone();
                self.postpone(held, job, before_retry(5));
            }
        }
    }

    fn charge(&self, held: Arc<Held>, job: Job, error: &str, after: Option<Duration>) {
        let age = (self.clock.now() - job.headers.created_at).to_std().unwrap_or_default();
        let error = shortened(error);
        let (attempt, trace) = (job.headers.attempt + 1, job.headers.traceparent.as_deref());
        tracing::warn!(job = %job.id, kind = job.kind, attempt, trace, error, "job failed");
        match after_failure(job, held.queue(), age, &error, after) {
            AfterFailure::Again(job, wait) => self.postpone(held, job, wait),
            AfterFailure::Dead(job) => self.bury(held, job, "exhausted"),
        }
    }

    fn replace(&self, held: Arc<Held>, parts: Vec<Job>) {
        tracing::warn!(job = %held.job().id, queue = held.queue().name, parts = parts.len(), "replaced by its parts");
        metrics::counter!(names::JOBS_DIVIDED_TOTAL, "worker" => self.worker, "queue" => held.queue().name)
            .increment(1);
        for part in parts {
            held.open();
            let part = heir(held.job(), part);
            self.postpone(held.clone(), part, Duration::ZERO);
        }
        held.close();
    }

    fn postpone(&self, held: Arc<Held>, job: Job, wait: Duration) {
        let _ = self.postpone.send(Postponed { held, job, wait });
    }

    fn bury(&self, held: Arc<Held>, job: Job, label: &'static str) {
        let _ = self.bury.send(Burial { held, job, label });
    }
}

/// The parts of a job, if it can be divided. One that panics even at that cannot.
pub(crate) fn parts_of(divide: fn(&Job) -> Vec<Job>, job: &Job) -> Option<Vec<Job>> {
    match std::panic::catch_unwind(AssertUnwindSafe(|| divide(job))) {
        Ok(parts) => several(parts),
        Err(_) => {
            tracing::error!(job = %job.id, panic = panics::last(), "panicked while it was divided");
            None
        }
    }
}

/// A part with what its whole went through: neither its age nor its attempts begin anew.
fn heir(whole: &Job, part: Job) -> Job {
    let Headers { attempt, traceparent, created_at, first_error, last_error, .. } = whole.headers.clone();
    Job { headers: Headers { attempt, traceparent, created_at, first_error, last_error, ..part.headers }, ..part }
}

/// The parts, if there are at least two.
fn several(parts: Vec<Job>) -> Option<Vec<Job>> {
    (parts.len() > 1).then_some(parts)
}

/// What becomes of a job that failed.
#[derive(Debug, PartialEq)]
enum AfterFailure {
    Again(Job, Duration),
    Dead(Job),
}

fn after_failure(job: Job, queue: &Queue, age: Duration, error: &str, after: Option<Duration>) -> AfterFailure {
    let job = job.charged(error);
    let attempts = job.headers.attempt;
    let wait = after.unwrap_or_else(|| before_retry(attempts));
    if attempts >= queue.max_attempts {
        return AfterFailure::Dead(dead(job, &format!("gave up after {attempts} attempts: {error}")));
    }
    if age + wait > queue.max_age {
        let hours = age.as_secs_f64() / 3600.0;
        return AfterFailure::Dead(dead(job, &format!("gave up after {attempts} attempts in {hours:.1} h: {error}")));
    }
    AfterFailure::Again(job, wait)
}

/// The job as it lies among the dead letters: the reason is its last error.
pub(crate) fn dead(mut job: Job, reason: &str) -> Job {
    job.headers.first_error.get_or_insert_with(|| reason.to_owned());
    job.headers.last_error = Some(reason.to_owned());
    job
}

/// An error that can be kept in a header and in the database, which has no NUL.
pub(crate) fn shortened(error: &str) -> String {
    error[..error.floor_char_boundary(LONGEST_ERROR)].replace('\0', "\u{fffd}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::held::{Ledger, Settled};
    use chrono::DateTime;
    use shared::queue::{Delivery, topology::INBOUND};
    use tokio::sync::mpsc::unbounded_channel;

    fn job(attempt: u32) -> Job {
        let mut job = Job::new("toy", 1, None, DateTime::UNIX_EPOCH, "");
        job.headers.attempt = attempt;
        job
    }

    /// A desk, and what it postpones.
    struct Stage {
        desk: Desk,
        postponed: UnboundedReceiver<Postponed>,
        lane: UnboundedSender<Settled>,
        acks: UnboundedReceiver<Settled>,
        ledger: Arc<Ledger>,
    }

    fn stage(divide: fn(&Job) -> Vec<Job>) -> Stage {
        panics::install();
        let ((postpone, postponed), (lane, acks)) = (unbounded_channel(), unbounded_channel());
        // Nobody dies here, and nobody is in company.
        let ((bury, _), (alone, _)) = (unbounded_channel(), unbounded_channel());
        let clock = Clock::manual(DateTime::UNIX_EPOCH);
        Stage {
            desk: Desk { worker: "toy", clock, divide, postpone, bury, alone },
            postponed,
            lane,
            acks,
            ledger: Arc::default(),
        }
    }

    impl Stage {
        fn held(&self, job: Job) -> Arc<Held> {
            Held::start(Delivery::made_up(job, &INBOUND, 1, 1), self.lane.clone(), &self.ledger, false)
        }
    }

    #[test]
    fn parts_are_as_old_and_as_tired_as_their_whole() {
        let mut stage = stage(|_| Vec::new());
        let mut whole = job(3);
        whole.headers.first_error = Some("first".into());
        let held = stage.held(whole);
        let later = DateTime::UNIX_EPOCH + Duration::from_secs(3600);
        let parts = vec![Job::new("toy", 2, None, later, "1"), Job::new("toy", 2, None, later, "2")];
        stage.desk.take(Disposal::Divided { held, parts });
        for body in ["1", "2"] {
            let Postponed { held, job, wait } = stage.postponed.try_recv().expect("each part is on its way");
            let Headers { version, attempt, created_at, ref first_error, .. } = job.headers;
            assert_eq!((&job.body[..], version, attempt, created_at), (body.as_bytes(), 2, 3, DateTime::UNIX_EPOCH));
            assert_eq!((first_error.as_deref(), wait), (Some("first"), Duration::ZERO));
            assert!(stage.acks.try_recv().is_err(), "acknowledged before the part was safe");
            held.close();
        }
        assert!(matches!(stage.acks.try_recv(), Ok(Settled::Ack { .. })));
    }

    #[test]
    fn a_part_that_fails_is_charged_by_itself() {
        let mut stage = stage(|_| Vec::new());
        let held = stage.held(job(1));
        let part = Job::new("toy", 1, None, DateTime::UNIX_EPOCH, "part");
        stage.desk.take(Disposal::FailedPart { held, job: part.clone(), error: "ouch".into() });
        let Postponed { job, .. } = stage.postponed.try_recv().expect("it comes back");
        assert_eq!((job.id, &job.body[..]), (part.id, b"part".as_slice()));
        assert_eq!((job.headers.attempt, job.headers.last_error.as_deref()), (2, Some("ouch")));
    }

    #[test]
    fn a_job_that_panics_even_when_it_is_divided_is_charged_as_a_whole() {
        let mut stage = stage(|_| panic!("ouch"));
        let held = stage.held(job(0));
        let id = held.job().id;
        stage.desk.take(Disposal::Dropped { held, panic: Some("at first".into()) });
        let Postponed { job, .. } = stage.postponed.try_recv().expect("it comes back");
        assert_eq!((job.id, job.headers.last_error.as_deref()), (id, Some("panicked: at first")));
    }

    #[test]
    fn a_failed_job_is_charged_and_comes_back() {
        let AfterFailure::Again(job, wait) = after_failure(job(0), &INBOUND, Duration::ZERO, "no", None) else {
            panic!("dead at the first failure")
        };
        assert_eq!((job.headers.attempt, job.headers.last_error.as_deref()), (1, Some("no")));
        assert!(wait <= Duration::from_secs(3));
    }

    #[test]
    fn the_provider_says_how_long_it_waits() {
        let hour = Duration::from_secs(3600);
        let AfterFailure::Again(_, wait) = after_failure(job(0), &INBOUND, Duration::ZERO, "no", Some(hour)) else {
            panic!("dead at the first failure")
        };
        assert_eq!(wait, hour);
    }

    #[test]
    fn attempts_and_age_are_bounded_and_the_dead_say_why() {
        let last = INBOUND.max_attempts - 1;
        let mut failed = job(last);
        failed.headers.first_error = Some("first".into());
        let AfterFailure::Dead(tired) = after_failure(failed, &INBOUND, Duration::ZERO, "no", None) else {
            panic!("not dead after the last attempt")
        };
        assert_eq!(tired.headers.attempt, INBOUND.max_attempts);
        assert_eq!(tired.headers.first_error.as_deref(), Some("first"));
        assert_eq!(tired.headers.last_error.as_deref(), Some("gave up after 8 attempts: no"));

        let AfterFailure::Dead(old) = after_failure(job(0), &INBOUND, INBOUND.max_age, "no", None) else {
            panic!("not dead though too old")
        };
        assert_eq!(old.headers.last_error.as_deref(), Some("gave up after 1 attempts in 24.0 h: no"));
    }

    #[test]
    fn an_error_is_kept_short_and_storable() {
        let kept = shortened(&format!("a\0b{}", "é".repeat(1000)));
        assert!(kept.len() <= LONGEST_ERROR + 3 && kept.starts_with("a\u{fffd}b"));
    }
}
