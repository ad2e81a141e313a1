//! Yardstick 1: a webhook's way to safety. HMAC over the raw bytes (Twilio's: over URL and parameters), one confirmed publish a
//! webhook, 200. Nothing consumes the queue. Nothing is routed, looked up or gathered.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Result;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use axum::serve::ListenerExt;
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha1::Sha1;
use sha2::Sha256;
use tokio::net::TcpListener;

use super::broker::{self, PrivateQueue, Publisher};
use super::limits;
use crate::generate::mix::{Mix, PUBLIC_URL};
use crate::measure::Reference;
use crate::measure::accounts::Watched;
use crate::measure::ingest::{IngestSide, Load, RunningIngest, Webhooks};
use crate::role::{Orders, Role, announce};
use crate::services::Services;

const PATH: &str = "/webhooks/whatsapp";
const TWILIO_PATH: &str = "/webhooks/twilio";
/// Above the provider's 3 MB.
const BODY_BYTES_MOST: usize = 4 * 1024 * 1024;

pub(crate) struct BareReceiver {
    services: Services,
}

impl BareReceiver {
    pub(crate) fn new(services: &Services) -> Self {
        Self { services: services.clone() }
    }
}

pub(crate) struct RunningReceiver {
    services: Services,
    queue: PrivateQueue,
    receiver: Receiver,
}

impl IngestSide for BareReceiver {
    type Running = RunningReceiver;

    fn name(&self) -> &'static str {
        "bare receiver"
    }

    fn reference(&self, load: &Load) -> Option<Reference> {
        limits::receiver(load.connections, load.rate).filter(|_| !load.mix)
    }

    async fn start(&self, load: &Load) -> Result<RunningReceiver> {
        let queue = PrivateQueue::declare(self.services.amqp_url.as_str()).await?;
        let receiver = Receiver::start(&self.services, &queue.name, load.mix()).await?;
        Ok(RunningReceiver { services: self.services.clone(), queue, receiver })
    }
}

impl RunningIngest for RunningReceiver {
    fn webhooks(&self) -> Webhooks {
        self.receiver.webhooks.clone()
    }

    fn processes(&self) -> Result<Vec<Watched>> {
        Ok(vec![self.receiver.role.watched()?, self.services.rabbitmq()?])
    }

    async fn stored(&mut self) -> Result<Option<u64>> {
        Ok(None)
    }

    async fn checkpoint(&mut self) -> Result<()> {
        Ok(())
    }

    async fn stop(self) -> Result<()> {
        let stopped = self.receiver.role.stop().await;
        self.queue.delete().await?;
        stopped
    }
}

/// The receiver's process; the chain has one, too.
pub(super) struct Receiver {
    pub(super) role: Role,
    pub(super) webhooks: Webhooks,
}

#[derive(Serialize, Deserialize)]
struct Plan {
    amqp_url: String,
    queue: String,
    app_secret: String,
}

impl Receiver {
    pub(super) async fn start(services: &Services, queue: &str, mix: Option<Mix>) -> Result<Self> {
        let app_secret = format!("{:032x}", rand::random::<u128>());
        let plan =
            Plan { amqp_url: services.amqp_url.to_string(), queue: queue.into(), app_secret: app_secret.clone() };
        let (role, address): (Role, SocketAddr) = Role::start("receiver", &plan).await?;
        Ok(Self { role, webhooks: Webhooks { address, path: PATH.into(), app_secret, mix } })
    }
}

struct Receiving {
    key: Hmac<Sha256>,
    twilio_key: Hmac<Sha1>,
    publisher: Publisher,
}

/// The process itself.
pub(super) async fn role(mut orders: Orders) -> Result<()> {
    let plan: Plan = orders.plan().await?;
    let connection = broker::connect(&plan.amqp_url, "bare receiver").await?;
    let publisher = Publisher::open(&connection, &plan.queue).await?;
    let key = Hmac::new_from_slice(plan.app_secret.as_bytes())?;
    let twilio_key = Hmac::new_from_slice(plan.app_secret.as_bytes())?;
    let router = axum::Router::new()
        .route(PATH, post(receive))
        .route("/webhooks/messenger", post(receive))
        .route("/webhooks/instagram", post(receive))
        .route(TWILIO_PATH, post(receive_of_twilio))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MOST))
        .with_state(Arc::new(Receiving { key, twilio_key, publisher }));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    announce(&listener.local_addr()?)?;
    let listener = listener.tap_io(|stream| {
        // Costs latency where it fails, nothing else.
        let _ = stream.set_nodelay(true);
    });
    tokio::select! {
        served = axum::serve(listener, router) => served?,
        _ = orders.next() => {}
    }
    Ok(())
}

async fn receive(State(receiving): State<Arc<Receiving>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    if !is_signed(&receiving.key, &headers, &body) {
        return StatusCode::UNAUTHORIZED;
    }
    store(&receiving, &body).await
}

async fn receive_of_twilio(State(receiving): State<Arc<Receiving>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    if !is_signed_by_twilio(&receiving.twilio_key, &headers, &body) {
        return StatusCode::FORBIDDEN;
    }
    store(&receiving, &body).await
}

async fn store(receiving: &Receiving, body: &Bytes) -> StatusCode {
    match receiving.publisher.publish(body).await {
        Ok(()) => StatusCode::OK,
        Err(_) => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// Over the URL and the parameters in the order of their names.
fn is_signed_by_twilio(key: &Hmac<Sha1>, headers: &HeaderMap, body: &[u8]) -> bool {
    let signature = headers.get("x-twilio-signature").and_then(|header| BASE64.decode(header.as_bytes()).ok());
    let mut parameters: Vec<_> = url::form_urlencoded::parse(body).collect();
    parameters.sort_unstable();
    let mut mac = key.clone();
    mac.update(PUBLIC_URL.as_bytes());
    mac.update(TWILIO_PATH.as_bytes());
    for (name, value) in parameters {
        mac.update(name.as_bytes());
        mac.update(value.as_bytes());
    }
    signature.is_some_and(|signature| mac.verify_slice(&signature).is_ok())
}

fn is_signed(key: &Hmac<Sha256>, headers: &HeaderMap, body: &[u8]) -> bool {
    let mut signature = [0; 32];
    let header = headers.get("x-hub-signature-256").and_then(|header| header.as_bytes().strip_prefix(b"sha256="));
    let readable = header.is_some_and(|digits| hex::decode_to_slice(digits, &mut signature).is_ok());
    let mut mac = key.clone();
    mac.update(body);
    readable && mac.verify_slice(&signature).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_secret_signs() {
        let key = Hmac::new_from_slice(b"stand_in_app_secret_01").unwrap();
        let body = br#"{"object":"whatsapp_business_account","entry":[]}"#;
        let mut headers = HeaderMap::new();
        assert!(!is_signed(&key, &headers, body));
        let signature = "sha256=dc26716b8858ed480cf28c851fa9d36175ef06114acbbdb8ea63a81a2d985a0b";
        headers.insert("x-hub-signature-256", signature.parse().unwrap());
        assert!(is_signed(&key, &headers, body));
        assert!(!is_signed(&key, &headers, b"{}"));
    }
}
