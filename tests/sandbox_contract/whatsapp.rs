//! WhatsApp beyond texts and templates: files that are uploaded or linked, typing, templates that are decided about, limits that change
//! while everything runs, and answers that were ordered.

use super::{NUMBER, Stage, TOKEN, WABA, ada, template, text, tracked};
use serde_json::{Value, json};
use support::sandbox::{
    Api, Behaviour, Incoming, Limit, Script,
    behaviour::{Span, UnknownMedia, WindowRule},
    ledger::{Answer, Verdict},
    registry::NumberSpec,
};

fn picture(by: Value) -> Value {
    json!({"messaging_product": "whatsapp", "to": "+15557770142", "type": "image", "image": by})
}

/// Everything that follows a send, at once and in order.
fn prompt() -> Behaviour {
    Behaviour {
        statuses: true,
        read_rate: 1.0,
        skip_delivered_rate: 0.0,
        status_delay_ms: Span { min: 1, max: 2 },
        ..Behaviour::fastest()
    }
}

impl Stage {
    async fn upload(&self, number: &str) -> String {
        let body = "--B\r\nContent-Disposition: form-data; name=\"messaging_product\"\r\n\r\nwhatsapp\r\n--B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.png\"\r\nContent-Type: image/png\r\n\r\npixels\r\n--B--\r\n";
        let upload = self.client.post(format!("{}/v25.0/{number}/media", self.sandbox.url())).bearer_auth(TOKEN);
        let upload = upload.header("content-type", "multipart/form-data; boundary=B").body(body).send().await.unwrap();
        upload.json::<Value>().await.unwrap()["id"].as_str().unwrap().to_owned()
    }

    /// Name and code of the last status that was told.
    fn last_status(&self) -> (String, u64) {
        let last = self.receiver.statuses().pop().unwrap();
        (last["status"].as_str().unwrap().to_owned(), last["errors"][0]["code"].as_u64().unwrap_or(0))
    }
}

#[tokio::test]
async fn uploads_belong_to_one_number_and_live_for_their_time() {
    let stage = Stage::set(prompt()).await;
    stage.sandbox.registry().add_number(NumberSpec {
        id: "330000000000010".into(),
        waba_id: WABA.into(),
        display_phone_number: "15557770101".into(),
        country_code: "1".into(),
        webhook_url: None,
        app_secret: None,
    });
    let (own, foreign) = (stage.upload(NUMBER).await, stage.upload("330000000000010").await);
    let mut ends = Vec::new();
    for id in [own.as_str(), foreign.as_str(), "nobody-uploaded-it"] {
        assert_eq!(stage.code(&picture(json!({"id": id}))).await, 0, "it is accepted first");
        stage.settle().await;
        ends.push(stage.last_status());
    }
    let broken = ("failed".to_owned(), 131_053);
    assert_eq!(ends, [("read".to_owned(), 0), broken.clone(), broken.clone()]);
    let mut voice = picture(json!({}));
    (voice["type"], voice["audio"]) = (json!("audio"), json!({"id": own}));
    voice.as_object_mut().unwrap().remove("image");
    assert_eq!(stage.code(&voice).await, 0);
    stage.settle().await;
    assert_eq!(stage.last_status(), broken, "a picture is no sound");
    stage.sandbox.behave(|behaviour| behaviour.unknown_media = UnknownMedia::Refuse);
    assert_eq!(stage.code(&picture(json!({"id": foreign}))).await, 131_009);
    stage.sandbox.behave(|behaviour| {
        (behaviour.media_life_s, behaviour.unknown_media) = (0, UnknownMedia::FailLater);
    });
    stage.code(&picture(json!({"id": own}))).await;
    stage.settle().await;
    assert_eq!(stage.last_status(), broken, "its thirty days are over");
}

#[tokio::test]
async fn links_are_fetched_and_fail_later() {
    let stage = Stage::set(prompt()).await;
    let file = |content_type: &'static str| {
        axum::routing::get(move || async move { ([("content-type", content_type)], "pixels") })
    };
    let files = axum::Router::new().route("/ring.jpg", file("image/jpeg")).route("/page.html", file("text/html"));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let root = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, files).await });
    for (link, end) in [
        (format!("{root}/ring.jpg"), ("read", 0)),
        (format!("{root}/gone.jpg"), ("failed", 131_053)),
        (format!("{root}/page.html"), ("failed", 131_053)),
        ("https://files.shop.example/ring.jpg".to_owned(), ("read", 0)),
    ] {
        assert_eq!(stage.code(&picture(json!({"link": link}))).await, 0);
        stage.settle().await;
        assert_eq!(stage.last_status(), (end.0.to_owned(), end.1), "{link}");
    }
    let mut with_header = template("picture_reminder", &["Ada", "4 Dec"]);
    let components = with_header["template"]["components"].as_array_mut().unwrap();
    components.push(
        json!({"type": "header", "parameters": [{"type": "image", "image": {"link": format!("{root}/gone.jpg")}}]}),
    );
    components.push(
        json!({"type": "button", "sub_type": "url", "index": "1", "parameters": [{"type": "text", "text": "77"}]}),
    );
    assert_eq!(stage.code(&with_header).await, 0);
    stage.settle().await;
    assert_eq!(stage.last_status(), ("failed".to_owned(), 131_053), "a template's header, too");
}

