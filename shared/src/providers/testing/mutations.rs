//! The fixtures, damaged at random. Whatever happens to an element, its siblings are read, nothing is dropped without a
//! word, and what is kept is fit for `jsonb`. `PROPTEST_CASES` raises the number of cases.

use super::{fixtures, received_at, show};
use crate::{
    domain::{
        events::{Event, Parsed, RouteKey, Through},
        people::Person,
    },
    providers::Unreadable,
};
use chrono::{DateTime, Utc};
use proptest::{prelude::*, sample::select, test_runner::Config};
use serde_json::{Value, json, value::RawValue};
use std::{collections::HashSet, ops::RangeInclusive};

/// Whose webhooks are damaged, and what must stay as it is.
pub(in crate::providers) struct Subject {
    /// The provider: where its fixtures are.
    pub(in crate::providers) provider: &'static str,
    pub(in crate::providers) parse: fn(&[u8], DateTime<Utc>) -> Result<Parsed, Unreadable>,
    pub(in crate::providers) excerpt: fn(&[u8], &HashSet<RouteKey>) -> String,
    /// A sound entry, put after the damaged ones, and what it leads to.
    pub(in crate::providers) entry: fn() -> Value,
    pub(in crate::providers) entry_leads_to: &'static str,
    /// Puts a sound element beside damaged ones of the first entry, if there is still a place for it, and what it leads to.
    pub(in crate::providers) beside: fn(&mut Value) -> bool,
    pub(in crate::providers) beside_leads_to: &'static str,
    /// How many events and bad elements a body must lead to; `None` where that cannot be said.
    pub(in crate::providers) told: fn(&Value) -> Option<RangeInclusive<usize>>,
    /// A body with an element that says `"HOLE"`, under `"key HOLE"` as well, beside the sound one, and what it leads to.
    pub(in crate::providers) holes: fn() -> Value,
    pub(in crate::providers) holes_lead_to: &'static str,
}

#[derive(Clone, Debug)]
enum Damage {
    /// Another value in this one's place.
    Replace(Value),
    /// One of its members or items removed.
    Remove(usize),
    /// One more item or member.
    Add(Value),
}

fn damage() -> impl Strategy<Value = Damage> {
    let deep = (0..200).fold(json!(1), |inner, _| json!([inner]));
    let odd = vec![
        json!(null),
        json!(true),
        json!(0),
        json!(-7),
        json!(1.5e300),
        json!(u64::MAX),
        json!(""),
        json!("\0"),
        json!("a\0b"),
        json!("text"),
        json!("messages"),
        json!("x".repeat(600)),
        json!("é".repeat(70_000)),
        json!([]),
        json!({}),
        json!([null]),
        json!({"id":1,"type":"text"}),
        json!({"id":"w","type":{}}),
        json!({"mid":"x".repeat(510)}),
        json!([[[{"a":"\0"}]]]),
        deep,
    ];
    let odd = select(odd);
    prop_oneof![
        odd.clone().prop_map(Damage::Replace),
        any::<usize>().prop_map(Damage::Remove),
        odd.prop_map(Damage::Add),
    ]
}

/// The `nth` value of the tree, counted from the root.
fn nth<'v>(value: &'v mut Value, nth_value: &mut usize) -> Option<&'v mut Value> {
    if *nth_value == 0 {
        return Some(value);
    }
    *nth_value -= 1;
    match value {
        Value::Array(items) => items.iter_mut().find_map(|item| nth(item, nth_value)),
        Value::Object(members) => members.values_mut().find_map(|member| nth(member, nth_value)),
        _ => None,
    }
}

fn size(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(size).sum(),
        Value::Object(members) => members.values().map(size).sum(),
        _ => 0,
    }
}

