//! `load limit`: an account at its limit for minutes, with campaigns' backlog, messages that come in, and senders that come and
//! go. Shows that no sliding second has more grants and received messages than the limit by the database's clock, that the
//! provider refused nothing, how they arrived, and how much of the limit was used. With `--change` the provider lowers the limit
//! meanwhile, and raises it again.

mod change;
mod stall;
mod subject;
mod verdict;

use crate::channel::Channel;
use anyhow::{Result, ensure};
use change::Phase;
use chrono::{DateTime, Utc};
use indicatif::{ProgressBar, ProgressStyle};
use stall::Stall;
use std::{process::ExitCode, time::Duration};
use subject::Subject;
use support::{
    campaigns::Started,
    fleet::{Fleet, Pool},
    programs::Program,
    traffic::Traffic,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The account, the backlog and the time.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Command {
    /// Which channel
    #[arg(long, value_enum, default_value = "whatsapp")]
    channel: Channel,
    /// Messages a second, in and out together (Twilio: segments out), of the account and of the provider [default: what the
    /// provider documents]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rate: Option<u32>,
    /// Twilio: who sends. Its kind says how fast: a short code (100 segments a second), a toll-free number (3), any other (1)
    #[arg(long, default_value = "24246")]
    sender: String,
    /// Seconds for which the backlog lasts
    #[arg(long, default_value_t = 120, value_parser = clap::value_parser!(u64).range(15..=900))]
    seconds: u64,
    /// Messages a second that people write [default: a quarter of what WhatsApp and Messenger allow, with --change 5]
    #[arg(long)]
    inbound: Option<f64>,
    /// Senders: so many in each third of the time
    #[arg(long, value_delimiter = ',', default_values_t = [1, 3, 2])]
    workers: Vec<usize>,
    /// WhatsApp lowers the limit in the second third of the time, and raises it again in the last
    #[arg(long, value_enum)]
    change: Option<Told>,
    /// For --change: how far it is lowered
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    lowered: u32,
    /// What chance is made from
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// How we learn that a limit has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Told {
    /// By refusals alone.
    #[value(name = "429")]
    Refusals,
    /// Also by the number's webhooks, as far as these say it.
    Webhook,
}

/// The start is left out.
const WARM_UP: Duration = Duration::from_secs(3);
/// How long a campaign may take to begin.
const FLOWS_WITHIN: Duration = Duration::from_secs(60);
/// The backlog is longer than the time by so much.
const LONGER: u64 = 30;

/// Runs it and says what came of it; fails if the limit was exceeded or the provider refused something.
pub(crate) async fn run(command: Command) -> Result<ExitCode> {
    ensure!(!command.workers.is_empty(), "at least one number of senders");
    ensure!(command.workers.iter().all(|count| (1..=8).contains(count)), "1 to 8 senders");
    let changes = command.change.is_some();
    ensure!(!changes || command.channel == Channel::Whatsapp, "--change is about WhatsApp");
    let mut fleet = command.fleet()?.start().await;
    let subject = Subject::make(&fleet, &command).await?;
    let senders = fleet.pool(Program::Outbound);
    let inbound = Traffic {
        webhooks_per_second: command.inbound.unwrap_or(if changes { 5.0 } else { command.channel.inbound() }),
        replies_per_second: 0.0,
        lasts: Duration::from_secs(command.seconds) + WARM_UP + 2 * FLOWS_WITHIN,
        seed: command.seed,
    };
    let stop = CancellationToken::new();
    let drill = async {
        let done = drill(&fleet, &command, &subject, senders).await;
        stop.cancel();
        done
    };
    // People write before there is anything to send: what is kept free for them needs the first messages to be known.
    let (_, done) = tokio::join!(inbound.run_until(&stop, &fleet, &subject.parties), drill);
    let Done { mut campaigns, phases, backlog, ended_well, longest_stall, senders } = done?;
    for campaign in &mut campaigns {
        fleet.cancel(campaign).await;
    }
    let well = match phases {
        None => verdict::report(&fleet, &subject, backlog, longest_stall, ended_well).await?,
        Some(phases) => change::report(&fleet, &subject, &phases, &campaigns).await? && ended_well,
    };
    // Until then they had something to end.
    drop(senders);
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What there is to be looked at afterwards.
struct Done {
    campaigns: Vec<Started>,
    /// What was allowed when, if that has changed.
    phases: Option<Vec<Phase>>,
    backlog: Backlog,
    ended_well: bool,
    longest_stall: Duration,
    senders: Pool,
}

/// Begins campaigns, and lets time pass while they run.
async fn drill(fleet: &Fleet, command: &Command, subject: &Subject, mut senders: Pool) -> Result<Done> {
    let campaigns = subject.backlog(fleet, command.seconds + LONGER).await?;
    let started = Instant::now();
    // As far as a few seconds of the rate: the campaign is frozen and released from here on.
    let flows = 3 * u64::from(subject.rate);
    while fleet.sandbox.ledger().counts().1 < flows {
        ensure!(started.elapsed() < FLOWS_WITHIN, "the campaign does not begin");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    say(&format!("{flows} taken {:.1} s after the campaigns were started", started.elapsed().as_secs_f64()));
    let stall = Stall::watch();
    let (phases, scaled) = tokio::join!(change::happen(fleet, command, subject), scaled(fleet, command, &mut senders));
    let (backlog, ended_well) = scaled?;
    Ok(Done { campaigns, phases: phases?, backlog, ended_well, longest_stall: stall.end(), senders })
}

/// From when until when there was a backlog, by the database's clock.
type Backlog = (DateTime<Utc>, DateTime<Utc>);

/// Changes the number of senders as wanted, an equal part of the time each. From when until when, and whether those that were told
/// to end did so.
async fn scaled(fleet: &Fleet, command: &Command, senders: &mut Pool) -> Result<(Backlog, bool)> {
    let mut admin = fleet.database.admin().await;
    tokio::time::sleep(WARM_UP).await;
    let clock = "SELECT clock_timestamp()";
    let from: DateTime<Utc> = sqlx::query_scalar(clock).fetch_one(&mut admin).await?;
    let progress = progress(command.seconds);
    let began = Instant::now();
    let mut ended_well = true;
    let part = Duration::from_secs(command.seconds) / u32::try_from(command.workers.len())?;
    for (place, count) in (1_u32..).zip(&command.workers) {
        progress.set_prefix(format!("{count} senders"));
        ended_well &= senders.scale(*count).await;
        while began.elapsed() < part * place {
            tokio::time::sleep(Duration::from_millis(250)).await;
            progress.set_position(began.elapsed().as_secs());
            let (requests, accepted) = fleet.sandbox.ledger().counts();
            progress.set_message(format!("{accepted} taken by the provider, {} refused", requests - accepted));
        }
    }
    let until = sqlx::query_scalar(clock).fetch_one(&mut admin).await?;
    let left: i64 = sqlx::query_scalar("SELECT count(*) FROM campaign_recipients WHERE state = 'waiting'")
        .fetch_one(&mut admin)
        .await?;
    ensure!(left > 0, "the backlog was over before the time was");
    progress.finish_and_clear();
    Ok(((from, until), ended_well))
}

fn progress(seconds: u64) -> ProgressBar {
    let bar = ProgressBar::new(seconds);
    let style = ProgressStyle::with_template("{spinner} [{elapsed_precise}] {bar:24} {prefix}: {wide_msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

#[allow(clippy::print_stdout, reason = "the result of the run")]
fn say(text: &str) {
    println!("{text}");
}
