//! `POST /2010-04-01/Accounts/{AC}/Messages.json`: what Twilio makes of a request to send. The order of the checks is the contract
//! page's (section 16.2).

use super::super::{
    accounts::{Account, Standing},
    behaviour::{Behaviour, Status, WindowRule},
    course::{Course, Owner},
    dice::{Roll, mix},
    exchange::{Accepted, Exchange, Judged, Seen},
    ledger::Acceptance,
    platform::Api,
    provider::Provider,
    refusal::Refusal,
    reply::{self, Answered},
};
use super::{
    api::{self, Call, UnderWay},
    messages,
    queue::{self, Message},
    segments::segments,
};
use chrono::{DateTime, Utc};
use http::StatusCode;
use serde_json::{Map, Value};
use std::{borrow::Cow, sync::Arc};

const TEXT_MOST: usize = 1600;
const MEDIA_MOST: usize = 10;
const VALIDITY_MOST_S: u64 = 36_000;

/// The form, with its repetitions.
struct Form(Vec<(String, String)>);

/// A message whose form is in order.
struct Asked {
    sender: Arc<Account>,
    service: Option<String>,
    to: String,
    body: String,
    media: Vec<String>,
    callback: Option<String>,
    validity_s: u64,
    /// When it is to be sent, if not now.
    scheduled: Option<DateTime<Utc>>,
    is_template: bool,
    /// How the template stands with WhatsApp.
    approval: String,
    fails: Option<u32>,
}

/// Handles one send.
pub(super) async fn handle(provider: &Arc<Provider>, call: &Call, account_sid: &str) -> Answered {
    let under_way = api::begin(provider, account_sid);
    let form = Form(url::form_urlencoded::parse(&call.body).into_owned().collect());
    let sender = sender(provider, account_sid, &form).ok();
    let behaviour = sender.as_ref().map_or_else(|| provider.behaviour(), |sender| sender.behaviour(provider));
    let mut exchange = Exchange::begin(provider, behaviour);
    let text = form.get("Body").unwrap_or_default();
    let named = form.get("From").or(form.get("MessagingServiceSid")).unwrap_or_default();
    let seen = Seen {
        api: Api::Twilio,
        account: sender.as_ref().map_or_else(|| named.into(), |sender| sender.id.clone()),
        at_us: call.at_us,
        recipient: Cow::Borrowed(form.get("To").unwrap_or_default()),
        kind: match () {
            () if form.get("ContentSid").is_some() => "template",
            () if form.get("MediaUrl").is_some() => "media",
            () if form.get("PersistentAction").is_some() => "location",
            () => "text",
        },
        opaque: form.get("StatusCallback").and_then(own_id).map(Cow::Owned),
        text: form.get("Body").map(Cow::Borrowed),
        units: if named.starts_with("whatsapp:") { 1 } else { segments(text) },
        body: &call.body,
    };
    let judged =
        exchange.arrives().then(|| judge(provider, &mut exchange, call, account_sid, &form, &under_way, seen.units));
    exchange.end(provider, seen, judged).await
}

