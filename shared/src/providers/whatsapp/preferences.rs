//! One element of `user_preferences[]`: what a person told WhatsApp about a business's marketing (contract, section 13.3).

use super::{
    people::{Contacts, Names},
    wire::time,
};
use crate::{
    domain::{
        consent::{Consent, Purpose},
        events::{ConsentChange, Event},
    },
    providers::json::Object,
};
use chrono::{DateTime, Utc};
use serde_json::value::RawValue;

/// Reads an element. `alone`: it is the only one of its change. A preference about something else, or another word for it, is
/// noted.
///
/// # Errors
/// Why nothing can be made of it: it is no object, or is nobody's.
pub(super) fn read(
    raw: &RawValue,
    contacts: &Contacts,
    alone: bool,
    received_at: DateTime<Utc>,
) -> Result<Event, &'static str> {
    const FIELD: &str = "user_preferences";
    let preference = Object::of(raw).ok_or("is no object")?;
    let is_marketing = preference.text("category").as_deref() == Some("marketing_messages");
    let consent = match preference.text("value").as_deref() {
        Some("stop") if is_marketing => Consent::OptedOut,
        Some("resume") if is_marketing => Consent::OptedIn,
        _ => return Ok(Event::Notice { field: FIELD.to_owned() }),
    };
    let mut names = Names::default();
    names.add(preference.id("user_id"));
    names.add(preference.id("wa_id"));
    let person = contacts.person(names, alone);
    if person.aliases.is_empty() {
        return Err("names nobody");
    }
    let at = time(&preference, received_at);
    Ok(Event::Consent(ConsentChange { person, purpose: Purpose::Marketing, consent, source: FIELD, at }))
}
