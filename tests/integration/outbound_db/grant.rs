//! The grant: who may go, who may not and why, and that nobody goes twice.

use super::{CALL_WITHIN, Given, ROOM, Stage, make_account};
use shared::{
    db::outbound::{
        grant::{Answer, Held, Obstacle, Room, grant},
        outcomes::What,
    },
    domain::{
        ids::{AttemptId, MessageId, TenantId},
        outcome::Class,
        sends::{
            SendState::{self, Queued, Sending, Unknown, Waiting},
            WaitReason,
        },
    },
};
use std::{collections::BTreeSet, time::Duration};

fn obstacle(answer: &Answer) -> &Obstacle {
    match answer {
        Answer::NotNow(obstacle) => obstacle,
        Answer::Granted(grant) => panic!("granted: {grant:?}"),
    }
}

fn is_granted(answer: &Answer) -> bool {
    matches!(answer, Answer::Granted(_))
}

#[tokio::test]
async fn what_waits_or_is_queued_is_claimed_and_all_else_is_told_why_not() {
    let mut stage = Stage::new().await;
    for state in SendState::ALL.iter().copied() {
        let conversation = stage.conversation().await;
        let message = stage.send(Given { conversation, seq: 1, state, attempt: AttemptId::new() }).await;
        let answers = stage.ask(&[message]).await;
        match (state, &answers[0].answer) {
            (Waiting | Queued, Answer::Granted(grant)) => {
                assert_eq!((grant.attempts, grant.recipient.as_str()), (2, "+15557770123"));
                assert_eq!(stage.state(message).await, Sending);
                let attempt: AttemptId = stage.one("SELECT attempt_id FROM sends WHERE message_id = $1", message).await;
                assert_eq!(attempt, grant.attempt_id);
            }
            (Sending, Answer::NotNow(Obstacle::Claimed { left: Some(left), .. })) => assert!(*left <= CALL_WITHIN),
            (_, Answer::NotNow(Obstacle::Settled(found))) => assert_eq!(*found, state),
            (_, other) => panic!("{state}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_claim_whose_deadline_has_passed_is_told() {
    let mut stage = Stage::new().await;
    let (conversation, attempt) = (stage.conversation().await, AttemptId::new());
    let message = stage.send(Given { conversation, seq: 1, state: Sending, attempt }).await;
    sqlx::query("UPDATE sends SET deadline = now() - interval '1 second'").execute(&mut stage.admin).await.unwrap();
    let answers = stage.ask(&[message]).await;
    assert_eq!(obstacle(&answers[0].answer), &Obstacle::Claimed { attempt_id: Some(attempt), left: None });
}

#[tokio::test]
async fn what_does_not_exist_is_missing_from_the_answer_and_other_tenants_do_not_exist() {
    let mut stage = Stage::new().await;
    let (_, message) = stage.lone_send().await;
    let stranger = TenantId::new();
    let mut tx = stage.workers.fleet(&stage.placement, &[stranger]).await.unwrap();
    let held = [
        Held { tenant_id: stage.tenant, message_id: message, attempt_id: AttemptId::new() },
        Held { tenant_id: stranger, message_id: message, attempt_id: AttemptId::new() },
    ];
    assert!(grant(&mut tx, &held, CALL_WITHIN, &ROOM).await.unwrap().is_empty());
    tx.commit().await.unwrap();
    assert_eq!(stage.state(message).await, Queued);
    assert!(stage.ask(&[MessageId::new()]).await.is_empty());
}

#[tokio::test]
async fn only_the_head_of_a_conversation_goes() {
    let mut stage = Stage::new().await;
    // Whether a message in this state, not released, keeps the next one waiting.
    let cases = SendState::ALL.iter().map(|state| (*state, matches!(state, Waiting | Queued | Sending | Unknown)));
    for (before, holds_up) in cases {
        let conversation = stage.conversation().await;
        stage.send(Given { conversation, seq: 1, state: before, attempt: AttemptId::new() }).await;
        let second = stage.send(Given { conversation, seq: 2, state: Queued, attempt: AttemptId::new() }).await;
        let answers = stage.ask(&[second]).await;
        assert_eq!(is_granted(&answers[0].answer), !holds_up, "after one that is {before}");
        if holds_up {
            assert_eq!(obstacle(&answers[0].answer), &Obstacle::Turn);
        }
    }
    let conversation = stage.conversation().await;
    let first = stage.send(Given { conversation, seq: 1, state: Unknown, attempt: AttemptId::new() }).await;
    let second = stage.send(Given { conversation, seq: 2, state: Queued, attempt: AttemptId::new() }).await;
    stage.record(first, conversation, What::TurnReleased).await;
    assert!(is_granted(&stage.ask(&[second]).await[0].answer), "it has waited long enough for the unknown one");
}

#[tokio::test]
async fn two_of_one_conversation_asked_for_together_go_one_after_the_other() {
    let mut stage = Stage::new().await;
    let conversation = stage.conversation().await;
    let mut messages = Vec::new();
    for seq in 1..=3 {
        messages.push(stage.send(Given { conversation, seq, state: Queued, attempt: AttemptId::new() }).await);
    }
    let answers = stage.ask(&messages).await;
    let granted: Vec<MessageId> = answers.iter().filter(|j| is_granted(&j.answer)).map(|j| j.message_id).collect();
    assert_eq!(granted, [messages[0]]);
}

#[tokio::test]
async fn no_more_is_granted_than_there_is_room_for_on_an_account() {
    let mut stage = Stage::new().await;
    let mut held = Vec::new();
    for _ in 0..5 {
        let (_, message_id) = stage.lone_send().await;
        held.push(Held { tenant_id: stage.tenant, message_id, attempt_id: AttemptId::new() });
    }
    for (left, granted) in [(vec![(stage.account, 0)], 0), (vec![(stage.account, 2)], 2), (vec![], 1)] {
        let mut tx = stage.fleet().await;
        let room = Room { per_account: 1, left };
        let answers = grant(&mut tx, &held, CALL_WITHIN, &room).await.unwrap();
        tx.commit().await.unwrap();
        let asked = held.len();
        held.retain(|held| answers.iter().all(|j| j.message_id != held.message_id || !is_granted(&j.answer)));
        assert_eq!(asked - held.len(), granted, "{room:?}");
        let no_room = |j: &&shared::db::outbound::grant::Judged| matches!(&j.answer, Answer::NotNow(Obstacle::Room));
        assert_eq!(answers.iter().filter(no_room).count(), asked - granted);
    }
}

#[tokio::test]
async fn windows_accounts_and_times_stand_in_the_way() {
    let mut stage = Stage::new().await;
    let (conversation, message) = stage.lone_send().await;
    let set = async |stage: &mut Stage, statement: &'static str| {
        sqlx::query(statement).execute(&mut stage.admin).await.unwrap();
    };
    set(&mut stage, "UPDATE conversations SET window_expires_at = now() - interval '1 second'").await;
    assert_eq!(obstacle(&stage.ask(&[message]).await[0].answer), &Obstacle::WindowClosed);
    set(&mut stage, "UPDATE conversations SET window_expires_at = NULL").await;
    assert_eq!(obstacle(&stage.ask(&[message]).await[0].answer), &Obstacle::WindowClosed);
    set(&mut stage, "UPDATE conversations SET window_expires_at = now() + interval '1 hour'").await;
    for state in ["down", "disabled"] {
        sqlx::query("UPDATE channel_accounts SET state = $1").bind(state).execute(&mut stage.admin).await.unwrap();
        assert_eq!(obstacle(&stage.ask(&[message]).await[0].answer), &Obstacle::AccountDown, "{state}");
    }
    set(&mut stage, "UPDATE channel_accounts SET state = 'active'").await;
    stage
        .record(message, conversation, What::Waits { reason: WaitReason::Rate, after: Some(Duration::from_secs(60)) })
        .await;
    match obstacle(&stage.ask(&[message]).await[0].answer) {
        Obstacle::NotDue(left) => assert!((30..=60).contains(&left.as_secs()), "{left:?}"),
        obstacle => panic!("{obstacle:?}"),
    }
    set(&mut stage, "UPDATE sends SET due_at = now()").await;
    assert!(is_granted(&stage.ask(&[message]).await[0].answer));
}

#[tokio::test]
async fn workers_that_ask_for_the_same_sends_at_once_get_each_once() {
    let mut stage = Stage::new().await;
    let mut messages = Vec::new();
    for _ in 0..60 {
        messages.push(stage.lone_send().await.1);
    }
    let ask = || async {
        let mut granted = Vec::new();
        for chunk in messages.chunks(20) {
            let answers = stage.ask(chunk).await;
            granted.extend(answers.iter().filter(|j| is_granted(&j.answer)).map(|j| j.message_id));
        }
        granted
    };
    let (a, b, c, d) = tokio::join!(ask(), ask(), ask(), ask());
    let all: Vec<MessageId> = [a, b, c, d].concat();
    let different: BTreeSet<MessageId> = all.iter().copied().collect();
    assert_eq!((all.len(), different.len()), (60, 60));
}

#[tokio::test]
async fn a_throttled_account_stops_slows_down_and_creeps_back() {
    let mut stage = Stage::new().await;
    sqlx::query("INSERT INTO limits (tenant_id, scope, key, rate, current_rate) VALUES ($1, 'account', $2, 80, 80)")
        .bind(stage.tenant)
        .bind(stage.account)
        .execute(&mut stage.admin)
        .await
        .unwrap();
    let (conversation, message) = stage.lone_send().await;
    let (_, other) = stage.lone_send().await;
    let answers = stage.ask(&[message]).await;
    let Answer::Granted(granted) = &answers[0].answer else { panic!("{answers:?}") };
    let throttled = What::NotSent {
        attempt_id: granted.attempt_id,
        code: "130429".into(),
        reason: "too fast".into(),
        after: Duration::from_secs(7),
        class: Class::Account,
        slow: Some(Duration::from_secs(7)),
    };
    stage.record(message, conversation, throttled.clone()).await;
    let rate = async |stage: &mut Stage| -> f64 {
        sqlx::query_scalar("SELECT current_rate FROM limits").fetch_one(&mut stage.admin).await.unwrap()
    };
    assert_eq!(rate(&mut stage).await, 40.0);
    stage.record(message, conversation, throttled).await;
    assert_eq!(rate(&mut stage).await, 40.0, "once a second at most, however many were refused");
    match obstacle(&stage.ask(&[other]).await[0].answer) {
        Obstacle::Rate(wait) => assert!(wait.as_secs_f64() > 6.0, "{wait:?}"),
        obstacle => panic!("{obstacle:?}"),
    }
    let creep = async |stage: &Stage| {
        let mut tx = stage.fleet().await;
        shared::db::outbound::outcomes::creep_back(&mut tx).await.unwrap();
        tx.commit().await.unwrap();
    };
    creep(&stage).await;
    assert_eq!(rate(&mut stage).await, 40.0, "not while the refusal is fresh");
    sqlx::query("UPDATE limits SET lowered_at = now() - interval '1 minute', stopped_until = now()")
        .execute(&mut stage.admin)
        .await
        .unwrap();
    let shift = async |stage: &mut Stage, by: &'static str| {
        let crept = sqlx::query("UPDATE limits SET crept_at = crept_at + $1::text::interval").bind(by);
        crept.execute(&mut stage.admin).await.unwrap();
    };
    for expected in [44.0, 48.0] {
        creep(&stage).await;
        assert_eq!(rate(&mut stage).await, expected);
        shift(&mut stage, "1 minute").await;
        creep(&stage).await;
        assert_eq!(rate(&mut stage).await, expected, "once a second at most, however many schedulers there are");
        shift(&mut stage, "-61 seconds").await;
    }
    assert!(is_granted(&stage.ask(&[other]).await[0].answer));
}

#[tokio::test]
async fn a_rate_that_is_spent_says_when_it_is_worth_asking_again() {
    let mut stage = Stage::new().await;
    let slow = make_account(&mut stage.admin, stage.tenant).await;
    sqlx::query("INSERT INTO limits (tenant_id, scope, key, rate, current_rate) VALUES ($1, 'account', $2, 2, 2)")
        .bind(stage.tenant)
        .bind(slow)
        .execute(&mut stage.admin)
        .await
        .unwrap();
    let mut messages = Vec::new();
    for _ in 0..4 {
        let conversation = super::make_conversation(&mut stage.admin, stage.tenant, slow).await;
        let given = Given { conversation, seq: 1, state: Queued, attempt: AttemptId::new() };
        messages.push(super::make_send(&mut stage.admin, stage.tenant, slow, given).await);
    }
    let (_, unlimited) = stage.lone_send().await;
    let answers = stage.ask(&[messages.clone(), vec![unlimited]].concat()).await;
    let granted = answers.iter().filter(|judged| is_granted(&judged.answer)).count();
    assert_eq!(granted, 2, "one of the slow account, and the one of the account without a limit");
    let waits: Vec<f64> = messages[1..]
        .iter()
        .map(|id| match obstacle(&answers.iter().find(|j| j.message_id == *id).unwrap().answer) {
            Obstacle::Rate(wait) => wait.as_secs_f64(),
            obstacle => panic!("{obstacle:?}"),
        })
        .collect();
    for (wait, expected) in waits.iter().zip([0.5, 1.0, 1.5]) {
        assert!((wait - expected).abs() < 0.3, "{waits:?}: one after the other, in the order of acceptance");
    }
}
