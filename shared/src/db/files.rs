//! Files that are uploaded to be sent: what they are, and by which ids providers keep them.

use super::{
    error::Result,
    media::objects,
    scope::{FleetTx, TenantTx},
};
use crate::domain::{
    content::OutboundContent,
    ids::{ApiTokenId, ChannelAccountId, FileId, MessageId, TenantId},
};
use chrono::{DateTime, TimeDelta, Utc};
use std::collections::{BTreeMap, HashMap};
use uuid::Uuid;

/// A file that lies in storage and is to be known.
#[derive(Clone, Debug)]
pub struct NewFile<'a> {
    /// Its id.
    pub id: FileId,
    /// Its key in storage.
    pub storage_key: &'a str,
    /// Its SHA-256.
    pub sha256: [u8; 32],
    /// How large it is.
    pub size_bytes: i64,
    /// Its type, by its first bytes.
    pub content_type: &'a str,
    /// The name it came with.
    pub filename: Option<&'a str>,
    /// Who uploaded it.
    pub created_by: ApiTokenId,
}

/// A file as it is known.
#[derive(Clone, Debug)]
pub struct File {
    /// Its id.
    pub id: FileId,
    /// Its key in storage.
    pub storage_key: String,
    /// Its SHA-256.
    pub sha256: Vec<u8>,
    /// How large it is.
    pub size_bytes: i64,
    /// Its type.
    pub content_type: String,
    /// The name it came with.
    pub filename: Option<String>,
    /// When it was uploaded.
    pub created_at: DateTime<Utc>,
}

/// Says that an object is about to be stored. `Some`: it is being deleted, for so long at most.
///
/// # Errors
/// If the database does not answer.
pub async fn announce(tx: &mut TenantTx, key: &str) -> Result<Option<TimeDelta>> {
    let tenant_id = tx.tenant_id();
    objects::touch_on(tx.conn(), tenant_id, &[key.to_owned()]).await
}

/// Keeps what is known of a file whose object is stored. Whether the object is still there.
///
/// # Errors
/// If the database does not answer.
pub async fn insert(tx: &mut TenantTx, file: &NewFile<'_>) -> Result<bool> {
    let tenant_id = tx.tenant_id();
    if !objects::hold(tx.conn(), tenant_id, &[file.storage_key.to_owned()]).await? {
        return Ok(false);
    }
    sqlx::query!(
        "INSERT INTO files (tenant_id, id, storage_key, sha256, size_bytes, content_type, filename, created_by)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        tenant_id.0,
        file.id.0,
        file.storage_key,
        &file.sha256,
        file.size_bytes,
        file.content_type,
        file.filename,
        file.created_by.0,
    )
    .execute(tx.conn())
    .await?;
    Ok(true)
}

/// Those of these files that there are.
///
/// # Errors
/// If the database does not answer.
pub async fn find(tx: &mut TenantTx, ids: &[FileId]) -> Result<Vec<File>> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let tenant_id = tx.tenant_id();
    let ids: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
    Ok(sqlx::query_as!(
        File,
        r#"SELECT id AS "id: FileId", storage_key, sha256, size_bytes, content_type, filename, created_at
        FROM files
        WHERE tenant_id = $1 AND id = ANY ($2)"#,
        tenant_id.0,
        &ids,
    )
    .fetch_all(tx.conn())
    .await?)
}

/// A file that an account is to send.
pub type Wanted = (TenantId, ChannelAccountId, FileId);

/// An id is not used any more when so little of its life is left.
const LITTLE_LEFT: TimeDelta = TimeDelta::minutes(10);

/// A file that a provider keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptFile {
    /// The provider's id of it.
    pub provider_file_id: String,
    /// For how long still.
    pub left: TimeDelta,
}

