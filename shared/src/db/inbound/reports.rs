//! What providers report about sends: found by our token or by the provider's id, parked where neither is known yet.

use crate::{
    db::{
        error::Result,
        files::{self, InDoubt},
        outbound::{
            aftermath::TOO_OLD,
            counts::Moved,
            turns::{self, CAMPAIGN_LANE},
        },
        scope::FleetTx,
    },
    domain::{
        events::SendToken,
        ids::{AttemptId, CampaignId, ChannelAccountId, ConversationId, MessageId, TenantId},
        outcome::Aftermath,
        sends::SendState,
        uploads::{FILE_NOT_PROCESSED, LIVES, NEW_FOR},
    },
    jobs::outbound::{AftermathJob, FailedAttempt},
};
use chrono::{DateTime, Utc};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// So many reports of one id are kept while no send has it.
const KEPT: i64 = 20;

/// One report.
#[derive(Clone, Debug)]
pub struct Report {
    /// Whose.
    pub tenant_id: TenantId,
    /// On which account.
    pub channel_account_id: ChannelAccountId,
    /// The provider's id of our message.
    pub provider_message_id: String,
    /// Sent, delivered, read or failed.
    pub state: SendState,
    /// The provider's word.
    pub status: String,
    /// The provider's time.
    pub at: DateTime<Utc>,
    /// The provider's error code.
    pub code: Option<String>,
    /// What it means.
    pub reason: Option<String>,
    /// What the code leads to, beside that it failed; `None` also where it is no news.
    pub aftermath: Option<Aftermath>,
    /// Our token, if it came back.
    pub token: Option<SendToken>,
}

/// What all reports of one message by one id of the provider's amount to. The order in which they came does not matter.
#[derive(Clone, Debug, Default)]
struct Sum {
    state: Option<SendState>,
    code: Option<String>,
    reason: Option<String>,
    aftermath: Option<Aftermath>,
    sent_at: Option<DateTime<Utc>>,
    delivered_at: Option<DateTime<Utc>>,
    read_at: Option<DateTime<Utc>>,
    failed_at: Option<DateTime<Utc>>,
    provider_message_id: String,
    attempt_id: Option<AttemptId>,
}

impl Sum {
    fn add(&mut self, report: &Report) {
        let earliest = |slot: &mut Option<DateTime<Utc>>| *slot = Some(slot.map_or(report.at, |at| at.min(report.at)));
        match report.state {
            SendState::Failed => earliest(&mut self.failed_at),
            SendState::Delivered => earliest(&mut self.delivered_at),
            SendState::Read => earliest(&mut self.read_at),
            _ => earliest(&mut self.sent_at),
        }
        if report.state == SendState::Failed {
            (self.code, self.reason) = (report.code.clone(), report.reason.clone());
            self.aftermath = report.aftermath;
        }
        self.state = Some(match self.state {
            None => report.state,
            Some(before) => before.after_report(report.state),
        });
        self.provider_message_id.clone_from(&report.provider_message_id);
        let attempt_id = report.token.map(|token| token.attempt_id).filter(|id| !id.0.is_nil());
        self.attempt_id = attempt_id.or(self.attempt_id);
    }
}

/// Writes reports down: states, times and trail; parks those of unknown messages; lets the next of a conversation go where
/// a report settled the one before it; what else a failure leads to is a sender's job, who locks in another order. Returns the sends of campaigns that moved, to be counted when all else is done.
///
/// # Errors
/// If the database does not answer.
#[must_use = "what moved is to be counted"]
pub async fn apply(tx: &mut FleetTx, reports: &[Report]) -> Result<Vec<Moved>> {
    if reports.is_empty() {
        return Ok(Vec::new());
    }
    let without: Vec<&Report> = reports.iter().filter(|r| r.token.is_none()).collect();
    let found = park(tx, &without).await?;
    let mut trail: Vec<(&Report, MessageId)> = Vec::new();
    for report in reports {
        let key = (report.tenant_id, report.channel_account_id, report.provider_message_id.as_str());
        if let Some(message_id) = report.token.map(|t| t.message_id).or_else(|| found.get(&key).copied()) {
            trail.push((report, message_id));
        }
    }
    let (mut settled, mut moved, mut in_doubt) = (Vec::new(), Vec::new(), Vec::new());
    for round in rounds(&trail) {
        let (of_round, by_round, doubted) = settle(tx, &round).await?;
        settled.extend(of_round);
        moved.extend(by_round);
        in_doubt.extend(doubted);
    }
    record(tx, &trail).await?;
    turns::wake_next(tx, &settled).await?;
    // After all sends and conversations: of a campaign many batches come for the same file.
    files::lose_in_doubt(tx, &in_doubt).await?;
    Ok(moved)
}

