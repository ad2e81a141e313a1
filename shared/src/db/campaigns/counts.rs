//! Moving what is shown of campaigns. Last in a transaction: each outcome of a send waits for the same row.

use crate::{
    db::{error::Result, scope::FleetTx},
    domain::ids::{CampaignId, TenantId},
};
use std::collections::BTreeMap;
use uuid::Uuid;

/// By how much what is shown of a campaign changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Delta {
    pub(super) skipped: i64,
    pub(super) waiting: i64,
    pub(super) in_flight: i64,
    pub(super) held: i64,
    pub(super) failed: i64,
    pub(super) cancelled: i64,
}

/// Moves the counts of a tenant's campaigns.
pub(super) async fn shift(tx: &mut FleetTx, tenant_id: TenantId, deltas: &BTreeMap<CampaignId, Delta>) -> Result<()> {
    let deltas: Vec<(Uuid, Delta)> =
        deltas.iter().filter(|(_, delta)| **delta != Delta::default()).map(|(id, delta)| (id.0, *delta)).collect();
    if deltas.is_empty() {
        return Ok(());
    }
    let column = |part: fn(&Delta) -> i64| -> Vec<i64> { deltas.iter().map(|(_, delta)| part(delta)).collect() };
    let ids: Vec<Uuid> = deltas.iter().map(|(id, _)| *id).collect();
    sqlx::query!(
        "WITH moved AS MATERIALIZED (
            SELECT n.campaign_id, d.skipped, d.waiting, d.in_flight, d.held, d.failed, d.cancelled
            FROM unnest($2::uuid[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[])
                AS d (campaign_id, skipped, waiting, in_flight, held, failed, cancelled)
            JOIN campaign_counts n ON n.tenant_id = $1 AND n.campaign_id = d.campaign_id
            ORDER BY n.campaign_id
            FOR NO KEY UPDATE OF n
        )
        UPDATE campaign_counts n
        SET skipped = n.skipped + moved.skipped, waiting = n.waiting + moved.waiting, in_flight = n.in_flight + moved.in_flight,
            held = n.held + moved.held, failed = n.failed + moved.failed, cancelled = n.cancelled + moved.cancelled
        FROM moved
        WHERE n.tenant_id = $1 AND n.campaign_id = moved.campaign_id",
        tenant_id.0,
        &ids,
        &column(|d| d.skipped),
        &column(|d| d.waiting),
        &column(|d| d.in_flight),
        &column(|d| d.held),
        &column(|d| d.failed),
        &column(|d| d.cancelled),
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}
