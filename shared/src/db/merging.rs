//! Two contacts who are one: everything one had becomes the other's, and its id answers with the other. By hand, or because a
//! provider says that a person has a new number or id.
//!
//! Merging is one transaction, in the order of locks: campaigns, contacts, suppressions, conversations, watermarks, sends, people of
//! campaigns, counts. Inbound batches merge in their own transaction, before they claim messages: it is rare, and bounded. (There,
//! conversations are locked before references; should that meet a batch with messages of the same two people, one of the two is
//! tried again.) A batch that was under way meanwhile may still add something to the contact that is gone, which is moved after it
//! ([`super::erasing::settle`]): merging again changes nothing else.

use super::{
    FleetTx, TenantTx,
    audit::{self, Actor, Entry},
    conversations,
    error::{Error, Result},
    inbound::people::Same,
};
use crate::domain::{
    ids::{ChannelAccountId, ContactId, ConversationId, TenantId},
    people::AliasKind,
};
use serde_json::json;
use sqlx::PgConnection;
use std::collections::{BTreeMap, HashMap};
use tracing::warn;
use uuid::Uuid;

/// So many messages of open conversations are moved within a batch of webhooks; more are left to a person.
const AT_MOST_IN_A_BATCH: i64 = 5_000;
/// So many are moved on a request.
const AT_MOST: i64 = 50_000;

/// What became of merging two contacts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merged {
    /// They are one: this one.
    Into(ContactId),
    /// They were one already: this one.
    Already(ContactId),
    /// The tenant has no such contact, or not any more.
    NoSuchContact(ContactId),
    /// More messages would have to be moved than can be at once.
    TooMuch,
}

/// Makes `other` the same contact as `contact_id`, which stays.
///
/// # Errors
/// If the database does not answer.
pub async fn merge(tx: &mut TenantTx, contact_id: ContactId, other: ContactId, actor: Actor) -> Result<Merged> {
    let tenant_id = tx.tenant_id();
    let merged = fold(tx.conn(), tenant_id, contact_id, other, AT_MOST).await?;
    if let Merged::Into(winner) = merged {
        audit::record(tx, &entry(actor, winner, other, "by hand")).await?;
    }
    Ok(merged)
}

fn entry(actor: Actor, winner: ContactId, loser: ContactId, source: &str) -> Entry<'static> {
    let details = json!({"merged": loser, "source": source});
    Entry { actor, action: "contact.merged", target_kind: "contact", target_id: winner.0, details }
}

/// Merges contacts of a batch whose providers say that they are one. Returns who answers for whom from now on. Two who have user ids
/// of their own, of whom one has got the other's number, are not one: numbers change hands.
///
/// # Errors
/// If the database does not answer.
pub async fn merge_known(tx: &mut FleetTx, same: &[Same]) -> Result<HashMap<(TenantId, ContactId), ContactId>> {
    let mut gone = HashMap::new();
    for Same { tenant_id, contact_id, other, kind } in same {
        if *kind != AliasKind::WhatsappBsuid
            && have_ids_of_their_own(tx.conn(), *tenant_id, *contact_id, *other).await?
        {
            continue;
        }
        match fold(tx.conn(), *tenant_id, *contact_id, *other, AT_MOST_IN_A_BATCH).await? {
            Merged::Into(winner) => {
                audit::record_for(tx, *tenant_id, &entry(Actor::Operator, winner, *other, "provider")).await?;
                gone.insert((*tenant_id, *other), winner);
            }
            Merged::Already(_) | Merged::NoSuchContact(_) => {}
            Merged::TooMuch => {
                warn!(tenant = %tenant_id, %contact_id, %other, "two contacts are one, and too much to be merged beside other work");
            }
        }
    }
    Ok(gone)
}

async fn have_ids_of_their_own(
    conn: &mut PgConnection,
    tenant_id: TenantId,
    one: ContactId,
    other: ContactId,
) -> Result<bool> {
    Ok(sqlx::query_scalar!(
        r#"SELECT count(DISTINCT contact_id) = 2 AS "both!"
        FROM contact_aliases
        WHERE tenant_id = $1 AND contact_id = ANY (ARRAY[$2, $3]::uuid[]) AND kind = 'whatsapp_bsuid'"#,
        tenant_id.0,
        one.0,
        other.0,
    )
    .fetch_one(conn)
    .await?)
}

