//! Providers' templates, fetched: when they are due, and what was found. Accounts that share a business account at their provider share its
//! templates: one of them asks for all. Accounts are locked before templates.

use crate::{
    db::{FleetTx, TenantTx, error::Result, media},
    domain::{
        ids::{ChannelAccountId, TenantId},
        templates::TemplateInfo,
    },
    jobs::media::{MediaJob, Task},
};
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

/// What could not be fetched is tried again after this.
const AFTER_FAILURE: TimeDelta = TimeDelta::minutes(15);
/// However often a webhook names templates that are not known, no account is asked more often than this.
const NO_SOONER: TimeDelta = TimeDelta::minutes(1);
/// Of somebody who asks again and again the second is answered by the first.
const ASKED_JUST_NOW: TimeDelta = TimeDelta::seconds(10);
/// So many accounts are asked in one transaction.
const AT_ONCE: i64 = 100;

/// Has the templates fetched that are older than this, that a webhook has named without our knowing them, or that could not be fetched the
/// last time. Whether there may be more.
///
/// # Errors
/// If the database does not answer.
pub async fn ask_for_due(tx: &mut FleetTx, older_than: TimeDelta) -> Result<bool> {
    let asked = sqlx::query!(
        r#"WITH due AS MATERIALIZED (
            SELECT DISTINCT ON (tenant_id, provider, coalesce(business_account_id, id::text))
                tenant_id, id, provider, business_account_id, templates_asked_at
            FROM channel_accounts
            WHERE provider IN ('whatsapp', 'twilio') AND state <> 'disabled'
                AND (
                    templates_asked_at IS NULL
                    OR templates_asked_at < now() - make_interval(secs => $1)
                    OR (templates_failure IS NOT NULL AND templates_asked_at < now() - make_interval(secs => $2))
                    OR (templates_stale_at > templates_asked_at AND templates_asked_at < now() - make_interval(secs => $3))
                )
            -- Who could last time can again.
            ORDER BY tenant_id, provider, coalesce(business_account_id, id::text), templates_failure IS NOT NULL, id
            LIMIT $4
        ), sharing AS MATERIALIZED (
            SELECT s.tenant_id, s.id, due.id AS asks
            FROM due
            JOIN channel_accounts s
                ON s.tenant_id = due.tenant_id
                AND (s.id = due.id OR (s.provider = due.provider AND s.business_account_id = due.business_account_id))
            -- Another scheduler may have been quicker.
            WHERE s.templates_asked_at IS NULL OR due.templates_asked_at IS NULL OR s.templates_asked_at <= due.templates_asked_at
            ORDER BY s.tenant_id, s.id
            FOR NO KEY UPDATE OF s
        )
        UPDATE channel_accounts a
        SET templates_asked_at = now()
        FROM sharing
        WHERE a.tenant_id = sharing.tenant_id AND a.id = sharing.id
        RETURNING a.tenant_id AS "tenant_id: TenantId", a.id AS "id: ChannelAccountId", sharing.asks = a.id AS "asks!", now() AS "now!""#,
        seconds(older_than),
        seconds(AFTER_FAILURE),
        seconds(NO_SOONER),
        AT_ONCE,
    )
    .fetch_all(tx.conn())
    .await?;
    let mut jobs = 0;
    for row in asked.iter().filter(|row| row.asks) {
        let job = MediaJob { tenant_id: row.tenant_id, task: Task::Templates { channel_account_id: row.id } };
        tx.enqueue(row.tenant_id, media::QUEUE, job.to_job(row.now), None);
        jobs += 1;
    }
    Ok(jobs == AT_ONCE)
}

