//! Erasing a person: words, files, names and addresses are gone; what others count on (messages, sends, people of campaigns) stays as
//! empty rows. Of the names digests are kept with the time, so that what is told of the person from before then, late or played
//! again, is not stored any more. Who writes anew is a new contact.
//!
//! A batch that had found the person before the erasure committed may store something just after it. So who is gone is looked
//! through again for some minutes, and once more after them ([`settle`]): no transaction lasts that long. What came in is still in the raw log until that is past its time; it leads to nothing when it is played again.

use super::{
    FleetTx, TenantTx,
    audit::{self, Actor, Entry},
    conversations,
    error::{Error, Result},
    merging,
};
use crate::domain::{
    channel::Channel,
    ids::{ContactId, TenantId},
    people::{Alias, AliasKind},
};
use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use sqlx::PgConnection;
use uuid::Uuid;

/// Erases a contact, and those who were merged into it. Whether the tenant has it; erasing it again changes nothing.
///
/// # Errors
/// If the database does not answer.
pub async fn erase(tx: &mut TenantTx, id: ContactId, actor: Actor) -> Result<bool> {
    let tenant_id = tx.tenant_id();
    let locked = sqlx::query_scalar!(
        r#"SELECT id AS "id: ContactId"
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
    let rows = everybody(tx.conn(), tenant_id, id).await?;
    if !rows.iter().map(|who| who.id).eq(locked) {
        return Err(Error::contention("erasing somebody who was merged meanwhile"));
    }
    if rows.is_empty() {
        return Ok(false);
    }
    if rows.iter().all(|row| row.erased) {
        return Ok(true);
    }
    let ids: Vec<Uuid> = rows.iter().map(|row| row.id.0).collect();
    let opted_out = opted_out(tx.conn(), tenant_id, &ids).await?;
    let mut names = Vec::new();
    for row in &rows {
        names.push(forget(tx.conn(), tenant_id, row.id).await?);
    }
    let conversations = lock(tx.conn(), tenant_id, &ids).await?;
    // Only now: nobody adds anything to their conversations any more, so whatever is wiped was told before. Who adds to them later waits,
    // and finds that they were erased (`inbound::messages::insert`).
    for (row, names) in rows.iter().zip(names) {
        end(tx.conn(), tenant_id, row.id, names, &opted_out).await?;
    }
    wipe(tx.conn(), tenant_id, &ids, &conversations).await?;
    let entry = Entry { actor, action: "contact.erased", target_kind: "contact", target_id: id.0, details: json!({}) };
    audit::record(tx, &entry).await?;
    Ok(true)
}

struct Who {
    id: ContactId,
    erased: bool,
}

/// All contacts that are the person this one is, in order.
async fn everybody(conn: &mut PgConnection, tenant_id: TenantId, id: ContactId) -> Result<Vec<Who>> {
    Ok(sqlx::query_as!(
        Who,
        r#"SELECT id AS "id: ContactId", erased_at IS NOT NULL AS "erased!"
        FROM contacts
        WHERE tenant_id = $1 AND (
            merged_into = (SELECT coalesce(merged_into, id) FROM contacts WHERE tenant_id = $1 AND id = $2)
            OR id = (SELECT coalesce(merged_into, id) FROM contacts WHERE tenant_id = $1 AND id = $2)
        )
        ORDER BY id"#,
        tenant_id.0,
        id.0,
    )
    .fetch_all(conn)
    .await?)
}

/// What a person by all these contacts wants and does not want, with the time since when ([`super::suppressions::Kept`]).
async fn opted_out(conn: &mut PgConnection, tenant_id: TenantId, ids: &[Uuid]) -> Result<Value> {
    Ok(sqlx::query_scalar!(
        r#"SELECT coalesce(
            jsonb_agg(jsonb_build_object('channel', channel, 'purpose', purpose, 'state', state, 'since', since, 'source', source)),
            '[]'
        ) AS "opted_out!"
        FROM (
            SELECT DISTINCT ON (channel, purpose) channel, purpose, state, since, source
            FROM suppressions
            -- That nothing is sent to who was erased is not their word.
            WHERE tenant_id = $1 AND contact_id = ANY ($2) AND source <> 'erased'
            ORDER BY channel, purpose, since DESC, state = 'opted_out' DESC
        ) AS last"#,
        tenant_id.0,
        ids,
    )
    .fetch_one(conn)
    .await?)
}

