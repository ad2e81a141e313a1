//! What Messenger and Instagram share: people with an id for one account alone, and webhooks whose `entry[].messaging[]` holds
//! events with a sender, a recipient and a time in milliseconds (messenger contract page, section 1.5).

mod attachments;
mod body;
pub mod desk;
mod errors;
mod front;
mod nodes;
pub(super) mod receipts;
mod send;

pub(super) use errors::documented;
pub(super) use front::{Call, handle, names};

use super::platform::AccountSpec;
use serde_json::{Map, Value, json};

/// One element of `messaging[]` in the making.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment<'a> {
    /// The Page or professional account.
    pub(super) account: &'a AccountSpec,
    /// The person's id for that account.
    pub(super) person: &'a str,
    /// This message's id.
    pub(super) id: &'a str,
    /// A message it refers to, of either side.
    pub(super) about: &'a str,
    pub(super) text: &'a str,
    /// Which edit of a message it is.
    pub(super) nth_edit: u32,
    /// Unix milliseconds.
    pub(super) at_ms: i64,
    /// Up to when the account's messages were delivered or read.
    pub(super) watermark_ms: i64,
}

impl Moment<'_> {
    /// An event of the person's.
    pub(super) fn by_person(&self, key: &str, value: Value) -> Value {
        self.event(json!({"id": self.person}), json!({"id": self.account.id}), key, value)
    }

    /// An event of the account's: an echo.
    pub(super) fn by_account(&self, key: &str, value: Value) -> Value {
        self.event(json!({"id": self.account.id}), json!({"id": self.person}), key, value)
    }

    /// A message of the person's with these parts beside its id.
    pub(super) fn message(&self, parts: Value) -> Value {
        self.by_person("message", with_id(self.id, parts))
    }

    /// A message of the account's, echoed.
    pub(super) fn echo(&self, parts: Value) -> Value {
        let mut message = with_id(self.id, parts);
        message["is_echo"] = json!(true);
        self.by_account("message", message)
    }

    /// An event without a person.
    pub(super) fn of_account(&self, key: &str, value: Value) -> Value {
        let mut event = json!({"recipient": {"id": self.account.id}, "timestamp": self.at_ms});
        event[key] = value;
        event
    }

    /// A message with one attachment.
    pub(super) fn attachment(&self, kind: &str, payload: Option<Value>) -> Value {
        self.message(json!({"attachments": [attachment(kind, payload)]}))
    }

    fn event(&self, sender: Value, recipient: Value, key: &str, value: Value) -> Value {
        let mut event = json!({"sender": sender, "recipient": recipient, "timestamp": self.at_ms});
        event[key] = value;
        event
    }
}

/// An element of `attachments[]`.
pub(super) fn attachment(kind: &str, payload: Option<Value>) -> Value {
    let mut attachment = json!({"type": kind});
    if let Some(payload) = payload {
        attachment["payload"] = payload;
    }
    attachment
}

/// The whole webhook around elements of `messaging[]` or `standby[]`, one entry each: that is how they are documented.
pub(super) fn webhook(object: &str, account: &AccountSpec, events: Vec<(&'static str, Value)>, at_ms: i64) -> Value {
    let entry = |(list, event): (&str, Value)| {
        let mut entry = json!({"id": account.id, "time": at_ms});
        entry[list] = json!([event]);
        entry
    };
    let entries: Vec<Value> = events.into_iter().map(entry).collect();
    json!({"object": object, "entry": entries})
}

/// The same with everything in one entry, which integrators have seen.
pub(super) fn webhook_in_one_entry(object: &str, account: &AccountSpec, events: Vec<Value>, at_ms: i64) -> Value {
    json!({"object": object, "entry": [{"id": account.id, "time": at_ms, "messaging": events}]})
}

fn with_id(id: &str, parts: Value) -> Value {
    let mut message = Map::new();
    message.insert("mid".into(), json!(id));
    if let Value::Object(parts) = parts {
        message.extend(parts);
    }
    message.into()
}
