//! Campaigns against a real Postgres, in the roles of the API and of the workers: freezing, releasing, pausing, retrying,
//! cancelling, the books. Jobs are performed here one after another, as the worker would.

mod books;
mod ending;
mod freezing;
mod pace;
mod recipients;
mod releasing;
mod retrying;
mod whole;

use serde_json::{Value, json};
use shared::{
    db::{
        Databases, FleetTx, Placement,
        audit::Actor,
        campaigns::{self, Campaign, Changed, NewCampaign, ledger::Ledger},
        outbound::turns::BULK_QUEUE,
        outbox,
    },
    domain::{
        campaigns::{Action, Audience, CampaignContent},
        content::{OutboundContent, Text},
        ids::{ApiTokenId, CampaignId, ChannelAccountId, ContactId, ConversationId, MessageId, TenantId},
    },
    jobs::{
        campaign::{CampaignJob, Task},
        outbound::OutboundSlice,
    },
};
use sqlx::{PgConnection, Row};
use support::database::{Database, Role, database};
use workers::{campaign::CampaignWorker, worker::Worker};

/// A tenant with one account, and the programs' ways to its database.
struct Stage {
    /// Dropped last, and with it the database.
    api: Databases,
    workers: Databases,
    admin: PgConnection,
    tenant: TenantId,
    account: ChannelAccountId,
    database: Database,
}

/// What a step has led to.
#[derive(Debug, Default)]
struct Led {
    steps: Vec<CampaignJob>,
    slices: Vec<OutboundSlice>,
}

impl Led {
    fn messages(&self) -> Vec<MessageId> {
        self.slices.iter().flat_map(|slice| slice.message_ids.clone()).collect()
    }

    fn tasks(&self) -> Vec<Task> {
        self.steps.iter().map(|job| job.task).collect()
    }
}

impl Stage {
    /// With an account that may send 20 a second: 100 in flight.
    async fn new() -> Self {
        let database = database().await;
        let (api, workers) = (database.databases(Role::Api), database.databases(Role::Worker));
        let mut admin = database.admin().await;
        let tenant = TenantId::new();
        sqlx::query("INSERT INTO control.tenants (id, slug, name) VALUES ($1, 'acme', 'Acme')")
            .bind(tenant)
            .execute(&mut admin)
            .await
            .unwrap();
        let account = make_account(&mut admin, tenant, Some(20.0)).await;
        Self { api, workers, admin, tenant, account, database }
    }

    /// So many contacts with a name and a number, in the order of their ids.
    async fn people(&mut self, count: i64) -> Vec<ContactId> {
        sqlx::query_scalar(
            "INSERT INTO contacts (tenant_id, id, name, phone)
            SELECT $1, ('00000000-0000-7000-8000-' || lpad(n::text, 12, '0'))::uuid, 'Ada ' || n, '+4915' || lpad(n::text, 9, '0')
            FROM generate_series(1, $2) AS n
            RETURNING id",
        )
        .bind(self.tenant)
        .bind(count)
        .fetch_all(&mut self.admin)
        .await
        .unwrap()
    }

    /// A draft to everybody.
    async fn draft(&self, words: &str) -> CampaignId {
        self.draft_to(words, &Audience::All, 1).await
    }

    async fn draft_to(&self, words: &str, audience: &Audience, weight: i32) -> CampaignId {
        let content = OutboundContent::Text(Text { text: words.into(), ..Text::default() });
        let mut tx = self.api.tenant(&Placement::primary(), self.tenant).await.unwrap();
        let new = NewCampaign {
            name: "Spring",
            channel_account_id: self.account,
            content: &CampaignContent::new(content).unwrap(),
            audience,
            weight,
            author: ApiTokenId::new(),
            template: None,
        };
        let id = campaigns::create(&mut tx, &new).await.unwrap();
        tx.commit().await.unwrap();
        id
    }

