//! The GET request by which Meta checks that a callback URL is ours (providers/whatsapp section 1.1, the same for Messenger and
//! Instagram).

use super::{Receiver, Refusal, endpoints::Lookup, refused};
use crate::error::{Kind, Problem};
use axum::{
    extract::{Query, rejection::QueryRejection},
    http::header,
    response::{IntoResponse, Response},
};
use secrecy::{ExposeSecret, SecretString};
use shared::{domain::channel::Provider, providers::whatsapp::Handshake};

/// The query, or why it is none.
pub(super) type Asked = Result<Query<Handshake>, QueryRejection>;

/// Answers who asks whether the platform's address is ours.
pub(super) fn of_platform(receiver: &Receiver, provider: Provider, asked: Asked) -> Response {
    answer(asked, receiver.platforms.of(provider).verify_token.as_ref())
}

/// Answers who asks whether the address with this key is ours.
pub(super) async fn of_account(receiver: &Receiver, provider: Provider, key: &str, asked: Asked) -> Response {
    match receiver.endpoints.find(provider, key).await {
        Lookup::Found(endpoint) => answer(asked, endpoint.verify_token.as_ref()),
        Lookup::Unknown => refused(provider, Refusal::UnknownEndpoint),
        Lookup::Away => refused(provider, Refusal::Unavailable),
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
