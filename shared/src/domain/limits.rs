//! Limits that providers set, and the arithmetic by which they are kept (GCRA, ITU-T I.371).

use super::channel::Provider;
use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr, time::Duration};

/// What a limit is a limit of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// What one channel account sends a second: messages, or segments of text messages.
    Account,
    /// Films and recordings a second of one channel account.
    Heavy,
    /// Messages a second from one account to one person.
    Pair,
    /// People reached outside their customer service window in any 24 hours, by all accounts of a portfolio together.
    Portfolio,
    /// What all accounts of a portfolio (Twilio: of its account) send a second together.
    ProviderAccount,
}

impl Scope {
    /// All of them.
    pub const ALL: [Scope; 5] = [Scope::Account, Scope::Heavy, Scope::Pair, Scope::Portfolio, Scope::ProviderAccount];

    /// Whether it is about a portfolio, not about one account.
    pub fn is_of_portfolio(self) -> bool {
        matches!(self, Scope::Portfolio | Scope::ProviderAccount)
    }

    /// Whether it is so much a second.
    pub fn is_rate(self) -> bool {
        matches!(self, Scope::Account | Scope::Heavy | Scope::ProviderAccount)
    }

    /// The name in SQL, in the API and at the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Scope::Account => "account",
            Scope::Heavy => "heavy",
            Scope::Pair => "pair",
            Scope::Portfolio => "portfolio",
            Scope::ProviderAccount => "provider_account",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A scope that this release does not know.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("there are limits called account, heavy, pair, portfolio and provider_account, not {0:?}")]
pub struct UnknownScope(pub String);

impl FromStr for Scope {
    type Err = UnknownScope;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == text).ok_or_else(|| UnknownScope(text.to_owned()))
    }
}

/// A limit as somebody sets it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LimitValues {
    /// account, pair: messages a second. portfolio: people in any 24 hours.
    pub rate: f64,
    /// So many at once; of an account it follows from the rate unless given.
    pub burst: Option<i32>,
    /// What a received message takes of it.
    pub inbound_cost: f64,
}

/// A change to a limit: what is not given stays as it is, or is what the provider is known for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LimitChange {
    /// [`LimitValues::rate`].
    pub rate: f64,
    /// [`LimitValues::burst`].
    pub burst: Option<i32>,
    /// [`LimitValues::inbound_cost`].
    pub inbound_cost: Option<f64>,
}

impl LimitChange {
    /// The limit as it is after the change.
    pub fn of(self, before: Option<LimitValues>, scope: Scope, provider: Provider) -> LimitValues {
        let usual = if scope == Scope::Account { provider.inbound_cost() } else { 0.0 };
        let had = before.map_or(usual, |before| before.inbound_cost);
        LimitValues {
            rate: self.rate,
            burst: self.burst.or(before.and_then(|before| before.burst)),
            inbound_cost: self.inbound_cost.unwrap_or(had),
        }
    }
}

const LEAST_RATE: f64 = 0.0001;
/// No limit is higher: of a portfolio, as many people as it likes.
pub const MOST_RATE: f64 = 1_000_000.0;
const MOST_INBOUND_COST: f64 = 10.0;

/// Why a limit cannot be set so; to be read after the name of the [field](BadLimit::field).
#[derive(Debug, thiserror::Error, Clone, Copy, PartialEq)]
pub enum BadLimit {
    /// So many messages a second.
    #[error("must be {LEAST_RATE} to {MOST_RATE} messages a second, not {0}")]
    Rate(f64),
    /// So many people in 24 hours.
    #[error("must be a whole number of people, 1 to {MOST_RATE}, not {0}")]
    People(f64),
    /// So many at once, of an account.
    #[error(
        "must be 1 to {most} at {rate} messages a second (half of them at most), and is {burst}: set it together with the rate"
    )]
    AccountBurst {
        /// As it would be.
        burst: i32,
        /// As many as there may be.
        most: i32,
        /// At this rate.
        rate: f64,
    },
    /// So many at once, to one person.
    #[error("must be at least 1, not {0}")]
    PairBurst(i32),
    /// So many at once, of a portfolio.
    #[error("must be left out: the people of a portfolio are counted over 24 hours, and have no burst")]
    PortfolioBurst,
    /// What received messages take.
    #[error("must be 0 to {MOST_INBOUND_COST}, not {0}")]
    InboundCost(f64),
    /// What received messages take where they take nothing.
    #[error("must be left out, or 0: messages that are received take of an account's limit only, never of a {0}'s")]
    NoInbound(Scope),
}