/// The ids by which the accounts' providers keep these files, of those that they still keep.
///
/// # Errors
/// If the database does not answer.
pub async fn kept(tx: &mut FleetTx, wanted: &[Wanted]) -> Result<HashMap<Wanted, KeptFile>> {
    let tenants: Vec<Uuid> = wanted.iter().map(|(tenant_id, ..)| tenant_id.0).collect();
    let accounts: Vec<Uuid> = wanted.iter().map(|(_, account, _)| account.0).collect();
    let files: Vec<Uuid> = wanted.iter().map(|(.., file)| file.0).collect();
    let rows = sqlx::query!(
        r#"SELECT p.tenant_id AS "tenant_id: TenantId", p.channel_account_id AS "account: ChannelAccountId", p.file_id AS "file_id: FileId",
            p.provider_file_id AS "provider_file_id!", extract(epoch FROM p.expires_at - now())::bigint AS "left_seconds!"
        FROM unnest($1::uuid[], $2::uuid[], $3::uuid[]) AS wanted (tenant_id, account, file_id)
        JOIN provider_files p ON p.tenant_id = wanted.tenant_id AND p.channel_account_id = wanted.account AND p.file_id = wanted.file_id
        WHERE p.provider_file_id IS NOT NULL AND p.expires_at > now() + make_interval(secs => $4)"#,
        &tenants,
        &accounts,
        &files,
        LITTLE_LEFT.as_seconds_f64(),
    )
    .fetch_all(tx.conn())
    .await?;
    let kept = rows.into_iter().map(|row| {
        let (provider_file_id, left) = (row.provider_file_id, TimeDelta::seconds(row.left_seconds));
        ((row.tenant_id, row.account, row.file_id), KeptFile { provider_file_id, left })
    });
    Ok(kept.collect())
}

