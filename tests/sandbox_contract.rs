//! The sandbox against the provider's contract: what it signs, retries, limits, answers, and above all what its ledger
//! says. A receiver of our own stands where the product would.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "the tests of the stand-in have their own tasks: nothing of the product runs here"
)]

#[path = "sandbox_contract/faults.rs"]
mod faults;
#[path = "sandbox_contract/gateway.rs"]
mod gateway;
#[path = "sandbox_contract/instagram.rs"]
mod instagram;
#[path = "sandbox_contract/messenger.rs"]
mod messenger;
#[path = "sandbox_contract/senders.rs"]
mod senders;
#[path = "sandbox_contract/stage.rs"]
mod stage;
#[path = "sandbox_contract/twilio.rs"]
mod twilio;
#[path = "sandbox_contract/whatsapp.rs"]
mod whatsapp;

use axum::{
    Router,
    body::Bytes,
    extract::{Query, State},
    http::{HeaderMap, StatusCode},
    routing::get,
};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use support::sandbox::{
    Behaviour, Config, Incoming, Kind, NUMBER, Person, Sandbox, TOKEN, WABA,
    behaviour::{Span, Status, WindowRule},
    burst::Burst,
    generator::Mix,
    ledger::{Answer, Delivery, Flaw, Reply, Verdict},
    registry::{AccountState, TokenSpec, TokenState},
    sign,
};

const SECRET: &str = "stand_in_app_secret_01";

/// A receiver that remembers what it got and answers what it is told to.
#[derive(Clone, Default)]
struct Receiver {
    got: Arc<Mutex<Vec<(Instant, Bytes)>>>,
    /// Statuses to answer before it answers 200 for good.
    refusals: Arc<Mutex<Vec<u16>>>,
    forged: Arc<Mutex<u32>>,
    url: String,
}

impl Receiver {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/webhooks/whatsapp", listener.local_addr().unwrap());
        let receiver = Self { url, ..Self::default() };
        let routes = Router::new()
            .route("/webhooks/whatsapp", get(Self::verify).post(Self::receive))
            .layer(axum::extract::DefaultBodyLimit::max(4 << 20))
            .with_state(receiver.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        receiver
    }

    async fn verify(Query(query): Query<HashMap<String, String>>) -> Result<String, StatusCode> {
        match query.get("hub.verify_token").map(String::as_str) {
            Some("right") => Ok(query["hub.challenge"].clone()),
            _ => Err(StatusCode::FORBIDDEN),
        }
    }

    async fn receive(State(receiver): State<Self>, headers: HeaderMap, body: Bytes) -> StatusCode {
        if headers["x-hub-signature-256"] != sign::signature(SECRET, &body).as_str() {
            *receiver.forged.lock().unwrap() += 1;
            return StatusCode::UNAUTHORIZED;
        }
        receiver.got.lock().unwrap().push((Instant::now(), body));
        let mut refusals = receiver.refusals.lock().unwrap();
        if refusals.is_empty() { StatusCode::OK } else { StatusCode::from_u16(refusals.remove(0)).unwrap() }
    }

    /// Everything it got that is JSON.
    fn payloads(&self) -> Vec<Value> {
        self.got.lock().unwrap().iter().filter_map(|(_, body)| serde_json::from_slice(body).ok()).collect()
    }

    /// All values of all changes.
    fn values(&self) -> Vec<Value> {
        let payloads = self.payloads();
        let entries = payloads.iter().flat_map(|payload| payload["entry"].as_array().unwrap().clone());
        entries.flat_map(|entry| entry["changes"].as_array().unwrap().clone()).map(|c| c["value"].clone()).collect()
    }

    /// Statuses in the order they arrived.
    fn statuses(&self) -> Vec<Value> {
        self.values().iter().flat_map(|value| value["statuses"].as_array().cloned().unwrap_or_default()).collect()
    }
}

/// A sandbox, its receiver, and a client of its API.
struct Stage {
    sandbox: Sandbox,
    receiver: Receiver,
    client: reqwest::Client,
}

impl Stage {
    async fn set(behaviour: Behaviour) -> Self {
        let receiver = Receiver::start().await;
        // One at a time, so that what is told arrives in the order in which it happened.
        let config =
            Config { webhook_url: receiver.url.clone(), behaviour, webhook_concurrency: 1, ..Config::default() };
        assert_eq!(config.app_secret, SECRET);
        let sandbox = Sandbox::start(config).await.unwrap();
        Self { sandbox, receiver, client: reqwest::Client::builder().no_proxy().build().unwrap() }
    }

