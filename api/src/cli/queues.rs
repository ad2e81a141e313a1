//! `mijra queues`: how much is queued, how fast it moves, how long it takes to clear and what bounds it; what waits in Postgres
//! beside it.
//!
//! Rates come from the broker's management plugin, which samples every 5 s. A quorum queue tells no age of its head: it is
//! worked out from what waits and how fast it goes (what consumers really saw is in their metric `mijra_job_age_seconds`).

use super::{
    output::{Output, or_dash, table},
    settings::{BrokerSettings, Database},
};
use serde::Serialize;
use shared::{
    config::SecretUrl,
    db::{self, Databases, waiting::Waiting},
    queue::{
        self, Broker, OUTBOUND_BULK, OUTBOUND_NOW, Queue,
        management::{Management, QueueStats},
    },
};
use std::{process::ExitCode, time::Duration};

const EVERY: Duration = Duration::from_secs(2);
/// Below this many a second nothing moves that could be reckoned with.
const STANDSTILL: f64 = 0.05;

#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// Say it again every 2 seconds until stopped.
    #[arg(long)]
    watch: bool,
    /// The management plugin's root with user and password. Without it there are no rates.
    #[arg(long, env = "AMQP_MANAGEMENT_URL", hide_env_values = true)]
    management_url: Option<SecretUrl>,
    #[command(flatten)]
    broker: BrokerSettings,
    #[command(flatten)]
    database: Database,
}

/// What is said.
#[derive(Serialize)]
struct Report {
    queues: Vec<Row>,
    /// Jobs in the outbox that are due: what the sweep has to publish.
    outbox_due: i64,
    /// Jobs in the outbox for later: retries and messages that wait for their time.
    outbox_later: i64,
    /// Webhooks kept in Postgres because the broker was away.
    spilled: i64,
    /// The oldest of those due, in seconds.
    oldest_due_s: Option<f64>,
}

#[derive(Serialize)]
struct Row {
    queue: &'static str,
    ready: u64,
    unacked: Option<u64>,
    consumers: u64,
    publish_per_s: Option<f64>,
    deliver_per_s: Option<f64>,
    ack_per_s: Option<f64>,
    /// How old the next job is, worked out.
    head_age_s: Option<f64>,
    /// How long until it is empty at today's rates; absent if that cannot be said, or never.
    clear_s: Option<f64>,
    /// What holds it up.
    bound: String,
    dead: u64,
}

/// What is known of a queue, with or without the plugin.
struct Facts {
    queue: &'static Queue,
    ready: u64,
    consumers: u64,
    dead: u64,
    moving: Option<Moving>,
}

struct Moving {
    unacked: u64,
    publish_per_s: f64,
    deliver_per_s: f64,
    ack_per_s: f64,
}

pub(super) async fn run(args: Args, out: &Output) -> anyhow::Result<ExitCode> {
    let broker = args.broker.open().await?;
    let databases = args.database.open().await?;
    let management = args.management_url.as_ref().map(|url| Management::new(url.secret())).transpose()?;
    if !args.watch {
        show(&report(&broker, management.as_ref(), &databases).await?, out)?;
        return Ok(ExitCode::SUCCESS);
    }
    loop {
        let report = report(&broker, management.as_ref(), &databases).await;
        if !out.is_json() {
            // To the top left, and clear what is below.
            out.line("\u{1b}[H\u{1b}[J")?;
        }
        match report {
            Ok(report) => show(&report, out)?,
            Err(error) => tracing::error!("{error:#}"),
        }
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            stopped = tokio::signal::ctrl_c() => return Ok(stopped.map(|()| ExitCode::SUCCESS)?),
        }
    }
}

async fn report(broker: &Broker, management: Option<&Management>, databases: &Databases) -> anyhow::Result<Report> {
    let facts = match management {
        Some(management) => management.queues(broker).await?.into_iter().map(Facts::from).collect(),
        None => depths(broker).await?,
    };
    let waiting = waiting(databases).await?;
    Ok(Report {
        queues: facts.into_iter().map(|facts| Row::of(facts, &waiting)).collect(),
        outbox_due: waiting.outbox_due,
        outbox_later: waiting.outbox_later,
        spilled: waiting.spilled,
        oldest_due_s: waiting.oldest_due_s,
    })
}

