//! `mijra channel-account add instagram`.

use super::{
    add::{Common, GivenSecrets, Wanted, add, given},
    provider_id,
};
use crate::cli::output::Output;
use clap::ValueEnum;
use secrecy::SecretString;
use shared::domain::channel::{InstagramLogin, Provider};
use std::process::ExitCode;

/// An Instagram professional account. It may handle 20 messages a second, those received included: 72,000 in an hour
/// (providers/instagram section 6).
#[derive(clap::Args, Debug)]
pub(in crate::cli) struct Instagram {
    #[command(flatten)]
    common: Common,
    /// Instagram's id of the account, as its webhooks have it.
    #[arg(long, value_parser = provider_id)]
    account_id: String,
    /// The account's user name, without `@`.
    #[arg(long)]
    username: Option<String>,
    /// By which login it was connected; decides at which of Meta's hosts its API is.
    #[arg(long, value_enum, required_unless_present = "update")]
    login: Option<Login>,
    /// The Page's access token, or the account's own. Better in the environment than here.
    #[arg(long, env = "ACCESS_TOKEN", hide_env_values = true, required_unless_present = "update")]
    access_token: Option<SecretString>,
    /// The word of the handshake at the account's own address; made up unless given, and kept by an update.
    #[arg(long, env = "VERIFY_TOKEN", hide_env_values = true)]
    verify_token: Option<SecretString>,
    /// The app has Meta's Human Agent feature: what people write may be sent for seven days after the customer's last message.
    #[arg(long)]
    human_agent: bool,
}

/// How it was connected.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Login {
    /// By the Facebook Page it belongs to.
    Page,
    /// By Instagram itself.
    Instagram,
}

impl Instagram {
    pub(super) async fn add(&self, out: &Output) -> anyhow::Result<ExitCode> {
        let login = self.login.map(|login| match login {
            Login::Page => (InstagramLogin::Page, "page"),
            Login::Instagram => (InstagramLogin::Instagram, "instagram"),
        });
        let (login, shown) = login.unzip();
        let wanted = Wanted {
            provider: Provider::Instagram,
            external_id: &self.account_id,
            routes: vec![("instagram_account_id", &self.account_id)],
            business_account_id: None,
            lacks: login.is_none().then_some("--login"),
            display_address: self.username.as_deref(),
            secrets: GivenSecrets { access_token: given(self.access_token.as_ref()), login, ..GivenSecrets::default() },
            verify_token: given(self.verify_token.as_ref()),
            portfolio: None,
            further_limits: Vec::new(),
            described_limits: Vec::new(),
            without: &[],
            human_agent: self.human_agent.then_some(true),
            gateway: None,
            shown: serde_json::json!({"account_id": self.account_id, "username": self.username, "login": shown}),
        };
        add(&self.common, &wanted, out).await
    }
}
