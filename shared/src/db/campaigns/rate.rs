//! How fast campaigns go. Whoever hands a send over counts that up (`outbound::counts`); here, at each release, the count is
//! sampled every ten seconds and the sample before kept. What has been handed over since the older of the two, by the time
//! since then, is the rate: over ten to twenty seconds, of any number of workers together, and honest also when no more samples
//! come. Who starts, resumes or retries a campaign, or changes the limit of its account, drops its samples;
//! until there are two again, its share of what the account may send tells more of how long it will take.

use crate::{
    db::{error::Result, scope::FleetTx},
    domain::ids::TenantId,
};
use uuid::Uuid;

/// Samples those of these campaigns whose last sample is old enough; the caller has locked them.
pub(super) async fn sample(tx: &mut FleetTx, tenant_id: TenantId, campaigns: &[Uuid]) -> Result<()> {
    sqlx::query!(
        "UPDATE campaigns c
        SET sampled_before_at = c.sampled_at, sampled_before_handed_over = c.sampled_handed_over,
            sampled_at = now(), sampled_handed_over = n.handed_over
        FROM campaign_counts n
        WHERE c.tenant_id = $1 AND c.id = ANY ($2) AND n.tenant_id = c.tenant_id AND n.campaign_id = c.id
            -- Or in the future: the clock has stepped back.
            AND (c.sampled_at IS NULL OR c.sampled_at <= now() - interval '10 seconds' OR c.sampled_at > now())",
        tenant_id.0,
        campaigns,
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}
