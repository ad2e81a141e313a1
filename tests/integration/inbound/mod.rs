//! What inbound events do in the database, against a real Postgres and as the role that workers have. Batches are applied as the
//! runtime applies them, each in a transaction of its own.

mod aftermath;
mod at_once;
mod consent;
mod echoes;
mod gone;
mod news;
mod replays;
mod under_way;
mod watermarks;
mod windows;

use bytes::Bytes;
use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use serde_json::{Value, json, value::RawValue};
use shared::{
    clock::Clock,
    db::{Databases, FleetTx, Placement, TenantTx},
    domain::{
        channel::{Channel, Provider},
        events::{Echo, Event, InboundMessage, SendToken, StatusReport, Through, Watermark},
        ids::{AttemptId, ChannelAccountId, ContactId, MessageId, TenantId, WebhookId},
        messages::MessageKind,
        people::{Alias, AliasKind, Person},
        sends::SendState,
    },
    jobs::inbound::{Meta, RawWebhook},
};
use sqlx::{PgConnection, Row};
use support::database::{Database, Role, database};
use workers::{
    inbound::{Inbound, InboundWorker, Told},
    worker::Worker,
};

/// A tenant with one account, and the programs' ways to its database.
struct Stage {
    /// Dropped last, and with it the database.
    api: Databases,
    workers: Databases,
    admin: PgConnection,
    tenant: TenantId,
    account: ChannelAccountId,
    provider: Provider,
    channel: Channel,
    database: Database,
}

impl Stage {
    async fn on(provider: Provider) -> Self {
        let database = database().await;
        let (api, workers) = (database.databases(Role::Api), database.databases(Role::Worker));
        let mut admin = database.admin().await;
        let tenant = TenantId::new();
        sqlx::query("INSERT INTO control.tenants (id, slug, name) VALUES ($1, 'acme', 'Acme')")
            .bind(tenant)
            .execute(&mut admin)
            .await
            .unwrap();
        let account = make_account(&mut admin, tenant, provider, "15550100").await;
        let channel = Channel::of_account(provider, "15550100");
        Self { api, workers, admin, tenant, account, provider, channel, database }
    }

    async fn fleet(&self) -> FleetTx {
        self.workers.fleet(&Placement::primary(), &[self.tenant]).await.unwrap()
    }

    async fn request(&self) -> TenantTx {
        self.api.tenant(&Placement::primary(), self.tenant).await.unwrap()
    }

    /// A webhook, received now, that tells this.
    fn webhook(&self, events: Vec<Event>) -> Inbound {
        self.received(events, Utc::now(), false)
    }

    fn replay(&self, events: Vec<Event>) -> Inbound {
        self.received(events, Utc::now(), true)
    }

    fn received(&self, events: Vec<Event>, received_at: DateTime<Utc>, replay: bool) -> Inbound {
        let (id, provider) = (WebhookId::new(), self.provider);
        let meta = Meta { id, provider, received_at, account: None, query: None, stored: false, replay };
        let raw = RawWebhook { meta, body: Bytes::from_static(b"{}") };
        let told = |event| Told { channel_account_id: self.account, channel: self.channel, event };
        Inbound::new(raw, self.tenant, self.account, events.into_iter().map(told).collect())
    }

    /// One batch. The database's time after its commit.
    async fn apply(&self, batch: &[Inbound]) -> DateTime<Utc> {
        loop {
            let mut tx = self.fleet().await;
            let worker = InboundWorker::new(self.workers.clone(), Clock::system());
            match worker.apply(&mut tx, batch).await {
                Ok(()) => drop(tx.commit().await.unwrap()),
                // As the runtime does.
                Err(error) if error.kind() == shared::db::Kind::Contention => continue,
                Err(error) => panic!("{error}"),
            }
            let mut after = self.fleet().await;
            return after.now().await.unwrap();
        }
    }

    /// Each event in a batch of its own.
    async fn tell(&self, events: Vec<Event>) {
        for event in events {
            self.apply(&[self.webhook(vec![event])]).await;
        }
    }

    async fn contact(&mut self, person: &Person) -> Option<ContactId> {
        sqlx::query_scalar("SELECT contact_id FROM contact_aliases WHERE value = $1")
            .bind(&person.aliases[0].value)
            .fetch_optional(&mut self.admin)
            .await
            .unwrap()
    }

