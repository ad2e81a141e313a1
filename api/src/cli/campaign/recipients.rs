//! `mijra campaign recipients`: who got a campaign, who did not, and why.

use crate::cli::{
    output::{Output, or_dash},
    settings,
};
use anyhow::Context;
use shared::{
    db::campaigns::recipients::{self, Recipient, Wanted},
    domain::campaigns::RecipientState,
};
use std::process::ExitCode;

/// People read, and said, at a time.
const PAGE: usize = 1000;

#[derive(clap::Args, Debug)]
pub(in crate::cli) struct Recipients {
    #[command(flatten)]
    campaign: super::Args,
    /// Only who stands here: skipped, waiting, in_flight, unknown, held, sent, delivered, read, failed or cancelled.
    #[arg(long)]
    state: Option<RecipientState>,
    /// Only whose message has this code, the provider's or ours.
    #[arg(long)]
    code: Option<String>,
}

/// Page after page, as they are read: a line a person, with `--json` an object a line.
pub(super) async fn run(args: Recipients, out: &Output) -> anyhow::Result<ExitCode> {
    let Recipients { campaign: super::Args { id, tenant, database }, state, code } = args;
    let wanted = Wanted { state, code };
    let databases = database.open().await?;
    let tenant = settings::tenant(&databases, &tenant).await?;
    if !out.is_json() {
        out.line(&columns(["CONTACT", "STATE", "CODE", "TRIES", "ADDRESS", "NAME", "WHY"]))?;
    }
    let mut after = None;
    loop {
        let mut tx = databases.tenant(&tenant.placement, tenant.id).await?;
        let found = recipients::list(&mut tx, id, &wanted, after, PAGE).await?;
        tx.commit().await?;
        let found = found.with_context(|| format!("tenant {} has no campaign {id}", tenant.slug))?;
        let lines: Vec<String> = if out.is_json() {
            found.recipients.iter().map(serde_json::to_string).collect::<Result<_, _>>()?
        } else {
            found.recipients.iter().map(line).collect()
        };
        if !lines.is_empty() && !out.is_heard(&lines.join("\n"))? {
            return Ok(ExitCode::SUCCESS);
        }
        after = found.next;
        if after.is_none() {
            return Ok(ExitCode::SUCCESS);
        }
    }
}

fn line(row: &Recipient) -> String {
    let contact = row.contact_id.to_string();
    let (code, attempts) = (or_dash(row.code.as_ref()), row.attempts.to_string());
    let (address, name) = (or_dash(row.address.as_ref()), or_dash(row.name.as_ref()));
    let why = or_dash(row.reason.as_ref());
    columns([&contact, &row.state, &code, &attempts, &address, &name, &why])
}

/// Of fixed widths, since how wide the widest will be is known only at the end.
fn columns([contact, state, code, attempts, address, name, why]: [&str; 7]) -> String {
    let line = format!("{contact:<36}  {state:<9}  {code:<13}  {attempts:<5}  {address:<16}  {name:<24}  {why}");
    // What people call themselves is theirs to choose, and is not to steer the terminal.
    line.replace(char::is_control, " ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::domain::ids::ContactId;

    #[test]
    fn a_line_says_who_and_why() {
        let row = Recipient {
            contact_id: ContactId(uuid::Uuid::nil()),
            name: Some("Ada\n".into()),
            address: None,
            state: "skipped".into(),
            code: None,
            reason: Some("no_address".into()),
            attempts: 0,
            message_id: None,
            released_at: None,
            sent_at: None,
            delivered_at: None,
            read_at: None,
            failed_at: None,
        };
        let words = line(&row);
        assert!(!words.contains('\n'), "{words:?}");
        let words: Vec<&str> = words.split_whitespace().collect();
        assert_eq!(words, ["00000000-0000-0000-0000-000000000000", "skipped", "-", "0", "-", "Ada", "no_address"]);
    }
}
