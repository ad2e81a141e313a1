//! Replays: stretches of a tenant's log that are being published again, one of a tenant's at a time. A replay is first counted, then
//! published slice by slice; how far it is stands in its row, moved by who holds it, so that whoever dies is followed by another.

use super::{Filter, Place};
use crate::{
    db::{
        FleetTx, TenantTx,
        audit::{self, Actor, Entry},
        error::Result,
        inbound::log::Outcome,
    },
    domain::{
        channel::Provider,
        ids::{ApiTokenId, ChannelAccountId, ReplayId, TenantId, WebhookId},
    },
};
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use uuid::Uuid;

/// So many of a placement are gone on with in turn.
const IN_TURN: i64 = 16;

/// Where a replay stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Its webhooks are being counted.
    Counting,
    /// They are being published.
    Running,
    /// All are published.
    Completed,
    /// Somebody stopped it.
    Stopped,
}

impl State {
    /// The name in SQL and in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Counting => "counting",
            State::Running => "running",
            State::Completed => "completed",
            State::Stopped => "stopped",
        }
    }

    /// Whether there is more to do.
    pub fn is_under_way(self) -> bool {
        matches!(self, State::Counting | State::Running)
    }

    fn from_name(name: &str) -> Self {
        let all = [State::Counting, State::Running, State::Completed, State::Stopped];
        all.into_iter().find(|state| state.as_str() == name).expect("a constraint allows no other")
    }
}

/// So many webhooks can be named for one replay: each may have to be looked for in two hours of the log.
pub const MAX_NAMED: usize = 100;

/// What stands for the provider where webhooks are named: a release that does not know of such replays leaves them alone.
const NAMED: &str = "named";

/// What a replay plays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// What was received in a time, as far as the filter lets it through; both times are given, the second after the first.
    Stretch(Filter),
    /// These, the oldest first; one at least.
    Named(Vec<Place>),
}

/// A replay.
#[derive(Clone, Debug)]
pub struct Replay {
    /// Which.
    pub id: ReplayId,
    /// Where it stands.
    pub state: State,
    /// What is played again.
    pub wanted: Wanted,
    /// By which token it was asked for; `None`: by an operator.
    pub token_id: Option<ApiTokenId>,
    /// When.
    pub asked_at: DateTime<Utc>,
    /// When its webhooks had been counted.
    pub started_at: Option<DateTime<Utc>>,
    /// When it was completed or stopped.
    pub ended_at: Option<DateTime<Utc>>,
    /// When somebody last went on with it.
    pub worked_at: DateTime<Utc>,
    /// The last webhook that has been counted, or published.
    pub behind: Option<Place>,
    /// How many webhooks there are, as far as they are counted.
    pub selected: i64,
    /// How many have been published.
    pub published: i64,
    /// How many could not be, because nothing is kept of them that could be read.
    pub unreadable: i64,
}

impl Replay {
    /// In how many seconds all will have been published, if it goes on as it went so far; `None` where nothing says so.
    pub fn eta_seconds(&self, now: DateTime<Utc>) -> Option<i64> {
        let done = self.published + self.unreadable;
        let took = (now - self.started_at?).as_seconds_f64();
        // A float to an integer saturates.
        let left = |(): ()| (((self.selected - done).max(0) as f64) * took.max(0.0) / done as f64).ceil() as i64;
        (self.state == State::Running && done > 0).then_some(()).map(left)
    }

    fn actor(&self) -> Actor {
        self.token_id.map_or(Actor::Operator, Actor::Token)
    }

    fn details(&self) -> Value {
        let Filter { since, until, provider, outcome, channel_account_id } = match &self.wanted {
            Wanted::Stretch(filter) => filter,
            Wanted::Named(places) => {
                return json!({"webhook_ids": places.iter().map(|(_, id)| id).collect::<Vec<_>>()});
            }
        };
        let mut details = json!({"since": since, "until": until});
        let parts = [
            ("provider", provider.map(|provider| provider.as_str().to_owned())),
            ("outcome", outcome.map(|outcome| outcome.as_str().to_owned())),
            ("channel_account_id", channel_account_id.map(|id| id.to_string())),
        ];
        for (name, value) in parts {
            if let Some(value) = value {
                details[name] = value.into();
            }
        }
        details
    }
}

/// What became of asking for a replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// It begins.
    Begun(ReplayId),
    /// Another of the tenant's is under way: this one.
    UnderWay(ReplayId),
}

