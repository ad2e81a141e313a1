//! Closed sets of words, as OpenAPI describes them: made of the types themselves, so that no word is missing there that goes over the wire.

use super::{
    campaigns::{CampaignState, RecipientState},
    channel::{Channel, Provider},
    consent::{Consent, Purpose},
    conversations::ConversationState,
    feed,
    limits::Scope,
    media::MediaState,
    messages::{Direction, MessageKind},
    sends::SendState,
};
use utoipa::openapi::{ObjectBuilder, RefOr, Schema, schema::Type};

/// The schema of a word that is one of `words`.
pub fn schema<'a>(words: impl IntoIterator<Item = &'a str>, says: &str) -> RefOr<Schema> {
    let words = ObjectBuilder::new().schema_type(Type::String).enum_values(Some(words));
    words.description(Some(says)).build().into()
}

/// An enum whose words need a sentence each: the comment above a variant is what the API says of it.
macro_rules! words {
    ($(#[doc = $says:literal])+ $name:ident { $($(#[doc = $means:literal])+ $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[doc = $says])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[doc = $means])+ $variant),+ }

        impl $name {
            /// All of them.
            pub const ALL: &'static [$name] = &[$($name::$variant),+];

            /// The name in SQL and in the API.
            pub const fn as_str(self) -> &'static str {
                match self { $($name::$variant => $text),+ }
            }

            /// What that means, in a sentence.
            pub fn means(self) -> &'static str {
                match self { $($name::$variant => concat!($($means),+).trim()),+ }
            }
        }

        impl utoipa::PartialSchema for $name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
                let listed: String =
                    Self::ALL.iter().map(|word| format!("\n- `{}`: {}", word.as_str(), word.means())).collect();
                let says = concat!($($says),+).trim();
                $crate::domain::words::schema(Self::ALL.iter().map(|word| word.as_str()), &format!("{says}\n{listed}"))
            }
        }

        impl utoipa::ToSchema for $name {}
    };
}
pub(crate) use words;

/// Gives enums a schema with the names that `as_str` has for `ALL` of them.
macro_rules! described {
    ($($type:ty, $name:literal: $says:literal;)+) => {
        $(
            impl utoipa::PartialSchema for $type {
                fn schema() -> RefOr<Schema> {
                    schema(Self::ALL.iter().map(|word| word.as_str()), $says)
                }
            }

            impl utoipa::ToSchema for $type {
                fn name() -> std::borrow::Cow<'static, str> {
                    $name.into()
                }
            }
        )+
    };
}

described! {
    Provider, "Provider": "The company whose API a channel account talks to; `gateway`: anybody who takes messages by one HTTP call.";
    Channel, "Channel": "What people write on.";
    Direction, "Direction": "Which way a message went: `in` from the contact, `out` to the contact.";
    MessageKind, "MessageKind": "What a message consists of.";
    SendState, "SendState": "Where a message stands on its way. `waiting`: something has to happen first, which `wait_reason` says; `queued`: it \
        goes as soon as somebody is free to send it; `sending`: the provider is being called; `unknown`: perhaps taken by the provider, \
        evidence is awaited; `held`: no evidence came, a person decides; `sent`: the provider has it; `delivered`: the person's device \
        has it; `read`: the person has seen it; `failed`: it will not arrive; `cancelled`: taken back before it was sent.";
    ConversationState, "ConversationState": "What is to be done about a conversation. `new`: the customer wrote, nobody has looked yet; `open`: \
        somebody is on it; `pending`: it is the customer's turn; `snoozed`: it comes back later; `resolved`: done.";
    CampaignState, "CampaignState": "Where a campaign stands.";
    RecipientState, "RecipientState": "Where one person of a campaign stands, as it is shown and counted.";
    MediaState, "MediaState": "Where a file stands. `waiting`: it is to be fetched; `stored`: we have it; `failed`: its provider would not give \
        it to us; `refused`: we do not want it; `expired`: it is no longer to be had, or may no longer be kept.";
    Purpose, "Purpose": "What a person may not want: `marketing` (campaigns) or `all` (agents' answers, too).";
    Consent, "Consent": "Whether a person wants it.";
    Scope, "LimitScope": "What a limit is a limit of.";
    feed::Kind, "EventKind": "What has happened.";
}