impl BadLimit {
    /// The field at fault.
    pub fn field(self) -> &'static str {
        match self {
            BadLimit::Rate(_) | BadLimit::People(_) => "rate",
            BadLimit::AccountBurst { .. } | BadLimit::PairBurst(_) | BadLimit::PortfolioBurst => "burst",
            BadLimit::InboundCost(_) | BadLimit::NoInbound(_) => "inbound_cost",
        }
    }
}

impl LimitValues {
    /// Whether it makes sense for this scope.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self, scope: Scope) -> Result<(), BadLimit> {
        let Self { rate, burst, inbound_cost } = *self;
        // What is no number is in no range.
        match scope {
            Scope::Portfolio if !((1.0..=MOST_RATE).contains(&rate) && rate.fract() == 0.0) => {
                return Err(BadLimit::People(rate));
            }
            _ if !(LEAST_RATE..=MOST_RATE).contains(&rate) => return Err(BadLimit::Rate(rate)),
            _ => {}
        }
        // A float to an integer saturates.
        let most = ((rate / 2.0) as i32).max(1);
        match (scope, burst) {
            (Scope::Account | Scope::Heavy | Scope::ProviderAccount, Some(burst)) if !(1..=most).contains(&burst) => {
                return Err(BadLimit::AccountBurst { burst, most, rate });
            }
            (Scope::Pair, Some(burst)) if burst < 1 => return Err(BadLimit::PairBurst(burst)),
            (Scope::Portfolio, Some(_)) => return Err(BadLimit::PortfolioBurst),
            _ => {}
        }
        match scope {
            Scope::Account if !(0.0..=MOST_INBOUND_COST).contains(&inbound_cost) => {
                Err(BadLimit::InboundCost(inbound_cost))
            }
            Scope::Heavy | Scope::Pair | Scope::Portfolio | Scope::ProviderAccount if inbound_cost != 0.0 => {
                Err(BadLimit::NoInbound(scope))
            }
            _ => Ok(()),
        }
    }
}

/// What is kept free of an account's rate for messages yet to be received, where the provider counts those too: as many as came
/// in the busiest second of late, and a fortieth of the rate because they are counted by whole seconds and a moment after they
/// came. Sends keep a tenth of the rate, however many come in.
pub fn reserve(rate: f64, busiest_second: i32, inbound_cost: f64) -> f64 {
    if inbound_cost <= 0.0 {
        return 0.0;
    }
    ((f64::from(busiest_second) + rate / 40.0) * inbound_cost).min(rate * 0.9)
}

/// How many sends a second an account has: its rate without what is kept free, or less while its provider throttles it. A rate
/// above one is taken for whole messages, since 1.5 a second would let two go in some seconds; what is left of it need not be
/// whole, because even rounded up it is within the rate.
pub fn sends_per_second(rate: f64, current_rate: f64, kept: f64, cost: f64) -> f64 {
    let whole = if rate > 1.0 { rate.floor() } else { rate };
    whole.min(rate - kept).min(current_rate) / cost
}

/// Senders ask every 20 ms. What a meter could have let go while nobody asked is not lost if they are no later than this.
const LATE_SECONDS: f64 = 0.025;

/// One message takes no more: 1600 characters in UCS-2 (providers/twilio section 10).
const MOST_UNITS: f64 = 24.0;

/// A meter owes no more than its burst and one message; so much more is not owed to this shape of it.
const ABSURD: TimeDelta = TimeDelta::seconds(1);

/// A meter: so many at once, and after that so many a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shape {
    burst: f64,
    sustained: f64,
}

impl Shape {
    /// No sliding second `[t, t + 1 s)` gets more than `rate`: the burst and what follows within a second are one more than `rate`,
    /// and that many never fit into it. (A rate that is not whole is rounded up for that.) Unless a burst is given, it makes up
    /// for as long as a question may come late, which costs a fortieth of the rate.
    pub fn within_each_second(rate: f64, burst: Option<i32>) -> Self {
        let Some(burst) = burst else {
            let sustained = rate / (1.0 + LATE_SECONDS);
            return Self { burst: 1.0 + LATE_SECONDS * sustained, sustained };
        };
        let burst = f64::from(burst).min((rate / 2.0).floor()).max(1.0);
        Self { burst, sustained: rate - (burst - 1.0) }
    }

    /// `burst` at once, borrowed from what `rate` allows later.
    pub fn borrowing(rate: f64, burst: Option<i32>) -> Self {
        Self { burst: burst.map_or(1.0, f64::from).max(1.0), sustained: rate }
    }

