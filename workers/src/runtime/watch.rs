//! The watch over what is held: how much, and that nothing is held too long. The broker closes the channel of a consumer that
//! does not acknowledge (30 min by default), and a job that nobody finishes must come to somebody else.

use super::{held::Ledger, pause::Pause, settle::Disposal};
use shared::telemetry::names;
use std::{sync::Arc, time::Duration};
use tokio::sync::mpsc::UnboundedSender;
use tokio_util::sync::CancellationToken;

/// No job stays unacknowledged longer.
const TOO_LONG: Duration = Duration::from_secs(5 * 60);
const LOOK: Duration = Duration::from_secs(1);

/// Watches until the runtime has finished.
pub(crate) async fn watch(
    worker: &'static str,
    ledger: Arc<Ledger>,
    pause: Pause,
    desk: UnboundedSender<Disposal>,
    finished: CancellationToken,
) {
    let mut every = tokio::time::interval(LOOK);
    while finished.run_until_cancelled(every.tick()).await.is_some() {
        let held = u32::try_from(ledger.len()).unwrap_or(u32::MAX);
        metrics::gauge!(names::JOBS_IN_FLIGHT, "worker" => worker).set(f64::from(held));
        // In an outage of ours everything is held for as long as it takes.
        if !pause.is_paused() {
            hand_back_overdue(worker, &ledger, &desk, TOO_LONG);
        }
    }
    metrics::gauge!(names::JOBS_IN_FLIGHT, "worker" => worker).set(0.0);
}

/// Puts back what has had no verdict for too long. Its worker may still go on with it: twice is once.
fn hand_back_overdue(worker: &'static str, ledger: &Ledger, desk: &UnboundedSender<Disposal>, too_long: Duration) {
    for held in ledger.older_than(too_long) {
        if held.hand_back() {
            let job = held.job();
            tracing::error!(job = %job.id, kind = job.kind, queue = held.queue().name, "held too long: put back");
            metrics::counter!(names::JOBS_OVERDUE_TOTAL, "worker" => worker).increment(1);
            held.open();
            let _ = desk.send(Disposal::HandBack(held));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::held::Held;
    use chrono::DateTime;
    use shared::{
        jobs::Job,
        queue::{Delivery, topology::INBOUND},
    };
    use tokio::sync::mpsc::unbounded_channel;

    #[test]
    fn a_job_held_too_long_is_put_back_once() {
        let ((lane, _acks), (desk, mut disposals)) = (unbounded_channel(), unbounded_channel());
        let ledger = Arc::new(Ledger::default());
        let job = Job::new("toy", 1, None, DateTime::UNIX_EPOCH, "");
        let held = Held::start(Delivery::made_up(job, &INBOUND, 1, 1), lane, &ledger, false);
        hand_back_overdue("toy", &ledger, &desk, Duration::from_secs(60));
        assert!(disposals.try_recv().is_err(), "it is young");
        hand_back_overdue("toy", &ledger, &desk, Duration::ZERO);
        hand_back_overdue("toy", &ledger, &desk, Duration::ZERO);
        assert!(matches!(disposals.try_recv(), Ok(Disposal::HandBack(_))));
        assert!(disposals.try_recv().is_err(), "put back twice");
        assert!(held.is_handed_back());
    }
}