type RefKey<'a> = (TenantId, ChannelAccountId, &'a str);

/// Finds the messages of provider ids; where none is known yet, reports wait, and the furthest is noted at the id.
async fn park<'a>(tx: &mut FleetTx, reports: &[&'a Report]) -> Result<BTreeMap<RefKey<'a>, MessageId>> {
    let mut furthest: BTreeMap<RefKey<'a>, &'a Report> = BTreeMap::new();
    for &report in reports {
        let key = (report.tenant_id, report.channel_account_id, report.provider_message_id.as_str());
        let slot = furthest.entry(key).or_insert(report);
        if slot.state.after_report(report.state) != slot.state {
            *slot = report;
        }
    }
    if furthest.is_empty() {
        return Ok(BTreeMap::new());
    }
    // Nearly all are known, and what is known stays: those are only looked up, since even an upsert that changes nothing writes a lock.
    let mut found = known(tx, &furthest).await?;
    furthest.retain(|key, _| !found.contains_key(key));
    if furthest.is_empty() {
        return Ok(found);
    }
    let Keys { tenants, accounts, provider_ids } = Keys::of(&furthest);
    let states: Vec<String> = furthest.values().map(|r| r.state.as_str().to_owned()).collect();
    let times: Vec<DateTime<Utc>> = furthest.values().map(|r| r.at).collect();
    let codes: Vec<Option<String>> = furthest.values().map(|r| r.code.clone()).collect();
    let reasons: Vec<Option<String>> = furthest.values().map(|r| r.reason.clone()).collect();
    sqlx::query!(
        "INSERT INTO provider_refs AS ref
            (tenant_id, channel_account_id, provider_message_id, parked_state, parked_at, parked_code, parked_reason)
        SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::timestamptz[], $6::text[], $7::text[])
        ORDER BY 1, 2, 3
        ON CONFLICT (tenant_id, channel_account_id, provider_message_id) DO UPDATE
        SET parked_state = excluded.parked_state, parked_at = excluded.parked_at,
            parked_code = excluded.parked_code, parked_reason = excluded.parked_reason
        -- As SendState::after_report: read > delivered > failed > sent.
        WHERE ref.message_id IS NULL
            AND array_position(ARRAY['sent', 'failed', 'delivered', 'read'], excluded.parked_state)
                > coalesce(array_position(ARRAY['sent', 'failed', 'delivered', 'read'], ref.parked_state), 0)",
        &tenants,
        &accounts,
        &provider_ids,
        &states,
        &times,
        &codes as &[Option<String>],
        &reasons as &[Option<String>],
    )
    .execute(tx.conn())
    .await?;
    // Asked again, in a snapshot of its own: the send may have been written down meanwhile, and then took no notice of us.
    found.extend(known(tx, &furthest).await?);
    let waiting: Vec<&Report> = reports
        .iter()
        .copied()
        .filter(|r| !found.contains_key(&(r.tenant_id, r.channel_account_id, r.provider_message_id.as_str())))
        .collect();
    keep(tx, &waiting).await?;
    Ok(found)
}