async fn depths(broker: &Broker) -> anyhow::Result<Vec<Facts>> {
    let mut facts = Vec::new();
    for queue in queue::ALL.iter().copied() {
        let depth = broker.depth(queue).await?;
        facts.push(Facts {
            queue,
            ready: depth.ready.into(),
            consumers: depth.consumers.into(),
            dead: depth.dead.into(),
            moving: None,
        });
    }
    Ok(facts)
}

async fn waiting(databases: &Databases) -> anyhow::Result<Waiting> {
    let mut control = databases.control().await?;
    let tenants = db::tenants::list(&mut control).await?;
    let mut sum = db::waiting::in_control(&mut control).await?;
    control.commit().await?;
    for placement in databases.placements() {
        let ids: Vec<_> = tenants.iter().filter(|t| t.placement == *placement).map(|t| t.id).collect();
        let mut tx = databases.fleet(placement, &ids).await?;
        sum = sum.and(db::waiting::in_placement(&mut tx).await?);
        tx.commit().await?;
    }
    Ok(sum)
}

impl From<QueueStats> for Facts {
    fn from(stats: QueueStats) -> Self {
        let QueueStats { queue, ready, unacked, consumers, publish_per_s, deliver_per_s, ack_per_s, dead } = stats;
        Self {
            queue,
            ready,
            consumers,
            dead,
            moving: Some(Moving { unacked, publish_per_s, deliver_per_s, ack_per_s }),
        }
    }
}

impl Row {
    #[allow(clippy::cast_precision_loss, reason = "queues are far shorter than 2^52")]
    fn of(facts: Facts, waiting: &Waiting) -> Self {
        let Facts { queue, ready, consumers, dead, moving } = facts;
        let rate = moving.as_ref().map_or(0.0, |moving| moving.ack_per_s);
        let shrinks = moving.as_ref().map_or(0.0, |moving| moving.ack_per_s - moving.publish_per_s);
        let head_age_s = match ready {
            0 => Some(0.0),
            _ => (rate > STANDSTILL).then(|| ready as f64 / rate),
        };
        let clear_s = match ready {
            0 => Some(0.0),
            _ => (shrinks > STANDSTILL).then(|| ready as f64 / shrinks),
        };
        let bound = bound(queue, ready, consumers, moving.as_ref(), waiting);
        let of = |value: fn(&Moving) -> f64| moving.as_ref().map(value);
        Self {
            queue: queue.name,
            ready,
            consumers,
            dead,
            unacked: moving.as_ref().map(|moving| moving.unacked),
            publish_per_s: of(|moving| moving.publish_per_s),
            deliver_per_s: of(|moving| moving.deliver_per_s),
            ack_per_s: of(|moving| moving.ack_per_s),
            head_age_s,
            clear_s,
            bound,
        }
    }
}

/// What holds a queue up, as far as can be seen from here.
fn bound(queue: &Queue, ready: u64, consumers: u64, moving: Option<&Moving>, waiting: &Waiting) -> String {
    if ready == 0 {
        return "-".to_owned();
    }
    if consumers == 0 {
        return "no worker consumes it".to_owned();
    }
    let outbound = *queue == OUTBOUND_NOW || *queue == OUTBOUND_BULK;
    if outbound && waiting.accounts_down > 0 {
        return format!("{} accounts are down", waiting.accounts_down);
    }
    if outbound && waiting.accounts_at_rate > 0 {
        return format!("the rates of {} accounts ({:.0}/s)", waiting.accounts_at_rate, waiting.rate_at_rate);
    }
    match moving {
        Some(moving) if moving.unacked == 0 => "the workers take nothing (see their /readyz)".to_owned(),
        Some(moving) if moving.ack_per_s <= STANDSTILL => "what is in hand does not end (see /readyz)".to_owned(),
        Some(_) => "the workers' speed".to_owned(),
        None => "not known without the management plugin".to_owned(),
    }
}

