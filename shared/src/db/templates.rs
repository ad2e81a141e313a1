//! Templates, as last fetched from the provider.

use super::{FleetTx, TenantTx, error::Result};
use crate::domain::{
    ids::{ChannelAccountId, TenantId},
    templates::Needs,
};
use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::types::Json;

/// A template in one language.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    /// Its name at the provider.
    pub name: String,
    /// The language's code as the provider spells it.
    pub language: String,
    /// The provider's word; only `APPROVED` can be sent.
    pub status: String,
    /// MARKETING, UTILITY, AUTHENTICATION.
    pub category: String,
    /// The body's text with its variables.
    pub body: String,
    /// How many values the body needs.
    pub variables: i32,
    /// All that it needs at each sending, as far as that is known.
    pub needs: Option<Json<Needs>>,
}

/// A template in all its languages.
///
/// # Errors
/// If the database does not answer.
pub async fn find(tx: &mut TenantTx, channel_account_id: ChannelAccountId, name: &str) -> Result<Vec<Template>> {
    let tenant_id = tx.tenant_id();
    let templates = sqlx::query_as!(
        Template,
        r#"SELECT name, language, status, category, body, variables, needs AS "needs: Json<Needs>"
        FROM templates
        WHERE tenant_id = $1 AND channel_account_id = $2 AND name = $3
        ORDER BY language"#,
        tenant_id.0,
        channel_account_id.0,
        name,
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(templates)
}

/// The names of templates that can be sent from an account now, so many at most.
///
/// # Errors
/// If the database does not answer.
pub async fn sendable(tx: &mut TenantTx, channel_account_id: ChannelAccountId, at_most: i64) -> Result<Vec<String>> {
    let tenant_id = tx.tenant_id();
    let names = sqlx::query_scalar!(
        "SELECT DISTINCT name
        FROM templates
        WHERE tenant_id = $1 AND channel_account_id = $2 AND status = 'APPROVED' AND NOT coalesce(needs ? 'beyond_us', false)
        ORDER BY name
        LIMIT $3",
        tenant_id.0,
        channel_account_id.0,
        at_most,
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(names)
}

/// Replaces what is known of an account's templates.
///
/// # Errors
/// If the database does not answer.
pub async fn replace(
    tx: &mut FleetTx,
    tenant_id: TenantId,
    channel_account_id: ChannelAccountId,
    templates: &[Template],
    now: DateTime<Utc>,
) -> Result<()> {
    let names: Vec<String> = templates.iter().map(|t| t.name.clone()).collect();
    let languages: Vec<String> = templates.iter().map(|t| t.language.clone()).collect();
    let statuses: Vec<String> = templates.iter().map(|t| t.status.clone()).collect();
    let categories: Vec<String> = templates.iter().map(|t| t.category.clone()).collect();
    let bodies: Vec<String> = templates.iter().map(|t| t.body.clone()).collect();
    let variables: Vec<i32> = templates.iter().map(|t| t.variables).collect();
    let needs: Vec<Option<Value>> = templates
        .iter()
        .map(|t| t.needs.as_ref().map(|needs| serde_json::to_value(&needs.0).expect("plain fields are always JSON")))
        .collect();
    sqlx::query!(
        "DELETE FROM templates t
        WHERE t.tenant_id = $1 AND t.channel_account_id = $2
            AND NOT EXISTS (
                SELECT FROM unnest($3::text[], $4::text[]) AS kept (name, language) WHERE kept.name = t.name AND kept.language = t.language
            )",
        tenant_id.0,
        channel_account_id.0,
        &names,
        &languages,
    )
    .execute(tx.conn())
    .await?;
    // The provider's pages may show one twice when the list changes meanwhile. How well one is taken is told by webhooks alone.
    sqlx::query!(
        "INSERT INTO templates (tenant_id, channel_account_id, name, language, status, category, body, variables, synced_at, needs)
        SELECT DISTINCT ON (name, language) $1::uuid, $2::uuid, name, language, status, category, body, variables, $9::timestamptz, needs
        FROM unnest($3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::int[], $10::jsonb[])
            AS template (name, language, status, category, body, variables, needs)
        ORDER BY name, language
        ON CONFLICT (tenant_id, channel_account_id, name, language) DO UPDATE
        SET status = excluded.status, reason = CASE WHEN templates.status = excluded.status THEN templates.reason END,
            category = excluded.category, body = excluded.body, variables = excluded.variables, synced_at = excluded.synced_at, needs = excluded.needs",
        tenant_id.0,
        channel_account_id.0,
        &names,
        &languages,
        &statuses,
        &categories,
        &bodies,
        &variables,
        now,
        &needs as &[Option<Value>],
    )
    .execute(tx.conn())
    .await?;
    sqlx::query!(
        "UPDATE channel_accounts SET templates_synced_at = $3 WHERE tenant_id = $1 AND id = $2",
        tenant_id.0,
        channel_account_id.0,
        now,
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}
