//! Yardstick 2 for the webhooks of all providers: as the chain, and reports of messages that had been sent change the send and
//! add to its trail. A table of its own beside the chain's, which stays what it was.

use anyhow::Result;

use super::broker::PrivateQueue;
use super::database::PrivateDatabase;
use super::mix_worker;
use super::receiver::Receiver;
use crate::generate::mix::{Known, Mix};
use crate::measure::accounts::Watched;
use crate::measure::ingest::{IngestSide, Load, MIX_RUN, RunningIngest, Webhooks};
use crate::role::Role;
use crate::services::Services;

const SCHEMA: &str = concat!(include_str!("chain.sql"), include_str!("mix.sql"));
/// Messages prepared with one statement.
const AT_ONCE: usize = 10_000;

pub(crate) struct BareMix {
    services: Services,
}

impl BareMix {
    pub(crate) fn new(services: &Services) -> Self {
        Self { services: services.clone() }
    }
}

pub(crate) struct RunningMix {
    services: Services,
    database: PrivateDatabase,
    queue: PrivateQueue,
    receiver: Receiver,
    worker: Role,
    prepared: u64,
}

impl IngestSide for BareMix {
    type Running = RunningMix;

    fn name(&self) -> &'static str {
        "bare chain, mixed"
    }

    async fn start(&self, load: &Load) -> Result<RunningMix> {
        let services = self.services.clone();
        let mut database = PrivateDatabase::create(services.database_url.as_str(), SCHEMA).await?;
        let mix = load.mix();
        let prepared = match mix {
            Some(mix) => prepare(&mut database, mix).await?,
            None => 0,
        };
        let queue = PrivateQueue::declare(services.amqp_url.as_str()).await?;
        let receiver = Receiver::start(&services, &queue.name, mix).await?;
        let worker = mix_worker::start(&services, &queue.name, database.name()).await?;
        Ok(RunningMix { services, database, queue, receiver, worker, prepared })
    }
}

/// What had been sent: a message, its conversation and its send each. Returns how many.
async fn prepare(database: &mut PrivateDatabase, mix: Mix) -> Result<u64> {
    let known: Vec<Known> = mix.known(MIX_RUN).collect();
    for known in known.chunks(AT_ONCE) {
        let accounts: Vec<_> = known.iter().map(|known| mix_worker::id_of(&known.door.account().as_str())).collect();
        let conversations: Vec<_> = known
            .iter()
            .map(|known| mix_worker::id_of(&(known.door.account().as_str(), known.recipient.as_str())))
            .collect();
        let recipients: Vec<&str> = known.iter().map(|known| known.recipient.as_str()).collect();
        let ids: Vec<&str> = known.iter().map(|known| known.provider_message_id.as_str()).collect();
        let messages: Vec<_> = known.iter().map(|_| uuid::Uuid::now_v7()).collect();
        sqlx::query(include_str!("mix_prepare.sql"))
            .bind(mix_worker::TENANT)
            .bind(messages)
            .bind(accounts)
            .bind(conversations)
            .bind(recipients)
            .bind(ids)
            .bind(mix.sent_at as f64)
            .execute(database.connection())
            .await?;
    }
    sqlx::raw_sql("ANALYZE").execute(database.connection()).await?;
    database.checkpoint().await?;
    Ok(known.len() as u64)
}

impl RunningIngest for RunningMix {
    fn webhooks(&self) -> Webhooks {
        self.receiver.webhooks.clone()
    }

    fn processes(&self) -> Result<Vec<Watched>> {
        let services = [self.services.rabbitmq()?, self.services.postgres()?];
        Ok([self.receiver.role.watched()?, self.worker.watched()?].into_iter().chain(services).collect())
    }

    async fn stored(&mut self) -> Result<Option<u64>> {
        let counted = "SELECT (SELECT count(*) FROM messages) + (SELECT count(*) FROM trail)";
        Ok(Some(self.database.count(counted).await? - self.prepared))
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
