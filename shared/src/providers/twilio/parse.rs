//! From a webhook to events. One is about one message (contract, sections 2 and 3): what a person sent, or what became of what
//! was sent to them. There are no times in it that could be used, so that of its arrival stands for them.

use super::{content, errors, form, people};
use crate::{
    domain::{
        channel::{Channel, Provider},
        consent::{Consent, Purpose},
        events::{BadElement, ConsentChange, Event, InboundMessage, Parsed, Part, RouteKey, SendToken, StatusReport},
        people::Person,
        sends::SendState,
    },
    providers::{
        Unreadable,
        json::{Object, cut, text},
        repair::readable,
    },
};
use chrono::{DateTime, Utc};
use serde_json::{Map, Value, value::RawValue};
use std::{borrow::Cow, collections::BTreeMap};

/// The parameter in the query of a callback's URL that brings back the token of the send (contract, section 3).
pub const TOKEN_PARAMETER: &str = "mid";

/// Ids longer than this are not ids (and would not fit into a Postgres index).
const MAX_ID_BYTES: usize = 512;
const MAX_WORD_BYTES: usize = 128;
const MAX_NAME_BYTES: usize = 256;
const MAX_WORDS_BYTES: usize = 2048;
/// A message has some forty parameters, with ten files sixty. Whoever holds a token can sign a million.
const MAX_PARAMETERS: usize = 1000;

/// Reads a webhook: a form, JSON, or, of one without a body (a GET), the query. `received_at` stands for its time.
///
/// # Errors
/// If it is no webhook about a message, or for no sender of anybody's.
pub fn parse(body: &[u8], query: Option<&str>, received_at: DateTime<Utc>) -> Result<Parsed, Unreadable> {
    let query = Parameters::of_form(query.unwrap_or_default().as_bytes());
    let own = match body.trim_ascii_start().first() {
        None => None,
        // A form may begin so, too: then it is no JSON.
        Some(b'{') => Some(Parameters::of_json(body).unwrap_or_else(|| Parameters::of_form(body))),
        Some(_) => Some(Parameters::of_form(body)),
    };
    let token = query.get(TOKEN_PARAMETER).and_then(SendToken::decode);
    let webhook = Webhook { parameters: own.as_ref().unwrap_or(&query), token, received_at };
    let what = if webhook.is_status() { What::Status } else { What::Message };
    let (route, fallback) =
        webhook.routes(what).ok_or_else(|| Unreadable { reason: "names no sender of ours".into() })?;
    let mut part = Part { route, fallback, events: Vec::new(), bad: Vec::new() };
    let events = match what {
        What::Status => webhook.status(),
        What::Message => webhook.message(&part.route),
    };
    match events {
        Ok(events) => part.events = events,
        Err((name, reason)) => part.bad.push(BadElement { path: name.to_owned(), reason: reason.to_owned() }),
    }
    if webhook.parameters.left_out > 0 {
        let reason = format!("{} more than the {MAX_PARAMETERS} that are read", webhook.parameters.left_out);
        part.bad.push(BadElement { path: "parameters".to_owned(), reason });
    }
    Ok(Parsed { parts: vec![part], bad: Vec::new() })
}

#[derive(Clone, Copy, PartialEq)]
enum What {
    Message,
    Status,
}

/// A webhook's parameters by name, as text fit for Postgres: without NUL and other control characters.
pub(super) struct Parameters {
    values: BTreeMap<String, Vec<String>>,
    left_out: usize,
}

impl Parameters {
    fn of_form(form: &[u8]) -> Self {
        let text = |bytes: Cow<'_, [u8]>| clean(&String::from_utf8_lossy(&bytes));
        Self::of(form::pairs(form).map(|(name, value)| (text(name), text(value))))
    }

    fn of_json(body: &[u8]) -> Option<Self> {
        let body = readable(body);
        let object = Object::parse(&body).ok()?;
        let value = |raw: &RawValue| text(raw).map_or_else(|| clean(raw.get()), |text| clean(&text));
        let members = object.members().filter(|(_, raw)| raw.get() != "null");
        Some(Self::of(members.map(|(name, raw)| (clean(name), value(raw)))))
    }

