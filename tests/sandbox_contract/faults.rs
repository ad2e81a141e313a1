//! Cut connections, unreadable answers, outages, slowness and refusals by share: the same at every provider, and truthfully in the ledger.

use super::stage::{
    ACCOUNT_SID, AUTH_TOKEN, GATEWAY_TOKEN, IGSID, PAGE, PAGE_TOKEN, PROFESSIONAL, PSID, SENDER_ID, SMS, Stage,
    USER_TOKEN, answer, prompt,
};
use serde_json::json;
use std::time::{Duration, Instant};
use support::sandbox::{Api, Behaviour, behaviour::Span, ledger::Answer};

const OTHERS: [Api; 4] = [Api::Messenger, Api::Instagram, Api::Twilio, Api::Botmaster];

/// A message that is in order, to each provider.
fn message(stage: &Stage, api: Api) -> reqwest::RequestBuilder {
    let url = |path: &str| format!("{}{path}", stage.sandbox.url());
    match api {
        Api::Messenger => stage.client.post(url(&format!("/v25.0/{PAGE}/messages"))).bearer_auth(PAGE_TOKEN).json(
            &json!({"recipient": {"id": PSID}, "messaging_type": "RESPONSE", "message": {"text": "x"}}),
        ),
        Api::Instagram => stage
            .client
            .post(url(&format!("/v25.0/{PROFESSIONAL}/messages")))
            .bearer_auth(USER_TOKEN)
            .json(&json!({"recipient": {"id": IGSID}, "message": {"text": "x"}})),
        Api::Twilio => stage
            .client
            .post(url(&format!("/2010-04-01/Accounts/{ACCOUNT_SID}/Messages.json")))
            .basic_auth(ACCOUNT_SID, Some(AUTH_TOKEN))
            .body(format!("To=%2B14155550188&From=%2B{}&Body=x", &SMS[1..])),
        _ => stage.client.post(url("/api/v1/?action=send")).json(
            &json!({"senderId": SENDER_ID, "receiverId": "4915550001234", "messageText": "x", "authToken": GATEWAY_TOKEN}),
        ),
    }
}

#[tokio::test]
async fn every_fault_is_seen_and_booked_at_every_provider() {
    type Fault = (fn(&mut Behaviour), Option<u16>, bool, Answer);
    for api in OTHERS {
        let stage = Stage::fast().await;
        let down = if api == Api::Messenger || api == Api::Instagram { 500 } else { 503 };
        let faults: [Fault; 8] = [
            (|b| b.cut_before_rate = 1.0, None, false, Answer::Cut),
            (|b| b.cut_after_rate = 1.0, None, true, Answer::Cut),
            (|b| b.truncate_rate = 1.0, None, true, Answer::Truncated),
            (|b| (b.hang_rate, b.hang_ms) = (1.0, 20), None, true, Answer::Withheld),
            (|b| (b.gateway_error_rate, b.gateway_processed_share) = (1.0, 1.0), Some(502), true, Answer::GatewayError),
            (
                |b| (b.gateway_error_rate, b.gateway_processed_share) = (1.0, 0.0),
                Some(502),
                false,
                Answer::GatewayError,
            ),
            (|b| b.unavailable_rate = 1.0, Some(down), false, Answer::Error),
            (|b| (b.refuse_rate, b.refuse_code) = (1.0, 400), Some(400), false, Answer::Error),
        ];
        let mut expected = Vec::new();
        for (change, status, accepted, shown) in faults {
            stage.sandbox.behave(|behaviour| {
                *behaviour = Behaviour::fastest();
                change(behaviour);
            });
            let got = answer(message(&stage, api)).await.ok().map(|(status, _)| status);
            assert_eq!(got, status, "{api:?}, {shown:?}");
            expected.push((api, accepted, shown));
        }
        let entries = stage.sandbox.ledger().sends_from(1, 99);
        let seen: Vec<(Api, bool, Answer)> =
            entries.iter().map(|entry| (entry.provider, entry.wamid().is_some(), entry.answer)).collect();
        assert_eq!(seen, expected);
        let totals = &stage.sandbox.ledger().summary().providers[&api];
        assert_eq!((totals.accepted, totals.accepted_unanswered, totals.not_processed), (4, 4, 3));
    }
}

#[tokio::test]
async fn send_of_a_caller_who_goes_away_is_accepted_all_the_same() {
    let stage = Stage::set(Behaviour { latency_ms: Span { min: 300, max: 300 }, ..Behaviour::fastest() }).await;
    for api in OTHERS {
        let began = Instant::now();
        let going = answer(message(&stage, api));
        assert!(tokio::time::timeout(Duration::from_millis(80), going).await.is_err(), "{:?}", began.elapsed());
    }
    assert_eq!(stage.sandbox.ledger().summary().accepted, 4);
}

#[tokio::test]
async fn first_event_can_overtake_the_answer() {
    let stage = Stage::set(Behaviour {
        status_before_answer_rate: 1.0,
        status_delay_ms: Span { min: 400, max: 400 },
        ..prompt()
    })
    .await;
    for (told, api) in [Api::Messenger, Api::Instagram].into_iter().enumerate() {
        answer(message(&stage, api)).await.unwrap();
        assert_eq!(stage.receiver.got().len(), told + 1, "the echo was there before the answer");
    }
}
