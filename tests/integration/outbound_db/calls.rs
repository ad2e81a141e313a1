//! How long a call may take, and calls that come one at a time.

use super::{PATIENCE, Stage};
use shared::{
    db::{
        audit::Actor,
        limits::{self, Removed, Set},
        outbound::{
            grant::{Answer, Judged, Obstacle},
            outcomes::{Record, What, record},
        },
    },
    domain::{
        ids::{AttemptId, MessageId},
        limits::{LimitChange, Scope},
    },
};
use std::time::Duration;

impl Stage {
    /// The seconds from a send's grant to its deadline.
    async fn within(&mut self, id: MessageId) -> i64 {
        self.one("SELECT round(EXTRACT(epoch FROM deadline - granted_at))::bigint FROM sends WHERE message_id = $1", id)
            .await
    }

    /// The account is one at a gateway whose calls come one at a time, and is limited.
    async fn with_a_gateway(&mut self) {
        self.execute(
            r#"UPDATE channel_accounts SET provider = 'gateway', external_id = 'whatsapp:+919800000001', gateway = '{"timeout_seconds": 20, "serial": true}'"#,
        )
        .await;
        self.execute(
            "INSERT INTO limits (tenant_id, scope, key, rate, current_rate)
            SELECT tenant_id, 'account', id, 80, 80 FROM channel_accounts",
        )
        .await;
    }

