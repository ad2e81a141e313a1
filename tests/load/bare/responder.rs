//! The provider of the send yardsticks: answers every request at once as the provider would by whose way messages go, counts, and
//! checks nothing. The same process stands behind every side. If told to, WhatsApp's reports each message as sent and then as
//! delivered, a webhook each, with the token that came with it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::serve::ListenerExt;
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use tokio::net::TcpListener;
use tokio::sync::{Mutex, mpsc};

use super::wire::Way;
use crate::role::{Orders, Role, announce};

/// How it is called in the accounts.
pub(crate) const RESPONDER: &str = "responder";

/// The calls it has had so far; times in µs since it started.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Calls {
    pub(crate) count: u64,
    pub(crate) first_us: u64,
    pub(crate) last_us: u64,
    /// When it was asked for this.
    pub(crate) asked_us: u64,
}

/// Where it reports what became of messages.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Statuses {
    pub(crate) url: String,
    pub(crate) app_secret: String,
    pub(crate) phone_number_id: u64,
}

/// How many webhooks with statuses are under way at once.
const STATUSES_AT_ONCE: usize = 32;

/// A running responder.
pub(crate) struct Responder {
    pub(crate) role: Role,
    pub(crate) address: SocketAddr,
}

impl Responder {
    /// One that answers as this way's provider.
    pub(crate) async fn start(way: Way) -> Result<Self> {
        let (role, address) = Role::start(RESPONDER, &way).await?;
        Ok(Self { role, address })
    }

    /// From now on it reports what becomes of messages.
    pub(crate) async fn report(&mut self, statuses: &Statuses) -> Result<()> {
        self.role.tell(&serde_json::to_string(statuses)?).await?;
        // Orders are obeyed one after the other: after this answer no call goes unreported.
        self.calls().await.map(drop)
    }

    pub(crate) async fn calls(&mut self) -> Result<Calls> {
        self.role.tell(CALLS).await?;
        self.role.hear(Duration::from_secs(10)).await
    }
}

/// The order to say how many calls there were; any other line is a [`Statuses`].
const CALLS: &str = "calls";

struct Counter {
    /// As which provider it answers.
    way: Way,
    /// Whom to tell of messages.
    reporter: OnceLock<mpsc::UnboundedSender<Taken>>,
    started: Instant,
    count: AtomicU64,
    first_us: AtomicU64,
    last_us: AtomicU64,
}

/// The process itself.
pub(super) async fn role(mut orders: Orders) -> Result<()> {
    let way = orders.plan().await?;
    let counter = Arc::new(Counter {
        way,
        reporter: OnceLock::new(),
        started: Instant::now(),
        count: AtomicU64::new(0),
        first_us: AtomicU64::new(0),
        last_us: AtomicU64::new(0),
    });
    let router = axum::Router::new().fallback(respond).with_state(Arc::clone(&counter));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    announce(&listener.local_addr()?)?;
    let listener = listener.tap_io(|stream| {
        // Costs latency where it fails, nothing else.
        let _ = stream.set_nodelay(true);
    });
    tokio::select! {
        served = axum::serve(listener, router) => Ok(served?),
        told = obey(&mut orders, &counter) => told,
    }
}

async fn obey(orders: &mut Orders, counter: &Counter) -> Result<()> {
    while let Some(order) = orders.next().await {
        if order != CALLS {
            let statuses = serde_json::from_str(&order).context("read where statuses go")?;
            // A second order changes nothing.
            let _ = counter.reporter.set(report_to(statuses));
            continue;
        }
        announce(&Calls {
            count: counter.count.load(Ordering::Relaxed),
            first_us: counter.first_us.load(Ordering::Relaxed),
            last_us: counter.last_us.load(Ordering::Relaxed),
            asked_us: counter.started.elapsed().as_micros() as u64,
        })?;
    }
    Ok(())
}

/// A message that was taken.
struct Taken {
    number: u64,
    token: String,
}

async fn respond(State(counter): State<Arc<Counter>>, body: Bytes) -> impl IntoResponse {
    let now_us = counter.started.elapsed().as_micros() as u64;
    let number = counter.count.fetch_add(1, Ordering::Relaxed);
    if number == 0 {
        counter.first_us.store(now_us, Ordering::Relaxed);
    }
    counter.last_us.store(now_us, Ordering::Relaxed);
    if let Some(reporter) = counter.reporter.get() {
        let _ = reporter.send(Taken { number, token: token(&body) });
    }
    let (status, answer) = counter.way.answer(number);
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
    (status, [(CONTENT_TYPE, "application/json; charset=UTF-8")], answer)
}

/// What came with a message and goes back with its statuses.
fn token(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Request {
        #[serde(default)]
        biz_opaque_callback_data: String,
    }
    serde_json::from_slice(body).map(|request: Request| request.biz_opaque_callback_data).unwrap_or_default()
}

/// Reports the messages it is sent.
fn report_to(statuses: Statuses) -> mpsc::UnboundedSender<Taken> {
    let (reporter, numbers) = mpsc::unbounded_channel();
    let client = reqwest::Client::builder().timeout(Duration::from_secs(10)).build().unwrap_or_default();
    let (numbers, statuses) = (Arc::new(Mutex::new(numbers)), Arc::new(statuses));
    for _ in 0..STATUSES_AT_ONCE {
        let (numbers, statuses, client) = (Arc::clone(&numbers), Arc::clone(&statuses), client.clone());
        tokio::spawn(async move {
            while let Some(taken) = next(&numbers).await {
                for status in ["sent", "delivered"] {
                    tell(&client, &statuses, &taken, status).await;
                }
            }
        });
    }
    reporter
}

async fn next(taken: &Mutex<mpsc::UnboundedReceiver<Taken>>) -> Option<Taken> {
    taken.lock().await.recv().await
}

/// As long as it takes: a provider repeats a webhook that is not taken.
async fn tell(client: &reqwest::Client, statuses: &Statuses, taken: &Taken, status: &str) {
    let (id, token) = (Way::Whatsapp.nth_id(taken.number), serde_json::Value::from(taken.token.as_str()));
    let at = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs();
    let phone_number_id = statuses.phone_number_id;
    let body = format!(
        r#"{{"object":"whatsapp_business_account","entry":[{{"id":"102290129340398","changes":[{{"field":"messages","value":{{"messaging_product":"whatsapp","metadata":{{"display_phone_number":"15557770000","phone_number_id":"{phone_number_id}"}},"statuses":[{{"id":"{id}","status":"{status}","timestamp":"{at}","recipient_id":"15550000000","biz_opaque_callback_data":{token}}}]}}}}]}}]}}"#
    );
    let mut mac =
        Hmac::<Sha256>::new_from_slice(statuses.app_secret.as_bytes()).expect("HMAC takes keys of every length");
    mac.update(body.as_bytes());
    let signature = format!("sha256={}", hex::encode(mac.finalize().into_bytes()));
    loop {
        let call = client
            .post(&statuses.url)
            .header(CONTENT_TYPE, "application/json")
            .header("X-Hub-Signature-256", &signature)
            .body(body.clone());
        if call.send().await.is_ok_and(|answer| answer.status().is_success()) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
