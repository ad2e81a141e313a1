//! Webhooks of all providers together, made from a seed: the same seed gives the same bytes, for as long as they are asked for.
//! They hang together as real ones do: who edits, takes back or reacts does so to a message of the thread, receipts are about
//! messages that were sent ([`Mixture::known_sends`]), and no two happenings have the same second unless the clock is told to be
//! that slow. What is wrong with some on purpose is as in [`super::generator`]: repeated, forged.

mod messaging;
mod thread;
mod twilio;
mod whatsapp;

use super::{
    dice::{Roll, mix},
    ledger::Flaw,
    platform::{AccountSpec, Platform},
    registry::NumberSpec,
    sign,
    webhooks::{InboundWebhook, Parcel},
};
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, VecDeque};
use thread::Thread;

/// What to make. Rates are shares of the webhooks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Mixture {
    /// The same seed makes the same webhooks (ids included).
    pub seed: u64,
    /// How many webhooks, repetitions and forged ones included; 0 for no end.
    pub webhooks: u64,
    /// How many people write to each account.
    pub people: u32,
    /// Messages each account had sent before: receipts are about these.
    pub known: u32,
    /// How much of each platform, of those that have an account.
    pub shares: Shares,
    /// Webhooks that are receipts of known messages.
    pub status_rate: f64,
    /// Messages that are nothing but texts, by share; the rest is every other kind, evenly.
    pub text_rate: f64,
    /// Webhooks that are sent a second time.
    pub repeat_rate: f64,
    /// Webhooks signed with another secret.
    pub forge_rate: f64,
    /// Webhooks with several happenings, where the provider gathers them …
    pub batch_rate: f64,
    /// … at most this many.
    pub batch_most: u32,
    /// How far a webhook may be overtaken by later ones.
    pub reorder_span: usize,
    /// People whose profile's name changes halfway, by share (WhatsApp, whose webhooks carry names and times).
    pub rename_rate: f64,
    /// Whether people change their numbers and user ids (WhatsApp).
    pub moves: bool,
    /// Unix milliseconds of the first happening.
    pub begins_ms: i64,
    /// From each happening to the next.
    pub step_ms: i64,
}

/// How much of each platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs, reason = "each is a platform")]
pub struct Shares {
    pub whatsapp: u32,
    pub messenger: u32,
    pub instagram: u32,
    pub twilio: u32,
}

/// Accounts that hear of things, each with its secret and, where it has one of its own, its URL.
#[derive(Debug, Clone, Default)]
pub struct Accounts {
    /// WhatsApp's numbers, with the secret that signs their webhooks.
    pub numbers: Vec<(NumberSpec, String)>,
    /// The others'. Twilio's must have their URL: it is part of the signature.
    pub others: Vec<AccountSpec>,
}

/// A message that an account had sent before the first webhook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownSend {
    /// Whose API carried it.
    pub platform: Platform,
    /// The account's id.
    pub account: String,
    /// To whom: `wa_id` digits or a user id, a scoped id, an address as Twilio writes it.
    pub recipient: String,
    /// The provider's id of it.
    pub id: String,
    /// What the provider gives back with receipts: WhatsApp's `biz_opaque_callback_data`, Twilio's query.
    pub opaque: Option<String>,
    /// When it was sent, in Unix milliseconds.
    pub sent_at_ms: i64,
    pub(super) person: u32,
}

/// Makes the webhooks of a mixture one after the other.
pub struct Generator {
    mixture: Mixture,
    accounts: Vec<Account>,
    /// Which account a share falls to.
    total_share: u64,
    roll: Roll,
    made: u64,
    happened: u64,
    /// WhatsApp's people who changed their ids: what they are now.
    moved: HashMap<u32, (String, String)>,
    /// Made and not handed out yet.
    waiting: VecDeque<InboundWebhook>,
}

/// An account and what has happened there.
struct Account {
    which: Which,
    share: u64,
    threads: HashMap<u32, Thread>,
    known: Vec<KnownSend>,
}

enum Which {
    Number(NumberSpec, String),
    Other(AccountSpec),
}

/// One happening's time and number.
#[derive(Debug, Clone, Copy)]
struct Tick {
    nth: u64,
    at_ms: i64,
}

