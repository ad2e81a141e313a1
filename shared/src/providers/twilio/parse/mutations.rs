//! The fixtures, damaged at random: nothing makes it panic, a damaged parameter leaves the message there, and what is kept is fit
//! for `jsonb`. `PROPTEST_CASES` raises the number of cases.

use super::{
    tests::{Fixture, fixtures, received_at, show},
    *,
};
use proptest::{prelude::*, sample::select};
use std::sync::LazyLock;

static FIXTURES: LazyLock<Vec<Fixture>> = LazyLock::new(fixtures);

/// What makes a message, or a report: what else comes with them may be anything.
const ESSENTIAL: &[&str] =
    &["MessageSid", "SmsMessageSid", "SmsSid", "From", "To", "SmsStatus", "MessageStatus", "MessagingServiceSid"];

fn odd() -> impl Strategy<Value = String> {
    let known = vec![
        "",
        "+",
        "%",
        "%0",
        "%00",
        "%ff",
        "%ed%a0%80",
        "%f0%9f%91%8d",
        "a%00b",
        "0",
        "-1",
        "99999999999999999999",
        "1e999",
        "STOP",
        "received",
        "read",
        "{",
        "[]",
        "%7B%22data%22%3A%7B%22context%22%3A%7B%22ProfileName%22%3A%22%5Cu0000%22%7D%7D%7D",
        "whatsapp%3A",
        "whatsapp%3A%2B1",
        "reaction",
        "order",
        "sticker",
        "interactive",
        "text%2Fvcard",
        "image%2F",
        "=",
        "%26",
        "%3D",
    ];
    prop_oneof![
        4 => select(known).prop_map(str::to_owned),
        1 => select(vec![600, 3000, 70_000]).prop_map(|length| "%C3%A9".repeat(length)),
        2 => "[ -~]{0,12}",
    ]
}

/// What is kept can be stored: no control character that has no business there, ids that are ids, and `raw` is JSON that
/// Postgres takes.
fn check_storable(parsed: &Parsed) {
    let fit =
        |text: &str| assert!(!text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t')), "{text:?}");
    for part in &parsed.parts {
        for route in [Some(&part.route), part.fallback.as_ref()].into_iter().flatten() {
            assert!((1..=512).contains(&route.external_id().len()));
            fit(route.external_id());
        }
        for event in &part.events {
            match event {
                Event::Message(message) => {
                    let Ok(Value::Object(raw)) = serde_json::from_str(message.raw.get()) else { panic!("an object") };
                    raw.iter().for_each(|(name, value)| {
                        fit(name);
                        let values = value.as_array().map_or_else(|| vec![value], |values| values.iter().collect());
                        values.into_iter().for_each(|value| fit(value.as_str().expect("a string")));
                    });
                    assert!(
                        (1..=512).contains(&message.provider_message_id.len()) && !message.sender.aliases.is_empty()
                    );
                    assert!(message.text.iter().all(|text| !text.trim().is_empty() && text.len() <= 64 * 1024));
                    message.text.iter().chain(&message.sender.name).for_each(|text| fit(text));
                    message.sender.aliases.iter().for_each(|alias| fit(&alias.value));
                    assert!(message.media.len() <= 50 && message.media.iter().all(|file| file.url.is_some()));
                }
                Event::Status(status) => {
                    assert!((1..=512).contains(&status.provider_message_id.len()));
                    assert_eq!(status.reason.is_some(), status.state == SendState::Failed);
                    [&status.code, &status.reason].into_iter().flatten().for_each(|text| fit(text));
                }
                _ => {}
            }
        }
    }
}

fn damaged(body: &str, damages: &[(prop::sample::Index, u8, String)]) -> String {
    let mut pairs: Vec<String> = body.split('&').map(str::to_owned).collect();
    for (at, how, value) in damages {
        let at = at.index(pairs.len());
        let name = pairs[at].split('=').next().unwrap_or_default().to_owned();
        if ESSENTIAL.contains(&&*name) {
            continue;
        }
        match how % 4 {
            0 => pairs[at] = format!("{name}={value}"),
            1 => drop(pairs.remove(at)),
            2 => pairs.insert(at, format!("{name}={value}")),
            _ => pairs.insert(at, format!("{value}x={value}")),
        }
    }
    pairs.join("&")
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_damaged_parameter_leaves_the_message_there(
        index in (0..FIXTURES.len()).prop_filter("a form", |index| FIXTURES[*index].body.contains(&b'=')
            && !FIXTURES[*index].body.starts_with(b"{")),
        damages in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), odd()), 1..5),
    ) {
        let Fixture { body, query, expected, .. } = &FIXTURES[index];
        let body = damaged(str::from_utf8(body).unwrap(), &damages);
        let parsed = parse(body.as_bytes(), query.as_deref(), received_at()).expect("it still names a sender");
        check_storable(&parsed);
        let first = |text: &str| text.lines().nth(1).and_then(|line| line.split_whitespace().nth(1).map(str::to_owned));
        let shown = show(&parsed);
        prop_assert_eq!(first(&shown), first(expected), "{}", shown);
    }

    #[test]
    fn no_bytes_make_it_panic_or_keep_what_cannot_be_stored(
        index in 0..FIXTURES.len(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), prop::collection::vec(any::<u8>(), 0..4)), 0..6),
        end in any::<prop::sample::Index>(),
        truncate in any::<bool>(),
        query in prop_oneof![Just(None), prop::collection::vec(any::<u8>(), 0..40).prop_map(Some)],
    ) {
        let mut body = FIXTURES[index].body.clone();
        for (at, bytes) in changes {
            let at = at.index(body.len() + 1);
            body.splice(at..(at + 1).min(body.len()), bytes);
        }
        if truncate {
            body.truncate(end.index(body.len() + 1));
        }
        let query = query.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).or(FIXTURES[index].query.clone());
        if let Ok(parsed) = parse(&body, query.as_deref(), received_at()) {
            check_storable(&parsed);
        }
    }
}
