//! The fixtures, what bounds and refuses a webhook as a whole, and what each tenant sees of it.

use super::*;
use crate::{
    domain::events::Event,
    providers::{
        BadSignature,
        testing::{
            self,
            mutations::{Subject, mutation_tests},
            received_at, show,
        },
    },
};
use serde_json::{Value, json};

const SUBJECT: Subject = Subject {
    provider: "messenger",
    parse,
    excerpt,
    entry: || sound("2", "m_SOUND"),
    entry_leads_to: " message m_SOUND text at 1794830400 from 999\n  text \"here\"\n",
    beside: |body| {
        let elements = body.pointer_mut("/entry/0/messaging").and_then(Value::as_array_mut);
        elements.map(|elements| elements.push(sound("2", "m_BESIDE")["messaging"][0].take())).is_some()
    },
    beside_leads_to: " message m_BESIDE text at 1794830400 from 999\n  text \"here\"\n",
    told: testing::meta_told,
    holes: || {
        let hole = json!({"sender":{"id":"998"},"recipient":{"id":"2"},"timestamp":1_794_830_400_000_u64,
            "message":{"mid":"m_HOLE","text":"HOLE","key HOLE":"HOLE"}});
        json!({"object":"page","entry":[{"id":"2","messaging":[hole, sound("2", "m_BESIDE")["messaging"][0].take()]}]})
    },
    holes_lead_to: " message m_HOLE ",
};

mutation_tests!(SUBJECT);

fn sound(page: &str, mid: &str) -> Value {
    json!({"id":page,"messaging":[{"sender":{"id":"999"},"recipient":{"id":page},"timestamp":1_794_830_400_000_u64,
        "message":{"mid":mid,"text":"here"}}]})
}

#[test]
fn every_documented_body_says_what_a_person_would_say_it_says() {
    testing::assert_all_as_expected("messenger", 20, parse);
}

#[test]
fn the_documented_signature_is_right() {
    let body = br#"{"object":"page","entry":[{"id":"1","time":1,"messaging":[{"message":{"mid":"m1","text":"\u00e5\u00e9 ok"}}]}]}"#;
    let signature = "sha256=4f50b2fd597051daf70777dec87cbfa54cc8b41d7dc75c182b7432c5044e0e18";
    assert_eq!(verify(b"stand_in_app_secret_01", Some(signature), body), Ok(()));
    assert_eq!(verify(b"another_secret", Some(signature), body), Err(BadSignature::Wrong));
}

#[test]
fn what_is_no_webhook_of_messengers_is_refused_as_a_whole() {
    for body in [
        "",
        "null",
        "[]",
        "{",
        "{}",
        r#"{"object":"instagram","entry":[]}"#,
        r#"{"object":"whatsapp_business_account","entry":[]}"#,
        r#"{"object":"page"}"#,
        r#"{"object":"page","entry":{}}"#,
        r#"{"object":"page","entry":[]"#,
        r#"{"object":"page","entry":[]}{}"#,
    ] {
        assert!(parse(body.as_bytes(), received_at()).is_err(), "{body}");
    }
}

#[test]
fn a_text_without_end_is_cut_but_kept_in_the_element() {
    let long = "é".repeat(100_000);
    let body = json!({"object":"page","entry":[{"id":"1","messaging":[
        {"sender":{"id":"7"},"recipient":{"id":"1"},"message":{"mid":"m","text":long}}]}]});
    let parsed = parse(body.to_string().as_bytes(), received_at()).unwrap();
    let Event::Message(message) = &parsed.parts[0].events[0] else { panic!("a message") };
    assert_eq!(message.text.as_deref().map(str::len), Some(64 * 1024));
    assert!(message.raw.get().contains(&long));
}

#[test]
fn elements_without_end_are_counted_not_read() {
    let mids: Vec<_> = (0..30_000).map(|mid| mid.to_string()).collect();
    let body = json!({"object":"page","entry":[{"id":"1","messaging":[
        {"sender":{"id":"7"},"recipient":{"id":"1"},"delivery":{"mids":mids}}]}]});
    let parsed = parse(body.to_string().as_bytes(), received_at()).unwrap();
    assert_eq!(parsed.parts[0].events.len(), 20_000);
    assert_eq!(parsed.bad[0].reason, "has 10000 elements more than the 20000 that are read");
}

