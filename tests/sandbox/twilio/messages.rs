//! Messages as Twilio shows them (twilio contract page, section 13): one, all of them by page, redacted, cancelled, deleted; and the
//! callbacks that tell how one stands.

use super::super::{
    accounts::Account,
    agenda::PlannedStatus,
    behaviour::Status as Happened,
    platform::Api,
    provider::Provider,
    refusal::Refusal,
    reply,
    webhooks::{self, Parcel},
};
use super::{
    api::{self, Call},
    queue::Message,
    status::{self, Callback, Status},
};
use axum::body::Body;
use chrono::{DateTime, NaiveDate, Utc};
use http::{Method, Response, StatusCode};
use serde_json::{Value, json};
use std::sync::Arc;

/// A message as JSON.
pub(super) fn view(provider: &Provider, account_sid: &str, message: &Message) -> Value {
    let date = |at_us: u64| provider.clock.wall(at_us).to_rfc2822();
    let uri = format!("/2010-04-01/Accounts/{account_sid}/Messages/{}", message.sid);
    json!({"sid": message.sid, "account_sid": account_sid, "api_version": "2010-04-01", "body": message.body,
        "date_created": date(message.created_us), "date_updated": date(message.sent_us.unwrap_or(message.created_us)),
        "date_sent": message.sent_us.map(date), "direction": if message.is_inbound { "inbound" } else { "outbound-api" },
        "error_code": message.error_code, "error_message": null, "from": message.from,
        "messaging_service_sid": message.service, "num_media": message.media.len().to_string(),
        "num_segments": message.segments.to_string(), "price": null, "price_unit": "USD", "status": message.status,
        "subresource_uris": {"media": format!("{uri}/Media.json")}, "to": message.to, "uri": format!("{uri}.json")})
}

/// `GET Messages.json`: newest first, by `To`, `From` and `DateSent`.
pub(super) fn list(provider: &Provider, call: &Call, account_sid: &str) -> Result<Response<Body>, Refusal> {
    if call.method != Method::GET {
        return Err(Refusal::of(Api::Twilio, 20_004, None));
    }
    let number =
        |name: &str, default: usize| call.parameter(name).and_then(|text| text.parse().ok()).unwrap_or(default);
    let (size, page) = (number("PageSize", 50).clamp(1, 1_000), number("Page", 0));
    let (to, from) = (call.parameter("To"), call.parameter("From"));
    // `DateSent>=2026-11-19` is a parameter of that odd name.
    let date = |name: &str| call.parameter(name).map(|text| parsed(&text)).transpose();
    let (on, since, until) = (date("DateSent")?, date("DateSent>")?, date("DateSent<")?);
    let mut all: Vec<Message> = Vec::new();
    for sender in api::senders(provider, account_sid) {
        all.extend(sender.live().queue.messages().cloned());
    }
    all.retain(|message| {
        let at = provider.clock.wall(message.sent_us.unwrap_or(message.created_us));
        to.as_ref().is_none_or(|to| *to == message.to)
            && from.as_ref().is_none_or(|from| message.from.as_ref() == Some(from))
            && on.is_none_or(|(on, _)| on.date_naive() == at.date_naive())
            && since.is_none_or(|(since, _)| at >= since)
            && until
                .is_none_or(|(until, is_day)| if is_day { at.date_naive() <= until.date_naive() } else { at <= until })
    });
    all.sort_by(|a, b| (b.created_us, &b.sid).cmp(&(a.created_us, &a.sid)));
    let shown: Vec<Value> =
        all.iter().skip(page * size).take(size).map(|message| view(provider, account_sid, message)).collect();
    let mut filters = url::form_urlencoded::Serializer::new(String::new());
    for (name, value) in url::form_urlencoded::parse(call.query.as_bytes()) {
        if !matches!(&*name, "Page" | "PageSize" | "PageToken") {
            filters.append_pair(&name, &value);
        }
    }
    let filters = filters.finish();
    let uri = |page: usize| {
        let joint = if filters.is_empty() { "" } else { "&" };
        let token = if page == 0 { String::new() } else { format!("&PageToken=PASM{page}") };
        format!("/2010-04-01/Accounts/{account_sid}/Messages.json?{filters}{joint}PageSize={size}&Page={page}{token}")
    };
    let (start, end) = (page * size, (page * size + shown.len()).saturating_sub(1));
    let next = ((page + 1) * size < all.len()).then(|| uri(page + 1));
    let previous = page.checked_sub(1).map(uri);
    Ok(reply::json(
        StatusCode::OK,
        &json!({"messages": shown, "page": page, "page_size": size, "start": start, "end": end,
            "first_page_uri": uri(0), "next_page_uri": next, "previous_page_uri": previous, "uri": uri(page)}),
    ))
}

/// A day, or a moment; and whether it is a day.
fn parsed(text: &str) -> Result<(DateTime<Utc>, bool), Refusal> {
    if let Ok(at) = DateTime::parse_from_rfc3339(text) {
        return Ok((at.with_timezone(&Utc), false));
    }
    let day = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok().and_then(|day| day.and_hms_opt(0, 0, 0));
    day.map(|day| (day.and_utc(), true)).ok_or_else(|| Refusal::of(Api::Twilio, 20_001, None))
}

