//! The BotMasterSender gateway: what it takes and refuses, in the words and shapes its clients have seen.

use super::stage::{GATEWAY_TOKEN, SENDER_ID, Stage, answer};
use serde_json::{Value, json};
use support::sandbox::{
    Api, Behaviour, Limit, Script, Session, SessionState,
    behaviour::GatewayShape,
    ledger::{Answer, Verdict},
};

fn body() -> Value {
    json!({"senderId": SENDER_ID, "receiverId": "4915550001234", "messageText": "Hello Mara", "authToken": GATEWAY_TOKEN})
}

fn with(name: &str, value: &str) -> Value {
    let mut body = body();
    body[name] = json!(value);
    body
}

impl Stage {
    async fn try_gateway(&self, body: &Value) -> reqwest::Result<(u16, Value)> {
        answer(self.client.post(format!("{}/api/v1/?action=send", self.sandbox.url())).json(body)).await
    }

    async fn gateway(&self, body: &Value) -> (u16, Value) {
        self.try_gateway(body).await.unwrap()
    }

    fn shape(&self, shape: GatewayShape) {
        self.sandbox.behave(|behaviour| behaviour.gateway_shape = shape);
    }
}

#[tokio::test]
async fn accepted_send_stands_in_the_ledger_and_nothing_follows() {
    let stage = Stage::fast().await;
    let (status, answer) = stage.gateway(&body()).await;
    assert_eq!((status, &answer["success"]), (200, &json!(true)));
    stage.settle().await;
    assert!(stage.receiver.got().is_empty(), "nothing is told by webhook");
    let entry = &stage.sandbox.ledger().sends_to("4915550001234")[0];
    assert_eq!(
        (entry.provider, &*entry.account, entry.wamid()),
        (Api::Botmaster, SENDER_ID, answer["messageId"].as_str())
    );
    assert_eq!(entry.text.as_deref(), Some("Hello Mara"));
    assert_eq!(stage.sandbox.ledger().summary().accounts[&Api::Botmaster][SENDER_ID].busiest_second_units, 1);
}

#[tokio::test]
async fn success_comes_in_each_shape_that_was_seen() {
    let stage = Stage::fast().await;
    for (shape, id) in [
        (GatewayShape::Success, "/messageId"),
        (GatewayShape::Status, "/id"),
        (GatewayShape::Results, "/results/0/messageId"),
        (GatewayShape::Array, "/0/messageId"),
        (GatewayShape::AlwaysOk, "/messageId"),
    ] {
        stage.shape(shape);
        let (status, answer) = stage.gateway(&body()).await;
        assert!(status == 200 && answer.pointer(id).is_some_and(Value::is_string), "{shape:?}: {answer}");
    }
    stage.shape(GatewayShape::Status);
    let (_, answer) = stage.gateway(&body()).await;
    assert_eq!((answer["status"].as_str(), answer["subscription"]["sms_count"].as_u64()), (Some("success"), Some(6)));
}

#[tokio::test]
async fn failure_comes_in_each_shape_that_was_seen() {
    let stage = Stage::fast().await;
    let bad = with("receiverId", "12");
    for (shape, status, text) in [
        (GatewayShape::Success, 400, "/message"),
        (GatewayShape::Status, 400, "/error"),
        (GatewayShape::Results, 400, "/error"),
        (GatewayShape::Array, 400, "/0/error"),
        (GatewayShape::AlwaysOk, 200, "/message"),
    ] {
        stage.shape(shape);
        let (got, answer) = stage.gateway(&bad).await;
        assert_eq!(got, status, "{shape:?}");
        assert!(answer.pointer(text).unwrap().as_str().unwrap().contains("number"), "{shape:?}: {answer}");
    }
    assert_eq!(stage.sandbox.ledger().summary().refused[&400], 5);
}

#[tokio::test]
async fn state_of_a_session_is_said_in_words() {
    let stage = Stage::fast().await;
    for (state, status, word) in [
        (SessionState::Expired, 403, "expired"),
        (SessionState::InvalidToken, 401, "Invalid token"),
        (SessionState::NotConnected, 400, "not connected"),
        (SessionState::ScanQr, 400, "scan QR"),
    ] {
        stage.sandbox.link(Session { state, ..Session::new(SENDER_ID, GATEWAY_TOKEN) });
        let (got, answer) = stage.gateway(&body()).await;
        assert_eq!(got, status, "{state:?}");
        assert!(answer["message"].as_str().unwrap().contains(word), "{answer}");
    }
    stage.sandbox.link(Session::new(SENDER_ID, GATEWAY_TOKEN));
    assert_eq!(stage.gateway(&body()).await.0, 200);
}