    /// The meter's time as it counts now. No meter of this shape owes more than its burst: one that was much slower when it was
    /// last used, or a clock that has stepped back, would hold it up for that. Such a one is believed to have one left.
    pub fn next_at(&self, next_at: DateTime<Utc>, now: DateTime<Utc>) -> DateTime<Utc> {
        if self.is_absurd(next_at, now) { now + self.time_of(self.burst - 1.0) } else { next_at.max(now) }
    }

    /// Whether this is what a much slower meter owes.
    pub fn is_absurd(&self, next_at: DateTime<Utc>, now: DateTime<Utc>) -> bool {
        next_at > now + self.time_of(self.burst + MOST_UNITS) + ABSURD
    }

    fn time_of(&self, count: f64) -> TimeDelta {
        TimeDelta::microseconds((count * 1_000_000.0 / self.sustained) as i64)
    }

    /// So many a second while work waits.
    pub fn sustained(&self) -> f64 {
        self.sustained
    }

    /// How many may go when the meter's time is so far ahead of the clock.
    pub fn allowed(&self, ahead: TimeDelta) -> usize {
        // A float to an integer saturates, at zero too.
        (self.burst - self.sustained * ahead.as_seconds_f64()).floor() as usize
    }

    /// How many of the meter's units must be free for something that takes so many: what takes more than there ever are at once goes
    /// when nothing is owed, and is paid back.
    pub fn needed(&self, units: usize) -> usize {
        units.min(self.burst.floor() as usize).max(1)
    }

    /// How long until the `number`th from now (1, 2 …) may go, if nothing changes.
    pub fn wait(&self, ahead: TimeDelta, number: usize) -> Duration {
        let wait = ahead.as_seconds_f64() + (number as f64 - self.burst) / self.sustained;
        Duration::from_secs_f64(wait.clamp(0.0, 86_400.0))
    }

