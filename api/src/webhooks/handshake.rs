//! The GET request by which a provider checks that a callback URL is ours.

use super::{Receiver, Refusal, endpoints::Lookup};
use crate::error::{Kind, Problem};
use axum::{
    extract::{Path, Query, State, rejection::QueryRejection},
    http::header,
    response::{IntoResponse, Response},
};
use secrecy::{ExposeSecret, SecretString};
use shared::providers::whatsapp::Handshake;
use std::sync::Arc;

type Asked = Result<Query<Handshake>, QueryRejection>;

/// Answers the provider that asks whether the platform's callback address is ours.
#[utoipa::path(
    get, path = "/webhooks/whatsapp", tag = "webhooks", operation_id = "shake_hands",
    description = "Needs no token, but the word of the handshake: the platform's verify token.",
    params(
        ("hub.mode" = String, Query, description = "subscribe"),
        ("hub.verify_token" = String, Query),
        ("hub.challenge" = String, Query, description = "Given back"),
    ),
    responses(
        (status = OK, body = String, content_type = "text/plain", description = "The challenge"),
        (status = "default", body = Problem, content_type = "application/problem+json"),
    ),
    security(()),
)]
pub(crate) async fn platform(State(receiver): State<Arc<Receiver>>, asked: Asked) -> Response {
    answer(asked, receiver.verify_token.as_ref())
}

/// Answers the provider that asks whether an account's own callback address is ours.
#[utoipa::path(
    get, path = "/webhooks/whatsapp/{key}", tag = "webhooks", operation_id = "shake_hands_of_account",
    description = "Needs no token, but the word of the handshake: the account's verify token.",
    params(
        ("key" = String, Path, description = "The account's, as `mijra channel-account add` shows it"),
        ("hub.mode" = String, Query, description = "subscribe"),
        ("hub.verify_token" = String, Query),
        ("hub.challenge" = String, Query, description = "Given back"),
    ),
    responses(
        (status = OK, body = String, content_type = "text/plain", description = "The challenge"),
        (status = "default", body = Problem, content_type = "application/problem+json"),
    ),
    security(()),
)]
pub(crate) async fn account(State(receiver): State<Arc<Receiver>>, Path(key): Path<String>, asked: Asked) -> Response {
    match receiver.endpoints.find(&key).await {
        Lookup::Found(endpoint) => answer(asked, endpoint.verify_token()),
        Lookup::Unknown => Refusal::UnknownEndpoint.into_response(),
        Lookup::Away => Refusal::Unavailable.into_response(),
    }
}

fn answer(asked: Asked, verify_token: Option<&SecretString>) -> Response {
    let Ok(Query(handshake)) = asked else {
        return Problem::new(Kind::BadParameter).detail("The query cannot be read.").into_response();
    };
    let ours = verify_token.map(|token| token.expose_secret().as_bytes()).unwrap_or_default();
    match handshake.answer(ours) {
        Some(challenge) => {
            ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], challenge.to_owned()).into_response()
        }
        None => Problem::new(Kind::HandshakeRefused).into_response(),
    }
}