    /// A send to a person that a campaign or an agent wants, in a state, in the person's conversation (made if there is none).
    async fn send(&mut self, person: &Person, state: SendState, sent_at: Option<DateTime<Utc>>) -> SendToken {
        self.apply(&[self.webhook(vec![said(person, &format!("hello-{}", MessageId::new()), "Hello?", Utc::now())])])
            .await;
        let contact = self.contact(person).await.expect("they have written");
        let (message_id, attempt_id) = (MessageId::new(), AttemptId::new());
        sqlx::query(
            "WITH v AS (
                UPDATE conversations SET last_send_seq = last_send_seq + 1 WHERE contact_id = $5 RETURNING id, last_send_seq
            ), message AS (
                INSERT INTO messages (tenant_id, id, conversation_id, direction, kind, text, content, at)
                SELECT $1, $2, v.id, 'out', 'text', 'hello', $4, now() FROM v
            )
            INSERT INTO sends (tenant_id, message_id, conversation_id, channel_account_id, seq, recipient_kind, recipient,
                needs_window, state, attempt_id, attempts, granted_at, deadline, sent_at, provider_message_id)
            SELECT $1, $2, v.id, $3, v.last_send_seq, 'phone', '+15557770123', true, $6, $7, 1, now(), now() + interval '20 seconds',
                $8, CASE WHEN $8 IS NOT NULL THEN 'sent.' || $2::text END
            FROM v",
        )
        .bind(self.tenant)
        .bind(message_id)
        .bind(self.account)
        .bind(json!({"type": "text", "text": "hello", "preview_url": false}))
        .bind(contact)
        .bind(state.as_str())
        .bind(attempt_id)
        .bind(sent_at)
        .execute(&mut self.admin)
        .await
        .unwrap();
        if sent_at.is_some() {
            sqlx::query(
                "INSERT INTO provider_refs (tenant_id, channel_account_id, provider_message_id, message_id)
                VALUES ($1, $2, 'sent.' || $3::text, $3)",
            )
            .bind(self.tenant)
            .bind(self.account)
            .bind(message_id)
            .execute(&mut self.admin)
            .await
            .unwrap();
        }
        SendToken { message_id, attempt_id }
    }

    async fn state(&mut self, id: MessageId) -> SendState {
        let state: String = sqlx::query_scalar("SELECT state FROM sends WHERE message_id = $1")
            .bind(id)
            .fetch_one(&mut self.admin)
            .await
            .unwrap();
        SendState::from_name(&state).unwrap()
    }

    /// The events of its trail, in the order of their times.
    async fn trail(&mut self, id: MessageId) -> Vec<String> {
        sqlx::query_scalar("SELECT event FROM trail WHERE message_id = $1 ORDER BY at, event")
            .bind(id)
            .fetch_all(&mut self.admin)
            .await
            .unwrap()
    }

    /// One row as JSON.
    async fn row(&mut self, question: &'static str) -> Value {
        sqlx::query_scalar(question).fetch_one(&mut self.admin).await.unwrap()
    }

    async fn count(&mut self, question: &'static str) -> i64 {
        sqlx::query_scalar(question).fetch_one(&mut self.admin).await.unwrap()
    }

    async fn execute(&mut self, statement: &'static str) {
        sqlx::query(statement).execute(&mut self.admin).await.unwrap();
    }

    /// All that a replay must not change, whatever it is.
    async fn everything(&mut self) -> Vec<String> {
        let mut all = Vec::new();
        for table in [
            "SELECT (to_jsonb(t) - 'settle_at')::text FROM contacts t ORDER BY 1",
            "SELECT to_jsonb(t)::text FROM contact_aliases t ORDER BY 1",
            "SELECT to_jsonb(t)::text FROM conversations t ORDER BY 1",
            "SELECT to_jsonb(t)::text FROM messages t ORDER BY 1",
            "SELECT to_jsonb(t)::text FROM sends t ORDER BY 1",
            "SELECT to_jsonb(t)::text FROM trail t ORDER BY 1",
            "SELECT to_jsonb(t)::text FROM provider_refs t ORDER BY 1",
            "SELECT to_jsonb(t)::text FROM parked_reports t ORDER BY 1",
            "SELECT to_jsonb(t)::text FROM suppressions t ORDER BY 1",
            "SELECT to_jsonb(t)::text FROM watermarks t ORDER BY 1",
            "SELECT to_jsonb(t)::text FROM webhook_log t ORDER BY 1",
            "SELECT to_jsonb(t)::text FROM channel_accounts t ORDER BY 1",
            "SELECT to_jsonb(t)::text FROM limits t ORDER BY 1",
            "SELECT to_jsonb(t)::text FROM templates t ORDER BY 1",
            "SELECT to_jsonb(t)::text FROM outbox t ORDER BY 1",
            "SELECT to_jsonb(t)::text FROM events t ORDER BY 1",
        ] {
            let rows = sqlx::query(table).fetch_all(&mut self.admin).await.unwrap();
            all.extend(rows.iter().map(|row| format!("{table}: {}", row.get::<String, _>(0))));
        }
        all
    }
}

