//! The limits of the accounts in a question: locked, read and moved on.

use super::Account;
use crate::{
    db::{error::Result, scope::FleetTx},
    domain::{
        ids::{ChannelAccountId, TenantId},
        limits::{Scope, Shape, reserve, sends_per_second},
    },
};
use chrono::{DateTime, TimeDelta, Utc};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use uuid::Uuid;

/// A portfolio of a tenant's.
pub(super) type PortfolioKey = (TenantId, Uuid);

/// A limit of so much a second.
pub(super) type RateKey = (TenantId, Scope, Uuid);

/// All limits of so much a second that a send is under, if they are there; its account's first.
pub(super) type Rates = [Option<RateKey>; 3];

/// Under which limits a send of this account is.
pub(super) fn rates(account: &Account, portfolio: Option<Uuid>, heavy: bool) -> Rates {
    let (tenant_id, id) = (account.0, account.1.0);
    [
        Some((tenant_id, Scope::Account, id)),
        heavy.then_some((tenant_id, Scope::Heavy, id)),
        portfolio.map(|portfolio| (tenant_id, Scope::ProviderAccount, portfolio)),
    ]
}

/// What sends take of limits.
#[derive(Debug, Default)]
pub(super) struct Taken(BTreeMap<RateKey, usize>);

impl Taken {
    /// A send takes this of its limits.
    pub(super) fn add(&mut self, rates: &Rates, units: usize) {
        for key in rates.iter().flatten() {
            *self.0.entry(*key).or_default() += units;
        }
    }

    fn of(&self, key: &RateKey) -> usize {
        self.0.get(key).copied().unwrap_or(0)
    }
}

/// What is known of the limits, as of one moment.
#[derive(Debug, Default)]
pub(super) struct Meters {
    /// The time once all were locked.
    pub(super) now: DateTime<Utc>,
    rates: BTreeMap<RateKey, Meter>,
    pairs: BTreeMap<Account, Shape>,
    tiers: BTreeMap<PortfolioKey, Tier>,
}

/// The meter of so much a second.
#[derive(Debug)]
struct Meter {
    shape: Shape,
    next_at: DateTime<Utc>,
    /// It begins anew, which is to be kept.
    anew: bool,
    stopped_until: DateTime<Utc>,
    answers_wait_until: DateTime<Utc>,
}

/// How many people a portfolio may reach in a day.
#[derive(Debug)]
pub(super) struct Tier {
    pub(super) people: i64,
    pub(super) used: i64,
}

/// A campaign leaves a hundredth of a portfolio's people to answers and single messages.
const KEPT_FOR_ANSWERS: i64 = 100;

impl Tier {
    /// How many of them campaigns may reach.
    pub(super) fn for_campaigns(&self) -> i64 {
        self.people - self.people / KEPT_FOR_ANSWERS
    }
}

/// What a rate is counted over.
const SECOND: TimeDelta = TimeDelta::seconds(1);

/// An answer that must wait for its turn keeps campaigns' messages from taking it: for the time it waits, and so much more until
/// its worker has asked again.
const ASKS_AGAIN_WITHIN: Duration = Duration::from_millis(100);
/// One that waits longer than this is not held: it comes back by way of the outbox, which takes so much longer.
const HELD_FOR: Duration = Duration::from_secs(2);
const COMES_BACK_WITHIN: Duration = Duration::from_secs(1);
/// No answer is put off for longer than five seconds ([`ANSWER_AGAIN`]).
const ANSWERS_WAIT_AT_MOST: Duration = Duration::from_secs(6);

/// An answer that waits for its turn at the meter asks again after this time at the latest: the limit may have been raised.
pub const ANSWER_AGAIN: Duration = Duration::from_secs(5);

