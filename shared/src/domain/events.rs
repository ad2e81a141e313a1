//! What a provider tells us, in our own words. Every provider's `parse` ends here.

use super::{
    channel::Channel,
    consent::{Consent, Purpose},
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
    /// A second id that the webhook gives for the same account; it counts where nobody has the first (a messaging service
    /// instead of its number, the recipient instead of the entry).
    pub fallback: Option<RouteKey>,
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
    /// Messenger's Page (`entry[].id`).
    PageId(String),
    /// Instagram's professional account (`entry[].id`).
    InstagramAccountId(String),
    /// Twilio's sender: an address of ours as Twilio writes it (`+1503…`, `whatsapp:+1503…`, `24246`), or the SID of a messaging
    /// service (`MG…`).
    TwilioSender(String),
}

impl RouteKey {
    /// The id itself.
    pub fn external_id(&self) -> &str {
        match self {
            RouteKey::PhoneNumberId(id)
            | RouteKey::BusinessAccountId(id)
            | RouteKey::PageId(id)
            | RouteKey::InstagramAccountId(id)
            | RouteKey::TwilioSender(id) => id,
        }
    }

    /// The kind of id, as in `control.channel_routes`: the same digits may name different things.
    pub fn kind(&self) -> &'static str {
        match self {
            RouteKey::PhoneNumberId(_) => "phone_number_id",
            RouteKey::BusinessAccountId(_) => "business_account_id",
            RouteKey::PageId(_) => "page_id",
            RouteKey::InstagramAccountId(_) => "instagram_account_id",
            RouteKey::TwilioSender(_) => "twilio_sender",
        }
    }

    /// The id of this kind; `None` if no kind has that name.
    pub fn from_kind(kind: &str, external_id: String) -> Option<Self> {
        match kind {
            "phone_number_id" => Some(RouteKey::PhoneNumberId(external_id)),
            "business_account_id" => Some(RouteKey::BusinessAccountId(external_id)),
            "page_id" => Some(RouteKey::PageId(external_id)),
            "instagram_account_id" => Some(RouteKey::InstagramAccountId(external_id)),
            "twilio_sender" => Some(RouteKey::TwilioSender(external_id)),
            _ => None,
        }
    }

    /// On which channel people write to it.
    pub fn channel(&self) -> Channel {
        match self {
            RouteKey::PhoneNumberId(_) | RouteKey::BusinessAccountId(_) => Channel::Whatsapp,
            RouteKey::PageId(_) => Channel::Messenger,
            RouteKey::InstagramAccountId(_) => Channel::Instagram,
            RouteKey::TwilioSender(address) => Channel::of_account(super::channel::Provider::Twilio, address),
        }
    }
}

/// One thing a provider told us.
#[derive(Debug)]
pub enum Event {
    /// A person sent something, or did something that is shown like a message: tapped, reacted, edited, took back.
    Message(Box<InboundMessage>),
    /// Something was written to a person in the account's name, by us or elsewhere (the Page's inbox, the telephone's app).
    Echo(Box<Echo>),
    /// A message of ours moved on.
    Status(StatusReport),
    /// Everything we wrote to a person up to a point was delivered or read.
    Watermark(Watermark),
    /// A person does, or does not, want to be written to any more.
    Consent(ConsentChange),
    /// Something about the account changed.
    Account(AccountChange),
    /// A template changed at the provider.
    Template(TemplateChange),
    /// Recognised, without effect, and kept in the log by the provider's name for it.
    Notice {
        /// The provider's name for it (`account_review_update`, `typing`, `standby` …).
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
    /// The provider's element as it came (valid for `jsonb`: no NUL, no lone surrogate). With `"standby": true` added to it another
    /// app controls the thread: the message is shown, and nothing may answer it by itself.
    pub raw: Box<RawValue>,
}

/// What was written in the account's name.
#[derive(Debug)]
pub struct Echo {
    /// The provider's id of the message.
    pub provider_message_id: String,
    /// The provider's time.
    pub at: DateTime<Utc>,
    /// To whom.
    pub recipient: Person,
    /// What it is.
    pub kind: MessageKind,
    /// What a person would read. No NUL.
    pub text: Option<String>,
    /// The files, by reference.
    pub media: Vec<MediaRef>,
    /// The provider's id of the message this one answers.
    pub refers_to: Option<String>,
    /// Which of our attempts it is, where the provider echoes what we gave it: then it is evidence that the attempt was taken.
    pub token: Option<SendToken>,
    /// The provider's element as it came (valid for `jsonb`).
    pub raw: Box<RawValue>,
}

/// Up to where a person has received or read what was written to them (providers/messenger section 2.4,
/// providers/instagram section 2.2). Reading implies delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watermark {
    /// Who received or read.
    pub person: Person,
    /// [`SendState::Delivered`] or [`SendState::Read`].
    pub state: SendState,
    /// Up to where.
    pub through: Through,
    /// The provider's time of the receipt.
    pub at: DateTime<Utc>,
}

/// The point up to which a watermark holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Through {
    /// Everything sent at or before this time, by the provider's clock.
    Time(DateTime<Utc>),
    /// The message with this id of the provider's, and everything before it.
    Message(String),
}

/// What a person wants from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsentChange {
    /// Who.
    pub person: Person,
    /// What about.
    pub purpose: Purpose,
    /// Whether they want it.
    pub consent: Consent,
    /// The provider's word for it (`user_preferences`, `OptOutType` …), for the record.
    pub source: &'static str,
    /// The provider's time.
    pub at: DateTime<Utc>,
}

/// Something about an account, as its provider says it.
#[derive(Clone, Debug, PartialEq)]
pub struct AccountChange {
    /// What changes.
    pub change: AccountNews,
    /// Only the account with this address as customers see it (digits), where several share the id that the webhook gives.
    pub display_address: Option<String>,
    /// The provider's name for it (`phone_number_quality_update` …).
    pub field: String,
    /// The provider's time.
    pub at: DateTime<Utc>,
}

/// What can change about an account.
#[derive(Clone, Debug, PartialEq)]
pub enum AccountNews {
    /// How well customers take its messages, in the provider's word (`GREEN`, `YELLOW`, `RED`).
    Quality(String),
    /// How many messages a second it may handle.
    Throughput(f64),
    /// How many people its portfolio may reach in a day; `None`: as many as it likes.
    MessagingLimit(Option<u32>),
    /// It cannot send: everything of it waits.
    Down {
        /// The provider's word for the reason.
        code: String,
        /// What it means, for a person.
        reason: String,
    },
    /// It can send again.
    Up,
    /// Something an operator should look at; nothing else changes.
    Alert {
        /// The provider's word for it.
        code: String,
        /// What it means, for a person.
        reason: String,
    },
}

/// A template at the provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateChange {
    /// Its name.
    pub name: String,
    /// Its language, as `en_US`.
    pub language: String,
    /// Its state from now on (`APPROVED`, `REJECTED`, `PAUSED`, `DISABLED` …), if that changed.
    pub status: Option<String>,
    /// How well it is taken (`GREEN`, `YELLOW`, `RED`), if that changed.
    pub quality: Option<String>,
    /// Its category (`MARKETING`, `UTILITY` …), if that changed.
    pub category: Option<String>,
    /// Why, in the provider's words.
    pub reason: Option<String>,
    /// The provider's name for it.
    pub field: String,
    /// The provider's time.
    pub at: DateTime<Utc>,
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
