//! What the hosts answer.

use super::{Kind, META_TOKEN, Sent, State, TWILIO_SID, TWILIO_TOKEN, content, hash, is_valid, now_ms};
use axum::{
    Router,
    body::Body,
    extract::{Path, Query, State as Shared},
    http::{HeaderMap, Response, StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use futures_util::stream;
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    convert::Infallible,
    io,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

type Here = Shared<Arc<State>>;
type Parameters = Query<HashMap<String, String>>;

/// WhatsApp's links live for five minutes.
const WHATSAPP_LIVES_MS: i64 = 300_000;
/// Twilio's for a short while.
const TWILIO_LIVES_MS: i64 = 60_000;
const PIECE: usize = 64 * 1024;

/// The hosts that take credentials.
pub(super) fn api(state: Arc<State>) -> Router {
    Router::new()
        .route("/whatsapp_business/attachments/", get(attachment))
        .route("/2010-04-01/Accounts/{account}/Messages/{message}/Media/{id}", get(twilio_media))
        .route("/{version}/{id}", get(node))
        .with_state(state)
}

/// The hosts that must see none.
pub(super) fn cdn(state: Arc<State>) -> Router {
    Router::new()
        .route("/{host}/{id}", get(file))
        .route("/hostile/redirect", get(redirect))
        .route("/hostile/endless", get(endless))
        .route("/hostile/silent", get(silent))
        .with_state(state)
}

/// `GET /{media-id}` and `GET /{person-id}?fields=…`.
async fn node(
    state: Here,
    Path((_, id)): Path<(String, String)>,
    Query(query): Parameters,
    headers: HeaderMap,
) -> Response<Body> {
    if !bears(&headers) {
        state.unauthorised.fetch_add(1, Ordering::Relaxed);
        return error(StatusCode::UNAUTHORIZED, 190, None);
    }
    if state.roll(state.behaviour().fail_rate) {
        state.note(&id, |served| served.refused += 1);
        return error(StatusCode::INTERNAL_SERVER_ERROR, 2, None);
    }
    if query.contains_key("fields") {
        return person(&state, &id);
    }
    let Some(sent) = state.find(&id) else { return error(StatusCode::BAD_REQUEST, 100, Some(33)) };
    let until = now_ms() + state.life(WHATSAPP_LIVES_MS);
    let url = format!("{}/whatsapp_business/attachments/?mid={id}&ext={until}&hash={}", state.api, hash(&id, until));
    json_of(
        StatusCode::OK,
        &json!({"messaging_product": "whatsapp", "url": url, "mime_type": sent.kind.content_type(),
            "sha256": sent.sha256, "file_size": sent.size.to_string(), "id": id}),
    )
}

/// Everybody has a profile but who has not consented, whose ids end with 230.
fn person(state: &State, id: &str) -> Response<Body> {
    if id.ends_with("230") {
        return error(StatusCode::FORBIDDEN, 230, None);
    }
    let picture = format!("picture-{id}");
    let sent = Sent { id: picture.clone(), kind: Kind::Png, size: 2_000, sha256: String::new() };
    super::lock(&state.sent).entry(picture.clone()).or_insert(sent);
    json_of(
        StatusCode::OK,
        &json!({"id": id, "name": format!("Person {id}"), "profile_pic": state.link("meta", &picture, WHATSAPP_LIVES_MS)}),
    )
}

/// `GET {url}`: 404 when its time is over.
async fn attachment(state: Here, Query(query): Parameters, headers: HeaderMap) -> Response<Body> {
    let id = query.get("mid").cloned().unwrap_or_default();
    if !bears(&headers) {
        state.unauthorised.fetch_add(1, Ordering::Relaxed);
        return error(StatusCode::UNAUTHORIZED, 190, None);
    }
    let of = |name: &str| query.get(name).map(String::as_str).unwrap_or_default();
    if !is_valid(&id, of("ext"), of("hash")) {
        state.note(&id, |served| served.expired += 1);
        return plain(StatusCode::NOT_FOUND);
    }
    if state.roll(state.behaviour().redirect_rate) {
        state.note(&id, |served| served.redirected += 1);
        return lead(StatusCode::FOUND, &state.link("meta", &id, WHATSAPP_LIVES_MS));
    }
    serve(&state, &id)
}

/// `GET MediaUrlN`: 401 without the account's credentials, 404 at first, then elsewhere.
async fn twilio_media(
    state: Here,
    Path((account, _, id)): Path<(String, String, String)>,
    headers: HeaderMap,
) -> Response<Body> {
    let expected = format!("Basic {}", STANDARD.encode(format!("{TWILIO_SID}:{TWILIO_TOKEN}")));
    let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    if account != TWILIO_SID || given != Some(expected.as_str()) {
        state.unauthorised.fetch_add(1, Ordering::Relaxed);
        return plain(StatusCode::UNAUTHORIZED);
    }
    let mut early = false;
    let wanted = state.behaviour().not_there_yet;
    state.note(&id, |served| {
        early = served.not_there_yet < wanted;
        served.not_there_yet += u32::from(early);
    });
    if early || state.find(&id).is_none() {
        return plain(StatusCode::NOT_FOUND);
    }
    if state.roll(state.behaviour().fail_rate) {
        state.note(&id, |served| served.refused += 1);
        return plain(StatusCode::SERVICE_UNAVAILABLE);
    }
    state.note(&id, |served| served.redirected += 1);
    lead(StatusCode::TEMPORARY_REDIRECT, &state.link("twilio", &id, state.life(TWILIO_LIVES_MS)))
}

/// A file, to whoever has the link, and to nobody who shows more than that.
async fn file(
    state: Here,
    Path((host, id)): Path<(String, String)>,
    Query(query): Parameters,
    headers: HeaderMap,
) -> Response<Body> {
    if headers.contains_key(header::AUTHORIZATION) || headers.contains_key(header::COOKIE) {
        state.leaks.fetch_add(1, Ordering::Relaxed);
        return plain(StatusCode::BAD_REQUEST);
    }
    let of = |name: &str| query.get(name).map(String::as_str).unwrap_or_default();
    if !is_valid(&id, of("ext"), of("hash")) {
        state.note(&id, |served| served.expired += 1);
        return plain(StatusCode::FORBIDDEN);
    }
    if of("hop").is_empty() && state.roll(state.behaviour().redirect_rate) {
        state.note(&id, |served| served.redirected += 1);
        // A path alone, as some write it.
        let to = format!("/{host}/{id}?ext={}&hash={}&hop=1", of("ext"), of("hash"));
        return lead(StatusCode::FOUND, &to);
    }
    serve(&state, &id)
}

fn serve(state: &State, id: &str) -> Response<Body> {
    let Some(sent) = state.find(id) else { return plain(StatusCode::NOT_FOUND) };
    let fails = state.roll(state.behaviour().fail_rate);
    let cut = fails && state.roll(0.5);
    if fails && !cut {
        state.note(id, |served| served.refused += 1);
        return plain(StatusCode::SERVICE_UNAVAILABLE);
    }
    state.note(id, |served| {
        served.begun += 1;
        served.cut += u32::from(cut);
    });
    let most = if cut { sent.size / 2 } else { sent.size };
    let length = sent.size;
    let kind = sent.kind;
    let body = Body::from_stream(stream::unfold(0_u64, move |at| {
        let sent = sent.clone();
        async move {
            if at >= most {
                return (at < length)
                    .then(|| (Err(io::Error::other("cut on purpose")), u64::MAX))
                    .filter(|_| at != u64::MAX);
            }
            let piece = content::bytes(&sent.id, sent.kind, most, at, PIECE);
            let next = at + piece.len() as u64;
            Some((Ok::<Bytes, io::Error>(piece), next))
        }
    }));
    Response::builder()
        .header(header::CONTENT_TYPE, kind.content_type())
        .header(header::CONTENT_LENGTH, length)
        .body(body)
        .expect("a whole answer")
}

/// Leads to wherever it is told.
async fn redirect(Query(query): Parameters) -> Response<Body> {
    lead(StatusCode::FOUND, query.get("to").map(String::as_str).unwrap_or_default())
}

/// A picture that never ends.
async fn endless() -> Response<Body> {
    let pieces = stream::repeat_with(|| Ok::<Bytes, Infallible>(Bytes::from_static(&[b'x'; PIECE])));
    Response::builder().header(header::CONTENT_TYPE, "image/jpeg").body(Body::from_stream(pieces)).expect("an answer")
}

/// A picture that never begins.
async fn silent() -> Response<Body> {
    tokio::time::sleep(Duration::from_secs(3600)).await;
    plain(StatusCode::OK)
}

fn bears(headers: &HeaderMap) -> bool {
    headers
        .get(header::AUTHORIZATION)
        .is_some_and(|value| value.as_bytes() == format!("Bearer {META_TOKEN}").as_bytes())
}

fn lead(status: StatusCode, to: &str) -> Response<Body> {
    Response::builder().status(status).header(header::LOCATION, to).body(Body::empty()).expect("an address")
}

fn plain(status: StatusCode) -> Response<Body> {
    status.into_response()
}

fn error(status: StatusCode, code: u32, subcode: Option<u32>) -> Response<Body> {
    let mut error =
        json!({"message": format!("(#{code}) no"), "type": "OAuthException", "code": code, "fbtrace_id": "A"});
    if let Some(subcode) = subcode {
        error["error_subcode"] = json!(subcode);
    }
    json_of(status, &json!({"error": error}))
}

fn json_of(status: StatusCode, body: &Value) -> Response<Body> {
    (status, [(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}
