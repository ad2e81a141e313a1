//! Who does not want to be written to: for each contact and channel, by what it is about. What was said last by the provider's
//! time holds, in whatever order it comes; of two things said at the same time the stricter one.
//!
//! A person's wish binds from the commit that writes it. What waits of campaigns on the channel is ended in the same
//! transaction ([`end_sends`]); what is released beside it is found at the claim (`claim.sql` says why there is no gap).

use super::{
    FleetTx, TenantTx,
    audit::{self, Actor, Entry},
    error::{Error, Result},
    outbound::{counts::Moved, outcomes},
};
use crate::domain::{
    channel::Channel,
    consent::{Consent, Purpose},
    ids::{ContactId, MessageId, TenantId},
    people::Alias,
};
use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::PgConnection;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use uuid::Uuid;

/// What an opt-out or opt-in by hand is written down as.
pub const BY_HAND: &str = "by hand";

/// What is suppressed, or is not any more.
pub type Key = (TenantId, ContactId, Channel, Purpose);

/// What a person said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wish {
    /// Whether they want it.
    pub consent: Consent,
    /// When, by the provider's time.
    pub since: DateTime<Utc>,
    /// `keyword`, or the provider's word for how they said it.
    pub source: &'static str,
}

impl Wish {
    /// Whether it holds against the other, whichever came first.
    fn outweighs(&self, other: &Self) -> bool {
        (self.since, self.consent == Consent::OptedOut) > (other.since, other.consent == Consent::OptedOut)
    }
}

/// What people of a batch said; of each about each thing the last.
#[derive(Clone, Debug, Default)]
pub struct Wishes {
    of: BTreeMap<Key, Wish>,
    /// What was said by people who were erased since.
    of_erased: Vec<OfErased>,
}

/// What somebody said who was erased since, and of whom only names are left.
#[derive(Clone, Debug)]
struct OfErased {
    tenant_id: TenantId,
    aliases: Vec<Alias>,
    channel: Channel,
    purpose: Purpose,
    wish: Wish,
}

impl Wishes {
    /// Adds what somebody said.
    pub fn add(&mut self, key: Key, wish: Wish) {
        add(&mut self.of, key, wish);
    }

    /// Adds what somebody said who had these names, and was erased since.
    pub fn add_of_erased(
        &mut self,
        tenant_id: TenantId,
        aliases: &[Alias],
        channel: Channel,
        purpose: Purpose,
        wish: Wish,
    ) {
        self.of_erased.push(OfErased { tenant_id, aliases: aliases.to_vec(), channel, purpose, wish });
    }
}

fn add(wishes: &mut BTreeMap<Key, Wish>, key: Key, wish: Wish) {
    let last = wishes.entry(key).or_insert(wish);
    if wish.outweighs(last) {
        *last = wish;
    }
}

/// People of a batch who have opted out by it, each on a channel.
pub type OptedOut = Vec<(TenantId, ContactId, Channel)>;

/// A wish as it is kept.
#[derive(Clone, Debug)]
pub struct Suppression {
    /// On which channel.
    pub channel: String,
    /// marketing or all.
    pub purpose: String,
    /// opted_out or opted_in.
    pub state: String,
    /// Since when.
    pub since: DateTime<Utc>,
    /// keyword, by hand, or the provider's word.
    pub source: String,
    /// By hand: the token of the API that was used, if it was one.
    pub token_id: Option<Uuid>,
}

