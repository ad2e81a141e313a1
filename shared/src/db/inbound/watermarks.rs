//! Up to where people have received and read: on some channels providers tell a point in time instead of message by message.
//! Everything sent to the person from the account by then moves on, as if each had been reported.
//!
//! A receipt may come before the send that it covers is written down, or before it is known when the provider took it. So the
//! furthest point is kept for each person and account, and looked at again whenever a send of theirs is accepted or its echo tells
//! its provider's time ([`catch_up`]). Why none is missed: who applies a watermark writes it, and then locks the sends that are on
//! their way or with the provider; who accepts a send has changed its row, and looks for a watermark in a later statement. Either
//! waits for the other and then sees it.

use super::reports::{self, Report};
use crate::{
    db::{error::Result, outbound::counts::Moved, scope::FleetTx},
    domain::{
        events::SendToken,
        ids::{AttemptId, ChannelAccountId, ContactId, MessageId, TenantId},
        sends::SendState,
    },
};
use chrono::{DateTime, Utc};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use uuid::Uuid;

/// So many of a conversation's last messages are looked at. What is older was covered by earlier receipts.
const LOOKED_AT: i64 = 1_000;

/// Up to where a person has received or read what an account sent them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Whose.
    pub tenant_id: TenantId,
    /// Who.
    pub contact_id: ContactId,
    /// From which account.
    pub channel_account_id: ChannelAccountId,
    /// [`SendState::Delivered`] or [`SendState::Read`].
    pub state: SendState,
    /// What was sent at or before this time.
    pub through: DateTime<Utc>,
    /// The provider's time of the receipt.
    pub at: DateTime<Utc>,
}

/// A send that was itself received or read, and with it all before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reached {
    /// Whose.
    pub tenant_id: TenantId,
    /// Which.
    pub message_id: MessageId,
    /// [`SendState::Delivered`] or [`SendState::Read`].
    pub state: SendState,
    /// The provider's time of the receipt.
    pub at: DateTime<Utc>,
}

/// A provider's id of a message on an account.
pub type Named = (TenantId, ChannelAccountId, String);

/// A send as a watermark meets it.
struct Met {
    tenant_id: TenantId,
    channel_account_id: ChannelAccountId,
    message_id: MessageId,
    provider_message_id: String,
    sent_at: DateTime<Utc>,
    delivered_at: Option<DateTime<Utc>>,
    read_at: Option<DateTime<Utc>>,
}

impl Met {
    /// What a receipt says of it, if that is news.
    fn told(&self, state: SendState, through: DateTime<Utc>, at: DateTime<Utc>) -> Option<Report> {
        let known = if state == SendState::Read { self.read_at } else { self.delivered_at };
        let is_news = self.sent_at <= through && known.is_none_or(|known| at < known);
        is_news.then(|| Report {
            tenant_id: self.tenant_id,
            channel_account_id: self.channel_account_id,
            provider_message_id: self.provider_message_id.clone(),
            state,
            status: state.as_str().to_owned(),
            at,
            code: None,
            reason: None,
            aftermath: None,
            token: Some(SendToken { message_id: self.message_id, attempt_id: AttemptId(Uuid::nil()) }),
        })
    }
}

/// When the messages with these ids were sent, as far as they are known here: of an echo, by the provider's time.
///
/// # Errors
/// If the database does not answer.
pub async fn sent_at(tx: &mut FleetTx, named: &[Named]) -> Result<HashMap<Named, DateTime<Utc>>> {
    if named.is_empty() {
        return Ok(HashMap::new());
    }
    let tenants: Vec<Uuid> = named.iter().map(|(tenant_id, ..)| tenant_id.0).collect();
    let accounts: Vec<Uuid> = named.iter().map(|(_, account, _)| account.0).collect();
    let ids: Vec<String> = named.iter().map(|(.., id)| id.clone()).collect();
    let rows = sqlx::query!(
        // Looked up by key, one by one, whatever the planner thinks of the tables' sizes (LIMIT keeps the order of joining).
        r#"SELECT asked.tenant_id AS "tenant_id!", asked.account_id AS "channel_account_id!",
            asked.provider_message_id AS "provider_message_id!", coalesce(s.sent_at, m.at) AS "at!"
        FROM unnest($1::uuid[], $2::uuid[], $3::text[]) AS asked (tenant_id, account_id, provider_message_id)
        CROSS JOIN LATERAL (
            SELECT message_id, coalesce(message_id, echo_message_id) AS any_id
            FROM provider_refs
            WHERE tenant_id = asked.tenant_id AND channel_account_id = asked.account_id
                AND provider_message_id = asked.provider_message_id
            LIMIT 1
        ) AS ref
        CROSS JOIN LATERAL (
            SELECT at FROM messages WHERE tenant_id = asked.tenant_id AND id = ref.any_id LIMIT 1
        ) AS m
        LEFT JOIN LATERAL (
            SELECT sent_at FROM sends WHERE tenant_id = asked.tenant_id AND message_id = ref.message_id LIMIT 1
        ) AS s ON true"#,
        &tenants,
        &accounts,
        &ids,
    )
    .fetch_all(tx.conn())
    .await?;
    let name = |tenant, account, id| (TenantId(tenant), ChannelAccountId(account), id);
    Ok(rows
        .into_iter()
        .map(|row| (name(row.tenant_id, row.channel_account_id, row.provider_message_id), row.at))
        .collect())
}

