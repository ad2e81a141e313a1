//! The life of a send: one message's way to the provider.

use super::words::words;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Where a send stands. DESIGN: waiting → queued → sending → sent → delivered → read, or failed / unknown / held /
/// cancelled; never backwards, except that what was definitely not sent is queued again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SendState {
    /// No job; something has to happen first (a time, its turn, the account's return).
    Waiting,
    /// A job carries it.
    Queued,
    /// Claimed by an attempt, until its deadline.
    Sending,
    /// Perhaps taken by the provider; evidence is awaited.
    Unknown,
    /// No evidence came in time; a person decides.
    Held,
    /// The provider has it.
    Sent,
    /// The person's device has it.
    Delivered,
    /// The person has seen it.
    Read,
    /// It will not arrive.
    Failed,
    /// Somebody took it back before it was sent.
    Cancelled,
}

words! {
    /// Why a message waits.
    WaitReason {
        /// An earlier message of its conversation has to be out first.
        Turn = "turn",
        /// Its account has sent as many messages as it may for now.
        Rate = "rate",
        /// Its account has as many calls under way as it may have at once.
        Room = "room",
        /// Its account has written to this person as often as it may for now.
        Pair = "pair",
        /// Its account's portfolio has reached as many people as it may in 24 hours.
        Portfolio = "portfolio",
        /// Its account is down: it goes when the account is back.
        AccountDown = "account_down",
        /// Its campaign is paused: it goes when somebody resumes the campaign.
        Campaign = "campaign",
        /// An attempt failed for a reason that passes, which `code` and `reason` say: it is tried again.
        NotSent = "not_sent",
        /// It was its turn, but it could not be handed over yet (its file is still being uploaded, or the key of its account's secrets
        /// is missing): it comes again.
        GivenBack = "given_back",
    }
}

words! {
    /// What became of an attempt.
    AttemptOutcome {
        /// The provider took it.
        Accepted = "accepted",
        /// The provider did not take it for a reason that passes: it is tried again.
        NotSent = "not_sent",
        /// Nobody knows whether the provider took it.
        Unknown = "unknown",
        /// The provider refused it for good.
        Failed = "failed",
        /// The provider refuses the account: the message waits until the account is back.
        AccountDown = "account_down",
        /// Given up as expired, and then found never to have been made.
        GivenBack = "given_back",
        /// Its time passed without a word: perhaps it was sent.
        Expired = "expired",
    }
}

impl SendState {
    /// All states, in the order of the books.
    pub const ALL: &'static [SendState] = &[
        SendState::Waiting,
        SendState::Queued,
        SendState::Sending,
        SendState::Unknown,
        SendState::Held,
        SendState::Sent,
        SendState::Delivered,
        SendState::Read,
        SendState::Failed,
        SendState::Cancelled,
    ];

    /// The name in SQL and in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            SendState::Waiting => "waiting",
            SendState::Queued => "queued",
            SendState::Sending => "sending",
            SendState::Unknown => "unknown",
            SendState::Held => "held",
            SendState::Sent => "sent",
            SendState::Delivered => "delivered",
            SendState::Read => "read",
            SendState::Failed => "failed",
            SendState::Cancelled => "cancelled",
        }
    }

    /// The state of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|state| state.as_str() == name)
    }

    /// Where a send stands after the provider reported `reported` (sent, delivered, read or failed).
    /// Regressions are ignored; a failure overrides everything up to sent but not delivered or read
    /// (providers/whatsapp section 4). The SQL in `db::outbound` says the same; a test compares the two.
    pub fn after_report(self, reported: SendState) -> SendState {
        use SendState::*;
        match (self, reported) {
            (Cancelled, _) => Cancelled,
            (Delivered | Read, Failed) => self,
            (Failed, Sent) => Failed,
            (_, Failed) => Failed,
            (Failed, later) => later,
            (before, Sent | Delivered | Read) if before.rank() < reported.rank() => reported,
            (before, _) => before,
        }
    }

    /// How far along it is; a report of a lower rank never replaces a higher one.
    pub fn rank(self) -> i16 {
        match self {
            SendState::Waiting => 0,
            SendState::Queued => 1,
            SendState::Sending => 2,
            SendState::Unknown => 3,
            SendState::Held => 4,
            SendState::Sent => 5,
            SendState::Delivered => 6,
            SendState::Read => 7,
            SendState::Failed => 8,
            SendState::Cancelled => 9,
        }
    }
}

impl fmt::Display for SendState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
