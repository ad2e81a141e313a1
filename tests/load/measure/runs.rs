//! Runs in a row and what they add up to: a series of one side, or pairs A B A B … of two, so that whatever drifts on the
//! machine drifts for both. Medians and ranges; a ratio is taken within each pair, never between medians.

use anyhow::{Context, Result};
use serde::Serialize;

use super::figures::{Figure, Measurement, Unit};
use super::progress::Progress;

/// A median and the range around it.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

/// One side's runs.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Series {
    pub(crate) side: String,
    pub(crate) runs: Vec<Measurement>,
}

/// Two sides' runs; the nth of each belong together.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Pairs {
    pub(crate) a: Series,
    pub(crate) b: Series,
}

/// Runs one side several times.
pub(crate) async fn repeat(
    side: &str,
    runs: u32,
    progress: &Progress,
    mut run: impl AsyncFnMut() -> Result<Measurement>,
) -> Result<Series> {
    let mut series = Series { side: side.into(), runs: Vec::new() };
    for number in 1..=runs {
        progress.begin(&format!("{side}, run {number} of {runs}"));
        series.runs.push(run().await.with_context(|| format!("{side}, run {number}"))?);
        progress.note_run(side, number, series.runs.last());
    }
    Ok(series)
}

/// Runs two sides in turn.
pub(crate) async fn interleave(
    (name_a, name_b): (&str, &str),
    pairs: u32,
    progress: &Progress,
    mut run_a: impl AsyncFnMut() -> Result<Measurement>,
    mut run_b: impl AsyncFnMut() -> Result<Measurement>,
) -> Result<Pairs> {
    let mut a = Series { side: name_a.into(), runs: Vec::new() };
    let mut b = Series { side: name_b.into(), runs: Vec::new() };
    for number in 1..=pairs {
        progress.begin(&format!("pair {number} of {pairs}: {name_a}"));
        a.runs.push(run_a().await.with_context(|| format!("{name_a}, pair {number}"))?);
        progress.note_run(name_a, number, a.runs.last());
        progress.begin(&format!("pair {number} of {pairs}: {name_b}"));
        b.runs.push(run_b().await.with_context(|| format!("{name_b}, pair {number}"))?);
        progress.note_run(name_b, number, b.runs.last());
    }
    Ok(Pairs { a, b })
}

impl Series {
    /// A figure over all runs; `None` if no run has it.
    pub(crate) fn spread(&self, name: &str, unit: Unit) -> Option<Spread> {
        Spread::of(self.runs.iter().filter_map(|run| run.value(name, unit)).collect())
    }

    /// Every figure that occurs, in the order of the first run that has it.
    pub(crate) fn figures(&self) -> Vec<&Figure> {
        let mut figures: Vec<&Figure> = Vec::new();
        for figure in self.runs.iter().flat_map(|run| &run.figures) {
            if !figures.iter().any(|seen| seen.name == figure.name && seen.unit == figure.unit) {
                figures.push(figure);
            }
        }
        figures
    }

    /// Why runs do not count, each with its number.
    pub(crate) fn void(&self) -> Vec<String> {
        let runs = self.runs.iter().enumerate();
        runs.flat_map(|(index, run)| run.void.iter().map(move |why| format!("{}, run {}: {why}", self.side, index + 1)))
            .collect()
    }
}

impl Pairs {
    /// B ÷ A within each pair.
    pub(crate) fn ratio(&self, name: &str, unit: Unit) -> Option<Spread> {
        let pairs = self.a.runs.iter().zip(&self.b.runs);
        Spread::of(pairs.filter_map(|(a, b)| ratio(a.value(name, unit)?, b.value(name, unit)?)).collect())
    }

    /// Why runs do not count.
    pub(crate) fn void(&self) -> Vec<String> {
        [self.a.void(), self.b.void()].concat()
    }
}

impl Spread {
    fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let median = if values.len().is_multiple_of(2) {
            (values.get(middle.checked_sub(1)?)? + values.get(middle)?) / 2.0
        } else {
            *values.get(middle)?
        };
        Some(Self { median, least: *values.first()?, most: *values.last()? })
    }
}

fn ratio(a: f64, b: f64) -> Option<f64> {
    (a > 0.0).then_some(b / a)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(side: &str, values: &[f64]) -> Series {
        let run = |value: &f64| Measurement {
            figures: vec![Figure { name: "accepted".into(), unit: Unit::PerSecond, value: *value }],
            void: Vec::new(),
        };
        Series { side: side.into(), runs: values.iter().map(run).collect() }
    }

    #[test]
    fn the_median_of_ratios_is_taken_within_pairs() {
        let pairs = Pairs { a: series("bare", &[10.0, 20.0, 40.0]), b: series("Mijra", &[20.0, 30.0, 40.0]) };
        let ratio = pairs.ratio("accepted", Unit::PerSecond).unwrap();
        assert_eq!((ratio.least, ratio.median, ratio.most), (1.0, 1.5, 2.0));
    }

    #[test]
    fn an_even_number_of_runs_has_the_mean_of_the_middle_two() {
        assert_eq!(series("bare", &[4.0, 1.0, 2.0, 3.0]).spread("accepted", Unit::PerSecond).unwrap().median, 2.5);
        assert!(series("bare", &[]).spread("accepted", Unit::PerSecond).is_none());
    }

    #[test]
    fn a_void_run_is_named() {
        let mut runs = series("bare", &[1.0, 2.0]);
        runs.runs[1].void.push("others took 0.40 cores, more than 0.2".into());
        assert_eq!(runs.void(), ["bare, run 2: others took 0.40 cores, more than 0.2"]);
    }
}
