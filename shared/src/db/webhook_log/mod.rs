//! The raw log as its readers see it: searched in order of time, one webhook looked at, a stretch of it counted or taken to be played
//! again. It is written with what webhooks bring (`inbound::log`), and goes by the day (`retention`).

pub mod replays;

use super::{TenantTx, error::Result, inbound::log::Outcome};
use crate::{
    domain::{
        channel::Provider,
        ids::{ChannelAccountId, ReplayId, WebhookId},
    },
    jobs::inbound::{Account, Meta},
};
use chrono::{DateTime, TimeDelta, Utc};
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// A page looks at so many webhooks at most.
pub const LOOK: u16 = 10_000;
/// A receiver makes a webhook's id when it takes the webhook in: so far apart are the times in both at most.
const ID_WITHIN: TimeDelta = TimeDelta::hours(1);
/// What became of most webhooks; those of other outcomes have an index.
const ORDINARY: Outcome = Outcome::Stored;

/// A webhook's place in the log.
pub type Place = (DateTime<Utc>, WebhookId);

/// Which webhooks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Received at this time or later.
    pub since: Option<DateTime<Utc>>,
    /// Received before this time.
    pub until: Option<DateTime<Utc>>,
    /// Only of this provider.
    pub provider: Option<Provider>,
    /// Only what became this.
    pub outcome: Option<Outcome>,
    /// Only for this account.
    pub channel_account_id: Option<ChannelAccountId>,
}

/// A webhook as a list shows it.
#[derive(Clone, Debug)]
pub struct Listed {
    /// Which.
    pub id: WebhookId,
    /// When it came.
    pub received_at: DateTime<Utc>,
    /// From whom.
    pub provider: String,
    /// For which account, if it was one.
    pub channel_account_id: Option<ChannelAccountId>,
    /// What became of it: an [`Outcome`], or one that a newer release knows.
    pub outcome: String,
    /// More, for a person.
    pub detail: Option<String>,
    /// How large its body was.
    pub body_bytes: i32,
}

/// A page of the log.
#[derive(Debug)]
pub struct Page {
    /// The webhooks, the newest first.
    pub webhooks: Vec<Listed>,
    /// Where the next page begins: behind this one. None: there is no more.
    pub next: Option<Place>,
}

/// A webhook with all that is kept of it.
#[derive(Debug)]
pub struct Logged {
    /// As a list shows it.
    pub listed: Listed,
    /// The query of the URL it was sent to, where that is kept.
    pub query: Option<String>,
    body_lz4: Vec<u8>,
}

/// How far counting has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    /// So many more.
    pub webhooks: i64,
    /// Where it goes on: behind this one. None: all are counted.
    pub next: Option<Place>,
}

/// A stretch of the log to be played again.
#[derive(Debug)]
pub struct Slice {
    /// The webhooks, the oldest first.
    pub webhooks: Vec<Logged>,
    /// Where it goes on: behind this one. None: that was the end.
    pub next: Option<Place>,
}

/// What a slice holds at most.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// So many webhooks.
    pub webhooks: usize,
    /// Their bodies, but for the last, are less together.
    pub bytes: i64,
}

impl Filter {
    /// Whether every webhook of its time is wanted.
    pub fn is_by_time_alone(&self) -> bool {
        self.provider.is_none() && self.outcome.is_none() && self.channel_account_id.is_none()
    }

    fn provider(&self) -> Option<&'static str> {
        self.provider.map(Provider::as_str)
    }

    fn outcome(&self) -> Option<&'static str> {
        self.outcome.map(Outcome::as_str)
    }

    fn account(&self) -> Option<Uuid> {
        self.channel_account_id.map(|id| id.0)
    }
}

impl Listed {
    fn place(&self) -> Place {
        (self.received_at, self.id)
    }
}

