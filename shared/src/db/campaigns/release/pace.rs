//! How many sends of an account are in flight, and when their jobs are published: shortly before their turn. What comes earlier
//! is held by a worker for as long, and goes back to waiting as a row and a job of its own; so a campaign's send at eighty a second
//! would travel through the broker nearly twice, and hold up other accounts' there.

use crate::{
    db::{error::Result, outbound::turns::BULK_QUEUE, scope::FleetTx},
    domain::{
        channel::{Channel, Provider},
        ids::{ChannelAccountId, MessageId, TenantId},
        limits::{reserve, sends_per_second},
    },
    jobs::outbound::{OutboundSlice, SLICE},
};
use chrono::{DateTime, TimeDelta, Utc};
use std::ops::Range;

/// An account has as many in flight as it hands over in this time: enough to outlast a release that comes late, little enough
/// for a pause to bite.
const AHEAD_SECONDS: f64 = 5.0;
/// Of an account without a limit so many are in flight.
const WITHOUT_LIMIT: f64 = 2_000.0;
/// A job is published so long before the turn of its first send: the sweep looks five times a second.
const LEAD_SECONDS: f64 = 0.5;

/// What an account hands over.
#[derive(Clone, Copy, Debug)]
pub(in crate::db::campaigns) struct Pace {
    /// A second, if it has a limit; what is kept free for messages that come in is left out.
    rate: Option<f64>,
    provider: Provider,
    channel: Channel,
}

/// The pace of an account; `None` if it cannot send: people then wait where they can be seen to.
pub(in crate::db::campaigns) async fn pace(
    tx: &mut FleetTx,
    tenant_id: TenantId,
    account: ChannelAccountId,
) -> Result<Option<Pace>> {
    let row = sqlx::query!(
        r#"SELECT a.provider, a.channel AS "channel!", l.rate AS "rate?", l.current_rate AS "current_rate?", l.cost AS "cost?", l.inbound_cost AS "inbound_cost?", (
            SELECT max(r.messages)
            FROM received_seconds r
            WHERE r.tenant_id = a.tenant_id AND r.channel_account_id = a.id
                AND r.second BETWEEN floor(EXTRACT(epoch FROM now()))::bigint - 9 AND floor(EXTRACT(epoch FROM now()))::bigint
        ) AS busiest_second
        FROM channel_accounts a
        LEFT JOIN limits l ON l.tenant_id = a.tenant_id AND l.scope = 'account' AND l.key = a.id
        WHERE a.tenant_id = $1 AND a.id = $2 AND a.state = 'active'"#,
        tenant_id.0,
        account.0,
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(row.map(|row| {
        let kept = |rate| reserve(rate, row.busiest_second.unwrap_or(0), row.inbound_cost.unwrap_or(0.0));
        let sends =
            |rate| sends_per_second(rate, row.current_rate.unwrap_or(rate), kept(rate), row.cost.unwrap_or(1.0));
        Pace {
            rate: row.rate.map(sends),
            provider: row.provider.parse().unwrap_or(Provider::Whatsapp),
            channel: Channel::from_name(&row.channel).unwrap_or(Channel::Whatsapp),
        }
    }))
}

impl Pace {
    /// No job waits.
    pub(in crate::db::campaigns) const AT_ONCE: Self =
        Self { rate: None, provider: Provider::Whatsapp, channel: Channel::Whatsapp };

    /// At which provider the account is.
    pub(in crate::db::campaigns) fn provider(self) -> Provider {
        self.provider
    }

    /// On which channel the account is.
    pub(in crate::db::campaigns) fn channel(self) -> Channel {
        self.channel
    }

    /// How many should be in flight.
    pub(in crate::db::campaigns) fn outstanding(self) -> f64 {
        self.rate.map_or(WITHOUT_LIMIT, |rate| (rate * AHEAD_SECONDS).ceil())
    }

    /// Writes the jobs for messages of the account, which come behind so many others.
    pub(in crate::db::campaigns) fn enqueue(
        self,
        tx: &mut FleetTx,
        (tenant_id, account): (TenantId, ChannelAccountId),
        messages: &[MessageId],
        ahead: i64,
        now: DateTime<Utc>,
    ) {
        for (part, after) in self.slices(messages.len(), ahead) {
            let slice = OutboundSlice { tenant_id, account, message_ids: messages[part].to_vec() };
            tx.enqueue(tenant_id, BULK_QUEUE, slice.to_job(now), after);
        }
    }

    /// So many messages in slices of what is handed over in a second, and how long each is to wait.
    fn slices(self, messages: usize, ahead: i64) -> Vec<(Range<usize>, Option<TimeDelta>)> {
        // A float to an integer saturates.
        let size = self.rate.map_or(SLICE, |rate| (rate as usize).clamp(1, SLICE));
        let begins = (0..messages).step_by(size);
        let wait = |begin: usize| {
            let seconds = (ahead.max(0) as f64 + begin as f64) / self.rate? - LEAD_SECONDS;
            // Many may be in flight on an account that was just throttled, and its rate rises again.
            let seconds = seconds.min(AHEAD_SECONDS);
            (seconds > 0.0).then(|| TimeDelta::milliseconds((seconds * 1_000.0) as i64))
        };
        begins.map(|begin| (begin..messages.min(begin + size), wait(begin))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_comes_half_a_second_before_its_turn() {
        let waits = |rate, messages, ahead| -> Vec<(usize, i64)> {
            let slices = Pace { rate, provider: Provider::Whatsapp, channel: Channel::Whatsapp }
                .slices(messages, ahead)
                .into_iter();
            slices.map(|(part, wait)| (part.len(), wait.map_or(0, |wait| wait.num_milliseconds()))).collect()
        };
        assert_eq!(waits(Some(100.0), 120, 0), [(50, 0), (50, 0), (20, 500)]);
        assert_eq!(waits(Some(100.0), 100, 400), [(50, 3_500), (50, 4_000)]);
        assert_eq!(waits(Some(2.0), 5, 0), [(2, 0), (2, 500), (1, 1_500)]);
        assert_eq!(waits(Some(0.5), 3, 0), [(1, 0), (1, 1_500), (1, 3_500)]);
        assert_eq!(waits(Some(1.0), 2, 400), [(1, 5_000), (1, 5_000)], "the rate may rise before their turn");
        assert_eq!(waits(None, 60, 1_000), [(50, 0), (10, 0)], "without a limit there is nothing to wait for");
        assert_eq!(waits(Some(100.0), 0, 0), []);
    }
}
