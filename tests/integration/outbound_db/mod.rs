//! What the senders ask of Postgres, against a real one and as the role the workers have: the state table, the grant and its
//! meter, whose turn it is, and placements.

mod accepting;
mod aftermath;
mod calls;
mod campaigns;
mod deciding;
mod grant;
mod limits;
mod meter;
mod outcomes;
mod placements;
mod probes;
mod reports;
mod units;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use shared::{
    db::{
        Databases, FleetTx, Placement,
        outbound::{
            accounts::{resume, wake},
            grant::{Held, Judged, Room, grant},
            outcomes::{Patience, Place, Record, What, record},
        },
    },
    domain::{
        channel::Channel,
        ids::{AttemptId, ChannelAccountId, ConversationId, MessageId, TenantId},
        sends::SendState,
    },
};
use sqlx::{PgConnection, Row};
use std::time::Duration;
use support::database::{Database, Role, database};
use uuid::Uuid;

const PATIENCE: Patience = Patience { turn: Duration::from_secs(30), evidence: Duration::from_secs(300) };
const CALL_WITHIN: Duration = Duration::from_secs(20);
const ROOM: Room = Room { per_account: 1000, left: Vec::new() };

/// A tenant with one account, and the workers' way to its database.
struct Stage {
    /// Dropped last, and with it the database.
    workers: Databases,
    admin: PgConnection,
    placement: Placement,
    tenant: TenantId,
    account: ChannelAccountId,
    database: Database,
}

/// A send as it is put there.
#[derive(Clone, Copy)]
struct Given {
    conversation: ConversationId,
    seq: i64,
    state: SendState,
    /// The attempt on its row.
    attempt: AttemptId,
}

impl Stage {
    /// With an account that is not limited.
    async fn new() -> Self {
        let database = database().await;
        let workers = database.databases(Role::Worker);
        let mut admin = database.admin().await;
        let tenant = TenantId::new();
        sqlx::query("INSERT INTO control.tenants (id, slug, name) VALUES ($1, 'acme', 'Acme')")
            .bind(tenant)
            .execute(&mut admin)
            .await
            .unwrap();
        let account = make_account(&mut admin, tenant).await;
        Self { workers, admin, placement: Placement::primary(), tenant, account, database }
    }

    async fn execute(&mut self, statement: &'static str) {
        sqlx::query(statement).execute(&mut self.admin).await.unwrap();
    }

    async fn fleet(&self) -> FleetTx {
        self.workers.fleet(&self.placement, &[self.tenant]).await.unwrap()
    }

    /// A conversation whose window is open.
    async fn conversation(&mut self) -> ConversationId {
        make_conversation(&mut self.admin, self.tenant, self.account).await
    }

    async fn send(&mut self, given: Given) -> MessageId {
        make_send(&mut self.admin, self.tenant, self.account, given).await
    }

    /// A queued send, alone in a conversation of its own.
    async fn lone_send(&mut self) -> (ConversationId, MessageId) {
        let conversation = self.conversation().await;
        let given = Given { conversation, seq: 1, state: SendState::Queued, attempt: AttemptId::new() };
        (conversation, self.send(given).await)
    }

    fn place(&self, conversation_id: ConversationId) -> Place {
        Place {
            channel_account_id: self.account,
            channel: Channel::Whatsapp,
            account_revision: 1,
            conversation_id,
            probe: false,
            serial: false,
        }
    }

    /// Writes down what happened to one send.
    async fn record(&self, message_id: MessageId, conversation: ConversationId, what: What) {
        let mut tx = self.fleet().await;
        let place = Some(self.place(conversation));
        let records = [Record { tenant_id: self.tenant, message_id, place, what, slice: None }];
        record(&mut tx, &records, PATIENCE).await.unwrap();
        tx.commit().await.unwrap();
    }

    /// An operator brings the account back and wakes what waits for it. The state it was in.
    async fn resume(&self) -> Option<String> {
        let mut tx = self.fleet().await;
        let before = resume(&mut tx, self.tenant, self.account).await.unwrap();
        tx.commit().await.unwrap();
        let mut tx = self.fleet().await;
        assert_eq!(wake(&mut tx, self.tenant, self.account, None).await.unwrap(), None, "there are not that many");
        tx.commit().await.unwrap();
        before
    }

    /// Asks for grants as one worker.
    async fn ask(&self, messages: &[MessageId]) -> Vec<Judged> {
        let held: Vec<Held> = messages
            .iter()
            .map(|id| Held { tenant_id: self.tenant, message_id: *id, attempt_id: AttemptId::new() })
            .collect();
        let mut tx = self.fleet().await;
        let answers = grant(&mut tx, &held, CALL_WITHIN, &ROOM).await.unwrap();
        tx.commit().await.unwrap();
        answers
    }

    async fn state(&mut self, id: MessageId) -> SendState {
        let state: String = self.one("SELECT state FROM sends WHERE message_id = $1", id).await;
        SendState::from_name(&state).unwrap()
    }