    /// Nothing but the accepted sends: no limits, no statuses.
    async fn fast() -> Self {
        Self::set(Behaviour::fastest()).await
    }

    async fn post(&self, token: Option<&str>, body: &Value) -> reqwest::Result<(u16, Value)> {
        let request = self.client.post(format!("{}/v25.0/{NUMBER}/messages", self.sandbox.url()));
        let request = token.into_iter().fold(request, |request, token| request.bearer_auth(token)).json(body);
        let response = request.send().await?;
        let status = response.status().as_u16();
        Ok((status, response.json().await?))
    }

    async fn send(&self, body: &Value) -> (u16, Value) {
        self.post(Some(TOKEN), body).await.unwrap()
    }

    /// The error code of a refusal, 0 for success.
    async fn code(&self, body: &Value) -> u64 {
        self.send(body).await.1["error"]["code"].as_u64().unwrap_or(0)
    }

    async fn settle(&self) {
        assert!(self.sandbox.settle(Duration::from_secs(20)).await, "webhooks are still open");
    }
}

fn text(to: &str, body: &str) -> Value {
    json!({"messaging_product": "whatsapp", "recipient_type": "individual", "to": to, "type": "text", "text": {"body": body}})
}

fn tracked(to: &str, token: &str) -> Value {
    let mut body = text(to, "hello");
    body["biz_opaque_callback_data"] = json!(token);
    body
}

fn template(name: &str, parameters: &[&str]) -> Value {
    let parameters: Vec<Value> = parameters.iter().map(|text| json!({"type": "text", "text": text})).collect();
    let components =
        if parameters.is_empty() { json!([]) } else { json!([{"type": "body", "parameters": parameters}]) };
    json!({"messaging_product": "whatsapp", "to": "+15557770142", "type": "template",
        "template": {"name": name, "language": {"code": "en_US"}, "components": components}})
}

fn ada() -> Person {
    Person::with_phone("+15557770142")
}

#[tokio::test]
async fn accepted_send_is_answered_as_documented_and_stands_in_the_ledger() {
    let stage = Stage::fast().await;
    let (status, body) = stage.send(&tracked("+1 (555) 777-0142", "m1:0192-a:1")).await;
    assert_eq!(status, 200);
    let wamid = body["messages"][0]["id"].as_str().unwrap();
    assert!(wamid.starts_with("wamid."));
    let expected = json!({"messaging_product": "whatsapp",
        "contacts": [{"input": "+1 (555) 777-0142", "wa_id": "15557770142"}], "messages": [{"id": wamid}]});
    assert_eq!(body, expected);
    let sends = stage.sandbox.ledger().sends_to("15557770142");
    assert_eq!(sends.len(), 1);
    assert_eq!(sends[0].wamid(), Some(wamid));
    assert_eq!(sends[0].message(), Some("0192-a"));
    assert_eq!(sends[0].text.as_deref(), Some("hello"));
}

#[tokio::test]
async fn refused_requests_are_never_counted_as_accepted() {
    let stage = Stage::fast().await;
    let mut unknown = text("+15557770142", "x");
    unknown["idempotency_key"] = json!("k");
    for (code, body) in [
        (100, unknown),
        (131_008, json!({"messaging_product": "whatsapp", "to": "+15557770142", "type": "text"})),
        (131_009, text("+15557770142", "")),
        (131_009, text("+15557770142", &"x".repeat(4_097))),
        (131_021, text("+15557770100", "to myself")),
        (132_000, template("booking_reminder", &["Ada"])),
        (132_001, template("no_such_template", &[])),
        (132_001, template("pending_news", &["Ada"])),
        (132_015, template("paused_offer", &["Ada"])),
        (132_016, template("disabled_offer", &["Ada"])),
        (132_018, template("booking_reminder", &["Ada", "4 Dec\n09:30"])),
    ] {
        assert_eq!(stage.code(&body).await, code, "{body}");
    }
    assert_eq!(stage.code(&template("booking_reminder", &["Ada", "4 Dec, 09:30"])).await, 0);
    assert_eq!(stage.code(&template("hello", &[])).await, 0);
    let summary = stage.sandbox.ledger().summary();
    assert_eq!((summary.requests, summary.accepted), (13, 2));
    assert_eq!(summary.refused.values().sum::<u64>(), 11);
}

