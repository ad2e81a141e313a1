//! The entries of the ledger.

use super::super::{
    behaviour::Status,
    platform::{Api, Platform},
};
use chrono::{DateTime, Utc};
use serde::{Serialize, Serializer, ser::SerializeSeq};
use std::{fmt, sync::Arc};

/// One request to send.
#[derive(Debug, Clone, Serialize)]
pub struct SendEntry {
    /// Counted from 1, gaplessly.
    pub seq: u64,
    /// When its head arrived, in microseconds since the sandbox started.
    pub at_us: u64,
    /// The same on the wall clock.
    pub at: DateTime<Utc>,
    /// Who was asked.
    pub provider: Api,
    /// The number, Page, professional account, sender or linked session, as the request names it.
    #[serde(serialize_with = "shared_text")]
    pub account: Arc<str>,
    /// The same: WhatsApp's readers know it by this name.
    #[serde(serialize_with = "shared_text")]
    pub phone_number_id: Arc<str>,
    /// WhatsApp: `wa_id` digits, business-scoped user id or group id. Messenger and Instagram: the scoped id. Twilio: `To`. The
    /// gateway: digits. What was given, if it could not be read.
    pub recipient: Box<str>,
    /// `text`, `template` …, `read_receipt`, `typing`, or `unknown`.
    pub kind: &'static str,
    /// What it counts for in the provider's limits: segments at Twilio, one anywhere else.
    pub units: u32,
    /// SHA-256 of the body.
    #[serde(serialize_with = "hexadecimal")]
    pub digest: [u8; 32],
    /// The caller's own token: `biz_opaque_callback_data`, `metadata`, or `mid` in the query of `StatusCallback`.
    pub opaque: Option<Box<str>>,
    /// The body of a text message.
    pub text: Option<Box<str>>,
    /// Whether the provider took it.
    pub verdict: Verdict,
    /// What the caller got to see of that.
    pub answer: Answer,
    /// What it is charged as.
    pub category: Category,
    /// Sent inside a free entry point window.
    pub free_entry: bool,
    /// Its statuses.
    pub statuses: Trail,
}

/// Whether the provider took a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It is the provider's now, whatever the caller got to see.
    Accepted {
        /// The message's id.
        wamid: Box<str>,
    },
    /// Not taken, for this reason.
    Refused {
        /// The error code; the gateway's HTTP status.
        code: u32,
        /// The subcode beside it (Messenger, Instagram).
        #[serde(skip_serializing_if = "Option::is_none")]
        subcode: Option<u32>,
    },
    /// Not taken, and not looked at either (outage, cut connection).
    NotProcessed,
    /// A call that is no message (read receipt).
    Noted,
}

/// What the caller got to see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// 200 and the documented body.
    Success,
    /// The documented error body.
    Error,
    /// An HTML page with status 502.
    GatewayError,
    /// Nothing: the connection was cut.
    Cut,
    /// The beginning of an answer.
    Truncated,
    /// Nothing for a long time, then a cut.
    Withheld,
}

/// What a message is charged as.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Category {
    /// Free-form.
    #[default]
    Service,
    /// A template of this category.
    Utility,
    /// A template of this category.
    Marketing,
    /// A template of this category.
    Authentication,
}

/// The statuses of one send.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Trail {
    pub(in super::super) made: u8,
    pub(in super::super) taken: u8,
    /// Why it failed, if it did.
    pub failed_code: Option<u32>,
}

/// One webhook to the product.
#[derive(Debug, Clone, Serialize)]
pub struct WebhookEntry {
    /// Counted from 1, gaplessly.
    pub seq: u64,
    /// When it was made, in microseconds since the sandbox started.
    pub at_us: u64,
    /// Whose API it comes from.
    pub platform: Platform,
    /// The number, Page, professional account or sender it is about.
    #[serde(serialize_with = "shared_text")]
    pub account: Arc<str>,
    /// What it carries.
    pub direction: Direction,
    /// What is wrong with it on purpose.
    pub flaw: Flaw,
    /// Messages of people in it.
    pub told: Vec<Told>,
    /// Statuses in it.
    pub statuses: usize,
    /// Length of the body.
    pub bytes: usize,
    /// SHA-256 of the body.
    #[serde(serialize_with = "hexadecimal")]
    pub digest: [u8; 32],
    /// What was answered, each time.
    pub attempts: Vec<Attempt>,
    /// How it stands.
    pub delivery: Delivery,
}