/// Writes down what people said; what is older than what is known changes nothing. Returns who opted out by it: their sends are
/// to be ended ([`end_sends`]) once it is the turn of sends in the order of locks.
///
/// # Errors
/// If the database does not answer.
#[must_use = "what waits for who opted out is to be ended"]
pub async fn set(tx: &mut FleetTx, wishes: &Wishes) -> Result<OptedOut> {
    let Wishes { of, of_erased } = wishes;
    let mut of = of.clone();
    if !of_erased.is_empty() {
        let news = keep(tx.conn(), of_erased).await?;
        for (key, wish) in of_who_has_their_names(tx.conn(), &news).await? {
            add(&mut of, key, wish);
        }
    }
    if of.is_empty() {
        return Ok(Vec::new());
    }
    let rows: Vec<(Key, Wish)> = of_those_who_stay(tx.conn(), of).await?.into_iter().collect();
    let changed = upsert(tx.conn(), &rows, None).await?;
    let mut out: OptedOut = changed
        .into_iter()
        .filter(|(_, consent)| *consent == Consent::OptedOut)
        .map(|((tenant_id, contact_id, channel, _), _)| (tenant_id, contact_id, channel))
        .collect();
    out.dedup();
    Ok(out)
}

/// What people wanted who were erased, as it is kept beside the digests of their names: of each thing the last. An opt-in is nobody's who
/// comes back; it is kept so that an opt-out from before, that comes again, is known to be older.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Kept {
    channel: String,
    purpose: String,
    /// Before that was kept, there were only opt-outs.
    #[serde(default = "opted_out")]
    state: Consent,
    since: DateTime<Utc>,
    source: String,
}

fn opted_out() -> Consent {
    Consent::OptedOut
}

/// Keeps what people said who were erased since beside the digests of their names. Which of it was news.
async fn keep<'a>(conn: &mut PgConnection, said: &'a [OfErased]) -> Result<Vec<&'a OfErased>> {
    let mut of: BTreeMap<(TenantId, Vec<u8>), Vec<usize>> = BTreeMap::new();
    for (place, said) in said.iter().enumerate() {
        for alias in &said.aliases {
            of.entry((said.tenant_id, alias.digest(said.tenant_id).to_vec())).or_default().push(place);
        }
    }
    let tenants: Vec<Uuid> = of.keys().map(|(tenant_id, _)| tenant_id.0).collect();
    let digests: Vec<Vec<u8>> = of.keys().map(|(_, digest)| digest.clone()).collect();
    let rows = sqlx::query!(
        r#"SELECT asked.tenant_id AS "tenant_id!", asked.digest AS "digest!", e.opted_out
        FROM unnest($1::uuid[], $2::bytea[]) AS asked (tenant_id, digest)
        CROSS JOIN LATERAL (
            SELECT opted_out FROM erased_people WHERE tenant_id = asked.tenant_id AND digest = asked.digest LIMIT 1 FOR UPDATE
        ) AS e"#,
        &tenants,
        &digests,
    )
    .fetch_all(&mut *conn)
    .await?;
    let mut news = BTreeSet::new();
    let (mut tenants, mut digests, mut kept) = (Vec::new(), Vec::new(), Vec::new());
    for row in rows {
        let key = (TenantId(row.tenant_id), row.digest);
        let mut wishes: Vec<Kept> = serde_json::from_value(row.opted_out).unwrap_or_default();
        let mut changed = false;
        for place in of.get(&key).into_iter().flatten() {
            if said[*place].outweighs_in(&mut wishes) {
                changed = true;
                news.insert(*place);
            }
        }
        if changed {
            tenants.push(key.0.0);
            digests.push(key.1);
            kept.push(json!(wishes));
        }
    }
    if !news.is_empty() {
        sqlx::query!(
            "UPDATE erased_people e
            SET opted_out = kept.opted_out
            FROM unnest($1::uuid[], $2::bytea[], $3::jsonb[]) AS kept (tenant_id, digest, opted_out)
            WHERE e.tenant_id = kept.tenant_id AND e.digest = kept.digest",
            &tenants,
            &digests,
            &kept,
        )
        .execute(conn)
        .await?;
    }
    Ok(news.into_iter().map(|place| &said[place]).collect())
}

