//! `mijra trace`: why a message is where it is. `mijra undecided`: sends of which nobody knows whether they arrived, and what a person
//! decides about them.

use super::{
    output::{Output, or_dash},
    settings::{self, Database},
};
use anyhow::Context;
use chrono::{DateTime, Utc};
use clap::ValueEnum;
use serde::Serialize;
use shared::{
    clock::Clock,
    db::{
        self, TenantTx,
        audit::{self, Actor, Entry},
        messages,
        outbound::undecided::{self, Undecided},
    },
    domain::ids::MessageId,
    jobs::outbound::{self, OutboundJob, Task},
    queue::topology::OUTBOUND_NOW,
};
use std::process::ExitCode;
use uuid::Uuid;

/// What to trace.
#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// Whose.
    #[arg(long)]
    tenant: String,
    /// The message's id, or its provider's (wamid.…, m_…, SM…).
    message: String,
    #[command(flatten)]
    database: Database,
}

/// Something that happened to a message, or will.
#[derive(Serialize)]
struct Happening {
    at: DateTime<Utc>,
    /// accepted, attempt, reported, waits, job, webhook …
    what: String,
    code: Option<String>,
    /// More, for a person.
    detail: Option<String>,
}

#[derive(Serialize)]
struct Traced {
    id: Uuid,
    conversation_id: Uuid,
    direction: String,
    kind: String,
    state: Option<String>,
    wait_reason: Option<String>,
    provider_message_id: Option<String>,
    account: Option<String>,
    account_state: Option<String>,
    /// With which code the account is down, and why.
    account_code: Option<String>,
    account_reason: Option<String>,
    happenings: Vec<Happening>,
}

pub(super) async fn run(args: Args, out: &Output) -> anyhow::Result<ExitCode> {
    let databases = args.database.open().await?;
    let tenant = settings::tenant(&databases, &args.tenant).await?;
    let mut tx = databases.tenant(&tenant.placement, tenant.id).await?;
    let id = match args.message.parse::<MessageId>() {
        Ok(id) => Some(id),
        Err(_) => messages::called(&mut tx, &args.message).await?,
    };
    let message = match id {
        Some(id) => messages::find(&mut tx, id).await?,
        None => None,
    };
    let message = message.with_context(|| format!("the tenant has no message {}", args.message))?;
    let traced = trace(&mut tx, message).await?;
    tx.commit().await?;
    let state = match (&traced.state, &traced.wait_reason) {
        (Some(state), Some(why)) => format!("{state} ({why})"),
        (Some(state), None) => state.clone(),
        (None, _) => "not ours to send".to_owned(),
    };
    if !out.is_json() {
        let account = match (&traced.account, &traced.account_state) {
            (Some(name), Some(state)) => {
                let down = [traced.account_code.as_deref(), traced.account_reason.as_deref()];
                let why: Vec<&str> = std::iter::once(state.as_str()).chain(down.into_iter().flatten()).collect();
                format!(", account {name} ({})", why.join(": "))
            }
            _ => String::new(),
        };
        let id = traced.provider_message_id.as_deref().unwrap_or("no provider's id yet");
        out.line(&format!("{} {}: {state}{account}, {id}", traced.direction, traced.kind))?;
        return out
            .list(&traced.happenings, &["at", "what", "code", "detail"], |h| {
                let at = h.at.format("%Y-%m-%d %H:%M:%S%.3f").to_string();
                vec![at, h.what.clone(), or_dash(h.code.as_deref()), or_dash(h.detail.as_deref())]
            })
            .map(|()| ExitCode::SUCCESS);
    }
    out.say(&traced, "")?;
    Ok(ExitCode::SUCCESS)
}

