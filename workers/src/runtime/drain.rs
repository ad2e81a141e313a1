//! Stopping: no new deliveries, what was not started is given back, what was started is finished, committed and acknowledged.
//! What is not finished when the grace period ends stays unacknowledged, and the broker delivers it again.

use super::{
    lane::Event,
    receive::{Receiving, give_back},
};
use crate::worker::Worker;
use shared::lifecycle::Lifecycle;
use std::time::Duration;
use tokio::time::Instant;

/// Kept of the grace period for closing connections.
const CLOSING: Duration = Duration::from_secs(1);

/// How long draining may take.
pub(super) fn most(life: &Lifecycle) -> Duration {
    life.grace().saturating_sub(CLOSING)
}

/// Ends a session in order.
pub(crate) async fn drain<W: Worker>(receiving: Receiving<W>) {
    let (runtime, session, waiting, mut lanes, mut events) = receiving.into_parts();
    let deadline = Instant::now() + most(&runtime.parts.life);
    lanes.values().for_each(|lane| lane.cancel());
    let mut given_back = waiting.len();
    for waiting in waiting {
        give_back(&waiting.lane, &waiting.delivery);
    }
    let finished = async {
        let mut ended = Vec::new();
        while !lanes.is_empty() {
            match events.recv().await {
                Some(Event::Delivered(id, delivery)) => {
                    if let Some(lane) = lanes.get(&id) {
                        give_back(&lane.settled(), &delivery);
                        given_back += 1;
                    }
                }
                Some(Event::Ended(id)) => ended.extend(lanes.remove(&id)),
                Some(Event::Acked(..)) => {}
                None => break,
            }
        }
        runtime.ledger.empty().await;
        for lane in ended {
            lane.ended().await;
        }
    };
    tokio::select! {
        () = finished => {}
        // Then there is nobody to give anything back to; what is held is still committed, below.
        error = session.lost() => tracing::warn!(%error, "the session was lost while draining"),
        () = tokio::time::sleep_until(deadline) => {}
    }
    let _ = tokio::time::timeout_at(deadline, runtime.ledger.empty()).await;
    session.close().await;
    tracing::info!(given_back, left = runtime.ledger.len(), "drained");
}