/// All checks: who asks, how many there are, then the form from `To` to the queue.
fn judge(
    provider: &Arc<Provider>,
    exchange: &mut Exchange,
    call: &Call,
    account_sid: &str,
    form: &Form,
    under_way: &UnderWay,
    units: u32,
) -> Result<Judged<'static>, Refusal> {
    api::authorize(provider, call, account_sid)?;
    if exchange.behaviour.concurrent_requests.is_some_and(|most| under_way.count > most) {
        return Err(Refusal::of(Api::Twilio, 20_429, None));
    }
    let mut asked = check(provider, account_sid, form)?;
    let ordered = exchange.interrupt(provider, Api::Twilio, &asked.sender.id)?;
    let now_us = provider.clock.now_us();
    let is_whatsapp = asked.sender.spec.is_twilio_whatsapp();
    let mut live = asked.sender.live();
    if live.standing == Standing::Suspended {
        return Err(Refusal::of(Api::Twilio, 20_005, None));
    }
    if is_whatsapp && asked.fails.is_none() {
        asked.fails = outside(&live.queue, &asked, now_us, &exchange.behaviour);
    }
    let scheduled_us = asked.scheduled.map(|at| provider.clock.since_start_us(at.timestamp()).max(0) as u64);
    let begins_us = scheduled_us.unwrap_or(now_us);
    let mut leaves_us = begins_us;
    if exchange.behaviour.queues && scheduled_us.is_none() {
        let rate = live.limit.unwrap_or_else(|| queue::rate_of(&asked.sender.spec));
        let deep_s = exchange.behaviour.queue_s.unwrap_or(if is_whatsapp { 4 * 3600 } else { 10 * 3600 });
        match live.queue.enqueue(units, rate, deep_s, now_us) {
            Some(at_us) => leaves_us = at_us,
            None if asked.service.is_some() => asked.fails = Some(30_001),
            None => return Err(Refusal::of(Api::Twilio, 21_611, None)),
        }
    }
    drop(live);
    if leaves_us.saturating_sub(now_us) > asked.validity_s.saturating_mul(1_000_000) && scheduled_us.is_none() {
        asked.fails = asked.fails.or(Some(30_036));
    }
    asked.fails = ordered.or(asked.fails);
    let Exchange { behaviour, roll, .. } = exchange;
    let course = |fails, roll: &mut Roll| {
        let happens = course(behaviour, is_whatsapp, asked.service.is_some(), fails, roll);
        Course { happens, begins_us, leaves_us }
    };
    let happens = course(asked.fails, roll);
    let fetched = match (asked.media.first(), asked.fails) {
        // The channel's word for a file that did not come; carriers have none.
        (Some(url), None) => Some((url.clone(), course(Some(if is_whatsapp { 63_019 } else { 30_008 }), roll))),
        _ => None,
    };
    let headers_roll = roll.clone();
    let count = under_way.count;
    let (account_sid, told) = (account_sid.to_owned(), behaviour.statuses);
    let (keeper, provider) = (asked.sender.clone(), provider.clone());
    Ok(Judged::Message(Accepted {
        acceptance: Acceptance::default(),
        follows: Some((Owner::Account(asked.sender.clone()), happens)),
        fetched,
        success: Box::new(move |_, sid| {
            let message = kept(asked, sid, units, now_us, told);
            let body = messages::view(&provider, &account_sid, &message).to_string();
            keeper.live().queue.keep(message);
            api::headers(reply::success(body).with_status(StatusCode::CREATED), &mut headers_roll.clone(), count)
        }),
    }))
}

/// As Twilio keeps it. Where nothing is ever told, it counts as sent at once.
fn kept(asked: Asked, sid: &str, segments: u32, now_us: u64, told: bool) -> Message {
    let status = match (&asked.scheduled, &asked.service) {
        (Some(_), _) => "scheduled",
        (None, Some(_)) => "accepted",
        (None, None) => "queued",
    };
    Message {
        sid: sid.into(),
        from: asked.service.is_none().then(|| asked.sender.spec.id.clone()),
        to: asked.to,
        body: asked.body,
        status,
        is_inbound: false,
        segments,
        media: asked.media,
        service: asked.service,
        created_us: now_us,
        sent_us: (!told).then_some(now_us),
        error_code: None,
        callback: asked.callback,
        is_template: asked.is_template,
        is_deleted: false,
    }
}

/// The code that a message outside WhatsApp's window fails with, if it is outside.
fn outside(queue: &queue::Queue, asked: &Asked, now_us: u64, behaviour: &Behaviour) -> Option<u32> {
    if behaviour.window == WindowRule::Ignore || queue.is_open(&asked.to, now_us, behaviour) {
        return None;
    }
    match asked.approval.as_str() {
        "approved" if asked.is_template => None,
        "rejected" => Some(63_040),
        "paused" => Some(63_041),
        "disabled" => Some(63_042),
        _ => Some(63_016),
    }
}

/// What happens to a message: the contract page's flow (section 3).
fn course(
    behaviour: &Behaviour,
    is_whatsapp: bool,
    by_service: bool,
    fails: Option<u32>,
    roll: &mut Roll,
) -> Vec<(Status, Option<u32>)> {
    let fails = fails.or_else(|| {
        if !roll.chance(behaviour.fail_later_rate) {
            return None;
        }
        // The others are WhatsApp's own.
        let channel = if is_whatsapp { 63_000..64_000 } else { 30_000..31_000 };
        let codes: Vec<u32> =
            behaviour.fail_later_codes.iter().copied().filter(|code| channel.contains(code)).collect();
        let usual: &[u32] = if is_whatsapp { &[63_024, 63_003] } else { &[30_003, 30_005, 30_007, 30_008] };
        Some(*roll.pick(if codes.is_empty() { usual } else { &codes }))
    });
    let mut happens = Vec::new();
    if by_service {
        happens.push((Status::Queued, None));
    }
    match fails {
        // Twilio itself could not send it.
        Some(code @ (21_610 | 30_001 | 30_002 | 30_007 | 30_036)) => happens.push((Status::Failed, Some(code))),
        Some(code) if is_whatsapp => happens.push((Status::Undelivered, Some(code))),
        Some(code) => happens.extend([(Status::Sent, None), (Status::Undelivered, Some(code))]),
        None => {
            let read =
                is_whatsapp && behaviour.status_kinds.contains(&Status::Read) && roll.chance(behaviour.read_rate);
            happens.push((Status::Sent, None));
            if !(read && roll.chance(behaviour.skip_delivered_rate)) {
                happens.push((Status::Delivered, None));
            }
            if read {
                happens.push((Status::Read, None));
            }
        }
    }
    happens
}

