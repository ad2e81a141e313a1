//! Accounts that are down are tried with one message at a time, and are back when one is taken.

use super::{Given, PATIENCE, Stage};
use shared::{
    db::outbound::{
        grant::{Answer, Judged, Obstacle},
        outcomes::{Record, Says, What, record},
        probes::{self, ERROR_RATE},
    },
    domain::{
        ids::{AttemptId, ConversationId, MessageId},
        outcome::Class,
        sends::SendState::{Failed, Queued, Sending, Sent, Waiting},
    },
};
use std::time::Duration;

fn granted(answers: &[Judged]) -> Vec<MessageId> {
    answers.iter().filter(|j| matches!(j.answer, Answer::Granted(_))).map(|j| j.message_id).collect()
}

impl Stage {
    /// The account goes down with a message, which its provider refuses.
    async fn goes_down(&mut self) -> MessageId {
        let (conversation, attempt) = (self.conversation().await, AttemptId::new());
        let message = self.send(Given { conversation, seq: 1, state: Sending, attempt }).await;
        let what = What::AccountDown { attempt_id: attempt, code: "190".into(), reason: "The token is over.".into() };
        self.record(message, conversation, what).await;
        message
    }

    async fn account_state(&mut self) -> String {
        sqlx::query_scalar("SELECT state FROM channel_accounts").fetch_one(&mut self.admin).await.unwrap()
    }

    /// It is time to try the account.
    async fn probe_is_due(&mut self) {
        self.execute("UPDATE channel_accounts SET probe_at = now() - interval '1 second'").await;
    }

    async fn see_to_accounts(&self) {
        while {
            let mut tx = self.fleet().await;
            let more = probes::see_to(&mut tx).await.unwrap();
            tx.commit().await.unwrap();
            more
        } {}
    }

    /// What a granted probe's call led to.
    async fn ends(&self, judged: &Judged, what: impl FnOnce(AttemptId) -> What) {
        let Answer::Granted(grant) = &judged.answer else { panic!("granted") };
        let mut place = self.place(judged.conversation_id);
        (place.account_revision, place.probe) = (judged.account_revision, judged.probe);
        let what = what(grant.attempt_id);
        let record_of =
            Record { tenant_id: self.tenant, message_id: judged.message_id, place: Some(place), what, slice: None };
        let mut tx = self.fleet().await;
        record(&mut tx, &[record_of], PATIENCE).await.unwrap();
        tx.commit().await.unwrap();
    }
}

#[tokio::test]
async fn one_message_is_let_through_when_it_is_time_and_the_account_is_back_when_it_is_taken() {
    let mut stage = Stage::new().await;
    let first = stage.goes_down().await;
    let mut others = Vec::new();
    for _ in 0..3 {
        others.push(stage.lone_send().await.1);
    }
    let all: Vec<MessageId> = others.iter().copied().chain([first]).collect();
    let answers = stage.ask(&all).await;
    assert!(answers.iter().all(|j| matches!(j.answer, Answer::NotNow(Obstacle::AccountDown))), "{answers:?}");

    stage.probe_is_due().await;
    let answers = stage.ask(&all).await;
    assert_eq!(granted(&answers).len(), 1, "one finds out for all: {answers:?}");
    assert!(granted(&stage.ask(&all).await).is_empty(), "the next not before its time");
    let probe = answers.iter().find(|j| matches!(j.answer, Answer::Granted(_))).unwrap();
    assert!(probe.probe);
    stage.ends(probe, |attempt_id| What::Accepted { attempt_id, provider_message_id: "wamid.1".into() }).await;
    assert_eq!((stage.account_state().await.as_str(), stage.state(probe.message_id).await), ("active", Sent));
    let rest: Vec<MessageId> = all.into_iter().filter(|id| *id != probe.message_id).collect();
    assert_eq!(granted(&stage.ask(&rest).await).len(), 3, "all others go");
}

#[tokio::test]
async fn what_waits_for_an_account_that_is_back_is_woken() {
    let mut stage = Stage::new().await;
    let first = stage.goes_down().await;
    let (conversation, waiting) = stage.lone_send().await;
    stage
        .record(
            waiting,
            conversation,
            What::Waits {
                reason: shared::domain::sends::WaitReason::AccountDown,
                after: Some(Duration::from_secs(600)),
            },
        )
        .await;
    stage.execute("DELETE FROM outbox").await;

    stage.see_to_accounts().await;
    assert_eq!(stage.brought(first).await, [""; 0], "it is not time yet");
    stage.probe_is_due().await;
    stage.see_to_accounts().await;
    assert_eq!(stage.brought(first).await, ["send"], "the message it went down with is brought");
    stage.see_to_accounts().await;
    assert_eq!(stage.brought(first).await.len(), 1, "once for each try");
    let answers = stage.ask(&[first]).await;
    stage.ends(&answers[0], |attempt_id| What::Accepted { attempt_id, provider_message_id: "wamid.1".into() }).await;
    stage.execute("DELETE FROM outbox").await;
    stage.see_to_accounts().await;
    assert_eq!(stage.brought(waiting).await, ["send"]);
}

