//! The calls to providers. What to say and what an answer means is each provider's module; here is only the wire, and what
//! it means when it breaks: before a byte was written nothing was sent, after that nobody knows.

use super::{
    sending::{Body, Handles, Outgoing, Sender, Unsendable},
    whatsapp,
};
use crate::{
    config::ProviderApis,
    domain::{
        channel::{Channel, InstagramLogin, Provider},
        content::OutboundContent,
        events::SendToken,
        outcome::{Class, NotSent, Outcome},
        people::Recipient,
    },
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

/// Calls providers. Cheap to clone; connections are kept and shared.
#[derive(Clone, Debug)]
pub struct ProviderClient {
    client: Client,
    apis: ProviderApis,
}

/// An account, as far as its provider's API is concerned.
#[derive(Clone, Copy, Debug)]
pub struct Account<'a> {
    /// At which provider.
    pub provider: Provider,
    /// The provider's id of it.
    pub external_id: &'a str,
    /// The provider's id of the account it belongs to (Twilio: the account's SID).
    pub business_account_id: Option<&'a str>,
    /// Twilio: the SID of the API key whose secret the token is.
    pub username: Option<&'a str>,
    /// The token, or Twilio's auth token or API key's secret.
    pub token: &'a SecretString,
    /// Instagram: by which login it was connected.
    pub login: Option<InstagramLogin>,
    /// Where reports about its messages are to be sent, where each send says so.
    pub status_url: Option<&'a Url>,
}

/// Where an account's messages are handed over, and as whom: the same for all of them.
#[derive(Clone, Debug)]
pub struct Endpoint {
    sender: Sender,
    url: Url,
    authorization: HeaderValue,
}

/// An account that no request can be made for.
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
    /// From whom its messages are.
    pub fn sender(&self) -> &Sender {
        &self.sender
    }
}

/// One message to be handed over.
#[derive(Clone, Copy, Debug)]
pub struct Send<'a> {
    /// Where, and as whom.
    pub endpoint: &'a Endpoint,
    /// To whom.
    pub recipient: Recipient<'a>,
    /// What is said.
    pub content: &'a OutboundContent,
    /// Where its uploaded files are.
    pub files: &'a Handles,
    /// Comes back in reports.
    pub token: &'a SendToken,
    /// The provider's id of the message this one answers or reacts to.
    pub refers_to: Option<&'a str>,
    /// Whether it goes as a person's answer outside the window.
    pub human_agent: bool,
}

impl ProviderClient {
    /// A client of these APIs. A call takes at most `call_timeout`, which is shorter than the deadline of the attempt it is made for.
    ///
    /// # Errors
    /// If the TLS backend cannot be set up.
    pub fn new(apis: ProviderApis, call_timeout: Duration) -> reqwest::Result<Self> {
        let client = Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(call_timeout)
            // A connection that the other side closes while we write leaves us not knowing; do not keep idle ones for long.
            .pool_idle_timeout(Duration::from_secs(20))
            .redirect(Policy::none())
            .tcp_nodelay(true)
            .build()?;
        Ok(Self { client, apis })
    }

    /// Where an account's messages are handed over.
    ///
    /// # Errors
    /// If no request can be made for it.
    pub fn endpoint(&self, account: &Account<'_>) -> Result<Endpoint, BadEndpoint> {
        let (base, path) = match account.provider {
            Provider::Whatsapp => {
                let path = whatsapp::path(&self.apis.whatsapp_api_version, account.external_id);
                (&self.apis.whatsapp_base_url, path)
            }
            Provider::Messenger | Provider::Instagram | Provider::Twilio => return Err(BadEndpoint::Provider),
        };
        let url = format!("{}{path}", base.as_str().trim_end_matches('/')).parse().map_err(|_| BadEndpoint::Url)?;
        let mut authorization = HeaderValue::try_from(format!("Bearer {}", account.token.expose_secret()))
            .map_err(|_| BadEndpoint::Token)?;
        authorization.set_sensitive(true);
        let sender = Sender {
            provider: account.provider,
            channel: Channel::of_account(account.provider, account.external_id),
            external_id: account.external_id.to_owned(),
            status_url: account.status_url.cloned(),
        };
        Ok(Endpoint { sender, url, authorization })
    }

    /// Hands one message over.
    pub async fn send(&self, send: Send<'_>) -> Outcome {
        let Send { endpoint, recipient, content, files, token, refers_to, human_agent } = send;
        let outgoing = Outgoing { sender: &endpoint.sender, recipient, content, files, token, refers_to, human_agent };
        let (content_type, body) = match request(&outgoing) {
            Ok(Body::Json(body)) => ("application/json", body),
            Ok(Body::Form(body)) => ("application/x-www-form-urlencoded", body.into_bytes()),
            Err(Unsendable(reason)) => return Outcome::Failed { code: "content".into(), reason },
        };
        let call = self
            .client
            .post(endpoint.url.clone())
            .header(AUTHORIZATION, endpoint.authorization.clone())
            .header(CONTENT_TYPE, HeaderValue::from_static(content_type))
            .body(body)
            .send();
        let answer = match call.await {
            Ok(answer) => answer,
            Err(error) => return broken(&error),
        };
        let status = answer.status();
        let retry_after = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()).map(str::to_owned);
        match read(answer).await {
            Ok(body) => outcome(&outgoing, status.as_u16(), retry_after.as_deref(), &body),
            Err(why) if status == StatusCode::TOO_MANY_REQUESTS => {
                outcome(&outgoing, 429, retry_after.as_deref(), why.as_bytes())
            }
            Err(why) => Outcome::Unknown { reason: format!("the answer ({status}) could not be read: {why}") },
        }
    }
}

fn request(outgoing: &Outgoing<'_>) -> Result<Body, Unsendable> {
    match outgoing.sender.provider {
        Provider::Whatsapp => whatsapp::request(outgoing),
        Provider::Messenger | Provider::Instagram | Provider::Twilio => Err(Unsendable::kind(outgoing)),
    }
}

fn outcome(outgoing: &Outgoing<'_>, status: u16, retry_after: Option<&str>, body: &[u8]) -> Outcome {
    match outgoing.sender.provider {
        Provider::Whatsapp => whatsapp::outcome(status, retry_after, body),
        Provider::Messenger | Provider::Instagram | Provider::Twilio => unreachable!("no endpoint is made for it"),
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
        return Outcome::NotSent(NotSent { code: code.into(), reason, retry_after: None, class: Class::Unreachable });
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