    fn of(pairs: impl Iterator<Item = (String, String)>) -> Self {
        let (mut values, mut left_out) = (BTreeMap::<String, Vec<String>>::new(), 0);
        for (index, (name, value)) in pairs.enumerate() {
            if index < MAX_PARAMETERS {
                values.entry(name).or_default().push(value);
            } else {
                left_out += 1;
            }
        }
        Self { values, left_out }
    }

    /// The value of `name`; of several, the first.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name)?.first().map(String::as_str)
    }

    /// A value with at least one character that is not white space.
    pub(super) fn words(&self, name: &str) -> Option<&str> {
        self.get(name).map(str::trim).filter(|words| !words.is_empty())
    }

    fn id(&self, name: &str) -> Option<&str> {
        self.words(name).filter(|id| id.len() <= MAX_ID_BYTES)
    }

    /// All of them as one JSON object: of a name that is there several times, the list of its values.
    fn to_json(&self) -> Box<RawValue> {
        let members = self.values.iter().map(|(name, values)| {
            let value = match &values[..] {
                [value] => Value::String(value.clone()),
                values => values.iter().cloned().map(Value::String).collect(),
            };
            (name.clone(), value)
        });
        serde_json::value::to_raw_value(&members.collect::<Map<_, _>>()).expect("an object of strings is always JSON")
    }
}

fn clean(text: &str) -> String {
    text.chars().filter(|c| !c.is_control() || matches!(c, '\n' | '\r' | '\t')).collect()
}

struct Webhook<'a> {
    parameters: &'a Parameters,
    token: Option<SendToken>,
    received_at: DateTime<Utc>,
}

/// The parameter that is wrong, and what is.
type Bad = (&'static str, &'static str);

