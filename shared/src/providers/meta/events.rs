//! What an element says, as events of ours (providers/messenger section 2, providers/instagram section 2).
//!
//! | key | becomes |
//! |---|---|
//! | `message` | a message, an echo if the business wrote it; taken back: one that refers to it |
//! | `message_edit`, `reaction` | a message (an echo) that refers to the one edited or reacted to |
//! | `postback`, `order` | a message |
//! | `referral`, `optin` of a plugin | a message that says nothing: the person came |
//! | `optin` of notifications | consent to marketing |
//! | `delivery`, `read` | a watermark, and a report for each message named |
//! | `policy_enforcement` | what became of the account |
//! | thread control, roles, account linking, feedback, games, typing | a notice |
//! | anything else | an unsupported message if a person sent it and it has an id, else a notice |
//!
//! What has no id of its own gets one made of what it is about, so that it is stored once however often it comes.

use super::{
    MAX_FIELD_BYTES, MAX_WORD_BYTES, Platform,
    content::{self, Content},
    element::Element,
    notice,
    time::moment,
};
use crate::{
    domain::{
        consent::{Consent, Purpose},
        events::{
            AccountChange, AccountNews, ConsentChange, Echo, Event, InboundMessage, SendToken, StatusReport, Through,
            Watermark,
        },
        messages::MessageKind,
        people::Person,
        sends::SendState,
    },
    providers::json::{self, MAX_ID_BYTES, Object, cut},
};
use chrono::{DateTime, Utc};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use std::borrow::Cow;

/// What a cart lists; whoever holds a secret can sign more.
const MAX_PRODUCTS: usize = 200;

/// What an element can tell: each under its key.
const KINDS: &[&str] = &[
    "message",
    "message_edit",
    "reaction",
    "delivery",
    "read",
    "postback",
    "referral",
    "optin",
    "order",
    "policy_enforcement",
    // What follows is noted.
    "pass_thread_control",
    "take_thread_control",
    "request_thread_control",
    "app_roles",
    "account_linking",
    "messaging_feedback",
    "response_feedback",
    "game_play",
    "typing",
];

/// An element about to be read.
pub(super) struct Said<'s, 'a> {
    pub(super) platform: &'s Platform,
    pub(super) element: &'s Element<'a>,
    pub(super) raw: &'a RawValue,
    /// `messaging` or `standby`.
    pub(super) list: &'static str,
    pub(super) received_at: DateTime<Utc>,
}

/// Why an element of a known kind is not one.
type Bad = &'static str;

impl Said<'_, '_> {
    /// Tells every event of the element.
    pub(super) fn read(&self, tell: &mut impl FnMut(Event)) -> Result<(), Bad> {
        let said = self.element.said();
        // Of a key given twice the last, as everywhere: each event keeps the whole element.
        let mut kinds: Vec<(&str, &RawValue)> = Vec::with_capacity(1);
        for (key, raw) in said.members().rev().filter(|(key, _)| KINDS.contains(key)) {
            if kinds.iter().all(|(known, _)| *known != key) {
                kinds.push((key, raw));
            }
        }
        if kinds.is_empty() {
            tell(self.stranger());
        }
        kinds.into_iter().rev().try_for_each(|(key, raw)| self.kind(key, raw, tell))
    }

    /// Tells what stands under one of [`KINDS`].
    fn kind(&self, key: &str, raw: &RawValue, tell: &mut impl FnMut(Event)) -> Result<(), Bad> {
        let object = || Object::of(raw).ok_or("says something that is no object");
        match key {
            "message" => tell(self.message(self.element.message.as_ref().ok_or("has a message that is no object")?)?),
            "message_edit" => tell(self.edit(&object()?)?),
            "reaction" => tell(self.reaction(&object()?)?),
            "delivery" => self.delivery(&object()?, tell)?,
            "read" => tell(self.seen(&object()?)?),
            "postback" => tell(self.postback(&object()?)?),
            "referral" => {
                object()?;
                tell(self.arrival(key, None)?);
            }
            "optin" => tell(self.optin(&object()?)?),
            "order" => tell(self.order(&object()?)?),
            "policy_enforcement" => tell(self.policy(&object()?)),
            _ => tell(notice(key)),
        }
        Ok(())
    }

    /// What this release does not know. It may be about another message: the id in it is not its own.
    fn stranger(&self) -> Event {
        let said = self.element.said();
        let object = said.members().find_map(|(key, raw)| Some((key, Object::of(raw)?)));
        if let Some((key, mid)) = object.and_then(|(key, object)| Some((key, object.id("mid")?)))
            && !self.element.is_ours
            && let Some(person) = self.element.person(self.platform, None)
        {
            let id = about(&mid, &format!("#{}:{}", cut(key.into(), MAX_WORD_BYTES), self.stamp()));
            return self.told(person, id, Content::new(MessageKind::Unsupported, None), Some(mid), None);
        }
        notice(said.members().next().map_or(self.list, |(key, _)| key))
    }

