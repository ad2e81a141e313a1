//! How long to wait before trying again: exponential, with jitter, capped. The only module that knows the `backoff` crate,
//! and only for its arithmetic: the waiting, and what counts as a failure, belong to the callers.

use backoff::{ExponentialBackoff, backoff::Backoff as _};
use std::time::Duration;

/// Waits for one outage of ours, each longer than the last. Never gives up.
#[derive(Debug)]
pub struct Pauses(ExponentialBackoff);

impl Pauses {
    /// From `first` to at most `longest` (both ± 50 %).
    pub fn new(first: Duration, longest: Duration) -> Self {
        let mut policy = ExponentialBackoff {
            current_interval: first,
            initial_interval: first,
            randomization_factor: 0.5,
            multiplier: 2.0,
            max_interval: longest,
            max_elapsed_time: None,
            ..ExponentialBackoff::default()
        };
        policy.reset();
        Self(policy)
    }

    /// For a database, broker or cache that is away: quick at first, then about every 3.5 s (at most 5).
    pub fn for_outage() -> Self {
        Self::new(Duration::from_millis(100), Duration::from_millis(3_500))
    }

    /// For work that somebody else got in the way of: a few milliseconds.
    pub fn for_contention() -> Self {
        Self::new(Duration::from_millis(5), Duration::from_millis(200))
    }

    /// How long to wait now.
    pub fn next_wait(&mut self) -> Duration {
        self.0.next_backoff().unwrap_or(self.0.max_interval)
    }

    /// Begins at the shortest again.
    pub fn reset(&mut self) {
        self.0.reset();
    }
}

/// Before the first retry of a job.
const FIRST_RETRY: Duration = Duration::from_secs(2);
/// No retry waits longer, unless the provider says so.
const LONGEST_RETRY: Duration = Duration::from_secs(15 * 60);

/// How long a job waits that has failed `attempts` times: 2 s, 4 s, 8 s … at most 15 min, ± 50 % so that what failed together
/// does not come back together.
pub fn before_retry(attempts: u32) -> Duration {
    let doublings = attempts.saturating_sub(1).min(16);
    let wait = FIRST_RETRY.saturating_mul(1 << doublings).min(LONGEST_RETRY);
    Pauses::new(wait, LONGEST_RETRY).next_wait()
}

/// A wait ± 50 %, so that what failed together does not come back together.
pub fn spread(wait: Duration) -> Duration {
    Pauses::new(wait, wait.saturating_mul(2)).next_wait()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_their_cap_and_never_end() {
        let mut pauses = Pauses::for_outage();
        assert!(pauses.next_wait() <= Duration::from_millis(150));
        for _ in 0..1000 {
            assert!(pauses.next_wait() <= Duration::from_millis(5_250));
        }
        let late = pauses.next_wait();
        assert!(late >= Duration::from_millis(1_750), "{late:?}");
        pauses.reset();
        assert!(pauses.next_wait() <= Duration::from_millis(150));
    }

    #[test]
    fn each_retry_waits_about_twice_as_long_up_to_a_quarter_of_an_hour() {
        for (attempts, seconds) in [(0, 2), (1, 2), (2, 4), (5, 32), (9, 512), (10, 900), (u32::MAX, 900)] {
            let wait = before_retry(attempts).as_secs_f64();
            let middle = f64::from(seconds);
            assert!((middle * 0.5..=middle * 1.5).contains(&wait), "{attempts}: {wait}");
        }
    }

    #[test]
    fn retries_that_failed_together_do_not_come_back_together() {
        let waits: std::collections::HashSet<_> = (0..20).map(|_| before_retry(5)).collect();
        assert!(waits.len() > 15);
    }
}
