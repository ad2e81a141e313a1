//! The fixtures, damaged at random. Whatever happens to an element, its siblings are read, nothing is dropped without a
//! word, and what is kept is fit for `jsonb`. `PROPTEST_CASES` raises the number of cases.

use super::{
    tests::{fixtures, received_at, show},
    *,
};
use proptest::{prelude::*, sample::select};
use serde_json::{Value, json};
use std::sync::LazyLock;

/// Up to the sender's ids: a message that is alone with a nameless contact takes its name.
const SOUND_MESSAGE: &str = " message wamid.SOUND text at 1794830400 from DE.999 4999";
const SOUND_STATUS: &str = " status wamid.SOUND delivered (delivered) at 1794830400\n";

/// Those which any JSON library reads.
static BODIES: LazyLock<Vec<Value>> =
    LazyLock::new(|| fixtures().into_values().filter_map(|(body, _)| serde_json::from_slice(&body).ok()).collect());
static BYTES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| fixtures().into_values().map(|(body, _)| body).collect());

fn sound_message() -> Value {
    json!({"id":"wamid.SOUND","from":"4999","from_user_id":"DE.999","timestamp":"1794830400","type":"text","text":{"body":"here"}})
}

fn sound_entry() -> Value {
    json!({"id":"1","changes":[{"field":"messages","value":{"metadata":{"phone_number_id":"2"},
        "statuses":[{"id":"wamid.SOUND","status":"delivered","timestamp":1_794_830_400}]}}]})
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

/// How many events and bad elements a body must lead to; `None` where an account or a field is not named.
fn told(body: &Value) -> Option<usize> {
    let of_change = |change: &Value| {
        let Some(value) = change.get("value").and_then(Value::as_object) else { return Some(1) };
        if change.get("field")?.as_str().filter(|field| !field.trim().is_empty())? != MESSAGES {
            return Some(1);
        }
        value.get("metadata")?.get("phone_number_id")?.as_str().filter(|id| !id.is_empty() && id.len() <= 512)?;
        let of_list = |key| match value.get(key) {
            None | Some(Value::Null) => None,
            Some(Value::Array(items)) => Some(items.len()),
            Some(_) => Some(1),
        };
        let counts: Vec<_> = ["messages", "statuses", "errors"].into_iter().filter_map(of_list).collect();
        Some(if counts.is_empty() { 1 } else { counts.iter().sum() })
    };
    let of_entry = |entry: &Value| {
        let Some(changes) = entry.get("changes").and_then(Value::as_array) else { return Some(1) };
        changes.iter().map(of_change).sum::<Option<usize>>()
    };
    body.get("entry")?.as_array()?.iter().map(of_entry).sum()
}

/// What is kept can be stored: no NUL anywhere, and `raw` is JSON that Postgres takes.
fn check_storable(parsed: &Parsed) {
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
    assert!(!show(parsed).contains('\0'));
    for part in &parsed.parts {
        assert!((1..=512).contains(&part.route.external_id().len()));
        for event in &part.events {
            if let Event::Message(message) = event {
                no_nul(&serde_json::from_str(message.raw.get()).expect("raw is JSON"));
                assert!((1..=512).contains(&message.provider_message_id.len()) && !message.sender.aliases.is_empty());
                assert!(message.text.iter().all(|text| !text.is_empty() && text.len() <= 64 * 1024));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_damaged_value_harms_no_sibling(
        mut body in (0..BODIES.len()).prop_map(|index| BODIES[index].clone()),
        damages in prop::collection::vec((any::<usize>(), damage()), 1..4),
    ) {
        for (place, damage) in damages {
            apply(damage, place, &mut body["entry"]);
        }
        let Value::Array(entries) = &mut body["entry"] else { return Ok(()) };
        entries.push(sound_entry());
        let change = body.pointer("/entry/0/changes/0").unwrap_or(&Value::Null);
        let number = &change["value"]["metadata"]["phone_number_id"];
        let routed = change["field"] == MESSAGES && number == "330000000000009";
        let messages = body.pointer_mut("/entry/0/changes/0/value/messages").and_then(Value::as_array_mut);
        let listed = messages.filter(|_| routed).map(|messages| messages.push(sound_message())).is_some();
        let parsed = parse(body.to_string().as_bytes(), received_at()).expect("it is still JSON");
        check_storable(&parsed);
        let shown = show(&parsed);
        prop_assert!(shown.contains(SOUND_STATUS), "{}", shown);
        prop_assert!(!listed || shown.contains(SOUND_MESSAGE), "{}", shown);
        let read = parsed.parts.iter().map(|part| part.events.len() + part.bad.len()).sum::<usize>() + parsed.bad.len();
        prop_assert!(told(&body).is_none_or(|told| told == read), "{}", shown);
    }

    #[test]
    fn bad_bytes_in_a_string_harm_no_sibling(
        bytes in prop::collection::vec(
            prop_oneof![
                any::<u8>().prop_filter("structure", |byte| !matches!(byte, b'"' | b'\\')).prop_map(|byte| vec![byte]),
                select(vec!["\\u0000", "\\ud800", "\\udfff", "\\ud83d\\udc4d", "\\u12", "\\uD83D", "\\n", "\\x", "\\\\", "\\\"", "é"])
                    .prop_map(|text| text.as_bytes().to_vec()),
            ],
            0..40,
        ),
    ) {
        let body = json!({"object":"whatsapp_business_account","entry":[{"id":"1","changes":[{"field":"messages","value":{
            "metadata":{"phone_number_id":"2"},"messages":[
                {"id":"wamid.HOLE","from":"15557770142","timestamp":1_794_830_400,"type":"text","text":{"body":"HOLE"},"key HOLE":"HOLE"},
                sound_message()]}}]}]}).to_string();
        let body: Vec<u8> = body.replace("\"HOLE", "\"\u{1}").replace("key HOLE", "\u{1}").bytes()
            .flat_map(|byte| if byte == 1 { bytes.concat() } else { vec![byte] }).collect();
        let parsed = parse(&body, received_at()).expect("it is still JSON");
        check_storable(&parsed);
        let shown = show(&parsed);
        prop_assert!(shown.contains(" message wamid.HOLE text"), "{}", shown);
        prop_assert!(shown.contains(SOUND_MESSAGE), "{}", shown);
    }

    #[test]
    fn no_bytes_make_it_panic_or_keep_what_cannot_be_stored(
        mut body in (0..BYTES.len()).prop_map(|index| BYTES[index].clone()),
        changes in prop::collection::vec((any::<prop::sample::Index>(), prop::collection::vec(any::<u8>(), 0..4)), 0..6),
        end in any::<prop::sample::Index>(),
        truncate in any::<bool>(),
    ) {
        for (at, bytes) in changes {
            let at = at.index(body.len());
            body.splice(at..(at + 1), bytes);
        }
        if truncate {
            body.truncate(end.index(body.len()));
        }
        if let Ok(parsed) = parse(&body, received_at()) {
            check_storable(&parsed);
        }
    }
}
