//! Twilio's REST API: who asks, and what for (twilio contract page, sections 7, 13, 14 and 15). `api.`, `content.` and
//! `messaging.twilio.com` are one address here, told apart by the path.

use super::super::{
    accounts::Account,
    dice::Roll,
    exchange::{Exchange, Judged, Seen},
    graph,
    platform::{Api, Platform},
    provider::Provider,
    refusal::Refusal,
    registry::TokenState,
    reply::Answered,
};
use super::{content, messages, send};
use axum::body::Body;
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{HeaderValue, Method, Response, header, request::Parts};
use serde_json::Value;
use std::{
    borrow::Cow,
    sync::{Arc, PoisonError},
};

/// A call as it arrived.
#[derive(Debug)]
pub(crate) struct Call {
    pub(super) at_us: u64,
    pub(super) method: Method,
    pub(super) path: Vec<String>,
    pub(super) query: String,
    /// User and password.
    credentials: Option<(String, String)>,
    pub(super) body: Bytes,
}

/// A request under way counts as long as this exists.
pub(super) struct UnderWay {
    provider: Arc<Provider>,
    account: String,
    /// How many there are with this one.
    pub(super) count: u32,
}

impl Call {
    pub(crate) fn new(head: &Parts, body: Bytes, at_us: u64) -> Self {
        Self {
            at_us,
            method: head.method.clone(),
            path: head.uri.path().split('/').filter(|part| !part.is_empty()).map(graph::decoded).collect(),
            query: head.uri.query().unwrap_or_default().to_owned(),
            credentials: credentials(head),
            body,
        }
    }

    pub(super) fn parameter(&self, name: &str) -> Option<String> {
        let mut pairs = url::form_urlencoded::parse(self.query.as_bytes());
        pairs.find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut under_way = self.provider.twilio.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = under_way.get_mut(&self.account) {
            *count = count.saturating_sub(1);
        }
    }
}

/// Whether a path is one of Twilio's.
pub(crate) fn names(path: &str) -> bool {
    ["/2010-04-01/", "/v1/Content", "/v3/Indicators/"].iter().any(|root| path.starts_with(root))
}

/// Answers a call that [`names`] knows.
pub(crate) async fn handle(provider: Arc<Provider>, call: Call) -> Answered {
    let path: Vec<&str> = call.path.iter().map(String::as_str).collect();
    let answered = match (&call.method, &path[..]) {
        (&Method::POST, ["2010-04-01", "Accounts", account, "Messages.json"]) => {
            let account = (*account).to_owned();
            return send::handle(&provider, &call, &account).await;
        }
        (&Method::POST, ["v3", "Indicators", "Typing.json"]) => return typing(&provider, &call).await,
        (_, ["2010-04-01", "Accounts", account, "Messages.json"]) => {
            authorize(&provider, &call, account).and_then(|()| messages::list(&provider, &call, account))
        }
        (_, ["2010-04-01", "Accounts", account, "Messages", rest @ ..]) => {
            authorize(&provider, &call, account).and_then(|()| messages::one(&provider, &call, account, rest))
        }
        (_, ["v1", ..]) => account_of(&provider, &call).and_then(|account| content::handle(&provider, &call, &account)),
        _ => Err(Refusal::of(Api::Twilio, 20_404, None)),
    };
    Ok(answered.map_or_else(|refusal| graph::refused(&refusal, call.at_us), |response| signed_off(&provider, response)))
}

/// One more request of an account.
pub(super) fn begin(provider: &Arc<Provider>, account: &str) -> UnderWay {
    let mut under_way = provider.twilio.under_way.lock().unwrap_or_else(PoisonError::into_inner);
    let count = under_way.entry(account.to_owned()).or_default();
    *count += 1;
    UnderWay { provider: provider.clone(), account: account.to_owned(), count: *count }
}

/// The senders of an account.
pub(super) fn senders(provider: &Provider, account: &str) -> Vec<Arc<Account>> {
    let mut all = provider.registry.accounts_of(Platform::Twilio);
    all.retain(|sender| sender.spec.account_sid == account);
    all
}

