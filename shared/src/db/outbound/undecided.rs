//! Sends of which nobody knows whether they arrived: listed, and taken off the list when they are settled.

use crate::{
    db::{
        error::Result,
        retention::Removed,
        scope::{FleetTx, TenantTx},
    },
    domain::ids::{ChannelAccountId, ConversationId, MessageId},
};
use chrono::{DateTime, Utc};

/// A send of which nobody knows whether it arrived.
#[derive(Clone, Debug)]
pub struct Undecided {
    /// Its message.
    pub message_id: MessageId,
    /// In which conversation.
    pub conversation_id: ConversationId,
    /// From which account.
    pub channel_account_id: ChannelAccountId,
    /// unknown (evidence may still come) or held (a person has to decide).
    pub state: String,
    /// Since when.
    pub since: DateTime<Utc>,
    /// What happened.
    pub reason: Option<String>,
    /// The message's words.
    pub text: Option<String>,
    /// Whether it may have arrived twice.
    pub possibly_doubled: bool,
}

/// Those of a tenant, the oldest first, after `after`; only in this state, only of this account, if that is asked for.
///
/// # Errors
/// If the database does not answer.
pub async fn list(
    tx: &mut TenantTx,
    state: Option<&str>,
    account: Option<ChannelAccountId>,
    after: Option<(DateTime<Utc>, MessageId)>,
    limit: i64,
) -> Result<Vec<Undecided>> {
    let tenant_id = tx.tenant_id();
    let rows = sqlx::query_as!(
        Undecided,
        r#"SELECT u.message_id AS "message_id: MessageId", s.conversation_id AS "conversation_id: ConversationId",
            u.channel_account_id AS "channel_account_id: ChannelAccountId", s.state, u.since, s.reason, m.text, s.possibly_doubled
        FROM undecided u
        JOIN sends s ON s.tenant_id = u.tenant_id AND s.message_id = u.message_id
        JOIN messages m ON m.tenant_id = u.tenant_id AND m.id = u.message_id
        WHERE u.tenant_id = $1 AND s.state IN ('unknown', 'held')
            AND ($2::text IS NULL OR s.state = $2) AND ($3::uuid IS NULL OR u.channel_account_id = $3)
            AND (u.since, u.message_id) > (coalesce($4, '-infinity'::timestamptz), coalesce($5, '00000000-0000-0000-0000-000000000000'::uuid))
        ORDER BY u.since, u.message_id
        LIMIT $6"#,
        tenant_id.0,
        state,
        account.map(|id| id.0),
        after.map(|(at, _)| at),
        after.map(|(_, id)| id.0),
        limit,
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(rows)
}

/// So many rows go in one call.
const AT_ONCE: u32 = 5_000;

/// Takes what is settled for good off the list of the tenants in scope. How many there were. What is to be sent again stays: it may
/// end undecided once more, also by what does not write to the list.
///
/// # Errors
/// If the database does not answer.
pub async fn forget_settled(tx: &mut FleetTx) -> Result<Removed> {
    let done = sqlx::query!(
        "DELETE FROM undecided
        WHERE (tenant_id, message_id) IN (
            SELECT u.tenant_id, u.message_id
            FROM undecided u
            JOIN sends s ON s.tenant_id = u.tenant_id AND s.message_id = u.message_id
            WHERE s.state IN ('sent', 'delivered', 'read', 'failed', 'cancelled')
            LIMIT $1
        )",
        i64::from(AT_ONCE),
    )
    .execute(tx.conn())
    .await?;
    Ok(Removed::of_at_most(AT_ONCE, done.rows_affected()))
}