    async fn ends_with(&self, judged: &Judged, provider_message_id: &str) {
        self.hears(judged, |attempt_id| {
            let answer = What::Answered { attempt_id, answer: r#"{"status":"success"}"#.into() };
            vec![What::Accepted { attempt_id, provider_message_id: provider_message_id.into() }, answer]
        })
        .await;
    }

    /// What is said of a granted call.
    async fn hears(&self, judged: &Judged, what: impl FnOnce(AttemptId) -> Vec<What>) {
        let Answer::Granted(grant) = &judged.answer else { panic!("{judged:?}") };
        let mut place = self.place(judged.conversation_id);
        place.serial = judged.serial;
        let of = |what| Record {
            tenant_id: self.tenant,
            message_id: judged.message_id,
            place: Some(place),
            what,
            slice: None,
        };
        let records: Vec<Record> = what(grant.attempt_id).into_iter().map(of).collect();
        let mut tx = self.fleet().await;
        record(&mut tx, &records, PATIENCE).await.unwrap();
        tx.commit().await.unwrap();
    }

    /// Nothing is granted before a time in the future.
    async fn is_stopped(&mut self) -> bool {
        sqlx::query_scalar("SELECT stopped_until > now() FROM limits").fetch_one(&mut self.admin).await.unwrap()
    }
}

#[tokio::test]
async fn a_deadline_is_as_late_as_the_kind_of_call_is_long() {
    let mut stage = Stage::new().await;
    let (_, text) = stage.lone_send().await;
    stage.granted(text).await;
    assert_eq!(stage.within(text).await, 20);
    stage.execute("UPDATE channel_accounts SET provider = 'messenger'").await;
    let (_, film) = stage.lone_send().await;
    stage.execute("UPDATE sends SET heavy = true WHERE state = 'queued'").await;
    stage.granted(film).await;
    assert_eq!(stage.within(film).await, 95, "the provider fetches it first");
    stage.with_a_gateway().await;
    let (_, by_gateway) = stage.lone_send().await;
    stage.granted(by_gateway).await;
    assert_eq!(stage.within(by_gateway).await, 40, "as its description says");
}

#[tokio::test]
async fn a_grant_says_for_how_long_the_message_is_of_use() {
    let mut stage = Stage::new().await;
    let (of_use, always) = (stage.lone_send().await.1, stage.lone_send().await.1);
    sqlx::query("UPDATE sends SET expires_at = now() + interval '1 minute' WHERE message_id = $1")
        .bind(of_use)
        .execute(&mut stage.admin)
        .await
        .unwrap();
    for judged in stage.ask(&[of_use, always]).await {
        let Answer::Granted(grant) = &judged.answer else { panic!("{judged:?}") };
        let seconds = grant.valid_for.map(|left| left.as_secs());
        let expected = if judged.message_id == of_use { 50..=60 } else { 0..=0 };
        assert_eq!(seconds.is_some(), judged.message_id == of_use);
        assert!(expected.contains(&seconds.unwrap_or_default()), "{seconds:?}");
    }
}

#[tokio::test]
async fn where_calls_come_one_at_a_time_no_other_is_granted_whoever_asks() {
    let mut stage = Stage::new().await;
    stage.with_a_gateway().await;
    let (one, other) = (stage.lone_send().await.1, stage.lone_send().await.1);
    let answers = stage.ask(&[one, other]).await;
    let granted: Vec<&Judged> = answers.iter().filter(|judged| matches!(judged.answer, Answer::Granted(_))).collect();
    assert_eq!(granted.len(), 1, "{answers:?}");
    let first = granted[0];
    let left = if first.message_id == one { other } else { one };
    let again = stage.ask(&[left]).await;
    let Answer::NotNow(Obstacle::Rate(wait)) = again[0].answer else { panic!("{again:?}") };
    assert!(wait <= Duration::from_millis(250), "a call may end long before its time is over: {wait:?}");
    stage.ends_with(first, "gateway:1").await;
    let kept: Option<String> =
        stage.one("SELECT reason FROM send_attempts WHERE message_id = $1", first.message_id).await;
    assert_eq!(kept.as_deref(), Some(r#"{"status":"success"}"#), "nobody knows all that it may say");
    stage.execute("UPDATE limits SET next_at = now()").await;
    let again = stage.ask(&[left]).await;
    assert!(matches!(again[0].answer, Answer::Granted(_)), "{again:?}");
}

#[tokio::test]
async fn of_many_that_wait_for_a_call_the_later_ask_later() {
    let mut stage = Stage::new().await;
    stage.with_a_gateway().await;
    stage.execute("UPDATE limits SET rate = 0.2, current_rate = 0.2").await;
    let sends = [stage.lone_send().await.1, stage.lone_send().await.1, stage.lone_send().await.1];
    let answers = stage.ask(&sends).await;
    let mut waits: Vec<Duration> = answers
        .iter()
        .filter_map(|judged| match judged.answer {
            Answer::NotNow(Obstacle::Rate(wait)) => Some(wait),
            _ => None,
        })
        .collect();
    waits.sort_unstable();
    assert!(waits[0] >= Duration::from_secs(4) && waits[1] >= Duration::from_secs(9), "{waits:?}");
}

#[tokio::test]
async fn what_is_said_of_an_earlier_call_does_not_let_another_begin() {
    let mut stage = Stage::new().await;
    stage.with_a_gateway().await;
    let one = stage.lone_send().await.1;
    let answers = stage.ask(&[one]).await;
    let accepted = |attempt_id| vec![What::Accepted { attempt_id, provider_message_id: "gateway:1".into() }];
    // As if its time had been over, and another were under way.
    stage.execute("UPDATE sends SET deadline = now() - interval '1 second'").await;
    stage.hears(&answers[0], |attempt_id| vec![What::Expired { attempt_id: Some(attempt_id) }]).await;
    assert!(stage.is_stopped().await, "it is given up");
    stage.hears(&answers[0], accepted).await;
    assert!(stage.is_stopped().await, "its own word comes late");
}

#[tokio::test]
async fn the_rate_that_keeps_calls_one_at_a_time_stays() {
    let mut stage = Stage::new().await;
    stage.with_a_gateway().await;
    let one = stage.lone_send().await.1;
    stage.ask(&[one]).await;
    let mut tx = stage.workers.tenant(&stage.placement, stage.tenant).await.unwrap();
    let removed = limits::remove(&mut tx, Scope::Account, stage.account.0, Actor::Operator).await.unwrap();
    assert_eq!(removed, Removed::OneAtATime);
    let change = LimitChange { rate: 1.0, burst: None, inbound_cost: None };
    let set = limits::set(&mut tx, Scope::Account, stage.account.0, change, Actor::Operator).await.unwrap();
    assert_eq!(set, Set::Done);
    tx.commit().await.unwrap();
    assert!(stage.is_stopped().await, "the call that is under way is not joined by another");
}
