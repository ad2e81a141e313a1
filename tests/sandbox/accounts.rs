//! The accounts of other providers than WhatsApp, and what each provider counts and keeps for them.

use super::{
    behaviour::Behaviour,
    happen,
    ledger::Told,
    messaging::{self, desk::Desk},
    platform::{AccountSpec, Platform},
    provider::Provider,
    tell,
    twilio::Queue,
};
use anyhow::Context;
use serde::{Deserialize, Serialize};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// An account and what belongs to it.
#[derive(Debug)]
pub(super) struct Account {
    pub(super) spec: AccountSpec,
    /// Shared with the ledger's entries.
    pub(super) id: Arc<str>,
    live: Mutex<Live>,
}

#[derive(Debug, Default)]
pub(super) struct Live {
    pub(super) standing: Standing,
    /// Instead of the sandbox's, for this account alone.
    pub(super) behaviour: Option<Arc<Behaviour>>,
    /// Instead of the provider's own limit, in its units a second.
    pub(super) limit: Option<u32>,
    /// Messenger and Instagram.
    pub(super) desk: Desk,
    /// Twilio.
    pub(super) queue: Queue,
}

/// How an account stands with its provider.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// In order.
    #[default]
    InOrder,
    /// Messenger and Instagram: 10/1893063. Messenger tells it by `policy_enforcement`.
    Restricted,
    /// Messenger and Instagram: 368.
    Blocked,
    /// Instagram: 200/2534041, the owner turned off access to messages.
    AccessOff,
    /// Instagram: 100/2534013, the Page has no professional account (any more).
    NotLinked,
    /// Twilio: 20005.
    Suspended,
}

/// Puts an account into a standing. Messenger tells of restrictions, and of their end (messenger contract page, section 2.7).
pub(super) async fn stand(
    provider: &Arc<Provider>,
    platform: Platform,
    id: &str,
    standing: Standing,
) -> anyhow::Result<()> {
    let account = provider
        .registry
        .account(platform, id)
        .with_context(|| format!("the sandbox has no {platform} account {id}"))?;
    let before = std::mem::replace(&mut account.live().standing, standing);
    let was_restricted = before == Standing::Restricted;
    let is_restricted = standing == Standing::Restricted;
    if platform == Platform::Messenger && was_restricted != is_restricted {
        let action = if is_restricted { "block" } else { "unblock" };
        let at_ms = provider.clock.wall(provider.clock.now_us()).timestamp_millis();
        let event = serde_json::json!({"recipient": {"id": id}, "timestamp": at_ms, "policy_enforcement":
            {"action": action, "reason": "The Page sent messages that people reported."}});
        let payload = messaging::webhook("page", &account.spec, vec![("messaging", event)], at_ms);
        tell::post(provider, happen::sealed(provider, platform, id, &payload)?).await?;
    }
    Ok(())
}

impl Account {
    pub(super) fn new(spec: AccountSpec) -> Self {
        Self { id: spec.id.as_str().into(), spec, live: Mutex::default() }
    }

    pub(super) fn live(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How its provider behaves towards it.
    pub(super) fn behaviour(&self, provider: &Provider) -> Arc<Behaviour> {
        self.live().behaviour.clone().unwrap_or_else(|| provider.behaviour())
    }

    /// What it means for the provider's own books that people wrote.
    pub(super) fn told(&self, provider: &Provider, told: &[Told]) {
        let now_us = provider.clock.now_us();
        let mut live = self.live();
        for told in told {
            let at_us = provider.clock.since_start_us(told.timestamp);
            match self.spec.platform {
                Platform::Messenger | Platform::Instagram => {
                    live.desk.wrote(&told.person, at_us);
                    live.desk.count(now_us, 1);
                    live.desk.keep_theirs(&told.person, &told.id, told.text.as_deref(), now_us);
                }
                Platform::Twilio => live.queue.wrote(&self.spec, told, at_us, now_us),
                Platform::Whatsapp => {}
            }
        }
    }
}
