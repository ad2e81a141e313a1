//! `mijra contacts` about one person: what they want, whom they are the same as, and their erasure.

use super::super::{
    output::{Output, or_dash},
    settings::{self, Database},
};
use serde::Serialize;
use shared::{
    db::{
        self, TenantTx,
        audit::Actor,
        erasing,
        merging::{self, Merged},
        suppressions,
    },
    domain::{
        channel::Channel,
        consent::{Consent, Purpose},
        ids::ContactId,
        tenants::Slug,
    },
};
use std::process::ExitCode;

/// Batches of webhooks may be at the same people; the next try waits for them.
const TRIES: usize = 3;

#[derive(clap::Args, Debug)]
pub(in crate::cli) struct Who {
    /// The contact's id.
    id: ContactId,
    /// Whose contact.
    #[arg(long)]
    tenant: Slug,
    #[command(flatten)]
    database: Database,
}

#[derive(clap::Args, Debug)]
pub(in crate::cli) struct Opt {
    #[command(flatten)]
    who: Who,
    /// whatsapp, messenger, instagram or sms.
    #[arg(long, value_parser = channel)]
    channel: Channel,
    /// marketing (campaigns) or all (agents' answers, too).
    #[arg(long, value_parser = purpose, default_value = "marketing")]
    purpose: Purpose,
}

#[derive(clap::Args, Debug)]
pub(in crate::cli) struct Merge {
    #[command(flatten)]
    who: Who,
    /// All that this contact has becomes the other's, and its id answers with the other.
    #[arg(long)]
    other: ContactId,
}

#[derive(Serialize)]
struct Row {
    channel: String,
    purpose: String,
    state: String,
    since: chrono::DateTime<chrono::Utc>,
    source: String,
    token_id: Option<uuid::Uuid>,
}

fn channel(text: &str) -> Result<Channel, String> {
    let names = || Channel::ALL.iter().map(|channel| channel.as_str()).collect::<Vec<_>>().join(", ");
    Channel::from_name(text).ok_or_else(|| format!("must be one of {}", names()))
}

fn purpose(text: &str) -> Result<Purpose, String> {
    let names = || Purpose::ALL.iter().map(|purpose| purpose.as_str()).collect::<Vec<_>>().join(", ");
    Purpose::from_name(text).ok_or_else(|| format!("must be one of {}", names()))
}

impl Who {
    async fn begin(&self) -> anyhow::Result<TenantTx> {
        let databases = self.database.open().await?;
        let tenant = settings::tenant(&databases, self.tenant.as_str()).await?;
        Ok(databases.tenant(&tenant.placement, tenant.id).await?)
    }

    fn nobody(&self, id: ContactId) -> anyhow::Error {
        anyhow::anyhow!("{} has no contact {id}, or not any more", self.tenant.as_str())
    }

    /// The contact, or who it was merged into.
    async fn found(&self, tx: &mut TenantTx) -> anyhow::Result<ContactId> {
        Ok(db::contacts::find(tx, self.id).await?.ok_or_else(|| self.nobody(self.id))?.id)
    }
}

pub(in crate::cli) async fn suppressions(who: &Who, out: &Output) -> anyhow::Result<ExitCode> {
    let mut tx = who.begin().await?;
    let id = who.found(&mut tx).await?;
    let rows = suppressions::list(&mut tx, id).await?;
    tx.commit().await?;
    let row = |s: suppressions::Suppression| Row {
        channel: s.channel,
        purpose: s.purpose,
        state: s.state,
        since: s.since,
        source: s.source,
        token_id: s.token_id,
    };
    let rows: Vec<Row> = rows.into_iter().map(row).collect();
    out.list(&rows, &["channel", "purpose", "state", "since", "how", "token"], |row| {
        let since = row.since.format("%Y-%m-%d %H:%M:%S").to_string();
        let how = row.source.clone();
        vec![row.channel.clone(), row.purpose.clone(), row.state.clone(), since, how, or_dash(row.token_id)]
    })?;
    Ok(ExitCode::SUCCESS)
}

pub(in crate::cli) async fn opt(args: &Opt, consent: Consent, out: &Output) -> anyhow::Result<ExitCode> {
    let Opt { who, channel, purpose } = args;
    let mut tx = who.begin().await?;
    let id = who.found(&mut tx).await?;
    let changed = suppressions::set_by_hand(&mut tx, id, *channel, *purpose, consent, Actor::Operator).await?;
    tx.commit().await?;
    let now = consent.as_str().replace('_', " ");
    let text = if changed { format!("{id} is {now} on {channel} now") } else { format!("{id} was {now} already") };
    out.say(&serde_json::json!({ "changed": changed }), &text)?;
    Ok(ExitCode::SUCCESS)
}

pub(in crate::cli) async fn merge(args: &Merge, out: &Output) -> anyhow::Result<ExitCode> {
    let Merge { who, other } = args;
    for tried in 1.. {
        let mut tx = who.begin().await?;
        let winner = match merging::merge(&mut tx, who.id, *other, Actor::Operator).await {
            Ok(Merged::Into(winner) | Merged::Already(winner)) => winner,
            Ok(Merged::NoSuchContact(unknown)) => return Err(who.nobody(unknown)),
            Ok(Merged::TooMuch) => {
                anyhow::bail!(
                    "both have open conversations with too many messages to be moved at once: resolve one of them first"
                )
            }
            Err(error) if error.kind() == db::Kind::Contention && tried < TRIES => continue,
            Err(error) => return Err(error.into()),
        };
        tx.commit().await?;
        out.say(&serde_json::json!({ "id": winner }), &format!("{other} and {winner} are one: {winner}"))?;
        break;
    }
    Ok(ExitCode::SUCCESS)
}

pub(in crate::cli) async fn erase(who: &Who, out: &Output) -> anyhow::Result<ExitCode> {
    for tried in 1.. {
        let mut tx = who.begin().await?;
        match erasing::erase(&mut tx, who.id, Actor::Operator).await {
            Ok(true) => drop(tx.commit().await?),
            Ok(false) => return Err(who.nobody(who.id)),
            Err(error) if error.kind() == db::Kind::Contention && tried < TRIES => continue,
            Err(error) => return Err(error.into()),
        }
        out.say(&serde_json::json!({ "erased": true }), "erased; files go within minutes")?;
        break;
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_and_a_purpose_are_named() {
        assert_eq!(channel("sms"), Ok(Channel::Sms));
        assert!(channel("pigeon").unwrap_err().contains("whatsapp, messenger, instagram, sms"));
        assert_eq!(purpose("all"), Ok(Purpose::All));
        assert!(purpose("").unwrap_err().contains("marketing, all"));
    }
}
