//! Releasing people by credit: each second the campaigns of an account are topped up to as many sends in flight as it can hand
//! over in some seconds. So pausing and cancelling bite within seconds, several campaigns share an account by weight, and a
//! crash goes on from the rows.
//!
//! In flight are the states waiting, queued and sending of a send. People are locked before conversations although they come
//! after them in the order of locks: nobody is waited for there (SKIP LOCKED), and who changes a waiting person holds the
//! campaign's row, as we do.

mod pace;
mod place;
mod write;

pub(super) use pace::{Pace, pace};

use super::{
    QUEUE,
    counts::{self, Delta},
    job, people, rate,
};
use crate::{
    crash::{self, CrashPoint},
    db::{error::Result, scope::FleetTx, templates::uses},
    domain::{
        campaigns::{Addressee, CampaignContent, Share, SkipReason, credits, scaled_down},
        content::OutboundContent,
        ids::{CampaignId, ChannelAccountId, ContactId, ConversationId, MessageId, TemplateId, TenantId},
    },
    jobs::campaign::Task,
};
use chrono::{DateTime, Utc};
use sqlx::types::Json;
use std::collections::BTreeMap;
use uuid::Uuid;

/// No more than so many people are released in one transaction; a second later it goes on.
const AT_ONCE: i64 = 5_000;

/// A running campaign.
struct Running {
    id: CampaignId,
    content: CampaignContent,
    author: Option<Uuid>,
    /// The tenant's own template whose words these are.
    template: Option<TemplateId>,
    share: Share,
}

/// A person whose turn has come.
struct Released {
    campaign: usize,
    contact_id: ContactId,
    message_id: MessageId,
    to: Addressee,
    content: OutboundContent,
    /// Where it goes, and in which place there; known once the conversations are.
    conversation: (ConversationId, i64),
}

/// A person who cannot be written to any more.
struct Skipped {
    campaign: usize,
    contact_id: ContactId,
    reason: SkipReason,
}

/// Releases people of the campaigns that run on an account, and completes those with nobody left.
///
/// # Errors
/// If the database does not answer.
pub async fn release(tx: &mut FleetTx, tenant_id: TenantId, account: ChannelAccountId) -> Result<()> {
    let mut campaigns = lock(tx, tenant_id, account).await?;
    if campaigns.is_empty() {
        return Ok(());
    }
    rate::sample(tx, tenant_id, &ids(&campaigns)).await?;
    read_shares(tx, tenant_id, &mut campaigns).await?;
    let now = tx.now().await?;
    if let Some(pace) = pace(tx, tenant_id, account).await? {
        let (mut released, skipped) = take(tx, (tenant_id, account), &campaigns, pace.outstanding()).await?;
        place::place(tx, tenant_id, account, &mut released).await?;
        write::insert(tx, tenant_id, (account, pace.provider(), pace.channel()), &campaigns, &released).await?;
        if !released.is_empty() {
            crash::pass(CrashPoint::CampaignMidChunk);
        }
        write::mark(tx, tenant_id, &campaigns, &released, &skipped).await?;
        let messages: Vec<MessageId> = released.iter().map(|person| person.message_id).collect();
        let ahead = campaigns.iter().map(|campaign| campaign.share.in_flight).sum();
        pace.enqueue(tx, (tenant_id, account), &messages, ahead, now);
        counts::shift(tx, tenant_id, &deltas(&campaigns, &released, &skipped)).await?;
        count_templates(tx, tenant_id, account, &campaigns, &released).await?;
    }
    complete(tx, tenant_id, &campaigns, now).await
}

async fn lock(tx: &mut FleetTx, tenant_id: TenantId, account: ChannelAccountId) -> Result<Vec<Running>> {
    let rows = sqlx::query!(
        r#"SELECT id AS "id: CampaignId", content AS "content: Json<CampaignContent>", weight, created_by,
            template_id AS "template_id: TemplateId"
        FROM campaigns
        WHERE tenant_id = $1 AND channel_account_id = $2 AND state = 'running'
        ORDER BY id
        FOR NO KEY UPDATE"#,
        tenant_id.0,
        account.0,
    )
    .fetch_all(tx.conn())
    .await?;
    let share = |weight| Share { weight, waiting: 0, in_flight: 0 };
    Ok(rows
        .into_iter()
        .map(|row| Running {
            id: row.id,
            content: row.content.0,
            author: row.created_by,
            template: row.template_id,
            share: share(row.weight),
        })
        .collect())
}

