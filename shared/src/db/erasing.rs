//! Erasing a person: words, files, names and addresses are gone; what others count on (messages, sends, people of campaigns) stays as
//! empty rows. Of the names digests are kept with the time, so that what is told of the person from before then, late or played
//! again, is not stored any more. Who writes anew is a new contact.
//!
//! A batch that had found the person before the erasure committed may store something just after it. So who is gone is looked
//! through again for some minutes ([`settle`]): no transaction lasts that long. Files, which programs of the API's role may only
//! read, go then, too. What came in is still in the raw log until that is past its time; it leads to nothing when it is played again.

use super::{
    FleetTx, TenantTx,
    audit::{self, Actor, Entry},
    error::Result,
    merging,
};
use crate::domain::{
    channel::Channel,
    ids::{ContactId, TenantId},
    people::{Alias, AliasKind},
};
use serde_json::json;
use sqlx::PgConnection;
use uuid::Uuid;

/// So many of those who are gone are looked through in one transaction.
const AT_ONCE: i64 = 50;

/// Erases a contact, and those who were merged into it. Whether the tenant has it; erasing it again changes nothing.
///
/// # Errors
/// If the database does not answer.
pub async fn erase(tx: &mut TenantTx, id: ContactId, actor: Actor) -> Result<bool> {
    let tenant_id = tx.tenant_id();
    let rows = sqlx::query!(
        r#"SELECT id AS "id: ContactId", erased_at IS NOT NULL AS "erased!"
        FROM contacts
        WHERE tenant_id = $1 AND (
            merged_into = (SELECT coalesce(merged_into, id) FROM contacts WHERE tenant_id = $1 AND id = $2)
            OR id = (SELECT coalesce(merged_into, id) FROM contacts WHERE tenant_id = $1 AND id = $2)
        )
        ORDER BY id
        FOR UPDATE"#,
        tenant_id.0,
        id.0,
    )
    .fetch_all(tx.conn())
    .await?;
    if rows.is_empty() {
        return Ok(false);
    }
    if rows.iter().all(|row| row.erased) {
        return Ok(true);
    }
    for row in rows {
        forget(tx.conn(), tenant_id, row.id).await?;
        wipe(tx.conn(), tenant_id, row.id).await?;
    }
    let entry = Entry { actor, action: "contact.erased", target_kind: "contact", target_id: id.0, details: json!({}) };
    audit::record(tx, &entry).await?;
    Ok(true)
}

