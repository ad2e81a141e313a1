//! Who failed is tried again: by the same send, at the pace of the account, nobody twice however often it is asked for.

use super::{Led, Stage};
use serde_json::json;
use shared::{
    db::{
        Placement,
        audit::Actor,
        campaigns::{
            freeze::CHUNK,
            retry::{Asked, ask},
        },
    },
    domain::{
        campaigns::{Action, CampaignState},
        ids::{CampaignId, ContactId, MessageId},
    },
    jobs::campaign::{CampaignJob, Task},
};
use std::collections::BTreeSet;

impl Stage {
    async fn ask(&self, id: CampaignId, codes: Option<&[&str]>) -> (Asked, Vec<CampaignJob>) {
        let codes: Option<Vec<String>> = codes.map(|codes| codes.iter().map(|code| (*code).to_owned()).collect());
        let mut tx = self.api.tenant(&Placement::primary(), self.tenant).await.unwrap();
        let asked = ask(&mut tx, id, codes.as_deref(), Actor::Operator).await.unwrap().expect("it is there");
        let due = tx.commit().await.unwrap();
        (asked, due.iter().map(|row| CampaignJob::from_job(&row.job).unwrap()).collect())
    }

    /// A completed campaign to so many people; of its messages the first `sent` were sent, the others failed.
    async fn completed(&mut self, people: i64, sent: usize) -> (CampaignId, Vec<MessageId>) {
        self.people(people).await;
        let id = self.running("Hello").await;
        let messages = self.release().await.messages();
        self.end(&messages[..sent], "sent").await;
        self.end(&messages[sent..], "failed").await;
        assert_eq!(self.release().await.tasks(), [Task::Check { campaign_id: id }]);
        (id, messages)
    }

    /// The steps of a retry there are now, whenever they are due, as a worker would find them.
    async fn retries(&mut self, id: CampaignId) -> Vec<CampaignJob> {
        let through =
            sqlx::query_scalar("SELECT retry_through FROM campaigns WHERE id = $1 AND retry_asked_at IS NOT NULL")
                .bind(id)
                .fetch_optional(&mut self.admin)
                .await
                .unwrap();
        through.map(|before| self.job(Task::Retry { campaign_id: id, before })).into_iter().collect()
    }

    async fn retried(&mut self) -> i64 {
        self.count("SELECT count(*) FROM trail WHERE event = 'retried'").await
    }
}

fn sorted(led: &Led) -> BTreeSet<MessageId> {
    led.messages().into_iter().collect()
}

#[tokio::test]
async fn who_failed_is_queued_again_and_the_campaign_completes_anew() {
    let mut stage = Stage::new().await;
    let (id, messages) = stage.completed(60, 5).await;
    let (asked, steps) = stage.ask(id, None).await;
    assert_eq!(
        (asked, &steps[..]),
        (Asked::Begun { people: 55 }, &[stage.job(Task::Retry { campaign_id: id, before: None })][..])
    );
    let shown = stage.show(id).await;
    assert_eq!((shown.state.as_str(), shown.ended_at, shown.retrying_since.is_some()), ("running", None, true));
    assert_eq!(shown.retrying_count, Some(55));
    assert!(stage.release().await.steps.is_empty(), "not completed while somebody is to be tried again");

    let led = stage.step(steps[0]).await;
    assert_eq!((led.slices.len(), sorted(&led)), (3, messages[5..].iter().copied().collect()), "55, 20 a second");
    assert_eq!(stage.retried().await, 55);
    let shown = stage.show(id).await;
    assert_eq!((shown.sent, shown.failed, shown.in_flight, shown.retrying_since), (5, 0, 55, None));
    assert_eq!(shown.retrying_count, None);
    stage.expect_books_to_agree(id).await;

    assert!(stage.step(steps[0]).await.messages().is_empty(), "the job a second time");
    assert_eq!(stage.ask(id, None).await, (Asked::NobodyFailed, vec![]), "the request a second time");
    assert_eq!(stage.retried().await, 55);

    stage.end(&messages[5..], "sent").await;
    assert_eq!(stage.release().await.tasks(), [Task::Check { campaign_id: id }], "its books are checked again");
    assert_eq!(stage.show(id).await.state, "completed");
    stage.expect_books_to_agree(id).await;
}

