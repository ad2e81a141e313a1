//! One run of webhooks into a side: warm-up, wait until everything is stored, the measured load, wait until that is stored
//! too. Because the measured part begins and ends with nothing on the way, every processor tick belongs to its messages and
//! every accepted message must be found; a side that stores less than it accepted fails the run.

use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Result, bail};

use super::Reference;
use super::accounts::{Accounts, Watched};
use super::figures::{Measurement, Unit};
use super::progress::Progress;
use crate::generate::mix::Mix;
use crate::generate::payload::Payloads;
use crate::generate::{GENERATOR, Generator, Plan, Report};

/// Phases a run announces to `Progress`.
pub(crate) const PHASES: u64 = 3;

/// How often rows are counted while a side catches up. Counting costs Postgres a scan, which is charged to the run.
const COUNT_EVERY: Duration = Duration::from_millis(200);
/// A side that stores nothing for so long has lost something or is stuck.
const STALLED_AFTER: Duration = Duration::from_secs(30);
const DRAINED_WITHIN: Duration = Duration::from_secs(600);

/// The load, the same for every side.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Load {
    /// How long the measured load lasts
    #[arg(long, default_value_t = 10.0)]
    pub(crate) seconds: f64,
    /// How long the load before it lasts, which opens connections and fills caches
    #[arg(long, default_value_t = 2.0)]
    pub(crate) warm_up_seconds: f64,
    /// Keep-alive connections
    #[arg(long, default_value_t = 64)]
    pub(crate) connections: usize,
    /// Webhooks a second in an open loop, timed from when each was due; without it, a closed loop
    #[arg(long)]
    pub(crate) rate: Option<f64>,
    /// How many people write
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(1..10_000_000))]
    pub(crate) people: u64,
    /// How many phone numbers they write to
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..10_000))]
    pub(crate) numbers: u64,
    /// Bodies of 2.9 MiB spread over the measured load
    #[arg(long, default_value_t = 0)]
    pub(crate) big_bodies: u64,
    /// Webhooks of all providers, three of five about messages that had been sent, instead of WhatsApp's messages alone
    #[arg(long, conflicts_with_all = ["numbers", "big_bodies"])]
    pub(crate) mix: bool,
    /// With --mix: how many reports there can be of each tenth of the stream; half as many messages are prepared for it
    #[arg(long, default_value_t = 24_000, value_parser = clap::value_parser!(u64).range(10..900_000))]
    pub(crate) reports: u64,
}

/// A mix's ids are told apart by database, not by run: its known messages are prepared before.
pub(crate) const MIX_RUN: &str = "0a1b2c3d";

impl Load {
    /// What is mixed from now on.
    pub(crate) fn mix(&self) -> Option<Mix> {
        let hour_ago = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64 - 3_600);
        self.mix.then_some(Mix { reports: self.reports, sent_at: hour_ago })
    }
}

/// Something that takes webhooks and stores what they say: a yardstick or the product.
pub(crate) trait IngestSide {
    type Running: RunningIngest;

    /// In tables and on the progress bar.
    fn name(&self) -> &'static str;

    /// What it is known to cost under this load, for yardsticks.
    fn reference(&self, _load: &Load) -> Option<Reference> {
        None
    }

    /// Starts its processes on empty queues and tables of their own; they take webhooks when this returns.
    async fn start(&self, load: &Load) -> Result<Self::Running>;
}

/// A side that runs.
pub(crate) trait RunningIngest {
    /// Where webhooks go, and the secret that signs them.
    fn webhooks(&self) -> Webhooks;

    /// Its processes and the servers it uses, the load left out.
    fn processes(&self) -> Result<Vec<Watched>>;

    /// How many messages it has stored, and of a mix how many reports; `None` for a side that stores nothing.
    async fn stored(&mut self) -> Result<Option<u64>>;

    /// Writes out what the database still holds in memory, so that no run pays for the one before.
    async fn checkpoint(&mut self) -> Result<()>;

    /// Ends its processes and removes its queues and database.
    async fn stop(self) -> Result<()>;
}

/// Where webhooks go.
#[derive(Debug, Clone)]
pub(crate) struct Webhooks {
    pub(crate) address: SocketAddr,
    pub(crate) path: String,
    pub(crate) app_secret: String,
    /// What is mixed: its known messages are prepared.
    pub(crate) mix: Option<Mix>,
}

/// One run of one side.
pub(crate) async fn measure<S: IngestSide>(side: &S, load: &Load, progress: &Progress) -> Result<Measurement> {
    let mut running = tokio::select! {
        started = side.start(load) => started?,
        // What it had made by then is removed by whoever comes next, or expires.
        _ = tokio::signal::ctrl_c() => bail!("interrupted"),
    };
    let measured = tokio::select! {
        measured = drive(&mut running, load, progress) => measured,
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
    };
    let stopped = running.stop().await;
    let mut measurement = measured?;
    stopped?;
    if let Some(reference) = side.reference(load) {
        reference.check(&mut measurement);
    }
    Ok(measurement)
}

