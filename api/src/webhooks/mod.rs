//! The front door of the providers: verify, publish raw, confirmed, 200. One path for every provider; nothing is parsed here.
//! What differs is how they sign ([`shared::providers`]) and what they are answered.
//! A webhook is answered 200 only once it is durable: confirmed by the broker, or written to Postgres while the broker is away.
//! Neither: 503, and the provider repeats it.
//!
//! This is the hot path, so it has a router of its own without any of the API's layers, and bodies are not copied.

pub(crate) mod doors;
pub mod endpoints;
mod handshake;
pub mod platforms;
pub mod proxies;
pub mod quarantine;
pub mod spill;

pub use doors::router;

use crate::{
    body::{self, Begun, Unread},
    error::{Kind, Problem},
};
use axum::{
    body::Bytes,
    extract::{ConnectInfo, Request},
    http::{HeaderMap, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use chrono::{DateTime, Utc};
use endpoints::{Endpoint, Endpoints, Lookup};
use metrics::{Counter, Histogram};
use platforms::Platforms;
use proxies::Proxies;
use quarantine::Quarantine;
use secrecy::{ExposeSecret, SecretString};
use shared::{
    clock::Clock,
    db::{self, Databases, receiving::Suspect},
    domain::{channel::Provider, ids::WebhookId},
    jobs::inbound::{Account, MAX_INLINE_BYTES, Meta, RawWebhook},
    providers::{self, BadSignature, SignedRequest},
    queue::Bundler,
    telemetry::names,
};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::{Semaphore, SemaphorePermit};

/// The answer to Twilio: nothing is to be said in reply (providers/twilio section 6).
const EMPTY_TWIML: &str = r#"<?xml version="1.0" encoding="UTF-8"?><Response/>"#;
/// Of a target longer than this no more is kept in quarantine. Twilio's URLs have at most 4000 characters.
const MAX_TARGET_BYTES: usize = 8192;
/// Largest webhook taken. WhatsApp sends up to 3 MB (providers/whatsapp section 1.3).
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

/// Who has been read is answered within this, whatever it takes here: what is answered later, its provider has given up and repeats.
/// Messenger and Instagram wait for five seconds (providers/messenger section 1.3), the others for some ten or more.
fn patience(provider: Provider) -> Duration {
    match provider {
        Provider::Messenger | Provider::Instagram => Duration::from_millis(4500),
        Provider::Whatsapp | Provider::Twilio | Provider::Gateway => Duration::from_secs(9),
    }
}

/// What the receiver needs.
pub struct Receiver {
    /// The database of what belongs to no tenant, in the role of the API.
    pub databases: Databases,
    /// The way to the broker, or, while it is away, to Postgres.
    pub bundler: Bundler,
    /// The time.
    pub clock: Clock,
    /// The platform's secrets at each provider.
    pub platforms: Platforms,
    /// Accounts with an URL of their own.
    pub endpoints: Endpoints,
    /// Where what is wrongly signed goes.
    pub quarantine: Quarantine,
    /// Proxies of ours: what they say of a webhook is believed.
    pub proxies: Proxies,
    /// Where we are reached from outside, without a slash at the end.
    pub public_url: String,
    /// Room for bodies, and what is counted.
    pub room: Room,
}

/// Room for bodies, and what is counted of them.
pub struct Room {
    small_bytes: Semaphore,
    large_bytes: Semaphore,
    large_turns: Semaphore,
    counted: BTreeMap<Provider, Counted>,
}

/// What is counted of a provider's webhooks.
struct Counted {
    accepted: Counter,
    seconds: Histogram,
}

impl Counted {
    fn of(provider: Provider) -> Self {
        Self {
            accepted: metrics::counter!(names::WEBHOOKS_TOTAL, "provider" => provider.as_str(), "outcome" => "accepted"),
            seconds: metrics::histogram!(names::WEBHOOK_SECONDS, "provider" => provider.as_str()),
        }
    }
}

impl Room {
    /// For so many bytes of large bodies at a time.
    pub fn new(bodies_bytes: usize) -> Self {
        Self {
            small_bytes: Semaphore::new(SMALL_BODIES_BYTES),
            large_bytes: Semaphore::new(bodies_bytes.max(MAX_BODY_BYTES)),
            large_turns: Semaphore::new(LARGE_AT_ONCE),
            counted: Provider::WITH_WEBHOOKS.iter().map(|provider| (*provider, Counted::of(*provider))).collect(),
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

/// Why a webhook is not accepted.
enum Refusal {
    UnknownEndpoint,
    TooLarge,
    Unreadable,
    BadSignature(BadSignature),
    Unavailable,
}

/// Takes a webhook that came to the platform's address.
async fn of_platform(receiver: &Receiver, provider: Provider, request: Request) -> Response {
    if receiver.platforms.of(provider).secrets.is_empty() {
        return refused(provider, Refusal::UnknownEndpoint);
    }
    answer(receiver, provider, request, "", None, patience(provider)).await
}

/// Takes a webhook that came to the address with this key.
async fn of_account(receiver: &Receiver, provider: Provider, key: &str, request: Request) -> Response {
    let asked = Instant::now();
    match receiver.endpoints.find(provider, key).await {
        // The provider has waited for that, too.
        Lookup::Found(endpoint) => {
            let left = patience(provider).saturating_sub(asked.elapsed());
            answer(receiver, provider, request, key, Some(endpoint), left).await
        }
        Lookup::Unknown => refused(provider, Refusal::UnknownEndpoint),
        Lookup::Away => refused(provider, Refusal::Unavailable),
    }
}

async fn answer(
    receiver: &Receiver,
    provider: Provider,
    request: Request,
    key: &str,
    endpoint: Option<Arc<Endpoint>>,
    left: Duration,
) -> Response {
    let started = Instant::now();
    match receive(receiver, provider, request, key, endpoint, left).await {
        Ok(()) => {
            if let Some(counted) = receiver.room.counted.get(&provider) {
                counted.accepted.increment(1);
                counted.seconds.record(started.elapsed());
            }
            match provider {
                Provider::Twilio => ([(header::CONTENT_TYPE, "text/xml")], EMPTY_TWIML).into_response(),
                _ => StatusCode::OK.into_response(),
            }
        }
        Err(refusal) => refused(provider, refusal),
    }
}

async fn receive(
    receiver: &Receiver,
    provider: Provider,
    request: Request,
    key: &str,
    endpoint: Option<Arc<Endpoint>>,
    left: Duration,
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
    let read = Read { provider, parts, body, received_at };
    let accepted = tokio::time::timeout(left, accept(receiver, read, key, endpoint)).await;
    accepted.unwrap_or_else(|_| {
        tracing::warn!(%provider, "a webhook was not kept in the time that its provider waits");
        Err(Refusal::Unavailable)
    })
}

/// A webhook that has been read.
struct Read {
    provider: Provider,
    parts: Parts,
    body: Bytes,
    received_at: DateTime<Utc>,
}

/// Verifies a webhook, and keeps or hands it on.
async fn accept(receiver: &Receiver, read: Read, key: &str, endpoint: Option<Arc<Endpoint>>) -> Result<(), Refusal> {
    let Read { provider, parts, body, received_at } = read;
    let proxied = receiver.proxies.base(&parts.headers, peer(&parts));
    let urls = receiver.urls(provider, &parts, proxied.as_deref());
    let came = Came { provider, urls, proxied, parts: &parts, body: &body };
    let verified = match &endpoint {
        None => came.verify(&receiver.platforms.of(provider).secrets).map(|()| None),
        Some(endpoint) => verify_account(receiver, key, endpoint, &came).await.map(Some),
    };
    let account = verified.map_err(|error| {
        receiver.quarantine.put(suspect(receiver, &came, key, error, received_at));
        Refusal::BadSignature(error)
    })?;
    let id = WebhookId::new();
    let stored = body.len() > MAX_INLINE_BYTES;
    // Of Meta's nothing is said there.
    let query = parts.uri.query().filter(|_| providers::signs_url(provider)).map(str::to_owned);
    let meta = Meta { id, provider, received_at, account, query, stored, replay: false };
    let body = if stored { store(receiver, id, body).await? } else { body };
    receiver.bundler.accept(RawWebhook { meta, body }).await.map_err(|_| Refusal::Unavailable)
}

impl Receiver {
    /// The URLs that a webhook may have been sent to: by what is configured, and by what a proxy of ours says. None where the
    /// provider does not sign it.
    fn urls(&self, provider: Provider, parts: &Parts, proxied: Option<&str>) -> Vec<String> {
        if !providers::signs_url(provider) {
            return Vec::new();
        }
        let bases = [Some(self.public_url.as_str()), proxied];
        bases.into_iter().flatten().map(|base| format!("{base}{}", target(parts))).collect()
    }
}

/// A webhook as it came.
struct Came<'a> {
    provider: Provider,
    parts: &'a Parts,
    urls: Vec<String>,
    /// Scheme and host, if a proxy of ours said them.
    proxied: Option<String>,
    body: &'a [u8],
}

impl Came<'_> {
    fn signature(&self) -> Option<&str> {
        self.header(providers::signature_header(self.provider))
    }

    fn content_type(&self) -> Option<&str> {
        self.header(header::CONTENT_TYPE.as_str())
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.parts.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// Whether it was signed with one of these, for one of its URLs.
    fn verify(&self, secrets: &[SecretString]) -> Result<(), BadSignature> {
        let check = |url: &str| {
            let request =
                SignedRequest { signature: self.signature(), url, content_type: self.content_type(), body: self.body };
            providers::verify_any(self.provider, secrets.iter().map(ExposeSecret::expose_secret), &request).map(drop)
        };
        let mut urls = self.urls.iter();
        let first = check(urls.next().map_or("", String::as_str));
        urls.fold(first, |checked, url| if checked == Err(BadSignature::Wrong) { check(url) } else { checked })
    }
}

/// Checks against the account's own secrets; if those were changed a moment ago, against the new ones.
async fn verify_account(
    receiver: &Receiver,
    key: &str,
    endpoint: &Arc<Endpoint>,
    came: &Came<'_>,
) -> Result<Account, BadSignature> {
    match came.verify(&endpoint.secrets) {
        Ok(()) => Ok(endpoint.account),
        Err(BadSignature::Wrong) => match receiver.endpoints.renewed(key, endpoint).await {
            Some(endpoint) => came.verify(&endpoint.secrets).map(|()| endpoint.account),
            None => Err(BadSignature::Wrong),
        },
        Err(error) => Err(error),
    }
}

/// What is kept of a webhook that is not believed: all that it takes to verify it again.
fn suspect(
    receiver: &Receiver,
    came: &Came<'_>,
    key: &str,
    error: BadSignature,
    received_at: DateTime<Utc>,
) -> Suspect {
    // Whoever verifies it again cannot know what a proxy said.
    let base = came.proxied.as_deref().filter(|_| providers::signs_url(came.provider));
    let target = format!("{}{}", base.unwrap_or_default(), target(came.parts));
    let cut = |text: &str| text.chars().take(quarantine::MAX_SIGNATURE_CHARACTERS).collect();
    Suspect {
        id: WebhookId::new(),
        provider: came.provider.as_str().to_owned(),
        endpoint: key.to_owned(),
        source: receiver.proxies.source(&came.parts.headers, peer(came.parts)),
        reason: error.to_string(),
        method: came.parts.method.as_str().chars().take(16).collect(),
        target: target[..target.floor_char_boundary(MAX_TARGET_BYTES)].to_owned(),
        content_type: came.content_type().map(cut),
        signature: came.signature().map(cut),
        body: came.body[..came.body.len().min(quarantine::MAX_BODY_BYTES)].to_vec(),
        body_bytes: i64::try_from(came.body.len()).unwrap_or(i64::MAX),
        received_at,
        replayed_at: None,
    }
}

fn peer(parts: &Parts) -> Option<SocketAddr> {
    parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(peer)| *peer)
}

/// Path and query, as they came.
fn target(parts: &Parts) -> &str {
    parts.uri.path_and_query().map_or("/", |target| target.as_str())
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

impl From<Unread> for Refusal {
    fn from(unread: Unread) -> Self {
        match unread {
            Unread::TooLarge => Refusal::TooLarge,
            Unread::Broken => Refusal::Unreadable,
        }
    }
}

/// What a provider is told, and counted of it.
fn refused(provider: Provider, refusal: Refusal) -> Response {
    let (outcome, problem) = match refusal {
        Refusal::UnknownEndpoint => ("unknown_endpoint", Problem::new(Kind::NotFound)),
        Refusal::TooLarge => {
            let detail = format!("A webhook has at most {MAX_BODY_BYTES} bytes.");
            ("too_large", Problem::new(Kind::TooLarge).detail(detail))
        }
        Refusal::Unreadable => ("unreadable", Problem::of_status(StatusCode::BAD_REQUEST)),
        Refusal::BadSignature(error) => {
            let mut problem = Problem::new(Kind::BadSignature).detail(format!("{error}."));
            problem.status = unsigned(provider, error).as_u16();
            ("bad_signature", problem)
        }
        Refusal::Unavailable => ("unavailable", Problem::new(Kind::Unavailable).retry_after(RETRY_AFTER)),
    };
    metrics::counter!(names::WEBHOOKS_TOTAL, "provider" => provider.as_str(), "outcome" => outcome).increment(1);
    problem.into_response()
}

/// The status for a wrong signature: Twilio's own libraries tell one that is missing from one that is wrong
/// (providers/twilio section 4, rule 5).
fn unsigned(provider: Provider, error: BadSignature) -> StatusCode {
    match (provider, error) {
        (Provider::Twilio, BadSignature::Missing | BadSignature::Malformed) => StatusCode::BAD_REQUEST,
        (Provider::Twilio, BadSignature::Wrong) => StatusCode::FORBIDDEN,
        _ => StatusCode::UNAUTHORIZED,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
