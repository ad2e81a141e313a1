//! Limits as people see and set them. Senders read the rows with every grant, so a change holds from the next one on.

use super::{
    TenantTx,
    audit::{self, Actor, Entry},
    error::Result,
};
use crate::domain::{
    channel::Provider,
    ids::TenantId,
    limits::{BadLimit, LimitChange, LimitValues, Scope, Shape, reserve, sends_per_second},
};
use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use sqlx::PgConnection;
use uuid::Uuid;

/// A limit, and how it stands.
#[derive(Clone, Debug)]
pub struct Limit {
    /// What it is a limit of.
    pub scope: Scope,
    /// Of which account or portfolio.
    pub key: Uuid,
    /// What that is called.
    pub name: String,
    /// As it was set.
    pub values: LimitValues,
    /// As lowered by the provider's throttling for now.
    pub current_rate: f64,
    /// Messages that an account received in the busiest of the last ten seconds.
    pub received: i32,
    /// What of it is kept free now for messages yet to be received.
    pub reserved: f64,
    /// How many sends a second an account's meter lets go now, with all that, while work waits.
    pub sends_per_second: f64,
    /// Nothing is granted before this, if it is in the future.
    pub stopped_until: Option<DateTime<Utc>>,
    /// People a portfolio has reached in the last 24 hours.
    pub used: i64,
}

/// The tenant's limits, by scope and name.
///
/// # Errors
/// If the database does not answer.
pub async fn list(tx: &mut TenantTx) -> Result<Vec<Limit>> {
    let tenant_id = tx.tenant_id();
    let rows = sqlx::query!(
        r#"SELECT l.scope, l.key, coalesce(a.name, p.external_id, '') AS "name!", l.rate, l.burst, l.cost, l.inbound_cost, l.current_rate,
            CASE WHEN l.stopped_until > now() THEN l.stopped_until END AS stopped_until,
            CASE l.scope WHEN 'portfolio' THEN (
                SELECT count(*)
                FROM portfolio_people r
                WHERE r.tenant_id = l.tenant_id AND r.portfolio_id = l.key AND r.reached_at > now() - interval '24 hours'
            ) ELSE 0 END AS "used!",
            CASE l.scope WHEN 'account' THEN (
                SELECT max(r.messages)
                FROM received_seconds r
                WHERE r.tenant_id = l.tenant_id AND r.channel_account_id = l.key
                    AND r.second BETWEEN floor(EXTRACT(epoch FROM now()))::bigint - 9 AND floor(EXTRACT(epoch FROM now()))::bigint
            ) END AS busiest_second
        FROM limits l
        LEFT JOIN channel_accounts a ON a.tenant_id = l.tenant_id AND a.id = l.key
        LEFT JOIN portfolios p ON p.tenant_id = l.tenant_id AND p.id = l.key
        WHERE l.tenant_id = $1
        ORDER BY l.scope, 3, l.key"#,
        tenant_id.0,
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(rows
        .into_iter()
        .filter_map(|row| {
            let received = row.busiest_second.unwrap_or(0);
            let reserved = reserve(row.rate, received, row.inbound_cost);
            let sends = sends_per_second(row.rate, row.current_rate, reserved, row.cost);
            Some(Limit {
                scope: row.scope.parse().ok()?,
                key: row.key,
                name: row.name,
                values: LimitValues { rate: row.rate, burst: row.burst, inbound_cost: row.inbound_cost },
                current_rate: row.current_rate,
                received,
                reserved,
                sends_per_second: Shape::within_each_second(sends, row.burst).sustained(),
                stopped_until: row.stopped_until,
                used: row.used,
            })
        })
        .collect())
}

/// Changes a limit, or sets the first of its kind; what throttling had lowered is forgotten. A stop stays until its time: the provider
/// asked for it, or a call is under way where they come one at a time.
///
/// # Errors
/// If the database does not answer.
pub async fn set(tx: &mut TenantTx, scope: Scope, key: Uuid, change: LimitChange, actor: Actor) -> Result<Set> {
    let tenant_id = tx.tenant_id();
    let Some(provider) = provider(tx.conn(), tenant_id, scope, key).await? else { return Ok(Set::NoSuchThing) };
    let before = locked(tx.conn(), tenant_id, scope, key).await?;
    let values = change.of(before, scope, provider);
    if let Err(bad) = values.check(scope) {
        return Ok(Set::Bad(bad));
    }
    write(tx.conn(), tenant_id, scope, key, &values).await?;
    revise(tx.conn(), tenant_id, scope, key).await?;
    if before != Some(values) {
        measure_anew(tx.conn(), tenant_id, scope, key).await?;
        note(tx, actor, "limit.set", scope, key, json!({"before": before.map(said), "after": said(values)})).await?;
    }
    Ok(Set::Done)
}

/// What became of a change to a limit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Set {
    /// It holds.
    Done,
    /// The tenant has no such account or portfolio.
    NoSuchThing,
    /// It makes no sense.
    Bad(BadLimit),
}

