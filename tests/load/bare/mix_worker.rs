//! The worker of the mixed chain: as [`super::worker`], for messages and reports of all providers. Whose a webhook is stands in its
//! body; it is read just enough to know people, messages and sends.

use std::borrow::Cow;
use std::hash::{DefaultHasher, Hash, Hasher};

use anyhow::{Context, Result};
use chrono::{DateTime, Utc};
use futures_util::future::try_join_all;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use super::broker::{self, Batches};
use super::database;
use super::worker::acknowledge;
use crate::role::{Orders, Role, announce};
use crate::services::Services;

/// As many as the chain's.
const WRITERS: usize = 2;
/// The yardstick has one tenant.
pub(super) const TENANT: Uuid = Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0001);

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
    let (role, ()) = Role::start("mix-worker", &plan).await?;
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
    reports: Reports,
    watermarks: Watermarks,
}

/// About a send by its provider's id.
#[derive(Default)]
struct Reports {
    channel_accounts: Vec<Uuid>,
    provider_message_ids: Vec<String>,
    states: Vec<String>,
    times: Vec<DateTime<Utc>>,
}

/// About a person's sends up to a time.
#[derive(Default)]
struct Watermarks {
    channel_accounts: Vec<Uuid>,
    recipients: Vec<String>,
    states: Vec<String>,
    times: Vec<DateTime<Utc>>,
    through: Vec<DateTime<Utc>>,
}

impl Rows {
    fn read(&mut self, body: &[u8]) -> Result<()> {
        if body.first() == Some(&b'{') { self.read_meta(body) } else { self.read_form(body) }
    }

