//! `mijra media`: files of messages.

use super::{
    output::Output,
    settings::{self, Database},
    when::When,
};
use serde_json::json;
use shared::{
    clock::Clock,
    db::{
        audit::Actor,
        media::again::{self, AT_ONCE, Which},
    },
};
use std::process::ExitCode;

#[derive(clap::Subcommand, Debug)]
pub(super) enum Command {
    /// Fetch files once more that were given up, or were no longer to be had, and may still be kept
    Retry(Retry),
}

#[derive(clap::Args, Debug)]
pub(super) struct Retry {
    /// Whose.
    #[arg(long)]
    tenant: String,
    /// Only those of messages of this time or later: RFC 3339, or how long ago (2h, 3d).
    #[arg(long)]
    since: Option<When>,
    /// Only those that this channel account received: its id here, or its provider's id of it.
    #[arg(long)]
    account: Option<String>,
    #[command(flatten)]
    database: Database,
}

pub(super) async fn run(command: Command, out: &Output) -> anyhow::Result<ExitCode> {
    match command {
        Command::Retry(args) => retry(args, out).await,
    }
}

async fn retry(args: Retry, out: &Output) -> anyhow::Result<ExitCode> {
    let databases = args.database.open().await?;
    let tenant = settings::tenant(&databases, &args.tenant).await?;
    let since = args.since.map(|when| when.before(Clock::system().now()));
    let channel_account_id = settings::account_if_named(&databases, &tenant, args.account.as_deref()).await?;
    let which = Which { since, channel_account_id, file: None };
    let (mut files, mut behind) = (0, None);
    loop {
        let mut tx = databases.tenant(&tenant.placement, tenant.id).await?;
        let asked = again::fetch_again(&mut tx, &which, behind, Actor::Operator).await?;
        // The sweep publishes their jobs.
        tx.commit().await?;
        files += asked.len();
        behind = asked.last().copied();
        if asked.len() < AT_ONCE {
            break;
        }
    }
    out.say(&json!({"files": files}), &format!("{files} files are fetched once more"))?;
    Ok(ExitCode::SUCCESS)
}
