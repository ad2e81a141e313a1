//! Where webhooks go while the broker is away: into Postgres, a bundle a statement. The sweep brings them back.

use futures_util::{FutureExt, future::BoxFuture};
use shared::{
    db::{self, Databases},
    jobs::inbound::RawWebhook,
    queue::Spill,
};

/// Writes bundles to the control database.
pub struct PostgresSpill {
    databases: Databases,
}

impl PostgresSpill {
    /// In the role of the API.
    pub fn new(databases: Databases) -> Self {
        Self { databases }
    }

    async fn write(&self, webhooks: &[RawWebhook]) -> db::Result<()> {
        let mut tx = self.databases.control().await?;
        db::receiving::spill(&mut tx, webhooks).await?;
        tx.commit().await
    }
}

impl Spill for PostgresSpill {
    fn spill(&self, webhooks: Vec<RawWebhook>) -> BoxFuture<'_, bool> {
        async move {
            let written = self.write(&webhooks).await;
            written
                .inspect_err(|error| tracing::error!(%error, "neither the broker nor Postgres could store webhooks"))
                .is_ok()
        }
        .boxed()
    }
}
