//! Webhooks into Mijra: receiver, queue, inbound worker, scheduler.

use anyhow::Result;

use super::installation::{APP_SECRET, Installation};
use crate::measure::accounts::Watched;
use crate::measure::ingest::{IngestSide, Load, RunningIngest, Webhooks};
use crate::services::Services;

pub(super) struct MijraIngest {
    services: Services,
    /// Only the receiver: nothing consumes, nothing is stored.
    receiver_only: bool,
}

impl MijraIngest {
    pub(super) fn new(services: &Services, receiver_only: bool) -> Self {
        Self { services: services.clone(), receiver_only }
    }
}

pub(super) struct Running {
    installation: Installation,
    webhooks: Webhooks,
    receiver_only: bool,
}

impl IngestSide for MijraIngest {
    type Running = Running;

    fn name(&self) -> &'static str {
        "Mijra"
    }

    async fn start(&self, load: &Load) -> Result<Running> {
        let mut installation = Installation::create(&self.services, load.numbers).await?;
        let address = installation.start("mijra-api", &[]).await?;
        if !self.receiver_only {
            installation.start("mijra-inbound", &[]).await?;
            installation.start("mijra-scheduler", &[]).await?;
        }
        installation.ready().await?;
        let webhooks = Webhooks { address, path: "/webhooks/whatsapp".into(), app_secret: APP_SECRET.into() };
        Ok(Running { installation, webhooks, receiver_only: self.receiver_only })
    }
}

impl RunningIngest for Running {
    fn webhooks(&self) -> Webhooks {
        self.webhooks.clone()
    }

    fn processes(&self) -> Result<Vec<Watched>> {
        self.installation.processes()
    }

    async fn stored(&mut self) -> Result<Option<u64>> {
        if self.receiver_only {
            return Ok(None);
        }
        self.installation.database.count("SELECT count(*) FROM messages").await.map(Some)
    }

    async fn checkpoint(&mut self) -> Result<()> {
        self.installation.database.checkpoint().await
    }

    async fn stop(self) -> Result<()> {
        self.installation.stop().await
    }
}
