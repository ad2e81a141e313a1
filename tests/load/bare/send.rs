//! Yardstick 3: the least that sends without losing or doubling anything: consume, claim in a batch, call, record in a
//! batch, acknowledge. No limits, no order, no statuses. The jobs lie on the queue before the clock starts.

use std::net::SocketAddr;

use anyhow::Result;
use serde_json::json;
use uuid::Uuid;

use super::broker::PrivateQueue;
use super::database::PrivateDatabase;
use super::sender;
use super::wire::Way;
use crate::measure::accounts::Watched;
use crate::measure::sends::{RunningSends, SendSide, Work};
use crate::role::Role;
use crate::services::Services;

const SCHEMA: &str = include_str!("send.sql");
/// Rows of one INSERT while making ready.
const CHUNK: usize = 5_000;
/// People written to; each has one conversation.
const PEOPLE: u64 = 20_000;

pub(crate) struct BareSend {
    services: Services,
}

impl BareSend {
    pub(crate) fn new(services: &Services) -> Self {
        Self { services: services.clone() }
    }
}

pub(crate) struct RunningSend {
    services: Services,
    database: PrivateDatabase,
    queue: PrivateQueue,
    sender: Role,
}

impl SendSide for BareSend {
    type Running = RunningSend;

    fn name(&self) -> &'static str {
        "bare send"
    }

    async fn prepare(&self, work: &Work, provider: SocketAddr) -> Result<RunningSend> {
        let services = self.services.clone();
        let mut database = PrivateDatabase::create(services.database_url.as_str(), SCHEMA).await?;
        let queue = PrivateQueue::declare(services.amqp_url.as_str()).await?;
        let ids: Vec<Uuid> = (0..work.sends).map(|_| Uuid::now_v7()).collect();
        for ids in ids.chunks(CHUNK) {
            insert(&mut database, ids, work.way).await?;
        }
        sqlx::raw_sql("VACUUM ANALYZE sends").execute(database.connection()).await?;
        let jobs: Vec<Vec<u8>> =
            ids.iter().map(|id| json!({"version": 1, "send": id}).to_string().into_bytes()).collect();
        queue.fill(&jobs).await?;
        database.checkpoint().await?;
        let sender = sender::start(&services, &queue.name, database.name(), provider, work).await?;
        Ok(RunningSend { services, database, queue, sender })
    }
}

impl RunningSends for RunningSend {
    async fn go(&mut self) -> Result<()> {
        self.sender.tell("go").await
    }

    fn processes(&self) -> Result<Vec<Watched>> {
        Ok(vec![self.sender.watched()?, self.services.rabbitmq()?, self.services.postgres()?])
    }

    async fn recorded(&mut self) -> Result<u64> {
        self.database.count("SELECT count(*) FROM sends WHERE state = 'sent'").await
    }

    async fn stop(self) -> Result<()> {
        let stopped = self.sender.stop().await;
        self.queue.delete().await?;
        self.database.remove().await?;
        stopped
    }
}

async fn insert(database: &mut PrivateDatabase, ids: &[Uuid], way: Way) -> Result<()> {
    let people: Vec<i64> = ids.iter().map(|id| (id.as_u128() as u64 % PEOPLE) as i64).collect();
    sqlx::query(
        "INSERT INTO sends (id, tenant_id, conversation_id, recipient, content)
         SELECT id, '01900000-0000-7000-8000-000000000001', md5(person::text)::uuid, $4 || lpad(person::text, 7, '0'), $3
         FROM unnest($1::uuid[], $2::bigint[]) AS send (id, person)",
    )
    .bind(ids)
    .bind(&people)
    .bind(way.text())
    .bind(way.address_prefix().trim_start_matches('+'))
    .execute(database.connection())
    .await?;
    Ok(())
}
