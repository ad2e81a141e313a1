//! Tokens of the API. Only their digests are stored.

use super::{FleetTx, TenantTx, error::Result};
use crate::domain::{
    ids::{ApiTokenId, TenantId},
    permissions::Permission,
};
use chrono::{DateTime, Utc};

/// A token as it is kept.
#[derive(Clone, Debug)]
pub struct Token {
    /// Its id, the readable part of the token.
    pub id: ApiTokenId,
    /// What its owner calls it.
    pub name: String,
    /// SHA-256 of the whole token.
    pub digest: Vec<u8>,
    /// What it may do. A name that this release does not know permits nothing.
    pub permissions: Vec<Permission>,
    /// Since when.
    pub created_at: DateTime<Utc>,
    /// From then on it is refused.
    pub expires_at: Option<DateTime<Utc>>,
    /// Since then it is refused.
    pub revoked_at: Option<DateTime<Utc>>,
}

impl Token {
    /// Whether it is neither expired nor revoked.
    pub fn is_valid(&self, now: DateTime<Utc>) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|at| now < at)
    }
}

/// The tenant's token of that id.
///
/// # Errors
/// If the database does not answer.
pub async fn find(tx: &mut TenantTx, id: ApiTokenId) -> Result<Option<Token>> {
    let tenant_id = tx.tenant_id();
    let row = sqlx::query!(
        "SELECT name, digest, permissions, created_at, expires_at, revoked_at
        FROM api_tokens
        WHERE tenant_id = $1 AND id = $2",
        tenant_id.0,
        id.0,
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(row.map(|row| Token {
        id,
        name: row.name,
        digest: row.digest,
        permissions: known(&row.permissions),
        created_at: row.created_at,
        expires_at: row.expires_at,
        revoked_at: row.revoked_at,
    }))
}

/// Keeps a new token.
///
/// # Errors
/// If the database does not answer.
pub async fn insert(
    tx: &mut FleetTx,
    tenant_id: TenantId,
    id: ApiTokenId,
    name: &str,
    digest: &[u8; 32],
    permissions: &[Permission],
    expires_at: Option<DateTime<Utc>>,
) -> Result<()> {
    let permissions: Vec<String> = permissions.iter().map(|p| p.as_str().to_owned()).collect();
    sqlx::query!(
        "INSERT INTO api_tokens (tenant_id, id, name, digest, permissions, expires_at) VALUES ($1, $2, $3, $4, $5, $6)",
        tenant_id.0,
        id.0,
        name,
        &digest[..],
        &permissions,
        expires_at,
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// A tenant's tokens, the oldest first.
///
/// # Errors
/// If the database does not answer.
pub async fn list(tx: &mut FleetTx, tenant_id: TenantId) -> Result<Vec<Token>> {
    let rows = sqlx::query!(
        r#"SELECT id AS "id: ApiTokenId", name, digest, permissions, created_at, expires_at, revoked_at
        FROM api_tokens
        WHERE tenant_id = $1
        ORDER BY id"#,
        tenant_id.0,
    )
    .fetch_all(tx.conn())
    .await?;
    let tokens = rows.into_iter().map(|row| Token {
        id: row.id,
        name: row.name,
        digest: row.digest,
        permissions: known(&row.permissions),
        created_at: row.created_at,
        expires_at: row.expires_at,
        revoked_at: row.revoked_at,
    });
    Ok(tokens.collect())
}

/// Refuses a token from now on. Whether it was not refused before; `None` if there is none such.
///
/// # Errors
/// If the database does not answer.
pub async fn revoke(tx: &mut FleetTx, tenant_id: TenantId, id: ApiTokenId) -> Result<Option<bool>> {
    let was_valid = sqlx::query_scalar!(
        r#"WITH before AS MATERIALIZED (
            SELECT revoked_at FROM api_tokens WHERE tenant_id = $1 AND id = $2 FOR UPDATE
        )
        UPDATE api_tokens t
        SET revoked_at = coalesce(before.revoked_at, now())
        FROM before
        WHERE t.tenant_id = $1 AND t.id = $2
        RETURNING before.revoked_at IS NULL AS "was_valid!""#,
        tenant_id.0,
        id.0,
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(was_valid)
}

/// Lets a token do these things, too. What it may do then, and whether it could not do all of that before; `None` if there is
/// none such. Permissions of another release, that this one does not know, stay.
///
/// # Errors
/// If the database does not answer.
pub async fn grant(
    tx: &mut FleetTx,
    tenant_id: TenantId,
    id: ApiTokenId,
    permissions: &[Permission],
) -> Result<Option<(Vec<Permission>, bool)>> {
    let permissions: Vec<String> = permissions.iter().map(|p| p.as_str().to_owned()).collect();
    let row = sqlx::query!(
        r#"WITH before AS MATERIALIZED (
            SELECT permissions FROM api_tokens WHERE tenant_id = $1 AND id = $2 FOR UPDATE
        )
        UPDATE api_tokens t
        SET permissions = before.permissions || ARRAY(SELECT DISTINCT unnest($3::text[]) EXCEPT SELECT unnest(before.permissions))
        FROM before
        WHERE t.tenant_id = $1 AND t.id = $2
        RETURNING t.permissions, t.permissions <> before.permissions AS "changed!""#,
        tenant_id.0,
        id.0,
        &permissions,
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(row.map(|row| (known(&row.permissions), row.changed)))
}

fn known(names: &[String]) -> Vec<Permission> {
    names.iter().filter_map(|name| name.parse().ok()).collect()
}