/// Keeps reports for whoever ties their ids to a send, who waits for the rows of the ids until we have committed. Of one id no more
/// than a provider tells of a message.
async fn keep(tx: &mut FleetTx, reports: &[&Report]) -> Result<()> {
    if reports.is_empty() {
        return Ok(());
    }
    let tenants: Vec<Uuid> = reports.iter().map(|r| r.tenant_id.0).collect();
    let accounts: Vec<Uuid> = reports.iter().map(|r| r.channel_account_id.0).collect();
    let provider_ids: Vec<String> = reports.iter().map(|r| r.provider_message_id.clone()).collect();
    let states: Vec<String> = reports.iter().map(|r| r.state.as_str().to_owned()).collect();
    let events: Vec<String> = reports.iter().map(|r| r.status.clone()).collect();
    let times: Vec<DateTime<Utc>> = reports.iter().map(|r| r.at).collect();
    let codes: Vec<Option<String>> = reports.iter().map(|r| r.code.clone()).collect();
    let reasons: Vec<Option<String>> = reports.iter().map(|r| r.reason.clone()).collect();
    let aftermaths: Vec<Option<Value>> = reports
        .iter()
        .map(|r| r.aftermath.map(|after| serde_json::to_value(after).expect("plain fields are always JSON")))
        .collect();
    sqlx::query!(
        "INSERT INTO parked_reports
            (tenant_id, channel_account_id, provider_message_id, state, event, at, code, reason, aftermath)
        SELECT r.*
        FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::timestamptz[], $7::text[], $8::text[], $10::jsonb[])
            AS r (tenant_id, account_id, provider_message_id, state, event, at, code, reason, aftermath)
        WHERE (
            SELECT count(*)
            FROM parked_reports p
            WHERE p.tenant_id = r.tenant_id AND p.channel_account_id = r.account_id
                AND p.provider_message_id = r.provider_message_id
        ) < $9
        ORDER BY 1, 2, 3, 5, 6
        ON CONFLICT (tenant_id, channel_account_id, provider_message_id, event, at) DO NOTHING",
        &tenants,
        &accounts,
        &provider_ids,
        &states,
        &events,
        &times,
        &codes as &[Option<String>],
        &reasons as &[Option<String>],
        KEPT,
        &aftermaths as &[Option<Value>],
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// The messages of those of the provider's ids that are known.
async fn known<'a>(
    tx: &mut FleetTx,
    reports: &BTreeMap<RefKey<'a>, &'a Report>,
) -> Result<BTreeMap<RefKey<'a>, MessageId>> {
    let Keys { tenants, accounts, provider_ids } = Keys::of(reports);
    let rows = sqlx::query!(
        // Looked up by key, one by one, whatever the planner thinks of the table's size (LIMIT keeps the order of joining).
        r#"SELECT asked.place AS "place!", ref.message_id AS "message_id!"
        FROM unnest($1::uuid[], $2::uuid[], $3::text[]) WITH ORDINALITY AS asked (tenant_id, account_id, provider_message_id, place)
        CROSS JOIN LATERAL (
            SELECT message_id
            FROM provider_refs
            WHERE tenant_id = asked.tenant_id AND channel_account_id = asked.account_id
                AND provider_message_id = asked.provider_message_id AND message_id IS NOT NULL
            LIMIT 1
        ) AS ref"#,
        &tenants,
        &accounts,
        &provider_ids,
    )
    .fetch_all(tx.conn())
    .await?;
    let keys: Vec<RefKey<'a>> = reports.keys().copied().collect();
    let message =
        |row: &(i64, Uuid)| Some((*keys.get(usize::try_from(row.0).ok()?.checked_sub(1)?)?, MessageId(row.1)));
    Ok(rows.iter().filter_map(|row| message(&(row.place, row.message_id))).collect())
}

/// The provider's ids as columns for `unnest`.
struct Keys {
    tenants: Vec<Uuid>,
    accounts: Vec<Uuid>,
    provider_ids: Vec<String>,
}

impl Keys {
    fn of(reports: &BTreeMap<RefKey<'_>, &Report>) -> Self {
        Self {
            tenants: reports.keys().map(|(tenant_id, ..)| tenant_id.0).collect(),
            accounts: reports.keys().map(|(_, account_id, _)| account_id.0).collect(),
            provider_ids: reports.keys().map(|(.., id)| (*id).to_owned()).collect(),
        }
    }
}