/// Has the templates of an account fetched, or of all of the tenant's: the accounts whose templates are being fetched.
///
/// # Errors
/// If the database does not answer.
pub async fn ask(tx: &mut TenantTx, account: Option<ChannelAccountId>) -> Result<Vec<ChannelAccountId>> {
    let tenant_id = tx.tenant_id();
    let rows = sqlx::query!(
        r#"SELECT id AS "id: ChannelAccountId", coalesce(business_account_id, id::text) AS "owner!", provider,
            coalesce(templates_asked_at > now() - make_interval(secs => $3), false) AS "just_now!", now() AS "now!"
        FROM channel_accounts
        WHERE tenant_id = $1 AND ($2::uuid IS NULL OR id = $2) AND provider IN ('whatsapp', 'twilio') AND state <> 'disabled'
        ORDER BY id
        FOR NO KEY UPDATE"#,
        tenant_id.0,
        account.map(|id| id.0),
        seconds(ASKED_JUST_NOW),
    )
    .fetch_all(tx.conn())
    .await?;
    let (mut asking, mut owners): (Vec<Uuid>, Vec<(String, String)>) = (Vec::new(), Vec::new());
    for row in rows.iter().filter(|row| !row.just_now) {
        let owner = (row.provider.clone(), row.owner.clone());
        if !owners.contains(&owner) {
            owners.push(owner);
            let job = MediaJob { tenant_id, task: Task::Templates { channel_account_id: row.id } };
            tx.enqueue(media::QUEUE, job.to_job(row.now), None);
        }
        asking.push(row.id.0);
    }
    sqlx::query!(
        "UPDATE channel_accounts SET templates_asked_at = now() WHERE tenant_id = $1 AND id = ANY ($2)",
        tenant_id.0,
        &asking,
    )
    .execute(tx.conn())
    .await?;
    Ok(rows.into_iter().map(|row| row.id).collect())
}

/// Replaces what is known of the templates of an account, and of those that share them, by what was there at that time.
///
/// # Errors
/// If the database does not answer.
pub async fn replace(
    tx: &mut FleetTx,
    tenant_id: TenantId,
    channel_account_id: ChannelAccountId,
    templates: &[TemplateInfo],
    at: DateTime<Utc>,
) -> Result<()> {
    let accounts = lock(tx.conn(), tenant_id, channel_account_id).await?;
    sqlx::query!(
        "UPDATE channel_accounts
        SET templates_synced_at = $3, templates_asked_at = greatest(templates_asked_at, $3), templates_failure = NULL
        WHERE tenant_id = $1 AND id = ANY ($2)",
        tenant_id.0,
        &accounts,
        at,
    )
    .execute(tx.conn())
    .await?;
    let names: Vec<String> = templates.iter().map(|t| t.name.clone()).collect();
    let languages: Vec<String> = templates.iter().map(|t| t.language.clone()).collect();
    sqlx::query!(
        "WITH gone AS (
            DELETE FROM templates t
            WHERE t.tenant_id = $1 AND t.channel_account_id = ANY ($2)
                -- What was made since is not in the list, and what was never made is not missing from it.
                AND t.synced_at <= $5 AND t.status NOT IN ('QUEUED', 'CALLING', 'REFUSED')
                -- It may have been made while the list was, and is said to be as old as the call that made it.
                AND NOT (t.status IN ('PENDING', 'UNSUBMITTED', 'RECEIVED') AND t.synced_at > $5 - interval '10 minutes')
                AND NOT EXISTS (
                    SELECT FROM unnest($3::text[], $4::text[]) AS kept (name, language) WHERE kept.name = t.name AND kept.language = t.language
                )
            RETURNING t.id
        )
        DELETE FROM template_uses u USING gone WHERE u.tenant_id = $1 AND u.template_id = gone.id",
        tenant_id.0,
        &accounts,
        &names,
        &languages,
        at,
    )
    .execute(tx.conn())
    .await?;
    write(tx.conn(), tenant_id, &accounts, templates, at).await
}

