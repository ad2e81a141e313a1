//! What those who follow a tenant are told, in an order in which nobody misses anything: by the transaction that wrote it, up to the
//! oldest one that is still under way. What a long one holds back comes late, and is not passed over.

use super::{FleetTx, TenantTx, error::Result};
use crate::domain::{
    feed::Kind,
    ids::{ConversationId, TenantId},
};
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use uuid::Uuid;

/// Something that has happened.
#[derive(Clone, Debug)]
pub struct Happened {
    /// Its id.
    pub id: Uuid,
    /// Where it stands in the order, together with the id. Grows, with gaps.
    pub position: i64,
    /// When it was written down.
    pub at: DateTime<Utc>,
    /// What, as [`Kind`] spells it.
    pub kind: String,
    /// In which conversation.
    pub conversation_id: Option<Uuid>,
    /// More of it, by kind.
    pub details: Value,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Filter {
    /// Only of this kind.
    pub kind: Option<Kind>,
    /// Only in this conversation.
    pub conversation_id: Option<ConversationId>,
    /// Only from this time on.
    pub since: Option<DateTime<Utc>>,
}

/// Which end of windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// They end within this time.
    Near(TimeDelta),
    /// They have ended.
    Reached,
}

/// Transactions that began before this much have committed, or never will: none adds a window to a time that was passed over.
const SETTLED: TimeDelta = TimeDelta::seconds(30);
/// Windows of which one call tells.
const AT_ONCE: i64 = 1_000;

