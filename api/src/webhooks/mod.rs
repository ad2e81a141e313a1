//! The front door of the providers: verify, publish raw, confirmed, 200. One path for every provider; nothing is parsed here.
//! A webhook is answered 200 only once it is durable: confirmed by the broker, or written to Postgres while the broker is away.
//! Neither: 503, and the provider repeats it.
//!
//! This is the hot path, so it has a router of its own without any of the API's layers, and bodies are not copied.

pub mod endpoints;
pub(crate) mod handshake;
pub mod quarantine;
pub mod spill;

use crate::{
    body::{self, Begun, Unread},
    error::{Kind, Problem},
};
use axum::{
    Router,
    body::Bytes,
    extract::{ConnectInfo, Path, Request, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::post,
};
use endpoints::{Endpoint, Endpoints, Lookup};
use metrics::{Counter, Histogram};
use quarantine::Quarantine;
use secrecy::{ExposeSecret, SecretString};
use shared::{
    clock::Clock,
    db::{self, Databases, receiving::Suspect},
    domain::{channel::Provider, ids::WebhookId},
    jobs::inbound::{Account, MAX_INLINE_BYTES, Meta, RawWebhook},
    providers::{BadSignature, whatsapp},
    queue::Bundler,
    telemetry::names,
};
use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::{Semaphore, SemaphorePermit};

/// Largest webhook taken. WhatsApp sends up to 3 MB (contract, section 1.3).
pub const MAX_BODY_BYTES: usize = 4 * 1024 * 1024;
/// Large bodies in memory together; the others wait in their sockets. One is three times there while it is written to Postgres
/// (bind, send buffer), and the process is to stay below 300 MiB.
pub const BODIES_BYTES: usize = 96 * 1024 * 1024;
/// Small bodies that came in pieces, together: who sends slowly holds up only the like of it.
const SMALL_BODIES_BYTES: usize = 32 * 1024 * 1024;
/// Large bodies written at the same time.
const LARGE_AT_ONCE: usize = 4;
/// Nobody waits longer for room: who sends slowly may hold all of it for a while, and is not to make others time out.
const ROOM_TIMEOUT: Duration = Duration::from_secs(3);
/// Providers wait some 10 s for an answer.
const STORE_TIMEOUT: Duration = Duration::from_secs(8);
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// What the receiver needs.
pub struct Receiver {
    /// The database of what belongs to no tenant, in the role of the API.
    pub databases: Databases,
    /// The way to the broker, or, while it is away, to Postgres.
    pub bundler: Bundler,
    /// The time.
    pub clock: Clock,
    /// The platform's app secrets; several while one is being changed. None: the platform has no endpoint here.
    pub app_secrets: Vec<SecretString>,
    /// The word of the platform's handshake.
    pub verify_token: Option<SecretString>,
    /// Accounts with an URL of their own.
    pub endpoints: Endpoints,
    /// Where what is wrongly signed goes.
    pub quarantine: Quarantine,
    /// Whether `X-Forwarded-For` says where a webhook came from: only behind a proxy of ours.
    pub behind_proxy: bool,
    /// Room for bodies, and what is counted.
    pub room: Room,
}

/// Room for bodies, and what is counted of them.
pub struct Room {
    small_bytes: Semaphore,
    large_bytes: Semaphore,
    large_turns: Semaphore,
    accepted: Counter,
    seconds: Histogram,
}

impl Room {
    /// For so many bytes of large bodies at a time.
    pub fn new(bodies_bytes: usize) -> Self {
        Self {
            small_bytes: Semaphore::new(SMALL_BODIES_BYTES),
            large_bytes: Semaphore::new(bodies_bytes.max(MAX_BODY_BYTES)),
            large_turns: Semaphore::new(LARGE_AT_ONCE),
            accepted: metrics::counter!(names::WEBHOOKS_TOTAL, "provider" => "whatsapp", "outcome" => "accepted"),
            seconds: metrics::histogram!(names::WEBHOOK_SECONDS, "provider" => "whatsapp"),
        }
    }

    /// Waits for room; `None` if there is none in time. A body that came in one piece needs none: until it is handed on there
    /// is nothing of it but what its connection had read anyway, and the bundler bounds what it holds.
    async fn reserve(&self, bytes: usize) -> Option<SemaphorePermit<'_>> {
        let room = if bytes <= MAX_INLINE_BYTES { &self.small_bytes } else { &self.large_bytes };
        let bytes = u32::try_from(bytes).expect("a body has at most 4 MiB");
        let room = tokio::time::timeout(ROOM_TIMEOUT, room.acquire_many(bytes)).await.ok()?;
        Some(room.expect("the semaphore is never closed"))
    }
}

/// The routes.
pub fn router(receiver: Arc<Receiver>) -> Router {
    Router::new()
        .route("/webhooks/whatsapp", post(platform).get(handshake::platform))
        .route("/webhooks/whatsapp/{key}", post(account).get(handshake::account))
        .method_not_allowed_fallback(|| std::future::ready(Problem::new(Kind::MethodNotAllowed)))
        .with_state(receiver)
}

