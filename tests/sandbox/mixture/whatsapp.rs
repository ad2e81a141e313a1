//! WhatsApp's part of a mixture: the payloads are those of `inbound` and `account`.

use super::super::{
    account,
    inbound::{self, Event},
    ledger::Told,
    people::{Kind, Person, user_id_of},
    platform::Platform,
    registry::NumberSpec,
    sign,
    webhooks::{Deed, InboundWebhook, Parcel},
};
use super::{Flaw, Generator, KnownSend, Tick, Which};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

/// Receipts in the order in which they happen.
const COURSE: [&str; 3] = ["sent", "delivered", "read"];
/// One in so many known messages fails after it was sent, and one in so many after it was delivered.
const FAILS: u64 = 17;

/// Recipient and id of a known message.
pub(super) fn known(seed: u64, person: u32, nth: u64) -> (String, String) {
    let id = STANDARD.encode(format!("SBX-KNOWN-{seed:08x}-{nth:016x}"));
    (Person::nth(seed, person).key().to_owned(), format!("wamid.{id}"))
}

pub(super) fn webhook(generator: &mut Generator, at: usize, receipts: bool) -> InboundWebhook {
    let Which::Number(number, secret) = &generator.accounts[at].which else { unreachable!("it is a number's turn") };
    let (number, secret) = (number.clone(), secret.clone());
    let made = if receipts { statuses(generator, at, &number) } else { happenings(generator, at, &number) };
    InboundWebhook {
        platform: Platform::Whatsapp,
        account: number.id,
        parcel: Parcel::json(sign::emit(&made.payload, false), &secret),
        fallback: None,
        flaw: Flaw::None,
        told: made.told,
        statuses: made.statuses,
        at_ms: made.at_ms,
        deeds: made.deeds,
    }
}

struct Made {
    payload: Value,
    told: Vec<Told>,
    deeds: Vec<Deed>,
    statuses: usize,
    at_ms: i64,
}

fn statuses(generator: &mut Generator, at: usize, number: &NumberSpec) -> Made {
    let count = generator.batch();
    let (mut statuses, mut at_ms) = (Vec::new(), 0);
    for _ in 0..count {
        // Time passes, though each receipt has its own.
        at_ms = generator.tick().at_ms;
        let known = generator.any_known(at);
        let drawn = generator.roll.between(0, 3) as usize;
        statuses.push(status(&known, drawn, generator.mixture.seed));
    }
    let payload = inbound::envelope(&number.waba_id, vec![inbound::change(number, vec![("statuses", statuses)])]);
    Made { payload, told: vec![], deeds: vec![], statuses: count as usize, at_ms }
}

/// The same receipt has the same time whenever it is told.
fn status(known: &KnownSend, drawn: usize, seed: u64) -> Value {
    let fate = super::mix(seed ^ super::mix(known.sent_at_ms as u64));
    // Some fail after they left, some after the phone had them.
    let fails_after = match fate % FAILS {
        0 => Some(1),
        1 => Some(2),
        _ => None,
    };
    let (name, order) = match fails_after {
        Some(after) if drawn >= after => ("failed", 3),
        _ => (COURSE[drawn.min(2)], drawn.min(2)),
    };
    let happened = known.sent_at_ms / 1_000 + 1 + 20 * order as i64;
    let mut status = json!({"id": known.id, "status": name, "timestamp": happened.to_string()});
    if known.recipient.bytes().all(|byte| byte.is_ascii_digit()) {
        status["recipient_id"] = json!(known.recipient);
        status["recipient_user_id"] = json!(user_id_of(&known.recipient));
    } else {
        status["recipient_user_id"] = json!(known.recipient);
    }
    if let Some(opaque) = &known.opaque {
        status["biz_opaque_callback_data"] = json!(opaque);
    }
    match name {
        "failed" => status["errors"] = json!([inbound::error(131_026, "Message undeliverable.")]),
        _ => {
            status["pricing"] = json!({"billable": false, "pricing_model": "PMP", "type": "free_customer_service", "category": "service"});
        }
    }
    status
}

