//! Twilio as it takes messages: what it refuses, what it queues, what it calls back, and what can be read back.

use super::stage::{
    ACCOUNT_SID, API_KEY, AUTH_TOKEN, Got, IN_SERVICE, SERVICE, SMS, Stage, WHATSAPP, answer, prompt, strict,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use support::sandbox::{
    AccountSpec, Api, Behaviour, Happening, Limit, Platform, Script, Standing, TOKEN,
    behaviour::{Span, Status},
    ledger::Answer,
    platform::Way,
    twilio::sign,
};

const CUSTOMER: &str = "+14155550188";
const ON_WHATSAPP: &str = "whatsapp:+4915550001234";

type Form<'a> = Vec<(&'a str, &'a str)>;

fn sms() -> Form<'static> {
    vec![("To", CUSTOMER), ("From", SMS), ("Body", "Your parcel left our store.")]
}

fn whatsapp(body: &'static str) -> Form<'static> {
    vec![("To", ON_WHATSAPP), ("From", WHATSAPP), ("Body", body)]
}

fn with<'a>(mut form: Form<'a>, name: &'a str, value: &'a str) -> Form<'a> {
    form.retain(|(known, _)| *known != name);
    form.push((name, value));
    form
}

fn without<'a>(mut form: Form<'a>, name: &str) -> Form<'a> {
    form.retain(|(known, _)| *known != name);
    form
}

impl Stage {
    fn twilio_url(&self, rest: &str) -> String {
        format!("{}/2010-04-01/Accounts/{ACCOUNT_SID}/{rest}", self.sandbox.url())
    }

    async fn try_twilio(&self, form: &Form<'_>) -> reqwest::Result<(u16, Value)> {
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        let request = self.client.post(self.twilio_url("Messages.json")).basic_auth(ACCOUNT_SID, Some(AUTH_TOKEN));
        answer(request.header("content-type", "application/x-www-form-urlencoded").body(body)).await
    }

    async fn twilio(&self, form: &Form<'_>) -> (u16, Value) {
        self.try_twilio(form).await.unwrap()
    }

    async fn twilio_code(&self, form: &Form<'_>) -> u64 {
        let (status, body) = self.twilio(form).await;
        if status == 201 { 0 } else { body["code"].as_u64().unwrap() }
    }

    async fn look(&self, rest: &str) -> (u16, Value) {
        answer(self.client.get(self.twilio_url(rest)).basic_auth(API_KEY.0, Some(API_KEY.1))).await.unwrap()
    }

    async fn content(&self, body: &Value) -> String {
        let url = format!("{}/v1/Content", self.sandbox.url());
        let request = self.client.post(url).basic_auth(ACCOUNT_SID, Some(AUTH_TOKEN)).json(body);
        let (status, answer) = answer(request).await.unwrap();
        assert_eq!(status, 201, "{answer}");
        answer["sid"].as_str().unwrap().to_owned()
    }

    /// The statuses that were called back, in the order in which they arrived.
    fn called_back(&self) -> Vec<String> {
        self.receiver.got().iter().map(|got| got.value("MessageStatus")).collect()
    }

    fn callbacks(&self) -> String {
        format!("{}/status?mid=m1:0192-a:1&t=7", self.receiver.root)
    }
}

fn parcel() -> Value {
    json!({"friendly_name": "parcel_sent", "language": "en", "variables": {"1": "Mara", "2": "8812"},
        "types": {"twilio/text": {"body": "Hi {{1}}, parcel {{2}} is on its way."}}})
}

