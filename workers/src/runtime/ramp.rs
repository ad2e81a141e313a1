//! When a queue's full prefetch may join. After (re)connecting one delivery is taken at a time, so that a job which aborts its
//! process takes no others down; only when some went well does the rest follow.

use std::time::{Duration, Instant};

/// A delivery seen so many times may be the one that aborts the process: it is taken alone.
pub(crate) const SUSPICIOUS_DELIVERIES: u32 = 3;
/// So many in a row without a suspicious one are enough.
const ENOUGH: usize = 20;
/// As good as those: so long in which every one that ended went well. Twenty that take their time would be many seconds.
const STEADY: Duration = Duration::from_secs(2);
/// An empty queue has no crashing job at its head.
const QUIET: Duration = Duration::from_secs(1);
/// A job that merely takes long must not hold up the others.
const LONG: Duration = Duration::from_secs(5);

/// One queue's start.
#[derive(Debug)]
pub(crate) struct Ramp {
    acked: usize,
    out: usize,
    last: Instant,
    /// The start, or the last suspicious delivery.
    since: Instant,
}

impl Ramp {
    pub(crate) fn new(now: Instant) -> Self {
        Self { acked: 0, out: 0, last: now, since: now }
    }

    pub(crate) fn delivered(&mut self, deliveries: u32, now: Instant) {
        if deliveries >= SUSPICIOUS_DELIVERIES {
            self.acked = 0;
            self.since = now;
        }
        self.out += 1;
        self.last = now;
    }

    pub(crate) fn acked(&mut self, count: usize, now: Instant) {
        self.acked += count;
        self.out = self.out.saturating_sub(count);
        self.last = now;
    }

    /// Whether the rest may follow.
    pub(crate) fn is_over(&self, now: Instant) -> bool {
        let patience = if self.out == 0 { QUIET } else { LONG };
        let steady = self.acked > 0 && now.saturating_duration_since(self.since) >= STEADY;
        self.acked >= ENOUGH || steady || now.saturating_duration_since(self.last) >= patience
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twenty_that_went_well_are_enough() {
        let now = Instant::now();
        let mut ramp = Ramp::new(now);
        for _ in 0..ENOUGH {
            assert!(!ramp.is_over(now));
            ramp.delivered(1, now);
            ramp.acked(1, now);
        }
        assert!(ramp.is_over(now));
    }

    #[test]
    fn a_suspicious_one_begins_anew() {
        let now = Instant::now();
        let mut ramp = Ramp::new(now);
        (0..ENOUGH - 1).for_each(|_| {
            ramp.delivered(2, now);
            ramp.acked(1, now);
        });
        ramp.delivered(SUSPICIOUS_DELIVERIES, now);
        ramp.acked(1, now);
        assert!(!ramp.is_over(now));
    }

    #[test]
    fn some_seconds_in_which_all_went_well_are_enough_for_jobs_that_take_their_time() {
        let now = Instant::now();
        let mut ramp = Ramp::new(now);
        ramp.delivered(1, now);
        ramp.acked(1, now + STEADY / 2);
        ramp.delivered(1, now + STEADY / 2);
        assert!(!ramp.is_over(now + STEADY * 3 / 4));
        assert!(ramp.is_over(now + STEADY));
        ramp.delivered(SUSPICIOUS_DELIVERIES, now + STEADY);
        assert!(!ramp.is_over(now + STEADY), "it begins anew");
    }

    #[test]
    fn a_quiet_queue_needs_no_caution_and_a_long_job_holds_nobody_up() {
        let now = Instant::now();
        let mut ramp = Ramp::new(now);
        assert!(!ramp.is_over(now + QUIET / 2));
        assert!(ramp.is_over(now + QUIET));
        ramp.delivered(1, now);
        assert!(!ramp.is_over(now + QUIET));
        assert!(ramp.is_over(now + LONG));
    }
}