impl Logged {
    /// The body as it came; `None` if what is kept does not hold together.
    pub fn body(&self) -> Option<Vec<u8>> {
        // The size before it is believed when memory is set aside for it.
        let size = self.body_lz4.first_chunk().map(|size| i64::from(u32::from_le_bytes(*size)))?;
        (size == i64::from(self.listed.body_bytes)).then(|| lz4_flex::decompress_size_prepended(&self.body_lz4).ok())?
    }

    /// What the receiver knew of it, as a webhook of its own that this replay plays again to this tenant alone: of the same replay
    /// always the same. `None` if it is not known from whom or for whom it came.
    pub fn to_replay(&self, tx: &TenantTx, replay: ReplayId) -> Option<Meta> {
        Some(Meta {
            id: again(self.listed.id, replay),
            provider: self.listed.provider.parse().ok()?,
            received_at: self.listed.received_at,
            account: Some(Account { tenant_id: tx.tenant_id(), channel_account_id: self.listed.channel_account_id? }),
            query: self.query.clone(),
            stored: false,
            replay: true,
        })
    }
}

/// A webhook's id in a replay: its time, and of the rest a digest of both.
fn again(id: WebhookId, replay: ReplayId) -> WebhookId {
    let digest = Sha256::new().chain_update(id.0.as_bytes()).chain_update(replay.0.as_bytes()).finalize();
    let mut bytes = *id.0.as_bytes();
    bytes[6..].copy_from_slice(&digest[..10]);
    WebhookId(uuid::Builder::from_bytes(bytes).with_version(uuid::Version::SortRand).into_uuid())
}

/// A row that was looked at.
struct Looked {
    id: WebhookId,
    received_at: DateTime<Utc>,
    provider: String,
    channel_account_id: Option<ChannelAccountId>,
    outcome: String,
    detail: Option<String>,
    body_bytes: i32,
    /// Whether it is wanted.
    matches: bool,
    /// Which of those looked at, from one.
    nth: i64,
}

impl From<Looked> for Listed {
    fn from(row: Looked) -> Self {
        let Looked { id, received_at, provider, channel_account_id, outcome, detail, body_bytes, .. } = row;
        Self { id, received_at, provider, channel_account_id, outcome, detail, body_bytes }
    }
}

/// A page of a tenant's log, the newest first, behind `before`. It looks at [`LOOK`] webhooks at most: it may hold fewer than
/// asked for, even none, and there may be more as long as it has a next.
///
/// # Errors
/// If the database does not answer.
pub async fn list(tx: &mut TenantTx, filter: &Filter, before: Option<Place>, limit: usize) -> Result<Page> {
    let looked = match filter.outcome {
        Some(outcome) if outcome != ORDINARY && is_indexed(tx, filter, before).await? => {
            look_by_outcome(tx, filter, outcome, before, limit + 1).await?
        }
        _ => look(tx, filter, before, limit + 1).await?,
    };
    let (webhooks, next) = page(looked, limit, LOOK);
    Ok(Page { webhooks, next })
}

/// At most `limit` of the rows that match; and the last of them, if there are more, or the last row looked at, if looking ended there.
fn page(looked: Vec<Looked>, limit: usize, look: u16) -> (Vec<Listed>, Option<Place>) {
    let end = looked.last().filter(|row| row.nth == i64::from(look)).map(|row| (row.received_at, row.id));
    let mut matching: Vec<Listed> = looked.into_iter().filter(|row| row.matches).map(Listed::from).collect();
    let more = matching.len() > limit;
    matching.truncate(limit);
    let next = if more { matching.last().map(Listed::place) } else { end };
    (matching, next)
}

