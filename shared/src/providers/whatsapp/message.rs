//! One element of `messages[]` as a message of ours.

use super::{
    content::{self, Content},
    people::{Contacts, Names},
    wire::time,
};
use crate::{
    domain::{events::InboundMessage, messages::MessageKind, people::Alias},
    providers::json::Object,
};
use chrono::{DateTime, Utc};
use serde_json::value::RawValue;
use std::borrow::Cow;

/// Reads an element. `alone`: it is the only one of its change.
///
/// # Errors
/// Why nothing can be made of it: it is no object, cannot be told from others, or nobody sent it.
pub(super) fn read(
    raw: &RawValue,
    contacts: &Contacts,
    alone: bool,
    received_at: DateTime<Utc>,
) -> Result<InboundMessage, &'static str> {
    let message = Object::of(raw).ok_or("is no object")?;
    let id = message.id("id").ok_or("has no usable id")?;
    let content = content::read(&message).unwrap_or_else(Content::unsupported);
    let system = message.object("system").filter(|_| content.kind == MessageKind::System);
    let sender = contacts.person(sender(&message, system.as_ref()), alone);
    if sender.aliases.is_empty() {
        return Err("names no sender");
    }
    let mut new_aliases = system.map_or_else(Vec::new, |system| new_names(&message, &system));
    new_aliases.retain(|alias| !sender.aliases.contains(alias));
    let answered = || message.object("context")?.id("id").map(Cow::into_owned);
    Ok(InboundMessage {
        provider_message_id: id.into_owned(),
        at: time(&message, received_at),
        sender,
        new_aliases,
        kind: content.kind,
        text: content.text,
        media: content.media.into_iter().collect(),
        refers_to: content.target.or_else(answered),
        group_id: message.id("group_id").map(Cow::into_owned),
        raw: raw.to_owned(),
    })
}

/// Who sent it, by the names they had before it: a system message is about the earlier ones.
fn sender(message: &Object, system: Option<&Object>) -> Names {
    let mut names = Names::default();
    names.add(system.and_then(|system| system.id("previous_user_id")));
    names.add(message.id("from_user_id"));
    names.add(message.id("from"));
    if let Some(system) = system.filter(|_| names.is_empty()) {
        names.add(system.id("user_id"));
        names.add(system.id("wa_id"));
    }
    names
}

/// The names a system message gives from now on.
fn new_names(message: &Object, system: &Object) -> Vec<Alias> {
    let mut names = Names::default();
    names.add(system.id("user_id"));
    names.add(system.id("wa_id"));
    names.add(message.id("from_user_id"));
    names.aliases()
}
