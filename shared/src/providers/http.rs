//! The calls to providers. What to say and what an answer means is each provider's module; here is only the wire, and what
//! it means when it breaks: before a byte was written nothing was sent, after that nobody knows.

use super::{
    gateway::{self, GatewayConfig, config::Method},
    instagram, json, messenger,
    repair::readable,
    sending::{Body, BrokenOff, Handles, Outgoing, Sender, Unsendable},
    twilio, whatsapp,
};
use crate::{
    config::ProviderApis,
    domain::{
        channel::{Channel, InstagramLogin, Provider},
        content::OutboundContent,
        events::SendToken,
        outcome::{Class, NotSent, Outcome},
        people::Recipient,
        uploads,
    },
};
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use chrono::TimeDelta;
use futures_util::{
    StreamExt,
    stream::{self, BoxStream},
};
use reqwest::{
    Client, RequestBuilder, Response, StatusCode,
    header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, RETRY_AFTER},
    redirect::Policy,
};
use secrecy::{ExposeSecret, SecretString};
use std::{sync::Arc, time::Duration};
use url::Url;
use uuid::Uuid;

/// A provider that does not accept a connection within this time is not there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// An answer this large is none of a documented kind.
const MAX_ANSWER_BYTES: usize = 256 * 1024;

/// Calls providers. Cheap to clone; connections are kept and shared.
#[derive(Clone, Debug)]
pub struct ProviderClient {
    client: Client,
    apis: Arc<ProviderApis>,
    call_timeout: Duration,
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
    /// How a gateway is called; nothing of any other provider.
    pub gateway: Option<&'a GatewayConfig>,
}

/// Where an account's messages are handed over, and as whom: the same for all of them.
#[derive(Clone, Debug)]
pub struct Endpoint {
    sender: Sender,
    url: Url,
    /// How the account proves who it is; a gateway's description says where that goes.
    authorization: Option<HeaderValue>,
    /// The gateway's secret.
    token: Option<SecretString>,
    /// Where signals go if not where messages do.
    signal_url: Option<Url>,
    /// Where files go, if they are uploaded.
    upload_url: Option<Url>,
}

/// An account that no request can be made for.
#[derive(Clone, Copy, Debug, thiserror::Error)]
pub enum BadEndpoint {
    /// The URL would not be one.
    #[error("its id makes no URL")]
    Url,
    /// Twilio: nothing says to which account it belongs.
    #[error("the SID of its Twilio account is missing")]
    BusinessAccount,
    /// A gateway without a description, or with one of another channel.
    #[error("its gateway is not described, or carries another channel than its id says")]
    Gateway,
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

/// A file to be uploaded: its bytes as they come from storage, never all of them at once.
pub struct Upload {
    /// Its type.
    pub mime_type: String,
    /// How many bytes it has.
    pub size_bytes: u64,
    /// The bytes.
    pub bytes: BoxStream<'static, Result<Bytes, BrokenOff>>,
}

/// The provider's id of a file that was uploaded, and for how long it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uploaded {
    /// The id.
    pub provider_file_id: String,
    /// From now on.
    pub lives: TimeDelta,
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
    /// For how long it is of use; `None`: as long as it takes.
    pub valid_for: Option<Duration>,
}