impl Default for Mixture {
    fn default() -> Self {
        Self {
            seed: 1,
            webhooks: 2_000,
            people: 60,
            known: 120,
            shares: Shares::default(),
            status_rate: 0.3,
            text_rate: 0.4,
            repeat_rate: 0.05,
            forge_rate: 0.0,
            batch_rate: 0.1,
            batch_most: 5,
            reorder_span: 0,
            rename_rate: 0.1,
            moves: true,
            begins_ms: 1_794_830_400_000,
            step_ms: 1_000,
        }
    }
}

impl Default for Shares {
    fn default() -> Self {
        Self { whatsapp: 4, messenger: 2, instagram: 2, twilio: 2 }
    }
}

impl Shares {
    fn of(&self, platform: Platform) -> u32 {
        match platform {
            Platform::Whatsapp => self.whatsapp,
            Platform::Messenger => self.messenger,
            Platform::Instagram => self.instagram,
            Platform::Twilio => self.twilio,
        }
    }
}

impl Mixture {
    /// What each account had sent before: every message to one of the people, ten seconds apart, the last an hour before the
    /// first webhook.
    pub fn known_sends(&self, accounts: &Accounts) -> Vec<KnownSend> {
        Generator::new(self.clone(), accounts.clone()).accounts.into_iter().flat_map(|account| account.known).collect()
    }

    /// Whether this person has another name from halfway on.
    fn renames(&self, person: u32) -> bool {
        Roll::new(mix(self.seed ^ 0x6e61_6d65) ^ u64::from(person)).chance(self.rename_rate)
    }
}

impl Generator {
    /// For these accounts.
    ///
    /// # Panics
    /// If there is nobody to write, nowhere to write to, or a Twilio account has no URL.
    pub fn new(mixture: Mixture, accounts: Accounts) -> Self {
        assert!(mixture.people > 0, "somebody must write");
        let twilio = accounts.others.iter().filter(|account| account.platform == Platform::Twilio);
        assert!(twilio.into_iter().all(|account| account.webhook_url.is_some()), "a Twilio account must have its URL");
        let numbers = accounts.numbers.into_iter().map(|(number, secret)| Which::Number(number, secret));
        let all: Vec<Which> = numbers.chain(accounts.others.into_iter().map(Which::Other)).collect();
        let count = |platform| all.iter().filter(|which| which.platform() == platform).count() as u64;
        // A share is divided among the platform's accounts: in twelfths, so that up to four get the same.
        let share = |which: &Which| {
            let platform = which.platform();
            (u64::from(mixture.shares.of(platform)) * 12 / count(platform)).max(1)
        };
        let shares: Vec<u64> = all.iter().map(share).collect();
        let accounts: Vec<Account> = all
            .into_iter()
            .zip(shares)
            .enumerate()
            .map(|(at, (which, share))| Account {
                known: known(&mixture, &which, at as u64),
                which,
                share,
                threads: HashMap::new(),
            })
            .collect();
        let total_share = accounts.iter().map(|account| account.share).sum();
        assert!(total_share > 0, "there must be an account to write to");
        let roll = Roll::new(mixture.seed);
        Self {
            roll,
            mixture,
            accounts,
            total_share,
            made: 0,
            happened: 0,
            moved: HashMap::new(),
            waiting: VecDeque::new(),
        }
    }

    /// Gives known messages what the provider hands back with their receipts: `opaque[n]` belongs to the nth of
    /// [`Mixture::known_sends`].
    pub fn with_opaque(mut self, opaque: Vec<String>) -> Self {
        let known = self.accounts.iter_mut().flat_map(|account| &mut account.known);
        for (known, opaque) in known.zip(opaque) {
            known.opaque = Some(opaque);
        }
        self
    }

    fn make(&mut self) -> InboundWebhook {
        let mut drawn = self.roll.between(0, self.total_share - 1);
        let at = self
            .accounts
            .iter()
            .position(|account| {
                let here = drawn < account.share;
                drawn = drawn.saturating_sub(account.share);
                here
            })
            .unwrap_or_default();
        let receipts = self.roll.chance(self.mixture.status_rate) && !self.accounts[at].known.is_empty();
        match &self.accounts[at].which {
            Which::Number(..) => whatsapp::webhook(self, at, receipts),
            Which::Other(account) if account.platform == Platform::Twilio => twilio::webhook(self, at, receipts),
            Which::Other(_) => messaging::webhook(self, at, receipts),
        }
    }

    /// The next happening.
    fn tick(&mut self) -> Tick {
        self.happened += 1;
        Tick { nth: self.happened, at_ms: self.mixture.begins_ms + self.mixture.step_ms * self.happened as i64 }
    }

