//! What goes when it is too old, and what the planner knows of the rest. Partitions are dropped whole; small tables are emptied
//! row by row, a bounded number in each transaction: who calls does so again while it was as many.

use super::{
    error::Result,
    media::objects,
    scope::{ControlTx, FleetTx},
};

/// Months the trail of a message is kept.
const TRAIL_MONTHS: i32 = 13;
/// Months it is kept who changed what: two years, and the month that is under way.
const AUDIT_MONTHS: i32 = 25;
/// Rows that one call removes at most.
const AT_ONCE: u32 = 5000;
/// As many large bodies: each is hundreds of rows where Postgres keeps it.
const BODIES_AT_ONCE: u32 = 200;

/// What one call has removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Removed {
    /// How many rows.
    pub rows: u64,
    /// Whether there may be more.
    pub more: bool,
}

impl Removed {
    pub(super) fn of_at_most(limit: u32, rows: u64) -> Self {
        Self { rows, more: rows >= u64::from(limit) }
    }
}

/// Something of the control tables that goes when it is too old.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiring {
    /// Bodies too large for the broker, after 14 days: a dead letter may refer to one.
    LargeBodies,
    /// Webhooks with a wrong signature, after 30 days.
    Quarantine,
    /// Webhooks for an account nobody has, after 30 days.
    Unroutable,
}

impl Expiring {
    /// All of it.
    pub const ALL: [Expiring; 3] = [Expiring::LargeBodies, Expiring::Quarantine, Expiring::Unroutable];
}

/// Makes partitions ahead and drops those past their time, of the raw log those older than `log_days`. How many changed; one that could not be made now is a warning.
///
/// # Errors
/// If the database does not answer.
pub async fn maintain_partitions(tx: &mut FleetTx, log_days: u16) -> Result<i32> {
    let changed = sqlx::query_scalar!(
        r#"SELECT maintain_partitions(make_interval(days => $1), make_interval(months => $2), make_interval(months => $3)) AS "changed!""#,
        i32::from(log_days),
        TRAIL_MONTHS,
        AUDIT_MONTHS,
    )
    .fetch_one(tx.conn())
    .await?;
    Ok(changed)
}

/// How many partitions are missing that will be needed next: of the log and the events, those of the next two days; of the trail and the
/// audit, the next month's.
///
/// # Errors
/// If the database does not answer.
pub async fn missing_partitions(tx: &mut FleetTx) -> Result<i64> {
    let missing = sqlx::query_scalar!(
        r#"SELECT count(*) AS "missing!"
        FROM (
            VALUES
                ('webhook_log', date_trunc('day', now(), 'UTC') + interval '1 day'),
                ('webhook_log', date_trunc('day', now(), 'UTC') + interval '2 days'),
                ('events', date_trunc('day', now(), 'UTC') + interval '1 day'),
                ('events', date_trunc('day', now(), 'UTC') + interval '2 days'),
                ('trail', date_trunc('month', now(), 'UTC') + interval '1 month'),
                ('audit', date_trunc('month', now(), 'UTC') + interval '1 month')
        ) AS needed (parent, first_at)
        WHERE to_regclass(parent || to_char(first_at AT TIME ZONE 'UTC', '_YYYYMMDD')) IS NULL"#
    )
    .fetch_one(tx.conn())
    .await?;
    Ok(missing)
}