fn check(provider: &Provider, account_sid: &str, form: &Form) -> Result<Asked, Refusal> {
    let refused = |code| Err(Refusal::of(Api::Twilio, code, None));
    let to = to(form)?;
    let sender = sender(provider, account_sid, form)?;
    let service = form.get("MessagingServiceSid").map(str::to_owned);
    let is_whatsapp = sender.spec.is_twilio_whatsapp();
    if is_whatsapp != to.starts_with("whatsapp:") {
        return refused(21_910);
    }
    if queue::key(&sender.id) == queue::key(&to) {
        return refused(if is_whatsapp { 63_031 } else { 21_266 });
    }
    let mut body = form.get("Body").unwrap_or_default().to_owned();
    let media: Vec<String> = form.all("MediaUrl").map(str::to_owned).collect();
    let content = form.get("ContentSid");
    if body.is_empty() && media.is_empty() && content.is_none() {
        return refused(21_602);
    }
    if body.chars().count() > TEXT_MOST {
        return refused(21_617);
    }
    if media.len() > if is_whatsapp { 1 } else { MEDIA_MOST } {
        return refused(21_623);
    }
    if media.iter().any(|url| !is_url(url)) {
        return refused(21_620);
    }
    let (mut fails, mut approval) = (None, String::new());
    if let Some(sid) = content {
        let well_formed = sid.len() == 34 && sid.starts_with("HX") && sid[2..].bytes().all(|b| b.is_ascii_hexdigit());
        let template = provider.twilio.template(account_sid, sid).filter(|_| well_formed);
        let Some(template) = template else { return refused(21_655) };
        approval = template.approval().to_owned();
        match template.rendered(&variables(form)?) {
            Ok(text) => body = text,
            Err(code) => fails = Some(code),
        }
    }
    let callback = form.get("StatusCallback");
    if callback.is_some_and(|url| url.len() > 4_000 || !is_url(url)) {
        return refused(21_609);
    }
    let validity_s = match form.get("ValidityPeriod").map(str::parse) {
        None => VALIDITY_MOST_S,
        Some(Ok(seconds @ 1..=VALIDITY_MOST_S)) => seconds,
        Some(_) => return refused(20_422),
    };
    let scheduled = scheduled(provider, form, service.is_some())?;
    // Permission, then opt-out.
    match to.as_str() {
        "+15005550003" => return refused(21_408),
        "+15005550004" => return refused(21_610),
        _ => {}
    }
    if !is_whatsapp {
        let by_service = |other: &Account| service.is_some() && other.spec.messaging_service_sid == service;
        let stopped = api::senders(provider, account_sid)
            .iter()
            .any(|other| (other.id == sender.id || by_service(other)) && other.live().queue.is_stopped(&to));
        match stopped {
            true if service.is_some() => fails = Some(21_610),
            true => return refused(21_610),
            false => {}
        }
    }
    if form.get("From") == Some("+15005550008") {
        return refused(21_611);
    }
    let callback = callback.map(str::to_owned);
    let is_template = content.is_some();
    Ok(Asked { sender, service, to, body, media, callback, validity_s, scheduled, is_template, approval, fails })
}

