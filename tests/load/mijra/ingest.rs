//! Webhooks into Mijra: receiver, queue, inbound worker, scheduler.

use anyhow::Result;

use super::installation::{APP_SECRET, Installation};
use super::mixed;
use crate::generate::mix::PUBLIC_URL;
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
    mixed: bool,
    /// Messages that had been sent before the load.
    prepared: u64,
}

impl IngestSide for MijraIngest {
    type Running = Running;

    fn name(&self) -> &'static str {
        "Mijra"
    }

    async fn start(&self, load: &Load) -> Result<Running> {
        let mut installation = Installation::create(&self.services, load.numbers).await?;
        let mix = load.mix();
        let prepared = match mix {
            Some(mix) => mixed::prepare(&mut installation, mix).await?,
            None => 0,
        };
        let doors = [
            ("MESSENGER_APP_SECRET", APP_SECRET.to_owned()),
            ("INSTAGRAM_APP_SECRET", APP_SECRET.to_owned()),
            ("TWILIO_AUTH_TOKEN", APP_SECRET.to_owned()),
            ("PUBLIC_URL", PUBLIC_URL.to_owned()),
        ];
        let settings = if mix.is_some() { &doors[..] } else { &[] };
        let address = installation.start("mijra-api", settings).await?;
        if !self.receiver_only {
            installation.start("mijra-inbound", &[]).await?;
            installation.start("mijra-scheduler", &[]).await?;
        }
        installation.ready().await?;
        let webhooks = Webhooks { address, path: "/webhooks/whatsapp".into(), app_secret: APP_SECRET.into(), mix };
        let (receiver_only, mixed) = (self.receiver_only, mix.is_some());
        Ok(Running { installation, webhooks, receiver_only, mixed, prepared })
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
        let counted = match self.mixed {
            // Reports, each by its row in the trail.
            true => "SELECT (SELECT count(*) FROM messages) + (SELECT count(*) FROM trail)",
            false => "SELECT count(*) FROM messages",
        };
        Ok(Some(self.installation.database.count(counted).await? - self.prepared))
    }

    async fn checkpoint(&mut self) -> Result<()> {
        self.installation.database.checkpoint().await
    }

    async fn stop(self) -> Result<()> {
        self.installation.stop().await
    }
}
