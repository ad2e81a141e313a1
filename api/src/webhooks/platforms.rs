//! What the platform itself has at each provider: the secrets with which webhooks of its own paths are signed, and the words of
//! their handshakes. Accounts with an address of their own have their own ([`endpoints`](super::endpoints)).

use clap::Args;
use secrecy::{ExposeSecret, SecretString};
use shared::{
    config::{InstagramArgs, MessengerArgs, TwilioArgs, WhatsappArgs},
    domain::channel::Provider,
};
use std::collections::BTreeMap;

/// The settings of all providers.
#[derive(Args, Clone, Debug)]
pub struct PlatformArgs {
    #[command(flatten)]
    whatsapp: WhatsappArgs,
    #[command(flatten)]
    messenger: MessengerArgs,
    #[command(flatten)]
    instagram: InstagramArgs,
    #[command(flatten)]
    twilio: TwilioArgs,
}

/// What the platform has at one provider.
#[derive(Clone, Debug, Default)]
pub struct Platform {
    /// With what its webhooks may be signed; several while one is changed. None: the platform has no address for it.
    pub secrets: Vec<SecretString>,
    /// The word of the handshake.
    pub verify_token: Option<SecretString>,
}

/// What the platform has at every provider.
#[derive(Clone, Debug, Default)]
pub struct Platforms(BTreeMap<Provider, Platform>);

impl Platforms {
    /// What it has at these, and nothing elsewhere.
    pub fn new(platforms: impl IntoIterator<Item = (Provider, Platform)>) -> Self {
        let mut all: BTreeMap<_, _> = Provider::ALL.iter().map(|provider| (*provider, Platform::default())).collect();
        all.extend(platforms);
        Self(all)
    }

    /// What it has at this one.
    pub fn of(&self, provider: Provider) -> &Platform {
        const NOTHING: &Platform = &Platform { secrets: Vec::new(), verify_token: None };
        self.0.get(&provider).unwrap_or(NOTHING)
    }
}

impl PlatformArgs {
    /// As they are set.
    pub fn platforms(&self) -> Platforms {
        let platform = |secrets: &[SecretString], verify_token: Option<&SecretString>| Platform {
            secrets: secrets.iter().filter_map(trimmed).collect(),
            verify_token: verify_token.cloned(),
        };
        let (whatsapp, messenger, instagram) = (&self.whatsapp, &self.messenger, &self.instagram);
        Platforms::new([
            (Provider::Whatsapp, platform(&whatsapp.whatsapp_app_secret, whatsapp.whatsapp_verify_token.as_ref())),
            (Provider::Messenger, platform(&messenger.messenger_app_secret, messenger.messenger_verify_token.as_ref())),
            (Provider::Instagram, platform(&instagram.instagram_app_secret, instagram.instagram_verify_token.as_ref())),
            (Provider::Twilio, platform(&self.twilio.twilio_auth_token, None)),
        ])
    }
}

/// A secret without the white space around it; `None` if nothing is left: a setting may be there and empty.
fn trimmed(secret: &SecretString) -> Option<SecretString> {
    let secret = secret.expose_secret().trim();
    (!secret.is_empty()).then(|| secret.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Everything {
        #[command(flatten)]
        platforms: PlatformArgs,
    }

    #[test]
    fn what_is_set_and_empty_is_not_there() {
        let all =
            ["test", "--whatsapp-app-secret=new, old,", "--messenger-app-secret=", "--instagram-verify-token=word"];
        let platforms = Everything::try_parse_from(all).unwrap().platforms.platforms();
        let secrets = |provider| -> Vec<&str> {
            platforms.of(provider).secrets.iter().map(ExposeSecret::expose_secret).collect()
        };
        assert_eq!(secrets(Provider::Whatsapp), ["new", "old"]);
        assert!([Provider::Messenger, Provider::Instagram, Provider::Twilio].iter().all(|p| secrets(*p).is_empty()));
        assert!(platforms.of(Provider::Instagram).verify_token.is_some());
    }
}