/// What is reported, summed up for each of the provider's ids. Of one message with several, by several attempts, each is for a
/// round of its own: what one says of the send depends on what it has been moved to.
fn rounds(reports: &[(&Report, MessageId)]) -> Vec<BTreeMap<(TenantId, MessageId), Sum>> {
    let mut rounds: Vec<BTreeMap<(TenantId, MessageId), Sum>> = Vec::new();
    for (report, message_id) in reports {
        let send = (report.tenant_id, *message_id);
        let is_for = |round: &BTreeMap<_, Sum>| {
            round.get(&send).is_none_or(|sum| sum.provider_message_id == report.provider_message_id)
        };
        let place = rounds.iter().position(is_for).unwrap_or_else(|| {
            rounds.push(BTreeMap::new());
            rounds.len() - 1
        });
        rounds[place].entry(send).or_default().add(report);
    }
    rounds
}

/// Moves sends on as reported. Returns those that no longer hold up their conversation and did before, those of campaigns,
/// and those that failed for what may be their files' ids.
async fn settle(
    tx: &mut FleetTx,
    sums: &BTreeMap<(TenantId, MessageId), Sum>,
) -> Result<(Vec<turns::Settled>, Vec<Moved>, Vec<InDoubt>)> {
    let tenants: Vec<Uuid> = sums.keys().map(|(tenant_id, _)| tenant_id.0).collect();
    let messages: Vec<Uuid> = sums.keys().map(|(_, id)| id.0).collect();
    let states: Vec<String> = sums.values().map(|s| s.state.expect("a sum has a report").as_str().to_owned()).collect();
    let codes: Vec<Option<String>> = sums.values().map(|s| s.code.clone()).collect();
    let reasons: Vec<Option<String>> = sums.values().map(|s| s.reason.clone()).collect();
    let sent: Vec<Option<DateTime<Utc>>> = sums.values().map(|s| s.sent_at).collect();
    let delivered: Vec<Option<DateTime<Utc>>> = sums.values().map(|s| s.delivered_at).collect();
    let read: Vec<Option<DateTime<Utc>>> = sums.values().map(|s| s.read_at).collect();
    let failed: Vec<Option<DateTime<Utc>>> = sums.values().map(|s| s.failed_at).collect();
    let provider_ids: Vec<String> = sums.values().map(|s| s.provider_message_id.clone()).collect();
    let attempts: Vec<Option<Uuid>> = sums.values().map(|s| s.attempt_id.map(|id| id.0)).collect();
    let rows = sqlx::query_file!(
        "src/db/inbound/settle_reported.sql",
        &tenants,
        &messages,
        &states,
        &codes as &[Option<String>],
        &reasons as &[Option<String>],
        &sent as &[Option<DateTime<Utc>>],
        &delivered as &[Option<DateTime<Utc>>],
        &read as &[Option<DateTime<Utc>>],
        &failed as &[Option<DateTime<Utc>>],
        &provider_ids,
        &attempts as &[Option<Uuid>],
    )
    .fetch_all(tx.conn())
    .await?;
    let (mut follows, mut in_doubt) = (Vec::new(), Vec::new());
    for row in &rows {
        let send = (TenantId(row.tenant_id), MessageId(row.message_id));
        let Some(sum) = sums.get(&send).filter(|_| row.state == "failed" && row.before != "failed") else { continue };
        let (Some(attempt_id), Some(granted_at)) = (row.attempt_id, row.granted_at) else { continue };
        // No other provider that keeps files has this code.
        if sum.code.as_deref() == Some(FILE_NOT_PROCESSED) {
            let (account, until) = (ChannelAccountId(row.channel_account_id), granted_at + LIVES - NEW_FOR);
            in_doubt.push(InDoubt { tenant_id: send.0, message_id: send.1, account, until });
        }
        // Of an attempt so long ago it is no news, however late it was said.
        let Some(aftermath) = sum.aftermath.filter(|_| granted_at > row.now - TOO_OLD) else { continue };
        let failed = FailedAttempt {
            attempt_id: AttemptId(attempt_id),
            account: ChannelAccountId(row.channel_account_id),
            conversation_id: ConversationId(row.conversation_id),
            granted_at,
            code: sum.code.clone().unwrap_or_default(),
            reason: sum.reason.clone().unwrap_or_default(),
        };
        follows.push((AftermathJob { tenant_id: send.0, message_id: send.1, failed, aftermath }, row.lane, row.now));
    }
    let said_by_another = said_by_another(tx, &follows).await?;
    for (job, lane, now) in &follows {
        if !said_by_another.contains(&(job.tenant_id, job.message_id)) {
            tx.enqueue(job.tenant_id, turns::queue_of(*lane), job.to_job(*now), None);
        }
    }
    let settled = rows.iter().filter(|row| row.held_up && row.lane != CAMPAIGN_LANE).map(|row| turns::Settled {
        tenant_id: TenantId(row.tenant_id),
        conversation_id: ConversationId(row.conversation_id),
        seq: row.seq,
    });
    let state = |name: &str| SendState::from_name(name).unwrap_or(SendState::Failed);
    let moved = rows.iter().filter_map(|row| {
        let (before, after) = (state(&row.before), state(&row.state));
        let campaign_id = CampaignId(row.campaign_id?);
        Some(Moved { tenant_id: TenantId(row.tenant_id), campaign_id, before, after })
    });
    Ok((settled.collect(), moved.collect(), in_doubt))
}

