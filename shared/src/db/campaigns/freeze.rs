//! Freezing an audience: one row for each person, chunk by chunk in the order of contacts' ids. A chunk, the place it reached
//! and the next chunk's job are one transaction, so a crash or a job that comes twice freezes nobody twice.

use super::{
    QUEUE,
    counts::{self, Delta},
    job, people,
};
use crate::{
    crash::{self, CrashPoint},
    db::{error::Result, scope::FleetTx},
    domain::{
        campaigns::{Audience, CampaignContent},
        ids::{CampaignId, ChannelAccountId, ContactId, TenantId},
    },
    jobs::campaign::Task,
};
use chrono::{DateTime, Utc};
use sqlx::types::Json;
use std::collections::BTreeMap;
use uuid::Uuid;

/// So many people are frozen in one transaction: far from what an answer of the database may take, and few transactions for a
/// million.
pub const CHUNK: usize = 10_000;

/// Freezes the people behind `after`, if they are the next ones, and writes the job for those behind them.
///
/// # Errors
/// If the database does not answer.
pub async fn freeze(
    tx: &mut FleetTx,
    tenant_id: TenantId,
    campaign_id: CampaignId,
    after: Option<ContactId>,
) -> Result<()> {
    // Not for a cancelled one, nor for a job that comes again.
    let campaign = sqlx::query!(
        r#"SELECT content AS "content: Json<CampaignContent>", audience AS "audience: Json<Audience>",
            channel_account_id AS "account: ChannelAccountId", started_at AS "started_at!",
            now() AS "now!"
        FROM campaigns
        WHERE tenant_id = $1 AND id = $2 AND state IN ('running', 'paused') AND frozen_at IS NULL
            AND frozen_through IS NOT DISTINCT FROM $3
        FOR NO KEY UPDATE"#,
        tenant_id.0,
        campaign_id.0,
        after.map(|id| id.0),
    )
    .fetch_optional(tx.conn())
    .await?;
    let Some(campaign) = campaign else { return Ok(()) };
    let next = match &campaign.audience.0 {
        Audience::All => everybody(tx, tenant_id, campaign.started_at, after).await?,
        Audience::Contacts(ids) => {
            ids.iter().filter(|id| Some(**id) > after).take(CHUNK).map(|id| id.0).collect::<Vec<_>>()
        }
    };
    let delta = insert(tx, (tenant_id, campaign_id, campaign.account), &campaign.content.0, &next).await?;
    crash::pass(CrashPoint::CampaignMidChunk);
    let through = next.last().copied().or(after.map(|id| id.0));
    if next.len() < CHUNK {
        sqlx::query!(
            "UPDATE campaigns
            SET frozen_through = $3, frozen_at = now(),
                frozen_count = (SELECT count(*) FROM campaign_recipients WHERE tenant_id = $1 AND campaign_id = $2)
            WHERE tenant_id = $1 AND id = $2",
            tenant_id.0,
            campaign_id.0,
            through,
        )
        .execute(tx.conn())
        .await?;
    } else {
        sqlx::query!(
            "UPDATE campaigns SET frozen_through = $3 WHERE tenant_id = $1 AND id = $2",
            tenant_id.0,
            campaign_id.0,
            through,
        )
        .execute(tx.conn())
        .await?;
        let task = Task::Freeze { campaign_id, after: through.map(ContactId) };
        tx.enqueue(tenant_id, QUEUE, job(tenant_id, task, campaign.now), None);
    }
    counts::shift(tx, tenant_id, &BTreeMap::from([(campaign_id, delta)])).await
}

/// The next of those who were contacts when the campaign was started.
async fn everybody(
    tx: &mut FleetTx,
    tenant_id: TenantId,
    started_at: DateTime<Utc>,
    after: Option<ContactId>,
) -> Result<Vec<Uuid>> {
    let ids = sqlx::query_scalar!(
        "SELECT id
        FROM contacts
        WHERE tenant_id = $1 AND id > $2 AND created_at <= $3 AND merged_into IS NULL AND erased_at IS NULL
        ORDER BY id
        LIMIT $4",
        tenant_id.0,
        after.map_or(Uuid::nil(), |id| id.0),
        started_at,
        i64::try_from(CHUNK).unwrap_or(i64::MAX),
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(ids)
}

/// Who these are by now, each once, without those who were erased, and without who is written to already as somebody who was merged
/// into them.
async fn stayed(tx: &mut FleetTx, tenant_id: TenantId, campaign_id: CampaignId, ids: &[Uuid]) -> Result<Vec<Uuid>> {
    let ids = sqlx::query_scalar!(
        r#"SELECT DISTINCT stayed.id AS "id!"
        FROM unnest($3::uuid[]) AS asked (id)
        CROSS JOIN LATERAL (
            SELECT coalesce(merged_into, id) AS id FROM contacts WHERE tenant_id = $1 AND id = asked.id AND erased_at IS NULL LIMIT 1
        ) AS stayed
        WHERE NOT EXISTS (
            SELECT
            FROM contacts gone
            JOIN campaign_recipients r ON r.tenant_id = $1 AND r.campaign_id = $2 AND r.contact_id = gone.id
            WHERE gone.tenant_id = $1 AND gone.merged_into = stayed.id AND r.state = 'released'
        )
        ORDER BY 1"#,
        tenant_id.0,
        campaign_id.0,
        ids,
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(ids)
}

/// Writes the people down, each waiting or skipped with the reason.
async fn insert(
    tx: &mut FleetTx,
    (tenant_id, campaign_id, account): (TenantId, CampaignId, ChannelAccountId),
    content: &CampaignContent,
    ids: &[Uuid],
) -> Result<Delta> {
    // Of those who are named some may have been merged: who stayed is written to.
    let ids = stayed(tx, tenant_id, campaign_id, ids).await?;
    let people = people::addressees(tx, tenant_id, account, &ids).await?;
    let (mut frozen, mut reasons) = (Vec::with_capacity(ids.len()), Vec::with_capacity(ids.len()));
    for id in &ids {
        let Some(person) = people.get(&ContactId(*id)) else { continue };
        let reason = content.filled(person).err();
        frozen.push(*id);
        reasons.push(reason.map(|reason| reason.as_str().to_owned()));
    }
    // Who another person of the audience was merged into has a row already.
    let skipped = sqlx::query_scalar!(
        r#"INSERT INTO campaign_recipients (tenant_id, campaign_id, contact_id, state, skip_reason)
        SELECT $1, $2, contact_id, CASE WHEN reason IS NULL THEN 'waiting' ELSE 'skipped' END, reason
        FROM unnest($3::uuid[], $4::text[]) AS frozen (contact_id, reason)
        ON CONFLICT (tenant_id, campaign_id, contact_id) DO NOTHING
        RETURNING state = 'skipped' AS "skipped!""#,
        tenant_id.0,
        campaign_id.0,
        &frozen,
        &reasons as &[Option<String>],
    )
    .fetch_all(tx.conn())
    .await?;
    let mut delta = Delta::default();
    for skipped in skipped {
        *if skipped { &mut delta.skipped } else { &mut delta.waiting } += 1;
    }
    Ok(delta)
}