async fn make_account(admin: &mut PgConnection, tenant: TenantId, provider: Provider, id: &str) -> ChannelAccountId {
    let account = ChannelAccountId::new();
    sqlx::query(
        "INSERT INTO channel_accounts (tenant_id, id, provider, name, external_id, sealed_secrets, secret_key_id)
        VALUES ($1, $2, $3, $4, $4, 'sealed', 'test')",
    )
    .bind(tenant)
    .bind(account)
    .bind(provider.as_str())
    .bind(id)
    .execute(admin)
    .await
    .unwrap();
    account
}

/// Somebody by a name of this kind.
fn person(kind: AliasKind, value: &str) -> Person {
    Person { aliases: vec![Alias { kind, value: value.to_owned() }], name: Some("Ada".into()), username: None }
}

fn ada() -> Person {
    person(AliasKind::WhatsappId, "15557770123")
}

/// Whole seconds, as most providers tell them.
fn second(number: i64) -> DateTime<Utc> {
    Utc::now().trunc_subsecs(0) - TimeDelta::hours(1) + TimeDelta::seconds(number)
}

fn message(person: &Person, id: &str, kind: MessageKind, text: Option<&str>, at: DateTime<Utc>) -> InboundMessage {
    InboundMessage {
        provider_message_id: id.to_owned(),
        at,
        sender: person.clone(),
        new_aliases: Vec::new(),
        kind,
        text: text.map(str::to_owned),
        media: Vec::new(),
        refers_to: None,
        group_id: None,
        raw: raw(text.unwrap_or_default()),
    }
}

/// A text from a person.
fn said(person: &Person, id: &str, text: &str, at: DateTime<Utc>) -> Event {
    Event::Message(Box::new(message(person, id, MessageKind::Text, Some(text), at)))
}

/// A text to a person, written in the account's name.
fn echo(person: &Person, id: &str, token: Option<SendToken>, at: DateTime<Utc>) -> Event {
    Event::Echo(Box::new(Echo {
        provider_message_id: id.to_owned(),
        at,
        recipient: person.clone(),
        kind: MessageKind::Text,
        text: Some("from the Page's inbox".into()),
        media: Vec::new(),
        refers_to: None,
        token,
        raw: raw("from the Page's inbox"),
    }))
}

fn status(id: &str, state: SendState, token: Option<SendToken>, at: DateTime<Utc>) -> Event {
    Event::Status(StatusReport {
        provider_message_id: id.to_owned(),
        state,
        status: state.as_str().to_owned(),
        at,
        code: (state == SendState::Failed).then(|| "131026".to_owned()),
        reason: (state == SendState::Failed).then(|| "not reachable".to_owned()),
        token,
    })
}

fn watermark(person: &Person, state: SendState, through: Through, at: DateTime<Utc>) -> Event {
    Event::Watermark(Watermark { person: person.clone(), state, through, at })
}

fn raw(text: &str) -> Box<RawValue> {
    RawValue::from_string(json!({"text": text}).to_string()).unwrap()
}

/// Every order of so many things.
fn orders(count: usize) -> Vec<Vec<usize>> {
    if count == 0 {
        return vec![Vec::new()];
    }
    let shorter = orders(count - 1);
    let with = |order: &Vec<usize>, place: usize| {
        let mut order = order.clone();
        order.insert(place, count - 1);
        order
    };
    shorter.iter().flat_map(|order| (0..count).map(move |place| with(order, place))).collect()
}

/// The open or latest conversation of anybody, as far as it is shown.
const CONVERSATION: &str =
    "SELECT jsonb_build_object('state', state, 'unread', unread, 'in', messages_in, 'out', messages_out,
    'listed', listed, 'last', last_message_text, 'direction', last_message_direction, 'origin', origin)
FROM conversations ORDER BY state = 'resolved' LIMIT 1";
