//! Templates: as last fetched from providers, and a tenant's own.

pub mod local;
pub mod making;
pub mod sync;
pub mod uses;

use super::{TenantTx, error::Result};
use crate::domain::{
    ids::{ChannelAccountId, ContactId, TemplateId},
    templates::Needs,
};
use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::types::Json;
use uuid::Uuid;

/// A provider's template in one language, as far as a message needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    /// Our id of it.
    pub id: TemplateId,
    /// Its name at the provider.
    pub name: String,
    /// The language's code as the provider spells it.
    pub language: String,
    /// The provider's word; only `APPROVED` can be sent at any time.
    pub status: String,
    /// The body's text with its variables.
    pub body: String,
    /// How many values the body needs.
    pub variables: i32,
    /// All that it needs at each sending, as far as that is known.
    pub needs: Option<Json<Needs>>,
    /// The provider's id of it.
    pub provider_id: Option<String>,
}

/// A template with all that is known of it.
#[derive(Clone, Debug)]
pub struct Shown {
    /// Its id.
    pub id: TemplateId,
    /// provider or local.
    pub kind: String,
    /// Whose it is at the provider; `None`: the tenant's own.
    pub channel_account_id: Option<Uuid>,
    /// Its name.
    pub name: String,
    /// The language's code.
    pub language: String,
    /// The provider's word, or ACTIVE.
    pub status: String,
    /// The provider's word, or what the tenant's own is for.
    pub category: String,
    /// The words with their variables.
    pub body: String,
    /// How many values it needs.
    pub variables: i32,
    /// All that it needs.
    pub needs: Option<Json<Needs>>,
    /// The provider's id of it.
    pub provider_id: Option<String>,
    /// As the provider describes it.
    pub components: Option<Value>,
    /// Why it could not be made or deleted: `{"code", "field", "message"}`.
    pub problem: Option<Value>,
    /// The files that go with the words.
    pub files: Vec<Uuid>,
    /// How well it is taken, in the provider's word.
    pub quality: Option<String>,
    /// Why it has its status, in the provider's words.
    pub reason: Option<String>,
    /// When it was last fetched, or changed.
    pub synced_at: DateTime<Utc>,
    /// Since when it is known.
    pub created_at: DateTime<Utc>,
    /// For how many messages it was accepted.
    pub uses: i64,
    /// In the last 30 days.
    pub uses_lately: i64,
}

/// Which templates to list.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Only this one.
    pub id: Option<TemplateId>,
    /// Only of this account.
    pub channel_account_id: Option<ChannelAccountId>,
    /// Only of this kind.
    pub kind: Option<String>,
    /// Only with this status.
    pub status: Option<String>,
    /// Only of this category.
    pub category: Option<String>,
    /// Only of this name.
    pub name: Option<String>,
    /// Only in this language.
    pub language: Option<String>,
}

/// A page of templates, the newest first, below `before`.
///
/// # Errors
/// If the database does not answer.
pub async fn list(
    tx: &mut TenantTx,
    filter: &Filter,
    before: Option<(DateTime<Utc>, Uuid)>,
    limit: i64,
) -> Result<Vec<Shown>> {
    let tenant_id = tx.tenant_id();
    let (at, id) = before.unzip();
    let templates = sqlx::query_as!(
        Shown,
        r#"SELECT t.id AS "id: TemplateId", t.kind, t.channel_account_id, t.name, t.language, t.status, t.category, t.body, t.variables,
            t.needs AS "needs: Json<Needs>", t.provider_id, t.components, t.problem, t.files, t.quality, t.reason, t.synced_at, t.created_at,
            u.uses AS "uses!", u.uses_lately AS "uses_lately!"
        FROM (
            SELECT *
            FROM templates
            WHERE tenant_id = $1
                AND ($2::uuid IS NULL OR id = $2)
                AND ($3::uuid IS NULL OR channel_account_id = $3)
                AND ($4::text IS NULL OR kind = $4)
                AND ($5::text IS NULL OR status = $5)
                AND ($6::text IS NULL OR category = $6)
                AND ($7::text IS NULL OR name = $7)
                AND ($8::text IS NULL OR language = $8)
                AND (created_at, id) < (coalesce($9::timestamptz, 'infinity'), coalesce($10::uuid, $11::uuid))
            ORDER BY created_at DESC, id DESC
            LIMIT $12
        ) AS t
        CROSS JOIN LATERAL (
            SELECT coalesce(sum(uses), 0)::bigint AS uses,
                coalesce(sum(uses) FILTER (WHERE day > current_date - 30), 0)::bigint AS uses_lately
            FROM template_uses
            WHERE tenant_id = t.tenant_id AND template_id = t.id
        ) AS u
        ORDER BY t.created_at DESC, t.id DESC"#,
        tenant_id.0,
        filter.id.map(|id| id.0),
        filter.channel_account_id.map(|id| id.0),
        filter.kind.as_deref(),
        filter.status.as_deref(),
        filter.category.as_deref(),
        filter.name.as_deref(),
        filter.language.as_deref(),
        at,
        id,
        Uuid::max(),
        limit,
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(templates)
}

/// One template.
///
/// # Errors
/// If the database does not answer.
pub async fn show(tx: &mut TenantTx, id: TemplateId) -> Result<Option<Shown>> {
    let filter = Filter { id: Some(id), ..Filter::default() };
    Ok(list(tx, &filter, None, 1).await?.pop())
}

/// An account's template in all its languages, by its name or by the provider's id of it.
///
/// # Errors
/// If the database does not answer.
pub async fn find(tx: &mut TenantTx, channel_account_id: ChannelAccountId, name: &str) -> Result<Vec<Template>> {
    let tenant_id = tx.tenant_id();
    let templates = sqlx::query_as!(
        Template,
        r#"SELECT id AS "id: TemplateId", name, language, status, body, variables, needs AS "needs: Json<Needs>", provider_id
        FROM templates
        WHERE tenant_id = $1 AND channel_account_id = $2 AND (name = $3 OR provider_id = $3)
        ORDER BY language, name"#,
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

/// What decides how somebody is written to.
#[derive(Clone, Debug, Default)]
pub struct Reader {
    /// Their name.
    pub name: Option<String>,
    /// Their number.
    pub phone: Option<String>,
    /// Their language.
    pub language: Option<String>,
    /// In which language the tenant writes to whoever has none.
    pub default_language: Option<String>,
}

/// Who reads what is sent to this contact; without one, anybody.
///
/// # Errors
/// If the database does not answer.
pub async fn reader(tx: &mut TenantTx, contact_id: Option<ContactId>) -> Result<Reader> {
    let tenant_id = tx.tenant_id();
    let reader = sqlx::query_as!(
        Reader,
        r#"SELECT c.name AS "name?", c.phone AS "phone?", c.language AS "language?", s.default_language AS "default_language?"
        FROM (SELECT) AS one
        LEFT JOIN tenant_settings s ON s.tenant_id = $1
        LEFT JOIN contacts c ON c.tenant_id = $1 AND c.id = $2"#,
        tenant_id.0,
        contact_id.map(|id| id.0),
    )
    .fetch_one(tx.conn())
    .await?;
    Ok(reader)
}
