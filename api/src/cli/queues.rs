//! `mijra queues`: how much is queued, how fast it moves, how long it takes to clear and what bounds it; what waits in Postgres
//! beside it. What cannot be learned because a server is away is left out and named, and the exit status says so.
//!
//! Rates come from the broker's management plugin, which samples every 5 s. A quorum queue tells no age of its head: it is
//! worked out from what waits and how fast it goes (what consumers really saw is in their metric `mijra_job_age_seconds`).

mod bound;

use super::{
    complain,
    output::{Output, chain, or_dash, table},
    settings::{BrokerSettings, Database},
};
use anyhow::anyhow;
use bound::{Facts, Kept, Known, Moving, STANDSTILL};
use serde::Serialize;
use shared::{
    config::SecretUrl,
    db::{self, Databases, Placement, tenants::Tenant, waiting::Waiting},
    queue::{
        self, Broker, CAMPAIGN, OUTBOUND_BULK, Queue,
        management::{Management, QueueStats},
    },
};
use std::{process::ExitCode, time::Duration};
use tokio::time::Instant;

const EVERY: Duration = Duration::from_secs(2);
/// The pause is so many times as long as the answer took: looking must not be what a database is busy with.
const REST: u32 = 5;

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

/// Whom to ask.
struct Sources {
    broker: Broker,
    declared: bool,
    management: Option<Management>,
    databases: Databases,
}

/// What is said.
#[derive(Serialize)]
struct Report {
    queues: Vec<Row>,
    /// Jobs in the outbox that are due: what the sweep has to publish. Absent, as the others, if Postgres is away.
    outbox_due: Option<i64>,
    /// Jobs in the outbox for later: retries and messages that wait for their time.
    outbox_later: Option<i64>,
    /// Webhooks kept in Postgres because the broker was away.
    spilled: Option<i64>,
    /// The oldest of those due, in seconds.
    oldest_due_s: Option<f64>,
    /// What could not be learned, and why.
    missing: Vec<String>,
}

#[derive(Serialize)]
struct Row {
    queue: &'static str,
    /// Absent, as all that the broker tells, if it is away.
    ready: Option<u64>,
    unacked: Option<u64>,
    consumers: Option<u64>,
    publish_per_s: Option<f64>,
    deliver_per_s: Option<f64>,
    ack_per_s: Option<f64>,
    /// How old the next job is, worked out.
    head_age_s: Option<f64>,
    /// How long until it is empty at today's rates; absent if that cannot be said, or never.
    clear_s: Option<f64>,
    /// It grows: it is never empty at today's rates.
    grows: bool,
    /// What holds it up.
    bound: String,
    dead: Option<u64>,
    /// What waits for it in Postgres; absent if that is away.
    in_postgres: Option<Vec<Kept>>,
}

