//! Failed people of a campaign are tried again: somebody asks for it, and step by step the same sends are let go once more, from
//! the last person to the first. How far it is stands in the campaign's row and moves with the people, so a step that comes
//! twice, or is taken up after a crash, retries nobody twice; who fails again meanwhile has been looked at.
//!
//! They are let go by credit as a [release](super::release) lets people go: otherwise a million of them would stand in the queue at once, a pause
//! would bite late and other campaigns of the account would wait.

use super::{
    QUEUE,
    counts::{self, Delta},
    freeze::CHUNK,
    job,
    ledger::read_at_length,
    note,
    release::{Pace, pace},
    state,
};
use crate::{
    db::{
        TenantTx,
        audit::Actor,
        error::Result,
        outbound::again::{self, Again},
        scope::FleetTx,
    },
    domain::{
        campaigns::{CampaignState, Share, credits},
        ids::{CampaignId, ChannelAccountId, ContactId, MessageId, TenantId},
        sends::WaitReason,
    },
    jobs::campaign::Task,
};
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;
use std::collections::BTreeMap;
use uuid::Uuid;

/// A step that has used up its credit is followed by the next after as long as a release by the next.
const AGAIN: TimeDelta = TimeDelta::seconds(1);
/// One that can let nobody go, because nothing is sent, looks again after this.
const LATER: TimeDelta = TimeDelta::seconds(5);

/// What became of the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// It is under way from now on.
    Begun {
        /// So many people are tried again.
        people: i64,
    },
    /// The same was asked for before and is under way.
    UnderWay {
        /// So many people were to be tried again when it was asked for.
        people: i64,
    },
    /// It is under way for other codes.
    OthersUnderWay,
    /// Nobody has failed.
    NobodyFailed,
    /// Nobody has failed with one of these codes.
    NobodyFailedSo {
        /// With which codes how many have, the commonest first.
        failed: Vec<(String, i64)>,
    },
    /// It cannot be done in this state.
    NotFrom(CampaignState),
}

/// Asks that everybody of a campaign whose send has failed by now be tried again, or those with one of `codes` (in order, none
/// twice). A completed campaign runs again. `None` if the tenant has no such campaign.
///
/// # Errors
/// If the database does not answer.
pub async fn ask(tx: &mut TenantTx, id: CampaignId, codes: Option<&[String]>, actor: Actor) -> Result<Option<Asked>> {
    // Before the campaign is locked: it takes a while, and whoever lets people of it go would wait.
    let by_code = if codes.is_some() { failed_by_code(tx, id).await? } else { Vec::new() };
    let tenant_id = tx.tenant_id();
    let found = sqlx::query!(
        r#"SELECT c.state, c.retry_asked_at IS NOT NULL AS "under_way!", c.retry_codes, coalesce(c.retry_people, 0) AS "retry_people!",
            c.retry_through AS "retry_through: ContactId", n.failed, now() AS "now!"
        FROM campaigns c
        JOIN campaign_counts n ON n.tenant_id = c.tenant_id AND n.campaign_id = c.id
        WHERE c.tenant_id = $1 AND c.id = $2
        FOR NO KEY UPDATE OF c"#,
        tenant_id.0,
        id.0,
    )
    .fetch_optional(tx.conn())
    .await?;
    let Some(found) = found else { return Ok(None) };
    let before = state(&found.state);
    let Some(after) = before.when_retried() else { return Ok(Some(Asked::NotFrom(before))) };
    if found.under_way {
        if found.retry_codes.as_deref() != codes {
            return Ok(Some(Asked::OthersUnderWay));
        }
        // Should its job be lost, asking again takes it up; else this one finds that it comes too late.
        let task = Task::Retry { campaign_id: id, before: found.retry_through };
        tx.enqueue(QUEUE, job(tenant_id, task, found.now), None);
        return Ok(Some(Asked::UnderWay { people: found.retry_people }));
    }
    if found.failed == 0 {
        return Ok(Some(Asked::NobodyFailed));
    }
    let people = match codes {
        None => found.failed,
        Some(codes) => by_code.iter().filter(|(code, _)| codes.contains(code)).map(|(_, people)| people).sum(),
    };
    if people == 0 {
        return Ok(Some(Asked::NobodyFailedSo { failed: by_code }));
    }
    sqlx::query!(
        "UPDATE campaigns
        SET state = $3, ended_at = NULL, retry_asked_at = clock_timestamp(), retry_codes = $4, retry_through = NULL, retry_people = $5,
            sampled_at = CASE WHEN state = 'running' THEN sampled_at END,
            sampled_handed_over = CASE WHEN state = 'running' THEN sampled_handed_over END,
            sampled_before_at = CASE WHEN state = 'running' THEN sampled_before_at END,
            sampled_before_handed_over = CASE WHEN state = 'running' THEN sampled_before_handed_over END
        WHERE tenant_id = $1 AND id = $2",
        tenant_id.0,
        id.0,
        after.as_str(),
        codes,
        people,
    )
    .execute(tx.conn())
    .await?;
    let details = json!({
        "before": before.as_str(), "after": after.as_str(), "failed": found.failed, "people": people, "codes": codes,
    });
    note(tx, actor, id, "campaign.retry_failed", details).await?;
    tx.enqueue(QUEUE, job(tenant_id, Task::Retry { campaign_id: id, before: None }, found.now), None);
    Ok(Some(Asked::Begun { people }))
}

