//! Templates that are made or deleted at their provider. A request writes down what is wanted, a job does it: it claims the row before the
//! call, so that what a crash leaves behind is not called for once more; whether it was done is seen when the account's templates are
//! fetched next, which is asked for.

use super::sync::{lock, write};
use crate::{
    db::{FleetTx, TenantTx, audit, error::Result, media},
    domain::{
        ids::{ChannelAccountId, TemplateId, TenantId},
        templates::TemplateInfo,
    },
    jobs::media::{MediaJob, Task},
};
use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use uuid::Uuid;

/// A template to be made.
#[derive(Clone, Debug)]
pub struct Proposed<'a> {
    /// For which account, and those that share its templates.
    pub account: ChannelAccountId,
    /// As it will be listed.
    pub template: &'a TemplateInfo,
    /// All that its provider is told.
    pub request: &'a Value,
}

/// What is to be done at a provider.
#[derive(Clone, Debug)]
pub struct Claimed {
    /// As which account.
    pub account: ChannelAccountId,
    /// The template's name.
    pub name: String,
    /// The provider's id of it, if it has one.
    pub provider_id: Option<String>,
    /// All that the provider is told.
    pub request: Option<Value>,
    /// Whether somebody has begun before: nobody knows how far they came.
    pub again: bool,
}

/// Writes down a template that is to be made. `None`: the account has one of that name in that language.
///
/// # Errors
/// If the database does not answer.
pub async fn propose(tx: &mut TenantTx, new: &Proposed<'_>, actor: audit::Actor) -> Result<Option<TemplateId>> {
    let (tenant_id, id) = (tx.tenant_id(), TemplateId::new());
    let Proposed { account, template, request } = new;
    let now = sqlx::query_scalar!(
        r#"INSERT INTO templates AS t (tenant_id, id, channel_account_id, name, language, status, category, body, variables, needs,
            components, request, synced_at)
        VALUES ($1, $2, $3, $4, $5, 'QUEUED', $6, $7, $8, $9, $10, $11, clock_timestamp())
        ON CONFLICT (tenant_id, channel_account_id, name, language) DO UPDATE
        SET id = excluded.id, status = excluded.status, category = excluded.category, body = excluded.body, variables = excluded.variables,
            needs = excluded.needs, components = excluded.components, request = excluded.request, problem = NULL, reason = NULL,
            synced_at = excluded.synced_at
        -- What came to nothing may be asked for again.
        WHERE t.status = 'REFUSED'
        RETURNING clock_timestamp() AS "now!""#,
        tenant_id.0,
        id.0,
        account.0,
        template.name,
        template.language,
        template.category,
        template.body,
        template.variables,
        serde_json::to_value(&template.needs).expect("plain fields are always JSON"),
        template.components,
        request,
    )
    .fetch_optional(tx.conn())
    .await?;
    let Some(now) = now else { return Ok(None) };
    let job = MediaJob { tenant_id, task: Task::MakeTemplate { template_id: id } };
    tx.enqueue(media::QUEUE, job.to_job(now), None);
    let details = json!({"kind": "provider", "channel_account_id": account, "name": template.name, "language": template.language,
        "category": template.category});
    record(tx, actor, "template.created", id, details).await?;
    Ok(Some(id))
}

/// What became of asking for a deletion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Its provider will be told.
    Queued,
    /// Its provider never had it, and it is gone.
    Gone,
    /// It is being made right now.
    Making,
    /// There is no such template of a provider's.
    NoSuchThing,
}

