//! The breaker of each account, as this worker sees it: a provider that fails too often is not asked on and on. What a refusal says of
//! an account is another matter: that takes it down at once.

use shared::domain::{ids::ChannelAccountId, outcome::Outcome};
use std::{collections::HashMap, sync::Mutex, time::Duration};
use tokio::time::Instant;

/// Calls are counted over so long a time, in two halves.
const HALF: Duration = Duration::from_secs(30);
/// So many failures at least, so that a bad moment of an account with little to do says nothing.
const LEAST_FAILURES: u32 = 20;
/// At least one in so many calls failed.
const ONE_IN: u32 = 2;
/// Accounts of which nothing was heard for as long are forgotten when there are more than so many.
const MOST_ACCOUNTS: usize = 10_000;

/// The breakers.
#[derive(Debug, Default)]
pub(super) struct Breakers(Mutex<HashMap<ChannelAccountId, Window>>);

#[derive(Clone, Copy, Debug, Default)]
struct Half {
    calls: u32,
    failures: u32,
}

#[derive(Debug)]
struct Window {
    since: Instant,
    before: Half,
    now: Half,
}

impl Breakers {
    /// Counts a call that has ended. What is wrong with the account, if that was one failure too many; it then begins anew.
    pub(super) fn note(&self, account: ChannelAccountId, outcome: &Outcome, now: Instant) -> Option<String> {
        let failed = is_failure(outcome)?;
        let mut windows = self.0.lock().expect("nothing panics while this is locked");
        if windows.len() > MOST_ACCOUNTS {
            windows.retain(|_, window| now < window.since + 2 * HALF);
        }
        let window =
            windows.entry(account).or_insert(Window { since: now, before: Half::default(), now: Half::default() });
        if now >= window.since + HALF {
            let is_next = now < window.since + 2 * HALF;
            *window =
                Window { since: now, before: if is_next { window.now } else { Half::default() }, now: Half::default() };
        }
        window.now.calls += 1;
        window.now.failures += u32::from(failed);
        let calls = window.before.calls + window.now.calls;
        let failures = window.before.failures + window.now.failures;
        if !failed || failures < LEAST_FAILURES || failures * ONE_IN < calls {
            return None;
        }
        windows.remove(&account);
        Some(format!("{failures} of the last {calls} calls failed within a minute"))
    }
}

/// Whether a call shows that the provider fails, or works; `None` if it says neither.
fn is_failure(outcome: &Outcome) -> Option<bool> {
    use shared::domain::outcome::Class;
    match outcome {
        Outcome::Accepted(_)
        | Outcome::Failed { .. }
        | Outcome::OptedOut { .. }
        | Outcome::NeedsTemplate { .. }
        | Outcome::TemplateBlocked { .. } => Some(false),
        Outcome::Unknown { .. } => Some(true),
        Outcome::NotSent(not_sent) => match not_sent.class {
            Class::Unreachable | Class::Transient => Some(true),
            // Throttling is for the limits.
            _ => None,
        },
        Outcome::AccountDown { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::domain::outcome::{Accepted, Class, NotSent};

    fn outcome(class: Class) -> Outcome {
        Outcome::NotSent(NotSent { code: "x".into(), reason: "y".into(), retry_after: None, class })
    }

    /// How many calls it takes until the breaker opens, of at most so many; each a moment after the other.
    fn opens_after(outcomes: impl Iterator<Item = Outcome>, apart: Duration) -> Option<usize> {
        let (breakers, account, start) = (Breakers::default(), ChannelAccountId::new(), Instant::now());
        outcomes
            .enumerate()
            .find(|(nth, outcome)| {
                breakers.note(account, outcome, start + apart * u32::try_from(*nth).unwrap_or(u32::MAX)).is_some()
            })
            .map(|(nth, _)| nth + 1)
    }

    #[test]
    fn it_opens_when_half_of_enough_calls_fail() {
        let taken = || Outcome::Accepted(Accepted::with_id("1"));
        let unknown = || Outcome::Unknown { reason: "no answer".into() };
        let quick = Duration::from_millis(10);
        assert_eq!(opens_after((0..100).map(|_| outcome(Class::Transient)), quick), Some(20));
        assert_eq!(opens_after((0..100).map(|_| unknown()), quick), Some(20));
        let every_other = |n| if n % 2 == 0 { unknown() } else { taken() };
        assert_eq!(opens_after((0..100).map(every_other), quick), Some(39));
        let one_in_three = |n| if n % 3 == 0 { unknown() } else { taken() };
        assert_eq!(opens_after((0..300).map(one_in_three), quick), None, "most are taken");
        assert_eq!(opens_after((0..300).map(|_| outcome(Class::Account)), quick), None, "throttling is no failure");
        assert_eq!(
            opens_after((0..100).map(|_| unknown()), Duration::from_secs(4)),
            None,
            "15 a minute are too few to tell"
        );
    }
}
