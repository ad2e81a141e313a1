//! What the provider's stand-in received, told apart by whose it is.

use std::collections::HashMap;

use anyhow::Result;
use chrono::{DateTime, Utc};
use shared::domain::ids::CampaignId;
use uuid::Uuid;

use super::stage::Stage;

/// A message that the provider took.
#[derive(Debug, Clone)]
pub(super) struct Received {
    pub(super) at: DateTime<Utc>,
    pub(super) number: String,
    pub(super) message: Uuid,
    /// `None`: an agent's.
    pub(super) campaign: Option<CampaignId>,
}

/// Everything the provider took, in the order it came.
pub(super) async fn all(stage: &mut Stage) -> Result<Vec<Received>> {
    let accepted = stage.sandbox.ledger().accepted();
    let owners: HashMap<Uuid, Option<Uuid>> = sqlx::query_as("SELECT message_id, campaign_id FROM sends")
        .fetch_all(stage.installation.database.connection())
        .await?
        .into_iter()
        .collect();
    let mut received = Vec::with_capacity(accepted.len());
    for entry in accepted {
        let Some(message) = entry.message().and_then(|message| message.parse().ok()) else { continue };
        let campaign = owners.get(&message).copied().flatten().map(CampaignId);
        received.push(Received { at: entry.at, number: entry.phone_number_id.to_string(), message, campaign });
    }
    Ok(received)
}
