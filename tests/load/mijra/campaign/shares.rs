//! Ten campaigns of weights 1 to 10 on one account, each with more people than can be sent to: what the provider received of
//! each while all of them had people left. Then agents answer beside them.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Result, ensure};
use chrono::{DateTime, Utc};
use shared::domain::ids::CampaignId;
use shared::telemetry::names;
use support::sandbox::Behaviour;
use support::sandbox::behaviour::Span;

use super::stage::{Plan, SENDER, Stage};
use super::{books, received, replies};
use crate::measure::progress::Progress;
use crate::measure::verdicts::Verdicts;
use crate::services::Services;

/// Sizes of the part `shares`.
#[derive(Debug, Clone, clap::Args)]
#[group(id = "shares")]
pub(super) struct Size {
    /// shares: seconds in which shares are counted, and in which agents answer
    #[arg(long, default_value_t = 60)]
    shares_seconds: u64,
    /// shares: people of each of the ten campaigns
    #[arg(long, default_value_t = 12_000)]
    shares_people: u64,
    /// shares: messages a second of the account
    #[arg(long, default_value_t = 80)]
    shares_rate: u32,
    /// shares: answers of agents
    #[arg(long, default_value_t = 500)]
    shares_replies: u32,
    /// shares: outbound workers
    #[arg(long, default_value_t = 2)]
    shares_senders: u32,
}

pub(super) const PHASES: u64 = 5;

const WEIGHTS: u32 = 10;
/// A campaign gets its share to within so much of it.
const SHARE_WITHIN: f64 = 0.05;
/// So much of the rate is used while people wait.
const RATE_USED: f64 = 0.95;
/// Those that were started first have what is in flight to themselves until it is sent: five seconds, and some room.
const WARM_UP: Duration = Duration::from_secs(10);
const FROZEN_WITHIN: Duration = Duration::from_secs(120);

/// Runs the part.
pub(super) async fn run(services: &Services, size: &Size, progress: &Progress) -> Result<Verdicts> {
    let mut verdicts = Verdicts::new(format!("shares: weights 1–{WEIGHTS}, {}/s", size.shares_rate));
    let behaviour = Behaviour { latency_ms: Span { min: 20, max: 80 }, ..Behaviour::fastest() };
    let plan = Plan {
        numbers: 1,
        rate: Some(f64::from(size.shares_rate)),
        senders: size.shares_senders,
        behaviour,
        people: size.shares_people,
    };
    let mut stage = Stage::set(services, plan, progress).await?;
    let measured = measure(&mut stage, size, progress, &mut verdicts).await;
    stage.clear().await?;
    measured.map(|()| verdicts)
}

async fn measure(stage: &mut Stage, size: &Size, progress: &Progress, verdicts: &mut Verdicts) -> Result<()> {
    progress.phase(format!("freezing {} × {} people", WEIGHTS, size.shares_people));
    let account = stage.installation.accounts[0];
    let mut campaigns = Vec::new();
    for weight in 1..=WEIGHTS {
        campaigns.push(stage.campaign(account, weight).await?);
    }
    stage.start_frozen(&campaigns, FROZEN_WITHIN).await?;
    tokio::time::sleep(WARM_UP).await;

    let window = Duration::from_secs(size.shares_seconds);
    progress.phase(format!("sending for {} s", window.as_secs()));
    let (from, cost) = (Utc::now(), Cost::read(stage).await?);
    tokio::time::sleep(window).await;
    let (to, cost) = (Utc::now(), Cost::read(stage).await?.since(cost));
    let mut queued = 0;
    for id in &campaigns {
        let waiting = stage.show(*id).await?.count("waiting");
        ensure!(waiting > 0, "a campaign ran out of people: raise --shares-people");
        queued += waiting;
    }
    let sent = shares(stage, size, &campaigns, (from, to), verdicts).await?;
    cost.tell(sent, verdicts);

    progress.phase(format!("agents answer beside {queued} queued"));
    replies::measure(stage, size.shares_replies, window, queued, verdicts).await?;

    progress.phase("closing the books");
    for id in &campaigns {
        stage.act(*id, "cancel").await?;
    }
    books::close(stage, &campaigns, verdicts).await
}

async fn shares(
    stage: &mut Stage,
    size: &Size,
    campaigns: &[CampaignId],
    (from, to): (DateTime<Utc>, DateTime<Utc>),
    verdicts: &mut Verdicts,
) -> Result<u64> {
    let mut of: HashMap<CampaignId, u64> = HashMap::new();
    for received in received::all(stage).await?.iter().filter(|received| (from..to).contains(&received.at)) {
        if let Some(campaign) = received.campaign {
            *of.entry(campaign).or_default() += 1;
        }
    }
    let all: u64 = of.values().sum();
    let weights = f64::from(WEIGHTS * (WEIGHTS + 1) / 2);
    for (weight, id) in (1..=WEIGHTS).zip(campaigns) {
        let received = of.get(id).copied().unwrap_or_default();
        let due = all as f64 * f64::from(weight) / weights;
        let off = received as f64 / due - 1.0;
        let said = format!("{received} of {due:.1} ({:+.1} %)", off * 100.0);
        // One message more or less is no share.
        let met = off.abs() <= SHARE_WITHIN || (received as f64 - due).abs() <= 1.0;
        verdicts.bar(format!("weight {weight}"), said, "± 5 %", met);
    }
    let used = all as f64 / (to - from).as_seconds_f64() / f64::from(size.shares_rate);
    verdicts.bar("rate used", format!("{:.1} %", used * 100.0), "≥ 95 %", used >= RATE_USED);
    let busiest = stage.sandbox.ledger().summary().numbers;
    let busiest = busiest.values().map(|number| number.busiest_second_requests).max().unwrap_or_default();
    verdicts.figure("busiest sliding second, as received", busiest.to_string());
    Ok(all)
}

/// What the workers did for it.
#[derive(Debug, Clone, Copy)]
struct Cost {
    jobs: f64,
    swept: f64,
    batches: f64,
    effects: f64,
}

impl Cost {
    async fn read(stage: &Stage) -> Result<Self> {
        let outbound = async |metric: &str, label| stage.installation.metric(SENDER, metric, label).await;
        Ok(Self {
            jobs: outbound(names::JOBS_TOTAL, "outbound.bulk").await?,
            swept: stage.installation.metric("mijra-scheduler", names::OUTBOX_SWEPT, "").await?,
            batches: outbound(&format!("{}_count", names::BATCH_EFFECTS), "").await?,
            effects: outbound(&format!("{}_sum", names::BATCH_EFFECTS), "").await?,
        })
    }

    fn since(self, before: Self) -> Self {
        Self {
            jobs: self.jobs - before.jobs,
            swept: self.swept - before.swept,
            batches: self.batches - before.batches,
            effects: self.effects - before.effects,
        }
    }

    fn tell(self, sends: u64, verdicts: &mut Verdicts) {
        let per_send = |count: f64| format!("{:.3}", count / sends.max(1) as f64);
        verdicts.figure("jobs of outbound.bulk a send", per_send(self.jobs));
        verdicts.figure("rows swept from the outbox a send", per_send(self.swept));
        verdicts.figure("records a send", per_send(self.effects));
        verdicts.figure("records a transaction", format!("{:.1}", self.effects / self.batches.max(1.0)));
    }
}