async fn look(tx: &mut TenantTx, filter: &Filter, before: Option<Place>, limit: usize) -> Result<Vec<Looked>> {
    let (at, id) = before.unzip();
    let tenant_id = tx.tenant_id();
    let rows = sqlx::query_as!(
        Looked,
        r#"SELECT received_at AS "received_at!", webhook_id AS "id!: WebhookId", provider AS "provider!",
            channel_account_id AS "channel_account_id: ChannelAccountId", outcome AS "outcome!", detail, body_bytes AS "body_bytes!",
            matches AS "matches!", nth AS "nth!"
        FROM (
            SELECT *,
                coalesce(
                    ($6::text IS NULL OR provider = $6) AND ($7::text IS NULL OR outcome = $7)
                        AND ($8::uuid IS NULL OR channel_account_id = $8),
                    false
                ) AS matches,
                row_number() OVER (ORDER BY received_at DESC, webhook_id DESC) AS nth
            FROM (
                SELECT received_at, webhook_id, provider, channel_account_id, outcome, detail, body_bytes
                FROM webhook_log
                WHERE tenant_id = $1
                    AND received_at >= coalesce($2::timestamptz, '-infinity') AND received_at < coalesce($3::timestamptz, 'infinity')
                    AND (received_at, webhook_id) < (coalesce($4::timestamptz, 'infinity'), coalesce($5::uuid, $9::uuid))
                ORDER BY received_at DESC, webhook_id DESC
                LIMIT $10
            ) AS looked
        ) AS numbered
        WHERE matches OR nth = $10
        ORDER BY received_at DESC, webhook_id DESC
        LIMIT $11"#,
        tenant_id.0,
        filter.since,
        filter.until,
        at,
        id.map(|id| id.0),
        filter.provider(),
        filter.outcome(),
        filter.account(),
        Uuid::max(),
        i64::from(LOOK),
        i64::try_from(limit).unwrap_or(i64::MAX),
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(rows)
}

/// Whether every partition in which there is something to be looked for has the index of outcomes. One that was large when the index
/// was made has it only if somebody built it there; without it looking by outcome would read all of it, and never say how far it came.
async fn is_indexed(tx: &mut TenantTx, filter: &Filter, before: Option<Place>) -> Result<bool> {
    let until = filter.until.into_iter().chain(before.map(|(at, _)| at)).min();
    let indexed = sqlx::query_scalar!(
        r#"SELECT NOT EXISTS (
            SELECT
            FROM pg_inherits i
            JOIN pg_class c ON c.oid = i.inhrelid
            CROSS JOIN LATERAL (SELECT pg_get_expr(c.relpartbound, c.oid) AS bound) AS b
            WHERE i.inhparent = 'webhook_log'::regclass
                -- The default partition has no bounds: it may hold anything.
                AND coalesce(substring(b.bound FROM 'FROM \(''([^'']*)''\)')::timestamptz <= $2, true)
                AND coalesce(substring(b.bound FROM 'TO \(''([^'']*)''\)')::timestamptz > $1, true)
                AND NOT EXISTS (
                    SELECT
                    FROM pg_index x
                    JOIN pg_inherits attached ON attached.inhrelid = x.indexrelid
                    WHERE x.indrelid = c.oid AND x.indisvalid AND attached.inhparent = 'webhook_log_by_outcome'::regclass
                )
        ) AS "indexed!""#,
        filter.since,
        until,
    )
    .fetch_one(tx.conn())
    .await?;
    Ok(indexed)
}

