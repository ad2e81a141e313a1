//! Every `fixtures/<name>.form` (or `.json`) is a webhook's body, built from the contract, and `<name>.query` the query it came
//! with; `<name>.txt` beside it says what is to be read from it, written by hand.

use super::*;
use crate::domain::{
    messages::MediaRef,
    people::{Alias, AliasKind},
};
use std::{fmt::Write, fs, path::PathBuf};

pub(super) fn received_at() -> DateTime<Utc> {
    DateTime::from_timestamp(1_794_831_000, 0).unwrap()
}

/// A webhook and what it says.
pub(super) struct Fixture {
    pub(super) name: String,
    pub(super) body: Vec<u8>,
    pub(super) query: Option<String>,
    pub(super) expected: String,
}

pub(super) fn fixtures() -> Vec<Fixture> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/providers/twilio/fixtures");
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "form" || extension == "json"));
    paths.sort();
    let fixture = |path: PathBuf| Fixture {
        name: path.file_stem().unwrap().to_string_lossy().into_owned(),
        body: fs::read(&path).unwrap(),
        query: fs::read_to_string(path.with_extension("query")).ok(),
        expected: fs::read_to_string(path.with_extension("txt")).unwrap(),
    };
    paths.into_iter().map(fixture).collect()
}

#[test]
fn every_documented_body_says_what_a_person_would_say_it_says() {
    let fixtures = fixtures();
    assert!(fixtures.len() >= 20);
    let mut differing = String::new();
    for Fixture { name, body, query, expected } in fixtures {
        let read = show(&parse(&body, query.as_deref(), received_at()).unwrap());
        if read.trim() != expected.trim() {
            writeln!(differing, "--- {name}, expected:\n{expected}--- read:\n{read}").unwrap();
        }
    }
    assert!(differing.is_empty(), "{differing}");
}

#[test]
fn all_parameters_are_kept_also_those_that_nobody_knows() {
    let body = "MessageSid=SM1&From=%2B15035550142&To=%2B15035550199&NumMedia=0&Body=a%00b%1bc&New%00s=%22x%22&New=1&New=2&Empty=";
    let parsed = parse(body.as_bytes(), Some("mid=7"), received_at()).unwrap();
    let Event::Message(message) = &parsed.parts[0].events[0] else { panic!("a message") };
    assert_eq!(
        message.raw.get(),
        r#"{"Body":"abc","Empty":"","From":"+15035550142","MessageSid":"SM1","New":["1","2"],"News":"\"x\"","NumMedia":"0","To":"+15035550199"}"#
    );
}

#[test]
fn a_form_may_begin_as_json_does() {
    let parsed = parse(b"{=&MessageSid=SM1&From=%2B15035550142&To=24246&Body=x", None, received_at()).unwrap();
    assert_eq!(show(&parsed), "sender 24246\n message SM1 text from +15035550142\n  text \"x\"\n");
}

#[test]
fn what_names_no_sender_is_refused_as_a_whole() {
    for (body, query) in [
        ("", None),
        ("", Some("mid=x")),
        ("x", None),
        ("{", None),
        ("{}", None),
        ("[]", None),
        ("MessageSid=SM1&From=%2B15035550142&Body=x", None),
        ("MessageStatus=sent&MessageSid=SM1&To=%2B15035550142", None),
    ] {
        assert!(parse(body.as_bytes(), query, received_at()).is_err(), "{body}");
    }
}

#[test]
fn parameters_without_end_are_counted_not_read() {
    let many: String = (0..2000).map(|n| format!("&p{n}=")).collect();
    let body = format!("MessageSid=SM1&From=%2B15035550142&To=%2B15035550199&Body=x{many}");
    let parsed = parse(body.as_bytes(), None, received_at()).unwrap();
    assert!(show(&parsed).contains(" message SM1 text"));
    assert_eq!(parsed.parts[0].bad[0].reason, "1004 more than the 1000 that are read");
}

/// As the expectations are written.
pub(super) fn show(parsed: &Parsed) -> String {
    let mut text = String::new();
    assert!(parsed.bad.is_empty());
    for Part { route, fallback, events, bad } in &parsed.parts {
        let RouteKey::TwilioSender(sender) = route else { panic!("Twilio has no {route:?}") };
        write!(text, "sender {sender}").unwrap();
        fallback.iter().for_each(|other| write!(text, " or {}", other.external_id()).unwrap());
        text.push('\n');
        for event in events {
            match event {
                Event::Message(message) => show_message(message, &mut text),
                Event::Status(status) => show_status(status, &mut text),
                Event::Consent(ConsentChange { person, purpose, consent, source, at }) => {
                    assert_eq!(*at, received_at());
                    let (purpose, consent) = (purpose.as_str(), consent.as_str());
                    writeln!(text, " {consent} {purpose} by {source}:{}", show_aliases(&person.aliases)).unwrap();
                }
                Event::Notice { field } => writeln!(text, " notice {field}").unwrap(),
                other => panic!("Twilio has no {other:?}"),
            }
        }
        bad.iter().for_each(|bad| writeln!(text, " bad {bad}").unwrap());
    }
    text
}

fn show_message(message: &InboundMessage, text: &mut String) {
    let InboundMessage { provider_message_id, at, sender, kind, new_aliases, group_id, .. } = message;
    assert!(*at == received_at() && new_aliases.is_empty() && group_id.is_none() && sender.username.is_none());
    write!(text, " message {provider_message_id} {} from{}", kind.as_str(), show_aliases(&sender.aliases)).unwrap();
    sender.name.iter().for_each(|name| write!(text, " {name:?}").unwrap());
    text.push('\n');
    message.text.iter().for_each(|words| writeln!(text, "  text {words:?}").unwrap());
    for MediaRef { provider_media_id, url, mime_type, caption, .. } in &message.media {
        text.push_str("  media");
        [provider_media_id, mime_type, url].into_iter().flatten().for_each(|word| write!(text, " {word}").unwrap());
        caption.iter().for_each(|caption| write!(text, " caption {caption:?}").unwrap());
        text.push('\n');
    }
    message.refers_to.iter().for_each(|id| writeln!(text, "  refers to {id}").unwrap());
}

fn show_aliases(aliases: &[Alias]) -> String {
    assert!(aliases.is_sorted_by(|a, b| a.kind < b.kind), "strongest first, no kind twice: {aliases:?}");
    let show = |Alias { kind, value }: &Alias| match kind {
        AliasKind::SmsAddress => format!(" sms:{value}"),
        _ => format!(" {value}"),
    };
    aliases.iter().map(show).collect()
}

fn show_status(status: &StatusReport, text: &mut String) {
    let StatusReport { provider_message_id, state, status, at, code, reason, token } = status;
    assert_eq!(*at, received_at());
    write!(text, " status {provider_message_id} {state} ({status})").unwrap();
    code.iter().for_each(|code| write!(text, " code {code}").unwrap());
    reason.iter().for_each(|reason| write!(text, ": {reason}").unwrap());
    token.iter().for_each(|token| write!(text, " token {}", token.encode()).unwrap());
    text.push('\n');
}
