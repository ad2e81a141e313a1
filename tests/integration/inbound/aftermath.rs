//! What a report leads to beside its message: only while it is news.

use super::{Stage, ada};
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use shared::domain::{
    channel::Provider,
    events::{Event, SendToken, StatusReport},
    sends::SendState::{Failed, Sent},
};

fn failed(token: SendToken, code: &str, at: DateTime<Utc>) -> Event {
    Event::Status(StatusReport {
        provider_message_id: format!("sent.{}", token.message_id),
        state: Failed,
        status: "failed".into(),
        at,
        code: Some(code.into()),
        reason: Some("why".into()),
        token: Some(token),
    })
}

impl Stage {
    async fn follows(&mut self) -> Vec<Value> {
        let jobs = "SELECT coalesce(jsonb_agg(convert_from(body, 'UTF8')::jsonb -> 'aftermath' ORDER BY id), '[]')
            FROM outbox WHERE job ->> 'kind' = 'outbound.aftermath'";
        let Value::Array(jobs) = self.row(jobs).await else { panic!("an array") };
        jobs
    }
}

#[tokio::test]
async fn a_code_leads_to_what_its_provider_says_while_it_is_news() {
    for (provider, code, expected) in [
        (Provider::Whatsapp, "131047", Some(json!({"is": "window_closed"}))),
        (Provider::Whatsapp, "131042", Some(json!({"is": "account_down"}))),
        (Provider::Whatsapp, "131026", None),
        (Provider::Twilio, "63016", Some(json!({"is": "window_closed"}))),
        (Provider::Twilio, "30034", Some(json!({"is": "account_down"}))),
        (Provider::Twilio, "30008", Some(json!({"is": "again", "times": 1, "after_seconds": 600, "in_doubt": true}))),
        (Provider::Twilio, "63041", Some(json!({"is": "template_blocked", "block": "paused"}))),
        (Provider::Twilio, "21610", None),
    ] {
        let mut stage = Stage::on(provider).await;
        let now = Utc::now();
        let (replayed, old, fresh) = (
            stage.send(&ada(), Sent, Some(now)).await,
            stage.send(&ada(), Sent, Some(now)).await,
            stage.send(&ada(), Sent, Some(now)).await,
        );
        stage.apply(&[stage.replay(vec![failed(replayed, code, now)])]).await;
        stage.apply(&[stage.webhook(vec![failed(old, code, now - TimeDelta::hours(25))])]).await;
        assert_eq!(stage.follows().await, [] as [Value; 0], "{provider} {code}: long past, or told again");
        assert_eq!((stage.state(replayed.message_id).await, stage.state(old.message_id).await), (Failed, Failed));
        stage.apply(&[stage.webhook(vec![failed(fresh, code, now)])]).await;
        assert_eq!(stage.follows().await, expected.into_iter().collect::<Vec<_>>(), "{provider} {code}");
    }
}
