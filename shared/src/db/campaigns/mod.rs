//! Campaigns. A request creates and shows them and moves them from state to state; the rest is done by jobs, step by step:
//! [`freeze`], [`release`], [`wake`], [`cancel`], [`retry`]. The [`ledger`] holds what is shown against the rows;
//! [`recipients`] are shown one by one.
//!
//! Who changes a campaign's people or lets them go locks its row first: so a campaign that was paused or cancelled lets nobody
//! go, and two releases at once do not give out one credit twice. `campaign_counts` is moved last of all, because every
//! outcome of a send moves it, too.

pub mod cancel;
mod counts;
pub mod due;
pub mod freeze;
pub mod ledger;
mod people;
mod rate;
pub mod recipients;
pub mod release;
pub mod retry;
mod transitions;
pub mod wake;

pub use transitions::{Changed, change};

use super::{
    TenantTx,
    audit::{self, Actor, Entry},
    error::Result,
};
use crate::{
    domain::{
        campaigns::{Audience, CampaignContent, CampaignState},
        ids::{ApiTokenId, CampaignId, ChannelAccountId, ContactId, TemplateId, TenantId},
        limits::{reserve, sends_per_second},
    },
    jobs::campaign::{CampaignJob, Task},
};
use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use uuid::Uuid;

/// The queue of campaigns' steps, by its name in the topology.
pub const QUEUE: &str = "campaign";

/// A campaign to be.
#[derive(Debug)]
pub struct NewCampaign<'a> {
    /// What its author calls it.
    pub name: &'a str,
    /// From which account; one of the tenant's.
    pub channel_account_id: ChannelAccountId,
    /// What it says.
    pub content: &'a CampaignContent,
    /// To whom.
    pub audience: &'a Audience,
    /// Its share of the account beside that of other campaigns, 1 to 100.
    pub weight: i32,
    /// With which token it was made.
    pub author: ApiTokenId,
    /// The tenant's own template whose words it says.
    pub template: Option<TemplateId>,
}

/// A campaign as it is shown.
#[derive(Clone, Debug)]
pub struct Campaign {
    /// Its id.
    pub id: CampaignId,
    /// What its author calls it.
    pub name: String,
    /// From which account.
    pub channel_account_id: ChannelAccountId,
    /// draft, running, paused, completed, cancelled.
    pub state: String,
    /// With which code its template was refused, if that has paused it.
    pub paused_code: Option<String>,
    /// What that means.
    pub paused_reason: Option<String>,
    /// What it says, variables unfilled.
    pub content: Value,
    /// When the templates of its account were last fetched; `None`: never, and what is said of a template is unchecked.
    pub templates_synced_at: Option<DateTime<Utc>>,
    /// How many contacts were named; `None`: it goes to everybody.
    pub audience_contacts: Option<i32>,
    /// Its share of the account.
    pub weight: i32,
    /// When its audience was frozen to the last person.
    pub frozen_at: Option<DateTime<Utc>>,
    /// How many were frozen, skipped ones included.
    pub frozen_count: Option<i64>,
    /// Since when it is there.
    pub created_at: DateTime<Utc>,
    /// When it was started.
    pub started_at: Option<DateTime<Utc>>,
    /// When it was completed or cancelled.
    pub ended_at: Option<DateTime<Utc>>,
    /// Since when who had failed is tried again, while that is under way.
    pub retrying_since: Option<DateTime<Utc>>,
    /// How many they were then.
    pub retrying_count: Option<i64>,
    /// How many of its sends were handed over per second, over the last 10 to 20 seconds; 0 unless it runs.
    pub rate: f64,
    /// At how many a second it can be expected to go: the rate, once that has been measured for ten seconds; before that, its share
    /// of what its account may send. `None` unless it runs, and if nobody can tell.
    pub pace: Option<f64>,
    /// Left out, with a reason.
    pub skipped: i64,
    /// Not released yet.
    pub waiting: i64,
    /// Released, and neither with the provider nor given up.
    pub in_flight: i64,
    /// Perhaps with the provider; evidence is awaited.
    pub unknown: i64,
    /// For a person to decide.
    pub held: i64,
    /// With the provider.
    pub sent: i64,
    /// On the person's device.
    pub delivered: i64,
    /// Seen.
    pub read: i64,
    /// Refused, by the provider or by us.
    pub failed: i64,
    /// Taken back before they were sent.
    pub cancelled: i64,
}

