//! Whose turn it is in a conversation. Only the head (the earliest send that is not settled) has a job; the transaction that
//! settles one writes the next one's.
//!
//! Why none is forgotten: who accepts a message locks the conversation's unsettled sends before it decides that it need not
//! write a job. So either it waits for the settling transaction and finds nothing unsettled, or the settling transaction's
//! update waits for it, and the query here, a statement of its own with a newer snapshot, finds the new message.

use crate::{
    db::{error::Result, scope::FleetTx},
    domain::ids::{ChannelAccountId, ConversationId, MessageId, TenantId},
    jobs::outbound::{OutboundJob, Task},
};
use std::collections::BTreeMap;
use uuid::Uuid;

/// The queue of people's and automation's messages, by its name in the topology.
pub const QUEUE: &str = "outbound.now";

/// The queue of campaigns' messages, by its name in the topology.
pub const BULK_QUEUE: &str = "outbound.bulk";

/// How a campaign's sends are told from people's and automation's in `sends.lane`.
pub const CAMPAIGN_LANE: i16 = 1;

/// The lane of what people and automation send: before all campaigns, and in the order of its conversation.
pub const NOW_LANE: i16 = 0;

/// The queue of what is to be done about a lane's sends.
pub(in crate::db) fn queue_of(lane: i16) -> &'static str {
    if lane == CAMPAIGN_LANE { BULK_QUEUE } else { QUEUE }
}

/// A send that no longer holds up its conversation.
#[derive(Clone, Copy, Debug)]
pub struct Settled {
    /// Whose.
    pub tenant_id: TenantId,
    /// The conversation.
    pub conversation_id: ConversationId,
    /// Its place in it.
    pub seq: i64,
}

/// Writes the job of the next send of each conversation in which one was settled.
///
/// # Errors
/// If the database does not answer.
pub async fn wake_next(tx: &mut FleetTx, settled: &[Settled]) -> Result<()> {
    if settled.is_empty() {
        return Ok(());
    }
    let mut first: BTreeMap<(TenantId, ConversationId), i64> = BTreeMap::new();
    for s in settled {
        let seq = first.entry((s.tenant_id, s.conversation_id)).or_insert(s.seq);
        *seq = (*seq).min(s.seq);
    }
    let tenants: Vec<Uuid> = first.keys().map(|(tenant_id, _)| tenant_id.0).collect();
    let conversations: Vec<Uuid> = first.keys().map(|(_, id)| id.0).collect();
    let seqs: Vec<i64> = first.values().copied().collect();
    let rows = sqlx::query!(
        r#"SELECT head.tenant_id AS "tenant_id!", head.message_id AS "message_id!",
            head.channel_account_id AS "account!", now() AS "now!"
        FROM unnest($1::uuid[], $2::uuid[], $3::bigint[]) AS settled (tenant_id, conversation_id, seq)
        CROSS JOIN LATERAL (
            SELECT s.tenant_id, s.message_id, s.channel_account_id, s.state, s.due_at, s.wait_reason
            FROM sends s
            WHERE s.tenant_id = settled.tenant_id AND s.conversation_id = settled.conversation_id AND s.seq > settled.seq
                AND s.lane = 0
                AND (s.state IN ('waiting', 'queued', 'sending') OR (s.state = 'unknown' AND NOT s.turn_released))
            ORDER BY s.seq
            LIMIT 1
        ) AS head
        -- One that waits for a time has its job in the outbox already; one whose account came back need not wait for it.
        WHERE head.state = 'queued' OR (head.state = 'waiting' AND (head.due_at IS NULL OR head.wait_reason = 'account_down'))"#,
        &tenants,
        &conversations,
        &seqs,
    )
    .fetch_all(tx.conn())
    .await?;
    for row in rows {
        let job = OutboundJob {
            tenant_id: TenantId(row.tenant_id),
            message_id: MessageId(row.message_id),
            account: Some(ChannelAccountId(row.account)),
            task: Task::Send,
        };
        tx.enqueue(job.tenant_id, QUEUE, job.to_job(row.now), None);
    }
    Ok(())
}
