//! Answers that were ordered: the next so many sends of a provider meet this documented error, whatever else holds.

use super::{platform::Api, refusal::Refusal};
use serde::{Deserialize, Serialize};
use std::sync::{Mutex, PoisonError};

/// What the next sends meet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Script {
    /// Whose sends.
    pub provider: Api,
    /// Of this account alone.
    #[serde(default)]
    pub account: Option<String>,
    /// The error code; the HTTP status at the gateway.
    pub code: u32,
    /// The subcode (Messenger, Instagram).
    #[serde(default)]
    pub subcode: Option<u32>,
    /// Another HTTP status than the documented one.
    #[serde(default)]
    pub status: Option<u16>,
    /// What it says; the gateway's word for it.
    #[serde(default)]
    pub details: Option<String>,
    /// Not as the answer, but after the message was accepted (WhatsApp, Twilio).
    #[serde(default)]
    pub later: bool,
    /// How many sends.
    #[serde(default = "once")]
    pub times: u32,
}

/// The orders, oldest first.
#[derive(Debug, Default)]
pub(super) struct Scripts(Mutex<Vec<Script>>);

/// What a send meets.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ordered {
    /// This answer.
    Refusal(Refusal),
    /// It is accepted, and fails with this code.
    Later(u32),
}

impl Script {
    /// The next send of this provider is answered with this code.
    pub fn once(provider: Api, code: u32) -> Self {
        let (account, subcode, status, details) = (None, None, None, None);
        Self { provider, account, code, subcode, status, details, later: false, times: 1 }
    }

    /// With a subcode beside it.
    pub fn with_subcode(mut self, subcode: u32) -> Self {
        self.subcode = Some(subcode);
        self
    }

    /// With this text.
    pub fn saying(mut self, details: impl Into<String>) -> Self {
        self.details = Some(details.into());
        self
    }

    /// After it was accepted.
    pub fn later(mut self) -> Self {
        self.later = true;
        self
    }

    /// The next so many.
    pub fn times(mut self, times: u32) -> Self {
        self.times = times;
        self
    }

    fn ordered(&self) -> Ordered {
        if self.later {
            return Ordered::Later(self.code);
        }
        let mut refusal = Refusal::of(self.provider, self.code, self.subcode);
        if let Some(details) = &self.details {
            refusal.details = details.clone().into();
        }
        Ordered::Refusal(self.status.into_iter().fold(refusal, Refusal::with_status))
    }
}

impl Scripts {
    pub(super) fn add(&self, script: Script) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(script);
    }

    pub(super) fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// What this account's next send meets, if something was ordered for it.
    pub(super) fn next(&self, provider: Api, account: &str) -> Option<Ordered> {
        let mut scripts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = scripts.iter().position(|script| {
            script.times > 0
                && script.provider == provider
                && script.account.as_deref().is_none_or(|wanted| wanted == account)
        })?;
        let ordered = scripts[at].ordered();
        scripts[at].times -= 1;
        scripts.retain(|script| script.times > 0);
        Some(ordered)
    }
}

fn once() -> u32 {
    1
}
