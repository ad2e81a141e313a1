//! A campaign was cancelled: its people who are not released yet, and the sends that have not gone out, are cancelled chunk by
//! chunk. What a provider may have already takes its course.

use super::{
    QUEUE,
    counts::{self, Delta},
    freeze::CHUNK,
    job,
};
use crate::{
    db::{error::Result, scope::FleetTx},
    domain::ids::{CampaignId, ContactId, TenantId},
    jobs::campaign::Task,
};
use std::collections::BTreeMap;
use uuid::Uuid;

/// Cancels what can be cancelled among the people before `before`, and writes the job for those before them. Behind the last
/// chunk the campaign's books are checked.
///
/// # Errors
/// If the database does not answer.
pub async fn cancel(
    tx: &mut FleetTx,
    tenant_id: TenantId,
    campaign_id: CampaignId,
    before: Option<ContactId>,
) -> Result<()> {
    let now = sqlx::query_scalar!(
        r#"SELECT now() AS "now!" FROM campaigns WHERE tenant_id = $1 AND id = $2 AND state = 'cancelled' FOR NO KEY UPDATE"#,
        tenant_id.0,
        campaign_id.0,
    )
    .fetch_optional(tx.conn())
    .await?;
    let Some(now) = now else { return Ok(()) };
    // A cancelled campaign lets nobody go, so what waits here still waits below.
    let people = sqlx::query!(
        r#"SELECT contact_id AS "contact_id: ContactId", message_id
        FROM campaign_recipients
        WHERE tenant_id = $1 AND campaign_id = $2 AND contact_id < $3 AND state IN ('waiting', 'released')
        ORDER BY contact_id DESC
        LIMIT $4"#,
        tenant_id.0,
        campaign_id.0,
        before.map_or(Uuid::max(), |id| id.0),
        i64::try_from(CHUNK).unwrap_or(i64::MAX),
    )
    .fetch_all(tx.conn())
    .await?;
    let messages: Vec<Uuid> = people.iter().filter_map(|row| row.message_id).collect();
    let (sends, held) = sends(tx, tenant_id, &messages).await?;
    let waiting: Vec<Uuid> = people.iter().filter(|row| row.message_id.is_none()).map(|row| row.contact_id.0).collect();
    let waiting = recipients(tx, tenant_id, campaign_id, &waiting).await?;
    let last = people.last().filter(|_| people.len() >= CHUNK);
    let task = match last {
        Some(last) => Task::Cancel { campaign_id, before: Some(last.contact_id) },
        None => Task::Check { campaign_id },
    };
    if last.is_none() {
        // Cancelled while it was being frozen: these are the people it had.
        sqlx::query!(
            "UPDATE campaigns
            SET frozen_at = now(),
                frozen_count = (SELECT count(*) FROM campaign_recipients WHERE tenant_id = $1 AND campaign_id = $2)
            WHERE tenant_id = $1 AND id = $2 AND frozen_at IS NULL",
            tenant_id.0,
            campaign_id.0,
        )
        .execute(tx.conn())
        .await?;
    }
    tx.enqueue(tenant_id, QUEUE, job(tenant_id, task, now), None);
    let delta =
        Delta { waiting: -waiting, in_flight: -sends - held, held, cancelled: waiting + sends, ..Delta::default() };
    counts::shift(tx, tenant_id, &BTreeMap::from([(campaign_id, delta)])).await
}

/// Cancels the sends of these messages that nobody has claimed. How many; and how many of them an earlier attempt may have
/// brought to the person all the same: these are held. Nobody waits for their turn behind them.
async fn sends(tx: &mut FleetTx, tenant_id: TenantId, messages: &[Uuid]) -> Result<(i64, i64)> {
    let done = sqlx::query!(
        r#"WITH open AS MATERIALIZED (
            SELECT s.message_id
            FROM unnest($2::uuid[]) AS asked (message_id)
            JOIN sends s ON s.tenant_id = $1 AND s.message_id = asked.message_id
            WHERE s.state IN ('waiting', 'queued')
            ORDER BY s.message_id
            FOR UPDATE OF s
        ),
        cancelled AS (
            UPDATE sends s
            SET state = CASE WHEN s.possibly_doubled THEN 'held' ELSE 'cancelled' END,
                wait_reason = NULL, due_at = NULL, updated_at = clock_timestamp()
            FROM open
            WHERE s.tenant_id = $1 AND s.message_id = open.message_id
            RETURNING s.message_id, s.state, s.updated_at
        ),
        note AS (
            INSERT INTO trail (tenant_id, message_id, event, at)
            SELECT $1, message_id, state, updated_at FROM cancelled
            ON CONFLICT (tenant_id, message_id, event, at) DO NOTHING
        )
        SELECT count(*) FILTER (WHERE state = 'cancelled') AS "cancelled!", count(*) FILTER (WHERE state = 'held') AS "held!"
        FROM cancelled"#,
        tenant_id.0,
        messages,
    )
    .fetch_one(tx.conn())
    .await?;
    Ok((done.cancelled, done.held))
}

/// Cancels these people, if they wait. How many.
async fn recipients(tx: &mut FleetTx, tenant_id: TenantId, campaign_id: CampaignId, contacts: &[Uuid]) -> Result<i64> {
    let done = sqlx::query!(
        "UPDATE campaign_recipients r
        SET state = 'cancelled'
        FROM unnest($3::uuid[]) AS asked (contact_id)
        WHERE r.tenant_id = $1 AND r.campaign_id = $2 AND r.contact_id = asked.contact_id AND r.state = 'waiting'",
        tenant_id.0,
        campaign_id.0,
        contacts,
    )
    .execute(tx.conn())
    .await?;
    Ok(i64::try_from(done.rows_affected()).unwrap_or(i64::MAX))
}