impl OfErased {
    /// Takes its place among what is kept, if it was said last. Whether it was.
    fn outweighs_in(&self, kept: &mut Vec<Kept>) -> bool {
        let OfErased { channel, purpose, wish, .. } = self;
        let new = Kept {
            channel: channel.as_str().to_owned(),
            purpose: purpose.as_str().to_owned(),
            state: wish.consent,
            since: wish.since,
            source: wish.source.to_owned(),
        };
        let last = kept.iter_mut().find(|kept| kept.channel == new.channel && kept.purpose == new.purpose);
        match last {
            None => kept.push(new),
            Some(last) => {
                let before = Wish { consent: last.state, since: last.since, source: wish.source };
                if !wish.outweighs(&before) {
                    return false;
                }
                *last = new;
            }
        }
        true
    }
}

/// What was said by people who were erased since, as said by who has their names now: they are the same.
async fn of_who_has_their_names(conn: &mut PgConnection, said: &[&OfErased]) -> Result<Vec<(Key, Wish)>> {
    let names: Vec<(&OfErased, &Alias)> =
        said.iter().flat_map(|said| said.aliases.iter().map(move |alias| (*said, alias))).collect();
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let tenants: Vec<Uuid> = names.iter().map(|(said, _)| said.tenant_id.0).collect();
    let kinds: Vec<String> = names.iter().map(|(_, alias)| alias.kind.as_str().to_owned()).collect();
    let values: Vec<String> = names.iter().map(|(_, alias)| alias.value.clone()).collect();
    let rows = sqlx::query!(
        r#"SELECT asked.place AS "place!", a.contact_id AS "contact_id!: ContactId"
        FROM unnest($1::uuid[], $2::text[], $3::text[]) WITH ORDINALITY AS asked (tenant_id, kind, value, place)
        CROSS JOIN LATERAL (
            SELECT contact_id
            FROM contact_aliases
            WHERE tenant_id = asked.tenant_id AND kind = asked.kind AND value = asked.value
            LIMIT 1
        ) AS a"#,
        &tenants,
        &kinds,
        &values,
    )
    .fetch_all(conn)
    .await?;
    let wish = |place: i64, contact_id| {
        let (said, _) = names.get(usize::try_from(place).ok()?.checked_sub(1)?)?;
        Some(((said.tenant_id, contact_id, said.channel, said.purpose), said.wish))
    };
    Ok(rows.into_iter().filter_map(|row| wish(row.place, row.contact_id)).collect())
}

/// What people said, as said by who they were merged into since the batch found them. They stay that until this transaction ends: who
/// merges or erases them waits, and then finds what is written here. If one was erased, the batch is to be done again, and finds that.
async fn of_those_who_stay(conn: &mut PgConnection, mut wishes: BTreeMap<Key, Wish>) -> Result<BTreeMap<Key, Wish>> {
    // Who stayed may be merged, too, before it is locked; that twice in the time of one batch is nobody's.
    for _ in 0..3 {
        let asked: BTreeSet<(TenantId, ContactId)> =
            wishes.keys().map(|(tenant, contact, ..)| (*tenant, *contact)).collect();
        let tenants: Vec<Uuid> = asked.iter().map(|(tenant_id, _)| tenant_id.0).collect();
        let contacts: Vec<Uuid> = asked.iter().map(|(_, id)| id.0).collect();
        let rows = sqlx::query!(
            // By key (LIMIT keeps the order of joining), and in the order given.
            r#"SELECT asked.tenant_id AS "tenant_id!: TenantId", asked.id AS "id!: ContactId",
                c.merged_into AS "merged_into: ContactId", c.erased_at IS NOT NULL AS "erased!"
            FROM unnest($1::uuid[], $2::uuid[]) AS asked (tenant_id, id)
            CROSS JOIN LATERAL (
                SELECT merged_into, erased_at FROM contacts WHERE tenant_id = asked.tenant_id AND id = asked.id LIMIT 1 FOR KEY SHARE
            ) AS c"#,
            &tenants,
            &contacts,
        )
        .fetch_all(&mut *conn)
        .await?;
        if rows.iter().any(|row| row.erased) {
            return Err(Error::contention("writing down what somebody wants who was erased meanwhile"));
        }
        let gone: HashMap<(TenantId, ContactId), ContactId> =
            rows.into_iter().filter_map(|row| Some(((row.tenant_id, row.id), row.merged_into?))).collect();
        if gone.is_empty() {
            break;
        }
        let mut staying = BTreeMap::new();
        for ((tenant_id, contact_id, channel, purpose), wish) in wishes {
            let who = gone.get(&(tenant_id, contact_id)).copied().unwrap_or(contact_id);
            add(&mut staying, (tenant_id, who, channel, purpose), wish);
        }
        wishes = staying;
    }
    Ok(wishes)
}

