//! The load harness: how fast Mijra is, next to how fast anything could be on the same machine in the same minutes.
//!
//! `load bare …` measures the yardsticks by themselves. Every part runs as a process of its own, so that processor time can be
//! told apart; a run beside busy neighbours is void and says so. Build it with the release profile: numbers of any other
//! mean nothing.

#![allow(
    clippy::disallowed_methods,
    reason = "the harness measures real time, spawns its own tasks and takes its settings from its command line"
)]

mod bare;
mod channel;
mod demo;
mod faults;
mod generate;
mod limit;
mod measure;
mod media;
mod media_out;
mod mijra;
mod order;
mod outage;
mod role;
mod servers;
mod services;

use std::io::Write;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use role::Orders;
use tokio::runtime::Runtime;

#[derive(Debug, Parser)]
#[command(name = "load", about = "Measures Mijra against bare yardsticks on private servers.", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Measures a yardstick by itself
    #[command(subcommand)]
    Bare(Box<bare::Command>),
    /// Webhooks in: Mijra against a yardstick, in pairs
    Ingest(Box<mijra::IngestArguments>),
    /// Messages out: Mijra against the durable loop, in pairs
    Send(Box<mijra::SendArguments>),
    /// Messages out by one worker and by several: what a send costs
    Scale(Box<mijra::ScaleArguments>),
    /// The main job in small, on a running installation, and its books
    Demo(Box<demo::Arguments>),
    /// Crashes, kills, standstills, cut connections and stopped servers under webhooks, replies and campaigns, and the books
    /// after each; or a long soak of them by chance
    Faults(Box<faults::Command>),
    /// Postgres, RabbitMQ and Redis taken away for minutes under load
    Outage(Box<outage::Command>),
    /// An account at its limit: a backlog, messages that come in, workers that come and go; or a limit that changes
    Limit(Box<limit::Command>),
    /// Thousands of conversations under every trouble, and the order in which the provider took their messages
    Order(Box<order::Command>),
    /// Files of all sizes through hosts that fail, and the worker's memory
    Media(Box<media::Command>),
    /// Files of all sizes sent by every way, ids that are over, and the workers' memory
    MediaOut(Box<media_out::Command>),
    /// Bulk import of contacts: Mijra against COPY, in pairs
    Import(Box<mijra::ImportArguments>),
    /// Campaigns: shares, fairness between accounts, pausing, a million people
    Campaign(Box<mijra::CampaignArguments>),
    /// The grant alone
    Grant(Box<mijra::GrantArguments>),
    /// One part of a measurement; the harness starts these itself
    #[command(subcommand, hide = true)]
    Role(Role),
}

#[derive(Debug, Clone, Copy, clap::Subcommand)]
enum Role {
    Generator,
    #[command(flatten)]
    Part(bare::Part),
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Role(Role::Generator) => run_generator(),
        Command::Role(Role::Part(part)) => run_part(part),
        Command::Bare(command) => run_on(bare::run(*command)),
        Command::Ingest(arguments) => run_on(mijra::ingest(*arguments)),
        Command::Send(arguments) => run_on(mijra::send(*arguments)),
        Command::Scale(arguments) => run_on(mijra::scale(*arguments)),
        Command::Demo(arguments) => run_on(demo::run(*arguments)),
        Command::Faults(command) => run_on(faults::run(*command)),
        Command::Outage(command) => run_on(outage::run(*command)),
        Command::Limit(command) => run_on(limit::run(*command)),
        Command::Order(command) => run_on(order::run(*command)),
        Command::Media(command) => run_on(media::run(*command)),
        Command::MediaOut(command) => run_on(media_out::run(*command)),
        Command::Import(arguments) => run_on(mijra::import(*arguments)),
        Command::Campaign(arguments) => run_on(mijra::campaign(*arguments)),
        Command::Grant(arguments) => run_on(mijra::grant(*arguments)),
    };
    done.unwrap_or_else(|error| {
        // Nothing is left to do if nobody reads it.
        let _ = writeln!(std::io::stderr(), "error: {error:#}");
        ExitCode::FAILURE
    })
}

/// On one thread: it is enough for twice the load we make, and leaves the other core to what is measured.
fn run_generator() -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(generate::role(Orders::listen()))?;
    Ok(ExitCode::SUCCESS)
}

fn run_part(part: bare::Part) -> Result<ExitCode> {
    Runtime::new()?.block_on(bare::run_part(part, Orders::listen()))?;
    Ok(ExitCode::SUCCESS)
}

fn run_on(measurement: impl Future<Output = Result<ExitCode>>) -> Result<ExitCode> {
    Runtime::new()?.block_on(measurement)
}
