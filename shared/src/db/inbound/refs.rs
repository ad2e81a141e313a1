//! The providers' ids of messages: at once the dedupe key, and where a send meets what is heard of it. Whoever comes first writes the
//! row, and the other finds it.

use super::{messages::Erased, reports::Report};
use crate::{
    db::{error::Result, scope::FleetTx},
    domain::{
        events::SendToken,
        ids::{AttemptId, ChannelAccountId, MessageId, TenantId},
        sends::SendState,
    },
};
use chrono::{DateTime, Utc};
use std::collections::{BTreeMap, HashMap, HashSet};
use uuid::Uuid;

/// A provider's id of a message and ours for it.
#[derive(Clone, Debug)]
pub struct Ref<'a> {
    /// Whose.
    pub tenant_id: TenantId,
    /// On which account: ids are unique within one.
    pub channel_account_id: ChannelAccountId,
    /// The provider's id.
    pub provider_message_id: &'a str,
    /// Ours, if it is new.
    pub message_id: MessageId,
}

/// What became of claiming ids.
#[derive(Clone, Debug, Default)]
pub struct Claimed {
    /// Our ids of those that were new.
    pub new: HashSet<MessageId>,
    /// Those among them that were taken back before they came: nothing of them is to be kept.
    pub revoked: HashSet<MessageId>,
}

impl Claimed {
    fn of(rows: impl Iterator<Item = (Uuid, bool)>) -> Self {
        let mut claimed = Self::default();
        for (id, revoked) in rows {
            claimed.new.insert(MessageId(id));
            if revoked {
                claimed.revoked.insert(MessageId(id));
            }
        }
        claimed
    }
}

/// References as columns for `unnest`.
struct Columns {
    tenants: Vec<Uuid>,
    accounts: Vec<Uuid>,
    provider_ids: Vec<String>,
    messages: Vec<Uuid>,
}

