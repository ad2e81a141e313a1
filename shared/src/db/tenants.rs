//! Who our tenants are, where each one's data lives, and their settings.

use super::{ControlTx, FleetTx, Placement, TenantTx, error::Result};
use crate::domain::{ids::TenantId, retrying::Policy, tenants::Slug};
use chrono::{DateTime, Utc};
use sqlx::types::Json;

/// A tenant.
#[derive(Clone, Debug)]
pub struct Tenant {
    /// Its id.
    pub id: TenantId,
    /// Its name in URLs.
    pub slug: String,
    /// Its name for people.
    pub name: String,
    /// Where its data lives.
    pub placement: Placement,
    /// Since when.
    pub created_at: DateTime<Utc>,
}

/// The tenant of that name.
///
/// # Errors
/// If the database does not answer.
pub async fn find(tx: &mut ControlTx, slug: &str) -> Result<Option<Tenant>> {
    let row = sqlx::query!("SELECT id, slug, name, placement, created_at FROM control.tenants WHERE slug = $1", slug)
        .fetch_optional(tx.conn())
        .await?;
    Ok(row.map(|row| Tenant {
        id: TenantId(row.id),
        slug: row.slug,
        name: row.name,
        placement: Placement::named(&row.placement),
        created_at: row.created_at,
    }))
}

/// All tenants by name.
///
/// # Errors
/// If the database does not answer.
pub async fn list(tx: &mut ControlTx) -> Result<Vec<Tenant>> {
    let rows = sqlx::query!("SELECT id, slug, name, placement, created_at FROM control.tenants ORDER BY slug")
        .fetch_all(tx.conn())
        .await?;
    let tenants = rows.into_iter().map(|row| Tenant {
        id: TenantId(row.id),
        slug: row.slug,
        name: row.name,
        placement: Placement::named(&row.placement),
        created_at: row.created_at,
    });
    Ok(tenants.collect())
}

/// Makes a tenant. `None` if the name is taken.
///
/// # Errors
/// If the database does not answer, or the placement is none of its.
pub async fn create(tx: &mut ControlTx, slug: &Slug, name: &str, placement: &Placement) -> Result<Option<TenantId>> {
    let id = sqlx::query_scalar!(
        r#"INSERT INTO control.tenants (id, slug, name, placement)
        VALUES ($1, $2, $3, $4)
        ON CONFLICT (slug) DO NOTHING
        RETURNING id AS "id: TenantId""#,
        TenantId::new().0,
        slug.as_str(),
        name,
        placement.as_str(),
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(id)
}

/// Gives a tenant its settings, unless it has some.
///
/// # Errors
/// If the database does not answer.
pub async fn create_settings(tx: &mut FleetTx, tenant_id: TenantId, default_region: Option<&str>) -> Result<()> {
    sqlx::query!(
        "INSERT INTO tenant_settings (tenant_id, default_region) VALUES ($1, $2) ON CONFLICT (tenant_id) DO NOTHING",
        tenant_id.0,
        default_region,
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// When what was not sent is tried again, if its rules differ from the usual ones; locked until the end of the transaction.
///
/// # Errors
/// If the database does not answer.
pub async fn retry_policy(tx: &mut FleetTx, tenant_id: TenantId) -> Result<Option<Policy>> {
    let policy = sqlx::query_scalar!(
        r#"SELECT retry AS "retry: Json<Policy>" FROM tenant_settings WHERE tenant_id = $1 FOR UPDATE"#,
        tenant_id.0
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(policy.map(|policy| policy.0))
}

/// Sets when what was not sent is tried again. Senders notice with the next send.
///
/// # Errors
/// If the database does not answer.
pub async fn set_retry_policy(tx: &mut FleetTx, tenant_id: TenantId, policy: &Policy) -> Result<()> {
    sqlx::query!(
        "UPDATE tenant_settings SET retry = $2 WHERE tenant_id = $1",
        tenant_id.0,
        serde_json::to_value(policy).expect("plain fields are always JSON"),
    )
    .execute(tx.conn())
    .await?;
    // Whoever remembers an account looks again.
    sqlx::query!("UPDATE channel_accounts SET revision = revision + 1 WHERE tenant_id = $1", tenant_id.0)
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// The region assumed for telephone numbers written without a country code.
///
/// # Errors
/// If the database does not answer.
pub async fn default_region(tx: &mut TenantTx) -> Result<Option<String>> {
    let tenant_id = tx.tenant_id();
    let region = sqlx::query_scalar!("SELECT default_region FROM tenant_settings WHERE tenant_id = $1", tenant_id.0)
        .fetch_optional(tx.conn())
        .await?;
    Ok(region.flatten())
}

/// The language in which a tenant writes to whoever has none of their own.
///
/// # Errors
/// If the database does not answer.
pub async fn default_language(tx: &mut TenantTx) -> Result<Option<String>> {
    let tenant_id = tx.tenant_id();
    let language =
        sqlx::query_scalar!("SELECT default_language FROM tenant_settings WHERE tenant_id = $1", tenant_id.0)
            .fetch_optional(tx.conn())
            .await?;
    Ok(language.flatten())
}

/// Sets that language, or that there is none. Whether the tenant has settings.
///
/// # Errors
/// If the database does not answer.
pub async fn set_default_language(tx: &mut TenantTx, language: Option<&str>) -> Result<bool> {
    let tenant_id = tx.tenant_id();
    let done =
        sqlx::query!("UPDATE tenant_settings SET default_language = $2 WHERE tenant_id = $1", tenant_id.0, language,)
            .execute(tx.conn())
            .await?;
    Ok(done.rows_affected() == 1)
}

/// Makes a placement known, so that tenants can be placed in it.
///
/// # Errors
/// If the database does not answer, or the name is none.
pub async fn ensure_placement(tx: &mut ControlTx, placement: &Placement) -> Result<()> {
    sqlx::query!("INSERT INTO control.placements (name) VALUES ($1) ON CONFLICT DO NOTHING", placement.as_str())
        .execute(tx.conn())
        .await?;
    Ok(())
}