#[tokio::test]
async fn a_message_that_may_not_go_yet_is_not_brought_to_try_an_account() {
    let mut stage = Stage::new().await;
    let first = stage.goes_down().await;
    stage.execute("DELETE FROM outbox").await;
    stage.execute("UPDATE sends SET wait_reason = 'not_sent', due_at = now() + interval '1 hour'").await;
    stage.probe_is_due().await;
    stage.see_to_accounts().await;
    assert_eq!(stage.brought(first).await, [""; 0]);
    stage.execute("UPDATE sends SET due_at = now()").await;
    stage.see_to_accounts().await;
    assert_eq!(stage.brought(first).await, ["send"]);
}

#[tokio::test]
async fn an_account_that_nobody_waits_for_is_looked_at_once_for_each_try_and_tried_by_who_comes_next() {
    let mut stage = Stage::new().await;
    stage.goes_down().await;
    stage.execute("UPDATE sends SET state = 'cancelled'").await;
    stage.probe_is_due().await;
    stage.see_to_accounts().await;
    let looked_at: bool = sqlx::query_scalar("SELECT probe_brought_for = probe_at FROM channel_accounts")
        .fetch_one(&mut stage.admin)
        .await
        .unwrap();
    assert!(looked_at);
    let (_, next) = stage.lone_send().await;
    assert_eq!(granted(&stage.ask(&[next]).await), [next]);
}

#[tokio::test]
async fn an_account_that_may_not_be_called_keeps_its_try() {
    let mut stage = Stage::new().await;
    let first = stage.goes_down().await;
    stage.probe_is_due().await;
    let stopped = "INSERT INTO limits (tenant_id, scope, key, rate, current_rate, stopped_until)
        SELECT tenant_id, 'account', id, 80, 80, now() + interval '1 hour' FROM channel_accounts";
    stage.execute(stopped).await;
    let answers = stage.ask(&[first]).await;
    assert!(matches!(answers[0].answer, Answer::NotNow(Obstacle::Rate(_))), "{answers:?}");
    stage.execute("UPDATE limits SET stopped_until = now()").await;
    assert_eq!(granted(&stage.ask(&[first]).await), [first]);
}

#[tokio::test]
async fn a_try_that_was_not_made_does_not_count() {
    let mut stage = Stage::new().await;
    let first = stage.goes_down().await;
    stage.execute("UPDATE channel_accounts SET probes = 5").await;
    stage.probe_is_due().await;
    let tried = "SELECT probes || CASE WHEN probe_at < now() + interval '10 seconds' THEN ' soon' ELSE ' later' END
        FROM channel_accounts WHERE EXISTS (SELECT FROM sends WHERE message_id = $1)";
    let answers = stage.ask(&[first]).await;
    assert_eq!(stage.one::<String>(tried, first).await, "6 later");
    let uploading = |attempt_id| What::GivenBack {
        attempt_id,
        reason: "its file is being uploaded".into(),
        after: Some(Duration::from_secs(2)),
    };
    for _ in 0..2 {
        stage.ends(&answers[0], uploading).await;
        assert_eq!(stage.one::<String>(tried, first).await, "5 soon", "once, however often it is said");
    }

    stage.probe_is_due().await;
    stage.execute("UPDATE sends SET due_at = now()").await;
    stage
        .execute(
            "INSERT INTO suppressions (tenant_id, contact_id, channel, purpose, state, since, source)
            SELECT tenant_id, id, 'whatsapp', 'all', 'opted_out', now(), 'test' FROM contacts",
        )
        .await;
    let answers = stage.ask(&[first]).await;
    assert!(matches!(answers[0].answer, Answer::NotNow(Obstacle::OptedOut)), "{answers:?}");
    assert_eq!(stage.one::<String>(tried, first).await, "5 soon");
}

#[tokio::test]
async fn an_account_that_somebody_has_brought_back_is_not_brought_back_once_more() {
    let mut stage = Stage::new().await;
    let first = stage.goes_down().await;
    stage.probe_is_due().await;
    let answers = stage.ask(&[first]).await;
    stage.execute("UPDATE channel_accounts SET state = 'active', probe_at = NULL, revision = 7").await;
    stage.ends(&answers[0], |attempt_id| What::Accepted { attempt_id, provider_message_id: "wamid.1".into() }).await;
    let revision: i32 =
        sqlx::query_scalar("SELECT revision FROM channel_accounts").fetch_one(&mut stage.admin).await.unwrap();
    assert_eq!((revision, stage.state(first).await), (7, Sent));
}