/// Moves to who stays what was added to a contact after it was merged.
pub(super) async fn again(
    conn: &mut PgConnection,
    tenant_id: TenantId,
    winner: ContactId,
    loser: ContactId,
) -> Result<()> {
    let _ = fold(conn, tenant_id, winner, loser, AT_MOST).await?;
    Ok(())
}

async fn fold(
    conn: &mut PgConnection,
    tenant_id: TenantId,
    contact_id: ContactId,
    other: ContactId,
    at_most: i64,
) -> Result<Merged> {
    let campaigns = campaigns(conn, tenant_id, other).await?;
    let rows = sqlx::query!(
        r#"SELECT c.id AS "id: ContactId", c.merged_into AS "merged_into: ContactId", c.erased_at
        FROM contacts c
        WHERE c.tenant_id = $1
            AND c.id IN ($2, $3, (SELECT w.merged_into FROM contacts w WHERE w.tenant_id = $1 AND w.id = $2))
        ORDER BY c.id
        FOR UPDATE"#,
        tenant_id.0,
        contact_id.0,
        other.0,
    )
    .fetch_all(&mut *conn)
    .await?;
    let rows: HashMap<ContactId, (Option<ContactId>, bool)> =
        rows.into_iter().map(|row| (row.id, (row.merged_into, row.erased_at.is_some()))).collect();
    let winner = match rows.get(&contact_id) {
        Some((merged_into, _)) => merged_into.unwrap_or(contact_id),
        None => return Ok(Merged::NoSuchContact(contact_id)),
    };
    if !rows.contains_key(&winner) {
        return Err(Error::contention("merging somebody into a contact who was merged meanwhile"));
    }
    if rows.get(&winner).is_none_or(|(merged_into, erased)| merged_into.is_some() || *erased) {
        return Ok(Merged::NoSuchContact(contact_id));
    }
    let before = match rows.get(&other) {
        _ if winner == other => return Ok(Merged::Already(winner)),
        None | Some((_, true)) => return Ok(Merged::NoSuchContact(other)),
        Some((Some(elsewhere), _)) if *elsewhere != winner => return Ok(Merged::NoSuchContact(other)),
        Some((before, _)) => *before,
    };
    if others_write(conn, tenant_id, other, &campaigns).await? {
        return Err(Error::contention("merging somebody whom a campaign began to write to meanwhile"));
    }
    let folds = folds(conn, tenant_id, winner, other).await?;
    if too_much(conn, tenant_id, &folds, at_most).await? {
        return Ok(Merged::TooMuch);
    }
    names(conn, tenant_id, winner, other).await?;
    if before.is_none() {
        wishes(conn, tenant_id, winner, other).await?;
    } else {
        later_wishes(conn, tenant_id, winner, other).await?;
    }
    hold_turns(conn, tenant_id, &folds).await?;
    for fold in &folds {
        fold_conversation(conn, tenant_id, fold).await?;
    }
    sqlx::query!(
        "UPDATE conversations SET contact_id = $2 WHERE tenant_id = $1 AND id = ANY ($4) AND contact_id = $3",
        tenant_id.0,
        winner.0,
        other.0,
        &conversations::of_contacts(conn, tenant_id, &[other.0]).await?,
    )
    .execute(&mut *conn)
    .await?;
    fold_again(conn, tenant_id, winner).await?;
    marks(conn, tenant_id, winner, other).await?;
    recipients(conn, tenant_id, winner, other, &campaigns).await?;
    profile(conn, tenant_id, winner, other).await?;
    Ok(if before.is_some() { Merged::Already(winner) } else { Merged::Into(winner) })
}