fn happenings(generator: &mut Generator, at: usize, number: &NumberSpec) -> Made {
    let (mut messages, mut contacts, mut told, mut deeds) = (vec![], vec![], vec![], vec![]);
    let count = generator.batch();
    let mut at_ms = 0;
    for nth in 0..count {
        let index = generator.person();
        let mut kind = if count == 1 { generator.kind(&Kind::ALL) } else { generator.kind(messages_alone()) };
        let moves = matches!(kind, Kind::NumberChanged | Kind::UserIdChanged);
        // Nobody moves twice.
        if moves && (!generator.mixture.moves || generator.moved.contains_key(&index)) {
            kind = Kind::Text;
        }
        let tick = generator.tick();
        at_ms = tick.at_ms;
        let person = person(generator, index, tick);
        let id =
            format!("wamid.{}", STANDARD.encode(format!("SBX-IN-{:08x}-M{:010}", generator.mixture.seed, tick.nth)));
        let (kind, about) = refer(generator, at, index, kind, tick);
        let text = generator.text(tick);
        let timestamp = tick.at_ms / 1_000;
        match kind {
            // As the payload says it.
            Kind::NumberChanged => {
                generator.moved.insert(index, (format!("{}7", person.wa_id), format!("{}7", person.user_id)));
            }
            Kind::UserIdChanged => {
                generator.moved.insert(index, (person.wa_id.clone(), format!("{}8", person.user_id)));
            }
            _ => {}
        }
        let event = Event { kind, person: &person, id: &id, about: &about, text: &text, timestamp };
        deeds.push(Deed { person: person.clone(), kind, timestamp });
        if !kind.is_message() {
            debug_assert_eq!((nth, count), (0, 1), "news fills a webhook of its own");
            return Made { payload: account::webhook(&event, number), told, deeds, statuses: 0, at_ms };
        }
        messages.push(inbound::message(&event, number));
        if inbound::has_contact(kind) {
            contacts.push(inbound::contact(&person));
        }
        generator.thread(at, index).said(&id, kind == Kind::Text);
        told.push(Told {
            platform: Platform::Whatsapp,
            id: id.into(),
            kind: kind.name(),
            person: person.key().into(),
            text: kind.carries_text().then(|| text.into()),
            garbled: false,
            timestamp,
        });
    }
    contacts.dedup();
    // Several come as one array, or as several changes.
    let changes = if messages.len() > 1 && generator.roll.chance(0.3) {
        let alone =
            |message| inbound::change(number, vec![("contacts", contacts.clone()), ("messages", vec![message])]);
        messages.into_iter().map(alone).collect()
    } else {
        vec![inbound::change(number, vec![("contacts", contacts), ("messages", messages)])]
    };
    Made { payload: inbound::envelope(&number.waba_id, changes), told, deeds, statuses: 0, at_ms }
}

fn messages_alone() -> &'static [Kind] {
    let count = Kind::ALL.iter().take_while(|kind| kind.is_message()).count();
    &ALL[..count]
}

static ALL: [Kind; Kind::ALL.len()] = Kind::ALL;

/// What a kind refers to; a text where there is nothing to refer to.
fn refer(generator: &mut Generator, at: usize, index: u32, kind: Kind, tick: Tick) -> (Kind, String) {
    let about = match kind {
        Kind::Edit => generator.thread(at, index).edit().map(|(id, _)| id),
        Kind::Revoke => generator.thread(at, index).take_back(),
        Kind::StrayStatus => Some(format!("wamid.{}", STANDARD.encode(format!("SBX-STRAY-{}", tick.nth)))),
        Kind::Quote | Kind::Reaction | Kind::ReactionRemoved => {
            let known = generator.known_to(at, index).map(|known| known.id);
            known.filter(|_| generator.roll.chance(0.5)).or_else(|| generator.thread(at, index).last())
        }
        _ => Some(generator.known_to(at, index).map_or_else(|| "wamid.U0JYLU9VVC0wMDE2".to_owned(), |known| known.id)),
    };
    about.map_or((Kind::Text, String::new()), |about| (kind, about))
}

/// The person as they are now: with the name of this half, and the ids they have moved to.
fn person(generator: &Generator, index: u32, tick: Tick) -> Person {
    let mixture = &generator.mixture;
    let mut person = Person::nth(mixture.seed, index);
    if let Some(moved) = generator.moved.get(&index) {
        (person.wa_id, person.user_id) = moved.clone();
        person.dial = format!("+{}", person.wa_id);
    }
    let half = mixture.begins_ms + mixture.step_ms * (mixture.webhooks / 2) as i64;
    if mixture.renames(index) && tick.at_ms >= half {
        person.name = format!("{} the Second", person.name).trim().to_owned();
    }
    person
}
