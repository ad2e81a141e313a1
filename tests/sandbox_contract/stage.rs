//! What the tests of the providers besides WhatsApp share: a sandbox with an account at each, a receiver that remembers every request,
//! and a host of files.

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode, Uri},
    routing::{any, get},
};
use serde_json::Value;
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};
use support::sandbox::{
    AccountSpec, Behaviour, Config, Happening, Platform, Sandbox, Session,
    behaviour::{Span, Status},
};

pub(crate) const PAGE: &str = "100900000000001";
/// The Page that the professional account is linked to.
pub(crate) const LINKED_PAGE: &str = "100900000000002";
pub(crate) const PROFESSIONAL: &str = "17841400000000055";
pub(crate) const PSID: &str = "24000000000000077";
pub(crate) const IGSID: &str = "980000000000066";
pub(crate) const PAGE_TOKEN: &str = "EAAB-page";
pub(crate) const USER_TOKEN: &str = "IGAA-user";
pub(crate) const SMS: &str = "+15035550199";
pub(crate) const WHATSAPP: &str = "whatsapp:+15035550198";
pub(crate) const IN_SERVICE: &str = "+15035550197";
pub(crate) const SERVICE: &str = "MG00000000000000000000000000000005";
pub(crate) const ACCOUNT_SID: &str = "AC00000000000000000000000000000001";
pub(crate) const AUTH_TOKEN: &str = "0123456789abcdef0123456789abcdef";
pub(crate) const API_KEY: (&str, &str) = ("SK00000000000000000000000000000007", "key-secret");
pub(crate) const SENDER_ID: &str = "919800000001";
pub(crate) const GATEWAY_TOKEN: &str = "tok_gateway";

/// One request as it came.
#[derive(Clone)]
pub(crate) struct Got {
    pub(crate) target: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Got {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub(crate) fn form(&self) -> Vec<(String, String)> {
        url::form_urlencoded::parse(&self.body).into_owned().collect()
    }

    pub(crate) fn value(&self, name: &str) -> String {
        self.form().into_iter().find(|(known, _)| known == name).map(|(_, value)| value).unwrap_or_default()
    }

    /// The only event in it.
    pub(crate) fn event(&self) -> Value {
        let body: Value = serde_json::from_slice(&self.body).unwrap();
        body["entry"][0]["messaging"][0].clone()
    }
}

/// Answers 200 and remembers everything; under `/files` it has files.
#[derive(Clone, Default)]
pub(crate) struct Receiver {
    got: Arc<Mutex<Vec<Got>>>,
    pub(crate) root: String,
}

impl Receiver {
    pub(crate) async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let receiver = Self { root: format!("http://{}", listener.local_addr().unwrap()), ..Self::default() };
        let file = |content_type: &'static str, bytes: usize| {
            get(move || async move { ([("content-type", content_type)], vec![0_u8; bytes]) })
        };
        let routes = Router::new()
            .route("/files/ring.jpg", file("image/jpeg", 100))
            .route("/files/huge.jpg", file("image/jpeg", (8 << 20) + 1))
            .route("/files/clip.mp4", file("video/mp4", 100))
            .route("/files/page.html", file("text/html", 100))
            .route("/files/list.pdf", file("application/pdf", 100))
            .route("/files/gone.jpg", get(|| async { StatusCode::NOT_FOUND }))
            .fallback(any(Self::receive))
            .with_state(receiver.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        receiver
    }

    async fn receive(State(receiver): State<Self>, uri: Uri, headers: HeaderMap, body: Bytes) -> StatusCode {
        receiver.got.lock().unwrap().push(Got { target: uri.to_string(), headers, body });
        StatusCode::OK
    }

    pub(crate) fn got(&self) -> Vec<Got> {
        self.got.lock().unwrap().clone()
    }

    pub(crate) fn file(&self, name: &str) -> String {
        format!("{}/files/{name}", self.root)
    }
}

/// A sandbox with an account at each provider, its receiver, and a client.
pub(crate) struct Stage {
    pub(crate) sandbox: Sandbox,
    pub(crate) receiver: Receiver,
    pub(crate) client: reqwest::Client,
}

