//! The description of a gateway: where and how to call it, and how to read what it says.

use crate::domain::channel::{Channel, TWILIO_WHATSAPP_PREFIX};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::{collections::BTreeMap, time::Duration};
use url::Url;

/// What stands before the id of an account that is a number on WhatsApp: its channel is told by its id alone, as at Twilio.
pub const WHATSAPP_PREFIX: &str = TWILIO_WHATSAPP_PREFIX;

/// No gateway is waited for longer.
pub const MAX_TIMEOUT_SECONDS: u32 = 60;
/// The kinds of content that a gateway may carry.
const KINDS: &[&str] = &["text", "image", "video", "audio", "document"];

/// How a gateway is called and understood.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GatewayConfig {
    /// On which channel its messages arrive: `whatsapp` or `sms`.
    pub channel: Channel,
    /// Where it is called, with whatever query is always the same.
    pub url: String,
    /// By which method.
    #[serde(default)]
    pub method: Method,
    /// Where the fields go.
    #[serde(default)]
    pub body: Place,
    /// What is sent. In texts `{sender}`, `{recipient}` (with `+`), `{recipient_digits}`, `{text}`, `{media_url}` and `{token}` are
    /// put in their places; a field whose only words would be a text or file that the message has not is left out.
    pub fields: Map<String, Value>,
    /// Headers with the same places.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// The kinds of content it carries, by their names: `text`, and of files `image`, `video`, `audio` and `document`.
    #[serde(default = "text_alone")]
    pub carries: Vec<String>,
    /// The longest text, in characters.
    #[serde(default = "usual_text")]
    pub max_text_characters: u32,
    /// How the answer is read.
    pub answer: Reading,
    /// For how long its answer is awaited.
    #[serde(default = "usual_timeout")]
    pub timeout_seconds: u32,
    /// Whether an account's calls come one at a time: the next is made when the last was answered.
    #[serde(default)]
    pub serial: bool,
    /// How many messages a second an account may send unless it is told otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub messages_per_second: Option<f64>,
}

/// How it is called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// POST.
    #[default]
    Post,
    /// GET: the fields are in the query, where logs may keep them.
    Get,
}

/// Where the fields go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// `application/json`.
    #[default]
    Json,
    /// `application/x-www-form-urlencoded`.
    Form,
    /// The URL's query.
    Query,
}

/// How an answer is read. A path (`status`, `results[0].messageId`) leads to a value; where it meets an array without a place, into
/// the first element. Of several paths the first that leads somewhere counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reading {
    /// What says that the message was taken: one of these places with one of its values. An answer that has one of the places with
    /// another value says that it was not; one that has none of them, with a status of 2xx, leaves it open.
    pub success: Vec<Sign>,
    /// Where the message's id is.
    #[serde(default)]
    pub id: Vec<String>,
    /// Where the words for a person are.
    #[serde(default)]
    pub text: Vec<String>,
    /// What says that the account cannot send at all: it waits, and nothing of it is lost.
    #[serde(default)]
    pub account_down: Marks,
    /// What says that this message is refused for good.
    #[serde(default)]
    pub refused: Marks,
    /// What says that it was not taken and may be later.
    #[serde(default)]
    pub again: Marks,
}

/// A place in an answer and the values that are good.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sign {
    /// Where.
    pub path: String,
    /// Texts (in either case), numbers or truths.
    pub values: Vec<Value>,
}

/// Statuses and words by which an answer is told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Marks {
    /// HTTP statuses.
    #[serde(default)]
    pub statuses: Vec<u16>,
    /// Words anywhere in an answer that does not say that the message was taken, in either case.
    #[serde(default)]
    pub words: Vec<String>,
}

fn text_alone() -> Vec<String> {
    vec!["text".to_owned()]
}

fn usual_text() -> u32 {
    4096
}

fn usual_timeout() -> u32 {
    20
}

/// Why a description is none.
#[derive(Debug, thiserror::Error)]
pub enum BadConfig {
    /// It is not of the form.
    #[error("{0}")]
    Form(#[from] serde_json::Error),
    /// It is of the form, and yet cannot be.
    #[error("{field} {message}")]
    Field {
        /// Which field.
        field: &'static str,
        /// What it must be, for a person.
        message: String,
    },
}

impl GatewayConfig {
    /// Reads a description.
    ///
    /// # Errors
    /// What is wrong with it, for a person.
    pub fn read(json: &str) -> Result<Self, BadConfig> {
        let config: Self = serde_json::from_str(json)?;
        let bad = |field, message: &str| Err(BadConfig::Field { field, message: message.to_owned() });
        let is_here = |url: &Url| matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
        match Url::parse(&config.url) {
            Ok(url) if url.scheme() == "https" || url.scheme() == "http" && is_here(&url) => {}
            _ => return bad("url", "must begin with https:// (a token is sent there)"),
        }
        if !matches!(config.channel, Channel::Whatsapp | Channel::Sms) {
            return bad("channel", "must be whatsapp or sms");
        }
        if config.method == Method::Get && config.body != Place::Query {
            return bad("body", "must be query where the method is get");
        }
        if config.body != Place::Json && config.fields.values().any(|value| value.is_object() || value.is_array()) {
            return bad("fields", "must be texts, numbers or truths unless the body is json");
        }
        if let Some(kind) = config.carries.iter().find(|kind| !KINDS.contains(&kind.as_str())) {
            return bad("carries", &format!("has {kind}, and may have {}", KINDS.join(", ")));
        }
        let carries_files = config.carries.iter().any(|kind| kind != "text");
        let written = serde_json::to_string(&config.fields).unwrap_or_default();
        if carries_files && !written.contains("{media_url}") {
            return bad("fields", "must have a place for {media_url} if files are carried");
        }
        if !written.contains("{text}") || !["{recipient}", "{recipient_digits}"].iter().any(|at| written.contains(at)) {
            return bad("fields", "must have places for {text} and for {recipient} or {recipient_digits}");
        }
        if config.answer.success.is_empty() {
            return bad("answer.success", "must have at least one place");
        }
        if config.timeout_seconds == 0 || config.timeout_seconds > MAX_TIMEOUT_SECONDS {
            return bad("timeout_seconds", "must be 1 to 60");
        }
        if config.messages_per_second.is_some_and(|rate| !(rate.is_finite() && rate > 0.0)) {
            return bad("messages_per_second", "must be more than 0");
        }
        for (name, value) in &config.headers {
            let is_good =
                http::HeaderName::try_from(name.as_str()).is_ok() && value.bytes().all(|b| (32..127).contains(&b));
            if !is_good {
                return bad("headers", "must have names and values as HTTP knows them");
            }
        }
        Ok(config)
    }

