//! Whether an account that is down is back: one message at a time is let through, ever more seldom; when one is taken, the account is
//! put back to work, and what waits for it is woken.

use super::{
    accounts,
    turns::{self, CAMPAIGN_LANE},
};
use crate::{
    db::{error::Result, scope::FleetTx},
    domain::ids::{ChannelAccountId, MessageId, TenantId},
    jobs::outbound::{OutboundJob, OutboundSlice, Task},
};
use sqlx::PgConnection;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use uuid::Uuid;

/// Seconds until an account is tried again the first time, by why it is down: a provider that fails is back sooner than one that
/// refuses. It doubles with every try, up to an hour.
pub(super) const FIRST_AFTER_ERRORS: f64 = 30.0;
/// As [`FIRST_AFTER_ERRORS`], of one that was refused.
pub(super) const FIRST_AFTER_REFUSAL: f64 = 60.0;

/// Why an account is down that failed too often.
pub const ERROR_RATE: &str = "error_rate";
/// Why an account is down whose secrets are of no use: nobody but an operator brings it back.
pub const SECRETS: &str = "secrets";

/// Which of these accounts, all down, may be tried with one message now. It counts as tried from here on: nobody else gets it
/// before its next time.
pub(super) async fn claim(
    tx: &mut FleetTx,
    wanted: &BTreeSet<(TenantId, ChannelAccountId)>,
) -> Result<BTreeSet<(TenantId, ChannelAccountId)>> {
    if wanted.is_empty() {
        return Ok(BTreeSet::new());
    }
    let tenants: Vec<Uuid> = wanted.iter().map(|(tenant_id, _)| tenant_id.0).collect();
    let accounts: Vec<Uuid> = wanted.iter().map(|(_, id)| id.0).collect();
    let rows = sqlx::query!(
        r#"WITH due AS MATERIALIZED (
            SELECT a.tenant_id, a.id
            FROM channel_accounts a
            WHERE (a.tenant_id, a.id) IN (SELECT * FROM unnest($1::uuid[], $2::uuid[]))
                AND a.state = 'down' AND a.probe_at <= clock_timestamp()
            ORDER BY a.tenant_id, a.id
            FOR NO KEY UPDATE
        )
        UPDATE channel_accounts a
        SET probes = a.probes + 1,
            probe_at = clock_timestamp() + make_interval(secs => least(3600, $3 * power(2, least(a.probes, 10))))
        FROM due
        WHERE a.tenant_id = due.tenant_id AND a.id = due.id
        RETURNING a.tenant_id AS "tenant_id: TenantId", a.id AS "id: ChannelAccountId""#,
        &tenants,
        &accounts,
        FIRST_AFTER_REFUSAL,
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(rows.into_iter().map(|row| (row.tenant_id, row.id)).collect())
}

