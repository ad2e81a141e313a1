//! Where a conversation stands.

use super::words::words;
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// What is to be done about a conversation. At most one that is not resolved exists per contact and channel account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConversationState {
    /// The customer wrote, nobody has looked yet.
    New,
    /// Somebody is on it.
    Open,
    /// It is the customer's turn.
    Pending,
    /// It comes back later.
    Snoozed,
    /// Done.
    Resolved,
}

words! {
    /// How a conversation began.
    ConversationOrigin {
        /// The contact wrote.
        Inbound = "inbound",
        /// Somebody wrote to the contact.
        Agent = "agent",
        /// A campaign wrote to the contact.
        Campaign = "campaign",
        /// It was written to the contact outside of Mijra.
        Elsewhere = "elsewhere",
    }
}

impl ConversationState {
    /// All states.
    pub const ALL: &'static [ConversationState] = &[
        ConversationState::New,
        ConversationState::Open,
        ConversationState::Pending,
        ConversationState::Snoozed,
        ConversationState::Resolved,
    ];

    /// The name in SQL and in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            ConversationState::New => "new",
            ConversationState::Open => "open",
            ConversationState::Pending => "pending",
            ConversationState::Snoozed => "snoozed",
            ConversationState::Resolved => "resolved",
        }
    }
}

impl fmt::Display for ConversationState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A state's name that this release does not know.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("no conversation state is called {0:?}; there are new, open, pending, snoozed, resolved")]
pub struct UnknownState(pub String);

impl FromStr for ConversationState {
    type Err = UnknownState;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.iter().copied().find(|state| state.as_str() == text).ok_or_else(|| UnknownState(text.to_owned()))
    }
}
