//! A campaign to everybody there is: how fast they are frozen, how many are ever outstanding, how much memory it takes, how fast
//! it goes without a limit beside single sends, and the books of all of it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use shared::domain::ids::{CampaignId, ChannelAccountId};
use support::sandbox::Behaviour;

use super::super::send;
use super::books;
use super::stage::{Plan, SENDER, Shown, Stage, until};
use crate::bare::wire::Way;
use crate::measure::progress::Progress;
use crate::measure::verdicts::Verdicts;
use crate::services::Services;

/// Sizes of the part `million`.
#[derive(Debug, Clone, clap::Args)]
#[group(id = "million")]
pub(super) struct Size {
    /// million: people
    #[arg(long, default_value_t = 1_000_000)]
    million_people: u64,
    /// million: people sent to without a limit, and single sends beside them
    #[arg(long, default_value_t = 100_000)]
    million_sends: u64,
    /// million: messages a second of the account with a limit
    #[arg(long, default_value_t = 80)]
    million_rate: u32,
    /// million: seconds for which that one sends
    #[arg(long, default_value_t = 30)]
    million_seconds: u64,
}

pub(super) const PHASES: u64 = 6;

const FROZEN_WITHIN: Duration = Duration::from_secs(60);
const GIVEN_UP_AFTER: Duration = Duration::from_secs(900);
const MEMORY: u64 = 200 * 1024 * 1024;
/// What an account may have outstanding: so many seconds of its rate, or so many without a limit.
const OUTSTANDING_SECONDS: u64 = 5;
const OUTSTANDING_WITHOUT_LIMIT: u64 = 2_000;

/// Runs the part.
pub(super) async fn run(services: &Services, size: &Size, progress: &Progress) -> Result<Verdicts> {
    let mut verdicts = Verdicts::new(format!("million: {} people", size.million_people));
    let plan =
        Plan { numbers: 2, rate: None, senders: 1, behaviour: Behaviour::fastest(), people: size.million_people };
    let mut stage = Stage::set(services, plan, progress).await?;
    let measured = measure(&mut stage, size, progress, &mut verdicts).await;
    for (program, bytes) in stage.installation.peaks() {
        let mib = bytes as f64 / 1024.0 / 1024.0;
        verdicts.bar(format!("{program}: memory at most"), format!("{mib:.1} MiB"), "≤ 200 MiB", bytes <= MEMORY);
    }
    stage.clear().await?;
    measured.map(|()| verdicts)
}

async fn measure(stage: &mut Stage, size: &Size, progress: &Progress, verdicts: &mut Verdicts) -> Result<()> {
    let (limited, unlimited) = (stage.installation.accounts[0], stage.installation.accounts[1]);
    stage.installation.limit(limited, f64::from(size.million_rate)).await?;
    let first = freeze(stage, size, limited, progress, verdicts).await?;
    progress.phase(format!("{} single sends", size.million_sends));
    let single = singles(stage, size, unlimited).await?;
    progress.phase(format!("a campaign to {} people without a limit", size.million_sends));
    let (second, bulk) = unhindered(stage, size, unlimited, verdicts).await?;
    verdicts.figure("single sends", format!("{single:.0}/s"));
    verdicts.figure("a campaign's sends without a limit", format!("{bulk:.0}/s"));
    verdicts.figure("a campaign's ÷ single", format!("{:.2}", bulk / single));
    progress.phase("closing the books");
    books::close(stage, &[first, second], verdicts).await
}

/// The most that was outstanding, as sampled.
#[derive(Debug, Default)]
struct Outstanding {
    most: u64,
    samples: u64,
}

impl Outstanding {
    fn sample(&mut self, shown: &Shown) {
        self.most = self.most.max(shown.count("in_flight"));
        self.samples += 1;
    }

    fn tell(&self, name: &str, most: u64, verdicts: &mut Verdicts) {
        let said = format!("{} ({} samples)", self.most, self.samples);
        verdicts.bar(format!("outstanding {name}"), said, &format!("≤ {most}"), self.most <= most);
    }
}

