//! People of a batch → contacts, by alias; strangers become contacts.

use crate::{
    db::{error::Result, scope::FleetTx},
    domain::{
        ids::{ContactId, TenantId},
        people::{Alias, AliasKind, Person, PhoneNumber},
    },
};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use uuid::Uuid;

/// One person to be found or made.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Whose contact.
    pub tenant_id: TenantId,
    /// Who, as the webhook says; at least one alias, strongest first.
    pub person: Person,
    /// Further names that from now on mean the same person.
    pub new_aliases: Vec<Alias>,
}

type Key = (TenantId, AliasKind, String);

struct Known {
    contact_id: ContactId,
    name: Option<String>,
    username: Option<String>,
}

/// The contact of each person, in the order asked. A person met for the first time becomes a contact; a new name for a
/// known one is added; a changed display name is stored.
///
/// # Errors
/// If the database does not answer.
pub async fn resolve(tx: &mut FleetTx, wanted: &[Wanted]) -> Result<Vec<ContactId>> {
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let mut known = find(tx, wanted).await?;
    let mut claims: BTreeMap<Key, ContactId> = BTreeMap::new();
    let mut strangers: HashMap<ContactId, &Wanted> = HashMap::new();
    let mut assumed = Vec::with_capacity(wanted.len());
    for w in wanted {
        let keys = keys(w.tenant_id, &w.person.aliases);
        let found =
            keys.iter().find_map(|key| known.get(key).map(|k| k.contact_id).or_else(|| claims.get(key).copied()));
        let contact_id = found.unwrap_or_else(|| {
            let contact_id = ContactId::new();
            strangers.insert(contact_id, w);
            contact_id
        });
        assumed.push(contact_id);
        for key in keys.into_iter().chain(self::keys(w.tenant_id, &w.new_aliases)) {
            if !known.contains_key(&key) {
                claims.entry(key).or_insert(contact_id);
            }
        }
    }
    if !claims.is_empty() {
        for (key, contact_id) in claim(tx, &claims).await? {
            // One of ours is stored with its names below; whoever else was first may have others.
            let (name, username) = strangers
                .get(&contact_id)
                .map(|w| (w.person.name.clone(), w.person.username.clone()))
                .unwrap_or_default();
            known.insert(key, Known { contact_id, name, username });
        }
        join(tx, wanted, &assumed, &strangers, &mut known).await?;
        // Whoever won an alias makes the contact; the foreign key waits for the commit.
        let won: BTreeSet<ContactId> =
            known.values().map(|k| k.contact_id).filter(|id| strangers.contains_key(id)).collect();
        let rows: Vec<(ContactId, &Wanted)> = won.into_iter().map(|id| (id, strangers[&id])).collect();
        insert(tx, &rows).await?;
    }
    let contacts: Vec<ContactId> = wanted
        .iter()
        .map(|w| {
            let mut keys = keys(w.tenant_id, &w.person.aliases).into_iter();
            keys.find_map(|key| known.get(&key)).expect("every alias was found or claimed").contact_id
        })
        .collect();
    rename(tx, wanted, &contacts, &known).await?;
    Ok(contacts)
}

