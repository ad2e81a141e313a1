//! Time as a parameter, so that windows, deadlines and rates can be tested without waiting.

use chrono::{DateTime, TimeDelta, Utc};
use std::{
    fmt,
    sync::{Arc, Mutex},
};

/// Where the current time comes from. Cheap to clone.
///
/// Rates and deadlines of sends go by the database's clock instead (one clock for all workers).
#[derive(Clone, Default)]
pub struct Clock(Source);

#[derive(Clone, Default)]
enum Source {
    #[default]
    System,
    Manual(Arc<Mutex<DateTime<Utc>>>),
}

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that stands still until [`Clock::advance`] is called.
    pub fn manual(now: DateTime<Utc>) -> Self {
        Self(Source::Manual(Arc::new(Mutex::new(now))))
    }

    /// The current time.
    pub fn now(&self) -> DateTime<Utc> {
        match &self.0 {
            #[allow(clippy::disallowed_methods, reason = "the one place that reads the machine's clock")]
            Source::System => Utc::now(),
            Source::Manual(now) => *now.lock().expect("no panic while the clock is locked"),
        }
    }

    /// Moves a manual clock on.
    ///
    /// # Panics
    /// If this is the system's clock.
    pub fn advance(&self, by: TimeDelta) {
        match &self.0 {
            Source::System => panic!("only a manual clock can be moved"),
            Source::Manual(now) => *now.lock().expect("no panic while the clock is locked") += by,
        }
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Source::System => "Clock(system)",
            Source::Manual(_) => "Clock(manual)",
        })
    }
}