#[tokio::test]
async fn typing_is_noted_apart_from_read_receipts() {
    let stage = Stage::fast().await;
    let told = stage.sandbox.tell(NUMBER, vec![Incoming::text(&ada(), "hi")]).await.unwrap();
    let mut read = json!({"messaging_product": "whatsapp", "status": "read", "message_id": told.ids[0]});
    assert_eq!(stage.send(&read).await.0, 200);
    read["typing_indicator"] = json!({"type": "text"});
    assert_eq!(stage.send(&read).await, (200, json!({"success": true})));
    read["message_id"] = json!("wamid.unknown");
    assert_eq!(stage.code(&read).await, 131_009);
    let kinds: Vec<&str> = stage.sandbox.ledger().sends_from(1, 9).iter().map(|entry| entry.kind).collect();
    assert_eq!(kinds, ["read_receipt", "typing", "typing"]);
    assert_eq!(stage.sandbox.ledger().summary().providers[&Api::Whatsapp].noted, 2);
}

#[tokio::test]
async fn templates_are_decided_about_and_the_decision_is_told() {
    let stage = Stage::fast().await;
    for (event, code) in
        [("PAUSED", 132_015), ("REINSTATED", 0), ("FLAGGED", 0), ("DISABLED", 132_016), ("REJECTED", 132_001)]
    {
        stage.sandbox.decide_template(WABA, "cart_nudge", "en_US", event, Some("NONE")).await.unwrap();
        let told = stage.receiver.values().pop().unwrap();
        assert_eq!((told["event"].as_str(), told["message_template_name"].as_str()), (Some(event), Some("cart_nudge")));
        assert!(told["message_template_id"].is_u64());
        assert_eq!(stage.code(&template("cart_nudge", &["Ada"])).await, code, "{event}");
    }
    assert!(stage.sandbox.decide_template(WABA, "no_such", "en_US", "PAUSED", None).await.is_err());
    let control = format!("{}/_sandbox/templates/{WABA}/decision", stage.sandbox.url());
    let decision = json!({"name": "cart_nudge", "language": "en_US", "event": "APPROVED"});
    assert_eq!(stage.client.post(control).json(&decision).send().await.unwrap().status(), 204);
    assert_eq!(stage.code(&template("cart_nudge", &["Ada"])).await, 0);
    let base = format!("{}/v25.0", stage.sandbox.url());
    let list = stage.client.get(format!("{base}/{WABA}/message_templates?name=booking_reminder")).bearer_auth(TOKEN);
    let list: Value = list.send().await.unwrap().json().await.unwrap();
    assert_eq!(list["data"].as_array().unwrap().len(), 2);
    let id = list["data"][0]["id"].as_str().unwrap();
    let one: Value =
        stage.client.get(format!("{base}/{id}")).bearer_auth(TOKEN).send().await.unwrap().json().await.unwrap();
    assert_eq!(one["name"], "booking_reminder");
    let delete = format!("{base}/{WABA}/message_templates?name=booking_reminder&hsm_id={id}");
    assert_eq!(stage.client.delete(delete).bearer_auth(TOKEN).send().await.unwrap().status(), 200);
    assert_eq!(stage.code(&template("booking_reminder", &["Ada", "4 Dec"])).await, 132_001, "one language is gone");
}

