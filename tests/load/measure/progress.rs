//! What a person who waits sees: on a terminal a bar that says which run is in which phase, elsewhere one line a run. On
//! stderr, so that the table or JSON on stdout stays clean.

use std::io::Write;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::figures::{Measurement, Unit};

/// Slow enough to cost nothing beside the load.
const TICK: Duration = Duration::from_millis(250);

pub(crate) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// `phases` is how many phases all runs have together.
    pub(crate) fn new(phases: u64) -> Self {
        let bar = ProgressBar::new(phases);
        let style = ProgressStyle::with_template("{spinner} [{elapsed_precise}] {bar:24} {prefix}: {wide_msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.enable_steady_tick(TICK);
        Self { bar }
    }

    /// A run begins.
    pub(crate) fn begin(&self, run: &str) {
        self.bar.set_prefix(run.to_owned());
        self.bar.set_message("starting");
    }

    /// The run enters its next phase.
    pub(crate) fn phase(&self, what: impl Into<String>) {
        self.bar.inc(1);
        self.bar.set_message(what.into());
    }

    /// A run is over: its first figure, and why it is void.
    pub(crate) fn note_run(&self, side: &str, number: u32, run: Option<&Measurement>) {
        let Some(run) = run else { return };
        let figure = run.figures.first();
        let figure =
            figure.map(|figure| format!("{} {}{}", figure.name, figure.unit.write(figure.value), figure.unit.label()));
        let cpu = run
            .value("all but the load", Unit::CpuMicrosPerMessage)
            .map(|cpu_us| format!(", {cpu_us:.1} CPU µs/message"));
        let void = if run.void.is_empty() { String::new() } else { format!("  VOID: {}", run.void.join("; ")) };
        self.say(&format!("{side} {number}: {}{}{void}", figure.unwrap_or_default(), cpu.unwrap_or_default()));
    }

    /// Does something that writes to the terminal itself.
    pub(crate) fn pause<T>(&self, writes: impl FnOnce() -> T) -> T {
        self.bar.suspend(writes)
    }

    /// One line that stays.
    pub(crate) fn say(&self, line: &str) {
        if self.bar.is_hidden() {
            // A closed stderr is nobody's loss here.
            let _ = writeln!(std::io::stderr(), "{line}");
        } else {
            self.bar.println(line);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
