//! What the fields besides `messages` say about an account, its numbers and its templates (contract, section 6). What is not
//! documented to mean something for sending is noted by its field's name alone.

use crate::{
    domain::events::{AccountChange, AccountNews, Event, TemplateChange},
    providers::{
        json::{Object, cut},
        meta::{MAX_FIELD_BYTES, MAX_WORD_BYTES},
    },
};
use chrono::{DateTime, Utc};
use std::borrow::Cow;

/// What a number may handle a second once it is upgraded (contract, section 11).
const UPGRADED_MESSAGES_PER_SECOND: f64 = 1000.0;
/// So many restrictions are named.
const MAX_RESTRICTIONS: usize = 20;

/// Tells what a change of such a field means; always something.
pub(super) fn read(field: &str, value: &Object, at: DateTime<Utc>, mut tell: impl FnMut(Event)) {
    let news = match field {
        "account_update" => account_update(value).into_iter().collect(),
        "account_alerts" => alert(value).into_iter().collect(),
        "phone_number_quality_update" => quality(value),
        "phone_number_name_update" => name(value).into_iter().collect(),
        "business_capability_update" => limit(value).into_iter().collect(),
        _ => Vec::new(),
    };
    let field = || cut(field.into(), MAX_WORD_BYTES);
    let display_address = || {
        let number = value.text("display_phone_number")?;
        let digits: String = number.chars().filter(char::is_ascii_digit).collect();
        (!digits.is_empty() && digits.len() <= MAX_WORD_BYTES).then_some(digits)
    };
    let template = template(&field(), value, at);
    if news.is_empty() && template.is_none() {
        tell(Event::Notice { field: field() });
    }
    template.into_iter().for_each(|change| tell(Event::Template(change)));
    for change in news {
        // The limit is the portfolio's, whichever number it is told of (contract, section 11).
        let is_of_all = matches!(change, AccountNews::MessagingLimit(_));
        let display_address = if is_of_all { None } else { display_address() };
        tell(Event::Account(AccountChange { change, display_address, field: field(), at }));
    }
}

fn account_update(value: &Object) -> Option<AccountNews> {
    let event = value.words("event")?;
    let detail = |object: &str, key: &str| value.object(object)?.words(key).map(|words| cut(words, MAX_FIELD_BYTES));
    let down = |reason: &str| Some(AccountNews::Down { code: event.to_string(), reason: reason.to_owned() });
    let alert = |reason: String| Some(AccountNews::Alert { code: event.to_string(), reason });
    match &*event {
        "ACCOUNT_DELETED" => down("The WhatsApp Business Account was deleted."),
        "ACCOUNT_VIOLATION" => down(&with(
            "WhatsApp says that the account violated its policies",
            detail("violation_info", "violation_type"),
        )),
        "ACCOUNT_RESTRICTION" => restriction(value, &event),
        "ACCOUNT_RECONNECTED" => Some(AccountNews::Up),
        "PARTNER_REMOVED" => {
            down(&with("The business has ended the connection to this app", detail("disconnection_info", "reason")))
        }
        "PARTNER_APP_UNINSTALLED" => down("The business has removed this app."),
        "DISABLED_UPDATE" => match detail("ban_info", "waba_ban_state").as_deref() {
            Some("DISABLE") => down("WhatsApp has disabled the account."),
            Some("REINSTATE") => Some(AccountNews::Up),
            // It can still send; stopping before that day would be our doing.
            Some("SCHEDULE_FOR_DISABLE") => {
                alert(with("WhatsApp will disable the account", detail("ban_info", "waba_ban_date")))
            }
            _ => None,
        },
        _ => None,
    }
}

/// Not every restriction is one of sending: some keep the business from adding numbers. One that is not named may be.
fn restriction(value: &Object, event: &str) -> Option<AccountNews> {
    let kinds = value.objects("restriction_info").take(MAX_RESTRICTIONS);
    let kinds: Vec<_> = kinds.filter_map(|info| Some(cut(info.words("restriction_type")?, MAX_WORD_BYTES))).collect();
    let is_of_sending = kinds.is_empty() || kinds.iter().any(|kind| kind.ends_with("_MESSAGING"));
    let named = (!kinds.is_empty()).then(|| kinds.join(", "));
    let (code, reason) = (event.to_owned(), with("WhatsApp has restricted the account", named));
    Some(if is_of_sending { AccountNews::Down { code, reason } } else { AccountNews::Alert { code, reason } })
}

