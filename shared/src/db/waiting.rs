//! What waits in Postgres, for an operator who asks what holds things up.

use super::{ControlTx, FleetTx, error::Result};

/// Counts of what waits.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Waiting {
    /// Jobs in the outbox that are due.
    pub outbox_due: i64,
    /// Jobs in the outbox for later.
    pub outbox_later: i64,
    /// The oldest of those due, in seconds.
    pub oldest_due_s: Option<f64>,
    /// Webhooks spilled while the broker was away.
    pub spilled: i64,
    /// Accounts that cannot send.
    pub accounts_down: i64,
    /// Accounts that are using up their rate now, or are stopped by their provider.
    pub accounts_at_rate: i64,
    /// The sum of their rates, a second.
    pub rate_at_rate: f64,
}

impl Waiting {
    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let older = |a: Option<f64>, b: Option<f64>| a.into_iter().chain(b).reduce(f64::max);
        Self {
            outbox_due: self.outbox_due + other.outbox_due,
            outbox_later: self.outbox_later + other.outbox_later,
            oldest_due_s: older(self.oldest_due_s, other.oldest_due_s),
            spilled: self.spilled + other.spilled,
            accounts_down: self.accounts_down + other.accounts_down,
            accounts_at_rate: self.accounts_at_rate + other.accounts_at_rate,
            rate_at_rate: self.rate_at_rate + other.rate_at_rate,
        }
    }
}

/// What waits and belongs to no tenant.
///
/// # Errors
/// If the database does not answer.
pub async fn in_control(tx: &mut ControlTx) -> Result<Waiting> {
    let row = sqlx::query!(
        r#"SELECT (SELECT count(*) FROM control.spill) AS "spilled!",
            count(*) FILTER (WHERE publish_after <= now()) AS "due!",
            count(*) FILTER (WHERE publish_after > now()) AS "later!",
            EXTRACT(EPOCH FROM now() - min(publish_after) FILTER (WHERE publish_after <= now()))::float8 AS oldest_due_s
        FROM control.outbox"#
    )
    .fetch_one(tx.conn())
    .await?;
    Ok(Waiting {
        outbox_due: row.due,
        outbox_later: row.later,
        oldest_due_s: row.oldest_due_s,
        spilled: row.spilled,
        ..Waiting::default()
    })
}

/// What waits of the tenants in scope.
///
/// # Errors
/// If the database does not answer.
pub async fn in_placement(tx: &mut FleetTx) -> Result<Waiting> {
    let outbox = sqlx::query!(
        r#"SELECT count(*) FILTER (WHERE publish_after <= now()) AS "due!",
            count(*) FILTER (WHERE publish_after > now()) AS "later!",
            EXTRACT(EPOCH FROM now() - min(publish_after) FILTER (WHERE publish_after <= now()))::float8 AS oldest_due_s
        FROM outbox"#
    )
    .fetch_one(tx.conn())
    .await?;
    // An account that sends all it may has its next grant in the future nearly always.
    let accounts = sqlx::query!(
        r#"SELECT count(*) FILTER (WHERE a.state = 'down') AS "down!",
            count(*) FILTER (WHERE a.state = 'active' AND (l.next_at > now() OR l.stopped_until > now())) AS "at_rate!",
            COALESCE(sum(l.current_rate) FILTER (WHERE a.state = 'active' AND (l.next_at > now() OR l.stopped_until > now())), 0)
                AS "rate!"
        FROM channel_accounts a
        JOIN limits l ON l.tenant_id = a.tenant_id AND l.scope = 'account' AND l.key = a.id"#
    )
    .fetch_one(tx.conn())
    .await?;
    Ok(Waiting {
        outbox_due: outbox.due,
        outbox_later: outbox.later,
        oldest_due_s: outbox.oldest_due_s,
        spilled: 0,
        accounts_down: accounts.down,
        accounts_at_rate: accounts.at_rate,
        rate_at_rate: accounts.rate,
    })
}