/// Of messages whose template is blocked, all but the latest attempt of each account and template: theirs says it for all, and of the
/// messages themselves nothing follows.
async fn said_by_another(
    tx: &mut FleetTx,
    follows: &[(AftermathJob, i16, DateTime<Utc>)],
) -> Result<BTreeSet<(TenantId, MessageId)>> {
    let mut blocked: Vec<&AftermathJob> = follows
        .iter()
        .map(|(job, ..)| job)
        .filter(|job| matches!(job.aftermath, Aftermath::TemplateBlocked { .. }))
        .collect();
    if blocked.len() < 2 {
        return Ok(BTreeSet::new());
    }
    let tenants: Vec<Uuid> = blocked.iter().map(|job| job.tenant_id.0).collect();
    let messages: Vec<Uuid> = blocked.iter().map(|job| job.message_id.0).collect();
    let rows = sqlx::query!(
        r#"SELECT m.tenant_id AS "tenant_id: TenantId", m.id AS "message_id: MessageId", m.content ->> 'name' AS name,
            m.content ->> 'language' AS language
        FROM unnest($1::uuid[], $2::uuid[]) AS blocked (tenant_id, message_id)
        JOIN messages m ON m.tenant_id = blocked.tenant_id AND m.id = blocked.message_id"#,
        &tenants,
        &messages,
    )
    .fetch_all(tx.conn())
    .await?;
    let templates: BTreeMap<_, _> =
        rows.into_iter().map(|row| ((row.tenant_id, row.message_id), (row.name, row.language))).collect();
    blocked.sort_by_key(|job| std::cmp::Reverse(job.failed.granted_at));
    let mut said = Vec::new();
    let mut by_another = BTreeSet::new();
    for job in blocked {
        let send = (job.tenant_id, job.message_id);
        let says = (job.failed.account, job.aftermath, templates.get(&send));
        if said.contains(&says) {
            by_another.insert(send);
        } else {
            said.push(says);
        }
    }
    Ok(by_another)
}

async fn record(tx: &mut FleetTx, trail: &[(&Report, MessageId)]) -> Result<()> {
    if trail.is_empty() {
        return Ok(());
    }
    let tenants: Vec<Uuid> = trail.iter().map(|(r, _)| r.tenant_id.0).collect();
    let messages: Vec<Uuid> = trail.iter().map(|(_, id)| id.0).collect();
    let events: Vec<String> = trail.iter().map(|(r, _)| r.status.clone()).collect();
    let times: Vec<DateTime<Utc>> = trail.iter().map(|(r, _)| r.at).collect();
    let codes: Vec<Option<String>> = trail.iter().map(|(r, _)| r.code.clone()).collect();
    let reasons: Vec<Option<String>> = trail.iter().map(|(r, _)| r.reason.clone()).collect();
    sqlx::query!(
        "INSERT INTO trail (tenant_id, message_id, event, at, code, reason)
        SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::timestamptz[], $5::text[], $6::text[])
        ON CONFLICT (tenant_id, message_id, event, at) DO NOTHING",
        &tenants,
        &messages,
        &events,
        &times,
        &codes as &[Option<String>],
        &reasons as &[Option<String>],
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}
