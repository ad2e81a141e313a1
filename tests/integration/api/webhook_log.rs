//! The raw log over the API: searched page by page, shown as it came, played again by a scheduler while the queue has little to do.

#![allow(clippy::large_futures, reason = "made once, by a test")]

use super::{Account, SOON, Stage, Tenant, answer, mijra, mijra_output, staged, until};
use chrono::{DateTime, TimeDelta, Utc};
use reqwest::Method;
use serde_json::{Value, json};
use shared::{
    clock::Clock,
    db::{
        Placement,
        audit::Actor,
        inbound::log::{self, Entry, Outcome},
        webhook_log::replays::{self, Published},
    },
    domain::{
        channel::Provider,
        ids::{ChannelAccountId, ReplayId, TenantId, WebhookId},
        permissions::Permission,
    },
    health::Readiness,
    jobs::{
        Job,
        inbound::{self, MAX_INLINE_BYTES, RawWebhook},
    },
    lifecycle::Lifecycle,
    queue::{INBOUND, Outgoing, Target},
};
use std::collections::BTreeSet;
use support::database::Role;
use uuid::{NoContext, Timestamp, Uuid};
use workers::scheduler::{self, Scheduler};

/// A webhook of the log.
#[derive(Clone)]
struct Logged {
    id: WebhookId,
    at: DateTime<Utc>,
    provider: Provider,
    account: ChannelAccountId,
    outcome: Outcome,
    query: Option<&'static str>,
    body: Vec<u8>,
}

impl Logged {
    /// Received so many minutes ago.
    fn new(account: ChannelAccountId, minutes: i64) -> Self {
        let at = Utc::now() - TimeDelta::minutes(minutes);
        let time = Timestamp::from_unix(NoContext, at.timestamp().unsigned_abs(), at.timestamp_subsec_nanos());
        Self {
            id: WebhookId(Uuid::new_v7(time)),
            at,
            provider: Provider::Whatsapp,
            account,
            outcome: Outcome::Stored,
            query: None,
            body: format!("{{\"minutes\": {minutes}}}").into(),
        }
    }

    fn text(&self) -> String {
        self.id.to_string()
    }
}

async fn write(stage: &Stage, tenant: TenantId, webhooks: &[Logged]) {
    let entry = |webhook: &Logged| Entry {
        tenant_id: tenant,
        received_at: webhook.at,
        webhook_id: webhook.id,
        provider: webhook.provider,
        channel_account_id: Some(webhook.account),
        outcome: webhook.outcome,
        detail: None,
        query: webhook.query.map(str::to_owned),
        body_lz4: lz4_flex::compress_prepend_size(&webhook.body),
        body_bytes: webhook.body.len(),
    };
    let workers = stage.database.databases(Role::Worker);
    let mut tx = workers.fleet(&Placement::primary(), &[tenant]).await.unwrap();
    log::insert(&mut tx, &webhooks.iter().map(entry).collect::<Vec<_>>()).await.unwrap();
    tx.commit().await.unwrap();
}

/// So many, the newest first, of two accounts and all outcomes and providers.
fn mixed(accounts: [ChannelAccountId; 2], many: i64) -> Vec<Logged> {
    let outcomes = [Outcome::Stored, Outcome::Duplicate, Outcome::PartlyBad];
    (1..=many)
        .map(|minutes| {
            let nth = usize::try_from(minutes).unwrap();
            let mut webhook = Logged::new(accounts[nth % 2], minutes);
            webhook.outcome = outcomes[nth % 3];
            webhook.provider = Provider::WITH_WEBHOOKS[nth % 4];
            webhook
        })
        .collect()
}

/// Every id of a search, page by page.
async fn search(stage: &Stage, tenant: &Tenant, query: &str, limit: usize) -> Vec<String> {
    let (mut ids, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = stage.get(tenant, &format!("/webhooks?limit={limit}{query}{cursor}")).await;
        assert_eq!(page.status, 200, "{}", page.body);
        let rows = page.body["data"].as_array().unwrap();
        assert!(rows.len() <= limit, "{}", page.body);
        ids.extend(rows.iter().map(|row| row["id"].as_str().unwrap().to_owned()));
        match page.body["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return ids,
        }
    }
}

