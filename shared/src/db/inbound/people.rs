//! People of a batch → contacts, by alias; strangers become contacts. What was told of somebody before they were erased has
//! nobody any more.

use crate::{
    db::{
        error::{Error, Result},
        scope::FleetTx,
        suppressions,
    },
    domain::{
        ids::{ChannelAccountId, ContactId, TenantId},
        people::{Alias, AliasKind, Person, PhoneNumber},
    },
};
use chrono::{DateTime, Utc};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use uuid::Uuid;

/// One person to be found or made.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Whose contact.
    pub tenant_id: TenantId,
    /// By which account they are known so: a Page's or a professional account's name for somebody is nobody at another's.
    pub channel_account_id: ChannelAccountId,
    /// Who, as the webhook says; at least one alias, strongest first.
    pub person: Person,
    /// Further names that from now on mean the same person.
    pub new_aliases: Vec<Alias>,
    /// The provider's time of what is told of them.
    pub at: DateTime<Utc>,
}

/// Two contacts who are one, as a person's new name says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Same {
    /// Whose.
    pub tenant_id: TenantId,
    /// Who has the new name from now on.
    pub contact_id: ContactId,
    /// Who had it.
    pub other: ContactId,
    /// What kind of name it is.
    pub kind: AliasKind,
}

/// The people of a batch.
#[derive(Debug, Default)]
pub struct People {
    /// The contact of each, in the order asked; `None`: they were erased after what is told of them.
    pub contacts: Vec<Option<ContactId>>,
    /// Those who turned out to be one.
    pub same: Vec<Same>,
    /// Those whose display name is known.
    pub named: HashSet<(TenantId, ContactId)>,
}

type Key = (TenantId, AliasKind, String);

/// Whose a name is to be.
#[derive(Clone, Copy)]
struct Claim {
    contact_id: ContactId,
    /// Where alone the name is one.
    channel_account_id: Option<ChannelAccountId>,
}

struct Known {
    contact_id: ContactId,
    name: Option<String>,
    username: Option<String>,
    named_at: Option<DateTime<Utc>>,
}

/// What is known of names.
#[derive(Default)]
struct Found {
    known: HashMap<Key, Known>,
    /// When who had the name was erased.
    erased: HashMap<Key, DateTime<Utc>>,
}

impl Found {
    /// Whether somebody who had one of these names was erased since.
    fn is_erased(&self, w: &Wanted) -> bool {
        !self.erased.is_empty()
            && keys(w.tenant_id, &w.person.aliases).iter().any(|key| self.erased.get(key).is_some_and(|at| w.at <= *at))
    }
}

