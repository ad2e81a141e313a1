//! Instagram as it takes messages, on both of its logins: what it refuses, and what follows what it accepted.

use super::stage::{IGSID, LINKED_PAGE, PROFESSIONAL, Stage, USER_TOKEN, answer, code, prompt, strict};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use support::sandbox::{
    Api, Behaviour, Happening, Limit, Platform, Script, Someone, Standing, TOKEN,
    behaviour::{Status, WindowRule},
    instagram,
    registry::{TokenSpec, TokenState},
};

fn message(message: Value) -> Value {
    json!({"recipient": {"id": IGSID}, "message": message})
}

fn text(body: &str) -> Value {
    message(json!({"text": body}))
}

fn file(kind: &str, payload: Value) -> Value {
    message(json!({"attachment": {"type": kind, "payload": payload}}))
}

impl Stage {
    async fn professional(&self, body: &Value) -> (u16, Value) {
        self.graph(USER_TOKEN, &format!("{PROFESSIONAL}/messages"), body).await
    }

    async fn professional_code(&self, body: &Value) -> (u64, u64) {
        code(&self.professional(body).await)
    }
}

#[tokio::test]
async fn each_login_has_its_path_and_means_the_same_account() {
    let stage = Stage::fast().await;
    let (_, answer) = stage.professional(&text("It is in stock until Friday.")).await;
    let mid = answer["message_id"].as_str().unwrap();
    assert_eq!(answer, json!({"recipient_id": IGSID, "message_id": mid}));
    assert!(mid.len() > 150, "ids are long here");
    assert_eq!(stage.graph(USER_TOKEN, "me/messages", &text("by me")).await.0, 200);
    assert_eq!(stage.graph(TOKEN, &format!("{LINKED_PAGE}/messages"), &text("through the Page")).await.0, 200);
    let sends = stage.sandbox.ledger().sends_to(IGSID);
    assert!(sends.iter().all(|entry| entry.provider == Api::Instagram && *entry.account == *PROFESSIONAL));
    assert_eq!(sends.len(), 3);
}

#[tokio::test]
async fn text_is_measured_in_bytes() {
    let stage = Stage::fast().await;
    for (body, expected) in [
        ("x".repeat(1_000), 0),
        ("x".repeat(1_001), 100),
        ("å".repeat(500), 0),
        ("å".repeat(501), 100),
        (String::new(), 100),
    ] {
        assert_eq!(stage.professional_code(&text(&body)).await.0, expected, "{} bytes", body.len());
    }
}

#[tokio::test]
async fn each_mistake_in_a_body_is_refused_with_its_code() {
    let stage = Stage::fast().await;
    let image = json!({"type": "image", "payload": {"url": "https://f.example/ring.jpg"}});
    for (expected, body) in [
        ((100, 0), json!({"recipient": {}, "message": {"text": "x"}})),
        ((100, 0), json!({"recipient": {"id": "ring.fan"}, "message": {"text": "x"}})),
        (
            (100, 0),
            json!({"recipient": {"id": IGSID}, "message": {"text": "x"}, "tag": "POST_PURCHASE_UPDATE", "messaging_type": "MESSAGE_TAG"}),
        ),
        ((100, 2_018_014), json!({"recipient": {"id": IGSID}, "message": {"text": "x"}, "sender_action": "typing_on"})),
        ((100, 0), message(json!({"text": "x", "attachment": image}))),
        ((100, 0), message(json!({"attachments": vec![image.clone(); 11]}))),
        ((100, 0), message(json!({"attachments": [{"type": "video", "payload": {"url": "https://f.example/v.mp4"}}]}))),
        ((100, 0), message(json!({"attachments": []}))),
        ((100, 0), file("template", json!({"template_type": "receipt"}))),
        (
            (100, 0),
            file(
                "template",
                json!({"template_type": "button", "text": "Call?", "buttons": [{"type": "phone_number", "title": "Call", "payload": "+1555"}]}),
            ),
        ),
        (
            (100, 0),
            message(
                json!({"text": "x", "quick_replies": vec![json!({"content_type": "text", "title": "a", "payload": "A"}); 14]}),
            ),
        ),
    ] {
        assert_eq!(stage.professional_code(&body).await, expected, "{body}");
    }
    for body in [
        message(json!({"attachments": vec![image.clone(); 10]})),
        message(json!({"attachments": image})),
        message(json!({"attachment": {"type": "like_heart"}})),
        file("MEDIA_SHARE", json!({"id": "18000000000000099"})),
        message(
            json!({"text": "Which metal?", "quick_replies": [{"content_type": "text", "title": "Silver", "payload": "AG"}]}),
        ),
        json!({"recipient": {"id": IGSID}, "reply_to": {"mid": "aW1"}, "message": {"text": "This one"}}),
    ] {
        assert_eq!(stage.professional(&body).await.0, 200, "{body}");
    }
}

