//! The fixtures, and what bounds and refuses a webhook as a whole.

use super::*;
use crate::providers::testing::{self, received_at, show};
use std::{fs, path::PathBuf};

#[test]
fn every_documented_body_says_what_a_person_would_say_it_says() {
    testing::assert_all_as_expected("whatsapp", 40, parse);
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
fn who_is_not_reached_because_they_stopped_marketing_has_opted_out() {
    let status = |code: u32| {
        format!(
            r#"{{"object":"whatsapp_business_account","entry":[{{"id":"1","changes":[{{"field":"messages","value":{{"metadata":{{"phone_number_id":"2"}},
            "statuses":[{{"id":"wamid.131050","status":"failed","timestamp":"1794830400","recipient_id":"15557770142","errors":[{{"code":{code}}}]}}]}}}}]}}]}}"#
        )
    };
    let told = |code| {
        let parsed = parse(status(code).as_bytes(), received_at()).unwrap();
        parsed.parts[0].events.iter().filter(|event| matches!(event, Event::Consent(_))).count()
    };
    assert_eq!((told(131_050), told(131_049)), (1, 0));
}

#[test]
fn elements_without_end_are_counted_not_read() {
    let entries = vec!["7"; 30_000].join(",");
    let body = format!(r#"{{"object":"whatsapp_business_account","entry":[{entries}]}}"#);
    let parsed = parse(body.as_bytes(), received_at()).unwrap();
    assert_eq!(parsed.bad.len(), 20_001);
    assert_eq!(parsed.bad[20_000].reason, "has 10000 elements more than the 20000 that are read");
}
