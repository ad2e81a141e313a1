//! `mijra dead-letters`: jobs that will not be tried again by themselves: look at them, send them back, throw them away.

use super::{
    output::{Output, or_dash},
    settings::BrokerSettings,
};
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::{Value, json};
use shared::{
    clock::Clock,
    domain::ids::JobId,
    jobs::inbound,
    queue::{
        self, Queue,
        dead::{self, DeadLetter, Moved, Which},
    },
};
use std::process::ExitCode;

#[derive(clap::Subcommand, Debug)]
pub(super) enum Command {
    /// List dead letters, the oldest first
    List(List),
    /// Show one with its payload
    Show(Show),
    /// Send dead letters back to their queue, as new
    Replay(Select),
    /// Throw dead letters away
    Discard(Select),
}

#[derive(clap::Args, Debug)]
pub(super) struct List {
    /// Only of this queue.
    #[arg(value_parser = queue)]
    queue: Option<&'static Queue>,
    /// At most so many of each queue.
    #[arg(long, default_value_t = 50)]
    limit: usize,
    #[command(flatten)]
    broker: BrokerSettings,
}

#[derive(clap::Args, Debug)]
pub(super) struct Show {
    /// The job's id.
    id: JobId,
    /// Only look in this queue.
    #[arg(long, value_parser = queue)]
    queue: Option<&'static Queue>,
    #[command(flatten)]
    broker: BrokerSettings,
}

#[derive(clap::Args, Debug)]
pub(super) struct Select {
    /// The job's id.
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    id: Option<JobId>,
    /// All dead letters of the queue given.
    #[arg(long, requires = "queue")]
    all: bool,
    /// Of which queue.
    #[arg(long, value_parser = queue)]
    queue: Option<&'static Queue>,
    #[command(flatten)]
    broker: BrokerSettings,
}

#[derive(Serialize)]
struct Row {
    queue: &'static str,
    id: String,
    kind: String,
    version: u16,
    tenant: Option<String>,
    attempts: u32,
    created_at: DateTime<Utc>,
    died_at: Option<DateTime<Utc>>,
    reason: String,
    first_error: Option<String>,
    readable: bool,
    body_bytes: usize,
}

pub(super) async fn run(command: Command, out: &Output) -> anyhow::Result<ExitCode> {
    match command {
        Command::List(args) => list(&args, out).await,
        Command::Show(args) => show(&args, out).await,
        Command::Replay(args) => replay(&args, out).await,
        Command::Discard(args) => discard(&args, out).await,
    }
}

async fn list(args: &List, out: &Output) -> anyhow::Result<ExitCode> {
    let broker = args.broker.open().await?;
    let mut rows = Vec::new();
    for queue in queues(args.queue) {
        rows.extend(dead::list(&broker, queue, args.limit).await?.iter().map(row));
    }
    out.list(&rows, &["queue", "job", "kind", "attempts", "created", "reason"], |row| {
        let created = row.created_at.format("%Y-%m-%d %H:%M:%S").to_string();
        let reason: String = row.reason.chars().take(100).collect();
        vec![row.queue.to_owned(), row.id.clone(), row.kind.clone(), row.attempts.to_string(), created, reason]
    })?;
    Ok(ExitCode::SUCCESS)
}

async fn show(args: &Show, out: &Output) -> anyhow::Result<ExitCode> {
    let broker = args.broker.open().await?;
    for queue in queues(args.queue) {
        if let Some(letter) = dead::show(&broker, queue, args.id).await? {
            let payload = payload(&letter);
            let row = row(&letter);
            let text = format!(
                "queue       {}\njob         {}\nkind        {}, version {}\ntenant      {}\nattempts    {}\ncreated     {}\n\
                 died        {}\nreason      {}\nfirst error {}\n{}",
                row.queue,
                row.id,
                row.kind,
                row.version,
                or_dash(row.tenant.as_ref()),
                row.attempts,
                row.created_at,
                or_dash(row.died_at),
                row.reason,
                or_dash(row.first_error.as_ref()),
                serde_json::to_string_pretty(&payload)?,
            );
            out.say(&json!({"letter": row, "payload": payload}), &text)?;
            return Ok(ExitCode::SUCCESS);
        }
    }
    anyhow::bail!("there is no dead letter of job {}", args.id)
}

async fn replay(args: &Select, out: &Output) -> anyhow::Result<ExitCode> {
    let broker = args.broker.open().await?;
    let now = Clock::system().now();
    let moved = each(args, async |queue, which| dead::replay(&broker, queue, which, now).await).await?;
    said(out, args, "replayed", moved)
}

async fn discard(args: &Select, out: &Output) -> anyhow::Result<ExitCode> {
    let broker = args.broker.open().await?;
    let moved = each(args, async |queue, which| dead::discard(&broker, queue, which).await).await?;
    said(out, args, "discarded", moved)
}

async fn each(
    args: &Select,
    deal: impl AsyncFn(&'static Queue, Which) -> Result<Moved, queue::Error>,
) -> anyhow::Result<Moved> {
    let which = args.id.map_or(Which::All, Which::Job);
    let mut sum = Moved::default();
    for queue in queues(args.queue) {
        let moved = deal(queue, which).await?;
        sum = Moved { moved: sum.moved + moved.moved, left: sum.left + moved.left };
    }
    Ok(sum)
}

fn said(out: &Output, args: &Select, verb: &str, moved: Moved) -> anyhow::Result<ExitCode> {
    let mut text = format!("{} {verb}", moved.moved);
    if moved.left > 0 {
        text.push_str(&format!(", {} left where they are because their headers are unreadable", moved.left));
    }
    out.say(&json!({verb: moved.moved, "left": moved.left}), &text)?;
    let found = moved.moved > 0 || args.all;
    Ok(if found { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn queues(only: Option<&'static Queue>) -> Vec<&'static Queue> {
    only.map_or_else(|| queue::ALL.to_vec(), |queue| vec![queue])
}

fn queue(name: &str) -> Result<&'static Queue, String> {
    queue::by_name(name).ok_or_else(|| {
        let names: Vec<&str> = queue::ALL.iter().map(|queue| queue.name).collect();
        format!("there are {}", names.join(", "))
    })
}

fn row(letter: &DeadLetter) -> Row {
    let DeadLetter { job, readable, queue, reason, died_at } = letter;
    Row {
        queue: queue.name,
        id: job.id.to_string(),
        kind: job.kind.clone(),
        version: job.headers.version,
        tenant: job.headers.tenant.map(|tenant| tenant.to_string()),
        attempts: job.headers.attempt,
        created_at: job.headers.created_at,
        died_at: *died_at,
        reason: reason.clone(),
        first_error: job.headers.first_error.clone(),
        readable: *readable,
        body_bytes: job.body.len(),
    }
}

/// What a person can read of a payload: bundles taken apart, JSON as JSON, else as text.
fn payload(letter: &DeadLetter) -> Value {
    let readable = |bytes: &[u8]| {
        serde_json::from_slice(bytes).unwrap_or_else(|_| Value::String(String::from_utf8_lossy(bytes).into_owned()))
    };
    if letter.job.kind == inbound::KIND
        && let Ok(webhooks) = inbound::from_job(&letter.job)
    {
        return webhooks.iter().map(|w| json!({"meta": w.meta, "body": readable(&w.body)})).collect();
    }
    readable(&letter.job.body)
}