    /// All of a send but the time it was last touched.
    async fn row(&mut self, id: MessageId) -> Value {
        self.one("SELECT to_jsonb(s) - 'updated_at' FROM sends s WHERE message_id = $1", id).await
    }

    /// Its ended attempts: id, outcome.
    async fn attempts(&mut self, id: MessageId) -> Vec<(AttemptId, String)> {
        sqlx::query("SELECT id, outcome FROM send_attempts WHERE message_id = $1 ORDER BY ended_at, id")
            .bind(id)
            .fetch_all(&mut self.admin)
            .await
            .unwrap()
            .iter()
            .map(|row| (row.get(0), row.get(1)))
            .collect()
    }

    /// The events of its trail.
    async fn trail(&mut self, id: MessageId) -> Vec<String> {
        self.one("SELECT coalesce(array_agg(event ORDER BY at, event), '{}') FROM trail WHERE message_id = $1", id)
            .await
    }

    /// The tasks of the jobs in the outbox for a send, and in how many seconds each is due, rounded.
    async fn jobs(&mut self, id: MessageId) -> Vec<(String, i64)> {
        sqlx::query(
            "SELECT convert_from(body, 'UTF8')::jsonb ->> 'task',
                round(EXTRACT(epoch FROM publish_after - created_at))::bigint
            FROM outbox
            WHERE convert_from(body, 'UTF8')::jsonb ->> 'message_id' = $1
            ORDER BY 1, 2",
        )
        .bind(id.to_string())
        .fetch_all(&mut self.admin)
        .await
        .unwrap()
        .iter()
        .map(|row| (row.get(0), row.get(1)))
        .collect()
    }

    /// The tasks by which a message is brought, whenever each is published.
    async fn brought(&mut self, id: MessageId) -> Vec<String> {
        self.jobs(id).await.into_iter().map(|(task, _)| task).collect()
    }

    async fn one<T>(&mut self, question: &'static str, id: MessageId) -> T
    where
        T: for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres> + Send + Unpin,
    {
        sqlx::query_scalar(question).bind(id).fetch_one(&mut self.admin).await.unwrap()
    }
}

async fn make_account(admin: &mut PgConnection, tenant: TenantId) -> ChannelAccountId {
    let account = ChannelAccountId::new();
    sqlx::query(
        "INSERT INTO channel_accounts (tenant_id, id, provider, name, external_id, sealed_secrets, secret_key_id)
        VALUES ($1, $2, 'whatsapp', 'Shop', $3, 'sealed', 'test')",
    )
    .bind(tenant)
    .bind(account)
    .bind(account.to_string())
    .execute(admin)
    .await
    .unwrap();
    account
}

async fn make_conversation(admin: &mut PgConnection, tenant: TenantId, account: ChannelAccountId) -> ConversationId {
    let (contact, conversation) = (Uuid::now_v7(), ConversationId::new());
    sqlx::query(
        "WITH contact AS (INSERT INTO contacts (tenant_id, id, phone) VALUES ($1, $2, '+15557770123'))
        INSERT INTO conversations (tenant_id, id, contact_id, channel_account_id, state, origin, last_message_at,
            last_message_direction, window_expires_at)
        VALUES ($1, $3, $2, $4, 'open', 'inbound', now(), 'in', now() + interval '1 day')",
    )
    .bind(tenant)
    .bind(contact)
    .bind(conversation)
    .bind(account)
    .execute(admin)
    .await
    .unwrap();
    conversation
}

/// Puts a send into a state, with what a send in that state has.
async fn make_send(admin: &mut PgConnection, tenant: TenantId, account: ChannelAccountId, given: Given) -> MessageId {
    let message = MessageId::new();
    sqlx::query(
        "WITH message AS (
            INSERT INTO messages (tenant_id, id, conversation_id, direction, kind, text, content, at)
            VALUES ($1, $2, $3, 'out', 'text', 'hello', $4, now())
        ), conversation AS (
            UPDATE conversations SET last_send_seq = greatest(last_send_seq, $6) WHERE tenant_id = $1 AND id = $3
        )
        INSERT INTO sends (tenant_id, message_id, conversation_id, channel_account_id, seq, recipient_kind, recipient,
            needs_window, state, attempt_id, attempts, granted_at, deadline, unknown_at)
        VALUES ($1, $2, $3, $5, $6, 'phone', '+15557770123', true, $7, $8, 1, now(), now() + interval '20 seconds',
            CASE WHEN $7 IN ('unknown', 'held') THEN now() - interval '1 hour' END)",
    )
    .bind(tenant)
    .bind(message)
    .bind(given.conversation)
    .bind(json!({"type": "text", "text": "hello", "preview_url": false}))
    .bind(account)
    .bind(given.seq)
    .bind(given.state.as_str())
    .bind(given.attempt)
    .execute(admin)
    .await
    .unwrap();
    message
}

fn now() -> DateTime<Utc> {
    Utc::now()
}
