//! What a failure says of more than its message: of the account, of the template, of the customer service window; and whether a message
//! that was reported as failed is sent anew. Refusals say so in the call's answer, reports when their provider gets to it: what has
//! changed since the attempt that they are about, they say nothing of.

use super::{
    again::{self, Again},
    counts::Moved,
    outcomes::{ACCOUNT_DOWN_AGAIN, Record, Says, What},
    probes,
    turns::{self, CAMPAIGN_LANE},
};
use crate::{
    db::{error::Result, scope::FleetTx},
    domain::{
        ids::{AttemptId, CampaignId, ChannelAccountId, ConversationId, MessageId, TenantId},
        outcome::{Aftermath, Block, Class},
        retrying::{Next, Policy},
        sends::{SendState, WaitReason},
    },
    jobs::outbound::{FailedAttempt, OutboundJob, OutboundSlice, Task},
};
use chrono::{DateTime, TimeDelta, Utc};
use sqlx::types::Json;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use uuid::Uuid;

/// A report that a message failed, and what it leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reported {
    /// The attempt that failed.
    pub failed: FailedAttempt,
    /// What follows.
    pub aftermath: Aftermath,
}

/// How long nothing is granted where something is throttled, which a report tells late and without saying for how long.
const THROTTLED: Duration = Duration::from_millis(500);
/// The same where a limit of the day is reached.
const DAY_OVER: Duration = Duration::from_secs(3600);
/// No message is sent anew sooner: the report took a while, too.
const SOONEST: Duration = Duration::from_secs(60);
/// What is older than this is not news any more, and is not sent anew.
pub(in crate::db) const TOO_OLD: TimeDelta = TimeDelta::hours(24);

impl Reported {
    /// What is to slow down, and for how long nothing goes.
    pub(super) fn slows(&self) -> Option<(Class, Duration)> {
        match self.aftermath {
            Aftermath::Slow { class: class @ (Class::Account | Class::ProviderAccount) } => Some((class, THROTTLED)),
            Aftermath::Slow { class: class @ Class::Day } => Some((class, DAY_OVER)),
            _ => None,
        }
    }
}

fn reported(records: &[Record]) -> impl Iterator<Item = (&Record, &Reported)> {
    records.iter().filter_map(|r| if let What::Reported(reported) = &r.what { Some((r, &**reported)) } else { None })
}

/// The accounts that reports say are down. They are locked with those that something is to wait for.
pub(super) fn accounts_down(records: &[Record]) -> impl Iterator<Item = (TenantId, ChannelAccountId)> {
    reported(records)
        .filter(|(_, reported)| reported.aftermath == Aftermath::AccountDown)
        .map(|(r, reported)| (r.tenant_id, reported.failed.account))
}