/// Tells of conversations and their windows' ends.
///
/// # Errors
/// If the database does not answer.
pub(super) async fn tell(
    tx: &mut FleetTx,
    kind: Kind,
    conversations: &[(TenantId, ConversationId, Option<DateTime<Utc>>)],
) -> Result<()> {
    if conversations.is_empty() {
        return Ok(());
    }
    let tenants: Vec<Uuid> = conversations.iter().map(|(tenant_id, ..)| tenant_id.0).collect();
    let ids: Vec<Uuid> = conversations.iter().map(|(_, id, _)| id.0).collect();
    let details: Vec<Value> = conversations.iter().map(|(.., at)| json!({"window_expires_at": at})).collect();
    sqlx::query!(
        "INSERT INTO events (tenant_id, kind, conversation_id, details)
        SELECT tenant_id, $4, conversation_id, details
        FROM unnest($1::uuid[], $2::uuid[], $3::jsonb[]) AS e (tenant_id, conversation_id, details)",
        &tenants,
        &ids,
        &details,
        kind.as_str(),
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Tells of windows of unresolved conversations that have come to an end since the last call, of a thousand at most. One that ends later
/// than was told, because the customer wrote meanwhile, comes again then. Whether there are more. Where somebody else is at it,
/// nothing is done.
///
/// # Errors
/// If the database does not answer.
pub async fn tell_of_windows(tx: &mut FleetTx, end: End) -> Result<bool> {
    let (kind, clock, ahead) = match end {
        End::Near(ahead) => (Kind::WindowClosing, "window_closing", ahead),
        End::Reached => (Kind::WindowClosed, "window_closed", TimeDelta::zero()),
    };
    let told = sqlx::query_scalar!(
        r#"WITH clock AS MATERIALIZED (
            SELECT at, id, now() + $2::interval AS until FROM clocks WHERE name = $1 FOR UPDATE SKIP LOCKED
        ), due AS MATERIALIZED (
            SELECT c.tenant_id, c.id, c.window_expires_at
            FROM conversations c
            WHERE c.state <> 'resolved' AND c.window_expires_at IS NOT NULL
                AND (c.window_expires_at, c.id) > ((SELECT at FROM clock), (SELECT id FROM clock))
                AND c.window_expires_at <= (SELECT until FROM clock)
            ORDER BY c.window_expires_at, c.id
            LIMIT $4
        ), told AS (
            INSERT INTO events (tenant_id, kind, conversation_id, details)
            SELECT tenant_id, $3, id, jsonb_build_object('window_expires_at', window_expires_at) FROM due
        ), last AS (
            SELECT window_expires_at, id FROM due ORDER BY window_expires_at DESC, id DESC LIMIT 1
        ), moved AS (
            UPDATE clocks
            SET at = CASE WHEN filled THEN last.window_expires_at ELSE greatest(clocks.at, clock.until) END,
                id = CASE WHEN filled THEN last.id ELSE 'ffffffff-ffff-ffff-ffff-ffffffffffff' END
            FROM clock LEFT JOIN last ON true, (SELECT count(*) >= $4 AS filled FROM due) AS how
            WHERE clocks.name = $1
        )
        SELECT count(*) AS "told!" FROM due"#,
        clock,
        ahead_of_settled(ahead) as _,
        kind.as_str(),
        AT_ONCE,
    )
    .fetch_one(tx.conn())
    .await?;
    Ok(told >= AT_ONCE)
}

fn ahead_of_settled(ahead: TimeDelta) -> sqlx::postgres::types::PgInterval {
    let microseconds = (ahead - SETTLED).num_microseconds().unwrap_or(i64::MAX);
    sqlx::postgres::types::PgInterval { months: 0, days: 0, microseconds }
}

/// A page of what has happened.
#[derive(Clone, Debug)]
pub struct Feed {
    /// In order.
    pub events: Vec<Happened>,
    /// Where the next page begins (position and id): whoever asks from there misses nothing, also if nothing was found here.
    pub next: (i64, Uuid),
    /// Whether there is more by now.
    pub more: bool,
}

/// Where somebody says to have been, but nobody has been yet: on another database, or this one before it was restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotYet;

/// What has happened to a tenant, in order, after `after` (position and id), as far as nothing can come in between any more; of that,
/// `limit` at most.
///
/// # Errors
/// If the database does not answer.
pub async fn list(
    tx: &mut TenantTx,
    filter: Filter,
    after: Option<(i64, Uuid)>,
    limit: i64,
) -> Result<std::result::Result<Feed, NotYet>> {
    let tenant_id = tx.tenant_id();
    let (position, id) = after.unwrap_or((0, Uuid::nil()));
    let kind = filter.kind.map(Kind::as_str);
    let since = filter.since.unwrap_or(DateTime::UNIX_EPOCH);
    // Before the events: whatever has committed below is seen by the statement that follows.
    let settled = sqlx::query_scalar!(r#"SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS "settled!""#)
        .fetch_one(tx.conn())
        .await?;
    if position >= settled {
        return Ok(Err(NotYet));
    }
    // Two statements, each with its index.
    let mut events = match filter.conversation_id {
        None => {
            sqlx::query_as!(
                Happened,
                "SELECT id, position, at, kind, conversation_id, details
                FROM events
                WHERE tenant_id = $1 AND (position, id) > ($2, $3) AND position < $4 AND at >= $5 AND ($6::text IS NULL OR kind = $6)
                ORDER BY position, id
                LIMIT $7",
                tenant_id.0,
                position,
                id,
                settled,
                since,
                kind,
                limit + 1,
            )
            .fetch_all(tx.conn())
            .await?
        }
        Some(conversation_id) => {
            sqlx::query_as!(
                Happened,
                "SELECT id, position, at, kind, conversation_id, details
                FROM events
                WHERE tenant_id = $1 AND (position, id) > ($2, $3) AND position < $4 AND at >= $5 AND ($6::text IS NULL OR kind = $6)
                    AND conversation_id = $8
                ORDER BY position, id
                LIMIT $7",
                tenant_id.0,
                position,
                id,
                settled,
                since,
                kind,
                limit + 1,
                conversation_id.0,
            )
            .fetch_all(tx.conn())
            .await?
        }
    };
    let wanted = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = events.len() > wanted;
    events.truncate(wanted);
    let last = events.last().filter(|_| more).map(|event| (event.position, event.id));
    let next = last.unwrap_or((settled - 1, Uuid::max()));
    Ok(Ok(Feed { events, next, more }))
}
