//! A time as an operator gives it: RFC 3339, or so long ago: `90s`, `15m`, `2h`, `3d`, `1w`.

use chrono::{DateTime, TimeDelta, Utc};
use std::str::FromStr;

/// A time that was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    /// This one.
    At(DateTime<Utc>),
    /// So long before now.
    Ago(TimeDelta),
}

/// A text that is not a time.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("is neither a time (2026-11-21T10:00:00Z) nor how long ago (90s, 15m, 2h, 3d, 1w)")]
pub(super) struct NotATime;

impl When {
    /// The time.
    pub(super) fn before(self, now: DateTime<Utc>) -> DateTime<Utc> {
        match self {
            When::At(at) => at,
            // Nothing of ours is older than that, and no database can hold any time.
            When::Ago(ago) => now.checked_sub_signed(ago).unwrap_or(DateTime::UNIX_EPOCH).max(DateTime::UNIX_EPOCH),
        }
    }
}

impl FromStr for When {
    type Err = NotATime;

    fn from_str(text: &str) -> Result<Self, NotATime> {
        if let Ok(at) = DateTime::parse_from_rfc3339(text) {
            return Ok(When::At(at.to_utc()));
        }
        let unit = text.chars().next_back().ok_or(NotATime)?;
        let seconds = match unit {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86_400,
            'w' => 7 * 86_400,
            _ => return Err(NotATime),
        };
        let number = &text[..text.len() - 1];
        // Without a sign: none of them is to come.
        let number = Some(number).filter(|number| number.bytes().all(|byte| byte.is_ascii_digit())).ok_or(NotATime)?;
        let number: i64 = number.parse().map_err(|_| NotATime)?;
        number.checked_mul(seconds).and_then(TimeDelta::try_seconds).map(When::Ago).ok_or(NotATime)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_given_as_such_or_by_how_long_ago_it_was() {
        let now = DateTime::from_timestamp(1_795_000_000, 0).unwrap();
        let seconds_ago = |text: &str| text.parse::<When>().map(|when| (now - when.before(now)).num_seconds());
        for (text, seconds) in [("90s", 90), ("15m", 900), ("2h", 7200), ("3d", 259_200), ("1w", 604_800), ("0s", 0)] {
            assert_eq!(seconds_ago(text), Ok(seconds), "{text}");
        }
        let at = "2026-11-21T12:00:00+02:00".parse::<When>().unwrap();
        assert_eq!(at.before(now).to_rfc3339(), "2026-11-21T10:00:00+00:00");
        for wrong in [
            "",
            "h",
            "2",
            "-2h",
            "+2h",
            "2y",
            "2 h",
            "yesterday",
            "2é",
            "99999999999999999999d",
            "9223372036854775807w",
        ] {
            assert_eq!(seconds_ago(wrong), Err(NotATime), "{wrong}");
        }
        let long_ago = When::Ago(TimeDelta::try_seconds(1_000_000_000_000).unwrap());
        assert_eq!(long_ago.before(now), DateTime::UNIX_EPOCH);
    }
}
