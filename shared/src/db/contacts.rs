//! People, as the API makes and shows them. (What a webhook says about people is written by `inbound`.)

use super::{TenantTx, error::Result, suppressions};
use crate::domain::{
    ids::{ContactId, TenantId},
    people::{Alias, AliasKind, PhoneNumber},
};
use chrono::{DateTime, Utc};
use serde_json::Value;
use std::collections::HashSet;
use uuid::Uuid;

/// A person.
#[derive(Clone, Debug)]
pub struct Contact {
    /// Its id.
    pub id: ContactId,
    /// The name, if known.
    pub name: Option<String>,
    /// The provider's user name, if known.
    pub username: Option<String>,
    /// E.164, if known.
    pub phone: Option<String>,
    /// The language in which they are written to, if that is known.
    pub language: Option<String>,
    /// Since when we know it.
    pub created_at: DateTime<Utc>,
    /// The names providers have for it: `[{"kind", "value"}]`.
    pub aliases: Value,
    /// Whether there is a copy of their picture.
    pub has_avatar: bool,
}

/// What became of creating a contact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Created {
    /// It is new.
    New(ContactId),
    /// The number belongs to this one already.
    Exists(ContactId),
}

/// One of many contacts to be known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewContact {
    /// The number; no two of one call have the same.
    pub phone: PhoneNumber,
    /// The number as it was written.
    pub phone_raw: String,
    /// The name, if given.
    pub name: Option<String>,
}

/// What became of many contacts; together as many as were given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CreatedMany {
    /// So many are new.
    pub created: u64,
    /// So many numbers belong to a contact already.
    pub existing: u64,
}

/// Makes a contact. A number names one person of a tenant only.
///
/// # Errors
/// If the database does not answer.
pub async fn create(
    tx: &mut TenantTx,
    name: Option<&str>,
    phone: &PhoneNumber,
    phone_raw: &str,
    language: Option<&str>,
) -> Result<Created> {
    let tenant_id = tx.tenant_id();
    let id = ContactId::new();
    // The alias decides who was first; its foreign key waits for the commit.
    let won = sqlx::query!(
        "INSERT INTO contact_aliases (tenant_id, kind, value, contact_id, erased_before)
        VALUES ($1, $2, $3, $4, (SELECT erased_at FROM erased_people WHERE tenant_id = $1 AND digest = $5))
        ON CONFLICT (tenant_id, kind, value) DO NOTHING",
        tenant_id.0,
        AliasKind::Phone.as_str(),
        phone.as_str(),
        id.0,
        &digest(tenant_id, phone),
    )
    .execute(tx.conn())
    .await?;
    if won.rows_affected() == 0 {
        let existing = sqlx::query_scalar!(
            r#"SELECT contact_id AS "id: ContactId"
            FROM contact_aliases
            WHERE tenant_id = $1 AND kind = $2 AND value = $3"#,
            tenant_id.0,
            AliasKind::Phone.as_str(),
            phone.as_str(),
        )
        .fetch_one(tx.conn())
        .await?;
        return Ok(Created::Exists(existing));
    }
    sqlx::query!(
        "INSERT INTO contacts (tenant_id, id, name, phone, phone_raw, language) VALUES ($1, $2, $3, $4, $5, $6)",
        tenant_id.0,
        id.0,
        name,
        phone.as_str(),
        phone_raw,
        language,
    )
    .execute(tx.conn())
    .await?;
    suppressions::inherit(tx.conn(), &[(tenant_id, id, digest(tenant_id, phone))]).await?;
    Ok(Created::New(id))
}

/// By what it is known that who had the number was erased.
fn digest(tenant_id: TenantId, phone: &PhoneNumber) -> Vec<u8> {
    Alias { kind: AliasKind::Phone, value: phone.as_str().to_owned() }.digest(tenant_id).to_vec()
}