fn apply(damage: Damage, place: usize, body: &mut Value) {
    let mut place = place % size(body);
    let Some(value) = nth(body, &mut place) else { return };
    match (damage, value) {
        (Damage::Replace(odd), value) => *value = odd,
        (Damage::Remove(index), Value::Array(items)) if !items.is_empty() => drop(items.remove(index % items.len())),
        (Damage::Remove(index), Value::Object(members)) if !members.is_empty() => {
            let key = members.keys().nth(index % members.len()).cloned().unwrap();
            members.remove(&key);
        }
        (Damage::Add(odd), Value::Array(items)) => items.push(odd),
        (Damage::Add(odd), Value::Object(members)) => drop(members.insert("k\0\u{e9}".into(), odd)),
        (_, value) => *value = Value::Null,
    }
}

/// What is kept can be stored: no NUL anywhere, no id without end, and `raw` is JSON that Postgres takes.
pub(in crate::providers) fn assert_storable(parsed: &Parsed) {
    assert!(!show(parsed).contains('\0'));
    for part in &parsed.parts {
        for route in [Some(&part.route), part.fallback.as_ref()].into_iter().flatten() {
            assert_id(route.external_id());
        }
        for event in &part.events {
            match event {
                Event::Message(message) => {
                    assert_id(&message.provider_message_id);
                    assert_person(&message.sender);
                    assert_text(message.text.as_deref());
                    message.refers_to.iter().for_each(|id| assert_id(id));
                    assert_raw(&message.raw);
                }
                Event::Echo(echo) => {
                    assert_id(&echo.provider_message_id);
                    assert_person(&echo.recipient);
                    assert_text(echo.text.as_deref());
                    echo.refers_to.iter().for_each(|id| assert_id(id));
                    assert_raw(&echo.raw);
                }
                Event::Status(status) => assert_id(&status.provider_message_id),
                Event::Watermark(watermark) => {
                    assert_person(&watermark.person);
                    if let Through::Message(id) = &watermark.through {
                        assert_id(id);
                    }
                }
                Event::Consent(change) => assert_person(&change.person),
                Event::Template(change) => assert_id(&change.name),
                Event::Account(_) | Event::Notice { .. } => {}
            }
        }
    }
}

fn assert_id(id: &str) {
    assert!((1..=512).contains(&id.len()), "{id}");
}

fn assert_person(person: &Person) {
    assert!(!person.aliases.is_empty());
    person.aliases.iter().for_each(|alias| assert_id(&alias.value));
}

fn assert_text(text: Option<&str>) {
    assert!(text.is_none_or(|text| !text.is_empty() && text.len() <= 64 * 1024));
}

fn assert_raw(raw: &RawValue) {
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
    no_nul(&serde_json::from_str(raw.get()).expect("raw is JSON"));
}

fn config() -> Config {
    Config { failure_persistence: None, ..Config::default() }
}

impl Subject {
    /// Another value, one less or one more, anywhere in a fixture.
    pub(in crate::providers) fn a_damaged_value_harms_no_sibling(&self) {
        // Those which any JSON library reads.
        let bodies: Vec<Value> =
            fixtures(self.provider).into_values().filter_map(|(body, _)| serde_json::from_slice(&body).ok()).collect();
        let damages = prop::collection::vec((any::<usize>(), damage()), 1..4);
        proptest!(config(), |(body in select(bodies), damages in damages)| {
            let mut body = body;
            for (place, damage) in damages {
                apply(damage, place, &mut body["entry"]);
            }
            let Value::Array(entries) = &mut body["entry"] else { return Ok(()) };
            entries.push((self.entry)());
            let is_beside = (self.beside)(&mut body);
            let text = body.to_string();
            let parsed = (self.parse)(text.as_bytes(), received_at()).expect("it is still JSON");
            assert_storable(&parsed);
            let shown = show(&parsed);
            prop_assert!(shown.contains(self.entry_leads_to), "{}", shown);
            prop_assert!(!is_beside || shown.contains(self.beside_leads_to), "{}", shown);
            let read = parsed.parts.iter().map(|part| part.events.len() + part.bad.len()).sum::<usize>() + parsed.bad.len();
            prop_assert!((self.told)(&body).is_none_or(|told| told.contains(&read)), "{}", shown);
            for part in &parsed.parts {
                let accounts = [Some(&part.route), part.fallback.as_ref()].into_iter().flatten().cloned().collect();
                let excerpt = (self.excerpt)(text.as_bytes(), &accounts);
                let shown_to_them = (self.parse)(excerpt.as_bytes(), received_at()).expect("an excerpt is a webhook");
                let same = shown_to_them.parts.iter().find(|shown| shown.route == part.route && shown.fallback == part.fallback);
                prop_assert!(same.is_some_and(|same| same.events.len() == part.events.len()), "{}", excerpt);
                let only_theirs = shown_to_them.parts.iter().all(|part| accounts.contains(&part.route));
                prop_assert!(only_theirs, "{}", excerpt);
            }
        });
    }

