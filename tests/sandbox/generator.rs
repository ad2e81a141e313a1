//! Inbound webhooks of every documented kind, made from a seed: the same seed gives the same bytes. Mixes in what
//! happens in the field: batches, repetitions, wrong order, forged signatures, JSON that stops in the middle, texts that
//! cannot be stored, elements of the wrong type among good ones, and very large bodies.

use super::{
    account,
    dice::Roll,
    inbound::{self, Event},
    ledger::{Flaw, Told},
    people::{Kind, Person},
    platform::Platform,
    registry::NumberSpec,
    sign::{self, LONE_SURROGATE},
    webhooks::{Deed, InboundWebhook, Parcel},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// What to make. Rates are shares of the webhooks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Mix {
    /// The same seed makes the same webhooks (ids included: they repeat those of an earlier run).
    pub seed: u64,
    /// How many webhooks, repetitions and forged ones included.
    pub webhooks: usize,
    /// How many people write.
    pub people: u32,
    /// Kinds and their weights; empty for half texts and the rest evenly over all others.
    pub kinds: Vec<(Kind, u32)>,
    /// Webhooks that are sent a second time.
    pub repeat_rate: f64,
    /// Webhooks signed with another secret.
    pub forge_rate: f64,
    /// Webhooks whose JSON stops in the middle.
    pub truncate_rate: f64,
    /// Webhooks with a NUL, a lone surrogate or a wrong type among good elements.
    pub garble_rate: f64,
    /// Webhooks with several messages …
    pub batch_rate: f64,
    /// … at most this many.
    pub batch_most: usize,
    /// Webhooks of about `big_bytes`.
    pub big_rate: f64,
    /// See `big_rate`; the provider's limit is 3 MB.
    pub big_bytes: usize,
    /// How far a webhook may be overtaken by later ones.
    pub reorder_span: usize,
    /// Unix seconds of the last message.
    pub ends: i64,
    /// Seconds over which the messages are spread, ending at `ends`.
    pub spread_s: i64,
}

impl Default for Mix {
    fn default() -> Self {
        Self {
            seed: 1,
            webhooks: 2_000,
            people: 200,
            kinds: Vec::new(),
            repeat_rate: 0.05,
            forge_rate: 0.01,
            truncate_rate: 0.002,
            garble_rate: 0.01,
            batch_rate: 0.05,
            batch_most: 10,
            big_rate: 0.0,
            big_bytes: 2_900_000,
            reorder_span: 8,
            ends: 1_794_830_400,
            spread_s: 600,
        }
    }
}

impl Mix {
    /// Nothing but texts, one each, nothing wrong: for measuring.
    pub fn plain(seed: u64, webhooks: usize, people: u32) -> Self {
        Self {
            seed,
            webhooks,
            people,
            kinds: vec![(Kind::Text, 1)],
            repeat_rate: 0.0,
            forge_rate: 0.0,
            truncate_rate: 0.0,
            garble_rate: 0.0,
            batch_rate: 0.0,
            reorder_span: 0,
            ..Self::default()
        }
    }
}

/// Makes the webhooks of a mix one after the other.
pub struct Generator {
    mix: Mix,
    numbers: Vec<(NumberSpec, String)>,
    kinds: Vec<(Kind, u32)>,
    roll: Roll,
    made: usize,
    messages: u64,
    /// Made and not handed out yet.
    waiting: Vec<InboundWebhook>,
}

impl Generator {
    /// For these numbers, each with the secret that signs its webhooks.
    ///
    /// # Panics
    /// If there is no number or nobody to write.
    pub fn new(mix: Mix, numbers: Vec<(NumberSpec, String)>) -> Self {
        assert!(!numbers.is_empty() && mix.people > 0, "somebody must write to some number");
        let kinds = if mix.kinds.is_empty() { documented_mix() } else { mix.kinds.clone() };
        Self { roll: Roll::new(mix.seed), mix, numbers, kinds, made: 0, messages: 0, waiting: Vec::new() }
    }

