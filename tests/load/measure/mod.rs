//! The measuring parts, which know nothing of what they measure: a side says how its processes start, where webhooks go
//! and how to count what it stored, and everything else is the same for all.

pub(crate) mod accounts;
pub(crate) mod figures;
pub(crate) mod ingest;
pub(crate) mod machine;
pub(crate) mod proc;
pub(crate) mod progress;
pub(crate) mod report;
pub(crate) mod runs;
pub(crate) mod sends;
pub(crate) mod verdicts;

use figures::{Measurement, Unit};

/// A yardstick's known cost. A run that is much dearer was disturbed, or the yardstick is broken.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reference {
    /// CPU-µs per message of everything but the load.
    pub(crate) cpu_us_per_message: f64,
    /// Where and when it was measured.
    pub(crate) source: &'static str,
}

/// Dearer than the reference by more than this makes a run void.
const DEARER_MOST: f64 = 1.25;

impl Reference {
    /// Marks the run void if it cost too much more.
    pub(crate) fn check(&self, measurement: &mut Measurement) {
        let Some(cpu_us) = measurement.value("all but the load", Unit::CpuMicrosPerMessage) else { return };
        let ratio = cpu_us / self.cpu_us_per_message;
        if ratio > DEARER_MOST {
            measurement.void.push(format!(
                "{cpu_us:.1} CPU µs a message is {ratio:.2} × the yardstick's {:.1} ({}), more than {DEARER_MOST}",
                self.cpu_us_per_message, self.source
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_yardstick_that_is_a_quarter_dearer_than_it_was_is_void() {
        let reference = Reference { cpu_us_per_message: 100.0, source: "test" };
        let void = |cpu_us| {
            let mut measurement = Measurement::default();
            measurement.add("all but the load", Unit::CpuMicrosPerMessage, cpu_us);
            reference.check(&mut measurement);
            measurement.void.len()
        };
        assert_eq!((void(80.0), void(125.0), void(126.0)), (0, 0, 1));
    }
}
