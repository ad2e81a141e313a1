//! A campaign goes on: what waited for that is queued again, chunk by chunk. It begins with the people who were released last:
//! of these nearly all still wait.

use super::{
    QUEUE,
    freeze::CHUNK,
    job,
    release::{Pace, pace},
};
use crate::{
    db::{error::Result, scope::FleetTx},
    domain::{
        ids::{CampaignId, ChannelAccountId, ContactId, MessageId, TenantId},
        sends::WaitReason,
    },
    jobs::campaign::Task,
};
use uuid::Uuid;

/// Queues what waits for the campaign among its people before `before`, and writes the job for those before them. Nothing if it
/// does not run.
///
/// # Errors
/// If the database does not answer.
pub async fn wake(
    tx: &mut FleetTx,
    tenant_id: TenantId,
    campaign_id: CampaignId,
    before: Option<ContactId>,
) -> Result<()> {
    let campaign = sqlx::query!(
        r#"SELECT channel_account_id AS "account: ChannelAccountId", now() AS "now!"
        FROM campaigns
        WHERE tenant_id = $1 AND id = $2 AND state = 'running'
        FOR SHARE"#,
        tenant_id.0,
        campaign_id.0,
    )
    .fetch_optional(tx.conn())
    .await?;
    let Some(campaign) = campaign else { return Ok(()) };
    let released = sqlx::query!(
        r#"SELECT contact_id AS "contact_id: ContactId", message_id AS "message_id!"
        FROM campaign_recipients
        WHERE tenant_id = $1 AND campaign_id = $2 AND contact_id < $3 AND state = 'released'
        ORDER BY contact_id DESC
        LIMIT $4"#,
        tenant_id.0,
        campaign_id.0,
        before.map_or(Uuid::max(), |id| id.0),
        i64::try_from(CHUNK).unwrap_or(i64::MAX),
    )
    .fetch_all(tx.conn())
    .await?;
    let messages: Vec<Uuid> = released.iter().map(|row| row.message_id).collect();
    let mut woken = sqlx::query_scalar!(
        r#"WITH waiting AS MATERIALIZED (
            SELECT s.message_id
            FROM unnest($2::uuid[]) AS asked (message_id)
            JOIN sends s ON s.tenant_id = $1 AND s.message_id = asked.message_id
            WHERE s.state = 'waiting' AND s.wait_reason = $3
            ORDER BY s.message_id
            FOR UPDATE OF s
        )
        UPDATE sends s
        SET state = 'queued', wait_reason = NULL, due_at = NULL, updated_at = clock_timestamp()
        FROM waiting
        WHERE s.tenant_id = $1 AND s.message_id = waiting.message_id
        RETURNING s.message_id AS "message_id: MessageId""#,
        tenant_id.0,
        &messages,
        WaitReason::Campaign.as_str(),
    )
    .fetch_all(tx.conn())
    .await?;
    woken.sort_unstable();
    // On an account that cannot send they are found waiting for it, as soon as they come.
    let pace = pace(tx, tenant_id, campaign.account).await?.unwrap_or(Pace::AT_ONCE);
    pace.enqueue(tx, (tenant_id, campaign.account), &woken, 0, campaign.now);
    if let Some(last) = released.last().filter(|_| released.len() >= CHUNK) {
        let task = Task::Wake { campaign_id, before: Some(last.contact_id) };
        tx.enqueue(tenant_id, QUEUE, job(tenant_id, task, campaign.now), None);
    }
    Ok(())
}
