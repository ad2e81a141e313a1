//! The main job, for real and in small: signed webhooks of every kind in, some repeated, out of order or forged; a campaign and
//! agents' replies out while the provider throttles, fails and is slow with statuses. Then the books: what Postgres holds
//! beside what the provider's stand-in says, person by person. Whoever disagrees makes the exit status 1.

mod books;
mod campaign;
mod stand_in;
mod tables;
mod verdict;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use futures_util::{StreamExt, stream};
use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressStyle};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use url::Url;

use books::Books;
use campaign::Api;
use stand_in::StandIn;

/// `load demo`
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Mijra's API
    #[arg(long)]
    api: Url,
    /// The provider's stand-in
    #[arg(long)]
    sandbox: Url,
    /// The tenant's name in URLs
    #[arg(long)]
    tenant: String,
    /// A token of the tenant that may make contacts, send messages and run campaigns
    #[arg(long, env = "MIJRA_TOKEN", hide_env_values = true)]
    token: String,
    /// Postgres, with a role that sees everything, to close the books
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    database_url: Url,
    /// How many webhooks
    #[arg(long, default_value_t = 2_000)]
    webhooks: u64,
    /// How many replies
    #[arg(long, default_value_t = 200)]
    replies: usize,
    /// How many people write
    #[arg(long, default_value_t = 200)]
    people: u32,
    /// To how many contacts the campaign goes, some of them without an address
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(2..=5_000))]
    campaign: u64,
    /// A file to leave the campaign's id in
    #[arg(long)]
    leave_id: Option<PathBuf>,
}

/// Webhooks of one step on the progress bar.
const STEP: u64 = 200;
/// Everything accepted is stored, and every send settled, within this time; else the books are closed as they are.
const QUIET_WITHIN: Duration = Duration::from_secs(120);
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Replies under way at once: that many agents.
const AGENTS: usize = 8;

/// `load demo`
pub(crate) async fn run(arguments: Arguments) -> Result<ExitCode> {
    let stand_in = StandIn::new(&arguments.sandbox);
    let books = Books::open_for(&arguments.database_url, &arguments.tenant).await?;
    let api = Api::new(&arguments);
    stand_in.behave(&json!({})).await?;
    api.cancel_earlier().await?;
    stand_in.forget().await?;

    let began = books.now().await?;
    let received = receive(&arguments, &stand_in).await?;
    wait("storing", || async { books.missing(&stand_in.told().await?).await.map(|missing| missing.len() as u64) })
        .await?;

    // Now the provider is difficult: it throttles, fails 2 % for good, takes some and cuts the line, and is slow to report.
    stand_in
        .behave(&json!({
            "latency_ms": {"min": 5, "max": 60},
            "throughput_per_second": 70,
            "throttle_status": 429,
            "refuse_rate": 0.02,
            "refuse_code": 131_026,
            "cut_after_rate": 0.02,
            "status_delay_ms": {"min": 200, "max": 1_500},
            "duplicate_rate": 0.05,
            "reorder_rate": 0.05,
        }))
        .await?;
    let campaign = api.begin(usize::try_from(arguments.campaign)?, &books).await?;
    if let Some(file) = &arguments.leave_id {
        std::fs::write(file, campaign.id.to_string()).with_context(|| format!("write {}", file.display()))?;
    }
    // Answers wait for no campaign.
    let sent = reply(&arguments, &api, &books).await?;
    let took = api.watch(&campaign).await?;
    wait("settling", || async {
        stand_in.settle().await?;
        books.open(&stand_in, &sent.ids, &campaign).await
    })
    .await?;
    stand_in.behave(&json!({})).await?;

    let ledger = api.ledger(&campaign).await?;
    let comparison = books.compare(&stand_in, &sent.ids, &campaign, ledger, began).await?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", tables::traffic(&comparison, &received, &sent))?;
    writeln!(out, "{}", tables::campaign(&comparison, took))?;
    if comparison.disagreements.is_empty() {
        writeln!(out, "The books agree, person by person.")?;
        return Ok(ExitCode::SUCCESS);
    }
    writeln!(out, "The books disagree:")?;
    for line in comparison.disagreements.iter().take(40) {
        writeln!(out, "  {line}")?;
    }
    Ok(ExitCode::FAILURE)
}

/// First answers by what was wrong with the webhook on purpose.
type Answers = BTreeMap<String, BTreeMap<String, u64>>;

/// How the webhooks were answered.
#[derive(Debug, Default)]
struct Received {
    /// First answers by what was wrong with the webhook on purpose.
    answers: Answers,
    /// The same by platform.
    platforms: BTreeMap<String, Answers>,
    webhooks: u64,
    seconds: f64,
    p50_ms: f64,
    p99_ms: f64,
}

