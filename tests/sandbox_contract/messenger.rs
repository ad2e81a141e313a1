//! Messenger as it takes messages: what it refuses, and what follows what it accepted.

use super::stage::{IGSID, PAGE, PAGE_TOKEN, PROFESSIONAL, PSID, Stage, answer, code, prompt, strict};
use serde_json::{Value, json};
use std::{collections::BTreeMap, time::Duration};
use support::sandbox::{
    AccountSpec, Api, Behaviour, Happening, Limit, Platform, Script, Someone, Standing,
    behaviour::{Status, WindowRule},
    ledger::Answer,
    messenger,
    registry::{TokenSpec, TokenState},
    sign,
};

fn text(body: &str) -> Value {
    json!({"recipient": {"id": PSID}, "messaging_type": "RESPONSE", "message": {"text": body}})
}

fn message(message: Value) -> Value {
    json!({"recipient": {"id": PSID}, "messaging_type": "RESPONSE", "message": message})
}

fn file(kind: &str, payload: Value) -> Value {
    message(json!({"attachment": {"type": kind, "payload": payload}}))
}

impl Stage {
    async fn page(&self, body: &Value) -> (u16, Value) {
        self.graph(PAGE_TOKEN, &format!("{PAGE}/messages"), body).await
    }

    async fn page_code(&self, body: &Value) -> (u64, u64) {
        code(&self.page(body).await)
    }
}

#[tokio::test]
async fn accepted_send_is_answered_as_documented_and_stands_in_the_ledger() {
    let stage = Stage::fast().await;
    let body = message(json!({"text": "Delivery takes three days.", "metadata": "m1:0192-a:1"}));
    let (status, answer) = stage.page(&body).await;
    let mid = answer["message_id"].as_str().unwrap().to_owned();
    assert_eq!((status, answer), (200, json!({"recipient_id": PSID, "message_id": mid})));
    let (status, _) = stage.graph(PAGE_TOKEN, "me/messages", &text("by me")).await;
    assert_eq!(status, 200);
    let sends = stage.sandbox.ledger().sends_to(PSID);
    assert_eq!((sends[0].provider, &*sends[0].account, sends[0].kind), (Api::Messenger, PAGE, "text"));
    assert_eq!((sends[0].wamid(), sends[0].message()), (Some(mid.as_str()), Some("0192-a")));
    assert_eq!((sends.len(), sends[1].text.as_deref()), (2, Some("by me")));
    let summary = stage.sandbox.ledger().summary();
    assert_eq!((summary.providers[&Api::Messenger].accepted, summary.numbers.len()), (2, 0));
}