#[tokio::test]
async fn only_those_with_the_codes_asked_for_are_tried_again() {
    let mut stage = Stage::new().await;
    let (id, messages) = stage.completed(20, 0).await;
    sqlx::query("UPDATE sends SET code = CASE WHEN message_id = ANY ($1) THEN '131026' ELSE 'window_closed' END")
        .bind(&messages[..7])
        .execute(&mut stage.admin)
        .await
        .unwrap();
    let (asked, steps) = stage.ask(id, Some(&["131026", "470"])).await;
    assert_eq!(asked, Asked::Begun { people: 7 });
    assert_eq!(
        stage.ask(id, Some(&["131026", "470"])).await,
        (Asked::UnderWay { people: 7 }, steps.clone()),
        "should its job be lost"
    );
    assert_eq!(stage.ask(id, None).await, (Asked::OthersUnderWay, vec![]));
    assert_eq!(sorted(&stage.follow(steps).await), messages[..7].iter().copied().collect());
    let shown = stage.show(id).await;
    assert_eq!((shown.failed, shown.in_flight, shown.retrying_since), (13, 7, None));
    stage.expect_books_to_agree(id).await;
}

#[tokio::test]
async fn asking_for_a_code_nobody_failed_with_changes_nothing_and_says_with_which_they_did() {
    let mut stage = Stage::new().await;
    let (id, messages) = stage.completed(20, 1).await;
    sqlx::query("UPDATE sends SET code = CASE WHEN message_id = ANY ($1) THEN '131026' ELSE 'window_closed' END")
        .bind(&messages[..7])
        .execute(&mut stage.admin)
        .await
        .unwrap();
    let before = stage.show(id).await;
    let failed = vec![("window_closed".to_owned(), 13), ("131026".to_owned(), 6)];
    assert_eq!(stage.ask(id, Some(&["999"])).await, (Asked::NobodyFailedSo { failed }, vec![]));
    let after = stage.show(id).await;
    assert_eq!((after.state.as_str(), after.ended_at, after.retrying_since), ("completed", before.ended_at, None));
    let noted = "SELECT count(*) FROM audit WHERE action = 'campaign.retry_failed'";
    assert_eq!(stage.count(noted).await, 0);
}

#[tokio::test]
async fn who_fails_after_the_request_or_again_is_left_for_the_next() {
    let mut stage = Stage::new().await;
    stage.people(10).await;
    let id = stage.running("Hello").await;
    let messages = stage.release().await.messages();
    stage.end(&messages[..4], "failed").await;
    let (_, steps) = stage.ask(id, None).await;
    stage.end(&messages[4..6], "failed").await;
    sqlx::query("UPDATE sends SET failed_at = now(), updated_at = now() WHERE message_id = ANY ($1)")
        .bind(&messages[4..6])
        .execute(&mut stage.admin)
        .await
        .unwrap();
    assert_eq!(sorted(&stage.step(steps[0]).await), messages[..4].iter().copied().collect());
    stage.end(&messages[..1], "failed").await;
    assert!(stage.step(steps[0]).await.messages().is_empty(), "who failed again has had a second try");
    let (asked, steps) = stage.ask(id, None).await;
    assert_eq!(asked, Asked::Begun { people: 3 });
    let next = [messages[0], messages[4], messages[5]];
    assert_eq!(sorted(&stage.step(steps[0]).await), next.into_iter().collect());
    stage.expect_books_to_agree(id).await;
}

#[tokio::test]
async fn people_are_let_go_again_by_credit_and_nobody_twice_whatever_comes_between() {
    let mut stage = Stage::new().await;
    stage.execute("UPDATE limits SET rate = 60, current_rate = 60").await;
    let (id, messages) = stage.completed(250, 0).await;
    // 20 a second: at most 100 in flight.
    stage.execute("UPDATE limits SET rate = 20, current_rate = 20").await;
    let (_, first) = stage.ask(id, None).await;
    let mut all = BTreeSet::new();
    for expected in [100, 100, 50] {
        let steps = stage.retries(id).await;
        // A crash before the commit.
        let mut lost = stage.fleet().await;
        let CampaignJob { tenant_id, task: Task::Retry { campaign_id, before } } = steps[0] else {
            panic!("{steps:?}")
        };
        shared::db::campaigns::retry::retry(&mut lost, tenant_id, campaign_id, before).await.unwrap();
        drop(lost);
        let led = stage.step(steps[0]).await;
        assert_eq!(led.messages().len(), expected);
        assert!(led.messages().iter().all(|message| all.insert(*message)), "nobody twice");
        // The earlier jobs, and this one, a second time.
        assert!(stage.step(steps[0]).await.messages().is_empty());
        assert!(stage.step(first[0]).await.messages().is_empty());
        let next = stage.retries(id).await;
        assert_eq!(next.is_empty(), expected == 50);
        for step in &next {
            assert!(stage.step(*step).await.messages().is_empty(), "there is no credit");
        }
        stage.expect_books_to_agree(id).await;
        stage.end(&led.messages(), "sent").await;
    }
    assert_eq!((all.len(), stage.retried().await), (messages.len(), 250));
    // What is to come waits in the outbox for its time, and is found there by the sweep.
    let later = "SELECT count(*) FROM outbox WHERE job ->> 'kind' = 'campaign.retry' AND publish_after > created_at";
    assert!(stage.count(later).await > 0);
    assert_eq!(stage.release().await.tasks(), [Task::Check { campaign_id: id }]);
}