/// Whether the caller may act for the account of the path.
pub(super) fn authorize(provider: &Provider, call: &Call, account: &str) -> Result<(), Refusal> {
    let refused = Err(Refusal::of(Api::Twilio, 20_003, None));
    let Some((user, password)) = &call.credentials else { return refused };
    let senders = senders(provider, account);
    if senders.is_empty() {
        return refused;
    }
    let is_key = user.starts_with("SK");
    let token = if is_key { Cow::Owned(format!("{user}:{password}")) } else { Cow::Borrowed(password.as_str()) };
    match provider.registry.token_state(&token) {
        Some(TokenState::Valid) if is_key || user == account => return Ok(()),
        Some(TokenState::NoPermission) => return Err(Refusal::of(Api::Twilio, 20_003, None).with_status(403)),
        // It was good once.
        Some(state) if state != TokenState::Valid => return refused,
        _ => {}
    }
    let is_auth_token = user == account && senders.iter().any(|sender| provider.secret(&sender.spec) == password);
    if is_auth_token { Ok(()) } else { refused }
}

/// The account that the caller acts for, where the path does not say.
fn account_of(provider: &Provider, call: &Call) -> Result<String, Refusal> {
    let mut accounts: Vec<String> =
        provider.registry.accounts_of(Platform::Twilio).iter().map(|sender| sender.spec.account_sid.clone()).collect();
    accounts.dedup();
    // A key's own account first, if a sender says so.
    let owner = call.credentials.as_ref().and_then(|(user, password)| {
        let token = format!("{user}:{password}");
        let senders = provider.registry.accounts_of(Platform::Twilio);
        senders.iter().find(|sender| sender.spec.token.as_ref() == Some(&token)).map(|s| s.spec.account_sid.clone())
    });
    let mut last = Refusal::of(Api::Twilio, 20_003, None);
    for account in owner.into_iter().chain(accounts) {
        match authorize(provider, call, &account) {
            Ok(()) => return Ok(account),
            Err(refusal) => last = refusal,
        }
    }
    Err(last)
}

/// Shows that somebody types, and marks what they answer as read.
async fn typing(provider: &Arc<Provider>, call: &Call) -> Answered {
    let exchange = Exchange::begin(provider, provider.behaviour());
    let body: Value = serde_json::from_slice(&call.body).unwrap_or_default();
    let about = body["messageId"].as_str().unwrap_or_default();
    let sender = provider.registry.accounts_of(Platform::Twilio).into_iter().find_map(|sender| {
        let customer = sender.live().queue.message(about).filter(|message| message.is_inbound)?.from.clone()?;
        Some((sender.id.clone(), customer))
    });
    let (account, recipient) = sender.clone().unwrap_or_else(|| ("".into(), String::new()));
    let seen = Seen {
        api: Api::Twilio,
        account,
        at_us: call.at_us,
        recipient: recipient.into(),
        kind: "typing",
        opaque: None,
        text: None,
        units: 0,
        body: &call.body,
    };
    let judged = exchange.arrives().then(|| {
        account_of(provider, call)?;
        match sender {
            Some(_) if body["channel"] == "WHATSAPP" => Ok(Judged::Noted(r#"{"success":true}"#.to_owned())),
            Some(_) => Err(Refusal::of(Api::Twilio, 20_001, None)),
            None => Err(Refusal::of(Api::Twilio, 20_404, None)),
        }
    });
    exchange.end(provider, seen, judged).await
}

/// The headers of every answer.
pub(super) fn signed_off(provider: &Provider, mut response: Response<Body>) -> Response<Body> {
    if let Ok(id) = HeaderValue::from_str(&request_id(&mut provider.dice.roll())) {
        response.headers_mut().insert("twilio-request-id", id);
    }
    response
}

fn request_id(roll: &mut Roll) -> String {
    super::sid("RQ", roll.bits(), roll.bits())
}

/// The headers of an answer to a send.
pub(super) fn headers(roll: &mut Roll, count: u32) -> Vec<(&'static str, String)> {
    vec![
        ("twilio-request-id", request_id(roll)),
        ("twilio-concurrent-requests", count.to_string()),
        ("twilio-request-duration", "0.042".into()),
        ("x-home-region", "us1".into()),
    ]
}

fn credentials(head: &Parts) -> Option<(String, String)> {
    let value = head.headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, encoded) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    decoded.split_once(':').map(|(user, password)| (user.to_owned(), password.to_owned()))
}