#[test]
fn an_element_is_kept_as_it_came_and_marked_only_on_standby() {
    let element = r#"{ "sender": {"id":"7"}, "recipient": {"id":"1"}, "message": {"mid":"m","text":"\u00e9","x":{}} }"#;
    for (list, kept) in [
        ("messaging", element.to_owned()),
        ("standby", format!("{},\"standby\":true}}", element.strip_suffix('}').unwrap())),
    ] {
        let body = format!(r#"{{"object":"page","entry":[{{"id":"1","{list}":[{element}]}}]}}"#);
        let parsed = parse(body.as_bytes(), received_at()).unwrap();
        let Event::Message(message) = &parsed.parts[0].events[0] else { panic!("a message") };
        assert_eq!(message.raw.get(), kept);
    }
}

fn page(id: &str) -> RouteKey {
    RouteKey::PageId(id.to_owned())
}

#[test]
fn each_tenant_sees_its_own_elements_and_no_others() {
    let element = |page: &str, mid: &str| sound(page, mid)["messaging"][0].take();
    let feed = json!({"field":"feed","value":{"item":"comment"}});
    let body = json!({"object":"page","entry":[
        {"id":"1","time":7,"messaging":[element("1", "a"), 7],"changes":[feed]},
        {"id":"2","time":8,"messaging":[element("2", "b")],"standby":[element("2", "c")]},
        {"id":"3","field":"inbox_labels","value":{"label":7}},
        {"messaging":[element("1", "d"), element("2", "e")]},
        "nothing",
    ]});
    let of = |ours: &[RouteKey]| -> Value {
        let excerpt = excerpt(body.to_string().as_bytes(), &ours.iter().cloned().collect());
        serde_json::from_str(&excerpt).unwrap()
    };
    let first = json!({"id":"1","time":7,"messaging":[element("1", "a"), 7],"changes":[feed]});
    assert_eq!(of(&[page("1")]), json!({"object":"page","entry":[first, {"messaging":[element("1", "d")]}]}));
    let second = json!({"id":"2","time":8,"messaging":[element("2", "b")],"standby":[element("2", "c")]});
    assert_eq!(of(&[page("2")]), json!({"object":"page","entry":[second, {"messaging":[element("2", "e")]}]}));
    assert_eq!(of(&[page("3")])["entry"], json!([body["entry"][2]]));
    assert_eq!(of(&[page("4")])["entry"], json!([]));
}

#[test]
fn what_names_two_accounts_is_shown_to_whoever_has_both() {
    let element = |page: &str| sound(page, page)["messaging"][0].take();
    let body =
        json!({"object":"page","entry":[{"id":"9","value":"x","messaging":[element("1"), element("2")]}]}).to_string();
    let of = |ours: &[RouteKey]| {
        let excerpt = excerpt(body.as_bytes(), &ours.iter().cloned().collect());
        serde_json::from_str::<Value>(&excerpt).unwrap()["entry"].take()
    };
    assert_eq!(of(&[page("9"), page("1")])[0]["messaging"], json!([element("1")]));
    assert_eq!(of(&[page("1")]), json!([]));
    assert_eq!(show(&parse(body.as_bytes(), received_at()).unwrap()).matches("page 9 or ").count(), 2);
}

#[test]
fn a_list_given_twice_is_no_way_to_see_what_is_anothers() {
    let element = |page: &str| sound(page, page)["messaging"][0].take();
    for (entry, shown) in [
        (r#"{"messaging":[1],"messaging":null}"#, json!({"messaging":[element("1")]})),
        (r#"{"messaging":null,"messaging":[1]}"#, json!({"messaging":[element("1")]})),
        (r#"{"id":"1","messaging":[],"messaging":7}"#, json!({"id":"1","messaging":7})),
        (r#"{"id":"1","messaging":7,"messaging":[]}"#, json!({"id":"1","messaging":7})),
    ] {
        let both = format!("[{},{}]", element("1"), element("2"));
        let body = format!(r#"{{"object":"page","entry":[{}]}}"#, entry.replace("[1]", &both));
        let excerpt = excerpt(body.as_bytes(), &HashSet::from([page("1")]));
        assert_eq!(serde_json::from_str::<Value>(&excerpt).unwrap()["entry"], json!([shown]), "{entry}");
    }
}
