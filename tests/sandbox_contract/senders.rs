//! Messenger, Instagram and Twilio as senders of webhooks: what they sign, over what, and how often they try.

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, Method, StatusCode, Uri},
    routing::any,
};
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};
use support::sandbox::{
    AccountSpec, Behaviour, Config, Happening, Platform, Sandbox,
    burst::Burst,
    instagram,
    ledger::{Delivery, Reply},
    messenger,
    mixture::Mixture,
    platform::Way,
    sign, twilio,
    twilio::status::Status,
};

const PAGE: &str = "100900000000001";
const PROFESSIONAL: &str = "17841400000000055";
const NUMBER: &str = "+15035550199";
const WHATSAPP: &str = "whatsapp:+15035550198";
const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// One request as it came.
#[derive(Clone)]
struct Got {
    method: Method,
    target: String,
    headers: HeaderMap,
    body: Bytes,
}

impl Got {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    fn form(&self) -> Vec<(String, String)> {
        url::form_urlencoded::parse(&self.body).into_owned().collect()
    }

    fn value(&self, name: &str) -> Option<String> {
        self.form().into_iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }
}

/// Answers what it is told to, then 200, and remembers everything.
#[derive(Clone, Default)]
struct Receiver {
    got: Arc<Mutex<Vec<Got>>>,
    refusals: Arc<Mutex<Vec<u16>>>,
    root: String,
}

impl Receiver {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let receiver = Self { root: format!("http://{}", listener.local_addr().unwrap()), ..Self::default() };
        let routes = Router::new().fallback(any(Self::receive)).with_state(receiver.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        receiver
    }

    async fn receive(
        State(receiver): State<Self>,
        method: Method,
        uri: Uri,
        headers: HeaderMap,
        body: Bytes,
    ) -> StatusCode {
        receiver.got.lock().unwrap().push(Got { method, target: uri.to_string(), headers, body });
        let mut refusals = receiver.refusals.lock().unwrap();
        if refusals.is_empty() { StatusCode::OK } else { StatusCode::from_u16(refusals.remove(0)).unwrap() }
    }

    fn got(&self) -> Vec<Got> {
        self.got.lock().unwrap().clone()
    }

    fn refuse(&self, statuses: &[u16]) {
        *self.refusals.lock().unwrap() = statuses.to_vec();
    }
}

struct Stage {
    sandbox: Sandbox,
    receiver: Receiver,
}

impl Stage {
    /// With these senders at Twilio beside a Page and a professional account.
    async fn set(senders: impl FnOnce(&Receiver) -> Vec<AccountSpec>) -> Self {
        let receiver = Receiver::start().await;
        let mut accounts = senders(&receiver);
        accounts.push(AccountSpec::new(Platform::Messenger, PAGE));
        accounts.push(AccountSpec::new(Platform::Instagram, PROFESSIONAL).signed_with("instagram_app_secret"));
        let behaviour = Behaviour { webhook_retry_ms: 1, ..Behaviour::fastest() };
        let webhook_url = format!("{}/webhooks/whatsapp", receiver.root);
        let sandbox = Sandbox::start(Config { webhook_url, accounts, behaviour, ..Config::default() }).await.unwrap();
        Self { sandbox, receiver }
    }

    async fn happen(&self, happening: Happening) -> Reply {
        let told = self.sandbox.happen(happening).await.unwrap();
        assert!(self.sandbox.settle(Duration::from_secs(20)).await);
        told.reply
    }

    fn url(&self, target: &str) -> String {
        format!("{}{target}", self.receiver.root)
    }
}

fn sender(id: &str, url: String) -> AccountSpec {
    AccountSpec::new(Platform::Twilio, id).signed_with(TOKEN).at(url)
}

