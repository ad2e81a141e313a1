//! `load limit`: an account at its limit for minutes, with campaigns' backlog, messages that come in, and senders that come and
//! go. Shows that no sliding second has more grants and received messages than the limit by the database's clock, that the
//! provider refused nothing, how they arrived, and how much of the limit was used.

use anyhow::{Result, ensure};
use chrono::{DateTime, Utc};
use comfy_table::{Table, presets};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use std::{
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use support::{
    fleet::{Fleet, Pool},
    programs::Program,
    sandbox::{behaviour::Span, ledger::Verdict},
    traffic::Traffic,
};
use tokio::time::{Instant, MissedTickBehavior};

/// The account, the backlog and the time.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Command {
    /// Messages a second, in and out together: of the account and of the provider's bucket
    #[arg(long, default_value_t = 80, value_parser = clap::value_parser!(u32).range(5..=1000))]
    rate: u32,
    /// Seconds for which the backlog lasts
    #[arg(long, default_value_t = 120, value_parser = clap::value_parser!(u64).range(15..=900))]
    seconds: u64,
    /// Messages a second that people write
    #[arg(long, default_value_t = 20.0)]
    inbound: f64,
    /// Senders: so many in each third of the time
    #[arg(long, value_delimiter = ',', default_values_t = [1, 3, 2])]
    workers: Vec<usize>,
    /// What chance is made from
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// The start is left out: what is kept free for inbound needs the first messages to be known.
const WARM_UP: Duration = Duration::from_secs(3);
/// How long a campaign may take to begin.
const FLOWS_WITHIN: Duration = Duration::from_secs(60);
/// A list of people is no longer than that.
const PEOPLE_OF_A_CAMPAIGN: usize = 4_000;
/// People who write.
const PEOPLE: u32 = 200;

/// Runs it and says what came of it; fails if the limit was exceeded or the provider refused something.
pub(crate) async fn run(command: Command) -> Result<ExitCode> {
    ensure!(!command.workers.is_empty(), "at least one number of senders");
    ensure!(command.workers.iter().all(|count| (1..=8).contains(count)), "1 to 8 senders");
    let rate = command.rate;
    let mut fleet = Fleet::builder()
        .env("RUST_LOG", "warn")
        .seed(command.seed)
        .rate(f64::from(rate))
        .count(Program::Outbound, command.workers[0])
        .behaviour(|b| {
            b.throughput_per_second = Some(rate);
            b.latency_ms = Span { min: 20, max: 80 };
            b.status_delay_ms = Span { min: 200, max: 800 };
        })
        .start()
        .await;
    let parties = fleet.acquaint(command.seed, PEOPLE).await;
    // More people than can be written to in the time.
    let people = rate as usize * usize::try_from(command.seconds + 30)?;
    let mut campaigns = Vec::new();
    for part in (0..people).step_by(PEOPLE_OF_A_CAMPAIGN) {
        let audience = fleet.audience(PEOPLE_OF_A_CAMPAIGN.min(people - part), 0).await;
        campaigns.push(fleet.campaign("Backlog", &audience).await.id);
    }
    let started = Instant::now();
    // As far as a few seconds of the rate: the campaign is frozen and released from here on.
    while taken(&fleet).0 < 3 * command.rate as usize {
        ensure!(started.elapsed() < FLOWS_WITHIN, "the campaign does not begin");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    say(&format!("{} taken {:.1} s after the campaign was started", 3 * command.rate, started.elapsed().as_secs_f64()));
    let senders = fleet.pool(Program::Outbound);
    let stall = Stall::watch();
    let inbound = Traffic {
        webhooks_per_second: command.inbound,
        replies_per_second: 0.0,
        lasts: Duration::from_secs(command.seconds) + WARM_UP,
        seed: command.seed,
    };
    let (_, span) = tokio::join!(inbound.run(&fleet, &parties), scaled(&fleet, &command, senders));
    let (span, ended_well) = span?;
    let longest_stall = stall.end();
    for campaign in campaigns {
        let (status, problem) = fleet.post(&format!("/campaigns/{campaign}/cancel"), "cancel", &json!({})).await?;
        ensure!(status.is_success(), "a campaign cannot be cancelled: {problem}");
    }
    report(&fleet, &command, span, longest_stall, ended_well).await
}

/// From when until when there was a backlog, by the database's clock.
type Backlog = (DateTime<Utc>, DateTime<Utc>);

/// Changes the number of senders as wanted, an equal part of the time each. From when until when, and whether those that were told
/// to end did so.
async fn scaled(fleet: &Fleet, command: &Command, mut senders: Pool) -> Result<(Backlog, bool)> {
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
            let (accepted, refused) = taken(fleet);
            progress.set_message(format!("{accepted} taken by the provider, {refused} refused"));
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

fn taken(fleet: &Fleet) -> (usize, usize) {
    let sends = fleet.sandbox.ledger().sends_from(1, usize::MAX);
    let refused = sends.iter().filter(|send| matches!(send.verdict, Verdict::Refused { .. })).count();
    (sends.len() - refused, refused)
}

fn progress(seconds: u64) -> ProgressBar {
    let bar = ProgressBar::new(seconds);
    let style = ProgressStyle::with_template("{spinner} [{elapsed_precise}] {bar:24} {prefix}: {wide_msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

async fn report(
    fleet: &Fleet,
    command: &Command,
    (from, until): Backlog,
    longest_stall: Duration,
    ended_well: bool,
) -> Result<ExitCode> {
    let mut admin = fleet.database.admin().await;
    let grants =
        moments(&mut admin, "SELECT granted_at FROM send_attempts WHERE granted_at BETWEEN $1 AND $2", from, until);
    let grants = grants.await?;
    let received = "SELECT created_at FROM messages WHERE direction = 'in' AND created_at BETWEEN $1 AND $2";
    let received = moments(&mut admin, received, from, until).await?;
    let mut both: Vec<i64> = grants.iter().chain(&received).copied().collect();
    both.sort_unstable();
    let sends = fleet.sandbox.ledger().sends_from(1, usize::MAX);
    let refused = sends.iter().filter(|send| matches!(send.verdict, Verdict::Refused { .. })).count();
    let between = |at: &DateTime<Utc>| (from..=until).contains(at);
    let mut arrived: Vec<i64> =
        sends.iter().filter(|send| between(&send.at)).map(|send| send.at.timestamp_micros()).collect();
    arrived.sort_unstable();
    let rate = f64::from(command.rate);
    let busiest = counts(&both).into_iter().max().unwrap_or_default();
    let arrivals = counts(&arrived);
    let seconds = (until - from).as_seconds_f64();
    let used = both.len() as f64 / (rate * seconds);
    let rows = [
        (
            "granted + received, busiest sliding second".to_owned(),
            busiest.to_string(),
            format!("<= {rate}"),
            busiest as f64 <= rate,
        ),
        ("refused by the provider".to_owned(), refused.to_string(), "0".to_owned(), refused == 0),
        (
            "arrivals in a sliding second, p99.9".to_owned(),
            percentile(&arrivals, 0.999).to_string(),
            format!("<= {:.0}", rate * 1.05),
            percentile(&arrivals, 0.999) as f64 <= rate * 1.05,
        ),
        (
            "arrivals in a sliding second, most".to_owned(),
            arrivals.last().copied().unwrap_or_default().to_string(),
            format!("(longest stall of the provider {} ms)", longest_stall.as_millis()),
            true,
        ),
        ("used of the limit".to_owned(), format!("{:.1} %", used * 100.0), ">= 95 %".to_owned(), used >= 0.95),
        ("senders told to end did, with status 0".to_owned(), ended_well.to_string(), "true".to_owned(), ended_well),
    ];
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_header(["", "measured", "wanted", ""]);
    for (what, measured, wanted, met) in &rows {
        table.add_row([what.as_str(), measured, wanted, if *met { "met" } else { "MISSED" }]);
    }
    say(&format!(
        "{} grants and {} received in {seconds:.1} s: {:.1} + {:.1} a second",
        grants.len(),
        received.len(),
        grants.len() as f64 / seconds,
        received.len() as f64 / seconds
    ));
    say(&table.to_string());
    let correct = busiest as f64 <= rate && refused == 0 && ended_well;
    Ok(if correct { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Moments by the database's clock, in microseconds.
async fn moments(
    admin: &mut sqlx::PgConnection,
    question: &'static str,
    from: DateTime<Utc>,
    until: DateTime<Utc>,
) -> Result<Vec<i64>> {
    let found: Vec<DateTime<Utc>> = sqlx::query_scalar(question).bind(from).bind(until).fetch_all(admin).await?;
    Ok(found.into_iter().map(|at| at.timestamp_micros()).collect())
}

/// For each moment, how many there are in the second that ends with it; in ascending order.
fn counts(moments: &[i64]) -> Vec<usize> {
    let mut first = 0;
    let mut counts = Vec::with_capacity(moments.len());
    for (last, at) in moments.iter().enumerate() {
        while at - moments[first] >= 1_000_000 {
            first += 1;
        }
        counts.push(last - first + 1);
    }
    counts.sort_unstable();
    counts
}

fn percentile(sorted: &[usize], part: f64) -> usize {
    let place = (sorted.len() as f64 * part).ceil() as usize;
    sorted.get(place.saturating_sub(1)).copied().unwrap_or_default()
}

/// How long this process, in which the provider's stand-in runs, did not get round to anything.
struct Stall {
    longest_us: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
}

impl Stall {
    fn watch() -> Self {
        let stall = Self { longest_us: Arc::default(), over: Arc::default() };
        let (longest, over) = (stall.longest_us.clone(), stall.over.clone());
        tokio::spawn(async move {
            let every = Duration::from_millis(1);
            let mut tick = tokio::time::interval(every);
            tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut last = Instant::now();
            while !over.load(Ordering::Relaxed) {
                tick.tick().await;
                let late = last.elapsed().saturating_sub(every);
                longest.fetch_max(u64::try_from(late.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
                last = Instant::now();
            }
        });
        stall
    }

    fn end(self) -> Duration {
        self.over.store(true, Ordering::Relaxed);
        Duration::from_micros(self.longest_us.load(Ordering::Relaxed))
    }
}

#[allow(clippy::print_stdout, reason = "the result of the run")]
fn say(text: &str) {
    println!("{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sliding_second_is_counted_without_its_beginning() {
        assert_eq!(counts(&[0, 500_000, 999_999, 1_000_000, 2_500_000]), [1, 1, 2, 3, 3]);
        assert_eq!((percentile(&[1, 2, 3, 4], 0.5), percentile(&[7], 0.999), percentile(&[], 0.5)), (2, 7, 0));
    }
}