async fn upsert(
    conn: &mut PgConnection,
    wishes: &[(Key, Wish)],
    token_id: Option<Uuid>,
) -> Result<Vec<(Key, Consent)>> {
    let tenants: Vec<Uuid> = wishes.iter().map(|((tenant_id, ..), _)| tenant_id.0).collect();
    let contacts: Vec<Uuid> = wishes.iter().map(|((_, contact_id, ..), _)| contact_id.0).collect();
    let channels: Vec<String> = wishes.iter().map(|((.., channel, _), _)| channel.as_str().to_owned()).collect();
    let purposes: Vec<String> = wishes.iter().map(|((.., purpose), _)| purpose.as_str().to_owned()).collect();
    let states: Vec<String> = wishes.iter().map(|(_, wish)| wish.consent.as_str().to_owned()).collect();
    let times: Vec<DateTime<Utc>> = wishes.iter().map(|(_, wish)| wish.since).collect();
    let sources: Vec<String> = wishes.iter().map(|(_, wish)| wish.source.to_owned()).collect();
    let rows = sqlx::query!(
        r#"INSERT INTO suppressions AS s (tenant_id, contact_id, channel, purpose, state, since, source, token_id)
        SELECT tenant_id, contact_id, channel, purpose, state, since, source, $8
        FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::timestamptz[], $7::text[])
            AS said (tenant_id, contact_id, channel, purpose, state, since, source)
        ORDER BY tenant_id, contact_id, channel, purpose
        ON CONFLICT (tenant_id, contact_id, channel, purpose) DO UPDATE
        SET state = excluded.state, since = excluded.since, source = excluded.source, token_id = excluded.token_id,
            changed_at = clock_timestamp()
        -- As Wish::outweighs.
        WHERE (excluded.since, excluded.state = 'opted_out') > (s.since, s.state = 'opted_out')
        RETURNING tenant_id, contact_id, channel, purpose, state"#,
        &tenants,
        &contacts,
        &channels,
        &purposes,
        &states,
        &times,
        &sources,
        token_id,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .filter_map(|row| {
            let (channel, purpose) = (Channel::from_name(&row.channel)?, Purpose::from_name(&row.purpose)?);
            let key = (TenantId(row.tenant_id), ContactId(row.contact_id), channel, purpose);
            Some((key, Consent::from_name(&row.state)?))
        })
        .collect())
}

