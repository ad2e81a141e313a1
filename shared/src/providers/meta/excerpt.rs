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
    with(&envelope, &[("entry", list_of(&entries))], &[])
}

fn excerpt_of_entry(platform: &Platform, entry: &Object, ours: &HashSet<RouteKey>) -> Option<String> {
    let entry_id = entry.id("id");
    let entry_id = entry_id.as_deref();
    let is_entrys_ours = entry_id.is_some_and(|id| ours.contains(&(platform.route)(id.to_owned())));
    let is_ours = |raw: &RawValue| {
        let accounts = accounts(platform, entry_id, Element::of(raw, entry_id).as_ref());
        accounts.is_some_and(|(route, fallback)| ours.contains(&route) && fallback.is_none_or(|id| ours.contains(&id)))
    };
    // An entry without an id: what it says itself is for nobody.
    let is_nobodys = |key: &&str| !is_entrys_ours && *key != "time";
    let left_out: Vec<&str> = entry.members().map(|(key, _)| key).filter(is_nobodys).collect();
    let mut lists = Vec::new();
    let mut is_kept = is_entrys_ours;
    for list in ["messaging", "standby", "changes"] {
        let stand_there = || entry.members().filter(|(key, value)| *key == list && value.get() != "null");
        if stand_there().next().is_none() {
            continue;
        }
        // Whose entry it is is told that this is no list.
        if let Some((_, wrong)) = stand_there().find(|(_, value)| !value.get().starts_with('[')) {
            lists.extend(is_entrys_ours.then(|| (list, wrong.get().to_owned())));
            continue;
        }
        let items = entry.items(list).into_iter();
        let items = items.filter(|raw| if list == "changes" { is_entrys_ours } else { is_ours(raw) });
        let items: Vec<_> = items.map(RawValue::get).collect();
        is_kept |= !items.is_empty();
        lists.push((list, list_of(&items)));
    }
    is_kept.then(|| with(entry, &lists, &left_out))
}

/// A list of these items.
pub(in crate::providers) fn list_of(items: &[impl AsRef<str>]) -> String {
    let items: Vec<_> = items.iter().map(AsRef::as_ref).collect();
    format!("[{}]", items.join(","))
}

/// The object with these values under these keys, and without these others.
pub(in crate::providers) fn with(object: &Object, values: &[(&str, String)], left_out: &[&str]) -> String {
    let left_out: HashSet<&str> = left_out.iter().copied().collect();
    let is_other = |key: &str| left_out.contains(key) || values.iter().any(|(other, _)| *other == key);
    let members = object.members().filter(|(key, _)| !is_other(key)).map(|(key, value)| (key, value.get()));
    let mut text = String::from("{");
    for (index, (key, value)) in members.chain(values.iter().map(|(key, value)| (*key, &**value))).enumerate() {
        let key = serde_json::to_string(key).expect("a string is always JSON");
        write!(text, "{}{key}:{value}", if index == 0 { "" } else { "," }).expect("writing to a string");
    }
    text + "}"
}
