//! The sandbox's own controls, under `/_sandbox`; not part of any provider. Bodies are JSON; a mistake is answered 422
//! with a sentence.
//!
//! | call | does |
//! |---|---|
//! | `GET /health` | up, and the running counts |
//! | `GET, PUT, PATCH /behaviour` | the settings of [`Behaviour`]; `PUT` replaces (missing fields take defaults), `PATCH` changes |
//! | `GET, POST /numbers`, `PATCH /numbers/{id}` | register a number; its `state`, `behaviour` of its own, `close_windows` |
//! | `GET, POST /accounts`, `PATCH /accounts/{platform}/{id}` | register a Page, a professional account or a Twilio sender ([`AccountSpec`]); its `standing`, `behaviour` of its own, `close_windows` |
//! | `PUT /people/{platform}/{account}/{person}` | what is the matter with somebody: one of [`Someone`] |
//! | `POST /comments/{platform}/{account}` | a comment (`id`, `person`, `at_ms`) that may be answered privately |
//! | `POST /sessions` | add or change a session at the gateway ([`Session`]) |
//! | `POST, DELETE /script` | what the next sends meet ([`Script`]) |
//! | `POST /limit` | change an account's rate, now and in steps ([`Limit`]) |
//! | `PUT /content/{sid}` | `status` and `reason` of a Twilio template with WhatsApp |
//! | `POST /tokens` | add or change a token |
//! | `GET, POST /templates/{waba}` | list or add templates; `status` may be any |
//! | `POST /templates/{waba}/decision` | put one (`name`, `language`) into the status of an `event`, told by webhook |
//! | `POST /inbound` | send what people write now; answers with the receiver's answer |
//! | `POST /happening` | send what happens at an account of another platform ([`happen::Happening`]) |
//! | `POST /webhook/{number}`, `/webhook/{platform}/{account}` | sign and send this payload as it is |
//! | `POST /burst` | a generated inbound load, of WhatsApp or (`mixture`) of all platforms; answers with what was answered |
//! | `POST /handshake` | ask the receiver to verify itself |
//! | `PUT /webhook-url` | where webhooks go from now on |
//! | `POST /settle` | wait until no webhook is planned or on its way |
//! | `GET /ledger`, `/ledger/webhooks`, `/ledger/people`, `/ledger/told`, `/ledger/doubled` | entries as JSON lines; `?first=&most=` page the first two, `?recipient=` picks |
//! | `GET /ledger/summary` | all totals |
//! | `DELETE /ledger` | forget everything, planned webhooks included |

use super::{
    accounts::{self, Standing},
    behaviour::Behaviour,
    burst::{self, Burst},
    gateway::Session,
    happen,
    limits::{self, Limit},
    messaging::desk::Someone,
    nodes,
    people::{Kind, Person},
    platform::{AccountSpec, Platform},
    provider::Provider,
    registry::{AccountState, NumberSpec, TokenSpec},
    script::Script,
    tell::{self, Incoming},
    template::Definition,
};
use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{Path, Query, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, patch, post, put},
};
use futures_util::stream;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use std::{convert::Infallible, sync::Arc, time::Duration};

type Shared = State<Arc<Provider>>;
type Answer = Result<Response, (StatusCode, String)>;

pub(super) fn router(provider: Arc<Provider>) -> Router {
    let routes = Router::new()
        .route("/health", get(health))
        .route("/behaviour", get(show_behaviour).put(replace_behaviour).patch(change_behaviour))
        .route("/numbers", get(list_numbers).post(add_number))
        .route("/numbers/{id}", patch(change_number))
        .route("/accounts", get(list_accounts).post(add_account))
        .route("/accounts/{platform}/{id}", patch(change_account))
        .route("/people/{platform}/{account}/{person}", put(set_someone))
        .route("/comments/{platform}/{account}", post(add_comment))
        .route("/sessions", post(add_session))
        .route("/script", post(add_script).delete(clear_script))
        .route("/limit", post(change_limit))
        .route("/content/{sid}", put(set_approval))
        .route("/tokens", post(add_token))
        .route("/templates/{waba}", get(list_templates).post(add_template))
        .route("/templates/{waba}/decision", post(decide_template))
        .route("/inbound", post(send_inbound))
        .route("/happening", post(send_happening))
        .route("/webhook/{number}", post(send_payload))
        .route("/webhook/{platform}/{account}", post(send_payload_of))
        .route("/burst", post(run_burst))
        .route("/handshake", post(handshake))
        .route("/webhook-url", put(set_webhook_url))
        .route("/settle", post(settle))
        .route("/ledger", get(ledger).delete(clear))
        .route("/ledger/webhooks", get(webhooks))
        .route("/ledger/people", get(people))
        .route("/ledger/told", get(told))
        .route("/ledger/doubled", get(doubled))
        .route("/ledger/summary", get(summary))
        .with_state(provider);
    Router::new().nest("/_sandbox", routes)
}