/// Has a template deleted at its provider.
///
/// # Errors
/// If the database does not answer.
pub async fn ask_to_delete(tx: &mut TenantTx, id: TemplateId, actor: audit::Actor) -> Result<Asked> {
    let tenant_id = tx.tenant_id();
    let row = sqlx::query!(
        r#"SELECT name, language, status, channel_account_id, clock_timestamp() AS "now!"
        FROM templates
        WHERE tenant_id = $1 AND id = $2 AND kind = 'provider'
        FOR UPDATE"#,
        tenant_id.0,
        id.0,
    )
    .fetch_optional(tx.conn())
    .await?;
    let Some(row) = row else { return Ok(Asked::NoSuchThing) };
    let asked = match row.status.as_str() {
        "QUEUED" | "CALLING" => return Ok(Asked::Making),
        "REFUSED" => {
            sqlx::query!("DELETE FROM templates WHERE tenant_id = $1 AND id = $2", tenant_id.0, id.0)
                .execute(tx.conn())
                .await?;
            Asked::Gone
        }
        _ => {
            sqlx::query!(
                "UPDATE templates SET status = 'DELETING', problem = NULL WHERE tenant_id = $1 AND id = $2",
                tenant_id.0,
                id.0,
            )
            .execute(tx.conn())
            .await?;
            let job = MediaJob { tenant_id, task: Task::DeleteTemplate { template_id: id } };
            tx.enqueue(media::QUEUE, job.to_job(row.now), None);
            Asked::Queued
        }
    };
    let details = json!({"kind": "provider", "channel_account_id": row.channel_account_id, "name": row.name, "language": row.language});
    record(tx, actor, "template.deleted", id, details).await?;
    Ok(asked)
}