/// The contact of each person, in the order asked. A person met for the first time becomes a contact; a new name for a
/// known one is added; a changed display name is stored.
///
/// # Errors
/// If the database does not answer.
pub async fn resolve(tx: &mut FleetTx, wanted: &[Wanted]) -> Result<People> {
    if wanted.is_empty() {
        return Ok(People::default());
    }
    let mut found = find(tx, wanted).await?;
    let told: Vec<bool> = wanted.iter().map(|w| !found.is_erased(w)).collect();
    let all = wanted;
    let wanted: Vec<&Wanted> = all.iter().zip(&told).filter(|(_, told)| **told).map(|(w, _)| w).collect();
    let wanted = wanted.as_slice();
    let Found { known, erased } = &mut found;
    let mut claims: BTreeMap<Key, Claim> = BTreeMap::new();
    let mut strangers: HashMap<ContactId, &Wanted> = HashMap::new();
    let mut assumed = Vec::with_capacity(wanted.len());
    for &w in wanted {
        let keys = keys(w.tenant_id, &w.person.aliases);
        let found =
            keys.iter().find_map(|key| known.get(key).map(|k| k.contact_id).or(claims.get(key).map(|c| c.contact_id)));
        let contact_id = found.unwrap_or_else(|| {
            let contact_id = ContactId::new();
            strangers.insert(contact_id, w);
            contact_id
        });
        assumed.push(contact_id);
        for key in keys.into_iter().chain(self::keys(w.tenant_id, &w.new_aliases)) {
            if !known.contains_key(&key) {
                let channel_account_id = key.1.is_of_one_account().then_some(w.channel_account_id);
                claims.entry(key).or_insert(Claim { contact_id, channel_account_id });
            }
        }
    }
    if !claims.is_empty() {
        let known_ones: BTreeSet<(TenantId, ContactId)> = claims
            .iter()
            .map(|((tenant_id, ..), claim)| (*tenant_id, claim.contact_id))
            .filter(|(_, id)| !strangers.contains_key(id))
            .collect();
        stay(tx, &known_ones).await?;
        for (key, contact_id) in claim(tx, &claims, erased).await? {
            // One of ours is stored with its names below; whoever else was first may have others.
            let (name, username, named_at) = strangers
                .get(&contact_id)
                .map(|w| (w.person.name.clone(), w.person.username.clone(), named_at(w)))
                .unwrap_or_default();
            known.insert(key, Known { contact_id, name, username, named_at });
        }
        join(tx, wanted, &assumed, &strangers, known).await?;
        // Whoever won an alias makes the contact; the foreign key waits for the commit.
        let won: BTreeSet<ContactId> =
            known.values().map(|k| k.contact_id).filter(|id| strangers.contains_key(id)).collect();
        let rows: Vec<(ContactId, &Wanted)> = won.into_iter().map(|id| (id, strangers[&id])).collect();
        insert(tx, &rows).await?;
        let back: Vec<(TenantId, ContactId, Vec<u8>)> = claims
            .keys()
            .filter(|key| erased.contains_key(*key))
            .filter_map(|key| Some((key.0, known.get(key)?.contact_id, digest(key))))
            .collect();
        suppressions::inherit(tx.conn(), &back).await?;
    }
    let contacts: Vec<ContactId> = wanted
        .iter()
        .map(|w| {
            let mut keys = keys(w.tenant_id, &w.person.aliases).into_iter();
            keys.find_map(|key| known.get(&key)).expect("every alias was found or claimed").contact_id
        })
        .collect();
    rename(tx, wanted, &contacts, known).await?;
    let same = same(wanted, &contacts, known);
    let named =
        known.iter().filter(|(_, k)| k.name.is_some()).map(|((tenant_id, ..), k)| (*tenant_id, k.contact_id)).collect();
    let mut contacts = contacts.into_iter();
    let contacts = told.into_iter().map(|told| if told { contacts.next() } else { None }).collect();
    Ok(People { contacts, same, named })
}

/// The contacts of people who are known, in the order asked. Nobody is made, and nothing is changed.
///
/// # Errors
/// If the database does not answer.
pub async fn known(tx: &mut FleetTx, wanted: &[Wanted]) -> Result<Vec<Option<ContactId>>> {
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let found = find(tx, wanted).await?;
    let contact = |w: &Wanted| {
        let mut keys = keys(w.tenant_id, &w.person.aliases).into_iter().filter(|_| !found.is_erased(w));
        keys.find_map(|key| found.known.get(&key)).map(|known| known.contact_id)
    };
    Ok(wanted.iter().map(contact).collect())
}

/// Those whose new name was another's.
fn same(wanted: &[&Wanted], contacts: &[ContactId], known: &HashMap<Key, Known>) -> Vec<Same> {
    let mut same = BTreeSet::new();
    for (w, contact_id) in wanted.iter().zip(contacts).filter(|(w, _)| !w.new_aliases.is_empty()) {
        for key in keys(w.tenant_id, &w.new_aliases) {
            let Some(other) = known.get(&key).map(|owner| owner.contact_id) else { continue };
            if other != *contact_id {
                same.insert(Same { tenant_id: w.tenant_id, contact_id: *contact_id, other, kind: key.1 });
            }
        }
    }
    same.into_iter().collect()
}

fn keys(tenant_id: TenantId, aliases: &[Alias]) -> Vec<Key> {
    aliases.iter().map(|alias| (tenant_id, alias.kind, alias.value.clone())).collect()
}

fn digest((tenant_id, kind, value): &Key) -> Vec<u8> {
    Alias { kind: *kind, value: value.clone() }.digest(*tenant_id).to_vec()
}

fn columns<'a>(keys: impl Iterator<Item = &'a Key>) -> (Vec<Uuid>, Vec<String>, Vec<String>) {
    let mut columns = (Vec::new(), Vec::new(), Vec::new());
    for (tenant_id, kind, value) in keys {
        columns.0.push(tenant_id.0);
        columns.1.push(kind.as_str().to_owned());
        columns.2.push(value.clone());
    }
    columns
}