    fn person(&mut self) -> u32 {
        self.roll.between(0, u64::from(self.mixture.people) - 1) as u32
    }

    /// How many happenings a webhook has.
    fn batch(&mut self) -> u32 {
        if self.roll.chance(self.mixture.batch_rate) {
            self.roll.between(2, u64::from(self.mixture.batch_most.max(2))) as u32
        } else {
            1
        }
    }

    fn text(&self, tick: Tick) -> String {
        let phrases = super::generator::PHRASES;
        format!("#{}-{} {}", self.mixture.seed, tick.nth, phrases[tick.nth as usize % phrases.len()])
    }

    /// One of the messages that were sent to this person.
    fn known_to(&mut self, at: usize, person: u32) -> Option<KnownSend> {
        let known: Vec<&KnownSend> = self.accounts[at].known.iter().filter(|known| known.person == person).collect();
        (!known.is_empty()).then(|| (*self.roll.pick(&known)).clone())
    }

    /// One of the messages that were sent.
    fn any_known(&mut self, at: usize) -> KnownSend {
        self.roll.pick(&self.accounts[at].known).clone()
    }

    /// The same, if there is to be one.
    fn any_known_of(&mut self, at: usize, wanted: bool) -> Option<KnownSend> {
        wanted.then(|| self.any_known(at))
    }

    fn thread(&mut self, at: usize, person: u32) -> &mut Thread {
        self.accounts[at].threads.entry(person).or_default()
    }

    /// A kind: texts by their share, the rest evenly. Texts are the first.
    fn kind<K: Copy>(&mut self, kinds: &[K]) -> K {
        if self.roll.chance(self.mixture.text_rate) { kinds[0] } else { *self.roll.pick(kinds) }
    }
}

impl Iterator for Generator {
    type Item = InboundWebhook;

    fn next(&mut self) -> Option<InboundWebhook> {
        let most = if self.mixture.webhooks == 0 { u64::MAX } else { self.mixture.webhooks };
        while self.made < most && self.waiting.len() <= self.mixture.reorder_span {
            let mut webhook = self.make();
            self.made += 1;
            if self.roll.chance(self.mixture.forge_rate) {
                forge(&mut webhook);
            } else if self.made < most && self.roll.chance(self.mixture.repeat_rate) {
                self.made += 1;
                self.waiting.push_back(InboundWebhook { flaw: Flaw::Repeated, ..webhook.clone() });
            }
            self.waiting.push_back(webhook);
        }
        let farthest = self.mixture.reorder_span.min(self.waiting.len().checked_sub(1)?) as u64;
        let taken = self.roll.between(0, farthest) as usize;
        self.waiting.remove(taken)
    }
}

impl Which {
    fn platform(&self) -> Platform {
        match self {
            Self::Number(..) => Platform::Whatsapp,
            Self::Other(account) => account.platform,
        }
    }

    fn id(&self) -> &str {
        match self {
            Self::Number(number, _) => &number.id,
            Self::Other(account) => &account.id,
        }
    }
}

/// Signed with another secret.
fn forge(webhook: &mut InboundWebhook) {
    webhook.flaw = Flaw::Forged;
    let Parcel { url, body, signature, .. } = &mut webhook.parcel;
    *signature = match webhook.platform {
        Platform::Twilio => super::twilio::sign::url("not_the_auth_token", url.as_deref().unwrap_or_default()),
        _ => sign::signature("not_the_app_secret", body),
    };
}

fn known(mixture: &Mixture, which: &Which, at: u64) -> Vec<KnownSend> {
    let (platform, account) = (which.platform(), which.id().to_owned());
    let one = |n: u32| {
        let person = n % mixture.people;
        let nth = at << 32 | u64::from(n);
        let (recipient, id) = match which {
            Which::Number(..) => whatsapp::known(mixture.seed, person, nth),
            Which::Other(account) if platform == Platform::Twilio => twilio::known(account, mixture.seed, person, nth),
            Which::Other(account) => messaging::known(account, mixture.seed, person, nth),
        };
        let sent_at_ms = mixture.begins_ms - 3_600_000 - 10_000 * i64::from(mixture.known - n);
        KnownSend { platform, account: account.clone(), recipient, id, opaque: None, sent_at_ms, person }
    };
    (0..mixture.known).map(one).collect()
}

#[cfg(test)]
mod tests;
