//! Limits that are about the person a send goes to: what one may get in a time, and how many may be reached in a day.

use super::{
    Account,
    meters::{Meters, PortfolioKey},
};
use crate::{
    db::{error::Result, outbound::turns::NOW_LANE, scope::FleetTx},
    domain::{
        ids::{ContactId, MessageId, TenantId},
        limits::Shape,
    },
};
use chrono::{DateTime, TimeDelta, Utc};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};
use uuid::Uuid;

/// A send of an account with such a limit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) account: Account,
    pub(super) message_id: MessageId,
    pub(super) lane: i16,
    pub(super) portfolio: Option<Uuid>,
}

/// Why a send must wait because of whom it goes to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// They get the next one in so long.
    Pair(Duration),
    /// As many people are reached as may be; somebody's day is over in so long.
    Portfolio(Duration),
}

/// The person of a send.
#[derive(Clone, Copy, Debug)]
struct Person {
    contact_id: ContactId,
    window_open: bool,
    pair_next_at: DateTime<Utc>,
    reached: bool,
}

/// The people of the sends in a question. A send is [admitted](People::admit) as if it were granted; what [is](People::keep) is
/// written down.
#[derive(Debug, Default)]
pub(super) struct People {
    people: HashMap<(TenantId, MessageId), Person>,
    /// The pairs' meters as they stand after what has been admitted.
    pairs: BTreeMap<(Account, ContactId), DateTime<Utc>>,
    /// Who has been admitted and was not reached before.
    reached: BTreeSet<(PortfolioKey, ContactId)>,
    /// When the next place of a portfolio is free.
    free_in: BTreeMap<PortfolioKey, Duration>,
}

/// People whose day is over are forgotten so many at a time.
const FORGET_AT_ONCE: i64 = 2_000;
/// How long to wait where the time cannot be told.
const SOME_TIME: Duration = Duration::from_secs(60);

impl People {
    /// Reads what is known of the people of these sends.
    pub(super) async fn read(tx: &mut FleetTx, asked: &[Asked], meters: &mut Meters) -> Result<Self> {
        let mut people = Self::default();
        if asked.is_empty() {
            return Ok(people);
        }
        people.make_room(tx, asked, meters).await?;
        let tenants: Vec<Uuid> = asked.iter().map(|send| send.account.0.0).collect();
        let messages: Vec<Uuid> = asked.iter().map(|send| send.message_id.0).collect();
        let portfolios: Vec<Option<Uuid>> = asked.iter().map(|send| send.portfolio).collect();
        let rows = sqlx::query_file!(
            "src/db/outbound/people.sql",
            &tenants,
            &messages,
            &portfolios as &[Option<Uuid>],
            meters.now
        )
        .fetch_all(tx.conn())
        .await?;
        for row in rows {
            let person = Person {
                contact_id: ContactId(row.contact_id),
                window_open: row.window_open,
                pair_next_at: row.pair_next_at,
                reached: row.reached,
            };
            people.people.insert((TenantId(row.tenant_id), MessageId(row.message_id)), person);
        }
        Ok(people)
    }

