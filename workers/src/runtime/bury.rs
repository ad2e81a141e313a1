//! Dead jobs and parts of jobs: to the dead letters, confirmed. Only then acknowledged.

use super::{held::Held, pause::Pause};
use shared::{
    jobs::Job,
    queue::{Outgoing, Publisher, Target},
    retry::Pauses,
    telemetry::names,
};
use std::sync::Arc;
use tokio::sync::mpsc::UnboundedReceiver;

/// So many in one group, at most.
const GROUP: usize = 100;

/// A job for the dead letters, its reason in its headers.
#[derive(Debug)]
pub(crate) struct Burial {
    pub(crate) held: Arc<Held>,
    pub(crate) job: Job,
    /// The metric's reason.
    pub(crate) label: &'static str,
}

/// Publishes until nobody dies any more.
pub(crate) async fn bury(mut incoming: UnboundedReceiver<Burial>, publisher: Publisher, pause: Pause) {
    let mut group = Vec::new();
    while incoming.recv_many(&mut group, GROUP).await > 0 {
        let (mut outage, mut pauses) = (None, Pauses::for_outage());
        // Again from the start on a failure: what was confirmed already lies there twice then, under one id.
        while let Err(error) = publisher.publish(outgoing(&group)).await {
            if outage.is_none() {
                tracing::warn!(%error, "dead letters cannot be published: waiting for the broker");
                outage = Some(pause.enter("broker", &error.to_string()));
            }
            tokio::time::sleep(pauses.next_wait()).await;
        }
        for Burial { held, job, label } in group.drain(..) {
            let queue = held.queue().name;
            metrics::counter!(names::DEAD_LETTERED_TOTAL, "queue" => queue, "reason" => label).increment(1);
            let Job { id, kind, headers, .. } = &job;
            let reason = headers.last_error.as_deref().unwrap_or_default();
            tracing::error!(job = %id, kind, queue, attempts = headers.attempt, trace = headers.traceparent, reason, "dead-lettered");
            held.close();
        }
    }
}

fn outgoing(group: &[Burial]) -> Vec<Outgoing> {
    group.iter().map(|b| Outgoing { to: Target::Dead(b.held.queue()), job: b.job.clone() }).collect()
}