async fn drive(running: &mut impl RunningIngest, load: &Load, progress: &Progress) -> Result<Measurement> {
    let mut plan = plan(&running.webhooks(), load);

    progress.phase(format!("warming up for {} s", load.warm_up_seconds));
    let mut generator =
        Generator::start(&Plan { seconds: load.warm_up_seconds, big_bodies: 0, ..plan.clone() }).await?;
    let warm_up = generator.run().await?;
    generator.role.stop().await?;
    let accounts = Accounts::open(running.processes()?);
    let before = drain(running, &accounts, 0, &warm_up).await?.unwrap_or(0);
    running.checkpoint().await?;

    progress.phase(format!("measuring for {} s", load.seconds));
    plan.first_serial = warm_up.accepted + warm_up.unanswered + warm_up.refused.values().sum::<u64>() + warm_up.unsent;
    let mut generator = Generator::start(&plan).await?;
    let accounts = Accounts::open([running.processes()?, vec![generator.role.watched()?]].concat());
    let from = accounts.snapshot()?;
    let began = Instant::now();
    let report = generator.run().await?;
    let loaded = began.elapsed();
    let sent = plan.first_serial + report.accepted + report.unanswered + report.refused.values().sum::<u64>();
    if plan.mix.is_some_and(|mix| sent > mix.most()) {
        bail!("{sent} webhooks are more than there was news for: raise --reports");
    }
    let stored_meanwhile = running.stored().await?.map(|stored| stored.saturating_sub(before));
    let counted = began.elapsed();

    progress.phase("waiting until everything is stored");
    let stored = drain(running, &accounts, before, &report).await?.map(|stored| stored - before);
    let drained = began.elapsed();
    let to = accounts.snapshot()?;
    generator.role.stop().await?;

    let mut measurement = Measurement::default();
    measurement.add("accepted", Unit::PerSecond, report.accepted_in_time as f64 / load.seconds);
    if let (Some(meanwhile), Some(stored)) = (stored_meanwhile, stored) {
        measurement.add("rows, under load", Unit::PerSecond, meanwhile as f64 / counted.as_secs_f64());
        measurement.add("rows, until stored", Unit::PerSecond, stored as f64 / drained.as_secs_f64());
        measurement.add("stored after the load", Unit::Seconds, (drained - loaded).as_secs_f64());
    }
    add_answers(&mut measurement, &report);
    measurement.add_usage(&accounts.usage(&from, &to), report.messages_accepted, &[GENERATOR]);
    Ok(measurement)
}

fn plan(webhooks: &Webhooks, load: &Load) -> Plan {
    Plan {
        address: webhooks.address,
        path: webhooks.path.clone(),
        connections: load.connections,
        seconds: load.seconds,
        rate: load.rate,
        big_bodies: load.big_bodies,
        first_serial: 0,
        payloads: Payloads {
            app_secret: webhooks.app_secret.clone(),
            run: if webhooks.mix.is_some() { MIX_RUN.into() } else { format!("{:08x}", rand::random::<u32>()) },
            people: load.people,
            numbers: load.numbers,
        },
        mix: webhooks.mix,
    }
}

/// Waits until everything accepted since `before` is stored. Returns the count.
async fn drain(
    running: &mut impl RunningIngest,
    accounts: &Accounts,
    before: u64,
    report: &Report,
) -> Result<Option<u64>> {
    let expected = before + report.messages_accepted;
    let began = Instant::now();
    let (mut most, mut grew) = (0, began);
    loop {
        let Some(stored) = running.stored().await? else { return Ok(None) };
        if stored >= expected {
            return Ok(Some(stored));
        }
        // Says so if a process has died.
        accounts.snapshot()?;
        if stored > most {
            (most, grew) = (stored, Instant::now());
        }
        if grew.elapsed() > STALLED_AFTER || began.elapsed() > DRAINED_WITHIN {
            bail!("accepted {expected} messages, stored {stored}, and no more come");
        }
        tokio::time::sleep(COUNT_EVERY).await;
    }
}

fn add_answers(measurement: &mut Measurement, report: &Report) {
    for (name, time_us) in [
        ("answer p50", report.latency.p50_us),
        ("answer p90", report.latency.p90_us),
        ("answer p99", report.latency.p99_us),
        ("answer p99.9", report.latency.p999_us),
        ("answer max", report.latency.max_us),
    ] {
        measurement.add(name, Unit::Milliseconds, time_us as f64 / 1e3);
    }
    if report.big_latency.count > 0 {
        measurement.add("big body p50", Unit::Milliseconds, report.big_latency.p50_us as f64 / 1e3);
        measurement.add("big body max", Unit::Milliseconds, report.big_latency.max_us as f64 / 1e3);
    }
    measurement.add("accepted in all", Unit::Count, report.accepted as f64);
    for (status, count) in &report.refused {
        measurement.add(format!("answered {status}"), Unit::Count, *count as f64);
    }
    let refused: u64 = report.refused.values().sum();
    if refused > 0 {
        measurement.void.push(format!("{refused} webhooks were refused"));
    }
    if report.unanswered > 0 {
        let why = report.broken.as_deref().unwrap_or("no answer in time");
        measurement.void.push(format!("{} webhooks were not answered ({why})", report.unanswered));
    }
    if report.unsent > 0 {
        measurement.void.push(format!("{} webhooks that were due could not be sent", report.unsent));
    }
}
