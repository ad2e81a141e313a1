//! `mijra channel-account add twilio`.

use super::{
    account_sid,
    add::{Common, GivenSecrets, Wanted, add, given},
    provider_id, sender,
};
use crate::cli::output::Output;
use secrecy::SecretString;
use shared::{domain::channel::Provider, providers::twilio};
use std::process::ExitCode;

/// A Twilio sender. How many segments a second it may send depends on what it is: 1 of a long code, 3 toll-free, 100 of a short code,
/// 80 on WhatsApp (providers/twilio section 9); received ones do not count.
#[derive(clap::Args, Debug)]
pub(in crate::cli) struct Twilio {
    #[command(flatten)]
    common: Common,
    /// The address as Twilio writes it (`+15035550199`, `24246`, `whatsapp:+15035550199`), or a messaging service's SID (`MG…`) for all
    /// of its senders that have no account of their own.
    #[arg(long, value_parser = sender)]
    sender: String,
    /// The SID of the account, or subaccount, that owns it (`AC…`).
    #[arg(long, value_parser = account_sid, required_unless_present = "update")]
    account_sid: Option<String>,
    /// With what Twilio is called: the account's auth token, or the secret of `--api-key`. Better in the environment than here.
    #[arg(long, env = "ACCESS_TOKEN", hide_env_values = true, required_unless_present = "update")]
    access_token: Option<SecretString>,
    /// The SID of an API key (`SK…`) whose secret the access token is. An update without it leaves it as it is.
    #[arg(long, value_parser = provider_id)]
    api_key: Option<String>,
    /// The access token is the account's auth token from now on, and no API key's secret.
    #[arg(long, conflicts_with = "api_key")]
    no_api_key: bool,
}

impl Twilio {
    pub(super) async fn add(&self, out: &Output) -> anyhow::Result<ExitCode> {
        let access_token = given(self.access_token.as_ref());
        let secret_is_meant = self.api_key.is_some() || self.no_api_key;
        anyhow::ensure!(
            access_token.is_some() || !secret_is_meant,
            "--api-key and --no-api-key say whose secret the access token is: give it, too"
        );
        let wanted = Wanted {
            provider: Provider::Twilio,
            external_id: &self.sender,
            routes: vec![("twilio_sender", &self.sender)],
            business_account_id: self.account_sid.as_deref(),
            lacks: self.account_sid.is_none().then_some("--account-sid"),
            display_address: (!twilio::is_messaging_service(&self.sender)).then_some(&*self.sender),
            secrets: GivenSecrets {
                access_token,
                username: secret_is_meant.then_some(self.api_key.as_deref()),
                ..GivenSecrets::default()
            },
            verify_token: None,
            portfolio: self.account_sid.as_deref(),
            further_limits: Vec::new(),
            described_limits: Vec::new(),
            without: &[],
            human_agent: None,
            gateway: None,
            shown: serde_json::json!({
                "sender": self.sender,
                "account_sid": self.account_sid,
                "api_key": self.api_key,
                "no_api_key": self.no_api_key.then_some(true),
            }),
        };
        add(&self.common, &wanted, out).await
    }
}
