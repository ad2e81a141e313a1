//! Pausing, resuming and cancelling under load: how long after the call has returned the provider still receives something. Every
//! second round with an outbound worker killed in between.

use std::time::{Duration, Instant};

use anyhow::Result;
use chrono::{DateTime, TimeDelta, Utc};
use shared::domain::ids::CampaignId;
use support::sandbox::Behaviour;
use support::sandbox::behaviour::Span;

use super::stage::{Plan, SENDER, Stage, until};
use super::{books, received};
use crate::measure::progress::Progress;
use crate::measure::verdicts::Verdicts;
use crate::services::Services;

/// Sizes of the part `pause`.
#[derive(Debug, Clone, clap::Args)]
#[group(id = "pause")]
pub(super) struct Size {
    /// pause: rounds, each once without and once with a worker killed
    #[arg(long, default_value_t = 3)]
    pause_rounds: u64,
    /// pause: people of each campaign
    #[arg(long, default_value_t = 5_000)]
    pause_people: u64,
    /// pause: messages a second of the account
    #[arg(long, default_value_t = 80)]
    pause_rate: u32,
    /// pause: outbound workers
    #[arg(long, default_value_t = 2)]
    pause_senders: u32,
}

impl Size {
    pub(super) fn phases(&self) -> u64 {
        2 + self.pause_rounds * 2
    }
}

/// Nothing is received later than this after a call has returned.
const BITES_WITHIN: TimeDelta = TimeDelta::seconds(2);
/// So long nothing may be heard.
const SILENCE: Duration = Duration::from_secs(5);
/// Load before each call.
const LOAD: Duration = Duration::from_secs(4);
const GOES_ON_WITHIN: Duration = Duration::from_secs(60);

/// What was found of one kind of call.
#[derive(Debug, Default)]
struct Found {
    calls: u64,
    late: usize,
    /// How long after a call the last was received.
    last_ms: Vec<i64>,
}

/// Runs the part.
pub(super) async fn run(services: &Services, size: &Size, progress: &Progress) -> Result<Verdicts> {
    let mut verdicts = Verdicts::new(format!("pause: {} rounds, {}/s", size.pause_rounds, size.pause_rate));
    let plan = Plan {
        numbers: 1,
        rate: Some(f64::from(size.pause_rate)),
        senders: size.pause_senders,
        // Reports settle what a killed worker called for and could not write down.
        behaviour: Behaviour { latency_ms: Span { min: 20, max: 80 }, statuses: true, ..Behaviour::fastest() },
        people: size.pause_people,
    };
    let mut stage = Stage::set(services, plan, progress).await?;
    let measured = measure(&mut stage, size, progress, &mut verdicts).await;
    stage.clear().await?;
    measured.map(|()| verdicts)
}

async fn measure(stage: &mut Stage, size: &Size, progress: &Progress, verdicts: &mut Verdicts) -> Result<()> {
    let mut campaigns = Vec::new();
    for kill in [false, true] {
        let (mut pauses, mut cancels, mut resumed_ms) = (Found::default(), Found::default(), Vec::new());
        let how = if kill { ", a worker killed" } else { "" };
        for round in 1..=size.pause_rounds {
            progress.phase(format!("round {round}{how}"));
            let id = stage.campaign(stage.installation.accounts[0], 1).await?;
            campaigns.push(id);
            stage.act(id, "start").await?;
            goes_on(stage).await?;
            call(stage, id, "pause", kill, &mut pauses).await?;
            stage.act(id, "resume").await?;
            resumed_ms.push(goes_on(stage).await?);
            call(stage, id, "cancel", kill, &mut cancels).await?;
        }
        for (what, found) in [("pause", pauses), ("cancel", cancels)] {
            let last = found.last_ms.iter().max().map_or("nothing".to_owned(), |last| format!("the last {last} ms"));
            let said = format!("{} after {} calls; {last} after the call", found.late, found.calls);
            verdicts.bar(format!("received 2 s after {what}{how}"), said, "0", found.late == 0);
        }
        let slowest = resumed_ms.iter().max().copied().unwrap_or_default();
        verdicts.figure(format!("first received after resume{how}"), format!("{slowest} ms at most"));
    }
    progress.phase("closing the books");
    books::close(stage, &campaigns, verdicts).await
}

/// Calls, and listens for what comes all the same.
async fn call(stage: &mut Stage, id: CampaignId, action: &str, kill: bool, found: &mut Found) -> Result<()> {
    tokio::time::sleep(LOAD).await;
    let at = stage.act(id, action).await?;
    if kill {
        stage.installation.kill(SENDER).await?;
        stage.start_sender().await?;
    }
    tokio::time::sleep(SILENCE).await;
    let after = after(stage, id, at).await?;
    found.calls += 1;
    found.late += after.iter().filter(|received| **received > at + BITES_WITHIN).count();
    found.last_ms.extend(after.iter().max().map(|last| (*last - at).num_milliseconds()));
    Ok(())
}

/// What of a campaign was received after a moment.
async fn after(stage: &mut Stage, id: CampaignId, at: DateTime<Utc>) -> Result<Vec<DateTime<Utc>>> {
    let all = received::all(stage).await?.into_iter();
    Ok(all.filter(|received| received.campaign == Some(id) && received.at > at).map(|received| received.at).collect())
}

/// Waits until the provider receives something new. After how many milliseconds.
async fn goes_on(stage: &Stage) -> Result<u128> {
    let (began, before) = (Instant::now(), stage.sandbox.ledger().counts().1);
    until("something is received", GOES_ON_WITHIN, async || Ok(stage.sandbox.ledger().counts().1 > before)).await?;
    Ok(began.elapsed().as_millis())
}
