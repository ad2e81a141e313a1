//! Instagram messaging, as Meta documents it in November 2026. What its webhooks share with the other products of Meta is
//! [`meta`]'s.

pub mod answer;
pub mod check;
pub mod errors;
pub mod profile;
pub mod send;

pub use super::meta::verify::{self, Handshake, verify, verify_any};
pub use answer::outcome;
pub use check::check;
pub use errors::report_reason;
pub use send::{path, request};

use super::{
    Unreadable,
    meta::{self, Platform},
};
use crate::domain::{
    events::{Parsed, RouteKey},
    people::AliasKind,
};
use chrono::{DateTime, Utc};
use std::collections::HashSet;

const PLATFORM: Platform = Platform {
    object: "instagram",
    route: RouteKey::InstagramAccountId,
    person: AliasKind::InstagramId,
    reference: None,
};

/// Reads a webhook. `received_at` stands in for missing and impossible times.
///
/// # Errors
/// Only if the body as a whole is no JSON or no webhook of its kind. What is wrong with a part of it is in [`Parsed::bad`] and
/// [`Part::bad`](crate::domain::events::Part::bad).
pub fn parse(body: &[u8], received_at: DateTime<Utc>) -> Result<Parsed, Unreadable> {
    meta::parse(&PLATFORM, body, received_at)
}

/// What of a webhook is for these accounts, and nothing of what is for others.
pub fn excerpt(body: &[u8], accounts: &HashSet<RouteKey>) -> String {
    meta::excerpt::excerpt(&PLATFORM, body, accounts)
}

#[cfg(test)]
mod tests;
