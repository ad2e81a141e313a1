//! `mijra audit`: who changed what of a tenant's, when.

use super::{
    output::Output,
    settings::{self, Database},
};
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use shared::db;
use std::process::ExitCode;
use uuid::Uuid;

#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// Whose.
    #[arg(long)]
    tenant: String,
    /// Only changes to the campaign, account or token with this id.
    #[arg(long)]
    target: Option<Uuid>,
    /// So many at most, the newest first.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=1000))]
    limit: u16,
    #[command(flatten)]
    database: Database,
}

#[derive(Serialize)]
struct Row {
    id: Uuid,
    at: DateTime<Utc>,
    token_id: Option<Uuid>,
    action: String,
    target_kind: String,
    target_id: Uuid,
    details: Value,
}

pub(super) async fn run(args: Args, out: &Output) -> anyhow::Result<ExitCode> {
    let databases = args.database.open().await?;
    let tenant = settings::tenant(&databases, &args.tenant).await?;
    let mut tx = databases.tenant(&tenant.placement, tenant.id).await?;
    let recorded = db::audit::list(&mut tx, args.target, None, args.limit.into()).await?;
    tx.commit().await?;
    let rows: Vec<Row> = recorded
        .into_iter()
        .map(|r| Row {
            id: r.id,
            at: r.at,
            token_id: r.token_id,
            action: r.action,
            target_kind: r.target_kind,
            target_id: r.target_id,
            details: r.details,
        })
        .collect();
    out.list(&rows, &["at", "who", "action", "target", "details"], |row| {
        let who = row.token_id.map_or_else(|| "operator".to_owned(), |id| format!("token {}", id.simple()));
        let at = row.at.format("%Y-%m-%d %H:%M:%S").to_string();
        vec![at, who, row.action.clone(), format!("{} {}", row.target_kind, row.target_id), row.details.to_string()]
    })?;
    Ok(ExitCode::SUCCESS)
}