/// How many wait (also to be tried again, which is done elsewhere) and are in flight: read after the campaigns are locked, so that it holds what the release before did.
async fn read_shares(tx: &mut FleetTx, tenant_id: TenantId, campaigns: &mut [Running]) -> Result<()> {
    let rows = sqlx::query!(
        r#"SELECT coalesce(n.waiting + CASE WHEN c.retry_asked_at IS NULL THEN 0 ELSE n.failed END, 0) AS "waiting!",
            coalesce(n.in_flight, 0) AS "in_flight!"
        FROM unnest($2::uuid[]) WITH ORDINALITY AS asked (id, position)
        JOIN campaigns c ON c.tenant_id = $1 AND c.id = asked.id
        LEFT JOIN campaign_counts n ON n.tenant_id = $1 AND n.campaign_id = asked.id
        ORDER BY asked.position"#,
        tenant_id.0,
        &ids(campaigns),
    )
    .fetch_all(tx.conn())
    .await?;
    for (campaign, row) in campaigns.iter_mut().zip(rows) {
        campaign.share.waiting = row.waiting;
        campaign.share.in_flight = row.in_flight;
    }
    Ok(())
}

/// Locks the people whose turn has come, and fills in the words for each.
async fn take(
    tx: &mut FleetTx,
    (tenant_id, account): (TenantId, ChannelAccountId),
    campaigns: &[Running],
    outstanding: f64,
) -> Result<(Vec<Released>, Vec<Skipped>)> {
    let shares: Vec<Share> = campaigns.iter().map(|campaign| campaign.share).collect();
    let credits = scaled_down(credits(outstanding, &shares), AT_ONCE);
    if credits.iter().all(|credit| *credit == 0) {
        return Ok((Vec::new(), Vec::new()));
    }
    let rows = sqlx::query!(
        r#"SELECT credit.position AS "position!", r.contact_id AS "contact_id!: ContactId"
        FROM unnest($2::uuid[], $3::bigint[]) WITH ORDINALITY AS credit (campaign_id, people, position)
        CROSS JOIN LATERAL (
            SELECT contact_id
            FROM campaign_recipients
            WHERE tenant_id = $1 AND campaign_id = credit.campaign_id AND state = 'waiting'
            ORDER BY contact_id
            LIMIT credit.people
            FOR NO KEY UPDATE SKIP LOCKED
        ) AS r"#,
        tenant_id.0,
        &ids(campaigns),
        &credits,
    )
    .fetch_all(tx.conn())
    .await?;
    let rows = rows.into_iter().map(|row| (usize::try_from(row.position - 1).unwrap_or_default(), row.contact_id));
    let rows = spread(rows.collect(), campaigns.len());
    let mut contacts: Vec<Uuid> = rows.iter().map(|(_, contact_id)| contact_id.0).collect();
    contacts.sort_unstable();
    contacts.dedup();
    let people = people::addressees(tx, tenant_id, account, &contacts).await?;
    let (mut released, mut skipped) = (Vec::with_capacity(rows.len()), Vec::new());
    for (campaign, contact_id) in rows {
        let Some(to) = people.get(&contact_id).cloned() else { continue };
        match campaigns[campaign].content.filled(&to) {
            Ok(content) => released.push(Released {
                campaign,
                contact_id,
                message_id: MessageId::new(),
                to,
                content,
                conversation: (ConversationId(Uuid::nil()), 0),
            }),
            Err(reason) => skipped.push(Skipped { campaign, contact_id, reason }),
        }
    }
    Ok((released, skipped))
}

