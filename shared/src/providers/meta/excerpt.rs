//! What of a webhook is for some of the accounts it speaks to, for the log of their tenant: one webhook may speak to several
//! tenants, and none may see what is another's. Who an element is for is decided by the same function as in
//! [`parse`](super::parse()).

use super::{
    Platform,
    element::{Element, accounts},
};
use crate::{
    domain::events::RouteKey,
    providers::{json::Object, repair::readable},
};
use serde_json::value::RawValue;
use std::{collections::HashSet, fmt::Write};

/// The webhook with what is for these accounts alone. What is for nobody who could be made out is left out, too. Of what names two
/// accounts, both must be among them: a part is for whoever has the one or the other, and brings both.
pub(in crate::providers) fn excerpt(platform: &Platform, body: &[u8], ours: &HashSet<RouteKey>) -> String {
    entries(body, |entry| excerpt_of_entry(platform, &entry, ours))
}

/// The webhook with these entries alone, each as `keep` leaves it.
pub(in crate::providers) fn entries(body: &[u8], keep: impl Fn(Object) -> Option<String>) -> String {
    let text = readable(body);
    let Ok(envelope) = Object::parse(&text) else { return "{}".to_owned() };
    let entries: Vec<String> = envelope.items("entry").into_iter().filter_map(Object::of).filter_map(keep).collect();
    with_lists(&envelope, &[("entry", entries.iter().map(String::as_str).collect())])
}

fn excerpt_of_entry(platform: &Platform, entry: &Object, ours: &HashSet<RouteKey>) -> Option<String> {
    let entry_id = entry.id("id");
    let entry_id = entry_id.as_deref();
    let is_entrys_ours = entry_id.is_some_and(|id| ours.contains(&(platform.route)(id.to_owned())));
    let is_ours = |raw: &RawValue| {
        let accounts = accounts(platform, entry_id, Element::of(raw, entry_id).as_ref());
        accounts.is_some_and(|(route, fallback)| ours.contains(&route) && fallback.is_none_or(|id| ours.contains(&id)))
    };
    let others: &[&str] = if is_entrys_ours { &[] } else { &["field", "value"] };
    let mut left_out = others.to_vec();
    let mut lists = Vec::new();
    for list in ["messaging", "standby", "changes"] {
        match entry.get(list) {
            None => {}
            // Not a list: the entry's account is told so.
            Some(raw) if !raw.get().starts_with('[') => left_out.extend((!is_entrys_ours).then_some(list)),
            Some(_) => {
                let items = entry.items(list).into_iter();
                let items = items.filter(|raw| if list == "changes" { is_entrys_ours } else { is_ours(raw) });
                lists.push((list, items.map(RawValue::get).collect::<Vec<_>>()));
            }
        }
    }
    let is_kept = is_entrys_ours || lists.iter().any(|(_, items)| !items.is_empty());
    is_kept.then(|| without(entry, &left_out, &lists))
}

/// The object as it is, but for what these of its lists hold.
pub(in crate::providers) fn with_lists(object: &Object, lists: &[(&str, Vec<&str>)]) -> String {
    without(object, &[], lists)
}

fn without(object: &Object, left_out: &[&str], lists: &[(&str, Vec<&str>)]) -> String {
    let is_other = |key: &str| left_out.contains(&key) || lists.iter().any(|(list, _)| *list == key);
    let members = object.members().filter(|(key, _)| !is_other(key)).map(|(key, value)| (key, value.get().to_owned()));
    let held = lists.iter().filter(|(list, _)| object.get(list).is_some());
    let held = held.map(|(list, items)| (*list, format!("[{}]", items.join(","))));
    let mut text = String::from("{");
    for (index, (key, value)) in members.chain(held).enumerate() {
        let key = serde_json::to_string(key).expect("a string is always JSON");
        write!(text, "{}{key}:{value}", if index == 0 { "" } else { "," }).expect("writing to a string");
    }
    text + "}"
}