    /// Forgets people whose day is over where a portfolio could run out of places otherwise.
    async fn make_room(&mut self, tx: &mut FleetTx, asked: &[Asked], meters: &mut Meters) -> Result<()> {
        let mut wanted: BTreeMap<PortfolioKey, i64> = BTreeMap::new();
        for send in asked {
            if let Some(portfolio) = send.portfolio {
                *wanted.entry((send.account.0, portfolio)).or_default() += 1;
            }
        }
        let now = meters.now;
        for (portfolio, wanted) in wanted {
            let Some(tier) = meters.tier(&portfolio).filter(|tier| tier.used + wanted > tier.for_campaigns()) else {
                continue;
            };
            let row = sqlx::query!(
                r#"WITH over AS (
                    DELETE FROM portfolio_people
                    WHERE tenant_id = $1 AND portfolio_id = $2 AND contact_id IN (
                        SELECT contact_id
                        FROM portfolio_people
                        WHERE tenant_id = $1 AND portfolio_id = $2 AND reached_at <= $3::timestamptz - interval '24 hours'
                        ORDER BY reached_at
                        LIMIT $4
                    )
                    RETURNING contact_id
                )
                SELECT (SELECT count(*) FROM over) AS "forgotten!", EXTRACT(epoch FROM (
                    SELECT min(reached_at)
                    FROM portfolio_people
                    WHERE tenant_id = $1 AND portfolio_id = $2 AND reached_at > $3::timestamptz - interval '24 hours'
                ) + interval '24 hours' - $3::timestamptz)::float8 AS free_in"#,
                portfolio.0.0,
                portfolio.1,
                now,
                FORGET_AT_ONCE,
            )
            .fetch_one(tx.conn())
            .await?;
            tier.used -= row.forgotten;
            let free_in = row.free_in.map_or(SOME_TIME, |s| Duration::from_secs_f64(s.clamp(1.0, 86_400.0)));
            self.free_in.insert(portfolio, free_in);
            if row.forgotten > 0 {
                count_people(tx, portfolio, -row.forgotten).await?;
            }
        }
        Ok(())
    }

    /// Whether the person of a send may get it now; if so, it counts from here on.
    pub(super) fn admit(&mut self, send: &Asked, meters: &mut Meters) -> std::result::Result<(), Refusal> {
        let Some(person) = self.people.get(&(send.account.0, send.message_id)).copied() else { return Ok(()) };
        let pair = meters.pair(&send.account).map(|shape| {
            let next_at = self.pairs.get(&(send.account, person.contact_id)).copied();
            (shape, next_at.unwrap_or_else(|| shape.next_at(person.pair_next_at, meters.now)))
        });
        if let Some(wait) = pair.and_then(|(shape, next_at)| waits(shape, next_at - meters.now)) {
            return Err(Refusal::Pair(wait));
        }
        if let Some(portfolio) = send.portfolio.map(|id| (send.account.0, id)) {
            let known = person.window_open || person.reached || self.reached.contains(&(portfolio, person.contact_id));
            if let Some(tier) = meters.tier(&portfolio).filter(|_| !known) {
                let most = if send.lane == NOW_LANE { tier.people } else { tier.for_campaigns() };
                if tier.used >= most {
                    return Err(Refusal::Portfolio(self.free_in.get(&portfolio).copied().unwrap_or(SOME_TIME)));
                }
                tier.used += 1;
                self.reached.insert((portfolio, person.contact_id));
            }
        }
        if let Some((shape, next_at)) = pair {
            self.pairs.insert((send.account, person.contact_id), shape.after(next_at, 1));
        }
        Ok(())
    }

    /// Writes down what these grants take.
    pub(super) async fn keep(&self, tx: &mut FleetTx, granted: &[Asked], meters: &Meters) -> Result<()> {
        self.keep_pairs(tx, granted, meters).await?;
        self.keep_reached(tx, granted, meters).await
    }

    async fn keep_pairs(&self, tx: &mut FleetTx, granted: &[Asked], meters: &Meters) -> Result<()> {
        let mut next: BTreeMap<(Account, ContactId), DateTime<Utc>> = BTreeMap::new();
        for send in granted {
            let Some(person) = self.people.get(&(send.account.0, send.message_id)) else { continue };
            let Some(shape) = meters.pair(&send.account) else { continue };
            let next_at = next
                .entry((send.account, person.contact_id))
                .or_insert_with(|| shape.next_at(person.pair_next_at, meters.now));
            *next_at = shape.after(*next_at, 1);
        }
        if next.is_empty() {
            return Ok(());
        }
        let tenants: Vec<Uuid> = next.keys().map(|((tenant_id, _), _)| tenant_id.0).collect();
        let accounts: Vec<Uuid> = next.keys().map(|((_, id), _)| id.0).collect();
        let contacts: Vec<Uuid> = next.keys().map(|(_, contact)| contact.0).collect();
        let times: Vec<DateTime<Utc>> = next.values().copied().collect();
        sqlx::query!(
            "INSERT INTO pair_meters (tenant_id, channel_account_id, contact_id, next_at)
            SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::timestamptz[])
            ON CONFLICT (tenant_id, channel_account_id, contact_id) DO UPDATE SET next_at = excluded.next_at",
            &tenants,
            &accounts,
            &contacts,
            &times,
        )
        .execute(tx.conn())
        .await?;
        Ok(())
    }

    async fn keep_reached(&self, tx: &mut FleetTx, granted: &[Asked], meters: &Meters) -> Result<()> {
        let mut reached: BTreeMap<PortfolioKey, BTreeSet<ContactId>> = BTreeMap::new();
        for send in granted {
            let Some(person) = self.people.get(&(send.account.0, send.message_id)) else { continue };
            let Some(portfolio) = send.portfolio.map(|id| (send.account.0, id)) else { continue };
            if !person.window_open {
                reached.entry(portfolio).or_default().insert(person.contact_id);
            }
        }
        for (portfolio, people) in reached {
            let contacts: Vec<Uuid> = people.iter().map(|contact| contact.0).collect();
            // Who is there already, if only because nobody has made room since their day was over, is counted already.
            let new = sqlx::query_scalar!(
                r#"WITH kept AS (
                    INSERT INTO portfolio_people (tenant_id, portfolio_id, contact_id, reached_at)
                    SELECT $1, $2, contact_id, $4 FROM unnest($3::uuid[]) AS reached (contact_id)
                    ON CONFLICT (tenant_id, portfolio_id, contact_id) DO UPDATE SET reached_at = excluded.reached_at
                    RETURNING xmax = 0 AS new
                )
                SELECT count(*) FILTER (WHERE new) AS "new!" FROM kept"#,
                portfolio.0.0,
                portfolio.1,
                &contacts,
                meters.now,
            )
            .fetch_one(tx.conn())
            .await?;
            count_people(tx, portfolio, new).await?;
        }
        Ok(())
    }
}

/// How long a pair has to wait, if it has to.
fn waits(shape: Shape, ahead: TimeDelta) -> Option<Duration> {
    (shape.allowed(ahead) == 0).then(|| shape.wait(ahead, 1))
}

async fn count_people(tx: &mut FleetTx, (tenant_id, portfolio): PortfolioKey, change: i64) -> Result<()> {
    sqlx::query!(
        "UPDATE limits SET used = greatest(0, used + $3) WHERE tenant_id = $1 AND scope = 'portfolio' AND key = $2",
        tenant_id.0,
        portfolio,
        change,
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}
