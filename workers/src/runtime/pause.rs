//! Pausing for failures of ours: while anybody waits for a database or the broker, no new deliveries are taken and the
//! process reports not ready, with the reason. What is held is kept.

use shared::{health::Condition, telemetry::names};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};
use tokio::sync::watch;

/// Whether, and why, this process takes no new work. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Pause(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    waiting: Mutex<BTreeMap<&'static str, usize>>,
    paused: watch::Sender<bool>,
    condition: Condition,
}

/// Somebody waits; dropped, no longer.
#[derive(Debug)]
pub(crate) struct Waiting {
    pause: Pause,
    reason: &'static str,
}

impl Pause {
    pub(crate) fn new(condition: Condition) -> Self {
        condition.ready();
        Self(Arc::new(Inner { waiting: Mutex::default(), paused: watch::Sender::new(false), condition }))
    }

    /// Pauses for as long as the returned guard lives. `reason` is one of a few words, `detail` the error.
    pub(crate) fn enter(&self, reason: &'static str, detail: &str) -> Waiting {
        let mut waiting = self.0.waiting.lock().expect("nothing panics while this is locked");
        *waiting.entry(reason).or_default() += 1;
        metrics::gauge!(names::RUNTIME_PAUSED, "reason" => reason).set(1.0);
        self.0.condition.not_ready(format!("{reason}: {detail}"));
        self.0.paused.send_replace(true);
        Waiting { pause: self.clone(), reason }
    }

    pub(crate) fn is_paused(&self) -> bool {
        *self.0.paused.borrow()
    }

    /// Waits until nobody waits.
    pub(crate) async fn resumed(&self) {
        // The sender lives in here, so this cannot fail.
        let _ = self.0.paused.subscribe().wait_for(|paused| !paused).await;
    }

    /// Waits until somebody waits.
    pub(crate) async fn entered(&self) {
        let _ = self.0.paused.subscribe().wait_for(|paused| *paused).await;
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let inner = &self.pause.0;
        let mut waiting = inner.waiting.lock().expect("nothing panics while this is locked");
        if let Some(count) = waiting.get_mut(self.reason) {
            *count -= 1;
            if *count == 0 {
                waiting.remove(self.reason);
                metrics::gauge!(names::RUNTIME_PAUSED, "reason" => self.reason).set(0.0);
            }
        }
        if waiting.is_empty() {
            inner.condition.ready();
            inner.paused.send_replace(false);
        }
    }
}
