//! Messenger Platform, as Meta documents it in November 2026.

use super::Unreadable;
use crate::domain::events::{Parsed, RouteKey};
use chrono::{DateTime, Utc};
use std::collections::HashSet;

/// Reads a webhook.
///
/// # Errors
/// If it cannot be read.
pub fn parse(_body: &[u8], _received_at: DateTime<Utc>) -> Result<Parsed, Unreadable> {
    Err(Unreadable { reason: "not read yet".into() })
}

/// What of a webhook's body is for these accounts.
pub fn excerpt(_body: &[u8], _accounts: &HashSet<RouteKey>) -> String {
    "{}".to_owned()
}
