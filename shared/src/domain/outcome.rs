//! What a provider's answer to a send means, for every provider alike.

use std::time::Duration;

/// What became of one call to a provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The provider took it.
    Accepted {
        /// The provider's id of the message.
        provider_message_id: String,
    },
    /// The provider definitely did not take it; it may be tried again.
    NotSent(NotSent),
    /// Bytes were written and no readable answer came back: perhaps it was taken.
    Unknown {
        /// What happened, for a person.
        reason: String,
    },
    /// The provider refused this message for good.
    Failed {
        /// The provider's code.
        code: String,
        /// What it means, for a person.
        reason: String,
    },
    /// The customer service window is closed; only a template can be sent.
    NeedsTemplate {
        /// The provider's code.
        code: String,
        /// What it means, for a person.
        reason: String,
    },
    /// The account cannot send at all: everything of it waits.
    AccountDown {
        /// The provider's code.
        code: String,
        /// What it means, for a person.
        reason: String,
    },
}

/// Why a message was not sent although it may be later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotSent {
    /// The provider's code, or `connect`, `dns`, `tls`.
    pub code: String,
    /// What happened, for a person.
    pub reason: String,
    /// The provider's `Retry-After`, if it gave one.
    pub retry_after: Option<Duration>,
    /// What has to slow down.
    pub slow: Slow,
}

/// What a refusal asks us to slow down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slow {
    /// Nothing: an ordinary fault.
    Nothing,
    /// The whole account (a throttle code): its rate is lowered.
    Account,
    /// Only this account and this person: exponential wait (providers/whatsapp section 11, pair limit).
    Pair,
}
