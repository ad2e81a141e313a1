//! What the handlers of the API share.

use crate::{auth::Tokens, imports::Imports, relay::Relay, routes::media::Placements};
use shared::{
    cache::RateLimits,
    clock::Clock,
    db::{Databases, TenantTx},
    domain::ids::TenantId,
    links::Links,
    storage::Storage,
};
use std::sync::Arc;

/// Everything a handler can reach. Cheap to clone.
#[derive(Clone)]
pub struct App(Arc<Parts>);

/// What an [`App`] is made of.
pub struct Parts {
    /// The databases, in the role of the API.
    pub databases: Databases,
    /// The time.
    pub clock: Clock,
    /// How often each token may ask.
    pub rates: RateLimits,
    /// Publishes what requests have committed.
    pub relay: Relay,
    /// Who may ask.
    pub tokens: Tokens,
    /// The imports under way.
    pub imports: Imports,
    /// Where files are.
    pub storage: Storage,
    /// Links to them.
    pub links: Links,
    /// Where tenants' data lives.
    pub placements: Placements,
}

impl App {
    /// From its parts.
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }

    /// A transaction that sees one tenant.
    ///
    /// # Errors
    /// If the database is away.
    pub async fn tenant(&self, placement: &shared::db::Placement, tenant_id: TenantId) -> shared::db::Result<TenantTx> {
        self.databases.tenant(placement, tenant_id).await
    }
}

impl std::ops::Deref for App {
    type Target = Parts;
    fn deref(&self) -> &Parts {
        &self.0
    }
}
