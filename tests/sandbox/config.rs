//! With what a sandbox starts. The defaults are the numbers and names of the contract page's examples.

use super::{
    behaviour::Behaviour,
    gateway::Session,
    platform::AccountSpec,
    registry::{NumberSpec, TokenSpec, TokenState},
};
use std::net::{Ipv4Addr, SocketAddr};

/// The business account of the defaults.
pub const WABA: &str = "210000000000007";
/// The phone number id of the defaults: +1 555-777-0100.
pub const NUMBER: &str = "330000000000009";
/// The token of the defaults.
pub const TOKEN: &str = "sandbox-token";

/// Settings that do not change while it runs, and the first of those that do.
#[derive(Debug, Clone)]
pub struct Config {
    /// Port 0 takes any that is free.
    pub listen: SocketAddr,
    /// Where webhooks of numbers without a URL of their own go.
    pub webhook_url: String,
    /// Signs the webhooks of numbers without a secret of their own.
    pub app_secret: String,
    /// What chance is made from.
    pub seed: u64,
    /// Webhooks on their way at once.
    pub webhook_concurrency: usize,
    /// Business numbers; each account gets the default templates.
    pub numbers: Vec<NumberSpec>,
    /// Accounts of the other providers.
    pub accounts: Vec<AccountSpec>,
    /// Sessions linked at the gateway.
    pub sessions: Vec<Session>,
    /// Access tokens.
    pub tokens: Vec<TokenSpec>,
    /// How it behaves at first.
    pub behaviour: Behaviour,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: (Ipv4Addr::LOCALHOST, 0).into(),
            webhook_url: "http://127.0.0.1:9/webhooks/whatsapp".into(),
            app_secret: "stand_in_app_secret_01".into(),
            seed: 1,
            webhook_concurrency: 32,
            numbers: vec![NumberSpec {
                id: NUMBER.into(),
                waba_id: WABA.into(),
                display_phone_number: "15557770100".into(),
                country_code: "1".into(),
                webhook_url: None,
                app_secret: None,
            }],
            accounts: Vec::new(),
            sessions: Vec::new(),
            tokens: vec![TokenSpec { token: TOKEN.into(), state: TokenState::Valid, waba_ids: vec![] }],
            behaviour: Behaviour::default(),
        }
    }
}
