//! A webhook as events: every entry, change and element of it, each on its own, so that a damaged one harms no other.
//! Decides neither whether a message is new nor which tenant it is for.

use super::{
    errors::explain,
    message,
    people::Contacts,
    wire::{Change, Entry, Envelope, ErrorObject, Value, time},
};
use crate::{
    domain::{
        events::{BadElement, Event, Parsed, Part, RouteKey, SendToken, StatusReport},
        sends::SendState,
    },
    providers::{
        Unreadable,
        json::{Object, cut, id, text},
        lenient::{Lenient, List},
        repair::readable,
    },
};
use chrono::{DateTime, Utc};
use serde_json::value::RawValue;
use std::{borrow::Cow, collections::HashMap, fmt};

/// What `object` must say.
const OBJECT: &str = "whatsapp_business_account";
/// The field that carries messages and statuses. Elements of the same name in others are history or echoes.
const MESSAGES: &str = "messages";
const MAX_WORD_BYTES: usize = 128;
/// Meta puts at most 1,000 updates into one webhook. Whoever holds a secret can sign a million empty ones.
const MAX_ELEMENTS: usize = 20_000;

/// Reads a webhook. `received_at` stands in for missing and impossible times.
///
/// # Errors
/// Only if the body as a whole is no JSON or no webhook of WhatsApp's. What is wrong with a part of it is in
/// [`Parsed::bad`] and [`Part::bad`].
pub fn parse(body: &[u8], received_at: DateTime<Utc>) -> Result<Parsed, Unreadable> {
    let readable = readable(body);
    let unreadable = |reason: String| Unreadable { reason };
    let envelope: Lenient<Envelope> =
        serde_json::from_str(&readable).map_err(|e| unreadable(format!("no JSON: {e}")))?;
    let Lenient(Some(Envelope { object, entries })) = envelope else { return Err(unreadable("no object".into())) };
    if object.and_then(text).as_deref() != Some(OBJECT) {
        return Err(unreadable(format!("`object` is not `{OBJECT}`")));
    }
    let List::Items(entries) = entries else { return Err(unreadable("`entry` is not a list".into())) };
    let mut reading = Reading { received_at, parsed: Parsed::default(), places: HashMap::new(), elements: 0 };
    for (index, entry) in entries.into_iter().enumerate() {
        reading.entry(Place { entry: index, change: None }, entry);
    }
    Ok(reading.finish())
}

/// Where in the webhook we are.
#[derive(Clone, Copy)]
struct Place {
    entry: usize,
    change: Option<usize>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "entry[{}]", self.entry)?;
        self.change.map_or(Ok(()), |change| write!(f, ".changes[{change}]"))
    }
}

struct Reading {
    received_at: DateTime<Utc>,
    parsed: Parsed,
    /// Where in `parsed.parts` an account's part is; empty while there is only one.
    places: HashMap<RouteKey, usize>,
    elements: usize,
}

impl Reading {
    fn entry(&mut self, place: Place, entry: Lenient<Entry>) {
        let Lenient(Some(entry)) = entry else { return self.bad(place, "is no object") };
        let List::Items(changes) = entry.changes else { return self.bad(place, "has no list of changes") };
        let account_id = entry.id.and_then(id);
        for (index, change) in changes.into_iter().enumerate() {
            self.change(Place { change: Some(index), ..place }, account_id.as_deref(), change);
        }
    }

    fn change(&mut self, place: Place, account_id: Option<&str>, change: Lenient<Change>) {
        let Lenient(Some(Change { field, value })) = change else { return self.bad(place, "is no object") };
        let Some(value) = value else { return self.bad(place, "has no value") };
        let Some(route) = route(account_id, &value) else { return self.bad(place, "names no account") };
        let field = name(field, &value);
        if field == MESSAGES {
            self.messages(place, route, value);
        } else {
            let part = self.part(route);
            self.push(part, Event::Notice { field: cut(field, MAX_WORD_BYTES) });
        }
    }

    fn messages(&mut self, place: Place, route: RouteKey, value: Value) {
        let lists = [("messages", value.messages), ("statuses", value.statuses), ("errors", value.errors)];
        let says_nothing = lists.iter().all(|(_, list)| matches!(list, List::Absent));
        let contacts = Contacts::of(value.contacts);
        let part = self.part(route);
        if says_nothing {
            return self.push(part, Event::Notice { field: MESSAGES.into() });
        }
        for (key, list) in lists {
            let items = match list {
                List::Absent => continue,
                List::Wrong => {
                    self.bad_of(part, format_args!("{place}.value.{key}"), "is not a list");
                    continue;
                }
                List::Items(items) => items,
            };
            let alone = items.len() == 1;
            for (index, raw) in items.into_iter().enumerate() {
                let event = match key {
                    "messages" => {
                        message::read(raw, &contacts, alone, self.received_at).map(|m| Event::Message(Box::new(m)))
                    }
                    "statuses" => status(raw, self.received_at),
                    _ => Object::of(raw).map(|_| Event::Notice { field: key.into() }).ok_or("is no object"),
                };
                match event {
                    Ok(event) => self.push(part, event),
                    Err(reason) => self.bad_of(part, format_args!("{place}.value.{key}[{index}]"), reason),
                }
            }
        }
    }