    fn message(&self, message: &Object) -> Result<Event, Bad> {
        if message.flag("is_self") || self.element.is_to_itself() {
            return Ok(notice("is_self"));
        }
        let mid = message.id("mid").ok_or("has no usable id")?;
        let person = self.person()?;
        if message.flag("is_deleted") {
            return Ok(self.told(
                person,
                about(&mid, "#deleted"),
                Content::new(MessageKind::Revoke, None),
                Some(mid),
                None,
            ));
        }
        let content = content::read(message, self.element.is_ours);
        let answered = message.object("reply_to").and_then(|target| target.id("mid"));
        let token = message.text("metadata").and_then(|text| SendToken::decode(&text));
        Ok(self.told(person, mid.into_owned(), content, answered, token))
    }

    /// One without words, as Instagram sends it for a message that was never edited, changes nothing.
    fn edit(&self, edit: &Object) -> Result<Event, Bad> {
        let Some(text) = edit.words("text") else { return Ok(notice("message_edit")) };
        let mid = edit.id("mid").ok_or("has no usable id")?;
        let number = edit.number("num_edit").filter(|number| number.len() <= MAX_WORD_BYTES);
        let id = about(&mid, &format!("#edit:{}", number.unwrap_or_else(|| self.stamp())));
        Ok(self.told(self.person()?, id, Content::new(MessageKind::Edit, Some(text)), Some(mid), None))
    }

    /// Its text is the emoji, or Meta's word for it; none if the reaction was taken back.
    fn reaction(&self, reaction: &Object) -> Result<Event, Bad> {
        let mid = reaction.id("mid").ok_or("has no usable id")?;
        let person = self.person()?;
        let is_set = reaction.text("action").is_none_or(|action| action != "unreact");
        let text = || reaction.words("emoji").or_else(|| reaction.words("reaction"));
        let content = Content::new(MessageKind::Reaction, is_set.then(text).flatten());
        let id = about(&mid, &format!("#reaction:{}:{}", person.aliases[0].value, self.stamp()));
        Ok(self.told(person, id, content, Some(mid), None))
    }

    fn postback(&self, postback: &Object) -> Result<Event, Bad> {
        if self.element.is_ours {
            return Ok(notice("postback"));
        }
        let person = self.person()?;
        let id = postback.id("mid").map_or_else(|| self.made("postback", &person), Cow::into_owned);
        Ok(self.told(person, id, Content::new(MessageKind::Postback, postback.words("title")), None, None))
    }

    /// The person came, and said nothing.
    fn arrival(&self, key: &str, reference: Option<Cow<'_, str>>) -> Result<Event, Bad> {
        if self.element.is_ours {
            return Ok(notice(key));
        }
        let person = self.element.person(self.platform, reference).ok_or("names no sender")?;
        let id = self.made(key, &person);
        Ok(self.told(person, id, Content::new(MessageKind::Referral, None), None, None))
    }

    /// To notifications, which are marketing, or by a plugin (providers/messenger section 2.6).
    fn optin(&self, optin: &Object) -> Result<Event, Bad> {
        if optin.text("type").as_deref() != Some("notification_messages") {
            return self.arrival("optin", optin.id("user_ref"));
        }
        let consent = match optin.text("notification_messages_status").as_deref() {
            Some("STOP NOTIFICATIONS") => Consent::OptedOut,
            Some("RESUME NOTIFICATIONS") | None => Consent::OptedIn,
            Some(_) => return Ok(notice("optin")),
        };
        if self.element.is_ours {
            return Ok(notice("optin"));
        }
        Ok(Event::Consent(ConsentChange {
            person: self.person()?,
            purpose: Purpose::Marketing,
            consent,
            source: "optin",
            at: self.at(),
        }))
    }

    /// The buyer's note and a line for each product: `2 × Kettle (19.90 EUR)`.
    fn order(&self, order: &Object) -> Result<Event, Bad> {
        if self.element.is_ours {
            return Ok(notice("order"));
        }
        let person = self.person()?;
        let lines = order.objects("products").take(MAX_PRODUCTS).filter_map(|product| {
            let name = ["name", "title"].into_iter().find_map(|key| product.words(key));
            let name = name.or_else(|| product.id("retailer_id")).or_else(|| product.id("id"))?;
            let quantity = product.number("quantity").unwrap_or("1".into());
            let price = product.number("unit_price").zip(product.words("currency"));
            let price = price.map(|(price, currency)| format!(" ({price} {currency})")).unwrap_or_default();
            Some(format!("{quantity} × {name}{price}"))
        });
        let lines: Vec<_> = order.words("note").map(Cow::into_owned).into_iter().chain(lines).collect();
        let id = order.id("mid").map_or_else(|| self.made("order", &person), Cow::into_owned);
        let content = Content::new(MessageKind::Order, Some(lines.join("\n").into()));
        Ok(self.told(person, id, content, None, None))
    }

