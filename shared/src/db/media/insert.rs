//! The files of an inbound batch.

use super::QUEUE;
use crate::{
    db::{error::Result, scope::FleetTx},
    domain::{
        channel::{Channel, Provider},
        ids::{ChannelAccountId, MediaId, TenantId},
        media::{MediaState, keep_until},
        messages::{MediaRef, MessageKind},
    },
    jobs::media::{MediaJob, Task},
};
use chrono::{DateTime, Utc};
use uuid::Uuid;

/// A message with more files than this is no provider's (Twilio sends ten at most, providers/twilio section 2); the rest stays in
/// the message alone.
const MOST_OF_ONE_MESSAGE: usize = 100;

/// The files of one message that is stored.
#[derive(Clone, Debug)]
pub struct NewMedia<'a> {
    /// Whose.
    pub tenant_id: TenantId,
    /// The account that received the message.
    pub channel_account_id: ChannelAccountId,
    /// Who has the files.
    pub provider: Provider,
    /// On which channel the message came.
    pub channel: Channel,
    /// What the message is.
    pub kind: MessageKind,
    /// The provider's id of the message.
    pub provider_message_id: &'a str,
    /// The provider's time of the message.
    pub at: DateTime<Utc>,
    /// The files, by reference.
    pub media: &'a [MediaRef],
}

/// Writes down the files of messages, in the transaction that stored these, and a job for each that can be fetched. Files that are
/// there already, and those of a message that is not, are passed over: so a replay adds what is missing.
///
/// # Errors
/// If the database does not answer, or a row is not fit to be stored.
pub async fn insert(tx: &mut FleetTx, messages: &[NewMedia<'_>]) -> Result<()> {
    let files: Vec<(usize, &NewMedia<'_>, &MediaRef)> = messages
        .iter()
        .flat_map(|message| {
            message.media.iter().take(MOST_OF_ONE_MESSAGE).enumerate().map(move |(at, file)| (at, message, file))
        })
        .collect();
    if files.is_empty() {
        return Ok(());
    }
    let can_be_fetched = |file: &MediaRef| file.provider_media_id.is_some() || file.url.is_some();
    let ids: Vec<Uuid> = files.iter().map(|_| MediaId::new().0).collect();
    let tenants: Vec<Uuid> = files.iter().map(|(_, m, _)| m.tenant_id.0).collect();
    let accounts: Vec<Uuid> = files.iter().map(|(_, m, _)| m.channel_account_id.0).collect();
    let messages: Vec<String> = files.iter().map(|(_, m, _)| m.provider_message_id.to_owned()).collect();
    let positions: Vec<i32> = files.iter().map(|(at, _, _)| i32::try_from(*at).unwrap_or(i32::MAX)).collect();
    let providers: Vec<String> = files.iter().map(|(_, m, _)| m.provider.as_str().to_owned()).collect();
    let channels: Vec<String> = files.iter().map(|(_, m, _)| m.channel.as_str().to_owned()).collect();
    let kinds: Vec<String> = files.iter().map(|(_, m, _)| m.kind.as_str().to_owned()).collect();
    let times: Vec<DateTime<Utc>> = files.iter().map(|(_, m, _)| m.at).collect();
    let keeps: Vec<Option<DateTime<Utc>>> = files.iter().map(|(_, m, _)| keep_until(m.channel, m.kind, m.at)).collect();
    let media_ids: Vec<Option<String>> = files.iter().map(|(_, _, f)| f.provider_media_id.clone()).collect();
    let urls: Vec<Option<String>> = files.iter().map(|(_, _, f)| f.url.clone()).collect();
    let types: Vec<Option<String>> = files.iter().map(|(_, _, f)| f.mime_type.clone()).collect();
    let digests: Vec<Option<String>> = files.iter().map(|(_, _, f)| f.sha256.clone()).collect();
    let names: Vec<Option<String>> = files.iter().map(|(_, _, f)| f.filename.clone()).collect();
    let voices: Vec<bool> = files.iter().map(|(_, _, f)| f.voice).collect();
    let states: Vec<String> = files
        .iter()
        .map(|(_, _, f)| if can_be_fetched(f) { MediaState::Waiting } else { MediaState::Failed })
        .map(|state| state.as_str().to_owned())
        .collect();
    // One look-up by key for each file, whatever the planner thinks of the tables' sizes.
    let new = sqlx::query!(
        r#"INSERT INTO media (
            tenant_id, id, message_id, position, channel_account_id, provider, channel, kind, provider_media_id, url,
            declared_type, declared_sha256, filename, voice, at, keep_until, state, code, reason, settled_at
        )
        SELECT f.tenant_id, f.id, m.id, f.position, f.account, f.provider, f.channel, f.kind, f.media_id, f.url,
            f.type, f.sha256, f.filename, f.voice, f.at, f.keep_until, f.state,
            CASE WHEN f.state = 'failed' THEN 'no_source' END,
            CASE WHEN f.state = 'failed' THEN 'The provider did not say where the file is.' END,
            CASE WHEN f.state = 'failed' THEN now() END
        FROM unnest(
            $1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::int[], $6::text[], $7::text[], $8::text[], $9::timestamptz[],
            $10::timestamptz[], $11::text[], $12::text[], $13::text[], $14::text[], $15::text[], $16::bool[], $17::text[]
        ) AS f (
            id, tenant_id, account, message, position, provider, channel, kind, at, keep_until, media_id, url, type, sha256,
            filename, voice, state
        )
        CROSS JOIN LATERAL (
            SELECT coalesce(message_id, echo_message_id) AS message_id
            FROM provider_refs
            WHERE tenant_id = f.tenant_id AND channel_account_id = f.account AND provider_message_id = f.message
                -- Nothing is kept of what was taken back.
                AND revoked_at IS NULL
            LIMIT 1
        ) AS r
        CROSS JOIN LATERAL (
            SELECT id FROM messages WHERE tenant_id = f.tenant_id AND id = r.message_id LIMIT 1
        ) AS m
        ORDER BY f.tenant_id, m.id, f.position
        ON CONFLICT ON CONSTRAINT media_position_key DO NOTHING
        RETURNING tenant_id AS "tenant_id: TenantId", id AS "id: MediaId",
            channel_account_id AS "channel_account_id: ChannelAccountId", state, now() AS "now!""#,
        &ids,
        &tenants,
        &accounts,
        &messages,
        &positions,
        &providers,
        &channels,
        &kinds,
        &times,
        &keeps as &[Option<DateTime<Utc>>],
        &media_ids as &[Option<String>],
        &urls as &[Option<String>],
        &types as &[Option<String>],
        &digests as &[Option<String>],
        &names as &[Option<String>],
        &voices,
        &states,
    )
    .fetch_all(tx.conn())
    .await?;
    for row in new.into_iter().filter(|row| row.state == MediaState::Waiting.as_str()) {
        let task = Task::Fetch { media_id: row.id, channel_account_id: Some(row.channel_account_id) };
        let job = MediaJob { tenant_id: row.tenant_id, task };
        tx.enqueue(row.tenant_id, QUEUE, job.to_job(row.now), None);
    }
    Ok(())
}
