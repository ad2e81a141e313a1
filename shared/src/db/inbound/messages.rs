//! Inbound messages: dedupe first, then the rows.

use crate::{
    db::{error::Result, scope::FleetTx},
    domain::{
        ids::{ChannelAccountId, ConversationId, MessageId, TenantId},
        messages::{MediaRef, MessageKind},
    },
};
use chrono::{DateTime, Utc};
use std::collections::HashSet;
use uuid::Uuid;

/// A provider's id of a message and ours for it.
#[derive(Clone, Debug)]
pub struct Ref<'a> {
    /// Whose.
    pub tenant_id: TenantId,
    /// On which account: ids are unique within one.
    pub channel_account_id: ChannelAccountId,
    /// The provider's id.
    pub provider_message_id: &'a str,
    /// Ours, if it is new.
    pub message_id: MessageId,
}

/// Claims the provider's ids. Returns our ids of those that were new; the others have been received before. An id under which
/// only a report waits is new: a report must not swallow a message. No two of the batch may name the same message.
///
/// # Errors
/// If the database does not answer.
pub async fn claim(tx: &mut FleetTx, refs: &[Ref<'_>]) -> Result<HashSet<MessageId>> {
    if refs.is_empty() {
        return Ok(HashSet::new());
    }
    let tenants: Vec<Uuid> = refs.iter().map(|r| r.tenant_id.0).collect();
    let accounts: Vec<Uuid> = refs.iter().map(|r| r.channel_account_id.0).collect();
    let provider_ids: Vec<String> = refs.iter().map(|r| r.provider_message_id.to_owned()).collect();
    let ids: Vec<Uuid> = refs.iter().map(|r| r.message_id.0).collect();
    let new = sqlx::query_scalar!(
        r#"INSERT INTO provider_refs AS ref (tenant_id, channel_account_id, provider_message_id, message_id)
        SELECT tenant_id, channel_account_id, provider_message_id, message_id
        FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::uuid[])
            AS r (tenant_id, channel_account_id, provider_message_id, message_id)
        ORDER BY tenant_id, channel_account_id, provider_message_id
        ON CONFLICT (tenant_id, channel_account_id, provider_message_id) DO UPDATE
        SET message_id = excluded.message_id
        WHERE ref.message_id IS NULL
        RETURNING message_id AS "message_id!""#,
        &tenants,
        &accounts,
        &provider_ids,
        &ids,
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(new.into_iter().map(MessageId).collect())
}

/// One inbound message to be stored.
#[derive(Debug)]
pub struct NewMessage<'a> {
    /// Whose.
    pub tenant_id: TenantId,
    /// Our id.
    pub id: MessageId,
    /// Where it belongs.
    pub conversation_id: ConversationId,
    /// What it is.
    pub kind: MessageKind,
    /// What a person reads.
    pub text: Option<&'a str>,
    /// The provider's element as it came.
    pub content: &'a str,
    /// The files, by reference.
    pub media: &'a [MediaRef],
    /// The provider's id of the message it is about.
    pub refers_to: Option<&'a str>,
    /// The provider's id.
    pub provider_message_id: &'a str,
    /// The provider's time.
    pub at: DateTime<Utc>,
}

/// Stores messages.
///
/// # Errors
/// If the database does not answer, or a row is not fit to be stored.
pub async fn insert(tx: &mut FleetTx, messages: &[NewMessage<'_>]) -> Result<()> {
    if messages.is_empty() {
        return Ok(());
    }
    let tenants: Vec<Uuid> = messages.iter().map(|m| m.tenant_id.0).collect();
    let ids: Vec<Uuid> = messages.iter().map(|m| m.id.0).collect();
    let conversations: Vec<Uuid> = messages.iter().map(|m| m.conversation_id.0).collect();
    let kinds: Vec<String> = messages.iter().map(|m| m.kind.as_str().to_owned()).collect();
    let texts: Vec<Option<String>> = messages.iter().map(|m| m.text.map(str::to_owned)).collect();
    let contents: Vec<String> = messages.iter().map(|m| m.content.to_owned()).collect();
    let media: Vec<Option<String>> = messages.iter().map(|m| media_json(m.media)).collect();
    let refers_to: Vec<Option<String>> = messages.iter().map(|m| m.refers_to.map(str::to_owned)).collect();
    let provider_ids: Vec<String> = messages.iter().map(|m| m.provider_message_id.to_owned()).collect();
    let times: Vec<DateTime<Utc>> = messages.iter().map(|m| m.at).collect();
    sqlx::query!(
        "INSERT INTO messages
            (tenant_id, id, conversation_id, direction, kind, text, content, media, refers_to, provider_message_id, at)
        SELECT tenant_id, id, conversation_id, 'in', kind, text, content::jsonb, media::jsonb, refers_to, provider_message_id, at
        FROM unnest(
            $1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[],
            $10::timestamptz[]
        ) AS m (tenant_id, id, conversation_id, kind, text, content, media, refers_to, provider_message_id, at)",
        &tenants,
        &ids,
        &conversations,
        &kinds,
        &texts as &[Option<String>],
        &contents,
        &media as &[Option<String>],
        &refers_to as &[Option<String>],
        &provider_ids,
        &times,
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

fn media_json(media: &[MediaRef]) -> Option<String> {
    (!media.is_empty()).then(|| serde_json::to_string(media).expect("plain fields are always JSON"))
}