#[tokio::test]
async fn each_mistake_in_a_body_is_refused_with_its_code() {
    let stage = Stage::fast().await;
    let button = json!({"type": "postback", "title": "Yes", "payload": "YES"});
    let template = |payload: Value| file("template", payload);
    let with = |change: fn(&mut Value)| {
        let mut body = text("x");
        change(&mut body);
        body
    };
    for (expected, body) in [
        ((100, 0), with(|b| b["recipient"] = json!({}))),
        ((100, 0), with(|b| b["recipient"] = json!({"id": PSID, "user_ref": "r"}))),
        ((100, 0), with(|b| b["recipient"] = json!({"id": "not-a-psid"}))),
        ((100, 0), with(|b| drop(b.as_object_mut().unwrap().remove("messaging_type")))),
        ((100, 0), with(|b| b["messaging_type"] = json!("PROMOTION"))),
        ((100, 0), with(|b| b["messaging_type"] = json!("MESSAGE_TAG"))),
        ((100, 0), with(|b| (b["messaging_type"], b["tag"]) = (json!("MESSAGE_TAG"), json!("ACCOUNT_UPDATE")))),
        ((100, 0), with(|b| b["tag"] = json!("HUMAN_AGENT"))),
        ((100, 0), with(|b| b["messaging_type"] = json!("UTILITY"))),
        ((100, 0), with(|b| b["idempotency_key"] = json!("k"))),
        ((100, 2_018_014), with(|b| b["sender_action"] = json!("typing_on"))),
        ((100, 0), text(&"x".repeat(2_001))),
        ((100, 0), text("")),
        ((100, 0), message(json!({}))),
        (
            (100, 0),
            message(
                json!({"text": "x", "attachment": {"type": "image", "payload": {"url": "https://f.example/a.png"}}}),
            ),
        ),
        ((100, 0), message(json!({"text": "x", "metadata": "x".repeat(1_001)}))),
        (
            (100, 0),
            message(
                json!({"text": "x", "quick_replies": vec![json!({"content_type": "text", "title": "a", "payload": "A"}); 14]}),
            ),
        ),
        (
            (100, 0),
            message(
                json!({"text": "x", "quick_replies": [{"content_type": "text", "title": "x".repeat(21), "payload": "A"}]}),
            ),
        ),
        ((100, 0), file("hologram", json!({"url": "https://f.example/a"}))),
        ((100, 0), file("image", json!({"url": "https://f.example/a.png", "attachment_id": "77"}))),
        ((100, 0), file("image", json!({"url": "no link"}))),
        ((100, 0), template(json!({"template_type": "button", "text": "Well?", "buttons": []}))),
        ((100, 0), template(json!({"template_type": "button", "text": "Well?", "buttons": vec![button.clone(); 4]}))),
        ((100, 0), template(json!({"template_type": "button", "text": "x".repeat(641), "buttons": [button]}))),
        ((100, 0), template(json!({"template_type": "generic", "elements": [{"title": "Alone"}]}))),
        (
            (100, 0),
            template(json!({"template_type": "generic", "elements": vec![json!({"title": "a", "subtitle": "b"}); 11]})),
        ),
        ((100, 0), json!({"recipient": {"id": PSID}, "sender_action": "dance"})),
        ((100, 0), json!({"recipient": {"id": PSID}, "sender_action": "react", "payload": {"reaction": "love"}})),
    ] {
        assert_eq!(stage.page_code(&body).await, expected, "{body}");
    }
    for body in [
        text(&"å".repeat(2_000)),
        message(
            json!({"text": "Pick", "quick_replies": [{"content_type": "text", "title": "Small", "payload": "S"}, {"content_type": "user_email"}]}),
        ),
        template(json!({"template_type": "button", "text": "Well?", "buttons": [button]})),
        template(
            json!({"template_type": "generic", "elements": [{"title": "Kettle", "subtitle": "In stock", "default_action": {"type": "web_url", "url": "https://shop.example/k"}}]}),
        ),
        file("file", json!({"url": "https://files.shop.example/map.pdf"})),
    ] {
        assert_eq!(stage.page(&body).await.0, 200, "{body}");
    }
    assert_eq!(stage.sandbox.ledger().summary().accepted, 5);
}

#[tokio::test]
async fn tokens_and_unknown_pages_fail_in_their_own_ways() {
    let stage = Stage::fast().await;
    for (token, state) in
        [("expired", TokenState::Expired), ("password", TokenState::Invalidated), ("removed", TokenState::Revoked)]
    {
        stage.sandbox.registry().add_token(TokenSpec { token: token.into(), state, waba_ids: vec![] });
    }
    let elsewhere = TokenSpec { token: "elsewhere".into(), state: TokenState::Valid, waba_ids: vec!["1".into()] };
    stage.sandbox.registry().add_token(elsewhere);
    for (token, status, expected) in [
        ("never heard of", 401, (190, 467)),
        ("expired", 401, (190, 463)),
        ("password", 401, (190, 460)),
        ("removed", 401, (190, 458)),
        ("elsewhere", 403, (200, 0)),
    ] {
        let answer = stage.graph(token, &format!("{PAGE}/messages"), &text("x")).await;
        assert_eq!((answer.0, code(&answer)), (status, expected), "{token}");
    }
    let url = format!("{}/v25.0/{PAGE}/messages", stage.sandbox.url());
    let bare = answer(stage.client.post(&url).json(&text("x"))).await.unwrap();
    assert_eq!((bare.0, code(&bare).0), (401, 190));
    let proof = sign::signature("stand_in_app_secret_01", PAGE_TOKEN.as_bytes()).replace("sha256=", "");
    for (proof, expected) in [(proof.as_str(), 0), ("00", 100)] {
        let url = format!("{url}?access_token={PAGE_TOKEN}&appsecret_proof={proof}");
        assert_eq!(code(&answer(stage.client.post(url).json(&text("x"))).await.unwrap()).0, expected);
    }
    let gone = stage.graph(PAGE_TOKEN, "999/messages", &text("x")).await;
    assert_ne!(gone.0, 200);
}

