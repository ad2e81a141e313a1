//! What a gateway's answer means, as leniently as it is read: an object or an array with one, with the words anywhere.

use super::config::{GatewayConfig, Marks, Sign};
use crate::{
    domain::outcome::{Accepted, Class, NotSent, Outcome},
    providers::{answering, json, repair::readable, sending::Outgoing},
};
use serde_json::Value;
use std::borrow::Cow;

/// So much of an answer is kept for later study.
const KEPT_CHARACTERS: usize = 500;

/// What an answer to `message` means. `token` is the account's secret, which no answer is kept with.
pub fn outcome(
    config: &GatewayConfig,
    token: &str,
    message: &Outgoing<'_>,
    status: u16,
    retry_after: Option<&str>,
    body: &[u8],
) -> Outcome {
    let (reading, retry_after) = (&config.answer, answering::wait(retry_after));
    let raw = readable(body);
    let answer: Value = serde_json::from_str(&raw).unwrap_or_default();
    let kept = kept(&raw, token);
    let text = first(&answer, &reading.text).and_then(|found| found.as_str().map(str::to_owned));
    let reason = |what: &str| {
        let words = text.as_deref().map(|words| redacted(words, token)).map(|words| shortened(&words));
        let words = words.map(|words| format!(" It says: {words}")).unwrap_or_default();
        format!("{what}{words} Its answer ({status}): {kept}")
    };
    let code = format!("http_{status}");
    let verdict = taken(&answer, &reading.success);
    if (200..=299).contains(&status) && verdict == Some(true) {
        let id = first(&answer, &reading.id).and_then(id);
        let provider_message_id = id.unwrap_or_else(|| format!("gateway:{}", message.token.attempt_id.0.simple()));
        return Outcome::Accepted(Accepted { answer: Some(kept), ..Accepted::with_id(provider_message_id) });
    }
    if (200..=299).contains(&status) && verdict.is_none() {
        return Outcome::Unknown { reason: reason("The gateway did not say whether it took the message.") };
    }
    // What a gateway says, not what it repeats of the message.
    let said = if answer.is_null() { &raw } else { text.as_deref().unwrap_or_default() }.to_lowercase();
    let is_marked = |marks: &Marks| {
        marks.statuses.contains(&status) || marks.words.iter().any(|word| said.contains(&word.to_lowercase()))
    };
    let again = |class, reason| Outcome::NotSent(NotSent { code: code.clone(), reason, retry_after, class });
    if is_marked(&reading.account_down) {
        return Outcome::AccountDown { code, reason: reason("The gateway cannot send for the account.") };
    }
    if is_marked(&reading.refused) {
        return Outcome::Failed { code, reason: reason("The gateway refused the message.") };
    }
    if is_marked(&reading.again) {
        return again(Class::Transient, reason("The gateway was not there for a moment."));
    }
    match status {
        429 => again(Class::Account, reason("Too many calls.")),
        200..=299 => Outcome::Failed { code, reason: reason("The gateway refused the message.") },
        300..=399 | 401 | 403 | 404 | 405 | 407 => {
            Outcome::AccountDown { code, reason: reason("The address of the gateway answers as none of its kind.") }
        }
        400..=499 if !matches!(status, 408 | 425 | 499) => {
            Outcome::Failed { code, reason: reason("The gateway refused the message.") }
        }
        _ => Outcome::Unknown { reason: reason("The gateway's answer leaves open whether it took the message.") },
    }
}

/// Whether an answer says that the message was taken; `None` if it says nothing about it.
fn taken(answer: &Value, signs: &[Sign]) -> Option<bool> {
    let same = |found: &Value, good: &Value| match (found, good) {
        (Value::String(found), Value::String(good)) => found.eq_ignore_ascii_case(good),
        (found, good) => found == good,
    };
    let said: Vec<bool> = signs
        .iter()
        .filter_map(|sign| {
            let found = at(answer, &sign.path)?;
            Some(sign.values.iter().any(|good| same(found, good)))
        })
        .collect();
    (!said.is_empty()).then(|| said.contains(&true))
}

fn first<'v>(answer: &'v Value, paths: &[String]) -> Option<&'v Value> {
    paths.iter().find_map(|path| at(answer, path))
}

fn id(value: &Value) -> Option<String> {
    let id = match value {
        Value::String(id) => id.clone(),
        Value::Number(id) => id.to_string(),
        _ => return None,
    };
    (1..=json::MAX_ID_BYTES).contains(&id.len()).then_some(id)
}