impl Columns {
    fn of(refs: &[Ref<'_>]) -> Self {
        Self {
            tenants: refs.iter().map(|r| r.tenant_id.0).collect(),
            accounts: refs.iter().map(|r| r.channel_account_id.0).collect(),
            provider_ids: refs.iter().map(|r| r.provider_message_id.to_owned()).collect(),
            messages: refs.iter().map(|r| r.message_id.0).collect(),
        }
    }
}

/// Claims the ids of people's messages. Those that are not new have been received before. An id under which only a report waits is
/// new: a report must not swallow a message. No two of the batch may name the same message.
///
/// # Errors
/// If the database does not answer.
pub async fn claim(tx: &mut FleetTx, refs: &[Ref<'_>]) -> Result<Claimed> {
    if refs.is_empty() {
        return Ok(Claimed::default());
    }
    let c = Columns::of(refs);
    let rows = sqlx::query!(
        r#"INSERT INTO provider_refs AS ref (tenant_id, channel_account_id, provider_message_id, message_id)
        SELECT tenant_id, channel_account_id, provider_message_id, message_id
        FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::uuid[])
            AS r (tenant_id, channel_account_id, provider_message_id, message_id)
        ORDER BY tenant_id, channel_account_id, provider_message_id
        ON CONFLICT (tenant_id, channel_account_id, provider_message_id) DO UPDATE
        SET message_id = excluded.message_id
        WHERE ref.message_id IS NULL
        RETURNING message_id AS "message_id!", revoked_at IS NOT NULL AS "revoked!""#,
        &c.tenants,
        &c.accounts,
        &c.provider_ids,
        &c.messages,
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(Claimed::of(rows.into_iter().map(|row| (row.message_id, row.revoked))))
}

/// Claims the ids of echoes that name no attempt of ours, in a column of their own: should a send of ours turn out to have this
/// id, it takes it ([`link`]).
///
/// # Errors
/// If the database does not answer.
pub async fn claim_echoes(tx: &mut FleetTx, refs: &[Ref<'_>]) -> Result<Claimed> {
    if refs.is_empty() {
        return Ok(Claimed::default());
    }
    let c = Columns::of(refs);
    let rows = sqlx::query!(
        r#"INSERT INTO provider_refs AS ref (tenant_id, channel_account_id, provider_message_id, echo_message_id)
        SELECT tenant_id, channel_account_id, provider_message_id, message_id
        FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::uuid[])
            AS r (tenant_id, channel_account_id, provider_message_id, message_id)
        ORDER BY tenant_id, channel_account_id, provider_message_id
        ON CONFLICT (tenant_id, channel_account_id, provider_message_id) DO UPDATE
        SET echo_message_id = excluded.echo_message_id
        WHERE ref.message_id IS NULL AND ref.echo_message_id IS NULL
        RETURNING echo_message_id AS "message_id!", revoked_at IS NOT NULL AS "revoked!""#,
        &c.tenants,
        &c.accounts,
        &c.provider_ids,
        &c.messages,
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(Claimed::of(rows.into_iter().map(|row| (row.message_id, row.revoked))))
}

/// Of ids that are not new: under which of our ids the messages were stored that are not there any more, by the ids given, and
/// whether they were taken back.
///
/// # Errors
/// If the database does not answer.
pub async fn lost(tx: &mut FleetTx, refs: &[Ref<'_>]) -> Result<HashMap<MessageId, (MessageId, bool)>> {
    if refs.is_empty() {
        return Ok(HashMap::new());
    }
    let c = Columns::of(refs);
    let rows = sqlx::query!(
        // Looked up by key, one by one, whatever the planner thinks of the tables' sizes (LIMIT keeps the order of joining), here and below.
        r#"SELECT asked.message_id AS "asked!", was.id AS "was!", was.revoked_at IS NOT NULL AS "revoked!"
        FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::uuid[]) AS asked (tenant_id, account_id, provider_message_id, message_id)
        CROSS JOIN LATERAL (
            SELECT coalesce(message_id, echo_message_id) AS id, revoked_at
            FROM provider_refs
            WHERE tenant_id = asked.tenant_id AND channel_account_id = asked.account_id
                AND provider_message_id = asked.provider_message_id
            LIMIT 1
        ) AS was
        LEFT JOIN LATERAL (
            SELECT true AS is_there FROM messages WHERE tenant_id = asked.tenant_id AND id = was.id LIMIT 1
        ) AS m ON true
        WHERE was.id IS NOT NULL AND m.is_there IS NULL"#,
        &c.tenants,
        &c.accounts,
        &c.provider_ids,
        &c.messages,
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(rows.into_iter().map(|row| (MessageId(row.asked), (MessageId(row.was), row.revoked))).collect())
}

/// A message that was taken back.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Revoked {
    /// Whose.
    pub tenant_id: TenantId,
    /// On which account.
    pub channel_account_id: ChannelAccountId,
    /// The provider's id of it.
    pub provider_message_id: String,
    /// When, by the provider's time.
    pub at: DateTime<Utc>,
}

/// A provider's id of a message on an account.
pub type Named = (TenantId, ChannelAccountId, String);

/// Which of these ids are marked as taken back. Who marks one meanwhile waits, and then finds what was stored about it: therefore each has
/// a row from now on.
///
/// # Errors
/// If the database does not answer.
pub async fn revoked(tx: &mut FleetTx, named: &[Named]) -> Result<HashSet<Named>> {
    if named.is_empty() {
        return Ok(HashSet::new());
    }
    let tenants: Vec<Uuid> = named.iter().map(|(tenant_id, ..)| tenant_id.0).collect();
    let accounts: Vec<Uuid> = named.iter().map(|(_, account, _)| account.0).collect();
    let ids: Vec<String> = named.iter().map(|(.., id)| id.clone()).collect();
    let rows = sqlx::query!(
        r#"INSERT INTO provider_refs AS ref (tenant_id, channel_account_id, provider_message_id)
        SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::text[])
        ORDER BY 1, 2, 3
        ON CONFLICT (tenant_id, channel_account_id, provider_message_id) DO UPDATE
        SET revoked_at = ref.revoked_at
        RETURNING tenant_id, channel_account_id, provider_message_id, revoked_at IS NOT NULL AS "revoked!""#,
        &tenants,
        &accounts,
        &ids,
    )
    .fetch_all(tx.conn())
    .await?;
    let name = |tenant, account, id| (TenantId(tenant), ChannelAccountId(account), id);
    let revoked = rows.into_iter().filter(|row| row.revoked);
    Ok(revoked.map(|row| name(row.tenant_id, row.channel_account_id, row.provider_message_id)).collect())
}

/// Marks ids, none twice, as taken back. Returns those that were not yet, with the messages that are there already; one that comes later
/// finds the mark.
///
/// # Errors
/// If the database does not answer.
pub async fn revoke(tx: &mut FleetTx, revoked: &[Revoked]) -> Result<Vec<(Revoked, Option<MessageId>)>> {
    if revoked.is_empty() {
        return Ok(Vec::new());
    }
    let tenants: Vec<Uuid> = revoked.iter().map(|r| r.tenant_id.0).collect();
    let accounts: Vec<Uuid> = revoked.iter().map(|r| r.channel_account_id.0).collect();
    let provider_ids: Vec<String> = revoked.iter().map(|r| r.provider_message_id.clone()).collect();
    let times: Vec<DateTime<Utc>> = revoked.iter().map(|r| r.at).collect();
    let rows = sqlx::query!(
        "INSERT INTO provider_refs AS ref (tenant_id, channel_account_id, provider_message_id, revoked_at)
        SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::timestamptz[])
        ORDER BY 1, 2, 3
        ON CONFLICT (tenant_id, channel_account_id, provider_message_id) DO UPDATE
        SET revoked_at = excluded.revoked_at
        WHERE ref.revoked_at IS NULL
        RETURNING tenant_id, channel_account_id, provider_message_id, revoked_at, coalesce(message_id, echo_message_id) AS message_id",
        &tenants,
        &accounts,
        &provider_ids,
        &times,
    )
    .fetch_all(tx.conn())
    .await?;
    let revoked = |tenant, account, provider_message_id, at| Revoked {
        tenant_id: TenantId(tenant),
        channel_account_id: ChannelAccountId(account),
        provider_message_id,
        at,
    };
    Ok(rows
        .into_iter()
        .filter_map(|row| {
            let of = revoked(row.tenant_id, row.channel_account_id, row.provider_message_id, row.revoked_at?);
            Some((of, row.message_id.map(MessageId)))
        })
        .collect())
}

/// What was there when sends were tied to their providers' ids.
#[derive(Debug, Default)]
pub struct Linked {
    /// Reports that were there first.
    pub parked: Vec<Report>,
    /// Messages that were stored because of an echo, and are these sends ([`super::messages::remove_echoes`]).
    pub echoes: Vec<(TenantId, MessageId)>,
    /// Sends among them that were taken back before: nothing is to be kept of what they said ([`super::messages::erase`]).
    pub revoked: Vec<Erased>,
}

/// Ties providers' ids to sends of ours.
///
/// # Errors
/// If the database does not answer.
pub async fn link(tx: &mut FleetTx, refs: &[Ref<'_>]) -> Result<Linked> {
    if refs.is_empty() {
        return Ok(Linked::default());
    }
    let c = Columns::of(refs);
    let rows = sqlx::query!(
        r#"WITH linked AS (
            INSERT INTO provider_refs AS ref (tenant_id, channel_account_id, provider_message_id, message_id)
            SELECT DISTINCT ON (1, 2, 3) * FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::uuid[])
            ORDER BY 1, 2, 3
            ON CONFLICT (tenant_id, channel_account_id, provider_message_id) DO UPDATE
            SET message_id = coalesce(ref.message_id, excluded.message_id)
            RETURNING *
        )
        SELECT tenant_id, channel_account_id, provider_message_id, parked_state, parked_at, parked_code, parked_reason,
            created_at < now() - interval '14 days' AS "old!", revoked_at IS NOT NULL AS "revoked!", message_id, echo_message_id
        FROM linked
        WHERE parked_state IS NOT NULL OR echo_message_id IS NOT NULL OR revoked_at IS NOT NULL"#,
        &c.tenants,
        &c.accounts,
        &c.provider_ids,
        &c.messages,
    )
    .fetch_all(tx.conn())
    .await?;
    let (mut linked, mut parked, mut furthest) = (Linked::default(), BTreeMap::new(), Vec::new());
    for row in rows {
        let tenant_id = TenantId(row.tenant_id);
        linked.echoes.extend(row.echo_message_id.map(|id| (tenant_id, MessageId(id))));
        if row.revoked {
            linked.revoked.push(Erased {
                tenant_id,
                channel_account_id: ChannelAccountId(row.channel_account_id),
                message_id: row.message_id.map(MessageId),
                provider_message_id: row.provider_message_id.clone(),
            });
        }
        if let (Some(message_id), Some(state)) = (row.message_id, row.parked_state) {
            let message_id = MessageId(message_id);
            let channel_account_id = ChannelAccountId(row.channel_account_id);
            parked.insert((tenant_id, channel_account_id, row.provider_message_id.clone()), message_id);
            let old = row.parked_at.filter(|_| row.old);
            furthest.extend(SendState::from_name(&state).zip(old).map(|(parked_state, at)| Report {
                tenant_id,
                channel_account_id,
                provider_message_id: row.provider_message_id,
                state: parked_state,
                status: state,
                at,
                code: row.parked_code,
                reason: row.parked_reason,
                aftermath: None,
                token: Some(SendToken { message_id, attempt_id: AttemptId(Uuid::nil()) }),
            }));
        }
    }
    linked.parked = unpark(tx, &parked).await?;
    // Of those that waited for longer than they are kept only the furthest is known (`retention::expire_parked_reports`).
    let there: HashSet<Named> = linked.parked.iter().map(named).collect();
    linked.parked.extend(furthest.into_iter().filter(|report| !there.contains(&named(report))));
    Ok(linked)
}