/// Tries that came to nothing before a call was made do not count: the next may be made after so long.
pub(super) async fn not_made(tx: &mut FleetTx, tries: &BTreeMap<(TenantId, ChannelAccountId), Duration>) -> Result<()> {
    if tries.is_empty() {
        return Ok(());
    }
    let tenants: Vec<Uuid> = tries.keys().map(|(tenant_id, _)| tenant_id.0).collect();
    let accounts: Vec<Uuid> = tries.keys().map(|(_, id)| id.0).collect();
    let waits: Vec<f64> = tries.values().map(Duration::as_secs_f64).collect();
    sqlx::query!(
        "WITH tried AS MATERIALIZED (
            SELECT a.tenant_id, a.id, tried.wait
            FROM unnest($1::uuid[], $2::uuid[], $3::float8[]) AS tried (tenant_id, id, wait)
            JOIN channel_accounts a ON a.tenant_id = tried.tenant_id AND a.id = tried.id
            WHERE a.state = 'down' AND a.probe_at IS NOT NULL
            ORDER BY a.tenant_id, a.id
            FOR NO KEY UPDATE OF a
        )
        UPDATE channel_accounts a
        SET probes = greatest(0, a.probes - 1), probe_at = least(a.probe_at, clock_timestamp() + make_interval(secs => tried.wait))
        FROM tried
        WHERE a.tenant_id = tried.tenant_id AND a.id = tried.id",
        &tenants,
        &accounts,
        &waits,
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Puts accounts back to work with which a message was taken although they were down. Where a report had taken the account down, one has
/// to say that it is back ([`hear`]).
pub(super) async fn passed(tx: &mut FleetTx, taken: &BTreeMap<(TenantId, ChannelAccountId), MessageId>) -> Result<()> {
    for ((tenant_id, id), message_id) in taken {
        let waits_for_reports = sqlx::query!(
            "UPDATE channel_accounts SET probe_with = $3 WHERE tenant_id = $1 AND id = $2 AND state = 'down' AND down_by_report",
            tenant_id.0,
            id.0,
            message_id.0,
        )
        .execute(tx.conn())
        .await?;
        if waits_for_reports.rows_affected() == 1 {
            continue;
        }
        // One that somebody has brought back meanwhile is not changed once more.
        let is_down = sqlx::query_scalar!(
            r#"SELECT state = 'down' AS "is_down!" FROM channel_accounts WHERE tenant_id = $1 AND id = $2 FOR NO KEY UPDATE"#,
            tenant_id.0,
            id.0,
        )
        .fetch_optional(tx.conn())
        .await?;
        if is_down == Some(true) {
            accounts::resume(tx, *tenant_id, *id).await?;
            wake_later(tx, *tenant_id, *id).await?;
        }
    }
    Ok(())
}

/// What waits for an account is woken by and by ([`see_to`]).
///
/// # Errors
/// If the database does not answer.
pub async fn wake_later(tx: &mut FleetTx, tenant_id: TenantId, id: ChannelAccountId) -> Result<()> {
    wake_by_and_by(tx.conn(), tenant_id, id).await
}

pub(super) async fn wake_by_and_by(conn: &mut PgConnection, tenant_id: TenantId, id: ChannelAccountId) -> Result<()> {
    sqlx::query!(
        "UPDATE channel_accounts SET wake_after = $3 WHERE tenant_id = $1 AND id = $2",
        tenant_id.0,
        id.0,
        Uuid::nil(),
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Brings the message of each account whose time has come, and wakes the next of what waits for one that is back. Whether there is
/// more to wake.
///
/// # Errors
/// If the database does not answer.
pub async fn see_to(tx: &mut FleetTx) -> Result<bool> {
    hear(tx).await?;
    bring_probes(tx).await?;
    go_on_waking(tx).await
}

/// A try of which so long nothing bad is heard was a good one: not every provider tells of what arrives.
const NO_NEWS_IS_GOOD: &str = "10 minutes";

/// Puts accounts back to work that a report had taken down, once their try is reported as delivered: that it is sent on was said of the
/// message they went down with, too. How often they have been tried is kept for a while, in case they go down again.
async fn hear(tx: &mut FleetTx) -> Result<()> {
    let back = sqlx::query!(
        r#"SELECT a.tenant_id AS "tenant_id: TenantId", a.id AS "id: ChannelAccountId", a.probes
        FROM channel_accounts a
        JOIN sends s ON s.tenant_id = a.tenant_id AND s.message_id = a.probe_with
        WHERE a.state = 'down' AND a.down_by_report AND s.granted_at > a.down_at
            AND (s.state IN ('delivered', 'read') OR (s.state = 'sent' AND s.granted_at < clock_timestamp() - $1::text::interval))
        ORDER BY a.tenant_id, a.id
        FOR NO KEY UPDATE OF a SKIP LOCKED"#,
        NO_NEWS_IS_GOOD,
    )
    .fetch_all(tx.conn())
    .await?;
    for row in back {
        if accounts::resume(tx, row.tenant_id, row.id).await?.as_deref() == Some("down") {
            remember_tries(tx, row.tenant_id, row.id, row.probes).await?;
            wake_later(tx, row.tenant_id, row.id).await?;
        }
    }
    Ok(())
}

/// An account that goes down again so soon after its return goes on being tried as seldom as before ([`super::aftermath::take_down`]).
pub(super) const SOON: &str = "1 hour";

async fn remember_tries(tx: &mut FleetTx, tenant_id: TenantId, id: ChannelAccountId, probes: i32) -> Result<()> {
    sqlx::query!(
        "UPDATE channel_accounts SET probes = $3 WHERE tenant_id = $1 AND id = $2",
        tenant_id.0,
        id.0,
        probes,
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// So many of a tenant's newest sends are looked through for one that can try an account, once for each try.
const LOOKED_THROUGH: i64 = 20_000;

async fn bring_probes(tx: &mut FleetTx) -> Result<()> {
    let due = sqlx::query!(
        r#"WITH due AS MATERIALIZED (
            SELECT a.tenant_id, a.id, CASE WHEN s.may_go THEN s.message_id END AS message_id, s.lane
            FROM channel_accounts a
            LEFT JOIN LATERAL (
                SELECT tenant_id, message_id, lane, true AS is_its_own,
                    state = 'waiting' AND (due_at IS NULL OR due_at <= clock_timestamp() OR wait_reason = 'account_down')
                        AND NOT EXISTS (
                            SELECT FROM campaigns c
                            WHERE c.tenant_id = sends.tenant_id AND c.id = sends.campaign_id AND c.state = 'paused'
                        ) AS may_go
                FROM sends
                WHERE tenant_id = a.tenant_id AND message_id = a.probe_with AND state IN ('waiting', 'queued', 'sending', 'unknown')
                UNION ALL
                -- What it went down with is settled: the earliest of the newest that wait for it.
                SELECT *
                FROM (
                    SELECT tenant_id, message_id, lane, false, NOT EXISTS (
                        SELECT FROM campaigns c
                        WHERE c.tenant_id = newest.tenant_id AND c.id = newest.campaign_id AND c.state = 'paused'
                    )
                    FROM (
                        SELECT *
                        FROM sends
                        WHERE tenant_id = a.tenant_id
                        ORDER BY message_id DESC
                        LIMIT $1
                    ) AS newest
                    WHERE channel_account_id = a.id AND state = 'waiting' AND wait_reason = 'account_down'
                    ORDER BY message_id
                    LIMIT 1
                ) AS another
                LIMIT 1
            ) AS s ON true
            -- What could not be let through now would be brought again and again. The message it went down with is found by its key,
            -- and goes in a while; where there is nothing, all is not looked through again before the next try.
            WHERE a.state = 'down' AND a.probe_at <= clock_timestamp() AND a.probe_brought_for IS DISTINCT FROM a.probe_at
                AND (s.may_go OR s.is_its_own IS NOT TRUE)
            ORDER BY a.tenant_id, a.id
            FOR NO KEY UPDATE OF a SKIP LOCKED
        )
        UPDATE channel_accounts a
        SET probe_brought_for = a.probe_at
        FROM due
        WHERE a.tenant_id = due.tenant_id AND a.id = due.id
        RETURNING due.tenant_id AS "tenant_id: TenantId", due.message_id AS "message_id?: MessageId", due.id AS "account: ChannelAccountId",
            due.lane AS "lane?", now() AS "now!""#,
        LOOKED_THROUGH,
    )
    .fetch_all(tx.conn())
    .await?;
    for row in due {
        let (tenant_id, account) = (row.tenant_id, row.account);
        // Nobody waits: the next that comes finds the account due.
        let Some(message_id) = row.message_id else { continue };
        if row.lane == Some(CAMPAIGN_LANE) {
            let slice = OutboundSlice { tenant_id, account, message_ids: vec![message_id] };
            tx.enqueue(tenant_id, turns::BULK_QUEUE, slice.to_job(row.now), None);
        } else {
            let job = OutboundJob { tenant_id, message_id, account: Some(account), task: Task::Send };
            tx.enqueue(tenant_id, turns::QUEUE, job.to_job(row.now), None);
        }
    }
    Ok(())
}

async fn go_on_waking(tx: &mut FleetTx) -> Result<bool> {
    let row = sqlx::query!(
        r#"SELECT tenant_id AS "tenant_id: TenantId", id AS "id: ChannelAccountId", wake_after AS "after!: MessageId"
        FROM channel_accounts
        WHERE wake_after IS NOT NULL
        ORDER BY tenant_id, id
        LIMIT 1
        FOR NO KEY UPDATE SKIP LOCKED"#,
    )
    .fetch_optional(tx.conn())
    .await?;
    let Some(row) = row else { return Ok(false) };
    let next = accounts::wake(tx, row.tenant_id, row.id, Some(row.after)).await?;
    sqlx::query!(
        "UPDATE channel_accounts SET wake_after = $3 WHERE tenant_id = $1 AND id = $2",
        row.tenant_id.0,
        row.id.0,
        next.map(|id| id.0),
    )
    .execute(tx.conn())
    .await?;
    Ok(true)
}