impl ProviderClient {
    /// A client of these APIs. A call takes at most `call_timeout`, and as much longer as its provider
    /// [fetches](Provider::fetches_for) what it is to send; a gateway's, what its description says. The deadline of the attempt it is
    /// made for is later.
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
        Ok(Self { client, apis: Arc::new(apis), call_timeout })
    }

    /// Where an account's messages are handed over.
    ///
    /// # Errors
    /// If no request can be made for it.
    pub fn endpoint(&self, account: &Account<'_>) -> Result<Endpoint, BadEndpoint> {
        let (apis, id) = (&self.apis, account.external_id);
        let (mut signal_url, mut upload_url) = (None, None);
        let url = match account.provider {
            Provider::Whatsapp => {
                let (base, version) = (&apis.whatsapp_base_url, &apis.whatsapp_api_version);
                upload_url = Some(join(base, &whatsapp::upload::path(version, id))?);
                join(base, &whatsapp::path(version, id))?
            }
            Provider::Messenger => join(&apis.messenger_base_url, &messenger::path(&apis.messenger_api_version, id))?,
            Provider::Instagram if account.login == Some(InstagramLogin::Instagram) => {
                join(&apis.instagram_base_url, &instagram::path(&apis.instagram_api_version))?
            }
            Provider::Instagram => join(&apis.messenger_base_url, &instagram::path(&apis.messenger_api_version))?,
            Provider::Twilio => {
                signal_url = Some(join(&apis.twilio_messaging_base_url, twilio::send::TYPING_PATH)?);
                let account_sid = account.business_account_id.ok_or(BadEndpoint::BusinessAccount)?;
                join(&apis.twilio_base_url, &twilio::path(account_sid))?
            }
            Provider::Gateway => {
                let config = account.gateway.ok_or(BadEndpoint::Gateway)?;
                config.url.parse().map_err(|_| BadEndpoint::Url)?
            }
        };
        let channel = Channel::of_account(account.provider, id);
        if account.gateway.is_some_and(|gateway| gateway.channel != channel) {
            return Err(BadEndpoint::Gateway);
        }
        let is_gateway = account.provider == Provider::Gateway;
        let sender = Sender {
            provider: account.provider,
            channel,
            external_id: id.to_owned(),
            status_url: account.status_url.cloned(),
            gateway: account.gateway.filter(|_| is_gateway).cloned().map(Arc::new),
        };
        let authorization = if is_gateway { None } else { Some(authorization(account)?) };
        let token = is_gateway.then(|| account.token.clone());
        Ok(Endpoint { sender, url, authorization, token, signal_url, upload_url })
    }

    /// Hands one message over.
    pub async fn send(&self, send: Send<'_>) -> Outcome {
        let Send { endpoint, recipient, content, files, token, refers_to, human_agent, valid_for } = send;
        let sender = &endpoint.sender;
        let outgoing = Outgoing { sender, recipient, content, files, token, refers_to, human_agent, valid_for };
        let call = match self.call(endpoint, &outgoing) {
            Ok(call) => call,
            Err(Unsendable(reason)) => return Outcome::Failed { code: "content".into(), reason },
        };
        let answer = match call.send().await {
            Ok(answer) => answer,
            Err(error) => return broken(&error),
        };
        let status = answer.status();
        let retry_after = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()).map(str::to_owned);
        match read(answer).await {
            Ok(body) => outcome(endpoint, &outgoing, status.as_u16(), retry_after.as_deref(), &body),
            Err(why) if status == StatusCode::TOO_MANY_REQUESTS => {
                outcome(endpoint, &outgoing, 429, retry_after.as_deref(), why.as_bytes())
            }
            Err(why) => Outcome::Unknown { reason: format!("the answer ({status}) could not be read: {why}") },
        }
    }

    /// Uploads a file, within this time. The bytes go out as they come.
    ///
    /// # Errors
    /// What that it failed means for the message it belongs to, which is not sent.
    pub async fn upload(&self, endpoint: &Endpoint, file: Upload, within: Duration) -> Result<Uploaded, Outcome> {
        let Some(url) = &endpoint.upload_url else {
            return Err(Outcome::Failed { code: "content".into(), reason: "the provider takes no uploads".into() });
        };
        let boundary = Uuid::new_v4();
        let (before, after) = whatsapp::upload::around(boundary, &file.mime_type);
        let length = before.len() as u64 + file.size_bytes + after.len() as u64;
        let whole = |text: String| stream::iter([Ok(Bytes::from(text))]);
        let body = reqwest::Body::wrap_stream(whole(before).chain(file.bytes).chain(whole(after)));
        let mut call = self.client.post(url.clone()).timeout(within);
        if let Some(authorization) = &endpoint.authorization {
            call = call.header(AUTHORIZATION, authorization.clone());
        }
        let call = call.header(CONTENT_TYPE, whatsapp::upload::content_type(boundary)).header(CONTENT_LENGTH, length);
        let failed = |error: &reqwest::Error| match broken(error) {
            Outcome::Unknown { reason } => whatsapp::upload::not_uploaded("upload", reason),
            other => other,
        };
        let answer = call.body(body).send().await.map_err(|error| failed(&error))?;
        let status = answer.status().as_u16();
        let retry_after = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let body = read(answer).await.map_err(|why| whatsapp::upload::not_uploaded("upload", why))?;
        let provider_file_id = whatsapp::upload::uploaded(status, retry_after.as_deref(), &body)?;
        Ok(Uploaded { provider_file_id, lives: uploads::LIVES })
    }

    /// Tells a person that they are read or that an answer is being written. Lost signals are lost: nothing depends on them.
    pub async fn signal(&self, endpoint: &Endpoint, signal: Signal<'_>, recipient: Recipient<'_>) -> Signalled {
        let sender = &endpoint.sender;
        let body = match sender.provider {
            Provider::Whatsapp => Some(whatsapp::send::signal(signal)),
            Provider::Messenger | Provider::Instagram => super::meta::said::signal(signal, recipient),
            Provider::Twilio => twilio::send::signal(sender.channel, signal),
            Provider::Gateway => None,
        };
        let Some(body) = body else { return Signalled::NotPossible };
        let url = endpoint.signal_url.as_ref().unwrap_or(&endpoint.url);
        let call = with(self.client.post(url.clone()), Some(body), endpoint.authorization.as_ref());
        match call.send().await {
            Ok(answer) if answer.status().is_success() => Signalled::Done,
            Ok(answer) => Signalled::Failed(refusal(answer).await),
            Err(error) => Signalled::Failed(without_url(&error)),
        }
    }

    fn call(&self, endpoint: &Endpoint, outgoing: &Outgoing<'_>) -> Result<RequestBuilder, Unsendable> {
        let at_most = self.call_timeout + outgoing.sender.provider.fetches_for(outgoing.content.class());
        let post = self.client.post(endpoint.url.clone()).timeout(at_most);
        let body = match outgoing.sender.provider {
            Provider::Whatsapp => whatsapp::request(outgoing),
            Provider::Messenger => messenger::request(outgoing),
            Provider::Instagram => instagram::request(outgoing),
            Provider::Twilio => twilio::request(outgoing),
            Provider::Gateway => return self.gateway(endpoint, outgoing),
        }?;
        Ok(with(post, Some(body), endpoint.authorization.as_ref()))
    }

    /// A gateway has a timeout of its own.
    fn gateway(&self, endpoint: &Endpoint, outgoing: &Outgoing<'_>) -> Result<RequestBuilder, Unsendable> {
        let (Some(config), Some(token)) = (&outgoing.sender.gateway, &endpoint.token) else {
            return Err(Unsendable("the gateway is not described".to_owned()));
        };
        let request = gateway::request(config, token.expose_secret(), outgoing)?;
        let call = match request.method {
            Method::Post => self.client.post(request.url),
            Method::Get => self.client.get(request.url),
        };
        let call = with(call, request.body, None).timeout(config.timeout());
        Ok(request.headers.into_iter().fold(call, |call, (name, value)| call.header(name, value)))
    }
}

