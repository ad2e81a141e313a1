//! What exists at the providers: numbers, tokens and templates, and the state each is in; and the accounts of the other
//! providers.

use super::{
    accounts::Account,
    behaviour::Behaviour,
    messaging::desk::Someone,
    meters::Meters,
    platform::{AccountSpec, Platform},
    refusal::Refusal,
    template::{self, Definition, Template},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

/// A business phone number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NumberSpec {
    /// The phone number id: the path segment of its calls.
    pub id: String,
    /// The WhatsApp business account it belongs to.
    pub waba_id: String,
    /// Digits, as in `metadata.display_phone_number`.
    pub display_phone_number: String,
    /// Put in front of numbers dialled without a `+`.
    #[serde(default = "north_america")]
    pub country_code: String,
    /// Where its webhooks go; the sandbox's own default if there is none.
    #[serde(default)]
    pub webhook_url: Option<String>,
    /// Signs its webhooks; the sandbox's own default if there is none.
    #[serde(default)]
    pub app_secret: Option<String>,
}

/// An access token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenSpec {
    /// What stands after `Bearer`.
    pub token: String,
    /// Whether it works.
    #[serde(default)]
    pub state: TokenState,
    /// The business accounts it reaches; empty for all.
    #[serde(default)]
    pub waba_ids: Vec<String>,
}

/// Whether a token works, and if not, how it fails.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenState {
    /// It works.
    #[default]
    Valid,
    /// 190 with subcode 463.
    Expired,
    /// 190 with subcode 460: the password was changed.
    Invalidated,
    /// 0.
    Revoked,
    /// 10.
    NoPermission,
}

/// The state of a number's account.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AccountState {
    /// In order.
    #[default]
    Connected,
    /// 368.
    Restricted,
    /// 131031.
    Locked,
    /// 131042.
    Unpaid,
    /// 131037.
    NameNotApproved,
    /// 131048.
    SpamLimited,
    /// 133010.
    NotRegistered,
    /// 131057: for instance while its throughput is raised.
    Maintenance,
    /// 33.
    Deleted,
}

/// Everything that exists. Shared by all requests.
#[derive(Debug, Default)]
pub struct Registry {
    numbers: RwLock<HashMap<String, Arc<Number>>>,
    accounts: RwLock<BTreeMap<(Platform, String), Arc<Account>>>,
    tokens: RwLock<HashMap<String, TokenSpec>>,
    templates: RwLock<BTreeMap<String, Vec<Arc<Template>>>>,
    template_ids: AtomicU64,
    /// Calls in the running hour, by account.
    management_calls: Mutex<HashMap<String, (u64, u32)>>,
}

/// A number and what is counted for it.
#[derive(Debug)]
pub(super) struct Number {
    pub(super) spec: NumberSpec,
    /// Shared with the ledger's entries.
    pub(super) id: Arc<str>,
    live: Mutex<Live>,
}

#[derive(Debug, Default)]
pub(super) struct Live {
    pub(super) state: AccountState,
    /// Instead of the sandbox's, for this number alone.
    pub(super) behaviour: Option<Arc<Behaviour>>,
    /// Instead of the throughput that the behaviour says.
    pub(super) limit: Option<u32>,
    pub(super) meters: Meters,
}

impl Registry {
    /// Adds a number, or replaces it together with what was counted for it.
    pub fn add_number(&self, spec: NumberSpec) {
        let number = Number { id: spec.id.as_str().into(), live: Mutex::default(), spec };
        write(&self.numbers).insert(number.spec.id.clone(), Arc::new(number));
    }

    /// All numbers.
    pub fn numbers(&self) -> Vec<NumberSpec> {
        let mut all: Vec<_> = read(&self.numbers).values().map(|number| number.spec.clone()).collect();
        all.sort_by(|a, b| a.id.cmp(&b.id));
        all
    }

    /// Adds an account of Messenger's, Instagram's or Twilio's, or replaces it together with what was counted for it. Its token is
    /// valid, and for it alone, unless it is registered already.
    pub fn add_account(&self, spec: AccountSpec) {
        if let Some(token) = &spec.token {
            write(&self.tokens).entry(token.clone()).or_insert_with(|| TokenSpec {
                token: token.clone(),
                state: TokenState::Valid,
                waba_ids: vec![spec.id.clone()],
            });
        }
        write(&self.accounts).insert((spec.platform, spec.id.clone()), Arc::new(Account::new(spec)));
    }