/// What can be done with one message.
pub(super) fn one(
    provider: &Provider,
    call: &Call,
    account_sid: &str,
    rest: &[&str],
) -> Result<Response<Body>, Refusal> {
    let refused = |code| Err(Refusal::of(Api::Twilio, code, None));
    let Some(sid) = rest.first().map(|sid| sid.trim_end_matches(".json")) else { return refused(20_404) };
    let senders = api::senders(provider, account_sid);
    let Some(sender) = senders.iter().find(|sender| sender.live().queue.message(sid).is_some()) else {
        return refused(20_404);
    };
    let mut live = sender.live();
    let Some(message) = live.queue.message(sid) else { return refused(20_404) };
    match (&call.method, rest) {
        (&Method::GET, [_]) => {}
        (&Method::POST, [_]) => {
            let form: Vec<(String, String)> = url::form_urlencoded::parse(&call.body).into_owned().collect();
            for (name, value) in &form {
                match (name.as_str(), value.as_str()) {
                    ("Body", "") => message.body.clear(),
                    ("Status", "canceled") if message.status == "scheduled" => {
                        message.status = "canceled";
                        let parcel = told(provider, sender, message, Status::Canceled, None);
                        if let Some(parcel) = parcel {
                            webhooks::send_off(provider, sender, parcel);
                        }
                    }
                    ("Status", "canceled") => return refused(35_114),
                    _ => return refused(20_001),
                }
            }
        }
        (&Method::DELETE, [_]) => {
            message.is_deleted = true;
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::NO_CONTENT;
            return Ok(response);
        }
        (&Method::GET, [_, "Media.json"]) => {
            let date = provider.clock.wall(message.created_us).to_rfc2822();
            let media = (0..message.media.len()).map(|at| {
                let media = super::media_sid(sid, at);
                json!({"sid": media, "parent_sid": sid, "account_sid": account_sid, "content_type": "image/jpeg",
                    "date_created": date, "date_updated": date,
                    "uri": format!("/2010-04-01/Accounts/{account_sid}/Messages/{sid}/Media/{media}.json")})
            });
            return Ok(reply::json(StatusCode::OK, &json!({"media_list": media.collect::<Vec<Value>>()})));
        }
        _ => return refused(20_004),
    }
    Ok(reply::json(StatusCode::OK, &view(provider, account_sid, message)))
}

/// Something happened to a message: notes how it stands, and gives back the callback if one was asked for.
pub(crate) fn callback(provider: &Provider, account: &Arc<Account>, planned: &PlannedStatus) -> Option<Parcel> {
    let entry = provider.ledger.send(planned.send)?;
    let mut live = account.live();
    let message = live.queue.message(entry.wamid()?)?;
    if message.status == "canceled" {
        return None;
    }
    let status = match planned.status {
        Happened::Queued => Status::Queued,
        Happened::Sent | Happened::Echo => Status::Sent,
        Happened::Delivered => Status::Delivered,
        Happened::Read => Status::Read,
        Happened::Undelivered => Status::Undelivered,
        Happened::Failed => Status::Failed,
    };
    // A repetition, or one that comes late, takes nothing back.
    if rank(status.name()) >= rank(message.status) {
        message.status = status.name();
        message.error_code = planned.code.or(message.error_code);
    }
    if status != Status::Queued {
        message.sent_us = message.sent_us.or(Some(planned.happened_us));
        message.from = Some(account.spec.id.clone());
    }
    let message = message.clone();
    drop(live);
    told(provider, account, &message, status, planned.code)
}

/// The signed callback of a message, to where it asked for or to where its sender is told in general.
fn told(
    provider: &Provider,
    account: &Account,
    message: &Message,
    status: Status,
    code: Option<u32>,
) -> Option<Parcel> {
    let url = message.callback.as_deref().or(account.spec.status_url.as_deref())?;
    let callback = Callback { account: &account.spec, sid: &message.sid, to: &message.to, status, code };
    let mut parameters = status::parameters(&callback);
    if message.is_template {
        parameters
            .iter_mut()
            .filter(|(name, _)| name == "StructuredMessage")
            .for_each(|(_, value)| *value = "true".into());
    }
    let guid = uuid::Uuid::from_u64_pair(provider.dice.roll().bits(), provider.dice.roll().bits());
    // Callbacks are forms, whatever the way of incoming messages.
    let mut spec = account.spec.clone();
    if spec.way == super::Way::Get {
        spec.way = super::Way::Form;
    }
    Some(super::request(&spec, provider.secret(&account.spec), url, &parameters).into_parcel(guid))
}

fn rank(status: &str) -> u8 {
    match status {
        "accepted" | "scheduled" => 1,
        "queued" => 2,
        "sending" => 3,
        "sent" => 4,
        "delivered" => 5,
        "read" => 6,
        _ => 7,
    }
}
