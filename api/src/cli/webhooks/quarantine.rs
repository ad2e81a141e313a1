//! `mijra webhooks quarantine list`: webhooks whose signature did not fit.

use crate::cli::{output::Output, settings::Database};
use chrono::{DateTime, Utc};
use serde::Serialize;
use shared::db;
use std::process::ExitCode;
use uuid::Uuid;

#[derive(clap::Subcommand, Debug)]
pub(in crate::cli) enum Command {
    /// List them, the newest first
    List(List),
}

#[derive(clap::Args, Debug)]
pub(in crate::cli) struct List {
    /// At most so many.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..=10_000))]
    limit: i64,
    #[command(flatten)]
    database: Database,
}

#[derive(Serialize)]
struct Row {
    id: Uuid,
    received_at: DateTime<Utc>,
    provider: String,
    endpoint: String,
    source: String,
    reason: String,
    signature: Option<String>,
    body_bytes: i64,
    /// The first bytes, as text; for people who look for the mistake.
    body: String,
}

pub(super) async fn run(command: Command, out: &Output) -> anyhow::Result<ExitCode> {
    let Command::List(args) = command;
    list(args, out).await
}

async fn list(args: List, out: &Output) -> anyhow::Result<ExitCode> {
    let databases = args.database.open().await?;
    let mut tx = databases.control().await?;
    let suspects = db::receiving::list_quarantine(&mut tx, args.limit).await?;
    tx.commit().await?;
    let rows: Vec<Row> = suspects
        .into_iter()
        .map(|s| Row {
            id: s.id.0,
            received_at: s.received_at,
            provider: s.provider,
            endpoint: s.endpoint,
            source: s.source,
            reason: s.reason,
            signature: s.signature,
            body_bytes: s.body_bytes,
            body: String::from_utf8_lossy(&s.body).into_owned(),
        })
        .collect();
    let headers = ["received", "provider", "endpoint", "source", "bytes", "reason", "begins with"];
    out.list(&rows, &headers, |row| {
        let received = row.received_at.format("%Y-%m-%d %H:%M:%S").to_string();
        let endpoint = if row.endpoint.is_empty() { "(platform)".to_owned() } else { row.endpoint.clone() };
        let begins: String = row.body.chars().take(40).map(|c| if c.is_control() { ' ' } else { c }).collect();
        let (provider, source, reason) = (row.provider.clone(), row.source.clone(), row.reason.clone());
        vec![received, provider, endpoint, source, row.body_bytes.to_string(), reason, begins]
    })?;
    Ok(ExitCode::SUCCESS)
}
