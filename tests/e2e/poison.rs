//! Jobs that can never be done: they end alone, with their reason, and can be looked at and sent back.

use crate::{SOON, quick, until};
use chrono::Utc;
use serde_json::{Value, json};
use shared::{
    domain::ids::WebhookId,
    jobs::{
        Job,
        inbound::{self, Meta, RawWebhook},
    },
    lifecycle::Lifecycle,
    queue::{Outgoing, Target, topology},
};
use std::time::Duration;
use support::{
    books,
    fleet::Fleet,
    programs::Program,
    sandbox::{Person, WABA, ledger::Reply},
};

const MARK: &str = "xyzzy-poison-xyzzy";

/// Puts a job straight onto `inbound`.
async fn publish(fleet: &Fleet, job: Job) {
    let life = Lifecycle::new(Duration::from_secs(5));
    let publisher = fleet.broker().publisher(&life);
    publisher.ready().await;
    publisher
        .publish(vec![Outgoing { to: Target::Queue(&topology::INBOUND), job }])
        .await
        .expect("the broker confirms");
    life.stop();
    life.drained().await;
}

/// A webhook as the receiver would have put it there.
fn webhook(body: impl Into<bytes::Bytes>) -> Job {
    inbound::to_job(&[raw(body)], Utc::now())
}

fn raw(body: impl Into<bytes::Bytes>) -> RawWebhook {
    let meta = Meta {
        id: WebhookId::new(),
        provider: shared::domain::channel::Provider::Whatsapp,
        received_at: Utc::now(),
        account: None,
        query: None,
        stored: false,
        replay: false,
    };
    RawWebhook { meta, body: body.into() }
}

