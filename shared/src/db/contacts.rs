//! People, as the API makes and shows them. (What a webhook says about people is written by `inbound`.)

use super::{TenantTx, error::Result};
use crate::domain::{
    ids::ContactId,
    people::{AliasKind, PhoneNumber},
};
use chrono::{DateTime, Utc};
use serde_json::Value;

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
    /// Since when we know it.
    pub created_at: DateTime<Utc>,
    /// The names providers have for it: `[{"kind", "value"}]`.
    pub aliases: Value,
}

/// What became of creating a contact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Created {
    /// It is new.
    New(ContactId),
    /// The number belongs to this one already.
    Exists(ContactId),
}

/// Makes a contact. A number names one person of a tenant only.
///
/// # Errors
/// If the database does not answer.
pub async fn create(tx: &mut TenantTx, name: Option<&str>, phone: &PhoneNumber, phone_raw: &str) -> Result<Created> {
    let tenant_id = tx.tenant_id();
    let id = ContactId::new();
    // The alias decides who was first; its foreign key waits for the commit.
    let won = sqlx::query!(
        "INSERT INTO contact_aliases (tenant_id, kind, value, contact_id)
        VALUES ($1, $2, $3, $4)
        ON CONFLICT (tenant_id, kind, value) DO NOTHING",
        tenant_id.0,
        AliasKind::Phone.as_str(),
        phone.as_str(),
        id.0,
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
        "INSERT INTO contacts (tenant_id, id, name, phone, phone_raw) VALUES ($1, $2, $3, $4, $5)",
        tenant_id.0,
        id.0,
        name,
        phone.as_str(),
        phone_raw,
    )
    .execute(tx.conn())
    .await?;
    Ok(Created::New(id))
}

/// One contact.
///
/// # Errors
/// If the database does not answer.
pub async fn find(tx: &mut TenantTx, id: ContactId) -> Result<Option<Contact>> {
    let tenant_id = tx.tenant_id();
    let contact = sqlx::query_as!(
        Contact,
        r#"SELECT c.id AS "id: ContactId", c.name, c.username, c.phone, c.created_at, a.aliases AS "aliases!"
        FROM contacts c
        CROSS JOIN LATERAL (
            SELECT COALESCE(jsonb_agg(jsonb_build_object('kind', kind, 'value', value) ORDER BY created_at, kind), '[]') AS aliases
            FROM contact_aliases
            WHERE tenant_id = c.tenant_id AND contact_id = c.id
        ) a
        WHERE c.tenant_id = $1 AND c.id = $2"#,
        tenant_id.0,
        id.0,
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(contact)
}

/// A page of contacts, the newest first, below `before`.
///
/// # Errors
/// If the database does not answer.
pub async fn list(tx: &mut TenantTx, before: Option<ContactId>, limit: i64) -> Result<Vec<Contact>> {
    let tenant_id = tx.tenant_id();
    let contacts = sqlx::query_as!(
        Contact,
        r#"SELECT c.id AS "id: ContactId", c.name, c.username, c.phone, c.created_at, a.aliases AS "aliases!"
        FROM (
            SELECT tenant_id, id, name, username, phone, created_at
            FROM contacts
            WHERE tenant_id = $1 AND id < COALESCE($2, 'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid)
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
