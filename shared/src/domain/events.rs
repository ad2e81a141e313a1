//! What a provider tells us, in our own words. Every provider's `parse` ends here.

use super::{
    ids::{AttemptId, MessageId},
    messages::{MediaRef, MessageKind},
    people::{Alias, Person},
    sends::SendState,
};
use chrono::{DateTime, Utc};
use serde_json::value::RawValue;
use std::fmt;

/// One webhook, taken apart.
#[derive(Debug, Default)]
pub struct Parsed {
    /// What it says, each part with the account it is for.
    pub parts: Vec<Part>,
    /// What could not be read and is for no account that could be made out.
    pub bad: Vec<BadElement>,
}

/// What one webhook says to one account.
#[derive(Debug)]
pub struct Part {
    /// The provider's id of the account: what routes it to a tenant.
    pub route: RouteKey,
    /// The events, in the webhook's order.
    pub events: Vec<Event>,
    /// Elements that could not be read at all. Their siblings are in `events`.
    pub bad: Vec<BadElement>,
}

/// How a provider names the account a part is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RouteKey {
    /// WhatsApp's `metadata.phone_number_id`.
    PhoneNumberId(String),
    /// WhatsApp's business account (`entry[].id`), for account-level fields that carry no number.
    BusinessAccountId(String),
}

impl RouteKey {
    /// The id itself.
    pub fn external_id(&self) -> &str {
        match self {
            RouteKey::PhoneNumberId(id) | RouteKey::BusinessAccountId(id) => id,
        }
    }
}

/// One thing a provider told us.
#[derive(Debug)]
pub enum Event {
    /// A person sent something.
    Message(Box<InboundMessage>),
    /// A message of ours moved on.
    Status(StatusReport),
    /// Something about the account, a template or a preference, recognised and kept in the log by its field's name.
    Notice {
        /// The provider's name for it (`account_update`, `message_template_status_update` …).
        field: String,
    },
}

/// A message from a person.
#[derive(Debug)]
pub struct InboundMessage {
    /// The provider's id of the message: the dedupe key within an account.
    pub provider_message_id: String,
    /// The provider's time.
    pub at: DateTime<Utc>,
    /// Who wrote.
    pub sender: Person,
    /// Further names that from now on mean the same person (a changed number or user id).
    pub new_aliases: Vec<Alias>,
    /// What it is.
    pub kind: MessageKind,
    /// What a person would read: body, caption, the title tapped. No NUL.
    pub text: Option<String>,
    /// The files, by reference.
    pub media: Vec<MediaRef>,
    /// The provider's id of the message this one answers, reacts to, edits or revokes.
    pub refers_to: Option<String>,
    /// The provider's id of the group it was written in; `None` for what was written to us alone.
    pub group_id: Option<String>,
    /// The provider's element as it came (valid for `jsonb`: no NUL, no lone surrogate).
    pub raw: Box<RawValue>,
}

/// What became of a message of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusReport {
    /// The provider's id of our message.
    pub provider_message_id: String,
    /// One of sent, delivered, read, failed.
    pub state: SendState,
    /// The provider's word for it.
    pub status: String,
    /// The provider's time.
    pub at: DateTime<Utc>,
    /// The provider's error code, if failed.
    pub code: Option<String>,
    /// What the error means, for a person, with the provider's words; if failed.
    pub reason: Option<String>,
    /// Which of our attempts it belongs to, where the provider echoes what we gave it.
    pub token: Option<SendToken>,
}

/// What we give a provider with a send so that its echo tells which attempt it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SendToken {
    /// The message.
    pub message_id: MessageId,
    /// The attempt.
    pub attempt_id: AttemptId,
}

impl SendToken {
    /// As text: `m1:<message>:<attempt>`, 67 characters of `[0-9a-f:m]`.
    pub fn encode(&self) -> String {
        format!("m1:{}:{}", self.message_id.0.simple(), self.attempt_id.0.simple())
    }

    /// From text; `None` if it is somebody else's.
    pub fn decode(text: &str) -> Option<Self> {
        let (message, attempt) = text.strip_prefix("m1:")?.split_once(':')?;
        Some(Self { message_id: message.parse().ok()?, attempt_id: attempt.parse().ok()? })
    }
}

/// A part of a webhook that could not be read.
#[derive(Debug)]
pub struct BadElement {
    /// Where it stands (`entry[0].changes[1].value.messages[3]`).
    pub path: String,
    /// What is wrong.
    pub reason: String,
}

impl fmt::Display for BadElement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_its_journey_and_strangers_are_not_ours() {
        let token = SendToken { message_id: MessageId::new(), attempt_id: AttemptId::new() };
        assert_eq!(SendToken::decode(&token.encode()), Some(token));
        assert!(token.encode().len() <= 512);
        for text in ["", "m1:", "tenant-4/msg-9912", "m1:x:y", "m2:a:b"] {
            assert_eq!(SendToken::decode(text), None, "{text}");
        }
    }
}