    fn make(&mut self) -> InboundWebhook {
        let (number, secret) = self.numbers[self.made % self.numbers.len()].clone();
        let kind = self.kind();
        if !kind.is_message() {
            return self.news(kind, &number, &secret);
        }
        let big = self.roll.chance(self.mix.big_rate);
        let garbled = !big && self.roll.chance(self.mix.garble_rate);
        let batch = if garbled {
            4
        } else if self.roll.chance(self.mix.batch_rate) {
            self.roll.between(2, self.mix.batch_most.max(2) as u64) as usize
        } else {
            1
        };
        let filler = if big { "x".repeat(self.mix.big_bytes.saturating_sub(1_000) / batch) } else { String::new() };
        let (mut messages, mut contacts, mut told, mut deeds) = (vec![], vec![], vec![], vec![]);
        for at in 0..batch {
            let kind = if big {
                Kind::Text
            } else if at == 0 {
                kind
            } else {
                self.message_kind()
            };
            let (id, about) = (self.next_id(), inbound_id(self.mix.seed, self.messages / 2));
            let person = self.person();
            let timestamp = self.timestamp();
            let mut text =
                format!("#{}-{} {}", self.mix.seed, self.messages, PHRASES[self.messages as usize % PHRASES.len()]);
            text.push_str(&filler);
            // The first two of a garbled batch hold what cannot be stored.
            let harm = garbled && at < 2;
            let kind = if harm { Kind::Text } else { kind };
            if harm {
                text.push(if at == 0 { '\0' } else { LONE_SURROGATE });
            }
            let event = Event { kind, person: &person, id: &id, about: &about, text: &text, timestamp };
            messages.push(inbound::message(&event, &number));
            if inbound::has_contact(kind) {
                contacts.push(inbound::contact(&person));
            }
            told.push(Told {
                platform: Platform::Whatsapp,
                id: id.into(),
                kind: kind.name(),
                person: person.key().into(),
                text: (kind.carries_text() && !harm).then(|| text.into()),
                garbled: harm,
                timestamp,
            });
            deeds.push(Deed { person, kind, timestamp });
        }
        if garbled {
            // Wrong types among good siblings: no element of their own can come of them.
            messages.insert(1, json!("not an object"));
            messages.push(json!({"id": 5, "type": ["text"], "timestamp": {}}));
            contacts.push(Value::Null);
        }
        contacts.dedup();
        let payload = self.envelope(&number, contacts, messages);
        seal(&number, &secret, &payload, told, deeds)
    }

    /// Batches come as one array, or as several changes.
    fn envelope(&mut self, number: &NumberSpec, contacts: Vec<Value>, messages: Vec<Value>) -> Value {
        let changes = if messages.len() > 1 && self.roll.chance(0.3) {
            let all =
                |message| inbound::change(number, vec![("contacts", contacts.clone()), ("messages", vec![message])]);
            messages.into_iter().map(all).collect()
        } else {
            vec![inbound::change(number, vec![("contacts", contacts), ("messages", messages)])]
        };
        inbound::envelope(&number.waba_id, changes)
    }

    fn news(&mut self, kind: Kind, number: &NumberSpec, secret: &str) -> InboundWebhook {
        let (id, person, timestamp) = (self.next_id(), self.person(), self.timestamp());
        let about = STANDARD.encode(format!("SBX-STRAY-{id}"));
        let about = format!("wamid.{about}");
        let event = Event { kind, person: &person, id: &id, about: &about, text: PHRASES[0], timestamp };
        let payload = account::webhook(&event, number);
        seal(number, secret, &payload, vec![], vec![Deed { person, kind, timestamp }])
    }

    fn kind(&mut self) -> Kind {
        let total: u64 = self.kinds.iter().map(|(_, weight)| u64::from(*weight)).sum();
        let mut drawn = self.roll.between(0, total.saturating_sub(1));
        for (kind, weight) in &self.kinds {
            if drawn < u64::from(*weight) {
                return *kind;
            }
            drawn -= u64::from(*weight);
        }
        Kind::Text
    }

    fn message_kind(&mut self) -> Kind {
        // Bounded: a mix without messages gives texts.
        (0..50).map(|_| self.kind()).find(|kind| kind.is_message()).unwrap_or(Kind::Text)
    }

    fn person(&mut self) -> Person {
        Person::nth(self.mix.seed, self.roll.between(0, u64::from(self.mix.people) - 1) as u32)
    }

    fn next_id(&mut self) -> String {
        self.messages += 1;
        inbound_id(self.mix.seed, self.messages)
    }

    fn timestamp(&self) -> i64 {
        let left = self.mix.webhooks.saturating_sub(self.made) as i64;
        self.mix.ends - self.mix.spread_s * left / self.mix.webhooks.max(1) as i64
    }
}

impl Iterator for Generator {
    type Item = InboundWebhook;

    fn next(&mut self) -> Option<InboundWebhook> {
        while self.made < self.mix.webhooks && self.waiting.len() <= self.mix.reorder_span {
            let mut webhook = self.make();
            self.made += 1;
            if self.roll.chance(self.mix.forge_rate) {
                webhook.flaw = Flaw::Forged;
                webhook.parcel = Parcel::json(webhook.parcel.body, "not_the_app_secret");
            } else if self.roll.chance(self.mix.truncate_rate) {
                webhook.flaw = Flaw::Truncated;
                let secret = &self.numbers.iter().find(|(number, _)| number.id == webhook.account)?.1;
                webhook.parcel = cut(webhook.parcel, secret);
            } else if self.made < self.mix.webhooks && self.roll.chance(self.mix.repeat_rate) {
                self.made += 1;
                self.waiting.push(InboundWebhook { flaw: Flaw::Repeated, ..webhook.clone() });
            }
            self.waiting.push(webhook);
        }
        if self.waiting.is_empty() {
            return None;
        }
        let farthest = self.mix.reorder_span.min(self.waiting.len() - 1) as u64;
        let taken = self.roll.between(0, farthest) as usize;
        Some(self.waiting.remove(taken))
    }
}