async fn trace(tx: &mut TenantTx, message: messages::Message) -> anyhow::Result<Traced> {
    let id = message.id;
    let send = db::trace::send(tx, id).await?;
    let trail = messages::trail(tx, id).await?;
    let mut happenings =
        vec![Happening { at: message.at, what: "accepted".into(), code: None, detail: message.text.clone() }];
    if message.direction == "in" {
        happenings[0].what = "received".into();
    }
    for attempt in messages::attempts(tx, id).await? {
        if let Some(at) = attempt.granted_at {
            let what = format!("attempt {} granted", attempt.number);
            happenings.push(Happening { at, what, code: None, detail: None });
        }
        let what = format!("attempt {}: {}", attempt.number, attempt.outcome);
        happenings.push(Happening { at: attempt.ended_at, what, code: attempt.code, detail: attempt.reason });
    }
    let told = trail.iter().filter(|step| matches!(step.event.as_str(), "sent" | "delivered" | "read" | "failed"));
    let times: Vec<DateTime<Utc>> = std::iter::once(message.at).chain(told.map(|step| step.at)).collect();
    for step in trail {
        happenings.push(Happening { at: step.at, what: step.event, code: step.code, detail: step.reason });
    }
    for job in db::trace::jobs(tx, id).await? {
        let what = format!("job on {}", job.queue);
        happenings.push(Happening { at: job.publish_after, what, code: None, detail: Some(job.kind) });
    }
    let account = send.as_ref().map(|send| send.channel_account_id);
    for listed in db::trace::webhooks(tx, &message, account, &times).await? {
        let detail = Some(format!("{} of {}: {}", listed.id, listed.provider, listed.outcome));
        happenings.push(Happening { at: listed.received_at, what: "webhook".into(), code: None, detail });
    }
    if let Some(other) = send.as_ref().and_then(|send| send.waits_for) {
        let detail = Some(format!("it waits for message {other}"));
        happenings.push(Happening { at: message.at, what: "turn".into(), code: None, detail });
    }
    happenings.sort_by_key(|happening| happening.at);
    Ok(Traced {
        id: id.0,
        conversation_id: message.conversation_id.0,
        direction: message.direction,
        kind: message.kind,
        state: message.state,
        wait_reason: message.wait_reason,
        provider_message_id: message.provider_message_id,
        account: send.as_ref().map(|send| send.account_name.clone()),
        account_state: send.as_ref().map(|send| send.account_state.clone()),
        account_code: send.as_ref().and_then(|send| send.account_code.clone()),
        account_reason: send.and_then(|send| send.account_reason),
        happenings,
    })
}

/// What to do about undecided sends.
#[derive(clap::Subcommand, Debug)]
pub(super) enum Command {
    /// List them, the oldest first
    List(List),
    /// Say of held ones whether they arrived, or have them sent again
    Decide(Decide),
}

#[derive(clap::Args, Debug)]
pub(super) struct List {
    /// Whose.
    #[arg(long)]
    tenant: String,
    /// Only in this state.
    #[arg(long, value_parser = ["unknown", "held"])]
    state: Option<String>,
    /// Only of this account: its id here, or its provider's id of it.
    #[arg(long)]
    account: Option<String>,
    /// So many at most.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=1000))]
    limit: u16,
    #[command(flatten)]
    database: Database,
}

#[derive(clap::Args, Debug)]
pub(super) struct Decide {
    /// Whose.
    #[arg(long)]
    tenant: String,
    /// What is decided.
    #[arg(value_enum)]
    decision: Decision,
    /// The message's id.
    #[arg(required_unless_present = "account", conflicts_with = "account")]
    message: Option<MessageId>,
    /// All that are held of this account: its id here, or its provider's id of it.
    #[arg(long)]
    account: Option<String>,
    #[command(flatten)]
    database: Database,
}

/// What a person decides.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Decision {
    /// It arrived.
    Sent,
    /// It did not, and is not to be sent.
    Failed,
    /// It is sent again, and shown as possibly doubled.
    Resend,
}

impl From<Decision> for outbound::Decision {
    fn from(decision: Decision) -> Self {
        match decision {
            Decision::Sent => Self::Sent,
            Decision::Failed => Self::Failed,
            Decision::Resend => Self::Resend,
        }
    }
}

#[derive(Serialize)]
struct Row {
    message_id: Uuid,
    conversation_id: Uuid,
    channel_account_id: Uuid,
    state: String,
    since: DateTime<Utc>,
    reason: Option<String>,
    text: Option<String>,
    possibly_doubled: bool,
}

impl From<Undecided> for Row {
    fn from(u: Undecided) -> Self {
        Self {
            message_id: u.message_id.0,
            conversation_id: u.conversation_id.0,
            channel_account_id: u.channel_account_id.0,
            state: u.state,
            since: u.since,
            reason: u.reason,
            text: u.text,
            possibly_doubled: u.possibly_doubled,
        }
    }
}

