//! Who people are, where a provider tells only who asks: once a day at most for each contact without a name.

use super::QUEUE;
use crate::{
    db::{
        error::Result,
        scope::{FleetTx, TenantTx},
    },
    domain::{
        channel::Provider,
        ids::{ChannelAccountId, ContactId, TenantId},
    },
    jobs::media::{MediaJob, Task},
};
use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

/// What is being deleted is gone by then.
const AVATAR_AGAIN: TimeDelta = TimeDelta::minutes(5);

/// Somebody who wrote, and whose name the webhook did not say.
#[derive(Clone, Debug)]
pub struct Nameless {
    /// Whose contact.
    pub tenant_id: TenantId,
    /// Who.
    pub contact_id: ContactId,
    /// The account that was written to, and may ask.
    pub channel_account_id: ChannelAccountId,
    /// Whom to ask.
    pub provider: Provider,
    /// How the provider calls the person.
    pub person_id: String,
}

/// Has the provider asked about those of these people, no contact twice, who have no name and were not asked about lately.
///
/// # Errors
/// If the database does not answer.
pub async fn ask(tx: &mut FleetTx, people: &[Nameless]) -> Result<()> {
    if people.is_empty() {
        return Ok(());
    }
    let tenants: Vec<Uuid> = people.iter().map(|p| p.tenant_id.0).collect();
    let contacts: Vec<Uuid> = people.iter().map(|p| p.contact_id.0).collect();
    let accounts: Vec<Uuid> = people.iter().map(|p| p.channel_account_id.0).collect();
    let providers: Vec<String> = people.iter().map(|p| p.provider.as_str().to_owned()).collect();
    let ids: Vec<String> = people.iter().map(|p| p.person_id.clone()).collect();
    let asked = sqlx::query!(
        r#"INSERT INTO contact_profiles AS p
            (tenant_id, contact_id, channel_account_id, provider, provider_person_id, ask_again_at)
        SELECT n.tenant_id, n.contact_id, n.account, n.provider, n.person_id, now() + interval '1 day'
        FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::text[])
            AS n (tenant_id, contact_id, account, provider, person_id)
        CROSS JOIN LATERAL (
            SELECT
            FROM contacts
            WHERE tenant_id = n.tenant_id AND id = n.contact_id AND name IS NULL AND erased_at IS NULL AND merged_into IS NULL
            LIMIT 1
            -- Who erases them waits, and finds this.
            FOR KEY SHARE
        ) AS c
        ORDER BY n.tenant_id, n.contact_id
        ON CONFLICT (tenant_id, contact_id) DO UPDATE
            SET channel_account_id = excluded.channel_account_id, provider = excluded.provider,
                provider_person_id = excluded.provider_person_id, ask_again_at = excluded.ask_again_at,
                state = 'waiting', code = NULL, reason = NULL, attempts = 0
            WHERE p.ask_again_at <= now()
        RETURNING tenant_id AS "tenant_id: TenantId", contact_id AS "contact_id: ContactId", now() AS "now!""#,
        &tenants,
        &contacts,
        &accounts,
        &providers,
        &ids,
    )
    .fetch_all(tx.conn())
    .await?;
    for row in asked {
        let job = MediaJob { tenant_id: row.tenant_id, task: Task::Profile { contact_id: row.contact_id } };
        tx.enqueue(row.tenant_id, QUEUE, job.to_job(row.now), None);
    }
    Ok(())
}

/// Somebody to be asked about.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The account that asks.
    pub channel_account_id: ChannelAccountId,
    /// Whom it asks.
    pub provider: Provider,
    /// How the provider calls the person.
    pub person_id: String,
    /// How many attempts have failed.
    pub attempts: i32,
    /// The database's time.
    pub now: DateTime<Utc>,
}

/// Whom to ask about; `None` if that is done, or not to be done any more.
///
/// # Errors
/// If the database does not answer.
pub async fn wanted(tx: &mut FleetTx, tenant_id: TenantId, contact_id: ContactId) -> Result<Option<Wanted>> {
    let row = sqlx::query!(
        r#"SELECT channel_account_id AS "account: ChannelAccountId", provider, provider_person_id, attempts, now() AS "now!"
        FROM contact_profiles
        WHERE tenant_id = $1 AND contact_id = $2 AND state = 'waiting'"#,
        tenant_id.0,
        contact_id.0,
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(row.and_then(|row| {
        Some(Wanted {
            channel_account_id: row.account,
            provider: row.provider.parse().ok()?,
            person_id: row.provider_person_id,
            attempts: row.attempts,
            now: row.now,
        })
    }))
}

/// A copy of somebody's avatar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Avatar {
    /// Its key in storage.
    pub storage_key: String,
    /// Its type, as its bytes say.
    pub content_type: String,
    /// How large it is.
    pub size_bytes: u64,
}