    /// Which messages, where they are named, and up to when. What the business itself received is no news.
    fn delivery(&self, delivery: &Object, tell: &mut impl FnMut(Event)) -> Result<(), Bad> {
        let through = self.through(delivery);
        let mids: Vec<_> = delivery.items("mids").into_iter().filter_map(json::id).collect();
        if self.element.is_ours || (through.is_none() && mids.is_empty()) {
            tell(notice("delivery"));
            return Ok(());
        }
        for mid in mids {
            tell(Event::Status(StatusReport {
                provider_message_id: mid.into_owned(),
                state: SendState::Delivered,
                status: "delivery".to_owned(),
                at: self.at(),
                code: None,
                reason: None,
                token: None,
            }));
        }
        if let Some(through) = through {
            tell(Event::Watermark(Watermark {
                person: self.person()?,
                state: SendState::Delivered,
                through,
                at: self.at(),
            }));
        }
        Ok(())
    }

    /// Up to when (Messenger), or up to which message (Instagram).
    fn seen(&self, read: &Object) -> Result<Event, Bad> {
        let message = || read.id("mid").map(|mid| Through::Message(mid.into_owned()));
        match self.through(read).or_else(message) {
            Some(through) if !self.element.is_ours => Ok(Event::Watermark(Watermark {
                person: self.person()?,
                state: SendState::Read,
                through,
                at: self.at(),
            })),
            _ => Ok(notice("read")),
        }
    }

    fn through(&self, receipt: &Object) -> Option<Through> {
        Some(Through::Time(moment(&receipt.number("watermark")?, self.received_at)?))
    }

    /// The Page's messages are blocked, or not any more; or it is warned (providers/messenger section 2.7).
    fn policy(&self, policy: &Object) -> Event {
        let field = "policy_enforcement".to_owned();
        let reason = || {
            let words = policy.words("reason").map(|words| cut(words, MAX_FIELD_BYTES));
            words.unwrap_or_else(|| "Meta says that its policies were violated.".to_owned())
        };
        let change = match policy.text("action").as_deref() {
            Some("block") => AccountNews::Down { code: field.clone(), reason: reason() },
            Some("unblock") => AccountNews::Up,
            Some("warning") => AccountNews::Alert { code: field.clone(), reason: reason() },
            _ => return Event::Notice { field },
        };
        Event::Account(AccountChange { change, display_address: None, field, at: self.at() })
    }

    fn person(&self) -> Result<Person, Bad> {
        let nobody = if self.element.is_ours { "names no recipient" } else { "names no sender" };
        self.element.person(self.platform, None).ok_or(nobody)
    }

    fn at(&self) -> DateTime<Utc> {
        self.element.at(self.received_at)
    }

    /// The element's time as it stands there, to tell it from others.
    fn stamp(&self) -> Cow<'_, str> {
        let stamp = self.element.timestamp().filter(|stamp| stamp.len() <= MAX_WORD_BYTES);
        stamp.unwrap_or_else(|| self.received_at.timestamp_millis().to_string().into())
    }

    /// The id of what has none.
    fn made(&self, kind: &str, person: &Person) -> String {
        format!("{kind}:{}:{}", person.aliases[0].value, self.stamp())
    }

    /// Something that a person, or the business to a person, said or did.
    fn told(
        &self,
        person: Person,
        provider_message_id: String,
        content: Content,
        refers_to: Option<Cow<'_, str>>,
        token: Option<SendToken>,
    ) -> Event {
        let Content { kind, text, media } = content;
        let (at, refers_to, raw) = (self.at(), refers_to.map(Cow::into_owned), self.raw());
        if self.element.is_ours {
            return Event::Echo(Box::new(Echo {
                provider_message_id,
                at,
                recipient: person,
                kind,
                text,
                media,
                refers_to,
                token,
                raw,
            }));
        }
        Event::Message(Box::new(InboundMessage {
            provider_message_id,
            at,
            sender: person,
            new_aliases: Vec::new(),
            kind,
            text,
            media,
            refers_to,
            group_id: None,
            raw,
        }))
    }

    /// The element as it came; on standby, with a mark.
    fn raw(&self) -> Box<RawValue> {
        if self.list != "standby" {
            return self.raw.to_owned();
        }
        let open = self.raw.get().trim_end().strip_suffix('}').expect("an element is an object");
        RawValue::from_string(format!("{open},\"standby\":true}}")).unwrap_or_else(|_| self.raw.to_owned())
    }
}

/// The id of something about a message. Ids of messages are long; one for which there is no room is told by its digest.
fn about(mid: &str, what: &str) -> String {
    if mid.len() + what.len() <= MAX_ID_BYTES {
        return format!("{mid}{what}");
    }
    format!("sha256:{}{what}", hex::encode(Sha256::digest(mid)))
}
