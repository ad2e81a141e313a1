//! How long after its grant each call came to the provider. Who was stopped between the two, and woken long after, must not call.

use crate::{fleet::Fleet, sandbox::ledger::SendEntry};
use chrono::{DateTime, TimeDelta, Utc};
use std::collections::HashMap;
use uuid::Uuid;

/// A grant is called within a second; so much later is late, whatever else the machine was busy with.
const LATE: TimeDelta = TimeDelta::seconds(2);

/// What is known of all calls.
#[derive(Clone, Debug, Default)]
pub struct Lateness {
    /// Calls that are attempts of ours.
    pub calls: usize,
    /// The longest from a grant to the provider's seeing the call.
    pub longest: TimeDelta,
    /// Calls that came later than they may, in words.
    pub late: Vec<String>,
    /// Grants whose deadline passed without a word from who had them.
    pub expired: usize,
}

/// Looks at every call so far.
///
/// # Panics
/// If the database does not answer.
pub async fn lateness(fleet: &Fleet) -> Lateness {
    let mut admin = fleet.database.admin().await;
    let granted: Vec<(Uuid, DateTime<Utc>, String)> = sqlx::query_as(
        "SELECT id, granted_at, outcome FROM send_attempts WHERE granted_at IS NOT NULL
        UNION ALL
        SELECT attempt_id, granted_at, 'sending' FROM sends WHERE state = 'sending'",
    )
    .fetch_all(&mut admin)
    .await
    .expect("the database answers");
    let expired = granted.iter().filter(|(.., outcome)| outcome == "expired").count();
    let mut lateness = Lateness { expired, ..Lateness::default() };
    let granted: HashMap<Uuid, DateTime<Utc>> = granted.into_iter().map(|(id, at, _)| (id, at)).collect();
    for entry in fleet.sandbox.ledger().sends_from(1, usize::MAX) {
        let Some(at) = attempt_of(&entry).and_then(|id| granted.get(&id)) else { continue };
        let after = entry.at - *at;
        lateness.calls += 1;
        lateness.longest = lateness.longest.max(after);
        if after > LATE {
            let seconds = after.as_seconds_f64();
            lateness
                .late
                .push(format!("{:?} to {} came {seconds:.1} s after its grant", entry.opaque, entry.recipient));
        }
    }
    lateness
}

/// The attempt that a request's token names.
pub(crate) fn attempt_of(entry: &SendEntry) -> Option<Uuid> {
    entry.opaque.as_deref()?.rsplit_once(':')?.1.parse().ok()
}
