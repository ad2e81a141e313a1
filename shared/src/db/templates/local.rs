//! A tenant's own templates.

use crate::{
    db::{
        TenantTx, audit,
        error::{Error, Result},
    },
    domain::{
        ids::{FileId, TemplateId},
        local_templates,
    },
};
use serde_json::json;
use uuid::Uuid;

/// A tenant's own template in one language.
#[derive(Clone, Debug)]
pub struct Local {
    /// Its id.
    pub id: TemplateId,
    /// Its language.
    pub language: String,
    /// The words.
    pub body: String,
    /// The files that go with them.
    pub files: Vec<Uuid>,
}

/// One to be.
#[derive(Clone, Debug)]
pub struct NewLocal<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its language.
    pub language: &'a str,
    /// What it is for.
    pub category: &'a str,
    /// The words.
    pub body: &'a str,
    /// The files that go with them.
    pub files: &'a [FileId],
}

/// What is changed of one; what is not given stays.
#[derive(Clone, Debug, Default)]
pub struct Change<'a> {
    /// Its name.
    pub name: Option<&'a str>,
    /// What it is for.
    pub category: Option<&'a str>,
    /// The words.
    pub body: Option<&'a str>,
    /// The files that go with them.
    pub files: Option<&'a [FileId]>,
}

/// A tenant's own template in all its languages.
///
/// # Errors
/// If the database does not answer.
pub async fn find(tx: &mut TenantTx, name: &str) -> Result<Vec<Local>> {
    let tenant_id = tx.tenant_id();
    let found = sqlx::query_as!(
        Local,
        r#"SELECT id AS "id: TemplateId", language, body, files
        FROM templates
        WHERE tenant_id = $1 AND channel_account_id IS NULL AND name = $2
        ORDER BY language"#,
        tenant_id.0,
        name,
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(found)
}

/// Keeps a new one. `None`: there is one of that name in that language.
///
/// # Errors
/// If the database does not answer.
pub async fn create(tx: &mut TenantTx, new: &NewLocal<'_>, actor: audit::Actor) -> Result<Option<TemplateId>> {
    let tenant_id = tx.tenant_id();
    let id = TemplateId::new();
    let files: Vec<Uuid> = new.files.iter().map(|id| id.0).collect();
    let made = sqlx::query!(
        "INSERT INTO templates (tenant_id, id, kind, name, language, status, category, body, variables, files, synced_at)
        VALUES ($1, $2, 'local', $3, $4, 'ACTIVE', $5, $6, $7, $8, now())
        ON CONFLICT (tenant_id, name, language) WHERE channel_account_id IS NULL DO NOTHING",
        tenant_id.0,
        id.0,
        new.name,
        new.language,
        new.category,
        new.body,
        count(new.body),
        &files,
    )
    .execute(tx.conn())
    .await?;
    if made.rows_affected() == 0 {
        return Ok(None);
    }
    let details = json!({"kind": "local", "name": new.name, "language": new.language, "category": new.category});
    record(tx, actor, "template.created", id, details).await?;
    Ok(Some(id))
}

/// What became of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changed {
    /// It is made.
    Done,
    /// There is no such template of the tenant's own.
    NoSuchThing,
    /// Another has that name in the language. The transaction is not to be committed.
    NameTaken,
}

/// Changes one. Messages that were accepted before stay as they are.
///
/// # Errors
/// If the database does not answer.
pub async fn change(tx: &mut TenantTx, id: TemplateId, change: &Change<'_>, actor: audit::Actor) -> Result<Changed> {
    let tenant_id = tx.tenant_id();
    let before = sqlx::query!(
        "SELECT name, language, category, body, files
        FROM templates
        WHERE tenant_id = $1 AND id = $2 AND kind = 'local'
        FOR UPDATE",
        tenant_id.0,
        id.0,
    )
    .fetch_optional(tx.conn())
    .await?;
    let Some(before) = before else { return Ok(Changed::NoSuchThing) };
    let name = change.name.unwrap_or(&before.name);
    if name != before.name {
        let taken = sqlx::query_scalar!(
            r#"SELECT EXISTS (
                SELECT FROM templates WHERE tenant_id = $1 AND channel_account_id IS NULL AND name = $2 AND language = $3
            ) AS "taken!""#,
            tenant_id.0,
            name,
            before.language,
        )
        .fetch_one(tx.conn())
        .await?;
        if taken {
            return Ok(Changed::NameTaken);
        }
    }
    let files: Option<Vec<Uuid>> = change.files.map(|files| files.iter().map(|id| id.0).collect());
    let body = change.body.unwrap_or(&before.body);
    let category = change.category.unwrap_or(&before.category);
    let files = files.unwrap_or_else(|| before.files.clone());
    if (name, category, body, &files)
        == (before.name.as_str(), before.category.as_str(), before.body.as_str(), &before.files)
    {
        return Ok(Changed::Done);
    }
    let changed = sqlx::query!(
        "UPDATE templates
        SET name = $3, category = $4, body = $5, variables = $6, files = $7, synced_at = now()
        WHERE tenant_id = $1 AND id = $2",
        tenant_id.0,
        id.0,
        name,
        category,
        body,
        count(body),
        &files,
    )
    .execute(tx.conn())
    .await
    .map_err(Error::from);
    match changed {
        // By somebody who took it since it was looked for above.
        Err(error) if error.constraint() == Some("templates_local_key") => return Ok(Changed::NameTaken),
        changed => changed?,
    };
    let details = json!({
        "before": {"name": before.name, "category": before.category, "body": before.body, "files": before.files},
        "after": {"name": name, "category": category, "body": body, "files": files},
    });
    record(tx, actor, "template.changed", id, details).await?;
    Ok(Changed::Done)
}

/// Removes one, and what was counted of it. Whether there was one.
///
/// # Errors
/// If the database does not answer.
pub async fn remove(tx: &mut TenantTx, id: TemplateId, actor: audit::Actor) -> Result<bool> {
    let tenant_id = tx.tenant_id();
    let removed = sqlx::query!(
        "WITH removed AS (
            DELETE FROM templates WHERE tenant_id = $1 AND id = $2 AND kind = 'local' RETURNING id, name, language
        ), uses AS (
            DELETE FROM template_uses u USING removed WHERE u.tenant_id = $1 AND u.template_id = removed.id
        )
        SELECT name, language FROM removed",
        tenant_id.0,
        id.0,
    )
    .fetch_optional(tx.conn())
    .await?;
    let Some(removed) = removed else { return Ok(false) };
    let details = json!({"kind": "local", "name": removed.name, "language": removed.language});
    record(tx, actor, "template.deleted", id, details).await?;
    Ok(true)
}

async fn record(
    tx: &mut TenantTx,
    actor: audit::Actor,
    action: &str,
    id: TemplateId,
    details: serde_json::Value,
) -> Result<()> {
    audit::record(tx, &audit::Entry { actor, action, target_kind: "template", target_id: id.0, details }).await
}

fn count(body: &str) -> i32 {
    i32::try_from(local_templates::variables(body).len()).unwrap_or(i32::MAX)
}