/// What a person is told beside messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal<'a> {
    /// Everything up to this message of theirs is read.
    Read {
        /// The provider's id of the message.
        message_id: &'a str,
    },
    /// An answer is being written.
    Typing {
        /// The provider's id of the message that is answered; it is read by that (WhatsApp).
        message_id: &'a str,
    },
}

/// What became of a signal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signalled {
    /// The provider has it.
    Done,
    /// The provider has nothing of the kind on this channel.
    NotPossible,
    /// It did not come through; why, for a log.
    Failed(String),
}

fn join(base: &Url, path: &str) -> Result<Url, BadEndpoint> {
    format!("{}{path}", base.as_str().trim_end_matches('/')).parse().map_err(|_| BadEndpoint::Url)
}

/// Twilio asks for name and password: of the account itself, or of an API key of its (providers/twilio section 7).
fn authorization(account: &Account<'_>) -> Result<HeaderValue, BadEndpoint> {
    let token = account.token.expose_secret();
    let text = if account.provider == Provider::Twilio {
        let name = account.username.or(account.business_account_id).ok_or(BadEndpoint::BusinessAccount)?;
        format!("Basic {}", BASE64_STANDARD.encode(format!("{name}:{token}")))
    } else {
        format!("Bearer {token}")
    };
    let mut value = HeaderValue::try_from(text).map_err(|_| BadEndpoint::Token)?;
    value.set_sensitive(true);
    Ok(value)
}

