//! The paths: of every provider the platform's own, and those of accounts with an address of their own. Each is described for the
//! API's description; what they do is the same ([`super`]).

use super::{Receiver, handshake, of_account, of_platform};
use crate::error::{Kind, Problem};
use axum::{
    Router,
    extract::{Path, Request, State},
    response::Response,
    routing::{MethodRouter, post},
};
use shared::domain::channel::Provider;
use std::sync::Arc;

/// The routes.
pub fn router(receiver: Arc<Receiver>) -> Router {
    Router::new()
        .merge(whatsapp::router())
        .merge(messenger::router())
        .merge(instagram::router())
        .merge(twilio::router())
        .method_not_allowed_fallback(|| std::future::ready(Problem::new(Kind::MethodNotAllowed)))
        .with_state(receiver)
}

fn pair(
    (path, platform): (&str, MethodRouter<Arc<Receiver>>),
    (path_of_account, account): (&str, MethodRouter<Arc<Receiver>>),
) -> Router<Arc<Receiver>> {
    Router::new().route(path, platform).route(path_of_account, account)
}

/// The doors of one of Meta's providers: webhooks by POST, the handshake by GET.
macro_rules! meta {
    ($(#[$doc:meta])* $module:ident, $provider:ident, $path:literal, $path_of_account:literal,
        $receive:literal, $receive_of_account:literal, $shake:literal, $shake_of_account:literal) => {
        $(#[$doc])*
        pub(crate) mod $module {
            use super::*;

            pub(super) fn router() -> Router<Arc<Receiver>> {
                pair(
                    ($path, post(platform).get(shake_platform)),
                    ($path_of_account, post(account).get(shake_account)),
                )
            }

            /// Takes a webhook of an account that has no address of its own. Answered 200 once it is durable; anything else is to be
            /// repeated.
            #[utoipa::path(
                post, path = $path, tag = "webhooks", operation_id = $receive,
                description = "Needs no token, but the provider's signature with the platform's app secret. Answered 200 once the webhook is durable; after any other answer the provider repeats it.",
                params(("X-Hub-Signature-256" = String, Header, description = "`sha256=` and the HMAC of the body in hexadecimal digits")),
                request_body(content = Object, description = "As the provider sends it, at most 4 MiB; kept as it is"),
                responses(
                    (status = OK, description = "It is durable"),
                    (status = "default", body = Problem, content_type = "application/problem+json"),
                ),
                security(()),
            )]
            pub(crate) async fn platform(State(receiver): State<Arc<Receiver>>, request: Request) -> Response {
                of_platform(&receiver, Provider::$provider, request).await
            }

            /// Takes a webhook of an account with an address of its own.
            #[utoipa::path(
                post, path = $path_of_account, tag = "webhooks", operation_id = $receive_of_account,
                description = "Needs no token, but the provider's signature with the account's own app secret. Answered 200 once the webhook is durable; after any other answer the provider repeats it.",
                params(
                    ("key" = String, Path, description = "The account's, as `mijra channel-account add` shows it"),
                    ("X-Hub-Signature-256" = String, Header, description = "`sha256=` and the HMAC of the body in hexadecimal digits"),
                ),
                request_body(content = Object, description = "As the provider sends it, at most 4 MiB; kept as it is"),
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
                of_account(&receiver, Provider::$provider, &key, request).await
            }

            /// Answers the provider that asks whether the platform's callback address is ours.
            #[utoipa::path(
                get, path = $path, tag = "webhooks", operation_id = $shake,
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
            pub(crate) async fn shake_platform(State(receiver): State<Arc<Receiver>>, asked: handshake::Asked) -> Response {
                handshake::of_platform(&receiver, Provider::$provider, asked)
            }

            /// Answers the provider that asks whether an account's own callback address is ours.
            #[utoipa::path(
                get, path = $path_of_account, tag = "webhooks", operation_id = $shake_of_account,
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
            pub(crate) async fn shake_account(
                State(receiver): State<Arc<Receiver>>,
                Path(key): Path<String>,
                asked: handshake::Asked,
            ) -> Response {
                handshake::of_account(&receiver, Provider::$provider, &key, asked).await
            }
        }
    };
}

meta!(
    /// WhatsApp's.
    whatsapp, Whatsapp, "/webhooks/whatsapp", "/webhooks/whatsapp/{key}",
    "receive_webhook", "receive_webhook_of_account", "shake_hands", "shake_hands_of_account"
);
meta!(
    /// Messenger's.
    messenger, Messenger, "/webhooks/messenger", "/webhooks/messenger/{key}",
    "receive_messenger_webhook", "receive_messenger_webhook_of_account",
    "shake_hands_with_messenger", "shake_hands_with_messenger_of_account"
);
meta!(
    /// Instagram's.
    instagram, Instagram, "/webhooks/instagram", "/webhooks/instagram/{key}",
    "receive_instagram_webhook", "receive_instagram_webhook_of_account",
    "shake_hands_with_instagram", "shake_hands_with_instagram_of_account"
);