/// Locks the campaigns that may still write to a contact: who changes a person of one holds its row.
async fn campaigns(conn: &mut PgConnection, tenant_id: TenantId, loser: ContactId) -> Result<Vec<Uuid>> {
    let ids = sqlx::query_scalar!(
        "SELECT c.id
        FROM campaigns c
        WHERE c.tenant_id = $1 AND c.state IN ('running', 'paused') AND EXISTS (
            SELECT FROM campaign_recipients r WHERE r.tenant_id = $1 AND r.campaign_id = c.id AND r.contact_id = $2
        )
        ORDER BY c.id
        FOR NO KEY UPDATE OF c",
        tenant_id.0,
        loser.0,
    )
    .fetch_all(conn)
    .await?;
    Ok(ids)
}

/// Whether campaigns other than these may write to a contact by now: one was frozen while the contact was waited for. From now on none
/// comes, for who puts somebody into a campaign holds them.
async fn others_write(
    conn: &mut PgConnection,
    tenant_id: TenantId,
    loser: ContactId,
    campaigns: &[Uuid],
) -> Result<bool> {
    Ok(sqlx::query_scalar!(
        r#"SELECT EXISTS (
            SELECT
            FROM campaigns c
            WHERE c.tenant_id = $1 AND c.state IN ('running', 'paused') AND c.id <> ALL ($3) AND EXISTS (
                SELECT FROM campaign_recipients r WHERE r.tenant_id = $1 AND r.campaign_id = c.id AND r.contact_id = $2
            )
        ) AS "others!""#,
        tenant_id.0,
        loser.0,
        campaigns,
    )
    .fetch_one(conn)
    .await?)
}

/// Two open conversations on one account, of which one goes into the other.
struct Fold {
    into: ConversationId,
    from: ConversationId,
}

/// Locks the conversations of both, and finds those that are open twice.
async fn folds(conn: &mut PgConnection, tenant_id: TenantId, winner: ContactId, loser: ContactId) -> Result<Vec<Fold>> {
    let both = [winner.0, loser.0];
    let rows = sqlx::query!(
        r#"SELECT id AS "id: ConversationId", contact_id AS "contact_id: ContactId",
            channel_account_id AS "account: ChannelAccountId", state
        FROM conversations
        WHERE tenant_id = $1 AND id = ANY ($2) AND contact_id = ANY ($3)
        ORDER BY id
        FOR UPDATE"#,
        tenant_id.0,
        &conversations::of_contacts(conn, tenant_id, &both).await?,
        &both,
    )
    .fetch_all(conn)
    .await?;
    let mut open: BTreeMap<ChannelAccountId, (Option<ConversationId>, Option<ConversationId>)> = BTreeMap::new();
    for row in rows.into_iter().filter(|row| row.state != "resolved") {
        let of = open.entry(row.account).or_default();
        *if row.contact_id == winner { &mut of.0 } else { &mut of.1 } = Some(row.id);
    }
    Ok(open.into_values().filter_map(|(into, from)| Some(Fold { into: into?, from: from? })).collect())
}

async fn too_much(conn: &mut PgConnection, tenant_id: TenantId, folds: &[Fold], at_most: i64) -> Result<bool> {
    if folds.is_empty() {
        return Ok(false);
    }
    let from: Vec<Uuid> = folds.iter().map(|fold| fold.from.0).collect();
    Ok(sqlx::query_scalar!(
        r#"SELECT count(*) > $3::bigint AS "too_much!"
        FROM (SELECT FROM messages WHERE tenant_id = $1 AND conversation_id = ANY ($2) LIMIT $3::bigint + 1) AS moved"#,
        tenant_id.0,
        &from,
        at_most,
    )
    .fetch_one(conn)
    .await?)
}

/// Locks, in the order of sends, those of conversations that go into others, and what holds up those. Whoever settles one of these holds its row until it has committed, and looks for
/// a next one (as in `messages::accept`): so either it has done so where it was, or it does where it is then.
async fn hold_turns(conn: &mut PgConnection, tenant_id: TenantId, folds: &[Fold]) -> Result<()> {
    if folds.is_empty() {
        return Ok(());
    }
    let (into, from): (Vec<Uuid>, Vec<Uuid>) = folds.iter().map(|fold| (fold.into.0, fold.from.0)).unzip();
    let both = [into, from.clone()].concat();
    sqlx::query!(
        "SELECT message_id
        FROM sends
        WHERE tenant_id = $1
            AND conversation_id = ANY ($2)
            AND (
                conversation_id = ANY ($3)
                OR (lane = 0 AND (state IN ('waiting', 'queued', 'sending') OR (state = 'unknown' AND NOT turn_released)))
            )
        ORDER BY message_id
        FOR UPDATE",
        tenant_id.0,
        &both,
        &from,
    )
    .fetch_all(conn)
    .await?;
    Ok(())
}