impl Meters {
    /// Locks the limits of accounts, each with its portfolio.
    pub(super) async fn lock(tx: &mut FleetTx, accounts: &BTreeMap<Account, Option<Uuid>>) -> Result<Self> {
        let mut wanted: BTreeSet<(TenantId, Scope, Uuid)> = BTreeSet::new();
        for ((tenant_id, id), portfolio) in accounts {
            wanted.insert((*tenant_id, Scope::Account, id.0));
            wanted.insert((*tenant_id, Scope::Heavy, id.0));
            wanted.insert((*tenant_id, Scope::Pair, id.0));
            for scope in [Scope::Portfolio, Scope::ProviderAccount] {
                wanted.extend(portfolio.map(|portfolio| (*tenant_id, scope, portfolio)));
            }
        }
        let tenants: Vec<Uuid> = wanted.iter().map(|(tenant_id, ..)| tenant_id.0).collect();
        let scopes: Vec<String> = wanted.iter().map(|(_, scope, _)| scope.as_str().to_owned()).collect();
        let keys: Vec<Uuid> = wanted.iter().map(|(.., key)| *key).collect();
        let rows =
            sqlx::query_file!("src/db/outbound/meter.sql", &tenants, &scopes, &keys).fetch_all(tx.conn()).await?;
        let mut meters = Self { now: rows.first().map(|row| row.now).unwrap_or_default(), ..Self::default() };
        for row in rows {
            let (Some(tenant_id), Some(key), Some(rate)) = (row.tenant_id, row.key, row.rate) else { continue };
            let Some(Ok(scope)) = row.scope.as_deref().map(str::parse::<Scope>) else { continue };
            let account = (TenantId(tenant_id), ChannelAccountId(key));
            let cost = row.cost.unwrap_or(1.0);
            let now = meters.now;
            match scope {
                Scope::Account | Scope::Heavy | Scope::ProviderAccount => {
                    let kept = reserve(rate, row.busiest_second.unwrap_or(0), row.inbound_cost.unwrap_or(0.0));
                    let current = row.current_rate.unwrap_or(rate);
                    let shape = Shape::within_each_second(sends_per_second(rate, current, kept, cost), row.burst);
                    let longest = TimeDelta::from_std(ANSWERS_WAIT_AT_MOST).unwrap_or_default();
                    let next_at = row.next_at.unwrap_or(now);
                    let anew = shape.is_absurd(next_at, now);
                    // What the slower meter let go of late counts within the same second.
                    let after = if anew { SECOND } else { TimeDelta::zero() };
                    let meter = Meter {
                        shape,
                        next_at: shape.next_at(next_at, now) + after,
                        anew,
                        stopped_until: row.stopped_until.unwrap_or(now),
                        answers_wait_until: row.answers_wait_until.unwrap_or(now).min(now + longest),
                    };
                    meters.rates.insert((account.0, scope, key), meter);
                }
                Scope::Pair => drop(meters.pairs.insert(account, Shape::borrowing(rate / cost, row.burst))),
                Scope::Portfolio => {
                    let tier = Tier { people: (rate / cost) as i64, used: row.used.unwrap_or(0) };
                    meters.tiers.insert((TenantId(tenant_id), key), tier);
                }
            }
        }
        Ok(meters)
    }

    fn of_account(&self, account: &Account) -> Option<&Meter> {
        self.rates.get(&(account.0, Scope::Account, account.1.0))
    }

    /// How many an account may hand over now; `None` if nothing limits it.
    pub(super) fn allowed(&self, account: &Account) -> Option<usize> {
        self.of_account(account).map(|meter| meter.allowed(self.now))
    }

    /// How long a send must wait that takes so much, after what has been taken and what waits before it; `None` if it may go now.
    /// What is only stopped is asked about again after `look_again` at the latest: a stop may end early.
    pub(super) fn wait(
        &self,
        rates: &Rates,
        taken: &Taken,
        units: usize,
        waiting: usize,
        look_again: Duration,
    ) -> Option<Duration> {
        let wait = |key: &RateKey| {
            let (meter, before) = (self.rates.get(key)?, taken.of(key));
            let needed = meter.shape.needed(units);
            if before + needed <= meter.allowed(self.now) {
                return None;
            }
            let stopped = (meter.stopped_until - self.now).to_std().unwrap_or_default().min(look_again);
            Some(meter.shape.wait(meter.next_at - self.now, before + waiting + needed).max(stopped))
        };
        rates.iter().flatten().filter_map(wait).max()
    }