pub(super) async fn undecided(command: Command, out: &Output) -> anyhow::Result<ExitCode> {
    match command {
        Command::List(args) => list(args, out).await,
        Command::Decide(args) => decide(args, out).await,
    }
}

async fn list(args: List, out: &Output) -> anyhow::Result<ExitCode> {
    let databases = args.database.open().await?;
    let tenant = settings::tenant(&databases, &args.tenant).await?;
    let account = settings::account_if_named(&databases, &tenant, args.account.as_deref()).await?;
    let mut tx = databases.tenant(&tenant.placement, tenant.id).await?;
    let found = undecided::list(&mut tx, args.state.as_deref(), account, None, args.limit.into()).await?;
    tx.commit().await?;
    let rows: Vec<Row> = found.into_iter().map(Row::from).collect();
    out.list(&rows, &["message", "state", "since", "why", "words"], |row| {
        let since = row.since.format("%Y-%m-%d %H:%M:%S").to_string();
        let words: String = row.text.as_deref().unwrap_or_default().chars().take(40).collect();
        vec![row.message_id.to_string(), row.state.clone(), since, or_dash(row.reason.as_deref()), words]
    })?;
    Ok(ExitCode::SUCCESS)
}

/// So many are decided in one transaction.
const AT_ONCE: i64 = 500;

async fn decide(args: Decide, out: &Output) -> anyhow::Result<ExitCode> {
    let databases = args.database.open().await?;
    let tenant = settings::tenant(&databases, &args.tenant).await?;
    let account = settings::account_if_named(&databases, &tenant, args.account.as_deref()).await?;
    let decision = outbound::Decision::from(args.decision);
    let (mut after, mut decided, mut left) = (None, 0_usize, 0_usize);
    loop {
        let mut tx = databases.tenant(&tenant.placement, tenant.id).await?;
        let held: Vec<Undecided> = match args.message {
            Some(id) => {
                let message = messages::find(&mut tx, id).await?.context("the tenant has no such message")?;
                let state = message.state.as_deref().unwrap_or("not ours to send");
                anyhow::ensure!(state == "held", "its send is {state}, not held");
                anyhow::ensure!(
                    can_be(&mut tx, id, decision).await?,
                    "its campaign has ended: nothing is sent again for it"
                );
                ask(&mut tx, id, decision).await?;
                decided = 1;
                Vec::new()
            }
            None => undecided::list(&mut tx, Some("held"), account, after, AT_ONCE).await?,
        };
        for send in &held {
            if can_be(&mut tx, send.message_id, decision).await? {
                ask(&mut tx, send.message_id, decision).await?;
                decided += 1;
            } else {
                left += 1;
            }
        }
        // Schedulers publish the jobs.
        drop(tx.commit().await?);
        match held.last() {
            Some(last) => after = Some((last.since, last.message_id)),
            None => break,
        }
    }
    let mut text = format!("{decided} decided; a sender sees to it in a moment");
    if left > 0 {
        text.push_str(&format!("\n{left} left: their campaigns have ended, and nothing is sent again for them"));
    }
    out.say(&serde_json::json!({"decided": decided, "left": left}), &text)?;
    Ok(ExitCode::SUCCESS)
}

/// Nothing is sent again for a campaign that has ended.
async fn can_be(tx: &mut TenantTx, id: MessageId, decision: outbound::Decision) -> anyhow::Result<bool> {
    if decision != outbound::Decision::Resend {
        return Ok(true);
    }
    let campaign = db::trace::send(tx, id).await?.and_then(|send| send.campaign_state);
    Ok(!matches!(campaign.as_deref(), Some("completed" | "cancelled")))
}

async fn ask(tx: &mut TenantTx, message_id: MessageId, decision: outbound::Decision) -> anyhow::Result<()> {
    let details = serde_json::json!({"decision": decision});
    let (action, target_kind) = ("send.decided", "message");
    let entry = Entry { actor: Actor::Operator, action, target_kind, target_id: message_id.0, details };
    audit::record(tx, &entry).await?;
    let job = OutboundJob { tenant_id: tx.tenant_id(), message_id, account: None, task: Task::Decide(decision) };
    tx.enqueue(OUTBOUND_NOW.name, job.to_job(Clock::system().now()), None);
    Ok(())
}
