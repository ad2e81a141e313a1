//! A stand-in for WhatsApp's Cloud API, Messenger, Instagram, Twilio and the BotMasterSender gateway: it checks requests as the
//! provider would, answers with documented bodies and errors, sends signed status and inbound webhooks, can be told to be slow,
//! throttle, fail, cut the connection, repeat and reorder, and keeps a ledger against which everything else is accounted.
//!
//! It is written from the provider's contract alone and shares no code with the product, so that a misunderstanding
//! cannot sit on both sides. Facts marked unconfirmed there are settings here.
//!
//! Tests start it in-process with [`Sandbox::start`]; `mijra-sandbox` is the same as a program, steered through
//! [`control`].

mod account;
pub mod accounts;
mod agenda;
pub mod behaviour;
mod body;
mod bucket;
pub mod burst;
mod clock;
mod config;
mod content;
pub mod control;
mod course;
mod dice;
mod exchange;
mod fetch;
mod fields;
pub mod files;
pub mod gateway;
pub mod generator;
mod graph;
mod handed;
mod happen;
mod inbound;
pub mod instagram;
mod interactive;
mod kinds;
pub mod ledger;
pub mod limits;
mod media;
pub mod messaging;
pub mod messenger;
mod meters;
pub mod mixture;
mod nodes;
pub mod people;
pub mod platform;
mod provider;
pub mod refusal;
pub mod registry;
mod reply;
pub mod script;
mod send;
mod server;
pub mod sign;
mod statuses;
mod tell;
pub mod template;
mod template_check;
pub mod twilio;
mod webhooks;

pub use accounts::Standing;
pub use behaviour::Behaviour;
pub use config::{Config, NUMBER, TOKEN, WABA};
pub use gateway::{Session, SessionState};
pub use handed::{Handed, How};
pub use happen::Happening;
pub use ledger::Ledger;
pub use limits::{Limit, Step};
pub use messaging::desk::Someone;
pub use people::{Kind, Person};
pub use platform::{AccountSpec, Api, Platform};
pub use registry::Registry;
pub use script::Script;
pub use tell::{Incoming, ToldOff};
pub use webhooks::{InboundWebhook, Parcel};

use kinds::kinds;

use anyhow::Context;
use ledger::Reply;
use provider::Provider;
use serde_json::Value;
use std::{net::SocketAddr, sync::Arc, time::Duration};

/// A running stand-in. Dropping it stops it.
pub struct Sandbox {
    provider: Arc<Provider>,
    address: SocketAddr,
}

impl Sandbox {
    /// Starts listening.
    pub async fn start(config: Config) -> anyhow::Result<Self> {
        config.behaviour.check().map_err(anyhow::Error::msg).context("the sandbox's behaviour")?;
        let listener = tokio::net::TcpListener::bind(config.listen)
            .await
            .with_context(|| format!("the sandbox cannot listen on {}", config.listen))?;
        let address = listener.local_addr()?;
        let provider = Arc::new(Provider::new(config, format!("http://{address}"))?);
        provider.tasks.spawn(server::run(provider.clone(), listener));
        provider.tasks.spawn(webhooks::run(provider.clone()));
        provider.tasks.spawn(server::watch_stalls(provider.clone()));
        Ok(Self { provider, address })
    }

    /// The base URL that stands in for `https://graph.facebook.com`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What really happened.
    pub fn ledger(&self) -> &Ledger {
        &self.provider.ledger
    }

    /// Numbers, tokens and templates.
    pub fn registry(&self) -> &Registry {
        &self.provider.registry
    }

    /// The links in sends to which it has gone for files, oldest first.
    pub fn fetched(&self) -> Vec<String> {
        self.provider.fetched()
    }

    /// The files that came, oldest first.
    pub fn handed(&self) -> Vec<Handed> {
        self.provider.handed.files()
    }

    /// By which id or link each message that was taken names its files: the message's id first.
    pub fn named(&self) -> Vec<(Box<str>, Box<str>)> {
        self.provider.handed.names()
    }

    /// No id that a file has got so far is known any more, as if its time were over.
    pub fn forget_files(&self) {
        handed::forget(&self.provider);
    }

    /// The next sends meet this.
    pub fn order(&self, script: Script) {
        self.provider.scripts.add(script);
    }

