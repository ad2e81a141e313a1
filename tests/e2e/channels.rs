//! Every channel, from a message in to what becomes of its answers: what each carries, what each code of its provider leads to, and
//! how it is found out what nobody knows.

use crate::{SOON, quick, until};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use shared::domain::ids::MessageId;
use std::{collections::BTreeMap, time::Duration};
use support::{
    channels::{self, ACCOUNT_SID, AUTH_TOKEN, Party, Stage, Way},
    fleet::Fleet,
    programs::Program,
    sandbox::{
        Api, How, Script, WABA,
        behaviour::{Span, UnknownMedia},
        ledger::{Answer, Verdict},
        template::Definition,
    },
};

/// What is said, by name; in the words of the API.
async fn everything(fleet: &Fleet, party: &Party, content_sid: &str) -> Vec<(&'static str, Value)> {
    let picture = json!({"id": fleet.upload("image/png").await});
    let page = json!({"id": fleet.upload("application/pdf").await});
    let film = json!({"id": fleet.upload("video/mp4").await});
    let recording = json!({"id": fleet.upload("audio/mp4").await});
    let sticker = json!({"id": fleet.upload("image/webp").await});
    let reply = json!({"type": "reply", "title": "Reserve", "id": "RESERVE"});
    let link = json!({"type": "url", "title": "See it", "url": "https://shop.example/k"});
    let sections = json!([{"title": "Kettles", "rows": [{"id": "k17", "title": "1.7 l", "description": "In stock"}]}]);
    let products = json!([{"title": "Teas", "product_ids": ["tea-green-100", "tea-black-100"]}]);
    let quick_replies =
        json!([{"type": "text", "title": "Small", "payload": "S"}, {"type": "phone_number"}, {"type": "email"}]);
    let card = json!({"title": "Kettle", "subtitle": "In stock", "image": picture, "url": "https://shop.example/k", "buttons": [reply]});
    let name = json!({"formatted_name": "Ada Quill", "first_name": "Ada"});
    let template = match party.way {
        Way::TwilioWhatsapp | Way::Sms => {
            json!({"type": "template", "name": content_sid, "language": "en", "variables": ["Mara"]})
        }
        _ => json!({"type": "template", "name": "order_sent", "language": "en_US", "variables": ["Mara", "8812"]}),
    };
    let mut all = vec![
        ("text", json!({"type": "text", "text": "It is. Ça va, 6 € 🙂"})),
        ("image", json!({"type": "image", "file": picture})),
        ("image by link", json!({"type": "image", "file": {"link": "https://files.shop.example/map.png"}})),
        ("video", json!({"type": "video", "file": film})),
        ("audio", json!({"type": "audio", "file": recording})),
        ("document", json!({"type": "document", "file": page, "filename": "list.pdf"})),
        ("sticker", json!({"type": "sticker", "file": sticker})),
        ("album", json!({"type": "album", "files": [picture, picture]})),
        (
            "location",
            json!({"type": "location", "latitude": 59.91, "longitude": 10.75, "name": "Shop", "address": "Torget 1"}),
        ),
        ("contacts", json!({"type": "contacts", "contacts": [{"name": name, "phones": [{"phone": "+15557770142"}]}]})),
        ("buttons", json!({"type": "buttons", "text": "Shall I?", "buttons": [reply]})),
        ("button that leads on", json!({"type": "buttons", "text": "Look", "buttons": [link]})),
        ("list", json!({"type": "list", "text": "Which?", "button": "See all", "sections": sections})),
        ("cards", json!({"type": "cards", "cards": [card, {"title": "Pot", "subtitle": "Sold out"}]})),
        ("quick replies", json!({"type": "text", "text": "Which size?", "quick_replies": quick_replies})),
        ("flow", json!({"type": "flow", "text": "Fill in", "flow_id": "1", "button": "Begin", "screen": "FIRST"})),
        ("product", json!({"type": "product", "catalog_id": "6", "product_id": "tea-green-100", "text": "This?"})),
        (
            "product list",
            json!({"type": "product_list", "text": "These", "header": "Teas", "catalog_id": "6", "sections": products}),
        ),
        ("catalog", json!({"type": "catalog", "text": "All we have"})),
        ("location request", json!({"type": "location_request", "text": "Where are you?"})),
        ("contact request", json!({"type": "contact_request", "text": "Your number?"})),
        ("heart", json!({"type": "heart"})),
        ("post", json!({"type": "post", "post_id": "18000000000000077"})),
        ("template", template),
    ];
    if let Some((theirs, _)) = party.theirs {
        all.push(("reaction", json!({"type": "reaction", "message_id": theirs, "emoji": "❤️"})));
        all.push(("answer", json!({"type": "text", "text": "Yes, it is.", "reply_to": theirs})));
    }
    all
}

