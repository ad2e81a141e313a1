//! Where a batch's messages belong: the open conversation of contact and account, one to be reopened, or a new one; and what
//! they add to its counters.

use crate::{
    db::{error::Result, feed, scope::FleetTx},
    domain::{
        feed::Kind,
        ids::{ChannelAccountId, ContactId, ConversationId, TenantId},
        messages::Direction,
    },
};
use chrono::{DateTime, Utc};
use std::collections::HashMap;
use uuid::Uuid;

/// A contact on an account.
pub type Pair = (TenantId, ContactId, ChannelAccountId);

/// What the new messages of one contact on one account add up to.
#[derive(Clone, Debug)]
pub struct RollUp {
    /// Who and where.
    pub pair: Pair,
    /// How many of them the person wrote and were not counted before.
    pub messages_in: i32,
    /// How many of them were written to the person, elsewhere, and were not counted before.
    pub messages_out: i32,
    /// Whether the person wrote any of them: what was written elsewhere alone wakes nothing and is listed nowhere.
    pub inbound: bool,
    /// How many of them are to be read: said, fresh and no replay.
    pub unread: i32,
    /// Whether any of them is fresh and said: it reopens.
    pub reopens: bool,
    /// Whether any was said at all, be it long ago: it may start a conversation in the inbox.
    pub said: bool,
    /// The provider's time of the last one.
    pub last_at: DateTime<Utc>,
    /// Its words.
    pub last_text: Option<String>,
    /// Which way it went.
    pub last_direction: Direction,
    /// The provider's time of the last one said: opens the customer service window.
    pub last_said_at: Option<DateTime<Utc>>,
    /// Until when the window is open because of it.
    pub window_expires_at: Option<DateTime<Utc>>,
    /// Whether what opens the window is fresh, so that its opening is news.
    pub opens: bool,
}

struct Candidate {
    open: Option<ConversationId>,
    latest_resolved: Option<ConversationId>,
    reopen: bool,
}

/// Finds, reopens or makes the conversation of each pair and adds the roll-up to it. No pair twice in a batch.
///
/// # Errors
/// If the database does not answer. Contention on `conversations_one_open`: another batch was first, do it again.
pub async fn roll_up(tx: &mut FleetTx, roll_ups: &[RollUp]) -> Result<HashMap<Pair, ConversationId>> {
    if roll_ups.is_empty() {
        return Ok(HashMap::new());
    }
    let candidates = find(tx, &roll_ups.iter().collect::<Vec<_>>()).await?;
    let mut reopen = Vec::new();
    let mut open: Vec<(&RollUp, &'static str)> = Vec::new();
    let mut add: Vec<(&RollUp, ConversationId)> = Vec::new();
    for r in roll_ups {
        let candidate = candidates.get(&r.pair);
        match candidate.map(|c| (c.open, c.latest_resolved, c.reopen)) {
            // As a campaign's message joins.
            Some((Some(id), _, _)) if !r.inbound => add.push((r, id)),
            Some((Some(_), _, _)) => open.push((r, "open")),
            Some((None, Some(id), true)) if r.reopens => {
                reopen.push((r.pair.0, id));
                open.push((r, "open"));
            }
            // Reactions, notices and what is long past join what there is without waking it.
            Some((None, Some(id), _)) if !r.reopens => add.push((r, id)),
            _ => open.push((r, if r.said { "new" } else { "resolved" })),
        }
    }
    let (unlisted, open): (Vec<_>, Vec<_>) = open.into_iter().partition(|(_, state)| *state == "resolved");
    let unlisted: Vec<&RollUp> = unlisted.into_iter().map(|(r, _)| r).collect();
    // Before any conversation is locked.
    let (unlisted, found) = still_without(tx, unlisted).await?;
    add.extend(found);
    self::reopen(tx, &mut reopen).await?;
    let mut placed = add_to(tx, &mut add).await?;
    placed.extend(upsert(tx, &open).await?);
    placed.extend(start_unlisted(tx, &unlisted).await?);
    Ok(placed)
}

/// Pairs that have no conversation, and are given one that is resolved: of those no index keeps out a second one (merging brings several
/// together). So whoever makes one holds the pair, and looks once more. Returns those that still have none, and what the others have.
async fn still_without<'a>(
    tx: &mut FleetTx,
    roll_ups: Vec<&'a RollUp>,
) -> Result<(Vec<&'a RollUp>, Vec<(&'a RollUp, ConversationId)>)> {
    if roll_ups.is_empty() {
        return Ok((roll_ups, Vec::new()));
    }
    let (_, contacts, accounts) = pairs(&roll_ups);
    hold_pairs(tx, &contacts, &accounts).await?;
    let candidates = find(tx, &roll_ups).await?;
    let there = |r: &RollUp| candidates.get(&r.pair).and_then(|c| c.open.or(c.latest_resolved));
    let (found, without): (Vec<_>, Vec<_>) = roll_ups.into_iter().partition(|r| there(r).is_some());
    Ok((without, found.into_iter().filter_map(|r| Some((r, there(r)?))).collect()))
}