/// What became of a limit that was to be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removed {
    /// It is gone.
    Done,
    /// There was none.
    NoSuchLimit,
    /// It is the rate of an account whose calls come one at a time: that is kept by it, too.
    OneAtATime,
}

/// Removes a limit.
///
/// # Errors
/// If the database does not answer.
pub async fn remove(tx: &mut TenantTx, scope: Scope, key: Uuid, actor: Actor) -> Result<Removed> {
    let tenant_id = tx.tenant_id();
    let Some(before) = locked(tx.conn(), tenant_id, scope, key).await? else { return Ok(Removed::NoSuchLimit) };
    if scope == Scope::Account && is_serial(tx.conn(), tenant_id, key).await? {
        return Ok(Removed::OneAtATime);
    }
    sqlx::query!(
        "DELETE FROM limits WHERE tenant_id = $1 AND scope = $2 AND key = $3",
        tenant_id.0,
        scope.as_str(),
        key,
    )
    .execute(tx.conn())
    .await?;
    revise(tx.conn(), tenant_id, scope, key).await?;
    note(tx, actor, "limit.removed", scope, key, json!({"before": said(before)})).await?;
    Ok(Removed::Done)
}

/// Whether an account's calls come one at a time.
async fn is_serial(conn: &mut PgConnection, tenant_id: TenantId, account: Uuid) -> Result<bool> {
    let serial = sqlx::query_scalar!(
        r#"SELECT provider = 'gateway' AND coalesce((gateway ->> 'serial')::boolean, false) AS "serial!"
        FROM channel_accounts
        WHERE tenant_id = $1 AND id = $2"#,
        tenant_id.0,
        account,
    )
    .fetch_optional(conn)
    .await?;
    Ok(serial.unwrap_or(false))
}

/// A limit as it is set, locked until the end of the transaction.
async fn locked(conn: &mut PgConnection, tenant_id: TenantId, scope: Scope, key: Uuid) -> Result<Option<LimitValues>> {
    Ok(sqlx::query_as!(
        LimitValues,
        "SELECT rate, burst, inbound_cost FROM limits WHERE tenant_id = $1 AND scope = $2 AND key = $3 FOR UPDATE",
        tenant_id.0,
        scope.as_str(),
        key,
    )
    .fetch_optional(conn)
    .await?)
}

fn said(values: LimitValues) -> Value {
    let LimitValues { rate, burst, inbound_cost } = values;
    json!({"rate": rate, "burst": burst, "inbound_cost": inbound_cost})
}

async fn note(
    tx: &mut TenantTx,
    actor: Actor,
    action: &str,
    scope: Scope,
    key: Uuid,
    mut details: Value,
) -> Result<()> {
    details["scope"] = json!(scope);
    let target_kind = if scope.is_of_portfolio() { "portfolio" } else { "channel_account" };
    audit::record(tx, &Entry { actor, action, target_kind, target_id: key, details }).await
}