/// Takes a contact's names from it; nothing is sent to it any more.
async fn forget(conn: &mut PgConnection, tenant_id: TenantId, id: ContactId) -> Result<Vec<Alias>> {
    let names = names(conn, tenant_id, id).await?;
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
    Ok(names)
}

/// From now on a contact is erased. Of its names the digests are kept, with what the person had opted out of.
async fn end(
    conn: &mut PgConnection,
    tenant_id: TenantId,
    id: ContactId,
    names: Vec<Alias>,
    opted_out: &Value,
) -> Result<()> {
    sqlx::query!(
        "UPDATE contacts
        SET name = NULL, username = NULL, phone = NULL, phone_raw = NULL, named_at = NULL, language = NULL, erased_at = clock_timestamp(),
            gone_at = clock_timestamp(), settle_at = clock_timestamp()
        WHERE tenant_id = $1 AND id = $2 AND erased_at IS NULL",
        tenant_id.0,
        id.0,
    )
    .execute(&mut *conn)
    .await?;
    keep_digests(conn, tenant_id, id, names, Some(opted_out)).await
}

/// Takes a contact's names from it.
async fn names(conn: &mut PgConnection, tenant_id: TenantId, id: ContactId) -> Result<Vec<Alias>> {
    let names = sqlx::query!(
        r#"DELETE FROM contact_aliases WHERE tenant_id = $1 AND contact_id = $2 RETURNING kind AS "kind!", value AS "value!""#,
        tenant_id.0,
        id.0,
    )
    .fetch_all(&mut *conn)
    .await?;
    let phone = sqlx::query_scalar!("SELECT phone FROM contacts WHERE tenant_id = $1 AND id = $2", tenant_id.0, id.0)
        .fetch_one(conn)
        .await?;
    let aliases =
        names.into_iter().filter_map(|row| Some(Alias { kind: AliasKind::from_name(&row.kind)?, value: row.value }));
    Ok(aliases.chain(phone.map(|value| Alias { kind: AliasKind::Phone, value })).collect())
}

