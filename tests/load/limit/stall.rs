//! How long this process, in which the provider's stand-in runs, did not get round to anything.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::time::{Instant, MissedTickBehavior};

/// Looks all the time, until its end.
pub(super) struct Stall {
    longest_us: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
}

impl Stall {
    pub(super) fn watch() -> Self {
        let stall = Self { longest_us: Arc::default(), over: Arc::default() };
        let (longest, over) = (stall.longest_us.clone(), stall.over.clone());
        tokio::spawn(async move {
            let every = Duration::from_millis(1);
            let mut tick = tokio::time::interval(every);
            tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut last = Instant::now();
            while !over.load(Ordering::Relaxed) {
                tick.tick().await;
                let late = last.elapsed().saturating_sub(every);
                longest.fetch_max(u64::try_from(late.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
                last = Instant::now();
            }
        });
        stall
    }

    /// The longest time.
    pub(super) fn end(self) -> Duration {
        self.over.store(true, Ordering::Relaxed);
        Duration::from_micros(self.longest_us.load(Ordering::Relaxed))
    }
}
