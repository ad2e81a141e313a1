//! The people who write to the numbers, made from a seed: some with a phone, some with a username and a phone, some
//! with a username whose phone is not shared. And the kinds of thing that happen to an account because of them.

use super::dice::mix;
use serde::{Deserialize, Serialize};

/// A person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// How a business would dial them, with `+`.
    pub dial: String,
    /// Their WhatsApp id: digits, not always those that are dialled.
    pub wa_id: String,
    /// Their business-scoped user id.
    pub user_id: String,
    /// Profile name; may be empty, may be in any script.
    pub name: String,
    /// Only some have one.
    pub username: Option<String>,
    /// Whether webhooks carry `wa_id` and `from`.
    pub shares_phone: bool,
}

/// Everything the contract page documents as arriving by webhook, except the statuses of sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "each is the provider's own word; the payload in `inbound` says the rest")]
pub enum Kind {
    Text,
    Quote,
    Forwarded,
    FrequentlyForwarded,
    ProductEnquiry,
    AdReferral,
    Image,
    Video,
    VoiceNote,
    AudioFile,
    Document,
    Sticker,
    Location,
    Contacts,
    ContactRequestAnswer,
    ButtonReply,
    ListReply,
    FlowReply,
    AddressReply,
    CallPermission,
    TemplateButton,
    Reaction,
    ReactionRemoved,
    Order,
    NumberChanged,
    UserIdChanged,
    IdentityChanged,
    Unsupported,
    UnsupportedBare,
    InteractiveBare,
    MediaTooLarge,
    Unavailable,
    Edit,
    Revoke,
    GroupText,
    /// A type that does not exist yet.
    Unheard,
    // From here on no message of a person, but other news of the account.
    ValueError,
    StrayStatus,
    MarketingStopped,
    MarketingResumed,
    TemplateStatus,
    TemplateQuality,
    TemplateComponents,
    TemplateCategory,
    NumberQuality,
    NumberName,
    Capability,
    AccountUpdate,
    AccountReview,
    AccountAlert,
    Security,
    UsernameUpdate,
    BusinessEcho,
    ContactSync,
    History,
    Call,
    GroupUpdate,
    PartnerSolution,
    /// A field that does not exist yet.
    UnheardField,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 59] = [
        Self::Text,
        Self::Quote,
        Self::Forwarded,
        Self::FrequentlyForwarded,
        Self::ProductEnquiry,
        Self::AdReferral,
        Self::Image,
        Self::Video,
        Self::VoiceNote,
        Self::AudioFile,
        Self::Document,
        Self::Sticker,
        Self::Location,
        Self::Contacts,
        Self::ContactRequestAnswer,
        Self::ButtonReply,
        Self::ListReply,
        Self::FlowReply,
        Self::AddressReply,
        Self::CallPermission,
        Self::TemplateButton,
        Self::Reaction,
        Self::ReactionRemoved,
        Self::Order,
        Self::NumberChanged,
        Self::UserIdChanged,
        Self::IdentityChanged,
        Self::Unsupported,
        Self::UnsupportedBare,
        Self::InteractiveBare,
        Self::MediaTooLarge,
        Self::Unavailable,
        Self::Edit,
        Self::Revoke,
        Self::GroupText,
        Self::Unheard,
        Self::ValueError,
        Self::StrayStatus,
        Self::MarketingStopped,
        Self::MarketingResumed,
        Self::TemplateStatus,
        Self::TemplateQuality,
        Self::TemplateComponents,
        Self::TemplateCategory,
        Self::NumberQuality,
        Self::NumberName,
        Self::Capability,
        Self::AccountUpdate,
        Self::AccountReview,
        Self::AccountAlert,
        Self::Security,
        Self::UsernameUpdate,
        Self::BusinessEcho,
        Self::ContactSync,
        Self::History,
        Self::Call,
        Self::GroupUpdate,
        Self::PartnerSolution,
        Self::UnheardField,
    ];

    /// Whether it is an element of `messages[]`.
    pub fn is_message(self) -> bool {
        self < Self::ValueError
    }

    /// Whether it opens or refreshes the 24-hour window: what a person says or taps, not what they take back or react with.
    pub fn opens_window(self) -> bool {
        self <= Self::TemplateButton || matches!(self, Self::Order | Self::MediaTooLarge | Self::Unheard)
    }

    /// Whether its text is the person's own and comes as it was written.
    pub fn carries_text(self) -> bool {
        self <= Self::Video || matches!(self, Self::Document | Self::GroupText | Self::MediaTooLarge)
    }

    /// In snake case, as in the control plane.
    pub fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Quote => "quote",
            Self::Forwarded => "forwarded",
            Self::FrequentlyForwarded => "frequently_forwarded",
            Self::ProductEnquiry => "product_enquiry",
            Self::AdReferral => "ad_referral",
            Self::Image => "image",
            Self::Video => "video",
            Self::VoiceNote => "voice_note",
            Self::AudioFile => "audio_file",
            Self::Document => "document",
            Self::Sticker => "sticker",
            Self::Location => "location",
            Self::Contacts => "contacts",
            Self::ContactRequestAnswer => "contact_request_answer",
            Self::ButtonReply => "button_reply",
            Self::ListReply => "list_reply",
            Self::FlowReply => "flow_reply",
            Self::AddressReply => "address_reply",
            Self::CallPermission => "call_permission",
            Self::TemplateButton => "template_button",
            Self::Reaction => "reaction",
            Self::ReactionRemoved => "reaction_removed",
            Self::Order => "order",
            Self::NumberChanged => "number_changed",
            Self::UserIdChanged => "user_id_changed",
            Self::IdentityChanged => "identity_changed",
            Self::Unsupported => "unsupported",
            Self::UnsupportedBare => "unsupported_bare",
            Self::InteractiveBare => "interactive_bare",
            Self::MediaTooLarge => "media_too_large",
            Self::Unavailable => "unavailable",
            Self::Edit => "edit",
            Self::Revoke => "revoke",
            Self::GroupText => "group_text",
            Self::Unheard => "unheard",
            Self::ValueError => "value_error",
            Self::StrayStatus => "stray_status",
            Self::MarketingStopped => "marketing_stopped",
            Self::MarketingResumed => "marketing_resumed",
            Self::TemplateStatus => "template_status",
            Self::TemplateQuality => "template_quality",
            Self::TemplateComponents => "template_components",
            Self::TemplateCategory => "template_category",
            Self::NumberQuality => "number_quality",
            Self::NumberName => "number_name",
            Self::Capability => "capability",
            Self::AccountUpdate => "account_update",
            Self::AccountReview => "account_review",
            Self::AccountAlert => "account_alert",
            Self::Security => "security",
            Self::UsernameUpdate => "username_update",
            Self::BusinessEcho => "business_echo",
            Self::ContactSync => "contact_sync",
            Self::History => "history",
            Self::Call => "call",
            Self::GroupUpdate => "group_update",
            Self::PartnerSolution => "partner_solution",
            Self::UnheardField => "unheard_field",
        }
    }
}

