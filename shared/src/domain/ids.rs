//! Typed ids. Every id the application makes is a UUIDv7 (RFC 9562 section 5.7): roughly ordered by time, so that
//! indexes grow on the right. A bare `Uuid` never travels between functions.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};
use uuid::{NoContext, Timestamp, Uuid};

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, sqlx::Type)]
        #[serde(transparent)]
        #[sqlx(transparent)]
        pub struct $name(pub Uuid);

        impl $name {
            /// A new id, ordered by the time of its making.
            #[allow(clippy::new_without_default, reason = "a default that differs at each call would mislead")]
            pub fn new() -> Self {
                Self(Uuid::now_v7())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.0)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }

        impl From<Uuid> for $name {
            fn from(id: Uuid) -> Self {
                Self(id)
            }
        }

        impl From<$name> for Uuid {
            fn from(id: $name) -> Uuid {
                id.0
            }
        }
    )+};
}

ids! {
    /// A customer of Mijra: whose contacts, conversations and accounts these are.
    TenantId,
    /// A tenant's number, page or mailbox at a provider.
    ChannelAccountId,
    /// A person a tenant talks with.
    ContactId,
    /// What a contact and a channel account say to each other, until it is resolved.
    ConversationId,
    /// One customer message, in or out.
    MessageId,
    /// A template in one language: a provider's, or a tenant's own.
    TemplateId,
    /// One file of a message.
    MediaId,
    /// One file that was uploaded to be sent.
    FileId,
    /// One try at handing a message to a provider.
    AttemptId,
    /// One webhook as it was received.
    WebhookId,
    /// A stretch of the raw log that is played again.
    ReplayId,
    /// One job on a queue; the `message_id` of its delivery.
    JobId,
    /// One message, or a template, to many people.
    CampaignId,
    /// A bearer token of the API.
    ApiTokenId,
}

impl WebhookId {
    /// A new id as of a webhook that came then.
    pub fn received(at: DateTime<Utc>) -> Self {
        let seconds = u64::try_from(at.timestamp()).unwrap_or_default();
        Self(Uuid::new_v7(Timestamp::from_unix(NoContext, seconds, at.timestamp_subsec_nanos())))
    }
}
