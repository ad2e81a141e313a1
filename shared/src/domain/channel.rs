//! Channels and the providers behind them.

use super::{content::Class, words::words};
use chrono::TimeDelta;
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr, time::Duration};

/// The company whose API a channel account talks to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Provider {
    /// Meta's WhatsApp Cloud API.
    Whatsapp,
    /// Meta's Messenger Platform: a Facebook Page.
    Messenger,
    /// Meta's Instagram messaging, through a Page or by Instagram Login.
    Instagram,
    /// Twilio Programmable Messaging: SMS, MMS, and WhatsApp by way of Twilio.
    Twilio,
    /// Anybody who takes messages by one HTTP call, as a configuration describes it.
    Gateway,
}

impl Provider {
    /// All providers, in the order in which they are shown.
    pub const ALL: &'static [Provider] =
        &[Provider::Whatsapp, Provider::Messenger, Provider::Instagram, Provider::Twilio, Provider::Gateway];

    /// Those that call us: what people write, and what became of what was sent.
    pub const WITH_WEBHOOKS: &'static [Provider] =
        &[Provider::Whatsapp, Provider::Messenger, Provider::Instagram, Provider::Twilio];

    /// The name in SQL, URLs, metrics and on queues.
    pub fn as_str(self) -> &'static str {
        match self {
            Provider::Whatsapp => "whatsapp",
            Provider::Messenger => "messenger",
            Provider::Instagram => "instagram",
            Provider::Twilio => "twilio",
            Provider::Gateway => "gateway",
        }
    }

    /// For how much longer than other calls one may take, because the provider fetches a file by its address before it answers: ten
    /// seconds, of films and recordings 75 (providers/messenger section 3.2).
    pub fn fetches_for(self, class: Class) -> Duration {
        match (self, class) {
            (Provider::Messenger | Provider::Instagram, Class::Heavy) => Duration::from_secs(75),
            (Provider::Messenger | Provider::Instagram, Class::Light) => Duration::from_secs(10),
            (Provider::Whatsapp | Provider::Twilio | Provider::Gateway, _) => Duration::ZERO,
        }
    }

    /// What a message that is received takes of an account's rate. WhatsApp's throughput is of both ways together
    /// (providers/whatsapp section 11), as are the volumes above which a Page or a professional account cannot send
    /// (providers/messenger section 8, providers/instagram section 6). Twilio counts what is sent alone
    /// (providers/twilio section 9).
    pub fn inbound_cost(self) -> f64 {
        match self {
            Provider::Whatsapp | Provider::Messenger | Provider::Instagram => 1.0,
            Provider::Twilio | Provider::Gateway => 0.0,
        }
    }

    /// Whether this release can hand messages over to it: to all of them.
    pub fn can_send(self) -> bool {
        true
    }

    /// Whether it says later what became of a message. Without, a message stays sent.
    pub fn has_receipts(self) -> bool {
        self != Provider::Gateway
    }

    /// Whether it holds to the channel's customer service window: a gateway knows none (providers/botmaster).
    pub fn has_window(self) -> bool {
        self != Provider::Gateway
    }
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

words! {
    /// How a channel account is.
    AccountState {
        /// It sends.
        Active = "active",
        /// Its provider refuses it, or too many of its calls failed: what it has to send waits.
        Down = "down",
        /// An operator, or its provider for good, has switched it off.
        Disabled = "disabled",
    }
}

/// A provider's name that this release does not know.
#[derive(Debug, thiserror::Error)]
#[error("no provider is called {0:?}")]
pub struct UnknownProvider(pub String);

impl FromStr for Provider {
    type Err = UnknownProvider;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.iter().copied().find(|p| p.as_str() == text).ok_or_else(|| UnknownProvider(text.to_owned()))
    }
}

/// How an Instagram account was connected (providers/instagram section 0).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InstagramLogin {
    /// By the Facebook Page it belongs to: reached where the Page is.
    Page,
    /// By Instagram itself: reached at Instagram's own API.
    Instagram,
}