/// What a channel carries, and how its provider calls that in the sandbox's ledger.
fn carried(way: Way) -> BTreeMap<&'static str, &'static str> {
    let of_meta = [
        ("text", "text"),
        ("answer", "text"),
        ("quick replies", "text"),
        ("image", "media"),
        ("image by link", "media"),
        ("video", "media"),
        ("audio", "media"),
        ("document", "media"),
        ("album", "media"),
        ("buttons", "template"),
        ("button that leads on", "template"),
        ("cards", "template"),
        ("reaction", "react"),
    ];
    let by_twilio = [
        ("text", "text"),
        ("image", "media"),
        ("image by link", "media"),
        ("video", "media"),
        ("audio", "media"),
        ("document", "media"),
        ("template", "template"),
    ];
    let mut carried = BTreeMap::new();
    match way {
        Way::Whatsapp => {
            for kind in [
                "text", "image", "video", "audio", "document", "sticker", "location", "contacts", "reaction",
                "template",
            ] {
                carried.insert(kind, kind);
            }
            for kind in [
                "buttons",
                "button that leads on",
                "list",
                "flow",
                "product",
                "product list",
                "catalog",
                "location request",
                "contact request",
            ] {
                carried.insert(kind, "interactive");
            }
            carried.extend([("answer", "text"), ("image by link", "image")]);
        }
        Way::Messenger => {
            carried.extend(of_meta);
            carried.extend([("template", "template")]);
        }
        Way::Instagram => {
            carried.extend(of_meta);
            carried.extend([("heart", "media"), ("post", "media")]);
        }
        Way::Sms => {
            carried.extend(by_twilio);
            carried.extend([("album", "media")]);
        }
        Way::TwilioWhatsapp => {
            carried.extend(by_twilio);
            carried.extend([("sticker", "media"), ("location", "location")]);
        }
        Way::Gateway => carried.extend([("text", "text")]),
    }
    carried
}

/// How far a message of this channel gets.
fn last_state(way: Way, kind: &str) -> &'static [&'static str] {
    match (way, kind) {
        (Way::Whatsapp, "reaction") => &["sent"],
        // It is told of no further, but is before what is read later.
        (Way::Messenger | Way::Instagram, "reaction") => &["sent", "delivered", "read"],
        (Way::Sms, _) => &["delivered"],
        (Way::Gateway, _) => &["sent"],
        _ => &["read"],
    }
}

