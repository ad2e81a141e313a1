//! The storage, or the disk, away or full. Nothing is fetched meanwhile that could not be put down: no new job is taken, those that
//! are held wait for a while, and one task asks again and again whether it is over.

use super::Effect;
use crate::worker::Settle;
use shared::{health::Condition, lifecycle::Lifecycle, providers::download, retry::Pauses, storage::Storage};
use std::{
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};
use tokio::sync::watch;

/// What is asked whether it is over answers within this.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// It is asked again after this, at first and at most.
const ASK_AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));
/// What takes a few bytes and not a file (a disk that is nearly full) is left alone for twice as long each time, at most this.
const LONGEST: Duration = Duration::from_secs(5 * 60);

/// Whether files can be put down.
pub(super) struct Outage {
    away: watch::Sender<bool>,
    /// How often it began since a file was last stored.
    begun: AtomicU32,
    stored: Condition,
    storage: Storage,
    folder: PathBuf,
    life: Lifecycle,
}

impl Outage {
    /// None yet.
    pub(super) fn new(stored: Condition, storage: Storage, folder: PathBuf, life: Lifecycle) -> Arc<Self> {
        stored.ready();
        Arc::new(Self { away: watch::Sender::new(false), begun: AtomicU32::new(0), stored, storage, folder, life })
    }

    /// Waits until there is none.
    pub(super) async fn over(&self) {
        // The sender lives in here, so this cannot fail.
        let _ = self.away.subscribe().wait_for(|away| !away).await;
    }

    /// Whether there is one.
    pub(super) fn is_on(&self) -> bool {
        *self.away.borrow()
    }

    /// A file could not be put down, and it is not the file's fault.
    pub(super) fn begin(self: &Arc<Self>, reason: &str, settle: &Settle<Effect>) {
        self.stored.not_ready(reason);
        if self.away.send_replace(true) {
            return;
        }
        tracing::warn!(reason, "files cannot be stored: waiting until they can");
        let begun = self.begun.fetch_add(1, Ordering::Relaxed);
        let (outage, waiting) = (self.clone(), settle.pause("storage", reason));
        self.life.spawn(async move {
            tokio::select! {
                () = outage.last(begun) => {}
                () = outage.life.stopping() => {}
            }
            outage.stored.ready();
            outage.away.send_replace(false);
            drop(waiting);
        });
    }

    /// A file was put down.
    pub(super) fn stored(&self) {
        self.begun.store(0, Ordering::Relaxed);
    }

    /// Lasts for as long as it does.
    async fn last(&self, begun: u32) {
        let first = ASK_AGAIN.0.saturating_mul(1 << begun.min(16)).min(LONGEST);
        tokio::time::sleep(Pauses::new(first, LONGEST).next_wait()).await;
        let mut pauses = Pauses::new(ASK_AGAIN.0, ASK_AGAIN.1);
        while let Err(reason) = self.ask().await {
            self.stored.not_ready(reason);
            tokio::time::sleep(pauses.next_wait()).await;
        }
        tracing::info!("files can be stored again");
    }

    /// Whether a few bytes can be put down in both places.
    async fn ask(&self) -> Result<(), String> {
        let asking = async {
            self.storage.probe().await.map_err(|error| error.to_string())?;
            let folder = self.folder.clone();
            let written = tokio::task::spawn_blocking(move || download::try_folder(&folder));
            let written = written.await.map_err(io::Error::other).flatten();
            written.map_err(|error| format!("what comes cannot be written down here: {error}"))
        };
        let answer = tokio::time::timeout(ANSWER_WITHIN, asking).await;
        answer.unwrap_or_else(|_| Err("the storage did not answer in time".to_owned()))
    }
}
