//! What the numbers were measured on, in one line: numbers without it are worth little, since the yardsticks' references come from
//! one particular kind of machine.

use std::fs;

/// Processor, cores and kernel.
pub(crate) fn describe() -> String {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{}, Linux {}", processors(&cpuinfo), kernel.trim())
}

/// Why a build of this profile measures nothing; `None` for the release profile.
pub(crate) fn unfit_build() -> Option<String> {
    cfg!(debug_assertions).then(|| "this program was not built with the release profile".to_owned())
}

fn processors(cpuinfo: &str) -> String {
    let models: Vec<&str> = cpuinfo
        .lines()
        .filter_map(|line| line.strip_prefix("model name")?.split_once(':').map(|(_, model)| model.trim()))
        .collect();
    match models.first() {
        Some(model) => format!("{} × {model}", models.len()),
        None => "unknown processor".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_are_counted() {
        let cpuinfo = "processor\t: 0\nmodel name\t: AMD EPYC\n\nprocessor\t: 1\nmodel name\t: AMD EPYC\n";
        assert_eq!(processors(cpuinfo), "2 × AMD EPYC");
    }
}
