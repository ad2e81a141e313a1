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
    /// Refused because of its template, which nobody can be sent for now.
    TemplateBlocked {
        /// The provider's code.
        code: String,
        /// What it means, for a person.
        reason: String,
        /// What becomes of the template.
        block: Block,
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

/// Why a template cannot be sent to anybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Block {
    /// It is paused, and comes back by itself.
    Paused,
    /// It is disabled for good.
    Disabled,
    /// What it says is against the provider's rules.
    Rejected,
    /// The account may send no templates for now; this one is as it was.
    AllTemplates,
}

impl Block {
    /// The template's status from now on, in the word by which providers tell it; `None`: as it was.
    pub fn status(self) -> Option<&'static str> {
        match self {
            Block::Paused => Some("PAUSED"),
            Block::Disabled => Some("DISABLED"),
            Block::Rejected => Some("REJECTED"),
            Block::AllTemplates => None,
        }
    }
}

/// What the code of a report that a message failed leads to, beside that: the provider had taken it, and what an answer would have said
/// comes later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum Aftermath {
    /// The customer service window is closed.
    WindowClosed,
    /// The account cannot send at all. The message waits with all others.
    AccountDown,
    /// The template cannot be sent to anybody.
    TemplateBlocked {
        /// What becomes of it.
        block: Block,
    },
    /// The message may be sent anew.
    Again {
        /// So often at most.
        times: u32,
        /// After so many seconds.
        after_seconds: u32,
        /// Whether it may have arrived all the same: who sends it anew shows it as possibly doubled.
        in_doubt: bool,
    },
    /// Something is throttled, as the class says; the message may be sent anew.
    Slow {
        /// What.
        class: Class,
    },
}

impl Aftermath {
    /// In a few words.
    pub fn in_words(self) -> String {
        match self {
            Aftermath::WindowClosed => "the window is closed".to_owned(),
            Aftermath::AccountDown => "the account is down, and the message waits".to_owned(),
            Aftermath::TemplateBlocked { block: Block::AllTemplates } => {
                "campaigns with templates are paused".to_owned()
            }
            Aftermath::TemplateBlocked { .. } => "the template is blocked, its campaigns are paused".to_owned(),
            Aftermath::Again { times, after_seconds, in_doubt } => {
                let doubt = if in_doubt { ", as possibly doubled" } else { "" };
                format!("sent anew after {} min, {times} at most{doubt}", after_seconds / 60)
            }
            Aftermath::Slow { class: Class::Pair } => "sent anew, slower towards this person".to_owned(),
            Aftermath::Slow { class: Class::Day } => "the account waits for the next day; sent anew".to_owned(),
            Aftermath::Slow { .. } => "the account slows down; sent anew".to_owned(),
        }
    }
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
    /// It was taken, and reported later as not delivered for a reason that passes. How often and when it is sent anew the provider's
    /// code says, unless a tenant has a rule.
    Undelivered,
}

impl Class {
    /// All of them.
    pub const ALL: [Class; 10] = [
        Class::Unreachable,
        Class::Transient,
        Class::Once,
        Class::File,
        Class::Account,
        Class::Pair,
        Class::ProviderAccount,
        Class::Day,
        Class::Thread,
        Class::Undelivered,
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
            Class::Undelivered => "undelivered",
        }
    }
}