    /// A request. What came of it, and the steps it led to.
    async fn act(&self, id: CampaignId, action: Action) -> (Changed, Vec<CampaignJob>) {
        let mut tx = self.api.tenant(&Placement::primary(), self.tenant).await.unwrap();
        let changed = campaigns::change(&mut tx, id, action, Actor::Operator).await.unwrap().expect("it is there");
        let due = tx.commit().await.unwrap();
        (changed, due.iter().map(|row| CampaignJob::from_job(&row.job).unwrap()).collect())
    }

    /// Started, with everybody frozen and nobody released.
    async fn started(&self, id: CampaignId) {
        let (changed, steps) = self.act(id, Action::Start).await;
        assert_eq!(changed, Changed::Done);
        self.follow(steps).await;
    }

    async fn running(&self, words: &str) -> CampaignId {
        let id = self.draft(words).await;
        self.started(id).await;
        id
    }

    async fn fleet(&self) -> FleetTx {
        self.workers.fleet(&Placement::primary(), &[self.tenant]).await.unwrap()
    }

    /// One step, as the worker takes it.
    async fn step(&self, job: CampaignJob) -> Led {
        let mut tx = self.fleet().await;
        CampaignWorker::new(self.workers.clone()).apply(&mut tx, &[job]).await.unwrap();
        let mut led = Led::default();
        for row in tx.commit().await.unwrap() {
            match row.queue.as_str() {
                "campaign" => led.steps.push(CampaignJob::from_job(&row.job).unwrap()),
                BULK_QUEUE => {}
                other => panic!("a job for {other}"),
            }
        }
        led.slices = self.slices().await;
        led
    }

    /// The slices in the outbox, as if the time of the last had come; what else is there keeps its time.
    async fn slices(&self) -> Vec<OutboundSlice> {
        let mut admin = self.database.admin().await;
        sqlx::query("UPDATE outbox SET publish_after = publish_after - interval '1 day' WHERE queue = 'outbound.bulk'")
            .execute(&mut admin)
            .await
            .unwrap();
        let mut tx = self.fleet().await;
        let due = outbox::take_due(&mut tx, &[BULK_QUEUE.to_owned()], i64::MAX).await.unwrap();
        let ids: Vec<_> = due.rows.iter().map(|row| (row.tenant_id, row.job.id)).collect();
        outbox::delete_published(&mut tx, &ids).await.unwrap();
        tx.commit().await.unwrap();
        due.rows.iter().map(|row| OutboundSlice::from_job(&row.job).unwrap()).collect()
    }

    /// These steps and all they lead to.
    async fn follow(&self, mut steps: Vec<CampaignJob>) -> Led {
        let mut all = Led::default();
        while let Some(job) = steps.pop() {
            let led = self.step(job).await;
            steps.extend(led.steps.iter().copied());
            all.steps.extend(led.steps);
            all.slices.extend(led.slices);
        }
        all
    }

    fn job(&self, task: Task) -> CampaignJob {
        CampaignJob { tenant_id: self.tenant, task }
    }

    async fn release(&self) -> Led {
        self.step(self.job(Task::Release { account: self.account })).await
    }

    async fn show(&self, id: CampaignId) -> Campaign {
        let mut tx = self.api.tenant(&Placement::primary(), self.tenant).await.unwrap();
        let found = campaigns::find(&mut tx, id).await.unwrap().expect("it is there");
        tx.commit().await.unwrap();
        found
    }

    async fn books(&self, id: CampaignId) -> Ledger {
        let mut tx = self.api.tenant(&Placement::primary(), self.tenant).await.unwrap();
        let books = campaigns::ledger::ledger(&mut tx, id).await.unwrap().expect("it is there");
        tx.commit().await.unwrap();
        books
    }

    async fn expect_books_to_agree(&self, id: CampaignId) {
        let books = self.books(id).await;
        assert_eq!(books.disagreements, Vec::<String>::new(), "{books:?}");
    }