    /// The meter's time after `count` more. Whole microseconds, rounded up: the clock's grain lets not one more through.
    pub fn after(&self, next_at: DateTime<Utc>, count: usize) -> DateTime<Utc> {
        let micros = (count as f64 * 1_000_000.0 / self.sustained).ceil();
        next_at + TimeDelta::microseconds(micros as i64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The most that a meter grants in any sliding second when it is asked so often, and how many in all.
    fn asked_every(micros: usize, shape: Shape, seconds: i64) -> (usize, usize) {
        let start = DateTime::<Utc>::UNIX_EPOCH;
        let (mut next_at, mut granted) = (start, Vec::new());
        for micros in (0..seconds * 1_000_000).step_by(micros) {
            let now = start + TimeDelta::microseconds(micros);
            next_at = next_at.max(now);
            let count = shape.allowed(next_at - now);
            next_at = shape.after(next_at, count);
            granted.extend(std::iter::repeat_n(now, count));
        }
        let within = |from: &DateTime<Utc>| {
            granted.iter().filter(|at| **at >= *from && **at - *from < TimeDelta::seconds(1)).count()
        };
        (granted.iter().map(within).max().unwrap_or_default(), granted.len())
    }

    #[test]
    fn no_sliding_second_exceeds_the_rate_and_nearly_all_of_it_is_used() {
        for rate in [0.5, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 20.0, 25.0, 32.0, 33.0, 57.9, 80.0] {
            for (inbound_cost, micros) in [(0.0, 500), (0.0, 20_000), (1.0, 500), (1.0, 20_000)] {
                let sends = sends_per_second(rate, rate, reserve(rate, 0, inbound_cost), 1.0);
                let (busiest, all) = asked_every(micros, Shape::within_each_second(sends, None), 40);
                assert!(busiest as f64 <= rate.max(1.0), "{busiest} in a second at {rate}");
                let whole = if rate > 1.0 { rate.floor() } else { rate };
                // Where both ways count, a fortieth is kept free though nothing comes in.
                let used = if inbound_cost > 0.0 { 0.94 } else { 0.95 };
                assert!(
                    all as f64 >= whole * 40.0 * used,
                    "{all} in 40 s at {rate}, inbound {inbound_cost}, every {micros} µs"
                );
            }
        }
        let (busiest, _) = asked_every(500, Shape::within_each_second(10.0, Some(5)), 3);
        assert_eq!(busiest, 10, "with a burst of its own, too");
    }

    #[test]
    fn what_is_larger_than_a_burst_goes_when_nothing_is_owed_and_is_paid_back() {
        let (shape, now) = (Shape::within_each_second(1.0, None), DateTime::<Utc>::UNIX_EPOCH);
        assert_eq!((shape.needed(3), shape.allowed(TimeDelta::zero())), (1, 1));
        let owed = shape.after(now, 3) - now;
        assert!(
            shape.allowed(owed) == 0 && shape.wait(owed, 1) > Duration::from_secs(2),
            "three segments at one a second"
        );
        assert_eq!(Shape::within_each_second(80.0, Some(10)).needed(3), 3);
    }

    #[test]
    fn a_meter_that_was_much_slower_begins_anew() {
        let now = DateTime::<Utc>::UNIX_EPOCH;
        let shape = Shape::within_each_second(80.0, None);
        let next_at = shape.next_at(now + TimeDelta::hours(1), now);
        assert_eq!(shape.allowed(next_at - now), 1);
        for owed in [0, 30, 500] {
            let owed = now + TimeDelta::milliseconds(owed);
            assert_eq!(shape.next_at(owed, now), owed, "what may be owed is");
        }
        assert_eq!(shape.next_at(now - TimeDelta::hours(1), now), now);
    }

    #[test]
    fn a_pair_borrows_a_burst_and_pays_it_back() {
        let shape = Shape::borrowing(1.0 / 6.0, Some(45));
        assert_eq!(shape.allowed(TimeDelta::zero()), 45);
        let now = DateTime::<Utc>::UNIX_EPOCH;
        let owed = shape.after(now, 45) - now;
        assert_eq!((shape.allowed(owed), shape.wait(owed, 1)), (0, Duration::from_secs(6)));
        assert_eq!(shape.allowed(owed - TimeDelta::seconds(12)), 2);
    }

    #[test]
    fn room_is_kept_for_what_comes_in() {
        assert_eq!(reserve(80.0, 20, 0.0), 0.0, "only where the provider counts it");
        assert_eq!(reserve(80.0, 20, 1.0), 22.0);
        assert_eq!((reserve(80.0, 0, 1.0), reserve(2.0, 0, 1.0)), (2.0, 0.05));
        assert_eq!(sends_per_second(80.0, 40.0, 22.0, 1.0), 40.0, "throttled below what is left");
        assert_eq!(sends_per_second(80.0, 80.0, 22.0, 2.0), 29.0);
        assert_eq!(reserve(80.0, 500, 1.0), 72.0, "sends keep a tenth");
    }

    #[test]
    fn limits_that_make_no_sense_are_refused() {
        let limit = |rate, burst, inbound_cost| LimitValues { rate, burst, inbound_cost };
        for (scope, values, wrong) in [
            (Scope::Account, limit(0.0, None, 0.0), "rate must be 0.0001 to 1000000 messages a second, not 0"),
            (Scope::Pair, limit(f64::NAN, None, 0.0), "rate must be 0.0001 to 1000000 messages a second, not NaN"),
            (
                Scope::Account,
                limit(80.0, Some(41), 0.0),
                "burst must be 1 to 40 at 80 messages a second (half of them at most), and is 41: set it together with the rate",
            ),
            (
                Scope::Account,
                limit(0.5, Some(2), 0.0),
                "burst must be 1 to 1 at 0.5 messages a second (half of them at most), and is 2: set it together with the rate",
            ),
            (Scope::Pair, limit(1.0, Some(0), 0.0), "burst must be at least 1, not 0"),
            (
                Scope::Portfolio,
                limit(2000.0, Some(5), 0.0),
                "burst must be left out: the people of a portfolio are counted over 24 hours, and have no burst",
            ),
            (
                Scope::Portfolio,
                limit(250.9, None, 0.0),
                "rate must be a whole number of people, 1 to 1000000, not 250.9",
            ),
            (
                Scope::Pair,
                limit(1.0, None, 1.0),
                "inbound_cost must be left out, or 0: messages that are received take of an account's limit only, never of a pair's",
            ),
            (Scope::Account, limit(80.0, None, -1.0), "inbound_cost must be 0 to 10, not -1"),
        ] {
            let bad = values.check(scope).unwrap_err();
            assert_eq!(format!("{} {bad}", bad.field()), wrong, "{scope} {values:?}");
        }
        assert_eq!(limit(0.5, Some(1), 1.0).check(Scope::Account), Ok(()));
        assert_eq!(limit(1.0 / 6.0, Some(45), 0.0).check(Scope::Pair), Ok(()));
    }
}
