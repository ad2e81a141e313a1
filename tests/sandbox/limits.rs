//! Limits that change while everything runs: an account's own rate, at once and in steps, and WhatsApp's word for it.

use super::{
    inbound,
    platform::{Api, Platform},
    provider::Provider,
    tell,
};
use anyhow::ensure;
use serde::Deserialize;
use serde_json::json;
use std::{sync::Arc, time::Duration};

/// A change of an account's rate.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// Whose.
    pub provider: Api,
    /// The number, Page, professional account, sender or linked session.
    pub account: String,
    /// Messages a second (Messenger, Instagram: calls; Twilio: segments that leave its queue) from now on; `null` for what the
    /// provider gives by itself.
    pub per_second: Option<u32>,
    /// Whether WhatsApp says so by `phone_number_quality_update`.
    #[serde(default)]
    pub tell: bool,
    /// What follows, one after the other.
    #[serde(default)]
    pub then: Vec<Step>,
}

/// A later change.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// After the change before it.
    pub after_ms: u64,
    /// As in [`Limit`].
    pub per_second: Option<u32>,
}

impl Limit {
    /// A change that is told to nobody and stays.
    pub fn new(provider: Api, account: impl Into<String>, per_second: Option<u32>) -> Self {
        Self { provider, account: account.into(), per_second, tell: false, then: Vec::new() }
    }

    /// WhatsApp says so.
    pub fn told(mut self) -> Self {
        self.tell = true;
        self
    }

    /// And so much, after so long.
    pub fn then(mut self, after_ms: u64, per_second: Option<u32>) -> Self {
        self.then.push(Step { after_ms, per_second });
        self
    }
}

/// Changes it now, and later as it says.
pub(super) async fn change(provider: &Arc<Provider>, limit: Limit) -> anyhow::Result<()> {
    apply(provider, &limit, limit.per_second).await?;
    if limit.then.is_empty() {
        return Ok(());
    }
    let later = provider.clone();
    provider.tasks.spawn(async move {
        for step in &limit.then {
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(step.after_ms)) => {}
                () = later.stopping.cancelled() => return,
            }
            if let Err(error) = apply(&later, &limit, step.per_second).await {
                tracing::warn!(%error, "a limit could not be changed");
            }
        }
    });
    Ok(())
}

async fn apply(provider: &Arc<Provider>, limit: &Limit, per_second: Option<u32>) -> anyhow::Result<()> {
    ensure!(per_second != Some(0), "a limit must be at least 1, or null");
    let account = &limit.account;
    let platform = match limit.provider {
        Api::Whatsapp => {
            let number = provider.registry.number(account);
            let before = number.as_ref().map(|number| {
                let usual = provider.behaviour().throughput_per_second;
                std::mem::replace(&mut number.live().limit, per_second).or(usual)
            });
            ensure!(before.is_some(), "the sandbox has no number {account}");
            if limit.tell {
                tell_whatsapp(provider, account, before.flatten(), per_second).await?;
            }
            return Ok(());
        }
        Api::Messenger => Platform::Messenger,
        Api::Instagram => Platform::Instagram,
        Api::Twilio => Platform::Twilio,
        Api::Botmaster => {
            ensure!(provider.sessions.limit(account, per_second), "the sandbox has no session {account}");
            return Ok(());
        }
    };
    let found = provider.registry.account(platform, account).map(|account| account.live().limit = per_second);
    ensure!(found.is_some(), "the sandbox has no {platform} account {account}");
    Ok(())
}

async fn tell_whatsapp(
    provider: &Arc<Provider>,
    number: &str,
    before: Option<u32>,
    per_second: Option<u32>,
) -> anyhow::Result<()> {
    let Some(known) = provider.registry.number(number) else { return Ok(()) };
    let now = per_second.or(provider.behaviour().throughput_per_second);
    let event = if now.unwrap_or(u32::MAX) >= before.unwrap_or(u32::MAX) { "THROUGHPUT_UPGRADE" } else { "DOWNGRADE" };
    let value = json!({"display_phone_number": known.spec.display_phone_number, "event": event,
        "max_daily_conversations_per_business": "TIER_UNLIMITED"});
    let change = json!({"field": "phone_number_quality_update", "value": value});
    let mut payload = inbound::envelope(&known.spec.waba_id, vec![change]);
    payload["entry"][0]["time"] = json!(provider.clock.unix(provider.clock.now_us()));
    tell::payload(provider, number, &payload).await.map(drop)
}