/// Makes a campaign. Nothing is sent before it is started.
///
/// # Errors
/// If the database does not answer.
pub async fn create(tx: &mut TenantTx, new: &NewCampaign<'_>) -> Result<CampaignId> {
    let (tenant_id, id) = (tx.tenant_id(), CampaignId::new());
    sqlx::query!(
        "INSERT INTO campaigns (tenant_id, id, name, channel_account_id, content, audience, weight, created_by, template_id)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        tenant_id.0,
        id.0,
        new.name,
        new.channel_account_id.0,
        serde_json::to_value(new.content).expect("plain fields are always JSON"),
        serde_json::to_value(new.audience).expect("plain fields are always JSON"),
        new.weight,
        new.author.0,
        new.template.map(|id| id.0),
    )
    .execute(tx.conn())
    .await?;
    sqlx::query!("INSERT INTO campaign_counts (tenant_id, campaign_id) VALUES ($1, $2)", tenant_id.0, id.0)
        .execute(tx.conn())
        .await?;
    note(tx, Actor::Token(new.author), id, "campaign.created", json!({"name": new.name})).await?;
    Ok(id)
}

/// Those of these ids that are no contact of the tenant's.
///
/// # Errors
/// If the database does not answer.
pub async fn strangers(tx: &mut TenantTx, ids: &[ContactId]) -> Result<Vec<ContactId>> {
    let tenant_id = tx.tenant_id();
    let asked: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
    let strangers = sqlx::query_scalar!(
        r#"SELECT asked.id AS "id!: ContactId"
        FROM unnest($2::uuid[]) AS asked (id)
        WHERE NOT EXISTS (SELECT FROM contacts c WHERE c.tenant_id = $1 AND c.id = asked.id)
        ORDER BY asked.id"#,
        tenant_id.0,
        &asked,
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(strangers)
}

/// One campaign.
///
/// # Errors
/// If the database does not answer.
pub async fn find(tx: &mut TenantTx, id: CampaignId) -> Result<Option<Campaign>> {
    Ok(select(tx, id.0, id.0, None, 1).await?.pop())
}

/// A page of campaigns, the newest first, below `before`.
///
/// # Errors
/// If the database does not answer.
pub async fn list(tx: &mut TenantTx, before: Option<CampaignId>, limit: i64) -> Result<Vec<Campaign>> {
    let last = before.map_or(Uuid::max(), |id| id.0);
    select(tx, Uuid::nil(), last, before, limit).await
}

async fn select(
    tx: &mut TenantTx,
    first: Uuid,
    last: Uuid,
    but: Option<CampaignId>,
    limit: i64,
) -> Result<Vec<Campaign>> {
    let tenant_id = tx.tenant_id();
    let rows = sqlx::query!(
        r#"SELECT c.id AS "id: CampaignId", c.name, c.channel_account_id AS "channel_account_id: ChannelAccountId", c.state,
            c.content, a.templates_synced_at, jsonb_array_length(c.audience -> 'contact_ids') AS audience_contacts, c.weight, c.frozen_at, c.frozen_count, c.created_at, c.started_at, c.ended_at,
            c.paused_code, c.paused_reason, c.retry_asked_at AS retrying_since, CASE WHEN c.retry_asked_at IS NOT NULL THEN c.retry_people END AS retrying_count,
            CASE
                WHEN c.state = 'running' THEN coalesce(
                    (n.handed_over - coalesce(c.sampled_before_handed_over, c.sampled_handed_over))
                        / greatest(EXTRACT(epoch FROM now() - coalesce(c.sampled_before_at, c.sampled_at))::float8, 1),
                    0)
                ELSE 0
            END AS "rate!",
            c.sampled_before_at IS NOT NULL AS "measured!", a.state = 'active' AS "sends!",
            l.rate AS "limit_rate?", l.current_rate AS "limit_current_rate?", l.cost AS "limit_cost?", l.inbound_cost AS "limit_inbound_cost?", (
                SELECT max(r.messages)
                FROM received_seconds r
                WHERE r.tenant_id = c.tenant_id AND r.channel_account_id = c.channel_account_id
                    AND r.second BETWEEN floor(EXTRACT(epoch FROM now()))::bigint - 9 AND floor(EXTRACT(epoch FROM now()))::bigint
            ) AS busiest_second, (
                -- Itself, and those that have people left to share with.
                SELECT sum(o.weight)
                FROM campaigns o
                JOIN campaign_counts m ON m.tenant_id = o.tenant_id AND m.campaign_id = o.id
                WHERE o.tenant_id = c.tenant_id AND o.channel_account_id = c.channel_account_id AND o.state = 'running'
                    AND (o.id = c.id OR m.waiting > 0)
            ) AS weights,
            n.skipped, n.waiting, n.in_flight, n.unknown, n.held, n.sent, n.delivered, n.read, n.failed, n.cancelled
        FROM campaigns c
        JOIN campaign_counts n ON n.tenant_id = c.tenant_id AND n.campaign_id = c.id
        JOIN channel_accounts a ON a.tenant_id = c.tenant_id AND a.id = c.channel_account_id
        LEFT JOIN limits l ON l.tenant_id = c.tenant_id AND l.scope = 'account' AND l.key = c.channel_account_id
        WHERE c.tenant_id = $1 AND c.id BETWEEN $2 AND $3 AND c.id IS DISTINCT FROM $4
        ORDER BY c.id DESC
        LIMIT $5"#,
        tenant_id.0,
        first,
        last,
        but.map(|id| id.0),
        limit,
    )
    .fetch_all(tx.conn())
    .await?;
    let campaigns = rows.into_iter().map(|row| {
        let limit = row.limit_rate.map(|rate| {
            let inbound_cost = row.limit_inbound_cost.unwrap_or(0.0);
            let kept = reserve(rate, row.busiest_second.unwrap_or(0), inbound_cost);
            sends_per_second(rate, row.limit_current_rate.unwrap_or(rate), kept, row.limit_cost.unwrap_or(1.0))
        });
        let share = row.weights.map(|weights| f64::from(row.weight) / weights as f64);
        let allowed = limit.zip(share).map(|(limit, share)| limit * share);
        let expected = if row.measured { Some(row.rate) } else { allowed.or(Some(row.rate)) };
        Campaign {
            id: row.id,
            name: row.name,
            channel_account_id: row.channel_account_id,
            content: row.content,
            templates_synced_at: row.templates_synced_at,
            audience_contacts: row.audience_contacts,
            weight: row.weight,
            frozen_at: row.frozen_at,
            frozen_count: row.frozen_count,
            created_at: row.created_at,
            started_at: row.started_at,
            ended_at: row.ended_at,
            paused_code: row.paused_code,
            paused_reason: row.paused_reason,
            retrying_since: row.retrying_since,
            retrying_count: row.retrying_count,
            rate: row.rate,
            pace: expected.filter(|pace| *pace > 0.0 && row.sends && row.state == CampaignState::Running.as_str()),
            state: row.state,
            skipped: row.skipped,
            waiting: row.waiting,
            in_flight: row.in_flight,
            unknown: row.unknown,
            held: row.held,
            sent: row.sent,
            delivered: row.delivered,
            read: row.read,
            failed: row.failed,
            cancelled: row.cancelled,
        }
    });
    Ok(campaigns.collect())
}

fn job(tenant_id: TenantId, task: Task, now: DateTime<Utc>) -> crate::jobs::Job {
    CampaignJob { tenant_id, task }.to_job(now)
}

/// Records what somebody did with a campaign.
async fn note(tx: &mut TenantTx, actor: Actor, id: CampaignId, action: &str, details: Value) -> Result<()> {
    audit::record(tx, &Entry { actor, action, target_kind: "campaign", target_id: id.0, details }).await
}

/// A state as it is in the database, where only known ones can be.
fn state(name: &str) -> CampaignState {
    CampaignState::from_name(name).expect("the column has a check")
}