/// The templates of an account could not be fetched.
///
/// # Errors
/// If the database does not answer.
pub async fn fail(tx: &mut FleetTx, tenant_id: TenantId, id: ChannelAccountId, why: &str) -> Result<()> {
    let accounts = lock(tx.conn(), tenant_id, id).await?;
    sqlx::query!(
        "UPDATE channel_accounts SET templates_failure = $3 WHERE tenant_id = $1 AND id = ANY ($2)",
        tenant_id.0,
        &accounts,
        why,
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

fn seconds(time: TimeDelta) -> f64 {
    time.as_seconds_f64()
}

/// Locks an account and those that share its templates.
pub(super) async fn lock(conn: &mut PgConnection, tenant_id: TenantId, id: ChannelAccountId) -> Result<Vec<Uuid>> {
    let ids = sqlx::query_scalar!(
        "SELECT s.id
        FROM channel_accounts a
        JOIN channel_accounts s
            ON s.tenant_id = a.tenant_id
            AND (s.id = a.id OR (s.provider = a.provider AND s.business_account_id = a.business_account_id))
        WHERE a.tenant_id = $1 AND a.id = $2
        ORDER BY s.id
        FOR NO KEY UPDATE OF s",
        tenant_id.0,
        id.0,
    )
    .fetch_all(conn)
    .await?;
    Ok(ids)
}

/// Writes templates down as they were at that time. How well one is taken is told by webhooks alone.
pub(super) async fn write(
    conn: &mut PgConnection,
    tenant_id: TenantId,
    accounts: &[Uuid],
    templates: &[TemplateInfo],
    at: DateTime<Utc>,
) -> Result<()> {
    let names: Vec<String> = templates.iter().map(|t| t.name.clone()).collect();
    let languages: Vec<String> = templates.iter().map(|t| t.language.clone()).collect();
    let statuses: Vec<String> = templates.iter().map(|t| t.status.clone()).collect();
    let categories: Vec<String> = templates.iter().map(|t| t.category.clone()).collect();
    let bodies: Vec<String> = templates.iter().map(|t| t.body.clone()).collect();
    let variables: Vec<i32> = templates.iter().map(|t| t.variables).collect();
    let needs: Vec<Value> =
        templates.iter().map(|t| serde_json::to_value(&t.needs).expect("plain fields are always JSON")).collect();
    let provider_ids: Vec<Option<String>> = templates.iter().map(|t| t.provider_id.clone()).collect();
    let components: Vec<Option<Value>> = templates.iter().map(|t| t.components.clone()).collect();
    let reasons: Vec<Option<String>> = templates.iter().map(|t| t.reason.clone()).collect();
    // The provider's pages may show one twice when the list changes meanwhile.
    sqlx::query!(
        "INSERT INTO templates (tenant_id, channel_account_id, name, language, status, category, body, variables, synced_at, needs,
            provider_id, components, reason)
        SELECT DISTINCT ON (account, name, language) $1::uuid, account, name, language, status, category, body, variables, $9::timestamptz,
            needs, provider_id, components, reason
        FROM unnest($3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::int[], $10::jsonb[], $11::text[], $12::jsonb[], $13::text[])
            AS template (name, language, status, category, body, variables, needs, provider_id, components, reason)
        CROSS JOIN unnest($2::uuid[]) AS account
        -- Most are as they were, and are not written again: every number of a Twilio account has all of its templates.
        WHERE NOT EXISTS (
            SELECT FROM templates t
            WHERE t.tenant_id = $1 AND t.channel_account_id = account AND t.name = template.name AND t.language = template.language
                AND (t.status, t.category, t.body, t.variables, t.needs, t.provider_id, t.components)
                    IS NOT DISTINCT FROM (template.status, template.category, template.body, template.variables, template.needs,
                        template.provider_id, template.components)
                AND (template.reason IS NULL OR t.reason IS NOT DISTINCT FROM template.reason)
                AND t.request IS NULL AND t.problem IS NULL
        )
        ORDER BY account, name, language
        ON CONFLICT (tenant_id, channel_account_id, name, language) DO UPDATE
        -- One that is to be deleted is; and what a webhook has told since counts more.
        SET status = CASE
                WHEN templates.status = 'DELETING' OR templates.status_told_at > excluded.synced_at THEN templates.status
                ELSE excluded.status
            END,
            reason = CASE
                WHEN templates.status = 'DELETING' OR templates.status_told_at > excluded.synced_at THEN templates.reason
                ELSE coalesce(excluded.reason, CASE WHEN templates.status = excluded.status THEN templates.reason END)
            END,
            category = excluded.category, body = excluded.body, variables = excluded.variables, synced_at = excluded.synced_at,
            needs = excluded.needs, provider_id = excluded.provider_id, components = excluded.components, request = NULL, problem = NULL",
        tenant_id.0,
        accounts,
        &names,
        &languages,
        &statuses,
        &categories,
        &bodies,
        &variables,
        at,
        &needs,
        &provider_ids as &[Option<String>],
        &components as &[Option<Value>],
        &reasons as &[Option<String>],
    )
    .execute(conn)
    .await?;
    Ok(())
}
