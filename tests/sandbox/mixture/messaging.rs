//! Messenger's and Instagram's part of a mixture.

use super::super::{
    instagram,
    ledger::Told,
    messaging::Moment,
    messenger,
    platform::{AccountSpec, Platform},
    sign,
    webhooks::{InboundWebhook, Parcel},
};
use super::{Flaw, Generator, Tick, Which};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

/// Recipient and id of a known message.
pub(super) fn known(account: &AccountSpec, seed: u64, person: u32, nth: u64) -> (String, String) {
    (person_id(account, seed, person), message_id(account.platform, "known", seed, nth))
}

/// Page-scoped and Instagram-scoped ids: another one for each account.
fn person_id(account: &AccountSpec, seed: u64, person: u32) -> String {
    let of_account = account.id.bytes().fold(seed, |sum, byte| super::mix(sum ^ u64::from(byte)));
    match account.platform {
        Platform::Messenger => format!("24{:015}", of_account % 1_000_000_000 * 1_000_000 + u64::from(person)),
        _ => format!("98{:013}", of_account % 10_000_000 * 1_000_000 + u64::from(person)),
    }
}

fn message_id(platform: Platform, what: &str, seed: u64, nth: u64) -> String {
    let plain = format!("{what}-{seed:08x}-{nth:016x}");
    match platform {
        Platform::Messenger => format!("m_{}", URL_SAFE_NO_PAD.encode(plain)),
        // These are long (instagram contract page, section 1).
        _ => format!("aWdfZAG1faXRlbToxOk{}", URL_SAFE_NO_PAD.encode(format!("{plain}:{}", "0".repeat(90)))),
    }
}

pub(super) fn webhook(generator: &mut Generator, at: usize, receipts: bool) -> InboundWebhook {
    let Which::Other(account) = &generator.accounts[at].which else { unreachable!("it is an account's turn") };
    let account = account.clone();
    let made = match account.platform {
        Platform::Messenger => of(generator, at, &account, receipts, &MESSENGER, messenger::webhook),
        _ => of(generator, at, &account, receipts, &INSTAGRAM, instagram::webhook),
    };
    let secret = account.secret.as_deref().unwrap_or_default();
    InboundWebhook {
        platform: account.platform,
        parcel: Parcel::json(sign::emit(&made.payload, false), secret),
        account: account.id,
        fallback: None,
        flaw: Flaw::None,
        told: made.told,
        statuses: made.statuses,
        at_ms: made.at_ms,
        deeds: vec![],
    }
}

struct Made {
    payload: serde_json::Value,
    told: Vec<Told>,
    statuses: usize,
    at_ms: i64,
}

/// What a platform's kinds are to a mixture.
struct Platforms<K: 'static> {
    all: &'static [K],
    receipts: &'static [K],
    text: K,
    says: fn(K) -> Says,
    name: fn(K) -> &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Says {
    /// A message of the person's, with or without a text that comes as it was written.
    Message {
        carries_text: bool,
    },
    /// A message of the account's.
    Echo,
    Edit,
    TakesBack,
    /// About the last message of either side.
    AboutLast,
    /// About a message that was sent.
    Receipt,
    /// Nothing of this; alone in its webhook.
    News,
}