fn with(call: RequestBuilder, body: Option<Body>, authorization: Option<&HeaderValue>) -> RequestBuilder {
    let call = match authorization {
        Some(value) => call.header(AUTHORIZATION, value.clone()),
        None => call,
    };
    let typed = |call: RequestBuilder, content_type| call.header(CONTENT_TYPE, HeaderValue::from_static(content_type));
    match body {
        None => call,
        Some(Body::Json(body)) => typed(call, "application/json").body(body),
        Some(Body::Form(body)) => typed(call, "application/x-www-form-urlencoded").body(body),
    }
}

fn outcome(
    endpoint: &Endpoint,
    outgoing: &Outgoing<'_>,
    status: u16,
    retry_after: Option<&str>,
    body: &[u8],
) -> Outcome {
    match outgoing.sender.provider {
        Provider::Whatsapp => whatsapp::outcome(outgoing, status, retry_after, body),
        Provider::Messenger => messenger::outcome(outgoing, status, retry_after, body),
        Provider::Instagram => instagram::outcome(outgoing, status, retry_after, body),
        Provider::Twilio => twilio::outcome(status, retry_after, body),
        Provider::Gateway => match (&outgoing.sender.gateway, &endpoint.token) {
            (Some(config), Some(token)) => {
                gateway::outcome(config, token.expose_secret(), outgoing, status, retry_after, body)
            }
            _ => unreachable!("no call is made without a description"),
        },
    }
}

/// Why a signal was refused: the status and the provider's words.
async fn refusal(answer: Response) -> String {
    let status = answer.status();
    let body = read(answer).await.unwrap_or_default();
    let text = readable(&body);
    let object = json::Object::parse(&text).ok();
    let object = object.as_ref();
    let error = object.and_then(|answer| answer.object("error"));
    let words = error.as_ref().or(object).and_then(|error| error.words("message"));
    words.map_or_else(|| status.to_string(), |words| format!("{status}: {}", json::cut(words, 500)))
}