#[tokio::test]
async fn limit_changes_while_it_runs_and_is_told() {
    let stage = Stage::set(Behaviour {
        statuses: false,
        window: WindowRule::Ignore,
        pair_limit: false,
        throttle_status: 429,
        ..Behaviour::default()
    })
    .await;
    let refused = async || {
        let mut refused = 0;
        for at in 0..40 {
            let (status, body) = stage.send(&text(&format!("+1555888{at:04}"), "x")).await;
            refused += u32::from(status == 429 && body["error"]["code"] == 130_429);
        }
        refused
    };
    assert_eq!(refused().await, 0);
    stage.sandbox.limit(Limit::new(Api::Whatsapp, NUMBER, Some(20)).told()).await.unwrap();
    assert!(refused().await > 0);
    stage.sandbox.limit(Limit::new(Api::Whatsapp, NUMBER, Some(1_000)).told()).await.unwrap();
    let node = format!("{}/v25.0/{NUMBER}", stage.sandbox.url());
    let node: Value = stage.client.get(node).bearer_auth(TOKEN).send().await.unwrap().json().await.unwrap();
    assert_eq!(node["throughput"]["level"], "HIGH");
    let told: Vec<Value> = stage.receiver.values().iter().map(|value| value["event"].clone()).collect();
    assert_eq!(told, ["DOWNGRADE", "THROUGHPUT_UPGRADE"]);
    let payload = &stage.receiver.payloads()[0];
    assert_eq!(payload["entry"][0]["changes"][0]["field"], "phone_number_quality_update");
    assert!(payload["entry"][0]["time"].is_i64());
}

#[tokio::test]
async fn limit_changes_in_steps() {
    let stage = Stage::fast().await;
    stage.sandbox.limit(Limit::new(Api::Whatsapp, NUMBER, Some(1)).then(30, None)).await.unwrap();
    let mut codes = Vec::new();
    for _ in 0..400 {
        codes.push(stage.code(&text("+15557770142", "x")).await);
        if codes.len() > 2 && codes.ends_with(&[0, 0, 0]) {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert!(codes.contains(&130_429) && codes.ends_with(&[0, 0, 0]), "{codes:?}");
}

#[tokio::test]
async fn documented_errors_are_answered_or_told_when_ordered() {
    let stage = Stage::set(prompt()).await;
    for (code, status) in
        [(2, 503), (4, 400), (131_000, 500), (131_005, 403), (131_048, 400), (131_057, 500), (132_007, 400)]
    {
        stage.sandbox.order(Script::once(Api::Whatsapp, code));
        let (got, body) = stage.send(&text("+15557770142", "x")).await;
        assert_eq!((got, body["error"]["code"].as_u64()), (status, Some(code.into())));
    }
    for code in [131_026, 131_047, 131_049, 131_053, 130_472] {
        stage.sandbox.order(Script::once(Api::Whatsapp, code).later());
        assert_eq!(stage.code(&text("+15557770142", "x")).await, 0);
        stage.settle().await;
        assert_eq!(stage.last_status(), ("failed".to_owned(), u64::from(code)));
    }
    stage.sandbox.order(Script { account: Some("another".into()), ..Script::once(Api::Whatsapp, 131_000) });
    assert_eq!(stage.code(&text("+15557770142", "x")).await, 0, "it was ordered for another number");
}

#[tokio::test]
async fn ledger_keeps_whatsapps_fields_and_names_the_provider() {
    let stage = Stage::fast().await;
    stage.send(&tracked("+15557770142", "m1:0192-a:1")).await;
    let control = format!("{}/_sandbox/ledger", stage.sandbox.url());
    let line = stage.client.get(&control).send().await.unwrap().text().await.unwrap();
    let entry: Value = serde_json::from_str(line.trim()).unwrap();
    for (name, expected) in [
        ("provider", json!("whatsapp")),
        ("account", json!(NUMBER)),
        ("phone_number_id", json!(NUMBER)),
        ("recipient", json!("15557770142")),
        ("kind", json!("text")),
        ("opaque", json!("m1:0192-a:1")),
        ("text", json!("hello")),
        ("answer", json!("success")),
        ("units", json!(1)),
        ("statuses", json!([])),
    ] {
        assert_eq!(entry[name], expected, "{name}");
    }
    assert!(entry["verdict"]["accepted"]["wamid"].is_string());
    let summary: Value = stage.client.get(format!("{control}/summary")).send().await.unwrap().json().await.unwrap();
    assert_eq!(summary["numbers"][NUMBER], summary["accounts"]["whatsapp"][NUMBER]);
    assert_eq!(
        summary["providers"]["whatsapp"],
        json!({"requests": 1, "accepted": 1, "accepted_unanswered": 0, "refused": {}, "not_processed": 0, "noted": 0})
    );
}

#[tokio::test]
async fn accepted_without_an_answer_is_told_apart() {
    let stage = Stage::set(Behaviour { cut_after_rate: 1.0, ..Behaviour::fastest() }).await;
    assert!(stage.post(Some(TOKEN), &tracked("+15557770142", "m1:a:1")).await.is_err());
    let entry = &stage.sandbox.ledger().sends_from(1, 1)[0];
    assert_eq!((matches!(entry.verdict, Verdict::Accepted { .. }), entry.answer), (true, Answer::Cut));
    assert_eq!(stage.sandbox.ledger().summary().providers[&Api::Whatsapp].accepted_unanswered, 1);
}