async fn find(tx: &mut FleetTx, wanted: &[Wanted]) -> Result<Found> {
    let asked: BTreeSet<Key> = wanted
        .iter()
        .flat_map(|w| keys(w.tenant_id, &w.person.aliases).into_iter().chain(keys(w.tenant_id, &w.new_aliases)))
        .collect();
    let (tenants, kinds, values) = columns(asked.iter());
    let digests: Vec<Vec<u8>> = asked.iter().map(digest).collect();
    // One look-up by key for each, whatever the planner thinks of the tables' sizes: on tables that had just begun to grow it
    // joined every name asked for with every contact of the tenant, and took seconds (LIMIT keeps the order of joining). Only
    // where a name is nobody's it is looked whether it was somebody's.
    let rows = sqlx::query!(
        r#"SELECT asked.tenant_id AS "tenant_id!", asked.kind AS "kind!", asked.value AS "value!",
            coalesce(c.merged_into, a.contact_id) AS "contact_id?",
            coalesce(a.erased_before, e.erased_at) AS erased_at, c.name AS "name?", c.username AS "username?",
            c.named_at AS "named_at?"
        FROM unnest($1::uuid[], $2::text[], $3::text[], $4::bytea[]) AS asked (tenant_id, kind, value, digest)
        LEFT JOIN LATERAL (
            SELECT contact_id, erased_before
            FROM contact_aliases
            WHERE tenant_id = asked.tenant_id AND kind = asked.kind AND value = asked.value
            LIMIT 1
        ) AS a ON true
        LEFT JOIN LATERAL (
            SELECT name, username, named_at, merged_into FROM contacts WHERE tenant_id = asked.tenant_id AND id = a.contact_id LIMIT 1
        ) AS c ON true
        LEFT JOIN LATERAL (
            SELECT erased_at
            FROM erased_people
            WHERE a.contact_id IS NULL AND tenant_id = asked.tenant_id AND digest = asked.digest
            LIMIT 1
        ) AS e ON true
        WHERE a.contact_id IS NOT NULL OR e.erased_at IS NOT NULL"#,
        &tenants,
        &kinds,
        &values,
        &digests,
    )
    .fetch_all(tx.conn())
    .await?;
    let mut found = Found::default();
    for row in rows {
        let Some(kind) = AliasKind::from_name(&row.kind) else { continue };
        let key = (TenantId(row.tenant_id), kind, row.value);
        if let Some(erased_at) = row.erased_at {
            found.erased.insert(key.clone(), erased_at);
        }
        if let Some(contact_id) = row.contact_id.map(ContactId) {
            let (name, username, named_at) = (row.name, row.username, row.named_at);
            found.known.insert(key, Known { contact_id, name, username, named_at });
        }
    }
    Ok(found)
}

/// Sees to it that these contacts, who are given further names, are neither merged nor erased until this transaction ends: who does
/// so waits, and finds the names. If one is gone already, the batch is to be done again, and finds that.
async fn stay(tx: &mut FleetTx, contacts: &BTreeSet<(TenantId, ContactId)>) -> Result<()> {
    if contacts.is_empty() {
        return Ok(());
    }
    let tenants: Vec<Uuid> = contacts.iter().map(|(tenant_id, _)| tenant_id.0).collect();
    let ids: Vec<Uuid> = contacts.iter().map(|(_, id)| id.0).collect();
    let gone = sqlx::query_scalar!(
        r#"SELECT c.erased_at IS NOT NULL OR c.merged_into IS NOT NULL AS "gone!"
        FROM unnest($1::uuid[], $2::uuid[]) AS asked (tenant_id, id)
        -- By key and in the order given.
        CROSS JOIN LATERAL (
            SELECT erased_at, merged_into FROM contacts WHERE tenant_id = asked.tenant_id AND id = asked.id LIMIT 1 FOR KEY SHARE
        ) AS c"#,
        &tenants,
        &ids,
    )
    .fetch_all(tx.conn())
    .await?;
    if gone.contains(&true) {
        return Err(Error::contention("giving a name to a contact who was merged or erased meanwhile"));
    }
    Ok(())
}