/// Everything that follows a send, at once and in order.
pub(crate) fn prompt() -> Behaviour {
    Behaviour {
        statuses: true,
        read_rate: 1.0,
        skip_delivered_rate: 0.0,
        status_delay_ms: Span { min: 1, max: 2 },
        ..Behaviour::fastest()
    }
}

/// The providers' own rules, and nothing told afterwards.
pub(crate) fn strict() -> Behaviour {
    Behaviour { statuses: false, ..Behaviour::default() }
}

impl Stage {
    pub(crate) async fn set(behaviour: Behaviour) -> Self {
        let receiver = Receiver::start().await;
        let twilio = |id: &str| AccountSpec::new(Platform::Twilio, id).signed_with(AUTH_TOKEN);
        let accounts = vec![
            AccountSpec { token: Some(PAGE_TOKEN.into()), ..AccountSpec::new(Platform::Messenger, PAGE) },
            AccountSpec {
                token: Some(USER_TOKEN.into()),
                page_id: Some(LINKED_PAGE.into()),
                ..AccountSpec::new(Platform::Instagram, PROFESSIONAL)
            },
            AccountSpec { token: Some(format!("{}:{}", API_KEY.0, API_KEY.1)), ..twilio(SMS) },
            twilio(WHATSAPP),
            AccountSpec { messaging_service_sid: Some(SERVICE.into()), ..twilio(IN_SERVICE) },
        ];
        let sandbox = Sandbox::start(Config {
            webhook_url: format!("{}/webhooks/whatsapp", receiver.root),
            accounts,
            sessions: vec![Session::new(SENDER_ID, GATEWAY_TOKEN)],
            behaviour,
            // So that what is told arrives in the order in which it happened.
            webhook_concurrency: 1,
            ..Config::default()
        })
        .await
        .unwrap();
        Self { sandbox, receiver, client: reqwest::Client::builder().no_proxy().build().unwrap() }
    }

    /// Nothing but the accepted sends: no limits, no windows, nothing told.
    pub(crate) async fn fast() -> Self {
        Self::set(Behaviour::fastest()).await
    }

    pub(crate) async fn settle(&self) {
        assert!(self.sandbox.settle(Duration::from_secs(20)).await, "webhooks are still open");
    }

    /// A person writes, which opens the window.
    pub(crate) async fn hear(&self, platform: Platform, account: &str, person: &str) {
        self.sandbox.happen(Happening::text(platform, account, person, "Is it in stock?")).await.unwrap();
        self.receiver.got.lock().unwrap().clear();
    }

    /// Posts JSON to the Graph; status and answer.
    pub(crate) async fn graph(&self, token: &str, path: &str, body: &Value) -> (u16, Value) {
        let request = self.client.post(format!("{}/v25.0/{path}", self.sandbox.url())).bearer_auth(token).json(body);
        answer(request).await.unwrap()
    }

    /// Reads from the Graph; status and answer.
    pub(crate) async fn read(&self, token: &str, path: &str) -> (u16, Value) {
        answer(self.client.get(format!("{}/v25.0/{path}", self.sandbox.url())).bearer_auth(token)).await.unwrap()
    }

    /// The events that were told, in the order in which they arrived.
    pub(crate) fn events(&self) -> Vec<Value> {
        self.receiver.got().iter().map(Got::event).collect()
    }

    /// Whether the receiver has taken these of the only send.
    pub(crate) fn were_taken(&self, statuses: &[Status]) -> bool {
        let entry = &self.sandbox.ledger().sends_from(1, 1)[0];
        statuses.iter().all(|status| entry.statuses.was_taken(*status))
    }
}

/// Status and JSON of an answer, null if there is none.
pub(crate) async fn answer(request: reqwest::RequestBuilder) -> reqwest::Result<(u16, Value)> {
    let response = request.send().await?;
    let status = response.status().as_u16();
    let text = response.text().await?;
    Ok((status, serde_json::from_str(&text).unwrap_or_default()))
}

/// Code and subcode of a refusal; nothing for success.
pub(crate) fn code(answer: &(u16, Value)) -> (u64, u64) {
    let error = &answer.1["error"];
    (error["code"].as_u64().unwrap_or(0), error["error_subcode"].as_u64().unwrap_or(0))
}
