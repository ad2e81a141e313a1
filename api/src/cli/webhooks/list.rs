//! `mijra webhooks list`: a tenant's raw log, searched.

use super::{NONE_MATCH, body::harmless, select::Select};
use crate::cli::{
    output::{Output, note, or_dash},
    settings::{self, Database},
};
use anyhow::Context;
use chrono::{DateTime, Utc};
use serde::Serialize;
use shared::{
    clock::Clock,
    db::webhook_log::{self, Listed},
    domain::ids::WebhookId,
};
use std::process::ExitCode;
use uuid::Uuid;

#[derive(clap::Args, Debug)]
pub(in crate::cli) struct List {
    /// Whose.
    #[arg(long)]
    tenant: String,
    #[command(flatten)]
    select: Select,
    /// So many at most.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    limit: u16,
    /// Only those before this one: the last of the page before.
    #[arg(long)]
    before: Option<WebhookId>,
    #[command(flatten)]
    database: Database,
}

#[derive(Serialize)]
struct Row {
    id: Uuid,
    received_at: DateTime<Utc>,
    provider: String,
    channel_account_id: Option<Uuid>,
    outcome: String,
    body_bytes: i32,
    detail: Option<String>,
}

impl From<Listed> for Row {
    fn from(listed: Listed) -> Self {
        let Listed { id, received_at, provider, channel_account_id, outcome, detail, body_bytes } = listed;
        let channel_account_id = channel_account_id.map(|id| id.0);
        Self { id: id.0, received_at, provider, channel_account_id, outcome, body_bytes, detail }
    }
}

pub(super) async fn run(args: List, out: &Output) -> anyhow::Result<ExitCode> {
    let databases = args.database.open().await?;
    let tenant = settings::tenant(&databases, &args.tenant).await?;
    let filter = args.select.filter(&databases, &tenant, Clock::system().now()).await?;
    let limit = usize::from(args.limit);
    let mut before = None;
    if let Some(id) = args.before {
        let mut tx = databases.tenant(&tenant.placement, tenant.id).await?;
        let found = webhook_log::find(&mut tx, id).await?;
        let found = found.with_context(|| format!("tenant {} has no webhook {id} in its log", tenant.slug))?;
        before = Some((found.listed.received_at, id));
    }
    let mut rows: Vec<Row> = Vec::new();
    // A page looks at so many webhooks only.
    loop {
        let mut tx = databases.tenant(&tenant.placement, tenant.id).await?;
        let page = webhook_log::list(&mut tx, &filter, before, limit - rows.len()).await?;
        tx.commit().await?;
        rows.extend(page.webhooks.into_iter().map(Row::from));
        before = page.next;
        if before.is_none() || rows.len() >= limit {
            break;
        }
    }
    let headers = ["received", "provider", "account", "outcome", "bytes", "id", "detail"];
    out.list(&rows, &headers, |row| {
        vec![
            row.received_at.format("%Y-%m-%d %H:%M:%S").to_string(),
            row.provider.clone(),
            or_dash(row.channel_account_id),
            row.outcome.clone(),
            row.body_bytes.to_string(),
            row.id.to_string(),
            or_dash(row.detail.as_deref().map(|detail| harmless(detail).replace('\n', " "))),
        ]
    })?;
    if rows.is_empty() {
        note(NONE_MATCH);
    }
    if let (Some(_), Some(last), false) = (before, rows.last(), out.is_json()) {
        out.line(&format!("\nThere are more: --before {}", last.id))?;
    }
    Ok(ExitCode::SUCCESS)
}