fn show(report: &Report, out: &Output) -> anyhow::Result<()> {
    if out.is_json() {
        return out.line(&serde_json::to_string(report)?);
    }
    let headers =
        ["queue", "ready", "unacked", "in/s", "out/s", "consumers", "head age", "clear in", "bound by", "dead"];
    let rate = |rate: Option<f64>| or_dash(rate.map(|rate| format!("{rate:.1}")));
    let rows = report.queues.iter().map(|row| {
        vec![
            row.queue.to_owned(),
            row.ready.to_string(),
            or_dash(row.unacked),
            rate(row.publish_per_s),
            rate(row.ack_per_s),
            row.consumers.to_string(),
            row.head_age_s.map_or_else(|| "?".to_owned(), |s| format!("~{}", time(s))),
            row.clear_s.map_or_else(|| "never, as it is".to_owned(), time),
            row.bound.clone(),
            row.dead.to_string(),
        ]
    });
    out.line(&table(&headers, rows))?;
    let oldest = report.oldest_due_s.map(|s| format!(", the oldest for {}", time(s))).unwrap_or_default();
    let Report { outbox_due, outbox_later, spilled, .. } = report;
    out.line(&format!("\noutbox: {outbox_due} due{oldest}, {outbox_later} for later; spilled webhooks: {spilled}"))
}

/// Seconds as people say them.
fn time(seconds: f64) -> String {
    match seconds {
        s if s < 1.0 => "0 s".to_owned(),
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7200.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.1} h", s / 3600.0),
        s => format!("{:.0} d", s / 86_400.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::queue::INBOUND;

    fn facts(queue: &'static Queue, ready: u64, consumers: u64, rates: (f64, f64)) -> Facts {
        let (publish_per_s, ack_per_s) = rates;
        let moving = Moving { unacked: 10, publish_per_s, deliver_per_s: ack_per_s, ack_per_s };
        Facts { queue, ready, consumers, dead: 0, moving: Some(moving) }
    }

    #[test]
    fn a_queue_says_when_it_is_empty_and_why_not() {
        let calm = Waiting::default();
        let row = Row::of(facts(&INBOUND, 0, 1, (5.0, 5.0)), &calm);
        assert_eq!((row.clear_s, row.bound.as_str()), (Some(0.0), "-"));
        let row = Row::of(facts(&INBOUND, 1000, 1, (50.0, 150.0)), &calm);
        assert_eq!((row.clear_s, row.bound.as_str()), (Some(10.0), "the workers' speed"));
        let row = Row::of(facts(&INBOUND, 1000, 1, (150.0, 150.0)), &calm);
        assert_eq!((row.clear_s, row.head_age_s.map(f64::round)), (None, Some(7.0)));
        let row = Row::of(facts(&INBOUND, 1000, 0, (150.0, 0.0)), &calm);
        assert_eq!((row.clear_s, row.bound.as_str()), (None, "no worker consumes it"));
    }

    #[test]
    fn what_is_sent_is_bound_by_the_accounts() {
        let at_rate = Waiting { accounts_at_rate: 2, rate_at_rate: 160.0, ..Waiting::default() };
        let row = Row::of(facts(&OUTBOUND_NOW, 1000, 1, (0.0, 160.0)), &at_rate);
        assert_eq!(row.bound, "the rates of 2 accounts (160/s)");
        assert_eq!(Row::of(facts(&INBOUND, 1000, 1, (0.0, 160.0)), &at_rate).bound, "the workers' speed");
    }

    #[test]
    fn times_are_said_as_people_do() {
        let said: Vec<String> = [0.2, 59.6, 300.0, 9000.0, 400_000.0].into_iter().map(time).collect();
        assert_eq!(said, ["0 s", "60 s", "5 min", "2.5 h", "5 d"]);
    }
}
