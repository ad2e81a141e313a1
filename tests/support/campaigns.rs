//! Campaigns as an operator runs them: an audience of contacts of its own, some of whom cannot be written to, and one campaign
//! after another to them.

use crate::fleet::Fleet;
use reqwest::StatusCode;
use serde_json::{Value, json};
use shared::domain::ids::{CampaignId, ChannelAccountId, ContactId};
use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Contacts, and what the provider calls each; those without a name there have no address.
#[derive(Clone, Debug)]
pub struct Audience(Arc<BTreeMap<ContactId, Option<String>>>);

/// A campaign that the API has accepted and started.
#[derive(Clone, Debug)]
pub struct Started {
    /// Its id.
    pub id: CampaignId,
    /// To whom.
    pub audience: Audience,
    /// What it is to end as: `completed`, unless somebody ends it before.
    pub ends: &'static str,
}

/// How often it is looked whether everybody has been released.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Longer than any outage that is tried.
const INSIST: Duration = Duration::from_secs(900);

impl Audience {
    /// These people, each as the provider calls them.
    pub fn of(people: impl IntoIterator<Item = (ContactId, String)>) -> Self {
        Self(Arc::new(people.into_iter().map(|(id, address)| (id, Some(address))).collect()))
    }

    /// Each person with what the provider calls them.
    pub fn people(&self) -> impl Iterator<Item = (ContactId, Option<&str>)> {
        self.0.iter().map(|(id, address)| (*id, address.as_deref()))
    }

    /// How many.
    pub fn size(&self) -> usize {
        self.0.len()
    }

    /// How many cannot be written to.
    pub fn without_address(&self) -> usize {
        self.0.values().filter(|address| address.is_none()).count()
    }
}

impl Fleet {
    /// Makes so many contacts, so many of them without an address. The API makes none without a number; who only has an
    /// account in a shop is one.
    ///
    /// # Panics
    /// If the database does not answer.
    pub async fn audience(&self, people: usize, without_address: usize) -> Audience {
        let people: BTreeMap<ContactId, Option<String>> =
            (0..people).map(|n| (ContactId::new(), (n >= without_address).then(|| format!("4915{n:09}")))).collect();
        let ids: Vec<Uuid> = people.keys().map(|id| id.0).collect();
        let phones: Vec<Option<String>> =
            people.values().map(|wa_id| wa_id.as_ref().map(|wa_id| format!("+{wa_id}"))).collect();
        sqlx::query(
            "INSERT INTO contacts (tenant_id, id, name, phone)
            SELECT $1, id, 'Ada', phone
            FROM unnest($2::uuid[], $3::text[]) AS new (id, phone)",
        )
        .bind(self.tenant.id)
        .bind(&ids)
        .bind(&phones)
        .execute(&mut self.database.admin().await)
        .await
        .expect("the database answers");
        Audience(Arc::new(people))
    }

    /// A campaign as the API shows it.
    ///
    /// # Errors
    /// If there is no answer.
    pub async fn show_campaign(&self, id: CampaignId) -> reqwest::Result<Value> {
        self.get(&format!("/campaigns/{id}")).await
    }

    /// Writes a campaign of a template on WhatsApp down and starts it; insists until the API has accepted both.
    ///
    /// # Panics
    /// If it is refused, or not accepted in time.
    pub async fn campaign(&self, name: &str, audience: &Audience) -> Started {
        let content = json!({"type": "template", "name": "cart_nudge", "language": "en_US", "variables": ["{{name}}"]});
        self.campaign_on(self.tenant.account, &content, name, audience).await
    }

    /// The same of anything on any account.
    ///
    /// # Panics
    /// If it is refused, or not accepted in time.
    pub async fn campaign_on(
        &self,
        account: ChannelAccountId,
        content: &Value,
        name: &str,
        audience: &Audience,
    ) -> Started {
        let ids: Vec<ContactId> = audience.people().map(|(id, _)| id).collect();
        let new = json!({
            "name": name, "channel_account_id": account, "content": content, "audience": {"contact_ids": ids},
        });
        let created = self.insist("/campaigns", &new, StatusCode::CREATED).await;
        let id: CampaignId = created["id"].as_str().and_then(|id| id.parse().ok()).expect("a campaign has an id");
        let deadline = Instant::now() + INSIST;
        loop {
            let started = self.post(&format!("/campaigns/{id}/start"), "start", &json!({})).await;
            if matches!(started, Ok((StatusCode::OK, _))) || self.left_draft(id).await {
                return Started { id, audience: audience.clone(), ends: "completed" };
            }
            assert!(Instant::now() < deadline, "the API does not start a campaign: {started:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Ends a campaign before its time, unless its time is over.
    ///
    /// # Panics
    /// If it is refused.
    pub async fn cancel(&self, campaign: &mut Started) {
        match self.post(&format!("/campaigns/{}/cancel", campaign.id), "cancel", &json!({})).await {
            Ok((StatusCode::OK, _)) => campaign.ends = "cancelled",
            answer => {
                let shown = self.show_campaign(campaign.id).await.unwrap_or_default();
                assert_eq!(shown["state"], "completed", "a campaign cannot be cancelled: {answer:?}");
            }
        }
    }

    /// A start whose answer was lost may be long done.
    async fn left_draft(&self, id: CampaignId) -> bool {
        let shown = self.show_campaign(id).await.unwrap_or_default();
        shown["state"].as_str().is_some_and(|state| state != "draft")
    }

    /// One campaign after the other, the next as soon as everybody of the one before is released, until told to stop: there is
    /// always one that has people left.
    pub async fn campaigns(&self, audience: &Audience, stop: &CancellationToken) -> Vec<Started> {
        let mut started = Vec::new();
        while !stop.is_cancelled() {
            let campaign = self.campaign(&format!("Campaign {}", started.len() + 1), audience).await;
            let id = campaign.id;
            started.push(campaign);
            while !stop.is_cancelled() && !self.has_released_all(id).await {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
        started
    }

    async fn has_released_all(&self, id: CampaignId) -> bool {
        let shown = self.show_campaign(id).await.unwrap_or_default();
        shown["frozen_count"].is_i64() && shown["counts"]["waiting"] == 0
    }
}