async fn health(State(provider): Shared) -> Json<Value> {
    let (requests, accepted) = provider.ledger.counts();
    Json(json!({"status": "up", "requests": requests, "accepted": accepted, "webhooks_open": provider.agenda.open()}))
}

async fn show_behaviour(State(provider): Shared) -> Json<Behaviour> {
    Json((*provider.behaviour()).clone())
}

async fn replace_behaviour(State(provider): Shared, body: Bytes) -> Answer {
    let behaviour: Behaviour = parse(&body)?;
    provider.set_behaviour(behaviour).map_err(unprocessable)?;
    Ok(show_behaviour(State(provider)).await.into_response())
}

async fn change_behaviour(State(provider): Shared, body: Bytes) -> Answer {
    let changes: serde_json::Map<String, Value> = parse(&body)?;
    let mut merged = serde_json::to_value(&*provider.behaviour()).map_err(unprocessable)?;
    for (name, value) in changes {
        merged[name] = value;
    }
    let behaviour = serde_json::from_value(merged).map_err(unprocessable)?;
    provider.set_behaviour(behaviour).map_err(unprocessable)?;
    Ok(show_behaviour(State(provider)).await.into_response())
}

async fn list_numbers(State(provider): Shared) -> Json<Vec<NumberSpec>> {
    Json(provider.registry.numbers())
}