/// What a webhook carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// Messages of people, and other news of a number.
    Inbound,
    /// Statuses of sends.
    Statuses,
}

/// What is wrong with a webhook on purpose.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Flaw {
    /// Nothing.
    #[default]
    None,
    /// It was sent before.
    Repeated,
    /// Signed with another secret.
    Forged,
    /// Rightly signed, but the JSON stops in the middle.
    Truncated,
}

/// A message of a person, as the product is told of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Told {
    /// Whose API it comes from.
    pub platform: Platform,
    /// The message's id.
    pub id: Box<str>,
    /// What it is, in the provider's word.
    pub kind: &'static str,
    /// `wa_id` digits, or the business-scoped user id where the phone is not shared; a page-scoped or Instagram-scoped id; the
    /// address of who writes a text message.
    pub person: Box<str>,
    /// Its text or caption, if it has one that can be stored as it is.
    pub text: Option<Box<str>>,
    /// Parts of it cannot be stored as they are (NUL, lone surrogate, wrong type): it may be repaired or set aside.
    pub garbled: bool,
    /// Unix seconds.
    pub timestamp: i64,
}

/// One delivery attempt of a webhook.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Attempt {
    /// When it began.
    pub at_us: u64,
    /// How long the receiver took.
    pub took_us: u64,
    /// What it answered.
    pub reply: Reply,
}

/// What a receiver answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// An HTTP status.
    Status(u16),
    /// Nothing in time.
    Timeout,
    /// No connection, or it broke.
    Broken,
}

/// How a webhook stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Delivery {
    /// Not answered with 200 yet.
    Pending,
    /// Answered with 200.
    Acknowledged,
    /// Not tried any more.
    GivenUp,
}

impl SendEntry {
    /// The id it was given, if it was accepted.
    pub fn wamid(&self) -> Option<&str> {
        match &self.verdict {
            Verdict::Accepted { wamid } => Some(wamid),
            _ => None,
        }
    }

    /// The message that the caller's token names: `m1:<message>:<attempt>` names `<message>`, anything else itself.
    pub fn message(&self) -> Option<&str> {
        let opaque = self.opaque.as_deref()?;
        Some(opaque.strip_prefix("m1:").and_then(|rest| rest.rsplit_once(':')).map_or(opaque, |(message, _)| message))
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "{status}"),
            Self::Timeout => f.write_str("timeout"),
            Self::Broken => f.write_str("broken"),
        }
    }
}

impl Trail {
    /// Whether this happened to it, and went out if anybody asked to be told.
    pub fn was_made(&self, status: Status) -> bool {
        self.made & status.bit() != 0
    }

    /// Whether the receiver has answered 200 to it.
    pub fn was_taken(&self, status: Status) -> bool {
        self.taken & status.bit() != 0
    }
}

impl Category {
    pub(in super::super) fn of(name: &str) -> Self {
        match name.to_ascii_uppercase().as_str() {
            "MARKETING" => Self::Marketing,
            "UTILITY" => Self::Utility,
            "AUTHENTICATION" => Self::Authentication,
            _ => Self::Service,
        }
    }

    pub(in super::super) fn name(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::Utility => "utility",
            Self::Marketing => "marketing",
            Self::Authentication => "authentication",
        }
    }
}

/// From the least to the furthest.
pub(super) const STATUSES: [Status; 7] =
    [Status::Queued, Status::Echo, Status::Sent, Status::Delivered, Status::Read, Status::Undelivered, Status::Failed];

impl Serialize for Trail {
    /// The statuses the receiver has taken, and `<status>?` for those it has not answered yet.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(None)?;
        for status in STATUSES.into_iter().filter(|status| self.was_made(*status)) {
            if self.was_taken(status) {
                list.serialize_element(status.name())?;
            } else {
                list.serialize_element(&format!("{}?", status.name()))?;
            }
        }
        list.end()
    }
}

fn shared_text<S: Serializer>(text: &Arc<str>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(text)
}

fn hexadecimal<S: Serializer>(digest: &[u8; 32], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&hex::encode(digest))
}
