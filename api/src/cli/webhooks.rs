//! `mijra webhooks`: what providers told us, as it came: the raw log of a tenant, searched, looked at and played again, and the two places
//! for webhooks that nobody could be given.

mod body;
mod list;
mod quarantine;
mod replay;
mod replays;
mod select;
mod show;
mod unroutable;

use super::output::Output;
use std::process::ExitCode;

/// Said beside an empty list: it is empty, not broken off.
const NONE_MATCH: &str = "no webhooks match";

#[derive(clap::Subcommand, Debug)]
pub(super) enum Command {
    /// Search a tenant's raw log, the newest first
    List(list::List),
    /// Show a webhook of the log with its body
    Show(show::Show),
    /// Play webhooks of the log again: what was lost is restored, nothing is sent, nobody is notified
    Replay(replay::Replay),
    /// What is, or was, played again
    #[command(subcommand)]
    Replays(replays::Command),
    /// Webhooks for accounts that nobody had
    #[command(subcommand)]
    Unroutable(unroutable::Command),
    /// Webhooks whose signature did not fit
    #[command(subcommand)]
    Quarantine(quarantine::Command),
}

pub(super) async fn run(command: Command, out: &Output) -> anyhow::Result<ExitCode> {
    match command {
        Command::List(args) => list::run(args, out).await,
        Command::Show(args) => show::run(args, out).await,
        Command::Replay(args) => replay::run(args, out).await,
        Command::Replays(command) => replays::run(command, out).await,
        Command::Unroutable(command) => unroutable::run(command, out).await,
        Command::Quarantine(command) => quarantine::run(command, out).await,
    }
}
