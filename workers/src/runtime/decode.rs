//! From a delivery to a started job: what cannot be read is dead at once, what this release cannot read yet comes back later.

use super::{
    Runtime,
    held::{Held, Settled, Ticket},
    panics,
    settle::{Disposal, parts_of, shortened},
};
use crate::worker::Worker;
use rand::RngExt;
use shared::{
    jobs::Undecodable,
    queue::{Delivery, Queue},
    telemetry::names,
};
use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};
use tokio::sync::mpsc::UnboundedSender;

/// A delivery that waits for its turn, and where it is settled.
pub(crate) struct Waiting {
    pub(crate) delivery: Delivery,
    pub(crate) lane: UnboundedSender<Settled>,
}

impl<W: Worker> Runtime<W> {
    /// Starts a delivery; `None` if it is dealt with already. `in_company` says whether others go into the same call.
    pub(crate) fn decode(&self, waiting: Waiting, in_company: bool) -> Option<Ticket<W::Job>> {
        let Waiting { delivery, lane } = waiting;
        let queue = delivery.queue;
        if let Some(age) = delivery.age {
            metrics::histogram!(names::JOB_AGE_SECONDS, "worker" => W::NAME, "queue" => queue.name).record(age);
        }
        let unreadable = delivery.unreadable.as_ref().map(|why| format!("unreadable headers: {why}"));
        let held = Held::start(delivery, lane, &self.ledger, in_company);
        match unreadable {
            Some(reason) => self.undecodable(held, queue, Undecodable::Broken(reason)),
            None => self.ticket(held),
        }
    }

    /// Replaces a job by its parts; returns it if it has none.
    pub(crate) fn divide(&self, waiting: Waiting) -> Option<Waiting> {
        if waiting.delivery.unreadable.is_some() {
            return Some(waiting);
        }
        let Some(parts) = parts_of(W::divide, &waiting.delivery.job) else { return Some(waiting) };
        let Waiting { delivery, lane } = waiting;
        let held = Held::start(delivery, lane, &self.ledger, false);
        held.settle();
        let _ = self.desk.send(Disposal::Divided { held, parts });
        None
    }

    /// A ticket for a job that is held.
    pub(crate) fn ticket(&self, held: Arc<Held>) -> Option<Ticket<W::Job>> {
        let decoded = std::panic::catch_unwind(AssertUnwindSafe(|| W::decode(held.job())));
        let queue = held.queue();
        match decoded {
            Ok(Ok(job)) => Some(Ticket::new(job, held, self.desk.clone())),
            Ok(Err(why)) => self.undecodable(held, queue, why),
            Err(_) => {
                let why = format!("panicked while decoding: {}", panics::last());
                self.undecodable(held, queue, Undecodable::Broken(why))
            }
        }
    }

    fn undecodable(&self, held: Arc<Held>, queue: &'static Queue, why: Undecodable) -> Option<Ticket<W::Job>> {
        held.settle();
        let (verdict, disposal) = match why {
            Undecodable::NotYet { .. } => {
                tracing::warn!(job = %held.job().id, queue = queue.name, %why, "left to a newer release");
                // Spread, or all that wait for a newer release come back at once each time.
                let wait = Duration::from_secs(rand::rng().random_range(30..90));
                ("not_yet", Disposal::Later { held, wait })
            }
            Undecodable::Broken(_) => {
                let reason = shortened(&why.to_string());
                ("undecodable", Disposal::Dead { held, reason, label: "undecodable" })
            }
        };
        metrics::counter!(names::JOBS_TOTAL, "worker" => W::NAME, "queue" => queue.name, "verdict" => verdict)
            .increment(1);
        let _ = self.desk.send(disposal);
        None
    }
}