/// The names go to who stays; nothing of them is left at the other but where it went.
async fn names(conn: &mut PgConnection, tenant_id: TenantId, winner: ContactId, loser: ContactId) -> Result<()> {
    sqlx::query!(
        "UPDATE contact_aliases SET contact_id = $2 WHERE tenant_id = $1 AND contact_id = $3",
        tenant_id.0,
        winner.0,
        loser.0,
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!(
        "UPDATE contacts w
        SET named_at = CASE WHEN w.name IS NULL AND l.name IS NOT NULL THEN l.named_at ELSE coalesce(w.named_at, l.named_at) END,
            name = coalesce(w.name, l.name), username = coalesce(w.username, l.username), phone = coalesce(w.phone, l.phone),
            phone_raw = CASE WHEN w.phone IS NULL THEN l.phone_raw ELSE w.phone_raw END, language = coalesce(w.language, l.language)
        FROM contacts l
        WHERE w.tenant_id = $1 AND w.id = $2 AND l.tenant_id = $1 AND l.id = $3
            AND (l.name IS NOT NULL OR l.username IS NOT NULL OR l.phone IS NOT NULL OR l.language IS NOT NULL)",
        tenant_id.0,
        winner.0,
        loser.0,
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!(
        "UPDATE contacts
        SET name = NULL, username = NULL, phone = NULL, phone_raw = NULL, named_at = NULL, language = NULL, merged_into = $2,
            settle_at = CASE WHEN gone_at IS NULL THEN clock_timestamp() ELSE settle_at END,
            gone_at = coalesce(gone_at, clock_timestamp())
        WHERE tenant_id = $1 AND (id = $3 OR merged_into = $3)",
        tenant_id.0,
        winner.0,
        loser.0,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// The stricter wish wins, for both: the other's stay where they are, for a grant that is just looking at them.
async fn wishes(conn: &mut PgConnection, tenant_id: TenantId, winner: ContactId, loser: ContactId) -> Result<()> {
    sqlx::query!(
        "INSERT INTO suppressions AS s (tenant_id, contact_id, channel, purpose, state, since, source, token_id)
        SELECT tenant_id, $2, channel, purpose, state, since, source, token_id
        FROM suppressions
        WHERE tenant_id = $1 AND contact_id = $3
        ORDER BY channel, purpose
        ON CONFLICT (tenant_id, contact_id, channel, purpose) DO UPDATE
        SET state = excluded.state, since = excluded.since, source = excluded.source, token_id = excluded.token_id,
            changed_at = clock_timestamp()
        WHERE (excluded.state = 'opted_out', excluded.since) > (s.state = 'opted_out', s.since)",
        tenant_id.0,
        winner.0,
        loser.0,
    )
    .execute(&mut *conn)
    .await?;
    // All who are this person by now, by whom it was told before: or the looser of two, said later, would be news once more.
    sqlx::query!(
        "UPDATE suppressions l
        SET state = w.state, since = w.since, source = w.source, token_id = w.token_id, changed_at = clock_timestamp()
        FROM suppressions w
        WHERE w.tenant_id = $1 AND w.contact_id = $2
            AND l.tenant_id = $1 AND l.channel = w.channel AND l.purpose = w.purpose
            AND l.contact_id IN (SELECT id FROM contacts WHERE tenant_id = $1 AND merged_into = $2)
            AND (l.state, l.since, l.source) IS DISTINCT FROM (w.state, w.since, w.source)",
        tenant_id.0,
        winner.0,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// What was still told of the other: what was said last holds, as anywhere, and the stricter is no news any more.
async fn later_wishes(conn: &mut PgConnection, tenant_id: TenantId, winner: ContactId, loser: ContactId) -> Result<()> {
    sqlx::query!(
        "INSERT INTO suppressions AS s (tenant_id, contact_id, channel, purpose, state, since, source, token_id)
        SELECT tenant_id, $2, channel, purpose, state, since, source, token_id
        FROM suppressions
        WHERE tenant_id = $1 AND contact_id = $3
        ORDER BY channel, purpose
        ON CONFLICT (tenant_id, contact_id, channel, purpose) DO UPDATE
        SET state = excluded.state, since = excluded.since, source = excluded.source, token_id = excluded.token_id,
            changed_at = clock_timestamp()
        WHERE (excluded.since, excluded.state = 'opted_out') > (s.since, s.state = 'opted_out')",
        tenant_id.0,
        winner.0,
        loser.0,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// One open conversation goes into another: its messages, its sends behind those that are there, what it counts and shows. It stays as
/// an empty shell that names the other.
async fn fold_conversation(conn: &mut PgConnection, tenant_id: TenantId, fold: &Fold) -> Result<()> {
    sqlx::query!(
        "UPDATE sends
        SET conversation_id = $2,
            seq = seq + (SELECT last_send_seq FROM conversations WHERE tenant_id = $1 AND id = $2)
        WHERE tenant_id = $1 AND conversation_id = $3",
        tenant_id.0,
        fold.into.0,
        fold.from.0,
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!(
        "UPDATE messages SET conversation_id = $2 WHERE tenant_id = $1 AND conversation_id = $3",
        tenant_id.0,
        fold.into.0,
        fold.from.0,
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!(
        "UPDATE conversations i
        SET unread = i.unread + f.unread, messages_in = i.messages_in + f.messages_in, messages_out = i.messages_out + f.messages_out,
            last_send_seq = i.last_send_seq + f.last_send_seq, listed = i.listed OR f.listed,
            -- Of what is resolved, as a shell is, nothing follows; and what is resolved stays so.
            state = CASE WHEN 'resolved' IN (i.state, f.state) THEN i.state ELSE (ARRAY['open', 'new', 'pending', 'snoozed'])[least(
                array_position(ARRAY['open', 'new', 'pending', 'snoozed'], i.state),
                array_position(ARRAY['open', 'new', 'pending', 'snoozed'], f.state)
            )] END,
            last_message_text = CASE WHEN f.last_message_at > i.last_message_at THEN f.last_message_text ELSE i.last_message_text END,
            last_message_direction = CASE WHEN f.last_message_at > i.last_message_at THEN f.last_message_direction ELSE i.last_message_direction END,
            last_message_at = greatest(i.last_message_at, f.last_message_at),
            last_inbound_at = greatest(i.last_inbound_at, f.last_inbound_at),
            window_expires_at = greatest(i.window_expires_at, f.window_expires_at)
        FROM conversations f
        WHERE i.tenant_id = $1 AND i.id = $2 AND f.tenant_id = $1 AND f.id = $3",
        tenant_id.0,
        fold.into.0,
        fold.from.0,
    )
    .execute(&mut *conn)
    .await?;
    // Without a time it is nobody's latest conversation.
    sqlx::query!(
        "UPDATE conversations
        SET state = 'resolved', resolved_at = NULL, listed = false, merged_into = $2, unread = 0, messages_in = 0, messages_out = 0,
            last_message_text = NULL, last_inbound_at = NULL, window_expires_at = NULL
        WHERE tenant_id = $1 AND id = $3",
        tenant_id.0,
        fold.into.0,
        fold.from.0,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// What was folded into a conversation that has been folded since is where that is; and what a batch under way has still added to an
/// empty shell goes there, too. All of them are who stays' by now, and locked.
async fn fold_again(conn: &mut PgConnection, tenant_id: TenantId, winner: ContactId) -> Result<()> {
    let ids = conversations::of_contacts(conn, tenant_id, &[winner.0]).await?;
    sqlx::query!(
        "UPDATE conversations v
        SET merged_into = f.merged_into
        FROM conversations f
        WHERE v.tenant_id = $1 AND v.id = ANY ($2) AND f.tenant_id = $1 AND f.id = v.merged_into AND f.merged_into IS NOT NULL",
        tenant_id.0,
        &ids,
    )
    .execute(&mut *conn)
    .await?;
    let shells = sqlx::query!(
        r#"SELECT v.id AS "from: ConversationId", v.merged_into AS "into!: ConversationId"
        FROM conversations v
        WHERE v.tenant_id = $1 AND v.id = ANY ($2) AND v.merged_into IS NOT NULL
            AND EXISTS (SELECT FROM messages m WHERE m.tenant_id = $1 AND m.conversation_id = v.id)
        ORDER BY v.id
        FOR UPDATE OF v"#,
        tenant_id.0,
        &ids,
    )
    .fetch_all(&mut *conn)
    .await?;
    let folds: Vec<Fold> = shells.into_iter().map(|row| Fold { into: row.into, from: row.from }).collect();
    hold_turns(conn, tenant_id, &folds).await?;
    for fold in &folds {
        fold_conversation(conn, tenant_id, fold).await?;
    }
    Ok(())
}

async fn marks(conn: &mut PgConnection, tenant_id: TenantId, winner: ContactId, loser: ContactId) -> Result<()> {
    sqlx::query!(
        "WITH theirs AS (
            DELETE FROM watermarks WHERE tenant_id = $1 AND contact_id = $3 RETURNING *
        )
        INSERT INTO watermarks AS w
            (tenant_id, contact_id, channel_account_id, delivered_through, delivered_at, read_through, read_at)
        SELECT tenant_id, $2, channel_account_id, delivered_through, delivered_at, read_through, read_at FROM theirs
        ORDER BY channel_account_id
        ON CONFLICT (tenant_id, contact_id, channel_account_id) DO UPDATE
        SET delivered_at = CASE
                WHEN excluded.delivered_through > coalesce(w.delivered_through, '-infinity') THEN excluded.delivered_at
                ELSE w.delivered_at
            END,
            delivered_through = greatest(w.delivered_through, excluded.delivered_through),
            read_at = CASE
                WHEN excluded.read_through > coalesce(w.read_through, '-infinity') THEN excluded.read_at ELSE w.read_at
            END,
            read_through = greatest(w.read_through, excluded.read_through)",
        tenant_id.0,
        winner.0,
        loser.0,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// What a provider said of the other, picture and all, it said of who stays, unless it said something of them, too. What it is yet to be
/// asked, it is not: that is asked about who stays when they write.
async fn profile(conn: &mut PgConnection, tenant_id: TenantId, winner: ContactId, loser: ContactId) -> Result<()> {
    sqlx::query!(
        "WITH theirs AS (
            DELETE FROM contact_profiles WHERE tenant_id = $1 AND contact_id = $3 RETURNING *
        )
        INSERT INTO contact_profiles (
            tenant_id, contact_id, channel_account_id, provider, provider_person_id, state, code, reason, attempts, ask_again_at,
            storage_key, content_type, size_bytes, created_at, answered_at
        )
        SELECT tenant_id, $2, channel_account_id, provider, provider_person_id, state, code, reason, attempts, ask_again_at,
            storage_key, content_type, size_bytes, created_at, answered_at
        FROM theirs
        WHERE state = 'known'
        ON CONFLICT (tenant_id, contact_id) DO NOTHING",
        tenant_id.0,
        winner.0,
        loser.0,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// No campaign writes to one person twice: who waits beside the other is left out, and of two messages on their way one that nobody has
/// claimed is cancelled; but not for one that went nowhere. Who waits alone waits as who stays; and where who stays was left out or
/// could not be reached, which says nothing of the other's names, the two change places.
async fn recipients(
    conn: &mut PgConnection,
    tenant_id: TenantId,
    winner: ContactId,
    loser: ContactId,
    campaigns: &[Uuid],
) -> Result<()> {
    if campaigns.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "WITH both_there AS MATERIALIZED (
            SELECT l.campaign_id, l.state AS lost, w.state AS won, w.skip_reason AS won_skipped, w.message_id AS won_message,
                -- Of two on their way the one to be cancelled, if nobody has claimed it.
                CASE
                    WHEN ls.state IN ('waiting', 'queued') AND ws.state NOT IN ('failed', 'cancelled') THEN l.message_id
                    WHEN ws.state IN ('waiting', 'queued') AND ls.state NOT IN ('waiting', 'queued', 'failed', 'cancelled') THEN w.message_id
                END AS second,
                l.state = 'waiting' AND (
                    (w.state = 'skipped' AND w.skip_reason <> 'opted_out') OR (w.state = 'released' AND ws.state = 'failed')
                ) AS swap,
                -- Nothing came of it.
                l.state = 'released' AND ls.state IN ('failed', 'cancelled') AS lost_failed
            FROM campaign_recipients l
            JOIN campaign_recipients w ON w.tenant_id = $1 AND w.campaign_id = l.campaign_id AND w.contact_id = $2
            LEFT JOIN sends ls ON ls.tenant_id = $1 AND ls.message_id = l.message_id
            LEFT JOIN sends ws ON ws.tenant_id = $1 AND ws.message_id = w.message_id
            WHERE l.tenant_id = $1 AND l.contact_id = $3 AND l.campaign_id = ANY ($4)
        ),
        cancelled AS (
            UPDATE sends s
            SET state = 'cancelled', wait_reason = NULL, due_at = NULL, updated_at = clock_timestamp()
            FROM both_there b
            WHERE b.lost = 'released' AND b.won = 'released' AND s.tenant_id = $1 AND s.message_id = b.second
                AND s.state IN ('waiting', 'queued') AND NOT s.possibly_doubled
            RETURNING s.message_id, s.campaign_id, s.updated_at
        ),
        note AS (
            INSERT INTO trail (tenant_id, message_id, event, at)
            SELECT $1, message_id, 'cancelled', updated_at FROM cancelled
            ON CONFLICT (tenant_id, message_id, event, at) DO NOTHING
        ),
        skipped AS (
            UPDATE campaign_recipients r
            SET state = 'skipped', skip_reason = 'merged'
            FROM both_there b
            WHERE r.tenant_id = $1 AND r.campaign_id = b.campaign_id AND r.state = 'waiting' AND NOT b.swap
                AND r.contact_id = CASE
                    WHEN b.lost = 'waiting' THEN $3::uuid
                    WHEN b.won = 'waiting' AND b.lost = 'released' AND NOT b.lost_failed THEN $2::uuid
                END
            RETURNING r.campaign_id
        ),
        swapped AS (
            UPDATE campaign_recipients r
            SET state = CASE WHEN r.contact_id = $2 THEN b.lost ELSE b.won END,
                skip_reason = CASE WHEN r.contact_id = $2 THEN NULL ELSE b.won_skipped END,
                message_id = CASE WHEN r.contact_id = $2 THEN NULL ELSE b.won_message END
            FROM both_there b
            WHERE r.tenant_id = $1 AND r.campaign_id = b.campaign_id AND r.contact_id = ANY (ARRAY[$2, $3]::uuid[]) AND b.swap
        ),
        moved AS (
            UPDATE campaign_recipients r
            SET contact_id = $2
            WHERE r.tenant_id = $1 AND r.contact_id = $3 AND r.campaign_id = ANY ($4) AND r.state = 'waiting'
                AND NOT EXISTS (SELECT FROM both_there b WHERE b.campaign_id = r.campaign_id)
        ),
        change AS (
            SELECT campaign_id, 1 AS skipped, 0 AS cancelled FROM skipped
            UNION ALL
            SELECT campaign_id, 0, 1 FROM cancelled WHERE campaign_id IS NOT NULL
        )
        UPDATE campaign_counts n
        SET waiting = n.waiting - c.skipped, skipped = n.skipped + c.skipped, in_flight = n.in_flight - c.cancelled,
            cancelled = n.cancelled + c.cancelled
        FROM (SELECT campaign_id, sum(skipped) AS skipped, sum(cancelled) AS cancelled FROM change GROUP BY 1 ORDER BY 1) AS c
        WHERE n.tenant_id = $1 AND n.campaign_id = c.campaign_id",
        tenant_id.0,
        winner.0,
        loser.0,
        campaigns,
    )
    .execute(conn)
    .await?;
    Ok(())
}
