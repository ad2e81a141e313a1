//! What really happened, written down before it is answered: the judge of every test and rehearsal.
//! An accepted send stands here even if its connection is then cut; what was refused is never counted as accepted.
//! It grows with the traffic (about 400 bytes a send) until it is cleared.

mod entry;
mod summary;

pub use entry::{
    Answer, Attempt, Category, Delivery, Direction, Flaw, Reply, SendEntry, Told, Trail, Verdict, WebhookEntry,
};
pub use summary::{
    Doubled, InboundTotals, NumberTotals, PersonTotals, ProviderTotals, StatusTotals, Summary, WebhookTotals,
};

use super::{behaviour::Status, clock::Clock, platform::Api};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use sha2::{Digest, Sha256};
use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering},
};

/// Every request and every webhook, in the order they were recorded.
#[derive(Debug)]
pub struct Ledger {
    clock: Clock,
    /// Keeps ids of one run apart from those of another.
    run: u32,
    sends: Mutex<Pages<SendEntry>>,
    webhooks: Mutex<Pages<WebhookEntry>>,
    accepted: AtomicU64,
    longest_stall_us: AtomicU64,
    cut_short: AtomicU64,
}

/// Entries whose numbers go on after the ledger was cleared.
#[derive(Debug)]
struct Pages<T> {
    first: u64,
    entries: Vec<T>,
}

/// What is known of a send when its fate is decided.
#[derive(Debug)]
pub(super) struct Draft<'a> {
    pub(super) at_us: u64,
    pub(super) provider: Api,
    pub(super) account: Arc<str>,
    pub(super) units: u32,
    pub(super) recipient: &'a str,
    pub(super) kind: &'static str,
    pub(super) body: &'a [u8],
    pub(super) opaque: Option<&'a str>,
    pub(super) text: Option<&'a str>,
    pub(super) answer: Answer,
}

/// What accepting adds to a draft.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Acceptance {
    pub(super) category: Category,
    pub(super) free_entry: bool,
}

impl Ledger {
    pub(super) fn new(clock: Clock) -> Self {
        Self {
            run: (clock.wall(0).timestamp_micros() as u64 >> 4) as u32,
            clock,
            sends: Mutex::new(Pages::new()),
            webhooks: Mutex::new(Pages::new()),
            accepted: AtomicU64::new(0),
            longest_stall_us: AtomicU64::new(0),
            cut_short: AtomicU64::new(0),
        }
    }

    /// Sends from `first` on, at most `most` of them.
    pub fn sends_from(&self, first: u64, most: usize) -> Vec<SendEntry> {
        lock(&self.sends).from(first, most)
    }

    /// Sends to one recipient (see [`SendEntry::recipient`]), oldest first.
    pub fn sends_to(&self, recipient: &str) -> Vec<SendEntry> {
        lock(&self.sends).entries.iter().filter(|entry| *entry.recipient == *recipient).cloned().collect()
    }

    /// All accepted sends.
    pub fn accepted(&self) -> Vec<SendEntry> {
        lock(&self.sends).entries.iter().filter(|entry| entry.wamid().is_some()).cloned().collect()
    }

    /// Webhooks from `first` on, at most `most` of them.
    pub fn webhooks_from(&self, first: u64, most: usize) -> Vec<WebhookEntry> {
        lock(&self.webhooks).from(first, most)
    }

    /// The messages of people that the receiver has acknowledged, each id once.
    pub fn told(&self) -> Vec<Told> {
        summary::told(&lock(&self.webhooks).entries)
    }

    /// Messages accepted more than once, by the message that the caller's token names.
    pub fn doubled(&self) -> Vec<Doubled> {
        summary::doubled(&lock(&self.sends).entries)
    }

    /// Texts accepted more than once for the same recipient: only telling if each text carries a unique marker.
    pub fn doubled_texts(&self) -> Vec<Doubled> {
        summary::doubled_texts(&lock(&self.sends).entries)
    }

    /// Totals person by person, ordered by recipient.
    pub fn people(&self) -> Vec<PersonTotals> {
        summary::people(&lock(&self.sends).entries)
    }

    /// Requests and accepted messages so far, cheap enough to be asked all the time.
    pub fn counts(&self) -> (u64, u64) {
        (lock(&self.sends).entries.len() as u64, self.accepted.load(Ordering::Relaxed))
    }

    /// All totals. Holds up sends while it counts (half a second for a million): not for watching a run.
    pub fn summary(&self) -> Summary {
        let mut summary = summary::of_sends(&lock(&self.sends).entries);
        let webhooks = lock(&self.webhooks);
        summary::add_webhooks(&mut summary, &webhooks.entries);
        summary::add_busiest_seconds(&mut summary, &lock(&self.sends).entries, &webhooks.entries);
        summary.longest_stall_ms = self.longest_stall_us.load(Ordering::Relaxed) as f64 / 1000.0;
        summary.requests_cut_short = self.cut_short.load(Ordering::Relaxed);
        summary
    }

    /// Forgets everything. Ids already given out are not given out again.
    pub fn clear(&self) {
        lock(&self.sends).clear();
        lock(&self.webhooks).clear();
        self.accepted.store(0, Ordering::Relaxed);
        self.longest_stall_us.store(0, Ordering::Relaxed);
        self.cut_short.store(0, Ordering::Relaxed);
    }

