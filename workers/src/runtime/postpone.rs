//! Jobs that come back: into the outbox, due later; the scheduler's sweep publishes them. Only then acknowledged.

use super::{
    bury::Burial,
    held::Held,
    outlast::outlast,
    pause::Pause,
    settle::{dead, shortened},
};
use chrono::TimeDelta;
use shared::{
    db::{self, Databases, outbox},
    jobs::Job,
};
use std::{sync::Arc, time::Duration};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};

/// So many in one transaction, at most.
const GROUP: usize = 100;

/// A job to come back.
#[derive(Debug)]
pub(crate) struct Postponed {
    pub(crate) held: Arc<Held>,
    pub(crate) job: Job,
    pub(crate) wait: Duration,
}

/// Writes until nobody postpones any more.
pub(crate) async fn postpone(
    mut incoming: UnboundedReceiver<Postponed>,
    databases: Databases,
    pause: Pause,
    bury: UnboundedSender<Burial>,
) {
    let mut group = Vec::new();
    while incoming.recv_many(&mut group, GROUP).await > 0 {
        // In one order, so that two processes with the same jobs do not wait for each other.
        group.sort_by_key(|postponed: &Postponed| postponed.job.id);
        match insist(&databases, &pause, &group).await {
            Ok(()) => group.drain(..).for_each(|postponed| safe(&postponed.held)),
            Err(_) => {
                for one in group.drain(..) {
                    match insist(&databases, &pause, std::slice::from_ref(&one)).await {
                        Ok(()) => safe(&one.held),
                        // It cannot be stored, so it cannot come back.
                        Err(error) => {
                            let job = dead(one.job, &shortened(&format!("cannot be kept for later: {error}")));
                            let _ = bury.send(Burial { held: one.held, job, label: "data" });
                        }
                    }
                }
            }
        }
    }
}

fn safe(held: &Held) {
    if held.is_handed_back() {
        held.release_handed_back();
    }
    held.close();
}

/// Does it until it works; an error is the data's.
async fn insist(databases: &Databases, pause: &Pause, group: &[Postponed]) -> db::Result<()> {
    outlast(pause, "postponing jobs", || write(databases, group)).await
}

async fn write(databases: &Databases, group: &[Postponed]) -> db::Result<()> {
    let mut tx = databases.control().await?;
    for Postponed { held, job, wait } in group {
        let wait = TimeDelta::from_std(*wait).unwrap_or(TimeDelta::MAX);
        outbox::control::enqueue(&mut tx, held.queue().name, job, wait).await?;
    }
    tx.commit().await
}
