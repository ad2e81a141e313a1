//! When templates are fetched, and what that leaves behind.

use chrono::{DateTime, TimeDelta, Utc};
use shared::{
    clock::Clock,
    db::{
        FleetTx, Placement,
        templates::{local, making, sync},
    },
    domain::{
        ids::{ChannelAccountId, TemplateId, TenantId},
        templates::{Needs, TemplateInfo},
    },
};
use sqlx::{AssertSqlSafe, PgConnection};
use support::database::{Database, Role, database};

const SIX_HOURS: TimeDelta = TimeDelta::hours(6);

struct Stage {
    database: Database,
    admin: PgConnection,
    tenant: TenantId,
}

impl Stage {
    async fn new() -> Self {
        let database = database().await;
        let admin = database.admin().await;
        Self { database, admin, tenant: TenantId::new() }
    }

    async fn execute(&mut self, statement: &str) {
        sqlx::raw_sql(AssertSqlSafe(statement.to_owned())).execute(&mut self.admin).await.unwrap();
    }

    async fn count(&mut self, statement: &'static str) -> i64 {
        sqlx::query_scalar(statement).fetch_one(&mut self.admin).await.unwrap()
    }

    async fn account(&mut self, provider: &str, business_account: &str) -> ChannelAccountId {
        let (id, tenant) = (ChannelAccountId::new(), self.tenant);
        self.execute(&format!(
            "INSERT INTO channel_accounts (tenant_id, id, provider, name, external_id, business_account_id, sealed_secrets, secret_key_id)
            VALUES ('{tenant}', '{id}', '{provider}', 'Shop', '{id}', '{business_account}', '', 'test')"
        ))
        .await;
        id
    }

    async fn fleet(&self) -> FleetTx {
        self.database.databases(Role::Worker).fleet(&Placement::primary(), &[self.tenant]).await.unwrap()
    }

    /// The accounts whose templates are asked for now.
    async fn asked(&mut self) -> i64 {
        let before = self.jobs().await;
        let mut tx = self.fleet().await;
        assert!(!sync::ask_for_due(&mut tx, SIX_HOURS).await.unwrap());
        tx.commit().await.unwrap();
        self.jobs().await - before
    }

    async fn jobs(&mut self) -> i64 {
        self.count("SELECT count(*) FROM outbox WHERE queue = 'media'").await
    }

    async fn fetched(&self, account: ChannelAccountId, names: &[&str], at: DateTime<Utc>) {
        let templates: Vec<TemplateInfo> = names.iter().map(|name| template(name)).collect();
        let mut tx = self.fleet().await;
        sync::replace(&mut tx, self.tenant, account, &templates, at).await.unwrap();
        tx.commit().await.unwrap();
    }
}

fn template(name: &str) -> TemplateInfo {
    TemplateInfo {
        name: name.to_owned(),
        language: "en".into(),
        status: "APPROVED".into(),
        category: "UTILITY".into(),
        body: "Hi".into(),
        variables: 0,
        needs: Needs::default(),
        provider_id: Some(format!("of {name}")),
        components: None,
        reason: None,
    }
}

#[tokio::test]
async fn accounts_that_share_templates_are_asked_for_once_and_again_when_they_are_old_or_stale() {
    let mut stage = Stage::new().await;
    let first = stage.account("whatsapp", "21").await;
    stage.account("whatsapp", "21").await;
    stage.account("twilio", "AC1").await;
    stage.account("messenger", "9").await;
    assert_eq!(stage.asked().await, 2, "two owners; Messenger's are not fetched");
    assert_eq!(stage.asked().await, 0, "it is under way");
    let ago = |minutes: i32, more: &str| {
        format!(
            "UPDATE channel_accounts SET templates_asked_at = now() - interval '{minutes} minutes'{more} WHERE provider = 'whatsapp'"
        )
    };
    stage.execute(&ago(359, "")).await;
    assert_eq!(stage.asked().await, 0, "not old enough");
    stage.execute(&ago(361, "")).await;
    assert_eq!(stage.asked().await, 1, "six hours are over");
    stage.execute(&ago(0, ", templates_stale_at = now() + interval '1 second'")).await;
    assert_eq!(stage.asked().await, 0, "a webhook named one that is not known, but it was asked just now");
    stage.execute(&ago(2, ", templates_stale_at = now()")).await;
    assert_eq!(stage.asked().await, 1, "a minute later it is asked");
    let mut tx = stage.fleet().await;
    sync::fail(&mut tx, stage.tenant, first, "away").await.unwrap();
    tx.commit().await.unwrap();
    stage.execute(&ago(14, ", templates_stale_at = NULL")).await;
    assert_eq!(stage.asked().await, 0);
    stage.execute(&ago(16, "")).await;
    assert_eq!(stage.asked().await, 1, "what failed is tried again");
    stage.fetched(first, &["a"], Clock::system().now()).await;
    assert_eq!(stage.count("SELECT count(*) FROM channel_accounts WHERE templates_failure IS NOT NULL").await, 0);
    stage.execute("UPDATE channel_accounts SET state = 'disabled', templates_asked_at = NULL").await;
    assert_eq!(stage.asked().await, 0, "a disabled account asks nobody");
}

