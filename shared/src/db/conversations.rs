//! Conversations, as the API lists, finds and makes them. (What a webhook does to them is written by `inbound`.)

use super::{
    TenantTx,
    error::{Error, Result},
};
use crate::domain::{
    channel::{Channel, Provider},
    ids::{ChannelAccountId, ContactId, ConversationId, TenantId},
    people::Address,
};
use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

/// A conversation as the inbox shows it.
#[derive(Clone, Debug)]
pub struct Conversation {
    /// Its id.
    pub id: ConversationId,
    /// With whom.
    pub contact_id: ContactId,
    /// The person's name, if known.
    pub contact_name: Option<String>,
    /// The person's number, if known.
    pub contact_phone: Option<String>,
    /// Over which account.
    pub channel_account_id: ChannelAccountId,
    /// new, open, pending, snoozed, resolved.
    pub state: String,
    /// inbound, agent, campaign.
    pub origin: String,
    /// Messages of the customer that nobody has read.
    pub unread: i32,
    /// Messages from the customer.
    pub messages_in: i32,
    /// Messages to the customer.
    pub messages_out: i32,
    /// When the last message was.
    pub last_message_at: DateTime<Utc>,
    /// Its words.
    pub last_message_text: Option<String>,
    /// in or out.
    pub last_message_direction: String,
    /// Free words may be sent until then.
    pub window_expires_at: Option<DateTime<Utc>>,
    /// When it was resolved, if it is.
    pub resolved_at: Option<DateTime<Utc>>,
    /// Since when.
    pub created_at: DateTime<Utc>,
    /// At which provider its account is.
    pub provider: String,
    /// On which channel.
    pub channel: String,
}

impl Conversation {
    /// Whether anything may be sent at a time, and not only what opens a window: there are channels, and gateways, that know none.
    pub fn is_open(&self, now: DateTime<Utc>) -> bool {
        let has_window = self.provider.parse().is_ok_and(Provider::has_window)
            && Channel::from_name(&self.channel).is_some_and(|channel| channel.window().is_some());
        !has_window || self.window_expires_at.is_some_and(|expires_at| now < expires_at)
    }
}

/// Which conversations to list.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Only in this state.
    pub state: Option<&'static str>,
    /// Only over this account.
    pub channel_account_id: Option<ChannelAccountId>,
    /// Only with this contact.
    pub contact_id: Option<ContactId>,
    /// Only with (or only without) unread messages.
    pub unread: Option<bool>,
}

/// A conversation locked for sending into it, with what must be known to do so.
#[derive(Clone, Debug)]
pub struct Locked {
    /// Which.
    pub id: ConversationId,
    /// With whom.
    pub contact_id: ContactId,
    /// Over which account.
    pub channel_account_id: ChannelAccountId,
    /// Free words may be sent until then.
    pub window_expires_at: Option<DateTime<Utc>>,
    /// active, down, disabled.
    pub account_state: String,
    /// At which provider the account is.
    pub provider: String,
    /// How a gateway is called.
    pub gateway: Option<serde_json::Value>,
    /// On which channel it is.
    pub channel: Channel,
    /// Whether the person wants nothing at all on this channel.
    pub opted_out: bool,
    /// When its templates were last fetched from the provider.
    pub templates_synced_at: Option<DateTime<Utc>>,
    /// Whether its app may send a person's answers for seven days.
    pub human_agent: bool,
    /// How the provider can reach the person, if it can.
    pub address: Option<Address>,
}

