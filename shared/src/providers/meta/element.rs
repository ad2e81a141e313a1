//! One element of `messaging[]` or `standby[]`: who speaks to whom, when, and, undecoded, what is said (providers/messenger
//! section 1.5).

use super::{MAX_PERSON_BYTES, Platform, time::moment};
use crate::{
    domain::{
        events::RouteKey,
        people::{Alias, Person},
    },
    providers::{
        json::{self, Object},
        lenient::{Lenient, members},
    },
};
use chrono::{DateTime, Utc};
use serde_json::value::RawValue;
use std::borrow::Cow;

#[derive(Default)]
struct Members<'a> {
    sender: Option<Party<'a>>,
    recipient: Option<Party<'a>>,
    timestamp: Option<&'a RawValue>,
    said: Object<'a>,
}

#[derive(Default)]
struct Party<'a> {
    id: Option<&'a RawValue>,
    user_ref: Option<&'a RawValue>,
}

members!(Members, "sender" object sender, "recipient" object recipient, "timestamp" value timestamp; rest said);
members!(Party, "id" value id, "user_ref" value user_ref);

/// An element.
pub(super) struct Element<'a> {
    members: Members<'a>,
    /// Its `message`, which says who speaks.
    pub(super) message: Option<Object<'a>>,
    /// Whether it is the business that speaks.
    pub(super) is_ours: bool,
}

impl<'a> Element<'a> {
    /// Reads one; `None` if it is no object. What the account of the entry sends is ours, and so is what says so.
    pub(super) fn of(raw: &'a RawValue, entry_id: Option<&str>) -> Option<Self> {
        let Ok(Lenient(Some(members))) = serde_json::from_str::<Lenient<Members>>(raw.get()) else { return None };
        let message = members.said.object("message");
        let is_echo = message.as_ref().is_some_and(|message| message.flag("is_echo"));
        let is_ours =
            is_echo || entry_id.is_some() && members.sender.as_ref().and_then(Party::id).as_deref() == entry_id;
        Some(Self { members, message, is_ours })
    }

    /// What is said, by kind, undecoded.
    pub(super) fn said(&self) -> &Object<'a> {
        &self.members.said
    }

    /// When, as it stands there.
    pub(super) fn timestamp(&self) -> Option<Cow<'a, str>> {
        json::number(self.members.timestamp?)
    }

    /// When.
    pub(super) fn at(&self, received_at: DateTime<Utc>) -> DateTime<Utc> {
        self.timestamp().and_then(|number| moment(&number, received_at)).unwrap_or(received_at)
    }

    /// Whether the account speaks to itself.
    pub(super) fn is_to_itself(&self) -> bool {
        let id = |party: &Option<Party<'a>>| party.as_ref().and_then(Party::id);
        id(&self.members.sender).is_some_and(|sender| id(&self.members.recipient) == Some(sender))
    }

    /// The person of the two. `reference`: a further one that a plugin gives for them.
    pub(super) fn person(&self, platform: &Platform, reference: Option<Cow<'_, str>>) -> Option<Person> {
        let party = if self.is_ours { &self.members.recipient } else { &self.members.sender }.as_ref();
        let id = party.and_then(Party::id).and_then(name);
        let reference = reference.or_else(|| json::id(party?.user_ref?)).and_then(name);
        let id = id.map(|value| Alias { kind: platform.person, value });
        let reference = platform.reference.zip(reference).map(|(kind, value)| Alias { kind, value });
        let aliases: Vec<_> = id.into_iter().chain(reference).collect();
        (!aliases.is_empty()).then_some(Person { aliases, name: None, username: None })
    }

    fn business(&self) -> Option<Cow<'a, str>> {
        let party = if self.is_ours { &self.members.sender } else { &self.members.recipient };
        party.as_ref().and_then(Party::id)
    }
}

impl<'a> Party<'a> {
    fn id(&self) -> Option<Cow<'a, str>> {
        json::id(self.id?)
    }
}

/// An id that can be a person's.
fn name(id: Cow<'_, str>) -> Option<String> {
    let id = id.trim();
    let is_one = (1..=MAX_PERSON_BYTES).contains(&id.len()) && !id.chars().any(|c| c.is_control() || c == '\u{FFFD}');
    is_one.then(|| id.to_owned())
}

/// The accounts an element is for: its entry's, and, where nobody has that, the business side of the two (providers/instagram
/// section 1). `element` is `None` if it is no object.
pub(super) fn accounts(
    platform: &Platform,
    entry_id: Option<&str>,
    element: Option<&Element>,
) -> Option<(RouteKey, Option<RouteKey>)> {
    let route = |id: &str| (platform.route)(id.to_owned());
    let business = element.and_then(Element::business);
    match (entry_id, business.as_deref()) {
        (Some(entry), Some(business)) if entry != business => Some((route(entry), Some(route(business)))),
        (Some(entry), _) => Some((route(entry), None)),
        (None, business) => Some((route(business?), None)),
    }
}