#[tokio::test]
async fn an_opt_out_at_the_provider_of_somebody_who_was_erased_ends_the_send_alone() {
    let mut stage = Stage::new().await;
    let (conversation, attempt) = (stage.conversation().await, AttemptId::new());
    let message = stage.send(Given { conversation, seq: 1, state: Sending, attempt }).await;
    stage.execute("UPDATE contacts SET erased_at = now()").await;
    let (code, reason) = ("21610".into(), "They have opted out.".into());
    stage.record(message, conversation, What::Failed { attempt_id: attempt, code, reason, says: Says::OptedOut }).await;
    assert_eq!(stage.state(message).await, Failed);
    let known: i64 = sqlx::query_scalar("SELECT count(*) FROM suppressions").fetch_one(&mut stage.admin).await.unwrap();
    assert_eq!(known, 0);
}

#[tokio::test]
async fn an_account_that_is_still_down_is_tried_ever_more_seldom() {
    let mut stage = Stage::new().await;
    let first = stage.goes_down().await;
    let mut waits = Vec::new();
    for _ in 0..4 {
        stage.probe_is_due().await;
        let answers = stage.ask(&[first]).await;
        let down = |attempt_id| What::AccountDown { attempt_id, code: "190".into(), reason: "Still over.".into() };
        stage.ends(&answers[0], down).await;
        assert_eq!(stage.state(first).await, Waiting);
        let wait: f64 = sqlx::query_scalar("SELECT EXTRACT(epoch FROM probe_at - now())::float8 FROM channel_accounts")
            .fetch_one(&mut stage.admin)
            .await
            .unwrap();
        waits.push((wait / 60.0).round());
    }
    assert_eq!(waits, [1.0, 2.0, 4.0, 8.0], "minutes");
}

#[tokio::test]
async fn an_account_that_fails_too_often_is_down_whatever_becomes_of_the_message() {
    let mut stage = Stage::new().await;
    let (conversation, attempt): (ConversationId, _) = (stage.conversation().await, AttemptId::new());
    let message = stage.send(Given { conversation, seq: 1, state: Sending, attempt }).await;
    let place = Some(stage.place(conversation));
    let of = |what| Record { tenant_id: stage.tenant, message_id: message, place, what, slice: None };
    let unknown = of(What::Unknown { attempt_id: attempt, reason: "no answer".into() });
    let tripped = of(What::Tripped { reason: "20 of the last 20 calls failed within a minute".into() });
    let mut tx = stage.fleet().await;
    record(&mut tx, &[unknown, tripped], PATIENCE).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(stage.state(message).await.as_str(), "unknown");
    let (state, code): (String, String) =
        sqlx::query_as("SELECT state, down_code FROM channel_accounts").fetch_one(&mut stage.admin).await.unwrap();
    assert_eq!((state.as_str(), code.as_str()), ("down", ERROR_RATE));
    assert_eq!(stage.resume().await.as_deref(), Some("down"), "an operator can close it");
    assert_eq!(stage.account_state().await, "active");
}

#[tokio::test]
async fn unusable_secrets_are_not_tried_again_by_themselves() {
    let mut stage = Stage::new().await;
    let (conversation, attempt) = (stage.conversation().await, AttemptId::new());
    let message = stage.send(Given { conversation, seq: 1, state: Sending, attempt }).await;
    let what = What::AccountDown { attempt_id: attempt, code: "secrets".into(), reason: "not readable".into() };
    stage.record(message, conversation, what).await;
    let tried: bool = sqlx::query_scalar("SELECT probe_at IS NOT NULL FROM channel_accounts")
        .fetch_one(&mut stage.admin)
        .await
        .unwrap();
    assert!(!tried);
}

#[tokio::test]
async fn what_failed_before_is_counted_for_each_obstacle_and_begins_anew_when_it_is_let_go_again() {
    let mut stage = Stage::new().await;
    let conversation = stage.conversation().await;
    let message = stage.send(Given { conversation, seq: 1, state: Queued, attempt: AttemptId::new() }).await;
    let not_sent = |class| {
        move |attempt_id| What::NotSent {
            attempt_id,
            code: "x".into(),
            reason: "y".into(),
            class,
            after: Duration::ZERO,
            slow: None,
        }
    };
    for class in [Class::Transient, Class::Unreachable, Class::Transient] {
        let answers = stage.ask(&[message]).await;
        stage.ends(&answers[0], not_sent(class)).await;
    }
    let answers = stage.ask(&[message]).await;
    let Answer::Granted(grant) = &answers[0].answer else { panic!("{answers:?}") };
    let failed: Vec<(&str, u32)> = grant.failed_before.iter().map(|(class, times)| (class.as_str(), *times)).collect();
    assert_eq!(failed, [("transient", 2), ("unreachable", 1)]);
}
