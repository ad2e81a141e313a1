//! `mijra campaign`: campaigns, their people, their books held against each other; trying again who failed.

mod recipients;

use super::{
    output::{Output, or_dash, table},
    settings::{self, Database},
};
use crate::routes::campaigns::nobody_failed_so;
use anyhow::Context;
use chrono::{DateTime, Utc};
use serde::Serialize;
use shared::{
    db::{
        audit::Actor,
        campaigns::{
            self, Campaign,
            ledger::{Cause, Ledger, ledger},
            retry::{Asked, ask},
        },
    },
    domain::ids::CampaignId,
};
use std::process::ExitCode;

/// Campaigns read at a time.
const PAGE: i64 = 200;

#[derive(clap::Subcommand, Debug)]
pub(super) enum Command {
    /// List a tenant's campaigns, the newest first
    List(List),
    /// List a campaign's people: who got it, who did not, and why
    Recipients(recipients::Recipients),
    /// Hold a campaign's people, sends, attempts and shown counts against each other; fails if they disagree
    Ledger(Args),
    /// Try again who has failed by now: the same message once more, at the pace of the account; fails if nobody has
    RetryFailed(RetryFailed),
}

#[derive(clap::Args, Debug)]
pub(super) struct List {
    /// Whose.
    #[arg(long)]
    tenant: String,
    #[command(flatten)]
    database: Database,
}

#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// Which, as `mijra campaign list` shows it.
    id: CampaignId,
    /// Whose.
    #[arg(long)]
    tenant: String,
    #[command(flatten)]
    database: Database,
}

#[derive(clap::Args, Debug)]
pub(super) struct RetryFailed {
    #[command(flatten)]
    campaign: Args,
    /// Only who failed with this code; repeat it, or separate with commas.
    #[arg(long = "code", value_delimiter = ',')]
    codes: Vec<String>,
}

#[derive(Serialize)]
struct Row {
    id: CampaignId,
    name: String,
    state: String,
    /// Why it is paused, if its template was refused.
    paused_reason: Option<String>,
    /// How many were frozen; absent until all are.
    people: Option<i64>,
    skipped: i64,
    waiting: i64,
    in_flight: i64,
    unknown: i64,
    held: i64,
    sent: i64,
    delivered: i64,
    read: i64,
    failed: i64,
    cancelled: i64,
    created_at: DateTime<Utc>,
}

impl From<Campaign> for Row {
    fn from(c: Campaign) -> Self {
        Self {
            id: c.id,
            name: c.name,
            state: c.state,
            paused_reason: c.paused_reason,
            people: c.frozen_count,
            skipped: c.skipped,
            waiting: c.waiting,
            in_flight: c.in_flight,
            unknown: c.unknown,
            held: c.held,
            sent: c.sent,
            delivered: c.delivered,
            read: c.read,
            failed: c.failed,
            cancelled: c.cancelled,
            created_at: c.created_at,
        }
    }
}

pub(super) async fn run(command: Command, out: &Output) -> anyhow::Result<ExitCode> {
    match command {
        Command::List(args) => list(args, out).await,
        Command::Recipients(args) => recipients::run(args, out).await,
        Command::Ledger(args) => books(args, out).await,
        Command::RetryFailed(args) => retry_failed(args, out).await,
    }
}

async fn list(args: List, out: &Output) -> anyhow::Result<ExitCode> {
    let databases = args.database.open().await?;
    let tenant = settings::tenant(&databases, &args.tenant).await?;
    let mut rows: Vec<Row> = Vec::new();
    loop {
        let mut tx = databases.tenant(&tenant.placement, tenant.id).await?;
        let page = campaigns::list(&mut tx, rows.last().map(|row| row.id), PAGE).await?;
        tx.commit().await?;
        if page.is_empty() {
            break;
        }
        rows.extend(page.into_iter().map(Row::from));
    }
    let headers = ["name", "state", "people", "skipped", "to do", "sent", "arrived", "failed", "made", "id"];
    out.list(&rows, &headers, |row| {
        vec![
            row.name.clone(),
            row.paused_reason.as_ref().map_or_else(|| row.state.clone(), |why| format!("{}: {why}", row.state)),
            or_dash(row.people),
            row.skipped.to_string(),
            (row.waiting + row.in_flight + row.unknown + row.held).to_string(),
            row.sent.to_string(),
            (row.delivered + row.read).to_string(),
            row.failed.to_string(),
            row.created_at.format("%Y-%m-%d %H:%M").to_string(),
            row.id.to_string(),
        ]
    })?;
    Ok(ExitCode::SUCCESS)
}

