//! Every `fixtures/<name>.json` is a webhook, built from the contract; `<name>.txt` beside it says what is to be read from
//! it, written by hand. `received_at` is ten minutes after the fixtures' first time.

use super::*;
use crate::domain::{
    events::InboundMessage,
    messages::MediaRef,
    people::{Alias, Person},
};
use std::{collections::BTreeMap, fmt::Write, fs, path::PathBuf};

pub(super) fn received_at() -> DateTime<Utc> {
    DateTime::from_timestamp(1_794_831_000, 0).unwrap()
}

/// The fixtures by name: body and expectation.
pub(in crate::providers::whatsapp) fn fixtures() -> BTreeMap<String, (Vec<u8>, String)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/providers/whatsapp/fixtures");
    let bodies = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    let bodies = bodies.filter(|path| path.extension().is_some_and(|extension| extension == "json"));
    bodies
        .map(|path| {
            let expected = fs::read_to_string(path.with_extension("txt")).unwrap();
            (path.file_stem().unwrap().to_string_lossy().into_owned(), (fs::read(&path).unwrap(), expected))
        })
        .collect()
}

#[test]
fn every_documented_body_says_what_a_person_would_say_it_says() {
    let fixtures = fixtures();
    assert!(fixtures.len() >= 40);
    let mut differing = String::new();
    for (name, (body, expected)) in fixtures {
        let read = show(&parse(&body, received_at()).unwrap());
        if read.trim() != expected.trim() {
            writeln!(differing, "--- {name}, expected:\n{expected}--- read:\n{read}").unwrap();
        }
    }
    assert!(differing.is_empty(), "{differing}");
}

#[test]
fn a_sound_element_is_kept_as_it_came() {
    let body = fs::read_to_string(
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/providers/whatsapp/fixtures/text_escaped.json"),
    );
    let body = body.unwrap();
    let parsed = parse(body.as_bytes(), received_at()).unwrap();
    let Event::Message(message) = &parsed.parts[0].events[0] else { panic!("a message") };
    assert!(message.raw.get().starts_with('{') && body.contains(message.raw.get()));
    assert!(message.raw.get().contains(r"\ud83d\udc4d"));
}

#[test]
fn what_is_bad_is_kept_for_the_account_it_is_for_even_if_nothing_else_is() {
    let body = r#"{"object":"whatsapp_business_account","entry":[{"id":"1","changes":[
        {"field":"messages","value":{"metadata":{"phone_number_id":"2"},"messages":[7,{"id":""}]}},
        {"field":"messages","value":{"metadata":{"phone_number_id":"3"},"statuses":[]}},
        {"field":"messages","value":{"metadata":{"phone_number_id":"4"},"statuses":{}}},
        {"field":"messages","value":7}]}]}"#;
    let expected = "number 2\n bad entry[0].changes[0].value.messages[0]: is no object\n \
        bad entry[0].changes[0].value.messages[1]: has no usable id\n\
        number 4\n bad entry[0].changes[2].value.statuses: is not a list\n\
        bad entry[0].changes[3]: has no value\n";
    assert_eq!(show(&parse(body.as_bytes(), received_at()).unwrap()), expected);
}

#[test]
fn what_is_no_webhook_of_whatsapps_is_refused_as_a_whole() {
    for body in [
        "",
        "null",
        "7",
        "[]",
        r#""text""#,
        "{",
        "{}",
        r#"{"object":"page","entry":[]}"#,
        r#"{"object":"whatsapp_business_account"}"#,
        r#"{"object":"whatsapp_business_account","entry":{}}"#,
        r#"{"object":"whatsapp_business_account","entry":null}"#,
        r#"{"object":"whatsapp_business_account","entry":[]"#,
        r#"{"object":"whatsapp_business_account","entry":[]}{}"#,
        r#"{"object":["whatsapp_business_account"],"entry":[]}"#,
    ] {
        assert!(parse(body.as_bytes(), received_at()).is_err(), "{body}");
    }
}

#[test]
fn a_text_without_end_is_cut_but_kept_in_the_element() {
    let long = "é".repeat(100_000);
    let body = format!(
        r#"{{"object":"whatsapp_business_account","entry":[{{"id":"1","changes":[{{"field":"messages","value":{{"metadata":{{"phone_number_id":"2"}},"messages":[{{"id":"w","from":"15557770142","type":"text","text":{{"body":"{long}"}}}}]}}}}]}}]}}"#
    );
    let parsed = parse(body.as_bytes(), received_at()).unwrap();
    let Event::Message(message) = &parsed.parts[0].events[0] else { panic!("a message") };
    assert_eq!(message.text.as_deref().map(str::len), Some(64 * 1024));
    assert!(message.raw.get().contains(&long));
}

