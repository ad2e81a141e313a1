//! `load campaign`: campaigns on a private installation, and what the provider's stand-in received of them. Four parts: how
//! campaigns and agents share an account, how accounts share the workers, how soon a campaign stops, and a million people.

mod books;
mod fairness;
mod million;
mod pause;
mod received;
mod replies;
mod shares;
mod stage;

use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::measure::progress::Progress;
use crate::measure::verdicts::Verdicts;
use crate::services::Services;

/// Campaigns under load.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    services: Services,
    /// Which parts
    #[arg(long = "part", value_enum, value_delimiter = ',', default_value = "shares,fairness,pause,million")]
    parts: Vec<Part>,
    #[command(flatten)]
    shares: shares::Size,
    #[command(flatten)]
    fairness: fairness::Size,
    #[command(flatten)]
    pause: pause::Size,
    #[command(flatten)]
    million: million::Size,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Ten campaigns of weights 1 to 10 on one account; agents' replies beside them
    Shares,
    /// Accounts beside one that is throttled and one whose provider is slow
    Fairness,
    /// Pause, resume and cancel under load, and with workers killed
    Pause,
    /// Freezing everybody, sending to many without a limit, and the books
    Million,
}

/// Runs the parts one after another, prints a table for each, and says whether anything was lost, doubled or does not agree.
pub(crate) async fn run(arguments: Arguments) -> Result<ExitCode> {
    let Arguments { services, parts, shares, fairness, pause, million } = &arguments;
    let phases = |part: &Part| match part {
        Part::Shares => shares::PHASES,
        Part::Fairness => fairness.phases(),
        Part::Pause => pause.phases(),
        Part::Million => million::PHASES,
    };
    let progress = Progress::new(parts.iter().map(phases).sum());
    let mut all = Vec::new();
    for part in parts {
        let name = format!("{part:?}").to_lowercase();
        progress.begin(&name);
        let measured = async {
            match part {
                Part::Shares => shares::run(services, shares, &progress).await,
                Part::Fairness => fairness::run(services, fairness, &progress).await,
                Part::Pause => pause::run(services, pause, &progress).await,
                Part::Million => million::run(services, million, &progress).await,
            }
        };
        let verdicts = tokio::select! {
            measured = measured => measured.context(name)?,
            // What it had made by then is removed by whoever comes next, or expires.
            _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted"),
        };
        progress.pause(|| verdicts.print())?;
        all.push(verdicts);
    }
    Ok(Verdicts::exit(&all))
}