    fn read_meta(&mut self, body: &[u8]) -> Result<()> {
        let webhook: Webhook<'_> = serde_json::from_slice(body)?;
        for entry in webhook.entry {
            for value in entry.changes.into_iter().map(|change| change.value) {
                let contact = value.contacts.first().map_or("null", |contact| contact.get());
                let number = value.metadata.phone_number_id.as_ref();
                for raw in value.messages {
                    let message: Message<'_> = serde_json::from_str(raw.get())?;
                    let content = format!(r#"{{"contact":{contact},"message":{}}}"#, raw.get());
                    self.message(number, &message.from, &message.id, seconds(&message.timestamp)?, content);
                }
                for status in value.statuses {
                    self.report(number, &status.id, &status.status, seconds(&status.timestamp)?);
                }
            }
            for raw in entry.messaging {
                let event: Event<'_> = serde_json::from_str(raw.get())?;
                let (account, person, at) =
                    (entry.id.as_ref(), event.sender.id.as_ref(), milliseconds(event.timestamp)?);
                if let Some(message) = event.message {
                    self.message(account, person, &message.mid, at, raw.get().to_owned());
                }
                for mid in event.delivery.into_iter().flat_map(|delivery| delivery.mids) {
                    self.report(account, &mid, "delivered", at);
                }
                match event.read {
                    Some(Read { mid: Some(mid), .. }) => self.report(account, &mid, "read", at),
                    Some(Read { watermark: Some(through), .. }) => {
                        self.watermarks.channel_accounts.push(id_of(&account));
                        self.watermarks.recipients.push(person.to_owned());
                        self.watermarks.states.push("read".into());
                        self.watermarks.times.push(at);
                        self.watermarks.through.push(milliseconds(through)?);
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    fn read_form(&mut self, body: &[u8]) -> Result<()> {
        let form: Vec<(Cow<'_, str>, Cow<'_, str>)> = url::form_urlencoded::parse(body).collect();
        let value = |name: &str| form.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_ref());
        let required = |name: &'static str| value(name).context(name);
        let (id, now) = (required("MessageSid")?, Utc::now());
        if let Some(status) = value("MessageStatus") {
            self.report(required("From")?, id, status, now);
            return Ok(());
        }
        let content = serde_json::to_string(
            &form.iter().map(|(name, value)| (name, value)).collect::<std::collections::BTreeMap<_, _>>(),
        )?;
        self.message(required("To")?, required("From")?, id, now, content);
        Ok(())
    }

    fn message(&mut self, account: &str, sender: &str, id: &str, at: DateTime<Utc>, content: String) {
        self.ids.push(Uuid::now_v7());
        self.channel_accounts.push(id_of(&account));
        self.conversations.push(id_of(&(account, sender)));
        self.senders.push(sender.to_owned());
        self.provider_message_ids.push(id.to_owned());
        self.provider_times.push(at);
        self.contents.push(content);
    }

    fn report(&mut self, account: &str, id: &str, state: &str, at: DateTime<Utc>) {
        self.reports.channel_accounts.push(id_of(&account));
        self.reports.provider_message_ids.push(id.to_owned());
        self.reports.states.push(state.to_owned());
        self.reports.times.push(at);
    }

    async fn store(&self, postgres: &mut PgConnection) -> Result<()> {
        sqlx::query(include_str!("mix_store.sql"))
            .bind(TENANT)
            .bind(&self.ids)
            .bind(&self.channel_accounts)
            .bind(&self.conversations)
            .bind(&self.senders)
            .bind(&self.provider_message_ids)
            .bind(&self.provider_times)
            .bind(&self.contents)
            .bind(&self.reports.channel_accounts)
            .bind(&self.reports.provider_message_ids)
            .bind(&self.reports.states)
            .bind(&self.reports.times)
            .bind(&self.watermarks.channel_accounts)
            .bind(&self.watermarks.recipients)
            .bind(&self.watermarks.states)
            .bind(&self.watermarks.times)
            .bind(&self.watermarks.through)
            .execute(postgres)
            .await?;
        Ok(())
    }
}

/// The same id for the same thing in every process and run, without looking it up.
pub(super) fn id_of(thing: &impl Hash) -> Uuid {
    let half = |salt: u8| {
        let mut hasher = DefaultHasher::new();
        (salt, thing).hash(&mut hasher);
        hasher.finish()
    };
    Uuid::from_u64_pair(half(0), half(1))
}

fn seconds(text: &str) -> Result<DateTime<Utc>> {
    DateTime::from_timestamp(text.parse()?, 0).context("a time after the year 262143")
}

fn milliseconds(value: i64) -> Result<DateTime<Utc>> {
    DateTime::from_timestamp_millis(value).context("a time after the year 262143")
}

#[derive(Deserialize)]
struct Webhook<'a> {
    #[serde(borrow)]
    entry: Vec<Entry<'a>>,
}

#[derive(Deserialize)]
struct Entry<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow, default)]
    changes: Vec<Change<'a>>,
    #[serde(borrow, default)]
    messaging: Vec<&'a RawValue>,
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
    #[serde(borrow, default)]
    contacts: Vec<&'a RawValue>,
    #[serde(borrow, default)]
    messages: Vec<&'a RawValue>,
    #[serde(borrow, default)]
    statuses: Vec<Status<'a>>,
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

#[derive(Deserialize)]
struct Status<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow)]
    status: Cow<'a, str>,
    #[serde(borrow)]
    timestamp: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow)]
    sender: Party<'a>,
    timestamp: i64,
    #[serde(borrow)]
    message: Option<Said<'a>>,
    #[serde(borrow)]
    delivery: Option<Delivery<'a>>,
    #[serde(borrow)]
    read: Option<Read<'a>>,
}

#[derive(Deserialize)]
struct Party<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Said<'a> {
    #[serde(borrow)]
    mid: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Delivery<'a> {
    #[serde(borrow, default)]
    mids: Vec<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Read<'a> {
    #[serde(borrow)]
    mid: Option<Cow<'a, str>>,
    watermark: Option<i64>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::mix::{Mix, Writer};
    use crate::generate::payload::Payloads;

    #[test]
    fn every_generated_webhook_is_one_row_of_the_trail_or_one_message() {
        let payloads = Payloads { app_secret: "s".into(), run: "abcd1234".into(), people: 20_000, numbers: 1 };
        let mut writer = Writer::new(Mix { reports: 100, sent_at: 1_794_826_800 }, &payloads, "127.0.0.1:1");
        let (mut rows, mut request) = (Rows::default(), Vec::new());
        for serial in 0..1_000 {
            writer.write(serial, &mut request);
            let body = request.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
            rows.read(&request[body..]).unwrap();
        }
        let reports = rows.reports.states.len() + rows.watermarks.states.len();
        assert_eq!((rows.ids.len(), reports), (400, 600));
    }
}