/// Asks for a replay. What is named is counted already.
///
/// # Errors
/// If the database does not answer.
pub async fn ask(tx: &mut TenantTx, wanted: &Wanted, actor: Actor) -> Result<Asked> {
    let (id, tenant_id) = (ReplayId::new(), tx.tenant_id());
    let token_id = match actor {
        Actor::Token(id) => Some(id.0),
        Actor::Operator => None,
    };
    let (filter, named) = match wanted {
        Wanted::Stretch(filter) => (filter.clone(), None),
        Wanted::Named(places) => (around(places), Some(places)),
    };
    let ids: Option<Vec<Uuid>> = named.map(|places| places.iter().map(|(_, id)| id.0).collect());
    let times: Option<Vec<DateTime<Utc>>> = named.map(|places| places.iter().map(|(at, _)| *at).collect());
    let inserted = sqlx::query!(
        "INSERT INTO webhook_replays (tenant_id, id, since, until, provider, outcome, channel_account_id, token_id, webhook_ids,
            webhook_times, state, started_at, selected)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10,
            CASE WHEN $9::uuid[] IS NULL THEN 'counting' ELSE 'running' END,
            CASE WHEN $9::uuid[] IS NOT NULL THEN clock_timestamp() END,
            coalesce(cardinality($9::uuid[]), 0))
        ON CONFLICT (tenant_id) WHERE state IN ('counting', 'running') DO NOTHING",
        tenant_id.0,
        id.0,
        filter.since,
        filter.until,
        named.map_or(filter.provider(), |_| Some(NAMED)),
        filter.outcome(),
        filter.account(),
        token_id,
        ids.as_deref(),
        times.as_deref(),
    )
    .execute(tx.conn())
    .await?;
    if inserted.rows_affected() == 0 {
        let other = sqlx::query_scalar!(
            r#"SELECT id AS "id: ReplayId" FROM webhook_replays WHERE tenant_id = $1 AND state IN ('counting', 'running')"#,
            tenant_id.0,
        )
        .fetch_optional(tx.conn())
        .await?;
        // Should it have ended this very moment: it was under way when it was asked.
        return Ok(Asked::UnderWay(other.unwrap_or(id)));
    }
    let replay = find(tx, id).await?.expect("it has just been written");
    record(tx, "replay.asked", &replay, replay.details()).await?;
    Ok(Asked::Begun(id))
}

/// The time in which these were received.
fn around(places: &[Place]) -> Filter {
    let (first, last) = (places.first().map(|(at, _)| *at), places.last().map(|(at, _)| *at));
    Filter { since: first, until: last.map(|at| at + TimeDelta::microseconds(1)), ..Filter::default() }
}