async fn add_number(State(provider): Shared, body: Bytes) -> Answer {
    let spec: NumberSpec = parse(&body)?;
    if !provider.registry.knows_account(&spec.waba_id) {
        provider.registry.add_default_templates(&spec.waba_id);
    }
    provider.registry.add_number(spec.clone());
    Ok((StatusCode::CREATED, Json(spec)).into_response())
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NumberChange {
    state: Option<AccountState>,
    /// `null` takes its own behaviour away.
    #[serde(default, deserialize_with = "present")]
    behaviour: Option<Option<Behaviour>>,
    #[serde(default)]
    close_windows: bool,
}

async fn change_number(State(provider): Shared, Path(id): Path<String>, body: Bytes) -> Answer {
    let change: NumberChange = parse(&body)?;
    if provider.registry.number(&id).is_none() {
        return Err((StatusCode::NOT_FOUND, format!("there is no number {id}")));
    }
    if let Some(state) = change.state {
        provider.registry.set_account_state(&id, state);
    }
    if let Some(behaviour) = change.behaviour {
        behaviour.as_ref().map_or(Ok(()), Behaviour::check).map_err(unprocessable)?;
        provider.registry.set_number_behaviour(&id, behaviour);
    }
    if change.close_windows {
        provider.registry.close_windows(&id);
    }
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn list_accounts(State(provider): Shared) -> Json<Vec<AccountSpec>> {
    Json(provider.registry.accounts())
}

async fn add_account(State(provider): Shared, body: Bytes) -> Answer {
    let spec: AccountSpec = parse(&body)?;
    if spec.platform == Platform::Whatsapp {
        return Err(unprocessable("WhatsApp's numbers are registered under /numbers"));
    }
    provider.registry.add_account(spec.clone());
    Ok((StatusCode::CREATED, Json(spec)).into_response())
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AccountChange {
    standing: Option<Standing>,
    /// `null` takes its own behaviour away.
    #[serde(default, deserialize_with = "present")]
    behaviour: Option<Option<Behaviour>>,
    #[serde(default)]
    close_windows: bool,
}

async fn change_account(
    State(provider): Shared,
    Path((platform, id)): Path<(Platform, String)>,
    body: Bytes,
) -> Answer {
    let change: AccountChange = parse(&body)?;
    if provider.registry.account(platform, &id).is_none() {
        return Err((StatusCode::NOT_FOUND, format!("there is no {platform} account {id}")));
    }
    if let Some(standing) = change.standing {
        accounts::stand(&provider, platform, &id, standing).await.map_err(unprocessable)?;
    }
    if let Some(behaviour) = change.behaviour {
        behaviour.as_ref().map_or(Ok(()), Behaviour::check).map_err(unprocessable)?;
        provider.registry.set_account_behaviour(platform, &id, behaviour);
    }
    if change.close_windows {
        provider.registry.close_account_windows(platform, &id);
    }
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn set_someone(
    State(provider): Shared,
    Path((platform, account, person)): Path<(Platform, String, String)>,
    body: Bytes,
) -> Answer {
    let someone: Someone = parse(&body)?;
    found(provider.registry.set_someone(platform, &account, &person, someone))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NewComment {
    id: String,
    person: String,
    /// Unix milliseconds; now if there is none.
    at_ms: Option<i64>,
}

async fn add_comment(
    State(provider): Shared,
    Path((platform, account)): Path<(Platform, String)>,
    body: Bytes,
) -> Answer {
    let comment: NewComment = parse(&body)?;
    let now_us = provider.clock.now_us() as i64;
    let at_us = comment.at_ms.map_or(now_us, |at_ms| provider.clock.since_start_us(at_ms / 1_000));
    found(provider.registry.add_comment(platform, &account, &comment.id, &comment.person, at_us))
}

async fn add_session(State(provider): Shared, body: Bytes) -> Answer {
    provider.sessions.add(parse::<Session>(&body)?);
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn add_script(State(provider): Shared, body: Bytes) -> Answer {
    provider.scripts.add(parse::<Script>(&body)?);
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn clear_script(State(provider): Shared) -> StatusCode {
    provider.scripts.clear();
    StatusCode::NO_CONTENT
}

async fn change_limit(State(provider): Shared, body: Bytes) -> Answer {
    limits::change(&provider, parse::<Limit>(&body)?).await.map_err(unprocessable)?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn set_approval(State(provider): Shared, Path(sid): Path<String>, body: Bytes) -> Answer {
    #[derive(Deserialize)]
    struct Approval {
        status: String,
        #[serde(default)]
        reason: String,
    }
    let approval: Approval = parse(&body)?;
    found(provider.twilio.set_approval(&sid, &approval.status, &approval.reason))
}

async fn decide_template(State(provider): Shared, Path(waba): Path<String>, body: Bytes) -> Answer {
    #[derive(Deserialize)]
    struct Decision {
        name: String,
        language: String,
        event: String,
        reason: Option<String>,
    }
    let Decision { name, language, event, reason } = parse(&body)?;
    nodes::decide(&provider, &waba, &name, &language, &event, reason.as_deref()).await.map_err(unprocessable)?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn add_token(State(provider): Shared, body: Bytes) -> Answer {
    provider.registry.add_token(parse::<TokenSpec>(&body)?);
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn list_templates(State(provider): Shared, Path(waba): Path<String>) -> Json<Vec<Value>> {
    Json(provider.registry.templates(&waba).iter().map(|template| template.view()).collect())
}

async fn add_template(State(provider): Shared, Path(waba): Path<String>, body: Bytes) -> Answer {
    let definition: Definition = parse(&body)?;
    let template =
        provider.registry.add_template(&waba, definition).map_err(|refusal| unprocessable(refusal.details))?;
    Ok((StatusCode::CREATED, Json(template.view())).into_response())
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Inbound {
    phone_number_id: String,
    messages: Vec<InboundMessage>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct InboundMessage {
    /// A phone with `+`.
    from: String,
    name: Option<String>,
    kind: Option<Kind>,
    text: Option<String>,
    id: Option<String>,
    about: Option<String>,
    timestamp: Option<i64>,
}

async fn send_inbound(State(provider): Shared, body: Bytes) -> Answer {
    let inbound: Inbound = parse(&body)?;
    let messages = inbound.messages.into_iter().map(|message| {
        let mut person = Person::with_phone(&message.from);
        if let Some(name) = message.name {
            person.name = name;
        }
        let mut incoming = Incoming::of(message.kind.unwrap_or(Kind::Text), &person);
        if let Some(text) = message.text {
            incoming.text = text;
        }
        (incoming.id, incoming.about, incoming.timestamp) = (message.id, message.about, message.timestamp);
        incoming
    });
    let told = tell::tell(&provider, &inbound.phone_number_id, messages.collect()).await.map_err(unprocessable)?;
    Ok(Json(json!({"ids": told.ids, "answer": told.reply.to_string()})).into_response())
}

async fn send_happening(State(provider): Shared, body: Bytes) -> Answer {
    let told = happen::happen(&provider, parse(&body)?).await.map_err(unprocessable)?;
    Ok(Json(json!({"ids": told.ids, "answer": told.reply.to_string()})).into_response())
}

async fn send_payload_of(
    State(provider): Shared,
    Path((platform, account)): Path<(Platform, String)>,
    body: Bytes,
) -> Answer {
    let payload: Value = parse(&body)?;
    let webhook = happen::sealed(&provider, platform, &account, &payload).map_err(unprocessable)?;
    let reply = tell::post(&provider, webhook).await.map_err(unprocessable)?;
    Ok(Json(json!({"answer": reply.to_string()})).into_response())
}

async fn send_payload(State(provider): Shared, Path(number): Path<String>, body: Bytes) -> Answer {
    let payload: Value = parse(&body)?;
    let reply = tell::payload(&provider, &number, &payload).await.map_err(unprocessable)?;
    Ok(Json(json!({"answer": reply.to_string()})).into_response())
}

async fn run_burst(State(provider): Shared, body: Bytes) -> Answer {
    let burst: Burst = parse(if body.is_empty() { b"{}" } else { &body })?;
    Ok(Json(burst::run(&provider, burst).await.map_err(unprocessable)?).into_response())
}

async fn handshake(State(provider): Shared, body: Bytes) -> Answer {
    #[derive(Deserialize)]
    struct Handshake {
        verify_token: String,
    }
    let handshake: Handshake = parse(&body)?;
    let verified = tell::handshake(&provider, &handshake.verify_token).await.map_err(unprocessable)?;
    Ok(Json(json!({"verified": verified})).into_response())
}

async fn set_webhook_url(State(provider): Shared, body: Bytes) -> Answer {
    #[derive(Deserialize)]
    struct Target {
        url: String,
    }
    provider.set_webhook_url(parse::<Target>(&body)?.url);
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn settle(State(provider): Shared, body: Bytes) -> Answer {
    #[derive(Deserialize)]
    struct Most {
        #[serde(default = "half_a_minute")]
        timeout_s: u64,
    }
    let most: Most = parse(if body.is_empty() { b"{}" } else { &body })?;
    let settled = tell::settle(&provider, Duration::from_secs(most.timeout_s.min(600))).await;
    Ok(Json(json!({"settled": settled, "webhooks_open": provider.agenda.open()})).into_response())
}

#[derive(Debug, Deserialize)]
struct Page {
    first: Option<u64>,
    most: Option<usize>,
    recipient: Option<String>,
}

async fn ledger(State(provider): Shared, Query(page): Query<Page>) -> Response {
    if let Some(recipient) = &page.recipient {
        return lines(provider.ledger.sends_to(recipient));
    }
    pages(page, move |first, most| {
        provider.ledger.sends_from(first, most).into_iter().map(|entry| (entry.seq, entry)).collect()
    })
}

async fn webhooks(State(provider): Shared, Query(page): Query<Page>) -> Response {
    pages(page, move |first, most| {
        provider.ledger.webhooks_from(first, most).into_iter().map(|entry| (entry.seq, entry)).collect()
    })
}

async fn people(State(provider): Shared) -> Response {
    lines(provider.ledger.people())
}

async fn told(State(provider): Shared) -> Response {
    lines(provider.ledger.told())
}

async fn doubled(State(provider): Shared) -> Response {
    lines(provider.ledger.doubled())
}

async fn summary(State(provider): Shared) -> Response {
    Json(provider.ledger.summary()).into_response()
}

async fn clear(State(provider): Shared) -> StatusCode {
    provider.agenda.clear();
    provider.ledger.clear();
    StatusCode::NO_CONTENT
}

/// Entries as JSON lines, read from the ledger a thousand at a time while they are written out.
fn pages<T: Serialize + 'static>(page: Page, read: impl Fn(u64, usize) -> Vec<(u64, T)> + Send + 'static) -> Response {
    const AT_ONCE: usize = 1_000;
    let start = (page.first.unwrap_or(1), page.most.unwrap_or(usize::MAX));
    let chunks = stream::iter(std::iter::successors(Some((start, String::new())), move |((first, left), _)| {
        let entries = read(*first, AT_ONCE.min(*left));
        let next = entries.last()?.0 + 1;
        let mut text = String::new();
        for (_, entry) in &entries {
            text.push_str(&serde_json::to_string(entry).unwrap_or_default());
            text.push('\n');
        }
        Some(((next, left - entries.len()), text))
    }));
    let body = futures_util::StreamExt::map(chunks, |(_, text)| Ok::<_, Infallible>(Bytes::from(text)));
    ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(body)).into_response()
}

fn lines<T: Serialize>(entries: Vec<T>) -> Response {
    let mut text = String::new();
    for entry in entries {
        text.push_str(&serde_json::to_string(&entry).unwrap_or_default());
        text.push('\n');
    }
    ([(header::CONTENT_TYPE, "application/x-ndjson")], text).into_response()
}

fn found(is_there: bool) -> Answer {
    match is_there {
        true => Ok(StatusCode::NO_CONTENT.into_response()),
        false => Err((StatusCode::NOT_FOUND, "there is none of that id".into())),
    }
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, (StatusCode, String)> {
    serde_json::from_slice(body).map_err(unprocessable)
}

fn unprocessable(why: impl ToString) -> (StatusCode, String) {
    (StatusCode::UNPROCESSABLE_ENTITY, why.to_string())
}

fn half_a_minute() -> u64 {
    30
}

/// Tells a field that is `null` from one that is not there.
fn present<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de>,
{
    T::deserialize(deserializer).map(Some)
}
