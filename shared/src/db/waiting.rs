//! What waits in Postgres rather than on a queue, and what for: told to an operator who asks what holds things up. Reads only, and
//! gives up after some seconds: who asks at night does not want to make it worse.

use super::{ControlTx, FleetTx, error::Result};
use crate::domain::ids::{ChannelAccountId, TenantId};
use sqlx::PgConnection;

/// What waits in one database.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Waiting {
    /// Jobs in the outbox, by queue.
    pub jobs: Vec<Jobs>,
    /// Webhooks spilled while the broker was away.
    pub spilled: i64,
    /// Accounts and how they stand.
    pub accounts: Vec<Account>,
    /// Messages whose job waits in the outbox, and those behind them in their conversations.
    pub sends: Vec<Sends>,
    /// People of campaigns that are running or paused.
    pub campaigns: Vec<Campaigns>,
}

/// Jobs of one queue in the outbox.
#[derive(Clone, Debug, PartialEq)]
pub struct Jobs {
    /// The queue's name in the topology.
    pub queue: String,
    /// To be published now.
    pub due: i64,
    /// To be published later.
    pub later: i64,
    /// Since when the oldest of those due is, in seconds.
    pub oldest_due_s: Option<f64>,
}

/// An account.
#[derive(Clone, Debug, PartialEq)]
pub struct Account {
    /// Whose.
    pub tenant_id: TenantId,
    /// Its id.
    pub id: ChannelAccountId,
    /// Its name.
    pub name: String,
    /// active, down, disabled.
    pub state: String,
    /// Why it is down.
    pub down_reason: Option<String>,
    /// Messages a second, if it has a limit.
    pub rate: Option<f64>,
    /// As lowered by throttling for now.
    pub current_rate: Option<f64>,
    /// Whether it is using its limit up now, or is stopped by its provider.
    pub at_rate: bool,
}

/// Messages of one account that wait for one reason.
#[derive(Clone, Debug, PartialEq)]
pub struct Sends {
    /// Whose.
    pub tenant_id: TenantId,
    /// From which account.
    pub account: ChannelAccountId,
    /// Whether they are a campaign's.
    pub campaign: bool,
    /// As on the send's row (rate, pair, portfolio, room, account_down, not_sent); turn: behind another of these; queued: its job is
    /// published when its turn is near.
    pub reason: String,
    /// How many.
    pub messages: i64,
}

/// Campaigns of one account that are all running or all paused.
#[derive(Clone, Debug, PartialEq)]
pub struct Campaigns {
    /// Whose.
    pub tenant_id: TenantId,
    /// From which account.
    pub account: ChannelAccountId,
    /// Whether they are paused.
    pub paused: bool,
    /// How many campaigns.
    pub campaigns: i64,
    /// People not released, or to be tried again.
    pub people: i64,
    /// Messages released and neither with the provider nor given up.
    pub in_flight: i64,
    /// Handed over a second, as measured.
    pub per_s: f64,
}

impl Waiting {
    /// Both together.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        for jobs in other.jobs {
            match self.jobs.iter_mut().find(|known| known.queue == jobs.queue) {
                None => self.jobs.push(jobs),
                Some(known) => {
                    known.due += jobs.due;
                    known.later += jobs.later;
                    known.oldest_due_s = known.oldest_due_s.into_iter().chain(jobs.oldest_due_s).reduce(f64::max);
                }
            }
        }
        self.spilled += other.spilled;
        self.accounts.extend(other.accounts);
        self.sends.extend(other.sends);
        self.campaigns.extend(other.campaigns);
        self
    }
}