/// A page of listed conversations, the latest message first, below `before`.
///
/// # Errors
/// If the database does not answer.
pub async fn list(
    tx: &mut TenantTx,
    filter: &Filter,
    before: Option<(DateTime<Utc>, ConversationId)>,
    limit: i64,
) -> Result<Vec<Conversation>> {
    let tenant_id = tx.tenant_id();
    let conversations = sqlx::query_as!(
        Conversation,
        r#"SELECT v.id AS "id: ConversationId", v.contact_id AS "contact_id: ContactId",
            p.name AS contact_name, p.phone AS contact_phone,
            v.channel_account_id AS "channel_account_id: ChannelAccountId", v.state, v.origin,
            v.unread, v.messages_in, v.messages_out, v.last_message_at, v.last_message_text, v.last_message_direction,
            v.window_expires_at, v.resolved_at, v.created_at, a.provider, a.channel AS "channel!"
        FROM conversations v
        JOIN contacts p ON p.tenant_id = v.tenant_id AND p.id = v.contact_id
        JOIN channel_accounts a ON a.tenant_id = v.tenant_id AND a.id = v.channel_account_id
        WHERE v.tenant_id = $1
            AND v.listed
            AND (v.last_message_at, v.id)
                < (COALESCE($2, 'infinity'::timestamptz), COALESCE($3, 'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid))
            AND ($4::text IS NULL OR v.state = $4)
            AND ($5::uuid IS NULL OR v.channel_account_id = $5)
            AND ($6::uuid IS NULL OR v.contact_id = $6)
            AND ($7::boolean IS NULL OR (v.unread > 0) = $7)
        ORDER BY v.last_message_at DESC, v.id DESC
        LIMIT $8"#,
        tenant_id.0,
        before.map(|(at, _)| at),
        before.map(|(_, id)| id.0),
        filter.state,
        filter.channel_account_id.map(|id| id.0),
        filter.contact_id.map(|id| id.0),
        filter.unread,
        limit,
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(conversations)
}

/// One conversation, listed or not.
///
/// # Errors
/// If the database does not answer.
pub async fn find(tx: &mut TenantTx, id: ConversationId) -> Result<Option<Conversation>> {
    let tenant_id = tx.tenant_id();
    let conversation = sqlx::query_as!(
        Conversation,
        r#"SELECT v.id AS "id: ConversationId", v.contact_id AS "contact_id: ContactId",
            p.name AS contact_name, p.phone AS contact_phone,
            v.channel_account_id AS "channel_account_id: ChannelAccountId", v.state, v.origin,
            v.unread, v.messages_in, v.messages_out, v.last_message_at, v.last_message_text, v.last_message_direction,
            v.window_expires_at, v.resolved_at, v.created_at, a.provider, a.channel AS "channel!"
        FROM conversations v
        JOIN contacts p ON p.tenant_id = v.tenant_id AND p.id = v.contact_id
        JOIN channel_accounts a ON a.tenant_id = v.tenant_id AND a.id = v.channel_account_id
        WHERE v.tenant_id = $1
            AND v.id = (SELECT coalesce(merged_into, id) FROM conversations WHERE tenant_id = $1 AND id = $2)"#,
        tenant_id.0,
        id.0,
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(conversation)
}

/// Says that nothing of a conversation is unread any more. Whether there is such a conversation.
///
/// # Errors
/// If the database does not answer.
pub async fn mark_read(tx: &mut TenantTx, id: ConversationId) -> Result<bool> {
    let tenant_id = tx.tenant_id();
    let done = sqlx::query!(
        "UPDATE conversations
        SET unread = 0
        WHERE tenant_id = $1 AND id = (SELECT coalesce(merged_into, id) FROM conversations WHERE tenant_id = $1 AND id = $2)",
        tenant_id.0,
        id.0,
    )
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Locks a conversation until this transaction ends: sends into it are accepted one after another.
///
/// # Errors
/// If the database does not answer.
pub async fn lock(tx: &mut TenantTx, id: ConversationId) -> Result<Option<Locked>> {
    // It may be folded into another while it is waited for, and that again.
    let mut id = id;
    for _ in 0..3 {
        match lock_once(tx, id).await? {
            Some((_, Some(into))) => id = into,
            locked => return Ok(locked.map(|(locked, _)| locked)),
        }
    }
    Err(Error::contention("folding a conversation again and again"))
}

async fn lock_once(tx: &mut TenantTx, id: ConversationId) -> Result<Option<(Locked, Option<ConversationId>)>> {
    let tenant_id = tx.tenant_id();
    let row = sqlx::query!(
        r#"SELECT v.id AS "id: ConversationId", v.merged_into AS "merged_into: ConversationId", v.contact_id AS "contact_id: ContactId",
            v.channel_account_id AS "channel_account_id: ChannelAccountId", v.window_expires_at,
            a.state AS account_state, a.provider, a.gateway, a.channel AS "channel!", a.templates_synced_at,
            EXISTS (
                SELECT FROM suppressions s
                WHERE s.tenant_id = v.tenant_id AND s.contact_id = v.contact_id AND s.channel = a.channel AND s.purpose = 'all'
                    AND s.state = 'opted_out'
            ) AS "opted_out!",
            a.human_agent, reach.kind AS "reach_kind?", reach.address AS "reach_address?"
        FROM conversations v
        JOIN channel_accounts a ON a.tenant_id = v.tenant_id AND a.id = v.channel_account_id
        LEFT JOIN LATERAL address_of(v.tenant_id, v.contact_id, a.id, a.channel) AS reach ON true
        WHERE v.tenant_id = $1
            -- What was folded into another is there.
            AND v.id = (SELECT coalesce(merged_into, id) FROM conversations WHERE tenant_id = $1 AND id = $2)
        FOR UPDATE OF v"#,
        tenant_id.0,
        id.0,
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(row.map(|row| {
        let locked = Locked {
            id: row.id,
            contact_id: row.contact_id,
            channel_account_id: row.channel_account_id,
            window_expires_at: row.window_expires_at,
            account_state: row.account_state,
            channel: Channel::from_name(&row.channel).unwrap_or(Channel::Whatsapp),
            provider: row.provider,
            gateway: row.gateway,
            opted_out: row.opted_out,
            templates_synced_at: row.templates_synced_at,
            human_agent: row.human_agent,
            address: Address::from_row(row.reach_kind.as_deref(), row.reach_address),
        };
        (locked, row.merged_into)
    }))
}

/// The conversations of contacts, by the two indexes there are: one for those that are open and one for the others.
pub(super) async fn of_contacts(conn: &mut PgConnection, tenant_id: TenantId, contacts: &[Uuid]) -> Result<Vec<Uuid>> {
    let ids = sqlx::query_scalar!(
        r#"SELECT id AS "id!" FROM conversations WHERE tenant_id = $1 AND contact_id = ANY ($2) AND state <> 'resolved'
        UNION ALL
        SELECT id FROM conversations WHERE tenant_id = $1 AND contact_id = ANY ($2) AND state = 'resolved'"#,
        tenant_id.0,
        contacts,
    )
    .fetch_all(conn)
    .await?;
    Ok(ids)
}

/// The conversation in which an agent's message to a contact goes: the open one; else one resolved as recently as a
/// customer's message would still reopen it, reopened; else a new one, which inherits the window, because the provider counts
/// that per number and person. `None` if the tenant has no such contact or no such account.
///
/// # Errors
/// If the database does not answer; contention if another made one at the same time.
pub async fn find_or_create(
    tx: &mut TenantTx,
    contact_id: ContactId,
    channel_account_id: ChannelAccountId,
) -> Result<Option<ConversationId>> {
    let tenant_id = tx.tenant_id();
    // Who was merged is who stayed, until this transaction ends; who was erased is nobody.
    let contact_id = sqlx::query_scalar!(
        r#"SELECT id AS "id: ContactId"
        FROM contacts
        WHERE tenant_id = $1 AND erased_at IS NULL
            AND id = (SELECT coalesce(merged_into, id) FROM contacts WHERE tenant_id = $1 AND id = $2)
        FOR KEY SHARE"#,
        tenant_id.0,
        contact_id.0,
    )
    .fetch_optional(tx.conn())
    .await?;
    let Some(contact_id) = contact_id else { return Ok(None) };
    let found = sqlx::query!(
        r#"SELECT v.id AS "id: ConversationId", v.state
        FROM conversations v
        WHERE v.tenant_id = $1
            AND v.contact_id = $2
            AND v.channel_account_id = $3
            AND (
                v.state <> 'resolved'
                OR v.resolved_at > now() - COALESCE(
                    (SELECT reopen_within FROM tenant_settings WHERE tenant_id = $1), interval '7 days')
            )
        ORDER BY v.state = 'resolved', v.resolved_at DESC
        LIMIT 1
        FOR UPDATE OF v"#,
        tenant_id.0,
        contact_id.0,
        channel_account_id.0,
    )
    .fetch_optional(tx.conn())
    .await?;
    if let Some(found) = found {
        if found.state == "resolved" {
            sqlx::query!(
                "UPDATE conversations SET state = 'open', resolved_at = NULL, listed = true WHERE tenant_id = $1 AND id = $2",
                tenant_id.0,
                found.id.0,
            )
            .execute(tx.conn())
            .await?;
        }
        return Ok(Some(found.id));
    }
    let created = sqlx::query_scalar!(
        r#"INSERT INTO conversations (tenant_id, id, contact_id, channel_account_id, state, origin,
            last_message_at, last_message_direction, last_inbound_at, window_expires_at)
        SELECT $1, $2, p.id, a.id, 'open', 'agent', now(), 'out', earlier.last_inbound_at, earlier.window_expires_at
        FROM contacts p
        JOIN channel_accounts a ON a.tenant_id = p.tenant_id AND a.id = $4
        CROSS JOIN LATERAL (
            SELECT max(last_inbound_at) AS last_inbound_at, max(window_expires_at) AS window_expires_at
            FROM conversations
            WHERE tenant_id = $1 AND contact_id = $3 AND channel_account_id = $4 AND state = 'resolved'
        ) earlier
        WHERE p.tenant_id = $1 AND p.id = $3
        RETURNING id AS "id: ConversationId""#,
        tenant_id.0,
        ConversationId::new().0,
        contact_id.0,
        channel_account_id.0,
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(created)
}