fn of<K: Copy + PartialEq>(
    generator: &mut Generator,
    at: usize,
    account: &AccountSpec,
    receipts: bool,
    kinds: &Platforms<K>,
    webhook: fn(&[(K, Moment<'_>)]) -> serde_json::Value,
) -> Made {
    /// What a moment borrows.
    struct Happening<K> {
        kind: K,
        person: String,
        id: String,
        about: String,
        text: String,
        nth_edit: u32,
        tick: Tick,
        watermark_ms: i64,
    }
    let mut happenings = Vec::new();
    let mut told = Vec::new();
    let mut statuses = 0;
    let count = generator.batch();
    for _ in 0..count {
        let known = generator.any_known_of(at, receipts);
        let index = known.as_ref().map_or_else(|| generator.person(), |known| known.person);
        let kind = if receipts { *generator.roll.pick(kinds.receipts) } else { generator.kind(kinds.all) };
        let tick = generator.tick();
        let id = message_id(account.platform, "msg", generator.mixture.seed, tick.nth);
        let text = generator.text(tick);
        let mut nth_edit = 1;
        let mut kind = kind;
        let mut says = (kinds.says)(kind);
        if says == Says::News && count > 1 {
            (kind, says) = (kinds.text, (kinds.says)(kinds.text));
        }
        let thread_last = generator.thread(at, index).last();
        let about = match says {
            Says::Edit => generator.thread(at, index).edit().map(|(id, edits)| {
                nth_edit = edits;
                id
            }),
            Says::TakesBack => generator.thread(at, index).take_back(),
            Says::AboutLast => thread_last.or_else(|| generator.known_to(at, index).map(|known| known.id)),
            Says::Receipt => known.clone().or_else(|| generator.known_to(at, index)).map(|known| known.id),
            Says::Message { .. } => thread_last.or_else(|| Some(message_id(account.platform, "older", 0, 0))),
            Says::Echo | Says::News => Some(String::new()),
        };
        let about = about.unwrap_or_else(|| {
            (kind, says) = (kinds.text, (kinds.says)(kinds.text));
            String::new()
        });
        match says {
            Says::Message { carries_text } => {
                generator.thread(at, index).said(&id, kind == kinds.text);
                told.push(Told {
                    platform: account.platform,
                    id: id.as_str().into(),
                    kind: (kinds.name)(kind),
                    person: person_id(account, generator.mixture.seed, index).into(),
                    text: carries_text.then(|| text.as_str().into()),
                    garbled: false,
                    timestamp: tick.at_ms / 1_000,
                });
            }
            Says::Echo => generator.thread(at, index).echoed(&id),
            Says::Receipt => statuses += 1,
            _ => {}
        }
        let person = person_id(account, generator.mixture.seed, index);
        // Somewhat after what it is about.
        let watermark_ms = known.map_or(tick.at_ms - 1_000, |known| known.sent_at_ms + 1_500);
        happenings.push(Happening { kind, person, id, about, text, nth_edit, tick, watermark_ms });
    }
    let moments: Vec<(K, Moment<'_>)> = happenings
        .iter()
        .map(|happening| {
            let moment = Moment {
                account,
                person: &happening.person,
                id: &happening.id,
                about: &happening.about,
                text: &happening.text,
                nth_edit: happening.nth_edit,
                at_ms: happening.tick.at_ms,
                watermark_ms: happening.watermark_ms,
            };
            (happening.kind, moment)
        })
        .collect();
    let at_ms = happenings.last().map_or(0, |happening| happening.tick.at_ms);
    Made { payload: webhook(&moments), told, statuses, at_ms }
}

const MESSENGER: Platforms<messenger::Kind> = Platforms {
    all: messenger::Kind::ALL,
    receipts: &[messenger::Kind::Delivery, messenger::Kind::BareDelivery, messenger::Kind::Read],
    text: messenger::Kind::Text,
    says: |kind| {
        use messenger::Kind::*;
        match kind {
            kind if kind.is_message() => Says::Message { carries_text: kind.carries_text() },
            Echo | EchoOfOthers | EchoOfInbox | EchoOfFile | EchoOfTemplate => Says::Echo,
            Edit => Says::Edit,
            Deleted => Says::TakesBack,
            Reaction | ReactionRemoved | ResponseFeedback => Says::AboutLast,
            kind if kind.is_status() => Says::Receipt,
            _ => Says::News,
        }
    },
    name: messenger::Kind::name,
};

const INSTAGRAM: Platforms<instagram::Kind> = Platforms {
    all: instagram::Kind::ALL,
    receipts: &[instagram::Kind::Read],
    text: instagram::Kind::Text,
    says: |kind| {
        use instagram::Kind::*;
        match kind {
            kind if kind.is_message() => Says::Message { carries_text: kind.carries_text() },
            Echo | EchoOfApp => Says::Echo,
            Edit => Says::Edit,
            Deleted => Says::TakesBack,
            Reaction | ReactionRemoved => Says::AboutLast,
            kind if kind.is_status() => Says::Receipt,
            _ => Says::News,
        }
    },
    name: instagram::Kind::name,
};
