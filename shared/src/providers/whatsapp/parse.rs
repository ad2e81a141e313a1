//! A webhook as events: every entry, change and element of it, each on its own, so that a damaged one harms no other.
//! Decides neither whether a message is new nor which tenant it is for.

use super::{
    account, echo,
    errors::explain,
    message,
    people::{Contacts, Names},
    preferences,
    wire::{Change, Entry, ErrorObject, Value, time},
};
use crate::{
    domain::{
        consent::{Consent, Purpose},
        events::{ConsentChange, Event, Parsed, RouteKey, SendToken, StatusReport},
        people::Person,
        sends::SendState,
    },
    providers::{
        Unreadable,
        json::{Object, id, number, text},
        lenient::{Lenient, List},
        meta::{envelope::entries, reading::Reading, time::moment},
        repair::readable,
    },
};
use chrono::{DateTime, Utc};
use serde_json::value::RawValue;
use std::{borrow::Cow, fmt};

/// What `object` must say.
const OBJECT: &str = "whatsapp_business_account";
/// The field that carries messages and statuses. Elements of the same name in others are history or echoes.
const MESSAGES: &str = "messages";

/// Reads a webhook. `received_at` stands in for missing and impossible times.
///
/// # Errors
/// Only if the body as a whole is no JSON or no webhook of WhatsApp's. What is wrong with a part of it is in
/// [`Parsed::bad`] and [`Part::bad`](crate::domain::events::Part::bad).
pub fn parse(body: &[u8], received_at: DateTime<Utc>) -> Result<Parsed, Unreadable> {
    let readable = readable(body);
    let mut webhook = Webhook { received_at, reading: Reading::default() };
    for (index, entry) in entries(&readable, OBJECT)?.into_iter().enumerate() {
        webhook.entry(Place { entry: index, change: None }, entry);
    }
    Ok(webhook.reading.finish())
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

struct Webhook {
    received_at: DateTime<Utc>,
    reading: Reading,
}

impl Webhook {
    fn entry(&mut self, place: Place, entry: Lenient<Entry>) {
        let Lenient(Some(entry)) = entry else { return self.reading.bad(place, "is no object") };
        let List::Items(changes) = entry.changes else { return self.reading.bad(place, "has no list of changes") };
        let account_id = entry.id.and_then(id);
        for (index, change) in changes.into_iter().enumerate() {
            self.change(Place { change: Some(index), ..place }, account_id.as_deref(), entry.time, change);
        }
    }

    fn change(
        &mut self,
        place: Place,
        account_id: Option<&str>,
        entry_time: Option<&RawValue>,
        change: Lenient<Change>,
    ) {
        let Lenient(Some(Change { field, value })) = change else { return self.reading.bad(place, "is no object") };
        let Some(value) = value else { return self.reading.bad(place, "has no value") };
        let Some(route) = route(account_id, &value) else { return self.reading.bad(place, "names no account") };
        let field = name(field, &value);
        let part = self.reading.part(route, None);
        match &*field {
            MESSAGES => self.messages(place, part, value),
            "smb_message_echoes" => {
                let contacts = Contacts::of(value.contacts);
                let received_at = self.received_at;
                self.list(place, part, "message_echoes", value.message_echoes, &field, |raw, alone| {
                    echo::read(raw, &contacts, alone, received_at).map(|echo| Event::Echo(Box::new(echo)))
                });
            }
            "user_preferences" => {
                let contacts = Contacts::of(value.contacts);
                let received_at = self.received_at;
                self.list(place, part, "user_preferences", value.user_preferences, &field, |raw, alone| {
                    preferences::read(raw, &contacts, alone, received_at)
                });
            }
            _ => {
                let at = entry_time.and_then(number).and_then(|number| moment(&number, self.received_at));
                let at = at.unwrap_or(self.received_at);
                account::read(&field, &value.rest, at, |event| self.reading.push(part, event));
            }
        }
    }

    fn messages(&mut self, place: Place, part: usize, value: Value) {
        let Value { messages, statuses, errors, contacts, .. } = value;
        if [&messages, &statuses, &errors].iter().all(|list| matches!(list, List::Absent)) {
            return self.reading.push(part, Event::Notice { field: MESSAGES.into() });
        }
        let contacts = Contacts::of(contacts);
        let received_at = self.received_at;
        self.items(place, part, "messages", messages, |raw, alone| {
            message::read(raw, &contacts, alone, received_at).map(|message| Event::Message(Box::new(message)))
        });
        let refused: Vec<Event> = match &statuses {
            List::Items(items) => {
                items.iter().filter_map(|raw| opted_out(raw, received_at)).map(Event::Consent).collect()
            }
            _ => Vec::new(),
        };
        self.items(place, part, "statuses", statuses, |raw, _| status(raw, received_at));
        refused.into_iter().for_each(|event| self.reading.push(part, event));
        self.items(place, part, "errors", errors, |raw, _| {
            Object::of(raw).map(|_| Event::Notice { field: "errors".into() }).ok_or("is no object")
        });
    }

    /// The one list that a field consists of; noted where it is missing.
    fn list(
        &mut self,
        place: Place,
        part: usize,
        key: &str,
        list: List<&RawValue>,
        field: &str,
        read: impl Fn(&RawValue, bool) -> Result<Event, &'static str>,
    ) {
        match list {
            List::Absent => self.reading.push(part, Event::Notice { field: field.to_owned() }),
            list => self.items(place, part, key, list, read),
        }
    }

    /// Every item of a list, each on its own. `read` is told whether an item is alone.
    fn items(
        &mut self,
        place: Place,
        part: usize,
        key: &str,
        list: List<&RawValue>,
        read: impl Fn(&RawValue, bool) -> Result<Event, &'static str>,
    ) {
        let items = match list {
            List::Absent => return,
            List::Wrong => {
                return self.reading.bad_of(part, format_args!("{place}.value.{key}"), "is not a list");
            }
            List::Items(items) => items,
        };
        let alone = items.len() == 1;
        for (index, raw) in items.into_iter().enumerate() {
            match read(raw, alone) {
                Ok(event) => self.reading.push(part, event),
                Err(reason) => self.reading.bad_of(part, format_args!("{place}.value.{key}[{index}]"), reason),
            }
        }
    }
}

/// The account a change is for: its number, else the business account; on a partner's event that is
/// `waba_info.waba_id`, while `entry[].id` is the partner's portfolio (contract, section 6).
pub(super) fn route(account_id: Option<&str>, value: &Value) -> Option<RouteKey> {
    let number = value.metadata.and_then(Object::of).and_then(|metadata| metadata.id("phone_number_id"));
    let account = || {
        let affected = value.rest.object("waba_info").and_then(|info| info.id("waba_id"));
        affected.or(account_id.map(Cow::Borrowed)).map(|id| RouteKey::BusinessAccountId(id.into_owned()))
    };
    number.map(|id| RouteKey::PhoneNumberId(id.into_owned())).or_else(account)
}

/// The field's name, by the value's shape where Meta's own samples have it wrong or lack it (contract, section 6).
fn name<'a>(field: Option<&'a RawValue>, value: &Value<'a>) -> Cow<'a, str> {
    let has_elements =
        [&value.messages, &value.statuses, &value.errors].iter().any(|list| !matches!(list, List::Absent));
    match field.and_then(text).filter(|name| !name.trim().is_empty()) {
        Some(name) if name == "message_template_status_update" && value.rest.get("new_quality_score").is_some() => {
            "message_template_quality_update".into()
        }
        Some(name) => name,
        None if value.metadata.is_some() && has_elements => MESSAGES.into(),
        None if value.rest.get("alert_info").is_some() => "account_alerts".into(),
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

/// The code of a message that was not delivered because the person has stopped marketing messages (contract, section 12.2).
const STOPPED_MARKETING: &str = "131050";

/// What a status says about the person besides: that they want no marketing.
fn opted_out(raw: &RawValue, received_at: DateTime<Utc>) -> Option<ConsentChange> {
    if !raw.get().contains(STOPPED_MARKETING) {
        return None;
    }
    let status = Object::of(raw)?;
    let is_code = |error: Object| ErrorObject::of(&error).code.as_deref() == Some(STOPPED_MARKETING);
    if status.text("status")? != "failed" || !status.objects("errors").any(is_code) {
        return None;
    }
    let mut names = Names::default();
    names.add(status.id("recipient_user_id"));
    names.add(status.id("recipient_id"));
    let person = Person { aliases: names.aliases(), ..Person::default() };
    let (purpose, consent) = (Purpose::Marketing, Consent::OptedOut);
    let at = time(&status, received_at);
    (!person.aliases.is_empty()).then_some(ConsentChange { person, purpose, consent, source: "131050", at })
}

#[cfg(test)]
mod mutations;
#[cfg(test)]
mod tests;