fn keys(tenant_id: TenantId, aliases: &[Alias]) -> Vec<Key> {
    aliases.iter().map(|alias| (tenant_id, alias.kind, alias.value.clone())).collect()
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

async fn find(tx: &mut FleetTx, wanted: &[Wanted]) -> Result<HashMap<Key, Known>> {
    let asked: BTreeSet<Key> = wanted
        .iter()
        .flat_map(|w| keys(w.tenant_id, &w.person.aliases).into_iter().chain(keys(w.tenant_id, &w.new_aliases)))
        .collect();
    let (tenants, kinds, values) = columns(asked.iter());
    // One look-up by key for each, whatever the planner thinks of the tables' sizes: on tables that had just begun to grow it
    // joined every name asked for with every contact of the tenant, and took seconds (LIMIT keeps the order of joining).
    let rows = sqlx::query!(
        r#"SELECT asked.tenant_id AS "tenant_id!", asked.kind AS "kind!", asked.value AS "value!", a.contact_id, c.name, c.username
        FROM unnest($1::uuid[], $2::text[], $3::text[]) AS asked (tenant_id, kind, value)
        CROSS JOIN LATERAL (
            SELECT contact_id
            FROM contact_aliases
            WHERE tenant_id = asked.tenant_id AND kind = asked.kind AND value = asked.value
            LIMIT 1
        ) AS a
        CROSS JOIN LATERAL (
            SELECT name, username FROM contacts WHERE tenant_id = asked.tenant_id AND id = a.contact_id LIMIT 1
        ) AS c"#,
        &tenants,
        &kinds,
        &values,
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(rows
        .into_iter()
        .filter_map(|row| {
            let key = (TenantId(row.tenant_id), AliasKind::from_name(&row.kind)?, row.value);
            Some((key, Known { contact_id: ContactId(row.contact_id), name: row.name, username: row.username }))
        })
        .collect())
}

/// Each alias goes to whoever was first; the answer names the owner. In key order, so that batches queue up instead of
/// waiting for each other in a circle.
async fn claim(tx: &mut FleetTx, claims: &BTreeMap<Key, ContactId>) -> Result<Vec<(Key, ContactId)>> {
    let (tenants, kinds, values) = columns(claims.keys());
    let contacts: Vec<Uuid> = claims.values().map(|id| id.0).collect();
    let rows = sqlx::query!(
        "INSERT INTO contact_aliases (tenant_id, kind, value, contact_id)
        SELECT tenant_id, kind, value, contact_id
        FROM unnest($1::uuid[], $2::text[], $3::text[], $4::uuid[]) AS claim (tenant_id, kind, value, contact_id)
        ORDER BY tenant_id, kind, value
        ON CONFLICT (tenant_id, kind, value) DO UPDATE SET value = excluded.value
        RETURNING tenant_id, kind, value, contact_id",
        &tenants,
        &kinds,
        &values,
        &contacts,
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
    wanted: &[Wanted],
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
            *k = Known { contact_id: *owner, name: None, username: None };
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
    let tenants: Vec<Uuid> = strangers.iter().map(|(_, w)| w.tenant_id.0).collect();
    let ids: Vec<Uuid> = strangers.iter().map(|(id, _)| id.0).collect();
    let names: Vec<Option<String>> = strangers.iter().map(|(_, w)| w.person.name.clone()).collect();
    let usernames: Vec<Option<String>> = strangers.iter().map(|(_, w)| w.person.username.clone()).collect();
    let phones: Vec<Option<String>> = strangers.iter().map(|(_, w)| phone(&w.person)).collect();
    sqlx::query!(
        "INSERT INTO contacts (tenant_id, id, name, username, phone)
        SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[])",
        &tenants,
        &ids,
        &names as &[Option<String>],
        &usernames as &[Option<String>],
        &phones as &[Option<String>],
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

fn phone(person: &Person) -> Option<String> {
    person.aliases.iter().find_map(|alias| match alias.kind {
        AliasKind::Phone => Some(alias.value.clone()),
        AliasKind::WhatsappId => PhoneNumber::from_whatsapp_id(&alias.value).map(|phone| phone.as_str().to_owned()),
        _ => None,
    })
}

/// Stores display names that differ from what is known.
async fn rename(
    tx: &mut FleetTx,
    wanted: &[Wanted],
    contacts: &[ContactId],
    known: &HashMap<Key, Known>,
) -> Result<()> {
    let mut changed: BTreeMap<(TenantId, ContactId), &Person> = BTreeMap::new();
    for (w, contact_id) in wanted.iter().zip(contacts) {
        let before = keys(w.tenant_id, &w.person.aliases).into_iter().find_map(|key| known.get(&key));
        let differs = |new: &Option<String>, old: Option<&String>| new.is_some() && new.as_ref() != old;
        let (name, username) = before.map(|k| (k.name.as_ref(), k.username.as_ref())).unwrap_or_default();
        if differs(&w.person.name, name) || differs(&w.person.username, username) {
            changed.insert((w.tenant_id, *contact_id), &w.person);
        }
    }
    if changed.is_empty() {
        return Ok(());
    }
    let tenants: Vec<Uuid> = changed.keys().map(|(tenant_id, _)| tenant_id.0).collect();
    let ids: Vec<Uuid> = changed.keys().map(|(_, id)| id.0).collect();
    let names: Vec<Option<String>> = changed.values().map(|p| p.name.clone()).collect();
    let usernames: Vec<Option<String>> = changed.values().map(|p| p.username.clone()).collect();
    sqlx::query!(
        "WITH new AS MATERIALIZED (
            SELECT c.tenant_id, c.id, coalesce(n.name, c.name) AS name, coalesce(n.username, c.username) AS username
            FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[]) AS n (tenant_id, id, name, username)
            JOIN contacts c ON c.tenant_id = n.tenant_id AND c.id = n.id
            WHERE (n.name IS NOT NULL AND n.name IS DISTINCT FROM c.name)
                OR (n.username IS NOT NULL AND n.username IS DISTINCT FROM c.username)
            ORDER BY c.tenant_id, c.id
            FOR UPDATE OF c
        )
        UPDATE contacts
        SET name = new.name, username = new.username
        FROM new
        WHERE contacts.tenant_id = new.tenant_id AND contacts.id = new.id",
        &tenants,
        &ids,
        &names as &[Option<String>],
        &usernames as &[Option<String>],
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}