    /// Records an accepted message and gives it its id.
    pub(super) fn accept(&self, draft: Draft<'_>, acceptance: Acceptance) -> (u64, Box<str>) {
        let digest = Sha256::digest(draft.body).into();
        let mut sends = lock(&self.sends);
        let seq = sends.next();
        let wamid: Box<str> = self.outgoing_id(draft.provider, draft.kind, seq).into();
        let mut entry = self.entry(seq, draft, digest, Verdict::Accepted { wamid: wamid.clone() });
        (entry.category, entry.free_entry) = (acceptance.category, acceptance.free_entry);
        sends.entries.push(entry);
        self.accepted.fetch_add(1, Ordering::Relaxed);
        (seq, wamid)
    }

    /// Records a request that did not become a message.
    pub(super) fn record(&self, draft: Draft<'_>, verdict: Verdict) {
        debug_assert!(!matches!(verdict, Verdict::Accepted { .. }), "accepted messages get their id from accept()");
        let digest = Sha256::digest(draft.body).into();
        let mut sends = lock(&self.sends);
        let entry = self.entry(sends.next(), draft, digest, verdict);
        sends.entries.push(entry);
    }

    pub(super) fn send(&self, seq: u64) -> Option<SendEntry> {
        lock(&self.sends).get(seq).cloned()
    }

    /// A status of this send is on its way out.
    pub(super) fn status_made(&self, seq: u64, status: Status, code: Option<u32>) {
        if let Some(entry) = lock(&self.sends).get(seq) {
            entry.statuses.made |= status.bit();
            entry.statuses.failed_code = code.or(entry.statuses.failed_code);
        }
    }

    /// Records a webhook before it goes out.
    pub(super) fn webhook(&self, mut entry: WebhookEntry) -> u64 {
        let mut webhooks = lock(&self.webhooks);
        entry.seq = webhooks.next();
        let seq = entry.seq;
        webhooks.entries.push(entry);
        seq
    }

    /// Records what the receiver answered, and, once that was 200, which statuses it has taken.
    pub(super) fn attempted(&self, seq: u64, attempt: Attempt, delivery: Delivery, statuses: &[(u64, Status)]) {
        let mut webhooks = lock(&self.webhooks);
        if let Some(entry) = webhooks.get(seq) {
            entry.attempts.push(attempt);
            entry.delivery = delivery;
        }
        drop(webhooks);
        if delivery == Delivery::Acknowledged && !statuses.is_empty() {
            let mut sends = lock(&self.sends);
            for (send, status) in statuses {
                if let Some(entry) = sends.get(*send) {
                    entry.statuses.taken |= status.bit();
                }
            }
        }
    }

    pub(super) fn stalled(&self, stall_us: u64) {
        self.longest_stall_us.fetch_max(stall_us, Ordering::Relaxed);
    }

    /// A request whose body never arrived whole: nobody can have processed it.
    pub(super) fn cut_short(&self) {
        self.cut_short.fetch_add(1, Ordering::Relaxed);
    }

    /// An id that no other run of the sandbox gives out. `direction` is `OUT` or `IN`.
    pub(super) fn wamid(&self, direction: &str, seq: u64) -> String {
        let mut wamid = String::with_capacity(48);
        wamid.push_str("wamid.");
        STANDARD.encode_string(format!("SBX-{direction}-{:08x}-{seq:010}", self.run), &mut wamid);
        wamid
    }

    /// The id of an accepted message in its provider's form.
    fn outgoing_id(&self, provider: Api, kind: &str, seq: u64) -> String {
        let run = self.run;
        match provider {
            Api::Whatsapp => self.wamid("OUT", seq),
            // They stand in paths.
            Api::Messenger => format!("m_{}", URL_SAFE_NO_PAD.encode(format!("SBX-OUT-{run:08x}-{seq:010}"))),
            // Instagram's are long (contract page, section 1).
            Api::Instagram => {
                URL_SAFE_NO_PAD.encode(format!("instagram-message:{:0>76}:SBX-OUT-{run:08x}-{seq:010}", run))
            }
            Api::Twilio => format!("{}{run:08x}{seq:024x}", if kind == "media" { "MM" } else { "SM" }),
            Api::Botmaster => format!("3EB0{run:08X}{seq:08X}"),
        }
    }

    fn entry(&self, seq: u64, draft: Draft<'_>, digest: [u8; 32], verdict: Verdict) -> SendEntry {
        SendEntry {
            seq,
            at_us: draft.at_us,
            at: self.clock.wall(draft.at_us),
            provider: draft.provider,
            phone_number_id: draft.account.clone(),
            account: draft.account,
            recipient: draft.recipient.into(),
            kind: draft.kind,
            units: draft.units,
            digest,
            opaque: draft.opaque.map(Into::into),
            text: draft.text.map(Into::into),
            verdict,
            answer: draft.answer,
            category: Category::default(),
            free_entry: false,
            statuses: Trail::default(),
        }
    }
}

impl<T: Clone> Pages<T> {
    fn new() -> Self {
        Self { first: 1, entries: Vec::new() }
    }

    fn next(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    fn get(&mut self, seq: u64) -> Option<&mut T> {
        self.entries.get_mut(seq.checked_sub(self.first)? as usize)
    }

    fn from(&self, first: u64, most: usize) -> Vec<T> {
        let skipped = first.saturating_sub(self.first) as usize;
        self.entries.iter().skip(skipped).take(most).cloned().collect()
    }

    fn clear(&mut self) {
        self.first = self.next();
        self.entries = Vec::new();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