/// So many locks hold all pairs of an account: each is one of a table of them that all transactions share.
const PAIR_LOCKS: i32 = 256;

/// Holds contacts on accounts, until the transaction ends, against others who would start a conversation there that is resolved.
pub(in crate::db) async fn hold_pairs(tx: &mut FleetTx, contacts: &[Uuid], accounts: &[Uuid]) -> Result<()> {
    sqlx::query!(
        "SELECT pg_advisory_xact_lock(account, contact)
        FROM (
            SELECT DISTINCT hashtext(account::text) AS account, hashtext(contact::text) & ($3::int - 1) AS contact
            FROM unnest($1::uuid[], $2::uuid[]) AS pair (contact, account)
            ORDER BY 1, 2
            OFFSET 0
        ) AS locks",
        contacts,
        accounts,
        PAIR_LOCKS,
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

fn pairs(roll_ups: &[&RollUp]) -> (Vec<Uuid>, Vec<Uuid>, Vec<Uuid>) {
    let mut columns = (Vec::new(), Vec::new(), Vec::new());
    for RollUp { pair: (tenant_id, contact_id, account_id), .. } in roll_ups {
        columns.0.push(tenant_id.0);
        columns.1.push(contact_id.0);
        columns.2.push(account_id.0);
    }
    columns
}

async fn find(tx: &mut FleetTx, roll_ups: &[&RollUp]) -> Result<HashMap<Pair, Candidate>> {
    let (tenants, contacts, accounts) = pairs(roll_ups);
    let times: Vec<DateTime<Utc>> = roll_ups.iter().map(|r| r.last_at).collect();
    let rows = sqlx::query!(
        r#"SELECT asked.tenant_id AS "tenant_id!", asked.contact_id AS "contact_id!", asked.account_id AS "account_id!",
            open.id AS "open_id?", latest.id AS "latest_id?",
            coalesce(latest.resolved_at > asked.at - coalesce(settings.reopen_within, '7 days'), false) AS "reopen!"
        FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::timestamptz[]) AS asked (tenant_id, contact_id, account_id, at)
        LEFT JOIN LATERAL (
            SELECT c.id
            FROM conversations c
            WHERE c.tenant_id = asked.tenant_id AND c.contact_id = asked.contact_id
                AND c.channel_account_id = asked.account_id AND c.state <> 'resolved'
            LIMIT 1
        ) AS open ON true
        LEFT JOIN LATERAL (
            SELECT c.id, c.resolved_at
            FROM conversations c
            WHERE open.id IS NULL AND c.tenant_id = asked.tenant_id AND c.contact_id = asked.contact_id
                AND c.channel_account_id = asked.account_id AND c.state = 'resolved' AND c.merged_into IS NULL
            ORDER BY c.resolved_at DESC NULLS LAST
            LIMIT 1
        ) AS latest ON true
        LEFT JOIN tenant_settings settings ON settings.tenant_id = asked.tenant_id"#,
        &tenants,
        &contacts,
        &accounts,
        &times,
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| {
            let pair = (TenantId(row.tenant_id), ContactId(row.contact_id), ChannelAccountId(row.account_id));
            let candidate = Candidate {
                open: row.open_id.map(ConversationId),
                latest_resolved: row.latest_id.map(ConversationId),
                reopen: row.reopen,
            };
            (pair, candidate)
        })
        .collect())
}

