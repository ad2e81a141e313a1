//! What a message is, whoever carries it.

use super::channel::Channel;
use serde::{Deserialize, Serialize};

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $text:literal),+ $(,)?) => {
        /// What a message consists of.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum MessageKind { $($(#[$doc])* $name),+ }

        impl MessageKind {
            /// All kinds.
            pub const ALL: &'static [MessageKind] = &[$(MessageKind::$name),+];

            /// The name in SQL and in the API.
            pub fn as_str(self) -> &'static str {
                match self { $(MessageKind::$name => $text),+ }
            }

            /// The kind of that name.
            pub fn from_name(name: &str) -> Option<Self> {
                match name { $($text => Some(MessageKind::$name),)+ _ => None }
            }
        }
    };
}

kinds! {
    /// Words.
    Text = "text",
    /// A picture.
    Image = "image",
    /// A film.
    Video = "video",
    /// A recording or a voice note.
    Audio = "audio",
    /// A file.
    Document = "document",
    /// A sticker.
    Sticker = "sticker",
    /// A place.
    Location = "location",
    /// Contact cards.
    Contacts = "contacts",
    /// An answer to a button, list, flow or permission request.
    Interactive = "interactive",
    /// A tap on a template's quick-reply button.
    Button = "button",
    /// A reaction set or removed.
    Reaction = "reaction",
    /// A cart.
    Order = "order",
    /// A change of the person's number or id.
    System = "system",
    /// A change of an earlier message.
    Edit = "edit",
    /// An earlier message taken back.
    Revoke = "revoke",
    /// A tap on a button, a menu or an ice breaker of ours (Messenger, Instagram).
    Postback = "postback",
    /// The person came by a link or an advertisement of ours, without saying anything.
    Referral = "referral",
    /// An answer to a story of ours (Instagram).
    StoryReply = "story_reply",
    /// The person named us in a story of theirs (Instagram).
    StoryMention = "story_mention",
    /// A post, a reel or a link shared with us.
    Share = "share",
    /// A template sent by us.
    Template = "template",
    /// What the provider could not show, or what this release does not know. The raw part is kept.
    Unsupported = "unsupported",
}

impl MessageKind {
    /// Whether receiving one is the person saying something: it counts as unread and reopens a conversation. Reactions, system
    /// notices, edits, revocations and coming by a link do not.
    pub fn is_said(self) -> bool {
        use MessageKind::*;
        !matches!(self, Reaction | System | Edit | Revoke | Referral)
    }

    /// Whether receiving one on this channel opens the customer service window: what is said does; on Messenger also a reaction and
    /// a link that is followed (providers/messenger section 6), on WhatsApp no reaction (providers/whatsapp section 13.1), on
    /// Instagram an advertisement that is followed (providers/instagram section 3.2).
    pub fn opens_window(self, channel: Channel) -> bool {
        match (self, channel) {
            (MessageKind::Reaction, Channel::Messenger) => true,
            (MessageKind::Referral, Channel::Messenger | Channel::Instagram) => true,
            _ => self.is_said(),
        }
    }
}

/// Which way a message went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// From the contact.
    In,
    /// To the contact.
    Out,
}

impl Direction {
    /// Both.
    pub const ALL: &'static [Direction] = &[Direction::In, Direction::Out];

    /// The name in SQL and in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Direction::In => "in",
            Direction::Out => "out",
        }
    }
}

/// A file at the provider, by reference.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MediaRef {
    /// The provider's id of the file.
    pub provider_media_id: Option<String>,
    /// Where the provider said it can be fetched; short-lived.
    pub url: Option<String>,
    /// The type as declared.
    pub mime_type: Option<String>,
    /// The digest as declared, as the provider wrote it (base64 or hex).
    pub sha256: Option<String>,
    /// The file's name, for documents.
    pub filename: Option<String>,
    /// The words beside it.
    pub caption: Option<String>,
    /// Whether it is a voice note.
    pub voice: bool,
}