/// Why a webhook is not accepted.
enum Refusal {
    UnknownEndpoint,
    TooLarge,
    Unreadable,
    BadSignature(BadSignature),
    Unavailable,
}

/// Takes a webhook of an account that has no address of its own. Answered 200 once it is durable; anything else is to be repeated.
#[utoipa::path(
    post, path = "/webhooks/whatsapp", tag = "webhooks", operation_id = "receive_webhook",
    description = "Needs no token, but the provider's signature with the platform's app secret. Answered 200 once the webhook is durable; after any other answer the provider repeats it.",
    params(("X-Hub-Signature-256" = String, Header, description = "`sha256=` and the HMAC of the body in hexadecimal digits")),
    request_body(content = Object, description = "As WhatsApp sends it, at most 4 MiB; kept as it is"),
    responses(
        (status = OK, description = "It is durable"),
        (status = "default", body = Problem, content_type = "application/problem+json"),
    ),
    security(()),
)]
pub(crate) async fn platform(State(receiver): State<Arc<Receiver>>, request: Request) -> Response {
    if receiver.app_secrets.is_empty() {
        return Refusal::UnknownEndpoint.into_response();
    }
    answer(&receiver, request, "", None).await
}

/// Takes a webhook of an account with an address of its own.
#[utoipa::path(
    post, path = "/webhooks/whatsapp/{key}", tag = "webhooks", operation_id = "receive_webhook_of_account",
    description = "Needs no token, but the provider's signature with the account's own app secret. Answered 200 once the webhook is durable; after any other answer the provider repeats it.",
    params(
        ("key" = String, Path, description = "The account's, as `mijra channel-account add` shows it"),
        ("X-Hub-Signature-256" = String, Header, description = "`sha256=` and the HMAC of the body in hexadecimal digits"),
    ),
    request_body(content = Object, description = "As WhatsApp sends it, at most 4 MiB; kept as it is"),
    responses(
        (status = OK, description = "It is durable"),
        (status = "default", body = Problem, content_type = "application/problem+json"),
    ),
    security(()),
)]
pub(crate) async fn account(
    State(receiver): State<Arc<Receiver>>,
    Path(key): Path<String>,
    request: Request,
) -> Response {
    match receiver.endpoints.find(&key).await {
        Lookup::Found(endpoint) => answer(&receiver, request, &key, Some(endpoint)).await,
        Lookup::Unknown => Refusal::UnknownEndpoint.into_response(),
        Lookup::Away => Refusal::Unavailable.into_response(),
    }
}

async fn answer(receiver: &Receiver, request: Request, key: &str, endpoint: Option<Arc<Endpoint>>) -> Response {
    let started = Instant::now();
    match receive(receiver, request, key, endpoint).await {
        Ok(()) => {
            receiver.room.accepted.increment(1);
            receiver.room.seconds.record(started.elapsed());
            StatusCode::OK.into_response()
        }
        Err(refusal) => refusal.into_response(),
    }
}

async fn receive(
    receiver: &Receiver,
    request: Request,
    key: &str,
    endpoint: Option<Arc<Endpoint>>,
) -> Result<(), Refusal> {
    let received_at = receiver.clock.now();
    let (parts, body) = request.into_parts();
    let length = content_length(&parts.headers);
    let (body, _room) = match body::begin(body, length, MAX_BODY_BYTES).await? {
        Begun::Whole(body) => (body, None),
        Begun::Part(rest) => {
            let Some(room) = receiver.room.reserve(rest.at_most()).await else {
                rest.hear_out().await;
                return Err(Refusal::Unavailable);
            };
            (rest.read().await?, Some(room))
        }
    };
    let signature = parts.headers.get(whatsapp::verify::SIGNATURE_HEADER).and_then(|value| value.to_str().ok());
    let verified = match &endpoint {
        None => {
            let secrets = receiver.app_secrets.iter().map(|secret| secret.expose_secret());
            whatsapp::verify_any(secrets, signature, &body).map(|_| None)
        }
        Some(endpoint) => verify_account(receiver, key, endpoint, signature, &body).await.map(Some),
    };
    let account = verified.map_err(|error| {
        let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(peer)| *peer);
        receiver.quarantine.put(Suspect {
            id: WebhookId::new(),
            provider: Provider::Whatsapp.as_str().to_owned(),
            endpoint: key.to_owned(),
            source: source(&parts.headers, peer, receiver.behind_proxy),
            reason: error.to_string(),
            signature: signature.map(|text| text.chars().take(quarantine::MAX_SIGNATURE_CHARACTERS).collect()),
            body: body[..body.len().min(quarantine::MAX_BODY_BYTES)].to_vec(),
            body_bytes: i64::try_from(body.len()).unwrap_or(i64::MAX),
            received_at,
        });
        Refusal::BadSignature(error)
    })?;
    let id = WebhookId::new();
    let stored = body.len() > MAX_INLINE_BYTES;
    let meta = Meta { id, provider: Provider::Whatsapp, received_at, account, query: None, stored, replay: false };
    let body = if stored { store(receiver, id, body).await? } else { body };
    receiver.bundler.accept(RawWebhook { meta, body }).await.map_err(|_| Refusal::Unavailable)
}