/// Half texts, the rest evenly.
fn documented_mix() -> Vec<(Kind, u32)> {
    let others = Kind::ALL.len() as u32 - 1;
    Kind::ALL.into_iter().map(|kind| (kind, if kind == Kind::Text { others } else { 1 })).collect()
}

/// The id of the n-th message of a seed.
fn inbound_id(seed: u64, n: u64) -> String {
    format!("wamid.{}", STANDARD.encode(format!("SBX-IN-{seed:08x}-G{n:010}")))
}

/// Whether the sandbox made this id for a message of a person.
pub(super) fn is_inbound_id(id: &str) -> bool {
    id.strip_prefix("wamid.").and_then(|rest| STANDARD.decode(rest).ok()).is_some_and(|id| id.starts_with(b"SBX-IN-"))
}

fn seal(number: &NumberSpec, secret: &str, payload: &Value, told: Vec<Told>, deeds: Vec<Deed>) -> InboundWebhook {
    InboundWebhook {
        platform: Platform::Whatsapp,
        account: number.id.clone(),
        parcel: Parcel::json(sign::emit(payload, false), secret),
        fallback: None,
        flaw: Flaw::None,
        told,
        statuses: 0,
        at_ms: deeds.last().map_or(0, |deed| deed.timestamp * 1_000),
        deeds,
    }
}

/// Rightly signed, but it stops in the middle.
fn cut(parcel: Parcel, secret: &str) -> Parcel {
    let half = parcel.body.slice(..parcel.body.len() * 2 / 3);
    Parcel::json(half, secret)
}

pub(super) const PHRASES: [&str; 10] = [
    "Is the blue one back in stock?",
    "Where is my parcel?",
    "Danke schön, das passt!",
    "¿Abren mañana?",
    "请问几点开门？",
    "Merci beaucoup 👍",
    "My order 1142 came without the lid, can you send one? I would rather not return the whole thing.",
    "ok",
    "هل لديكم مقاس أكبر؟",
    "See https://shop.example/t/77 \"the red one\"",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::Config;
    use std::collections::HashSet;

    fn generate(mix: Mix) -> Vec<InboundWebhook> {
        let number = Config::default().numbers.remove(0);
        Generator::new(mix, vec![(number, "secret".into())]).collect()
    }

    #[test]
    fn same_seed_makes_the_same_bytes() {
        let bodies = |seed| {
            generate(Mix { seed, webhooks: 300, ..Mix::default() })
                .into_iter()
                .map(|w| w.parcel.body)
                .collect::<Vec<_>>()
        };
        assert_eq!(bodies(1), bodies(1));
        assert_ne!(bodies(1), bodies(2));
    }

    #[test]
    fn every_kind_and_every_flaw_occurs_in_two_thousand() {
        let webhooks = generate(Mix::default());
        assert_eq!(webhooks.len(), 2_000);
        let kinds: HashSet<Kind> = webhooks.iter().flat_map(|w| &w.deeds).map(|deed| deed.kind).collect();
        assert_eq!(kinds.len(), Kind::ALL.len());
        let flaws: HashSet<Flaw> = webhooks.iter().map(|w| w.flaw).collect();
        assert_eq!(flaws.len(), 4);
        assert!(webhooks.iter().flat_map(|w| &w.told).any(|told| told.garbled));
    }

    #[test]
    fn whole_webhooks_are_ascii_json_and_signed() {
        for webhook in generate(Mix { garble_rate: 0.0, ..Mix::default() }) {
            assert!(webhook.parcel.body.is_ascii());
            let parsed = serde_json::from_slice::<Value>(&webhook.parcel.body);
            assert_eq!(parsed.is_err(), webhook.flaw == Flaw::Truncated);
            let right = webhook.parcel.signature == sign::signature("secret", &webhook.parcel.body);
            assert_eq!(right, webhook.flaw != Flaw::Forged);
        }
    }

    #[test]
    fn ids_are_unique_but_for_repetitions() {
        let webhooks = generate(Mix::default());
        let mut seen = HashSet::new();
        for told in webhooks.iter().filter(|w| w.flaw != Flaw::Repeated).flat_map(|w| &w.told) {
            assert!(seen.insert(told.id.clone()));
            assert!(is_inbound_id(&told.id));
        }
    }

    #[test]
    fn big_bodies_stay_under_the_providers_limit() {
        let webhooks = generate(Mix { big_rate: 1.0, ..Mix::plain(1, 3, 2) });
        assert!(webhooks.iter().all(|w| (2_800_000..3_000_000).contains(&w.parcel.body.len())));
    }
}
