//! `mijra campaign`: a campaign's books, held against each other; trying again who failed.

use super::{
    output::{Output, or_dash, table},
    settings::{self, Database},
};
use anyhow::Context;
use shared::{
    db::{
        audit::Actor,
        campaigns::{
            ledger::{Ledger, ledger},
            retry::{Asked, ask},
        },
    },
    domain::ids::CampaignId,
};
use std::process::ExitCode;

#[derive(clap::Subcommand, Debug)]
pub(super) enum Command {
    /// Hold a campaign's people, sends, attempts and shown counts against each other; fails if they disagree
    Ledger(Args),
    /// Try again who has failed by now: the same message once more, at the pace of the account
    RetryFailed(RetryFailed),
}

#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// Which.
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

pub(super) async fn run(command: Command, out: &Output) -> anyhow::Result<ExitCode> {
    match command {
        Command::Ledger(args) => books(args, out).await,
        Command::RetryFailed(args) => retry_failed(args, out).await,
    }
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
    let (done, text) = match asked {
        Asked::Begun => ("begun", "who failed is tried again"),
        Asked::UnderWay => ("under_way", "who failed is being tried again already"),
        Asked::NobodyFailed => ("nobody_failed", "nobody has failed"),
        Asked::OthersUnderWay => {
            anyhow::bail!("others of its failed people are being tried again: ask when that is done")
        }
        Asked::NotFrom(state) => anyhow::bail!("the campaign is {state}: who failed cannot be tried again"),
    };
    out.say(&serde_json::json!({"id": id, "retry": done}), text)?;
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
    fn the_books_say_whether_they_agree() {
        let line = Line { state: "sent", people: 2, attempts: 3, shown: 2 };
        let mut books = Ledger { frozen: Some(2), lines: vec![line], disagreements: Vec::new() };
        assert!(text(&books).ends_with("frozen: 2\nthe books agree"), "{}", text(&books));
        books.disagreements.push("2 people are sent, and 1 are shown".to_owned());
        assert!(text(&books).ends_with("\n! 2 people are sent, and 1 are shown"), "{}", text(&books));
    }
}
