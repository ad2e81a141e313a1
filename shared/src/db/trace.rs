//! Why a message is where it is: its send as it stands, the jobs that will bring it, and the webhooks that speak of it. Its attempts and
//! its trail are [`messages`](super::messages)'.

use super::{
    TenantTx,
    error::Result,
    messages::Message,
    webhook_log::{self, Bounds, Filter, Listed},
};
use crate::{
    domain::ids::{ChannelAccountId, MessageId},
    jobs::outbound::Task,
};
use chrono::{DateTime, TimeDelta, Utc};

/// A send as it stands.
#[derive(Clone, Debug)]
pub struct Send {
    /// From which account.
    pub channel_account_id: ChannelAccountId,
    /// What that is called.
    pub account_name: String,
    /// active, down, disabled.
    pub account_state: String,
    /// With which code it is down: the provider's, or a word of ours.
    pub account_code: Option<String>,
    /// Why it is down.
    pub account_reason: Option<String>,
    /// At which provider it is.
    pub provider: String,
    /// Where its campaign stands, if it is one's.
    pub campaign_state: Option<String>,
    /// When it is tried again whether it is back.
    pub account_probe_at: Option<DateTime<Utc>>,
    /// Its place in the conversation's order.
    pub place: i64,
    /// The earlier message of the conversation that it waits for, if it does.
    pub waits_for: Option<MessageId>,
    /// What it takes of the account's rate.
    pub units: i16,
    /// It is not tried again before this.
    pub due_at: Option<DateTime<Utc>>,
    /// The attempt under way counts as unknown after this.
    pub deadline: Option<DateTime<Utc>>,
    /// It is of no use after this.
    pub expires_at: Option<DateTime<Utc>>,
    /// When its last grant was.
    pub granted_at: Option<DateTime<Utc>>,
}

/// A job that will bring a send, or look after it.
#[derive(Clone, Debug)]
pub struct Job {
    /// On which queue.
    pub queue: String,
    /// What it asks for.
    pub kind: String,
    /// When it is published.
    pub publish_after: DateTime<Utc>,
}

/// A message's send as it stands; `None` if it was not ours to send.
///
/// # Errors
/// If the database does not answer.
pub async fn send(tx: &mut TenantTx, id: MessageId) -> Result<Option<Send>> {
    let tenant_id = tx.tenant_id();
    let send = sqlx::query_as!(
        Send,
        r#"SELECT s.channel_account_id AS "channel_account_id: ChannelAccountId", a.name AS account_name, a.state AS account_state,
            a.down_code AS account_code, a.down_reason AS account_reason, a.provider, (
                SELECT c.state FROM campaigns c WHERE c.tenant_id = s.tenant_id AND c.id = s.campaign_id
            ) AS campaign_state, CASE WHEN a.state = 'down' THEN a.probe_at END AS account_probe_at, s.seq AS place,
            CASE WHEN s.lane = 0 AND s.state IN ('waiting', 'queued') THEN (
                SELECT earlier.message_id
                FROM sends earlier
                WHERE earlier.tenant_id = s.tenant_id AND earlier.conversation_id = s.conversation_id AND earlier.seq < s.seq AND earlier.lane = 0
                    AND (earlier.state IN ('waiting', 'queued', 'sending') OR (earlier.state = 'unknown' AND NOT earlier.turn_released))
                ORDER BY earlier.seq DESC
                LIMIT 1
            ) END AS "waits_for: MessageId",
            s.units, s.due_at, CASE WHEN s.state = 'sending' THEN s.deadline END AS deadline, s.expires_at, s.granted_at
        FROM sends s
        JOIN channel_accounts a ON a.tenant_id = s.tenant_id AND a.id = s.channel_account_id
        WHERE s.tenant_id = $1 AND s.message_id = $2"#,
        tenant_id.0,
        id.0,
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(send)
}

/// So many jobs of one message are shown.
const MOST_JOBS: i64 = 20;
/// So many rows of the outbox are looked through for them.
const ROWS_LOOKED_THROUGH: i64 = 20_000;

/// The jobs that are to bring a message, or look after it, and are not on their queue yet. No index leads to them but that on time: they
/// are due between the last change of its send and what that waits for.
///
/// # Errors
/// If the database does not answer.
pub async fn jobs(tx: &mut TenantTx, id: MessageId) -> Result<Vec<Job>> {
    let tenant_id = tx.tenant_id();
    let timers = [Task::Send, Task::ReleaseTurn, Task::Settle].map(Task::kind);
    let jobs = sqlx::query_as!(
        Job,
        r#"SELECT near.queue AS "queue!", coalesce(near.job ->> 'kind', '') AS "kind!", near.publish_after AS "publish_after!"
        FROM sends s
        CROSS JOIN LATERAL (
            SELECT o.queue, o.job, o.body, o.publish_after
            FROM outbox o
            WHERE o.tenant_id = s.tenant_id AND o.queue IN ('outbound.now', 'outbound.bulk')
                AND o.publish_after >= s.updated_at - interval '1 minute'
                -- Timers of the unknown are the latest that no column names.
                AND o.publish_after <= greatest(s.due_at, s.updated_at + interval '1 hour', s.unknown_at + interval '1 day') + interval '1 minute'
            ORDER BY o.publish_after
            LIMIT $4
        ) AS near
        WHERE s.tenant_id = $1 AND s.message_id = $2 AND position(convert_to($2::uuid::text, 'UTF8') IN near.body) > 0
            -- Timers that have outlived what they are for find nothing to do.
            AND (s.state IN ('waiting', 'queued', 'sending', 'unknown') OR near.job ->> 'kind' <> ALL ($5))
        ORDER BY near.publish_after
        LIMIT $3"#,
        tenant_id.0,
        id.0,
        MOST_JOBS,
        ROWS_LOOKED_THROUGH,
        &timers as &[&str],
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(jobs)
}

/// Webhooks come within this time after what they tell of, or are not looked for; a provider's clock may be ahead of ours by so much.
const TOLD_WITHIN: TimeDelta = TimeDelta::minutes(2);
const CLOCKS_APART: TimeDelta = TimeDelta::seconds(10);
/// So many of an account's webhooks are looked through for each thing that was told.
const LOOKED_THROUGH: Bounds = Bounds { webhooks: 200, bytes: 4 << 20 };
/// For so many things.
const MOST_TIMES: usize = 10;

/// Webhooks in the raw log that name a message, around the times at which something was told of it.
///
/// # Errors
/// If the database does not answer.
pub async fn webhooks(
    tx: &mut TenantTx,
    message: &Message,
    account: Option<ChannelAccountId>,
    times: &[DateTime<Utc>],
) -> Result<Vec<Listed>> {
    let Some(needle) = message.provider_message_id.as_deref().filter(|id| !id.is_empty()) else {
        return Ok(Vec::new());
    };
    let mut found: Vec<Listed> = Vec::new();
    for at in times.iter().take(MOST_TIMES) {
        let filter = Filter {
            since: Some(*at - CLOCKS_APART),
            until: Some(*at + TOLD_WITHIN),
            channel_account_id: account,
            ..Filter::default()
        };
        for logged in webhook_log::slice(tx, &filter, None, LOOKED_THROUGH).await?.webhooks {
            let names = |body: Vec<u8>| body.windows(needle.len()).any(|window| window == needle.as_bytes());
            if !found.iter().any(|known| known.id == logged.listed.id) && logged.body().is_some_and(names) {
                found.push(logged.listed);
            }
        }
    }
    found.sort_by_key(|listed| (listed.received_at, listed.id));
    Ok(found)
}