#[tokio::test]
async fn a_retry_shares_the_account_with_a_campaign_that_has_people_left() {
    let mut stage = Stage::new().await;
    stage.execute("UPDATE limits SET rate = 60, current_rate = 60").await;
    let (id, _) = stage.completed(300, 0).await;
    stage.execute("UPDATE limits SET rate = 20, current_rate = 20").await;
    let other = stage.running("Hello again").await;
    let (_, steps) = stage.ask(id, None).await;
    assert_eq!(stage.release().await.messages().len(), 50, "half of 100");
    assert_eq!(stage.step(steps[0]).await.messages().len(), 50, "the other half");
    assert_eq!((stage.show(id).await.in_flight, stage.show(other).await.in_flight), (50, 50));
}

#[tokio::test]
async fn a_retry_goes_on_behind_a_full_chunk_in_which_nobody_failed() {
    let mut stage = Stage::new().await;
    let all = i64::try_from(CHUNK).unwrap() + 2;
    let people = stage.people(all).await;
    stage.execute("UPDATE limits SET rate = 3000, current_rate = 3000").await;
    let id = stage.running("Hello").await;
    let mut messages = Vec::new();
    loop {
        let led = stage.release().await;
        if led.messages().is_empty() {
            break;
        }
        messages.extend(led.messages());
    }
    let first: MessageId = sqlx::query_scalar("SELECT message_id FROM campaign_recipients WHERE contact_id = $1")
        .bind(people[0])
        .fetch_one(&mut stage.admin)
        .await
        .unwrap();
    messages.retain(|message| *message != first);
    stage.end(&messages, "sent").await;
    stage.end(&[first], "failed").await;
    let (_, steps) = stage.ask(id, None).await;
    let led = stage.step(steps[0]).await;
    let next = Task::Retry { campaign_id: id, before: Some(people[2]) };
    assert_eq!((led.messages().len(), led.tasks()), (0, vec![next]), "the last first");
    assert_eq!(stage.follow(led.steps).await.messages(), [first]);
    assert_eq!(stage.show(id).await.retrying_since, None);
}

#[tokio::test]
async fn of_a_paused_campaign_people_wait_and_of_a_cancelled_one_nobody_is_tried_again() {
    let mut stage = Stage::new().await;
    stage.people(30).await;
    let id = stage.running("Hello").await;
    let messages = stage.release().await.messages();
    stage.end(&messages[..20], "failed").await;
    stage.act(id, Action::Pause).await;
    let (asked, steps) = stage.ask(id, None).await;
    assert_eq!((asked, stage.show(id).await.state.as_str()), (Asked::Begun { people: 20 }, "paused"));
    let led = stage.follow(steps).await;
    assert!(led.messages().is_empty() && led.steps.is_empty(), "{led:?}");
    assert_eq!(
        stage.count("SELECT count(*) FROM sends WHERE state = 'waiting' AND wait_reason = 'campaign'").await,
        20
    );
    stage.expect_books_to_agree(id).await;
    let (_, wake) = stage.act(id, Action::Resume).await;
    assert_eq!(sorted(&stage.follow(wake).await), messages[..20].iter().copied().collect());

    stage.end(&messages[..20], "failed").await;
    let (_, steps) = stage.ask(id, None).await;
    let (_, cancel) = stage.act(id, Action::Cancel).await;
    assert!(stage.step(steps[0]).await.messages().is_empty());
    stage.follow(cancel).await;
    let shown = stage.show(id).await;
    assert_eq!((shown.failed, shown.cancelled, shown.retrying_since), (20, 10, None));
    stage.expect_books_to_agree(id).await;
    assert_eq!(stage.ask(id, None).await.0, Asked::NotFrom(CampaignState::Cancelled));
    let draft = stage.draft("Hello").await;
    assert_eq!(stage.ask(draft, None).await.0, Asked::NotFrom(CampaignState::Draft));
}

