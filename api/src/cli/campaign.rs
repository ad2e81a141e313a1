//! `mijra campaign ledger`: a campaign's books, held against each other.

use super::{
    output::{Output, or_dash, table},
    settings::{self, Database},
};
use anyhow::Context;
use shared::{
    db::campaigns::ledger::{Ledger, ledger},
    domain::ids::CampaignId,
};
use std::process::ExitCode;

#[derive(clap::Subcommand, Debug)]
pub(super) enum Command {
    /// Hold a campaign's people, sends, attempts and shown counts against each other; fails if they disagree
    Ledger(Args),
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

pub(super) async fn run(command: Command, out: &Output) -> anyhow::Result<ExitCode> {
    let Command::Ledger(args) = command;
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
