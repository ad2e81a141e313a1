//! Starting and ending a process: one soft stop on SIGTERM or SIGINT, a hard one on the second signal or when the grace
//! period is over. Tasks are spawned here, so that draining waits for them.

use std::{future::Future, time::Duration};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// The life of this process. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Lifecycle {
    stopping: CancellationToken,
    tasks: TaskTracker,
    grace: Duration,
}

impl Lifecycle {
    /// A life that ends only when [`Lifecycle::stop`] is called (tests), with this much time to drain.
    pub fn new(grace: Duration) -> Self {
        Self { stopping: CancellationToken::new(), tasks: TaskTracker::new(), grace }
    }

    /// As [`Lifecycle::new`], stopped by SIGTERM or SIGINT. A second signal ends the process at once with status 130.
    ///
    /// # Errors
    /// If the signal handlers cannot be installed.
    pub fn with_signals(grace: Duration) -> std::io::Result<Self> {
        let life = Self::new(grace);
        let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let stopping = life.stopping.clone();
        #[allow(clippy::disallowed_methods, reason = "the signal task must outlive the drain")]
        tokio::spawn(async move {
            tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
            tracing::info!("stopping: no new work is taken, what is in flight is finished");
            stopping.cancel();
            tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
            tracing::warn!("second signal: stopping at once");
            std::process::exit(130);
        });
        Ok(life)
    }

    /// Spawns a task that draining waits for.
    pub fn spawn<F>(&self, task: F) -> tokio::task::JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.tasks.spawn(task)
    }

    /// Spawns a task that serves the others and ends when they have let go of it (a publisher's owner). Draining does not wait
    /// for it: those who wait for its answers are themselves waited for, and a forgotten handle must not hold up the exit.
    pub fn spawn_service<F>(&self, task: F) -> tokio::task::JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        #[allow(clippy::disallowed_methods, reason = "the one place for tasks that draining does not wait for")]
        tokio::spawn(task)
    }

    /// Begins the soft stop.
    pub fn stop(&self) {
        self.stopping.cancel();
    }

    /// Whether the soft stop has begun.
    pub fn is_stopping(&self) -> bool {
        self.stopping.is_cancelled()
    }

    /// Waits for the soft stop to begin.
    pub async fn stopping(&self) {
        self.stopping.cancelled().await;
    }

    /// The token behind [`Lifecycle::stopping`].
    pub fn token(&self) -> CancellationToken {
        self.stopping.clone()
    }

    /// How long draining may take.
    pub fn grace(&self) -> Duration {
        self.grace
    }

    /// Waits until every task has ended, at most the grace period. Whether all did.
    pub async fn drained(&self) -> bool {
        self.tasks.close();
        tokio::time::timeout(self.grace, self.tasks.wait()).await.is_ok()
    }
}
