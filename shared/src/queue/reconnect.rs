//! How long to wait before connecting again.

use std::time::{Duration, Instant};

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(5);
/// A connection that held for so long was a good one: the next wait is short again.
const GOOD: Duration = Duration::from_secs(5);

/// Doubling waits from 100 ms to 5 s, each varied by half, so that many processes do not come back at once.
#[derive(Debug)]
pub struct Delay {
    next: Duration,
    connected: Option<Instant>,
    reported: Option<String>,
}

impl Default for Delay {
    fn default() -> Self {
        Self { next: FIRST, connected: None, reported: None }
    }
}

impl Delay {
    /// To be called when a connection is up.
    pub fn connected(&mut self) {
        self.connected = Some(Instant::now());
        if self.reported.take().is_some() {
            tracing::info!("connected to the broker again");
        }
    }

    /// To be called when connecting failed or the connection was lost: logs the error if it is another than before, and
    /// says how long to wait.
    pub fn failed(&mut self, role: &str, error: &dyn std::fmt::Display) -> Duration {
        let error = error.to_string();
        if self.reported.as_ref() != Some(&error) {
            tracing::warn!(role, %error, "no broker connection, trying on");
            self.reported = Some(error);
        }
        if self.connected.take().is_some_and(|since| since.elapsed() >= GOOD) {
            self.next = FIRST;
        }
        let wait = self.next;
        self.next = (self.next * 2).min(LONGEST);
        wait.mul_f64(rand::random_range(0.5..=1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_five_seconds_and_are_never_longer() {
        let mut delay = Delay::default();
        let waits: Vec<_> = (0..12).map(|_| delay.failed("test", &"refused")).collect();
        assert!(waits[0] <= FIRST && waits[0] >= FIRST / 2, "{waits:?}");
        assert!(waits[11] <= LONGEST && waits[11] >= LONGEST / 2, "{waits:?}");
    }

    #[test]
    fn a_connection_that_breaks_at_once_does_not_reset_the_wait() {
        let mut delay = Delay::default();
        for _ in 0..12 {
            delay.failed("test", &"refused");
            delay.connected();
        }
        assert!(delay.failed("test", &"refused") >= LONGEST / 2);
    }
}