/// A replay; `None` if the tenant has no such one.
///
/// # Errors
/// If the database does not answer.
pub async fn find(tx: &mut TenantTx, id: ReplayId) -> Result<Option<Replay>> {
    let tenant_id = tx.tenant_id();
    let row = sqlx::query_as!(
        Row,
        r#"SELECT id AS "id: ReplayId", state, since, until, provider, outcome, channel_account_id AS "channel_account_id: ChannelAccountId",
            token_id AS "token_id: ApiTokenId", asked_at, started_at, ended_at, worked_at, behind_at, behind_id AS "behind_id: WebhookId",
            selected, published, unreadable, webhook_ids AS "webhook_ids: Vec<WebhookId>", webhook_times
        FROM webhook_replays
        WHERE tenant_id = $1 AND id = $2"#,
        tenant_id.0,
        id.0,
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(row.map(Replay::from))
}

/// The tenant's replays, the newest first.
///
/// # Errors
/// If the database does not answer.
pub async fn list(tx: &mut TenantTx, limit: i64) -> Result<Vec<Replay>> {
    let tenant_id = tx.tenant_id();
    let rows = sqlx::query_as!(
        Row,
        r#"SELECT id AS "id: ReplayId", state, since, until, provider, outcome, channel_account_id AS "channel_account_id: ChannelAccountId",
            token_id AS "token_id: ApiTokenId", asked_at, started_at, ended_at, worked_at, behind_at, behind_id AS "behind_id: WebhookId",
            selected, published, unreadable, webhook_ids AS "webhook_ids: Vec<WebhookId>", webhook_times
        FROM webhook_replays
        WHERE tenant_id = $1
        ORDER BY id DESC
        LIMIT $2"#,
        tenant_id.0,
        limit,
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(rows.into_iter().map(Replay::from).collect())
}

/// Stops a replay that is under way; what is published stays so. Where it stands now; `None` if the tenant has no such one.
///
/// # Errors
/// If the database does not answer.
pub async fn stop(tx: &mut TenantTx, id: ReplayId, actor: Actor) -> Result<Option<Replay>> {
    let tenant_id = tx.tenant_id();
    let stopped = sqlx::query!(
        "UPDATE webhook_replays
        SET state = 'stopped', ended_at = now()
        WHERE tenant_id = $1 AND id = $2 AND state IN ('counting', 'running')",
        tenant_id.0,
        id.0,
    )
    .execute(tx.conn())
    .await?;
    let replay = find(tx, id).await?;
    if let Some(replay) = replay.as_ref().filter(|_| stopped.rows_affected() > 0) {
        let details = json!({"published": replay.published, "selected": replay.selected});
        let entry = Entry { actor, action: "replay.stopped", target_kind: "replay", target_id: id.0, details };
        audit::record(tx, &entry).await?;
    }
    Ok(replay)
}

/// Replays that are under way.
#[derive(Debug)]
pub struct UnderWay {
    /// Those to go on with.
    pub ours: Vec<(TenantId, ReplayId)>,
    /// So many are for a provider or an outcome that only a newer release knows: by us all would be played that they are not about.
    pub newer: usize,
}

/// Replays of these tenants that are under way, those first with which nobody has gone on for the longest time.
///
/// # Errors
/// If the database does not answer.
pub async fn under_way(tx: &mut FleetTx) -> Result<UnderWay> {
    let providers: Vec<String> = Provider::ALL.iter().map(|provider| provider.as_str().to_owned()).collect();
    let outcomes: Vec<String> = Outcome::ALL.iter().map(|outcome| outcome.as_str().to_owned()).collect();
    let rows = sqlx::query!(
        r#"SELECT tenant_id AS "tenant_id: TenantId", id AS "id: ReplayId", is_ours AS "is_ours!"
        FROM (
            SELECT *, webhook_ids IS NOT NULL
                OR (provider IS NULL OR provider = ANY ($2)) AND (outcome IS NULL OR outcome = ANY ($3)) AS is_ours
            FROM webhook_replays
            WHERE state IN ('counting', 'running')
        ) AS under_way
        ORDER BY is_ours DESC, worked_at
        LIMIT $1"#,
        IN_TURN,
        &providers,
        &outcomes,
    )
    .fetch_all(tx.conn())
    .await?;
    let (ours, newer): (Vec<_>, Vec<_>) = rows.into_iter().partition(|row| row.is_ours);
    Ok(UnderWay { ours: ours.into_iter().map(|row| (row.tenant_id, row.id)).collect(), newer: newer.len() })
}

/// Takes hold of a replay for two minutes, as this; `None` if it has ended, or another holds it.
///
/// # Errors
/// If the database does not answer.
pub async fn hold(tx: &mut TenantTx, id: ReplayId, working: Uuid) -> Result<Option<Replay>> {
    let tenant_id = tx.tenant_id();
    let held = sqlx::query!(
        "UPDATE webhook_replays
        SET working = $3, working_until = clock_timestamp() + interval '2 minutes'
        WHERE tenant_id = $1 AND id = $2 AND state IN ('counting', 'running')
            AND (working IS NULL OR working = $3 OR working_until <= clock_timestamp())",
        tenant_id.0,
        id.0,
        working,
    )
    .execute(tx.conn())
    .await?;
    if held.rows_affected() == 0 { Ok(None) } else { find(tx, id).await }
}

/// Lets go of a replay with which there is nothing to be done now.
///
/// # Errors
/// If the database does not answer; the hold ends by itself.
pub async fn let_go(tx: &mut TenantTx, id: ReplayId, working: Uuid) -> Result<()> {
    let tenant_id = tx.tenant_id();
    sqlx::query!(
        "UPDATE webhook_replays SET working = NULL, working_until = NULL WHERE tenant_id = $1 AND id = $2 AND working = $3",
        tenant_id.0,
        id.0,
        working,
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// So many more webhooks of a replay are counted. With no `next` it is published from now on.
///
/// # Errors
/// If the database does not answer.
pub async fn counted(tx: &mut TenantTx, id: ReplayId, webhooks: i64, next: Option<Place>) -> Result<()> {
    let (at, webhook_id) = next.unzip();
    let tenant_id = tx.tenant_id();
    sqlx::query!(
        "UPDATE webhook_replays
        SET selected = selected + $3,
            behind_at = $4, behind_id = $5,
            state = CASE WHEN $4::timestamptz IS NULL THEN 'running' ELSE state END,
            started_at = CASE WHEN $4::timestamptz IS NULL THEN clock_timestamp() END,
            worked_at = clock_timestamp(), working = NULL, working_until = NULL
        WHERE tenant_id = $1 AND id = $2",
        tenant_id.0,
        id.0,
        webhooks,
        at,
        webhook_id.map(|id| id.0),
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// A slice of a replay.
#[derive(Clone, Copy, Debug)]
pub struct Published {
    /// So many webhooks of it are published.
    pub webhooks: i64,
    /// So many could not be.
    pub unreadable: i64,
    /// Where the next begins; with none the replay is completed.
    pub next: Option<Place>,
}

/// A slice of a replay is published by who held it as this. Whether that counts: not if it was stopped meanwhile, or another has
/// taken hold of it.
///
/// # Errors
/// If the database does not answer.
pub async fn published(tx: &mut TenantTx, id: ReplayId, working: Uuid, slice: Published) -> Result<bool> {
    let (at, webhook_id) = slice.next.unzip();
    let tenant_id = tx.tenant_id();
    let counts = sqlx::query!(
        "UPDATE webhook_replays
        SET published = published + $3,
            unreadable = unreadable + $4,
            behind_at = coalesce($5, behind_at), behind_id = coalesce($6, behind_id),
            state = CASE WHEN $5::timestamptz IS NULL THEN 'completed' ELSE state END,
            ended_at = CASE WHEN $5::timestamptz IS NULL THEN clock_timestamp() END,
            worked_at = clock_timestamp(), working = NULL, working_until = NULL
        WHERE tenant_id = $1 AND id = $2 AND working = $7 AND state = 'running'",
        tenant_id.0,
        id.0,
        slice.webhooks,
        slice.unreadable,
        at,
        webhook_id.map(|id| id.0),
        working,
    )
    .execute(tx.conn())
    .await?;
    if counts.rows_affected() == 0 {
        return Ok(false);
    }
    if slice.next.is_none() {
        let replay = find(tx, id).await?.expect("it is there");
        let mut details = replay.details();
        details["selected"] = replay.selected.into();
        details["published"] = replay.published.into();
        details["unreadable"] = replay.unreadable.into();
        record(tx, "replay.completed", &replay, details).await?;
    }
    Ok(true)
}

/// By whoever asked for the replay, also where a worker of ours completes it.
async fn record(tx: &mut TenantTx, action: &str, replay: &Replay, details: Value) -> Result<()> {
    let entry = Entry { actor: replay.actor(), action, target_kind: "replay", target_id: replay.id.0, details };
    audit::record(tx, &entry).await
}

struct Row {
    id: ReplayId,
    state: String,
    since: DateTime<Utc>,
    until: DateTime<Utc>,
    provider: Option<String>,
    outcome: Option<String>,
    channel_account_id: Option<ChannelAccountId>,
    token_id: Option<ApiTokenId>,
    asked_at: DateTime<Utc>,
    started_at: Option<DateTime<Utc>>,
    ended_at: Option<DateTime<Utc>>,
    worked_at: DateTime<Utc>,
    behind_at: Option<DateTime<Utc>>,
    behind_id: Option<WebhookId>,
    selected: i64,
    published: i64,
    unreadable: i64,
    webhook_ids: Option<Vec<WebhookId>>,
    webhook_times: Option<Vec<DateTime<Utc>>>,
}

impl From<Row> for Replay {
    fn from(row: Row) -> Self {
        let filter = Filter {
            since: Some(row.since),
            until: Some(row.until),
            // Of one that only a newer release knows we can show that there is a replay; we do not go on with it.
            provider: row.provider.and_then(|provider| provider.parse().ok()),
            outcome: row.outcome.and_then(|outcome| outcome.parse().ok()),
            channel_account_id: row.channel_account_id,
        };
        let wanted = match row.webhook_times.zip(row.webhook_ids) {
            Some((times, ids)) => Wanted::Named(times.into_iter().zip(ids).collect()),
            None => Wanted::Stretch(filter),
        };
        Self {
            id: row.id,
            state: State::from_name(&row.state),
            wanted,
            token_id: row.token_id,
            asked_at: row.asked_at,
            started_at: row.started_at,
            ended_at: row.ended_at,
            worked_at: row.worked_at,
            behind: row.behind_at.zip(row.behind_id),
            selected: row.selected,
            published: row.published,
            unreadable: row.unreadable,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_long_it_takes_is_told_from_how_long_it_took() {
        let now = DateTime::from_timestamp(1_795_000_000, 0).unwrap();
        let mut replay = Replay {
            id: ReplayId::new(),
            state: State::Running,
            wanted: Wanted::Stretch(Filter::default()),
            token_id: None,
            asked_at: now,
            started_at: Some(now - TimeDelta::seconds(10)),
            ended_at: None,
            worked_at: now,
            behind: None,
            selected: 1000,
            published: 90,
            unreadable: 10,
        };
        assert_eq!(replay.eta_seconds(now), Some(90));
        replay.published = 990;
        assert_eq!(replay.eta_seconds(now), Some(0));
        (replay.published, replay.unreadable) = (0, 0);
        assert_eq!(replay.eta_seconds(now), None);
        replay.published = 90;
        replay.state = State::Completed;
        assert_eq!(replay.eta_seconds(now), None);
    }
}