#[tokio::test]
async fn a_list_replaces_what_is_known_for_all_that_share_it_and_nothing_else() {
    let mut stage = Stage::new().await;
    let (first, second) = (stage.account("whatsapp", "21").await, stage.account("whatsapp", "21").await);
    let other = stage.account("whatsapp", "22").await;
    let began = Clock::system().now();
    stage.fetched(other, &["a"], began).await;
    stage.fetched(first, &["a", "b"], began).await;
    assert_eq!(stage.count("SELECT count(*) FROM templates").await, 5, "two accounts have both");
    let ids = "SELECT count(DISTINCT id) FROM templates WHERE name = 'a' AND created_at < now()";
    assert_eq!(stage.count(ids).await, 3);
    stage
        .execute(
            "INSERT INTO template_uses (tenant_id, template_id, day, slot, uses) SELECT tenant_id, id, current_date, 0, 7 FROM templates;
            CREATE TABLE before AS SELECT id FROM templates WHERE name = 'a'",
        )
        .await;

    // A tenant's own, and one that is just being made, are not in a list.
    let mut tx = stage.database.databases(Role::Api).tenant(&Placement::primary(), stage.tenant).await.unwrap();
    let actor = shared::db::audit::Actor::Operator;
    let new = local::NewLocal { name: "own", language: "en", category: "custom", body: "Hi", files: &[] };
    local::create(&mut tx, &new, actor).await.unwrap().unwrap();
    let (wanted, request) = (template("queued"), serde_json::json!({}));
    let proposed = making::Proposed { account: first, template: &wanted, request: &request };
    let queued = making::propose(&mut tx, &proposed, actor).await.unwrap().unwrap();
    assert_eq!(making::propose(&mut tx, &proposed, actor).await.unwrap(), None, "there is one");
    tx.commit().await.unwrap();

    stage.fetched(second, &["a"], Clock::system().now()).await;
    let left = "SELECT count(*) FROM templates WHERE name = 'b'";
    assert_eq!(stage.count(left).await, 0, "what is gone is gone");
    assert_eq!(stage.count("SELECT count(*) FROM template_uses").await, 3, "and what was counted of it");
    assert_eq!(stage.count("SELECT count(*) FROM templates WHERE id IN (SELECT id FROM before)").await, 3, "ids stay");
    assert_eq!(stage.count("SELECT count(*) FROM templates WHERE name IN ('own', 'queued')").await, 2);

    // Who claims it twice does not know how far the first came.
    for again in [false, true] {
        let mut tx = stage.fleet().await;
        let claimed = making::claim(&mut tx, stage.tenant, queued).await.unwrap().unwrap();
        assert_eq!((claimed.again, claimed.account), (again, first));
        tx.commit().await.unwrap();
    }
    let mut tx = stage.fleet().await;
    making::made(&mut tx, stage.tenant, first, &template("queued"), chrono::Utc::now()).await.unwrap();
    tx.commit().await.unwrap();
    let approved = "SELECT count(*) FROM templates WHERE name = 'queued' AND status = 'APPROVED' AND request IS NULL";
    assert_eq!(stage.count(approved).await, 2, "both that share it have it");
    let mut tx = stage.fleet().await;
    assert!(making::claim(&mut tx, stage.tenant, queued).await.unwrap().is_none(), "it is made");
    assert!(making::claim(&mut tx, stage.tenant, TemplateId::new()).await.unwrap().is_none());
    tx.commit().await.unwrap();

    // A list that was begun while one was being made may lack it.
    let queued = "SELECT count(*) FROM templates WHERE name = 'queued'";
    stage.execute("UPDATE templates SET status = 'PENDING' WHERE name = 'queued'").await;
    stage.fetched(first, &["a"], Clock::system().now()).await;
    assert_eq!(stage.count(queued).await, 2);
    stage.execute("UPDATE templates SET synced_at = now() - interval '11 minutes' WHERE name = 'queued'").await;
    stage.fetched(first, &["a"], Clock::system().now()).await;
    assert_eq!(stage.count(queued).await, 0);
}
