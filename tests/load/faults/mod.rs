//! `load faults`: everything that can go wrong with our own processes and servers, under webhooks, replies and campaigns
//! together, and the books closed after each. Not a measurement of speed: it passes only if nothing was lost and nothing done
//! twice without being shown as possibly doubled.

mod fault;
mod load;
mod rows;
mod soak;

use crate::{channel::Channel, servers::Away};
use anyhow::Result;
use fault::{Fault, Spells};
use load::{Manner, Rates};
use std::{path::PathBuf, process::ExitCode, time::Duration};
use support::fleet::Server;

/// Which faults, and under what load.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Command {
    /// Which faults, by name or by the part before the dot: crash points (outbound.after_claim …), kill.PROGRAM, sigstop, cut,
    /// stop.SERVER; or all
    #[arg(long, value_delimiter = ',', default_value = "all")]
    points: Vec<String>,
    /// How many times each, on a fleet of its own
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=20))]
    rounds: u64,
    /// Instead: so many of the faults, one after the other as chance has it, on one fleet that is never started anew. The same
    /// --seed and --points strike the same in the same order
    #[arg(long, value_name = "STRIKES", conflicts_with = "rounds", value_parser = clap::value_parser!(u64).range(1..))]
    soak: Option<u64>,
    /// In a soak, books are closed after so many strikes, and at the end
    #[arg(long, value_name = "STRIKES", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=20))]
    close_every: u64,
    /// Whether statuses come before evidence is given up, after it, or one after the other [a soak: both means fast]
    #[arg(long, value_enum, default_value = "both")]
    settle: Settle,
    /// What the account does with messages of which nobody knows whether the provider took them: hold them for a person, or send
    /// them again, shown as possibly doubled (only with the slower of the statuses, where it matters) [a soak: both means hold]
    #[arg(long, value_enum, default_value = "both")]
    unknown: Unknown,
    /// How a server goes away
    #[arg(long, value_enum, default_value = "stopped")]
    away: How,
    /// For --away stopped
    #[arg(long, default_value = "deploy/dev")]
    dev: PathBuf,
    /// Over which channels people write and are answered, evenly; campaigns are WhatsApp's
    #[arg(long, value_enum, value_delimiter = ',', default_value = "whatsapp")]
    channels: Vec<Channel>,
    /// For how many seconds a machine stands still [default: 20, in a soak 5]
    #[arg(long)]
    standstill: Option<u64>,
    /// For how many seconds a server is away [default: 10, in a soak 2]
    #[arg(long)]
    down: Option<u64>,
    /// Messages of people a second [default: 60, in a soak 25]
    #[arg(long)]
    webhooks: Option<f64>,
    /// Answers of agents a second [default: 50, in a soak 15]
    #[arg(long)]
    replies: Option<f64>,
    /// Messages a second that the account may send and receive; campaigns get what is left of it [default: 200, in a soak 70]
    #[arg(long)]
    account_rate: Option<f64>,
    /// What chance is made from
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Settle {
    /// Statuses come within half a second, evidence is awaited for 10 s.
    Fast,
    /// Statuses come after 8 s, evidence is awaited for 3 s.
    Slow,
    Both,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Unknown {
    /// Held for a person.
    Hold,
    /// Sent again.
    Resend,
    Both,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum How {
    /// Stopped and started with deploy/dev.
    Stopped,
    /// Behind a cut line: for servers that are not ours to stop.
    Unreachable,
}

/// Longer than every deadline there is, one after the other, with some room.
const CLOSING: Duration = Duration::from_secs(180);
/// The load goes on for so long between two faults.
const CALM: Duration = Duration::from_millis(1_500);

impl Command {
    fn rates(&self) -> Rates {
        let (webhooks, replies, account) = if self.soak.is_some() { (25.0, 15.0, 70.0) } else { (60.0, 50.0, 200.0) };
        Rates {
            webhooks: self.webhooks.unwrap_or(webhooks),
            replies: self.replies.unwrap_or(replies),
            account: self.account_rate.unwrap_or(account),
        }
    }

    /// Every way in which faults are to be tried.
    fn manners(&self) -> Vec<Manner> {
        let settles: &[Settle] = match self.settle {
            Settle::Both => &[Settle::Fast, Settle::Slow],
            Settle::Fast => &[Settle::Fast],
            Settle::Slow => &[Settle::Slow],
        };
        let manner = |settle, unknown| Manner { settle, unknown, rates: self.rates(), seed: self.seed };
        let mut manners = Vec::new();
        if self.unknown != Unknown::Resend {
            manners.extend(settles.iter().map(|settle| manner(*settle, Unknown::Hold)));
        }
        if self.unknown != Unknown::Hold {
            manners.extend(settles.last().map(|settle| manner(*settle, Unknown::Resend)));
        }
        manners
    }

    fn spells(&self, standstill: Duration, away: Duration) -> Spells<'_> {
        let seconds = |given: Option<u64>, usual| given.map_or(usual, Duration::from_secs);
        let (standstill, away) = (seconds(self.standstill, standstill), seconds(self.down, away));
        let way = match self.away {
            How::Stopped => Away::Stopped(&self.dev),
            How::Unreachable => Away::OutOfReach,
        };
        Spells { standstill, away, way }
    }

    /// The servers that one of these faults needs a relay in front of.
    fn relays(&self, faults: &[Fault]) -> Vec<Server> {
        let needed = |server: &Server| {
            faults.iter().any(|fault| match fault {
                Fault::Cut => *server == Server::Broker,
                Fault::Stop(stopped) => self.away == How::Unreachable && stopped == server,
                Fault::Crash(_) | Fault::Kill(_) | Fault::SigStop => false,
            })
        };
        Server::ALL.into_iter().filter(needed).collect()
    }
}

impl Manner {
    /// In tables.
    fn words(self) -> [&'static str; 2] {
        let settle = if self.settle == Settle::Slow { "slower" } else { "faster" };
        let unknown = if self.unknown == Unknown::Resend { "sent again" } else { "held" };
        [settle, unknown]
    }
}

/// Tries the faults in the way asked for, and says whether all went well.
pub(crate) async fn run(command: Command) -> Result<ExitCode> {
    let faults = Fault::named(&command.points)?;
    let well = match command.soak {
        Some(strikes) => soak::run(&command, &faults, strikes).await?,
        None => rows::run(&command, &faults).await?,
    };
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[allow(clippy::print_stdout, reason = "the result of the run")]
fn say(text: &str) {
    println!("{text}");
}