#[tokio::test]
async fn what_is_not_json_is_refused_and_recorded() {
    let stage = Stage::fast().await;
    let url = format!("{}/v25.0/{NUMBER}/messages", stage.sandbox.url());
    let answer = stage.client.post(url).bearer_auth(TOKEN).body("{\"messaging_product\":").send().await.unwrap();
    assert_eq!(answer.status(), 400);
    assert_eq!(answer.json::<Value>().await.unwrap()["error"]["code"], 100);
    assert_eq!(stage.sandbox.ledger().summary().refused, BTreeMap::from([(100, 1)]));
}

#[tokio::test]
async fn tokens_and_accounts_fail_in_their_own_ways() {
    let stage = Stage::fast().await;
    let message = text("+15557770142", "x");
    for (token, state) in
        [("expired", TokenState::Expired), ("revoked", TokenState::Revoked), ("powerless", TokenState::NoPermission)]
    {
        stage.sandbox.registry().add_token(TokenSpec { token: token.into(), state, waba_ids: vec![] });
    }
    let elsewhere = TokenSpec { token: "elsewhere".into(), state: TokenState::Valid, waba_ids: vec!["1".into()] };
    stage.sandbox.registry().add_token(elsewhere);
    for (token, status, code) in [
        (None, 401, 104),
        (Some("never heard of"), 401, 190),
        (Some("expired"), 401, 190),
        (Some("revoked"), 401, 0),
        (Some("powerless"), 403, 10),
        (Some("elsewhere"), 403, 200),
    ] {
        let (got, body) = stage.post(token, &message).await.unwrap();
        assert_eq!((got, body["error"]["code"].as_u64().unwrap()), (status, code), "{token:?}");
    }
    for (state, status, code) in [
        (AccountState::Restricted, 403, 368),
        (AccountState::Locked, 403, 131_031),
        (AccountState::Unpaid, 400, 131_042),
        (AccountState::Maintenance, 500, 131_057),
        (AccountState::Deleted, 400, 33),
    ] {
        stage.sandbox.registry().set_account_state(NUMBER, state);
        let (got, body) = stage.send(&message).await;
        assert_eq!((got, body["error"]["code"].as_u64().unwrap()), (status, code), "{state:?}");
    }
    let url = format!("{}/v25.0/999/messages", stage.sandbox.url());
    let answer = stage.client.post(url).bearer_auth(TOKEN).json(&message).send().await.unwrap();
    assert_eq!(answer.json::<Value>().await.unwrap()["error"]["code"], 33);
    assert_eq!(stage.sandbox.ledger().summary().accepted, 0);
}

#[tokio::test]
async fn window_opens_when_the_person_writes_and_templates_need_none() {
    let stage = Stage::set(Behaviour { statuses: false, ..Behaviour::default() }).await;
    let message = text("+15557770142", "x");
    assert_eq!(stage.code(&message).await, 131_047);
    assert_eq!(stage.code(&template("hello", &[])).await, 0);
    let told = stage.sandbox.tell(NUMBER, vec![Incoming::text(&ada(), "hi")]).await.unwrap();
    assert_eq!(told.reply, Reply::Status(200));
    assert_eq!(stage.code(&message).await, 0);
    stage.sandbox.registry().close_windows(NUMBER);
    assert_eq!(stage.code(&message).await, 131_047);
    // A reaction, and a message of two days ago, open nothing.
    let old = Incoming::text(&ada(), "late").at(chrono::Utc::now().timestamp() - 2 * 86_400);
    stage.sandbox.tell(NUMBER, vec![Incoming::of(Kind::Reaction, &ada()), old]).await.unwrap();
    assert_eq!(stage.code(&message).await, 131_047);
    stage.sandbox.behave(|behaviour| behaviour.window = WindowRule::FailLater);
    assert_eq!(stage.code(&message).await, 0);
}

#[tokio::test]
async fn pair_limit_and_throughput_refuse_what_is_too_much() {
    let stage = Stage::set(Behaviour {
        statuses: false,
        window: WindowRule::Ignore,
        throughput_per_second: Some(60),
        ..Behaviour::default()
    })
    .await;
    let mut codes = BTreeMap::new();
    for at in 0..50 {
        *codes.entry(stage.code(&text("+15557770142", &format!("{at}"))).await).or_insert(0) += 1;
    }
    assert_eq!(codes, BTreeMap::from([(0, 45), (131_056, 5)]));
    let started = Instant::now();
    let mut accepted = 0;
    for at in 0..200 {
        accepted += u64::from(stage.code(&text(&format!("+1555888{at:04}"), "x")).await == 0);
    }
    let most = 60.0 + started.elapsed().as_secs_f64() * 60.0;
    assert!(accepted as f64 <= most, "{accepted} of at most {most}");
    let summary = stage.sandbox.ledger().summary();
    assert_eq!(summary.accepted, 45 + accepted);
    assert_eq!(summary.refused[&130_429], 200 - accepted);
    assert!(summary.numbers[NUMBER].busiest_second_accepted <= 120);
}

