//! Twilio's part of a mixture: text messages, WhatsApp by way of Twilio, and callbacks.

use super::super::{
    ledger::Told,
    people::user_id_of,
    platform::{AccountSpec, Platform, Way},
    twilio::{
        self, Incoming, Kind, Texter, sid,
        status::{self, Callback, Status},
    },
    webhooks::{InboundWebhook, Parcel},
};
use super::{Flaw, Generator, KnownSend, Tick, Which};

/// Recipient and id of a known message.
pub(super) fn known(account: &AccountSpec, seed: u64, person: u32, nth: u64) -> (String, String) {
    (texter(account, seed, person).address, sid("SM", super::mix(seed ^ 0x6b6e_6f77), nth))
}

/// One in ten of WhatsApp's people shares no phone.
fn texter(account: &AccountSpec, seed: u64, index: u32) -> Texter {
    let local = super::mix(seed) % 1_000 * 10_000 + u64::from(index) % 10_000;
    if !account.is_twilio_whatsapp() {
        let address = format!("+1503{local:07}");
        return Texter { address, wa_id: None, user_id: None, name: String::new() };
    }
    let phone = format!("4917{local:08}");
    let user_id = user_id_of(&phone);
    let name = super::super::people::Person::nth(seed, index).name;
    if index % 10 == 9 {
        return Texter { address: format!("whatsapp:{user_id}"), wa_id: None, user_id: Some(user_id), name };
    }
    Texter { address: format!("whatsapp:+{phone}"), wa_id: Some(phone), user_id: Some(user_id), name }
}

pub(super) fn webhook(generator: &mut Generator, at: usize, receipts: bool) -> InboundWebhook {
    let Which::Other(account) = &generator.accounts[at].which else { unreachable!("it is an account's turn") };
    let account = account.clone();
    let tick = generator.tick();
    if receipts { callback(generator, at, &account, tick) } else { incoming(generator, at, &account, tick) }
}

fn callback(generator: &mut Generator, at: usize, account: &AccountSpec, tick: Tick) -> InboundWebhook {
    let known = generator.any_known(at);
    let (status, code) =
        drawn(generator.roll.between(0, 4), &known, account.is_twilio_whatsapp(), generator.mixture.seed);
    let callback = Callback { account, sid: &known.id, to: &known.recipient, status, code };
    let url = account.webhook_url.as_deref().unwrap_or_default();
    let query = known.opaque.as_ref().map(|opaque| format!("mid={opaque}"));
    let url = status::url(account, url, query.as_deref());
    // Callbacks are forms whatever the way of incoming messages.
    let account = AccountSpec { way: if account.way == Way::Get { Way::Form } else { account.way }, ..account.clone() };
    let parcel = parcel(&account, &url, &status::parameters(&callback), generator.mixture.seed, tick);
    InboundWebhook {
        platform: Platform::Twilio,
        account: account.id,
        parcel,
        fallback: None,
        flaw: Flaw::None,
        told: vec![],
        statuses: 1,
        at_ms: tick.at_ms,
        deeds: vec![],
    }
}

/// Some do not arrive. Only WhatsApp's are read.
fn drawn(drawn: u64, known: &KnownSend, whatsapp: bool, seed: u64) -> (Status, Option<u32>) {
    let fate = super::mix(seed ^ super::mix(known.sent_at_ms as u64)) % 13;
    let last = match fate {
        0 => (Status::Undelivered, Some(if whatsapp { 63_016 } else { 30_003 })),
        1 => (Status::Failed, Some(30_007)),
        _ if whatsapp => (Status::Read, None),
        _ => (Status::Delivered, None),
    };
    match drawn {
        0 => (Status::Queued, None),
        1 => (Status::Sent, None),
        2 if fate > 1 => (Status::Delivered, None),
        _ => last,
    }
}

fn incoming(generator: &mut Generator, at: usize, account: &AccountSpec, tick: Tick) -> InboundWebhook {
    let whatsapp = account.is_twilio_whatsapp();
    let kinds: Vec<Kind> = Kind::ALL.iter().copied().filter(|kind| kind.comes_by(whatsapp)).collect();
    let index = generator.person();
    let mut kind = generator.kind(&kinds);
    let seed = generator.mixture.seed;
    let mut texter = texter(account, seed, index);
    if kind == Kind::ShortCodeSender {
        texter.address = format!("{}", 20_000 + index % 80_000);
    }
    let about = generator.known_to(at, index).map(|known| known.id).or_else(|| generator.thread(at, index).last());
    if about.is_none() && matches!(kind, Kind::Quote | Kind::ButtonTap | Kind::ListTap) {
        kind = Kind::Text;
    }
    let id = sid(if kind == Kind::Text { "SM" } else { "MM" }, seed, tick.nth);
    let text = generator.text(tick);
    let incoming = Incoming {
        kind,
        account,
        texter: &texter,
        sid: &id,
        about: about.as_deref().unwrap_or_default(),
        text: &text,
        // Only what comes by a messaging service is read for opt-out words there.
        advanced_opt_out: account.messaging_service_sid.is_some(),
    };
    let parameters = twilio::parameters(&incoming);
    generator.thread(at, index).said(&id, false);
    let url = account.webhook_url.as_deref().unwrap_or_default();
    let parcel_at = |url: &str, parameters: &twilio::Parameters| parcel(account, url, parameters, seed, tick);
    let fallback =
        account.fallback_url.as_deref().map(|fallback| parcel_at(fallback, &twilio::to_fallback(&parameters, url)));
    let person = texter.wa_id.or(texter.user_id).unwrap_or(texter.address);
    let told = Told {
        platform: Platform::Twilio,
        id: id.into(),
        kind: kind.name(),
        person: person.into(),
        text: (kind.carries_text() && kind != Kind::Segments).then(|| text.as_str().into()),
        garbled: false,
        timestamp: tick.at_ms / 1_000,
    };
    InboundWebhook {
        platform: Platform::Twilio,
        account: account.id.clone(),
        parcel: parcel_at(url, &parameters),
        fallback,
        flaw: Flaw::None,
        told: vec![told],
        statuses: 0,
        at_ms: tick.at_ms,
        deeds: vec![],
    }
}

fn parcel(account: &AccountSpec, url: &str, parameters: &twilio::Parameters, seed: u64, tick: Tick) -> Parcel {
    let token = account.secret.as_deref().unwrap_or_default();
    let guid = uuid::Uuid::from_u64_pair(super::mix(seed), super::mix(tick.nth));
    twilio::request(account, token, url, parameters).into_parcel(guid)
}