    /// Gives an account a behaviour of its own, or takes it away. False if there is no such account.
    pub fn set_account_behaviour(&self, platform: Platform, account: &str, behaviour: Option<Behaviour>) -> bool {
        self.account(platform, account).map(|account| account.live().behaviour = behaviour.map(Arc::new)).is_some()
    }

    /// Lets every window of an account lapse. False if there is no such account.
    pub fn close_account_windows(&self, platform: Platform, account: &str) -> bool {
        let closed = self.account(platform, account).map(|account| {
            let mut live = account.live();
            live.desk.close_windows();
            live.queue.close_windows();
        });
        closed.is_some()
    }

    /// Says what is the matter with somebody at a Page or professional account. False if there is no such account.
    pub fn set_someone(&self, platform: Platform, account: &str, person: &str, someone: Someone) -> bool {
        self.account(platform, account).map(|account| account.live().desk.set(person, someone)).is_some()
    }

    /// A comment that may be answered privately; when it was written is on the sandbox's own scale. False if there is no such account.
    pub(super) fn add_comment(
        &self,
        platform: Platform,
        account: &str,
        comment: &str,
        person: &str,
        at_us: i64,
    ) -> bool {
        self.account(platform, account).map(|account| account.live().desk.comment(comment, person, at_us)).is_some()
    }

    /// All accounts but WhatsApp's.
    pub fn accounts(&self) -> Vec<AccountSpec> {
        read(&self.accounts).values().map(|account| account.spec.clone()).collect()
    }

    /// Puts a number's account into a state. False if there is no such number.
    pub fn set_account_state(&self, number: &str, state: AccountState) -> bool {
        self.number(number).map(|number| number.live().state = state).is_some()
    }

    /// Gives a number a behaviour of its own, or takes it away. False if there is no such number.
    pub fn set_number_behaviour(&self, number: &str, behaviour: Option<Behaviour>) -> bool {
        self.number(number).map(|number| number.live().behaviour = behaviour.map(Arc::new)).is_some()
    }

    /// Lets every window of a number lapse. False if there is no such number.
    pub fn close_windows(&self, number: &str) -> bool {
        self.number(number).map(|number| number.live().meters.close_windows()).is_some()
    }

    /// Adds a token, or replaces it.
    pub fn add_token(&self, spec: TokenSpec) {
        write(&self.tokens).insert(spec.token.clone(), spec);
    }

    /// Adds a template to a business account, or replaces the one of that name and language.
    pub fn add_template(&self, waba_id: &str, definition: Definition) -> Result<Arc<Template>, Refusal> {
        let shape = definition.shape()?;
        let mut templates = write(&self.templates);
        let of_account = templates.entry(waba_id.into()).or_default();
        let known = of_account.iter().find(|old| same(old, &definition.name, &definition.language));
        let id = known.map_or_else(
            || (710_000_000_000_000 + self.template_ids.fetch_add(1, Ordering::Relaxed)).to_string(),
            |old| old.id.clone(),
        );
        let template = Arc::new(Template { id, waba_id: waba_id.into(), definition, shape });
        of_account.retain(|old| !same(old, &template.definition.name, &template.definition.language));
        of_account.push(template.clone());
        Ok(template)
    }

    /// Adds the templates every account starts with.
    pub fn add_default_templates(&self, waba_id: &str) {
        for definition in template::defaults() {
            self.add_template(waba_id, definition).expect("the default templates are in order");
        }
    }

    pub(super) fn templates(&self, waba_id: &str) -> Vec<Arc<Template>> {
        read(&self.templates).get(waba_id).cloned().unwrap_or_default()
    }

    pub(super) fn template(&self, waba_id: &str, name: &str, language: &str) -> Option<Arc<Template>> {
        read(&self.templates).get(waba_id)?.iter().find(|template| same(template, name, language)).cloned()
    }

    /// In all languages, or the one with this id.
    pub(super) fn remove_templates(&self, waba_id: &str, name: &str, id: Option<&str>) -> bool {
        let mut templates = write(&self.templates);
        let Some(of_account) = templates.get_mut(waba_id) else { return false };
        let before = of_account.len();
        of_account.retain(|template| template.definition.name != name || id.is_some_and(|id| template.id != id));
        of_account.len() < before
    }

    pub(super) fn template_of_id(&self, id: &str) -> Option<Arc<Template>> {
        read(&self.templates).values().flatten().find(|template| template.id == id).cloned()
    }