#[tokio::test]
async fn every_kind_of_messenger_and_instagram_arrives_signed_as_it_was_sent() {
    let stage = Stage::set(|_| vec![]).await;
    for kind in messenger::Kind::ALL {
        let happening = Happening::of(Platform::Messenger, PAGE, kind.name(), "24000000000000077").about("m_1");
        assert_eq!(stage.happen(happening).await, Reply::Status(200), "{kind:?}");
    }
    for kind in instagram::Kind::ALL {
        let happening = Happening::of(Platform::Instagram, PROFESSIONAL, kind.name(), "980000000000066").about("m_1");
        assert_eq!(stage.happen(happening).await, Reply::Status(200), "{kind:?}");
    }
    let got = stage.receiver.got();
    assert_eq!(got.len(), messenger::Kind::ALL.len() + instagram::Kind::ALL.len());
    for got in got {
        let body: Value = serde_json::from_slice(&got.body).unwrap();
        let (path, secret) = match body["object"].as_str() {
            Some("page") => ("/webhooks/messenger", Config::default().app_secret),
            _ => ("/webhooks/instagram", "instagram_app_secret".to_owned()),
        };
        assert_eq!(got.target, path);
        assert_eq!(got.header("x-hub-signature-256"), sign::signature(&secret, &got.body));
        assert!(got.body.is_ascii(), "what is not ASCII is escaped, and signed as it is sent");
    }
    let summary = stage.sandbox.ledger().summary();
    let messages = messenger::Kind::ALL.iter().filter(|kind| kind.is_message()).count();
    let more = instagram::Kind::ALL.iter().filter(|kind| kind.is_message()).count();
    assert_eq!(summary.inbound.acknowledged as usize, messages + more);
}

#[tokio::test]
async fn each_way_of_twilio_is_signed_over_the_url_as_configured() {
    let ways = [("+1", Way::Form), ("+2", Way::FormWithPort), ("+3", Way::Get), ("+4", Way::Json)];
    let stage = Stage::set(|receiver| {
        let url = |id: &str| format!("{}/webhooks/twilio?k={}#rc=3", receiver.root, &id[1..]);
        ways.iter().map(|(id, way)| AccountSpec { way: *way, ..sender(id, url(id)) }).collect()
    })
    .await;
    for (id, _) in ways {
        let happening = Happening::text(Platform::Twilio, id, "+15035550142", "Ça va? 50% + 1");
        assert_eq!(stage.happen(happening).await, Reply::Status(200));
    }
    let got = stage.receiver.got();
    for got in &got {
        let url = stage.url(&got.target);
        let with_port = twilio::sign::with_default_port(&url);
        let expected = match got.header("content-type") {
            "" => twilio::sign::url(TOKEN, &url),
            "application/json" => {
                assert!(url.ends_with(&format!("bodySHA256={}", twilio::sign::digest(&got.body))));
                twilio::sign::url(TOKEN, &url)
            }
            _ if url.ends_with("k=2") => twilio::sign::form(TOKEN, &with_port, &got.form()),
            _ => twilio::sign::form(TOKEN, &url, &got.form()),
        };
        assert_eq!(got.header("x-twilio-signature"), expected, "{url}");
        assert!(!url.contains('#'));
        assert_eq!(got.header("i-twilio-idempotency-token").len(), 36);
    }
    assert_eq!(got[0].value("Body").as_deref(), Some("Ça va? 50% + 1"));
    assert_eq!((&got[2].method, got[2].body.len()), (&Method::GET, 0));
}

#[tokio::test]
async fn callback_keeps_the_query_and_signs_it() {
    let stage = Stage::set(|receiver| {
        let status_url = Some(format!("{}/status?tenant=7", receiver.root));
        vec![AccountSpec { status_url, ..sender(WHATSAPP, format!("{}/in", receiver.root)) }]
    })
    .await;
    let mut callback = Happening::callback(WHATSAPP, "whatsapp:+14155550188", "SM77", Status::Undelivered);
    (callback.query, callback.code) = (Some("mid=m1:a:b".into()), Some(63_016));
    stage.happen(callback).await;
    let got = stage.receiver.got().remove(0);
    assert_eq!(got.target, "/status?tenant=7&mid=m1:a:b");
    assert_eq!(got.header("x-twilio-signature"), twilio::sign::form(TOKEN, &stage.url(&got.target), &got.form()));
    assert_eq!(got.value("ErrorCode").as_deref(), Some("63016"));
    assert_eq!(got.value("EventType").as_deref(), Some("UNDELIVERED"));
}