type Key = (TenantId, ContactId, ChannelAccountId);
/// What was received or read, up to when, and when that was told.
type Kept = (SendState, DateTime<Utc>, DateTime<Utc>);

/// Moves the sends that watermarks cover, which are kept already ([`keep`]). Returns those of campaigns that moved, to be counted when all else is done.
///
/// # Errors
/// If the database does not answer.
#[must_use = "what moved is to be counted"]
pub async fn apply(tx: &mut FleetTx, marks: &[Mark]) -> Result<Vec<Moved>> {
    if marks.is_empty() {
        return Ok(Vec::new());
    }
    let mut of: BTreeMap<Key, Vec<&Mark>> = BTreeMap::new();
    for mark in marks {
        of.entry((mark.tenant_id, mark.contact_id, mark.channel_account_id)).or_default().push(mark);
    }
    let sends = candidates(tx, &of).await?;
    let mut told = Vec::new();
    for met in meet(tx, &sends.keys().copied().collect()).await? {
        let Some(marks) = sends.get(&(met.tenant_id, met.message_id)).and_then(|key| of.get(key)) else { continue };
        told.extend(marks.iter().filter_map(|mark| met.told(mark.state, mark.through, mark.at)));
    }
    reports::apply(tx, &told).await
}

/// Moves sends on as far as receipts that came before them say.
///
/// # Errors
/// If the database does not answer.
#[must_use = "what moved is to be counted"]
pub async fn catch_up(tx: &mut FleetTx, sends: &BTreeSet<(TenantId, MessageId)>) -> Result<Vec<Moved>> {
    if sends.is_empty() {
        return Ok(Vec::new());
    }
    let tenants: Vec<Uuid> = sends.iter().map(|(tenant_id, _)| tenant_id.0).collect();
    let messages: Vec<Uuid> = sends.iter().map(|(_, id)| id.0).collect();
    let rows = sqlx::query!(
        // By key, as in [`sent_at`].
        r#"SELECT asked.tenant_id AS "tenant_id!", asked.message_id AS "message_id!",
            w.delivered_through, w.delivered_at, w.read_through, w.read_at
        FROM unnest($1::uuid[], $2::uuid[]) AS asked (tenant_id, message_id)
        CROSS JOIN LATERAL (
            SELECT conversation_id, channel_account_id
            FROM sends
            WHERE tenant_id = asked.tenant_id AND message_id = asked.message_id
            LIMIT 1
        ) AS s
        CROSS JOIN LATERAL (
            SELECT contact_id FROM conversations WHERE tenant_id = asked.tenant_id AND id = s.conversation_id LIMIT 1
        ) AS v
        CROSS JOIN LATERAL (
            SELECT delivered_through, delivered_at, read_through, read_at
            FROM watermarks
            WHERE tenant_id = asked.tenant_id AND contact_id = v.contact_id AND channel_account_id = s.channel_account_id
            LIMIT 1
        ) AS w"#,
        &tenants,
        &messages,
    )
    .fetch_all(tx.conn())
    .await?;
    let mut kept: HashMap<(TenantId, MessageId), Vec<Kept>> = HashMap::new();
    for row in rows {
        let of = kept.entry((TenantId(row.tenant_id), MessageId(row.message_id))).or_default();
        of.extend(row.delivered_through.zip(row.delivered_at).map(|(through, at)| (SendState::Delivered, through, at)));
        of.extend(row.read_through.zip(row.read_at).map(|(through, at)| (SendState::Read, through, at)));
    }
    if kept.is_empty() {
        return Ok(Vec::new());
    }
    let mut told = Vec::new();
    for met in meet(tx, &kept.keys().copied().collect()).await? {
        let kept = &kept[&(met.tenant_id, met.message_id)];
        told.extend(kept.iter().filter_map(|(state, through, at)| met.told(*state, *through, *at)));
    }
    reports::apply(tx, &told).await
}

