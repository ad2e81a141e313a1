//! What the scheduler does again and again, step by step. Each step goes by itself: one that fails, or takes too long, is named
//! by `/readyz` and done again, and keeps no other from its work.

use super::Fault;
use shared::{health::Condition, lifecycle::Lifecycle};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};
use tracing::warn;

/// How long a step may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// One that takes longer is given up: whoever it waits for has vanished without a word.
    pub(super) step: Duration,
    /// A process that ends waits no longer for one. What it was at is rolled back.
    pub(super) last: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { step: Duration::from_secs(60), last: Duration::from_secs(5) }
    }
}

/// After a fault: no sooner than this …
const FAULT: Duration = Duration::from_secs(1);
/// … and no later.
const LONGEST_FAULT: Duration = Duration::from_secs(5);

/// All steps, and how each went the last time.
#[derive(Clone)]
pub(super) struct Steps {
    ready: Condition,
    life: Lifecycle,
    limits: Limits,
    /// By name: why it failed; nothing if it did not.
    went: Arc<Mutex<BTreeMap<String, Option<String>>>>,
}

/// One of them.
pub(super) struct Step {
    name: String,
    all: Steps,
}

/// What a step says of itself when it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// There is more to do.
    AtOnce,
    /// There may be something to do after a pause.
    Later,
}

impl Steps {
    /// Ready when every step has been done and none has failed the last time.
    pub(super) fn new(ready: Condition, life: Lifecycle, limits: Limits) -> Self {
        Self { ready, life, limits, went: Arc::default() }
    }

    /// A further step. The name says what it is doing.
    pub(super) fn step(&self, name: impl Into<String>) -> Step {
        let name = name.into();
        self.tell(&name, Some("not done yet".to_owned()));
        Step { name, all: self.clone() }
    }

    fn tell(&self, name: &str, fault: Option<String>) {
        let mut went = self.went.lock().expect("nothing panics while this is locked");
        went.insert(name.to_owned(), fault);
        let faults: Vec<String> =
            went.iter().filter_map(|(name, fault)| Some(format!("{name}: {}", fault.as_ref()?))).collect();
        if faults.is_empty() {
            self.ready.ready();
        } else {
            self.ready.not_ready(faults.join("; "));
        }
    }
}

impl Step {
    /// Does it until the process stops: again at once while there is more, else after a pause.
    pub(super) async fn every(&self, pause: Duration, mut work: impl AsyncFnMut() -> Result<Next, Fault>) {
        let life = &self.all.life;
        while !life.is_stopping() {
            // Boxed: all steps of a process are one future.
            let pause = match self.once(Box::pin(work())).await {
                Some(Next::AtOnce) => continue,
                Some(Next::Later) => pause,
                None => pause.clamp(FAULT, LONGEST_FAULT),
            };
            tokio::select! { () = tokio::time::sleep(pause) => {}, () = life.stopping() => {} }
        }
    }

    /// Does it once, within its time. `None`: it failed.
    pub(super) async fn once(&self, work: impl Future<Output = Result<Next, Fault>>) -> Option<Next> {
        let Limits { step, last } = self.all.limits;
        let ending = async {
            self.all.life.stopping().await;
            tokio::time::sleep(last).await;
        };
        let went = tokio::select! {
            went = work => went,
            () = tokio::time::sleep(step) => Err(Fault::TimedOut(step)),
            () = ending => Err(Fault::TimedOut(last)),
        };
        match went {
            Ok(next) => {
                self.all.tell(&self.name, None);
                Some(next)
            }
            Err(fault) => {
                warn!(step = self.name, %fault, "a step failed, it is done again");
                self.all.tell(&self.name, Some(fault.to_string()));
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::{db, health::Readiness};

    fn stage(limits: Limits) -> (Readiness, Lifecycle, Steps) {
        let (readiness, life) = (Readiness::default(), Lifecycle::new(Duration::from_secs(1)));
        let steps = Steps::new(readiness.condition("sweep"), life.clone(), limits);
        (readiness, life, steps)
    }

    #[tokio::test]
    async fn a_step_that_fails_or_hangs_is_named_until_it_succeeds() {
        let (readiness, _, steps) = stage(Limits { step: Duration::from_millis(20), ..Limits::default() });
        let (failing, hanging, fine) = (steps.step("failing"), steps.step("hanging"), steps.step("fine"));
        let reason = || readiness.report().conditions["sweep"].clone();
        fine.once(async { Ok(Next::AtOnce) }).await;
        assert_eq!(reason(), "failing: not done yet; hanging: not done yet");
        failing.once(async { Err(db::Error::made_up(db::Kind::Ours, "asking").into()) }).await;
        hanging.once(std::future::pending()).await;
        let why = reason();
        assert!(why.contains("failing: asking: ") && why.contains("hanging: no answer within 20ms"), "{why}");
        for step in [failing, hanging] {
            assert!(!readiness.is_ready());
            step.once(async { Ok(Next::Later) }).await;
        }
        assert_eq!(reason(), "ready");
    }

    #[tokio::test]
    async fn a_process_that_ends_does_not_wait_for_a_step_that_hangs() {
        let (_, life, steps) = stage(Limits { step: Duration::MAX, last: Duration::from_millis(20) });
        let step = steps.step("hanging");
        let hanging = async || {
            life.stop();
            std::future::pending().await
        };
        // Ends at all.
        step.every(Duration::ZERO, hanging).await;
    }

    #[tokio::test]
    async fn a_step_is_done_again_at_once_while_there_is_more() {
        let (_, life, steps) = stage(Limits::default());
        let mut left = 3;
        let work = async || {
            left -= 1;
            if left > 0 {
                return Ok(Next::AtOnce);
            }
            life.stop();
            Ok(Next::Later)
        };
        // A pause would not end.
        steps.step("sweeping").every(Duration::MAX, work).await;
        assert_eq!(left, 0);
    }
}