/// A bundle of 64: among a message each of 63 people one webhook that says the mark.
fn bundle_with_the_mark(fleet: &Fleet, seed: u64) -> Job {
    let mut bundle: Vec<RawWebhook> = (0..63)
        .map(|index| {
            let person = Person::nth(seed, index);
            let message = json!({
                "from": person.wa_id, "id": format!("wamid.{seed}.{index}"), "timestamp": Utc::now().timestamp().to_string(),
                "type": "text", "text": {"body": "in bad company"},
            });
            let value = json!({
                "messaging_product": "whatsapp",
                "metadata": {"display_phone_number": "15550001", "phone_number_id": fleet.tenant.number},
                "contacts": [{"profile": {"name": person.name}, "wa_id": person.wa_id}],
                "messages": [message],
            });
            let changes = json!([{"field": "messages", "value": value}]);
            raw(json!({"object": "whatsapp_business_account", "entry": [{"id": WABA, "changes": changes}]}).to_string())
        })
        .collect();
    bundle.insert(31, raw(format!(r#"{{"object":"whatsapp_business_account","entry":[],"note":"{MARK}"}}"#)));
    inbound::to_job(&bundle, Utc::now())
}

async fn stored(fleet: &Fleet) -> i64 {
    let mut admin = fleet.database.admin().await;
    let count = "SELECT count(*) FROM messages WHERE direction = 'in' AND text = 'in bad company'";
    sqlx::query_scalar(count).fetch_one(&mut admin).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_webhook_that_aborts_its_process_ends_alone_though_it_came_in_a_bundle() {
    let fleet = quick().env_of(Program::Inbound, "MIJRA_POISON", format!("abort:{MARK}")).start().await;
    publish(&fleet, bundle_with_the_mark(&fleet, 45)).await;
    until("the poison is dead", Duration::from_secs(120), async || !fleet.dead_letters().await.is_empty()).await;
    until("the others are stored", SOON, async || stored(&fleet).await == 63).await;
    let letters = dead(&fleet).await;
    assert_eq!(letters.len(), 1, "only it: {letters:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_webhook_that_panics_is_charged_alone_though_it_came_in_a_bundle() {
    let fleet = quick().env_of(Program::Inbound, "MIJRA_POISON", format!("panic:{MARK}")).start().await;
    publish(&fleet, bundle_with_the_mark(&fleet, 46)).await;
    until("the others are stored", SOON, async || stored(&fleet).await == 63).await;
    let mut admin = fleet.database.admin().await;
    until("the bad one waits by itself", SOON, async || {
        let waiting: Vec<(i32, i32)> =
            sqlx::query_as("SELECT (job ->> 'attempt')::int, octet_length(body) FROM control.outbox")
                .fetch_all(&mut admin)
                .await
                .unwrap();
        matches!(waiting.as_slice(), [(attempt, bytes)] if *attempt >= 1 && *bytes < 500)
    })
    .await;
    assert!(fleet.process(Program::Inbound).exits().is_empty(), "the process lives on");
}

async fn dead(fleet: &Fleet) -> Vec<Value> {
    match fleet.mijra(&["dead-letters", "list"]).await {
        Value::Array(rows) => rows,
        Value::Object(mut object) => match object.remove("data") {
            Some(Value::Array(rows)) => rows,
            _ => panic!("a list: {object:?}"),
        },
        other => panic!("a list: {other}"),
    }
}

async fn others_go_on(fleet: &Fleet, seed: u64) {
    let person = Person::nth(seed, 1);
    assert_eq!(fleet.tell(&person, "and life goes on").await.reply, Reply::Status(200));
    fleet.conversation_with(&person).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_aborts_its_process_ends_alone_among_the_dead() {
    let fleet = quick().env_of(Program::Inbound, "MIJRA_POISON", format!("abort:{MARK}")).start().await;
    let poison = webhook(r#"{"object":"whatsapp_business_account","entry":[],"note":"xyzzy-poison-xyzzy"}"#);
    let id = poison.id.to_string();
    let before: Vec<Person> = (0..20).map(|index| Person::nth(41, index)).collect();
    let telling = async {
        for person in &before {
            assert_eq!(fleet.tell(person, "beside the poison").await.reply, Reply::Status(200));
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::join!(publish(&fleet, poison), telling);
    until("the poison is dead", Duration::from_secs(120), async || !fleet.dead_letters().await.is_empty()).await;
    let letters = dead(&fleet).await;
    assert_eq!(letters.len(), 1, "only it: {letters:?}");
    assert_eq!(letters[0]["id"].as_str(), Some(id.as_str()));
    others_go_on(&fleet, 42).await;
    let crashes = fleet.process(Program::Inbound).exits().len();
    assert!(crashes >= 3, "it did kill its process: {crashes}");
    fleet.mijra(&["dead-letters", "discard", &id]).await;
    books::close(&fleet, &[], crate::CLOSING).await.assert_agree();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_panics_is_charged_and_comes_back_and_then_is_dead() {
    let fleet = quick().env_of(Program::Inbound, "MIJRA_POISON", format!("panic:{MARK}")).start().await;
    let body = r#"{"object":"whatsapp_business_account","entry":[],"note":"xyzzy-poison-xyzzy"}"#;
    let fresh = webhook(body);
    let mut tired = webhook(body);
    tired.headers.attempt = topology::INBOUND.max_attempts - 1;
    let (fresh_id, tired_id) = (fresh.id, tired.id.to_string());
    publish(&fleet, fresh).await;
    publish(&fleet, tired).await;
    until("the tired one is dead", SOON, async || !fleet.dead_letters().await.is_empty()).await;
    let letters = dead(&fleet).await;
    assert_eq!((letters.len(), letters[0]["id"].as_str()), (1, Some(tired_id.as_str())), "{letters:?}");
    let reason = letters[0]["reason"].as_str().unwrap_or_default();
    assert!(reason.contains("8 attempts") && reason.contains("poisoned payload"), "{reason}");
    let mut admin = fleet.database.admin().await;
    until("the fresh one waits to be tried again", SOON, async || {
        let attempt: Option<i32> =
            sqlx::query_scalar("SELECT (job ->> 'attempt')::int FROM control.outbox WHERE id = $1")
                .bind(fresh_id)
                .fetch_optional(&mut admin)
                .await
                .unwrap();
        attempt.is_some_and(|attempt| attempt >= 1)
    })
    .await;
    others_go_on(&fleet, 43).await;
    assert!(fleet.process(Program::Inbound).exits().is_empty(), "the process lives on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_version_waits_and_what_cannot_be_read_is_dead_with_its_reason() {
    let fleet = quick().start().await;
    let mut newer = webhook(r#"{"object":"whatsapp_business_account","entry":[]}"#);
    newer.headers.version = inbound::VERSION + 1;
    let newer_id = newer.id;
    let mut broken = webhook("{}");
    broken.body = "no index".into();
    let truncated = webhook(r#"{"object":"whatsapp_business_account","entry":[{"id":"#);
    let ids = [broken.id.to_string(), truncated.id.to_string()];
    for job in [newer, broken, truncated] {
        publish(&fleet, job).await;
    }
    until("two are dead", SOON, async || fleet.dead_letters().await.get("inbound") == Some(&2)).await;
    for letter in dead(&fleet).await {
        assert!(ids.iter().any(|id| letter["id"].as_str() == Some(id)), "{letter}");
        assert!(letter["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{letter}");
    }
    let mut admin = fleet.database.admin().await;
    until("the newer one waits", SOON, async || {
        let attempt: Option<i32> =
            sqlx::query_scalar("SELECT (job ->> 'attempt')::int FROM control.outbox WHERE id = $1")
                .bind(newer_id)
                .fetch_optional(&mut admin)
                .await
                .unwrap();
        attempt == Some(0)
    })
    .await;
    others_go_on(&fleet, 44).await;
    // Replayed, it dies of the same again; discarded, it is gone.
    fleet.mijra(&["dead-letters", "replay", &ids[1]]).await;
    until("it is dead again", SOON, async || fleet.dead_letters().await.get("inbound") == Some(&2)).await;
    fleet.mijra(&["dead-letters", "discard", "--all", "--queue", "inbound"]).await;
    assert!(fleet.dead_letters().await.is_empty());
}
