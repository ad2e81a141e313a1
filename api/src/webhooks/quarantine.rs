//! Webhooks with a wrong signature: kept for who has to find out why, and to be taken once the mistake is mended; bounded in size and
//! number, and never in the way of those with a right one. What does not fit is counted and dropped, and said in the log.

use shared::{
    db::{
        self, Databases,
        receiving::{Caps, Room, Suspect},
    },
    lifecycle::Lifecycle,
    telemetry::names,
};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::Instant,
};

/// So much of a body is kept.
pub const MAX_BODY_BYTES: usize = 64 * 1024;
/// So much of a signature or a content type is kept; the longest right signature has 71 characters.
pub const MAX_SIGNATURE_CHARACTERS: usize = 128;
/// At one endpoint. With a signature: what a provider sends in some hours of which nobody noticed that a secret had changed. Without one:
/// enough to see that somebody tries.
const CAPS: Caps = Caps {
    signed: Room { of_source: 10_000, of_endpoint: 20_000, bytes: 128 << 20 },
    unsigned: Room { of_source: 20, of_endpoint: 500, bytes: 8 << 20 },
};
/// So many wait …
const WAITING: usize = 4096;
/// … and so much of their bodies.
const WAITING_BYTES: usize = 4 << 20;
/// So many are written at once.
const AT_ONCE: usize = 1024;
/// That something was dropped is said no more often than this.
const SAY_EVERY: Duration = Duration::from_secs(60);
/// Between two writes, so that a flood costs the database no more than this.
const PAUSE: Duration = Duration::from_millis(500);
/// A write that takes longer is given up.
const WRITE: Duration = Duration::from_secs(30);

/// The way in. Cheap to clone.
#[derive(Clone)]
pub struct Quarantine {
    way_in: mpsc::Sender<(Suspect, OwnedSemaphorePermit)>,
    room: Arc<Semaphore>,
}

impl Quarantine {
    /// Starts the task that writes. It ends when every handle is gone.
    pub fn start(databases: Databases, life: &Lifecycle) -> Self {
        let (way_in, inbox) = mpsc::channel(WAITING);
        life.spawn_service(run(databases, inbox));
        Self { way_in, room: Arc::new(Semaphore::new(WAITING_BYTES)) }
    }

    /// Keeps a suspect, if there is room.
    pub fn put(&self, suspect: Suspect) {
        let bytes = u32::try_from(suspect.body.len()).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.room).try_acquire_many_owned(bytes);
        if room.is_ok_and(|room| self.way_in.try_send((suspect, room)).is_ok()) {
            return;
        }
        dropped(1);
    }
}

async fn run(databases: Databases, mut inbox: mpsc::Receiver<(Suspect, OwnedSemaphorePermit)>) {
    let (mut came, mut said) = (Vec::new(), None::<Instant>);
    while inbox.recv_many(&mut came, AT_ONCE).await > 0 {
        let (suspects, rooms): (Vec<Suspect>, Vec<OwnedSemaphorePermit>) = came.drain(..).unzip();
        let written = tokio::time::timeout(WRITE, write(&databases, &suspects)).await;
        match written.unwrap_or_else(|_| Err(db::Error::timed_out("keeping wrongly signed webhooks"))) {
            Ok(0) => {}
            Ok(gone) => {
                dropped(gone);
                if said.is_none_or(|at| at.elapsed() >= SAY_EVERY) {
                    said = Some(Instant::now());
                    tracing::warn!(
                        gone,
                        "the quarantine is full: the oldest wrongly signed webhooks are let go; see mijra webhooks quarantine"
                    );
                }
            }
            Err(error) => {
                tracing::warn!(%error, "wrongly signed webhooks could not be kept");
                dropped(suspects.len() as u64);
            }
        }
        drop(rooms);
        tokio::time::sleep(PAUSE).await;
    }
}

/// How many were let go for them.
async fn write(databases: &Databases, suspects: &[Suspect]) -> db::Result<u64> {
    let mut tx = databases.control().await?;
    let gone = db::receiving::quarantine(&mut tx, suspects, CAPS).await?;
    tx.commit().await?;
    Ok(gone)
}

fn dropped(suspects: u64) {
    metrics::counter!(names::QUARANTINE_DROPPED_TOTAL).increment(suspects);
}
