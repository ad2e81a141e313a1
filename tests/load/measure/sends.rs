//! One run of sends out of a side: as many jobs as asked for lie ready, the side is let go, and the clock runs from the first
//! call that reaches the provider until the last send is recorded. The provider is a trivial local responder, which is
//! a process of its own and the same for every side.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::Reference;
use super::accounts::{Accounts, Watched};
use super::figures::{Measurement, Unit};
use super::progress::Progress;
use crate::bare::responder::{RESPONDER, Responder, Statuses};
use crate::bare::wire::Way;

/// Phases a run announces to `Progress`.
pub(crate) const PHASES: u64 = 3;

const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How often to look what is recorded while many are missing: it costs a scan.
const COUNT_EVERY: Duration = Duration::from_secs(1);
const MANY: u64 = 5_000;
/// A side that neither calls nor records anything for so long has lost something or is stuck.
const STALLED_AFTER: Duration = Duration::from_secs(30);

/// The work, the same for every side.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Work {
    /// How many messages to send
    #[arg(long, default_value_t = 100_000)]
    pub(crate) sends: u64,
    /// How many calls to the provider may be open at once
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=1_024))]
    pub(crate) concurrency: u16,
    /// By which way they go; whoever reads the command line says it.
    #[arg(skip)]
    pub(crate) way: Way,
}

/// Something that sends: a yardstick or the product.
pub(crate) trait SendSide {
    type Running: RunningSends;

    /// In tables and on the progress bar.
    fn name(&self) -> &'static str;

    /// What it is known to cost for this work, for yardsticks.
    fn reference(&self, _work: &Work) -> Option<Reference> {
        None
    }

    /// Makes everything ready on queues and tables of its own, jobs included; nothing is sent yet.
    async fn prepare(&self, work: &Work, provider: SocketAddr) -> Result<Self::Running>;
}

/// A side that is ready to send, or sends.
pub(crate) trait RunningSends {
    /// Where it wants to be told what becomes of messages; then one counts as recorded when it is known to be delivered.
    fn statuses(&self) -> Option<Statuses> {
        None
    }

    /// Lets it go.
    async fn go(&mut self) -> Result<()>;

    /// Its processes and the servers it uses, the provider left out.
    fn processes(&self) -> Result<Vec<Watched>>;

    /// How many sends are durably recorded as sent, or as delivered where that is told. Asked only when the provider has had as many calls.
    async fn recorded(&mut self) -> Result<u64>;

    /// Ends its processes and removes its queues and database.
    async fn stop(self) -> Result<()>;
}

/// One run of one side.
pub(crate) async fn measure<S: SendSide>(side: &S, work: &Work, progress: &Progress) -> Result<Measurement> {
    progress.phase(format!("making {} jobs ready", work.sends));
    let mut responder = Responder::start(work.way).await?;
    let mut running = tokio::select! {
        started = side.prepare(work, responder.address) => started?,
        // What it had made by then is removed by whoever comes next, or expires.
        _ = tokio::signal::ctrl_c() => bail!("interrupted"),
    };
    let measured = tokio::select! {
        measured = drive(&mut running, &mut responder, work, progress) => measured,
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
    };
    let stopped = running.stop().await;
    let mut measurement = measured?;
    stopped?;
    responder.role.stop().await?;
    if let Some(reference) = side.reference(work) {
        reference.check(&mut measurement);
    }
    Ok(measurement)
}

async fn drive(
    running: &mut impl RunningSends,
    responder: &mut Responder,
    work: &Work,
    progress: &Progress,
) -> Result<Measurement> {
    progress.phase("sending");
    let accounts = Accounts::open([running.processes()?, vec![responder.role.watched()?]].concat());
    if let Some(statuses) = running.statuses() {
        responder.report(&statuses).await?;
    }
    let from = accounts.snapshot()?;
    running.go().await?;
    let mut seen = responder.calls().await?;
    let mut grew = Instant::now();
    while seen.count < work.sends {
        tokio::time::sleep(LOOK_EVERY).await;
        let calls = responder.calls().await?;
        if calls.count > seen.count {
            grew = Instant::now();
        } else if grew.elapsed() > STALLED_AFTER {
            accounts.snapshot()?;
            bail!("{} of {} sends reached the provider, and no more come", calls.count, work.sends);
        }
        seen = calls;
    }

    progress.phase("waiting until everything is recorded");
    let (mut recorded, mut grew) = (running.recorded().await?, Instant::now());
    while recorded < work.sends {
        tokio::time::sleep(if work.sends - recorded > MANY { COUNT_EVERY } else { LOOK_EVERY }).await;
        let now = running.recorded().await?;
        if now > recorded {
            (recorded, grew) = (now, Instant::now());
        } else if grew.elapsed() > STALLED_AFTER {
            bail!("the provider had {} calls, {recorded} are recorded", seen.count);
        }
    }
    let calls = responder.calls().await?;
    let to = accounts.snapshot()?;
    let recorded_after = calls.asked_us - calls.first_us;

    let mut measurement = Measurement::default();
    measurement.add("sends", Unit::PerSecond, work.sends as f64 / (recorded_after as f64 / 1e6));
    measurement.add("calls", Unit::PerSecond, calls.count as f64 / ((calls.last_us - calls.first_us) as f64 / 1e6));
    measurement.add("calls at the provider", Unit::Count, calls.count as f64);
    measurement.add_usage(&accounts.usage(&from, &to), work.sends, &[RESPONDER]);
    if calls.count > work.sends {
        measurement.void.push(format!("the provider had {} calls for {} sends", calls.count, work.sends));
    }
    Ok(measurement)
}
