//! BotMasterSender's gateway to linked WhatsApp sessions (botmaster contract page): `/api/v1/?action=send`. What its clients agree on
//! and no more; nothing is told by webhook.

use super::{
    behaviour::{Behaviour, GatewayShape},
    bucket::Bucket,
    exchange::{Accepted, Exchange, Judged, Seen},
    fetch,
    ledger::Acceptance,
    platform::Api,
    provider::Provider,
    refusal::Refusal,
    reply::{self, Answered},
};
use bytes::Bytes;
use http::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::{
    borrow::Cow,
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// A linked WhatsApp session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Session {
    /// Digits of the linked number.
    pub sender_id: String,
    /// The account's token.
    pub token: String,
    /// Whether it works.
    #[serde(default)]
    pub state: SessionState,
}

/// Whether a session works, and if not, which words say so.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionState {
    /// It works.
    #[default]
    Linked,
    /// 403, "expired".
    Expired,
    /// 401, "invalid token".
    InvalidToken,
    /// 400, "not connected".
    NotConnected,
    /// 400, "scan QR".
    ScanQr,
}

/// All sessions, by the digits of their numbers.
#[derive(Debug, Default)]
pub(super) struct Sessions(Mutex<HashMap<String, Live>>);

#[derive(Debug)]
struct Live {
    session: Session,
    limit: Option<u32>,
    bucket: Bucket,
    sent: u64,
}

/// A call as it arrived.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) at_us: u64,
    pub(super) method: Method,
    pub(super) query: String,
    pub(super) body: Bytes,
}

impl Session {
    /// A session that works.
    pub fn new(sender_id: impl Into<String>, token: impl Into<String>) -> Self {
        Self { sender_id: sender_id.into(), token: token.into(), state: SessionState::Linked }
    }
}

impl Sessions {
    pub(super) fn add(&self, session: Session) {
        let mut sessions = self.lock();
        match sessions.get_mut(&session.sender_id) {
            Some(live) => live.session = session,
            None => {
                let id = session.sender_id.clone();
                sessions.insert(id, Live { session, limit: None, bucket: Bucket::default(), sent: 0 });
            }
        }
    }

