//! Files as readers see them.

use crate::{
    db::{error::Result, scope::TenantTx},
    domain::ids::{MediaId, MessageId},
};
use chrono::{DateTime, Utc};
use uuid::Uuid;

/// A file as a reader sees it.
#[derive(Clone, Debug)]
pub struct Shown {
    /// Which.
    pub id: MediaId,
    /// Of which message.
    pub message_id: MessageId,
    /// Its place among the message's files, from 0.
    pub position: i32,
    /// Where it stands.
    pub state: String,
    /// Why it is not stored, or not yet, or what is odd about it.
    pub code: Option<String>,
    /// The same, for a person.
    pub reason: Option<String>,
    /// Its type: as its bytes say, or as declared.
    pub content_type: Option<String>,
    /// Its name, if it has one.
    pub filename: Option<String>,
    /// Whether it is a voice note.
    pub voice: bool,
    /// How large it is.
    pub size_bytes: Option<i64>,
    /// Of a picture: its width in pixels.
    pub width: Option<i32>,
    /// Of a picture: its height in pixels.
    pub height: Option<i32>,
    /// Of a recording or film: how long it is.
    pub duration_ms: Option<i64>,
    /// Its SHA-256.
    pub sha256: Option<Vec<u8>>,
    /// Its key in storage.
    pub storage_key: Option<String>,
    /// The key of a small picture of it.
    pub thumbnail_key: Option<String>,
    /// Until when it is kept.
    pub keep_until: Option<DateTime<Utc>>,
}

/// The files of messages, in their order within each.
///
/// # Errors
/// If the database does not answer.
pub async fn of_messages(tx: &mut TenantTx, messages: &[MessageId]) -> Result<Vec<Shown>> {
    if messages.is_empty() {
        return Ok(Vec::new());
    }
    let tenant_id = tx.tenant_id().0;
    let ids: Vec<Uuid> = messages.iter().map(|id| id.0).collect();
    Ok(sqlx::query_as!(
        Shown,
        r#"SELECT id AS "id: MediaId", message_id AS "message_id: MessageId", position, state, code, reason,
            coalesce(content_type, declared_type) AS content_type, filename, voice, size_bytes, width, height, duration_ms, sha256,
            storage_key, thumbnail_key, keep_until
        FROM media
        WHERE tenant_id = $1 AND message_id = ANY ($2)
        ORDER BY message_id, position"#,
        tenant_id,
        &ids,
    )
    .fetch_all(tx.conn())
    .await?)
}

/// One file, if it is there.
///
/// # Errors
/// If the database does not answer.
pub async fn find(tx: &mut TenantTx, id: MediaId) -> Result<Option<Shown>> {
    let tenant_id = tx.tenant_id().0;
    Ok(sqlx::query_as!(
        Shown,
        r#"SELECT id AS "id: MediaId", message_id AS "message_id: MessageId", position, state, code, reason,
            coalesce(content_type, declared_type) AS content_type, filename, voice, size_bytes, width, height, duration_ms, sha256,
            storage_key, thumbnail_key, keep_until
        FROM media
        WHERE tenant_id = $1 AND id = $2"#,
        tenant_id,
        id.0,
    )
    .fetch_optional(tx.conn())
    .await?)
}