#[tokio::test]
async fn accepted_send_is_answered_as_documented_and_stands_in_the_ledger() {
    let stage = Stage::fast().await;
    let callback = stage.callbacks();
    let (status, answer) = stage.twilio(&with(sms(), "StatusCallback", &callback)).await;
    assert_eq!(status, 201);
    let sid = answer["sid"].as_str().unwrap();
    assert!(sid.len() == 34 && sid.starts_with("SM"));
    for (name, expected) in [
        ("status", json!("queued")),
        ("from", json!(SMS)),
        ("to", json!(CUSTOMER)),
        ("num_segments", json!("1")),
        ("num_media", json!("0")),
        ("error_code", Value::Null),
        ("direction", json!("outbound-api")),
        ("account_sid", json!(ACCOUNT_SID)),
    ] {
        assert_eq!(answer[name], expected, "{name}");
    }
    assert!(answer["date_created"].as_str().unwrap().ends_with("+0000"));
    let entry = &stage.sandbox.ledger().sends_to(CUSTOMER)[0];
    assert_eq!((entry.provider, &*entry.account, entry.wamid()), (Api::Twilio, SMS, Some(sid)));
    assert_eq!(entry.message(), Some("0192-a"));
}

#[tokio::test]
async fn credentials_are_the_accounts_own_or_a_key() {
    let stage = Stage::fast().await;
    for (user, password, expected) in [
        (ACCOUNT_SID, AUTH_TOKEN, 201),
        (API_KEY.0, API_KEY.1, 201),
        (ACCOUNT_SID, TOKEN, 201),
        (ACCOUNT_SID, "wrong", 401),
        (API_KEY.0, "wrong", 401),
        ("AC00000000000000000000000000000099", AUTH_TOKEN, 401),
    ] {
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(sms()).finish();
        let request = stage.client.post(stage.twilio_url("Messages.json")).basic_auth(user, Some(password)).body(body);
        let (status, answer) = answer(request).await.unwrap();
        assert_eq!(status, expected, "{user}:{password}");
        if status == 401 {
            let expected = json!({"code": 20003, "message": "Authenticate", "more_info": "https://www.twilio.com/docs/errors/20003", "status": 401});
            assert_eq!(answer, expected);
        }
    }
    let bare = answer(stage.client.post(stage.twilio_url("Messages.json"))).await.unwrap();
    assert_eq!(bare.0, 401);
}

#[tokio::test]
async fn form_is_checked_in_the_documented_order() {
    let stage = Stage::fast().await;
    let long = "x".repeat(1_601);
    let foreign = format!("HX{}", "0".repeat(32));
    let files = vec![("MediaUrl", "https://f.example/a.jpg"); 11];
    for (code, form) in [
        (21_604, without(sms(), "To")),
        // What is wrong with `To` is said first.
        (21_604, vec![]),
        (21_211, vec![("To", "not a number")]),
        (21_211, with(sms(), "To", "+0123")),
        (21_603, without(sms(), "From")),
        (21_606, with(sms(), "From", "+15035550100")),
        (63_007, with(whatsapp("x"), "From", "whatsapp:+15035550100")),
        (21_705, with(without(sms(), "From"), "MessagingServiceSid", "service")),
        (21_701, with(without(sms(), "From"), "MessagingServiceSid", "MG00000000000000000000000000000099")),
        (21_910, with(sms(), "To", ON_WHATSAPP)),
        (21_910, with(whatsapp("x"), "To", CUSTOMER)),
        (21_266, with(sms(), "To", SMS)),
        (21_602, without(sms(), "Body")),
        (21_602, with(sms(), "Body", "")),
        (21_617, with(sms(), "Body", &long)),
        (21_620, with(sms(), "MediaUrl", "no link")),
        (21_623, [sms(), files.clone()].concat()),
        (21_623, [whatsapp("x"), files[..2].to_vec()].concat()),
        (21_655, with(sms(), "ContentSid", "HX12")),
        (21_655, with(sms(), "ContentSid", &foreign)),
        (21_609, with(sms(), "StatusCallback", "/status")),
        (21_609, with(sms(), "StatusCallback", "https://my_host.example/status")),
        (20_422, with(sms(), "ValidityPeriod", "0")),
        (35_118, with(sms(), "ScheduleType", "fixed")),
    ] {
        assert_eq!(stage.twilio_code(&form).await, code, "{form:?}");
    }
    assert_eq!(stage.sandbox.ledger().summary().accepted, 0);
}