#[test]
fn bytes_that_are_no_text_spoil_only_their_characters() {
    let body = b"{\"object\":\"whatsapp_business_account\",\"entry\":[{\"id\":\"1\",\"changes\":[{\"field\":\"messages\",\"value\":{\"metadata\":{\"phone_number_id\":\"2\"},\
        \"messages\":[{\"id\":\"w1\",\"from\":\"15557770142\",\"timestamp\":1794830400,\"type\":\"text\",\"text\":{\"body\":\"a\xff\xfe\x00b\"}},\
        {\"id\":\"w2\",\"from\":\"15557770142\",\"timestamp\":1794830400,\"type\":\"text\",\"text\":{\"body\":\"sound\"}}]}}]}]}";
    let expected = "number 2\n message w1 text at 1794830400 from 15557770142 +15557770142\n  text \"a\u{FFFD}\u{FFFD}\u{FFFD}b\"\n \
        message w2 text at 1794830400 from 15557770142 +15557770142\n  text \"sound\"\n";
    assert_eq!(show(&parse(body, received_at()).unwrap()), expected);
}

#[test]
fn elements_without_end_are_counted_not_read() {
    let entries = vec!["7"; 30_000].join(",");
    let body = format!(r#"{{"object":"whatsapp_business_account","entry":[{entries}]}}"#);
    let parsed = parse(body.as_bytes(), received_at()).unwrap();
    assert_eq!(parsed.bad.len(), 20_001);
    assert_eq!(parsed.bad[20_000].reason, "has 10000 elements more than the 20000 that are read");
}

/// As the expectations are written.
pub(super) fn show(parsed: &Parsed) -> String {
    let mut text = String::new();
    for part in &parsed.parts {
        match &part.route {
            RouteKey::PhoneNumberId(id) => writeln!(text, "number {id}").unwrap(),
            RouteKey::BusinessAccountId(id) => writeln!(text, "account {id}").unwrap(),
            other => unreachable!("WhatsApp has no {other:?}"),
        }
        for event in &part.events {
            match event {
                Event::Message(message) => show_message(message, &mut text),
                Event::Status(status) => show_status(status, &mut text),
                Event::Notice { field } => writeln!(text, " notice {field}").unwrap(),
                other => writeln!(text, " {other:?}").unwrap(),
            }
        }
        part.bad.iter().for_each(|bad| writeln!(text, " bad {bad}").unwrap());
    }
    parsed.bad.iter().for_each(|bad| writeln!(text, "bad {bad}").unwrap());
    text
}

fn show_message(message: &InboundMessage, text: &mut String) {
    let InboundMessage { provider_message_id, at, sender, kind, .. } = message;
    let Person { aliases, name, username } = sender;
    write!(
        text,
        " message {provider_message_id} {} at {} from{}",
        kind.as_str(),
        at.timestamp(),
        show_aliases(aliases)
    )
    .unwrap();
    name.iter().for_each(|name| write!(text, " {name:?}").unwrap());
    username.iter().for_each(|name| write!(text, " @{name}").unwrap());
    text.push('\n');
    message.text.iter().for_each(|words| writeln!(text, "  text {words:?}").unwrap());
    for MediaRef { provider_media_id, url, mime_type, sha256, filename, caption, voice } in &message.media {
        text.push_str("  media");
        provider_media_id.iter().for_each(|id| write!(text, " id {id}").unwrap());
        mime_type.iter().for_each(|mime_type| write!(text, " {mime_type}").unwrap());
        sha256.iter().for_each(|digest| write!(text, " sha256 {digest}").unwrap());
        url.iter().for_each(|url| write!(text, " url {url}").unwrap());
        filename.iter().for_each(|name| write!(text, " file {name:?}").unwrap());
        caption.iter().for_each(|caption| write!(text, " caption {caption:?}").unwrap());
        text.push_str(if *voice { " voice\n" } else { "\n" });
    }
    if !message.new_aliases.is_empty() {
        writeln!(text, "  also{}", show_aliases(&message.new_aliases)).unwrap();
    }
    message.refers_to.iter().for_each(|id| writeln!(text, "  refers to {id}").unwrap());
    message.group_id.iter().for_each(|id| writeln!(text, "  in group {id}").unwrap());
}

fn show_aliases(aliases: &[Alias]) -> String {
    assert!(aliases.is_sorted_by(|a, b| a.kind < b.kind), "strongest first, no kind twice: {aliases:?}");
    aliases.iter().map(|alias| format!(" {}", alias.value)).collect()
}

fn show_status(status: &StatusReport, text: &mut String) {
    let StatusReport { provider_message_id, state, status, at, code, reason, token } = status;
    write!(text, " status {provider_message_id} {state} ({status}) at {}", at.timestamp()).unwrap();
    code.iter().for_each(|code| write!(text, " code {code}").unwrap());
    reason.iter().for_each(|reason| write!(text, ": {reason}").unwrap());
    token.iter().for_each(|token| write!(text, " token {}", token.encode()).unwrap());
    text.push('\n');
}