async fn read(mut answer: Response) -> Result<Vec<u8>, String> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Settings {
        #[command(flatten)]
        apis: ProviderApis,
    }

    fn client() -> ProviderClient {
        let bases = [
            "--whatsapp-base-url=http://whatsapp.test/base/",
            "--messenger-base-url=http://messenger.test",
            "--instagram-base-url=http://instagram.test",
            "--instagram-api-version=v24.0",
            "--twilio-base-url=http://twilio.test",
            "--twilio-messaging-base-url=http://messaging.test",
        ];
        let settings = Settings::parse_from(["x"].into_iter().chain(bases));
        ProviderClient::new(settings.apis, Duration::from_secs(10)).unwrap()
    }

    fn account<'a>(provider: Provider, external_id: &'a str, token: &'a SecretString) -> Account<'a> {
        let (business_account_id, username, login, status_url, gateway) = (None, None, None, None, None);
        Account { provider, external_id, business_account_id, username, token, login, status_url, gateway }
    }

    fn shown(account: &Account<'_>) -> Result<(String, Option<String>), String> {
        let endpoint = client().endpoint(account).map_err(|error| error.to_string())?;
        let authorization = endpoint.authorization.map(|value| value.to_str().unwrap().to_owned());
        Ok((endpoint.url.to_string(), authorization))
    }

    #[test]
    fn every_account_has_its_address_and_its_proof() {
        let token = &SecretString::from("tok");
        let bearer = Some("Bearer tok".to_owned());
        let instagram = Account { login: Some(InstagramLogin::Instagram), ..account(Provider::Instagram, "17", token) };
        let by_page = Account { login: Some(InstagramLogin::Page), ..instagram };
        let twilio = Account { business_account_id: Some("AC71"), ..account(Provider::Twilio, "+15035550199", token) };
        let by_key = Account { username: Some("SK1"), ..twilio };
        let messages = "http://twilio.test/2010-04-01/Accounts/AC71/Messages.json";
        for (account, url, authorization) in [
            (account(Provider::Whatsapp, "33", token), "http://whatsapp.test/base/v25.0/33/messages", bearer.clone()),
            (account(Provider::Messenger, "10", token), "http://messenger.test/v25.0/10/messages", bearer.clone()),
            (by_page, "http://messenger.test/v25.0/me/messages", bearer.clone()),
            (account(Provider::Instagram, "17", token), "http://messenger.test/v25.0/me/messages", bearer.clone()),
            (instagram, "http://instagram.test/v24.0/me/messages", bearer),
            // AC71:tok and SK1:tok.
            (twilio, messages, Some("Basic QUM3MTp0b2s=".to_owned())),
            (by_key, messages, Some("Basic U0sxOnRvaw==".to_owned())),
        ] {
            assert_eq!(shown(&account), Ok((url.to_owned(), authorization)), "{account:?}");
        }
    }

    #[test]
    fn a_gateways_secret_stands_where_its_description_says_and_nowhere_else() {
        let token = &SecretString::from("tok");
        let config = gateway::preset("botmaster").unwrap();
        let gateway = Account { gateway: Some(&config), ..account(Provider::Gateway, "whatsapp:+919800000001", token) };
        assert_eq!(shown(&gateway), Ok((config.url.clone(), None)));
        let endpoint = client().endpoint(&gateway).unwrap();
        assert_eq!(endpoint.sender().channel, Channel::Whatsapp);
        assert!(!format!("{endpoint:?}").contains("tok\""), "{endpoint:?}");
        let not_described = "its gateway is not described, or carries another channel than its id says";
        let sms = Account { external_id: "+919800000001", ..gateway };
        assert_eq!(shown(&sms), Err(not_described.to_owned()), "a gateway to WhatsApp for a number that is none there");
        assert_eq!(shown(&Account { gateway: None, ..gateway }), Err(not_described.to_owned()));
    }

    #[test]
    fn a_call_takes_as_long_as_its_kind_and_no_longer() {
        use crate::{
            domain::{
                ids::{AttemptId, MessageId},
                people::RecipientKind,
            },
            providers::testing::sending::content,
        };
        let token = &SecretString::from("tok");
        let config = gateway::preset("botmaster").unwrap();
        let send_token = SendToken { message_id: MessageId::new(), attempt_id: AttemptId::new() };
        let film = || content(serde_json::json!({"type": "video", "file": {"link": "https://a.example/x.mp4"}}));
        let text = || content(serde_json::json!({"type": "text", "text": "x"}));
        let gateway = Account { gateway: Some(&config), ..account(Provider::Gateway, "whatsapp:+919800000001", token) };
        for (account, content, seconds) in [
            (account(Provider::Whatsapp, "33", token), text(), 10),
            (account(Provider::Whatsapp, "33", token), film(), 10),
            (account(Provider::Messenger, "10", token), text(), 20),
            (account(Provider::Messenger, "10", token), film(), 85),
            (gateway, text(), 20),
        ] {
            let (client, files) = (client(), Handles::new());
            let endpoint = client.endpoint(&account).unwrap();
            let outgoing = Outgoing {
                sender: &endpoint.sender,
                recipient: Recipient { kind: RecipientKind::Address, address: "15557770142" },
                content: &content,
                files: &files,
                token: &send_token,
                refers_to: None,
                human_agent: false,
                valid_for: None,
            };
            let request = client.call(&endpoint, &outgoing).unwrap().build().unwrap();
            assert_eq!(request.timeout(), Some(&Duration::from_secs(seconds)), "{account:?} {content:?}");
        }
    }

    #[test]
    fn an_account_that_cannot_be_called_for_says_why() {
        let (token, broken) = (&SecretString::from("tok"), &SecretString::from("a\nb"));
        let twilio = account(Provider::Twilio, "+15035550199", token);
        assert_eq!(shown(&twilio), Err("the SID of its Twilio account is missing".to_owned()));
        let whatsapp = account(Provider::Whatsapp, "33", broken);
        assert_eq!(shown(&whatsapp), Err("its access token cannot be a header's value".to_owned()));
    }
}
