//! Twilio Programmable Messaging, as documented in November 2026.

use super::Unreadable;
use crate::domain::events::Parsed;
use chrono::{DateTime, Utc};

/// Reads a webhook.
///
/// # Errors
/// If it cannot be read.
pub fn parse(_body: &[u8], _query: Option<&str>, _received_at: DateTime<Utc>) -> Result<Parsed, Unreadable> {
    Err(Unreadable { reason: "not read yet".into() })
}
