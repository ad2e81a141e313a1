//! `mijra-sandbox`: the stand-in for the providers as a program. Prints one line of JSON with its address once it listens,
//! and is steered through `/_sandbox`.

#![allow(
    clippy::print_stdout,
    reason = "the address is the program's output; everything else is logged to standard error"
)]

use anyhow::Context;
use clap::Parser;
use std::{net::SocketAddr, time::Duration};
use support::sandbox::{AccountSpec, Behaviour, Config, Sandbox, Session};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Stands in for WhatsApp's Cloud API, Messenger, Instagram, Twilio and the BotMasterSender gateway.
#[derive(Debug, Parser)]
#[command(name = "mijra-sandbox", version)]
struct Arguments {
    /// Address to listen on; port 0 takes any that is free.
    #[arg(long, env = "SANDBOX_LISTEN", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Where webhooks go.
    #[arg(long, env = "SANDBOX_WEBHOOK_URL")]
    webhook_url: String,
    /// Signs the webhooks.
    #[arg(long, env = "SANDBOX_APP_SECRET", hide_env_values = true)]
    app_secret: String,
    /// What chance is made from.
    #[arg(long, env = "SANDBOX_SEED", default_value_t = 1)]
    seed: u64,
    /// Webhooks on their way at once.
    #[arg(long, env = "SANDBOX_WEBHOOK_CONCURRENCY", default_value_t = 32)]
    webhook_concurrency: usize,
    /// Accounts of Messenger's, Instagram's and Twilio's, as a JSON array of `AccountSpec`.
    #[arg(long, env = "SANDBOX_ACCOUNTS", hide_env_values = true, default_value = "[]", value_parser = accounts)]
    accounts: Accounts,
    /// Sessions linked at the gateway, as a JSON array of `Session`.
    #[arg(long, env = "SANDBOX_SESSIONS", hide_env_values = true, default_value = "[]", value_parser = sessions)]
    sessions: Sessions,
    /// How it behaves at first, as JSON; `fastest` for no limits and no statuses.
    #[arg(long, env = "SANDBOX_BEHAVIOUR", default_value = "{}", value_parser = behaviour)]
    behaviour: Behaviour,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let arguments = Arguments::parse();
    let mut terminated = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let config = Config {
        listen: arguments.listen,
        webhook_url: arguments.webhook_url,
        app_secret: arguments.app_secret,
        seed: arguments.seed,
        webhook_concurrency: arguments.webhook_concurrency.clamp(1, 4_096),
        behaviour: arguments.behaviour,
        accounts: arguments.accounts.0,
        sessions: arguments.sessions.0,
        ..Config::default()
    };
    let webhook_url = config.webhook_url.clone();
    let sandbox = Sandbox::start(config).await?;
    println!("{}", serde_json::json!({"listening": sandbox.url(), "control": format!("{}/_sandbox", sandbox.url())}));
    tracing::info!(address = %sandbox.address(), %webhook_url, "standing in for the providers");
    tokio::select! {
        _ = terminated.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
    let (requests, accepted) = sandbox.ledger().counts();
    tracing::info!(requests, accepted, "stopping");
    // What is under way is ours to end: nobody waits for a stand-in.
    let _ = tokio::time::timeout(Duration::from_secs(5), sandbox.stop()).await;
    Ok(())
}

/// So that the command line takes it for one value.
#[derive(Debug, Clone)]
struct Accounts(Vec<AccountSpec>);

/// The same.
#[derive(Debug, Clone)]
struct Sessions(Vec<Session>);

fn sessions(text: &str) -> Result<Sessions, String> {
    serde_json::from_str(text).map(Sessions).map_err(|e| e.to_string())
}

fn accounts(text: &str) -> Result<Accounts, String> {
    serde_json::from_str(text).map(Accounts).map_err(|e| e.to_string())
}

fn behaviour(text: &str) -> Result<Behaviour, String> {
    let behaviour =
        if text == "fastest" { Behaviour::fastest() } else { serde_json::from_str(text).map_err(|e| e.to_string())? };
    behaviour.check()?;
    Ok(behaviour)
}