    /// What the sender's side does in the end: the sends of these messages are in a state, with an attempt, and so counted.
    async fn end(&mut self, messages: &[MessageId], state: &'static str) {
        sqlx::query(
            "WITH ended AS (
                UPDATE sends SET state = $2, attempts = attempts + 1, attempt_id = gen_random_uuid() WHERE message_id = ANY ($1)
                RETURNING tenant_id, message_id, attempt_id, attempts, campaign_id
            ), attempt AS (
                INSERT INTO send_attempts (tenant_id, message_id, id, number, outcome, ended_at)
                SELECT tenant_id, message_id, attempt_id, attempts, CASE $2 WHEN 'sent' THEN 'accepted' ELSE $2 END, now() FROM ended
            )
            UPDATE campaign_counts n
            SET in_flight = in_flight - c.count, sent = sent + CASE $2 WHEN 'sent' THEN c.count ELSE 0 END,
                unknown = unknown + CASE $2 WHEN 'unknown' THEN c.count ELSE 0 END,
                failed = failed + CASE $2 WHEN 'failed' THEN c.count ELSE 0 END
            FROM (SELECT tenant_id, campaign_id, count(*) FROM ended GROUP BY 1, 2) AS c
            WHERE n.tenant_id = c.tenant_id AND n.campaign_id = c.campaign_id",
        )
        .bind(messages)
        .bind(state)
        .execute(&mut self.admin)
        .await
        .unwrap();
    }

    /// People by state, as `state: count`.
    async fn recipients(&mut self, id: CampaignId) -> Value {
        let rows = sqlx::query(
            "SELECT coalesce(skip_reason, state), count(*) FROM campaign_recipients WHERE campaign_id = $1 GROUP BY 1",
        )
        .bind(id)
        .fetch_all(&mut self.admin)
        .await
        .unwrap();
        rows.iter()
            .map(|row| (row.get::<String, _>(0), json!(row.get::<i64, _>(1))))
            .collect::<serde_json::Map<_, _>>()
            .into()
    }

    async fn execute(&mut self, statement: &'static str) {
        sqlx::query(statement).execute(&mut self.admin).await.unwrap();
    }

    /// One number of one row.
    async fn count(&mut self, statement: &'static str) -> i64 {
        sqlx::query_scalar(statement).fetch_one(&mut self.admin).await.unwrap()
    }
}

async fn make_account(admin: &mut PgConnection, tenant: TenantId, rate: Option<f64>) -> ChannelAccountId {
    let account = ChannelAccountId::new();
    sqlx::query(
        "INSERT INTO channel_accounts (tenant_id, id, provider, name, external_id, sealed_secrets, secret_key_id)
        VALUES ($1, $2, 'whatsapp', 'Shop', $2::text, 'sealed', 'test')",
    )
    .bind(tenant)
    .bind(account)
    .execute(&mut *admin)
    .await
    .unwrap();
    sqlx::query(
        "INSERT INTO limits (tenant_id, scope, key, rate, current_rate) SELECT $1, 'account', $2, $3, $3 WHERE $3 IS NOT NULL",
    )
    .bind(tenant)
    .bind(account)
    .bind(rate)
    .execute(admin)
    .await
    .unwrap();
    account
}

/// A conversation with words of the person's, two of them unread.
async fn make_conversation(stage: &mut Stage, contact: ContactId, state: &str) -> ConversationId {
    let id = ConversationId::new();
    sqlx::query(
        "INSERT INTO conversations (tenant_id, id, contact_id, channel_account_id, state, origin, unread, messages_in, messages_out,
            last_message_at, last_message_text, last_message_direction, last_send_seq, resolved_at)
        VALUES ($1, $2, $3, $4, $5, 'inbound', 2, 3, 4, now() - interval '1 hour', 'Hello?', 'in', 4,
            CASE $5 WHEN 'resolved' THEN now() END)",
    )
    .bind(stage.tenant)
    .bind(id)
    .bind(contact)
    .bind(stage.account)
    .bind(state)
    .execute(&mut stage.admin)
    .await
    .unwrap();
    id
}
