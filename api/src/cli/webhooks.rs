//! `mijra webhooks`: webhooks that need a person.

mod quarantine;

use super::output::Output;
use std::process::ExitCode;

#[derive(clap::Subcommand, Debug)]
pub(super) enum Command {
    /// Webhooks whose signature did not fit
    #[command(subcommand)]
    Quarantine(quarantine::Command),
}

pub(super) async fn run(command: Command, out: &Output) -> anyhow::Result<ExitCode> {
    match command {
        Command::Quarantine(command) => quarantine::run(command, out).await,
    }
}
