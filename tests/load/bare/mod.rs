//! The yardsticks: the least that does the same job on the same parts, one webhook or send at a time where the product may
//! gather many. They say what this machine can do at most, next to what is measured, in the same run. Their shape is
//! fixed: whoever changes one changes what every past ratio meant. They share no code with the product, which is why
//! lapin and SQL may stand here.

mod broker;
mod chain;
pub(crate) mod database;
mod limits;
mod mix;
mod mix_worker;
mod plain;
mod receiver;
pub(crate) mod responder;
mod send;
mod sender;
pub(crate) mod wire;
mod worker;

use std::process::ExitCode;

use anyhow::Result;

use crate::measure::progress::Progress;
use crate::measure::report::{self, Output};
use crate::measure::{ingest, runs, sends};
use crate::role::Orders;
use crate::services::Services;

pub(crate) use chain::BareChain;
pub(crate) use mix::BareMix;
pub(crate) use plain::BareReqwest;
pub(crate) use receiver::BareReceiver;
pub(crate) use send::BareSend;

/// A yardstick by itself.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Webhook → HMAC → one confirmed publish to a quorum queue → 200
    Receiver(IngestArguments),
    /// The receiver, and a worker that writes batches of 500 with one statement each
    Chain(IngestArguments),
    /// The receiver against itself, in pairs: how far apart two equal sides are on this machine now
    Noise(IngestArguments),
    /// Consume, claim in a batch, call the provider, record in a batch, acknowledge
    Send(SendArguments),
    /// A plain loop of calls, nothing stored
    Reqwest(SendArguments),
}

#[derive(Debug, clap::Args)]
pub(crate) struct IngestArguments {
    #[command(flatten)]
    services: Services,
    #[command(flatten)]
    load: ingest::Load,
    /// How often to measure
    #[arg(long, default_value_t = 3)]
    runs: u32,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, clap::Args)]
pub(crate) struct SendArguments {
    #[command(flatten)]
    services: Services,
    #[command(flatten)]
    work: sends::Work,
    /// By which way
    #[arg(long, value_enum, default_value_t)]
    channel: wire::Way,
    /// How often to measure
    #[arg(long, default_value_t = 3)]
    runs: u32,
    #[command(flatten)]
    output: Output,
}

/// A part of a yardstick, run as a process of its own.
#[derive(Debug, Clone, Copy, clap::Subcommand)]
pub(crate) enum Part {
    Receiver,
    Worker,
    MixWorker,
    Sender,
    Caller,
    Responder,
}

/// Measures one yardstick.
pub(crate) async fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Receiver(arguments) => ingest(&BareReceiver::new(&arguments.services), &arguments).await,
        Command::Chain(arguments) if arguments.load.mix => ingest(&BareMix::new(&arguments.services), &arguments).await,
        Command::Chain(arguments) => ingest(&BareChain::new(&arguments.services), &arguments).await,
        Command::Noise(arguments) => noise(&BareReceiver::new(&arguments.services), &arguments).await,
        Command::Send(arguments) => send(&BareSend::new(&arguments.services), &arguments).await,
        Command::Reqwest(arguments) => send(&BareReqwest, &arguments).await,
    }
}

/// Runs one part until the harness says stop.
pub(crate) async fn run_part(part: Part, orders: Orders) -> Result<()> {
    match part {
        Part::Receiver => receiver::role(orders).await,
        Part::Worker => worker::role(orders).await,
        Part::MixWorker => mix_worker::role(orders).await,
        Part::Sender => sender::role(orders).await,
        Part::Caller => plain::role(orders).await,
        Part::Responder => responder::role(orders).await,
    }
}

async fn ingest(side: &impl ingest::IngestSide, arguments: &IngestArguments) -> Result<ExitCode> {
    let progress = Progress::new(u64::from(arguments.runs) * ingest::PHASES);
    let measure = async || ingest::measure(side, &arguments.load, &progress).await;
    let series = runs::repeat(side.name(), arguments.runs, &progress, measure).await?;
    drop(progress);
    report::series(arguments.output, &series)
}

async fn noise(side: &impl ingest::IngestSide, arguments: &IngestArguments) -> Result<ExitCode> {
    let progress = Progress::new(u64::from(arguments.runs) * 2 * ingest::PHASES);
    let measure = async || ingest::measure(side, &arguments.load, &progress).await;
    let again = format!("{} again", side.name());
    let pairs = runs::interleave((side.name(), &again), arguments.runs, &progress, &measure, &measure).await?;
    drop(progress);
    report::pairs(arguments.output, &pairs)
}

async fn send(side: &impl sends::SendSide, arguments: &SendArguments) -> Result<ExitCode> {
    let progress = Progress::new(u64::from(arguments.runs) * sends::PHASES);
    let work = sends::Work { way: arguments.channel, ..arguments.work.clone() };
    let measure = async || sends::measure(side, &work, &progress).await;
    let series = runs::repeat(side.name(), arguments.runs, &progress, measure).await?;
    drop(progress);
    report::series(arguments.output, &series)
}