/// An alert that is over, or that only informs, asks nothing of anybody.
fn alert(value: &Object) -> Option<AccountNews> {
    let info = value.object("alert_info")?;
    let is = |key, word| info.text(key).as_deref() == Some(word);
    if is("alert_status", "NONE") || is("alert_severity", "INFORMATIONAL") {
        return None;
    }
    let code = cut(info.words("alert_type")?, MAX_WORD_BYTES);
    let reason = info.words("alert_description").map(|words| cut(words, MAX_FIELD_BYTES));
    let reason = reason.unwrap_or_else(|| "WhatsApp has an alert for the account.".to_owned());
    Some(AccountNews::Alert { code, reason })
}

/// An upgrade is of the rate; older events are of the limit, or a warning.
fn quality(value: &Object) -> Vec<AccountNews> {
    let event = value.words("event");
    let upgraded = event.as_deref() == Some("THROUGHPUT_UPGRADE");
    let upgraded = upgraded.then_some(AccountNews::Throughput(UPGRADED_MESSAGES_PER_SECOND));
    let flagged = (event.as_deref() == Some("FLAGGED")).then(|| AccountNews::Alert {
        code: "FLAGGED".to_owned(),
        reason: "WhatsApp has flagged the number because its quality is low.".to_owned(),
    });
    [upgraded, flagged, limit(value)].into_iter().flatten().collect()
}

fn name(value: &Object) -> Option<AccountNews> {
    let is_rejected = value.text("decision").as_deref() == Some("REJECTED");
    let reason = || value.words("rejection_reason").map(|words| cut(words, MAX_FIELD_BYTES));
    is_rejected.then(|| AccountNews::Alert {
        code: "NAME_REJECTED".to_owned(),
        reason: with("WhatsApp has rejected the number's display name", reason()),
    })
}

/// How many people the portfolio may reach in a day, in any of the ways in which that was ever written.
fn limit(value: &Object) -> Option<AccountNews> {
    let keys = ["max_daily_conversations_per_business", "max_daily_conversation_per_phone", "current_limit"];
    let limit = keys.into_iter().find_map(|key| value.words(key).or_else(|| value.number(key)))?;
    let people = match limit.strip_prefix("TIER_") {
        Some("UNLIMITED") => None,
        Some(tier) => Some(match tier.strip_suffix('K') {
            Some(thousands) => thousands.parse::<u32>().ok()?.checked_mul(1000)?,
            None => tier.parse().ok()?,
        }),
        None if &*limit == "-1" => None,
        None => Some(limit.parse().ok()?),
    };
    Some(AccountNews::MessagingLimit(people))
}

fn template(field: &str, value: &Object, at: DateTime<Utc>) -> Option<TemplateChange> {
    let word = |key: &str| value.words(key).map(|word| cut(word, MAX_WORD_BYTES));
    let mut change = TemplateChange {
        name: value.id("message_template_name")?.into_owned(),
        // Both ways of writing one occur (contract, section 6).
        language: word("message_template_language")?.replace('-', "_"),
        status: None,
        quality: None,
        category: None,
        reason: None,
        field: field.to_owned(),
        at,
    };
    match field {
        "message_template_status_update" => {
            change.status = Some(word("event").filter(|event| is_status(event))?);
            change.reason = reason(value);
        }
        "message_template_quality_update" => change.quality = Some(word("new_quality_score")?),
        // A day ahead the field says what is still true, and what will be.
        "template_category_update" if value.get("correct_category").is_some() => return None,
        "template_category_update" => change.category = Some(word("new_category")?),
        // What it says is not what it said: whoever keeps a copy has an old one.
        "message_template_components_update" => {}
        _ => return None,
    }
    Some(change)
}

/// Whether an event is also a state that a template has (contract, section 10.3).
fn is_status(event: &str) -> bool {
    matches!(
        event,
        "APPROVED"
            | "PENDING"
            | "REJECTED"
            | "PAUSED"
            | "DISABLED"
            | "IN_APPEAL"
            | "PENDING_DELETION"
            | "DELETED"
            | "LIMIT_EXCEEDED"
            | "ARCHIVED"
    )
}

fn reason(value: &Object) -> Option<String> {
    let word = value.words("reason").filter(|reason| reason != "NONE");
    let rejection = value.object("rejection_info").and_then(|info| info.words("reason"));
    let words = rejection.or_else(|| value.object("other_info")?.words("description"));
    let both: Vec<Cow<str>> = word.into_iter().chain(words).collect();
    (!both.is_empty()).then(|| cut(both.join(": ").into(), MAX_FIELD_BYTES))
}

/// A sentence, with the provider's words for the reason.
fn with(sentence: &str, words: Option<String>) -> String {
    match words {
        Some(words) => format!("{sentence}: {words}"),
        None => format!("{sentence}."),
    }
}
