//! Yardstick 2: the whole way of a webhook into a row. The receiver of yardstick 1, a quorum queue, and a worker that
//! writes what it got within 20 ms, at most 500 messages, with one statement on one of two connections.

use anyhow::Result;

use super::broker::PrivateQueue;
use super::database::PrivateDatabase;
use super::receiver::Receiver;
use super::{limits, worker};
use crate::measure::Reference;
use crate::measure::accounts::Watched;
use crate::measure::ingest::{IngestSide, Load, RunningIngest, Webhooks};
use crate::role::Role;
use crate::services::Services;

const SCHEMA: &str = include_str!("chain.sql");

pub(crate) struct BareChain {
    services: Services,
}

impl BareChain {
    pub(crate) fn new(services: &Services) -> Self {
        Self { services: services.clone() }
    }
}

pub(crate) struct RunningChain {
    services: Services,
    database: PrivateDatabase,
    queue: PrivateQueue,
    receiver: Receiver,
    worker: Role,
}

impl IngestSide for BareChain {
    type Running = RunningChain;

    fn name(&self) -> &'static str {
        "bare chain"
    }

    fn reference(&self, load: &Load) -> Option<Reference> {
        limits::chain(load.connections, load.rate)
    }

    async fn start(&self, _load: &Load) -> Result<RunningChain> {
        let services = self.services.clone();
        let database = PrivateDatabase::create(services.database_url.as_str(), SCHEMA).await?;
        let queue = PrivateQueue::declare(services.amqp_url.as_str()).await?;
        let receiver = Receiver::start(&services, &queue.name, None).await?;
        let worker = worker::start(&services, &queue.name, database.name()).await?;
        Ok(RunningChain { services, database, queue, receiver, worker })
    }
}

impl RunningIngest for RunningChain {
    fn webhooks(&self) -> Webhooks {
        self.receiver.webhooks.clone()
    }

    fn processes(&self) -> Result<Vec<Watched>> {
        let services = [self.services.rabbitmq()?, self.services.postgres()?];
        Ok([self.receiver.role.watched()?, self.worker.watched()?].into_iter().chain(services).collect())
    }

    async fn stored(&mut self) -> Result<Option<u64>> {
        self.database.count("SELECT count(*) FROM messages").await.map(Some)
    }

    async fn checkpoint(&mut self) -> Result<()> {
        self.database.checkpoint().await
    }

    async fn stop(self) -> Result<()> {
        let stopped = [self.receiver.role.stop().await, self.worker.stop().await];
        self.queue.delete().await?;
        self.database.remove().await?;
        stopped.into_iter().collect()
    }
}
