//! Messages of a batch: stored once, and then immutable, but that what is taken back is gone.

use crate::{
    db::{
        error::{Error, Result},
        scope::FleetTx,
    },
    domain::{
        ids::{ChannelAccountId, ContactId, ConversationId, MessageId, TenantId},
        messages::{Direction, MediaRef, MessageKind},
    },
};
use chrono::{DateTime, Utc};
use uuid::Uuid;

/// One message to be stored.
#[derive(Debug)]
pub struct NewMessage<'a> {
    /// Whose.
    pub tenant_id: TenantId,
    /// Our id.
    pub id: MessageId,
    /// Who said it, or to whom it was said.
    pub contact_id: ContactId,
    /// Where it belongs.
    pub conversation_id: ConversationId,
    /// From the contact, or to them.
    pub direction: Direction,
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

/// Stores messages, whose conversations are locked.
///
/// # Errors
/// If the database does not answer, or a row is not fit to be stored. Contention if one of the people was erased since they were found:
/// what they say now is said by somebody else.
pub async fn insert(tx: &mut FleetTx, messages: &[NewMessage<'_>]) -> Result<()> {
    if messages.is_empty() {
        return Ok(());
    }
    let tenants: Vec<Uuid> = messages.iter().map(|m| m.tenant_id.0).collect();
    let ids: Vec<Uuid> = messages.iter().map(|m| m.id.0).collect();
    let contacts: Vec<Uuid> = messages.iter().map(|m| m.contact_id.0).collect();
    let conversations: Vec<Uuid> = messages.iter().map(|m| m.conversation_id.0).collect();
    let directions: Vec<String> = messages.iter().map(|m| m.direction.as_str().to_owned()).collect();
    let kinds: Vec<String> = messages.iter().map(|m| m.kind.as_str().to_owned()).collect();
    let texts: Vec<Option<String>> = messages.iter().map(|m| m.text.map(str::to_owned)).collect();
    let contents: Vec<String> = messages.iter().map(|m| m.content.to_owned()).collect();
    let media: Vec<Option<String>> = messages.iter().map(|m| media_json(m.media)).collect();
    let refers_to: Vec<Option<String>> = messages.iter().map(|m| m.refers_to.map(str::to_owned)).collect();
    let provider_ids: Vec<String> = messages.iter().map(|m| m.provider_message_id.to_owned()).collect();
    let times: Vec<DateTime<Utc>> = messages.iter().map(|m| m.at).collect();
    let is_erased = sqlx::query_scalar!(
        r#"WITH new AS (
            INSERT INTO messages
                (tenant_id, id, conversation_id, direction, kind, text, content, media, refers_to, provider_message_id, at)
            SELECT tenant_id, id, conversation_id, direction, kind, text, content::jsonb, media::jsonb, refers_to, provider_message_id, at
            FROM unnest(
                $1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[],
                $10::timestamptz[], $11::text[]
            ) AS m (tenant_id, id, conversation_id, kind, text, content, media, refers_to, provider_message_id, at, direction)
            -- Two replays may restore the same one.
            ON CONFLICT (tenant_id, id) DO NOTHING
        )
        SELECT EXISTS (
            SELECT
            FROM unnest($1::uuid[], $12::uuid[]) AS m (tenant_id, contact_id)
            CROSS JOIN LATERAL (
                SELECT erased_at FROM contacts WHERE tenant_id = m.tenant_id AND id = m.contact_id LIMIT 1
            ) AS who
            WHERE who.erased_at IS NOT NULL
        ) AS "is_erased!""#,
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
        &directions,
        &contacts,
    )
    .fetch_one(tx.conn())
    .await?;
    if is_erased {
        return Err(Error::contention("storing what somebody said who was erased meanwhile"));
    }
    Ok(())
}

/// A message that was taken back.
#[derive(Clone, Debug)]
pub struct Erased {
    /// Whose.
    pub tenant_id: TenantId,
    /// On which account.
    pub channel_account_id: ChannelAccountId,
    /// Our id of it; it may never have come, and edits of it may.
    pub message_id: Option<MessageId>,
    /// The provider's id of it.
    pub provider_message_id: String,
}