#[tokio::test]
async fn test_numbers_trigger_what_they_are_for() {
    let stage = Stage::fast().await;
    for (name, number, code) in [
        ("From", "+15005550001", 21_212),
        ("From", "+15005550006", 0),
        ("From", "+15005550007", 21_606),
        ("From", "+15005550008", 21_611),
        ("To", "+15005550001", 21_211),
        ("To", "+15005550002", 21_612),
        ("To", "+15005550003", 21_408),
        ("To", "+15005550004", 21_610),
        ("To", "+15005550009", 21_614),
    ] {
        assert_eq!(stage.twilio_code(&with(sms(), name, number)).await, code, "{name} {number}");
    }
}

#[tokio::test]
async fn callbacks_follow_signed_over_the_query_they_were_asked_with() {
    let stage = Stage::set(prompt()).await;
    let callback = stage.callbacks();
    let (_, answer) = stage.twilio(&with(sms(), "StatusCallback", &callback)).await;
    stage.settle().await;
    assert_eq!(stage.called_back(), ["sent", "delivered"], "text messages are not read");
    for got in stage.receiver.got() {
        assert_eq!(got.target, "/status?mid=m1:0192-a:1&t=7");
        assert_eq!(got.header("x-twilio-signature"), sign::form(AUTH_TOKEN, &callback, &got.form()));
        assert_eq!(
            (got.value("MessageSid").as_str(), got.value("To").as_str()),
            (answer["sid"].as_str().unwrap(), CUSTOMER)
        );
    }
    assert!(stage.were_taken(&[Status::Sent, Status::Delivered]));
    let (_, read) = stage.look(&format!("Messages/{}.json", answer["sid"].as_str().unwrap())).await;
    assert_eq!((read["status"].as_str(), read["date_sent"].is_string()), (Some("delivered"), true));
}

#[tokio::test]
async fn callback_is_signed_with_the_default_port_where_the_sender_is_so() {
    let stage = Stage::set(prompt()).await;
    let ported = AccountSpec {
        way: Way::FormWithPort,
        ..AccountSpec::new(Platform::Twilio, "+15035550111").signed_with(AUTH_TOKEN)
    };
    stage.sandbox.registry().add_account(ported);
    let callback = stage.callbacks();
    stage.twilio(&with(with(sms(), "From", "+15035550111"), "StatusCallback", &callback)).await;
    stage.settle().await;
    let got = stage.receiver.got().remove(0);
    let signed = sign::with_default_port(&callback);
    assert_eq!(got.header("x-twilio-signature"), sign::form(AUTH_TOKEN, &signed, &got.form()));
}

#[tokio::test]
async fn nobody_is_told_who_did_not_ask() {
    let stage = Stage::set(prompt()).await;
    let (_, answer) = stage.twilio(&sms()).await;
    stage.settle().await;
    assert!(stage.receiver.got().is_empty());
    let (_, read) = stage.look(&format!("Messages/{}.json", answer["sid"].as_str().unwrap())).await;
    assert_eq!(read["status"], "delivered");
}

#[tokio::test]
async fn service_accepts_then_queues_and_picks_a_sender() {
    let stage = Stage::set(prompt()).await;
    let callback = stage.callbacks();
    let form = with(with(without(sms(), "From"), "MessagingServiceSid", SERVICE), "StatusCallback", &callback);
    let (_, answer) = stage.twilio(&form).await;
    assert_eq!((answer["status"].as_str(), &answer["from"]), (Some("accepted"), &Value::Null));
    stage.settle().await;
    assert_eq!(stage.called_back(), ["queued", "sent", "delivered"]);
    assert_eq!(stage.receiver.got()[1].value("From"), IN_SERVICE);
    assert_eq!(&*stage.sandbox.ledger().accepted()[0].account, IN_SERVICE);
}

