//! What the tests of all providers share. Every `<provider>/fixtures/<name>.json` is a webhook, built from the contract;
//! `<name>.txt` beside it says what is to be read from it, written by hand, as [`show`] writes it.

pub(super) mod mutations;
pub(super) mod sending;

use super::Unreadable;
use crate::domain::{
    events::{
        AccountChange, AccountNews, ConsentChange, Echo, Event, InboundMessage, Parsed, RouteKey, SendToken,
        StatusReport, TemplateChange, Through, Watermark,
    },
    messages::MediaRef,
    people::{Alias, Person},
};
use chrono::{DateTime, Utc};
use std::{collections::BTreeMap, fmt::Write, fs, ops::RangeInclusive, path::PathBuf};

/// Ten minutes after the fixtures' first time.
pub(super) fn received_at() -> DateTime<Utc> {
    DateTime::from_timestamp(1_794_831_000, 0).unwrap()
}

/// A provider's fixtures by name: body and expectation.
pub(super) fn fixtures(provider: &str) -> BTreeMap<String, (Vec<u8>, String)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/providers").join(provider).join("fixtures");
    let bodies = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    let bodies = bodies.filter(|path| path.extension().is_some_and(|extension| extension == "json"));
    bodies
        .map(|path| {
            let expected = fs::read_to_string(path.with_extension("txt")).unwrap();
            (path.file_stem().unwrap().to_string_lossy().into_owned(), (fs::read(&path).unwrap(), expected))
        })
        .collect()
}

/// Reads every fixture, of which there are at least so many, and says which are not read as expected.
pub(super) fn assert_all_as_expected(
    provider: &str,
    at_least: usize,
    parse: impl Fn(&[u8], DateTime<Utc>) -> Result<Parsed, Unreadable>,
) {
    let fixtures = fixtures(provider);
    assert!(fixtures.len() >= at_least);
    let mut differing = String::new();
    for (name, (body, expected)) in fixtures {
        let read = show(&parse(&body, received_at()).unwrap());
        if read.trim() != expected.trim() {
            writeln!(differing, "--- {name}, expected:\n{expected}--- read:\n{read}").unwrap();
        }
    }
    assert!(differing.is_empty(), "{differing}");
}

/// How many events and bad elements a body of Messenger's or Instagram's must lead to: at least one for each element, and a receipt
/// is as many as it names messages.
pub(super) fn meta_told(body: &serde_json::Value) -> Option<RangeInclusive<usize>> {
    use serde_json::Value;
    let of_entry = |entry: &Value| {
        let Value::Object(entry) = entry else { return 1 };
        let of_list = |list| match entry.get(list) {
            None | Some(Value::Null) => 0,
            Some(Value::Array(items)) => items.len(),
            Some(_) => 1,
        };
        let of_field = usize::from(entry.get("field").is_some_and(|field| !field.is_null()));
        of_field + ["messaging", "standby", "changes"].into_iter().map(of_list).sum::<usize>()
    };
    let least = body.get("entry")?.as_array()?.iter().map(of_entry).sum();
    Some(least..=usize::MAX)
}

/// As the expectations are written.
pub(super) fn show(parsed: &Parsed) -> String {
    let mut text = String::new();
    for part in &parsed.parts {
        show_route(&part.route, &mut text);
        part.fallback.iter().for_each(|fallback| write!(text, " or {}", fallback.external_id()).unwrap());
        text.push('\n');
        for event in &part.events {
            match event {
                Event::Message(message) => show_message(message, &mut text),
                Event::Echo(echo) => show_echo(echo, &mut text),
                Event::Status(status) => show_status(status, &mut text),
                Event::Watermark(watermark) => show_watermark(watermark, &mut text),
                Event::Consent(consent) => show_consent(consent, &mut text),
                Event::Account(change) => show_account(change, &mut text),
                Event::Template(change) => show_template(change, &mut text),
                Event::Notice { field } => writeln!(text, " notice {field}").unwrap(),
            }
        }
        part.bad.iter().for_each(|bad| writeln!(text, " bad {bad}").unwrap());
    }
    parsed.bad.iter().for_each(|bad| writeln!(text, "bad {bad}").unwrap());
    text
}

fn show_route(route: &RouteKey, text: &mut String) {
    let word = match route {
        RouteKey::PhoneNumberId(_) => "number",
        RouteKey::BusinessAccountId(_) => "account",
        RouteKey::PageId(_) => "page",
        RouteKey::InstagramAccountId(_) => "instagram",
        RouteKey::TwilioSender(_) => "twilio",
    };
    write!(text, "{word} {}", route.external_id()).unwrap();
}

fn show_message(message: &InboundMessage, text: &mut String) {
    let InboundMessage { provider_message_id, at, sender, kind, .. } = message;
    let Person { aliases, name, username } = sender;
    write!(
        text,
        " message {provider_message_id} {} at {} from{}",
        kind.as_str(),
        show_time(*at),
        show_aliases(aliases)
    )
    .unwrap();
    name.iter().for_each(|name| write!(text, " {name:?}").unwrap());
    username.iter().for_each(|name| write!(text, " @{name}").unwrap());
    text.push('\n');
    show_content(message.text.as_deref(), &message.media, text);
    if !message.new_aliases.is_empty() {
        writeln!(text, "  also{}", show_aliases(&message.new_aliases)).unwrap();
    }
    message.refers_to.iter().for_each(|id| writeln!(text, "  refers to {id}").unwrap());
    message.group_id.iter().for_each(|id| writeln!(text, "  in group {id}").unwrap());
    show_standby(message.raw.get(), text);
}