    /// Any bytes inside a string and inside a key.
    pub(in crate::providers) fn bad_bytes_in_a_string_harm_no_sibling(&self) {
        let escapes = vec![
            "\\u0000",
            "\\ud800",
            "\\udfff",
            "\\ud83d\\udc4d",
            "\\u12",
            "\\uD83D",
            "\\n",
            "\\x",
            "\\\\",
            "\\\"",
            "é",
        ];
        let byte =
            any::<u8>().prop_filter("structure", |byte| !matches!(byte, b'"' | b'\\')).prop_map(|byte| vec![byte]);
        let bytes = prop_oneof![byte, select(escapes).prop_map(|text| text.as_bytes().to_vec())];
        let body = (self.holes)().to_string().replace("\"HOLE", "\"\u{1}").replace("key HOLE", "\u{1}");
        proptest!(config(), |(bytes in prop::collection::vec(bytes, 0..40))| {
            let fill = |byte| if byte == 1 { bytes.concat() } else { vec![byte] };
            let body: Vec<u8> = body.bytes().flat_map(fill).collect();
            let parsed = (self.parse)(&body, received_at()).expect("it is still JSON");
            assert_storable(&parsed);
            let shown = show(&parsed);
            prop_assert!(shown.contains(self.holes_lead_to), "{}", shown);
            prop_assert!(shown.contains(self.beside_leads_to), "{}", shown);
        });
    }

    /// Any bytes anywhere.
    pub(in crate::providers) fn no_bytes_make_it_panic_or_keep_what_cannot_be_stored(&self) {
        let bodies: Vec<Vec<u8>> = fixtures(self.provider).into_values().map(|(body, _)| body).collect();
        let change = (any::<prop::sample::Index>(), prop::collection::vec(any::<u8>(), 0..4));
        let changes = prop::collection::vec(change, 0..6);
        proptest!(config(), |(body in select(bodies), changes in changes, end in any::<prop::sample::Index>(), truncate in any::<bool>())| {
            let mut body = body;
            for (at, bytes) in changes {
                let at = at.index(body.len());
                body.splice(at..(at + 1), bytes);
            }
            if truncate {
                body.truncate(end.index(body.len()));
            }
            (self.excerpt)(&body, &HashSet::from([RouteKey::PageId("1".to_owned())]));
            if let Ok(parsed) = (self.parse)(&body, received_at()) {
                assert_storable(&parsed);
            }
        });
    }
}

/// The three tests of a provider's.
macro_rules! mutation_tests {
    ($subject:expr) => {
        #[test]
        fn a_damaged_value_harms_no_sibling() {
            $subject.a_damaged_value_harms_no_sibling();
        }

        #[test]
        fn bad_bytes_in_a_string_harm_no_sibling() {
            $subject.bad_bytes_in_a_string_harm_no_sibling();
        }

        #[test]
        fn no_bytes_make_it_panic_or_keep_what_cannot_be_stored() {
            $subject.no_bytes_make_it_panic_or_keep_what_cannot_be_stored();
        }
    };
}

pub(in crate::providers) use mutation_tests;
