//! WhatsApp's shapes: a webhook's entries down to their undecoded elements (contract, sections 2 and 6), times, and the error
//! objects that webhooks and answers to sends share.

use crate::providers::{
    json::{Object, cut},
    lenient::{Lenient, List, members},
    meta::{MAX_FIELD_BYTES, time::moment},
};
use chrono::{DateTime, Utc};
use serde_json::value::RawValue;

/// `entry[]`.
#[derive(Default)]
pub(super) struct Entry<'a> {
    /// The business account; a partner's portfolio on partner events.
    pub(super) id: Option<&'a RawValue>,
    /// When; the `messages` field says it in its elements.
    pub(super) time: Option<&'a RawValue>,
    /// What happened.
    pub(super) changes: List<Lenient<Change<'a>>>,
}

/// `entry[].changes[]`.
#[derive(Default)]
pub(super) struct Change<'a> {
    /// The name of what was subscribed to.
    pub(super) field: Option<&'a RawValue>,
    /// What it says.
    pub(super) value: Option<Value<'a>>,
}

/// `entry[].changes[].value`: whom it is for, its lists, and what other fields than `messages` say.
#[derive(Default)]
pub(super) struct Value<'a> {
    /// The number it is for.
    pub(super) metadata: Option<&'a RawValue>,
    /// The people the messages speak of.
    pub(super) contacts: List<&'a RawValue>,
    /// From people.
    pub(super) messages: List<&'a RawValue>,
    /// About messages of ours.
    pub(super) statuses: List<&'a RawValue>,
    /// About the account.
    pub(super) errors: List<&'a RawValue>,
    /// To people, from the business's telephone.
    pub(super) message_echoes: List<&'a RawValue>,
    /// What people want.
    pub(super) user_preferences: List<&'a RawValue>,
    /// Everything else.
    pub(super) rest: Object<'a>,
}

members!(Entry, "id" value id, "time" value time, "changes" list changes);
members!(Change, "field" value field, "value" object value);
members!(
    Value,
    "metadata" value metadata,
    "contacts" list contacts,
    "messages" list messages,
    "statuses" list statuses,
    "errors" list errors,
    "message_echoes" list message_echoes,
    "user_preferences" list user_preferences;
    but "messaging_product";
    rest rest
);

/// The `timestamp` of an element, in seconds, as a string or a number; `received_at` where it is missing or cannot be.
pub(super) fn time(element: &Object, received_at: DateTime<Utc>) -> DateTime<Utc> {
    element.number("timestamp").and_then(|number| moment(&number, received_at)).unwrap_or(received_at)
}

/// An error object: the same in `value.errors[]`, `messages[].errors[]`, `statuses[].errors[]` and a send's answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ErrorObject {
    /// What to decide by.
    pub(super) code: Option<String>,
    /// Meta's words, the most telling first: details, message, title.
    pub(super) words: Option<String>,
    /// Whether Meta calls it passing.
    pub(super) is_transient: bool,
}

impl ErrorObject {
    /// Reads one.
    pub(super) fn of(error: &Object) -> Self {
        let details = || error.object("error_data")?.words("details");
        // Some payloads have the bare string in `error_data`, older ones `details` beside `code`.
        let words = details()
            .or_else(|| ["error_data", "details", "message", "title"].into_iter().find_map(|key| error.words(key)))
            .map(|words| cut(words, MAX_FIELD_BYTES));
        Self { code: error.id("code").map(Into::into), words, is_transient: error.flag("is_transient") }
    }
}
