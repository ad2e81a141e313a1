//! Pausing, resuming, cancelling, completing: what happens to who waits, is under way, is done.

use super::Stage;
use serde_json::json;
use shared::{
    db::campaigns::{Changed, freeze::CHUNK},
    domain::campaigns::{Action, CampaignState},
    jobs::campaign::Task,
};
use std::collections::BTreeSet;

#[tokio::test]
async fn a_paused_campaign_lets_nobody_go_and_a_resumed_one_wakes_what_waits() {
    let mut stage = Stage::new().await;
    stage.people(250).await;
    let id = stage.running("Hello").await;
    let messages = stage.release().await.messages();
    stage.end(&messages[..10], "sent").await;
    assert_eq!(stage.act(id, Action::Pause).await, (Changed::Done, vec![]));
    assert!(stage.release().await.messages().is_empty());
    // The grant has put some off, and one waits for something else.
    let (waiting, other) = (&messages[10..75], messages[80]);
    sqlx::query("UPDATE sends SET state = 'waiting', wait_reason = 'campaign' WHERE message_id = ANY ($1)")
        .bind(waiting)
        .execute(&mut stage.admin)
        .await
        .unwrap();
    sqlx::query("UPDATE sends SET state = 'waiting', wait_reason = 'rate' WHERE message_id = $1")
        .bind(other)
        .execute(&mut stage.admin)
        .await
        .unwrap();
    // Woken too late, or not at all any more.
    let wake = stage.job(Task::Wake { campaign_id: id, before: None });
    assert!(stage.step(wake).await.messages().is_empty(), "it is still paused");
    let (changed, steps) = stage.act(id, Action::Resume).await;
    assert_eq!((changed, &steps[..]), (Changed::Done, &[wake][..]));
    let led = stage.step(wake).await;
    assert_eq!(led.slices.len(), 4, "65 at 20 a second");
    assert_eq!(led.messages().into_iter().collect::<BTreeSet<_>>(), waiting.iter().copied().collect());
    assert!(stage.step(wake).await.messages().is_empty(), "a job that comes again wakes nobody twice");
    assert_eq!(stage.count("SELECT count(*) FROM sends WHERE state = 'waiting' AND wait_reason = 'rate'").await, 1);
    let shown = stage.show(id).await;
    assert_eq!((shown.in_flight, shown.sent, shown.waiting), (90, 10, 150));
    stage.expect_books_to_agree(id).await;
}

#[tokio::test]
async fn waking_goes_on_behind_a_full_chunk() {
    let mut stage = Stage::new().await;
    let all = i64::try_from(CHUNK).unwrap() + 2;
    let people = stage.people(all).await;
    stage.execute("UPDATE limits SET rate = 3000, current_rate = 3000").await;
    let id = stage.running("Hello").await;
    while !stage.release().await.messages().is_empty() {}
    stage.execute("UPDATE sends SET state = 'waiting', wait_reason = 'campaign'").await;
    let led = stage.step(stage.job(Task::Wake { campaign_id: id, before: None })).await;
    let next = Task::Wake { campaign_id: id, before: Some(people[2]) };
    assert_eq!((led.messages().len(), led.tasks()), (CHUNK, vec![next]), "the last released first");
    let led = stage.step(stage.job(next)).await;
    assert_eq!((led.messages().len(), led.tasks()), (2, vec![]));
}