/// Takes a contact's names from it and keeps their digests; nothing is sent to it any more.
async fn forget(conn: &mut PgConnection, tenant_id: TenantId, id: ContactId) -> Result<()> {
    let names = sqlx::query!(
        r#"DELETE FROM contact_aliases WHERE tenant_id = $1 AND contact_id = $2 RETURNING kind AS "kind!", value AS "value!""#,
        tenant_id.0,
        id.0,
    )
    .fetch_all(&mut *conn)
    .await?;
    let phone = sqlx::query_scalar!("SELECT phone FROM contacts WHERE tenant_id = $1 AND id = $2", tenant_id.0, id.0)
        .fetch_one(&mut *conn)
        .await?;
    let aliases =
        names.into_iter().filter_map(|row| Some(Alias { kind: AliasKind::from_name(&row.kind)?, value: row.value }));
    let phone = phone.map(|value| Alias { kind: AliasKind::Phone, value });
    let mut digests: Vec<Vec<u8>> = aliases.chain(phone).map(|alias| alias.digest(tenant_id).to_vec()).collect();
    digests.sort_unstable();
    digests.dedup();
    sqlx::query!(
        "INSERT INTO erased_people AS e (tenant_id, digest, erased_at)
        SELECT $1, digest, clock_timestamp() FROM unnest($2::bytea[]) AS name (digest)
        ORDER BY digest
        ON CONFLICT (tenant_id, digest) DO UPDATE SET erased_at = greatest(e.erased_at, excluded.erased_at)",
        tenant_id.0,
        &digests,
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!(
        "UPDATE contacts
        SET name = NULL, username = NULL, phone = NULL, phone_raw = NULL, named_at = NULL, erased_at = clock_timestamp(),
            gone_at = clock_timestamp()
        WHERE tenant_id = $1 AND id = $2",
        tenant_id.0,
        id.0,
    )
    .execute(&mut *conn)
    .await?;
    let channels: Vec<String> = Channel::ALL.iter().map(|channel| channel.as_str().to_owned()).collect();
    sqlx::query!(
        "INSERT INTO suppressions (tenant_id, contact_id, channel, purpose, state, since, source)
        SELECT $1, $2, channel, 'all', 'opted_out', clock_timestamp(), 'erased' FROM unnest($3::text[]) AS channel
        ORDER BY channel
        ON CONFLICT (tenant_id, contact_id, channel, purpose) DO UPDATE
            SET state = excluded.state, since = excluded.since, source = excluded.source, token_id = NULL, changed_at = clock_timestamp()",
        tenant_id.0,
        id.0,
        &channels,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Empties a contact's conversations, messages and sends. What has not been sent is cancelled.
async fn wipe(conn: &mut PgConnection, tenant_id: TenantId, id: ContactId) -> Result<()> {
    let conversations = sqlx::query_scalar!(
        "SELECT id FROM conversations WHERE tenant_id = $1 AND contact_id = $2 ORDER BY id FOR UPDATE",
        tenant_id.0,
        id.0,
    )
    .fetch_all(&mut *conn)
    .await?;
    if conversations.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "UPDATE conversations
        SET last_message_text = NULL, unread = 0, listed = false, state = 'resolved', resolved_at = coalesce(resolved_at, now())
        WHERE tenant_id = $1 AND id = ANY ($2) AND (last_message_text IS NOT NULL OR unread > 0 OR listed OR state <> 'resolved')",
        tenant_id.0,
        &conversations,
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!(
        "WITH cancelled AS (
            UPDATE sends s
            SET state = CASE WHEN s.possibly_doubled THEN 'held' ELSE 'cancelled' END, wait_reason = NULL, due_at = NULL,
                updated_at = clock_timestamp()
            WHERE s.tenant_id = $1 AND s.conversation_id = ANY ($2) AND s.state IN ('waiting', 'queued')
            RETURNING s.message_id, s.state, s.campaign_id, s.updated_at
        ),
        note AS (
            INSERT INTO trail (tenant_id, message_id, event, at)
            SELECT $1, message_id, state, updated_at FROM cancelled
            ON CONFLICT (tenant_id, message_id, event, at) DO NOTHING
        )
        UPDATE campaign_counts n
        SET in_flight = n.in_flight - c.cancelled - c.held, cancelled = n.cancelled + c.cancelled, held = n.held + c.held
        FROM (
            SELECT campaign_id, count(*) FILTER (WHERE state = 'cancelled') AS cancelled, count(*) FILTER (WHERE state = 'held') AS held
            FROM cancelled
            WHERE campaign_id IS NOT NULL
            GROUP BY 1
            ORDER BY 1
        ) AS c
        WHERE n.tenant_id = $1 AND n.campaign_id = c.campaign_id",
        tenant_id.0,
        &conversations,
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!(
        "UPDATE sends SET recipient = '' WHERE tenant_id = $1 AND conversation_id = ANY ($2) AND recipient <> ''",
        tenant_id.0,
        &conversations,
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!(
        "UPDATE messages
        SET text = NULL, content = '{}', media = NULL
        WHERE tenant_id = $1 AND conversation_id = ANY ($2) AND (text IS NOT NULL OR content <> '{}' OR media IS NOT NULL)",
        tenant_id.0,
        &conversations,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Looks once more through contacts that are gone since a few minutes: what was still added to them is erased, or moved to who they
/// were merged into; and their files go. How many.
///
/// # Errors
/// If the database does not answer.
pub async fn settle(tx: &mut FleetTx) -> Result<usize> {
    let gone = sqlx::query!(
        r#"SELECT tenant_id AS "tenant_id: TenantId", id AS "id: ContactId", merged_into AS "merged_into: ContactId",
            erased_at IS NOT NULL AS "erased!"
        FROM contacts
        WHERE gone_at > now() - interval '10 minutes'
        ORDER BY gone_at DESC
        LIMIT $1"#,
        AT_ONCE,
    )
    .fetch_all(tx.conn())
    .await?;
    for row in &gone {
        match row.merged_into {
            _ if row.erased => {
                wipe(tx.conn(), row.tenant_id, row.id).await?;
                let_go_of_files(tx.conn(), row.tenant_id.0, row.id.0).await?;
            }
            Some(winner) => merging::again(tx.conn(), row.tenant_id, winner, row.id).await?,
            None => {}
        }
    }
    Ok(gone.len())
}

async fn let_go_of_files(conn: &mut PgConnection, tenant_id: Uuid, id: Uuid) -> Result<()> {
    sqlx::query!(
        "DELETE FROM media
        WHERE tenant_id = $1 AND message_id IN (
            SELECT m.id
            FROM conversations v
            JOIN messages m ON m.tenant_id = $1 AND m.conversation_id = v.id
            WHERE v.tenant_id = $1 AND v.contact_id = $2
        )",
        tenant_id,
        id,
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!("DELETE FROM contact_profiles WHERE tenant_id = $1 AND contact_id = $2", tenant_id, id)
        .execute(conn)
        .await?;
    Ok(())
}
