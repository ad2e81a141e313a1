//! A file on its way: claimed by one worker at a time, then stored, put off or given up.

use super::QUEUE;
use crate::{
    db::{error::Result, scope::FleetTx},
    domain::{
        channel::{Channel, Provider},
        ids::{ChannelAccountId, MediaId, TenantId},
        media::MediaState,
        messages::MessageKind,
    },
    jobs::media::{MediaJob, Task},
};
use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

/// A file that is to be fetched, as its provider named and described it.
#[derive(Clone, Debug)]
pub struct File {
    /// Whose.
    pub tenant_id: TenantId,
    /// Which.
    pub id: MediaId,
    /// The account that received it.
    pub channel_account_id: ChannelAccountId,
    /// Who has it.
    pub provider: Provider,
    /// On which channel it came.
    pub channel: Channel,
    /// What its message is.
    pub kind: MessageKind,
    /// The provider's id of it.
    pub provider_media_id: Option<String>,
    /// Where it was when the provider told.
    pub url: Option<String>,
    /// The type as declared.
    pub declared_type: Option<String>,
    /// The digest as declared, as the provider wrote it (base64 or hex).
    pub declared_sha256: Option<String>,
    /// How many attempts have failed.
    pub attempts: i32,
    /// How many earlier looks at it nobody ever came back from: each may have been the end of a process.
    pub lost: i32,
    /// When we were told of it, or somebody last asked for it again.
    pub asked_at: DateTime<Utc>,
    /// Until when it may be kept.
    pub keep_until: Option<DateTime<Utc>>,
    /// The database's time of the claim.
    pub now: DateTime<Utc>,
}

/// What became of asking for a file.
#[derive(Debug)]
pub enum Claim {
    /// It is ours until the lease is over.
    Ours(Box<File>),
    /// Another has it, for so long at most.
    Anothers(TimeDelta),
    /// It is settled, or there is no such file.
    Over,
}

