//! `mijra`: an operator's hands. Each command is a file; what it says is a table for people or, with `--json`, JSON for programs.
//! Secrets are taken from the environment or standard input rather than from the command line, which others can see.

mod audit;
mod campaign;
mod channel_account;
mod contacts;
mod dead_letters;
mod limits;
mod media;
mod migrate;
mod output;
mod queues;
mod secrets;
mod settings;
mod templates;
mod tenant;
mod token;
mod trace;
mod webhooks;
mod when;

use clap::{Parser, Subcommand};
use output::Output;
pub(crate) use output::complain;
use shared::config::LogFormat;
use std::process::ExitCode;

/// The command line.
#[derive(Parser, Debug)]
#[command(name = "mijra", version, about = "Operates a Mijra installation")]
pub struct Cli {
    /// Say it in JSON.
    #[arg(long, global = true)]
    json: bool,
    /// Which logs are written, to standard error.
    #[arg(long, env = "RUST_LOG", default_value = "warn,lapin=off", global = true)]
    log_filter: String,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Bring the databases to this release's schema
    Migrate(migrate::Args),
    /// Tenants
    #[command(subcommand)]
    Tenant(tenant::Command),
    /// Tokens of the API
    #[command(subcommand)]
    Token(token::Command),
    /// Tenants' numbers at their providers
    #[command(subcommand)]
    ChannelAccount(channel_account::Command),
    /// What providers allow
    #[command(subcommand)]
    Limits(limits::Command),
    /// Campaigns
    #[command(subcommand)]
    Campaign(campaign::Command),
    /// Why a message is where it is: its attempts, what it waited for, what was reported, what will bring it
    Trace(trace::Args),
    /// Sends of which nobody knows whether they arrived
    #[command(subcommand)]
    Undecided(trace::Command),
    /// Who changed what of a tenant's, the newest first
    Audit(audit::Args),
    /// The people tenants talk with
    #[command(subcommand)]
    Contacts(contacts::Command),
    /// Files of messages
    #[command(subcommand)]
    Media(media::Command),
    /// Templates
    #[command(subcommand)]
    Templates(Box<templates::Command>),
    /// Secrets at rest
    #[command(subcommand)]
    Secrets(secrets::Command),
    /// How much is queued, how fast it moves, and what bounds it
    Queues(queues::Args),
    /// Jobs that will not be tried again by themselves
    #[command(subcommand)]
    DeadLetters(dead_letters::Command),
    /// What providers told us, as it came: searched, looked at, played again
    #[command(subcommand)]
    Webhooks(webhooks::Command),
}

/// Does what the command line says. What goes wrong is said to standard error, for a person.
pub async fn run(cli: Cli) -> ExitCode {
    match dispatch(cli).await {
        Ok(code) => code,
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

async fn dispatch(cli: Cli) -> anyhow::Result<ExitCode> {
    shared::telemetry::init(LogFormat::Pretty, &cli.log_filter)?;
    let out = Output::new(cli.json);
    match cli.command {
        Command::Migrate(args) => migrate::run(args, &out).await,
        Command::Tenant(command) => tenant::run(command, &out).await,
        Command::Token(command) => token::run(command, &out).await,
        Command::ChannelAccount(command) => channel_account::run(command, &out).await,
        Command::Limits(command) => limits::run(command, &out).await,
        Command::Campaign(command) => campaign::run(command, &out).await,
        Command::Trace(args) => trace::run(args, &out).await,
        Command::Undecided(command) => trace::undecided(command, &out).await,
        Command::Audit(args) => audit::run(args, &out).await,
        Command::Contacts(command) => contacts::run(command, &out).await,
        Command::Media(command) => media::run(command, &out).await,
        Command::Templates(command) => templates::run(*command, &out).await,
        Command::Secrets(command) => secrets::run(command, &out).await,
        Command::Queues(args) => queues::run(args, &out).await,
        Command::DeadLetters(command) => dead_letters::run(command, &out).await,
        Command::Webhooks(command) => webhooks::run(command, &out).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_holds_together() {
        Cli::command().debug_assert();
    }
}
