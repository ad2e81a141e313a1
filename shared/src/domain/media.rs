//! Files of messages: their states, how large they may be, how long they may be kept, and what is made of a file that is not what
//! its sender says.

use super::{channel::Channel, messages::MessageKind};
use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

/// Where a file stands. `waiting` leads to any of the others, which are final, but that what is `stored` expires where it may not
/// be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MediaState {
    /// It is to be fetched.
    Waiting,
    /// We have it.
    Stored,
    /// Its provider would not give it to us, however often we asked.
    Failed,
    /// We do not want it: it is dangerous, too large, or lies where nothing of ours may go.
    Refused,
    /// It is no longer to be had from its provider, or may no longer be kept.
    Expired,
}

impl MediaState {
    /// All of them.
    pub const ALL: &'static [MediaState] =
        &[MediaState::Waiting, MediaState::Stored, MediaState::Failed, MediaState::Refused, MediaState::Expired];

    /// The name in SQL and in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            MediaState::Waiting => "waiting",
            MediaState::Stored => "stored",
            MediaState::Failed => "failed",
            MediaState::Refused => "refused",
            MediaState::Expired => "expired",
        }
    }

    /// The state of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|state| state.as_str() == name)
    }
}

/// Until when a file of such a message may be kept; `None`: for as long as the message. What belongs to an Instagram story goes with
/// it, after 24 hours (providers/instagram section 2.1).
pub fn keep_until(channel: Channel, kind: MessageKind, at: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let of_a_story = matches!(kind, MessageKind::StoryMention | MessageKind::StoryReply);
    (channel == Channel::Instagram && of_a_story).then(|| at + TimeDelta::hours(24))
}