/// How many of a campaign's people have failed with which code, the commonest first. Reads all of them: no index knows who failed.
async fn failed_by_code(tx: &mut TenantTx, id: CampaignId) -> Result<Vec<(String, i64)>> {
    read_at_length(tx).await?;
    let tenant_id = tx.tenant_id();
    let rows = sqlx::query!(
        r#"SELECT s.code AS "code!", count(*) AS "people!"
        FROM campaign_recipients r
        JOIN sends s ON s.tenant_id = r.tenant_id AND s.message_id = r.message_id
        WHERE r.tenant_id = $1 AND r.campaign_id = $2 AND r.state = 'released' AND s.state = 'failed' AND s.code IS NOT NULL
        GROUP BY s.code
        ORDER BY count(*) DESC, s.code"#,
        tenant_id.0,
        id.0,
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(rows.into_iter().map(|row| (row.code, row.people)).collect())
}

/// A retry under way.
struct Retry {
    account: ChannelAccountId,
    state: CampaignState,
    asked_at: DateTime<Utc>,
    codes: Option<Vec<String>>,
    now: DateTime<Utc>,
}

/// Lets those go again who had failed among the people before `before`, as many as there is credit for, and writes the job for
/// those before them. Nothing if that is not how far the retry is.
///
/// # Errors
/// If the database does not answer.
pub async fn retry(
    tx: &mut FleetTx,
    tenant_id: TenantId,
    campaign_id: CampaignId,
    before: Option<ContactId>,
) -> Result<()> {
    let Some(retry) = lock(tx, tenant_id, campaign_id, before).await? else { return Ok(()) };
    let credit = credit(tx, tenant_id, retry.account, campaign_id).await?;
    let room = credit.as_ref().map_or(0, |credit| credit.people).min(CHUNK);
    if room == 0 {
        let sends = retry.state == CampaignState::Running && credit.is_some();
        let task = Task::Retry { campaign_id, before };
        tx.enqueue(tenant_id, QUEUE, job(tenant_id, task, retry.now), Some(if sends { AGAIN } else { LATER }));
        return Ok(());
    }
    let failed = failed(tx, tenant_id, campaign_id, before, &retry, room).await?;
    let (through, pause) = if failed.len() == room {
        (failed.last().map(|(contact_id, _)| *contact_id), Some(AGAIN))
    } else {
        (last_looked_at(tx, tenant_id, campaign_id, before).await?, None)
    };
    match through {
        Some(through) => go_on(tx, tenant_id, campaign_id, through, pause, retry.now).await?,
        None => finish(tx, tenant_id, campaign_id).await?,
    }
    let messages: Vec<Uuid> = failed.iter().map(|(_, message_id)| message_id.0).collect();
    let retried = let_go(tx, tenant_id, &messages, retry.state).await?;
    if let Some(credit) = credit.filter(|_| retry.state == CampaignState::Running) {
        credit.pace.enqueue(tx, (tenant_id, retry.account), &retried, credit.ahead, retry.now);
    }
    let people = i64::try_from(retried.len()).unwrap_or(i64::MAX);
    let delta = Delta { failed: -people, in_flight: people, ..Delta::default() };
    counts::shift(tx, tenant_id, &BTreeMap::from([(campaign_id, delta)])).await
}

async fn lock(
    tx: &mut FleetTx,
    tenant_id: TenantId,
    campaign_id: CampaignId,
    before: Option<ContactId>,
) -> Result<Option<Retry>> {
    let row = sqlx::query!(
        r#"SELECT channel_account_id AS "account: ChannelAccountId", state, retry_asked_at AS "asked_at!", retry_codes, now() AS "now!"
        FROM campaigns
        WHERE tenant_id = $1 AND id = $2 AND state IN ('running', 'paused') AND retry_asked_at IS NOT NULL
            AND retry_through IS NOT DISTINCT FROM $3
        FOR NO KEY UPDATE"#,
        tenant_id.0,
        campaign_id.0,
        before.map(|id| id.0),
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(row.map(|row| Retry {
        account: row.account,
        state: state(&row.state),
        asked_at: row.asked_at,
        codes: row.retry_codes,
        now: row.now,
    }))
}

/// What may be let go now.
struct Credit {
    pace: Pace,
    /// The campaign's part of what its account should have in flight.
    people: usize,
    /// How many are in flight already.
    ahead: i64,
}

/// How many may be let go now; `None` if the account cannot send.
async fn credit(
    tx: &mut FleetTx,
    tenant_id: TenantId,
    account: ChannelAccountId,
    campaign_id: CampaignId,
) -> Result<Option<Credit>> {
    let Some(pace) = pace(tx, tenant_id, account).await? else { return Ok(None) };
    let rows = sqlx::query!(
        r#"SELECT c.id AS "id: CampaignId", c.weight, n.in_flight,
            n.waiting + CASE WHEN c.retry_asked_at IS NULL THEN 0 ELSE n.failed END AS "waiting!"
        FROM campaigns c
        JOIN campaign_counts n ON n.tenant_id = c.tenant_id AND n.campaign_id = c.id
        WHERE c.tenant_id = $1 AND c.channel_account_id = $2 AND (c.state = 'running' OR c.id = $3)
        ORDER BY c.id"#,
        tenant_id.0,
        account.0,
        campaign_id.0,
    )
    .fetch_all(tx.conn())
    .await?;
    // How many are left of ours is found out by looking.
    let waiting = |id, waiting| if id == campaign_id { i64::try_from(CHUNK).unwrap_or(i64::MAX) } else { waiting };
    let shares: Vec<Share> = rows
        .iter()
        .map(|row| Share { weight: row.weight, waiting: waiting(row.id, row.waiting), in_flight: row.in_flight })
        .collect();
    let ours = rows.iter().zip(credits(pace.outstanding(), &shares)).find(|(row, _)| row.id == campaign_id);
    let people = ours.map_or(0, |(_, credit)| usize::try_from(credit).unwrap_or_default());
    Ok(Some(Credit { pace, people, ahead: rows.iter().map(|row| row.in_flight).sum() }))
}

/// The next people who had failed when it was asked for, at most so many. Who turned out to be another person of the campaign is tried
/// again once: as who they are, or as the first of those; and not at all if one of them was written to.
async fn failed(
    tx: &mut FleetTx,
    tenant_id: TenantId,
    campaign_id: CampaignId,
    before: Option<ContactId>,
    retry: &Retry,
    room: usize,
) -> Result<Vec<(ContactId, MessageId)>> {
    // A provider's clock may be ahead of ours, and a row may have been touched since: the earlier time counts.
    let rows = sqlx::query!(
        r#"SELECT looked.contact_id AS "contact_id: ContactId", failed.message_id AS "message_id: MessageId"
        FROM (
            SELECT contact_id, message_id
            FROM campaign_recipients
            WHERE tenant_id = $1 AND campaign_id = $2 AND contact_id < $3 AND state = 'released'
            ORDER BY contact_id DESC
            LIMIT $4
        ) AS looked
        CROSS JOIN LATERAL (
            SELECT message_id
            FROM sends
            WHERE tenant_id = $1 AND message_id = looked.message_id AND state = 'failed'
                AND least(failed_at, updated_at) <= $5 AND ($6::text[] IS NULL OR code = ANY ($6))
            LIMIT 1
        ) AS failed
        LEFT JOIN LATERAL (
            SELECT merged_into FROM contacts WHERE tenant_id = $1 AND id = looked.contact_id LIMIT 1
        ) AS who ON true
        WHERE NOT EXISTS (
            SELECT
            FROM (
                SELECT who.merged_into AS id
                UNION ALL
                SELECT id
                FROM contacts
                WHERE tenant_id = $1 AND merged_into = coalesce(who.merged_into, looked.contact_id) AND id <> looked.contact_id
            ) AS same
            CROSS JOIN LATERAL (
                SELECT message_id
                FROM campaign_recipients
                WHERE tenant_id = $1 AND campaign_id = $2 AND contact_id = same.id AND state = 'released'
                LIMIT 1
            ) AS r
            WHERE same.id = who.merged_into
                OR (who.merged_into IS NOT NULL AND same.id < looked.contact_id)
                OR NOT EXISTS (
                    SELECT FROM sends WHERE tenant_id = $1 AND message_id = r.message_id AND state IN ('failed', 'cancelled')
                )
        )
        ORDER BY looked.contact_id DESC
        LIMIT $7"#,
        tenant_id.0,
        campaign_id.0,
        before.map_or(Uuid::max(), |id| id.0),
        i64::try_from(CHUNK).unwrap_or(i64::MAX),
        retry.asked_at,
        retry.codes.as_deref(),
        i64::try_from(room).unwrap_or(i64::MAX),
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(rows.into_iter().map(|row| (row.contact_id, row.message_id)).collect())
}

/// The last of a full chunk of people; `None` if there are no more than that.
async fn last_looked_at(
    tx: &mut FleetTx,
    tenant_id: TenantId,
    campaign_id: CampaignId,
    before: Option<ContactId>,
) -> Result<Option<ContactId>> {
    let last = sqlx::query_scalar!(
        r#"SELECT contact_id AS "contact_id: ContactId"
        FROM campaign_recipients
        WHERE tenant_id = $1 AND campaign_id = $2 AND contact_id < $3 AND state = 'released'
        ORDER BY contact_id DESC
        OFFSET $4
        LIMIT 1"#,
        tenant_id.0,
        campaign_id.0,
        before.map_or(Uuid::max(), |id| id.0),
        i64::try_from(CHUNK - 1).unwrap_or(i64::MAX),
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(last)
}

async fn go_on(
    tx: &mut FleetTx,
    tenant_id: TenantId,
    campaign_id: CampaignId,
    through: ContactId,
    pause: Option<TimeDelta>,
    now: DateTime<Utc>,
) -> Result<()> {
    sqlx::query!(
        "UPDATE campaigns SET retry_through = $3 WHERE tenant_id = $1 AND id = $2",
        tenant_id.0,
        campaign_id.0,
        through.0,
    )
    .execute(tx.conn())
    .await?;
    let task = Task::Retry { campaign_id, before: Some(through) };
    tx.enqueue(tenant_id, QUEUE, job(tenant_id, task, now), pause);
    Ok(())
}

async fn finish(tx: &mut FleetTx, tenant_id: TenantId, campaign_id: CampaignId) -> Result<()> {
    sqlx::query!(
        "UPDATE campaigns
        SET retry_asked_at = NULL, retry_codes = NULL, retry_through = NULL, retry_people = NULL
        WHERE tenant_id = $1 AND id = $2",
        tenant_id.0,
        campaign_id.0,
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Lets these sends go again, if they have still failed: queued, or waiting for a campaign that is paused. Which. What the
/// provider took and then reported as failed is a failed attempt from here on, as it is in the books.
async fn let_go(
    tx: &mut FleetTx,
    tenant_id: TenantId,
    messages: &[Uuid],
    state: CampaignState,
) -> Result<Vec<MessageId>> {
    let waits_for = (state == CampaignState::Paused).then_some(WaitReason::Campaign);
    let again = |id: &Uuid| Again {
        tenant_id,
        message_id: MessageId(*id),
        waits_for,
        wait: None,
        in_doubt: false,
        class: None,
    };
    let gone = again::let_go(tx, &messages.iter().map(again).collect::<Vec<_>>()).await?;
    Ok(gone.into_iter().map(|(_, message_id)| message_id).collect())
}