#[tokio::test]
async fn twilio_tries_as_often_as_the_url_says_with_one_token_and_then_the_fallback() {
    let stage = Stage::set(|receiver| {
        let fallback_url = Some(format!("{}/fallback", receiver.root));
        let eager = sender("+2", format!("{}/eager#rc=2&rp=5xx", receiver.root));
        vec![sender(NUMBER, format!("{}/once", receiver.root)), AccountSpec { fallback_url, ..eager }]
    })
    .await;
    stage.receiver.refuse(&[503]);
    let once = stage.happen(Happening::text(Platform::Twilio, NUMBER, "+15035550142", "hi")).await;
    assert_eq!((once, stage.receiver.got().len()), (Reply::Status(503), 1), "an answer is not tried again by default");
    let summary = stage.sandbox.ledger().summary();
    assert_eq!(summary.webhooks.platforms[&Platform::Twilio][&Delivery::GivenUp], 1);

    stage.receiver.refuse(&[500, 500, 500]);
    stage.happen(Happening::text(Platform::Twilio, "+2", "+15035550142", "hi")).await;
    let got: Vec<Got> = stage.receiver.got().into_iter().skip(1).collect();
    let targets: Vec<&str> = got.iter().map(|got| got.target.as_str()).collect();
    assert_eq!(targets, ["/eager", "/eager", "/eager", "/fallback"]);
    let token = |got: &Got| got.header("i-twilio-idempotency-token").to_owned();
    assert!(got[..3].iter().all(|tried| token(tried) == token(&got[0])));
    assert_eq!(got[3].value("ErrorCode").as_deref(), Some("11200"));
    assert_eq!(got[3].value("ErrorUrl"), Some(stage.url("/eager")));
    assert_eq!(stage.sandbox.ledger().summary().webhooks.platforms[&Platform::Twilio][&Delivery::Acknowledged], 1);
}

#[tokio::test]
async fn meta_tries_again_on_anything_but_200() {
    let stage = Stage::set(|_| vec![]).await;
    stage.receiver.refuse(&[503, 202]);
    let first = stage.happen(Happening::text(Platform::Messenger, PAGE, "24000000000000077", "hi")).await;
    assert_eq!((first, stage.receiver.got().len()), (Reply::Status(503), 3));
}

#[tokio::test]
async fn burst_of_all_platforms_is_booked_by_platform() {
    let stage = Stage::set(|receiver| {
        let at = |id| sender(id, format!("{}/webhooks/twilio", receiver.root));
        vec![at(NUMBER), at(WHATSAPP)]
    })
    .await;
    let mixture = Mixture { webhooks: 400, people: 20, forge_rate: 0.05, begins_ms: 0, ..Mixture::default() };
    let burst = Burst { mixture: Some(mixture), concurrency: 8, ..Burst::default() };
    let report = stage.sandbox.burst(burst).await.unwrap();
    assert!(stage.sandbox.settle(Duration::from_secs(20)).await);
    assert_eq!(report.webhooks, 400);
    let sums: HashMap<&str, u64> = report
        .platforms
        .iter()
        .map(|(platform, flaws)| (platform.as_str(), flaws.values().flat_map(|answers| answers.values()).sum()))
        .collect();
    assert_eq!(sums.values().sum::<u64>(), 400);
    assert!(Platform::ALL.iter().all(|platform| sums[platform.name()] > 20), "{sums:?}");
    assert_eq!(stage.sandbox.ledger().summary().inbound.acknowledged, report.messages);
}

#[tokio::test]
async fn accounts_are_registered_and_happenings_told_over_the_control_plane() {
    let stage = Stage::set(|_| vec![]).await;
    let control = format!("{}/_sandbox", stage.sandbox.url());
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let post = |path: &str, body: Value| client.post(format!("{control}{path}")).json(&body).send();
    let account = json!({"platform": "twilio", "id": NUMBER, "secret": TOKEN, "way": "json"});
    assert_eq!(post("/accounts", account).await.unwrap().status(), 201);
    let number = json!({"platform": "whatsapp", "id": "33"});
    assert_eq!(post("/accounts", number).await.unwrap().status(), 422);
    let happening = json!({"platform": "twilio", "account": NUMBER, "person": "+15035550142", "kind": "mms_of_ten"});
    let told: Value = post("/happening", happening).await.unwrap().json().await.unwrap();
    assert_eq!((told["answer"].as_str(), told["ids"][0].as_str().map(str::len)), (Some("200"), Some(34)));
    assert_eq!(stage.receiver.got()[0].header("content-type"), "application/json");
    let payload = json!({"object": "page", "entry": []});
    let answer = post(&format!("/webhook/messenger/{PAGE}"), payload).await.unwrap();
    assert_eq!(answer.json::<Value>().await.unwrap(), json!({"answer": "200"}));
    let unknown = json!({"platform": "messenger", "account": PAGE, "person": "1", "kind": "telepathy"});
    assert_eq!(post("/happening", unknown).await.unwrap().status(), 422);
}