#[tokio::test]
async fn wrong_token_and_unknown_sender_are_refused() {
    let stage = Stage::fast().await;
    assert_eq!(stage.gateway(&with("authToken", "another")).await.0, 401);
    assert_eq!(stage.gateway(&with("senderId", "919800000009")).await.0, 401);
    assert_eq!(stage.gateway(&json!({"receiverId": "4915550001234", "messageText": "x"})).await.0, 400);
}

#[tokio::test]
async fn numbers_are_digits_and_a_message_says_something() {
    let stage = Stage::fast().await;
    for bad in ["+4915550001234", "not a number", "", "1234567890123456"] {
        assert_eq!(stage.gateway(&with("receiverId", bad)).await.0, 400, "{bad}");
    }
    assert_eq!(stage.gateway(&with("messageText", "")).await.0, 400);
    let mut file = with("mediaurl", "https://files.shop.example/a.pdf");
    file.as_object_mut().unwrap().remove("messageText");
    assert_eq!(stage.gateway(&file).await.0, 200);
    assert_eq!(stage.sandbox.ledger().accepted()[0].kind, "media");
}

#[tokio::test]
async fn other_action_is_unknown_and_a_file_goes_by_get() {
    let stage = Stage::fast().await;
    let root = format!("{}/api/v1/", stage.sandbox.url());
    let unknown = stage.client.post(format!("{root}?action=sendGroup")).json(&body());
    assert_eq!(answer(unknown).await.unwrap().0, 404);
    let query = format!("senderId={SENDER_ID}&receiverId=4915550001234&authToken={GATEWAY_TOKEN}");
    let text = stage.client.get(format!("{root}?action=send&{query}&messageText=Hello"));
    assert_eq!(answer(text).await.unwrap().0, 200);
    let file =
        stage.client.get(format!("{root}?action=sendFile&{query}&fileUrl=https://f.example/a.pdf&fileCaption=Bill"));
    assert_eq!(answer(file).await.unwrap().0, 200);
    let without = stage.client.get(format!("{root}?action=sendFile&{query}"));
    assert_eq!(answer(without).await.unwrap().0, 400);
    assert_eq!(stage.sandbox.ledger().accepted()[1].text.as_deref(), Some("Bill"));
}

#[tokio::test]
async fn outage_is_a_503_and_is_not_processed() {
    let stage = Stage::set(Behaviour { unavailable_rate: 1.0, ..Behaviour::fastest() }).await;
    assert_eq!(stage.gateway(&body()).await.0, 503);
    assert_eq!(stage.sandbox.ledger().sends_from(1, 1)[0].verdict, Verdict::NotProcessed);
}

#[tokio::test]
async fn timeout_and_cut_may_have_been_processed() {
    let stage = Stage::set(Behaviour { hang_rate: 1.0, hang_ms: 30, ..Behaviour::fastest() }).await;
    assert!(stage.try_gateway(&body()).await.is_err());
    stage.sandbox.behave(|behaviour| *behaviour = Behaviour { cut_before_rate: 1.0, ..Behaviour::fastest() });
    assert!(stage.try_gateway(&body()).await.is_err());
    stage.sandbox.behave(|behaviour| {
        *behaviour = Behaviour { gateway_error_rate: 1.0, gateway_processed_share: 1.0, ..Behaviour::fastest() };
    });
    assert_eq!(stage.gateway(&body()).await.0, 502);
    let entries = stage.sandbox.ledger().sends_from(1, 9);
    let seen: Vec<(bool, Answer)> = entries.iter().map(|entry| (entry.wamid().is_some(), entry.answer)).collect();
    assert_eq!(seen, [(true, Answer::Withheld), (false, Answer::Cut), (true, Answer::GatewayError)]);
}

#[tokio::test]
async fn ordered_answers_and_limits_are_met() {
    let stage = Stage::fast().await;
    stage.sandbox.order(Script::once(Api::Botmaster, 401).saying("Your plan has expired"));
    let (status, answer) = stage.gateway(&body()).await;
    assert_eq!((status, answer["message"].as_str()), (401, Some("Your plan has expired")));
    stage.sandbox.order(Script::once(Api::Botmaster, 500));
    assert_eq!(stage.gateway(&body()).await.0, 500);
    stage.sandbox.limit(Limit::new(Api::Botmaster, SENDER_ID, Some(1))).await.unwrap();
    let first = stage.gateway(&body()).await.0;
    let second = stage.gateway(&body()).await.0;
    assert_eq!((first, second), (200, 429));
}
