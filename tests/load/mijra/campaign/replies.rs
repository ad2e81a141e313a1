//! Agents' answers beside campaigns: from the call to our API until the provider has them.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::Result;
use chrono::{DateTime, Utc};
use futures_util::{StreamExt, stream::FuturesUnordered};
use hdrhistogram::Histogram;
use shared::domain::ids::{ConversationId, MessageId};
use uuid::Uuid;

use super::received;
use super::stage::{Stage, until};
use crate::measure::verdicts::Verdicts;

/// Of a hundred answers 99 are with the provider within this time.
const P99_WITHIN: Duration = Duration::from_secs(1);
/// No answer should take longer than this, by far.
const RECEIVED_WITHIN: Duration = Duration::from_secs(60);

/// People who wrote a moment ago: an open conversation with an open window each.
const OPEN: &str =
    "INSERT INTO conversations (tenant_id, id, contact_id, channel_account_id, state, origin, last_message_at,
    last_message_direction, window_expires_at)
SELECT c.tenant_id, gen_random_uuid(), c.id, $2, 'open', 'inbound', now(), 'in', now() + interval '1 day'
FROM contacts c
WHERE c.tenant_id = $1 AND NOT EXISTS (
    SELECT FROM conversations v WHERE v.tenant_id = c.tenant_id AND v.contact_id = c.id AND v.channel_account_id = $2
)
ORDER BY c.id DESC
LIMIT $3
RETURNING id";

/// Answers, spread evenly over some time.
pub(super) async fn measure(
    stage: &mut Stage,
    count: u32,
    over: Duration,
    queued: u64,
    verdicts: &mut Verdicts,
) -> Result<()> {
    let (tenant_id, account) = (stage.installation.tenant_id, stage.installation.accounts[0]);
    let conversations: Vec<Uuid> = sqlx::query_scalar(OPEN)
        .bind(tenant_id)
        .bind(account)
        .bind(i64::from(count))
        .fetch_all(stage.installation.database.connection())
        .await?;
    let asked = answer(stage, &conversations, over).await?;
    let received = async |stage: &mut Stage| -> Result<HashMap<Uuid, DateTime<Utc>>> {
        let all = received::all(stage).await?.into_iter().filter(|received| received.campaign.is_none());
        Ok(all.map(|received| (received.message, received.at)).collect())
    };
    let wanted = asked.len();
    until("every answer is with the provider", RECEIVED_WITHIN, async || {
        tokio::time::sleep(Duration::from_secs(1)).await;
        Ok(received(stage).await?.len() >= wanted)
    })
    .await?;
    let received = received(stage).await?;
    let mut times_ms = Histogram::<u64>::new(3)?;
    let mut lost = Vec::new();
    for (message, asked_at) in asked {
        match received.get(&message.0) {
            Some(at) => {
                times_ms.record(u64::try_from((*at - asked_at).num_milliseconds()).unwrap_or_default().max(1))?
            }
            None => lost.push(message.to_string()),
        }
    }
    let ms = |quantile| times_ms.value_at_quantile(quantile);
    verdicts.figure(format!("{wanted} answers beside {queued} people: p50"), format!("{} ms", ms(0.5)));
    let p99 = ms(0.99);
    verdicts.bar("answers: p99", format!("{p99} ms"), "≤ 1000 ms", u128::from(p99) <= P99_WITHIN.as_millis());
    verdicts.figure("answers: max", format!("{} ms", times_ms.max()));
    verdicts.never("answers lost", &lost);
    Ok(())
}

/// When each was asked for.
async fn answer(stage: &Stage, conversations: &[Uuid], over: Duration) -> Result<Vec<(MessageId, DateTime<Utc>)>> {
    let every = over / u32::try_from(conversations.len().max(1))?;
    let mut tick = tokio::time::interval(every);
    let (mut under_way, mut asked) = (FuturesUnordered::new(), Vec::with_capacity(conversations.len()));
    let mut left = conversations.iter();
    loop {
        tokio::select! {
            _ = tick.tick(), if left.len() > 0 => {
                if let Some(conversation) = left.next() {
                    under_way.push(async {
                        let at = Utc::now();
                        stage.reply(ConversationId(*conversation)).await.map(|message| (message, at))
                    });
                }
            }
            Some(done) = under_way.next() => asked.push(done?),
            else => return Ok(asked),
        }
    }
}