    /// Messages a second from now on. False if there is no such session.
    pub(super) fn limit(&self, sender_id: &str, limit: Option<u32>) -> bool {
        self.lock().get_mut(sender_id).map(|live| live.limit = limit).is_some()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Live>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Handles one call.
pub(super) async fn handle(provider: &Arc<Provider>, call: Call) -> Answered {
    let mut exchange = Exchange::begin(provider, provider.behaviour());
    let query: HashMap<String, String> = url::form_urlencoded::parse(call.query.as_bytes()).into_owned().collect();
    let action = query.get("action").cloned().unwrap_or_default();
    let fields: HashMap<String, String> = match call.method {
        Method::GET => query,
        _ => match serde_json::from_slice::<Value>(&call.body) {
            Ok(Value::Object(object)) => object
                .into_iter()
                .map(|(name, value)| (name, value.as_str().map_or_else(|| value.to_string(), str::to_owned)))
                .collect(),
            _ => HashMap::new(),
        },
    };
    let field = |name: &str| fields.get(name).map(String::as_str);
    let has_file = field("mediaurl").or(field("fileUrl")).is_some();
    let seen = Seen {
        api: Api::Botmaster,
        account: field("senderId").unwrap_or_default().into(),
        at_us: call.at_us,
        recipient: Cow::Borrowed(field("receiverId").unwrap_or_default()),
        kind: if has_file { "media" } else { "text" },
        opaque: None,
        text: field("messageText").or(field("fileCaption")).map(Cow::Borrowed),
        units: 1,
        body: &call.body,
    };
    let judged = exchange.arrives().then(|| judge(provider, &mut exchange, &call.method, &action, &fields));
    if let (Some(Ok(_)), Some(link)) = (&judged, field("mediaurl").or(field("fileUrl"))) {
        fetch_later(provider, link.to_owned());
    }
    exchange.end(provider, seen, judged).await
}

/// A session shows its file to the person; whether it comes nobody is told.
fn fetch_later(provider: &Arc<Provider>, link: String) {
    // To be waited for like what is on the agenda.
    provider.agenda.begun();
    let fetching = provider.clone();
    provider.tasks.spawn(async move {
        let _ = fetch::fetch(&fetching, &link, fetch::PATIENCE).await;
        fetching.agenda.finished(1);
    });
}

fn judge<'a>(
    provider: &Provider,
    exchange: &mut Exchange,
    method: &Method,
    action: &str,
    fields: &HashMap<String, String>,
) -> Result<Judged<'a>, Refusal> {
    let refused = |status, text: &'static str| Err(Refusal::of(Api::Botmaster, status, None).saying(text));
    let field = |name: &str| fields.get(name).map(String::as_str).filter(|value| !value.is_empty());
    let is_file = action == "sendFile" && *method == Method::GET;
    if action != "send" && !is_file {
        return refused(404, "Unknown action");
    }
    let (Some(sender), Some(token)) = (field("senderId"), field("authToken")) else {
        return refused(400, "senderId and authToken are required");
    };
    let mut sessions = provider.sessions.lock();
    let Some(live) = sessions.get_mut(sender).filter(|live| live.session.token == token) else {
        return refused(401, "Invalid token");
    };
    match live.session.state {
        SessionState::Linked => {}
        SessionState::Expired => return refused(403, "Your subscription has expired"),
        SessionState::InvalidToken => return refused(401, "Invalid token"),
        SessionState::NotConnected => return refused(400, "The WhatsApp session is not connected"),
        SessionState::ScanQr => return refused(400, "Please scan QR code to link the number"),
    }
    let digits = |id: &str| (8..=15).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_digit());
    if !field("receiverId").is_some_and(digits) {
        return refused(400, "Invalid receiver number");
    }
    if is_file && field("fileUrl").is_none() {
        return refused(400, "fileUrl is required");
    }
    if !is_file && field("messageText").is_none() && field("mediaurl").is_none() {
        return refused(400, "messageText is required");
    }
    exchange.interrupt(provider, Api::Botmaster, sender)?;
    if let Some(limit) = live.limit
        && !live.bucket.take(provider.clock.now_us(), limit, limit)
    {
        return refused(429, "Too many requests");
    }
    live.sent += 1;
    let (shape, sent) = (exchange.behaviour.gateway_shape, live.sent);
    Ok(Judged::Message(Accepted {
        files: field("mediaurl").or(field("fileUrl")).map(str::to_owned).into_iter().collect(),
        acceptance: Acceptance::default(),
        follows: None,
        fetched: None,
        success: Box::new(move |_, id| reply::success(accepted(shape, id, sent).to_string())),
    }))
}

fn accepted(shape: GatewayShape, id: &str, sent: u64) -> Value {
    match shape {
        GatewayShape::Success | GatewayShape::AlwaysOk => {
            json!({"success": true, "messageId": id, "message": "Message sent"})
        }
        GatewayShape::Status => json!({"status": "success", "id": id, "message": "Message sent",
            "subscription": {"sms_count": sent, "expires_at": "2027-03-31"}}),
        GatewayShape::Results => json!({"status": true, "results": [{"messageId": id}]}),
        GatewayShape::Array => json!([{"success": true, "messageId": id}]),
    }
}

/// A failure in one of the shapes in which it was seen.
pub(super) fn refused(refusal: &Refusal, behaviour: &Behaviour) -> (StatusCode, String) {
    let text = &refusal.details;
    let body = match behaviour.gateway_shape {
        GatewayShape::Success | GatewayShape::AlwaysOk => json!({"success": false, "message": text}),
        GatewayShape::Status => json!({"status": "error", "error": text,
            "subscription": {"sms_count": 0, "expires_at": "2027-03-31"}}),
        GatewayShape::Results => json!({"status": false, "error": text}),
        GatewayShape::Array => json!([{"success": false, "error": text}]),
    };
    // What is out of order knows no courtesy.
    let courteous = behaviour.gateway_shape == GatewayShape::AlwaysOk && !refusal.status.is_server_error();
    (if courteous { StatusCode::OK } else { refusal.status }, body.to_string())
}