/// The account of a template that is to be made. `None`: that is done.
///
/// # Errors
/// If the database does not answer.
pub async fn wanted(tx: &mut FleetTx, tenant_id: TenantId, id: TemplateId) -> Result<Option<ChannelAccountId>> {
    let account = sqlx::query_scalar!(
        r#"SELECT channel_account_id AS "account!: ChannelAccountId"
        FROM templates
        WHERE tenant_id = $1 AND id = $2 AND status IN ('QUEUED', 'CALLING') AND channel_account_id IS NOT NULL"#,
        tenant_id.0,
        id.0,
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(account)
}

/// Claims a template that is to be made, right before the call. `None`: that is done.
///
/// # Errors
/// If the database does not answer.
pub async fn claim(tx: &mut FleetTx, tenant_id: TenantId, id: TemplateId) -> Result<Option<Claimed>> {
    let row = sqlx::query!(
        r#"WITH before AS MATERIALIZED (
            SELECT status
            FROM templates
            WHERE tenant_id = $1 AND id = $2 AND status IN ('QUEUED', 'CALLING')
            FOR NO KEY UPDATE
        )
        UPDATE templates t
        SET status = 'CALLING'
        FROM before
        WHERE t.tenant_id = $1 AND t.id = $2
        RETURNING t.channel_account_id AS "account!: ChannelAccountId", t.name, t.provider_id, t.request, before.status = 'CALLING' AS "again!""#,
        tenant_id.0,
        id.0,
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(row.map(|row| Claimed {
        account: row.account,
        name: row.name,
        provider_id: row.provider_id,
        request: row.request,
        again: row.again,
    }))
}

/// A template that is to be deleted. `None`: that is done.
///
/// # Errors
/// If the database does not answer.
pub async fn deleting(tx: &mut FleetTx, tenant_id: TenantId, id: TemplateId) -> Result<Option<Claimed>> {
    let row = sqlx::query!(
        r#"SELECT channel_account_id AS "account!: ChannelAccountId", name, provider_id
        FROM templates
        WHERE tenant_id = $1 AND id = $2 AND status = 'DELETING' AND channel_account_id IS NOT NULL"#,
        tenant_id.0,
        id.0,
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(row.map(|row| Claimed {
        account: row.account,
        name: row.name,
        provider_id: row.provider_id,
        request: None,
        again: false,
    }))
}

/// A template is made, at that time at the earliest: all that share it have it.
///
/// # Errors
/// If the database does not answer.
pub async fn made(
    tx: &mut FleetTx,
    tenant_id: TenantId,
    account: ChannelAccountId,
    template: &TemplateInfo,
    at: DateTime<Utc>,
) -> Result<()> {
    let accounts = lock(tx.conn(), tenant_id, account).await?;
    write(tx.conn(), tenant_id, &accounts, std::slice::from_ref(template), at).await
}

/// Keeps a template that an operator has made, for the account and those that share it. Our id of it.
///
/// # Errors
/// If the database does not answer.
pub async fn keep(
    tx: &mut TenantTx,
    account: ChannelAccountId,
    template: &TemplateInfo,
    actor: audit::Actor,
) -> Result<Option<TemplateId>> {
    let tenant_id = tx.tenant_id();
    let accounts = lock(tx.conn(), tenant_id, account).await?;
    let now = sqlx::query_scalar!(r#"SELECT clock_timestamp() AS "now!""#).fetch_one(tx.conn()).await?;
    write(tx.conn(), tenant_id, &accounts, std::slice::from_ref(template), now).await?;
    let id = sqlx::query_scalar!(
        r#"SELECT id AS "id: TemplateId"
        FROM templates
        WHERE tenant_id = $1 AND channel_account_id = $2 AND name = $3 AND language = $4"#,
        tenant_id.0,
        account.0,
        template.name,
        template.language,
    )
    .fetch_optional(tx.conn())
    .await?;
    if let Some(id) = id {
        let details = json!({"kind": "provider", "channel_account_id": account, "name": template.name,
            "language": template.language, "category": template.category, "status": template.status});
        record(tx, actor, "template.created", id, details).await?;
    }
    Ok(id)
}

/// Forgets a template that an operator has deleted, for the account and those that share it.
///
/// # Errors
/// If the database does not answer.
pub async fn forget(
    tx: &mut TenantTx,
    account: ChannelAccountId,
    (id, name, language): (TemplateId, &str, &str),
    actor: audit::Actor,
) -> Result<()> {
    let tenant_id = tx.tenant_id();
    let accounts = lock(tx.conn(), tenant_id, account).await?;
    let gone = sqlx::query_scalar!(
        "WITH gone AS (
            DELETE FROM templates
            WHERE tenant_id = $1 AND channel_account_id = ANY ($2) AND name = $3 AND language = $4
            RETURNING id
        ), uses AS (
            DELETE FROM template_uses u USING gone WHERE u.tenant_id = $1 AND u.template_id = gone.id
        )
        SELECT id FROM gone",
        tenant_id.0,
        &accounts,
        name,
        language,
    )
    .fetch_all(tx.conn())
    .await?;
    if gone.is_empty() {
        return Ok(());
    }
    let details = json!({"kind": "provider", "channel_account_id": account, "name": name, "language": language});
    record(tx, actor, "template.deleted", id, details).await
}

/// A template is deleted: none of those that shared it have it any more.
///
/// # Errors
/// If the database does not answer.
pub async fn deleted(tx: &mut FleetTx, tenant_id: TenantId, account: ChannelAccountId, id: TemplateId) -> Result<()> {
    let accounts = lock(tx.conn(), tenant_id, account).await?;
    sqlx::query!(
        "WITH gone AS (
            DELETE FROM templates t
            USING (SELECT name, language FROM templates WHERE tenant_id = $1 AND id = $3) AS it
            WHERE t.tenant_id = $1 AND t.channel_account_id = ANY ($2) AND t.name = it.name AND t.language = it.language
            RETURNING t.id
        )
        DELETE FROM template_uses u USING gone WHERE u.tenant_id = $1 AND u.template_id = gone.id",
        tenant_id.0,
        &accounts,
        id.0,
    )
    .execute(tx.conn())
    .await?;
    // A list that was begun before brings it back: the next does not have it.
    stale(tx, tenant_id, &accounts).await
}

async fn stale(tx: &mut FleetTx, tenant_id: TenantId, accounts: &[Uuid]) -> Result<()> {
    sqlx::query!(
        "UPDATE channel_accounts SET templates_stale_at = clock_timestamp() WHERE tenant_id = $1 AND id = ANY ($2)",
        tenant_id.0,
        accounts,
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// It came to nothing, as far as is known: how it really stands is seen when the account's templates are fetched, which is asked for.
///
/// # Errors
/// If the database does not answer.
pub async fn failed(
    tx: &mut FleetTx,
    tenant_id: TenantId,
    account: ChannelAccountId,
    id: TemplateId,
    problem: &Value,
) -> Result<()> {
    let accounts = lock(tx.conn(), tenant_id, account).await?;
    stale(tx, tenant_id, &accounts).await?;
    sqlx::query!(
        "UPDATE templates
        SET status = CASE status WHEN 'DELETING' THEN 'NOT_DELETED' ELSE 'REFUSED' END, problem = $3::jsonb, reason = $3::jsonb->>'message'
        WHERE tenant_id = $1 AND id = $2 AND status IN ('QUEUED', 'CALLING', 'DELETING')",
        tenant_id.0,
        id.0,
        problem,
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

async fn record(tx: &mut TenantTx, actor: audit::Actor, action: &str, id: TemplateId, details: Value) -> Result<()> {
    audit::record(tx, &audit::Entry { actor, action, target_kind: "template", target_id: id.0, details }).await
}
