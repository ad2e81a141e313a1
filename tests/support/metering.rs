//! How much of an account's limit was taken when: what was granted, by what each message counts for, and what came in where that
//! counts, too. By the database's clock, and in sliding seconds.

use chrono::{DateTime, Utc};
use shared::domain::{channel::Provider, ids::ChannelAccountId};
use sqlx::PgConnection;

/// A moment in microseconds, and how much was taken then.
pub type Moment = (i64, u64);

/// What was granted to an account between two moments, in order: every grant, whatever became of it.
///
/// # Panics
/// If the database does not answer.
pub async fn granted(
    admin: &mut PgConnection,
    account: ChannelAccountId,
    (from, until): (DateTime<Utc>, DateTime<Utc>),
) -> Vec<Moment> {
    // Of one that is under way there is no attempt yet.
    moments(
        admin,
        "SELECT a.granted_at, s.units::bigint
        FROM send_attempts a
        JOIN sends s ON s.tenant_id = a.tenant_id AND s.message_id = a.message_id
        WHERE s.channel_account_id = $1 AND a.granted_at BETWEEN $2 AND $3
        UNION ALL
        SELECT granted_at, units::bigint
        FROM sends
        WHERE channel_account_id = $1 AND state = 'sending' AND granted_at BETWEEN $2 AND $3",
        account,
        (from, until),
    )
    .await
}

/// What an account received between two moments, in order, if that counts with its provider.
///
/// # Panics
/// If the database does not answer.
pub async fn received(
    admin: &mut PgConnection,
    account: ChannelAccountId,
    provider: Provider,
    between: (DateTime<Utc>, DateTime<Utc>),
) -> Vec<Moment> {
    if provider.inbound_cost() == 0.0 {
        return Vec::new();
    }
    moments(
        admin,
        "SELECT m.created_at, 1::bigint
        FROM messages m
        JOIN conversations v ON v.tenant_id = m.tenant_id AND v.id = m.conversation_id
        WHERE v.channel_account_id = $1 AND m.direction = 'in' AND m.created_at BETWEEN $2 AND $3",
        account,
        between,
    )
    .await
}

async fn moments(
    admin: &mut PgConnection,
    question: &'static str,
    account: ChannelAccountId,
    (from, until): (DateTime<Utc>, DateTime<Utc>),
) -> Vec<Moment> {
    let found: Vec<(DateTime<Utc>, i64)> = sqlx::query_as(question)
        .bind(account.0)
        .bind(from)
        .bind(until)
        .fetch_all(admin)
        .await
        .expect("the database answers");
    let mut moments: Vec<Moment> =
        found.into_iter().map(|(at, units)| (at.timestamp_micros(), u64::try_from(units).unwrap_or(0))).collect();
    moments.sort_unstable();
    moments
}

/// For each moment, how much was taken in the second that ends with it; in ascending order.
pub fn seconds(moments: &[Moment]) -> Vec<u64> {
    let (mut first, mut within) = (0, 0);
    let mut seconds = Vec::with_capacity(moments.len());
    for (at, units) in moments {
        within += units;
        while at - moments[first].0 >= 1_000_000 {
            within -= moments[first].1;
            first += 1;
        }
        seconds.push(within);
    }
    seconds.sort_unstable();
    seconds
}

/// The most in any sliding second.
pub fn busiest(moments: &[Moment]) -> u64 {
    seconds(moments).last().copied().unwrap_or_default()
}

/// When the sliding second ended in which most was taken.
pub fn busiest_until(moments: &[Moment]) -> i64 {
    let until = moments.iter().map(|(at, _)| *at).max_by_key(|until| taken_until(moments, *until));
    until.unwrap_or_default()
}

/// How much was taken in the second that ends with a moment.
pub fn taken_until(moments: &[Moment], until: i64) -> u64 {
    let first = moments.partition_point(|(at, _)| *at <= until - 1_000_000);
    let end = moments.partition_point(|(at, _)| *at <= until);
    sum(&moments[first..end])
}

/// How much in all.
pub fn sum(moments: &[Moment]) -> u64 {
    moments.iter().map(|(_, units)| units).sum()
}

/// The longest that anything had to wait, in seconds, in a queue that lets so much go a second.
pub fn longest_wait(moments: &[Moment], per_second: f64) -> f64 {
    let (mut free_at, mut longest) = (f64::MIN, 0.0_f64);
    for (at, units) in moments {
        let at = *at as f64 / 1_000_000.0;
        longest = longest.max(free_at - at);
        free_at = free_at.max(at) + *units as f64 / per_second;
    }
    longest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sliding_second_is_counted_without_its_beginning() {
        let moments = [(0, 1), (500_000, 3), (999_999, 1), (1_000_000, 1), (2_500_000, 2)];
        assert_eq!(seconds(&moments), [1, 2, 4, 5, 5]);
        assert_eq!((busiest(&moments), sum(&moments), busiest(&[])), (5, 8, 0));
        assert_eq!((taken_until(&moments, 999_999), taken_until(&moments, 1_000_000)), (5, 5));
        assert_eq!(taken_until(&moments, busiest_until(&moments)), 5);
    }

    #[test]
    fn what_is_larger_than_the_rate_keeps_the_next_waiting() {
        assert!((longest_wait(&[(0, 3), (1_000_000, 1), (9_000_000, 1)], 1.0) - 2.0).abs() < 0.001);
        assert!(longest_wait(&[(0, 1), (1_000_000, 1)], 1.0).abs() < 0.001);
    }
}