/// The copy of a contact's avatar, if there is one: its key in storage and its type.
///
/// # Errors
/// If the database does not answer.
pub async fn avatar(tx: &mut TenantTx, id: ContactId) -> Result<Option<(String, String)>> {
    let tenant_id = tx.tenant_id();
    let row = sqlx::query!(
        "SELECT storage_key, content_type FROM contact_profiles WHERE tenant_id = $1 AND contact_id = $2 AND storage_key IS NOT NULL",
        tenant_id.0,
        id.0,
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(row.and_then(|row| row.storage_key.zip(row.content_type)))
}

/// What a provider said of somebody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Who they are.
    Known {
        /// Their name.
        name: Option<String>,
        /// Their name at the provider.
        username: Option<String>,
        /// Their picture.
        avatar: Option<Avatar>,
    },
    /// Nothing: not consented to, or there is nothing to say.
    Unavailable {
        /// A word for programs.
        code: String,
        /// A sentence for a person.
        reason: String,
    },
    /// It could not be asked, and is asked again.
    PutOff {
        /// How long to wait.
        after: TimeDelta,
        /// A word for programs.
        code: String,
        /// A sentence for a person.
        reason: String,
    },
}

/// Writes down what was said of somebody. A name that the contact has, from whoever, stays.
///
/// # Errors
/// If the database does not answer, or a row is not fit to be stored.
pub async fn record(tx: &mut FleetTx, tenant_id: TenantId, contact_id: ContactId, answer: &Answer) -> Result<()> {
    match answer {
        Answer::Known { name, username, avatar } => {
            sqlx::query!(
                "UPDATE contacts
                SET name = coalesce(name, $3), username = coalesce(username, $4)
                WHERE tenant_id = $1 AND id = $2 AND erased_at IS NULL AND merged_into IS NULL
                    -- Nothing is asked any more about who was erased meanwhile.
                    AND EXISTS (
                        SELECT FROM contact_profiles WHERE tenant_id = $1 AND contact_id = $2 AND state = 'waiting'
                    )
                    AND ((name IS NULL AND $3::text IS NOT NULL) OR (username IS NULL AND $4::text IS NOT NULL))",
                tenant_id.0,
                contact_id.0,
                name.as_deref(),
                username.as_deref(),
            )
            .execute(tx.conn())
            .await?;
            let avatar = avatar.as_ref();
            // What it was stored as is being deleted: who they are is known, and their picture is asked for once more.
            if let Some(a) = avatar
                && !super::objects::hold(tx.conn(), tenant_id, std::slice::from_ref(&a.storage_key)).await?
            {
                let reason = "The picture is stored again.";
                return put_off(tx, tenant_id, contact_id, AVATAR_AGAIN, "storage_busy", reason).await;
            }
            sqlx::query!(
                "UPDATE contact_profiles
                SET state = 'known', code = NULL, reason = NULL, answered_at = now(),
                    storage_key = coalesce($3, storage_key), content_type = coalesce($4, content_type),
                    size_bytes = coalesce($5, size_bytes)
                WHERE tenant_id = $1 AND contact_id = $2 AND state = 'waiting'",
                tenant_id.0,
                contact_id.0,
                avatar.map(|a| a.storage_key.clone()),
                avatar.map(|a| a.content_type.clone()),
                avatar.and_then(|a| i64::try_from(a.size_bytes).ok()),
            )
            .execute(tx.conn())
            .await?;
        }
        Answer::Unavailable { code, reason } => {
            sqlx::query!(
                "UPDATE contact_profiles
                SET state = 'unavailable', code = $3, reason = $4, answered_at = now(), attempts = attempts + 1
                WHERE tenant_id = $1 AND contact_id = $2 AND state = 'waiting'",
                tenant_id.0,
                contact_id.0,
                code,
                reason,
            )
            .execute(tx.conn())
            .await?;
        }
        Answer::PutOff { after, code, reason } => {
            put_off(tx, tenant_id, contact_id, *after, code, reason).await?;
        }
    }
    Ok(())
}

async fn put_off(
    tx: &mut FleetTx,
    tenant_id: TenantId,
    contact_id: ContactId,
    after: TimeDelta,
    code: &str,
    reason: &str,
) -> Result<()> {
    let now = sqlx::query_scalar!(
        r#"UPDATE contact_profiles
        SET attempts = attempts + 1, code = $3, reason = $4
        WHERE tenant_id = $1 AND contact_id = $2 AND state = 'waiting'
        RETURNING now() AS "now!""#,
        tenant_id.0,
        contact_id.0,
        code,
        reason,
    )
    .fetch_optional(tx.conn())
    .await?;
    if let Some(now) = now {
        let job = MediaJob { tenant_id, task: Task::Profile { contact_id } };
        tx.enqueue(tenant_id, QUEUE, job.to_job(now), Some(after));
    }
    Ok(())
}