#[tokio::test]
async fn statuses_follow_in_order_signed_and_with_what_the_send_brought() {
    let behaviour = Behaviour {
        statuses: true,
        read_rate: 1.0,
        skip_delivered_rate: 0.0,
        status_delay_ms: Span { min: 2, max: 4 },
        ..Behaviour::fastest()
    };
    let stage = Stage::set(behaviour).await;
    let (_, body) = stage.send(&tracked("+15557770142", "m1:a:1")).await;
    stage.settle().await;
    let statuses = stage.receiver.statuses();
    let names: Vec<&str> = statuses.iter().map(|status| status["status"].as_str().unwrap()).collect();
    assert_eq!(names, ["sent", "delivered", "read"]);
    for status in &statuses {
        assert_eq!(status["id"], body["messages"][0]["id"]);
        assert_eq!(status["recipient_id"], "15557770142");
        assert_eq!(status["biz_opaque_callback_data"], "m1:a:1");
        assert!(status["timestamp"].as_str().unwrap().parse::<i64>().unwrap() > 1_700_000_000);
    }
    assert_eq!(statuses[0]["pricing"]["type"], "free_customer_service");
    let value = &stage.receiver.values()[0];
    assert_eq!(value["metadata"]["phone_number_id"], NUMBER);
    assert_eq!(stage.receiver.payloads()[0]["entry"][0]["id"], WABA);
    assert_eq!(*stage.receiver.forged.lock().unwrap(), 0);
    let entry = &stage.sandbox.ledger().sends_to("15557770142")[0];
    assert!([Status::Sent, Status::Delivered, Status::Read].iter().all(|status| entry.statuses.was_taken(*status)));
    assert_eq!(stage.sandbox.ledger().people()[0].furthest, BTreeMap::from([("read", 1)]));
}

#[tokio::test]
async fn later_failures_reorderings_repetitions_and_batches_happen_when_asked_for() {
    let behaviour = Behaviour {
        statuses: true,
        read_rate: 1.0,
        skip_delivered_rate: 0.0,
        status_delay_ms: Span { min: 1, max: 3 },
        ..Behaviour::fastest()
    };
    let stage = Stage::set(Behaviour { reorder_rate: 1.0, ..behaviour.clone() }).await;
    stage.send(&text("+15557770142", "a")).await;
    stage.settle().await;
    assert_eq!(stage.receiver.statuses().first().unwrap()["status"], "read");

    let stage = Stage::set(Behaviour { duplicate_rate: 1.0, ..behaviour.clone() }).await;
    stage.send(&text("+15557770142", "a")).await;
    stage.settle().await;
    assert_eq!(stage.receiver.statuses().len(), 6);
    assert_eq!(stage.sandbox.ledger().summary().statuses["read"].made, 1);

    let stage =
        Stage::set(Behaviour { fail_later_rate: 1.0, fail_later_codes: vec![131_026], ..behaviour.clone() }).await;
    stage.send(&text("+15557770142", "a")).await;
    stage.settle().await;
    let last = stage.receiver.statuses().pop().unwrap();
    assert_eq!((last["status"].as_str(), last["errors"][0]["code"].as_u64()), (Some("failed"), Some(131_026)));
    assert_eq!(last.get("recipient_user_id"), None);
    let summary = stage.sandbox.ledger().summary();
    assert_eq!((summary.accepted, summary.failed_later), (1, BTreeMap::from([(131_026, 1)])));

    let stage = Stage::set(Behaviour { batch_most: 100, batch_linger_ms: 50, ..behaviour }).await;
    for at in 0..30 {
        stage.send(&text(&format!("+1555888{at:04}"), "x")).await;
    }
    stage.settle().await;
    assert_eq!(stage.receiver.statuses().len(), 90);
    assert!(stage.receiver.payloads().len() < 60, "{} webhooks", stage.receiver.payloads().len());
}