/// Claims a file that waits, for so long.
///
/// # Errors
/// If the database does not answer.
pub async fn claim(tx: &mut FleetTx, tenant_id: TenantId, id: MediaId, claim: Uuid, lease: TimeDelta) -> Result<Claim> {
    let ours = sqlx::query!(
        r#"UPDATE media
        SET claim = $3, claimed_until = now() + make_interval(secs => $4)
        WHERE tenant_id = $1 AND id = $2 AND state = 'waiting' AND (claimed_until IS NULL OR claimed_until <= now() OR claim = $3)
        RETURNING channel_account_id, provider, channel, kind, provider_media_id, url, declared_type, declared_sha256, attempts,
            -- Asked again after an answer that was lost: it is the same claim.
            claims - (examining IS NOT DISTINCT FROM $3)::int AS "lost!",
            coalesce(asked_at, created_at) AS "asked_at!", keep_until, now() AS "now!""#,
        tenant_id.0,
        id.0,
        claim,
        lease.as_seconds_f64(),
    )
    .fetch_optional(tx.conn())
    .await?;
    if let Some(row) = ours {
        // Written by us: unknown names come from a newer release only, which then fetches it.
        let (Ok(provider), Some(channel), Some(kind)) =
            (row.provider.parse(), Channel::from_name(&row.channel), MessageKind::from_name(&row.kind))
        else {
            release(tx, tenant_id, id, claim, None).await?;
            return Ok(Claim::Anothers(lease));
        };
        return Ok(Claim::Ours(Box::new(File {
            tenant_id,
            id,
            channel_account_id: ChannelAccountId(row.channel_account_id),
            provider,
            channel,
            kind,
            provider_media_id: row.provider_media_id,
            url: row.url,
            declared_type: row.declared_type,
            declared_sha256: row.declared_sha256,
            attempts: row.attempts,
            lost: row.lost,
            asked_at: row.asked_at,
            keep_until: row.keep_until,
            now: row.now,
        })));
    }
    let left_s = sqlx::query_scalar!(
        r#"SELECT EXTRACT(epoch FROM claimed_until - now())::float8 AS "left_s!"
        FROM media
        WHERE tenant_id = $1 AND id = $2 AND state = 'waiting' AND claimed_until > now()"#,
        tenant_id.0,
        id.0,
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(match left_s {
        Some(left_s) => Claim::Anothers(TimeDelta::milliseconds((left_s * 1000.0) as i64)),
        None => Claim::Over,
    })
}

/// Makes a claim last for so long from now on. Whether it is still ours.
///
/// # Errors
/// If the database does not answer.
pub async fn renew(tx: &mut FleetTx, tenant_id: TenantId, id: MediaId, claim: Uuid, lease: TimeDelta) -> Result<bool> {
    let renewed = sqlx::query!(
        "UPDATE media SET claimed_until = now() + make_interval(secs => $4) WHERE tenant_id = $1 AND id = $2 AND claim = $3",
        tenant_id.0,
        id.0,
        claim,
        lease.as_seconds_f64(),
    )
    .execute(tx.conn())
    .await?;
    Ok(renewed.rows_affected() == 1)
}

/// Says that a file is about to be looked at: until [`examined`] takes it back, it counts as one that may end the process.
///
/// # Errors
/// If the database does not answer.
pub async fn examining(tx: &mut FleetTx, tenant_id: TenantId, id: MediaId, claim: Uuid) -> Result<()> {
    sqlx::query!(
        "UPDATE media
        SET claims = claims + 1, examining = $3
        WHERE tenant_id = $1 AND id = $2 AND claim = $3 AND examining IS DISTINCT FROM $3",
        tenant_id.0,
        id.0,
        claim,
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Says that a file was looked at and the process lives.
///
/// # Errors
/// If the database does not answer.
pub async fn examined(tx: &mut FleetTx, tenant_id: TenantId, id: MediaId, claim: Uuid) -> Result<()> {
    sqlx::query!(
        "UPDATE media SET claims = claims - 1, examining = NULL WHERE tenant_id = $1 AND id = $2 AND examining = $3",
        tenant_id.0,
        id.0,
        claim,
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// What is known of a file that is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its key in storage.
    pub storage_key: String,
    /// How large it is.
    pub size_bytes: u64,
    /// Its SHA-256.
    pub sha256: [u8; 32],
    /// Its type, as its bytes say.
    pub content_type: String,
    /// Its name, where its provider said it only with the bytes.
    pub filename: Option<String>,
    /// Of a picture: its width and height in pixels.
    pub dimensions: Option<(u32, u32)>,
    /// Of a recording or film: how long it is.
    pub duration_ms: Option<u64>,
    /// The key of a small picture of it.
    pub thumbnail_key: Option<String>,
    /// What should be known of it nevertheless (a digest that is not the declared one): a word, and a sentence for a person.
    pub remark: Option<Why>,
}

/// Why a file is not stored, or not yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Why {
    /// A word for programs.
    pub code: &'static str,
    /// A sentence for a person.
    pub reason: String,
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It is stored.
    Stored(Box<Stored>),
    /// It failed and is tried again after this time.
    PutOff {
        /// How long to wait.
        after: TimeDelta,
        /// What went wrong.
        why: Why,
    },
    /// It is not tried again.
    Over {
        /// Failed, refused or expired.
        state: MediaState,
        /// Why.
        why: Why,
    },
}

/// An attempt that has ended.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// Whose.
    pub tenant_id: TenantId,
    /// Which file.
    pub media_id: MediaId,
    /// As what it was claimed.
    pub claim: Uuid,
    /// How.
    pub ending: Ending,
}

/// Writes down how attempts ended. What has been settled meanwhile, or claimed by another, is left alone. A file whose object is
/// being deleted is fetched once more.
///
/// # Errors
/// If the database does not answer, or a row is not fit to be stored.
pub async fn record(tx: &mut FleetTx, attempts: &[&Attempt]) -> Result<()> {
    let mut attempts = attempts.to_vec();
    attempts.sort_by_key(|attempt| (attempt.tenant_id, attempt.media_id));
    for attempt in attempts {
        match &attempt.ending {
            Ending::Stored(stored) => store(tx, attempt, stored).await?,
            Ending::PutOff { after, why } => put_off(tx, attempt, *after, why).await?,
            Ending::Over { state, why } => give_up(tx, attempt, *state, why).await?,
        }
    }
    Ok(())
}

async fn store(tx: &mut FleetTx, attempt: &Attempt, stored: &Stored) -> Result<()> {
    let keys: Vec<String> =
        [Some(&stored.storage_key), stored.thumbnail_key.as_ref()].into_iter().flatten().cloned().collect();
    // Whoever looks for objects that nobody refers to waits for us, or has found these before.
    if !super::objects::hold(tx.conn(), attempt.tenant_id, &keys).await? {
        let why = Why { code: "storage_busy", reason: "It is stored again.".to_owned() };
        return put_off(tx, attempt, TimeDelta::zero(), &why).await;
    }
    let (width, height) = stored.dimensions.unzip();
    let number = |number: Option<u32>| number.and_then(|number| i32::try_from(number).ok());
    sqlx::query!(
        "UPDATE media
        SET state = 'stored', storage_key = $4, size_bytes = $5, sha256 = $6, content_type = $7,
            filename = coalesce(filename, $8), width = $9, height = $10, duration_ms = $11, thumbnail_key = $12,
            code = $13, reason = $14, claim = NULL, claimed_until = NULL, settled_at = now(),
            claims = claims - (examining IS NOT DISTINCT FROM $3)::int, examining = NULL
        WHERE tenant_id = $1 AND id = $2 AND claim = $3 AND state = 'waiting'",
        attempt.tenant_id.0,
        attempt.media_id.0,
        attempt.claim,
        stored.storage_key,
        i64::try_from(stored.size_bytes).unwrap_or(i64::MAX),
        &stored.sha256[..],
        stored.content_type,
        stored.filename,
        number(width),
        number(height),
        stored.duration_ms.and_then(|ms| i64::try_from(ms).ok()),
        stored.thumbnail_key,
        stored.remark.as_ref().map(|why| why.code),
        stored.remark.as_ref().map(|why| why.reason.clone()),
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

async fn put_off(tx: &mut FleetTx, attempt: &Attempt, after: TimeDelta, why: &Why) -> Result<()> {
    let put_off = sqlx::query!(
        r#"UPDATE media
        SET attempts = attempts + 1, code = $4, reason = $5, claim = NULL, claimed_until = NULL,
            claims = claims - (examining IS NOT DISTINCT FROM $3)::int, examining = NULL
        WHERE tenant_id = $1 AND id = $2 AND claim = $3 AND state = 'waiting'
        RETURNING channel_account_id AS "channel_account_id: ChannelAccountId", now() AS "now!""#,
        attempt.tenant_id.0,
        attempt.media_id.0,
        attempt.claim,
        why.code,
        why.reason,
    )
    .fetch_optional(tx.conn())
    .await?;
    if let Some(row) = put_off {
        let task = Task::Fetch { media_id: attempt.media_id, channel_account_id: Some(row.channel_account_id) };
        let job = MediaJob { tenant_id: attempt.tenant_id, task };
        tx.enqueue(attempt.tenant_id, QUEUE, job.to_job(row.now), Some(after));
    }
    Ok(())
}

async fn give_up(tx: &mut FleetTx, attempt: &Attempt, state: MediaState, why: &Why) -> Result<()> {
    sqlx::query!(
        "UPDATE media
        SET state = $4, attempts = attempts + 1, code = $5, reason = $6, claim = NULL, claimed_until = NULL, settled_at = now()
        WHERE tenant_id = $1 AND id = $2 AND claim = $3 AND state = 'waiting'",
        attempt.tenant_id.0,
        attempt.media_id.0,
        attempt.claim,
        state.as_str(),
        why.code,
        why.reason,
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// The account that fetches. Its secrets are sealed.
#[derive(Debug)]
pub struct Account {
    /// At whom.
    pub provider: Provider,
    /// The provider's id of it.
    pub external_id: String,
    /// The provider's id of the account it belongs to (Twilio's account SID).
    pub business_account_id: Option<String>,
    /// Which key sealed its secrets.
    pub secret_key_id: String,
    /// The sealed secrets.
    pub sealed_secrets: Vec<u8>,
}

/// The account with this id, if it is there.
///
/// # Errors
/// If the database does not answer.
pub async fn account(tx: &mut FleetTx, tenant_id: TenantId, id: ChannelAccountId) -> Result<Option<Account>> {
    let row = sqlx::query!(
        "SELECT provider, external_id, business_account_id, secret_key_id, sealed_secrets
        FROM channel_accounts
        WHERE tenant_id = $1 AND id = $2",
        tenant_id.0,
        id.0,
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(row.and_then(|row| {
        Some(Account {
            provider: row.provider.parse().ok()?,
            external_id: row.external_id,
            business_account_id: row.business_account_id,
            secret_key_id: row.secret_key_id,
            sealed_secrets: row.sealed_secrets,
        })
    }))
}

/// Gives a claim back before its lease is over, uncharged; with what the file waits for, if that is known.
///
/// # Errors
/// If the database does not answer; the lease ends by itself.
pub async fn release(tx: &mut FleetTx, tenant_id: TenantId, id: MediaId, claim: Uuid, why: Option<&Why>) -> Result<()> {
    sqlx::query!(
        "UPDATE media
        SET claim = NULL, claimed_until = NULL, claims = claims - (examining IS NOT DISTINCT FROM $3)::int, examining = NULL,
            code = coalesce($4, code), reason = coalesce($5, reason)
        WHERE tenant_id = $1 AND id = $2 AND claim = $3 AND state = 'waiting'",
        tenant_id.0,
        id.0,
        claim,
        why.map(|why| why.code),
        why.map(|why| why.reason.as_str()),
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}
