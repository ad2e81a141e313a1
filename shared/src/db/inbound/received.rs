//! How many messages accounts receive a second, where their provider counts those too: senders keep room for as many.

use crate::{
    db::{error::Result, scope::FleetTx},
    domain::ids::{ChannelAccountId, TenantId},
};
use std::collections::BTreeMap;
use uuid::Uuid;

/// Counts messages that accounts have received now. The last statement of a transaction: its rows are shared by all batches of
/// an account.
///
/// # Errors
/// If the database does not answer.
pub async fn count(tx: &mut FleetTx, received: &BTreeMap<(TenantId, ChannelAccountId), i32>) -> Result<()> {
    if received.is_empty() {
        return Ok(());
    }
    let tenants: Vec<Uuid> = received.keys().map(|(tenant_id, _)| tenant_id.0).collect();
    let accounts: Vec<Uuid> = received.keys().map(|(_, id)| id.0).collect();
    let messages: Vec<i32> = received.values().copied().collect();
    sqlx::query!(
        "INSERT INTO received_seconds AS r (tenant_id, channel_account_id, slot, second, messages)
        SELECT new.tenant_id, new.id, at.second % 16, at.second, new.messages
        FROM (SELECT floor(EXTRACT(epoch FROM clock_timestamp()))::bigint AS second) AS at,
            unnest($1::uuid[], $2::uuid[], $3::int[]) AS new (tenant_id, id, messages)
        JOIN limits l ON l.tenant_id = new.tenant_id AND l.scope = 'account' AND l.key = new.id AND l.inbound_cost > 0
        ORDER BY new.tenant_id, new.id
        ON CONFLICT (tenant_id, channel_account_id, slot) DO UPDATE
            SET messages = excluded.messages + CASE WHEN r.second = excluded.second THEN r.messages ELSE 0 END,
                second = excluded.second",
        &tenants,
        &accounts,
        &messages,
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}