#[tokio::test]
async fn status_can_arrive_before_the_answer_to_the_send() {
    let stage = Stage::set(Behaviour {
        statuses: true,
        status_before_answer_rate: 1.0,
        status_delay_ms: Span { min: 100, max: 200 },
        ..Behaviour::fastest()
    })
    .await;
    stage.send(&text("+15557770142", "a")).await;
    let answered = Instant::now();
    assert!(stage.receiver.got.lock().unwrap().first().is_some_and(|(at, _)| *at < answered));
}

#[tokio::test]
async fn cut_connections_and_unreadable_answers_are_recorded_truthfully() {
    let stage = Stage::fast().await;
    let only = |change: fn(&mut Behaviour)| {
        stage.sandbox.behave(|behaviour| {
            *behaviour = Behaviour { hang_ms: 50, ..Behaviour::fastest() };
            change(behaviour);
        });
    };
    let message = |n: u32| tracked("+15557770142", &format!("m1:{n}:1"));

    only(|behaviour| behaviour.cut_before_rate = 1.0);
    assert!(stage.post(Some(TOKEN), &message(1)).await.is_err());
    only(|behaviour| behaviour.cut_after_rate = 1.0);
    assert!(stage.post(Some(TOKEN), &message(2)).await.is_err());
    only(|behaviour| behaviour.truncate_rate = 1.0);
    assert!(stage.post(Some(TOKEN), &message(3)).await.is_err());
    only(|behaviour| behaviour.hang_rate = 1.0);
    assert!(stage.post(Some(TOKEN), &message(4)).await.is_err());
    only(|behaviour| (behaviour.gateway_error_rate, behaviour.gateway_processed_share) = (1.0, 1.0));
    assert!(stage.post(Some(TOKEN), &message(5)).await.is_err(), "HTML is not JSON");
    only(|behaviour| (behaviour.gateway_error_rate, behaviour.gateway_processed_share) = (1.0, 0.0));
    assert!(stage.post(Some(TOKEN), &message(6)).await.is_err());
    only(|behaviour| behaviour.unavailable_rate = 1.0);
    assert_eq!(stage.post(Some(TOKEN), &message(7)).await.unwrap().0, 500);
    only(|behaviour| (behaviour.refuse_rate, behaviour.refuse_code) = (1.0, 130_472));
    assert_eq!(stage.post(Some(TOKEN), &message(8)).await.unwrap().0, 400);
    only(|behaviour| behaviour.cut_after_rate = 1.0);
    assert!(stage.post(Some("wrong token"), &message(9)).await.is_err());

    let seen: Vec<(bool, Answer)> =
        stage.sandbox.ledger().sends_from(1, 100).iter().map(|entry| (entry.wamid().is_some(), entry.answer)).collect();
    assert_eq!(
        seen,
        [
            (false, Answer::Cut),
            (true, Answer::Cut),
            (true, Answer::Truncated),
            (true, Answer::Withheld),
            (true, Answer::GatewayError),
            (false, Answer::GatewayError),
            (false, Answer::Error),
            (false, Answer::Error),
            (false, Answer::Cut),
        ]
    );
    let summary = stage.sandbox.ledger().summary();
    assert_eq!((summary.accepted, summary.accepted_unanswered, summary.not_processed), (4, 4, 3));
    assert_eq!(summary.refused, BTreeMap::from([(130_472, 1), (190, 1)]));
}

#[tokio::test]
async fn send_of_a_caller_who_goes_away_is_accepted_all_the_same() {
    let stage = Stage::set(Behaviour { latency_ms: Span { min: 400, max: 400 }, ..Behaviour::fastest() }).await;
    let message = tracked("+15557770142", "m1:a:1");
    let going = stage.post(Some(TOKEN), &message);
    assert!(tokio::time::timeout(Duration::from_millis(100), going).await.is_err());
    assert_eq!(stage.sandbox.ledger().summary().accepted, 1);
}

#[tokio::test]
async fn same_message_accepted_twice_is_named() {
    let stage = Stage::fast().await;
    for token in ["m1:a:1", "m1:b:1", "m1:a:2", "m1:c:1"] {
        stage.send(&tracked("+15557770142", token)).await;
    }
    stage.send(&text("+15557770143", "unique")).await;
    let doubled = stage.sandbox.ledger().doubled();
    assert_eq!(doubled.len(), 1);
    assert_eq!((doubled[0].what.as_str(), doubled[0].sends.as_slice()), ("a", [1, 3].as_slice()));
    let summary = stage.sandbox.ledger().summary();
    assert_eq!((summary.accepted, summary.distinct_messages, summary.accepted_twice), (5, 3, 1));
    let ada = &stage.sandbox.ledger().people()[0];
    assert_eq!((ada.accepted, ada.distinct), (4, 3));
    // All four carry the same text to the same person.
    assert_eq!(stage.sandbox.ledger().doubled_texts().len(), 1);
}