fn to(form: &Form) -> Result<String, Refusal> {
    let refused = |code| Err(Refusal::of(Api::Twilio, code, None));
    let Some(to) = form.get("To") else { return refused(21_604) };
    match to {
        "+15005550001" => return refused(21_211),
        "+15005550002" => return refused(21_612),
        "+15005550009" => return refused(21_614),
        _ => {}
    }
    let plain = to.strip_prefix("whatsapp:");
    let is_phone = |text: &str| {
        text.strip_prefix('+').is_some_and(|digits| {
            (7..=15).contains(&digits.len()) && !digits.starts_with('0') && digits.bytes().all(|b| b.is_ascii_digit())
        })
    };
    let is_user = |text: &str| super::super::body::is_user_id(text);
    let valid = match plain {
        Some(plain) => is_phone(plain) || is_user(plain),
        None => is_phone(to),
    };
    if valid {
        return Ok(to.to_owned());
    }
    Err(Refusal::of(Api::Twilio, 21_211, None).saying(format!("Invalid 'To' Phone Number: {to}")))
}

/// The sender that `From` names, or that a service picks: the same for the same customer.
fn sender(provider: &Provider, account_sid: &str, form: &Form) -> Result<Arc<Account>, Refusal> {
    let refused = |code| Err(Refusal::of(Api::Twilio, code, None));
    let mut senders = api::senders(provider, account_sid);
    if let Some(service) = form.get("MessagingServiceSid") {
        if service.len() != 34 || !service.starts_with("MG") {
            return refused(21_705);
        }
        senders.retain(|sender| sender.spec.messaging_service_sid.as_deref() == Some(service));
        if senders.is_empty() {
            return refused(21_701);
        }
        if form.get("From").is_none() {
            let to = form.get("To").unwrap_or_default();
            senders.retain(|sender| sender.spec.is_twilio_whatsapp() == to.starts_with("whatsapp:"));
            if senders.is_empty() {
                return refused(21_703);
            }
            let drawn = to.bytes().fold(7, |sum, byte| mix(sum ^ u64::from(byte))) as usize;
            return Ok(senders.swap_remove(drawn % senders.len()));
        }
    }
    let Some(from) = form.get("From") else { return refused(21_603) };
    match from {
        "+15005550001" => return refused(21_212),
        "+15005550007" => return refused(21_606),
        // Any sender stands for the ones that are always there.
        "+15005550006" | "+15005550008" => {
            senders.retain(|sender| !sender.spec.is_twilio_whatsapp());
            return senders.into_iter().next().ok_or_else(|| Refusal::of(Api::Twilio, 21_606, None));
        }
        _ => {}
    }
    let is_whatsapp = from.starts_with("whatsapp:");
    let plausible = from.trim_start_matches("whatsapp:").trim_start_matches('+');
    if plausible.is_empty() || plausible.len() > 15 {
        return refused(21_212);
    }
    let found = senders.into_iter().find(|sender| sender.spec.id == from);
    found.ok_or_else(|| Refusal::of(Api::Twilio, if is_whatsapp { 63_007 } else { 21_606 }, None))
}

fn variables(form: &Form) -> Result<Map<String, Value>, Refusal> {
    let Some(text) = form.get("ContentVariables") else { return Ok(Map::new()) };
    match serde_json::from_str(text) {
        Ok(Value::Object(variables)) if variables.values().all(Value::is_string) => Ok(variables),
        _ => Err(Refusal::of(Api::Twilio, 21_656, None)),
    }
}

fn scheduled(provider: &Provider, form: &Form, by_service: bool) -> Result<Option<DateTime<Utc>>, Refusal> {
    let refused = |code| Err(Refusal::of(Api::Twilio, code, None));
    if form.get("ScheduleType") != Some("fixed") {
        return Ok(None);
    }
    if !by_service {
        return refused(35_118);
    }
    let at = form.get("SendAt").and_then(|text| DateTime::parse_from_rfc3339(text).ok());
    let Some(at) = at.map(|at| at.with_timezone(&Utc)) else { return refused(35_111) };
    let ahead = at - provider.clock.wall(provider.clock.now_us());
    if (15 * 60..=35 * 24 * 3600).contains(&ahead.num_seconds()) { Ok(Some(at)) } else { refused(35_111) }
}

/// The caller's own id in the query of the callback.
fn own_id(callback: &str) -> Option<String> {
    let query = callback.split('#').next()?.split_once('?')?.1;
    url::form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "mid").map(|(_, value)| value.into_owned())
}

/// An absolute URL whose host has no underscore.
fn is_url(text: &str) -> bool {
    url::Url::parse(text).is_ok_and(|url| {
        matches!(url.scheme(), "http" | "https") && url.host_str().is_some_and(|host| !host.contains('_'))
    })
}

impl Form {
    /// The first value that is not empty.
    fn get(&self, name: &str) -> Option<&str> {
        self.all(name).find(|value| !value.is_empty())
    }

    fn all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}
