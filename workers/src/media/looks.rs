//! Looking at files, a few at a time, each on a thread where that may take its time. Such a thread cannot be stopped, and a stranger's
//! bytes may end the process: so whoever looks says so first, and a file that was looked at as a process ended is next looked at alone.

use super::{
    Claimed, EXAMINED_UNTIL_LOST, Effect, Inner, Of,
    dimensions::dimensions,
    examine::{Findings, examine, is_drawn},
};
use crate::worker::Settle;
use shared::{db::media::fetching, providers::download::Saved};
use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Pictures are drawn one at a time: each may take 150 MB for a moment.
const DRAWN_AT_ONCE: usize = 1;
/// Recordings and films are measured by their heads: little memory, and little to do.
const MEASURED_AT_ONCE: usize = 2;
/// A turn is waited for no longer than this, and a look takes no longer; then the file is stored as it is.
const LOOK_WITHIN: Duration = Duration::from_secs(20);

/// Who may look.
pub(super) struct Looks {
    drawing: Turns,
    measuring: Turns,
}

#[derive(Clone)]
struct Turns {
    places: Arc<Semaphore>,
    at_once: usize,
    /// A look takes longer than it may: its turn is not waited for.
    overdue: Arc<AtomicBool>,
}

/// What is known of a file that was looked at.
#[derive(Debug, Default)]
pub(super) struct Look {
    pub(super) dimensions: Option<(u32, u32)>,
    pub(super) findings: Findings,
    /// It was not looked at any more.
    pub(super) spared: bool,
    /// It is said of the file that it is being looked at, and that is over.
    pub(super) came_back: bool,
}

impl Looks {
    pub(super) fn new() -> Self {
        Self { drawing: Turns::of(DRAWN_AT_ONCE), measuring: Turns::of(MEASURED_AT_ONCE) }
    }

    /// A turn to look at a file of this type; if it may be dangerous, while nothing else is looked at. `None`: there is none in time.
    async fn turn(&self, is_picture: bool, alone: bool) -> Option<Vec<OwnedSemaphorePermit>> {
        let of_its_kind = if is_picture { &self.drawing } else { &self.measuring };
        let turns = async {
            if alone {
                // Always in this order.
                Some(vec![
                    self.drawing.acquire(self.drawing.at_once).await?,
                    self.measuring.acquire(self.measuring.at_once).await?,
                ])
            } else {
                Some(vec![of_its_kind.acquire(1).await?])
            }
        };
        tokio::time::timeout(LOOK_WITHIN, turns).await.ok().flatten()
    }
}

impl Turns {
    fn of(at_once: usize) -> Self {
        Self { places: Arc::new(Semaphore::new(at_once)), at_once, overdue: Arc::default() }
    }

    async fn acquire(&self, places: usize) -> Option<OwnedSemaphorePermit> {
        let places = u32::try_from(places).ok()?;
        if self.overdue.load(Ordering::Relaxed) {
            return self.places.clone().try_acquire_many_owned(places).ok();
        }
        self.places.clone().acquire_many_owned(places).await.ok()
    }
}

impl Inner {
    /// Looks at a file. One on which that fails, or does not end, tells nothing of itself but what its head says.
    pub(super) async fn look(
        &self,
        of: &Of,
        claimed: &Claimed<'_>,
        saved: &Saved,
        content_type: &str,
        settle: &Settle<Effect>,
    ) -> Look {
        let is_picture = content_type.starts_with("image/");
        let dimensions = measure(saved, content_type).await;
        let worthwhile = match dimensions {
            Some(dimensions) => is_drawn(dimensions, saved.size_bytes),
            None => !is_picture && (content_type.starts_with("audio/") || content_type.starts_with("video/")),
        };
        if !worthwhile {
            return Look { dimensions, ..Look::default() };
        }
        let lost = claimed.file.lost;
        if lost >= EXAMINED_UNTIL_LOST {
            return Look { dimensions, spared: true, ..Look::default() };
        }
        let Some(turn) = self.looks.turn(is_picture, lost > 0).await else {
            tracing::warn!(content_type, saved.size_bytes, "a file was not looked at: it was not its turn in time");
            return Look { dimensions, ..Look::default() };
        };
        let saying = || async move {
            let mut tx = self.databases.fleet(&of.placement, &[of.tenant_id]).await?;
            fetching::examining(&mut tx, of.tenant_id, claimed.file.id, claimed.claim).await?;
            tx.commit().await?;
            Ok(())
        };
        if let Err(error) = settle.outlast("saying that a file is looked at", saying).await {
            tracing::warn!(%error, "a file is not looked at");
            return Look { dimensions, ..Look::default() };
        }
        let turns = if is_picture { &self.looks.drawing } else { &self.looks.measuring };
        let (path, kind, overdue) = (saved.path.to_path_buf(), content_type.to_owned(), turns.overdue.clone());
        let looking = tokio::task::spawn_blocking(move || {
            let found = examine(&path, &kind);
            overdue.store(false, Ordering::Relaxed);
            drop(turn);
            found
        });
        match tokio::time::timeout(LOOK_WITHIN, looking).await {
            Ok(found) => {
                let found = found.inspect_err(|error| tracing::warn!(%error, "a file could not be looked at"));
                Look { dimensions, findings: found.unwrap_or_default(), spared: false, came_back: true }
            }
            Err(_) => {
                turns.overdue.store(true, Ordering::Relaxed);
                tracing::warn!(content_type, saved.size_bytes, "a file was not looked at in time");
                Look { dimensions, ..Look::default() }
            }
        }
    }
}

/// How large a picture is, as its head says.
pub(super) async fn measure(saved: &Saved, content_type: &str) -> Option<(u32, u32)> {
    let (path, kind): (PathBuf, String) = (saved.path.to_path_buf(), content_type.to_owned());
    tokio::task::spawn_blocking(move || dimensions(&path, &kind)).await.ok().flatten()
}