/// Looks at tables that have doubled since the planner last had statistics of them. How many.
///
/// # Errors
/// If the database does not answer.
pub async fn analyze_grown_tables(tx: &mut FleetTx) -> Result<i32> {
    Ok(sqlx::query_scalar!(r#"SELECT analyze_grown_tables() AS "analysed!""#).fetch_one(tx.conn()).await?)
}

/// Removes answers to idempotent calls after two days (a client that repeats does so within minutes).
///
/// # Errors
/// If the database does not answer.
pub async fn expire_idempotency_keys(tx: &mut FleetTx) -> Result<Removed> {
    let done = sqlx::query!(
        "DELETE FROM idempotency_keys
        WHERE (tenant_id, key) IN (
            SELECT tenant_id, key
            FROM idempotency_keys
            WHERE created_at < now() - interval '2 days'
            ORDER BY created_at
            LIMIT $1
        )",
        i64::from(AT_ONCE),
    )
    .execute(tx.conn())
    .await?;
    Ok(Removed::of_at_most(AT_ONCE, done.rows_affected()))
}

/// Removes reports that no send has turned out to be about for 14 days: long after anybody's retries have ended.
///
/// # Errors
/// If the database does not answer.
pub async fn expire_parked_reports(tx: &mut FleetTx) -> Result<Removed> {
    let done = sqlx::query!(
        "DELETE FROM parked_reports
        WHERE (tenant_id, channel_account_id, provider_message_id, event, at) IN (
            SELECT tenant_id, channel_account_id, provider_message_id, event, at
            FROM parked_reports
            WHERE parked_at < now() - interval '14 days'
            ORDER BY parked_at
            LIMIT $1
        )",
        i64::from(AT_ONCE),
    )
    .execute(tx.conn())
    .await?;
    Ok(Removed::of_at_most(AT_ONCE, done.rows_affected()))
}

/// Adds up how often templates were used more than 30 days ago: a row for each template, whatever the days.
///
/// # Errors
/// If the database does not answer.
pub async fn add_up_template_uses(tx: &mut FleetTx) -> Result<Removed> {
    let done = sqlx::query!(
        "WITH old AS (
            DELETE FROM template_uses
            WHERE (tenant_id, template_id, day, slot) IN (
                SELECT tenant_id, template_id, day, slot
                FROM template_uses
                WHERE day < current_date - 30 AND day <> 'epoch'
                LIMIT $1
            )
            RETURNING tenant_id, template_id, uses
        ), together AS (
            INSERT INTO template_uses AS t (tenant_id, template_id, day, slot, uses)
            SELECT tenant_id, template_id, 'epoch', 0, sum(uses) FROM old GROUP BY tenant_id, template_id ORDER BY tenant_id, template_id
            ON CONFLICT (tenant_id, template_id, day, slot) DO UPDATE SET uses = t.uses + excluded.uses
        )
        SELECT FROM old",
        i64::from(AT_ONCE),
    )
    .execute(tx.conn())
    .await?;
    Ok(Removed::of_at_most(AT_ONCE, done.rows_affected()))
}

/// Lets go of files that may no longer be kept.
///
/// # Errors
/// If the database does not answer.
pub async fn expire_files(tx: &mut FleetTx) -> Result<Removed> {
    let (rows, more) = objects::expire(tx).await?;
    Ok(Removed { rows, more })
}

/// Looks whether anybody refers to the objects that are due for it, and writes the jobs that delete the others.
///
/// # Errors
/// If the database does not answer.
pub async fn check_objects(tx: &mut FleetTx) -> Result<Removed> {
    let (rows, more) = objects::check(tx).await?;
    Ok(Removed { rows, more })
}

/// Removes meters of pairs that owe nothing: a person without one may get as many at once as anybody.
///
/// # Errors
/// If the database does not answer.
pub async fn expire_pair_meters(tx: &mut FleetTx) -> Result<Removed> {
    let done = sqlx::query!(
        "DELETE FROM pair_meters
        WHERE (tenant_id, channel_account_id, contact_id) IN (
            SELECT tenant_id, channel_account_id, contact_id
            FROM pair_meters
            WHERE next_at < now() - interval '1 hour'
            LIMIT $1
            FOR UPDATE SKIP LOCKED
        )",
        i64::from(AT_ONCE),
    )
    .execute(tx.conn())
    .await?;
    Ok(Removed::of_at_most(AT_ONCE, done.rows_affected()))
}

/// Removes people whose day with a portfolio is over.
///
/// # Errors
/// If the database does not answer.
pub async fn expire_portfolio_people(tx: &mut FleetTx) -> Result<Removed> {
    // Whoever counts people holds the limit's row.
    sqlx::query!("SELECT key FROM limits WHERE scope = 'portfolio' ORDER BY tenant_id, key FOR UPDATE")
        .fetch_all(tx.conn())
        .await?;
    let removed = sqlx::query_scalar!(
        r#"WITH over AS (
            DELETE FROM portfolio_people
            WHERE (tenant_id, portfolio_id, contact_id) IN (
                SELECT tenant_id, portfolio_id, contact_id
                FROM portfolio_people
                WHERE reached_at <= now() - interval '24 hours'
                LIMIT $1
            )
            RETURNING tenant_id, portfolio_id
        ),
        of_each AS (SELECT tenant_id, portfolio_id, count(*) AS people FROM over GROUP BY tenant_id, portfolio_id),
        -- Counted anew, should the count and what it counts ever have come apart: every row of it is locked.
        counted AS (
            UPDATE limits l
            SET used = known.people - coalesce(gone.people, 0)
            FROM limits asked
            CROSS JOIN LATERAL (
                SELECT count(*) AS people
                FROM portfolio_people p
                WHERE p.tenant_id = asked.tenant_id AND p.portfolio_id = asked.key
            ) AS known
            LEFT JOIN of_each gone ON gone.tenant_id = asked.tenant_id AND gone.portfolio_id = asked.key
            WHERE asked.scope = 'portfolio' AND l.tenant_id = asked.tenant_id AND l.scope = asked.scope AND l.key = asked.key
                AND l.used <> known.people - coalesce(gone.people, 0)
        )
        SELECT count(*) AS "removed!" FROM over"#,
        i64::from(AT_ONCE),
    )
    .fetch_one(tx.conn())
    .await?;
    Ok(Removed::of_at_most(AT_ONCE, u64::try_from(removed).unwrap_or_default()))
}

/// Removes rows of the control tables that are too old.
///
/// # Errors
/// If the database does not answer.
pub async fn expire_control(tx: &mut ControlTx, what: Expiring) -> Result<Removed> {
    let (limit, done) = match what {
        Expiring::LargeBodies => (
            BODIES_AT_ONCE,
            sqlx::query!(
                "DELETE FROM control.large_bodies
                WHERE webhook_id IN (
                    SELECT webhook_id
                    FROM control.large_bodies
                    WHERE keep_until < now()
                    ORDER BY keep_until
                    LIMIT $1
                    FOR UPDATE SKIP LOCKED
                )",
                i64::from(BODIES_AT_ONCE),
            )
            .execute(tx.conn())
            .await?,
        ),
        Expiring::Quarantine => (
            AT_ONCE,
            sqlx::query!(
                "DELETE FROM control.quarantine
                WHERE id IN (
                    SELECT id
                    FROM control.quarantine
                    WHERE received_at < now() - interval '30 days'
                    LIMIT $1
                    FOR UPDATE SKIP LOCKED
                )",
                i64::from(AT_ONCE),
            )
            .execute(tx.conn())
            .await?,
        ),
        Expiring::Unroutable => (
            AT_ONCE,
            sqlx::query!(
                "DELETE FROM control.unroutable
                WHERE (webhook_id, external_id) IN (
                    SELECT webhook_id, external_id
                    FROM control.unroutable
                    WHERE received_at < now() - interval '30 days'
                    ORDER BY received_at
                    LIMIT $1
                    FOR UPDATE SKIP LOCKED
                )",
                i64::from(AT_ONCE),
            )
            .execute(tx.conn())
            .await?,
        ),
    };
    Ok(Removed::of_at_most(limit, done.rows_affected()))
}
