//! Whose API stands behind an account, and the accounts of other providers than WhatsApp: Messenger's Pages, Instagram's
//! professional accounts and Twilio's senders. WhatsApp's numbers are in `registry`.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A provider that sends webhooks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Platform {
    /// Meta's WhatsApp Cloud API.
    #[default]
    Whatsapp,
    /// Messenger Platform.
    Messenger,
    /// Instagram messaging, through a Page or by Instagram Login.
    Instagram,
    /// Twilio Programmable Messaging.
    Twilio,
}

/// A provider that takes messages: the platforms, and the gateway that tells nothing by webhook.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Api {
    /// Meta's WhatsApp Cloud API.
    #[default]
    Whatsapp,
    /// Messenger Platform.
    Messenger,
    /// Instagram messaging.
    Instagram,
    /// Twilio Programmable Messaging.
    Twilio,
    /// BotMasterSender's gateway to a linked WhatsApp session.
    Botmaster,
}

/// An account of Messenger's, Instagram's or Twilio's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccountSpec {
    /// Whose; not WhatsApp's.
    pub platform: Platform,
    /// The Page's id, the professional account's id, or the sender's address as Twilio writes it (`+1503…`, `whatsapp:+1503…`,
    /// `24246`).
    pub id: String,
    /// Signs its webhooks: the app secret (an Instagram app has one of its own), or the auth token of the Twilio account. The
    /// sandbox's own default if there is none.
    #[serde(default)]
    pub secret: Option<String>,
    /// Where its webhooks go, exactly as configured at the provider; Twilio's connection overrides ride in the fragment. If there
    /// is none: the sandbox's own URL with this platform's name at its end.
    #[serde(default)]
    pub webhook_url: Option<String>,
    /// Where Twilio's status callbacks go (the query is kept); `webhook_url` if there is none.
    #[serde(default)]
    pub status_url: Option<String>,
    /// Where an incoming message goes that `webhook_url` did not take (Twilio).
    #[serde(default)]
    pub fallback_url: Option<String>,
    /// Twilio's account.
    #[serde(default = "account_sid")]
    pub account_sid: String,
    /// The messaging service the sender is in (Twilio).
    #[serde(default)]
    pub messaging_service_sid: Option<String>,
    /// How Twilio asks, and over which form of the URL it signs.
    #[serde(default)]
    pub way: Way,
    /// What its sends are authorised with: the Page's or the user's access token, or Twilio's `SK…:secret`. If there is none, any
    /// token of the registry that may act for it. Twilio always takes its auth token, too.
    #[serde(default)]
    pub token: Option<String>,
    /// The Page that an Instagram account is linked to, if it is reached through one.
    #[serde(default)]
    pub page_id: Option<String>,
    /// How fast Twilio's queue of this sender drains; by the kind of sender if there is none.
    #[serde(default)]
    pub segments_per_second: Option<u32>,
}

/// How Twilio sends a webhook (contract page, sections 2 and 4).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// A form, signed over the URL as configured.
    #[default]
    Form,
    /// A form, signed over the URL with the scheme's default port in it.
    FormWithPort,
    /// Everything in the query of a GET, signed over the URL alone.
    Get,
    /// A JSON body, whose digest is in the URL that is signed.
    Json,
}

impl Platform {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Whatsapp, Self::Messenger, Self::Instagram, Self::Twilio];

    /// In the control plane, and at the end of URLs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Whatsapp => "whatsapp",
            Self::Messenger => "messenger",
            Self::Instagram => "instagram",
            Self::Twilio => "twilio",
        }
    }

    /// The header with the signature.
    pub fn signature_header(self) -> &'static str {
        match self {
            Self::Whatsapp | Self::Messenger | Self::Instagram => "x-hub-signature-256",
            Self::Twilio => "x-twilio-signature",
        }
    }

    /// What it takes for an answer that the webhook was taken: Meta wants 200, Twilio any success.
    pub fn is_taken(self, status: u16) -> bool {
        match self {
            Self::Whatsapp | Self::Messenger | Self::Instagram => status == 200,
            Self::Twilio => (200..300).contains(&status),
        }
    }
}

impl AccountSpec {
    /// An account with the sandbox's own secret and URL.
    pub fn new(platform: Platform, id: impl Into<String>) -> Self {
        Self {
            platform,
            id: id.into(),
            secret: None,
            webhook_url: None,
            status_url: None,
            fallback_url: None,
            account_sid: account_sid(),
            messaging_service_sid: None,
            way: Way::default(),
            token: None,
            page_id: None,
            segments_per_second: None,
        }
    }

    /// With this secret instead.
    pub fn signed_with(mut self, secret: impl Into<String>) -> Self {
        self.secret = Some(secret.into());
        self
    }

    /// With its webhooks going there instead.
    pub fn at(mut self, url: impl Into<String>) -> Self {
        self.webhook_url = Some(url.into());
        self
    }

    /// Whether people write to it on WhatsApp by way of Twilio.
    pub fn is_twilio_whatsapp(&self) -> bool {
        self.platform == Platform::Twilio && self.id.starts_with("whatsapp:")
    }
}

impl Api {
    /// In the control plane.
    pub fn name(self) -> &'static str {
        match self {
            Self::Whatsapp => Platform::Whatsapp.name(),
            Self::Messenger => Platform::Messenger.name(),
            Self::Instagram => Platform::Instagram.name(),
            Self::Twilio => Platform::Twilio.name(),
            Self::Botmaster => "botmaster",
        }
    }
}

impl From<Platform> for Api {
    fn from(platform: Platform) -> Self {
        match platform {
            Platform::Whatsapp => Self::Whatsapp,
            Platform::Messenger => Self::Messenger,
            Platform::Instagram => Self::Instagram,
            Platform::Twilio => Self::Twilio,
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

fn account_sid() -> String {
    "AC00000000000000000000000000000001".into()
}