fn rfc3339(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(chrono::SecondsFormat::Micros, true)
}

/// A scheduler for as long as the work lasts.
async fn scheduled<T>(stage: &Stage, work: impl Future<Output = T>) -> T {
    let life = Lifecycle::new(SOON);
    let scheduler = Scheduler {
        databases: stage.database.databases(Role::Worker),
        broker: stage.broker.clone(),
        publisher: stage.publisher.clone(),
        clock: Clock::system(),
        log_days: scheduler::LOG_DAYS,
        window_closing_minutes: scheduler::WINDOW_CLOSING_MINUTES,
        templates_max_age: None,
    };
    let ready = Readiness::default().condition("sweep");
    let running = Box::pin(scheduler::run(scheduler, life.clone(), ready));
    let working = async {
        let done = work.await;
        life.stop();
        done
    };
    tokio::join!(running, working).1
}

async fn replay_of(stage: &Stage, tenant: &Tenant, id: &str) -> Value {
    let shown = stage.get(tenant, &format!("/webhooks/replays/{id}")).await;
    assert_eq!(shown.status, 200, "{}", shown.body);
    shown.body
}

async fn completed(stage: &Stage, tenant: &Tenant, id: &str) -> Value {
    until("it is completed", async || replay_of(stage, tenant, id).await["state"] == "completed").await;
    replay_of(stage, tenant, id).await
}

fn webhooks(jobs: &[Job]) -> Vec<RawWebhook> {
    jobs.iter().flat_map(|job| inbound::from_job(job).unwrap()).collect()
}

