//! What is needed to tell a person something beside messages.

use crate::{
    db::{error::Result, scope::FleetTx},
    domain::{
        ids::{ChannelAccountId, ConversationId, TenantId},
        people::Address,
    },
};

/// To whom, from which account, and about what.
#[derive(Clone, Debug)]
pub struct Signalling {
    /// From which account.
    pub account: ChannelAccountId,
    /// The account's revision.
    pub account_revision: i32,
    /// How the person is reached.
    pub address: Address,
    /// The provider's id of the last message that they wrote.
    pub provider_message_id: String,
}

/// What is known of a conversation; `None` if there is nobody to tell or nothing to tell about.
///
/// # Errors
/// If the database does not answer.
pub async fn find(tx: &mut FleetTx, tenant_id: TenantId, id: ConversationId) -> Result<Option<Signalling>> {
    let row = sqlx::query!(
        r#"SELECT v.channel_account_id AS "account: ChannelAccountId", a.revision, reach.kind AS "kind?", reach.address AS "address?",
            last.provider_message_id AS "provider_message_id?"
        FROM conversations v
        JOIN channel_accounts a ON a.tenant_id = v.tenant_id AND a.id = v.channel_account_id AND a.state = 'active'
        LEFT JOIN LATERAL address_of(v.tenant_id, v.contact_id, a.id, a.channel) AS reach ON true
        LEFT JOIN LATERAL (
            SELECT m.provider_message_id
            FROM messages m
            WHERE m.tenant_id = v.tenant_id AND m.conversation_id = v.id AND m.direction = 'in' AND m.provider_message_id IS NOT NULL
            ORDER BY m.at DESC, m.id DESC
            LIMIT 1
        ) AS last ON true
        WHERE v.tenant_id = $1 AND v.id = (SELECT coalesce(merged_into, id) FROM conversations WHERE tenant_id = $1 AND id = $2)"#,
        tenant_id.0,
        id.0,
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(row.and_then(|row| {
        Some(Signalling {
            account: row.account,
            account_revision: row.revision,
            address: Address::from_row(row.kind.as_deref(), row.address)?,
            provider_message_id: row.provider_message_id?,
        })
    }))
}