#[tokio::test]
async fn files_must_be_of_the_listed_types_and_sizes() {
    let stage = Stage::fast().await;
    for (kind, name, expected) in [
        ("image", "ring.jpg", (0, 0)),
        ("video", "clip.mp4", (0, 0)),
        ("file", "list.pdf", (0, 0)),
        ("file", "ring.jpg", (100, 2_018_047)),
        ("image", "huge.jpg", (100, 2_018_109)),
        ("image", "gone.jpg", (100, 2_018_008)),
    ] {
        let body = file(kind, json!({"url": stage.receiver.file(name)}));
        assert_eq!(stage.professional_code(&body).await, expected, "{kind} {name}");
    }
    let upload = json!({"platform": "instagram", "message": {"attachment": {"type": "image", "payload":
        {"url": stage.receiver.file("ring.jpg"), "is_reusable": true}}}});
    let (_, uploaded) = stage.graph(TOKEN, &format!("{LINKED_PAGE}/message_attachments"), &upload).await;
    let mixed = message(json!({"attachments": [
        {"type": "image", "payload": {"attachment_id": uploaded["attachment_id"]}},
        {"type": "image", "payload": {"url": stage.receiver.file("ring.jpg")}}]}));
    assert_eq!(stage.professional_code(&mixed).await, (0, 0));
    let foreign = file("image", json!({"attachment_id": "770000000000031"}));
    assert_eq!(stage.professional_code(&foreign).await, (100, 2_018_074));
}

#[tokio::test]
async fn window_is_refused_with_instagrams_own_subcode() {
    let stage = Stage::set(strict()).await;
    stage.hear(Platform::Instagram, PROFESSIONAL, IGSID).await;
    assert_eq!(stage.professional_code(&text("x")).await, (0, 0));
    stage.sandbox.behave(|behaviour| behaviour.window_s = 0);
    assert_eq!(stage.professional_code(&text("x")).await, (10, 2_534_022));
    let tagged = json!({"recipient": {"id": IGSID}, "messaging_type": "MESSAGE_TAG", "tag": "HUMAN_AGENT", "message": {"text": "x"}});
    assert_eq!(stage.professional_code(&tagged).await, (0, 0));
    let bare = json!({"recipient": {"id": IGSID}, "tag": "HUMAN_AGENT", "message": {"text": "x"}});
    assert_eq!(stage.professional_code(&bare).await, (0, 0), "the type need not stand beside the tag");
    stage.sandbox.behave(|behaviour| behaviour.human_agent_window_s = 0);
    assert_eq!(stage.professional_code(&tagged).await, (10, 2_534_022));
    assert_eq!(
        stage.professional_code(&json!({"recipient": {"id": "99"}, "message": {"text": "x"}})).await,
        (100, 2_018_001)
    );
}

#[tokio::test]
async fn echo_and_read_follow_and_nothing_of_delivery() {
    let stage = Stage::set(prompt()).await;
    let (_, answer) = stage.professional(&message(json!({"text": "Yes, 925 silver.", "metadata": "m1:a:1"}))).await;
    stage.settle().await;
    let events = stage.events();
    assert_eq!(events.len(), 2, "{events:?}");
    assert!(stage.receiver.got().iter().all(|got| got.target == "/webhooks/instagram"));
    let echo = &events[0];
    assert_eq!((echo["sender"]["id"].as_str(), echo["recipient"]["id"].as_str()), (Some(PROFESSIONAL), Some(IGSID)));
    assert_eq!(echo["message"], json!({"mid": answer["message_id"], "text": "Yes, 925 silver.", "is_echo": true}));
    assert_eq!(
        (events[1]["sender"]["id"].as_str(), &events[1]["read"]),
        (Some(IGSID), &json!({"mid": answer["message_id"]}))
    );
    assert!(stage.were_taken(&[Status::Echo, Status::Read]));
    assert!(!stage.were_taken(&[Status::Delivered]));
}

#[tokio::test]
async fn comment_is_answered_privately_once_and_within_seven_days() {
    let stage = Stage::set(strict()).await;
    let now_ms = chrono::Utc::now().timestamp_millis();
    let reply = |at_ms: i64| json!({"recipient": {"comment_id": instagram::comment_id(at_ms)}, "message": {"text": "Sent you the price"}});
    let comment = |at_ms| Happening::of(Platform::Instagram, PROFESSIONAL, "comment", IGSID).at(at_ms);
    stage.sandbox.happen(comment(now_ms)).await.unwrap();
    assert_eq!(stage.professional(&reply(now_ms)).await.1["recipient_id"], IGSID);
    assert_eq!(stage.professional_code(&reply(now_ms)).await, (100, 2_534_025));
    let old_ms = now_ms - 8 * 24 * 3600 * 1_000;
    stage.sandbox.happen(comment(old_ms)).await.unwrap();
    assert_eq!(stage.professional_code(&reply(old_ms)).await, (100, 2_534_025));
    assert_eq!(stage.professional_code(&text("more")).await, (10, 2_534_022));
}

