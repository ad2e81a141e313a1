//! A bucket that fills with time: so many at once, so many a second. Asked under its owner's lock.

/// Full at first.
#[derive(Debug, Default)]
pub(super) struct Bucket {
    tokens: f64,
    filled_us: Option<u64>,
}

impl Bucket {
    /// Takes one, if there is one.
    pub(super) fn take(&mut self, now_us: u64, rate: u32, burst: u32) -> bool {
        self.take_at(now_us, f64::from(rate), burst)
    }

    /// The same at a rate that is no whole number a second.
    pub(super) fn take_at(&mut self, now_us: u64, rate: f64, burst: u32) -> bool {
        self.fill(now_us, rate, burst);
        let enough = self.tokens >= 1.0;
        if enough {
            self.tokens -= 1.0;
        }
        enough
    }

    /// Takes `count`, even if it is then owed.
    pub(super) fn drain(&mut self, count: u32, now_us: u64, rate: u32, burst: u32) {
        self.fill(now_us, f64::from(rate), burst);
        self.tokens = (self.tokens - f64::from(count)).max(-f64::from(burst));
    }

    fn fill(&mut self, now_us: u64, rate: f64, burst: u32) {
        let burst = f64::from(burst);
        self.tokens = match self.filled_us {
            None => burst,
            Some(then) => (self.tokens + now_us.saturating_sub(then) as f64 * rate / 1_000_000.0).min(burst),
        };
        self.filled_us = Some(now_us);
    }
}