async fn reopen(tx: &mut FleetTx, conversations: &mut [(TenantId, ConversationId)]) -> Result<()> {
    if conversations.is_empty() {
        return Ok(());
    }
    conversations.sort_unstable();
    let tenants: Vec<Uuid> = conversations.iter().map(|(tenant_id, _)| tenant_id.0).collect();
    let ids: Vec<Uuid> = conversations.iter().map(|(_, id)| id.0).collect();
    sqlx::query!(
        "WITH closed AS MATERIALIZED (
            SELECT c.tenant_id, c.id
            FROM unnest($1::uuid[], $2::uuid[]) AS asked (tenant_id, id)
            -- By key and in the order given.
            CROSS JOIN LATERAL (
                SELECT tenant_id, id
                FROM conversations
                WHERE tenant_id = asked.tenant_id AND id = asked.id AND state = 'resolved' AND merged_into IS NULL
                LIMIT 1
                FOR UPDATE
            ) AS c
        )
        UPDATE conversations
        SET state = 'open', listed = true, resolved_at = NULL
        FROM closed
        WHERE conversations.tenant_id = closed.tenant_id AND conversations.id = closed.id",
        &tenants,
        &ids,
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// The open conversation of each pair, made if there is none, with the roll-up added. In key order.
async fn upsert(tx: &mut FleetTx, roll_ups: &[(&RollUp, &'static str)]) -> Result<HashMap<Pair, ConversationId>> {
    if roll_ups.is_empty() {
        return Ok(HashMap::new());
    }
    let c = Columns::of(roll_ups.iter().map(|(r, _)| *r));
    let ids: Vec<Uuid> = roll_ups.iter().map(|_| ConversationId::new().0).collect();
    let states: Vec<String> = roll_ups.iter().map(|(_, state)| (*state).to_owned()).collect();
    let rows = sqlx::query!(
        r#"INSERT INTO conversations AS c (
            tenant_id, id, contact_id, channel_account_id, state, origin, unread, messages_in, messages_out, last_message_at,
            last_message_text, last_message_direction, last_inbound_at, window_expires_at, window_opened_at
        )
        SELECT tenant_id, id, contact_id, account_id, state, 'inbound', unread, messages_in, messages_out, last_at, last_text, direction,
            said_at, window_at, CASE WHEN opens AND window_at > now() THEN now() END
        FROM unnest(
            $1::uuid[], $2::uuid[], $3::uuid[], $4::uuid[], $5::text[], $6::int[], $7::int[], $8::timestamptz[], $9::text[],
            $10::timestamptz[], $11::timestamptz[], $12::int[], $13::text[], $14::bool[]
        ) AS r (
            tenant_id, id, contact_id, account_id, state, unread, messages_in, last_at, last_text, said_at, window_at, messages_out,
            direction, opens
        )
        ORDER BY tenant_id, contact_id, account_id
        ON CONFLICT (tenant_id, contact_id, channel_account_id) WHERE state <> 'resolved' DO UPDATE
        SET state = CASE WHEN excluded.unread > 0 AND c.state IN ('pending', 'snoozed') THEN 'open' ELSE c.state END,
            listed = true,
            unread = c.unread + excluded.unread,
            messages_in = c.messages_in + excluded.messages_in,
            messages_out = c.messages_out + excluded.messages_out,
            last_message_at = greatest(c.last_message_at, excluded.last_message_at),
            last_message_text = CASE WHEN excluded.last_message_at >= c.last_message_at THEN excluded.last_message_text ELSE c.last_message_text END,
            last_message_direction = CASE WHEN excluded.last_message_at >= c.last_message_at THEN excluded.last_message_direction ELSE c.last_message_direction END,
            last_inbound_at = greatest(c.last_inbound_at, excluded.last_inbound_at),
            window_opened_at = CASE
                WHEN excluded.window_opened_at IS NOT NULL AND coalesce(c.window_expires_at <= now(), true) THEN excluded.window_opened_at
                ELSE c.window_opened_at
            END,
            window_expires_at = greatest(c.window_expires_at, excluded.window_expires_at)
        -- Of a conversation that is new it goes without saying.
        RETURNING tenant_id, contact_id, channel_account_id, id, window_expires_at,
            xmax <> 0 AND coalesce(window_opened_at = now(), false) AS "opened!""#,
        &c.tenants,
        &ids,
        &c.contacts,
        &c.accounts,
        &states,
        &c.unread,
        &c.messages_in,
        &c.last_at,
        &c.last_text as &[Option<String>],
        &c.said_at as &[Option<DateTime<Utc>>],
        &c.window_at as &[Option<DateTime<Utc>>],
        &c.messages_out,
        &c.directions,
        &c.opens,
    )
    .fetch_all(tx.conn())
    .await?;
    let opened = rows.iter().filter(|row| row.opened);
    let opened = opened.map(|row| (TenantId(row.tenant_id), ConversationId(row.id), row.window_expires_at));
    feed::tell(tx, Kind::WindowOpened, &opened.collect::<Vec<_>>()).await?;
    Ok(rows
        .into_iter()
        .map(|row| {
            let pair = (TenantId(row.tenant_id), ContactId(row.contact_id), ChannelAccountId(row.channel_account_id));
            (pair, ConversationId(row.id))
        })
        .collect())
}

/// Adds to conversations as they are, without waking them.
async fn add_to(tx: &mut FleetTx, roll_ups: &mut [(&RollUp, ConversationId)]) -> Result<HashMap<Pair, ConversationId>> {
    if roll_ups.is_empty() {
        return Ok(HashMap::new());
    }
    roll_ups.sort_unstable_by_key(|(r, id)| (r.pair.0, *id));
    let c = Columns::of(roll_ups.iter().map(|(r, _)| *r));
    let ids: Vec<Uuid> = roll_ups.iter().map(|(_, id)| id.0).collect();
    let rows = sqlx::query!(
        r#"WITH added AS MATERIALIZED (
            SELECT c.tenant_id, c.id, r.messages_in, r.messages_out, r.last_at, r.last_text, r.direction, r.said_at, r.window_at, r.opens
            FROM unnest(
                $1::uuid[], $2::uuid[], $3::int[], $4::timestamptz[], $5::text[], $6::timestamptz[], $7::timestamptz[], $8::int[],
                $9::text[], $10::bool[]
            ) AS r (tenant_id, id, messages_in, last_at, last_text, said_at, window_at, messages_out, direction, opens)
            -- By key and in the order given.
            CROSS JOIN LATERAL (
                SELECT tenant_id, id FROM conversations WHERE tenant_id = r.tenant_id AND id = r.id LIMIT 1 FOR UPDATE
            ) AS c
        )
        UPDATE conversations c
        -- A campaign's conversation is nobody's to see until the person says something, however late that comes.
        SET listed = c.listed OR added.said_at IS NOT NULL,
            messages_in = c.messages_in + added.messages_in,
            messages_out = c.messages_out + added.messages_out,
            last_message_at = greatest(c.last_message_at, added.last_at),
            last_message_text = CASE WHEN added.last_at >= c.last_message_at THEN added.last_text ELSE c.last_message_text END,
            last_message_direction = CASE WHEN added.last_at >= c.last_message_at THEN added.direction ELSE c.last_message_direction END,
            last_inbound_at = greatest(c.last_inbound_at, added.said_at),
            window_opened_at = CASE
                WHEN added.opens AND added.window_at > now() AND coalesce(c.window_expires_at <= now(), true) THEN now()
                ELSE c.window_opened_at
            END,
            window_expires_at = greatest(c.window_expires_at, added.window_at)
        FROM added
        WHERE c.tenant_id = added.tenant_id AND c.id = added.id
        RETURNING c.tenant_id, c.id, c.window_expires_at, c.state <> 'resolved' AND coalesce(c.window_opened_at = now(), false) AS "opened!""#,
        &c.tenants,
        &ids,
        &c.messages_in,
        &c.last_at,
        &c.last_text as &[Option<String>],
        &c.said_at as &[Option<DateTime<Utc>>],
        &c.window_at as &[Option<DateTime<Utc>>],
        &c.messages_out,
        &c.directions,
        &c.opens,
    )
    .fetch_all(tx.conn())
    .await?;
    let opened = rows.into_iter().filter(|row| row.opened);
    let opened = opened.map(|row| (TenantId(row.tenant_id), ConversationId(row.id), row.window_expires_at));
    feed::tell(tx, Kind::WindowOpened, &opened.collect::<Vec<_>>()).await?;
    Ok(roll_ups.iter().map(|(r, id)| (r.pair, *id)).collect())
}

/// A conversation for what nobody said to us (a reaction, a notice, a message written elsewhere) where there was none: resolved and
/// unlisted.
async fn start_unlisted(tx: &mut FleetTx, roll_ups: &[&RollUp]) -> Result<HashMap<Pair, ConversationId>> {
    if roll_ups.is_empty() {
        return Ok(HashMap::new());
    }
    let c = Columns::of(roll_ups.iter().copied());
    let ids: Vec<ConversationId> = roll_ups.iter().map(|_| ConversationId::new()).collect();
    let uuids: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
    let origin = |r: &RollUp| if r.inbound { "inbound" } else { "elsewhere" };
    let origins: Vec<String> = roll_ups.iter().map(|r| origin(r).to_owned()).collect();
    sqlx::query!(
        "INSERT INTO conversations (
            tenant_id, id, contact_id, channel_account_id, state, origin, listed, messages_in, messages_out, last_message_at,
            last_message_text, last_message_direction, resolved_at, window_expires_at
        )
        SELECT tenant_id, id, contact_id, account_id, 'resolved', origin, false, messages_in, messages_out, last_at, last_text, direction,
            last_at, window_at
        FROM unnest(
            $1::uuid[], $2::uuid[], $3::uuid[], $4::uuid[], $5::int[], $6::timestamptz[], $7::text[], $8::int[], $9::text[], $10::text[],
            $11::timestamptz[]
        ) AS r (tenant_id, id, contact_id, account_id, messages_in, last_at, last_text, messages_out, direction, origin, window_at)
        ORDER BY tenant_id, contact_id, account_id",
        &c.tenants,
        &uuids,
        &c.contacts,
        &c.accounts,
        &c.messages_in,
        &c.last_at,
        &c.last_text as &[Option<String>],
        &c.messages_out,
        &c.directions,
        &origins,
        &c.window_at as &[Option<DateTime<Utc>>],
    )
    .execute(tx.conn())
    .await?;
    Ok(roll_ups.iter().map(|r| r.pair).zip(ids).collect())
}