/// Locks the watermarks that [`keep`] will change and those that [`reach`] will, in one order. Of sends the time at which they were sent may
/// not be known before they are locked, and watermarks are locked first; so each has a row from now on.
///
/// # Errors
/// If the database does not answer.
pub async fn hold(tx: &mut FleetTx, marks: &[Mark], reached: &[Reached]) -> Result<()> {
    if reached.is_empty() {
        return Ok(());
    }
    let tenants: Vec<Uuid> = reached.iter().map(|r| r.tenant_id.0).collect();
    let messages: Vec<Uuid> = reached.iter().map(|r| r.message_id.0).collect();
    let rows = sqlx::query!(
        r#"SELECT asked.tenant_id AS "tenant_id!", v.contact_id, s.channel_account_id
        FROM unnest($1::uuid[], $2::uuid[]) AS asked (tenant_id, message_id)
        CROSS JOIN LATERAL (
            SELECT conversation_id, channel_account_id
            FROM sends
            WHERE tenant_id = asked.tenant_id AND message_id = asked.message_id
            LIMIT 1
        ) AS s
        CROSS JOIN LATERAL (
            SELECT contact_id FROM conversations WHERE tenant_id = asked.tenant_id AND id = s.conversation_id LIMIT 1
        ) AS v"#,
        &tenants,
        &messages,
    )
    .fetch_all(tx.conn())
    .await?;
    let key = |tenant, contact, account| (TenantId(tenant), ContactId(contact), ChannelAccountId(account));
    let mut held: BTreeSet<Key> = marks.iter().map(|m| (m.tenant_id, m.contact_id, m.channel_account_id)).collect();
    held.extend(rows.into_iter().map(|row| key(row.tenant_id, row.contact_id, row.channel_account_id)));
    let tenants: Vec<Uuid> = held.iter().map(|(tenant_id, ..)| tenant_id.0).collect();
    let contacts: Vec<Uuid> = held.iter().map(|(_, contact_id, _)| contact_id.0).collect();
    let accounts: Vec<Uuid> = held.iter().map(|(.., account)| account.0).collect();
    sqlx::query!(
        "INSERT INTO watermarks AS w (tenant_id, contact_id, channel_account_id)
        SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::uuid[])
        ORDER BY 1, 2, 3
        ON CONFLICT (tenant_id, contact_id, channel_account_id) DO UPDATE SET read_at = w.read_at",
        &tenants,
        &contacts,
        &accounts,
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// As [`apply`], of receipts that name a send. Their watermarks are held already ([`hold`]).
///
/// # Errors
/// If the database does not answer.
#[must_use = "what moved is to be counted"]
pub async fn reach(tx: &mut FleetTx, reached: &[Reached]) -> Result<Vec<Moved>> {
    if reached.is_empty() {
        return Ok(Vec::new());
    }
    let tenants: Vec<Uuid> = reached.iter().map(|r| r.tenant_id.0).collect();
    let messages: Vec<Uuid> = reached.iter().map(|r| r.message_id.0).collect();
    let rows = sqlx::query!(
        r#"SELECT asked.place AS "place!", v.contact_id, s.channel_account_id, s.sent_at AS "sent_at!"
        FROM unnest($1::uuid[], $2::uuid[]) WITH ORDINALITY AS asked (tenant_id, message_id, place)
        CROSS JOIN LATERAL (
            SELECT conversation_id, channel_account_id, sent_at
            FROM sends
            WHERE tenant_id = asked.tenant_id AND message_id = asked.message_id AND sent_at IS NOT NULL
            LIMIT 1
        ) AS s
        CROSS JOIN LATERAL (
            SELECT contact_id FROM conversations WHERE tenant_id = asked.tenant_id AND id = s.conversation_id LIMIT 1
        ) AS v"#,
        &tenants,
        &messages,
    )
    .fetch_all(tx.conn())
    .await?;
    let marks: Vec<Mark> = rows
        .into_iter()
        .filter_map(|row| {
            let of = reached.get(usize::try_from(row.place).ok()?.checked_sub(1)?)?;
            Some(Mark {
                tenant_id: of.tenant_id,
                contact_id: ContactId(row.contact_id),
                channel_account_id: ChannelAccountId(row.channel_account_id),
                state: of.state,
                through: row.sent_at,
                at: of.at,
            })
        })
        .collect();
    keep(tx, &marks).await?;
    apply(tx, &marks).await
}

/// Keeps the furthest point for each person and account, and the first receipt that told it. Before any send is locked.
///
/// # Errors
/// If the database does not answer.
pub async fn keep(tx: &mut FleetTx, marks: &[Mark]) -> Result<()> {
    if marks.is_empty() {
        return Ok(());
    }
    type Point = Option<(DateTime<Utc>, DateTime<Utc>)>;
    let mut furthest: BTreeMap<Key, (Point, Point)> = BTreeMap::new();
    for mark in marks {
        let of = furthest.entry((mark.tenant_id, mark.contact_id, mark.channel_account_id)).or_default();
        let point = if mark.state == SendState::Read { &mut of.1 } else { &mut of.0 };
        let is_further = |(through, at): (DateTime<Utc>, DateTime<Utc>)| {
            mark.through > through || (mark.through == through && mark.at < at)
        };
        if point.is_none_or(is_further) {
            *point = Some((mark.through, mark.at));
        }
    }
    let tenants: Vec<Uuid> = furthest.keys().map(|(tenant_id, ..)| tenant_id.0).collect();
    let contacts: Vec<Uuid> = furthest.keys().map(|(_, contact_id, _)| contact_id.0).collect();
    let accounts: Vec<Uuid> = furthest.keys().map(|(.., account)| account.0).collect();
    let (delivered_through, delivered_at): (Vec<_>, Vec<_>) = furthest.values().map(|(point, _)| point.unzip()).unzip();
    let (read_through, read_at): (Vec<_>, Vec<_>) = furthest.values().map(|(_, point)| point.unzip()).unzip();
    sqlx::query!(
        "INSERT INTO watermarks AS w
            (tenant_id, contact_id, channel_account_id, delivered_through, delivered_at, read_through, read_at)
        SELECT *
        FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::timestamptz[], $5::timestamptz[], $6::timestamptz[], $7::timestamptz[])
        ORDER BY 1, 2, 3
        ON CONFLICT (tenant_id, contact_id, channel_account_id) DO UPDATE
        SET delivered_through = greatest(w.delivered_through, excluded.delivered_through),
            delivered_at = CASE
                WHEN excluded.delivered_through > coalesce(w.delivered_through, '-infinity') THEN excluded.delivered_at
                WHEN excluded.delivered_through = w.delivered_through THEN least(w.delivered_at, excluded.delivered_at)
                ELSE w.delivered_at
            END,
            read_through = greatest(w.read_through, excluded.read_through),
            read_at = CASE
                WHEN excluded.read_through > coalesce(w.read_through, '-infinity') THEN excluded.read_at
                WHEN excluded.read_through = w.read_through THEN least(w.read_at, excluded.read_at)
                ELSE w.read_at
            END",
        &tenants,
        &contacts,
        &accounts,
        &delivered_through as &[Option<DateTime<Utc>>],
        &delivered_at as &[Option<DateTime<Utc>>],
        &read_through as &[Option<DateTime<Utc>>],
        &read_at as &[Option<DateTime<Utc>>],
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// The sends to these people from these accounts of which a receipt may be news: those that may be with the provider by now, and those
/// that are and about which it was not told yet. To lock any other would write its row for nothing, and most of a conversation was
/// told about long ago.
///
/// That a send was sent after all that the receipt is about is no reason to leave it alone, as long as nothing was told of it: its
/// echo, which may be applied at the same time, may say that it was sent before.
async fn candidates(tx: &mut FleetTx, of: &BTreeMap<Key, Vec<&Mark>>) -> Result<BTreeMap<(TenantId, MessageId), Key>> {
    let (mut tenants, mut contacts, mut accounts) = (Vec::new(), Vec::new(), Vec::new());
    for (tenant_id, contact_id, account) in of.keys() {
        tenants.push(tenant_id.0);
        contacts.push(contact_id.0);
        accounts.push(account.0);
    }
    // Conversations have one index for those that are open and one for the others.
    let rows = sqlx::query!(
        r#"SELECT asked.tenant_id AS "tenant_id!", asked.contact_id AS "contact_id!", asked.account_id AS "account_id!",
            s.message_id AS "message_id!", s.state AS "state!", s.sent_at, s.delivered_at, s.read_at
        FROM unnest($1::uuid[], $2::uuid[], $3::uuid[]) AS asked (tenant_id, contact_id, account_id)
        CROSS JOIN LATERAL (
            SELECT id
            FROM conversations
            WHERE tenant_id = asked.tenant_id AND contact_id = asked.contact_id AND channel_account_id = asked.account_id
                AND state <> 'resolved'
            UNION ALL
            SELECT id
            FROM conversations
            WHERE tenant_id = asked.tenant_id AND contact_id = asked.contact_id AND channel_account_id = asked.account_id
                AND state = 'resolved'
        ) AS v
        CROSS JOIN LATERAL (
            SELECT message_id, state, sent_at, delivered_at, read_at
            FROM sends
            WHERE tenant_id = asked.tenant_id AND conversation_id = v.id
            ORDER BY seq DESC
            LIMIT $4
        ) AS s
        WHERE s.state IN ('sending', 'unknown', 'held', 'sent', 'delivered', 'read')"#,
        &tenants,
        &contacts,
        &accounts,
        LOOKED_AT,
    )
    .fetch_all(tx.conn())
    .await?;
    let key = |tenant, contact, account| (TenantId(tenant), ContactId(contact), ChannelAccountId(account));
    Ok(rows
        .into_iter()
        .filter_map(|row| {
            let key = key(row.tenant_id, row.contact_id, row.account_id);
            let is_news = |mark: &&Mark| {
                let known = if mark.state == SendState::Read { row.read_at } else { row.delivered_at };
                known.is_none_or(|known| mark.at < known && row.sent_at.is_none_or(|sent_at| sent_at <= mark.through))
            };
            let on_its_way = matches!(row.state.as_str(), "sending" | "unknown" | "held");
            let is_candidate = on_its_way || of.get(&key).is_some_and(|marks| marks.iter().any(is_news));
            is_candidate.then_some(((key.0, MessageId(row.message_id)), key))
        })
        .collect())
}

/// Locks these sends, and reads those that are with the provider.
async fn meet(tx: &mut FleetTx, sends: &BTreeSet<(TenantId, MessageId)>) -> Result<Vec<Met>> {
    if sends.is_empty() {
        return Ok(Vec::new());
    }
    let tenants: Vec<Uuid> = sends.iter().map(|(tenant_id, _)| tenant_id.0).collect();
    let messages: Vec<Uuid> = sends.iter().map(|(_, id)| id.0).collect();
    let rows = sqlx::query!(
        // In the order of their keys, in which they are given.
        r#"SELECT asked.tenant_id AS "tenant_id!", asked.message_id AS "message_id!", s.channel_account_id, s.state,
            s.provider_message_id, s.sent_at, s.delivered_at, s.read_at
        FROM unnest($1::uuid[], $2::uuid[]) AS asked (tenant_id, message_id)
        CROSS JOIN LATERAL (
            SELECT channel_account_id, state, provider_message_id, sent_at, delivered_at, read_at
            FROM sends
            WHERE tenant_id = asked.tenant_id AND message_id = asked.message_id
            LIMIT 1
            FOR UPDATE
        ) AS s"#,
        &tenants,
        &messages,
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(rows
        .into_iter()
        .filter(|row| matches!(row.state.as_str(), "sent" | "delivered" | "read"))
        .filter_map(|row| {
            Some(Met {
                tenant_id: TenantId(row.tenant_id),
                channel_account_id: ChannelAccountId(row.channel_account_id),
                message_id: MessageId(row.message_id),
                provider_message_id: row.provider_message_id?,
                sent_at: row.sent_at?,
                delivered_at: row.delivered_at,
                read_at: row.read_at,
            })
        })
        .collect())
}
