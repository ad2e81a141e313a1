//! `mijra limits`: what providers allow, changed while everything runs.

use super::{
    output::{Output, or_dash},
    settings::{self, Database},
};
use anyhow::Context;
use serde::Serialize;
use shared::{
    db::{
        self,
        audit::Actor,
        limits::{self, Limit},
    },
    domain::limits::{LimitChange, LimitValues, Scope},
};
use std::process::ExitCode;
use uuid::Uuid;

#[derive(clap::Subcommand, Debug)]
pub(super) enum Command {
    /// List a tenant's limits and how they stand
    List(List),
    /// Set a limit; it holds from the next message on
    Set(Set),
    /// Remove a limit
    Remove(Remove),
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
pub(super) struct Which {
    /// account: messages of one account; pair: from it to one person; portfolio: people reached in 24 hours.
    scope: Scope,
    /// The account (by its id here, or its provider's id of it) or the portfolio, as `mijra limits list` and `mijra channel-account list`
    /// show it.
    id: String,
    /// Whose.
    #[arg(long)]
    tenant: String,
    #[command(flatten)]
    database: Database,
}

#[derive(clap::Args, Debug)]
pub(super) struct Set {
    #[command(flatten)]
    which: Which,
    /// How many …
    #[arg(long)]
    rate: f64,
    /// … in what time. People of a portfolio are always counted by the day.
    #[arg(long, value_enum, default_value = "second")]
    per: Per,
    /// So many at once; as before unless given. Of an account it follows from the rate.
    #[arg(long)]
    burst: Option<i32>,
    /// What a received message takes of it, 1 where the provider counts both ways; as before unless given.
    #[arg(long)]
    inbound_cost: Option<f64>,
}

#[derive(clap::Args, Debug)]
pub(super) struct Remove {
    #[command(flatten)]
    which: Which,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Per {
    Second,
    Minute,
    Hour,
}

impl Per {
    fn seconds(self) -> f64 {
        match self {
            Per::Second => 1.0,
            Per::Minute => 60.0,
            Per::Hour => 3600.0,
        }
    }
}

#[derive(Serialize)]
struct Row {
    scope: Scope,
    id: Uuid,
    name: String,
    rate: f64,
    burst: Option<i32>,
    inbound_cost: f64,
    current_rate: f64,
    received: i32,
    reserved: f64,
    sends_per_second: f64,
    stopped_until: Option<chrono::DateTime<chrono::Utc>>,
    used: i64,
}

impl From<Limit> for Row {
    fn from(limit: Limit) -> Self {
        let Limit { scope, key, name, values, .. } = limit;
        let LimitValues { rate, burst, inbound_cost } = values;
        let Limit { current_rate, received, reserved, sends_per_second, stopped_until, used, .. } = limit;
        Self {
            scope,
            id: key,
            name,
            rate,
            burst,
            inbound_cost,
            current_rate,
            received,
            reserved,
            sends_per_second,
            stopped_until,
            used,
        }
    }
}

pub(super) async fn run(command: Command, out: &Output) -> anyhow::Result<ExitCode> {
    match command {
        Command::List(args) => list(&args, out).await,
        Command::Set(args) => set(&args, out).await,
        Command::Remove(args) => remove(&args, out).await,
    }
}

async fn list(args: &List, out: &Output) -> anyhow::Result<ExitCode> {
    let mut tx = begin(&args.database, &args.tenant).await?;
    let rows: Vec<Row> = limits::list(&mut tx).await?.into_iter().map(Row::from).collect();
    tx.commit().await?;
    let headers = ["scope", "of", "limit", "at once", "now", "came in", "kept for those", "id"];
    out.list(&rows, &headers, |row| {
        let counts_inbound = row.inbound_cost > 0.0;
        vec![
            row.scope.to_string(),
            row.name.clone(),
            rate(row.scope, row.rate),
            or_dash(row.burst),
            now(row),
            or_dash(counts_inbound.then(|| format!("{}/s", row.received))),
            or_dash(counts_inbound.then(|| format!("{}/s", number(row.reserved)))),
            row.id.to_string(),
        ]
    })?;
    Ok(ExitCode::SUCCESS)
}

async fn set(args: &Set, out: &Output) -> anyhow::Result<ExitCode> {
    let Which { scope, id, tenant, database } = &args.which;
    anyhow::ensure!(
        *scope != Scope::Portfolio || args.per == Per::Second,
        "people of a portfolio are counted by the day: leave out --per"
    );
    let change =
        LimitChange { rate: args.rate / args.per.seconds(), burst: args.burst, inbound_cost: args.inbound_cost };
    let (mut tx, id) = begin_with(database, tenant, *scope, id).await?;
    match limits::set(&mut tx, *scope, id, change, Actor::Operator).await? {
        // Senders wait for the limit's row: it is let go before anything is counted.
        limits::Set::Done => tx.commit().await?,
        limits::Set::Bad(bad) => anyhow::bail!("--{} {bad}", bad.field().replace('_', "-")),
        limits::Set::NoSuchThing => {
            let kind = if scope.is_of_portfolio() { "portfolio" } else { "channel account" };
            anyhow::bail!("{tenant} has no {kind} {id}");
        }
    };
    let mut tx = begin(database, tenant).await?;
    let limit = limits::list(&mut tx).await?.into_iter().find(|limit| (limit.scope, limit.key) == (*scope, id));
    tx.commit().await?;
    let row = Row::from(limit.context("the limit is gone again")?);
    let text = format!("{scope} {}: {}", row.name, rate(*scope, row.rate));
    out.say(&row, &text)?;
    Ok(ExitCode::SUCCESS)
}

async fn remove(args: &Remove, out: &Output) -> anyhow::Result<ExitCode> {
    let Which { scope, id, tenant, database } = &args.which;
    let (mut tx, id) = begin_with(database, tenant, *scope, id).await?;
    let removed = match limits::remove(&mut tx, *scope, id, Actor::Operator).await? {
        limits::Removed::Done => true,
        limits::Removed::NoSuchLimit => false,
        limits::Removed::OneAtATime => {
            anyhow::bail!("this gateway's calls come one at a time, which its rate keeps: set another, or leave it")
        }
    };
    tx.commit().await?;
    let text = if removed { "removed" } else { "there was none" };
    out.say(&serde_json::json!({ "removed": removed }), text)?;
    Ok(ExitCode::SUCCESS)
}

/// With the id of what the limit is of.
async fn begin_with(
    database: &Database,
    tenant: &str,
    scope: Scope,
    wanted: &str,
) -> anyhow::Result<(db::TenantTx, Uuid)> {
    let databases = database.open().await?;
    let tenant = settings::tenant(&databases, tenant).await?;
    let id = match wanted.parse() {
        Ok(id) => id,
        Err(_) if scope.is_of_portfolio() => {
            anyhow::bail!("{wanted} is no id of a portfolio; `mijra limits list` shows those there are")
        }
        Err(_) => settings::account(&databases, &tenant, wanted).await?.0,
    };
    Ok((databases.tenant(&tenant.placement, tenant.id).await?, id))
}

async fn begin(database: &Database, tenant: &str) -> anyhow::Result<db::TenantTx> {
    let databases = database.open().await?;
    let tenant = settings::tenant(&databases, tenant).await?;
    Ok(databases.tenant(&tenant.placement, tenant.id).await?)
}

/// How it stands: what an account may send a second now, how much of its day a portfolio has used. A person's limit stands with each
/// of them.
fn now(row: &Row) -> String {
    if let Some(until) = row.stopped_until {
        return format!("stopped until {}", until.format("%H:%M:%S"));
    }
    let throttled = if row.current_rate < row.rate { ", throttled" } else { "" };
    match row.scope {
        Scope::Account | Scope::Heavy | Scope::ProviderAccount => {
            format!("{}{throttled}", rate(row.scope, row.sends_per_second))
        }
        Scope::Portfolio => format!("{} people reached", row.used),
        Scope::Pair => "-".to_owned(),
    }
}

/// A rate as one says it.
fn rate(scope: Scope, per_second: f64) -> String {
    match scope {
        Scope::Portfolio => format!("{per_second:.0} people/day"),
        _ if per_second < 1.0 => format!("{}/min", number(per_second * 60.0)),
        _ => format!("{}/s", number(per_second)),
    }
}

/// With as many digits as it needs, three at most.
fn number(value: f64) -> String {
    format!("{value:.3}").trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_said_as_people_say_them() {
        assert_eq!(rate(Scope::Account, 80.0), "80/s");
        assert_eq!(rate(Scope::Account, 40.55), "40.55/s");
        assert_eq!(rate(Scope::Account, 0.125), "7.5/min");
        assert_eq!(rate(Scope::Pair, 1.0 / 6.0), "10/min");
        assert_eq!(rate(Scope::Portfolio, 2000.0), "2000 people/day");
        assert_eq!((number(0.125), number(2.0), number(0.0)), ("0.125".into(), "2".into(), "0".into()));
    }

    #[test]
    fn how_a_limit_stands_is_said_in_its_own_words() {
        let row = |scope, current_rate, used| Row {
            scope,
            id: Uuid::nil(),
            name: String::new(),
            rate: 80.0,
            burst: None,
            inbound_cost: 1.0,
            current_rate,
            received: 3,
            reserved: 5.0,
            sends_per_second: f64::min(current_rate, 75.0),
            stopped_until: None,
            used,
        };
        assert_eq!(now(&row(Scope::Account, 80.0, 0)), "75/s");
        assert_eq!(now(&row(Scope::Account, 20.0, 0)), "20/s, throttled");
        assert_eq!(now(&row(Scope::Portfolio, 80.0, 12)), "12 people reached");
        let stopped = Row { stopped_until: Some(chrono::DateTime::UNIX_EPOCH), ..row(Scope::Account, 80.0, 0) };
        assert_eq!(now(&stopped), "stopped until 00:00:00");
    }
}