#[tokio::test]
async fn window_is_counted_for_each_person_and_human_agents_have_seven_days() {
    let stage = Stage::set(strict()).await;
    assert_eq!(stage.page_code(&text("x")).await, (100, 2_018_001), "nobody of that id was ever heard of");
    stage.hear(Platform::Messenger, PAGE, PSID).await;
    assert_eq!(stage.page_code(&text("x")).await, (0, 0));
    let agent = |body: &str| json!({"recipient": {"id": PSID}, "messaging_type": "MESSAGE_TAG", "tag": "HUMAN_AGENT", "message": {"text": body}});
    stage.sandbox.behave(|behaviour| behaviour.window_s = 0);
    assert_eq!(stage.page_code(&text("x")).await, (10, 2_018_278));
    let typing = json!({"recipient": {"id": PSID}, "sender_action": "typing_on"});
    assert_eq!(stage.page_code(&typing).await, (10, 2_018_278));
    assert_eq!(stage.page_code(&agent("x")).await, (0, 0));
    stage.sandbox.behave(|behaviour| behaviour.human_agent_window_s = 0);
    assert_eq!(stage.page_code(&agent("x")).await, (10, 2_018_278));
    stage.sandbox.behave(|behaviour| *behaviour = strict());
    stage.sandbox.registry().close_account_windows(Platform::Messenger, PAGE);
    assert_eq!(stage.page_code(&text("x")).await, (10, 2_018_278));
    let reaction = Happening::of(Platform::Messenger, PAGE, "reaction", PSID).about("m_1");
    stage.sandbox.happen(reaction).await.unwrap();
    assert_eq!(stage.page_code(&text("x")).await, (0, 0), "a reaction opens it, too");
}

#[tokio::test]
async fn people_who_cannot_be_reached_are_refused_each_with_its_code() {
    let stage = Stage::set(strict()).await;
    stage.hear(Platform::Messenger, PAGE, PSID).await;
    for (someone, expected) in [
        (Someone::Blocked, (551, 1_545_041)),
        (Someone::Unavailable, (200, 1_545_041)),
        (Someone::NotReceiving, (10, 2_018_108)),
        (Someone::Unknown, (100, 2_018_001)),
        (Someone::PhoneCreated, (0, 0)),
        (Someone::Elsewhere, (2_018_300, 0)),
        (Someone::Reachable, (0, 0)),
    ] {
        assert!(stage.sandbox.registry().set_someone(Platform::Messenger, PAGE, PSID, someone));
        assert_eq!(stage.page_code(&text("x")).await, expected, "{someone:?}");
    }
    let profile = stage.read(PAGE_TOKEN, &format!("{PSID}?fields=first_name")).await;
    assert_eq!(profile.1["first_name"], "Ine");
    stage.sandbox.registry().set_someone(Platform::Messenger, PAGE, PSID, Someone::PhoneCreated);
    assert_eq!(code(&stage.read(PAGE_TOKEN, PSID).await), (100, 2_018_218));
    let pass = json!({"recipient": {"id": PSID}, "target_app_id": "263902037430900"});
    assert_eq!(stage.graph(PAGE_TOKEN, &format!("{PAGE}/pass_thread_control"), &pass).await.1["success"], true);
    assert_eq!(stage.page_code(&text("x")).await, (2_018_300, 0));
    stage.graph(PAGE_TOKEN, &format!("{PAGE}/take_thread_control"), &pass).await;
    assert_eq!(stage.page_code(&text("x")).await, (0, 0));
}