#[tokio::test]
async fn webhook_is_tried_again_at_once_and_then_ever_more_rarely_until_200() {
    let stage = Stage::set(Behaviour { webhook_retry_ms: 40, ..Behaviour::fastest() }).await;
    *stage.receiver.refusals.lock().unwrap() = vec![503, 500, 202, 503];
    let told = stage.sandbox.tell(NUMBER, vec![Incoming::text(&ada(), "hi")]).await.unwrap();
    assert_eq!(told.reply, Reply::Status(503));
    stage.settle().await;
    let got = stage.receiver.got.lock().unwrap().clone();
    assert_eq!(got.len(), 5, "only 200 counts");
    assert!(got.iter().all(|(_, body)| body == &got[0].1), "the same bytes each time");
    let gaps: Vec<u128> = got.windows(2).map(|pair| (pair[1].0 - pair[0].0).as_millis()).collect();
    assert!(gaps[0] < 40 && gaps[1] >= 40 && gaps[2] >= 80 && gaps[3] >= 160, "{gaps:?}");
    let webhook = &stage.sandbox.ledger().webhooks_from(1, 1)[0];
    assert_eq!((webhook.attempts.len(), webhook.delivery), (5, Delivery::Acknowledged));
    assert_eq!(stage.sandbox.ledger().told().len(), 1);
}

#[tokio::test]
async fn webhook_that_grows_too_old_is_given_up_and_not_told() {
    let stage = Stage::set(Behaviour { webhook_retry_ms: 10, webhook_give_up_s: 0, ..Behaviour::fastest() }).await;
    *stage.receiver.refusals.lock().unwrap() = vec![503; 50];
    stage.sandbox.tell(NUMBER, vec![Incoming::text(&ada(), "hi")]).await.unwrap();
    stage.settle().await;
    assert_eq!(stage.sandbox.ledger().summary().webhooks.given_up, 1);
    assert!(stage.sandbox.ledger().told().is_empty());
}

#[tokio::test]
async fn every_kind_of_news_reaches_the_receiver() {
    let stage = Stage::fast().await;
    for (at, kind) in Kind::ALL.into_iter().enumerate() {
        let told = stage.sandbox.tell(NUMBER, vec![Incoming::of(kind, &Person::nth(3, at as u32))]).await.unwrap();
        assert_eq!(told.reply, Reply::Status(200), "{kind:?}");
        assert_eq!(told.ids.len(), usize::from(kind.is_message()));
    }
    assert_eq!(stage.receiver.payloads().len(), Kind::ALL.len());
    let hidden = Person::nth(3, 9);
    assert!(!hidden.shares_phone);
    stage.receiver.got.lock().unwrap().clear();
    stage.sandbox.tell(NUMBER, vec![Incoming::text(&hidden, "hi")]).await.unwrap();
    let value = &stage.receiver.values()[0];
    assert_eq!((value["messages"][0].get("from"), value["contacts"][0].get("wa_id")), (None, None));
    assert_eq!(value["messages"][0]["from_user_id"], hidden.user_id.as_str());
}

#[tokio::test]
async fn person_without_a_phone_can_be_answered_by_user_id() {
    let stage = Stage::set(Behaviour { statuses: true, ..Behaviour::default() }).await;
    let person = Person::nth(1, 9);
    stage.sandbox.tell(NUMBER, vec![Incoming::text(&person, "hi")]).await.unwrap();
    let mut message = text("", "hello");
    message.as_object_mut().unwrap().remove("to");
    message["recipient"] = json!(person.user_id);
    let (status, body) = stage.send(&message).await;
    assert_eq!((status, &body["contacts"][0]), (200, &json!({"input": person.user_id, "user_id": person.user_id})));
    stage.settle().await;
    let status = &stage.receiver.statuses()[0];
    assert_eq!((status.get("recipient_id"), &status["recipient_user_id"]), (None, &json!(person.user_id)));
}