/// Each campaign's people evenly among all others: they are sent to in this order, and each campaign is to have its share of every
/// second.
fn spread<T>(people: Vec<(usize, T)>, campaigns: usize) -> Vec<(usize, T)> {
    let mut of = vec![0_u64; campaigns];
    people.iter().for_each(|(campaign, _)| of[*campaign] += 1);
    let mut before = vec![0_u64; campaigns];
    let mut placed: Vec<(u64, (usize, T))> = people
        .into_iter()
        .map(|person| {
            let nth = &mut before[person.0];
            *nth += 1;
            // In the middle of its part of the whole: the first of few comes later than the first of many.
            (((2 * *nth - 1) << 32) / (2 * of[person.0]), person)
        })
        .collect();
    placed.sort_by_key(|(place, _)| *place);
    placed.into_iter().map(|(_, person)| person).collect()
}

/// Counts which templates these people got.
async fn count_templates(
    tx: &mut FleetTx,
    tenant_id: TenantId,
    account: ChannelAccountId,
    campaigns: &[Running],
    released: &[Released],
) -> Result<()> {
    let mut own: BTreeMap<TemplateId, i64> = BTreeMap::new();
    let mut named: BTreeMap<(String, String), i64> = BTreeMap::new();
    for person in released {
        match (campaigns[person.campaign].template, &person.content) {
            (Some(id), _) => *own.entry(id).or_default() += 1,
            (None, OutboundContent::Template(said)) => {
                *named.entry((said.name.clone(), said.language.clone())).or_default() += 1;
            }
            (None, _) => {}
        }
    }
    uses::count_many(tx, tenant_id, &own).await?;
    uses::count_named(tx, tenant_id, account, &named).await
}

fn deltas(campaigns: &[Running], released: &[Released], skipped: &[Skipped]) -> BTreeMap<CampaignId, Delta> {
    let mut deltas: BTreeMap<CampaignId, Delta> = BTreeMap::new();
    for person in released {
        let delta = deltas.entry(campaigns[person.campaign].id).or_default();
        delta.waiting -= 1;
        delta.in_flight += 1;
    }
    for person in skipped {
        let delta = deltas.entry(campaigns[person.campaign].id).or_default();
        delta.waiting -= 1;
        delta.skipped += 1;
    }
    deltas
}

/// Completes the campaigns with nobody left: all frozen, none waiting, in flight, unknown or to be tried again. Their books are checked next.
async fn complete(tx: &mut FleetTx, tenant_id: TenantId, campaigns: &[Running], now: DateTime<Utc>) -> Result<()> {
    let completed = sqlx::query_scalar!(
        r#"UPDATE campaigns c
        SET state = 'completed', ended_at = now()
        FROM unnest($2::uuid[]) AS asked (id)
        JOIN campaign_counts n ON n.tenant_id = $1 AND n.campaign_id = asked.id
        WHERE c.tenant_id = $1 AND c.id = asked.id AND c.state = 'running' AND c.frozen_at IS NOT NULL AND c.retry_asked_at IS NULL
            AND n.waiting = 0 AND n.in_flight = 0 AND n.unknown = 0
            AND NOT EXISTS (
                SELECT FROM campaign_recipients r WHERE r.tenant_id = $1 AND r.campaign_id = c.id AND r.state = 'waiting'
            )
        RETURNING c.id AS "id: CampaignId""#,
        tenant_id.0,
        &ids(campaigns),
    )
    .fetch_all(tx.conn())
    .await?;
    for campaign_id in completed {
        tx.enqueue(tenant_id, QUEUE, job(tenant_id, Task::Check { campaign_id }, now), None);
    }
    Ok(())
}

fn ids(campaigns: &[Running]) -> Vec<Uuid> {
    campaigns.iter().map(|campaign| campaign.id.0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn campaigns_take_turns_by_their_shares() {
        let people: Vec<(usize, u32)> = (0..2).map(|n| (0, n)).chain((0..6).map(|n| (1, n))).collect();
        assert_eq!(spread(people, 3), [(1, 0), (0, 0), (1, 1), (1, 2), (1, 3), (0, 1), (1, 4), (1, 5)]);
        assert_eq!(spread::<()>(Vec::new(), 0), []);
    }
}
