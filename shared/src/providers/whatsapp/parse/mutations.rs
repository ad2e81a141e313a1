//! The fixtures, damaged at random.

use super::*;
use crate::providers::{
    testing::mutations::{Subject, mutation_tests},
    whatsapp::excerpt,
};
use serde_json::{Value, json};
use std::ops::RangeInclusive;

const SUBJECT: Subject = Subject {
    provider: "whatsapp",
    parse,
    excerpt,
    entry: sound_entry,
    entry_leads_to: " status wamid.SOUND delivered (delivered) at 1794830400\n",
    beside,
    // Up to the sender's ids: a message that is alone with a nameless contact takes its name.
    beside_leads_to: " message wamid.SOUND text at 1794830400 from DE.999 4999",
    told,
    holes,
    holes_lead_to: " message wamid.HOLE text",
};

mutation_tests!(SUBJECT);

fn sound_message() -> Value {
    json!({"id":"wamid.SOUND","from":"4999","from_user_id":"DE.999","timestamp":"1794830400","type":"text","text":{"body":"here"}})
}

fn sound_entry() -> Value {
    json!({"id":"1","changes":[{"field":"messages","value":{"metadata":{"phone_number_id":"2"},
        "statuses":[{"id":"wamid.SOUND","status":"delivered","timestamp":1_794_830_400}]}}]})
}

fn beside(body: &mut Value) -> bool {
    let change = body.pointer("/entry/0/changes/0").unwrap_or(&Value::Null);
    let is_routed = change["field"] == MESSAGES && change["value"]["metadata"]["phone_number_id"] == "330000000000009";
    let messages = body.pointer_mut("/entry/0/changes/0/value/messages").and_then(Value::as_array_mut);
    messages.filter(|_| is_routed).map(|messages| messages.push(sound_message())).is_some()
}

fn holes() -> Value {
    json!({"object":"whatsapp_business_account","entry":[{"id":"1","changes":[{"field":"messages","value":{
        "metadata":{"phone_number_id":"2"},"messages":[
            {"id":"wamid.HOLE","from":"15557770142","timestamp":1_794_830_400,"type":"text","text":{"body":"HOLE"},"key HOLE":"HOLE"},
            sound_message()]}}]}]})
}

/// What a field says of an account and its limits may be more than one thing.
fn told(body: &Value) -> Option<RangeInclusive<usize>> {
    let once = || Some(1..=1);
    let of_lists = |value: &serde_json::Map<String, Value>, keys: &[&str]| {
        let of_list = |key: &&str| match value.get(*key) {
            None | Some(Value::Null) => None,
            Some(Value::Array(items)) => Some(items.len()),
            Some(_) => Some(1),
        };
        let counts: Vec<_> = keys.iter().filter_map(of_list).collect();
        let count = if counts.is_empty() { 1 } else { counts.iter().sum() };
        Some(count..=count)
    };
    let of_change = |change: &Value| {
        let Some(value) = change.get("value").and_then(Value::as_object) else { return once() };
        match change.get("field")?.as_str().filter(|field| !field.trim().is_empty())? {
            MESSAGES => {
                value
                    .get("metadata")?
                    .get("phone_number_id")?
                    .as_str()
                    .filter(|id| !id.is_empty() && id.len() <= 512)?;
                of_lists(value, &["messages", "statuses", "errors"])
            }
            "smb_message_echoes" | "user_preferences" => Some(0..=usize::MAX),
            _ => Some(1..=3),
        }
    };
    let of_entry = |entry: &Value| {
        let Some(changes) = entry.get("changes").and_then(Value::as_array) else { return once() };
        sum(changes.iter().map(of_change))
    };
    sum(body.get("entry")?.as_array()?.iter().map(of_entry))
}

fn sum(counts: impl Iterator<Item = Option<RangeInclusive<usize>>>) -> Option<RangeInclusive<usize>> {
    counts.into_iter().try_fold(0..=0, |sum, count| {
        let count = count?;
        Some(sum.start() + count.start()..=sum.end().saturating_add(*count.end()))
    })
}
