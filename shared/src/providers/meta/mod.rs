//! What Meta's products have in common: the signature, the envelope and the times of all three, and the events of Messenger and
//! Instagram, which are of one kind and differ in a few words. What is the same is written here once.

pub mod profile;
pub mod refusal;
pub mod verify;

pub(super) mod envelope;
pub(super) mod excerpt;
pub(super) mod reading;
pub(super) mod said;
pub(super) mod template;
pub(super) mod time;

mod content;
mod element;
mod events;

use super::{
    Unreadable,
    json::{Object, cut, id, text},
    lenient::{Lenient, List, members},
    repair::readable,
};
use crate::domain::{
    events::{Event, Parsed, RouteKey},
    people::AliasKind,
};
use chrono::{DateTime, Utc};
use element::Element;
use envelope::entries;
use events::Said;
use reading::Reading;
use serde_json::value::RawValue;
use std::fmt::Arguments;

/// Words beyond this stay in the raw element only. WhatsApp's own limit is 4096 characters, at most 16 KiB; the others' are lower.
pub(super) const MAX_TEXT_BYTES: usize = 64 * 1024;
/// A field's words or a link are not longer.
pub(super) const MAX_FIELD_BYTES: usize = 2048;
/// Nor is a name of Meta's for something.
pub(super) const MAX_WORD_BYTES: usize = 128;
/// Nor the id of a person. The longest documented one has 135 characters (WhatsApp's `US.ENT.` and 128 more).
pub(super) const MAX_PERSON_BYTES: usize = 256;

/// Where Messenger and Instagram differ.
#[derive(Debug)]
pub(super) struct Platform {
    /// What a webhook's `object` says.
    pub(super) object: &'static str,
    /// What the business's id routes.
    pub(super) route: fn(String) -> RouteKey,
    /// What a person's id is.
    pub(super) person: AliasKind,
    /// What a plugin's reference to a person is, where there are plugins.
    pub(super) reference: Option<AliasKind>,
}

/// `entry[]`. Comments stand in `changes[]`, or with `field` and `value` directly in the entry (providers/instagram section 1).
#[derive(Default)]
struct Entry<'a> {
    /// The Page or the professional account.
    id: Option<&'a RawValue>,
    /// What happened in threads of ours.
    messaging: List<&'a RawValue>,
    /// What happened in threads that another app controls.
    standby: List<&'a RawValue>,
    /// What happened elsewhere.
    changes: List<&'a RawValue>,
    /// The name of the one thing that happened.
    field: Option<&'a RawValue>,
}

members!(Entry, "id" value id, "messaging" list messaging, "standby" list standby, "changes" list changes, "field" value field);

/// Reads a webhook. `received_at` stands in for missing and impossible times.
///
/// What came for an app that does not control the thread (`standby[]`) is read like everything else, so that it is shown; its
/// element is kept with `"standby": true`, which says that nothing may answer it by itself (providers/messenger section 2.7).
///
/// # Errors
/// Only if the body as a whole is no JSON or no webhook of the platform's.
pub(super) fn parse(platform: &Platform, body: &[u8], received_at: DateTime<Utc>) -> Result<Parsed, Unreadable> {
    let readable = readable(body);
    let mut webhook = Webhook { platform, received_at, reading: Reading::default() };
    for (index, entry) in entries(&readable, platform.object)?.into_iter().enumerate() {
        webhook.entry(index, entry);
    }
    Ok(webhook.reading.finish())
}

struct Webhook<'p> {
    platform: &'p Platform,
    received_at: DateTime<Utc>,
    reading: Reading,
}

impl Webhook<'_> {
    /// An entry may say nothing at all (providers/messenger section 1.5).
    fn entry(&mut self, index: usize, entry: Lenient<Entry>) {
        let Lenient(Some(entry)) = entry else {
            return self.reading.bad(format_args!("entry[{index}]"), "is no object");
        };
        let entry_id = entry.id.and_then(id);
        let entry_id = entry_id.as_deref();
        self.list(index, entry_id, "messaging", entry.messaging);
        self.list(index, entry_id, "standby", entry.standby);
        self.list(index, entry_id, "changes", entry.changes);
        if let Some(field) = entry.field {
            match self.account(entry_id) {
                Some(part) => self.reading.push(part, notice(&text(field).unwrap_or_default())),
                None => self.reading.bad(format_args!("entry[{index}]"), "names no account"),
            }
        }
    }

    fn list(&mut self, index: usize, entry_id: Option<&str>, list: &'static str, items: List<&RawValue>) {
        match items {
            List::Absent => {}
            List::Wrong => match self.account(entry_id) {
                Some(part) => self.reading.bad_of(part, format_args!("entry[{index}].{list}"), "is not a list"),
                None => self.reading.bad(format_args!("entry[{index}].{list}"), "is not a list"),
            },
            List::Items(items) => {
                for (place, item) in items.into_iter().enumerate() {
                    let path = format_args!("entry[{index}].{list}[{place}]");
                    match list {
                        "changes" => self.change(path, entry_id, item),
                        _ => self.element(path, entry_id, list, item),
                    }
                }
            }
        }
    }

    fn change(&mut self, path: Arguments, entry_id: Option<&str>, raw: &RawValue) {
        let Some(part) = self.account(entry_id) else { return self.reading.bad(path, "names no account") };
        match Object::of(raw) {
            Some(change) => self.reading.push(part, notice(&change.text("field").unwrap_or_default())),
            None => self.reading.bad_of(part, path, "is no object"),
        }
    }

    fn element(&mut self, path: Arguments, entry_id: Option<&str>, list: &'static str, raw: &RawValue) {
        let element = Element::of(raw, entry_id);
        let Some((route, fallback)) = element::accounts(self.platform, entry_id, element.as_ref()) else {
            return self.reading.bad(path, "names no account");
        };
        let part = self.reading.part(route, fallback);
        let Some(element) = element else { return self.reading.bad_of(part, path, "is no object") };
        let said = Said { platform: self.platform, element: &element, raw, list, received_at: self.received_at };
        if let Err(reason) = said.read(&mut |event| self.reading.push(part, event)) {
            self.reading.bad_of(part, path, reason);
        }
    }

    /// The part of the account that an entry names.
    fn account(&mut self, entry_id: Option<&str>) -> Option<usize> {
        let route = (self.platform.route)(entry_id?.to_owned());
        Some(self.reading.part(route, None))
    }
}

/// Something without effect, by its name.
fn notice(field: &str) -> Event {
    let field = if field.trim().is_empty() { "unknown" } else { field };
    Event::Notice { field: cut(field.into(), MAX_WORD_BYTES) }
}