/// What somebody had opted out of before they were erased holds for who comes back by the name, of which only the digest is known.
pub(super) async fn inherit(conn: &mut PgConnection, names: &[(TenantId, ContactId, Vec<u8>)]) -> Result<()> {
    if names.is_empty() {
        return Ok(());
    }
    let tenants: Vec<Uuid> = names.iter().map(|(tenant_id, ..)| tenant_id.0).collect();
    let contacts: Vec<Uuid> = names.iter().map(|(_, id, _)| id.0).collect();
    let digests: Vec<Vec<u8>> = names.iter().map(|(.., digest)| digest.clone()).collect();
    sqlx::query!(
        "INSERT INTO suppressions AS s (tenant_id, contact_id, channel, purpose, state, since, source)
        SELECT DISTINCT ON (name.tenant_id, name.contact_id, o.channel, o.purpose)
            name.tenant_id, name.contact_id, o.channel, o.purpose, 'opted_out', o.since, o.source
        FROM unnest($1::uuid[], $2::uuid[], $3::bytea[]) AS name (tenant_id, contact_id, digest)
        CROSS JOIN LATERAL (
            SELECT opted_out FROM erased_people WHERE tenant_id = name.tenant_id AND digest = name.digest LIMIT 1
        ) AS e
        CROSS JOIN LATERAL jsonb_to_recordset(e.opted_out)
            AS o (channel text, purpose text, state text, since timestamptz, source text)
        WHERE coalesce(o.state, 'opted_out') = 'opted_out'
        ORDER BY name.tenant_id, name.contact_id, o.channel, o.purpose, o.since DESC
        ON CONFLICT (tenant_id, contact_id, channel, purpose) DO UPDATE
        SET state = excluded.state, since = excluded.since, source = excluded.source, token_id = excluded.token_id,
            changed_at = clock_timestamp()
        -- As Wish::outweighs.
        WHERE (excluded.since, excluded.state = 'opted_out') > (s.since, s.state = 'opted_out')",
        &tenants,
        &contacts,
        &digests,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Ends what campaigns have waiting for these people on these channels, unless somebody has claimed it. Returns what moved, to be
/// counted when all else is done. Whoever is not released yet is skipped when it is their turn.
///
/// # Errors
/// If the database does not answer.
#[must_use = "what moved is to be counted"]
pub async fn end_sends(tx: &mut FleetTx, people: &OptedOut) -> Result<Vec<Moved>> {
    if people.is_empty() {
        return Ok(Vec::new());
    }
    let tenants: Vec<Uuid> = people.iter().map(|(tenant_id, ..)| tenant_id.0).collect();
    let contacts: Vec<Uuid> = people.iter().map(|(_, contact_id, _)| contact_id.0).collect();
    let channels: Vec<String> = people.iter().map(|(.., channel)| channel.as_str().to_owned()).collect();
    // Conversations have one index for those that are open and one for the others.
    let waiting = sqlx::query!(
        r#"SELECT s.tenant_id AS "tenant_id!: TenantId", s.message_id AS "message_id!: MessageId"
        FROM unnest($1::uuid[], $2::uuid[], $3::text[]) AS out (tenant_id, contact_id, channel)
        CROSS JOIN LATERAL (
            SELECT id, channel_account_id
            FROM conversations
            WHERE tenant_id = out.tenant_id AND contact_id = out.contact_id AND state <> 'resolved'
            UNION ALL
            SELECT id, channel_account_id
            FROM conversations
            WHERE tenant_id = out.tenant_id AND contact_id = out.contact_id AND state = 'resolved'
        ) AS v
        JOIN channel_accounts a ON a.tenant_id = out.tenant_id AND a.id = v.channel_account_id AND a.channel = out.channel
        CROSS JOIN LATERAL (
            SELECT tenant_id, message_id
            FROM sends
            WHERE tenant_id = out.tenant_id AND conversation_id = v.id AND lane = $4 AND state IN ('waiting', 'queued')
        ) AS s"#,
        &tenants,
        &contacts,
        &channels,
        super::outbound::turns::CAMPAIGN_LANE,
    )
    .fetch_all(tx.conn())
    .await?;
    let mut sends: Vec<(TenantId, MessageId)> =
        waiting.into_iter().map(|row| (row.tenant_id, row.message_id)).collect();
    sends.sort_unstable();
    sends.dedup();
    outcomes::refuse(tx, &sends, outcomes::OPTED_OUT, outcomes::OPTED_OUT_REASON).await
}

/// What is known of a contact's wishes.
///
/// # Errors
/// If the database does not answer.
pub async fn list(tx: &mut TenantTx, contact_id: ContactId) -> Result<Vec<Suppression>> {
    let tenant_id = tx.tenant_id();
    let rows = sqlx::query_as!(
        Suppression,
        "SELECT channel, purpose, state, since, source, token_id
        FROM suppressions
        WHERE tenant_id = $1 AND contact_id = $2
        ORDER BY channel, purpose",
        tenant_id.0,
        contact_id.0,
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(rows)
}

/// Writes down by hand what a person wants, or who they were merged into, as of now. What campaigns have waiting for them is ended
/// when it is its turn; what it takes the place of is in the audit. Whether that changed anything; who opts out again only does so as of
/// now, too.
///
/// # Errors
/// If the database does not answer.
pub async fn set_by_hand(
    tx: &mut TenantTx,
    contact_id: ContactId,
    channel: Channel,
    purpose: Purpose,
    consent: Consent,
    actor: Actor,
) -> Result<bool> {
    let tenant_id = tx.tenant_id();
    // Who merges or erases them waits, and then finds this.
    let who = sqlx::query_scalar!(
        r#"SELECT coalesce(merged_into, id) AS "who!: ContactId" FROM contacts WHERE tenant_id = $1 AND id = $2 FOR KEY SHARE"#,
        tenant_id.0,
        contact_id.0,
    )
    .fetch_optional(tx.conn())
    .await?;
    let contact_id = who.unwrap_or(contact_id);
    let before = sqlx::query!(
        r#"SELECT clock_timestamp() AS "now!", s.state AS "state?", s.since AS "since?", s.source AS "source?"
        FROM (SELECT) AS one
        LEFT JOIN suppressions s ON s.tenant_id = $1 AND s.contact_id = $2 AND s.channel = $3 AND s.purpose = $4"#,
        tenant_id.0,
        contact_id.0,
        channel.as_str(),
        purpose.as_str(),
    )
    .fetch_one(tx.conn())
    .await?;
    let again = before.state.as_deref() == Some(consent.as_str());
    if again && consent == Consent::OptedIn {
        return Ok(false);
    }
    // Most providers tell whole seconds: a STOP later in this one is to hold against an opt-in by hand. What was said by hand before is
    // known to be before.
    let said_by_hand = before.since.filter(|_| before.source.as_deref() == Some(BY_HAND));
    let since = match (consent, said_by_hand) {
        (Consent::OptedOut, _) => before.now,
        (Consent::OptedIn, None) => before.now.trunc_subsecs(0),
        (Consent::OptedIn, Some(earlier)) => before.now.trunc_subsecs(0).max(earlier + TimeDelta::microseconds(1)),
    };
    let wish = Wish { consent, since, source: BY_HAND };
    let token_id = match actor {
        Actor::Token(id) => Some(id.0),
        Actor::Operator => None,
    };
    let changed = upsert(tx.conn(), &[((tenant_id, contact_id, channel, purpose), wish)], token_id).await?;
    if changed.is_empty() {
        return Ok(false);
    }
    let action = match consent {
        Consent::OptedOut => "contact.opted_out",
        Consent::OptedIn => "contact.opted_in",
    };
    let mut details =
        json!({"channel": channel, "purpose": purpose, "before": before.state, "after": consent.as_str()});
    // What this takes the place of is proof of what the person said.
    if let (Some(since), Some(source)) = (before.since, before.source) {
        details["before_since"] = json!(since);
        details["before_source"] = source.into();
    }
    let entry = Entry { actor, action, target_kind: "contact", target_id: contact_id.0, details };
    audit::record(tx, &entry).await?;
    Ok(!again)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_last_holds_and_at_the_same_time_the_stricter() {
        let (now, key) =
            (DateTime::UNIX_EPOCH, (TenantId::new(), ContactId::new(), Channel::Whatsapp, Purpose::Marketing));
        let wish = |consent, seconds| Wish { consent, since: now + TimeDelta::seconds(seconds), source: "keyword" };
        use Consent::{OptedIn, OptedOut};
        for (said, holds) in [
            ([wish(OptedOut, 1), wish(OptedIn, 2)], OptedIn),
            ([wish(OptedIn, 1), wish(OptedOut, 2)], OptedOut),
            ([wish(OptedIn, 1), wish(OptedOut, 1)], OptedOut),
        ] {
            for order in [[0, 1], [1, 0]] {
                let mut wishes = Wishes::default();
                order.iter().for_each(|n| wishes.add(key, said[*n]));
                assert_eq!(wishes.of[&key].consent, holds, "{said:?} in the order {order:?}");
            }
        }
    }
}
