//! `mijra channel-account add gateway`.

use super::{
    add::{Common, GivenSecrets, Wanted, add, given},
    sender,
};
use crate::cli::output::Output;
use anyhow::Context;
use secrecy::SecretString;
use shared::{
    domain::{
        channel::{Channel, Provider},
        limits::{LimitChange, Scope},
    },
    providers::gateway::{GatewayConfig, preset},
};
use std::{path::PathBuf, process::ExitCode};

/// A number at a gateway: something with an endpoint to send by and nothing else, which is described instead of programmed. It tells nobody
/// what became of a message, so that one it took stays `sent`.
#[derive(clap::Args, Debug)]
pub(in crate::cli) struct Gateway {
    #[command(flatten)]
    common: Common,
    /// The number it sends from: with `whatsapp:` before it if it is one on WhatsApp (`whatsapp:+919800000001`).
    #[arg(long, value_parser = sender)]
    sender: String,
    /// A description that is built in: botmaster.
    #[arg(long, required_unless_present_any = ["description", "update"], conflicts_with = "description")]
    preset: Option<String>,
    /// A file with the description, as JSON: URL, fields, and how answers are read.
    #[arg(long)]
    description: Option<PathBuf>,
    /// The gateway's token. Better in the environment than here.
    #[arg(long, env = "ACCESS_TOKEN", hide_env_values = true, required_unless_present = "update")]
    access_token: Option<SecretString>,
}

impl Gateway {
    pub(super) async fn add(&self, out: &Output) -> anyhow::Result<ExitCode> {
        let config = self.config()?;
        let channel = Channel::of_account(Provider::Gateway, &self.sender);
        if let Some(config) = &config {
            anyhow::ensure!(
                config.channel == channel,
                "the gateway carries {} and the sender {} is one of {channel}",
                config.channel,
                self.sender
            );
        }
        let rate = config.as_ref().and_then(|config| config.messages_per_second);
        let rate = rate.map(|rate| LimitChange { rate, burst: None, inbound_cost: None });
        let wanted = Wanted {
            provider: Provider::Gateway,
            external_id: &self.sender,
            routes: Vec::new(),
            business_account_id: None,
            lacks: config.is_none().then_some("--preset or --description"),
            display_address: Some(&self.sender),
            secrets: GivenSecrets { access_token: given(self.access_token.as_ref()), ..GivenSecrets::default() },
            verify_token: None,
            portfolio: None,
            further_limits: Vec::new(),
            described_limits: rate.into_iter().map(|rate| (Scope::Account, rate)).collect(),
            without: &[],
            human_agent: None,
            gateway: config.as_ref().map(serde_json::to_value).transpose()?,
            shown: serde_json::json!({"sender": self.sender, "gateway": config.map(|config| config.url)}),
        };
        add(&self.common, &wanted, out).await
    }

    /// The description that was given, if one was.
    fn config(&self) -> anyhow::Result<Option<GatewayConfig>> {
        match (&self.preset, &self.description) {
            (Some(name), _) => preset(name).map(Some).with_context(|| format!("no gateway called {name} is built in")),
            (None, Some(path)) => {
                let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
                GatewayConfig::read(&text).map(Some).with_context(|| path.display().to_string())
            }
            (None, None) => Ok(None),
        }
    }
}
