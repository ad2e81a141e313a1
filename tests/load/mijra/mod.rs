//! Mijra as a side of the measurements: the real programs, built with the release profile, on a private database and queues
//! of their own, next to the yardsticks.

mod campaign;
mod grant;
mod import;
mod ingest;
mod installation;
mod mixed;
mod scale;
mod send;

use std::process::ExitCode;

use anyhow::{Result, ensure};
use clap::ValueEnum;

use crate::bare::wire::Way;
use crate::bare::{BareChain, BareMix, BareReceiver, BareReqwest, BareSend};
use crate::measure::progress::Progress;
use crate::measure::report::{self, Output};
use crate::measure::{ingest as ingests, runs, sends};
use crate::services::Services;
use ingest::MijraIngest;
use send::MijraSend;

pub(crate) use campaign::{Arguments as CampaignArguments, run as campaign};
pub(crate) use grant::{Arguments as GrantArguments, run as grant};
pub(crate) use import::{Arguments as ImportArguments, run as import};
pub(crate) use scale::{Arguments as ScaleArguments, run as scale};

/// Webhooks in: Mijra against a yardstick, in pairs.
#[derive(Debug, clap::Args)]
pub(crate) struct IngestArguments {
    #[command(flatten)]
    services: Services,
    #[command(flatten)]
    load: ingests::Load,
    /// Which yardstick stands beside it
    #[arg(long, value_enum, default_value_t = Against::Chain)]
    against: Against,
    /// How many pairs
    #[arg(long, default_value_t = 5)]
    pairs: u32,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, clap::ValueEnum)]
enum Against {
    /// Only the receiver is compared: accepted/s, and the answer's time
    Receiver,
    /// The whole chain: rows/s
    Chain,
}

/// Messages out: Mijra against the durable loop, in pairs.
#[derive(Debug, clap::Args)]
pub(crate) struct SendArguments {
    #[command(flatten)]
    services: Services,
    #[command(flatten)]
    work: sends::Work,
    /// By which ways, one after the other, separated by commas; `all` for all of them
    #[arg(long, value_parser = ways, default_value = "whatsapp")]
    channel: Ways,
    /// How many pairs
    #[arg(long, default_value_t = 5)]
    pairs: u32,
    /// Measure a plain loop of calls beside it, too
    #[arg(long)]
    reqwest: bool,
    /// Measure Mijra with a provider that reports each message as sent and delivered, too (WhatsApp alone)
    #[arg(long)]
    statuses: bool,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Clone)]
struct Ways(Vec<Way>);

fn ways(text: &str) -> Result<Ways, String> {
    if text == "all" {
        return Ok(Ways(Way::ALL.to_vec()));
    }
    text.split(',').map(|name| Way::from_str(name, false)).collect::<Result<_, _>>().map(Ways)
}

/// Of the durable loop's rate the product is to reach at least this much.
const BAR: f64 = 0.60;

/// `load ingest`
pub(crate) async fn ingest(arguments: IngestArguments) -> Result<ExitCode> {
    let IngestArguments { services, load, against, pairs, output } = arguments;
    let progress = Progress::new(u64::from(pairs) * 2 * ingests::PHASES);
    let mijra = MijraIngest::new(&services, against == Against::Receiver);
    let run_mijra = async || ingests::measure(&mijra, &load, &progress).await;
    let pairs = match against {
        Against::Receiver => {
            let bare = BareReceiver::new(&services);
            let run_bare = async || ingests::measure(&bare, &load, &progress).await;
            runs::interleave(("bare receiver", "Mijra"), pairs, &progress, run_bare, run_mijra).await?
        }
        Against::Chain if load.mix => {
            let bare = BareMix::new(&services);
            let run_bare = async || ingests::measure(&bare, &load, &progress).await;
            runs::interleave(("bare chain", "Mijra"), pairs, &progress, run_bare, run_mijra).await?
        }
        Against::Chain => {
            let bare = BareChain::new(&services);
            let run_bare = async || ingests::measure(&bare, &load, &progress).await;
            runs::interleave(("bare chain", "Mijra"), pairs, &progress, run_bare, run_mijra).await?
        }
    };
    drop(progress);
    report::pairs(output, &pairs)
}

/// `load send`
pub(crate) async fn send(arguments: SendArguments) -> Result<ExitCode> {
    let SendArguments { services, work, channel: Ways(ways), pairs, reqwest, statuses, output } = arguments;
    ensure!(!statuses || ways == [Way::Whatsapp], "only WhatsApp's stand-in reports what becomes of messages");
    let progress = Progress::new(ways.len() as u64 * u64::from(pairs) * 2 * sends::PHASES);
    if statuses {
        let mijra = MijraSend::new(&services, true);
        let alone = async || sends::measure(&mijra, &work, &progress).await;
        let series = runs::repeat("Mijra, told of statuses", pairs, &progress, alone).await?;
        report::series(output, &series)?;
    }
    let (bare, mijra) = (BareSend::new(&services), MijraSend::new(&services, false));
    let mut all = Vec::new();
    for way in ways {
        let work = sends::Work { way, ..work.clone() };
        if reqwest {
            let alone = async || sends::measure(&BareReqwest, &work, &progress).await;
            let series = runs::repeat("bare reqwest", pairs, &progress, alone).await?;
            report::series(output, &series)?;
        }
        progress.say(&format!("by {}", way.name()));
        let run_bare = async || sends::measure(&bare, &work, &progress).await;
        let run_mijra = async || sends::measure(&mijra, &work, &progress).await;
        let pairs = runs::interleave(("bare send", "Mijra"), pairs, &progress, run_bare, run_mijra).await?;
        all.push((way.name().to_owned(), pairs));
    }
    drop(progress);
    match all.as_slice() {
        [(_, pairs)] => report::pairs(output, pairs),
        all => report::ratios(output, "by", "sends", BAR, all),
    }
}