/// A provider keeps a file under this id from now on, for so long.
///
/// # Errors
/// If the database does not answer.
pub async fn keep(tx: &mut FleetTx, of: Wanted, provider_file_id: &str, lives: TimeDelta) -> Result<()> {
    sqlx::query!(
        "INSERT INTO provider_files (tenant_id, channel_account_id, file_id, provider_file_id, expires_at)
        SELECT $1, $2, $3, $4, now() + make_interval(secs => $5)
        WHERE EXISTS (SELECT FROM files WHERE tenant_id = $1 AND id = $3)
        ON CONFLICT (tenant_id, channel_account_id, file_id) DO UPDATE
        SET provider_file_id = excluded.provider_file_id, expires_at = excluded.expires_at",
        of.0.0,
        of.1.0,
        of.2.0,
        provider_file_id,
        lives.as_seconds_f64(),
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// A provider does not know these ids of files any more. One that has got another id since keeps that.
///
/// # Errors
/// If the database does not answer.
pub async fn lose(tx: &mut FleetTx, of: &[(Wanted, &str)]) -> Result<()> {
    for ((tenant_id, account, file), provider_file_id) in of {
        sqlx::query!(
            "DELETE FROM provider_files
            WHERE tenant_id = $1 AND channel_account_id = $2 AND file_id = $3 AND provider_file_id = $4",
            tenant_id.0,
            account.0,
            file.0,
            provider_file_id,
        )
        .execute(tx.conn())
        .await?;
    }
    Ok(())
}

/// A message that failed for what may be the ids of its files.
#[derive(Clone, Copy, Debug)]
pub struct InDoubt {
    /// Whose.
    pub tenant_id: TenantId,
    /// Which.
    pub message_id: MessageId,
    /// From which account.
    pub account: ChannelAccountId,
    /// An id that is kept until later than this was too new to be over.
    pub until: DateTime<Utc>,
}

/// The ids by which these messages named their files are not used any more.
///
/// # Errors
/// If the database does not answer.
pub async fn lose_in_doubt(tx: &mut FleetTx, messages: &[InDoubt]) -> Result<()> {
    if messages.is_empty() {
        return Ok(());
    }
    let tenants: Vec<Uuid> = messages.iter().map(|m| m.tenant_id.0).collect();
    let ids: Vec<Uuid> = messages.iter().map(|m| m.message_id.0).collect();
    let accounts: Vec<Uuid> = messages.iter().map(|m| m.account.0).collect();
    let untils: Vec<DateTime<Utc>> = messages.iter().map(|m| m.until).collect();
    let rows = sqlx::query!(
        r#"SELECT m.tenant_id AS "tenant_id: TenantId", told.account AS "account!: ChannelAccountId", told.until AS "until!",
            m.content::text AS "content!"
        FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::timestamptz[]) AS told (tenant_id, message_id, account, until)
        JOIN messages m ON m.tenant_id = told.tenant_id AND m.id = told.message_id"#,
        &tenants,
        &ids,
        &accounts,
        &untils,
    )
    .fetch_all(tx.conn())
    .await?;
    // A campaign's messages name the same file, and are reported together.
    let mut lost: BTreeMap<Wanted, DateTime<Utc>> = BTreeMap::new();
    for row in rows {
        // What cannot be read was not sent by us.
        let Ok(content) = serde_json::from_str::<OutboundContent>(&row.content) else { continue };
        for id in content.files().into_iter().filter_map(|(_, file)| file.id) {
            let until = lost.entry((row.tenant_id, row.account, id)).or_insert(row.until);
            *until = (*until).max(row.until);
        }
    }
    let tenants: Vec<Uuid> = lost.keys().map(|(tenant_id, ..)| tenant_id.0).collect();
    let accounts: Vec<Uuid> = lost.keys().map(|(_, account, _)| account.0).collect();
    let files: Vec<Uuid> = lost.keys().map(|(.., file)| file.0).collect();
    let untils: Vec<DateTime<Utc>> = lost.into_values().collect();
    sqlx::query!(
        "WITH lost AS MATERIALIZED (
            SELECT f.tenant_id, f.channel_account_id, f.file_id
            FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::timestamptz[]) AS lost (tenant_id, account, file, until)
            JOIN provider_files f
                ON f.tenant_id = lost.tenant_id AND f.channel_account_id = lost.account AND f.file_id = lost.file
            WHERE f.provider_file_id IS NOT NULL AND f.expires_at <= lost.until
            ORDER BY f.tenant_id, f.channel_account_id, f.file_id
            FOR UPDATE OF f
        )
        DELETE FROM provider_files f
        USING lost
        WHERE f.tenant_id = lost.tenant_id AND f.channel_account_id = lost.channel_account_id AND f.file_id = lost.file_id",
        &tenants,
        &accounts,
        &files,
        &untils,
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// A file to be uploaded, by whoever has this.
#[derive(Clone, Debug)]
pub struct Upload {
    /// Its key in storage.
    pub storage_key: String,
    /// How large it is.
    pub size_bytes: i64,
    /// Its type.
    pub content_type: String,
    /// After this anybody else may begin.
    pub until: DateTime<Utc>,
}

/// How it stands with an upload.
#[derive(Clone, Debug)]
pub enum Claimed {
    /// It is for us to do, and for nobody else.
    Ours(Upload),
    /// The provider has the file under this id.
    Kept(String),
    /// Somebody else does it.
    Others,
    /// There is no such file any more.
    Gone,
}

/// Asks to upload a file for an account: one at a time does, for so long and for so much longer for each MiB.
///
/// # Errors
/// If the database does not answer.
pub async fn claim_upload(tx: &mut FleetTx, of: Wanted, within: TimeDelta, for_each_mib: TimeDelta) -> Result<Claimed> {
    let (tenant_id, account, file) = of;
    let claimed = sqlx::query!(
        r#"WITH file AS (
            SELECT storage_key, size_bytes, content_type,
                now() + make_interval(secs => $4::float8 + $5::float8 * size_bytes / 1048576) AS until
            FROM files
            WHERE tenant_id = $1 AND id = $3
        ),
        claimed AS (
            INSERT INTO provider_files AS p (tenant_id, channel_account_id, file_id, provider_file_id, expires_at)
            SELECT $1, $2, $3, NULL, until
            FROM file
            ON CONFLICT (tenant_id, channel_account_id, file_id) DO UPDATE
            SET provider_file_id = NULL, expires_at = excluded.expires_at
            -- Nobody has it any more, neither the provider nor who wanted to upload it.
            WHERE p.expires_at <= now() + make_interval(secs => CASE WHEN p.provider_file_id IS NULL THEN 0 ELSE $6::float8 END)
            RETURNING expires_at
        )
        SELECT f.storage_key, f.size_bytes, f.content_type, c.expires_at AS "until?"
        FROM file f
        LEFT JOIN claimed c ON true"#,
        tenant_id.0,
        account.0,
        file.0,
        within.as_seconds_f64(),
        for_each_mib.as_seconds_f64(),
        LITTLE_LEFT.as_seconds_f64(),
    )
    .fetch_optional(tx.conn())
    .await?;
    let Some(claimed) = claimed else { return Ok(Claimed::Gone) };
    if let Some(until) = claimed.until {
        let (storage_key, size_bytes, content_type) = (claimed.storage_key, claimed.size_bytes, claimed.content_type);
        return Ok(Claimed::Ours(Upload { storage_key, size_bytes, content_type, until }));
    }
    // Somebody was first: how it stands is seen by a statement that begins after they committed.
    let kept = kept(tx, &[of]).await?.remove(&of);
    Ok(kept.map_or(Claimed::Others, |kept| Claimed::Kept(kept.provider_file_id)))
}

/// An upload that was to be done until then came to nothing: anybody may try.
///
/// # Errors
/// If the database does not answer.
pub async fn give_up_upload(tx: &mut FleetTx, of: Wanted, until: DateTime<Utc>) -> Result<()> {
    sqlx::query!(
        "DELETE FROM provider_files
        WHERE tenant_id = $1 AND channel_account_id = $2 AND file_id = $3 AND provider_file_id IS NULL AND expires_at = $4",
        of.0.0,
        of.1.0,
        of.2.0,
        until,
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}
