//! The bare chain's worker: takes batches off the queue, reads the webhooks just enough to know people and messages, stores a
//! batch with one autocommit statement and acknowledges it with one multiple.

use std::borrow::Cow;
use std::hash::{DefaultHasher, Hash, Hasher};

use anyhow::{Context, Result};
use chrono::{DateTime, Utc};
use futures_util::future::try_join_all;
use lapin::message::Delivery;
use lapin::options::BasicAckOptions;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use super::broker::{self, Batches};
use super::database;
use crate::role::{Orders, Role, announce};
use crate::services::Services;

/// Connections to Postgres, each with its own channel: one batch is written while the other is read.
const WRITERS: usize = 2;
/// The yardstick has one tenant.
const TENANT: Uuid = Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0001);

#[derive(Serialize, Deserialize)]
struct Plan {
    amqp_url: String,
    queue: String,
    database_url: String,
    database: String,
}

pub(super) async fn start(services: &Services, queue: &str, database: &str) -> Result<Role> {
    let plan = Plan {
        amqp_url: services.amqp_url.to_string(),
        queue: queue.into(),
        database_url: services.database_url.to_string(),
        database: database.into(),
    };
    let (role, ()) = Role::start("worker", &plan).await?;
    Ok(role)
}

/// The process itself.
pub(super) async fn role(mut orders: Orders) -> Result<()> {
    let plan: Plan = orders.plan().await?;
    let connection = broker::connect(&plan.amqp_url, "bare worker").await?;
    let mut writers = Vec::new();
    for _ in 0..WRITERS {
        let batches = Batches::consume(&connection, &plan.queue).await?;
        let postgres = database::connect(&plan.database_url, &plan.database).await?;
        writers.push(tokio::spawn(write(batches, postgres)));
    }
    announce(&())?;
    tokio::select! {
        ended = try_join_all(writers) => ended?.into_iter().collect(),
        _ = orders.next() => Ok(()),
    }
}

async fn write(mut batches: Batches, mut postgres: PgConnection) -> Result<()> {
    loop {
        let batch = batches.next().await?;
        let mut rows = Rows::default();
        for delivery in &batch {
            rows.read(&delivery.data)?;
        }
        rows.store(&mut postgres).await?;
        acknowledge(&batch).await?;
    }
}

/// One multiple up to the last of the batch.
pub(super) async fn acknowledge(batch: &[Delivery]) -> Result<()> {
    let last = batch.last().context("a batch has at least one delivery")?;
    last.acker.ack(BasicAckOptions { multiple: true }).await?;
    Ok(())
}

/// A batch as Postgres takes it: one array a column.
#[derive(Default)]
struct Rows {
    ids: Vec<Uuid>,
    channel_accounts: Vec<Uuid>,
    conversations: Vec<Uuid>,
    senders: Vec<String>,
    provider_message_ids: Vec<String>,
    provider_times: Vec<DateTime<Utc>>,
    contents: Vec<String>,
}

impl Rows {
    fn read(&mut self, body: &[u8]) -> Result<()> {
        let webhook: Webhook<'_> = serde_json::from_slice(body)?;
        for value in webhook.entry.into_iter().flat_map(|entry| entry.changes).map(|change| change.value) {
            let contact = value.contacts.first().map_or("null", |contact| contact.get());
            let number = value.metadata.phone_number_id.as_ref();
            for raw in value.messages {
                let message: Message<'_> = serde_json::from_str(raw.get())?;
                let time =
                    DateTime::from_timestamp(message.timestamp.parse()?, 0).context("a time after the year 262143")?;
                self.ids.push(Uuid::now_v7());
                self.channel_accounts.push(id_of(&number));
                self.conversations.push(id_of(&(number, message.from.as_ref())));
                self.senders.push(message.from.into_owned());
                self.provider_message_ids.push(message.id.into_owned());
                self.provider_times.push(time);
                self.contents.push(format!(r#"{{"contact":{contact},"message":{}}}"#, raw.get()));
            }
        }
        Ok(())
    }

    async fn store(&self, postgres: &mut PgConnection) -> Result<()> {
        sqlx::query(include_str!("store.sql"))
            .bind(TENANT)
            .bind(&self.ids)
            .bind(&self.channel_accounts)
            .bind(&self.conversations)
            .bind(&self.senders)
            .bind(&self.provider_message_ids)
            .bind(&self.provider_times)
            .bind(&self.contents)
            .execute(postgres)
            .await?;
        Ok(())
    }
}

/// The same id for the same thing in every process and run, without looking it up.
fn id_of(thing: &impl Hash) -> Uuid {
    let half = |salt: u8| {
        let mut hasher = DefaultHasher::new();
        (salt, thing).hash(&mut hasher);
        hasher.finish()
    };
    Uuid::from_u64_pair(half(0), half(1))
}

#[derive(Deserialize)]
struct Webhook<'a> {
    #[serde(borrow)]
    entry: Vec<Entry<'a>>,
}

#[derive(Deserialize)]
struct Entry<'a> {
    #[serde(borrow)]
    changes: Vec<Change<'a>>,
}

#[derive(Deserialize)]
struct Change<'a> {
    #[serde(borrow)]
    value: Value<'a>,
}

#[derive(Deserialize)]
struct Value<'a> {
    #[serde(borrow)]
    metadata: Metadata<'a>,
    #[serde(borrow)]
    contacts: Vec<&'a RawValue>,
    #[serde(borrow)]
    messages: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
struct Metadata<'a> {
    #[serde(borrow)]
    phone_number_id: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow)]
    from: Cow<'a, str>,
    #[serde(borrow)]
    timestamp: Cow<'a, str>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::payload::{Payloads, Writer};

    #[test]
    fn a_generated_webhook_becomes_a_row_of_the_yardsticks_size() {
        let payloads = Payloads { app_secret: "s".into(), run: "abcd1234".into(), people: 20_000, numbers: 2 };
        let mut writer = Writer::new(payloads, "127.0.0.1:1", "/");
        let (mut rows, mut request) = (Rows::default(), Vec::new());
        for serial in 0..500 {
            writer.write(serial, &mut request);
            let body = request.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
            rows.read(&request[body..]).unwrap();
        }
        assert_eq!(rows.ids.len(), 500);
        let bytes = rows.contents.iter().map(String::len).sum::<usize>() / 500;
        assert!((400..=500).contains(&bytes), "{bytes} bytes of content on average");
        assert_eq!(rows.channel_accounts.iter().collect::<std::collections::HashSet<_>>().len(), 2);
    }
}