#[tokio::test]
async fn a_cancelled_campaign_takes_back_what_nobody_has_claimed() {
    let mut stage = Stage::new().await;
    stage.people(250).await;
    let id = stage.running("Hello").await;
    let messages = stage.release().await.messages();
    stage.end(&messages[..10], "sent").await;
    stage.end(&messages[10..12], "unknown").await;
    sqlx::query("UPDATE sends SET state = 'sending' WHERE message_id = ANY ($1)")
        .bind(&messages[12..15])
        .execute(&mut stage.admin)
        .await
        .unwrap();
    sqlx::query("UPDATE sends SET state = 'waiting', wait_reason = 'campaign' WHERE message_id = ANY ($1)")
        .bind(&messages[15..20])
        .execute(&mut stage.admin)
        .await
        .unwrap();
    // Of these an earlier attempt may have brought two to the person.
    sqlx::query(
        "WITH perhaps AS (
            UPDATE sends SET possibly_doubled = true WHERE message_id = ANY ($1) RETURNING tenant_id, message_id
        )
        INSERT INTO send_attempts (tenant_id, message_id, id, number, outcome, ended_at)
        SELECT tenant_id, message_id, gen_random_uuid(), 1, 'unknown', now() FROM perhaps",
    )
    .bind(&messages[15..17])
    .execute(&mut stage.admin)
    .await
    .unwrap();
    let (changed, steps) = stage.act(id, Action::Cancel).await;
    assert_eq!((changed, steps.len()), (Changed::Done, 1));
    assert!(stage.release().await.messages().is_empty());
    for _ in 0..2 {
        // The second time it comes again.
        assert_eq!(stage.step(steps[0]).await.tasks(), [Task::Check { campaign_id: id }]);
        let shown = stage.show(id).await;
        assert_eq!(
            (shown.waiting, shown.in_flight, shown.sent, shown.unknown, shown.held, shown.cancelled),
            (0, 3, 10, 2, 2, 233),
            "who is being sent to, is"
        );
        stage.expect_books_to_agree(id).await;
    }
    assert_eq!(stage.recipients(id).await, json!({"released": 100, "cancelled": 150}));
    assert_eq!(stage.count("SELECT count(*) FROM trail WHERE event = 'cancelled'").await, 83);
}

#[tokio::test]
async fn a_campaign_cancelled_while_it_is_frozen_has_the_people_it_had() {
    let mut stage = Stage::new().await;
    let all = i64::try_from(CHUNK).unwrap() + 5;
    stage.people(all).await;
    let id = stage.draft("Hello").await;
    let (_, start) = stage.act(id, Action::Start).await;
    let next = stage.step(start[0]).await.steps;
    let (_, cancel) = stage.act(id, Action::Cancel).await;
    assert!(stage.follow(next).await.steps.is_empty(), "no more are frozen");
    stage.follow(cancel).await;
    let shown = stage.show(id).await;
    let chunk = i64::try_from(CHUNK).unwrap();
    assert_eq!((shown.frozen_count, shown.cancelled, shown.waiting), (Some(chunk), chunk, 0));
    stage.expect_books_to_agree(id).await;
}

#[tokio::test]
async fn a_campaign_is_completed_when_nobody_is_left() {
    let mut stage = Stage::new().await;
    stage.people(3).await;
    let id = stage.running("Hello").await;
    let messages = stage.release().await.messages();
    for (ended, state, completed) in
        [(&messages[..1], "sent", false), (&messages[1..2], "failed", false), (&messages[2..], "unknown", false)]
    {
        stage.end(ended, state).await;
        assert_eq!(stage.release().await.steps.len(), usize::from(completed), "{state}");
    }
    stage.execute("UPDATE sends SET state = 'held' WHERE state = 'unknown'").await;
    stage.execute("UPDATE campaign_counts SET held = 1, unknown = 0").await;
    assert_eq!(stage.release().await.tasks(), [Task::Check { campaign_id: id }]);
    let shown = stage.show(id).await;
    assert_eq!((shown.state.as_str(), shown.ended_at.is_some()), ("completed", true));
    assert!(stage.release().await.steps.is_empty(), "it has ended once");
    stage.expect_books_to_agree(id).await;
}

#[tokio::test]
async fn doing_it_again_changes_nothing_and_what_cannot_be_done_is_said() {
    let stage = Stage::new().await;
    let id = stage.draft("Hello").await;
    let not_from = |state| (Changed::NotFrom(state), 0);
    for (action, expected) in [
        (Action::Pause, not_from(CampaignState::Draft)),
        (Action::Resume, not_from(CampaignState::Draft)),
        (Action::Start, (Changed::Done, 1)),
        (Action::Start, (Changed::Done, 0)),
        (Action::Resume, (Changed::Done, 0)),
        (Action::Pause, (Changed::Done, 0)),
        (Action::Pause, (Changed::Done, 0)),
        (Action::Start, not_from(CampaignState::Paused)),
        (Action::Resume, (Changed::Done, 1)),
        (Action::Cancel, (Changed::Done, 1)),
        (Action::Cancel, (Changed::Done, 0)),
        (Action::Resume, not_from(CampaignState::Cancelled)),
    ] {
        let (changed, steps) = stage.act(id, action).await;
        assert_eq!((changed, steps.len()), expected, "{action:?}");
    }
}