impl Person {
    /// The `index`-th person of this seed: one in ten has a username and no shared phone, two in ten a username and a phone.
    pub fn nth(seed: u64, index: u32) -> Self {
        let bits = mix(seed ^ mix(u64::from(index)));
        // Ranges that no two indexes share, in four countries' shapes of mobile numbers.
        let local = (mix(seed) % 90 + 10) * 1_000_000 / 10 + u64::from(index) % 1_000_000;
        let (dial, wa_id) = match index % 4 {
            0 => (format!("+49151{local:08}"), format!("49151{local:08}")),
            1 => (format!("+447400{:06}", index % 1_000_000), format!("447400{:06}", index % 1_000_000)),
            2 => (format!("+346{local:08}"), format!("346{local:08}")),
            // Brazil: the id lacks the 9 that is dialled.
            _ => (format!("+55319{local:08}"), format!("5531{local:08}")),
        };
        let username = (index % 10 >= 7).then(|| format!("person{index}"));
        Self {
            user_id: user_id_of(&wa_id),
            dial,
            wa_id,
            name: NAMES[bits as usize % NAMES.len()].to_owned(),
            username,
            shares_phone: index % 10 != 9,
        }
    }

    /// A person who is only known by a phone number, as a business would dial it.
    pub fn with_phone(phone: &str) -> Self {
        let digits: String = phone.chars().filter(char::is_ascii_digit).collect();
        let dial = format!("+{digits}");
        let wa_id = super::body::wa_id(&dial, "").map_or_else(|| digits, |wa_id| wa_id.into_owned());
        let user_id = user_id_of(&wa_id);
        Self { dial, wa_id, user_id, name: "Ada Quill".into(), username: None, shares_phone: true }
    }

    /// What webhooks and the ledger know them by.
    pub fn key(&self) -> &str {
        if self.shares_phone { &self.wa_id } else { &self.user_id }
    }
}

/// The business-scoped user id that belongs to a WhatsApp id.
pub(super) fn user_id_of(wa_id: &str) -> String {
    const COUNTRIES: [(&str, &str); 4] = [("49", "DE"), ("44", "GB"), ("34", "ES"), ("55", "BR")];
    let country = COUNTRIES.iter().find(|(code, _)| wa_id.starts_with(code)).map_or("US", |(_, country)| country);
    let number = wa_id.bytes().fold(17, |sum, digit| mix(sum ^ u64::from(digit)));
    format!("{country}.{:014}", number % 100_000_000_000_000)
}

const NAMES: [&str; 12] = [
    "Ada Quill",
    "Åsa Öberg",
    "José Muñoz",
    "李雷",
    "Zoë 🦊",
    "أمينة",
    "Ravi K. Mehta",
    "",
    "Siobhán O'Neill",
    "Дарья",
    "Ngozi \"Goz\" Ade",
    "Jürgen Groß",
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn people_are_the_same_for_the_same_seed_and_all_different() {
        assert_eq!(Person::nth(1, 7), Person::nth(1, 7));
        let people: Vec<Person> = (0..10_000).map(|index| Person::nth(1, index)).collect();
        assert_eq!(people.iter().map(|person| &person.wa_id).collect::<HashSet<_>>().len(), 10_000);
        assert_eq!(people.iter().map(|person| &person.user_id).collect::<HashSet<_>>().len(), 10_000);
    }

    #[test]
    fn what_is_dialled_reaches_the_id() {
        for index in 0..40 {
            let person = Person::nth(5, index);
            assert_eq!(super::super::body::wa_id(&person.dial, "1").unwrap(), person.wa_id);
        }
    }

    #[test]
    fn names_of_kinds_are_those_of_the_control_plane() {
        for kind in Kind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
        }
    }
}