/// Of names, that who had them was erased: now, or when the contact was; and what they want, if anything is said of that.
async fn keep_digests(
    conn: &mut PgConnection,
    tenant_id: TenantId,
    id: ContactId,
    names: Vec<Alias>,
    opted_out: Option<&Value>,
) -> Result<()> {
    let mut digests: Vec<Vec<u8>> = names.iter().map(|alias| alias.digest(tenant_id).to_vec()).collect();
    digests.sort_unstable();
    digests.dedup();
    sqlx::query!(
        "INSERT INTO erased_people AS e (tenant_id, digest, erased_at, opted_out)
        SELECT $1, digest, coalesce((SELECT erased_at FROM contacts WHERE tenant_id = $1 AND id = $2), clock_timestamp()),
            coalesce($4, '[]'::jsonb)
        FROM unnest($3::bytea[]) AS name (digest)
        ORDER BY digest
        ON CONFLICT (tenant_id, digest) DO UPDATE
        SET erased_at = greatest(e.erased_at, excluded.erased_at), opted_out = coalesce($4, e.opted_out)",
        tenant_id.0,
        id.0,
        &digests,
        opted_out,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Locks contacts' conversations.
async fn lock(conn: &mut PgConnection, tenant_id: TenantId, ids: &[Uuid]) -> Result<Vec<Uuid>> {
    Ok(sqlx::query_scalar!(
        "SELECT id FROM conversations WHERE tenant_id = $1 AND id = ANY ($2) AND contact_id = ANY ($3) ORDER BY id FOR UPDATE",
        tenant_id.0,
        &conversations::of_contacts(conn, tenant_id, ids).await?,
        ids,
    )
    .fetch_all(&mut *conn)
    .await?)
}

/// Empties contacts' conversations, which are locked, their messages and sends, and lets go of their files. What has not been sent is
/// cancelled.
async fn wipe(conn: &mut PgConnection, tenant_id: TenantId, ids: &[Uuid], conversations: &[Uuid]) -> Result<()> {
    sqlx::query!("DELETE FROM contact_profiles WHERE tenant_id = $1 AND contact_id = ANY ($2)", tenant_id.0, ids)
        .execute(&mut *conn)
        .await?;
    if conversations.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "UPDATE conversations
        SET last_message_text = NULL, unread = 0, listed = false, state = 'resolved', resolved_at = coalesce(resolved_at, now())
        WHERE tenant_id = $1 AND id = ANY ($2) AND (last_message_text IS NOT NULL OR unread > 0 OR listed OR state <> 'resolved')",
        tenant_id.0,
        conversations,
    )
    .execute(&mut *conn)
    .await?;
    // By key, as whoever moves sends does.
    sqlx::query!(
        "SELECT message_id FROM sends WHERE tenant_id = $1 AND conversation_id = ANY ($2) ORDER BY message_id FOR UPDATE",
        tenant_id.0,
        conversations,
    )
    .fetch_all(&mut *conn)
    .await?;
    let cancelled = sqlx::query!(
        r#"WITH cancelled AS (
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
        SELECT campaign_id AS "campaign_id!", count(*) FILTER (WHERE state = 'cancelled') AS "cancelled!",
            count(*) FILTER (WHERE state = 'held') AS "held!"
        FROM cancelled
        WHERE campaign_id IS NOT NULL
        GROUP BY 1
        ORDER BY 1"#,
        tenant_id.0,
        conversations,
    )
    .fetch_all(&mut *conn)
    .await?;
    sqlx::query!(
        "UPDATE sends SET recipient = '' WHERE tenant_id = $1 AND conversation_id = ANY ($2) AND recipient <> ''",
        tenant_id.0,
        conversations,
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!(
        "UPDATE messages
        SET text = NULL, content = '{}', media = NULL
        WHERE tenant_id = $1 AND conversation_id = ANY ($2) AND (text IS NOT NULL OR content <> '{}' OR media IS NOT NULL)",
        tenant_id.0,
        conversations,
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!(
        "DELETE FROM media
        WHERE tenant_id = $1 AND message_id IN (SELECT id FROM messages WHERE tenant_id = $1 AND conversation_id = ANY ($2))",
        tenant_id.0,
        conversations,
    )
    .execute(&mut *conn)
    .await?;
    if cancelled.is_empty() {
        return Ok(());
    }
    // Last, as whoever counts does.
    let campaigns: Vec<Uuid> = cancelled.iter().map(|row| row.campaign_id).collect();
    let (cancelled, held): (Vec<i64>, Vec<i64>) = cancelled.iter().map(|row| (row.cancelled, row.held)).unzip();
    sqlx::query!(
        "WITH change AS MATERIALIZED (
            SELECT n.campaign_id, c.cancelled, c.held
            FROM unnest($2::uuid[], $3::bigint[], $4::bigint[]) AS c (campaign_id, cancelled, held)
            JOIN campaign_counts n ON n.tenant_id = $1 AND n.campaign_id = c.campaign_id
            ORDER BY n.campaign_id
            FOR UPDATE OF n
        )
        UPDATE campaign_counts n
        SET in_flight = n.in_flight - c.cancelled - c.held, cancelled = n.cancelled + c.cancelled, held = n.held + c.held
        FROM change c
        WHERE n.tenant_id = $1 AND n.campaign_id = c.campaign_id",
        tenant_id.0,
        &campaigns,
        &cancelled,
        &held,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Somebody who is gone, and is to be looked through once more.
#[derive(Clone, Copy, Debug)]
pub struct Gone {
    tenant_id: TenantId,
    id: ContactId,
    merged_into: Option<ContactId>,
    erased: bool,
    since: DateTime<Utc>,
    /// Whatever was under way when they went has ended.
    last: bool,
}

/// Who is to be looked through next: the longest due one, who is not due again for a minute, so that one with whom that cannot be
/// done keeps nobody waiting.
///
/// # Errors
/// If the database does not answer.
pub async fn due(tx: &mut FleetTx) -> Result<Option<Gone>> {
    let row = sqlx::query!(
        r#"UPDATE contacts c
        SET settle_at = clock_timestamp() + interval '1 minute'
        FROM (
            SELECT tenant_id, id
            FROM contacts
            WHERE settle_at <= now()
            ORDER BY settle_at, id
            LIMIT 1
            FOR NO KEY UPDATE SKIP LOCKED
        ) AS next
        WHERE c.tenant_id = next.tenant_id AND c.id = next.id
        RETURNING c.tenant_id AS "tenant_id: TenantId", c.id AS "id: ContactId", c.merged_into AS "merged_into: ContactId",
            c.erased_at IS NOT NULL AS "erased!", c.gone_at AS "since!", c.gone_at < now() - interval '10 minutes' AS "last!""#,
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(row.map(|row| Gone {
        tenant_id: row.tenant_id,
        id: row.id,
        merged_into: row.merged_into,
        erased: row.erased,
        since: row.since,
        last: row.last,
    }))
}

/// Looks once more through a contact that is gone: what was still added to it is erased, or moved to who it was merged into.
///
/// # Errors
/// If the database does not answer.
pub async fn settle(tx: &mut FleetTx, gone: &Gone) -> Result<()> {
    let Gone { tenant_id, id, merged_into, erased, since, last } = *gone;
    match merged_into {
        _ if erased => {
            forget_again(tx.conn(), tenant_id, id).await?;
            let conversations = lock(tx.conn(), tenant_id, &[id.0]).await?;
            wipe(tx.conn(), tenant_id, &[id.0], &conversations).await?;
        }
        Some(winner) => merging::again(tx.conn(), tenant_id, winner, id).await?,
        None => {}
    }
    if last {
        sqlx::query!(
            "UPDATE contacts SET settle_at = NULL WHERE tenant_id = $1 AND id = $2 AND gone_at = $3",
            tenant_id.0,
            id.0,
            since,
        )
        .execute(tx.conn())
        .await?;
    }
    Ok(())
}

/// Names that were added after they had been taken.
async fn forget_again(conn: &mut PgConnection, tenant_id: TenantId, id: ContactId) -> Result<()> {
    let named = sqlx::query_scalar!(
        r#"SELECT name IS NOT NULL OR username IS NOT NULL OR phone IS NOT NULL OR phone_raw IS NOT NULL OR language IS NOT NULL OR EXISTS (
            SELECT FROM contact_aliases a WHERE a.tenant_id = $1 AND a.contact_id = $2
        ) AS "named!"
        FROM contacts
        WHERE tenant_id = $1 AND id = $2
        FOR UPDATE"#,
        tenant_id.0,
        id.0,
    )
    .fetch_one(&mut *conn)
    .await?;
    if !named {
        return Ok(());
    }
    // What was added meanwhile had come before; and nothing is known of what they want by these names but what was known.
    let aliases = names(conn, tenant_id, id).await?;
    keep_digests(conn, tenant_id, id, aliases, None).await?;
    sqlx::query!(
        "UPDATE contacts
        SET name = NULL, username = NULL, phone = NULL, phone_raw = NULL, named_at = NULL, language = NULL
        WHERE tenant_id = $1 AND id = $2",
        tenant_id.0,
        id.0,
    )
    .execute(conn)
    .await?;
    Ok(())
}