    /// The place of the account's part.
    fn part(&mut self, route: RouteKey) -> usize {
        let parts = &mut self.parsed.parts;
        let new = |route, parts: &mut Vec<Part>| {
            parts.push(Part { route, fallback: None, events: Vec::new(), bad: Vec::new() });
            parts.len() - 1
        };
        match parts.last() {
            None => new(route, parts),
            Some(last) if last.route == route => parts.len() - 1,
            Some(last) => {
                if self.places.is_empty() {
                    self.places.insert(last.route.clone(), 0);
                }
                *self.places.entry(route.clone()).or_insert_with(|| new(route, parts))
            }
        }
    }

    fn push(&mut self, part: usize, event: Event) {
        if self.has_room() {
            self.parsed.parts[part].events.push(event);
        }
    }

    /// Something that is for nobody who could be made out.
    fn bad(&mut self, path: impl fmt::Display, reason: &str) {
        if self.has_room() {
            self.parsed.bad.push(bad_element(path, reason));
        }
    }

    fn bad_of(&mut self, part: usize, path: impl fmt::Display, reason: &str) {
        if self.has_room() {
            self.parsed.parts[part].bad.push(bad_element(path, reason));
        }
    }

    /// Whether one more element is taken.
    fn has_room(&mut self) -> bool {
        self.elements += 1;
        self.elements <= MAX_ELEMENTS
    }

    fn finish(mut self) -> Parsed {
        if let Some(more @ 1..) = self.elements.checked_sub(MAX_ELEMENTS) {
            let reason = format!("has {more} elements more than the {MAX_ELEMENTS} that are read");
            self.parsed.bad.push(bad_element("entry", &reason));
        }
        self.parsed.parts.retain(|part| !(part.events.is_empty() && part.bad.is_empty()));
        self.parsed
    }
}

fn bad_element(path: impl fmt::Display, reason: &str) -> BadElement {
    BadElement { path: path.to_string(), reason: reason.to_owned() }
}

/// The account a change is for: its number, else the business account; on a partner's event that is
/// `waba_info.waba_id`, while `entry[].id` is the partner's portfolio (contract, section 6).
pub(super) fn route(account_id: Option<&str>, value: &Value) -> Option<RouteKey> {
    let number = value.metadata.and_then(Object::of).and_then(|metadata| metadata.id("phone_number_id"));
    let account = || {
        let affected = value.waba_info.and_then(Object::of).and_then(|info| info.id("waba_id"));
        affected.or(account_id.map(Cow::Borrowed)).map(|id| RouteKey::BusinessAccountId(id.into_owned()))
    };
    number.map(|id| RouteKey::PhoneNumberId(id.into_owned())).or_else(account)
}

/// The field's name, by the value's shape where Meta's own samples have it wrong or lack it (contract, section 6).
fn name<'a>(field: Option<&'a RawValue>, value: &Value<'a>) -> Cow<'a, str> {
    let has_elements =
        [&value.messages, &value.statuses, &value.errors].iter().any(|list| !matches!(list, List::Absent));
    match field.and_then(text).filter(|name| !name.trim().is_empty()) {
        Some(name) if name == "message_template_status_update" && value.new_quality_score.is_some() => {
            "message_template_quality_update".into()
        }
        Some(name) => name,
        None if value.metadata.is_some() && has_elements => MESSAGES.into(),
        None if value.alert_info.is_some() => "account_alerts".into(),
        None => "unknown".into(),
    }
}

/// One element of `statuses[]`. A word that is not documented is noted, not guessed at.
fn status(raw: &RawValue, received_at: DateTime<Utc>) -> Result<Event, &'static str> {
    let status = Object::of(raw).ok_or("is no object")?;
    let id = status.id("id").ok_or("has no usable id")?;
    let word = status.words("status").ok_or("has no status")?;
    let state = match &*word {
        "sent" => SendState::Sent,
        "delivered" => SendState::Delivered,
        "read" | "played" => SendState::Read,
        "failed" => SendState::Failed,
        _ => return Ok(Event::Notice { field: "statuses".into() }),
    };
    let error = (state == SendState::Failed)
        .then(|| status.objects("errors").map(|error| ErrorObject::of(&error)).find(|error| error.code.is_some()))
        .flatten();
    Ok(Event::Status(StatusReport {
        provider_message_id: id.into_owned(),
        state,
        status: word.into_owned(),
        at: time(&status, received_at),
        reason: error.as_ref().map(explain),
        code: error.and_then(|error| error.code),
        token: status.text("biz_opaque_callback_data").and_then(|text| SendToken::decode(&text)),
    }))
}

#[cfg(test)]
mod mutations;
#[cfg(test)]
pub(super) mod tests;