/// The same of an outcome that has the index: that it is not the ordinary one must be written out for the planner to know.
async fn look_by_outcome(
    tx: &mut TenantTx,
    filter: &Filter,
    outcome: Outcome,
    before: Option<Place>,
    limit: usize,
) -> Result<Vec<Looked>> {
    let (at, id) = before.unzip();
    let tenant_id = tx.tenant_id();
    let rows = sqlx::query_as!(
        Looked,
        r#"SELECT received_at AS "received_at!", webhook_id AS "id!: WebhookId", provider AS "provider!",
            channel_account_id AS "channel_account_id: ChannelAccountId", outcome AS "outcome!", detail, body_bytes AS "body_bytes!",
            matches AS "matches!", nth AS "nth!"
        FROM (
            SELECT *,
                coalesce(($7::text IS NULL OR provider = $7) AND ($8::uuid IS NULL OR channel_account_id = $8), false) AS matches,
                row_number() OVER (ORDER BY received_at DESC, webhook_id DESC) AS nth
            FROM (
                SELECT received_at, webhook_id, provider, channel_account_id, outcome, detail, body_bytes
                FROM webhook_log
                WHERE tenant_id = $1 AND outcome = $6 AND outcome <> 'stored'
                    AND received_at >= coalesce($2::timestamptz, '-infinity') AND received_at < coalesce($3::timestamptz, 'infinity')
                    AND (received_at, webhook_id) < (coalesce($4::timestamptz, 'infinity'), coalesce($5::uuid, $9::uuid))
                ORDER BY received_at DESC, webhook_id DESC
                LIMIT $10
            ) AS looked
        ) AS numbered
        WHERE matches OR nth = $10
        ORDER BY received_at DESC, webhook_id DESC
        LIMIT $11"#,
        tenant_id.0,
        filter.since,
        filter.until,
        at,
        id.map(|id| id.0),
        outcome.as_str(),
        filter.provider(),
        filter.account(),
        Uuid::max(),
        i64::from(LOOK),
        i64::try_from(limit).unwrap_or(i64::MAX),
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(rows)
}

/// A webhook. Found by the time in its id: one that no receiver of ours has made is not there.
///
/// # Errors
/// If the database does not answer.
pub async fn find(tx: &mut TenantTx, id: WebhookId) -> Result<Option<Logged>> {
    let Some(made_at) = made_at(id) else { return Ok(None) };
    let tenant_id = tx.tenant_id();
    let row = sqlx::query!(
        r#"SELECT received_at, webhook_id AS "id: WebhookId", provider, channel_account_id AS "channel_account_id: ChannelAccountId",
            outcome, detail, body_bytes, query, body_lz4
        FROM webhook_log
        WHERE tenant_id = $1 AND webhook_id = $2 AND received_at BETWEEN $3 AND $4
        ORDER BY received_at DESC
        LIMIT 1"#,
        tenant_id.0,
        id.0,
        made_at - ID_WITHIN,
        made_at + ID_WITHIN,
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(row.map(|r| Logged {
        listed: Listed {
            id: r.id,
            received_at: r.received_at,
            provider: r.provider,
            channel_account_id: r.channel_account_id,
            outcome: r.outcome,
            detail: r.detail,
            body_bytes: r.body_bytes,
        },
        query: r.query,
        body_lz4: r.body_lz4,
    }))
}

fn made_at(id: WebhookId) -> Option<DateTime<Utc>> {
    let (seconds, nanoseconds) = id.0.get_timestamp()?.to_unix();
    DateTime::from_timestamp(i64::try_from(seconds).ok()?, nanoseconds)
}

/// Counts webhooks from a place on, at most `look` of the log. Both times of the filter must be given.
///
/// # Errors
/// If the database does not answer.
pub async fn count(tx: &mut TenantTx, filter: &Filter, behind: Option<Place>, look: u32) -> Result<Counted> {
    let (at, id) = behind.unzip();
    let tenant_id = tx.tenant_id();
    let counted = sqlx::query!(
        r#"WITH looked AS MATERIALIZED (
            SELECT received_at, webhook_id, provider, channel_account_id, outcome
            FROM webhook_log
            WHERE tenant_id = $1 AND received_at >= $2 AND received_at < $3
                AND (received_at, webhook_id) > (coalesce($4::timestamptz, '-infinity'), coalesce($5::uuid, $9::uuid))
            ORDER BY received_at, webhook_id
            LIMIT $10
        ),
        counted AS (
            SELECT count(*) AS looked,
                count(*) FILTER (
                    WHERE ($6::text IS NULL OR provider = $6) AND ($7::text IS NULL OR outcome = $7)
                        AND ($8::uuid IS NULL OR channel_account_id = $8)
                ) AS webhooks
            FROM looked
        ),
        last AS (SELECT received_at, webhook_id FROM looked ORDER BY received_at DESC, webhook_id DESC LIMIT 1)
        SELECT looked AS "looked!", webhooks AS "webhooks!", last.received_at AS "last_at?", last.webhook_id AS "last_id?: WebhookId"
        FROM counted
        LEFT JOIN last ON true"#,
        tenant_id.0,
        filter.since,
        filter.until,
        at,
        id.map(|id| id.0),
        filter.provider(),
        filter.outcome(),
        filter.account(),
        Uuid::nil(),
        i64::from(look),
    )
    .fetch_one(tx.conn())
    .await?;
    let next = counted.last_at.zip(counted.last_id).filter(|_| counted.looked >= i64::from(look));
    Ok(Counted { webhooks: counted.webhooks, next })
}

/// The next webhooks from a place on, the oldest first, as many as the bounds allow. Both times of the filter must be given.
///
/// # Errors
/// If the database does not answer.
pub async fn slice(tx: &mut TenantTx, filter: &Filter, behind: Option<Place>, bounds: Bounds) -> Result<Slice> {
    // Where every one is wanted, there is no need to look at more than are.
    let look = if filter.is_by_time_alone() { u16::try_from(bounds.webhooks).unwrap_or(LOOK) + 1 } else { LOOK / 5 };
    let looked = look_ahead(tx, filter, behind, bounds.webhooks + 1, look).await?;
    let matching = looked.iter().filter(|row| row.matches).take(bounds.webhooks);
    let fits = fitting(matching.map(|row| row.body_bytes), bounds);
    let (listed, next) = page(looked, fits, look);
    let bodies = bodies(tx, &listed).await?;
    Ok(Slice { webhooks: bodies, next })
}

/// How many of these bodies fit into a slice, one at least.
fn fitting(bodies: impl Iterator<Item = i32>, bounds: Bounds) -> usize {
    let mut bytes = 0;
    let fitting = bodies.take_while(|body_bytes| {
        let fits = bytes < bounds.bytes;
        bytes += i64::from(*body_bytes);
        fits
    });
    fitting.count()
}

/// Where these webhooks are, the oldest first; those that are not there are left out. They are looked for around the times in their
/// ids: most were received within the minute, and only for the others much of the log is looked through.
///
/// # Errors
/// If the database does not answer.
pub async fn places(tx: &mut TenantTx, ids: &[WebhookId]) -> Result<Vec<Place>> {
    let mut places = places_within(tx, ids, TimeDelta::minutes(1)).await?;
    let is_missing = |id: &&WebhookId| places.iter().all(|(_, there)| there != *id);
    let missing: Vec<WebhookId> = ids.iter().filter(is_missing).copied().collect();
    if !missing.is_empty() {
        places.extend(places_within(tx, &missing, ID_WITHIN).await?);
        places.sort_unstable();
    }
    Ok(places)
}

/// The same, of those received within this time of what their ids say. What was received within the same time is looked
/// through once.
async fn places_within(tx: &mut TenantTx, ids: &[WebhookId], within: TimeDelta) -> Result<Vec<Place>> {
    let mut made: Vec<DateTime<Utc>> = ids.iter().filter_map(|id| made_at(*id)).collect();
    made.sort_unstable();
    let stretches = made.chunk_by(|earlier, later| *later - *earlier <= within * 2);
    let (since, until): (Vec<DateTime<Utc>>, Vec<DateTime<Utc>>) =
        stretches.filter_map(|near| Some((*near.first()? - within, *near.last()? + within))).unzip();
    let ids: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
    let tenant_id = tx.tenant_id();
    let rows = sqlx::query!(
        r#"SELECT max(l.received_at) AS "received_at!", l.webhook_id AS "id: WebhookId"
        FROM unnest($2::timestamptz[], $3::timestamptz[]) AS stretch (since, until)
        JOIN webhook_log l ON l.tenant_id = $1 AND l.received_at BETWEEN stretch.since AND stretch.until
        WHERE l.webhook_id = ANY ($4)
        GROUP BY l.webhook_id
        ORDER BY 1, 2"#,
        tenant_id.0,
        &since,
        &until,
        &ids,
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(rows.into_iter().map(|row| (row.received_at, row.id)).collect())
}

/// The next of these places, which are in order, behind one of them, as many as the bounds allow. What has gone meanwhile is left out.
///
/// # Errors
/// If the database does not answer.
pub async fn slice_of(tx: &mut TenantTx, places: &[Place], behind: Option<Place>, bounds: Bounds) -> Result<Slice> {
    let rest = &places[places.partition_point(|place| behind.is_some_and(|behind| *place <= behind))..];
    let looked = &rest[..rest.len().min(bounds.webhooks)];
    let mut listed = listed(tx, looked).await?;
    let fits = fitting(listed.iter().map(|webhook| webhook.body_bytes), bounds);
    let end = if fits < listed.len() { listed[..fits].last().map(Listed::place) } else { looked.last().copied() };
    listed.truncate(fits);
    let webhooks = bodies(tx, &listed).await?;
    Ok(Slice { webhooks, next: end.filter(|end| rest.last() != Some(end)) })
}

/// The webhooks at these places, the oldest first.
async fn listed(tx: &mut TenantTx, places: &[Place]) -> Result<Vec<Listed>> {
    let (times, ids): (Vec<DateTime<Utc>>, Vec<Uuid>) = places.iter().map(|(at, id)| (*at, id.0)).unzip();
    let tenant_id = tx.tenant_id();
    let listed = sqlx::query_as!(
        Listed,
        r#"SELECT l.webhook_id AS "id: WebhookId", l.received_at, l.provider,
            l.channel_account_id AS "channel_account_id: ChannelAccountId", l.outcome, l.detail, l.body_bytes
        FROM unnest($2::timestamptz[], $3::uuid[]) AS wanted (received_at, webhook_id)
        JOIN webhook_log l ON l.tenant_id = $1 AND l.received_at = wanted.received_at AND l.webhook_id = wanted.webhook_id
        ORDER BY l.received_at, l.webhook_id"#,
        tenant_id.0,
        &times,
        &ids,
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(listed)
}

async fn look_ahead(
    tx: &mut TenantTx,
    filter: &Filter,
    behind: Option<Place>,
    limit: usize,
    look: u16,
) -> Result<Vec<Looked>> {
    let (at, id) = behind.unzip();
    let tenant_id = tx.tenant_id();
    let rows = sqlx::query_as!(
        Looked,
        r#"SELECT received_at AS "received_at!", webhook_id AS "id!: WebhookId", provider AS "provider!",
            channel_account_id AS "channel_account_id: ChannelAccountId", outcome AS "outcome!", detail, body_bytes AS "body_bytes!",
            matches AS "matches!", nth AS "nth!"
        FROM (
            SELECT *,
                coalesce(
                    ($6::text IS NULL OR provider = $6) AND ($7::text IS NULL OR outcome = $7)
                        AND ($8::uuid IS NULL OR channel_account_id = $8),
                    false
                ) AS matches,
                row_number() OVER (ORDER BY received_at, webhook_id) AS nth
            FROM (
                SELECT received_at, webhook_id, provider, channel_account_id, outcome, detail, body_bytes
                FROM webhook_log
                WHERE tenant_id = $1 AND received_at >= $2 AND received_at < $3
                    AND (received_at, webhook_id) > (coalesce($4::timestamptz, '-infinity'), coalesce($5::uuid, $9::uuid))
                ORDER BY received_at, webhook_id
                LIMIT $10
            ) AS looked
        ) AS numbered
        WHERE matches OR nth = $10
        ORDER BY received_at, webhook_id
        LIMIT $11"#,
        tenant_id.0,
        filter.since,
        filter.until,
        at,
        id.map(|id| id.0),
        filter.provider(),
        filter.outcome(),
        filter.account(),
        Uuid::nil(),
        i64::from(look),
        i64::try_from(limit).unwrap_or(i64::MAX),
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(rows)
}

/// These webhooks with all that is kept of them, in this order.
async fn bodies(tx: &mut TenantTx, listed: &[Listed]) -> Result<Vec<Logged>> {
    let times: Vec<DateTime<Utc>> = listed.iter().map(|webhook| webhook.received_at).collect();
    let ids: Vec<Uuid> = listed.iter().map(|webhook| webhook.id.0).collect();
    let tenant_id = tx.tenant_id();
    let rows = sqlx::query!(
        r#"SELECT l.query, l.body_lz4, wanted.nth AS "nth!"
        FROM unnest($2::timestamptz[], $3::uuid[]) WITH ORDINALITY AS wanted (received_at, webhook_id, nth)
        JOIN webhook_log l ON l.tenant_id = $1 AND l.received_at = wanted.received_at AND l.webhook_id = wanted.webhook_id
        ORDER BY wanted.nth"#,
        tenant_id.0,
        &times,
        &ids,
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(rows
        .into_iter()
        .filter_map(|row| {
            let listed = listed.get(usize::try_from(row.nth - 1).ok()?)?.clone();
            Some(Logged { listed, query: row.query, body_lz4: row.body_lz4 })
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(second: i64) -> Listed {
        Listed {
            id: WebhookId::new(),
            received_at: DateTime::from_timestamp(second, 0).unwrap(),
            provider: "whatsapp".into(),
            channel_account_id: None,
            outcome: "stored".into(),
            detail: None,
            body_bytes: 5,
        }
    }

    fn looked(rows: &[(i64, bool)]) -> Vec<Looked> {
        let looked = |&(nth, matches): &(i64, bool)| {
            let Listed { id, received_at, provider, channel_account_id, outcome, detail, body_bytes } = listed(nth);
            Looked { id, received_at, provider, channel_account_id, outcome, detail, body_bytes, matches, nth }
        };
        rows.iter().map(looked).collect()
    }

    fn paged(rows: &[(i64, bool)], limit: usize) -> (usize, Option<i64>) {
        let (webhooks, next) = page(looked(rows), limit, 10);
        (webhooks.len(), next.map(|(at, _)| at.timestamp()))
    }

    #[test]
    fn a_page_ends_where_it_is_full_or_where_looking_ended_or_there_is_no_more() {
        assert_eq!(paged(&[(1, true), (3, true), (7, true)], 2), (2, Some(3)));
        assert_eq!(paged(&[(1, true), (3, true), (10, false)], 2), (2, Some(10)));
        assert_eq!(paged(&[(10, false)], 2), (0, Some(10)));
        assert_eq!(paged(&[(1, true), (10, true)], 2), (2, Some(10)));
        assert_eq!(paged(&[(1, true), (9, true)], 2), (2, None));
        assert_eq!(paged(&[], 2), (0, None));
    }

    #[test]
    fn a_body_whose_size_is_not_what_it_was_is_not_read() {
        let body_lz4 = lz4_flex::compress_prepend_size(b"hello");
        let logged = |body_lz4| Logged { listed: listed(1), query: None, body_lz4 };
        assert_eq!(logged(body_lz4.clone()).body().as_deref(), Some(&b"hello"[..]));
        let mut huge = body_lz4.clone();
        huge[..4].copy_from_slice(&u32::MAX.to_le_bytes());
        for broken in [huge, body_lz4[..5].to_vec(), vec![5, 0], Vec::new()] {
            assert_eq!(logged(broken).body(), None);
        }
    }

    #[test]
    fn an_id_says_when_it_was_made() {
        let apart = |id| made_at(id).map(|at| (at - DateTime::UNIX_EPOCH).num_days() > 20_000);
        assert_eq!(apart(WebhookId::new()), Some(true));
        assert_eq!(apart(WebhookId(Uuid::nil())), None);
    }
}