#[tokio::test]
async fn a_retry_ends_also_if_all_who_failed_turn_out_to_have_the_message() {
    let mut stage = Stage::new().await;
    let (id, _) = stage.completed(3, 0).await;
    let (_, steps) = stage.ask(id, None).await;
    stage.execute("UPDATE sends SET state = 'delivered'").await;
    stage.execute("UPDATE campaign_counts SET delivered = 3, failed = 0").await;
    assert!(stage.follow(steps).await.messages().is_empty());
    assert_eq!(stage.release().await.tasks(), [Task::Check { campaign_id: id }]);
    stage.expect_books_to_agree(id).await;
}

#[tokio::test]
async fn nobody_is_let_go_again_while_the_account_is_down() {
    let mut stage = Stage::new().await;
    let (id, messages) = stage.completed(3, 0).await;
    let (_, steps) = stage.ask(id, None).await;
    stage.execute("UPDATE channel_accounts SET state = 'down'").await;
    assert!(stage.step(steps[0]).await.messages().is_empty());
    assert_eq!(stage.show(id).await.failed, 3);
    stage.execute("UPDATE channel_accounts SET state = 'active'").await;
    assert_eq!(sorted(&stage.step(steps[0]).await), messages.iter().copied().collect());
}

#[tokio::test]
async fn what_the_provider_took_and_then_gave_up_is_no_second_message_in_the_books() {
    let mut stage = Stage::new().await;
    let (id, messages) = stage.completed(2, 0).await;
    // Taken, then reported as failed.
    stage.execute("UPDATE send_attempts SET outcome = 'accepted'").await;
    stage.execute("UPDATE sends SET code = '131026', reason = 'not reachable'").await;
    let (_, steps) = stage.ask(id, None).await;
    stage.follow(steps).await;
    stage.expect_books_to_agree(id).await;
    sqlx::query(
        "INSERT INTO send_attempts (tenant_id, message_id, id, number, outcome, ended_at)
        SELECT tenant_id, message_id, gen_random_uuid(), 2, 'accepted', now() FROM sends WHERE message_id = ANY ($1)",
    )
    .bind(&messages)
    .execute(&mut stage.admin)
    .await
    .unwrap();
    stage.execute("UPDATE sends SET state = 'sent'").await;
    stage.execute("UPDATE campaign_counts SET sent = 2, in_flight = 0").await;
    stage.expect_books_to_agree(id).await;
    assert_eq!(stage.count("SELECT count(*) FROM send_attempts WHERE outcome = 'failed' AND code = '131026'").await, 2);
    assert_eq!(stage.recipients(id).await, json!({"released": 2}));
}

#[tokio::test]
async fn who_turned_out_to_be_one_is_tried_again_once_and_not_if_they_have_it() {
    for (people, sent, merged, again) in
        [(2, 0, &[(1, 0)][..], 1), (2, 1, &[(1, 0)], 0), (2, 1, &[(0, 1)], 0), (3, 0, &[(0, 2), (1, 2)], 1)]
    {
        let mut stage = Stage::new().await;
        let (id, messages) = stage.completed(people, sent).await;
        // Who got which message, in the order of messages.
        let of: Vec<ContactId> = sqlx::query_scalar(
            "SELECT r.contact_id FROM unnest($1::uuid[]) WITH ORDINALITY AS m (id, place)
            JOIN campaign_recipients r ON r.message_id = m.id
            ORDER BY place",
        )
        .bind(&messages)
        .fetch_all(&mut stage.admin)
        .await
        .unwrap();
        for (loser, winner) in merged {
            sqlx::query("UPDATE contacts SET merged_into = $1 WHERE id = $2")
                .bind(of[*winner])
                .bind(of[*loser])
                .execute(&mut stage.admin)
                .await
                .unwrap();
        }
        let (_, steps) = stage.ask(id, None).await;
        assert_eq!(stage.follow(steps).await.messages().len(), again, "{people} people, {sent} sent, {merged:?}");
        stage.expect_books_to_agree(id).await;
    }
}