/// Each alias goes to whoever was first; the answer names the owner. In key order, so that batches queue up instead of
/// waiting for each other in a circle.
async fn claim(
    tx: &mut FleetTx,
    claims: &BTreeMap<Key, Claim>,
    erased: &HashMap<Key, DateTime<Utc>>,
) -> Result<Vec<(Key, ContactId)>> {
    let (tenants, kinds, values) = columns(claims.keys());
    let contacts: Vec<Uuid> = claims.values().map(|claim| claim.contact_id.0).collect();
    let accounts: Vec<Option<Uuid>> = claims.values().map(|claim| claim.channel_account_id.map(|id| id.0)).collect();
    let erased: Vec<Option<DateTime<Utc>>> = claims.keys().map(|key| erased.get(key).copied()).collect();
    let rows = sqlx::query!(
        "INSERT INTO contact_aliases (tenant_id, kind, value, contact_id, erased_before, channel_account_id)
        SELECT tenant_id, kind, value, contact_id, erased_before, channel_account_id
        FROM unnest($1::uuid[], $2::text[], $3::text[], $4::uuid[], $5::timestamptz[], $6::uuid[])
            AS claim (tenant_id, kind, value, contact_id, erased_before, channel_account_id)
        ORDER BY tenant_id, kind, value
        ON CONFLICT (tenant_id, kind, value) DO UPDATE SET value = excluded.value
        RETURNING tenant_id, kind, value, contact_id",
        &tenants,
        &kinds,
        &values,
        &contacts,
        &erased as &[Option<DateTime<Utc>>],
        &accounts as &[Option<Uuid>],
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(rows
        .into_iter()
        .filter_map(|row| {
            Some(((TenantId(row.tenant_id), AliasKind::from_name(&row.kind)?, row.value), ContactId(row.contact_id)))
        })
        .collect())
}

/// Another batch was first with one name of a stranger of ours, who thus is no stranger: the other names, just claimed, are
/// given to the contact that is there, or one person would be two.
async fn join(
    tx: &mut FleetTx,
    wanted: &[&Wanted],
    assumed: &[ContactId],
    strangers: &HashMap<ContactId, &Wanted>,
    known: &mut HashMap<Key, Known>,
) -> Result<()> {
    let mut instead: HashMap<ContactId, ContactId> = HashMap::new();
    for (w, id) in wanted.iter().zip(assumed).filter(|(_, id)| strangers.contains_key(id)) {
        let names = keys(w.tenant_id, &w.person.aliases).into_iter().chain(keys(w.tenant_id, &w.new_aliases));
        let owner = names.filter_map(|key| known.get(&key)).map(|k| k.contact_id).find(|o| !strangers.contains_key(o));
        if let Some(owner) = owner {
            instead.entry(*id).or_insert(owner);
        }
    }
    let mut moved: BTreeMap<Key, ContactId> = BTreeMap::new();
    for (key, k) in known.iter_mut() {
        if let Some(owner) = instead.get(&k.contact_id) {
            *k = Known { contact_id: *owner, name: None, username: None, named_at: None };
            moved.insert(key.clone(), *owner);
        }
    }
    if moved.is_empty() {
        return Ok(());
    }
    let (tenants, kinds, values) = columns(moved.keys());
    let owners: Vec<Uuid> = moved.values().map(|id| id.0).collect();
    sqlx::query!(
        "UPDATE contact_aliases a
        SET contact_id = moved.contact_id
        FROM unnest($1::uuid[], $2::text[], $3::text[], $4::uuid[]) AS moved (tenant_id, kind, value, contact_id)
        WHERE a.tenant_id = moved.tenant_id AND a.kind = moved.kind AND a.value = moved.value",
        &tenants,
        &kinds,
        &values,
        &owners,
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

async fn insert(tx: &mut FleetTx, strangers: &[(ContactId, &Wanted)]) -> Result<()> {
    if strangers.is_empty() {
        return Ok(());
    }
    let tenants: Vec<Uuid> = strangers.iter().map(|(_, w)| w.tenant_id.0).collect();
    let ids: Vec<Uuid> = strangers.iter().map(|(id, _)| id.0).collect();
    let names: Vec<Option<String>> = strangers.iter().map(|(_, w)| w.person.name.clone()).collect();
    let usernames: Vec<Option<String>> = strangers.iter().map(|(_, w)| w.person.username.clone()).collect();
    let phones: Vec<Option<String>> = strangers.iter().map(|(_, w)| phone(&w.person)).collect();
    let times: Vec<Option<DateTime<Utc>>> = strangers.iter().map(|(_, w)| named_at(w)).collect();
    sqlx::query!(
        "INSERT INTO contacts (tenant_id, id, name, username, phone, named_at)
        SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::timestamptz[])",
        &tenants,
        &ids,
        &names as &[Option<String>],
        &usernames as &[Option<String>],
        &phones as &[Option<String>],
        &times as &[Option<DateTime<Utc>>],
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

fn named_at(w: &Wanted) -> Option<DateTime<Utc>> {
    (w.person.name.is_some() || w.person.username.is_some()).then_some(w.at)
}

fn phone(person: &Person) -> Option<String> {
    person.aliases.iter().find_map(|alias| match alias.kind {
        AliasKind::Phone => Some(alias.value.clone()),
        AliasKind::WhatsappId => PhoneNumber::from_whatsapp_id(&alias.value).map(|phone| phone.as_str().to_owned()),
        _ => None,
    })
}

/// Stores display names that differ from what is known and are newer.
async fn rename(
    tx: &mut FleetTx,
    wanted: &[&Wanted],
    contacts: &[ContactId],
    known: &HashMap<Key, Known>,
) -> Result<()> {
    // What was said last of each: a name that was told before it is none that differs from what is known.
    let mut changed: BTreeMap<(TenantId, ContactId), &Wanted> = BTreeMap::new();
    for (&w, contact_id) in wanted.iter().zip(contacts).filter(|(w, _)| named_at(w).is_some()) {
        let last = changed.entry((w.tenant_id, *contact_id)).or_insert(w);
        if (w.at, &w.person.name) > (last.at, &last.person.name) {
            *last = w;
        }
    }
    changed.retain(|_, w| {
        let before = keys(w.tenant_id, &w.person.aliases).into_iter().find_map(|key| known.get(&key));
        let differs = |new: &Option<String>, old: Option<&String>| new.is_some() && new.as_ref() != old;
        let (name, username) = before.map(|k| (k.name.as_ref(), k.username.as_ref())).unwrap_or_default();
        let is_older = before.and_then(|k| k.named_at).is_some_and(|named_at| w.at < named_at);
        !is_older && (differs(&w.person.name, name) || differs(&w.person.username, username))
    });
    if changed.is_empty() {
        return Ok(());
    }
    let tenants: Vec<Uuid> = changed.keys().map(|(tenant_id, _)| tenant_id.0).collect();
    let ids: Vec<Uuid> = changed.keys().map(|(_, id)| id.0).collect();
    let names: Vec<Option<String>> = changed.values().map(|w| w.person.name.clone()).collect();
    let usernames: Vec<Option<String>> = changed.values().map(|w| w.person.username.clone()).collect();
    let times: Vec<DateTime<Utc>> = changed.values().map(|w| w.at).collect();
    sqlx::query!(
        "WITH new AS MATERIALIZED (
            SELECT c.tenant_id, c.id, coalesce(n.name, c.name) AS name, coalesce(n.username, c.username) AS username, n.at
            FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::timestamptz[]) AS n (tenant_id, id, name, username, at)
            -- By key and in the order given.
            CROSS JOIN LATERAL (
                SELECT tenant_id, id, name, username
                FROM contacts
                WHERE tenant_id = n.tenant_id AND id = n.id
                    AND ((n.name IS NOT NULL AND n.name IS DISTINCT FROM name)
                        OR (n.username IS NOT NULL AND n.username IS DISTINCT FROM username))
                    -- Of two of the same second the later in the alphabet, whichever comes first.
                    AND (n.at, coalesce(n.name, '')) > (coalesce(named_at, '-infinity'), coalesce(name, ''))
                    -- Who is gone since gets no names back.
                    AND erased_at IS NULL AND merged_into IS NULL
                    -- A name that is told again is not written down again: who has said something since goes by the name that is known.
                    AND (named_at IS NULL OR NOT EXISTS (
                        SELECT
                        FROM conversations
                        WHERE tenant_id = n.tenant_id AND contact_id = n.id AND state <> 'resolved' AND last_inbound_at > n.at
                        UNION ALL
                        SELECT
                        FROM conversations
                        WHERE tenant_id = n.tenant_id AND contact_id = n.id AND state = 'resolved' AND last_inbound_at > n.at
                    ))
                LIMIT 1
                FOR NO KEY UPDATE
            ) AS c
        )
        UPDATE contacts
        SET name = new.name, username = new.username, named_at = new.at
        FROM new
        WHERE contacts.tenant_id = new.tenant_id AND contacts.id = new.id",
        &tenants,
        &ids,
        &names as &[Option<String>],
        &usernames as &[Option<String>],
        &times,
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}
