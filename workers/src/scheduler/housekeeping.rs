//! What need not be exact: rates that creep back, partitions ahead and behind, rows past their time.

use super::sweep::Fault;
use shared::{
    db::{Databases, Placement, outbound::outcomes, retention},
    domain::ids::TenantId,
};
use tracing::info;

/// Rates that a provider's throttling lowered creep back.
pub(super) async fn rates(databases: &Databases, placement: &Placement, tenants: &[TenantId]) -> Result<(), Fault> {
    let mut tx = databases.fleet(placement, tenants).await?;
    outcomes::creep_back(&mut tx).await?;
    tx.commit().await?;
    Ok(())
}

/// Control rows past their time.
pub(super) async fn control(databases: &Databases) -> Result<(), Fault> {
    let mut tx = databases.control().await?;
    let removed = retention::expire_control(&mut tx).await?;
    tx.commit().await?;
    if removed > 0 {
        info!(removed, "control rows past their time are gone");
    }
    Ok(())
}

/// Partitions, and tenants' rows past their time.
pub(super) async fn tenants(databases: &Databases, placement: &Placement, tenants: &[TenantId]) -> Result<(), Fault> {
    let mut tx = databases.fleet(placement, tenants).await?;
    let changed = retention::maintain_partitions(&mut tx).await?;
    let removed = retention::expire_tenants(&mut tx).await?;
    tx.commit().await?;
    if changed > 0 || removed > 0 {
        info!(%placement, partitions = changed, rows = removed, "housekeeping");
    }
    Ok(())
}
