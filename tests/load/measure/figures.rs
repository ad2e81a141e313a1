//! What one run found: named numbers in a fixed order, and the reasons why it does not count, if there are any.

use serde::Serialize;

use super::accounts::Usage;

/// More than this taken by others makes a run void (issue: other processes and other guests alike take what we could not use).
const OTHERS_CORES_MOST: f64 = 0.2;

const MIB: f64 = 1024.0 * 1024.0;

/// How a number is written.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Unit {
    PerSecond,
    Milliseconds,
    Seconds,
    CpuMicrosPerMessage,
    Mebibytes,
    Cores,
    Count,
}

impl Unit {
    /// As it stands behind a figure's name.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::PerSecond => "/s",
            Self::Milliseconds => "ms",
            Self::Seconds => "s",
            Self::CpuMicrosPerMessage => "CPU µs/message",
            Self::Mebibytes => "MiB peak",
            Self::Cores => "cores",
            Self::Count => "",
        }
    }

    pub(crate) fn write(self, value: f64) -> String {
        match self {
            Self::PerSecond | Self::Count => thousands(value),
            Self::Milliseconds | Self::Seconds | Self::Cores => format!("{value:.2}"),
            Self::CpuMicrosPerMessage | Self::Mebibytes => format!("{value:.1}"),
        }
    }
}

/// One number.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Figure {
    pub(crate) name: String,
    pub(crate) unit: Unit,
    pub(crate) value: f64,
}

/// One run's numbers.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Measurement {
    pub(crate) figures: Vec<Figure>,
    /// Why this run does not count.
    pub(crate) void: Vec<String>,
}

impl Measurement {
    pub(crate) fn add(&mut self, name: impl Into<String>, unit: Unit, value: f64) {
        self.figures.push(Figure { name: name.into(), unit, value });
    }

    pub(crate) fn value(&self, name: &str, unit: Unit) -> Option<f64> {
        self.figures.iter().find(|figure| figure.name == name && figure.unit == unit).map(|figure| figure.value)
    }

    /// Who used how much, and whether others took so much that the run is void. `apart` names the parts that belong to
    /// the load and not to what is measured: they are listed, and left out of the sum.
    pub(crate) fn add_usage(&mut self, usage: &Usage, messages: u64, apart: &[&str]) {
        let per_message = |cpu_us: f64| cpu_us / messages.max(1) as f64;
        let measured = usage.cpu_us.iter().filter(|(name, _)| !apart.contains(&name.as_str()));
        self.add("all but the load", Unit::CpuMicrosPerMessage, per_message(measured.map(|(_, cpu_us)| cpu_us).sum()));
        for (name, cpu_us) in &usage.cpu_us {
            self.add(name, Unit::CpuMicrosPerMessage, per_message(*cpu_us));
        }
        for (name, bytes) in &usage.peak_memory_bytes {
            self.add(name, Unit::Mebibytes, *bytes as f64 / MIB);
        }
        self.add("harness", Unit::Cores, usage.harness_cores);
        self.add("kernel threads", Unit::Cores, usage.kernel_cores);
        self.add("other processes", Unit::Cores, usage.others_cores);
        self.add("other guests (steal)", Unit::Cores, usage.steal_cores);
        let others = usage.others_cores + usage.steal_cores;
        if others > OTHERS_CORES_MOST {
            self.void.push(format!("others took {others:.2} cores, more than {OTHERS_CORES_MOST}"));
        }
    }
}

fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) && !out.ends_with('-') {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_told_apart() {
        assert_eq!(thousands(999.4), "999");
        assert_eq!(thousands(29_669.0), "29,669");
        assert_eq!(thousands(1_234_567.0), "1,234,567");
    }

    #[test]
    fn a_run_beside_busy_neighbours_is_void() {
        let usage = |others_cores, steal_cores| Usage {
            cpu_us: [("receiver".to_owned(), 2e6), ("generator".to_owned(), 5e5)].into(),
            peak_memory_bytes: Default::default(),
            others_cores,
            steal_cores,
            harness_cores: 0.0,
            kernel_cores: 0.0,
        };
        let mut quiet = Measurement::default();
        quiet.add_usage(&usage(0.1, 0.05), 100_000, &["generator"]);
        assert!(quiet.void.is_empty());
        assert_eq!(quiet.value("all but the load", Unit::CpuMicrosPerMessage), Some(20.0));
        let mut busy = Measurement::default();
        busy.add_usage(&usage(0.1, 0.15), 100_000, &[]);
        assert_eq!(busy.void.len(), 1);
    }
}