fn show_echo(echo: &Echo, text: &mut String) {
    let Echo { provider_message_id, at, recipient, kind, .. } = echo;
    let Person { aliases, name, username } = recipient;
    write!(text, " echo {provider_message_id} {} at {} to{}", kind.as_str(), show_time(*at), show_aliases(aliases))
        .unwrap();
    name.iter().for_each(|name| write!(text, " {name:?}").unwrap());
    username.iter().for_each(|name| write!(text, " @{name}").unwrap());
    echo.token.iter().for_each(|token| show_token(token, text));
    text.push('\n');
    show_content(echo.text.as_deref(), &echo.media, text);
    echo.refers_to.iter().for_each(|id| writeln!(text, "  refers to {id}").unwrap());
    show_standby(echo.raw.get(), text);
}

fn show_content(words: Option<&str>, media: &[MediaRef], text: &mut String) {
    words.iter().for_each(|words| writeln!(text, "  text {words:?}").unwrap());
    for MediaRef { provider_media_id, url, mime_type, sha256, filename, caption, voice } in media {
        text.push_str("  media");
        provider_media_id.iter().for_each(|id| write!(text, " id {id}").unwrap());
        mime_type.iter().for_each(|mime_type| write!(text, " {mime_type}").unwrap());
        sha256.iter().for_each(|digest| write!(text, " sha256 {digest}").unwrap());
        url.iter().for_each(|url| write!(text, " url {url}").unwrap());
        filename.iter().for_each(|name| write!(text, " file {name:?}").unwrap());
        caption.iter().for_each(|caption| write!(text, " caption {caption:?}").unwrap());
        text.push_str(if *voice { " voice\n" } else { "\n" });
    }
}

fn show_standby(raw: &str, text: &mut String) {
    let raw: serde_json::Value = serde_json::from_str(raw).expect("raw is JSON");
    if raw["standby"] == true {
        text.push_str("  on standby\n");
    }
}

fn show_aliases(aliases: &[Alias]) -> String {
    assert!(aliases.is_sorted_by(|a, b| a.kind < b.kind), "strongest first, no kind twice: {aliases:?}");
    aliases.iter().map(|alias| format!(" {}", alias.value)).collect()
}

/// In seconds, with milliseconds where there are some.
fn show_time(at: DateTime<Utc>) -> String {
    match at.timestamp_subsec_millis() {
        0 => at.timestamp().to_string(),
        milliseconds => format!("{}.{milliseconds:03}", at.timestamp()),
    }
}

fn show_token(token: &SendToken, text: &mut String) {
    write!(text, " token {}", token.encode()).unwrap();
}

fn show_status(status: &StatusReport, text: &mut String) {
    let StatusReport { provider_message_id, state, status, at, code, reason, token } = status;
    write!(text, " status {provider_message_id} {state} ({status}) at {}", show_time(*at)).unwrap();
    code.iter().for_each(|code| write!(text, " code {code}").unwrap());
    reason.iter().for_each(|reason| write!(text, ": {reason}").unwrap());
    token.iter().for_each(|token| show_token(token, text));
    text.push('\n');
}

fn show_watermark(watermark: &Watermark, text: &mut String) {
    let Watermark { person, state, through, at } = watermark;
    let through = match through {
        Through::Time(time) => show_time(*time),
        Through::Message(id) => format!("message {id}"),
    };
    let person = show_aliases(&person.aliases);
    writeln!(text, " {state} through {through} at {} by{person}", show_time(*at)).unwrap();
}

fn show_consent(change: &ConsentChange, text: &mut String) {
    let ConsentChange { person, purpose, consent, source, at } = change;
    let (purpose, consent, person) = (purpose.as_str(), consent.as_str(), show_aliases(&person.aliases));
    writeln!(text, " consent {purpose} {consent} ({source}) at {} by{person}", show_time(*at)).unwrap();
}

fn show_account(change: &AccountChange, text: &mut String) {
    let AccountChange { change, display_address, field, at } = change;
    let change = match change {
        AccountNews::Quality(quality) => format!("quality {quality}"),
        AccountNews::Throughput(rate) => format!("throughput {rate}"),
        AccountNews::MessagingLimit(Some(people)) => format!("limit {people}"),
        AccountNews::MessagingLimit(None) => "limit none".to_owned(),
        AccountNews::Down { code, reason } => format!("down {code}: {reason}"),
        AccountNews::Up => "up".to_owned(),
        AccountNews::Alert { code, reason } => format!("alert {code}: {reason}"),
    };
    write!(text, " {change} ({field}) at {}", show_time(*at)).unwrap();
    display_address.iter().for_each(|address| write!(text, " for {address}").unwrap());
    text.push('\n');
}

fn show_template(change: &TemplateChange, text: &mut String) {
    let TemplateChange { name, language, status, quality, category, reason, field, at } = change;
    write!(text, " template {name} {language}").unwrap();
    for (word, value) in [("status", status), ("quality", quality), ("category", category)] {
        value.iter().for_each(|value| write!(text, " {word} {value}").unwrap());
    }
    writeln!(text, " ({field}) at {}", show_time(*at)).unwrap();
    reason.iter().for_each(|reason| writeln!(text, "  because {reason:?}").unwrap());
}