pub(super) async fn run(args: Args, out: &Output) -> anyhow::Result<ExitCode> {
    let mut sources = Sources {
        broker: args.broker.broker(),
        declared: false,
        management: args.management_url.as_ref().map(|url| Management::new(url.secret())).transpose()?,
        databases: args.database.unchecked()?,
    };
    loop {
        let began = Instant::now();
        let report = sources.report().await?;
        if args.watch && !out.is_json() {
            // To the top left, and clear what is below.
            out.line("\u{1b}[H\u{1b}[J")?;
        }
        show(&report, out)?;
        for missing in &report.missing {
            complain(&anyhow!("{missing}"));
        }
        if !args.watch {
            return Ok(if report.missing.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        tokio::select! {
            () = tokio::time::sleep(EVERY.max(began.elapsed() * REST)) => {}
            stopped = tokio::signal::ctrl_c() => return Ok(stopped.map(|()| ExitCode::SUCCESS)?),
        }
    }
}

impl Sources {
    /// What can be learned now.
    ///
    /// # Errors
    /// If something is set up wrongly; a server that is away is no error.
    async fn report(&mut self) -> anyhow::Result<Report> {
        let (on_broker, in_postgres) =
            tokio::join!(queues(&self.broker, &mut self.declared, self.management.as_ref()), waiting(&self.databases));
        let (OnBroker { facts, mut missing }, InPostgres { tenants, waiting, missing: others, mut away }) =
            (on_broker?, in_postgres?);
        missing.extend(others);
        if facts.is_none() {
            away.push("RabbitMQ is away".to_owned());
        }
        let releasing = facts.iter().flatten().find(|facts| *facts.queue == CAMPAIGN).map(|facts| facts.consumers);
        let asked = waiting.is_some();
        let tenants = tenants.iter().map(|tenant| (tenant.id, tenant.slug.as_str())).collect();
        let known = Known { away, waiting: waiting.unwrap_or_default(), tenants, releasing };
        let row = |queue: &&'static Queue| {
            let facts = facts.iter().flatten().find(|facts| facts.queue == *queue);
            Row::of(queue, facts, &known, asked)
        };
        let jobs = &known.waiting.jobs;
        Ok(Report {
            queues: queue::ALL.iter().map(row).collect(),
            outbox_due: asked.then(|| jobs.iter().map(|jobs| jobs.due).sum()),
            outbox_later: asked.then(|| jobs.iter().map(|jobs| jobs.later).sum()),
            spilled: asked.then_some(known.waiting.spilled),
            oldest_due_s: jobs.iter().filter_map(|jobs| jobs.oldest_due_s).reduce(f64::max),
            missing,
        })
    }
}

/// What the broker says; nothing if it is away.
struct OnBroker {
    facts: Option<Vec<Facts>>,
    missing: Vec<String>,
}

async fn queues(broker: &Broker, declared: &mut bool, management: Option<&Management>) -> anyhow::Result<OnBroker> {
    let mut missing = Vec::new();
    if !*declared {
        match broker.declare().await {
            Ok(()) => *declared = true,
            Err(error @ queue::Error::Mismatch(_)) => return Err(error.into()),
            Err(error) => return Ok(OnBroker { facts: None, missing: vec![format!("RabbitMQ is away: {error}")] }),
        }
    }
    if let Some(management) = management {
        match management.queues(broker).await {
            Ok(stats) => return Ok(OnBroker { facts: Some(stats.into_iter().map(Facts::from).collect()), missing }),
            Err(error) => missing.push(chain(&error.into())),
        }
    }
    let mut facts = Vec::new();
    for queue in queue::ALL.iter().copied() {
        match broker.depth(queue).await {
            Ok(depth) => facts.push(Facts {
                queue,
                ready: depth.ready.into(),
                consumers: depth.consumers.into(),
                dead: depth.dead.into(),
                moving: None,
            }),
            Err(error) => return Ok(OnBroker { facts: None, missing: vec![format!("RabbitMQ is away: {error}")] }),
        }
    }
    Ok(OnBroker { facts: Some(facts), missing })
}

/// What Postgres says; nothing if the control database is away.
struct InPostgres {
    tenants: Vec<Tenant>,
    waiting: Option<Waiting>,
    missing: Vec<String>,
    /// What holds up all queues.
    away: Vec<String>,
}

async fn waiting(databases: &Databases) -> anyhow::Result<InPostgres> {
    let mut answer = InPostgres { tenants: Vec::new(), waiting: None, missing: Vec::new(), away: Vec::new() };
    let away = databases.away().await;
    if !away.is_nobody() {
        answer.missing.push(away.to_string());
        answer.away = databases.placements().filter(|p| away.includes(p)).map(said_away).collect();
    }
    if away.includes(&Placement::primary()) {
        return Ok(answer);
    }
    match databases.check().await {
        Err(error) if !error.is_away() => return Err(error.into()),
        _ => {}
    }
    match control(databases).await {
        Ok((tenants, waiting)) => (answer.tenants, answer.waiting) = (tenants, Some(waiting)),
        Err(error) => {
            answer.missing.push(format!("what waits in Postgres: {error}"));
            return Ok(answer);
        }
    }
    for placement in databases.placements().filter(|placement| !away.includes(placement)) {
        match placed(databases, placement, &answer.tenants).await {
            Ok(waiting) => answer.waiting = answer.waiting.map(|sum| sum.and(waiting)),
            Err(error) => answer.missing.push(format!("what waits in database {placement}: {error}")),
        }
    }
    Ok(answer)
}

fn said_away(placement: &Placement) -> String {
    match placement {
        primary if *primary == Placement::primary() => "the database is away".to_owned(),
        other => format!("the database {other} is away"),
    }
}

async fn control(databases: &Databases) -> db::Result<(Vec<Tenant>, Waiting)> {
    let mut tx = databases.control().await?;
    let tenants = db::tenants::list(&mut tx).await?;
    let waiting = db::waiting::in_control(&mut tx).await?;
    tx.commit().await?;
    Ok((tenants, waiting))
}

async fn placed(databases: &Databases, placement: &Placement, tenants: &[Tenant]) -> db::Result<Waiting> {
    let ids: Vec<_> = tenants.iter().filter(|tenant| tenant.placement == *placement).map(|tenant| tenant.id).collect();
    let mut tx = databases.fleet(placement, &ids).await?;
    let waiting = db::waiting::in_placement(&mut tx).await?;
    tx.commit().await?;
    Ok(waiting)
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
    fn of(queue: &'static Queue, facts: Option<&Facts>, known: &Known<'_>, asked: bool) -> Self {
        let kept = known.kept(queue);
        let bound = known.bound(queue, facts, &kept);
        let moving = facts.and_then(|facts| facts.moving.as_ref());
        let ready = facts.map(|facts| facts.ready);
        let rate = moving.map_or(0.0, |moving| moving.ack_per_s);
        let shrinks = moving.map(|moving| moving.ack_per_s - moving.publish_per_s);
        let head_age_s = match ready {
            Some(0) => Some(0.0),
            ready => ready.filter(|_| rate > STANDSTILL).map(|ready| ready as f64 / rate),
        };
        let clear_s = match ready {
            Some(0) => Some(0.0),
            ready => ready.zip(shrinks.filter(|rate| *rate > STANDSTILL)).map(|(ready, rate)| ready as f64 / rate),
        };
        let campaigns = *queue == OUTBOUND_BULK && !known.waiting.campaigns.is_empty();
        // With nobody to send them the rates there were tell nothing.
        let is_consumed = facts.is_some_and(|facts| facts.consumers > 0);
        let clear_s = if campaigns { known.campaigns_clear_s().filter(|_| is_consumed) } else { clear_s };
        Self {
            queue: queue.name,
            ready,
            consumers: facts.map(|facts| facts.consumers),
            dead: facts.map(|facts| facts.dead),
            unacked: moving.map(|moving| moving.unacked),
            publish_per_s: moving.map(|moving| moving.publish_per_s),
            deliver_per_s: moving.map(|moving| moving.deliver_per_s),
            ack_per_s: moving.map(|moving| moving.ack_per_s),
            head_age_s,
            clear_s,
            grows: !campaigns && ready != Some(0) && shrinks.is_some_and(|rate| rate <= STANDSTILL),
            bound: if bound.is_empty() { "nothing".to_owned() } else { bound.join("; ") },
            in_postgres: asked.then_some(kept),
        }
    }
}

fn show(report: &Report, out: &Output) -> anyhow::Result<()> {
    if out.is_json() {
        return out.line(&serde_json::to_string(report)?);
    }
    let headers = [
        "queue",
        "ready",
        "unacked",
        "in/s",
        "out/s",
        "consumers",
        "head age",
        "in postgres",
        "clear in",
        "dead",
        "bound by",
    ];
    let rate = |rate: Option<f64>| or_dash(rate.map(|rate| format!("{rate:.1}")));
    let rows = report.queues.iter().map(|row| {
        let kept = row.in_postgres.as_ref().map(|kept| kept.iter().map(|kept| kept.count).sum::<i64>());
        let not_known = if row.grows { "never, as it is" } else { "?" };
        vec![
            row.queue.to_owned(),
            or_dash(row.ready),
            or_dash(row.unacked),
            rate(row.publish_per_s),
            rate(row.ack_per_s),
            or_dash(row.consumers),
            row.head_age_s.map_or_else(|| "?".to_owned(), |s| format!("~{}", time(s))),
            or_dash(kept),
            row.clear_s.map_or_else(|| not_known.to_owned(), time),
            or_dash(row.dead),
            row.bound.clone(),
        ]
    });
    out.line(&table(&headers, rows))?;
    let kept: Vec<Vec<String>> = report
        .queues
        .iter()
        .flat_map(|row| row.in_postgres.iter().flatten().map(|kept| (row.queue, kept)))
        .map(|(queue, kept)| {
            let Kept { why, account, count, detail } = kept;
            let detail = detail.as_ref().map(|detail| format!(" ({detail})")).unwrap_or_default();
            vec![queue.to_owned(), count.to_string(), format!("{}{detail}", why.text()), or_dash(account.as_ref())]
        })
        .collect();
    if !kept.is_empty() {
        out.line("")?;
        out.line(&table(&["waits in postgres", "how many", "for", "account"], kept.into_iter()))?;
    }
    let Report { outbox_due: Some(due), outbox_later: Some(later), spilled: Some(spilled), .. } = report else {
        return Ok(());
    };
    let oldest = report.oldest_due_s.map(|s| format!(", the oldest for {}", time(s))).unwrap_or_default();
    out.line(&format!("\noutbox: {due} due{oldest}, {later} for later; spilled webhooks: {spilled}"))
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

    #[test]
    fn a_queue_says_when_it_is_empty() {
        let row = |ready, publish_per_s, ack_per_s| {
            let moving = Moving { unacked: 10, publish_per_s, deliver_per_s: ack_per_s, ack_per_s };
            let facts = Facts { queue: &INBOUND, ready, consumers: 1, dead: 0, moving: Some(moving) };
            Row::of(&INBOUND, Some(&facts), &Known::default(), true)
        };
        let empty = row(0, 5.0, 5.0);
        assert_eq!((empty.clear_s, empty.grows, empty.bound.as_str()), (Some(0.0), false, "nothing"));
        let shrinking = row(1000, 50.0, 150.0);
        assert_eq!((shrinking.clear_s, shrinking.grows), (Some(10.0), false));
        let growing = row(1000, 150.0, 150.0);
        assert_eq!((growing.clear_s, growing.grows), (None, true));
        assert_eq!(growing.head_age_s.map(f64::round), Some(7.0));
        let unknown = Row::of(&INBOUND, None, &Known::default(), false);
        assert_eq!((unknown.ready, unknown.clear_s, unknown.grows, unknown.in_postgres), (None, None, false, None));
    }

    #[test]
    fn times_are_said_as_people_do() {
        let said: Vec<String> = [0.2, 59.6, 300.0, 9000.0, 400_000.0].into_iter().map(time).collect();
        assert_eq!(said, ["0 s", "60 s", "5 min", "2.5 h", "5 d"]);
    }
}
