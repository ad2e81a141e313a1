//! One element of `message_echoes[]` as an echo: what the business wrote, edited or took back on its own telephone (contract,
//! section 6).

use super::{
    content::{self, Content},
    people::{Contacts, Names},
    wire::time,
};
use crate::{domain::events::Echo, providers::json::Object};
use chrono::{DateTime, Utc};
use serde_json::value::RawValue;
use std::borrow::Cow;

/// Reads an element. `alone`: it is the only one of its change.
///
/// # Errors
/// Why nothing can be made of it: it is no object, cannot be told from others, or nobody was written to.
pub(super) fn read(
    raw: &RawValue,
    contacts: &Contacts,
    alone: bool,
    received_at: DateTime<Utc>,
) -> Result<Echo, &'static str> {
    let echo = Object::of(raw).ok_or("is no object")?;
    let id = echo.id("id").ok_or("has no usable id")?;
    let mut names = Names::default();
    names.add(echo.id("to_user_id"));
    names.add(echo.id("to"));
    let recipient = contacts.person(names, alone);
    if recipient.aliases.is_empty() {
        return Err("names no recipient");
    }
    let content = content::read(&echo).unwrap_or_else(Content::unsupported);
    let answered = || echo.object("context")?.id("id").map(Cow::into_owned);
    Ok(Echo {
        provider_message_id: id.into_owned(),
        at: time(&echo, received_at),
        recipient,
        kind: content.kind,
        text: content.text,
        media: content.media.into_iter().collect(),
        refers_to: content.target.or_else(answered),
        token: None,
        raw: raw.to_owned(),
    })
}