#[tokio::test]
async fn free_form_outside_whatsapps_window_is_created_and_then_undelivered() {
    let stage = Stage::set(Behaviour { window: Behaviour::default().window, ..prompt() }).await;
    let callback = stage.callbacks();
    let form = with(whatsapp("Hello"), "StatusCallback", &callback);
    assert_eq!(stage.twilio(&form).await.0, 201);
    stage.settle().await;
    let got: Vec<Got> = stage.receiver.got();
    assert_eq!(
        (got.len(), got[0].value("MessageStatus").as_str(), got[0].value("ErrorCode").as_str()),
        (1, "undelivered", "63016")
    );
    stage.hear(Platform::Twilio, WHATSAPP, ON_WHATSAPP).await;
    assert_eq!(stage.twilio(&form).await.0, 201);
    stage.settle().await;
    assert_eq!(stage.called_back(), ["sent", "delivered", "read"]);
    assert_eq!(stage.receiver.got()[0].value("ChannelPrefix"), "whatsapp");
}

#[tokio::test]
async fn template_passes_outside_the_window_once_it_is_approved() {
    let stage = Stage::set(Behaviour { window: Behaviour::default().window, ..prompt() }).await;
    let sid = stage.content(&parcel()).await;
    let callback = stage.callbacks();
    let form = || {
        vec![
            ("To", ON_WHATSAPP),
            ("From", WHATSAPP),
            ("ContentSid", sid.as_str()),
            ("ContentVariables", r#"{"1":"Jonas"}"#),
            ("StatusCallback", callback.as_str()),
        ]
    };
    let mut ends = Vec::new();
    for status in ["unsubmitted", "approved", "rejected", "paused", "disabled"] {
        assert!(stage.sandbox.set_approval(&sid, status, ""));
        assert_eq!(stage.twilio(&form()).await.0, 201);
        stage.settle().await;
        let last = stage.receiver.got().pop().unwrap();
        ends.push((status, last.value("MessageStatus"), last.value("ErrorCode")));
    }
    let expected = [
        ("unsubmitted", "undelivered", "63016"),
        ("approved", "read", ""),
        ("rejected", "undelivered", "63040"),
        ("paused", "undelivered", "63041"),
        ("disabled", "undelivered", "63042"),
    ];
    assert_eq!(ends, expected.map(|(status, end, code)| (status, end.to_owned(), code.to_owned())));
    let bodies: Vec<Value> = stage.look("Messages.json").await.1["messages"].as_array().unwrap().clone();
    assert_eq!(bodies[0]["body"], "Hi Jonas, parcel 8812 is on its way.", "missing variables take the template's own");
    assert_eq!(stage.twilio_code(&with(form(), "ContentVariables", "{1: Jonas}")).await, 21_656);
    assert_eq!(stage.twilio_code(&with(form(), "ContentVariables", r#"{"1":5}"#)).await, 21_656);
    stage.sandbox.set_approval(&sid, "approved", "");
    stage.twilio(&with(form(), "ContentVariables", "{\"1\":\"two\\nlines\"}")).await;
    stage.settle().await;
    assert_eq!(stage.receiver.got().pop().unwrap().value("ErrorCode"), "63028");
}

#[tokio::test]
async fn stop_blocks_the_pair_until_start() {
    let stage = Stage::fast().await;
    let say = |text: &'static str| stage.sandbox.happen(Happening::text(Platform::Twilio, SMS, CUSTOMER, text));
    say(" stop ").await.unwrap();
    assert_eq!(stage.twilio_code(&sms()).await, 21_610);
    assert_eq!(stage.twilio_code(&with(sms(), "To", "+14155550189")).await, 0, "nobody else");
    assert_eq!(stage.twilio_code(&with(sms(), "From", IN_SERVICE)).await, 0, "no other sender");
    say("please stop").await.unwrap();
    say("START").await.unwrap();
    assert_eq!(stage.twilio_code(&sms()).await, 0);
    stage.sandbox.happen(Happening::of(Platform::Twilio, IN_SERVICE, "stop", CUSTOMER)).await.unwrap();
    let by_service = with(without(sms(), "From"), "MessagingServiceSid", SERVICE);
    assert_eq!(stage.twilio_code(&by_service).await, 0, "a service finds out later");
    stage.sandbox.happen(Happening::text(Platform::Twilio, WHATSAPP, ON_WHATSAPP, "STOP")).await.unwrap();
    assert_eq!(stage.twilio_code(&whatsapp("x")).await, 0, "the filter is not WhatsApp's");
}

#[tokio::test]
async fn queue_drains_in_segments_at_the_senders_rate_and_overflows() {
    let behaviour = Behaviour { queues: true, queue_s: Some(2), status_delay_ms: Span::default(), ..prompt() };
    let stage = Stage::set(behaviour).await;
    stage.sandbox.limit(Limit::new(Api::Twilio, SMS, Some(10))).await.unwrap();
    let text = "x".repeat(1_000);
    let long = with(sms(), "Body", &text);
    let (_, first) = stage.twilio(&long).await;
    assert_eq!(first["num_segments"], "7");
    let mut codes = vec![0];
    for _ in 0..3 {
        codes.push(stage.twilio_code(&long).await);
    }
    assert_eq!(codes, [0, 0, 0, 21_611], "21 segments wait where there is room for 20");
    let by_service = with(without(long.clone(), "From"), "MessagingServiceSid", SERVICE);
    stage.sandbox.limit(Limit::new(Api::Twilio, IN_SERVICE, Some(1))).await.unwrap();
    let callback = stage.callbacks();
    stage.twilio(&by_service).await;
    assert_eq!(stage.twilio_code(&with(by_service, "StatusCallback", &callback)).await, 0);
    stage.settle().await;
    let overflowed = stage.receiver.got();
    assert!(overflowed.iter().any(|got| got.value("ErrorCode") == "30001"), "a service says so later");
    let totals = &stage.sandbox.ledger().summary().accounts[&Api::Twilio][SMS];
    assert_eq!((totals.accepted, totals.busiest_second_units), (3, 21), "counted in segments");
    let mut sent = Vec::new();
    for entry in stage.sandbox.ledger().accepted().iter().filter(|entry| *entry.account == *SMS) {
        let (_, message) = stage.look(&format!("Messages/{}.json", entry.wamid().unwrap())).await;
        sent.push(chrono::DateTime::parse_from_rfc2822(message["date_sent"].as_str().unwrap()).unwrap());
    }
    assert!((sent[2] - sent[0]).num_seconds() >= 1, "14 segments in front of it at 10 a second: {sent:?}");
}

#[tokio::test]
async fn validity_that_ends_in_the_queue_fails() {
    let stage = Stage::set(Behaviour { queues: true, ..prompt() }).await;
    let callback = stage.callbacks();
    stage.twilio(&with(sms(), "Body", &"x".repeat(600))).await;
    let form = with(with(sms(), "ValidityPeriod", "1"), "StatusCallback", &callback);
    assert_eq!(stage.twilio(&form).await.0, 201);
    stage.settle().await;
    let got = stage.receiver.got();
    assert_eq!((got[0].value("MessageStatus").as_str(), got[0].value("ErrorCode").as_str()), ("failed", "30036"));
}

#[tokio::test]
async fn too_many_requests_at_once_create_nothing() {
    let stage = Stage::set(Behaviour {
        concurrent_requests: Some(2),
        latency_ms: Span { min: 150, max: 150 },
        ..Behaviour::fastest()
    })
    .await;
    let form = sms();
    let answers = futures_util::future::join_all((0..6).map(|_| stage.twilio(&form))).await;
    let all: Vec<u16> = answers.iter().map(|(status, _)| *status).collect();
    let refused = all.iter().filter(|status| **status == 429).count();
    assert!(refused >= 1 && all.contains(&201), "{all:?}");
    let summary = stage.sandbox.ledger().summary();
    assert_eq!(summary.refused[&20_429], refused as u64);
    assert_eq!(summary.accepted, 6 - refused as u64);
}

#[tokio::test]
async fn too_many_requests_a_second_are_refused_and_every_answer_says_how_many_are_under_way() {
    let stage =
        Stage::set(Behaviour { requests_per_second: Some(3), retry_after_s: Some(1), ..Behaviour::fastest() }).await;
    let mut statuses = BTreeMap::new();
    for _ in 0..8 {
        *statuses.entry(stage.twilio(&sms()).await.0).or_insert(0) += 1;
    }
    assert!(statuses[&201] >= 3 && statuses[&429] >= 1, "{statuses:?}");
    stage.sandbox.order(Script::once(Api::Twilio, 20_429));
    let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(sms()).finish();
    let request = stage.client.post(stage.twilio_url("Messages.json")).basic_auth(ACCOUNT_SID, Some(AUTH_TOKEN));
    let response = request.body(body).send().await.unwrap();
    assert_eq!(
        (response.status().as_u16(), &response.headers()["twilio-concurrent-requests"]),
        (429, &"1".parse().unwrap())
    );
    assert!(response.headers()["twilio-request-id"].to_str().unwrap().starts_with("RQ"));
    assert_eq!(response.headers()["retry-after"], "1");
}

#[tokio::test]
async fn templates_of_text_messages_count_by_what_is_really_sent() {
    let stage = Stage::fast().await;
    let sid = stage.content(&parcel()).await;
    let name = "x".repeat(200);
    let variables = json!({"1": name}).to_string();
    let form = with(with(without(sms(), "Body"), "ContentSid", &sid), "ContentVariables", &variables);
    let (_, answer) = stage.twilio(&form).await;
    assert_eq!(answer["num_segments"], "2");
    assert_eq!(stage.sandbox.ledger().accepted()[0].units, 2);
}

#[tokio::test]
async fn file_that_cannot_be_fetched_fails_later() {
    let stage = Stage::set(prompt()).await;
    let callback = stage.callbacks();
    let (good, gone) = (stage.receiver.file("ring.jpg"), stage.receiver.file("gone.jpg"));
    let form = |url: &'_ str| -> Vec<(String, String)> {
        let form = with(with(whatsapp("See"), "StatusCallback", &callback), "MediaUrl", url);
        form.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    };
    let mut ends = BTreeMap::new();
    for url in [&good, &gone] {
        let form = form(url);
        let borrowed: Form<'_> = form.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let (status, answer) = stage.twilio(&borrowed).await;
        assert_eq!((status, answer["num_media"].as_str()), (201, Some("1")));
        assert!(answer["sid"].as_str().unwrap().starts_with("MM"));
        stage.settle().await;
        ends.insert(url, stage.receiver.got().pop().unwrap().value("ErrorCode"));
    }
    assert_eq!((ends[&good].as_str(), ends[&gone].as_str()), ("", "63019"));
}

#[tokio::test]
async fn unknown_sends_are_found_in_the_list() {
    let stage = Stage::set(Behaviour { cut_after_rate: 1.0, ..Behaviour::fastest() }).await;
    assert!(stage.try_twilio(&sms()).await.is_err());
    let entry = stage.sandbox.ledger().sends_from(1, 1).remove(0);
    assert_eq!((entry.wamid().is_some(), entry.answer), (true, Answer::Cut));
    stage.sandbox.behave(|behaviour| *behaviour = Behaviour::fastest());
    for n in 0..4 {
        stage.twilio(&with(sms(), "To", &format!("+1415555020{n}"))).await;
    }
    let today = chrono::Utc::now().format("%Y-%m-%d").to_string();
    let query = format!("Messages.json?To=%2B14155550188&From=%2B15035550199&DateSent%3E={today}");
    let (_, found) = stage.look(&query).await;
    let messages = found["messages"].as_array().unwrap();
    assert_eq!((messages.len(), messages[0]["sid"].as_str()), (1, entry.wamid()));
    assert_eq!(messages[0]["body"], "Your parcel left our store.");
    assert_eq!(stage.look("Messages.json?DateSent%3E=2099-01-01").await.1["messages"], json!([]));
    assert_eq!(stage.look(&format!("Messages.json?DateSent={today}")).await.1["messages"].as_array().unwrap().len(), 5);
    let (mut seen, mut next) = (Vec::new(), Some("Messages.json?PageSize=2".to_owned()));
    while let Some(rest) = next {
        let (_, page) = stage.look(&rest).await;
        seen.extend(page["messages"].as_array().unwrap().iter().map(|message| message["to"].clone()));
        next = page["next_page_uri"].as_str().map(|uri| uri.split_once("/Messages.json").unwrap().1.to_owned());
        next = next.map(|query| format!("Messages.json{query}"));
    }
    assert_eq!(seen.len(), 5);
    assert_eq!((seen[0].as_str(), seen[4].as_str()), (Some("+14155550203"), Some(CUSTOMER)), "newest first");
}

#[tokio::test]
async fn message_is_redacted_deleted_and_scheduled_ones_are_cancelled() {
    let stage = Stage::set(prompt()).await;
    let (_, sent) = stage.twilio(&sms()).await;
    let path = format!("Messages/{}.json", sent["sid"].as_str().unwrap());
    let post = |path: String, form: &'static str| {
        let request = stage.client.post(stage.twilio_url(&path)).basic_auth(ACCOUNT_SID, Some(AUTH_TOKEN));
        answer(request.body(form))
    };
    assert_eq!(post(path.clone(), "Body=").await.unwrap().1["body"], "");
    assert_eq!(post(path.clone(), "Status=canceled").await.unwrap().1["code"], 35_114);
    let deleted = stage.client.delete(stage.twilio_url(&path)).basic_auth(ACCOUNT_SID, Some(AUTH_TOKEN));
    assert_eq!(answer(deleted).await.unwrap().0, 204);
    assert_eq!(stage.look(&path).await.1["code"], 20_404);
    let soon = (chrono::Utc::now() + chrono::TimeDelta::minutes(20)).to_rfc3339();
    let callback = stage.callbacks();
    let service = with(without(sms(), "From"), "MessagingServiceSid", SERVICE);
    let fixed = with(with(service, "ScheduleType", "fixed"), "StatusCallback", &callback);
    assert_eq!(stage.twilio_code(&with(fixed.clone(), "SendAt", "2020-01-01T00:00:00Z")).await, 35_111);
    let (_, scheduled) = stage.twilio(&with(fixed, "SendAt", &soon)).await;
    assert_eq!(scheduled["status"], "scheduled");
    let path = format!("Messages/{}.json", scheduled["sid"].as_str().unwrap());
    assert_eq!(post(path, "Status=canceled").await.unwrap().1["status"], "canceled");
    for _ in 0..200 {
        if !stage.receiver.got().is_empty() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(stage.called_back(), ["canceled"]);
}

#[tokio::test]
async fn documented_errors_are_answered_or_called_back_when_ordered() {
    let stage = Stage::set(prompt()).await;
    for (code, status) in [(20_003, 401), (20_429, 429), (20_503, 503), (21_408, 400), (63_038, 429), (21_635, 400)] {
        stage.sandbox.order(Script::once(Api::Twilio, code));
        let (got, answer) = stage.twilio(&sms()).await;
        assert_eq!(
            (got, answer["code"].as_u64(), answer["status"].as_u64()),
            (status, Some(code.into()), Some(status.into()))
        );
    }
    let callback = stage.callbacks();
    let mut ends = Vec::new();
    for code in [30_003, 30_007, 21_610, 30_008] {
        stage.sandbox.order(Script::once(Api::Twilio, code).later());
        assert_eq!(stage.twilio(&with(sms(), "StatusCallback", &callback)).await.0, 201);
        stage.settle().await;
        let last = stage.receiver.got().pop().unwrap();
        ends.push((last.value("MessageStatus"), last.value("ErrorCode")));
    }
    let expected = [("undelivered", "30003"), ("failed", "30007"), ("failed", "21610"), ("undelivered", "30008")];
    assert_eq!(ends, expected.map(|(status, code)| (status.to_owned(), code.to_owned())));
    stage.sandbox.stand(Platform::Twilio, SMS, Standing::Suspended).await.unwrap();
    assert_eq!(stage.twilio_code(&sms()).await, 20_005);
}

#[tokio::test]
async fn content_is_made_listed_submitted_and_deleted() {
    let stage = Stage::set(strict()).await;
    let root = format!("{}/v1", stage.sandbox.url());
    let get = |rest: &str| answer(stage.client.get(format!("{root}{rest}")).basic_auth(API_KEY.0, Some(API_KEY.1)));
    let sid = stage.content(&parcel()).await;
    stage.content(&json!({"friendly_name": "pick", "language": "en", "types": {"twilio/list-picker": {"body": "Pick", "button": "See", "items": []}}})).await;
    let bad = stage
        .client
        .post(format!("{root}/Content"))
        .basic_auth(ACCOUNT_SID, Some(AUTH_TOKEN))
        .json(&json!({"language": "en"}));
    assert_eq!(answer(bad).await.unwrap().0, 400);
    assert_eq!(answer(stage.client.get(format!("{root}/Content"))).await.unwrap().0, 401);
    let (_, page) = get("/Content?PageSize=1").await.unwrap();
    assert_eq!(
        (page["contents"][0]["sid"].as_str(), page["meta"]["key"].as_str()),
        (Some(sid.as_str()), Some("contents"))
    );
    let next = page["meta"]["next_page_url"].as_str().unwrap().strip_prefix(&root).unwrap();
    let (_, last) = get(next).await.unwrap();
    assert_eq!(
        (last["contents"][0]["friendly_name"].as_str(), &last["meta"]["next_page_url"]),
        (Some("pick"), &Value::Null)
    );
    let submit = |sid: &str, body: Value| {
        let url = format!("{root}/Content/{sid}/ApprovalRequests/whatsapp");
        answer(stage.client.post(url).basic_auth(ACCOUNT_SID, Some(AUTH_TOKEN)).json(&body))
    };
    assert_eq!(submit(&sid, json!({"name": "Parcel Sent", "category": "UTILITY"})).await.unwrap().0, 400);
    let (status, asked) = submit(&sid, json!({"name": "parcel_sent", "category": "UTILITY"})).await.unwrap();
    assert_eq!((status, asked["status"].as_str()), (201, Some("received")));
    let picker = last["contents"][0]["sid"].as_str().unwrap();
    assert_eq!(submit(picker, json!({"name": "pick", "category": "UTILITY"})).await.unwrap().0, 400);
    let mut approved = false;
    for _ in 0..200 {
        let (_, requests) = get(&format!("/Content/{sid}/ApprovalRequests")).await.unwrap();
        approved = requests["whatsapp"]["status"] == "approved";
        if approved {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert!(approved);
    let (_, both) = get("/ContentAndApprovals").await.unwrap();
    assert_eq!(both["contents"][0]["approval_requests"]["status"], "approved");
    assert_eq!(both["contents"][1]["approval_requests"]["status"], "unsubmitted");
    let delete = stage.client.delete(format!("{root}/Content/{sid}")).basic_auth(ACCOUNT_SID, Some(AUTH_TOKEN));
    assert_eq!(answer(delete).await.unwrap().0, 204);
    assert_eq!(get(&format!("/Content/{sid}")).await.unwrap().0, 404);
}

#[tokio::test]
async fn typing_is_noted_for_a_message_that_was_told() {
    let stage = Stage::fast().await;
    let told = stage.sandbox.happen(Happening::text(Platform::Twilio, WHATSAPP, ON_WHATSAPP, "hi")).await.unwrap();
    let url = format!("{}/v3/Indicators/Typing.json", stage.sandbox.url());
    let typing = |id: &str| {
        let request = stage.client.post(&url).basic_auth(ACCOUNT_SID, Some(AUTH_TOKEN));
        answer(request.json(&json!({"channel": "WHATSAPP", "messageId": id})))
    };
    assert_eq!(typing(&told.ids[0]).await.unwrap(), (200, json!({"success": true})));
    assert_eq!(typing("SM00").await.unwrap().0, 404);
    let entry = &stage.sandbox.ledger().sends_from(1, 1)[0];
    assert_eq!((entry.kind, &*entry.account, &*entry.recipient), ("typing", WHATSAPP, ON_WHATSAPP));
    assert_eq!(stage.sandbox.ledger().summary().noted, 1);
}
