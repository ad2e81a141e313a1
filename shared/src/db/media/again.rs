//! Files that were given up, asked for again by hand.

use super::QUEUE;
use crate::{
    db::{
        audit::{self, Actor, Entry},
        error::Result,
        scope::TenantTx,
    },
    domain::ids::{ChannelAccountId, MediaId, MessageId},
    jobs::media::{MediaJob, Task},
};
use chrono::{DateTime, Utc};
use serde_json::json;

/// So many are asked for in one transaction.
pub const AT_ONCE: usize = 1_000;

/// Which files: those that failed, were no longer to be had or lay where nothing was to be fetched from (what is allowed may have been
/// changed), and may still be kept.
#[derive(Clone, Debug, Default)]
pub struct Which {
    /// Only those of messages of this time or later.
    pub since: Option<DateTime<Utc>>,
    /// Only those that this account received.
    pub channel_account_id: Option<ChannelAccountId>,
    /// Only this one, of this message.
    pub file: Option<(MessageId, MediaId)>,
}

/// Has such files fetched once more, as if they had just come: at most [`AT_ONCE`], in the order of ids, behind this one. Which they
/// are.
///
/// # Errors
/// If the database does not answer.
pub async fn fetch_again(
    tx: &mut TenantTx,
    which: &Which,
    behind: Option<MediaId>,
    actor: Actor,
) -> Result<Vec<MediaId>> {
    let tenant_id = tx.tenant_id();
    let (message_id, media_id) = which.file.unzip();
    let asked = sqlx::query!(
        r#"WITH given_up AS MATERIALIZED (
            SELECT id
            FROM media
            WHERE tenant_id = $1 AND (state IN ('failed', 'expired') OR state = 'refused' AND code = 'host_not_allowed')
                AND (keep_until IS NULL OR keep_until > now())
                -- Of what its provider never said where it is, there is nothing to ask for.
                AND (provider_media_id IS NOT NULL OR url IS NOT NULL)
                AND ($2::timestamptz IS NULL OR at >= $2) AND ($3::uuid IS NULL OR channel_account_id = $3)
                AND ($4::uuid IS NULL OR message_id = $4) AND ($5::uuid IS NULL OR id = $5)
                AND ($6::uuid IS NULL OR id > $6)
            ORDER BY id
            LIMIT $7
            FOR NO KEY UPDATE
        )
        UPDATE media m
        SET state = 'waiting', attempts = 0, claims = 0, examining = NULL, code = NULL, reason = NULL, settled_at = NULL,
            asked_at = now()
        FROM given_up
        WHERE m.tenant_id = $1 AND m.id = given_up.id
        RETURNING m.id AS "id: MediaId", m.channel_account_id AS "channel_account_id: ChannelAccountId", now() AS "now!""#,
        tenant_id.0,
        which.since,
        which.channel_account_id.map(|id| id.0),
        message_id.map(|id| id.0),
        media_id.map(|id| id.0),
        behind.map(|id| id.0),
        AT_ONCE as i64,
    )
    .fetch_all(tx.conn())
    .await?;
    for row in &asked {
        let task = Task::Fetch { media_id: row.id, channel_account_id: Some(row.channel_account_id) };
        let job = MediaJob { tenant_id, task };
        tx.enqueue(QUEUE, job.to_job(row.now), None);
    }
    if !asked.is_empty() {
        let (target_kind, target_id) = match (media_id, which.channel_account_id) {
            (Some(id), _) => ("media", id.0),
            (None, Some(id)) => ("channel_account", id.0),
            (None, None) => ("tenant", tenant_id.0),
        };
        let details = json!({"files": asked.len(), "since": which.since});
        audit::record(tx, &Entry { actor, action: "media.asked_again", target_kind, target_id, details }).await?;
    }
    let mut asked: Vec<MediaId> = asked.into_iter().map(|row| row.id).collect();
    asked.sort_unstable();
    Ok(asked)
}
