//! The books of a part, when it is over: nobody lost, nobody doubled, every campaign's own books agree, and the provider took
//! what we say it took, message by message.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use anyhow::Result;
use shared::domain::ids::CampaignId;
use shared::queue;
use uuid::Uuid;

use super::received;
use super::stage::{Stage, until};
use crate::measure::verdicts::Verdicts;

/// What is under way when a campaign ends is settled within this time, and that many people cancelled.
const OVER_WITHIN: Duration = Duration::from_secs(180);

/// Waits until these campaigns are over, and closes the books.
pub(super) async fn close(stage: &mut Stage, campaigns: &[CampaignId], verdicts: &mut Verdicts) -> Result<()> {
    for id in campaigns {
        until("a campaign is over", OVER_WITHIN, async || Ok(stage.show(*id).await?.is_over())).await?;
    }
    let mut disagreements = Vec::new();
    for id in campaigns {
        let of_this = stage.disagreements(*id).await?;
        disagreements.extend(of_this.into_iter().map(|what| format!("campaign {id}: {what}")));
    }
    let mut counted: HashMap<CampaignId, u64> = HashMap::new();
    for received in received::all(stage).await? {
        *received.campaign.map(|id| counted.entry(id).or_default()).unwrap_or(&mut 0) += 1;
    }
    for id in campaigns {
        let (shown, counted) = (stage.show(*id).await?.taken(), counted.get(id).copied().unwrap_or_default());
        if shown != counted {
            disagreements.push(format!("campaign {id}: {shown} are shown as sent, the provider has {counted}"));
        }
    }
    verdicts.never("books that disagree", &disagreements);

    let ours: Vec<(Uuid, bool)> =
        sqlx::query_as("SELECT message_id, possibly_doubled FROM sends WHERE state IN ('sent', 'delivered', 'read')")
            .fetch_all(stage.installation.database.connection())
            .await?;
    let shown_doubled: HashSet<Uuid> = ours.iter().filter(|(_, doubled)| *doubled).map(|(id, _)| *id).collect();
    let ours: HashSet<Uuid> = ours.into_iter().map(|(id, _)| id).collect();
    let accepted = stage.sandbox.ledger().accepted();
    let theirs: HashSet<Uuid> = accepted.iter().filter_map(|entry| entry.message()?.parse().ok()).collect();
    let named = |ids: Vec<Uuid>| ids.iter().map(Uuid::to_string).collect::<Vec<_>>();
    verdicts.figure("taken by the provider", accepted.len().to_string());
    verdicts.never("sent, as we say, and never received", &named(ours.difference(&theirs).copied().collect()));
    verdicts.never("received, and not sent, as we say", &named(theirs.difference(&ours).copied().collect()));
    let doubled = stage.sandbox.ledger().doubled();
    let unsaid = doubled.iter().map(|doubled| doubled.what.clone());
    let unsaid: Vec<String> = unsaid.filter(|id| !id.parse().is_ok_and(|id| shown_doubled.contains(&id))).collect();
    verdicts.never("received twice", &unsaid);

    let mut dead = Vec::new();
    for queue in queue::ALL {
        let depth = stage.installation.broker.depth(queue).await?;
        dead.extend((0..depth.dead).map(|_| queue.name.to_owned()));
    }
    verdicts.never("dead letters", &dead);
    Ok(())
}