/// Takes accounts down, locked by now, that reports say are, unless they have come back since the attempt. Such a one is tried with a
/// message, too; but that the provider takes it proves nothing ([`probes::hear`]), and where it was back only just now, it is tried as
/// seldom as before.
pub(super) async fn take_down(tx: &mut FleetTx, records: &[Record]) -> Result<()> {
    // When its attempt was made, the code, what it means, and with which message.
    type Latest<'a> = (DateTime<Utc>, &'a str, &'a str, MessageId);
    let mut down: BTreeMap<(TenantId, ChannelAccountId), Latest<'_>> = BTreeMap::new();
    for (r, Reported { failed, aftermath }) in reported(records) {
        if *aftermath == Aftermath::AccountDown {
            let this = (failed.granted_at, failed.code.as_str(), failed.reason.as_str(), r.message_id);
            let latest = down.entry((r.tenant_id, failed.account)).or_insert(this);
            *latest = (*latest).max(this);
        }
    }
    if down.is_empty() {
        return Ok(());
    }
    let tenants: Vec<Uuid> = down.keys().map(|(tenant_id, _)| tenant_id.0).collect();
    let accounts: Vec<Uuid> = down.keys().map(|(_, id)| id.0).collect();
    let granted: Vec<DateTime<Utc>> = down.values().map(|(at, ..)| *at).collect();
    let codes: Vec<&str> = down.values().map(|(_, code, ..)| *code).collect();
    let reasons: Vec<&str> = down.values().map(|(_, _, reason, _)| *reason).collect();
    let messages: Vec<Uuid> = down.values().map(|(.., message_id)| message_id.0).collect();
    sqlx::query!(
        "UPDATE channel_accounts a
        SET state = 'down', down_code = d.code, down_reason = d.reason, down_at = clock_timestamp(), down_by_report = true,
            probes = before.probes, probe_with = d.message_id,
            probe_at = clock_timestamp() + make_interval(secs => least(3600, $7 * power(2, least(before.probes, 10))))
        FROM unnest($1::uuid[], $2::uuid[], $3::timestamptz[], $4::text[], $5::text[], $6::uuid[])
            AS d (tenant_id, id, granted_at, code, reason, message_id)
        -- Locked by now.
        JOIN LATERAL (
            SELECT CASE WHEN b.state_told_at > clock_timestamp() - $8::text::interval THEN b.probes ELSE 0 END AS probes
            FROM channel_accounts b
            WHERE b.tenant_id = d.tenant_id AND b.id = d.id
        ) AS before ON true
        WHERE a.tenant_id = d.tenant_id AND a.id = d.id AND a.state = 'active'
            AND d.granted_at > coalesce(a.state_told_at, '-infinity')",
        &tenants,
        &accounts,
        &granted,
        &codes as &[&str],
        &reasons as &[&str],
        &messages,
        probes::FIRST_AFTER_REFUSAL,
        probes::SOON,
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// A template that was refused, for whatever message.
struct Blocked<'a> {
    tenant_id: TenantId,
    message_id: MessageId,
    block: Block,
    code: &'a str,
    reason: &'a str,
    /// When the attempt was made, where that is some time ago.
    as_of: Option<DateTime<Utc>>,
}

/// Templates that were refused are what the provider says they are, on every account that shares them, and the campaigns that say them
/// are paused with the reason: until an operator resumes them, and not for what is said of an attempt before the template came back.
pub(super) async fn block_templates(tx: &mut FleetTx, records: &[Record]) -> Result<()> {
    let blocked: Vec<Blocked<'_>> = records
        .iter()
        .filter_map(|r| {
            let (tenant_id, message_id) = (r.tenant_id, r.message_id);
            match &r.what {
                What::Failed { says: Says::TemplateBlocked(block), code, reason, .. } => {
                    Some(Blocked { tenant_id, message_id, block: *block, code, reason, as_of: None })
                }
                What::Reported(reported) => match (&**reported, reported.aftermath) {
                    (Reported { failed, .. }, Aftermath::TemplateBlocked { block }) => Some(Blocked {
                        tenant_id,
                        message_id,
                        block,
                        code: &failed.code,
                        reason: &failed.reason,
                        as_of: Some(failed.granted_at),
                    }),
                    _ => None,
                },
                _ => None,
            }
        })
        .collect();
    if blocked.is_empty() {
        return Ok(());
    }
    alert(tx, &blocked).await?;
    let tenants: Vec<Uuid> = blocked.iter().map(|b| b.tenant_id.0).collect();
    let messages: Vec<Uuid> = blocked.iter().map(|b| b.message_id.0).collect();
    let statuses: Vec<Option<&str>> = blocked.iter().map(|b| b.block.status()).collect();
    let codes: Vec<&str> = blocked.iter().map(|b| b.code).collect();
    let reasons: Vec<&str> = blocked.iter().map(|b| b.reason).collect();
    let times: Vec<Option<DateTime<Utc>>> = blocked.iter().map(|b| b.as_of).collect();
    let paused = sqlx::query_file!(
        "src/db/outbound/block_templates.sql",
        &tenants,
        &messages,
        &statuses as &[Option<&str>],
        &codes as &[&str],
        &reasons as &[&str],
        &times as &[Option<DateTime<Utc>>],
    )
    .fetch_all(tx.conn())
    .await?;
    for row in paused {
        tracing::warn!(campaign = %row.id, code = row.code, "a campaign is paused because of its template");
    }
    Ok(())
}

/// That an account may send no templates at all is for an operator to look at.
async fn alert(tx: &mut FleetTx, blocked: &[Blocked<'_>]) -> Result<()> {
    let all: Vec<&Blocked<'_>> = blocked.iter().filter(|b| b.block == Block::AllTemplates).collect();
    if all.is_empty() {
        return Ok(());
    }
    let tenants: Vec<Uuid> = all.iter().map(|b| b.tenant_id.0).collect();
    let messages: Vec<Uuid> = all.iter().map(|b| b.message_id.0).collect();
    let codes: Vec<&str> = all.iter().map(|b| b.code).collect();
    let reasons: Vec<&str> = all.iter().map(|b| b.reason).collect();
    sqlx::query!(
        "WITH told AS MATERIALIZED (
            SELECT a.tenant_id, a.id, r.code, r.reason
            FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[]) AS r (tenant_id, message_id, code, reason)
            JOIN sends s ON s.tenant_id = r.tenant_id AND s.message_id = r.message_id
            JOIN channel_accounts a ON a.tenant_id = s.tenant_id AND a.id = s.channel_account_id
            ORDER BY a.tenant_id, a.id
            FOR NO KEY UPDATE OF a
        )
        UPDATE channel_accounts a
        SET alert_code = told.code, alert_reason = told.reason, alert_at = now()
        FROM told
        WHERE a.tenant_id = told.tenant_id AND a.id = told.id",
        &tenants,
        &messages,
        &codes as &[&str],
        &reasons as &[&str],
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// The provider's verdict on a window overrides ours, unless the customer has written since.
pub(super) async fn close_windows(tx: &mut FleetTx, records: &[Record]) -> Result<()> {
    let mut closed: BTreeMap<(TenantId, ConversationId), DateTime<Utc>> = BTreeMap::new();
    for (r, Reported { failed, aftermath }) in reported(records) {
        if *aftermath == Aftermath::WindowClosed {
            let latest = closed.entry((r.tenant_id, failed.conversation_id)).or_insert(failed.granted_at);
            *latest = (*latest).max(failed.granted_at);
        }
    }
    if closed.is_empty() {
        return Ok(());
    }
    let tenants: Vec<Uuid> = closed.keys().map(|(tenant_id, _)| tenant_id.0).collect();
    let ids: Vec<Uuid> = closed.keys().map(|(_, id)| id.0).collect();
    let granted: Vec<DateTime<Utc>> = closed.values().copied().collect();
    sqlx::query!(
        "WITH closed AS MATERIALIZED (
            SELECT c.tenant_id, c.id
            FROM unnest($1::uuid[], $2::uuid[], $3::timestamptz[]) AS told (tenant_id, id, granted_at)
            JOIN conversations c ON c.tenant_id = told.tenant_id AND c.id = told.id
            WHERE coalesce(c.last_inbound_at, '-infinity') < told.granted_at
            ORDER BY c.tenant_id, c.id
            FOR UPDATE OF c
        )
        UPDATE conversations c
        SET window_expires_at = least(c.window_expires_at, now())
        FROM closed
        WHERE c.tenant_id = closed.tenant_id AND c.id = closed.id",
        &tenants,
        &ids,
        &granted,
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// With so many attempts reported as not delivered, a message has failed, and does not wait for its account once more: some providers bill
/// what they do not deliver (providers/twilio section 3).
const MOST_WITH_ACCOUNT_DOWN: i64 = 5;

/// How a send is made up for.
#[derive(Clone, Copy)]
pub(super) struct Anew {
    attempt_id: AttemptId,
    in_doubt: bool,
    /// As long as it has fewer attempts that were reported as not delivered; what was planned has been counted.
    below: Option<i64>,
}

/// The sends whose failure may be made up for: their campaigns are locked before they are looked at.
pub(super) fn perhaps_anew(records: &[Record]) -> impl Iterator<Item = (TenantId, MessageId, Anew)> {
    records.iter().filter_map(|r| {
        let anew = match &r.what {
            What::Reported(reported) if reported.aftermath == Aftermath::AccountDown => {
                Anew { attempt_id: reported.failed.attempt_id, in_doubt: false, below: Some(MOST_WITH_ACCOUNT_DOWN) }
            }
            What::SendAnew { attempt_id, in_doubt } => {
                Anew { attempt_id: *attempt_id, in_doubt: *in_doubt, below: None }
            }
            _ => return None,
        };
        Some((r.tenant_id, r.message_id, anew))
    })
}

/// Says when what was reported as failed for a passing reason is sent anew, within the time in which it is of use: until then it has
/// failed, and holds up nobody.
pub(super) async fn plan(tx: &mut FleetTx, records: &[Record]) -> Result<()> {
    let asked: BTreeMap<(TenantId, MessageId), (AttemptId, Aftermath)> = reported(records)
        .filter(|(_, reported)| matches!(reported.aftermath, Aftermath::Again { .. } | Aftermath::Slow { .. }))
        .map(|(r, reported)| ((r.tenant_id, r.message_id), (reported.failed.attempt_id, reported.aftermath)))
        .collect();
    if asked.is_empty() {
        return Ok(());
    }
    let tenants: Vec<Uuid> = asked.keys().map(|(tenant_id, _)| tenant_id.0).collect();
    let messages: Vec<Uuid> = asked.keys().map(|(_, id)| id.0).collect();
    let attempts: Vec<Uuid> = asked.values().map(|(attempt_id, _)| attempt_id.0).collect();
    let rows = sqlx::query!(
        r#"SELECT s.tenant_id AS "tenant_id: TenantId", s.message_id AS "message_id: MessageId", s.channel_account_id AS "account: ChannelAccountId",
            s.lane, s.created_at, s.expires_at, t.retry AS "retry?: Json<Policy>", clock_timestamp() AS "now!", (
                SELECT count(*)
                FROM send_attempts a
                WHERE a.tenant_id = s.tenant_id AND a.message_id = s.message_id AND a.class = $4
            ) AS "before!"
        FROM unnest($1::uuid[], $2::uuid[], $3::uuid[]) AS asked (tenant_id, message_id, attempt_id)
        JOIN sends s ON s.tenant_id = asked.tenant_id AND s.message_id = asked.message_id
        LEFT JOIN tenant_settings t ON t.tenant_id = s.tenant_id
        WHERE s.state = 'failed' AND s.attempt_id = asked.attempt_id AND s.due_at IS NULL
        ORDER BY s.tenant_id, s.message_id
        FOR UPDATE OF s"#,
        &tenants,
        &messages,
        &attempts,
        Class::Undelivered.as_str(),
    )
    .fetch_all(tx.conn())
    .await?;
    let (mut tenants, mut messages, mut due) = (Vec::new(), Vec::new(), Vec::new());
    for row in rows {
        let Some((attempt_id, aftermath)) = asked.get(&(row.tenant_id, row.message_id)).copied() else { continue };
        let policy = row.retry.map(|retry| retry.0).unwrap_or_default();
        let before = u32::try_from(row.before).unwrap_or(u32::MAX);
        let Some((wait, in_doubt)) = anew(aftermath, &policy, before) else { continue };
        let at = row.now + TimeDelta::from_std(wait).unwrap_or(TOO_OLD);
        if at >= row.created_at + TOO_OLD || row.expires_at.is_some_and(|expires_at| at >= expires_at) {
            continue;
        }
        let task = Task::SendAnew { attempt_id, in_doubt };
        let (tenant_id, message_id) = (row.tenant_id, row.message_id);
        let job = OutboundJob { tenant_id, message_id, account: Some(row.account), task };
        tx.enqueue(tenant_id, turns::queue_of(row.lane), job.to_job(row.now), TimeDelta::from_std(wait).ok());
        tenants.push(tenant_id.0);
        messages.push(message_id.0);
        due.push(at);
    }
    if due.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "UPDATE sends s
        SET due_at = planned.at
        FROM unnest($1::uuid[], $2::uuid[], $3::timestamptz[]) AS planned (tenant_id, message_id, at)
        WHERE s.tenant_id = planned.tenant_id AND s.message_id = planned.message_id",
        &tenants,
        &messages,
        &due,
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// After how long a message is sent anew that was reported as failed so often before, and whether it is in doubt; `None`: not any more.
fn anew(aftermath: Aftermath, policy: &Policy, before: u32) -> Option<(Duration, bool)> {
    let (next, in_doubt) = match aftermath {
        Aftermath::Again { times, after_seconds, in_doubt } => {
            (policy.next_of_undelivered(before, times, Duration::from_secs(after_seconds.into())), in_doubt)
        }
        Aftermath::Slow { class } => (policy.next(class, before, Duration::ZERO, None), false),
        _ => return None,
    };
    match next {
        Next::After(wait) => Some((wait.max(SOONEST), in_doubt)),
        Next::GiveUp => None,
    }
}

/// Sends anew what has still failed with the attempt in question: at once, or when its account or campaign goes on. A campaign that was
/// completed meanwhile runs again. Returns those of campaigns that moved.
pub(super) async fn send_anew(tx: &mut FleetTx, records: &[Record]) -> Result<Vec<Moved>> {
    let asked: BTreeMap<(TenantId, MessageId), Anew> =
        perhaps_anew(records).map(|(tenant_id, message_id, anew)| ((tenant_id, message_id), anew)).collect();
    if asked.is_empty() {
        return Ok(Vec::new());
    }
    let tenants: Vec<Uuid> = asked.keys().map(|(tenant_id, _)| tenant_id.0).collect();
    let messages: Vec<Uuid> = asked.keys().map(|(_, id)| id.0).collect();
    let attempts: Vec<Uuid> = asked.values().map(|anew| anew.attempt_id.0).collect();
    let below: Vec<Option<i64>> = asked.values().map(|anew| anew.below).collect();
    let rows = sqlx::query!(
        r#"SELECT s.tenant_id AS "tenant_id: TenantId", s.message_id AS "message_id: MessageId", s.channel_account_id AS "account: ChannelAccountId",
            s.lane, s.campaign_id AS "campaign_id: CampaignId", c.state AS "campaign_state?", a.state <> 'active' AS "is_down!", now() AS "now!"
        FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $5::bigint[]) AS asked (tenant_id, message_id, attempt_id, below)
        JOIN sends s ON s.tenant_id = asked.tenant_id AND s.message_id = asked.message_id
        JOIN channel_accounts a ON a.tenant_id = s.tenant_id AND a.id = s.channel_account_id
        LEFT JOIN campaigns c ON c.tenant_id = s.tenant_id AND c.id = s.campaign_id
        WHERE s.state = 'failed' AND s.attempt_id = asked.attempt_id
            AND (s.expires_at IS NULL OR s.expires_at > clock_timestamp()) AND s.created_at > clock_timestamp() - $4::interval
            AND (s.campaign_id IS NULL OR c.state IN ('running', 'paused', 'completed'))
            -- The one that has failed now is one of them, and not yet written down as such.
            AND (asked.below IS NULL OR asked.below > 1 + (
                SELECT count(*)
                FROM send_attempts b
                WHERE b.tenant_id = s.tenant_id AND b.message_id = s.message_id AND b.class = $6
            ))
        ORDER BY s.tenant_id, s.message_id
        FOR UPDATE OF s"#,
        &tenants,
        &messages,
        &attempts,
        // What was planned may come a little late.
        sqlx::postgres::types::PgInterval::try_from(TOO_OLD + TimeDelta::hours(1)).expect("whole hours"),
        &below as &[Option<i64>],
        Class::Undelivered.as_str(),
    )
    .fetch_all(tx.conn())
    .await?;
    let mut sends = Vec::with_capacity(rows.len());
    for row in &rows {
        let in_doubt = asked[&(row.tenant_id, row.message_id)].in_doubt;
        let (waits_for, wait) = match (row.is_down, row.campaign_state.as_deref()) {
            (true, _) => (Some(WaitReason::AccountDown), Some(ACCOUNT_DOWN_AGAIN)),
            (false, Some("paused")) => (Some(WaitReason::Campaign), None),
            (false, _) => (None, None),
        };
        let (tenant_id, message_id) = (row.tenant_id, row.message_id);
        sends.push(Again { tenant_id, message_id, waits_for, wait, in_doubt, class: Some(Class::Undelivered) });
    }
    again::let_go(tx, &sends).await?;
    let (mut moved, mut reopened) = (Vec::new(), BTreeSet::new());
    for (row, send) in rows.iter().zip(&sends) {
        let (tenant_id, message_id, account) = (row.tenant_id, row.message_id, row.account);
        if let Some(campaign_id) = row.campaign_id {
            let after = if send.waits_for.is_none() { SendState::Queued } else { SendState::Waiting };
            moved.push(Moved { tenant_id, campaign_id, before: SendState::Failed, after });
            if row.campaign_state.as_deref() == Some("completed") {
                reopened.insert((tenant_id, campaign_id));
            }
        }
        if send.waits_for == Some(WaitReason::Campaign) {
            continue;
        }
        let after = send.wait.and_then(|wait| TimeDelta::from_std(wait).ok());
        let (queue, job) = if row.lane == CAMPAIGN_LANE {
            let slice = OutboundSlice { tenant_id, account, message_ids: vec![message_id] };
            (turns::BULK_QUEUE, slice.to_job(row.now))
        } else {
            let job = OutboundJob { tenant_id, message_id, account: Some(account), task: Task::Send };
            (turns::QUEUE, job.to_job(row.now))
        };
        tx.enqueue(tenant_id, queue, job, after);
    }
    reopen(tx, &reopened).await?;
    Ok(moved)
}

/// Campaigns, locked by now, that were completed have somebody to send to again.
async fn reopen(tx: &mut FleetTx, campaigns: &BTreeSet<(TenantId, CampaignId)>) -> Result<()> {
    if campaigns.is_empty() {
        return Ok(());
    }
    let tenants: Vec<Uuid> = campaigns.iter().map(|(tenant_id, _)| tenant_id.0).collect();
    let ids: Vec<Uuid> = campaigns.iter().map(|(_, id)| id.0).collect();
    sqlx::query!(
        "UPDATE campaigns c
        SET state = 'running', ended_at = NULL
        FROM unnest($1::uuid[], $2::uuid[]) AS again (tenant_id, id)
        WHERE c.tenant_id = again.tenant_id AND c.id = again.id AND c.state = 'completed'",
        &tenants,
        &ids,
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_answered_as_often_as_its_code_says_and_never_at_once() {
        let policy = Policy::default();
        let hours = Aftermath::Again { times: 2, after_seconds: 7200, in_doubt: true };
        assert_eq!(anew(hours, &policy, 1), Some((Duration::from_secs(7200), true)));
        assert_eq!(anew(hours, &policy, 2), None);
        let slow = |class, before| anew(Aftermath::Slow { class }, &policy, before);
        assert_eq!(slow(Class::Account, 0), Some((SOONEST, false)), "not after two seconds");
        assert_eq!(slow(Class::Account, 8), Some((Duration::from_secs(600), false)));
        assert_eq!(slow(Class::Day, 3), Some((Duration::from_secs(3600), false)));
        for nothing in [Aftermath::WindowClosed, Aftermath::AccountDown] {
            assert_eq!(anew(nothing, &policy, 0), None);
        }
    }
}
