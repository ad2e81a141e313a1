//! `mijra channel-account add whatsapp`.

use super::{
    add::{Common, GivenSecrets, Wanted, add, given},
    provider_id,
};
use crate::cli::output::Output;
use secrecy::SecretString;
use shared::domain::{
    channel::Provider,
    limits::{LimitChange, Scope},
};
use std::process::ExitCode;

/// A WhatsApp number. It may handle 80 messages a second, those received included, unless it is upgraded (1000) or shared with the
/// app (20), and of one person one in 6 seconds, up to 45 at once (providers/whatsapp section 11).
#[derive(clap::Args, Debug)]
pub(in crate::cli) struct Whatsapp {
    #[command(flatten)]
    common: Common,
    /// Meta's id of the number.
    #[arg(long, value_parser = provider_id)]
    phone_number_id: String,
    /// Meta's id of the WhatsApp business account.
    #[arg(long, value_parser = provider_id, required_unless_present = "update")]
    business_account_id: Option<String>,
    /// The number as customers see it.
    #[arg(long)]
    display_number: Option<String>,
    /// With what WhatsApp is called. Better in the environment than here.
    #[arg(long, env = "ACCESS_TOKEN", hide_env_values = true, required_unless_present = "update")]
    access_token: Option<SecretString>,
    /// The word of the handshake at the account's own address; made up unless given, and kept by an update.
    #[arg(long, env = "VERIFY_TOKEN", hide_env_values = true)]
    verify_token: Option<SecretString>,
    /// Write to one person as fast as to any other.
    #[arg(long, conflicts_with = "update")]
    no_pair_limit: bool,
    /// Meta's id of the business portfolio, whose numbers share its messaging limit.
    #[arg(long, value_parser = provider_id)]
    portfolio_id: Option<String>,
    /// How many people the portfolio may reach outside their 24-hour window in a day (250, 2000, 10000, 100000).
    #[arg(long, requires = "portfolio_id", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    messaging_limit: Option<u32>,
}

impl Whatsapp {
    pub(super) async fn add(&self, out: &Output) -> anyhow::Result<ExitCode> {
        let (number, business) = (self.phone_number_id.as_str(), self.business_account_id.as_deref());
        let people = self
            .messaging_limit
            .map(|people| (Scope::Portfolio, LimitChange { rate: f64::from(people), burst: None, inbound_cost: None }));
        let wanted = Wanted {
            provider: Provider::Whatsapp,
            external_id: number,
            routes: [Some(("phone_number_id", number)), business.map(|id| ("business_account_id", id))]
                .into_iter()
                .flatten()
                .collect(),
            business_account_id: business,
            lacks: business.is_none().then_some("--business-account-id"),
            display_address: self.display_number.as_deref(),
            secrets: GivenSecrets { access_token: given(self.access_token.as_ref()), ..GivenSecrets::default() },
            verify_token: given(self.verify_token.as_ref()),
            portfolio: self.portfolio_id.as_deref(),
            further_limits: people.into_iter().collect(),
            described_limits: Vec::new(),
            without: if self.no_pair_limit { &[Scope::Pair] } else { &[] },
            human_agent: None,
            gateway: None,
            shown: serde_json::json!({
                "phone_number_id": self.phone_number_id,
                "business_account_id": self.business_account_id,
                "display_number": self.display_number,
                "portfolio_id": self.portfolio_id,
                "messaging_limit": self.messaging_limit,
            }),
        };
        add(&self.common, &wanted, out).await
    }
}