#[tokio::test]
async fn burst_is_reported_and_booked_message_by_message() {
    let stage = Stage::fast().await;
    let mix = Mix { webhooks: 600, people: 50, forge_rate: 0.05, truncate_rate: 0.05, ..Mix::default() };
    let report = stage.sandbox.burst(Burst { mix, concurrency: 8, ..Burst::default() }).await.unwrap();
    stage.settle().await;
    assert_eq!(report.webhooks, 600);
    assert_eq!(report.first_answers["forged"].keys().collect::<Vec<_>>(), ["401"]);
    assert_eq!(report.first_answers["none"].keys().collect::<Vec<_>>(), ["200"]);
    let summary = stage.sandbox.ledger().summary();
    assert_eq!(summary.inbound.acknowledged, report.messages);
    assert_eq!(summary.webhooks.made, 600);
    let forged = summary.webhooks.flaws[&Flaw::Forged][&Delivery::GivenUp];
    assert_eq!(u64::from(*stage.receiver.forged.lock().unwrap()), forged);
    assert!(summary.inbound.people > 40);
}

#[tokio::test]
async fn read_receipts_want_a_message_that_was_told() {
    let stage = Stage::fast().await;
    let told = stage.sandbox.tell(NUMBER, vec![Incoming::text(&ada(), "hi")]).await.unwrap();
    let read = |id: &str| json!({"messaging_product": "whatsapp", "status": "read", "message_id": id});
    assert_eq!(stage.send(&read(&told.ids[0])).await, (200, json!({"success": true})));
    assert_eq!(stage.code(&read("wamid.unknown")).await, 131_009);
    let summary = stage.sandbox.ledger().summary();
    assert_eq!((summary.noted, summary.accepted, summary.refused[&131_009]), (1, 0, 1));
}

#[tokio::test]
async fn receiver_is_asked_to_verify_itself() {
    let stage = Stage::fast().await;
    assert!(stage.sandbox.handshake("right").await.unwrap());
    assert!(!stage.sandbox.handshake("wrong").await.unwrap());
}

#[tokio::test]
async fn control_plane_changes_behaviour_and_shows_the_ledger() {
    let stage = Stage::fast().await;
    let control = format!("{}/_sandbox", stage.sandbox.url());
    let client = &stage.client;
    let patch = |body: Value| client.patch(format!("{control}/behaviour")).json(&body).send();
    assert_eq!(patch(json!({"refuse_rate": 1.0, "refuse_code": 131_049})).await.unwrap().status(), 200);
    assert_eq!(patch(json!({"refuse_rate": 2.0})).await.unwrap().status(), 422);
    assert_eq!(patch(json!({"no_such_setting": 1})).await.unwrap().status(), 422);
    assert_eq!(stage.code(&text("+15557770142", "x")).await, 131_049);
    patch(json!({"refuse_rate": 0.0})).await.unwrap();
    for at in 0..1_200 {
        stage.send(&tracked("+15557770142", &format!("m1:{at}:1"))).await;
    }
    let lines = client.get(format!("{control}/ledger")).send().await.unwrap().text().await.unwrap();
    assert_eq!(lines.lines().count(), 1_201);
    let last: Value = serde_json::from_str(lines.lines().last().unwrap()).unwrap();
    assert_eq!(last["opaque"], "m1:1199:1");
    let page = client.get(format!("{control}/ledger?first=1200&most=10")).send().await.unwrap().text().await.unwrap();
    assert_eq!(page.lines().count(), 2);
    let summary: Value = client.get(format!("{control}/ledger/summary")).send().await.unwrap().json().await.unwrap();
    assert_eq!((summary["accepted"].as_u64(), summary["accepted_twice"].as_u64()), (Some(1_200), Some(0)));
    let inbound =
        json!({"phone_number_id": NUMBER, "messages": [{"from": "+15557770142", "text": "hi", "name": "Åda"}]});
    let answer: Value =
        client.post(format!("{control}/inbound")).json(&inbound).send().await.unwrap().json().await.unwrap();
    assert_eq!(answer["answer"], "200");
    assert!(stage.receiver.got.lock().unwrap().last().unwrap().1.is_ascii());
    assert_eq!(client.delete(format!("{control}/ledger")).send().await.unwrap().status(), 204);
    assert_eq!(stage.sandbox.ledger().summary().requests, 0);
}

