//! `POST /2010-04-01/Accounts/{AC}/Messages.json`: what Twilio makes of a request to send. The form is checked in
//! `check`; the rest of the contract page's order (section 16.2) is here: who asks, how much, the queue.

use super::super::{
    accounts::Standing,
    behaviour::{Behaviour, Status, WindowRule},
    course::{Course, Owner},
    dice::Roll,
    exchange::{Accepted, Exchange, Judged, Seen, Wanted},
    ledger::Acceptance,
    platform::Api,
    provider::Provider,
    refusal::Refusal,
    reply::{self, Answered},
};
use super::{
    api::{self, Call, UnderWay},
    check::{self, Asked, Form},
    messages,
    queue::{self, Message},
    segments::segments,
};
use http::StatusCode;
use std::{borrow::Cow, sync::Arc};

/// Handles one send.
pub(super) async fn handle(provider: &Arc<Provider>, call: &Call, account_sid: &str) -> Answered {
    let under_way = api::begin(provider, account_sid);
    let form = Form(url::form_urlencoded::parse(&call.body).into_owned().collect());
    let sender = check::sender(provider, account_sid, &form).ok();
    let behaviour = sender.as_ref().map_or_else(|| provider.behaviour(), |sender| sender.behaviour(provider));
    let mut exchange = Exchange::begin(provider, behaviour);
    exchange.headers = api::headers(&mut exchange.roll.clone(), under_way.count);
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
        opaque: form.get("StatusCallback").and_then(check::own_id).map(Cow::Owned),
        text: form.get("Body").map(Cow::Borrowed),
        units: size(provider, account_sid, &form, named),
        body: &call.body,
    };
    let judged =
        exchange.arrives().then(|| judge(provider, &mut exchange, call, account_sid, &form, &under_way, seen.units));
    exchange.end(provider, seen, judged).await
}

/// What a message counts for in its sender's rate.
fn size(provider: &Provider, account_sid: &str, form: &Form, named: &str) -> u32 {
    if named.starts_with("whatsapp:") || form.get("MediaUrl").is_some() {
        return 1;
    }
    let template = form.get("ContentSid").and_then(|sid| provider.twilio.template(account_sid, sid));
    match template.and_then(|template| template.rendered(&check::variables(form).ok()?).ok()) {
        Some(text) => segments(&text),
        None => segments(form.get("Body").unwrap_or_default()),
    }
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
    let most = exchange.behaviour.concurrent_requests;
    let rate = exchange.behaviour.requests_per_second;
    let now_us = provider.clock.now_us();
    let too_fast = rate.is_some_and(|rate| !provider.twilio.admit(account_sid, now_us, rate));
    if too_fast || most.is_some_and(|most| under_way.count > most) {
        return Err(Refusal::of(Api::Twilio, 20_429, None));
    }
    let mut asked = check::check(provider, account_sid, form)?;
    let ordered = exchange.interrupt(provider, Api::Twilio, &asked.sender.id)?;
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
        (Some(url), None) => {
            let wanted = Wanted { url: url.clone(), fits: Box::new(|_| true) };
            Some((wanted, course(Some(if is_whatsapp { 63_019 } else { 30_008 }), roll)))
        }
        _ => None,
    };
    let (account_sid, told) = (account_sid.to_owned(), behaviour.statuses);
    let (keeper, provider) = (asked.sender.clone(), provider.clone());
    Ok(Judged::Message(Accepted {
        files: asked.media.clone(),
        acceptance: Acceptance::default(),
        follows: Some((Owner::Account(asked.sender.clone()), happens)),
        fetched,
        success: Box::new(move |_, sid| {
            let message = kept(asked, sid, units, now_us, told);
            let body = messages::view(&provider, &account_sid, &message).to_string();
            keeper.live().queue.keep(message);
            reply::success(body).with_status(StatusCode::CREATED)
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
