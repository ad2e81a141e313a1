//! Many accounts with a campaign each, of which one is throttled by its provider and one's provider is slow: how much later the
//! others are done than in a run in which all are well.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context, Result};
use chrono::{DateTime, Utc};
use shared::domain::ids::CampaignId;
use support::sandbox::Behaviour;
use support::sandbox::behaviour::Span;

use super::stage::{Plan, Stage, number_id, until};
use super::{books, received};
use crate::measure::progress::Progress;
use crate::measure::verdicts::Verdicts;
use crate::services::Services;

/// Sizes of the part `fairness`.
#[derive(Debug, Clone, clap::Args)]
#[group(id = "fairness")]
pub(super) struct Size {
    /// fairness: accounts, two of which misbehave in every second run
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(3..=5_000))]
    fairness_accounts: u64,
    /// fairness: people of each account's campaign
    #[arg(long, default_value_t = 100)]
    fairness_people: u64,
    /// fairness: messages a second of each account
    #[arg(long, default_value_t = 80)]
    fairness_rate: u32,
    /// fairness: pairs of runs
    #[arg(long, default_value_t = 5)]
    fairness_pairs: u64,
    /// fairness: outbound workers
    #[arg(long, default_value_t = 1)]
    fairness_senders: u32,
}

impl Size {
    pub(super) fn phases(&self) -> u64 {
        self.fairness_pairs * 2 * 3
    }
}

/// The two that misbehave.
const THROTTLED: u64 = 0;
const SLOW: u64 = 1;
/// How long the slow one's provider takes to answer.
const SLOW_MS: u64 = 5_000;
/// No account is slowed down by more than a tenth by others.
const RATIO: f64 = 0.90;
const FROZEN_WITHIN: Duration = Duration::from_secs(120);
const DONE_WITHIN: Duration = Duration::from_secs(300);

/// How long after the beginning each account had its last message received.
type Ends = HashMap<u64, f64>;

/// Runs the part.
pub(super) async fn run(services: &Services, size: &Size, progress: &Progress) -> Result<Verdicts> {
    let mut verdicts = Verdicts::new(format!(
        "fairness: {} accounts × {} people, {} pairs",
        size.fairness_accounts, size.fairness_people, size.fairness_pairs
    ));
    let (mut ratios, mut wrong) = (Vec::new(), Vec::new());
    for pair in 1..=size.fairness_pairs {
        let without = one(services, size, false, progress, &mut wrong).await?;
        let with = one(services, size, true, progress, &mut wrong).await?;
        let mut of_pair: Vec<f64> =
            without.iter().filter_map(|(account, end)| Some(end / with.get(account)?)).collect();
        let (ratio, worst) = (median(&mut of_pair).context("no account was done")?, of_pair[0]);
        let done = |ends: &Ends| {
            let mut ends: Vec<f64> = ends.values().copied().collect();
            (median(&mut ends).unwrap_or_default(), ends.last().copied().unwrap_or_default())
        };
        let ((half, last), (half_with, last_with)) = (done(&without), done(&with));
        let said = format!(
            "{ratio:.3}, worst {worst:.3}; half of the accounts done after {half:.1} s, all after {last:.1} s; \
            with the two {half_with:.1} s, {last_with:.1} s"
        );
        progress.say(&format!("fairness, pair {pair}: {said}"));
        verdicts.figure(format!("pair {pair}: median without ÷ with"), said);
        ratios.extend(of_pair);
    }
    let all = median(&mut ratios).context("no pair was run")?;
    verdicts.bar("median of all ratios", format!("{all:.3}"), "≥ 0.90", all >= RATIO);
    verdicts.never("lost, doubled, or in books that disagree, in all runs", &wrong);
    Ok(verdicts)
}

async fn one(
    services: &Services,
    size: &Size,
    misbehaving: bool,
    progress: &Progress,
    wrong: &mut Vec<String>,
) -> Result<Ends> {
    let plan = Plan {
        numbers: size.fairness_accounts,
        rate: Some(f64::from(size.fairness_rate)),
        senders: size.fairness_senders,
        behaviour: Behaviour { latency_ms: Span { min: 20, max: 80 }, ..Behaviour::fastest() },
        people: size.fairness_people,
    };
    let mut stage = Stage::set(services, plan, progress).await?;
    if misbehaving {
        let of = |change: &dyn Fn(&mut Behaviour)| {
            let mut behaviour = stage.sandbox.behaviour();
            change(&mut behaviour);
            Some(behaviour)
        };
        let throttled = of(&|b| (b.throughput_per_second, b.throughput_burst) = (Some(1), Some(1)));
        let slow = of(&|b| b.latency_ms = Span { min: SLOW_MS, max: SLOW_MS });
        stage.sandbox.registry().set_number_behaviour(&number_id(THROTTLED), throttled);
        stage.sandbox.registry().set_number_behaviour(&number_id(SLOW), slow);
    }
    let ends = measure(&mut stage, size, progress, wrong).await;
    stage.clear().await?;
    ends
}

async fn measure(stage: &mut Stage, size: &Size, progress: &Progress, wrong: &mut Vec<String>) -> Result<Ends> {
    let mut campaigns: Vec<CampaignId> = Vec::new();
    for account in stage.installation.accounts.clone() {
        campaigns.push(stage.campaign(account, 1).await?);
    }
    // Nobody is sent to before everybody is frozen, and then all begin at once; the workers have run since long before, since one
    // that has just started takes its first jobs one by one.
    for id in &campaigns {
        stage.act(*id, "start").await?;
        stage.act(*id, "pause").await?;
    }
    stage.frozen(&campaigns, FROZEN_WITHIN).await?;

    progress.phase("sending");
    let began = Utc::now();
    for id in &campaigns {
        stage.act(*id, "resume").await?;
    }
    let others = &campaigns[2..];
    let mut left = others.to_vec();
    until("all others are done", DONE_WITHIN, async || {
        // Asked from the end, and only until one is found that is not done.
        while let Some(id) = left.last() {
            if !stage.show(*id).await?.is_over() {
                return Ok(false);
            }
            left.pop();
        }
        Ok(true)
    })
    .await?;
    let received = received::all(stage).await?;
    let mut last: HashMap<&str, DateTime<Utc>> = HashMap::new();
    for received in &received {
        let at = last.entry(&received.number).or_insert(received.at);
        *at = received.at.max(*at);
    }
    let ends = (2..size.fairness_accounts)
        .filter_map(|account| Some((account, (*last.get(number_id(account).as_str())? - began).as_seconds_f64())))
        .collect();

    progress.phase("closing the books");
    for id in &campaigns[..2] {
        // It may be completed already.
        let _ = stage.act(*id, "cancel").await;
    }
    let mut of_run = Verdicts::new("");
    books::close(stage, &campaigns, &mut of_run).await?;
    wrong.extend(of_run.into_wrong());
    Ok(ends)
}

/// Sorts them, too.
fn median(values: &mut [f64]) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}