#[tokio::test]
async fn number_of_its_own_behaves_on_its_own() {
    let stage = Stage::fast().await;
    let control = format!("{}/_sandbox/numbers", stage.sandbox.url());
    let number = json!({"id": "330000000000010", "waba_id": WABA, "display_phone_number": "15557770101"});
    assert_eq!(stage.client.post(&control).json(&number).send().await.unwrap().status(), 201);
    let slow = json!({"behaviour": {"refuse_rate": 1.0, "refuse_code": 130_429}, "state": "connected"});
    let answer = stage.client.patch(format!("{control}/330000000000010")).json(&slow).send().await.unwrap();
    assert_eq!(answer.status(), 204);
    let url = format!("{}/v25.0/330000000000010/messages", stage.sandbox.url());
    let refused = stage.client.post(url).bearer_auth(TOKEN).json(&text("+15557770142", "x")).send().await.unwrap();
    assert_eq!(refused.json::<Value>().await.unwrap()["error"]["code"], 130_429);
    assert_eq!(stage.code(&text("+15557770142", "x")).await, 0);
}

#[tokio::test]
async fn templates_are_listed_by_cursor_and_approved_by_webhook() {
    let stage = Stage::fast().await;
    let base = format!("{}/v25.0/{WABA}/message_templates", stage.sandbox.url());
    let get = |url: String| stage.client.get(url).bearer_auth(TOKEN).send();
    let (mut names, mut next) = (Vec::new(), Some(format!("{base}?limit=4")));
    while let Some(url) = next {
        let page: Value = get(url).await.unwrap().json().await.unwrap();
        names.extend(page["data"].as_array().unwrap().iter().map(|template| template["name"].clone()));
        next = page["paging"]["next"].as_str().map(str::to_owned);
    }
    assert_eq!(names.len(), 9);
    let bad: Value = get(format!("{base}?after=bogus")).await.unwrap().json().await.unwrap();
    assert_eq!(bad["error"]["code"], 131_059);
    let created = json!({"name": "spring_news", "language": "en_US", "category": "MARKETING",
        "components": [{"type": "BODY", "text": "Hi {{1}}, spring is here."}]});
    let answer: Value =
        stage.client.post(&base).bearer_auth(TOKEN).json(&created).send().await.unwrap().json().await.unwrap();
    assert_eq!(answer["status"], "PENDING");
    let mut approved = false;
    for _ in 0..100 {
        approved = stage.receiver.values().iter().any(|value| value["event"] == "APPROVED");
        if approved {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(approved);
    assert_eq!(stage.code(&template("spring_news", &["Ada"])).await, 0);
}

#[tokio::test]
async fn media_is_uploaded_resolved_and_downloaded_with_the_token() {
    let stage = Stage::fast().await;
    let base = format!("{}/v25.0", stage.sandbox.url());
    let body = "--B\r\nContent-Disposition: form-data; name=\"messaging_product\"\r\n\r\nwhatsapp\r\n--B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.png\"\r\nContent-Type: image/png\r\n\r\npixels\r\n--B--\r\n";
    let upload = stage.client.post(format!("{base}/{NUMBER}/media")).bearer_auth(TOKEN);
    let upload = upload.header("content-type", "multipart/form-data; boundary=B").body(body).send().await.unwrap();
    let id = upload.json::<Value>().await.unwrap()["id"].as_str().unwrap().to_owned();
    let resolved: Value =
        stage.client.get(format!("{base}/{id}")).bearer_auth(TOKEN).send().await.unwrap().json().await.unwrap();
    let url = resolved["url"].as_str().unwrap();
    assert_eq!(stage.client.get(url).send().await.unwrap().status(), 401);
    let file = stage.client.get(url).bearer_auth(TOKEN).send().await.unwrap();
    assert_eq!(file.headers()["content-type"], "image/png");
    assert_eq!(file.text().await.unwrap(), "pixels");
    let expired = url.replace("&hash=", "&hash=0");
    assert_eq!(stage.client.get(expired).bearer_auth(TOKEN).send().await.unwrap().status(), 404);
}

#[tokio::test]
async fn verdict_of_a_replaced_ledger_never_gives_out_an_id_twice() {
    let stage = Stage::fast().await;
    let first = stage.send(&text("+15557770142", "a")).await.1["messages"][0]["id"].clone();
    stage.sandbox.ledger().clear();
    let second = stage.send(&text("+15557770142", "a")).await.1["messages"][0]["id"].clone();
    assert_ne!(first, second);
    assert!(matches!(&stage.sandbox.ledger().sends_from(1, 10)[0].verdict, Verdict::Accepted { .. }));
}