#[tokio::test]
async fn the_log_is_searched_page_by_page_by_what_is_asked_for() {
    staged(async |stage| {
        let (tenant, other) = (stage.tenant("demo").await, stage.tenant("other").await);
        let accounts = [stage.account(&tenant).await.id, stage.account(&tenant).await.id];
        let all = mixed(accounts, 24);
        write(stage, tenant.id, &all).await;
        write(stage, other.id, &mixed(accounts, 3)).await;
        let of = |wanted: &dyn Fn(&Logged) -> bool| -> Vec<String> {
            all.iter().filter(|webhook| wanted(webhook)).map(Logged::text).collect()
        };
        let (since, until) = (all[15].at, all[5].at);
        let between = format!("&since={}&until={}", rfc3339(since), rfc3339(until));
        let micros = |at: DateTime<Utc>| at.timestamp_micros();
        for limit in [1, 5, 24, 25] {
            assert_eq!(search(stage, &tenant, "", limit).await, of(&|_| true), "{limit}");
            let between_ids = of(&|w: &Logged| micros(w.at) >= micros(since) && micros(w.at) < micros(until));
            assert_eq!(between_ids.len(), 10);
            assert_eq!(search(stage, &tenant, &between, limit).await, between_ids, "{limit}");
            let by_account = format!("&account={}", accounts[1]);
            assert_eq!(search(stage, &tenant, &by_account, limit).await, of(&|w| w.account == accounts[1]));
            for outcome in [Outcome::Stored, Outcome::Duplicate, Outcome::PartlyBad] {
                let query = format!("&outcome={outcome}");
                assert_eq!(search(stage, &tenant, &query, limit).await, of(&|w| w.outcome == outcome), "{outcome}");
            }
            for provider in Provider::WITH_WEBHOOKS {
                let query = format!("&provider={provider}&outcome=partly_bad");
                let expected = of(&|w: &Logged| w.provider == *provider && w.outcome == Outcome::PartlyBad);
                assert_eq!(search(stage, &tenant, &query, limit).await, expected, "{provider}");
            }
        }
        assert_eq!(search(stage, &tenant, "&outcome=notice", 5).await, Vec::<String>::new());
        assert_eq!(search(stage, &other, "", 5).await.len(), 3, "a tenant sees its own");
        for (query, field) in [
            ("outcome=Bad", "outcome"),
            ("provider=pigeon", "provider"),
            ("provider=gateway", "provider"),
            ("account=1", "account"),
            (&format!("account={}", ChannelAccountId::new()), "account"),
            (&format!("account={}", stage.account(&other).await.id), "account"),
            ("since=2h", "since"),
            ("cursor=x", "cursor"),
            ("outcom=stored", "outcom"),
        ] {
            let refused = stage.get(&tenant, &format!("/webhooks?{query}")).await;
            assert_eq!(refused.problem(), (400, "bad_parameter", vec![field]), "{query}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_search_that_finds_little_goes_on_where_looking_ended() {
    staged(async |stage| {
        let tenant = stage.tenant("demo").await;
        // More than a page looks at, in one statement; what is wanted lies at the end.
        sqlx::query(
            "INSERT INTO webhook_log (tenant_id, received_at, webhook_id, provider, channel_account_id, outcome, body_lz4, body_bytes)
            SELECT $1, now() - make_interval(secs => n), gen_random_uuid(), CASE WHEN n > 10500 THEN 'twilio' ELSE 'whatsapp' END,
                NULL, 'stored', '', 0
            FROM generate_series(1, 10510) n",
        )
        .bind(tenant.id)
        .execute(&mut stage.database.admin().await)
        .await
        .unwrap();
        let first = stage.get(&tenant, "/webhooks?provider=twilio").await.body;
        assert_eq!((first["data"].as_array().map(Vec::len), first["next"].is_string()), (Some(0), true), "{first}");
        assert_eq!(search(stage, &tenant, "&provider=twilio", 50).await.len(), 10);
    })
    .await;
}

#[tokio::test]
async fn a_search_by_outcome_goes_on_where_looking_ended_where_a_large_partition_has_no_index() {
    staged(async |stage| {
        let tenant = stage.tenant("demo").await;
        let mut admin = stage.database.admin().await;
        // As the migration leaves it where that would have taken too long.
        let parts: Vec<String> = sqlx::query_scalar(
            "SELECT x.relname FROM pg_inherits i JOIN pg_class x ON x.oid = i.inhrelid
            WHERE i.inhparent = 'webhook_log_by_outcome'::regclass",
        )
        .fetch_all(&mut admin)
        .await
        .unwrap();
        assert!(!parts.is_empty());
        sqlx::raw_sql("DROP INDEX webhook_log_by_outcome").execute(&mut admin).await.unwrap();
        let index = "CREATE INDEX webhook_log_by_outcome ON ONLY webhook_log (tenant_id, outcome, received_at, webhook_id)
            WHERE outcome <> 'stored'";
        sqlx::raw_sql(index).execute(&mut admin).await.unwrap();
        sqlx::query(
            "INSERT INTO webhook_log (tenant_id, received_at, webhook_id, provider, channel_account_id, outcome, body_lz4, body_bytes)
            SELECT $1, now() - make_interval(secs => n), gen_random_uuid(), 'twilio', NULL,
                CASE WHEN n > 10500 THEN 'partly_bad' ELSE 'stored' END, '', 0
            FROM generate_series(1, 10510) n",
        )
        .bind(tenant.id)
        .execute(&mut admin)
        .await
        .unwrap();
        let first = stage.get(&tenant, "/webhooks?outcome=partly_bad").await.body;
        assert_eq!((first["data"].as_array().map(Vec::len), first["next"].is_string()), (Some(0), true), "{first}");
        assert_eq!(search(stage, &tenant, "&outcome=partly_bad", 50).await.len(), 10);
    })
    .await;
}

#[tokio::test]
async fn a_webhook_is_shown_as_it_came_whatever_its_bytes_are() {
    staged(async |stage| {
        let (tenant, other) = (stage.tenant("demo").await, stage.tenant("other").await);
        let account = ChannelAccountId::new();
        let bodies: [&[u8]; 4] = [b"{\"b\":1,\"a\":12345678901234567890123}", b"a\0b\x1b[2J", b"a\xff\xfe\0", b""];
        let mut logged: Vec<Logged> =
            bodies.iter().map(|body| Logged { body: body.to_vec(), ..Logged::new(account, 1) }).collect();
        logged[0].query = Some("attempt=1");
        write(stage, tenant.id, &logged).await;
        for (webhook, shown) in logged.iter().zip([
            json!({"body": "{\"b\":1,\"a\":12345678901234567890123}", "query": "attempt=1"}),
            json!({"body": "a\0b\u{1b}[2J", "query": null}),
            json!({"body": "a\u{fffd}\u{fffd}\0", "body_base64": "Yf/+AA==", "query": null}),
            json!({"body": "", "query": null}),
        ]) {
            let path = format!("/webhooks/{}", webhook.id);
            let answer = stage.get(&tenant, &path).await;
            assert_eq!(answer.status, 200, "{}", answer.body);
            for (name, value) in shown.as_object().unwrap() {
                assert_eq!(&answer.body[name], value, "{name}");
            }
            assert_eq!(answer.body["body_bytes"], webhook.body.len());
            assert_eq!(answer.body["channel_account_id"], json!(account));
            assert_eq!(stage.get(&other, &path).await.problem(), (404, "not_found", vec![]));
        }
        for nobodys in [WebhookId::new(), WebhookId(Uuid::nil()), WebhookId(Uuid::max())] {
            let path = format!("/webhooks/{nobodys}");
            assert_eq!(stage.get(&tenant, &path).await.problem(), (404, "not_found", vec![]));
        }
    })
    .await;
}

#[tokio::test]
async fn what_is_played_again_is_published_once_as_webhooks_of_their_own_for_this_tenant_alone() {
    staged(async |stage| {
        let (tenant, other) = (stage.tenant("demo").await, stage.tenant("other").await);
        let accounts = [stage.account(&tenant).await.id, stage.account(&tenant).await.id];
        let mut all = mixed(accounts, 200);
        all[7].query = Some("attempt=2");
        all[7].body = vec![b'x'; MAX_INLINE_BYTES + 1];
        // It came by GET.
        (all[9].query, all[9].body) = (Some("MessageSid=SM1&Body=hello"), Vec::new());
        write(stage, tenant.id, &all).await;
        write(stage, other.id, &mixed(accounts, 5)).await;
        // One that cannot be read, and one of which nothing is kept.
        for (webhook, body) in [(&all[3], vec![0]), (&all[5], lz4_flex::compress_prepend_size(&[]))] {
            sqlx::query("UPDATE webhook_log SET body_lz4 = $2, body_bytes = 0 WHERE webhook_id = $1")
                .bind(webhook.id)
                .bind(body)
                .execute(&mut stage.database.admin().await)
                .await
                .unwrap();
        }
        let wanted: Vec<&Logged> = all[..150].iter().filter(|webhook| webhook.account == accounts[0]).collect();
        let readable: Vec<&&Logged> =
            wanted.iter().filter(|webhook| webhook.id != all[3].id && webhook.id != all[5].id).collect();
        assert!(wanted.len() > readable.len() && readable.len() > 64, "several slices");
        let filter = json!({"since": all[149].at, "account": accounts[0]});
        let asked = stage.post(&tenant, "/webhooks/replay", &filter).await;
        assert_eq!(asked.status, 202, "{}", asked.body);
        assert_eq!((&asked.body["state"], &asked.body["published"]), (&json!("counting"), &json!(0)));
        let id = asked.body["id"].as_str().unwrap().to_owned();
        let second = stage.post(&tenant, "/webhooks/replay", &filter).await;
        assert_eq!(second.problem(), (409, "wrong_state", vec![]));
        assert_eq!(second.body["existing_id"], id.as_str());

        let (jobs, done) = scheduled(stage, async {
            let done = completed(stage, &tenant, &id);
            // The consumers have to keep up, or it waits for them.
            tokio::join!(stage.drain(&INBOUND), done)
        })
        .await;
        let rest = stage.drain(&INBOUND).await;
        let published = webhooks(&[jobs, rest].concat());
        assert_eq!(
            (&done["selected"], &done["published"], &done["unreadable"]),
            (&json!(wanted.len()), &json!(readable.len()), &json!(2)),
            "{done}"
        );
        assert!(done["ended_at"].is_string() && done["eta_seconds"].is_null(), "{done}");
        assert_eq!(published.len(), readable.len());
        let ids: BTreeSet<WebhookId> = published.iter().map(|webhook| webhook.meta.id).collect();
        assert_eq!(ids.len(), published.len());
        assert!(all.iter().all(|webhook| !ids.contains(&webhook.id)), "each is a webhook of its own");
        for (webhook, logged) in published.iter().zip(readable.iter().rev()) {
            let meta = &webhook.meta;
            assert_eq!(meta.received_at.timestamp_micros(), logged.at.timestamp_micros(), "the oldest first");
            assert!(meta.replay);
            let account = meta.account.unwrap();
            assert_eq!((account.tenant_id, account.channel_account_id), (tenant.id, logged.account));
            assert_eq!((meta.provider, meta.query.as_deref()), (logged.provider, logged.query));
            if meta.stored {
                assert_eq!((webhook.body.len(), logged.body.len()), (0, MAX_INLINE_BYTES + 1));
                let mut admin = stage.database.admin().await;
                let (stored, for_long): (Vec<u8>, bool) = sqlx::query_as(
                    "SELECT body, keep_until > now() + interval '13 days' FROM control.large_bodies WHERE webhook_id = $1",
                )
                .bind(meta.id)
                .fetch_one(&mut admin)
                .await
                .unwrap();
                assert_eq!((stored, for_long), (logged.body.clone(), true), "whenever it is come to");
            } else {
                assert_eq!(webhook.body, logged.body);
            }
        }
        let audit = stage.get(&tenant, &format!("/audit?target={id}")).await.body;
        let entries = audit["data"].as_array().unwrap();
        let actions: Vec<&str> = entries.iter().map(|entry| entry["action"].as_str().unwrap()).collect();
        assert_eq!(actions, ["replay.completed", "replay.asked"]);
        assert!(entries.iter().all(|entry| entry["actor"] == "token"), "{audit}");
        assert_eq!(entries[0]["details"]["published"], json!(readable.len()));
        assert_eq!(entries[1]["details"]["channel_account_id"], json!(accounts[0]));
        assert_eq!(stage.get(&other, &format!("/webhooks/replays/{id}")).await.problem(), (404, "not_found", vec![]));
        assert_eq!(stage.post(&tenant, "/webhooks/replay", &filter).await.status, 202, "the next may begin");
    })
    .await;
}

#[tokio::test]
async fn webhooks_are_named_to_be_played_again_and_no_others_are() {
    staged(async |stage| {
        let (tenant, other) = (stage.tenant("demo").await, stage.tenant("other").await);
        let account = stage.account(&tenant).await.id;
        let mut all = mixed([account, account], 160);
        all.push(Logged::new(account, 600));
        write(stage, tenant.id, &all).await;
        let others = mixed([account, account], 1);
        write(stage, other.id, &others).await;
        sqlx::query("UPDATE webhook_log SET body_lz4 = '' WHERE webhook_id = $1")
            .bind(all[4].id)
            .execute(&mut stage.database.admin().await)
            .await
            .unwrap();
        // Every second of them, more than a slice holds, one of them twice.
        let named: Vec<&Logged> = all.iter().step_by(2).collect();
        let ids: Vec<WebhookId> = named.iter().chain(&named[..1]).map(|webhook| webhook.id).collect();
        assert!(named.len() > 64);

        let foreign = json!({"ids": [ids[0], others[0].id, WebhookId::new()]});
        let refused = stage.post(&tenant, "/webhooks/replay", &foreign).await;
        assert_eq!(refused.problem(), (422, "invalid", vec!["ids[1]", "ids[2]"]), "another tenant's is not there");
        let would = stage.post(&tenant, "/webhooks/replay", &json!({"ids": ids, "dry_run": true})).await;
        let counted = json!({"dry_run": true, "selected": named.len(), "counted_all": true});
        assert_eq!((would.status.as_u16(), &would.body), (200, &counted));
        assert_eq!(stage.count("SELECT count(*) FROM webhook_replays").await, 0);

        let asked = stage.post(&tenant, "/webhooks/replay", &json!({"ids": ids})).await;
        assert_eq!(asked.status, 202, "{}", asked.body);
        assert_eq!((&asked.body["state"], &asked.body["selected"]), (&json!("running"), &json!(named.len())));
        assert_eq!(asked.body["since"], Value::Null);
        let id = asked.body["id"].as_str().unwrap().to_owned();
        let (jobs, done) =
            scheduled(stage, async { tokio::join!(stage.drain(&INBOUND), completed(stage, &tenant, &id)) }).await;
        assert_eq!((&done["published"], &done["unreadable"]), (&json!(named.len() - 1), &json!(1)), "{done}");
        let published: Vec<i64> = webhooks(&[jobs, stage.drain(&INBOUND).await].concat())
            .iter()
            .map(|webhook| webhook.meta.received_at.timestamp_micros())
            .collect();
        let expected = named.iter().rev().filter(|webhook| webhook.id != all[4].id);
        assert_eq!(published, expected.map(|webhook| webhook.at.timestamp_micros()).collect::<Vec<_>>());
        let audit = stage.get(&tenant, &format!("/audit?target={id}")).await.body;
        assert_eq!(audit["data"][1]["details"]["webhook_ids"].as_array().map(Vec::len), Some(named.len()), "{audit}");
    })
    .await;
}

#[tokio::test]
async fn a_dry_run_counts_and_plays_nothing_whatever_else_is_under_way() {
    staged(async |stage| {
        let tenant = stage.tenant("demo").await;
        let account = stage.account(&tenant).await.id;
        write(stage, tenant.id, &mixed([account, account], 30)).await;
        let since = Utc::now() - TimeDelta::hours(2);
        let filter = json!({"since": since, "outcome": "partly_bad"});
        let dry = json!({"since": since, "outcome": "partly_bad", "dry_run": true});
        let post =
            |body: &Value| answer(stage.posting(&tenant, "/webhooks/replay", body).header("Idempotency-Key", "once"));
        let counted = json!({"dry_run": true, "selected": 10, "counted_all": true});
        let would = post(&dry).await;
        assert_eq!((would.status.as_u16(), &would.body), (200, &counted));
        assert_eq!(stage.count("SELECT count(*) FROM webhook_replays").await, 0);
        assert_eq!(stage.count("SELECT count(*) FROM audit WHERE action LIKE 'replay.%'").await, 0);
        assert_eq!(post(&filter).await.status, 202, "the key was not taken");
        assert_eq!(post(&dry).await.body, counted, "another is under way");
        let reader = Tenant {
            token: stage.token(tenant.id, &[Permission::WebhooksRead], None).await,
            slug: tenant.slug.clone(),
            id: tenant.id,
        };
        assert_eq!(stage.post(&reader, "/webhooks/replay", &dry).await.status, 403);
    })
    .await;
}

#[tokio::test]
async fn an_operator_names_webhooks_and_is_told_what_is_misspelt_and_what_matches_nothing() {
    staged(async |stage| {
        let (tenant, other) = (stage.tenant("demo").await, stage.tenant("other").await);
        let account = stage.account(&tenant).await.id.to_string();
        let foreign = stage.account(&other).await.id.to_string();
        let all = mixed([account.parse().unwrap(), account.parse().unwrap()], 3);
        write(stage, tenant.id, &all).await;
        let (first, second, unknown) = (all[0].text(), all[1].text(), WebhookId::new().to_string());
        let webhooks = async |more: &[&str]| {
            let output = mijra_output(stage, &[&["webhooks"], more].concat(), &[]).await;
            let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
            (output.status.success(), text(output.stdout), text(output.stderr))
        };
        let demo = ["--tenant", "demo"];
        for (arguments, complaint) in [
            (vec!["list", "--tenant", "dmeo"], "there is no tenant dmeo"),
            (vec!["list", "--tenant", "demo", "--provider", "gateway"], "possible values: whatsapp, messenger"),
            (vec!["list", "--tenant", "demo", "--outcome", "Stored"], "possible values: stored, duplicate"),
            (vec!["list", "--tenant", "demo", "--account", &foreign], "has no account"),
            (vec!["replay", "--tenant", "demo", "--since", "1h", "--account", &foreign], "has no account"),
            (vec!["replay", "--tenant", "demo"], "say which webhooks"),
            (vec!["replay", "--tenant", "demo", &first, "--since", "1h"], "cannot be used with"),
            (vec!["replay", "--tenant", "demo", &first, "--account", &account], "cannot be used with"),
            (vec!["replay", "--tenant", "demo", &first, &unknown], &*format!("has no webhook {unknown} in its log")),
            (vec!["replay", "--tenant", "other", &first], "has no webhook"),
            (vec!["unroutable", "list", "--provider", "gateway"], "possible values: whatsapp, messenger"),
            (vec!["quarantine", "list", "--provider", "gateway"], "possible values: whatsapp, messenger"),
        ] {
            let (content, said, complained) = webhooks(&arguments).await;
            assert!(!content && said.is_empty() && complained.contains(complaint), "{arguments:?}: {complained}");
        }
        for arguments in [
            &["list", "--tenant", "demo", "--outcome", "erased"][..],
            &["replay", "--tenant", "demo", "--since", "1h", "--outcome", "erased", "--dry-run"],
            &["unroutable", "list"],
            &["unroutable", "replay"],
            &["quarantine", "list"],
        ] {
            let (content, _, noted) = webhooks(arguments).await;
            assert_eq!((content, noted.as_str()), (true, "no webhooks match\n"), "{arguments:?}");
        }
        let (content, _, noted) = webhooks(&[&["list"], &demo[..]].concat()).await;
        assert_eq!((content, noted.as_str()), (true, ""));

        let replay = ["webhooks", "replay", "--tenant", "demo", &first, &second];
        let (content, would) = mijra(stage, &[&replay[..], &["--dry-run"]].concat(), &[]).await;
        assert_eq!((content, would), (true, json!({"dry_run": true, "selected": 2})));
        let (content, begun) = mijra(stage, &[&replay[..], &["--detach"]].concat(), &[]).await;
        assert_eq!((content, &begun["state"]), (true, &json!("running")), "{begun}");
        let shown = replay_of(stage, &tenant, begun["id"].as_str().unwrap()).await;
        // The oldest first.
        assert_eq!((&shown["ids"], &shown["selected"]), (&json!([second, first]), &json!(2)), "{shown}");
    })
    .await;
}

#[tokio::test]
async fn a_replay_is_held_by_one_and_stopping_it_waits_for_nobody() {
    staged(async |stage| {
        let tenant = stage.tenant("demo").await;
        write(stage, tenant.id, &mixed([ChannelAccountId::new(), ChannelAccountId::new()], 3)).await;
        let asked = stage.post(&tenant, "/webhooks/replay", &json!({"since": Utc::now() - TimeDelta::hours(2)})).await;
        let id: ReplayId = asked.body["id"].as_str().unwrap().parse().unwrap();
        let workers = stage.database.databases(Role::Worker);
        let begin = async || workers.tenant(&Placement::primary(), tenant.id).await.unwrap();
        let hold = async |working: Uuid| {
            let mut tx = begin().await;
            let held = replays::hold(&mut tx, id, working).await.unwrap();
            tx.commit().await.unwrap();
            held.is_some()
        };
        let published = async |working: Uuid| {
            let mut tx = begin().await;
            let slice = Published { webhooks: 3, unreadable: 0, next: None };
            let counts = replays::published(&mut tx, id, working, slice).await.unwrap();
            tx.commit().await.unwrap();
            counts
        };
        let mut tx = begin().await;
        replays::counted(&mut tx, id, 3, None).await.unwrap();
        tx.commit().await.unwrap();
        let (first, second) = (Uuid::now_v7(), Uuid::now_v7());
        assert_eq!((hold(first).await, hold(second).await), (true, false));
        // The first stands still for longer than its lease.
        let over = "UPDATE webhook_replays SET working_until = now()";
        sqlx::query(over).execute(&mut stage.database.admin().await).await.unwrap();
        assert!(hold(second).await);
        assert!(!published(first).await, "what it published is not counted");
        let mut tx = begin().await;
        let stopped = replays::stop(&mut tx, id, Actor::Operator).await.unwrap().unwrap();
        tx.commit().await.unwrap();
        assert_eq!((stopped.state, stopped.published), (replays::State::Stopped, 0));
        assert!(!published(second).await);
        assert_eq!(replay_of(stage, &tenant, &id.to_string()).await["state"], "stopped", "and stays so");
    })
    .await;
}

#[tokio::test]
async fn a_replay_waits_while_live_webhooks_do() {
    staged(async |stage| {
        let tenant = stage.tenant("demo").await;
        write(stage, tenant.id, &mixed([ChannelAccountId::new(), ChannelAccountId::new()], 30)).await;
        let live = |_| Outgoing { to: Target::Queue(&INBOUND), job: inbound::to_job(&[], Utc::now()) };
        stage.publisher.publish((0..20).map(live).collect()).await.unwrap();
        let asked = stage.post(&tenant, "/webhooks/replay", &json!({"since": Utc::now() - TimeDelta::hours(2)})).await;
        let id = asked.body["id"].as_str().unwrap().to_owned();
        scheduled(stage, async {
            until("it is counted", async || replay_of(stage, &tenant, &id).await["state"] == "running").await;
            // Longer than the scheduler takes to look again.
            let mut looks = 0;
            until("it was watched", async || {
                assert_eq!(replay_of(stage, &tenant, &id).await["published"], 0);
                assert_eq!(stage.broker.depth(&INBOUND).await.unwrap().ready, 20);
                looks += 1;
                looks > 60
            })
            .await;
            let (jobs, done) = tokio::join!(stage.drain(&INBOUND), completed(stage, &tenant, &id));
            assert_eq!((&done["selected"], &done["published"]), (&json!(30), &json!(30)));
            assert!(webhooks(&jobs[..20]).is_empty(), "what is live went first");
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn the_log_and_replays_need_permissions_and_a_repeated_request_is_one() {
    staged(async |stage| {
        let tenant = stage.tenant("demo").await;
        let account: Account = stage.account(&tenant).await;
        write(stage, tenant.id, &mixed([account.id, account.id], 2)).await;
        let with = async |may: &[Permission]| Tenant {
            token: stage.token(tenant.id, may, None).await,
            slug: tenant.slug.clone(),
            id: tenant.id,
        };
        let (reader, nobody) = (with(&[Permission::WebhooksRead]).await, with(&[Permission::ContactsRead]).await);
        let filter = json!({"since": "2026-01-01T00:00:00Z"});
        for path in [
            "/webhooks",
            "/webhooks/01936f5e-3c00-7000-8000-000000000001",
            "/webhooks/replays/01936f5e-3c00-7000-8000-000000000001",
        ] {
            let refused = stage.get(&nobody, path).await;
            assert_eq!(refused.problem(), (403, "permission_missing", vec![]), "{path}");
            assert_eq!(refused.body["detail"], "This needs the permission webhooks:read.");
        }
        assert_eq!(stage.get(&reader, "/webhooks").await.status, 200);
        let refused = stage.post(&reader, "/webhooks/replay", &filter).await;
        assert_eq!(refused.body["detail"], "This needs the permission webhooks:replay.");
        let path = format!("/api/{}/webhooks", tenant.slug);
        assert_eq!(answer(stage.request(Method::GET, &path)).await.status, 401);

        let post =
            |body: &Value| answer(stage.posting(&tenant, "/webhooks/replay", body).header("Idempotency-Key", "again"));
        let (once, again) = (post(&filter).await, post(&filter).await);
        assert_eq!((once.status.as_u16(), &once.body), (202, &again.body));
        assert_eq!(stage.count("SELECT count(*) FROM webhook_replays").await, 1);
        for (body, field) in [
            (json!({}), "since"),
            (json!({"since": "2h"}), "since"),
            (json!({"since": "2999-01-01T00:00:00Z"}), "since"),
            (json!({"since": "2026-01-02T00:00:00Z", "until": "2026-01-01T00:00:00Z"}), "since"),
            (json!({"since": "2026-01-01T00:00:00Z", "outcome": "a\0"}), "outcome"),
            (json!({"since": "2026-01-01T00:00:00Z", "provider": "pigeon"}), "provider"),
            (json!({"since": "2026-01-01T00:00:00Z", "provider": "gateway"}), "provider"),
            (json!({"since": "2026-01-01T00:00:00Z", "provider": "gateway", "dry_run": true}), "provider"),
            (json!({"since": "2026-01-01T00:00:00Z", "account": ChannelAccountId::new()}), "account"),
            (json!({"ids": [WebhookId::new()]}), "ids[0]"),
            (json!({"ids": [WebhookId(Uuid::nil())], "dry_run": true}), "ids[0]"),
            (json!({"ids": ["1"]}), "ids[0]"),
            (json!({"ids": [WebhookId::new()], "since": "2026-01-01T00:00:00Z"}), "since"),
            (json!({"since": "2026-01-01T00:00:00Z", "tenant": "other"}), "tenant"),
        ] {
            let refused = stage.post(&tenant, "/webhooks/replay", &body).await;
            assert_eq!(refused.problem(), (422, "invalid", vec![field]), "{body}");
        }
    })
    .await;
}