fn named(report: &Report) -> Named {
    (report.tenant_id, report.channel_account_id, report.provider_message_id.clone())
}

/// Takes the reports that waited for these ids. Asked after the ids were tied to sends: who parks one holds its id.
async fn unpark(tx: &mut FleetTx, parked: &BTreeMap<Named, MessageId>) -> Result<Vec<Report>> {
    if parked.is_empty() {
        return Ok(Vec::new());
    }
    let tenants: Vec<Uuid> = parked.keys().map(|(tenant_id, ..)| tenant_id.0).collect();
    let accounts: Vec<Uuid> = parked.keys().map(|(_, account, _)| account.0).collect();
    let ids: Vec<String> = parked.keys().map(|(.., id)| id.clone()).collect();
    let rows = sqlx::query!(
        // As above; a row's place is a key that no plan can mistake.
        "DELETE FROM parked_reports p
        WHERE ctid = ANY (ARRAY(
            SELECT waiting.ctid
            FROM unnest($1::uuid[], $2::uuid[], $3::text[]) AS linked (tenant_id, account_id, provider_message_id)
            CROSS JOIN LATERAL (
                SELECT ctid
                FROM parked_reports
                WHERE tenant_id = linked.tenant_id AND channel_account_id = linked.account_id
                    AND provider_message_id = linked.provider_message_id
                ORDER BY event, at
                OFFSET 0
            ) AS waiting
        ))
        RETURNING p.tenant_id, p.channel_account_id, p.provider_message_id, p.state, p.event, p.at, p.code, p.reason, p.aftermath",
        &tenants,
        &accounts,
        &ids,
    )
    .fetch_all(tx.conn())
    .await?;
    let mut reports: Vec<Report> = rows
        .into_iter()
        .filter_map(|row| {
            let state = SendState::from_name(&row.state)?;
            let key = (TenantId(row.tenant_id), ChannelAccountId(row.channel_account_id), row.provider_message_id);
            let message_id = *parked.get(&key)?;
            let (tenant_id, channel_account_id, provider_message_id) = key;
            Some(Report {
                tenant_id,
                channel_account_id,
                provider_message_id,
                state,
                status: row.event,
                at: row.at,
                code: row.code,
                reason: row.reason,
                aftermath: row.aftermath.and_then(|aftermath| serde_json::from_value(aftermath).ok()),
                token: Some(SendToken { message_id, attempt_id: AttemptId(Uuid::nil()) }),
            })
        })
        .collect();
    reports.sort_by(|one, other| (&one.provider_message_id, one.at).cmp(&(&other.provider_message_id, other.at)));
    Ok(reports)
}

/// Which of these messages are sends of ours: a token may be another deployment's.
///
/// # Errors
/// If the database does not answer.
pub async fn ours(tx: &mut FleetTx, messages: &[(TenantId, MessageId)]) -> Result<HashSet<(TenantId, MessageId)>> {
    if messages.is_empty() {
        return Ok(HashSet::new());
    }
    let tenants: Vec<Uuid> = messages.iter().map(|(tenant_id, _)| tenant_id.0).collect();
    let ids: Vec<Uuid> = messages.iter().map(|(_, id)| id.0).collect();
    let rows = sqlx::query!(
        r#"SELECT asked.tenant_id AS "tenant_id!: TenantId", asked.message_id AS "message_id!: MessageId"
        FROM unnest($1::uuid[], $2::uuid[]) AS asked (tenant_id, message_id)
        CROSS JOIN LATERAL (
            SELECT FROM sends WHERE tenant_id = asked.tenant_id AND message_id = asked.message_id LIMIT 1
        ) AS s"#,
        &tenants,
        &ids,
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(rows.into_iter().map(|row| (row.tenant_id, row.message_id)).collect())
}