/// What people write on. WhatsApp is one channel, whether Meta's or Twilio's API stands behind an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Channel {
    /// WhatsApp.
    Whatsapp,
    /// Facebook Messenger.
    Messenger,
    /// Instagram's direct messages.
    Instagram,
    /// Text messages of telephones, with or without files (SMS, MMS).
    Sms,
}

/// What stands before a WhatsApp address at Twilio (providers/twilio section 1), and before the id of a gateway's account on WhatsApp.
pub const TWILIO_WHATSAPP_PREFIX: &str = "whatsapp:";

impl Channel {
    /// All channels, in the order in which they are shown.
    pub const ALL: &'static [Channel] = &[Channel::Whatsapp, Channel::Messenger, Channel::Instagram, Channel::Sms];

    /// The name in SQL and in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Channel::Whatsapp => "whatsapp",
            Channel::Messenger => "messenger",
            Channel::Instagram => "instagram",
            Channel::Sms => "sms",
        }
    }

    /// The channel of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|channel| channel.as_str() == name)
    }

    /// The channel of a provider's account with this id. The column `channel_accounts.channel` follows the same rule.
    pub fn of_account(provider: Provider, external_id: &str) -> Self {
        match provider {
            Provider::Whatsapp => Channel::Whatsapp,
            Provider::Messenger => Channel::Messenger,
            Provider::Instagram => Channel::Instagram,
            Provider::Twilio | Provider::Gateway if external_id.starts_with(TWILIO_WHATSAPP_PREFIX) => {
                Channel::Whatsapp
            }
            Provider::Twilio | Provider::Gateway => Channel::Sms,
        }
    }

    /// Whether providers tell there up to where a person has received and read, instead of message by message
    /// (providers/messenger section 2.4, providers/instagram section 2.2).
    pub fn has_watermarks(self) -> bool {
        matches!(self, Channel::Messenger | Channel::Instagram)
    }

    /// For how long after a person last said something they may be written to freely; `None` where that is always allowed.
    /// 24 hours on WhatsApp (providers/whatsapp section 13.1), Messenger (providers/messenger section 6) and Instagram
    /// (providers/instagram section 3.2).
    pub fn window(self) -> Option<TimeDelta> {
        match self {
            Channel::Whatsapp | Channel::Messenger | Channel::Instagram => Some(TimeDelta::hours(24)),
            Channel::Sms => None,
        }
    }
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatsapp_is_one_channel_with_two_providers() {
        for (provider, id, channel) in [
            (Provider::Whatsapp, "330000000000009", Channel::Whatsapp),
            (Provider::Twilio, "whatsapp:+15035550199", Channel::Whatsapp),
            (Provider::Twilio, "+15035550199", Channel::Sms),
            (Provider::Twilio, "24246", Channel::Sms),
            (Provider::Gateway, "whatsapp:+919800000001", Channel::Whatsapp),
            (Provider::Gateway, "+919800000001", Channel::Sms),
            (Provider::Messenger, "100900000000001", Channel::Messenger),
            (Provider::Instagram, "17841400000000055", Channel::Instagram),
        ] {
            assert_eq!(Channel::of_account(provider, id), channel, "{provider} {id}");
        }
    }

    #[test]
    fn a_gateway_calls_nobody() {
        let silent: Vec<_> = Provider::ALL.iter().filter(|p| !Provider::WITH_WEBHOOKS.contains(p)).collect();
        assert_eq!(silent, [&Provider::Gateway]);
        assert!(!Provider::Gateway.has_receipts() && !Provider::Gateway.has_window());
    }

    #[test]
    fn names_lead_back() {
        assert!(
            Provider::ALL.iter().all(|provider| provider.as_str().parse::<Provider>().is_ok_and(|p| p == *provider))
        );
        assert!(Channel::ALL.iter().all(|channel| Channel::from_name(channel.as_str()) == Some(*channel)));
    }
}