async fn receive(arguments: &Arguments, stand_in: &StandIn) -> Result<Received> {
    let bar = bar(arguments.webhooks, "webhooks");
    let mut received = Received::default();
    let mut times = Vec::new();
    let seed: u32 = rand::random();
    let mut left = arguments.webhooks;
    while left > 0 {
        let count = left.min(STEP);
        // Most of it is of all providers; every fourth step is WhatsApp's alone, with what is wrong inside a webhook.
        let seed = u64::from(seed) + left;
        let report = if left / STEP % 4 == 3 {
            json!({"mix": {
                "seed": seed, "webhooks": count, "people": arguments.people, "ends": 0, "spread_s": 600,
                "forge_rate": 0.02, "truncate_rate": 0.0, "repeat_rate": 0.08, "garble_rate": 0.02, "batch_rate": 0.05, "reorder_span": 16,
            }, "concurrency": 32})
        } else {
            json!({"mixture": {
                "seed": seed, "webhooks": count, "people": arguments.people, "begins_ms": 0, "step_ms": 500, "known": 40,
                "status_rate": 0.1, "forge_rate": 0.02, "repeat_rate": 0.08, "batch_rate": 0.05, "reorder_span": 16,
            }, "concurrency": 32})
        };
        let report = stand_in.burst(&report).await?;
        add(&mut received.answers, &report["first_answers"])?;
        for (platform, answers) in report["platforms"].as_object().into_iter().flatten() {
            add(received.platforms.entry(platform.clone()).or_default(), answers)?;
        }
        received.webhooks += report["webhooks"].as_u64().unwrap_or(0);
        received.seconds += report["seconds"].as_f64().unwrap_or(0.0);
        times.push((report["p50_ms"].as_f64().unwrap_or(0.0), report["p99_ms"].as_f64().unwrap_or(0.0)));
        left -= count;
        bar.inc(count);
    }
    bar.finish_and_clear();
    times.sort_by(|a, b| a.1.total_cmp(&b.1));
    received.p50_ms = times.iter().map(|(p50, _)| p50).sum::<f64>() / times.len().max(1) as f64;
    received.p99_ms = times.last().map_or(0.0, |(_, p99)| *p99);
    Ok(received)
}

fn add(sum: &mut Answers, answers: &Value) -> Result<()> {
    for (flaw, answers) in answers.as_object().context("a burst reports answers")? {
        for (answer, count) in answers.as_object().into_iter().flatten() {
            let counts = sum.entry(flaw.clone()).or_default();
            *counts.entry(answer.clone()).or_default() += count.as_u64().unwrap_or(0);
        }
    }
    Ok(())
}

/// What came of the replies at the API.
#[derive(Debug)]
struct Sent {
    ids: Vec<uuid::Uuid>,
    seconds: f64,
    latency_us: Histogram<u64>,
}

async fn reply(arguments: &Arguments, api: &Api, books: &Books) -> Result<Sent> {
    let conversations = books.open_conversations().await?;
    if conversations.is_empty() {
        bail!("nobody has written: there is no conversation to reply in");
    }
    let bar = bar(arguments.replies as u64, "replies");
    let began = Instant::now();
    let calls = stream::iter(0..arguments.replies).map(|number| {
        let bar = bar.clone();
        let path = format!("/conversations/{}/messages", conversations[number % conversations.len()]);
        let body = json!({"type": "text", "text": format!("Reply {number}: your parcel left our warehouse.")});
        async move {
            let asked = Instant::now();
            let (status, answer) = api.call(Method::POST, &path, Some(&body)).await?;
            if status != StatusCode::ACCEPTED && status != StatusCode::CREATED {
                bail!("a reply was answered {status}: {answer}");
            }
            bar.inc(1);
            let id = answer["id"].as_str().with_context(|| format!("an accepted reply has an id: {answer}"))?;
            Ok((id.parse::<uuid::Uuid>()?, asked.elapsed()))
        }
    });
    let mut calls = calls.buffer_unordered(AGENTS);
    let mut sent = Sent { ids: Vec::new(), seconds: 0.0, latency_us: Histogram::new(3)? };
    while let Some(done) = calls.next().await {
        let (id, took) = done?;
        sent.ids.push(id);
        sent.latency_us.record(u64::try_from(took.as_micros())?.max(1))?;
    }
    bar.finish_and_clear();
    sent.seconds = began.elapsed().as_secs_f64();
    Ok(sent)
}

/// Waits until nothing is left, showing how much is.
async fn wait<F: Future<Output = Result<u64>>>(what: &'static str, left: impl Fn() -> F) -> Result<()> {
    let bar = ProgressBar::new_spinner();
    bar.enable_steady_tick(LOOK_EVERY);
    let began = Instant::now();
    loop {
        let left = left().await?;
        bar.set_message(format!("{what}: {left} left"));
        if left == 0 || began.elapsed() > QUIET_WITHIN {
            bar.finish_and_clear();
            return Ok(());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn bar(total: u64, what: &'static str) -> ProgressBar {
    let bar = ProgressBar::new(total);
    let style = ProgressStyle::with_template("{msg:>10} [{bar:40}] {pos}/{len} {per_sec} {eta}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.set_message(what);
    bar
}
