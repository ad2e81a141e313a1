//! What a provider's answer to a send means, for every provider alike.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// What became of one call to a provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The provider took it.
    Accepted(Accepted),
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
    /// Refused because the person wants nothing from this sender any more: nothing else is sent to them either.
    OptedOut {
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

/// What a provider says of a message that it took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// The provider's id of the message; where it gives none, one that is made of our attempt's.
    pub provider_message_id: String,
    /// The id by which the provider keeps the message's file from now on (Messenger's `attachment_id`), if it says so.
    pub kept_file: Option<String>,
    /// The answer's beginning as it came, of a provider whose answers are still to be understood (a gateway); no secrets in it.
    pub answer: Option<String>,
}

impl Accepted {
    /// With its id, and nothing else to say.
    pub fn with_id(id: impl Into<String>) -> Self {
        Self { provider_message_id: id.into(), kept_file: None, answer: None }
    }
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
    /// What kind of obstacle it is: it decides how often and when it is tried again, and what slows down.
    pub class: Class,
}

/// Why a message was not sent, as far as trying again goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// The provider could not be reached: not a byte was written.
    Unreachable,
    /// A fault of the provider's that passes.
    Transient,
    /// A fault that seldom passes: tried once more and no further.
    Once,
    /// The provider no longer knows the id of the message's file: it is handed over anew, once.
    File,
    /// The whole account is throttled: its rate is lowered.
    Account,
    /// This account is throttled towards this person: an ever longer wait (providers/whatsapp section 11, pair limit).
    Pair,
    /// All accounts that share the provider's account or app are throttled.
    ProviderAccount,
    /// A limit of the day is reached: until it is over, nothing of the account goes.
    Day,
    /// Somebody else controls the conversation for now (providers/messenger section 7).
    Thread,
}

impl Class {
    /// All of them.
    pub const ALL: [Class; 9] = [
        Class::Unreachable,
        Class::Transient,
        Class::Once,
        Class::File,
        Class::Account,
        Class::Pair,
        Class::ProviderAccount,
        Class::Day,
        Class::Thread,
    ];

    /// The class of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.as_str() == name)
    }

    /// The name in SQL, in the API and in settings.
    pub fn as_str(self) -> &'static str {
        match self {
            Class::Unreachable => "unreachable",
            Class::Transient => "transient",
            Class::Once => "once",
            Class::File => "file",
            Class::Account => "account",
            Class::Pair => "pair",
            Class::ProviderAccount => "provider_account",
            Class::Day => "day",
            Class::Thread => "thread",
        }
    }
}
