//! Who changed what, when: a row for each change that somebody asked for, written in the transaction that makes it. What changes
//! nothing writes nothing.

use super::{
    error::Result,
    scope::{FleetTx, TenantTx},
};
use crate::domain::ids::{ApiTokenId, TenantId};
use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

/// Who asked for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Actor {
    /// Whoever holds this token of the API.
    Token(ApiTokenId),
    /// An operator at the command line.
    Operator,
}

/// A change.
#[derive(Clone, Debug)]
pub struct Entry<'a> {
    /// Who asked for it.
    pub actor: Actor,
    /// What was done, `campaign.started`: the kind of thing and a participle.
    pub action: &'a str,
    /// To what kind of thing.
    pub target_kind: &'a str,
    /// To which.
    pub target_id: Uuid,
    /// An object with what was before and after, where that says something. Never secrets.
    pub details: Value,
}

/// A change as it was recorded.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// Its id.
    pub id: Uuid,
    /// When it was made.
    pub at: DateTime<Utc>,
    /// By which token of the API; `None`: by an operator.
    pub token_id: Option<Uuid>,
    /// What was done.
    pub action: String,
    /// To what kind of thing.
    pub target_kind: String,
    /// To which.
    pub target_id: Uuid,
    /// What was before and after.
    pub details: Value,
}

/// Records a change that this transaction makes.
///
/// # Errors
/// If the database does not answer.
pub async fn record(tx: &mut TenantTx, entry: &Entry<'_>) -> Result<()> {
    let tenant_id = tx.tenant_id();
    insert(tx.conn(), tenant_id, entry).await
}

/// The same in a transaction of several tenants, to one of them.
///
/// # Errors
/// If the database does not answer.
pub async fn record_for(tx: &mut FleetTx, tenant_id: TenantId, entry: &Entry<'_>) -> Result<()> {
    insert(tx.conn(), tenant_id, entry).await
}

async fn insert(conn: &mut PgConnection, tenant_id: TenantId, entry: &Entry<'_>) -> Result<()> {
    let token_id = match entry.actor {
        Actor::Token(id) => Some(id.0),
        Actor::Operator => None,
    };
    // Of the statement, not of the transaction: what one transaction does twice stays in order.
    sqlx::query!(
        "INSERT INTO audit (tenant_id, at, id, token_id, action, target_kind, target_id, details)
        VALUES ($1, clock_timestamp(), $2, $3, $4, $5, $6, $7)",
        tenant_id.0,
        Uuid::now_v7(),
        token_id,
        entry.action,
        entry.target_kind,
        entry.target_id,
        entry.details,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// A page of a tenant's changes, or of those to one target, the newest first, below `before` (time and id).
///
/// # Errors
/// If the database does not answer.
pub async fn list(
    tx: &mut TenantTx,
    target_id: Option<Uuid>,
    before: Option<(DateTime<Utc>, Uuid)>,
    limit: i64,
) -> Result<Vec<Recorded>> {
    let tenant_id = tx.tenant_id();
    let (at, id) = before.unzip();
    // Two statements, each with its index.
    let page = match target_id {
        None => {
            sqlx::query_as!(
                Recorded,
                "SELECT id, at, token_id, action, target_kind, target_id, details
                FROM audit
                WHERE tenant_id = $1 AND (at, id) < (coalesce($2::timestamptz, 'infinity'), coalesce($3::uuid, $4::uuid))
                ORDER BY at DESC, id DESC
                LIMIT $5",
                tenant_id.0,
                at,
                id,
                Uuid::max(),
                limit,
            )
            .fetch_all(tx.conn())
            .await?
        }
        Some(target_id) => {
            sqlx::query_as!(
                Recorded,
                "SELECT id, at, token_id, action, target_kind, target_id, details
                FROM audit
                WHERE tenant_id = $1 AND target_id = $2 AND (at, id) < (coalesce($3::timestamptz, 'infinity'), coalesce($4::uuid, $5::uuid))
                ORDER BY at DESC, id DESC
                LIMIT $6",
                tenant_id.0,
                target_id,
                at,
                id,
                Uuid::max(),
                limit,
            )
            .fetch_all(tx.conn())
            .await?
        }
    };
    Ok(page)
}
