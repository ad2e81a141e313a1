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

pub(super) async fn platform(State(receiver): State<Arc<Receiver>>, asked: Asked) -> Response {
    answer(asked, receiver.verify_token.as_ref())
}

pub(super) async fn account(State(receiver): State<Arc<Receiver>>, Path(key): Path<String>, asked: Asked) -> Response {
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