/// The scheduler publishes its job.
async fn retry_failed(args: RetryFailed, out: &Output) -> anyhow::Result<ExitCode> {
    let RetryFailed { campaign: Args { id, tenant, database }, mut codes } = args;
    codes.sort_unstable();
    codes.dedup();
    let codes = (!codes.is_empty()).then_some(codes);
    let databases = database.open().await?;
    let tenant = settings::tenant(&databases, &tenant).await?;
    let mut tx = databases.tenant(&tenant.placement, tenant.id).await?;
    let asked = ask(&mut tx, id, codes.as_deref(), Actor::Operator).await?;
    tx.commit().await?;
    let asked = asked.with_context(|| format!("tenant {} has no campaign {id}", tenant.slug))?;
    let (done, people, text) = match asked {
        Asked::Begun { people } => ("begun", people, format!("{people} people are tried again")),
        Asked::UnderWay { people } => ("under_way", people, format!("{people} people are being tried again already")),
        Asked::NobodyFailed => anyhow::bail!("nobody of the campaign has failed; nothing is changed"),
        Asked::NobodyFailedSo { failed } => anyhow::bail!("{}", nobody_failed_so(&failed)),
        Asked::OthersUnderWay => {
            anyhow::bail!("others of its failed people are being tried again: ask when that is done")
        }
        Asked::NotFrom(state) => anyhow::bail!("the campaign is {state}: who failed cannot be tried again"),
    };
    out.say(&serde_json::json!({"id": id, "retry": done, "people": people}), &text)?;
    Ok(ExitCode::SUCCESS)
}

async fn books(args: Args, out: &Output) -> anyhow::Result<ExitCode> {
    let databases = args.database.open().await?;
    let tenant = settings::tenant(&databases, &args.tenant).await?;
    let mut tx = databases.tenant(&tenant.placement, tenant.id).await?;
    let books = ledger(&mut tx, args.id).await?;
    tx.commit().await?;
    let books = books.with_context(|| format!("tenant {} has no campaign {}", tenant.slug, args.id))?;
    out.say(&books, &text(&books))?;
    Ok(if books.disagreements.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn text(books: &Ledger) -> String {
    let lines = books.lines.iter();
    let cells = lines.map(|line| {
        vec![line.state.to_owned(), line.people.to_string(), line.attempts.to_string(), line.shown.to_string()]
    });
    let mut text = table(&["state", "people", "attempts", "shown"], cells);
    if !books.causes.is_empty() {
        let cells = books.causes.iter().map(|Cause { state, code, reason, people }| {
            vec![(*state).to_owned(), people.to_string(), or_dash(code.as_ref()), or_dash(reason.as_ref())]
        });
        text = format!("{text}\n\n{}\n", table(&["why", "people", "code", "reason"], cells));
    }
    text.push_str(&format!("\nfrozen: {}", or_dash(books.frozen)));
    match books.disagreements.as_slice() {
        [] => text.push_str("\nthe books agree"),
        wrong => wrong.iter().for_each(|wrong| text.push_str(&format!("\n! {wrong}"))),
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::db::campaigns::ledger::Line;

    #[test]
    fn the_books_say_whether_they_agree_and_why_people_failed() {
        let line = Line { state: "sent", people: 2, attempts: 3, shown: 2 };
        let cause = Cause { state: "failed", code: Some("131026".into()), reason: Some("Not there".into()), people: 5 };
        let mut books = Ledger { frozen: Some(2), lines: vec![line], causes: vec![cause], disagreements: Vec::new() };
        let said = text(&books);
        let why: Vec<&str> = said.lines().nth(4).unwrap().split_whitespace().collect();
        assert_eq!(why, ["failed", "5", "131026", "Not", "there"], "{said}");
        assert!(said.ends_with("frozen: 2\nthe books agree"), "{said}");
        books.disagreements.push("2 people are sent, and 1 are shown".to_owned());
        assert!(text(&books).ends_with("\n! 2 people are sent, and 1 are shown"), "{}", text(&books));
    }
}