/// What a path leads to, unless it is nothing.
fn at<'v>(answer: &'v Value, path: &str) -> Option<&'v Value> {
    let mut value = answer;
    for step in path.split('.') {
        let (key, places) = step.split_once('[').map_or((step, ""), |(key, places)| (key, places));
        if !key.is_empty() {
            while let Value::Array(items) = value {
                value = items.first()?;
            }
            value = value.get(key)?;
        }
        for place in places.split('[').filter_map(|place| place.strip_suffix(']')) {
            value = value.get(place.parse::<usize>().ok()?)?;
        }
    }
    (!value.is_null()).then_some(value)
}

/// The beginning of an answer, without the account's secret however it is written there.
fn kept(raw: &str, token: &str) -> String {
    shortened(&redacted(raw, token))
}

fn shortened(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(KEPT_CHARACTERS).collect()
}

fn redacted<'t>(text: &'t str, token: &str) -> Cow<'t, str> {
    if token.is_empty() {
        return Cow::Borrowed(text);
    }
    let quoted = Value::from(token).to_string();
    let in_url: String = url::form_urlencoded::byte_serialize(token.as_bytes()).collect();
    let mut clean = Cow::Borrowed(text);
    let escaped = token.replace('/', "\\/");
    for written in [token, &quoted[1..quoted.len() - 1], &escaped, &in_url] {
        if clean.contains(written) {
            clean = Cow::Owned(clean.replace(written, "…"));
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        domain::channel::{Channel, Provider},
        providers::{
            answering::in_words,
            gateway::preset,
            testing::sending::{Example, content},
        },
    };
    use serde_json::json;

    fn answered(status: u16, body: &str) -> Outcome {
        let text = content(json!({"type": "text", "text": "x"}));
        let example = Example::new(Provider::Gateway, Channel::Whatsapp, text);
        outcome(&preset("botmaster").unwrap(), "tok/1", &example.outgoing(), status, Some("7"), body.as_bytes())
    }

    #[test]
    fn an_answer_is_read_whatever_its_form() {
        let own = "accepted gateway:0193e6b5a1c27d3e8f4a5b6c7d8e9f01";
        for (status, body, expected) in [
            (200, r#"{"status":"success","messageId":"m1"}"#, "accepted m1"),
            (
                200,
                r#"[{"status":"Success","results":[{"messageId":77}],"subscription":{"sms_count":3}}]"#,
                "accepted 77",
            ),
            (201, r#"{"success":true,"id":"m2","status":"queued"}"#, "accepted m2"),
            (200, r#"{"status":true}"#, own),
            (200, r#"{"status":"true","messageId":null,"id":""}"#, own),
            (200, r#"{"success":false,"message":"no such number"}"#, "failed http_200"),
            (200, r#"{"success":false,"message":"Please scan QR code"}"#, "down http_200"),
            (200, r#"{"status":"error","error":"Token EXPIRED"}"#, "down http_200"),
            (200, r#"{"status":"success","message":"expired messages are deleted","id":"m3"}"#, "accepted m3"),
            (200, r#"{"success":false,"data":{"messageText":"Your voucher has expired"}}"#, "failed http_200"),
            (200, r#"{"data":{"messageText":"Your voucher has expired"}}"#, "unknown"),
            (400, "Please scan QR code", "down http_400"),
            (200, "OK", "unknown"),
            (200, "", "unknown"),
            (200, "[]", "unknown"),
            (400, r#"{"message":"receiver is not on WhatsApp"}"#, "failed http_400"),
            (400, r#"{"message":"Invalid token"}"#, "down http_400"),
            (401, "", "down http_401"),
            (403, "<html>", "down http_403"),
            (404, "<html>", "down http_404"),
            (302, "", "down http_302"),
            (422, "", "failed http_422"),
            (408, "", "unknown"),
            (429, "", "not sent, account after 7"),
            (500, r#"{"status":"success","messageId":"m1"}"#, "unknown"),
            (503, "", "not sent, transient after 7"),
            (504, "", "unknown"),
        ] {
            assert_eq!(in_words(&answered(status, body)), expected, "{status} {body}");
        }
    }

    #[test]
    fn the_answer_is_kept_without_the_secret() {
        let Outcome::Accepted(Accepted { answer: Some(kept), .. }) =
            answered(200, r#"{"status":"success","auth":"tok\/1 tok/1 tok%2F1","x":"y"}"#)
        else {
            panic!("taken")
        };
        assert!(!kept.contains("tok") && kept.contains(r#""x":"y""#), "{kept}");
        let Outcome::Failed { reason, .. } = answered(400, &format!(r#"{{"error":"no tok/1 {}"}}"#, "a".repeat(5000)))
        else {
            panic!("refused")
        };
        assert!(!reason.contains("tok/1") && reason.chars().count() < 1200, "{reason}");
        assert!(reason.starts_with("The gateway refused the message. It says: no … aaa"), "{reason}");
    }
}