/// The roll-ups as columns for `unnest`.
#[derive(Default)]
struct Columns {
    tenants: Vec<Uuid>,
    contacts: Vec<Uuid>,
    accounts: Vec<Uuid>,
    messages_in: Vec<i32>,
    messages_out: Vec<i32>,
    directions: Vec<String>,
    unread: Vec<i32>,
    last_at: Vec<DateTime<Utc>>,
    last_text: Vec<Option<String>>,
    said_at: Vec<Option<DateTime<Utc>>>,
    window_at: Vec<Option<DateTime<Utc>>>,
    opens: Vec<bool>,
}

impl Columns {
    fn of<'a>(roll_ups: impl Iterator<Item = &'a RollUp>) -> Self {
        let mut columns = Self::default();
        for r in roll_ups {
            let (tenant_id, contact_id, account_id) = r.pair;
            columns.tenants.push(tenant_id.0);
            columns.contacts.push(contact_id.0);
            columns.accounts.push(account_id.0);
            columns.messages_in.push(r.messages_in);
            columns.messages_out.push(r.messages_out);
            columns.directions.push(r.last_direction.as_str().to_owned());
            columns.unread.push(r.unread);
            columns.last_at.push(r.last_at);
            columns.last_text.push(r.last_text.clone());
            columns.said_at.push(r.last_said_at);
            columns.window_at.push(r.window_expires_at);
            columns.opens.push(r.opens);
        }
        columns
    }
}