/// Twilio's: by POST or, if a number is set up so, by GET.
pub(crate) mod twilio {
    use super::*;

    pub(super) fn router() -> Router<Arc<Receiver>> {
        pair(
            ("/webhooks/twilio", post(platform).get(platform_by_get)),
            ("/webhooks/twilio/{key}", post(account).get(account_by_get)),
        )
    }

    /// Takes a message or a status of an account that has no address of its own.
    #[utoipa::path(
        post, path = "/webhooks/twilio", tag = "webhooks", operation_id = "receive_twilio_webhook",
        description = "Needs no token, but Twilio's signature with an auth token of the platform's. Answered with an empty TwiML once the webhook is durable.",
        params(("X-Twilio-Signature" = String, Header, description = "The HMAC of the public URL and the parameters, in base64")),
        request_body(content = Object, content_type = "application/x-www-form-urlencoded", description = "As Twilio sends it, at most 4 MiB; kept as it is"),
        responses(
            (status = OK, body = String, content_type = "text/xml", description = "It is durable"),
            (status = "default", body = Problem, content_type = "application/problem+json"),
        ),
        security(()),
    )]
    pub(crate) async fn platform(State(receiver): State<Arc<Receiver>>, request: Request) -> Response {
        of_platform(&receiver, Provider::Twilio, request).await
    }

    /// The same where the parameters are in the query.
    #[utoipa::path(
        get, path = "/webhooks/twilio", tag = "webhooks", operation_id = "receive_twilio_webhook_by_get",
        description = "Needs no token, but Twilio's signature with an auth token of the platform's. Answered with an empty TwiML once the webhook is durable.",
        params(("X-Twilio-Signature" = String, Header, description = "The HMAC of the public URL, in base64")),
        responses(
            (status = OK, body = String, content_type = "text/xml", description = "It is durable"),
            (status = "default", body = Problem, content_type = "application/problem+json"),
        ),
        security(()),
    )]
    pub(crate) async fn platform_by_get(State(receiver): State<Arc<Receiver>>, request: Request) -> Response {
        of_platform(&receiver, Provider::Twilio, request).await
    }

    /// Takes a message or a status of an account with an address of its own.
    #[utoipa::path(
        post, path = "/webhooks/twilio/{key}", tag = "webhooks", operation_id = "receive_twilio_webhook_of_account",
        description = "Needs no token, but Twilio's signature with an auth token of the account's. Answered with an empty TwiML once the webhook is durable.",
        params(
            ("key" = String, Path, description = "The account's, as `mijra channel-account add` shows it"),
            ("X-Twilio-Signature" = String, Header, description = "The HMAC of the public URL and the parameters, in base64"),
        ),
        request_body(content = Object, content_type = "application/x-www-form-urlencoded", description = "As Twilio sends it, at most 4 MiB; kept as it is"),
        responses(
            (status = OK, body = String, content_type = "text/xml", description = "It is durable"),
            (status = "default", body = Problem, content_type = "application/problem+json"),
        ),
        security(()),
    )]
    pub(crate) async fn account(
        State(receiver): State<Arc<Receiver>>,
        Path(key): Path<String>,
        request: Request,
    ) -> Response {
        of_account(&receiver, Provider::Twilio, &key, request).await
    }

    /// The same where the parameters are in the query.
    #[utoipa::path(
        get, path = "/webhooks/twilio/{key}", tag = "webhooks", operation_id = "receive_twilio_webhook_of_account_by_get",
        description = "Needs no token, but Twilio's signature with an auth token of the account's. Answered with an empty TwiML once the webhook is durable.",
        params(
            ("key" = String, Path, description = "The account's, as `mijra channel-account add` shows it"),
            ("X-Twilio-Signature" = String, Header, description = "The HMAC of the public URL, in base64"),
        ),
        responses(
            (status = OK, body = String, content_type = "text/xml", description = "It is durable"),
            (status = "default", body = Problem, content_type = "application/problem+json"),
        ),
        security(()),
    )]
    pub(crate) async fn account_by_get(
        State(receiver): State<Arc<Receiver>>,
        Path(key): Path<String>,
        request: Request,
    ) -> Response {
        of_account(&receiver, Provider::Twilio, &key, request).await
    }
}
