//! More workers on the same work: sends spread over accounts without a limit, handed over by one outbound worker, then by several.
//! Says how many a second went, and whether a send costs the same whoever shares the work.

use std::process::ExitCode;

use anyhow::{Result, ensure};

use super::send::MijraSend;
use crate::bare::wire::Way;
use crate::measure::figures::Unit;
use crate::measure::progress::Progress;
use crate::measure::report::{self, Output, Scaled};
use crate::measure::runs::Series;
use crate::measure::sends;
use crate::services::{POSTGRES, RABBITMQ, Services};

/// More workers on the same work.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    services: Services,
    #[command(flatten)]
    work: sends::Work,
    /// By which way
    #[arg(long, value_enum, default_value_t)]
    channel: Way,
    /// Accounts, none of them with a limit
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    accounts: u64,
    /// Outbound workers: so many in each run of a round
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2, 3, 4])]
    workers: Vec<u32>,
    /// How many rounds
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    #[command(flatten)]
    output: Output,
}

/// How far apart the cheapest and the dearest may be.
const CONSTANT_WITHIN: f64 = 0.10;
const WORKERS: &str = "mijra-outbound";

/// `load scale`
pub(crate) async fn run(arguments: Arguments) -> Result<ExitCode> {
    let Arguments { services, work, channel, accounts, workers, rounds, output } = arguments;
    ensure!(!workers.is_empty() && workers.iter().all(|count| (1..=16).contains(count)), "1 to 16 workers");
    let work = sends::Work { way: channel, ..work };
    let runs = u64::from(rounds) * workers.len() as u64;
    let progress = Progress::new(runs * sends::PHASES);
    let mut all: Vec<Scaled> = workers
        .iter()
        .map(|count| Scaled { workers: *count, series: Series { side: named(*count), runs: Vec::new() } })
        .collect();
    // Round by round, so that whatever drifts on the machine drifts for all.
    for round in 1..=rounds {
        for scaled in &mut all {
            progress.begin(&format!("round {round} of {rounds}: {}", scaled.series.side));
            let mijra = MijraSend::spread(&services, accounts, scaled.workers);
            scaled.series.runs.push(sends::measure(&mijra, &work, &progress).await?);
            progress.note_run(&scaled.series.side, round, scaled.series.runs.last());
        }
    }
    drop(progress);
    let parts = [(POSTGRES, false), (WORKERS, true), (RABBITMQ, false), ("all but the load", true)];
    report::scale(output, ("sends", Unit::PerSecond), &parts, CONSTANT_WITHIN, &all)
}

fn named(workers: u32) -> String {
    match workers {
        1 => "1 worker".to_owned(),
        count => format!("{count} workers"),
    }
}