/// An approved template, at each provider that has any; the SID of Twilio's.
async fn templates(fleet: &Fleet) -> String {
    for account in [WABA, Way::Messenger.account()] {
        let body = "Hi {{1}}, your order {{2}} is on its way.";
        let definition = Definition::text("order_sent", "en_US", "UTILITY", body);
        fleet.sandbox.registry().add_template(account, definition).unwrap();
    }
    let template = json!({"friendly_name": "parcel", "language": "en", "variables": {"1": "Mara"},
        "types": {"twilio/text": {"body": "Hi {{1}}, your parcel is on its way."}}});
    let request = fleet.http.post(format!("{}/v1/Content", fleet.sandbox.url())).json(&template);
    let answer = request.basic_auth(ACCOUNT_SID, Some(AUTH_TOKEN)).send().await.unwrap();
    let sid = answer.json::<Value>().await.unwrap()["sid"].as_str().unwrap().to_owned();
    assert!(fleet.sandbox.set_approval(&sid, "approved", ""));
    sid
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_channel_carries_what_it_can() {
    let fleet = channels::fleet().start().await;
    let stage = Stage::new(&fleet).await;
    let content_sid = templates(&fleet).await;
    let (mut accepted, mut wrong) = (Vec::new(), Vec::new());
    for way in Way::ALL {
        let party = stage.meet(&fleet, way, 1).await;
        let carried = carried(way);
        for (name, said) in everything(&fleet, &party, &content_sid).await {
            let (status, answer) = stage.say(&fleet, &party, &said).await;
            match (carried.get(name), status.as_u16()) {
                (Some(kind), 202) => {
                    let id: MessageId = answer["id"].as_str().unwrap().parse().unwrap();
                    accepted.push((way, name, *kind, id, party.person.clone()));
                }
                (None, 422) => {
                    let field = &answer["errors"][0]["field"];
                    let expected = match name {
                        "quick replies" => "quick_replies",
                        "answer" => "reply_to",
                        _ => "type",
                    };
                    if field != expected {
                        wrong.push(format!("{way:?}: {name} is refused for another field: {answer}"));
                    }
                }
                _ => wrong.push(format!("{way:?}: {name} is answered {status}: {answer}")),
            }
        }
    }
    for (way, name, kind, id, person) in accepted {
        let ends = last_state(way, name);
        let is_over = |message: &Value| {
            let state = message["send"]["state"].as_str().unwrap();
            ends.contains(&state)
                || matches!(state, "failed" | "held")
                || message["attempts"].as_array().unwrap().len() > 1
        };
        let message = fleet.message_when(id, &format!("{way:?}: {name} comes to its end"), is_over).await;
        if !ends.contains(&message["send"]["state"].as_str().unwrap()) || message["send"]["attempts"] != 1 {
            wrong.push(format!("{way:?}: {name} ends otherwise: {} {}", message["send"], message["attempts"]));
            continue;
        }
        let is_action = kind == "react";
        let entries = match is_action {
            false => fleet.entries_of(&message),
            true => {
                let mut noted = fleet.sandbox.ledger().sends_to(&person);
                noted.retain(|entry| entry.kind == kind && entry.verdict == Verdict::Noted);
                noted
            }
        };
        let [entry] = entries.as_slice() else {
            wrong.push(format!("{way:?}: {name} is taken {} times", entries.len()));
            continue;
        };
        // Instagram and the gateway have no place for a token, and neither have actions.
        let has_token = !is_action && !matches!(way, Way::Instagram | Way::Gateway);
        let ours = message["id"].as_str().unwrap().replace('-', "");
        let right = (entry.provider, &*entry.account, &*entry.recipient, entry.kind, entry.answer)
            == (way.api(), way.account(), person.as_str(), kind, Answer::Success)
            && entry.message() == has_token.then_some(ours.as_str());
        if !right {
            wrong.push(format!("{way:?}: {name} is taken as something else: {entry:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(fleet.dead_letters().await.len(), 0);
}

/// What a code leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ends {
    /// It was not sent, and waits for another try.
    Again,
    /// The same, because it was too much: the account's rate, or what stands for it, is lowered, and it is sent a moment later.
    Throttled,
    /// The window is closed after all.
    Window,
    /// Refused, and nothing more is sent to the person.
    OptedOut,
    /// Refused for good.
    Refused,
    /// Perhaps it was sent.
    Unknown,
    /// The account cannot send: it waits for the account.
    Down,
}

/// A code of a provider's, and what it leads to. The subcode 0 is none.
fn codes(way: Way) -> Vec<(u32, u32, Ends)> {
    use Ends::*;
    match way {
        Way::Whatsapp => vec![
            (130_429, 0, Throttled),
            (131_047, 0, Window),
            (131_026, 0, Refused),
            (131_051, 0, Refused),
            (131_000, 0, Unknown),
            (131_016, 0, Again),
            (131_056, 0, Again),
            (190, 0, Down),
        ],
        Way::Messenger => vec![
            (613, 0, Throttled),
            (4, 0, Throttled),
            (10, 2_018_278, Window),
            (551, 1_545_041, Refused),
            (100, 0, Refused),
            (1, 0, Unknown),
            (1200, 0, Again),
            (2_018_321, 0, Again),
            (2_018_300, 0, Again),
            (190, 460, Down),
        ],
        Way::Instagram => vec![
            (613, 2_534_040, Throttled),
            (10, 2_534_022, Window),
            (9010, 0, Refused),
            (100, 2_534_015, Refused),
            (1, 0, Unknown),
            (2, 0, Again),
            (100, 2_534_037, Again),
            (200, 2_534_041, Down),
        ],
        Way::Sms => vec![
            (20_429, 0, Throttled),
            (21_611, 0, Throttled),
            (21_610, 0, OptedOut),
            (21_408, 0, Refused),
            (20_503, 0, Unknown),
            (20_003, 0, Down),
        ],
        Way::TwilioWhatsapp => vec![
            (63_018, 0, Throttled),
            (63_016, 0, Window),
            (63_033, 0, OptedOut),
            (63_003, 0, Refused),
            (20_500, 0, Unknown),
            (63_009, 0, Again),
            (63_019, 0, Again),
            (63_007, 0, Down),
        ],
        Way::Gateway => {
            vec![(429, 0, Throttled), (400, 0, Refused), (500, 0, Unknown), (503, 0, Again), (401, 0, Down)]
        }
    }
}

/// How a code is written on an attempt.
fn written(way: Way, code: u32, subcode: u32) -> String {
    match way {
        Way::Gateway => format!("http_{code}"),
        _ if subcode != 0 => format!("{code}/{subcode}"),
        _ => code.to_string(),
    }
}

/// One code: ordered, met, and looked at from all sides. What is not as it should be, in words.
async fn meets(
    fleet: &Fleet,
    stage: &Stage,
    way: Way,
    nth: u32,
    (code, subcode, ends): (u32, u32, Ends),
) -> Option<String> {
    let party = stage.meet(fleet, way, 100 + nth).await;
    let mut script = Script { account: Some(way.account().into()), ..Script::once(way.api(), code) };
    script.subcode = Some(subcode).filter(|subcode| *subcode != 0);
    fleet.sandbox.order(script);
    let text = json!({"type": "text", "text": format!("{code}/{subcode}")});
    let id = stage.accepted(fleet, &party, &text).await;
    let has_ended = |message: &Value| message["attempts"].as_array().is_some_and(|attempts| !attempts.is_empty());
    let what = format!("{way:?} {code}/{subcode}");
    fleet.message_when(id, &format!("{what} has been met"), has_ended).await;
    let (outcome, state) = match ends {
        Ends::Again => ("not_sent", "waiting"),
        Ends::Throttled => ("not_sent", "read"),
        Ends::Window | Ends::OptedOut | Ends::Refused => ("failed", "failed"),
        Ends::Unknown => ("unknown", "held"),
        Ends::Down => ("account_down", "waiting"),
    };
    let state = match (ends, way) {
        (Ends::Throttled, Way::Sms) => "delivered",
        (Ends::Throttled, Way::Gateway) => "sent",
        _ => state,
    };
    let is_there = |message: &Value| message["send"]["state"] == state || message["send"]["state"] == "failed";
    let message = fleet.message_when(id, &format!("{what} is {state}"), is_there).await;
    let send = &message["send"];
    let first = &message["attempts"][0];
    let says = written(way, code, subcode);
    let mut wrong = Vec::new();
    if send["state"] != state || first["outcome"] != outcome {
        wrong.push("it ends otherwise".to_owned());
    }
    if first["reason"].as_str().is_none_or(str::is_empty) {
        wrong.push("nobody is told why".to_owned());
    }
    if ends != Ends::Unknown && first["code"] != says.as_str() {
        wrong.push(format!("the attempt's code is not {says}"));
    }
    let trace = fleet.get(&format!("/messages/{id}/trace")).await.unwrap();
    match ends {
        Ends::Again => {
            if trace["send"]["due_at"].is_null() || trace["jobs"].as_array().is_none_or(Vec::is_empty) {
                wrong.push(format!("nothing brings it again: {}", trace["jobs"]));
            }
        }
        Ends::Throttled => {
            let limits = fleet.get("/limits").await.unwrap();
            let is_lowered = |limit: &&Value| limit["current_rate"].as_f64() < limit["rate"].as_f64();
            if limits["data"].as_array().unwrap().iter().find(is_lowered).is_none() {
                wrong.push(format!("no rate is lowered: {limits}"));
            }
        }
        Ends::Window => {
            let again = stage.say(fleet, &party, &text).await;
            if again.0 != 422 || again.1["type"] != "urn:mijra:problem:needs_template" {
                wrong.push(format!("more is accepted: {again:?}"));
            }
        }
        Ends::OptedOut => {
            let wishes = fleet.get(&format!("/contacts/{}/suppressions", party.contact.0)).await.unwrap();
            let wish = &wishes["data"][0];
            if (&wish["purpose"], &wish["state"]) != (&json!("all"), &json!("opted_out")) {
                wrong.push(format!("the wish is not kept: {wishes}"));
            }
            let again = stage.say(fleet, &party, &text).await;
            if again.0 != 422 || again.1["type"] != "urn:mijra:problem:opted_out" {
                wrong.push(format!("more is accepted: {again:?}"));
            }
        }
        Ends::Refused => {
            let next = stage.accepted(fleet, &party, &text).await;
            let has_gone = |message: &Value| message["send"]["attempts"] == 1 && message["send"]["sent_at"].is_string();
            fleet.message_when(next, &format!("{what}: the next goes"), has_gone).await;
        }
        Ends::Unknown => {
            let listed = fleet.get("/undecided?state=held").await.unwrap();
            if !listed["data"].as_array().unwrap().iter().any(|held| held["message_id"] == json!(id)) {
                wrong.push(format!("it is not listed: {listed}"));
            }
        }
        Ends::Down => {
            let account = &trace["send"];
            if account["account_state"] != "down" || account["account_reason"] != first["reason"] {
                wrong.push("the account does not say so".to_owned());
            }
            let mut admin = fleet.database.admin().await;
            let down: Option<String> = sqlx::query_scalar("SELECT down_code FROM channel_accounts WHERE id = $1")
                .bind(stage.account(way).0)
                .fetch_one(&mut admin)
                .await
                .unwrap();
            if down.as_deref() != Some(&says) {
                wrong.push(format!("the account's code is {down:?}"));
            }
        }
    }
    let taken = fleet.entries_of(&message).iter().filter(|entry| entry.wamid().is_some()).count();
    if taken != usize::from(ends == Ends::Throttled) {
        wrong.push(format!("it is taken {taken} times"));
    }
    (!wrong.is_empty()).then(|| format!("{what} ({ends:?}): {}: {send} {}", wrong.join("; "), message["attempts"]))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_documented_code_ends_as_the_table_says() {
    let fleet = quick_channels().start().await;
    let stage = Stage::new(&fleet).await;
    // The codes of one account one after the other, those of different accounts side by side.
    let by_way = Way::ALL.map(|way| {
        let (fleet, stage) = (&fleet, &stage);
        async move {
            let mut wrong = Vec::new();
            for (nth, case) in codes(way).into_iter().enumerate() {
                wrong.extend(meets(fleet, stage, way, nth as u32, case).await);
            }
            wrong
        }
    });
    let wrong = futures_util::future::join_all(by_way).await.concat();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(fleet.dead_letters().await.len(), 0);
}

/// All that can be told is told, and what is unknown is so for a few seconds.
fn quick_channels() -> support::fleet::Builder {
    let behave = |behaviour: &mut support::sandbox::Behaviour| {
        (behaviour.read_rate, behaviour.skip_delivered_rate) = (1.0, 0.0);
        behaviour.queues = false;
    };
    quick().behaviour(behave)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_late_says_what_the_table_says() {
    let fleet = quick_channels().start().await;
    let stage = Stage::new(&fleet).await;
    for (nth, (way, code, suppresses)) in [
        (Way::Whatsapp, 131_026, false),
        (Way::Sms, 30_005, false),
        (Way::Sms, 30_004, true),
        (Way::TwilioWhatsapp, 63_024, false),
        (Way::TwilioWhatsapp, 63_014, true),
    ]
    .into_iter()
    .enumerate()
    {
        let party = stage.meet(&fleet, way, 200 + nth as u32).await;
        fleet.sandbox.order(Script { account: Some(way.account().into()), ..Script::once(way.api(), code).later() });
        let id = stage.accepted(&fleet, &party, &json!({"type": "text", "text": "x"})).await;
        let message = fleet.message_when(id, "it has failed", |message| message["send"]["state"] == "failed").await;
        let send = &message["send"];
        assert_eq!((&send["code"], &send["attempts"]), (&json!(code.to_string()), &json!(1)), "{way:?}: {message:#}");
        assert!(send["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{send}");
        assert_eq!(message["attempts"][0]["outcome"], "accepted");
        if suppresses {
            until("the wish is kept", SOON, async || {
                let wishes = fleet.get(&format!("/contacts/{}/suppressions", party.contact.0)).await.unwrap();
                wishes["data"][0]["state"] == "opted_out" && wishes["data"][0]["purpose"] == "all"
            })
            .await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_knows_is_settled_by_each_providers_evidence() {
    let delay = Span { min: 1_500, max: 1_500 };
    let fleet = quick_channels().behaviour(|behaviour| behaviour.status_delay_ms = delay).start().await;
    let stage = Stage::new(&fleet).await;
    let mut parties = Vec::new();
    for way in Way::ALL {
        parties.push(stage.meet(&fleet, way, 1).await);
    }
    fleet.sandbox.behave(|behaviour| behaviour.cut_after_rate = 1.0);
    let mut lost = BTreeMap::new();
    for party in &parties {
        let text = format!("Only once, by {:?}", party.way);
        lost.insert(party.way, stage.accepted(&fleet, party, &json!({"type": "text", "text": text})).await);
    }
    until("all are taken, and nobody was told", SOON, async || {
        let taken = fleet.sandbox.ledger().accepted();
        taken.len() == Way::ALL.len() && taken.iter().all(|entry| entry.answer == Answer::Cut)
    })
    .await;
    fleet.sandbox.behave(|behaviour| behaviour.cut_after_rate = 0.0);
    let was_unknown =
        |message: &Value| message["trail"].as_array().unwrap().iter().any(|step| step["event"] == "unknown");
    for (way, ends) in [
        (Way::Whatsapp, "read"),
        (Way::Messenger, "read"),
        (Way::Sms, "delivered"),
        (Way::TwilioWhatsapp, "read"),
        (Way::Instagram, "held"),
        (Way::Gateway, "held"),
    ] {
        let has_ended = |message: &Value| message["send"]["state"] == ends;
        let message = fleet.message_when(lost[&way], &format!("{way:?}: {ends}"), has_ended).await;
        assert!(was_unknown(&message), "{way:?}: {message:#}");
        assert_eq!(message["attempts"][0]["outcome"], "unknown", "{way:?}");
        assert_eq!((&message["send"]["attempts"], &message["send"]["possibly_doubled"]), (&json!(1), &json!(false)));
    }
    let held = fleet.get("/undecided?state=held").await.unwrap();
    let held: Vec<&str> = held["data"].as_array().unwrap().iter().filter_map(|u| u["message_id"].as_str()).collect();
    let mut expected = [Way::Instagram, Way::Gateway].map(|way| lost[&way].to_string());
    let mut held: Vec<String> = held.into_iter().map(str::to_owned).collect();
    held.sort_unstable();
    expected.sort_unstable();
    assert_eq!(held, expected);
    assert_eq!(fleet.sandbox.ledger().accepted().len(), Way::ALL.len(), "nothing is sent twice");

    for (way, decision, ends) in [(Way::Instagram, "sent", "sent"), (Way::Gateway, "resend", "sent")] {
        let path = format!("/messages/{}/decide", lost[&way]);
        let (status, answer) = fleet.post(&path, "once", &json!({"decision": decision})).await.unwrap();
        assert_eq!(status, 202, "{answer}");
        let has_ended = |message: &Value| message["send"]["state"] == ends;
        let message = fleet.message_when(lost[&way], &format!("{way:?} is decided"), has_ended).await;
        assert_eq!(message["send"]["possibly_doubled"], decision == "resend", "{message:#}");
    }
    let undecided = fleet.get("/undecided").await.unwrap();
    assert_eq!(undecided["data"], json!([]));
    let taken = |api: Api| fleet.sandbox.ledger().accepted().iter().filter(|entry| entry.provider == api).count();
    assert_eq!(
        (taken(Api::Instagram), taken(Api::Botmaster)),
        (1, 2),
        "what was decided to be sent again, and nothing else"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_sent_by_messenger_twice_is_fetched_once() {
    let fleet = channels::fleet().start().await;
    let stage = Stage::new(&fleet).await;
    let party = stage.meet(&fleet, Way::Messenger, 1).await;
    let picture = json!({"type": "image", "file": {"id": fleet.upload("image/png").await}});
    let send = async || {
        let id = stage.accepted(&fleet, &party, &picture).await;
        let is_over = |message: &Value| {
            matches!(message["send"]["state"].as_str(), Some("sent" | "delivered" | "read" | "failed" | "held"))
        };
        let message = fleet.message_when(id, "it is sent", is_over).await;
        let outcomes = message["attempts"].as_array().unwrap().iter().map(|attempt| attempt["outcome"].clone());
        (outcomes.collect::<Vec<_>>(), fleet.sandbox.fetched().len())
    };
    assert_eq!(send().await, (vec![json!("accepted")], 1));
    assert_eq!(send().await, (vec![json!("accepted")], 1), "it is kept there");
    // Messenger has forgotten it.
    fleet.sandbox.behave(|behaviour| behaviour.attachment_life_s = 0);
    assert_eq!(send().await, (vec![json!("not_sent"), json!("accepted")], 2), "it is handed over anew");
    let refused = fleet.sandbox.ledger().summary().providers[&Api::Messenger].refused.clone();
    assert_eq!(refused, BTreeMap::from([("100/2018074".to_owned(), 1)]));
    fleet.sandbox.behave(|behaviour| behaviour.attachment_life_s = Duration::from_secs(90 * 86_400).as_secs());
    assert_eq!(send().await, (vec![json!("accepted")], 2), "by its new id");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_sent_by_whatsapp_is_uploaded_once_and_anew_when_its_id_is_over() {
    let refuse = |behaviour: &mut support::sandbox::Behaviour| behaviour.unknown_media = UnknownMedia::Refuse;
    let fleet = channels::fleet().behaviour(refuse).count(Program::Outbound, 2).start().await;
    let stage = Stage::new(&fleet).await;
    let mut parties = Vec::new();
    for nth in 1..=4 {
        parties.push(stage.meet(&fleet, Way::Whatsapp, nth).await);
    }
    let picture = json!({"type": "image", "file": {"id": fleet.upload("image/png").await}, "caption": "The map"});
    // To everybody at once: what became of each, and how often the file has been uploaded by then.
    let send = async || {
        let mut ids = Vec::new();
        for party in &parties {
            ids.push(stage.accepted(&fleet, party, &picture).await);
        }
        let mut outcomes = BTreeMap::new();
        for id in ids {
            let is_over = |message: &Value| {
                matches!(message["send"]["state"].as_str(), Some("delivered" | "read" | "failed" | "held"))
            };
            let message = fleet.message_when(id, "it is sent", is_over).await;
            let attempts = message["attempts"].as_array().unwrap().iter();
            let ended: Vec<String> =
                attempts.filter_map(|attempt| attempt["outcome"].as_str()).map(str::to_owned).collect();
            *outcomes.entry(ended).or_insert(0) += 1;
        }
        let handed = fleet.sandbox.handed();
        assert!(handed.iter().all(|file| file.how == How::Uploaded), "nothing is fetched: {handed:?}");
        (outcomes, handed.len())
    };
    let words = |outcomes: &[&str]| outcomes.iter().map(|outcome| (*outcome).to_owned()).collect::<Vec<_>>();
    let all_taken = BTreeMap::from([(words(&["accepted"]), 4)]);
    assert_eq!(send().await, (all_taken.clone(), 1), "one upload for all of them, whichever worker sends");
    assert_eq!(send().await, (all_taken.clone(), 1), "by the same id");
    let id = fleet.sandbox.handed()[0].name.clone();
    assert!(fleet.sandbox.named().iter().all(|(_, file)| *file == id));
    fleet.sandbox.forget_files();
    // An id that is new is not what a refusal is about.
    let mut admin = fleet.database.admin().await;
    let not_new = "UPDATE provider_files SET expires_at = expires_at - interval '15 minutes'";
    assert_eq!(sqlx::query(not_new).execute(&mut admin).await.unwrap().rows_affected(), 1);
    let (outcomes, uploads) = send().await;
    assert_eq!(uploads, 2, "it is uploaded anew, once");
    assert!(outcomes.contains_key(&words(&["not_sent", "accepted"])), "somebody has to find out: {outcomes:?}");
    assert!(outcomes.keys().all(|ended| ended.last().is_some_and(|last| last == "accepted")), "{outcomes:?}");
    assert_eq!(send().await, (all_taken.clone(), 2), "by its new id");

    // Ours is known to be over by its time: nobody has to be refused.
    let over = "UPDATE provider_files SET expires_at = now() + interval '5 minutes'";
    assert_eq!(sqlx::query(over).execute(&mut admin).await.unwrap().rows_affected(), 1);
    assert_eq!(send().await, (all_taken, 3));
    let refused = fleet.sandbox.ledger().summary().providers[&Api::Whatsapp].refused.clone();
    assert!(refused.keys().all(|code| code == "131009"), "{refused:?}");
    let sha256 = fleet.sandbox.handed().iter().map(|file| file.sha256).collect::<std::collections::BTreeSet<_>>();
    let expected: [u8; 32] = Sha256::digest(channels::file_of("image/png")).into();
    assert_eq!(sha256, [expected].into());
}
