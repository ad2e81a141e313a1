//! What is read of a webhook so far: each event with the account it is for, and what could not be read.

use crate::domain::events::{BadElement, Event, Parsed, Part, RouteKey};
use std::{collections::HashMap, fmt};

/// Meta puts at most 1,000 updates into one webhook. Whoever holds a secret can sign a million empty ones.
const MAX_ELEMENTS: usize = 20_000;

/// The accounts of a part: what routes it, and what does where nobody has that.
type Accounts = (RouteKey, Option<RouteKey>);

/// What is read so far.
#[derive(Default)]
pub(in crate::providers) struct Reading {
    parsed: Parsed,
    /// Where in `parsed.parts` an account's part is; empty while there is only one.
    places: HashMap<Accounts, usize>,
    elements: usize,
}

impl Reading {
    /// The place of an account's part.
    pub(in crate::providers) fn part(&mut self, route: RouteKey, fallback: Option<RouteKey>) -> usize {
        let parts = &mut self.parsed.parts;
        let new = |(route, fallback), parts: &mut Vec<Part>| {
            parts.push(Part { route, fallback, events: Vec::new(), bad: Vec::new() });
            parts.len() - 1
        };
        match parts.last() {
            None => new((route, fallback), parts),
            Some(last) if last.route == route && last.fallback == fallback => parts.len() - 1,
            Some(last) => {
                if self.places.is_empty() {
                    self.places.insert((last.route.clone(), last.fallback.clone()), 0);
                }
                let accounts = (route, fallback);
                *self.places.entry(accounts.clone()).or_insert_with(|| new(accounts, parts))
            }
        }
    }

    /// Something that a part says.
    pub(in crate::providers) fn push(&mut self, part: usize, event: Event) {
        if self.has_room() {
            self.parsed.parts[part].events.push(event);
        }
    }

    /// Something unreadable that is for nobody who could be made out.
    pub(in crate::providers) fn bad(&mut self, path: impl fmt::Display, reason: &str) {
        if self.has_room() {
            self.parsed.bad.push(bad_element(path, reason));
        }
    }

    /// Something unreadable in a part.
    pub(in crate::providers) fn bad_of(&mut self, part: usize, path: impl fmt::Display, reason: &str) {
        if self.has_room() {
            self.parsed.parts[part].bad.push(bad_element(path, reason));
        }
    }

    /// Whether one more element is taken.
    fn has_room(&mut self) -> bool {
        self.elements += 1;
        self.elements <= MAX_ELEMENTS
    }

    /// All that was read.
    pub(in crate::providers) fn finish(mut self) -> Parsed {
        if let Some(more @ 1..) = self.elements.checked_sub(MAX_ELEMENTS) {
            let reason = format!("has {more} elements more than the {MAX_ELEMENTS} that are read");
            self.parsed.bad.push(bad_element("entry", &reason));
        }
        self.parsed.parts.retain(|part| !(part.events.is_empty() && part.bad.is_empty()));
        self.parsed
    }
}

fn bad_element(path: impl fmt::Display, reason: &str) -> BadElement {
    BadElement { path: path.to_string(), reason: reason.to_owned() }
}