/// Makes many contacts, one statement a table. A number that is known makes none; its contact takes the name if it has none.
///
/// # Errors
/// If the database does not answer; contention if another holds one of the numbers longer than the lock timeout.
pub async fn create_many(tx: &mut TenantTx, new: &[NewContact]) -> Result<CreatedMany> {
    // Made in the order given, so that the index of contacts grows on the right.
    let new: Vec<(ContactId, &NewContact)> = new.iter().map(|contact| (ContactId::new(), contact)).collect();
    let ours = claim(tx, &new).await?;
    let (won, known): (Vec<_>, Vec<_>) = new.into_iter().partition(|(id, _)| ours.contains(id));
    insert(tx, &won).await?;
    let tenant_id = tx.tenant_id();
    let names: Vec<_> = won.iter().map(|(id, contact)| (tenant_id, *id, digest(tenant_id, &contact.phone))).collect();
    suppressions::inherit(tx.conn(), &names).await?;
    let named: Vec<&NewContact> =
        known.iter().map(|(_, contact)| *contact).filter(|contact| contact.name.is_some()).collect();
    if !named.is_empty() {
        name_nameless(tx, &named).await?;
    }
    Ok(CreatedMany { created: won.len() as u64, existing: known.len() as u64 })
}

/// Each number goes to whoever was first; the answer says which of ours were. In key order, as the inbound batches claim them,
/// so that all queue up instead of waiting for each other in a circle.
async fn claim(tx: &mut TenantTx, new: &[(ContactId, &NewContact)]) -> Result<HashSet<ContactId>> {
    let tenant_id = tx.tenant_id();
    let values: Vec<&str> = new.iter().map(|(_, contact)| contact.phone.as_str()).collect();
    let ids: Vec<Uuid> = new.iter().map(|(id, _)| id.0).collect();
    let digests: Vec<Vec<u8>> = new.iter().map(|(_, contact)| digest(tenant_id, &contact.phone)).collect();
    let won = sqlx::query_scalar!(
        r#"INSERT INTO contact_aliases (tenant_id, kind, value, contact_id, erased_before)
        SELECT $1, $2, new.value, new.contact_id, e.erased_at
        FROM unnest($3::text[], $4::uuid[], $5::bytea[]) AS new (value, contact_id, digest)
        LEFT JOIN LATERAL (SELECT erased_at FROM erased_people WHERE tenant_id = $1 AND digest = new.digest LIMIT 1) AS e ON true
        ORDER BY new.value
        ON CONFLICT (tenant_id, kind, value) DO NOTHING
        RETURNING contact_id AS "id: ContactId""#,
        tenant_id.0,
        AliasKind::Phone.as_str(),
        &values as &[&str],
        &ids,
        &digests,
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(won.into_iter().collect())
}

async fn insert(tx: &mut TenantTx, new: &[(ContactId, &NewContact)]) -> Result<()> {
    let tenant_id = tx.tenant_id();
    let ids: Vec<Uuid> = new.iter().map(|(id, _)| id.0).collect();
    let names: Vec<Option<&str>> = new.iter().map(|(_, contact)| contact.name.as_deref()).collect();
    let phones: Vec<&str> = new.iter().map(|(_, contact)| contact.phone.as_str()).collect();
    let raws: Vec<&str> = new.iter().map(|(_, contact)| contact.phone_raw.as_str()).collect();
    sqlx::query!(
        "INSERT INTO contacts (tenant_id, id, name, phone, phone_raw)
        SELECT $1, id, name, phone, phone_raw
        FROM unnest($2::uuid[], $3::text[], $4::text[], $5::text[]) AS new (id, name, phone, phone_raw)",
        tenant_id.0,
        &ids,
        &names as &[Option<&str>],
        &phones as &[&str],
        &raws as &[&str],
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

async fn name_nameless(tx: &mut TenantTx, named: &[&NewContact]) -> Result<()> {
    let tenant_id = tx.tenant_id();
    let values: Vec<&str> = named.iter().map(|contact| contact.phone.as_str()).collect();
    let names: Vec<Option<&str>> = named.iter().map(|contact| contact.name.as_deref()).collect();
    // One look-up by key for each (LIMIT keeps the order of joining), as in `inbound::people`.
    sqlx::query!(
        "WITH nameless AS MATERIALIZED (
            SELECT c.id, named.name
            FROM unnest($3::text[], $4::text[]) AS named (value, name)
            CROSS JOIN LATERAL (
                SELECT contact_id
                FROM contact_aliases
                WHERE tenant_id = $1 AND kind = $2 AND value = named.value
                LIMIT 1
            ) AS a
            JOIN contacts c ON c.tenant_id = $1 AND c.id = a.contact_id
            WHERE c.name IS NULL AND c.erased_at IS NULL AND c.merged_into IS NULL
            ORDER BY c.id
            FOR NO KEY UPDATE OF c
        )
        UPDATE contacts
        SET name = nameless.name
        FROM nameless
        WHERE contacts.tenant_id = $1 AND contacts.id = nameless.id",
        tenant_id.0,
        AliasKind::Phone.as_str(),
        &values as &[&str],
        &names as &[Option<&str>],
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// One contact; who it was merged into, if it was. Who was erased is nobody.
///
/// # Errors
/// If the database does not answer.
pub async fn find(tx: &mut TenantTx, id: ContactId) -> Result<Option<Contact>> {
    let tenant_id = tx.tenant_id();
    let contact = sqlx::query_as!(
        Contact,
        r#"SELECT c.id AS "id: ContactId", c.name, c.username, c.phone, c.language, c.created_at, a.aliases AS "aliases!",
            EXISTS (
                SELECT FROM contact_profiles f WHERE f.tenant_id = c.tenant_id AND f.contact_id = c.id AND f.storage_key IS NOT NULL
            ) AS "has_avatar!"
        FROM contacts c
        CROSS JOIN LATERAL (
            SELECT COALESCE(jsonb_agg(jsonb_build_object('kind', kind, 'value', value) ORDER BY created_at, kind), '[]') AS aliases
            FROM contact_aliases
            WHERE tenant_id = c.tenant_id AND contact_id = c.id
        ) a
        WHERE c.tenant_id = $1 AND c.erased_at IS NULL
            AND c.id = (SELECT coalesce(merged_into, id) FROM contacts WHERE tenant_id = $1 AND id = $2)"#,
        tenant_id.0,
        id.0,
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(contact)
}

/// Sets the language in which a contact is written to, or that none is known. Whether there is such a contact.
///
/// # Errors
/// If the database does not answer.
pub async fn set_language(tx: &mut TenantTx, id: ContactId, language: Option<&str>) -> Result<bool> {
    let tenant_id = tx.tenant_id();
    let done = sqlx::query!(
        "UPDATE contacts
        SET language = $3
        WHERE tenant_id = $1 AND erased_at IS NULL
            AND id = (SELECT coalesce(merged_into, id) FROM contacts WHERE tenant_id = $1 AND id = $2)",
        tenant_id.0,
        id.0,
        language,
    )
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected() == 1)
}

/// A page of contacts, the newest first, below `before`.
///
/// # Errors
/// If the database does not answer.
pub async fn list(tx: &mut TenantTx, before: Option<ContactId>, limit: i64) -> Result<Vec<Contact>> {
    let tenant_id = tx.tenant_id();
    let contacts = sqlx::query_as!(
        Contact,
        r#"SELECT c.id AS "id: ContactId", c.name, c.username, c.phone, c.language, c.created_at, a.aliases AS "aliases!",
            EXISTS (
                SELECT FROM contact_profiles f WHERE f.tenant_id = c.tenant_id AND f.contact_id = c.id AND f.storage_key IS NOT NULL
            ) AS "has_avatar!"
        FROM (
            SELECT tenant_id, id, name, username, phone, language, created_at
            FROM contacts
            WHERE tenant_id = $1 AND id < COALESCE($2, 'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid)
                AND merged_into IS NULL AND erased_at IS NULL
            ORDER BY id DESC
            LIMIT $3
        ) c
        CROSS JOIN LATERAL (
            SELECT COALESCE(jsonb_agg(jsonb_build_object('kind', kind, 'value', value) ORDER BY created_at, kind), '[]') AS aliases
            FROM contact_aliases
            WHERE tenant_id = c.tenant_id AND contact_id = c.id
        ) a
        ORDER BY c.id DESC"#,
        tenant_id.0,
        before.map(|id| id.0),
        limit,
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(contacts)
}

/// The contacts a number belongs to: one, unless it is one's number and another's WhatsApp id.
///
/// # Errors
/// If the database does not answer.
pub async fn by_phone(tx: &mut TenantTx, phone: &PhoneNumber) -> Result<Vec<Contact>> {
    let tenant_id = tx.tenant_id();
    let ids = sqlx::query_scalar!(
        "SELECT contact_id FROM contact_aliases WHERE tenant_id = $1 AND kind = $2 AND value = $3
        UNION
        SELECT contact_id FROM contact_aliases WHERE tenant_id = $1 AND kind = $4 AND value = $5",
        tenant_id.0,
        AliasKind::Phone.as_str(),
        phone.as_str(),
        AliasKind::WhatsappId.as_str(),
        phone.digits(),
    )
    .fetch_all(tx.conn())
    .await?;
    let ids: Vec<Uuid> = ids.into_iter().flatten().collect();
    these(tx, &ids).await
}

/// A page of the contacts whose name begins so, whatever the case of its letters, by name, behind `after`.
///
/// # Errors
/// If the database does not answer.
pub async fn by_name(tx: &mut TenantTx, beginning: &str, after: Option<ContactId>, limit: i64) -> Result<Vec<Contact>> {
    let tenant_id = tx.tenant_id();
    // Behind `after` come others of its name, then later names. Comparing both columns at once would say so in a line, but under
    // row-level security no index is used for that, nor for a bare coalesce(). No name goes on with the last character there is.
    let ids = sqlx::query_scalar!(
        r#"SELECT page.id AS "id!"
        FROM (
            (
                SELECT id, name_key
                FROM contacts
                WHERE tenant_id = $1 AND id > $3
                    AND name_key = (SELECT name_key FROM contacts WHERE tenant_id = $1 AND id = $3)
                ORDER BY name_key, id
                LIMIT $4
            )
            UNION ALL
            (
                SELECT id, name_key
                FROM contacts
                WHERE tenant_id = $1 AND name_key >= lower($2::text) AND name_key < lower($2::text) || chr(1114111)
                    AND name_key > (SELECT coalesce((SELECT name_key FROM contacts WHERE tenant_id = $1 AND id = $3), ''))
                ORDER BY name_key, id
                LIMIT $4
            )
        ) AS page
        ORDER BY page.name_key, page.id
        LIMIT $4"#,
        tenant_id.0,
        beginning,
        after.map(|id| id.0),
        limit,
    )
    .fetch_all(tx.conn())
    .await?;
    these(tx, &ids).await
}

/// These contacts, in this order.
async fn these(tx: &mut TenantTx, ids: &[Uuid]) -> Result<Vec<Contact>> {
    let tenant_id = tx.tenant_id();
    let contacts = sqlx::query_as!(
        Contact,
        r#"SELECT c.id AS "id: ContactId", c.name, c.username, c.phone, c.language, c.created_at, a.aliases AS "aliases!",
            EXISTS (
                SELECT FROM contact_profiles f WHERE f.tenant_id = c.tenant_id AND f.contact_id = c.id AND f.storage_key IS NOT NULL
            ) AS "has_avatar!"
        FROM unnest($2::uuid[]) WITH ORDINALITY AS asked (id, number)
        CROSS JOIN LATERAL (
            SELECT tenant_id, id, name, username, phone, language, created_at
            FROM contacts
            WHERE tenant_id = $1 AND id = asked.id
            LIMIT 1
        ) c
        CROSS JOIN LATERAL (
            SELECT COALESCE(jsonb_agg(jsonb_build_object('kind', kind, 'value', value) ORDER BY created_at, kind), '[]') AS aliases
            FROM contact_aliases
            WHERE tenant_id = c.tenant_id AND contact_id = c.id
        ) a
        ORDER BY asked.number"#,
        tenant_id.0,
        ids,
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(contacts)
}