/// What waits and belongs to no tenant.
///
/// # Errors
/// If the database does not answer in time.
pub async fn in_control(tx: &mut ControlTx) -> Result<Waiting> {
    hurry(tx.conn()).await?;
    let spilled =
        sqlx::query_scalar!(r#"SELECT count(*) AS "spilled!" FROM control.spill"#).fetch_one(tx.conn()).await?;
    let jobs = sqlx::query_as!(
        Jobs,
        r#"SELECT queue, count(*) FILTER (WHERE publish_after <= now()) AS "due!",
            count(*) FILTER (WHERE publish_after > now()) AS "later!",
            EXTRACT(EPOCH FROM now() - min(publish_after) FILTER (WHERE publish_after <= now()))::float8 AS oldest_due_s
        FROM control.outbox
        GROUP BY queue"#
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(Waiting { jobs, spilled, ..Waiting::default() })
}

/// What waits of the tenants in scope.
///
/// # Errors
/// If the database does not answer in time.
pub async fn in_placement(tx: &mut FleetTx) -> Result<Waiting> {
    hurry(tx.conn()).await?;
    let jobs = sqlx::query_as!(
        Jobs,
        r#"SELECT queue, count(*) FILTER (WHERE publish_after <= now()) AS "due!",
            count(*) FILTER (WHERE publish_after > now()) AS "later!",
            EXTRACT(EPOCH FROM now() - min(publish_after) FILTER (WHERE publish_after <= now()))::float8 AS oldest_due_s
        FROM outbox
        GROUP BY queue"#
    )
    .fetch_all(tx.conn())
    .await?;
    // An account that sends all it may has its next grant in the future nearly always.
    let accounts = sqlx::query_as!(
        Account,
        r#"SELECT a.tenant_id AS "tenant_id: TenantId", a.id AS "id: ChannelAccountId", a.name, a.state, a.down_reason,
            l.rate AS "rate?", l.current_rate AS "current_rate?",
            coalesce(l.next_at > now() OR l.stopped_until > now(), false) AS "at_rate!"
        FROM channel_accounts a
        LEFT JOIN limits l ON l.tenant_id = a.tenant_id AND l.scope = 'account' AND l.key = a.id"#
    )
    .fetch_all(tx.conn())
    .await?;
    let sends = sqlx::query_file_as!(Sends, "src/db/waiting_sends.sql").fetch_all(tx.conn()).await?;
    let campaigns = sqlx::query_as!(
        Campaigns,
        r#"SELECT c.tenant_id AS "tenant_id: TenantId", c.channel_account_id AS "account: ChannelAccountId",
            c.state = 'paused' AS "paused!", count(*) AS "campaigns!",
            sum(n.waiting + CASE WHEN c.retry_asked_at IS NULL THEN 0 ELSE n.failed END)::bigint AS "people!",
            sum(n.in_flight)::bigint AS "in_flight!",
            coalesce(sum(
                (n.handed_over - coalesce(c.sampled_before_handed_over, c.sampled_handed_over))
                    / greatest(EXTRACT(epoch FROM now() - coalesce(c.sampled_before_at, c.sampled_at))::float8, 1)
            ), 0) AS "per_s!"
        FROM campaigns c
        JOIN campaign_counts n ON n.tenant_id = c.tenant_id AND n.campaign_id = c.id
        WHERE c.state IN ('running', 'paused')
        GROUP BY c.tenant_id, c.channel_account_id, c.state"#
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(Waiting { jobs, spilled: 0, accounts, sends, campaigns })
}

/// No statement of this transaction takes longer.
async fn hurry(conn: &mut PgConnection) -> Result<()> {
    sqlx::query!("SET LOCAL statement_timeout = '5s'").execute(conn).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_in_several_databases_is_added_up_by_queue() {
        let jobs = |queue: &str, due, oldest_due_s| Jobs { queue: queue.to_owned(), due, later: 1, oldest_due_s };
        let one = Waiting { jobs: vec![jobs("inbound", 2, Some(3.0))], spilled: 5, ..Waiting::default() };
        let other = Waiting {
            jobs: vec![jobs("inbound", 1, Some(9.0)), jobs("campaign", 0, None)],
            spilled: 1,
            ..Waiting::default()
        };
        let both = one.and(other);
        assert_eq!(both.spilled, 6);
        let inbound = Jobs { later: 2, ..jobs("inbound", 3, Some(9.0)) };
        assert_eq!(both.jobs, [inbound, jobs("campaign", 0, None)]);
    }
}