async fn freeze(
    stage: &Stage,
    size: &Size,
    account: ChannelAccountId,
    progress: &Progress,
    verdicts: &mut Verdicts,
) -> Result<CampaignId> {
    progress.phase(format!("freezing {} people", size.million_people));
    let mut outstanding = Outstanding::default();
    let id = stage.campaign(account, 1).await?;
    let began = Instant::now();
    stage.act(id, "start").await?;
    until("everybody is frozen", GIVEN_UP_AFTER, async || {
        let shown = stage.show(id).await?;
        outstanding.sample(&shown);
        Ok(shown.is_frozen())
    })
    .await?;
    let took = began.elapsed().as_secs_f64();
    let frozen = stage.show(id).await?.frozen();
    let per_second = frozen as f64 / took;
    let said = format!("{frozen} in {took:.1} s, {per_second:.0}/s");
    verdicts.bar("frozen", said, "≤ 60 s", took <= FROZEN_WITHIN.as_secs_f64());

    progress.phase(format!("sending at {}/s", size.million_rate));
    let (began, before) = (Instant::now(), stage.sandbox.ledger().counts().1);
    while began.elapsed() < Duration::from_secs(size.million_seconds) {
        outstanding.sample(&stage.show(id).await?);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let sent = stage.sandbox.ledger().counts().1 - before;
    verdicts.figure("sent with a limit", format!("{:.1}/s", sent as f64 / began.elapsed().as_secs_f64()));
    let rate = u64::from(size.million_rate);
    outstanding.tell("with a limit", rate * OUTSTANDING_SECONDS, verdicts);
    let began = Instant::now();
    stage.act(id, "cancel").await?;
    until("it is cancelled", GIVEN_UP_AFTER, async || Ok(stage.show(id).await?.is_over())).await?;
    verdicts.figure("cancelled", format!("everybody after {:.1} s", began.elapsed().as_secs_f64()));
    Ok(id)
}

/// Single sends, as `load send` makes them. How many a second.
async fn singles(stage: &mut Stage, size: &Size, account: ChannelAccountId) -> Result<f64> {
    let jobs = send::seed(&mut stage.installation, Way::Whatsapp, &[account], size.million_sends).await?;
    stage.installation.signal_to(SENDER, "STOP").await?;
    jobs.publish(&stage.installation).await?;
    let before = stage.sandbox.ledger().counts();
    stage.installation.signal_to(SENDER, "CONT").await?;
    received(stage, before, size.million_sends).await
}

/// A campaign's sends. How many a second.
async fn unhindered(
    stage: &mut Stage,
    size: &Size,
    account: ChannelAccountId,
    verdicts: &mut Verdicts,
) -> Result<(CampaignId, f64)> {
    let id = stage.campaign(account, 1).await?;
    stage.act(id, "start").await?;
    stage.act(id, "pause").await?;
    until("everybody is frozen", GIVEN_UP_AFTER, async || Ok(stage.show(id).await?.is_frozen())).await?;
    let people = stage.show(id).await?;
    let sends = size.million_sends.min(people.count("waiting") + people.count("in_flight"));
    let before = stage.sandbox.ledger().counts();
    stage.act(id, "resume").await?;
    let mut outstanding = Outstanding::default();
    let stage_seen: &Stage = stage;
    let sampling = async {
        loop {
            if let Ok(shown) = stage_seen.show(id).await {
                outstanding.sample(&shown);
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    let rate = tokio::select! {
        rate = received(stage_seen, before, sends) => rate?,
        never = sampling => never,
    };
    outstanding.tell("without a limit", OUTSTANDING_WITHOUT_LIMIT, verdicts);
    if !stage.show(id).await?.is_over() {
        stage.act(id, "cancel").await?;
    }
    Ok((id, rate))
}

/// Waits until the provider has taken so many more. How many a second, from the first of them to the last.
async fn received(stage: &Stage, (requests, taken): (u64, u64), sends: u64) -> Result<f64> {
    let ledger = stage.sandbox.ledger();
    until("all are received", GIVEN_UP_AFTER, async || Ok(ledger.counts().1 >= taken + sends)).await?;
    let entries = ledger.sends_from(requests + 1, usize::try_from(sends)?);
    let (first, last) = (entries.first().context("none was received")?, entries.last().context("none was received")?);
    Ok((sends - 1) as f64 / ((last.at_us - first.at_us) as f64 / 1e6))
}