#[tokio::test]
async fn limits_refuse_what_is_too_much_and_can_be_changed() {
    let relaxed = || Behaviour { window: WindowRule::Ignore, high_volume_per_second: None, ..strict() };
    let stage = Stage::set(Behaviour { usage_headers: true, calls_per_engaged_person: None, ..relaxed() }).await;
    let limit = |per_second| stage.sandbox.limit(Limit::new(Api::Messenger, PAGE, per_second));
    limit(Some(5)).await.unwrap();
    let mut codes = BTreeMap::new();
    for _ in 0..12 {
        *codes.entry(stage.page_code(&text("x")).await).or_insert(0) += 1;
    }
    assert!(codes[&(0, 0)] >= 5 && codes[&(613, 0)] >= 1, "{codes:?}");
    limit(None).await.unwrap();
    let mut tries = 0;
    while stage.page_code(&text("x")).await != (0, 0) {
        tries += 1;
        assert!(tries < 200, "the limit stays");
    }
    let url = format!("{}/v25.0/{PAGE}/messages", stage.sandbox.url());
    let response = stage.client.post(url).bearer_auth(PAGE_TOKEN).json(&text("x")).send().await.unwrap();
    let usage: Value = serde_json::from_str(response.headers()["x-business-use-case-usage"].to_str().unwrap()).unwrap();
    assert_eq!(usage[PAGE][0]["type"], "messenger");

    let video = file("video", json!({"url": "https://files.shop.example/clip.mp4"}));
    let mut heavy = BTreeMap::new();
    for _ in 0..15 {
        *heavy.entry(stage.page_code(&video).await).or_insert(0) += 1;
    }
    assert!(heavy[&(0, 0)] >= 10 && heavy[&(613, 0)] >= 1, "{heavy:?}");

    let stage = Stage::set(Behaviour { calls_per_engaged_person: Some(3), ..relaxed() }).await;
    let mut calls = Vec::new();
    for _ in 0..4 {
        calls.push(stage.page_code(&text("x")).await.0);
    }
    assert_eq!(calls, [0, 0, 0, 80_006]);
}