    pub(super) fn number(&self, id: &str) -> Option<Arc<Number>> {
        read(&self.numbers).get(id).cloned()
    }

    pub(super) fn account(&self, platform: Platform, id: &str) -> Option<Arc<Account>> {
        read(&self.accounts).get(&(platform, id.to_owned())).cloned()
    }

    /// All accounts of a platform.
    pub(super) fn accounts_of(&self, platform: Platform) -> Vec<Arc<Account>> {
        read(&self.accounts).values().filter(|account| account.spec.platform == platform).cloned().collect()
    }

    /// Another token that may do the same, for one that is valid. None if it is not.
    pub(super) fn renew(&self, token: &str) -> Option<String> {
        let mut tokens = write(&self.tokens);
        let old = tokens.get(token).filter(|spec| spec.state == TokenState::Valid)?;
        let renewed = TokenSpec { token: format!("{token}-{}", tokens.len()), ..old.clone() };
        tokens.insert(renewed.token.clone(), renewed.clone());
        Some(renewed.token)
    }

    /// The state of a token that is registered.
    pub(super) fn token_state(&self, token: &str) -> Option<TokenState> {
        read(&self.tokens).get(token).map(|spec| spec.state)
    }

    pub(super) fn knows_account(&self, waba_id: &str) -> bool {
        read(&self.numbers).values().any(|number| number.spec.waba_id == waba_id)
    }

    /// Counts a management call and says how many there were in this hour.
    pub(super) fn count_management_call(&self, waba_id: &str, hour: u64) -> u32 {
        let mut calls = self.management_calls.lock().unwrap_or_else(PoisonError::into_inner);
        let counted = calls.entry(waba_id.into()).or_default();
        *counted = if counted.0 == hour { (hour, counted.1 + 1) } else { (hour, 1) };
        counted.1
    }

    /// Whether the token may act for this business account.
    pub(super) fn authorize(&self, token: Option<&str>, waba_id: Option<&str>) -> Result<(), Refusal> {
        let Some(token) = token else { return Err(Refusal::new(104, "An access token is required.")) };
        let tokens = read(&self.tokens);
        let Some(spec) = tokens.get(token) else { return Err(Refusal::new(190, "").with_subcode(467)) };
        match spec.state {
            TokenState::Valid => {}
            TokenState::Expired => return Err(Refusal::new(190, "").with_subcode(463)),
            TokenState::Invalidated => return Err(Refusal::new(190, "").with_subcode(460)),
            TokenState::Revoked => return Err(Refusal::new(0, "")),
            TokenState::NoPermission => return Err(Refusal::new(10, "")),
        }
        match waba_id {
            Some(waba) if !spec.waba_ids.is_empty() && !spec.waba_ids.iter().any(|id| id == waba) => {
                Err(Refusal::new(200, ""))
            }
            _ => Ok(()),
        }
    }
}

impl Number {
    /// How the provider behaves towards it.
    pub(super) fn behaviour(&self, general: Arc<Behaviour>) -> Arc<Behaviour> {
        let (own, limit) = {
            let live = self.live();
            (live.behaviour.clone(), live.limit)
        };
        let behaviour = own.unwrap_or(general);
        match limit {
            None => behaviour,
            Some(_) => {
                Arc::new(Behaviour { throughput_per_second: limit, throughput_burst: None, ..(*behaviour).clone() })
            }
        }
    }

    pub(super) fn live(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AccountState {
    /// The refusal every send meets in this state.
    pub(super) fn refusal(self) -> Option<Refusal> {
        let (code, details) = match self {
            Self::Connected => return None,
            Self::Restricted => (368, "The account is restricted from messaging."),
            Self::Locked => (131_031, "The account has been locked."),
            Self::Unpaid => (131_042, "There is a problem with the payment method."),
            Self::NameNotApproved => (131_037, "The display name is not approved yet."),
            Self::SpamLimited => {
                (131_048, "Message failed to send because of restrictions on how many messages may be sent.")
            }
            Self::NotRegistered => (133_010, "The phone number is not registered."),
            Self::Maintenance => (131_057, "The account is in maintenance mode."),
            Self::Deleted => (33, "The phone number has been deleted."),
        };
        Some(Refusal::new(code, details))
    }
}

fn same(template: &Template, name: &str, language: &str) -> bool {
    template.definition.name == name && template.definition.language == language
}

fn north_america() -> String {
    "1".into()
}

fn read<T>(lock: &RwLock<T>) -> std::sync::RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> std::sync::RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}
