//! `mijra channel-account add messenger`.

use super::{
    add::{Common, GivenSecrets, Wanted, add, given},
    provider_id,
};
use crate::cli::output::Output;
use secrecy::SecretString;
use shared::domain::channel::Provider;
use std::process::ExitCode;

/// A Facebook Page. It may handle 40 messages a second, those received included (providers/messenger section 8).
#[derive(clap::Args, Debug)]
pub(in crate::cli) struct Messenger {
    #[command(flatten)]
    common: Common,
    /// The Page's id.
    #[arg(long, value_parser = provider_id)]
    page_id: String,
    /// The Page's access token. Better in the environment than here.
    #[arg(long, env = "ACCESS_TOKEN", hide_env_values = true, required_unless_present = "update")]
    access_token: Option<SecretString>,
    /// The word of the handshake at the account's own address; made up unless given, and kept by an update.
    #[arg(long, env = "VERIFY_TOKEN", hide_env_values = true)]
    verify_token: Option<SecretString>,
    /// The app has Meta's Human Agent feature: what people write may be sent for seven days after the customer's last message.
    #[arg(long)]
    human_agent: bool,
}

impl Messenger {
    pub(super) async fn add(&self, out: &Output) -> anyhow::Result<ExitCode> {
        let wanted = Wanted {
            provider: Provider::Messenger,
            external_id: &self.page_id,
            routes: vec![("page_id", &self.page_id)],
            business_account_id: None,
            lacks: None,
            display_address: None,
            secrets: GivenSecrets { access_token: given(self.access_token.as_ref()), ..GivenSecrets::default() },
            verify_token: given(self.verify_token.as_ref()),
            portfolio: None,
            further_limits: Vec::new(),
            described_limits: Vec::new(),
            without: &[],
            human_agent: self.human_agent.then_some(true),
            gateway: None,
            shown: serde_json::json!({"page_id": self.page_id}),
        };
        add(&self.common, &wanted, out).await
    }
}