#[tokio::test]
async fn page_with_too_much_in_and_out_cannot_send_until_it_falls() {
    let behaviour = Behaviour { high_volume_per_second: Some(10), throttle_status: 429, ..strict() };
    let stage = Stage::set(Behaviour { window: WindowRule::Ignore, ..behaviour }).await;
    for _ in 0..6 {
        stage.hear(Platform::Messenger, PAGE, PSID).await;
    }
    let mut accepted = 0;
    let refused = loop {
        let answer = stage.page(&text("x")).await;
        match answer.0 {
            200 => accepted += 1,
            _ => break answer,
        }
        assert!(accepted < 100, "nothing is too much");
    };
    assert_eq!((refused.0, code(&refused).0), (429, 613));
    let totals = &stage.sandbox.ledger().summary().accounts[&Api::Messenger][PAGE];
    assert!(totals.busiest_second_units <= 10, "{totals:?}");
    assert_eq!(totals.busiest_second_units, totals.busiest_second_in_and_out);
    let mut tries = 0;
    while stage.page(&text("x")).await.0 != 200 {
        tries += 1;
        assert!(tries < 200, "it never falls");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn standing_of_a_page_is_refused_and_told() {
    let stage = Stage::fast().await;
    stage.sandbox.stand(Platform::Messenger, PAGE, Standing::Restricted).await.unwrap();
    assert_eq!(stage.events()[0]["policy_enforcement"]["action"], "block");
    assert_eq!(stage.page_code(&text("x")).await, (10, 1_893_063));
    stage.sandbox.stand(Platform::Messenger, PAGE, Standing::Blocked).await.unwrap();
    assert_eq!(stage.page_code(&text("x")).await, (368, 0));
    stage.sandbox.stand(Platform::Messenger, PAGE, Standing::InOrder).await.unwrap();
    assert_eq!(stage.events()[1]["policy_enforcement"]["action"], "unblock");
    assert_eq!(stage.page_code(&text("x")).await, (0, 0));
}

#[tokio::test]
async fn files_are_fetched_and_uploads_live_for_their_time() {
    let stage = Stage::fast().await;
    let url = |name: &str| json!({"url": stage.receiver.file(name)});
    for (kind, name, expected) in [
        ("image", "ring.jpg", (0, 0)),
        ("file", "list.pdf", (0, 0)),
        ("image", "gone.jpg", (100, 2_018_008)),
        ("image", "page.html", (100, 2_018_047)),
        ("image", "huge.jpg", (100, 2_018_109)),
    ] {
        assert_eq!(stage.page_code(&file(kind, url(name))).await, expected, "{name}");
    }
    let upload = json!({"message": {"attachment": {"type": "video", "payload": {"url": stage.receiver.file("clip.mp4"), "is_reusable": true}}}});
    let (status, uploaded) = stage.graph(PAGE_TOKEN, &format!("{PAGE}/message_attachments"), &upload).await;
    let id = uploaded["attachment_id"].as_str().unwrap();
    assert_eq!(status, 200);
    let by_id = |kind: &str, id: &str| file(kind, json!({"attachment_id": id}));
    assert_eq!(stage.page_code(&by_id("video", id)).await, (0, 0));
    assert_eq!(stage.page_code(&by_id("image", id)).await, (100, 2_018_074), "it is no image");
    assert_eq!(stage.page_code(&by_id("video", "770000000000031")).await, (100, 2_018_074));
    let (_, reusable) =
        stage.page(&file("image", json!({"url": stage.receiver.file("ring.jpg"), "is_reusable": true}))).await;
    let kept = reusable["attachment_id"].as_str().unwrap();
    assert_eq!(stage.page_code(&by_id("image", kept)).await, (0, 0));
    stage.sandbox.behave(|behaviour| behaviour.attachment_life_s = 0);
    assert_eq!(stage.page_code(&by_id("video", id)).await, (100, 2_018_074), "its time is over");
}

#[tokio::test]
async fn binary_upload_comes_as_a_form() {
    let stage = Stage::fast().await;
    let form = format!(
        "--B\r\nContent-Disposition: form-data; name=\"recipient\"\r\n\r\n{{\"id\":\"{PSID}\"}}\r\n--B\r\nContent-Disposition: form-data; name=\"messaging_type\"\r\n\r\nRESPONSE\r\n--B\r\nContent-Disposition: form-data; name=\"message\"\r\n\r\n{{\"attachment\":{{\"type\":\"image\",\"payload\":{{}}}}}}\r\n--B\r\nContent-Disposition: form-data; name=\"filedata\"; filename=\"a.png\"\r\nContent-Type: TYPE\r\n\r\npixels\r\n--B--\r\n"
    );
    let url = format!("{}/v25.0/{PAGE}/messages", stage.sandbox.url());
    for (content_type, expected) in [("image/png", (0, 0)), ("application/pdf", (100, 2_018_047))] {
        let request = stage.client.post(&url).bearer_auth(PAGE_TOKEN);
        let request =
            request.header("content-type", "multipart/form-data; boundary=B").body(form.replace("TYPE", content_type));
        assert_eq!(code(&answer(request).await.unwrap()), expected);
    }
}

#[tokio::test]
async fn echo_delivery_and_read_follow_signed_and_with_what_the_send_brought() {
    let stage = Stage::set(prompt()).await;
    let (_, answer) = stage.page(&message(json!({"text": "Ça va, 6 €", "metadata": "m1:a:1"}))).await;
    stage.settle().await;
    for got in stage.receiver.got() {
        assert_eq!(got.target, "/webhooks/messenger");
        assert_eq!(got.header("x-hub-signature-256"), sign::signature("stand_in_app_secret_01", &got.body));
        assert!(got.body.is_ascii());
    }
    let events = stage.events();
    assert_eq!(events.len(), 3);
    let (echo, delivery, read) = (&events[0], &events[1], &events[2]);
    assert_eq!((echo["sender"]["id"].as_str(), echo["recipient"]["id"].as_str()), (Some(PAGE), Some(PSID)));
    assert_eq!(
        echo["message"],
        json!({"mid": answer["message_id"], "text": "Ça va, 6 €", "is_echo": true, "app_id": messenger::APP_ID, "metadata": "m1:a:1"})
    );
    assert_eq!(delivery["sender"]["id"], PSID);
    assert_eq!(delivery["delivery"]["mids"], json!([answer["message_id"]]));
    assert!(delivery["delivery"]["watermark"].as_i64() >= echo["timestamp"].as_i64());
    assert!(read["read"]["watermark"].as_i64() >= delivery["delivery"]["watermark"].as_i64());
    assert_eq!(read["read"].get("mids"), None);
    assert!(stage.were_taken(&[Status::Echo, Status::Delivered, Status::Read]));
}

#[tokio::test]
async fn receipts_come_repeated_reordered_and_bare_when_asked_for() {
    let stage = Stage::set(Behaviour { reorder_rate: 1.0, bare_receipt_rate: 1.0, ..prompt() }).await;
    stage.page(&text("x")).await;
    stage.settle().await;
    let events = stage.events();
    assert!(events[0].get("read").is_some(), "{events:?}");
    assert_eq!(events[1]["delivery"].get("mids"), None);
    let stage = Stage::set(Behaviour { duplicate_rate: 1.0, ..prompt() }).await;
    stage.page(&text("x")).await;
    stage.settle().await;
    assert_eq!(stage.events().len(), 6);
}

#[tokio::test]
async fn documented_errors_are_answered_when_ordered() {
    let stage = Stage::fast().await;
    for (ordered, subcode, status) in [
        (1, None, 500),
        (2, None, 500),
        (4, None, 400),
        (190, Some(460), 401),
        (2_018_321, None, 400),
        (100, Some(2_018_320), 400),
    ] {
        let script = subcode.into_iter().fold(Script::once(Api::Messenger, ordered), Script::with_subcode);
        stage.sandbox.order(script);
        let answer = stage.page(&text("x")).await;
        assert_eq!((answer.0, code(&answer)), (status, (ordered.into(), subcode.unwrap_or(0).into())));
        assert_eq!(answer.1["error"]["is_transient"].as_bool().unwrap_or(false), status == 500);
    }
    stage.sandbox.order(Script::once(Api::Messenger, 613).times(2));
    let codes =
        [stage.page_code(&text("a")).await.0, stage.page_code(&text("b")).await.0, stage.page_code(&text("c")).await.0];
    assert_eq!(codes, [613, 613, 0]);
    assert_eq!(stage.sandbox.ledger().summary().providers[&Api::Messenger].refused["100/2018320"], 1);
}

#[tokio::test]
async fn unknown_sends_are_found_in_the_conversation() {
    let stage = Stage::set(Behaviour { cut_after_rate: 1.0, ..Behaviour::fastest() }).await;
    let url = format!("{}/v25.0/{PAGE}/messages", stage.sandbox.url());
    assert!(answer(stage.client.post(url).bearer_auth(PAGE_TOKEN).json(&text("lost"))).await.is_err());
    let entry = &stage.sandbox.ledger().sends_to(PSID)[0];
    assert_eq!((entry.wamid().is_some(), entry.answer), (true, Answer::Cut));
    assert_eq!(stage.sandbox.ledger().summary().providers[&Api::Messenger].accepted_unanswered, 1);
    let (_, listed) = stage.read(PAGE_TOKEN, &format!("{PAGE}/conversations?platform=messenger&user_id={PSID}")).await;
    let conversation = listed["data"][0]["id"].as_str().unwrap();
    let (_, thread) =
        stage.read(PAGE_TOKEN, &format!("{conversation}?fields=messages{{id,created_time,from,to,message}}")).await;
    let found = &thread["messages"]["data"][0];
    assert_eq!((found["id"].as_str(), found["message"].as_str()), (entry.wamid(), Some("lost")));
    assert_eq!((found["from"]["id"].as_str(), found["to"]["data"][0]["id"].as_str()), (Some(PAGE), Some(PSID)));
    let (_, single) = stage.read(PAGE_TOKEN, entry.wamid().unwrap()).await;
    assert_eq!(single["message"], "lost");
    let fields = "fields=id,messages.limit(1){id,message}";
    let (_, at_once) = stage.read(PAGE_TOKEN, &format!("me/conversations?platform=messenger&{fields}")).await;
    assert_eq!(at_once["data"][0]["messages"]["data"][0]["message"], "lost");
    let (_, nobody) = stage.read(PAGE_TOKEN, &format!("{PAGE}/conversations?platform=messenger&user_id=1")).await;
    assert_eq!(nobody["data"], json!([]));
    stage.sandbox.behave(|behaviour| behaviour.conversations_per_second = Some(1));
    let mut codes = Vec::new();
    for _ in 0..3 {
        codes.push(code(&stage.read(PAGE_TOKEN, &format!("{PAGE}/conversations?platform=messenger")).await).0);
    }
    assert!(codes.contains(&613), "{codes:?}");
}

#[tokio::test]
async fn typing_and_read_marks_are_noted_and_are_no_messages() {
    let stage = Stage::fast().await;
    for action in ["typing_on", "mark_seen"] {
        let body = json!({"recipient": {"id": PSID}, "sender_action": action});
        assert_eq!(stage.page(&body).await, (200, json!({"recipient_id": PSID})));
    }
    let summary = stage.sandbox.ledger().summary();
    assert_eq!((summary.noted, summary.accepted), (2, 0));
    assert_eq!(stage.sandbox.ledger().sends_from(1, 9)[0].kind, "typing_on");
}

#[tokio::test]
async fn utility_message_of_an_approved_template_needs_no_window() {
    let stage = Stage::set(Behaviour { approval_ms: 0, ..strict() }).await;
    stage.hear(Platform::Messenger, PAGE, PSID).await;
    stage.sandbox.registry().close_account_windows(Platform::Messenger, PAGE);
    let utility = json!({"recipient": {"id": PSID}, "messaging_type": "UTILITY",
        "message": {"template": {"name": "parcel", "language": {"code": "en"}, "components": []}}});
    assert_eq!(stage.page_code(&utility).await, (100, 0), "there is none");
    let definition = json!({"name": "parcel", "language": "en", "category": "UTILITY",
        "components": [{"type": "BODY", "text": "Your parcel is on its way."}]});
    let (status, made) = stage.graph(PAGE_TOKEN, &format!("{PAGE}/message_templates"), &definition).await;
    assert_eq!((status, made["status"].as_str()), (200, Some("PENDING")));
    let mut tries = 0;
    while stage.page_code(&utility).await != (0, 0) {
        tries += 1;
        assert!(tries < 200, "it is never approved");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(stage.page_code(&text("x")).await, (10, 2_018_278));
}

#[tokio::test]
async fn comment_is_answered_privately_once() {
    let stage = Stage::set(strict()).await;
    let control = format!("{}/_sandbox/comments/messenger/{PAGE}", stage.sandbox.url());
    let comment = json!({"id": "1_2", "person": PSID});
    assert_eq!(stage.client.post(&control).json(&comment).send().await.unwrap().status(), 204);
    let reply = json!({"recipient": {"comment_id": "1_2"}, "messaging_type": "RESPONSE", "message": {"text": "We sent you the price"}});
    assert_eq!(stage.page(&reply).await.1["recipient_id"], PSID);
    assert_eq!(stage.page_code(&reply).await.0, 100);
    assert_eq!(stage.page_code(&text("more")).await, (10, 2_018_278), "only the person opens the conversation");
}

#[tokio::test]
async fn accounts_change_over_the_control_plane() {
    let stage = Stage::fast().await;
    let control = format!("{}/_sandbox", stage.sandbox.url());
    let client = &stage.client;
    let other = AccountSpec { token: Some("other".into()), ..AccountSpec::new(Platform::Messenger, "1009") };
    assert_eq!(client.post(format!("{control}/accounts")).json(&other).send().await.unwrap().status(), 201);
    let change = json!({"standing": "blocked", "behaviour": {"refuse_rate": 1.0, "refuse_code": 613}});
    let url = format!("{control}/accounts/messenger/1009");
    assert_eq!(client.patch(&url).json(&change).send().await.unwrap().status(), 204);
    assert_eq!(code(&stage.graph("other", "1009/messages", &text("x")).await).0, 368);
    client.patch(&url).json(&json!({"standing": "in_order"})).send().await.unwrap();
    assert_eq!(code(&stage.graph("other", "1009/messages", &text("x")).await).0, 613);
    assert_eq!(stage.page_code(&text("x")).await, (0, 0), "the other Page is left alone");
    let script = json!({"provider": "messenger", "account": PAGE, "code": 1200, "times": 1});
    assert_eq!(client.post(format!("{control}/script")).json(&script).send().await.unwrap().status(), 204);
    assert_eq!(stage.page_code(&text("x")).await, (1200, 0));
    let someone = client.put(format!("{control}/people/messenger/{PAGE}/{PSID}")).json(&json!("blocked"));
    assert_eq!(someone.send().await.unwrap().status(), 204);
    assert_eq!(stage.page_code(&text("x")).await, (551, 1_545_041));
    let unknown = client.patch(format!("{control}/accounts/instagram/{IGSID}")).json(&json!({}));
    assert_eq!(unknown.send().await.unwrap().status(), 404);
    let limit = json!({"provider": "instagram", "account": PROFESSIONAL, "per_second": 0});
    assert_eq!(client.post(format!("{control}/limit")).json(&limit).send().await.unwrap().status(), 422);
    let summary: Value = client.get(format!("{control}/ledger/summary")).send().await.unwrap().json().await.unwrap();
    assert_eq!(summary["providers"]["messenger"]["accepted"], 1);
    let lines = client.get(format!("{control}/ledger?first=1&most=1")).send().await.unwrap().text().await.unwrap();
    let entry: Value = serde_json::from_str(lines.trim()).unwrap();
    assert_eq!((entry["provider"].as_str(), entry["account"].as_str()), (Some("messenger"), Some("1009")));
}