    /// How long an answer that another worker holds has been told to wait, if it has.
    pub(super) fn answers_wait(&self, account: &Account) -> Option<Duration> {
        let meter = self.of_account(account)?;
        (meter.answers_wait_until - self.now).to_std().ok().filter(|left| !left.is_zero())
    }

    /// What one person may get from the account, if that is limited.
    pub(super) fn pair(&self, account: &Account) -> Option<Shape> {
        self.pairs.get(account).copied()
    }

    /// What is left of the portfolio's day.
    pub(super) fn tier(&mut self, portfolio: &PortfolioKey) -> Option<&mut Tier> {
        self.tiers.get_mut(portfolio)
    }

    /// The meters move on by what was taken, and remember for how long an account's answer waits.
    pub(super) async fn advance(&self, tx: &mut FleetTx, moves: &BTreeMap<Account, Move>, taken: &Taken) -> Result<()> {
        let (mut tenants, mut scopes, mut keys) = (Vec::new(), Vec::new(), Vec::new());
        let (mut next, mut until, mut stopped) = (Vec::new(), Vec::new(), Vec::new());
        for (key, meter) in &self.rates {
            let (tenant_id, scope, id) = *key;
            let moved = moves.get(&(tenant_id, ChannelAccountId(id))).filter(|_| scope == Scope::Account);
            let more = |wait: Duration| if wait < HELD_FOR { ASKS_AGAIN_WITHIN } else { COMES_BACK_WITHIN };
            let waits = moved.and_then(|moved| moved.answer_waits).map(|wait| wait.min(ANSWER_AGAIN) + more(wait));
            let answers_wait_until = waits.and_then(|wait| TimeDelta::from_std(wait).ok());
            let units = taken.of(key);
            if units == 0 && answers_wait_until.is_none() && !meter.anew {
                continue;
            }
            tenants.push(tenant_id.0);
            scopes.push(scope.as_str().to_owned());
            keys.push(id);
            next.push(if units > 0 { meter.shape.after(meter.next_at, units) } else { meter.next_at });
            stopped.push(moved.and_then(|moved| moved.stopped_for).map(|longest| longest.as_secs_f64()));
            // Of several that wait, in several workers, the one that waits longest.
            until.push(match answers_wait_until {
                Some(wait) => (self.now + wait).max(meter.answers_wait_until),
                None if moved.is_some_and(|moved| moved.answered) => self.now,
                None => meter.answers_wait_until,
            });
        }
        if tenants.is_empty() {
            return Ok(());
        }
        sqlx::query!(
            "UPDATE limits l
            SET next_at = moved.next_at, answers_wait_until = moved.answers_wait_until,
                stopped_until = coalesce(clock_timestamp() + make_interval(secs => moved.stopped_for), l.stopped_until)
            FROM unnest($1::uuid[], $2::text[], $3::uuid[], $4::timestamptz[], $5::timestamptz[], $6::float8[])
                AS moved (tenant_id, scope, key, next_at, answers_wait_until, stopped_for)
            WHERE l.tenant_id = moved.tenant_id AND l.scope = moved.scope AND l.key = moved.key",
            &tenants,
            &scopes,
            &keys,
            &next,
            &until,
            &stopped as &[Option<f64>],
        )
        .execute(tx.conn())
        .await?;
        Ok(())
    }
}

impl Meter {
    fn allowed(&self, now: DateTime<Utc>) -> usize {
        if self.stopped_until > now { 0 } else { self.shape.allowed(self.next_at - now) }
    }
}

/// What a question comes to for one account.
#[derive(Debug, Default)]
pub(super) struct Move {
    /// Whether answers were granted.
    pub(super) answered: bool,
    /// How long the call that was granted may take, of an account whose calls come one at a time: until it has ended
    /// ([`outcomes`](super::super::outcomes)) nothing else is.
    pub(super) stopped_for: Option<Duration>,
    /// How long the first answer that was not granted has to wait for the rate.
    pub(super) answer_waits: Option<Duration>,
}
