//! `mijra webhooks replays`: what is, or was, played again: how far it is, watched, ended.

use super::replay::{ended, watch};
use crate::{
    cli::{
        output::{Output, or_dash},
        settings::{self, Database},
    },
    routes::webhooks::ReplayView,
};
use anyhow::Context;
use shared::{
    clock::Clock,
    db::{audit::Actor, webhook_log::replays},
    domain::ids::ReplayId,
};
use std::process::ExitCode;

#[derive(clap::Subcommand, Debug)]
pub(in crate::cli) enum Command {
    /// List a tenant's replays, the newest first
    List(List),
    /// Watch one until it has ended
    Watch(Args),
    /// End one; what is published stays so
    Stop(Args),
}

#[derive(clap::Args, Debug)]
pub(in crate::cli) struct List {
    /// Whose.
    #[arg(long)]
    tenant: String,
    /// So many at most.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1000))]
    limit: u16,
    #[command(flatten)]
    database: Database,
}

#[derive(clap::Args, Debug)]
pub(in crate::cli) struct Args {
    /// Which.
    id: ReplayId,
    /// Whose.
    #[arg(long)]
    tenant: String,
    #[command(flatten)]
    database: Database,
}

pub(super) async fn run(command: Command, out: &Output) -> anyhow::Result<ExitCode> {
    match command {
        Command::List(args) => list(args, out).await,
        Command::Watch(Args { id, tenant, database }) => {
            let databases = database.open().await?;
            let tenant = settings::tenant(&databases, &tenant).await?;
            watch(&databases, &tenant, id, out).await
        }
        Command::Stop(args) => stop(args, out).await,
    }
}

async fn list(args: List, out: &Output) -> anyhow::Result<ExitCode> {
    let databases = args.database.open().await?;
    let tenant = settings::tenant(&databases, &args.tenant).await?;
    let mut tx = databases.tenant(&tenant.placement, tenant.id).await?;
    let found = replays::list(&mut tx, args.limit.into()).await?;
    tx.commit().await?;
    let now = Clock::system().now();
    let rows: Vec<ReplayView> = found.into_iter().map(|replay| ReplayView::of(replay, now)).collect();
    let headers = ["asked", "state", "since", "until", "webhooks", "published", "s left", "id"];
    out.list(&rows, &headers, |row| {
        let time = |at| format!("{}", chrono::DateTime::<chrono::Utc>::format(&at, "%Y-%m-%d %H:%M:%S"));
        vec![
            time(row.asked_at),
            row.state.to_owned(),
            or_dash(row.since.map(time)),
            or_dash(row.until.map(time)),
            row.selected.to_string(),
            row.published.to_string(),
            or_dash(row.eta_seconds),
            row.id.to_string(),
        ]
    })?;
    Ok(ExitCode::SUCCESS)
}

async fn stop(args: Args, out: &Output) -> anyhow::Result<ExitCode> {
    let Args { id, tenant, database } = args;
    let databases = database.open().await?;
    let tenant = settings::tenant(&databases, &tenant).await?;
    let mut tx = databases.tenant(&tenant.placement, tenant.id).await?;
    let stopped = replays::stop(&mut tx, id, Actor::Operator).await?;
    tx.commit().await?;
    let replay = stopped.with_context(|| format!("tenant {} has no replay {id}", tenant.slug))?;
    let text = ended(&replay);
    out.say(&ReplayView::of(replay, Clock::system().now()), &text)?;
    Ok(ExitCode::SUCCESS)
}