#[tokio::test]
async fn standings_tokens_and_people_fail_in_their_own_ways() {
    let stage = Stage::fast().await;
    let expired = TokenSpec { token: "expired".into(), state: TokenState::Expired, waba_ids: vec![] };
    stage.sandbox.registry().add_token(expired);
    let (status, answer) = stage.graph("expired", &format!("{PROFESSIONAL}/messages"), &text("x")).await;
    assert_eq!((status, code(&(status, answer))), (401, (190, 463)));
    for (standing, expected) in [
        (Standing::AccessOff, (200, 2_534_041)),
        (Standing::NotLinked, (100, 2_534_013)),
        (Standing::Restricted, (10, 1_893_063)),
        (Standing::InOrder, (0, 0)),
    ] {
        stage.sandbox.stand(Platform::Instagram, PROFESSIONAL, standing).await.unwrap();
        assert_eq!(stage.professional_code(&text("x")).await, expected, "{standing:?}");
    }
    for (someone, expected) in
        [(Someone::Blocked, (551, 1_545_041)), (Someone::Reachable, (0, 0)), (Someone::Elsewhere, (100, 2_534_037))]
    {
        stage.sandbox.registry().set_someone(Platform::Instagram, PROFESSIONAL, IGSID, someone);
        assert_eq!(stage.professional_code(&text("x")).await, expected, "{someone:?}");
    }
}

#[tokio::test]
async fn token_is_renewed_as_long_as_it_is_valid() {
    let stage = Stage::fast().await;
    let renew = |token: &str| {
        let url =
            format!("{}/refresh_access_token?grant_type=ig_refresh_token&access_token={token}", stage.sandbox.url());
        answer(stage.client.get(url))
    };
    let (_, renewed) = renew(USER_TOKEN).await.unwrap();
    assert_eq!(renewed["expires_in"], 5_184_000);
    let token = renewed["access_token"].as_str().unwrap();
    assert_eq!(stage.graph(token, "me/messages", &text("x")).await.0, 200);
    let state = TokenState::Expired;
    stage.sandbox.registry().add_token(TokenSpec { token: token.into(), state, waba_ids: vec![] });
    assert_eq!(code(&renew(token).await.unwrap()), (190, 463));
}

#[tokio::test]
async fn limits_refuse_with_instagrams_own_subcode() {
    let stage = Stage::set(Behaviour { window: WindowRule::Ignore, high_volume_per_second: None, ..strict() }).await;
    stage.sandbox.limit(Limit::new(Api::Instagram, PROFESSIONAL, Some(4))).await.unwrap();
    let mut codes = BTreeMap::new();
    for _ in 0..10 {
        *codes.entry(stage.professional_code(&text("x")).await).or_insert(0) += 1;
    }
    assert!(codes[&(0, 0)] >= 4 && codes[&(613, 2_534_040)] >= 1, "{codes:?}");
}

#[tokio::test]
async fn documented_errors_are_answered_when_ordered() {
    let stage = Stage::fast().await;
    for (ordered, subcode) in [(10, 2_534_077), (100, 2_534_014), (100, 2_534_029), (100, 2_534_068), (200, 2_534_041)]
    {
        stage.sandbox.order(Script::once(Api::Instagram, ordered).with_subcode(subcode));
        assert_eq!(stage.professional_code(&text("x")).await, (ordered.into(), subcode.into()));
    }
    assert_eq!(stage.professional_code(&text("x")).await, (0, 0));
}

#[tokio::test]
async fn unknown_sends_are_found_in_the_conversation() {
    let stage = Stage::set(Behaviour { truncate_rate: 1.0, ..Behaviour::fastest() }).await;
    stage.hear(Platform::Instagram, PROFESSIONAL, IGSID).await;
    let url = format!("{}/v25.0/{PROFESSIONAL}/messages", stage.sandbox.url());
    assert!(answer(stage.client.post(url).bearer_auth(USER_TOKEN).json(&text("lost"))).await.is_err());
    let (_, listed) = stage.read(USER_TOKEN, &format!("me/conversations?platform=instagram&user_id={IGSID}")).await;
    let conversation = listed["data"][0]["id"].as_str().unwrap();
    let (_, thread) = stage.read(USER_TOKEN, &format!("{conversation}?fields=messages")).await;
    let ids = thread["messages"]["data"].as_array().unwrap();
    assert_eq!((ids.len(), ids[0].get("message")), (2, None), "ids alone, newest first");
    let (_, found) = stage.read(USER_TOKEN, &format!("{}?fields=message", ids[0]["id"].as_str().unwrap())).await;
    assert_eq!((found["message"].as_str(), found["from"]["id"].as_str()), (Some("lost"), Some(PROFESSIONAL)));
    let (_, theirs) = stage.read(USER_TOKEN, ids[1]["id"].as_str().unwrap()).await;
    assert_eq!(theirs["from"]["id"], IGSID);
    stage.sandbox.behave(|behaviour| *behaviour = Behaviour::fastest());
    for _ in 0..20 {
        stage.professional(&text("and more")).await;
    }
    let old = stage.read(USER_TOKEN, ids[0]["id"].as_str().unwrap()).await;
    assert_eq!(code(&old).0, 9_000_001, "only the newest twenty can be read in detail");
}
