//! The fixtures, and the same damaged.

use super::*;
use crate::providers::testing::{
    self,
    mutations::{Subject, mutation_tests},
    received_at,
};
use serde_json::{Value, json};

const SUBJECT: Subject = Subject {
    provider: "instagram",
    parse,
    excerpt,
    entry: || sound("mid_SOUND"),
    entry_leads_to: " message mid_SOUND text at 1794830400 from 999\n  text \"here\"\n",
    beside: |body| {
        let elements = body.pointer_mut("/entry/0/messaging").and_then(Value::as_array_mut);
        elements.map(|elements| elements.push(sound("mid_BESIDE")["messaging"][0].take())).is_some()
    },
    beside_leads_to: " message mid_BESIDE text at 1794830400 from 999\n  text \"here\"\n",
    told: testing::meta_told,
    holes: || {
        let hole = json!({"sender":{"id":"998"},"recipient":{"id":"2"},"timestamp":1_794_830_400_000_u64,
            "message":{"mid":"mid_HOLE","text":"HOLE","key HOLE":"HOLE"}});
        json!({"object":"instagram","entry":[{"id":"2","messaging":[hole, sound("mid_BESIDE")["messaging"][0].take()]}]})
    },
    holes_lead_to: " message mid_HOLE ",
};

mutation_tests!(SUBJECT);

fn sound(mid: &str) -> Value {
    json!({"id":"2","messaging":[{"sender":{"id":"999"},"recipient":{"id":"2"},"timestamp":1_794_830_400_000_u64,
        "message":{"mid":mid,"text":"here"}}]})
}

#[test]
fn every_documented_body_says_what_a_person_would_say_it_says() {
    testing::assert_all_as_expected("instagram", 20, parse);
}

#[test]
fn what_is_no_webhook_of_instagrams_is_refused_as_a_whole() {
    for body in ["", "{}", r#"{"object":"page","entry":[]}"#, r#"{"object":"instagram","entry":7}"#] {
        assert!(parse(body.as_bytes(), received_at()).is_err(), "{body}");
    }
}

#[test]
fn what_came_for_a_pages_id_is_shown_to_the_account_it_is_for() {
    let (body, _) = testing::fixtures("instagram").remove("page_in_entry").unwrap();
    let both = ["100900000000001", "17841400000000055"].map(|id| RouteKey::InstagramAccountId(id.to_owned()));
    let whole: Value = serde_json::from_slice(&body).unwrap();
    let shown: Value = serde_json::from_str(&excerpt(&body, &both.into_iter().collect())).unwrap();
    assert_eq!(shown, whole);
}