/// Erases what messages said, that somebody has taken back, and what their edits said: words, the provider's element and files. The
/// rows remain, with their kind; and only those of this direction are touched, for nobody takes back what another said.
///
/// # Errors
/// If the database does not answer.
pub async fn erase(tx: &mut FleetTx, messages: &[Erased], direction: Direction) -> Result<()> {
    if messages.is_empty() {
        return Ok(());
    }
    let tenants: Vec<Uuid> = messages.iter().map(|m| m.tenant_id.0).collect();
    let accounts: Vec<Uuid> = messages.iter().map(|m| m.channel_account_id.0).collect();
    let ids: Vec<Option<Uuid>> = messages.iter().map(|m| m.message_id.map(|id| id.0)).collect();
    let provider_ids: Vec<String> = messages.iter().map(|m| m.provider_message_id.clone()).collect();
    let erased = sqlx::query!(
        "WITH asked AS MATERIALIZED (
            SELECT *
            FROM unnest($1::uuid[], $2::uuid[], $4::text[], $5::uuid[]) AS asked (tenant_id, id, provider_message_id, account_id)
        ),
        taken_back AS MATERIALIZED (
            SELECT tenant_id, id FROM asked WHERE id IS NOT NULL
            UNION
            SELECT asked.tenant_id, edit.id
            FROM asked
            CROSS JOIN LATERAL (
                SELECT id, conversation_id
                FROM messages
                WHERE tenant_id = asked.tenant_id AND refers_to = asked.provider_message_id AND kind = 'edit'
                OFFSET 0
            ) AS edit
            -- Ids are unique within an account.
            CROSS JOIN LATERAL (
                SELECT channel_account_id
                FROM conversations
                WHERE tenant_id = asked.tenant_id AND id = edit.conversation_id
                LIMIT 1
            ) AS v
            WHERE v.channel_account_id = asked.account_id
        )
        UPDATE messages m
        SET text = NULL, content = '{}', media = NULL
        FROM taken_back
        WHERE m.tenant_id = taken_back.tenant_id AND m.id = taken_back.id AND m.direction = $3
        RETURNING m.tenant_id, m.id, m.conversation_id, m.at",
        &tenants,
        &ids as &[Option<Uuid>],
        direction.as_str(),
        &provider_ids,
        &accounts,
    )
    .fetch_all(tx.conn())
    .await?;
    if erased.is_empty() {
        return Ok(());
    }
    let tenants: Vec<Uuid> = erased.iter().map(|row| row.tenant_id).collect();
    let ids: Vec<Uuid> = erased.iter().map(|row| row.id).collect();
    let conversations: Vec<Uuid> = erased.iter().map(|row| row.conversation_id).collect();
    let times: Vec<DateTime<Utc>> = erased.iter().map(|row| row.at).collect();
    sqlx::query!(
        "DELETE FROM media m
        USING unnest($1::uuid[], $2::uuid[]) AS taken_back (tenant_id, message_id)
        WHERE m.tenant_id = taken_back.tenant_id AND m.message_id = taken_back.message_id",
        &tenants,
        &ids,
    )
    .execute(tx.conn())
    .await?;
    // Of the last message the words are shown in a list.
    sqlx::query!(
        "WITH shown AS MATERIALIZED (
            SELECT c.tenant_id, c.id
            FROM unnest($1::uuid[], $2::uuid[], $3::timestamptz[]) AS taken_back (tenant_id, id, at)
            JOIN conversations c ON c.tenant_id = taken_back.tenant_id AND c.id = taken_back.id
            WHERE c.last_message_at = taken_back.at AND c.last_message_direction = $4
            ORDER BY c.tenant_id, c.id
            FOR UPDATE OF c
        )
        UPDATE conversations c
        SET last_message_text = NULL
        FROM shown
        WHERE c.tenant_id = shown.tenant_id AND c.id = shown.id",
        &tenants,
        &conversations,
        &times,
        direction.as_str(),
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Removes messages that were stored because of an echo and are sends of ours, as has turned out: each is there as such.
///
/// # Errors
/// If the database does not answer.
pub async fn remove_echoes(tx: &mut FleetTx, echoes: &[(TenantId, MessageId)]) -> Result<()> {
    if echoes.is_empty() {
        return Ok(());
    }
    let tenants: Vec<Uuid> = echoes.iter().map(|(tenant_id, _)| tenant_id.0).collect();
    let ids: Vec<Uuid> = echoes.iter().map(|(_, id)| id.0).collect();
    sqlx::query!(
        "WITH removed AS (
            DELETE FROM messages m
            USING unnest($1::uuid[], $2::uuid[]) AS echo (tenant_id, id)
            WHERE m.tenant_id = echo.tenant_id AND m.id = echo.id AND m.direction = 'out'
                AND NOT EXISTS (SELECT FROM sends s WHERE s.tenant_id = m.tenant_id AND s.message_id = m.id)
            RETURNING m.tenant_id, m.conversation_id
        )
        UPDATE conversations c
        SET messages_out = c.messages_out - r.messages
        FROM (SELECT tenant_id, conversation_id, count(*)::int AS messages FROM removed GROUP BY 1, 2 ORDER BY 1, 2) AS r
        WHERE c.tenant_id = r.tenant_id AND c.id = r.conversation_id",
        &tenants,
        &ids,
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Counts the messages of conversations anew, to which a replay has brought some back: what was counted once is not counted twice.
/// The conversations are locked already.
///
/// # Errors
/// If the database does not answer.
pub async fn recount(tx: &mut FleetTx, conversations: &[(TenantId, ConversationId)]) -> Result<()> {
    if conversations.is_empty() {
        return Ok(());
    }
    let tenants: Vec<Uuid> = conversations.iter().map(|(tenant_id, _)| tenant_id.0).collect();
    let ids: Vec<Uuid> = conversations.iter().map(|(_, id)| id.0).collect();
    sqlx::query!(
        "UPDATE conversations c
        SET messages_in = n.messages_in, messages_out = n.messages_out
        FROM unnest($1::uuid[], $2::uuid[]) AS asked (tenant_id, id)
        CROSS JOIN LATERAL (
            SELECT count(*) FILTER (WHERE direction = 'in')::int AS messages_in,
                count(*) FILTER (WHERE direction = 'out')::int AS messages_out
            FROM messages
            WHERE tenant_id = asked.tenant_id AND conversation_id = asked.id
        ) AS n
        WHERE c.tenant_id = asked.tenant_id AND c.id = asked.id",
        &tenants,
        &ids,
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

fn media_json(media: &[MediaRef]) -> Option<String> {
    (!media.is_empty()).then(|| serde_json::to_string(media).expect("plain fields are always JSON"))
}
