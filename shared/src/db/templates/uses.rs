//! How often a template is used: the messages it was accepted for, whatever becomes of them; by the day. Each count goes to one of several
//! rows by chance, so that those who send the same template at once do not queue up for one.

use crate::{
    db::{FleetTx, TenantTx, error::Result},
    domain::ids::{ChannelAccountId, TemplateId, TenantId},
};
use std::collections::BTreeMap;
use uuid::Uuid;

/// A message of this template is accepted. The last that is locked.
///
/// # Errors
/// If the database does not answer.
pub async fn count(tx: &mut TenantTx, id: TemplateId) -> Result<()> {
    let tenant_id = tx.tenant_id();
    sqlx::query!(
        "INSERT INTO template_uses AS u (tenant_id, template_id, day, slot, uses)
        VALUES ($1, $2, current_date, floor(random() * 16)::smallint, 1)
        ON CONFLICT (tenant_id, template_id, day, slot) DO UPDATE SET uses = u.uses + 1",
        tenant_id.0,
        id.0,
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// So many messages of an account's templates, by name (or the provider's id) and language, are accepted.
///
/// # Errors
/// If the database does not answer.
pub async fn count_named(
    tx: &mut FleetTx,
    tenant_id: TenantId,
    account: ChannelAccountId,
    messages: &BTreeMap<(String, String), i64>,
) -> Result<()> {
    if messages.is_empty() {
        return Ok(());
    }
    let names: Vec<String> = messages.keys().map(|(name, _)| name.clone()).collect();
    let languages: Vec<String> = messages.keys().map(|(_, language)| language.clone()).collect();
    let counts: Vec<i64> = messages.values().copied().collect();
    sqlx::query!(
        "INSERT INTO template_uses AS u (tenant_id, template_id, day, slot, uses)
        SELECT $1, t.id, current_date, floor(random() * 16)::smallint, sum(used.messages)
        FROM unnest($3::text[], $4::text[], $5::bigint[]) AS used (name, language, messages)
        JOIN templates t
            ON t.tenant_id = $1 AND t.channel_account_id = $2
            AND ((t.name = used.name AND t.language = used.language) OR t.provider_id = used.name)
        GROUP BY t.id
        ORDER BY t.id
        ON CONFLICT (tenant_id, template_id, day, slot) DO UPDATE SET uses = u.uses + excluded.uses",
        tenant_id.0,
        account.0,
        &names,
        &languages,
        &counts,
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// So many messages of these templates are accepted.
///
/// # Errors
/// If the database does not answer.
pub async fn count_many(tx: &mut FleetTx, tenant_id: TenantId, messages: &BTreeMap<TemplateId, i64>) -> Result<()> {
    if messages.is_empty() {
        return Ok(());
    }
    let ids: Vec<Uuid> = messages.keys().map(|id| id.0).collect();
    let counts: Vec<i64> = messages.values().copied().collect();
    sqlx::query!(
        "INSERT INTO template_uses AS u (tenant_id, template_id, day, slot, uses)
        SELECT $1, id, current_date, floor(random() * 16)::smallint, messages
        FROM unnest($2::uuid[], $3::bigint[]) AS used (id, messages)
        ORDER BY id
        ON CONFLICT (tenant_id, template_id, day, slot) DO UPDATE SET uses = u.uses + excluded.uses",
        tenant_id.0,
        &ids,
        &counts,
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}
