//! The calls to providers. What to say and what an answer means is each provider's module; here is only the wire, and what
//! it means when it breaks: before a byte was written nothing was sent, after that nobody knows.

use super::whatsapp;
use crate::domain::{
    channel::Provider,
    events::SendToken,
    messages::OutboundContent,
    outcome::{NotSent, Outcome, Slow},
};
use reqwest::{
    Client, StatusCode,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, RETRY_AFTER},
    redirect::Policy,
};
use secrecy::{ExposeSecret, SecretString};
use std::time::Duration;
use url::Url;

/// A provider that does not accept a connection within this time is not there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// An answer this large is none of a documented kind.
const MAX_ANSWER_BYTES: usize = 256 * 1024;

/// Where providers are. The product only ever knows a base URL.
#[derive(Clone, Debug)]
pub struct ProviderSettings {
    /// WhatsApp's Graph API, `https://graph.facebook.com`.
    pub whatsapp_base_url: Url,
    /// The version in the path, `v25.0`.
    pub whatsapp_api_version: String,
    /// A call takes at most so long; shorter than the deadline of the attempt it is made for.
    pub call_timeout: Duration,
}

/// Calls providers. Cheap to clone; connections are kept and shared.
#[derive(Clone, Debug)]
pub struct ProviderClient {
    client: Client,
    settings: ProviderSettings,
}

/// Where an account's messages are handed over, and as whom: the same for all of them.
#[derive(Clone, Debug)]
pub struct Endpoint {
    provider: Provider,
    url: Url,
    authorization: HeaderValue,
}

/// An account's id or token that no request can be made with.
#[derive(Clone, Copy, Debug, thiserror::Error)]
pub enum BadEndpoint {
    /// The URL would not be one.
    #[error("its id makes no URL")]
    Url,
    /// This release receives from the provider and cannot hand anything over to it.
    #[error("this release cannot send by its provider")]
    Provider,
    /// The token has characters that no header may have.
    #[error("its access token cannot be a header's value")]
    Token,
}

impl Endpoint {
    /// To whom its messages are handed.
    pub fn provider(&self) -> Provider {
        self.provider
    }
}

/// One message to be handed over.
#[derive(Clone, Copy, Debug)]
pub struct Send<'a> {
    /// Where, and as whom.
    pub endpoint: &'a Endpoint,
    /// `phone` or `bsuid`.
    pub recipient_kind: &'a str,
    /// The address.
    pub recipient: &'a str,
    /// What is said.
    pub content: &'a OutboundContent,
    /// Comes back in statuses.
    pub token: &'a SendToken,
    /// The provider's id of the message this one answers.
    pub quotes: Option<&'a str>,
}

impl ProviderClient {
    /// A client.
    ///
    /// # Errors
    /// If the TLS backend cannot be set up.
    pub fn new(settings: ProviderSettings) -> reqwest::Result<Self> {
        let client = Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(settings.call_timeout)
            // A connection that the other side closes while we write leaves us not knowing; do not keep idle ones for long.
            .pool_idle_timeout(Duration::from_secs(20))
            .redirect(Policy::none())
            .tcp_nodelay(true)
            .build()?;
        Ok(Self { client, settings })
    }

    /// Where the messages of this account of the provider's are handed over with this token.
    ///
    /// # Errors
    /// If the id or the token cannot be part of a request.
    pub fn endpoint(&self, provider: Provider, account: &str, token: &SecretString) -> Result<Endpoint, BadEndpoint> {
        let (base, path) = match provider {
            Provider::Whatsapp => {
                let path = whatsapp::path(&self.settings.whatsapp_api_version, account);
                (&self.settings.whatsapp_base_url, path)
            }
            Provider::Messenger | Provider::Instagram | Provider::Twilio => return Err(BadEndpoint::Provider),
        };
        let url = format!("{}{path}", base.as_str().trim_end_matches('/')).parse().map_err(|_| BadEndpoint::Url)?;
        let mut authorization =
            HeaderValue::try_from(format!("Bearer {}", token.expose_secret())).map_err(|_| BadEndpoint::Token)?;
        authorization.set_sensitive(true);
        Ok(Endpoint { provider, url, authorization })
    }

    /// Hands one message over.
    pub async fn send(&self, send: Send<'_>) -> Outcome {
        // The only one that an endpoint can be made for.
        let to = match send.recipient_kind {
            "bsuid" => whatsapp::Recipient::UserId(send.recipient.to_owned()),
            _ => whatsapp::Recipient::Phone(send.recipient.to_owned()),
        };
        let body = whatsapp::request(send.content, &to, send.token, send.quotes);
        let call = self
            .client
            .post(send.endpoint.url.clone())
            .header(AUTHORIZATION, send.endpoint.authorization.clone())
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .body(body)
            .send();
        let answer = match call.await {
            Ok(answer) => answer,
            Err(error) => return broken(&error),
        };
        let status = answer.status();
        let retry_after = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()).map(str::to_owned);
        match read(answer).await {
            Ok(body) => whatsapp::outcome(status.as_u16(), retry_after.as_deref(), &body),
            Err(why) if status == StatusCode::TOO_MANY_REQUESTS => {
                whatsapp::outcome(429, retry_after.as_deref(), why.as_bytes())
            }
            Err(why) => Outcome::Unknown { reason: format!("the answer ({status}) could not be read: {why}") },
        }
    }
}

async fn read(mut answer: reqwest::Response) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(|error| without_url(&error))? {
        if body.len() + chunk.len() > MAX_ANSWER_BYTES {
            return Err(format!("longer than {MAX_ANSWER_BYTES} bytes"));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// What a broken call means.
fn broken(error: &reqwest::Error) -> Outcome {
    let reason = without_url(error);
    if error.is_connect() || error.is_builder() {
        // Connection refused, DNS, TLS, or no connection in time: not a byte of the request was written.
        let code = if error.is_timeout() { "connect_timeout" } else { "connect" };
        return Outcome::NotSent(NotSent { code: code.into(), reason, retry_after: None, slow: Slow::Nothing });
    }
    let what = if error.is_timeout() { "no answer in time" } else { "the connection broke" };
    Outcome::Unknown { reason: format!("{what}: {reason}") }
}

/// The error with its causes but without the URL: tests and operators read it, and it may carry an account's id.
fn without_url(error: &reqwest::Error) -> String {
    let mut text = String::new();
    let mut cause: Option<&dyn std::error::Error> = std::error::Error::source(error);
    while let Some(error) = cause {
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&error.to_string());
        cause = error.source();
    }
    if text.is_empty() { "no further cause".into() } else { text }
}
