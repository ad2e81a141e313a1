//! Everything the sandbox's parts share: what exists, how it behaves, what happened, what is still to be done.

use super::{
    Config,
    agenda::Agenda,
    behaviour::Behaviour,
    clock::Clock,
    dice::Dice,
    gateway::Sessions,
    handed::HandedOver,
    ledger::Ledger,
    media::Media,
    platform::{AccountSpec, Platform},
    registry::{NumberSpec, Registry},
    script::Scripts,
    twilio::Desk as TwilioDesk,
};
use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub(super) struct Provider {
    pub(super) clock: Clock,
    pub(super) registry: Registry,
    pub(super) ledger: Ledger,
    pub(super) dice: Dice,
    pub(super) agenda: Agenda,
    pub(super) media: Media,
    pub(super) handed: HandedOver,
    pub(super) scripts: Scripts,
    pub(super) twilio: TwilioDesk,
    pub(super) sessions: Sessions,
    pub(super) http: reqwest::Client,
    pub(super) tasks: TaskTracker,
    pub(super) stopping: CancellationToken,
    pub(super) config: Config,
    /// Where the sandbox itself listens; media URLs point there.
    pub(super) own_url: String,
    behaviour: RwLock<Arc<Behaviour>>,
    webhook_url: RwLock<String>,
    inbound_ids: AtomicU64,
    /// Ids of inbound messages that were given by hand.
    foreign_ids: Mutex<HashSet<String>>,
    /// Links in sends that were gone to.
    fetched: Mutex<Vec<String>>,
}

impl Provider {
    pub(super) fn new(config: Config, own_url: String) -> Result<Self, reqwest::Error> {
        let clock = Clock::start();
        let registry = Registry::default();
        for number in &config.numbers {
            registry.add_number(number.clone());
            registry.add_default_templates(&number.waba_id);
        }
        for account in &config.accounts {
            registry.add_account(account.clone());
        }
        for token in &config.tokens {
            registry.add_token(token.clone());
        }
        let sessions = Sessions::default();
        for session in &config.sessions {
            sessions.add(session.clone());
        }
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .pool_max_idle_per_host(config.webhook_concurrency)
            .user_agent("facebookexternalua")
            .build()?;
        Ok(Self {
            clock,
            registry,
            ledger: Ledger::new(clock),
            dice: Dice::new(config.seed),
            agenda: Agenda::default(),
            media: Media::default(),
            handed: HandedOver::default(),
            scripts: Scripts::default(),
            twilio: TwilioDesk::default(),
            sessions,
            http,
            tasks: TaskTracker::new(),
            stopping: CancellationToken::new(),
            behaviour: RwLock::new(Arc::new(config.behaviour.clone())),
            webhook_url: RwLock::new(config.webhook_url.clone()),
            own_url,
            config,
            inbound_ids: AtomicU64::new(1),
            foreign_ids: Mutex::default(),
            fetched: Mutex::default(),
        })
    }

    pub(super) fn behaviour(&self) -> Arc<Behaviour> {
        self.behaviour.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_behaviour(&self, behaviour: Behaviour) -> Result<(), String> {
        behaviour.check()?;
        *self.behaviour.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(behaviour);
        Ok(())
    }

    /// Where this number's webhooks go.
    pub(super) fn webhook_url(&self, number: &NumberSpec) -> String {
        match &number.webhook_url {
            Some(url) => url.clone(),
            None => self.default_webhook_url(),
        }
    }

    pub(super) fn default_webhook_url(&self) -> String {
        self.webhook_url.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_webhook_url(&self, url: String) {
        *self.webhook_url.write().unwrap_or_else(PoisonError::into_inner) = url;
    }

    /// Where this account's webhooks go.
    pub(super) fn account_url(&self, account: &AccountSpec) -> String {
        account.webhook_url.clone().unwrap_or_else(|| {
            let ours = self.default_webhook_url();
            let root = ours.strip_suffix(Platform::Whatsapp.name()).unwrap_or(&ours);
            format!("{root}{}", account.platform)
        })
    }

    /// What signs this account's webhooks.
    pub(super) fn secret<'a>(&'a self, account: &'a AccountSpec) -> &'a str {
        account.secret.as_deref().unwrap_or(&self.config.app_secret)
    }

    /// The account with its URL and its secret, as a generator needs it.
    pub(super) fn resolved(&self, account: AccountSpec) -> AccountSpec {
        let (url, secret) = (self.account_url(&account), self.secret(&account).to_owned());
        account.at(url).signed_with(secret)
    }

    pub(super) fn app_secret<'a>(&'a self, number: &'a NumberSpec) -> &'a str {
        number.app_secret.as_deref().unwrap_or(&self.config.app_secret)
    }

    pub(super) fn note_fetched(&self, link: &str) {
        self.fetched.lock().unwrap_or_else(PoisonError::into_inner).push(link.to_owned());
    }

    pub(super) fn fetched(&self) -> Vec<String> {
        self.fetched.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// An id for a message of a person.
    pub(super) fn inbound_id(&self) -> String {
        self.ledger.wamid("IN", self.inbound_ids.fetch_add(1, Ordering::Relaxed))
    }

    pub(super) fn remember_id(&self, id: &str) {
        self.foreign_ids.lock().unwrap_or_else(PoisonError::into_inner).insert(id.to_owned());
    }

    /// Whether a message of a person has this id.
    pub(super) fn knows_inbound_id(&self, id: &str) -> bool {
        super::generator::is_inbound_id(id)
            || self.foreign_ids.lock().unwrap_or_else(PoisonError::into_inner).contains(id)
    }
}