    /// For how long its answer is awaited.
    pub fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout_seconds.into())
    }
}

/// The description of a gateway that is known by name.
pub fn preset(name: &str) -> Option<GatewayConfig> {
    let json = match name {
        "botmaster" => BOTMASTER,
        _ => return None,
    };
    Some(GatewayConfig::read(json).expect("what is built in is of the form"))
}

/// BotMasterSender (providers/botmaster): an unofficial gateway to WhatsApp. It carries text; the place for files is known of some
/// clients only, so that who trusts it adds the kinds to `carries`. A 503 alone is tried again: any other 5xx may come after the
/// message was handed over, and there is no report to settle it.
const BOTMASTER: &str = r#"{
    "channel": "whatsapp",
    "url": "https://api.botmastersender.com/api/v1/?action=send",
    "method": "post",
    "body": "json",
    "fields": {
        "senderId": "{sender}",
        "receiverId": "{recipient_digits}",
        "messageText": "{text}",
        "mediaurl": "{media_url}",
        "authToken": "{token}"
    },
    "carries": ["text"],
    "answer": {
        "success": [{"path": "status", "values": ["success", "true", true]}, {"path": "success", "values": [true, "true"]}],
        "id": ["messageId", "results[0].messageId", "id"],
        "text": ["message", "error"],
        "account_down": {
            "statuses": [401, 403],
            "words": ["expired", "invalid token", "not connected", "scan qr"]
        },
        "refused": {"statuses": [400]},
        "again": {"statuses": [503]}
    },
    "timeout_seconds": 20,
    "serial": true,
    "messages_per_second": 0.2
}"#;

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn botmaster() -> Value {
        serde_json::to_value(preset("botmaster").unwrap()).unwrap()
    }

    #[test]
    fn what_is_built_in_is_read_and_written_back() {
        let config = preset("botmaster").unwrap();
        assert_eq!((config.channel, config.timeout()), (Channel::Whatsapp, Duration::from_secs(20)));
        assert_eq!(GatewayConfig::read(&botmaster().to_string()).unwrap(), config);
        assert!(preset("carrier_pigeon").is_none());
    }

    #[test]
    fn a_description_that_cannot_be_is_refused() {
        for (pointer, value, words) in [
            ("/url", json!("http://api.example"), "url must begin with https"),
            ("/url", json!("no address"), "url must begin with https"),
            ("/channel", json!("messenger"), "channel must be whatsapp or sms"),
            ("/method", json!("get"), "body must be query"),
            ("/method", json!("put"), "unknown variant"),
            ("/carries", json!(["text", "sticker"]), "carries has sticker"),
            ("/fields/messageText", json!("Hello"), "places for {text}"),
            ("/fields/receiverId", json!("1"), "places for {text} and for {recipient}"),
            ("/answer/success", json!([]), "answer.success must have"),
            ("/answer/success/0/path", json!(7), "invalid type"),
            ("/timeout_seconds", json!(0), "timeout_seconds must be 1 to 60"),
            ("/messages_per_second", json!(0.0), "messages_per_second must be"),
            ("/headers", json!({"a b": "c"}), "headers must have"),
            ("/headers", json!({"a": "c\r\nd: e"}), "headers must have"),
            ("/answer/id", json!({}), "invalid type"),
        ] {
            let mut config = botmaster();
            *config.pointer_mut(pointer).unwrap() = value.clone();
            let error = GatewayConfig::read(&config.to_string()).unwrap_err().to_string();
            assert!(error.contains(words), "{pointer} {value}: {error}");
        }
        let mut config = botmaster();
        config["nonsense"] = true.into();
        assert!(GatewayConfig::read(&config.to_string()).unwrap_err().to_string().contains("unknown field"));
        let mut config = botmaster();
        config["carries"] = json!(["text", "image"]);
        assert!(GatewayConfig::read(&config.to_string()).is_ok());
        config["fields"].as_object_mut().unwrap().remove("mediaurl");
        assert!(GatewayConfig::read(&config.to_string()).unwrap_err().to_string().contains("{media_url}"));
        let mut config = botmaster();
        config["body"] = "form".into();
        config["fields"]["nested"] = json!({"a": "b"});
        assert!(GatewayConfig::read(&config.to_string()).unwrap_err().to_string().contains("unless the body is json"));
        let mut config = botmaster();
        config["url"] = "http://127.0.0.1:4000/send".into();
        assert!(GatewayConfig::read(&config.to_string()).is_ok(), "a stand-in on this machine");
    }
}
