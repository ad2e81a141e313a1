//! What the answers of all providers have in common: how long they ask to wait, and what one means that says nothing of its own.

use crate::domain::outcome::{Class, NotSent, Outcome};
use std::time::Duration;

/// Longer waits than this are not believed.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

/// The wait of a `Retry-After` header; only seconds are understood.
pub(super) fn wait(retry_after: Option<&str>) -> Option<Duration> {
    let seconds = retry_after?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(MAX_RETRY_AFTER))
}

/// An answer without an error code: not the provider's own, but that of something before it. `throttled` is what slows down.
pub(super) fn without_code(who: &str, status: u16, retry_after: Option<Duration>, throttled: Class) -> Outcome {
    let code = format!("http_{status}");
    match status {
        429 => Outcome::NotSent(NotSent { code, reason: "Too many calls.".into(), retry_after, class: throttled }),
        // A redirect, a refused login, a path that does not exist: the same for every message, so that all of them wait.
        300..=399 | 401 | 403 | 404 | 405 | 407 => Outcome::AccountDown {
            code,
            reason: format!("The address configured for {who} answered {status}, and not as {who} does."),
        },
        400..=499 if !matches!(status, 408 | 425 | 499) => Outcome::Failed {
            code,
            reason: format!("{who} refused the request with status {status} and gave no reason."),
        },
        _ => Outcome::Unknown {
            reason: format!("{who} answered {status}, which leaves open whether it took the message."),
        },
    }
}

/// The outcome's kind in a few words, as tables of tests write it.
#[cfg(test)]
pub(super) fn in_words(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Accepted(taken) => {
            let kept = taken.kept_file.as_deref().map(|file| format!(" keeping {file}")).unwrap_or_default();
            format!("accepted {}{kept}", taken.provider_message_id)
        }
        Outcome::NotSent(NotSent { class, retry_after, .. }) => {
            let after = retry_after.map(|wait| format!(" after {}", wait.as_secs())).unwrap_or_default();
            format!("not sent, {}{after}", class.as_str())
        }
        Outcome::Unknown { .. } => "unknown".into(),
        Outcome::Failed { code, .. } => format!("failed {code}"),
        Outcome::OptedOut { code, .. } => format!("opted out {code}"),
        Outcome::NeedsTemplate { code, .. } => format!("template {code}"),
        Outcome::TemplateBlocked { code, .. } => format!("blocked {code}"),
        Outcome::AccountDown { code, .. } => format!("down {code}"),
    }
}