impl Webhook<'_> {
    /// `MessageStatus` comes with callbacks alone, `SmsStatus` with both.
    fn is_status(&self) -> bool {
        let is_inbound = |word: &str| matches!(word, "received" | "receiving");
        match (self.parameters.words("MessageStatus"), self.parameters.words("SmsStatus")) {
            (Some(word), _) => !is_inbound(word),
            (None, Some(word)) => !is_inbound(word) && self.parameters.get("NumMedia").is_none(),
            (None, None) => false,
        }
    }

    /// The sender of ours that it is about and, should nobody have that, the messaging service it belongs to.
    fn routes(&self, what: What) -> Option<(RouteKey, Option<RouteKey>)> {
        let ours = match what {
            What::Message => "To",
            What::Status => "From",
        };
        let sender = |name| self.parameters.id(name).map(|id| RouteKey::TwilioSender(id.to_owned()));
        match (sender(ours), sender("MessagingServiceSid")) {
            (Some(address), service) => Some((address, service)),
            (None, Some(service)) => Some((service, None)),
            (None, None) => None,
        }
    }

    fn message_id(&self) -> Result<String, Bad> {
        let names = ["MessageSid", "SmsMessageSid", "SmsSid"];
        let id = names.into_iter().find_map(|name| self.parameters.id(name));
        id.map(str::to_owned).ok_or(("MessageSid", "is missing or none"))
    }

    fn message(&self, route: &RouteKey) -> Result<Vec<Event>, Bad> {
        let parameters = self.parameters;
        let id = self.message_id()?;
        let from = parameters.words("From").unwrap_or_default();
        let aliases = people::aliases(from, parameters.words("WaId"), parameters.words("ExternalUserId"));
        if aliases.is_empty() {
            return Err(("From", "names nobody"));
        }
        let name = parameters.words("ProfileName").map(|name| cut(name.into(), MAX_NAME_BYTES));
        let sender = Person { aliases, name: name.or_else(|| self.name_in_metadata()), username: None };
        // The address of a messaging service does not tell its channel; the person's does.
        let is_text_message = [from, route.external_id()]
            .iter()
            .all(|address| Channel::of_account(Provider::Twilio, address) == Channel::Sms);
        let content = content::read(parameters, is_text_message);
        let consent = self.consent().map(|consent| self.consent_of(sender.clone(), consent, "OptOutType"));
        let message = InboundMessage {
            provider_message_id: id,
            at: self.received_at,
            sender,
            new_aliases: Vec::new(),
            kind: content.kind,
            text: content.text,
            media: content.media,
            refers_to: parameters.id("OriginalRepliedMessageSid").map(str::to_owned),
            group_id: None,
            raw: parameters.to_json(),
        };
        Ok([Event::Message(Box::new(message))].into_iter().chain(consent).collect())
    }

    /// The display name where it is not a parameter of its own.
    fn name_in_metadata(&self) -> Option<String> {
        let metadata = Object::parse(self.parameters.get("ChannelMetadata")?).ok()?;
        let name = metadata.object("data")?.object("context")?.words("ProfileName").map(|name| clean(&name))?;
        Some(cut(name.into(), MAX_NAME_BYTES)).filter(|name| !name.trim().is_empty())
    }

    /// What Advanced Opt-Out has understood (contract, section 11). It asks for nothing else with HELP.
    fn consent(&self) -> Option<Consent> {
        match self.parameters.words("OptOutType")?.to_ascii_uppercase().as_str() {
            "STOP" => Some(Consent::OptedOut),
            "START" => Some(Consent::OptedIn),
            _ => None,
        }
    }

    /// Twilio then refuses everything, or lets it through again.
    fn consent_of(&self, person: Person, consent: Consent, source: &'static str) -> Event {
        Event::Consent(ConsentChange { person, purpose: Purpose::All, consent, source, at: self.received_at })
    }

    fn status(&self) -> Result<Vec<Event>, Bad> {
        let parameters = self.parameters;
        let id = self.message_id()?;
        let word = parameters.words("MessageStatus").or_else(|| parameters.words("SmsStatus")).unwrap_or_default();
        let Some(state) = state(word) else { return Ok(vec![Event::Notice { field: "MessageStatus".into() }]) };
        let failed = state == SendState::Failed;
        let code = parameters.words("ErrorCode").filter(|code| failed && *code != "0");
        let code = code.map(|code| cut(code.into(), MAX_WORD_BYTES));
        let reason = failed.then(|| match (word, &code) {
            ("canceled", None) => "The message was taken back at Twilio before it was sent.".to_owned(),
            _ => {
                let words =
                    ["ChannelStatusMessage", "ErrorMessage"].into_iter().find_map(|name| parameters.words(name));
                let words = words.map(|words| cut(words.into(), MAX_WORDS_BYTES));
                errors::explain(code.as_deref(), words.as_deref())
            }
        });
        let opted_out = code.as_deref().is_some_and(errors::suppresses).then(|| {
            let aliases = people::aliases(parameters.words("To").unwrap_or_default(), None, None);
            Person { aliases, ..Person::default() }
        });
        let opted_out = opted_out.filter(|person| !person.aliases.is_empty());
        let opted_out = opted_out.map(|person| self.consent_of(person, Consent::OptedOut, "ErrorCode"));
        let report = StatusReport {
            provider_message_id: id,
            state,
            status: word.to_owned(),
            at: self.received_at,
            code,
            reason,
            token: self.token,
        };
        Ok([Event::Status(report)].into_iter().chain(opted_out).collect())
    }
}

/// What a status means for a send; `None` if it is not documented. What Twilio has taken, in whatever queue it waits there, is
/// sent: the call's own answer says no more (contract, section 3).
fn state(word: &str) -> Option<SendState> {
    match word {
        "accepted" | "scheduled" | "queued" | "sending" | "sent" | "partially_delivered" => Some(SendState::Sent),
        "delivered" => Some(SendState::Delivered),
        "read" => Some(SendState::Read),
        "undelivered" | "failed" | "canceled" => Some(SendState::Failed),
        _ => None,
    }
}

#[cfg(test)]
mod mutations;
#[cfg(test)]
mod tests;
