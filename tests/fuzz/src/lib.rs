//! What must be true of everything that is read, whatever was sent: no panic, and nothing kept that could not be stored.

use chrono::{DateTime, Utc};
use serde_json::Value;
use shared::domain::{
    events::{AccountNews, Event, Parsed, Through},
    people::Person,
};

/// Ten minutes after the fixtures' first time.
pub fn received_at() -> DateTime<Utc> {
    DateTime::from_timestamp(1_794_831_000, 0).expect("a time")
}

/// Panics if something was kept that Postgres would refuse or no index could hold.
pub fn assert_storable(parsed: &Parsed) {
    for part in &parsed.parts {
        for route in [Some(&part.route), part.fallback.as_ref()].into_iter().flatten() {
            assert_id(route.external_id());
        }
        part.events.iter().for_each(assert_event);
        part.bad.iter().chain(&parsed.bad).for_each(|bad| assert!(!bad.to_string().contains('\0')));
    }
}

fn assert_event(event: &Event) {
    match event {
        Event::Message(message) => {
            assert_id(&message.provider_message_id);
            assert_person(&message.sender);
            assert_text(message.text.as_deref());
            message.refers_to.as_deref().map(assert_id);
            assert_raw(message.raw.get());
        }
        Event::Echo(echo) => {
            assert_id(&echo.provider_message_id);
            assert_person(&echo.recipient);
            assert_text(echo.text.as_deref());
            echo.refers_to.as_deref().map(assert_id);
            assert_raw(echo.raw.get());
        }
        Event::Status(status) => {
            assert_id(&status.provider_message_id);
            assert!(!status.status.contains('\0') && status.reason.iter().all(|reason| !reason.contains('\0')));
        }
        Event::Watermark(watermark) => {
            assert_person(&watermark.person);
            if let Through::Message(id) = &watermark.through {
                assert_id(id);
            }
        }
        Event::Consent(change) => assert_person(&change.person),
        Event::Template(change) => assert_id(&change.name),
        Event::Account(change) => {
            if let AccountNews::Down { code, reason } | AccountNews::Alert { code, reason } = &change.change {
                assert!(!code.contains('\0') && !reason.contains('\0'));
            }
        }
        Event::Notice { field } => assert!(!field.contains('\0') && field.len() <= 512),
    }
}

fn assert_id(id: &str) {
    assert!((1..=512).contains(&id.len()) && !id.contains('\0'), "{id:?}");
}

fn assert_person(person: &Person) {
    assert!(!person.aliases.is_empty());
    person.aliases.iter().for_each(|alias| assert_id(&alias.value));
    assert!(person.name.iter().chain(&person.username).all(|name| !name.contains('\0')));
}

fn assert_text(text: Option<&str>) {
    assert!(text.is_none_or(|text| !text.is_empty() && text.len() <= 64 * 1024 && !text.contains('\0')), "{text:?}");
}

fn assert_raw(raw: &str) {
    fn no_nul(value: &Value) {
        match value {
            Value::String(text) => assert!(!text.contains('\0')),
            Value::Array(items) => items.iter().for_each(no_nul),
            Value::Object(members) => members.iter().for_each(|(key, value)| {
                assert!(!key.contains('\0'));
                no_nul(value);
            }),
            _ => {}
        }
    }
    no_nul(&serde_json::from_str(raw).expect("raw is JSON"));
}
