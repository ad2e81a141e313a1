//! The people of a campaign, one by one: where each stands, and why.
//!
//! There is no index on where a person stands: it would have to be kept with every message sent, and is read now and then. So a
//! page looks at a bounded number of people, and one that finds few of those wanted says from where to look on.

use crate::{
    db::{TenantTx, error::Result},
    domain::{
        campaigns::RecipientState,
        ids::{CampaignId, ContactId, MessageId},
    },
};
use chrono::{DateTime, Utc};
use serde::Serialize;
use uuid::Uuid;

/// So many people are looked at for a page, as for a step of a retry: some 100 ms.
pub const LOOKED_AT: usize = super::freeze::CHUNK;

/// A person of a campaign.
#[derive(Clone, Debug, Serialize)]
pub struct Recipient {
    /// Who.
    pub contact_id: ContactId,
    /// What they are called.
    pub name: Option<String>,
    /// Where the message went; of who was not written to the number, if there is one.
    pub address: Option<String>,
    /// A [`RecipientState`]; released, if the person's send is missing.
    pub state: String,
    /// The code of the last refusal.
    pub code: Option<String>,
    /// Why they were refused, or skipped.
    pub reason: Option<String>,
    /// How often they were written to.
    pub attempts: i32,
    /// The message, once they are released.
    pub message_id: Option<MessageId>,
    /// When the message was made.
    pub released_at: Option<DateTime<Utc>>,
    /// When the provider took it.
    pub sent_at: Option<DateTime<Utc>>,
    /// When it arrived.
    pub delivered_at: Option<DateTime<Utc>>,
    /// When it was seen.
    pub read_at: Option<DateTime<Utc>>,
    /// When it was refused.
    pub failed_at: Option<DateTime<Utc>>,
}

/// Which people are wanted; all, unless it says more.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Who stands here.
    pub state: Option<RecipientState>,
    /// Whose send has this code.
    pub code: Option<String>,
}

/// A page.
#[derive(Clone, Debug)]
pub struct Found {
    /// The people, in the order of their ids.
    pub recipients: Vec<Recipient>,
    /// After whom to look on; `None`: all have been looked at.
    pub next: Option<ContactId>,
}

/// At most so many of the people wanted, behind `after`; `None` if the tenant has no such campaign. Fewer than asked for, even
/// none, does not mean that there are no more: [`Found::next`] does.
///
/// # Errors
/// If the database does not answer.
pub async fn list(
    tx: &mut TenantTx,
    id: CampaignId,
    wanted: &Wanted,
    after: Option<ContactId>,
    limit: usize,
) -> Result<Option<Found>> {
    let tenant_id = tx.tenant_id();
    let there = sqlx::query_scalar!(
        r#"SELECT true AS "there!" FROM campaigns WHERE tenant_id = $1 AND id = $2"#,
        tenant_id.0,
        id.0
    )
    .fetch_optional(tx.conn())
    .await?;
    if there.is_none() {
        return Ok(None);
    }
    let mut recipients = sqlx::query_file_as!(
        Recipient,
        "src/db/campaigns/recipients.sql",
        tenant_id.0,
        id.0,
        after.map_or(Uuid::nil(), |id| id.0),
        i64::try_from(LOOKED_AT).unwrap_or(i64::MAX),
        wanted.state.map(RecipientState::as_str),
        wanted.code.as_deref(),
        i64::try_from(limit + 1).unwrap_or(i64::MAX),
    )
    .fetch_all(tx.conn())
    .await?;
    let next = if recipients.len() > limit {
        recipients.truncate(limit);
        recipients.last().map(|last| last.contact_id)
    } else {
        last_looked_at(tx, id, after).await?
    };
    Ok(Some(Found { recipients, next }))
}

/// The last of as many people as are looked at; `None` if there are no more than that.
async fn last_looked_at(tx: &mut TenantTx, id: CampaignId, after: Option<ContactId>) -> Result<Option<ContactId>> {
    let tenant_id = tx.tenant_id();
    let last = sqlx::query_scalar!(
        r#"SELECT contact_id AS "contact_id: ContactId"
        FROM campaign_recipients
        WHERE tenant_id = $1 AND campaign_id = $2 AND contact_id > $3
        ORDER BY contact_id
        OFFSET $4
        LIMIT 1"#,
        tenant_id.0,
        id.0,
        after.map_or(Uuid::nil(), |id| id.0),
        i64::try_from(LOOKED_AT - 1).unwrap_or(i64::MAX),
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(last)
}
