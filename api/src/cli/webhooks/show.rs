//! `mijra webhooks show`: a webhook of the log as it came.

use super::body::{harmless, readable};
use crate::{
    cli::{
        output::{Output, or_dash},
        settings::{self, Database},
    },
    routes::webhooks::WholeWebhookView,
};
use anyhow::Context;
use shared::{
    db::webhook_log::{self, Logged},
    domain::ids::WebhookId,
};
use std::process::ExitCode;

#[derive(clap::Args, Debug)]
pub(in crate::cli) struct Show {
    /// Which, as `mijra webhooks list` shows it.
    id: WebhookId,
    /// Whose.
    #[arg(long)]
    tenant: String,
    #[command(flatten)]
    database: Database,
}

pub(super) async fn run(args: Show, out: &Output) -> anyhow::Result<ExitCode> {
    let databases = args.database.open().await?;
    let tenant = settings::tenant(&databases, &args.tenant).await?;
    let mut tx = databases.tenant(&tenant.placement, tenant.id).await?;
    let found = webhook_log::find(&mut tx, args.id).await?;
    tx.commit().await?;
    let logged = found.with_context(|| format!("tenant {} has no webhook {} in its log", tenant.slug, args.id))?;
    out.say(&WholeWebhookView::from(&logged), &text(&logged))?;
    Ok(ExitCode::SUCCESS)
}

fn text(logged: &Logged) -> String {
    let Logged { listed, query, .. } = logged;
    let mut lines = vec![
        format!("received  {}", listed.received_at.to_rfc3339()),
        format!("provider  {}", listed.provider),
        format!("account   {}", or_dash(listed.channel_account_id)),
        format!("outcome   {}", listed.outcome),
        format!("detail    {}", or_dash(listed.detail.as_deref().map(harmless))),
    ];
    lines.extend(query.as_deref().map(|query| format!("query     {}", harmless(query))));
    lines.push(format!("bytes     {}\n", listed.body_bytes));
    lines.push(match logged.body() {
        Some(body) => readable(&body),
        None => "(what is kept of the body cannot be read)".to_owned(),
    });
    lines.join("\n")
}
