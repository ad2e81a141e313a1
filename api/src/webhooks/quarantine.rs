//! Webhooks with a wrong signature: kept for who has to find out why, bounded in size and number, and never in the way of
//! those with a right one. What does not fit into the queue to the database is counted and dropped.

use shared::{
    db::{
        self, Databases,
        receiving::{Caps, Suspect},
    },
    lifecycle::Lifecycle,
    telemetry::names,
};
use std::time::Duration;
use tokio::sync::mpsc;

/// So much of a body is kept.
pub const MAX_BODY_BYTES: usize = 64 * 1024;
/// So much of a signature or a content type is kept; the longest right signature has 71 characters.
pub const MAX_SIGNATURE_CHARACTERS: usize = 128;
/// Of one source at one endpoint, and at one endpoint altogether; the newest.
const CAPS: Caps = Caps { per_source: 20, per_endpoint: 500 };
/// So many wait: 4 MiB at most.
const WAITING: usize = 64;
/// Between two writes, so that a flood costs the database no more than this.
const PAUSE: Duration = Duration::from_millis(500);
/// A write that takes longer is given up.
const WRITE: Duration = Duration::from_secs(30);

/// The way in. Cheap to clone.
#[derive(Clone)]
pub struct Quarantine(mpsc::Sender<Suspect>);

impl Quarantine {
    /// Starts the task that writes. It ends when every handle is gone.
    pub fn start(databases: Databases, life: &Lifecycle) -> Self {
        let (sender, inbox) = mpsc::channel(WAITING);
        life.spawn_service(run(databases, inbox));
        Self(sender)
    }

    /// Keeps a suspect, if there is room.
    pub fn put(&self, suspect: Suspect) {
        if self.0.try_send(suspect).is_err() {
            dropped(1);
        }
    }
}

async fn run(databases: Databases, mut inbox: mpsc::Receiver<Suspect>) {
    let mut suspects = Vec::with_capacity(WAITING);
    while inbox.recv_many(&mut suspects, WAITING).await > 0 {
        let written = tokio::time::timeout(WRITE, write(&databases, &suspects)).await;
        if let Err(error) = written.unwrap_or_else(|_| Err(db::Error::timed_out("keeping wrongly signed webhooks"))) {
            tracing::warn!(%error, "wrongly signed webhooks could not be kept");
            dropped(suspects.len());
        }
        suspects.clear();
        tokio::time::sleep(PAUSE).await;
    }
}

async fn write(databases: &Databases, suspects: &[Suspect]) -> db::Result<()> {
    let mut tx = databases.control().await?;
    db::receiving::quarantine(&mut tx, suspects, CAPS).await?;
    tx.commit().await
}

fn dropped(suspects: usize) {
    metrics::counter!(names::QUARANTINE_DROPPED_TOTAL).increment(u64::try_from(suspects).unwrap_or(u64::MAX));
}
