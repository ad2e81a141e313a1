//! Meta's times: seconds on WhatsApp and in some fields of the others, elsewhere milliseconds, as numbers or strings of them.

use chrono::{DateTime, TimeDelta, Utc};

/// A provider's clock may be ahead of ours; a time further ahead than this is none.
const MAX_AHEAD: TimeDelta = TimeDelta::minutes(5);
/// 2009-01-01, before any of Meta's messengers: what is older is no time of a message.
const EARLIEST_SECONDS: i64 = 1_230_768_000;
/// What is less than this is in seconds (providers/messenger section 1.5).
const LEAST_MILLISECONDS: f64 = 1e11;

/// The moment a number stands for; `None` if it cannot be one.
pub(in crate::providers) fn moment(number: &str, received_at: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let number: f64 = number.parse().ok()?;
    let at = if number < LEAST_MILLISECONDS {
        DateTime::from_timestamp(number as i64, 0)
    } else {
        DateTime::from_timestamp_millis(number as i64)
    };
    at.filter(|at| at.timestamp() >= EARLIEST_SECONDS && *at <= received_at + MAX_AHEAD)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_and_milliseconds_are_told_apart_and_the_impossible_is_none() {
        let received_at = DateTime::from_timestamp(1_794_831_000, 0).unwrap();
        for (number, milliseconds) in [
            ("1794830400", Some(1_794_830_400_000)),
            ("1794830400017", Some(1_794_830_400_017)),
            ("1794830400.9", Some(1_794_830_400_000)),
            ("1794831299", Some(1_794_831_299_000)),
            ("1794831301", None),
            ("1794831301000", None),
            ("99999999999", None),
            ("100000000000", None),
            ("0", None),
            ("-1794830400", None),
            ("1e300", None),
            ("-1e300", None),
            ("NaN", None),
            ("soon", None),
        ] {
            assert_eq!(moment(number, received_at).map(|at| at.timestamp_millis()), milliseconds, "{number}");
        }
    }
}