/// Checks against the account's own secret; if that was changed a moment ago, against the new one.
async fn verify_account(
    receiver: &Receiver,
    key: &str,
    endpoint: &Arc<Endpoint>,
    signature: Option<&str>,
    body: &[u8],
) -> Result<Account, BadSignature> {
    match whatsapp::verify(endpoint.app_secret(), signature, body) {
        Ok(()) => Ok(endpoint.account),
        Err(BadSignature::Wrong) => match receiver.endpoints.renewed(key, endpoint).await {
            Some(endpoint) => whatsapp::verify(endpoint.app_secret(), signature, body).map(|()| endpoint.account),
            None => Err(BadSignature::Wrong),
        },
        Err(error) => Err(error),
    }
}

/// What the request says of its body's length.
fn content_length(headers: &HeaderMap) -> Option<usize> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Writes a body that is too large for the broker; the job refers to it.
async fn store(receiver: &Receiver, id: WebhookId, body: Bytes) -> Result<Bytes, Refusal> {
    let _turn = receiver.room.large_turns.acquire().await.expect("the semaphore is never closed");
    let stored = async {
        let mut tx = receiver.databases.control().await?;
        db::receiving::store_large_body(&mut tx, id, &body).await?;
        tx.commit().await
    };
    let stored = tokio::time::timeout(STORE_TIMEOUT, stored).await;
    stored.unwrap_or_else(|_| Err(db::Error::timed_out("keeping a large webhook"))).map_err(|error| {
        tracing::error!(%error, "a large webhook could not be kept");
        Refusal::Unavailable
    })?;
    Ok(Bytes::new())
}

/// Where a webhook came from, for counting wrong ones.
fn source(headers: &HeaderMap, peer: Option<SocketAddr>, behind_proxy: bool) -> String {
    let forwarded = headers.get("x-forwarded-for").filter(|_| behind_proxy).and_then(|value| value.to_str().ok());
    // The last address is the one our own proxy saw; those before it are the sender's word.
    let forwarded =
        forwarded.and_then(|list| list.rsplit(',').next()).map(|address| address.trim().chars().take(64).collect());
    forwarded.unwrap_or_else(|| peer.map(|peer| peer.ip().to_string()).unwrap_or_default())
}

impl From<Unread> for Refusal {
    fn from(unread: Unread) -> Self {
        match unread {
            Unread::TooLarge => Refusal::TooLarge,
            Unread::Broken => Refusal::Unreadable,
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (outcome, problem) = match self {
            Refusal::UnknownEndpoint => ("unknown_endpoint", Problem::new(Kind::NotFound)),
            Refusal::TooLarge => {
                let detail = format!("A webhook has at most {MAX_BODY_BYTES} bytes.");
                ("too_large", Problem::new(Kind::TooLarge).detail(detail))
            }
            Refusal::Unreadable => ("unreadable", Problem::of_status(StatusCode::BAD_REQUEST)),
            Refusal::BadSignature(error) => {
                ("bad_signature", Problem::new(Kind::BadSignature).detail(format!("{error}.")))
            }
            Refusal::Unavailable => ("unavailable", Problem::new(Kind::Unavailable).retry_after(RETRY_AFTER)),
        };
        metrics::counter!(names::WEBHOOKS_TOTAL, "provider" => "whatsapp", "outcome" => outcome).increment(1);
        problem.into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())])
    }

    #[tokio::test]
    async fn nobody_waits_for_room_without_end() {
        let room = Room::new(0);
        let slow = room.reserve(MAX_BODY_BYTES).await;
        assert!(slow.is_some());
        assert!(room.reserve(MAX_INLINE_BYTES + 1).await.is_none(), "who sends slowly holds all the room");
        assert!(room.reserve(MAX_INLINE_BYTES).await.is_some(), "that for small ones is another");
        drop(slow);
        assert!(room.reserve(MAX_BODY_BYTES).await.is_some());
    }

    #[test]
    fn a_sender_cannot_choose_where_it_comes_from() {
        let peer = Some("192.0.2.1:4711".parse().unwrap());
        let forged = headers("x-forwarded-for", "203.0.113.9, 198.51.100.7");
        assert_eq!(source(&forged, peer, false), "192.0.2.1");
        assert_eq!(source(&forged, peer, true), "198.51.100.7");
        assert_eq!(source(&HeaderMap::new(), peer, true), "192.0.2.1");
    }
}
