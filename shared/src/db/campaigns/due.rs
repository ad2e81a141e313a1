//! Whose people are to be released now.

use crate::{
    db::{error::Result, scope::FleetTx},
    domain::ids::{ChannelAccountId, TenantId},
};
use std::collections::BTreeSet;

/// The accounts on which campaigns run and nobody has asked for a release within a second, as asked for now. Those without a
/// limit, which are done with what they have in flight much sooner, are asked for each quarter of a second. What another
/// scheduler, or a release, is at is passed over. A release that is asked for twice, or not at all, does no harm: the next
/// makes up for it.
///
/// # Errors
/// If the database does not answer.
pub async fn ask(tx: &mut FleetTx) -> Result<BTreeSet<(TenantId, ChannelAccountId)>> {
    // A little less than that: who comes each quarter of a second must not find it a moment too early.
    let asked = sqlx::query!(
        r#"WITH due AS MATERIALIZED (
            SELECT tenant_id, id
            FROM campaigns
            WHERE state = 'running'
                AND (
                    release_asked_at < now() - CASE
                        WHEN EXISTS (
                            SELECT FROM limits
                            WHERE limits.tenant_id = campaigns.tenant_id AND scope = 'account' AND key = channel_account_id
                        ) THEN interval '0.8 seconds'
                        ELSE interval '0.2 seconds'
                    END
                    -- Or in the future: the clock has stepped back.
                    OR release_asked_at > now()
                )
            ORDER BY tenant_id, id
            FOR NO KEY UPDATE SKIP LOCKED
        )
        UPDATE campaigns c
        SET release_asked_at = now()
        FROM due
        WHERE c.tenant_id = due.tenant_id AND c.id = due.id
        RETURNING c.tenant_id AS "tenant_id: TenantId", c.channel_account_id AS "account: ChannelAccountId""#
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(asked.into_iter().map(|row| (row.tenant_id, row.account)).collect())
}
