//! The form of a send to Twilio, checked in the order of the contract page (section 16.2): `To`, sender, content, permission, opt-out.

use super::super::{accounts::Account, dice::mix, platform::Api, provider::Provider, refusal::Refusal};
use super::{api, queue};
use chrono::{DateTime, Utc};
use serde_json::{Map, Value};
use std::sync::Arc;

const TEXT_MOST: usize = 1600;
const MEDIA_MOST: usize = 10;
const VALIDITY_MOST_S: u64 = 36_000;

/// The form, with its repetitions.
pub(super) struct Form(pub(super) Vec<(String, String)>);

/// A message whose form is in order.
pub(super) struct Asked {
    pub(super) sender: Arc<Account>,
    pub(super) service: Option<String>,
    pub(super) to: String,
    pub(super) body: String,
    pub(super) media: Vec<String>,
    pub(super) callback: Option<String>,
    pub(super) validity_s: u64,
    /// When it is to be sent, if not now.
    pub(super) scheduled: Option<DateTime<Utc>>,
    pub(super) is_template: bool,
    /// How the template stands with WhatsApp.
    pub(super) approval: String,
    pub(super) fails: Option<u32>,
}

/// The whole form, from `To` to opt-out.
pub(super) fn check(provider: &Provider, account_sid: &str, form: &Form) -> Result<Asked, Refusal> {
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
pub(super) fn sender(provider: &Provider, account_sid: &str, form: &Form) -> Result<Arc<Account>, Refusal> {
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

pub(super) fn variables(form: &Form) -> Result<Map<String, Value>, Refusal> {
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
pub(super) fn own_id(callback: &str) -> Option<String> {
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
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.all(name).find(|value| !value.is_empty())
    }

    pub(super) fn all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}
