//! Meta's shapes: a webhook's envelope down to its undecoded elements (contract, sections 2 and 6), times, and the error
//! objects that webhooks and answers to sends share.

use crate::providers::{
    json::{Object, cut},
    lenient::{Lenient, List, Members},
};
use chrono::{DateTime, TimeDelta, Utc};
use serde::de::{IgnoredAny, MapAccess};
use serde_json::value::RawValue;

/// A webhook.
#[derive(Default)]
pub(super) struct Envelope<'a> {
    /// What it is about.
    pub(super) object: Option<&'a RawValue>,
    /// One per business account, or several.
    pub(super) entries: List<Lenient<Entry<'a>>>,
}

/// `entry[]`.
#[derive(Default)]
pub(super) struct Entry<'a> {
    /// The business account; a partner's portfolio on partner events.
    pub(super) id: Option<&'a RawValue>,
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

/// `entry[].changes[].value`, as far as it says whom it is for, and the lists of the `messages` field.
#[derive(Default)]
pub(super) struct Value<'a> {
    /// The number it is for.
    pub(super) metadata: Option<&'a RawValue>,
    /// The business account a partner's event is about.
    pub(super) waba_info: Option<&'a RawValue>,
    /// The people the messages speak of.
    pub(super) contacts: List<&'a RawValue>,
    /// From people.
    pub(super) messages: List<&'a RawValue>,
    /// About messages of ours.
    pub(super) statuses: List<&'a RawValue>,
    /// About the account.
    pub(super) errors: List<&'a RawValue>,
    /// What an alert consists of.
    pub(super) alert_info: Option<&'a RawValue>,
    /// A template's.
    pub(super) new_quality_score: Option<&'a RawValue>,
}

macro_rules! members {
    ($shape:ident, $($key:literal $kind:ident $member:ident),+) => {
        impl<'de> Members<'de> for $shape<'de> {
            fn member<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
                match key {
                    $($key => members!($kind self.$member, map),)+
                    _ => drop(map.next_value::<IgnoredAny>()?),
                }
                Ok(())
            }
        }
    };
    (value $member:expr, $map:ident) => { $member = $map.next_value()? };
    (object $member:expr, $map:ident) => { $member = $map.next_value::<Lenient<_>>()?.0 };
    (list $member:expr, $map:ident) => { $member.extend($map.next_value()?) };
}

members!(Envelope, "object" value object, "entry" list entries);
members!(Entry, "id" value id, "changes" list changes);
members!(Change, "field" value field, "value" object value);
members!(
    Value,
    "metadata" value metadata,
    "waba_info" value waba_info,
    "contacts" list contacts,
    "messages" list messages,
    "statuses" list statuses,
    "errors" list errors,
    "alert_info" value alert_info,
    "new_quality_score" value new_quality_score
);

/// A provider's clock may be ahead of ours; a time further ahead than this is none.
const MAX_AHEAD: TimeDelta = TimeDelta::minutes(5);
/// 2009-01-01, the year in which WhatsApp began: what is older is no time of a message.
const EARLIEST: i64 = 1_230_768_000;
const MAX_WORDS_BYTES: usize = 2048;

/// The `timestamp` of an element, in seconds, as a string or a number; `received_at` where it is missing or cannot be.
pub(super) fn time(element: &Object, received_at: DateTime<Utc>) -> DateTime<Utc> {
    let seconds = element.number("timestamp").and_then(|text| text.parse::<f64>().ok());
    let at = seconds.and_then(|seconds| DateTime::from_timestamp(seconds as i64, 0));
    at.filter(|at| at.timestamp() >= EARLIEST && *at <= received_at + MAX_AHEAD).unwrap_or(received_at)
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
            .map(|words| cut(words, MAX_WORDS_BYTES));
        Self { code: error.id("code").map(Into::into), words, is_transient: error.flag("is_transient") }
    }
}