/// Changes a limit of an account or portfolio that is there and this transaction's own.
pub(super) async fn change(
    conn: &mut PgConnection,
    tenant_id: TenantId,
    (scope, key): (Scope, Uuid),
    change: LimitChange,
    provider: Provider,
) -> Result<()> {
    let before = locked(conn, tenant_id, scope, key).await?;
    write(conn, tenant_id, scope, key, &change.of(before, scope, provider)).await
}

/// Sets a limit of an account or portfolio that is this transaction's own, unless there is one.
pub(super) async fn begin(
    conn: &mut PgConnection,
    tenant_id: TenantId,
    (scope, key): (Scope, Uuid),
    change: LimitChange,
    provider: Provider,
) -> Result<()> {
    if locked(conn, tenant_id, scope, key).await?.is_some() {
        return Ok(());
    }
    write(conn, tenant_id, scope, key, &change.of(None, scope, provider)).await
}

async fn write(
    conn: &mut PgConnection,
    tenant_id: TenantId,
    scope: Scope,
    key: Uuid,
    values: &LimitValues,
) -> Result<()> {
    sqlx::query!(
        "INSERT INTO limits (tenant_id, scope, key, rate, current_rate, wanted, burst, inbound_cost, used)
        VALUES ($1, $2, $3, $4, $4, $4, $5, $6, CASE WHEN $2 = 'portfolio' THEN (
            SELECT count(*) FROM portfolio_people WHERE tenant_id = $1 AND portfolio_id = $3
        ) ELSE 0 END)
        ON CONFLICT (tenant_id, scope, key) DO UPDATE
            SET rate = excluded.rate, current_rate = excluded.rate, wanted = excluded.rate, lowered_at = NULL, burst = excluded.burst, inbound_cost = excluded.inbound_cost",
        tenant_id.0,
        scope.as_str(),
        key,
        values.rate,
        values.burst,
        values.inbound_cost,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// At whom the account or portfolio is, if there is one.
async fn provider(conn: &mut PgConnection, tenant_id: TenantId, scope: Scope, key: Uuid) -> Result<Option<Provider>> {
    let provider = sqlx::query_scalar!(
        r#"SELECT provider AS "provider!" FROM portfolios WHERE tenant_id = $1 AND id = $3 AND $2
        UNION ALL
        SELECT provider FROM channel_accounts WHERE tenant_id = $1 AND id = $3 AND NOT $2"#,
        tenant_id.0,
        scope.is_of_portfolio(),
        key,
    )
    .fetch_optional(conn)
    .await?;
    Ok(provider.and_then(|provider| provider.parse().ok()))
}

/// What was measured of campaigns at another limit says nothing of how long they will take. Senders wait for the limit's row, so
/// nobody is waited for here: who is just being released goes on being measured as before.
async fn measure_anew(conn: &mut PgConnection, tenant_id: TenantId, scope: Scope, key: Uuid) -> Result<()> {
    if scope == Scope::Account {
        sqlx::query!(
            "UPDATE campaigns
            SET sampled_at = NULL, sampled_before_at = NULL, sampled_handed_over = NULL, sampled_before_handed_over = NULL
            WHERE tenant_id = $1 AND id IN (
                SELECT id
                FROM campaigns
                WHERE tenant_id = $1 AND channel_account_id = $2 AND state = 'running'
                ORDER BY id
                FOR NO KEY UPDATE SKIP LOCKED
            )",
            tenant_id.0,
            key,
        )
        .execute(conn)
        .await?;
    }
    Ok(())
}

/// Senders remember an account's rate as the ceiling of their own spacing; a new revision makes them look again.
async fn revise(conn: &mut PgConnection, tenant_id: TenantId, scope: Scope, key: Uuid) -> Result<()> {
    if scope == Scope::Account {
        sqlx::query!(
            "UPDATE channel_accounts SET revision = revision + 1 WHERE tenant_id = $1 AND id = $2",
            tenant_id.0,
            key
        )
        .execute(conn)
        .await?;
    }
    Ok(())
}
