//! The sandbox's own time: one monotonic scale that every entry of the ledger uses, tied to the wall clock once.

use chrono::{DateTime, TimeDelta, Utc};
use std::time::{Duration, Instant};

/// Microseconds since the sandbox started, and what they are on the wall clock.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    started: Instant,
    wall: DateTime<Utc>,
}

impl Clock {
    /// A clock that starts now.
    pub(super) fn start() -> Self {
        Self { started: Instant::now(), wall: Utc::now() }
    }

    /// Microseconds since the start.
    pub(super) fn now_us(&self) -> u64 {
        self.started.elapsed().as_micros() as u64
    }

    /// The instant `at_us` after the start.
    pub(super) fn instant(&self, at_us: u64) -> Instant {
        self.started + Duration::from_micros(at_us)
    }

    /// The wall clock at `at_us`.
    pub(super) fn wall(&self, at_us: u64) -> DateTime<Utc> {
        self.wall + TimeDelta::microseconds(at_us as i64)
    }

    /// Unix seconds at `at_us`.
    pub(super) fn unix(&self, at_us: u64) -> i64 {
        self.wall(at_us).timestamp()
    }

    /// Microseconds since the start at these Unix seconds; negative for what lies before the start.
    pub(super) fn since_start_us(&self, unix: i64) -> i64 {
        unix.saturating_mul(1_000_000).saturating_sub(self.wall.timestamp_micros())
    }
}