    /// Changes an account's rate, now and later as it says.
    pub async fn limit(&self, limit: Limit) -> anyhow::Result<()> {
        limits::change(&self.provider, limit).await
    }

    /// Puts an account into a standing. Messenger tells of restrictions.
    pub async fn stand(&self, platform: Platform, account: &str, standing: Standing) -> anyhow::Result<()> {
        accounts::stand(&self.provider, platform, account, standing).await
    }

    /// Adds a session at the gateway, or changes it.
    pub fn link(&self, session: Session) {
        self.provider.sessions.add(session);
    }

    /// Says how a template of Twilio's stands with WhatsApp. False if there is none.
    pub fn set_approval(&self, content_sid: &str, status: &str, reason: &str) -> bool {
        self.provider.twilio.set_approval(content_sid, status, reason)
    }

    /// Decides about a template of WhatsApp's and tells it by webhook; `event` as in `message_template_status_update`.
    pub async fn decide_template(
        &self,
        waba: &str,
        name: &str,
        language: &str,
        event: &str,
        reason: Option<&str>,
    ) -> anyhow::Result<()> {
        nodes::decide(&self.provider, waba, name, language, event, reason).await
    }

    /// How it behaves now.
    pub fn behaviour(&self) -> Behaviour {
        (*self.provider.behaviour()).clone()
    }

    /// Changes how it behaves from now on.
    ///
    /// # Panics
    /// If a setting cannot be: the caller is a test, and wrote it.
    pub fn behave(&self, change: impl FnOnce(&mut Behaviour)) {
        let mut behaviour = self.behaviour();
        change(&mut behaviour);
        self.provider.set_behaviour(behaviour).expect("the behaviour asked for can be");
    }

    /// Sends webhooks of numbers without a URL of their own there from now on.
    pub fn set_webhook_url(&self, url: impl Into<String>) {
        self.provider.set_webhook_url(url.into());
    }

    /// Sends messages of people to a number in one webhook; resolves with the receiver's first answer.
    /// Anything but 200 is tried again in the background.
    pub async fn tell(&self, number: &str, messages: Vec<Incoming>) -> anyhow::Result<ToldOff> {
        tell::tell(&self.provider, number, messages).await
    }

    /// Signs a payload as it is and posts it; resolves with the receiver's first answer.
    pub async fn send_webhook(&self, number: &str, payload: &Value) -> anyhow::Result<Reply> {
        tell::payload(&self.provider, number, payload).await
    }

    /// Sends what happens at an account of Messenger's, Instagram's or Twilio's; resolves with the receiver's first answer.
    pub async fn happen(&self, happening: Happening) -> anyhow::Result<ToldOff> {
        happen::happen(&self.provider, happening).await
    }

    /// Signs a payload of another platform as it is (Twilio: an object of parameters) and sends it.
    pub async fn send_webhook_of(&self, platform: Platform, account: &str, payload: &Value) -> anyhow::Result<Reply> {
        tell::post(&self.provider, happen::sealed(&self.provider, platform, account, payload)?).await
    }

    /// Posts one prepared webhook (see [`generator`] and [`mixture`]); resolves with the receiver's first answer.
    pub async fn post(&self, webhook: InboundWebhook) -> anyhow::Result<Reply> {
        tell::post(&self.provider, webhook).await
    }

    /// Runs a generated load of inbound webhooks and reports what was answered.
    pub async fn burst(&self, burst: burst::Burst) -> anyhow::Result<burst::Report> {
        burst::run(&self.provider, burst).await
    }

    /// Asks the receiver to verify itself, as when its URL is set: true if it echoed the challenge.
    pub async fn handshake(&self, verify_token: &str) -> anyhow::Result<bool> {
        tell::handshake(&self.provider, verify_token).await
    }

    /// Waits until no webhook is on its way or planned. False if that took longer than `most`.
    pub async fn settle(&self, most: Duration) -> bool {
        tell::settle(&self.provider, most).await
    }

    /// Stops answering and sending, and waits for what is under way.
    pub async fn stop(self) {
        self.provider.stopping.cancel();
        self.provider.tasks.close();
        self.provider.tasks.wait().await;
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.provider.stopping.cancel();
    }
}
