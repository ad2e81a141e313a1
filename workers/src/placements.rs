//! Where tenants' data lives, remembered for a while.

use crate::worker::Settle;
use shared::{
    db::{self, Databases, Placement, routing},
    domain::ids::TenantId,
};
use std::time::Duration;

/// Tenants do not move between databases often; a move is noticed within this time.
const REMEMBERED: Duration = Duration::from_secs(60);

/// Placements by tenant.
pub(crate) struct Placements {
    databases: Databases,
    known: moka::sync::Cache<TenantId, Placement>,
}

impl Placements {
    pub(crate) fn new(databases: Databases) -> Self {
        Self { databases, known: moka::sync::Cache::builder().max_capacity(100_000).time_to_live(REMEMBERED).build() }
    }

    /// Where the tenant's data lives, found even if the database is away for a while; `None` if there is no such tenant.
    pub(crate) async fn find<E: Send + Sync + 'static>(
        &self,
        tenant_id: TenantId,
        settle: &Settle<E>,
    ) -> db::Result<Option<Placement>> {
        if let Some(placement) = self.known.get(&tenant_id) {
            return Ok(Some(placement));
        }
        let find = || async move {
            let mut tx = self.databases.control().await?;
            routing::find_placement(&mut tx, tenant_id).await
        };
        let placement = settle.outlast("finding a tenant's database", find).await?;
        if let Some(placement) = &placement {
            self.known.insert(tenant_id, placement.clone());
        }
        Ok(placement)
    }
}
