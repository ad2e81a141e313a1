//! Limits other than an account's rate alone: what one person may get, how many people in a day, what is kept free for messages
//! that come in, and answers before campaigns whichever worker asks first.

use super::{Given, Stage};
use shared::{
    db::{
        audit::Actor,
        inbound::received,
        limits::{self, Set},
        outbound::grant::{Answer, Judged, Obstacle},
        retention::{self, Removed},
    },
    domain::{
        ids::{AttemptId, ConversationId, MessageId},
        limits::{BadLimit, LimitChange, LimitValues, Scope},
        sends::SendState::Queued,
    },
};
use sqlx::Row;
use std::{collections::BTreeMap, time::Duration};
use uuid::Uuid;

fn obstacles(answers: &[Judged]) -> Vec<&Obstacle> {
    answers
        .iter()
        .filter_map(|judged| match &judged.answer {
            Answer::NotNow(obstacle) => Some(obstacle),
            Answer::Granted(_) => None,
        })
        .collect()
}

fn granted(answers: &[Judged]) -> usize {
    answers.iter().filter(|judged| matches!(judged.answer, Answer::Granted(_))).count()
}

/// How many a rate allows at once: what has come due in 25 ms of not being asked.
fn at_once(rate: f64) -> usize {
    (1.0 + 0.025 * rate / 1.025) as usize
}

const fn limit(rate: f64, burst: Option<i32>, inbound_cost: f64) -> LimitChange {
    LimitChange { rate, burst, inbound_cost: Some(inbound_cost) }
}

impl Stage {
    async fn set(&self, scope: Scope, key: Uuid, change: LimitChange) {
        let mut tx = self.workers.tenant(&self.placement, self.tenant).await.unwrap();
        assert_eq!(limits::set(&mut tx, scope, key, change, Actor::Operator).await.unwrap(), Set::Done);
        tx.commit().await.unwrap();
    }

    /// So many sends of a campaign's lane in one conversation: none waits for another's turn.
    async fn bulk_in(&mut self, conversation: ConversationId, sends: i64) -> Vec<MessageId> {
        let mut messages = Vec::new();
        for seq in 1..=sends {
            messages.push(self.send(Given { conversation, seq, state: Queued, attempt: AttemptId::new() }).await);
        }
        self.hand_to_bulk(&messages).await;
        messages
    }

    async fn hand_to_bulk(&mut self, messages: &[MessageId]) {
        let ids: Vec<Uuid> = messages.iter().map(|id| id.0).collect();
        sqlx::query("UPDATE sends SET lane = 1 WHERE message_id = ANY ($1)")
            .bind(ids)
            .execute(&mut self.admin)
            .await
            .unwrap();
    }

    /// Sends outside everybody's window, each to a person of their own.
    async fn templates(&mut self, sends: usize) -> Vec<MessageId> {
        let mut messages = Vec::new();
        for _ in 0..sends {
            messages.push(self.lone_send().await.1);
        }
        self.execute("UPDATE sends SET needs_window = false").await;
        self.execute("UPDATE conversations SET window_expires_at = now() - interval '1 hour'").await;
        messages
    }

    async fn portfolio(&mut self, people: f64) -> Uuid {
        let portfolio = Uuid::now_v7();
        sqlx::query(
            "WITH portfolio AS (
                INSERT INTO portfolios (tenant_id, id, provider, external_id) VALUES ($1, $2, 'whatsapp', $2::text) RETURNING id
            )
            UPDATE channel_accounts SET portfolio_id = portfolio.id FROM portfolio WHERE tenant_id = $1",
        )
        .bind(self.tenant)
        .bind(portfolio)
        .execute(&mut self.admin)
        .await
        .unwrap();
        self.set(Scope::Portfolio, portfolio, limit(people, None, 0.0)).await;
        portfolio
    }

    async fn used(&mut self) -> (i64, i64) {
        let row =
            sqlx::query("SELECT used, (SELECT count(*) FROM portfolio_people) FROM limits WHERE scope = 'portfolio'");
        let row = row.fetch_one(&mut self.admin).await.unwrap();
        (row.get(0), row.get(1))
    }
}

#[tokio::test]
async fn a_person_gets_so_many_at_once_and_then_one_at_a_time_while_others_get_theirs() {
    let mut stage = Stage::new().await;
    stage.set(Scope::Pair, stage.account.0, limit(1.0 / 6.0, Some(3), 0.0)).await;
    let conversation = stage.conversation().await;
    let messages = stage.bulk_in(conversation, 5).await;
    let (_, other) = stage.lone_send().await;
    let asked: Vec<MessageId> = messages.iter().copied().chain([other]).collect();
    let answers = stage.ask(&asked).await;
    assert_eq!(granted(&answers), 4, "three of one person's and the other's: {answers:?}");
    for obstacle in obstacles(&answers) {
        let Obstacle::Pair(wait) = obstacle else { panic!("{obstacle:?}") };
        assert!((5.0..=6.0).contains(&wait.as_secs_f64()), "{wait:?}");
    }
    // Another worker a moment later, of the same person; and when the first of the three is paid back.
    let again = stage.ask(&messages[3..]).await;
    assert_eq!(granted(&again), 0, "{again:?}");
    stage.execute("UPDATE pair_meters SET next_at = next_at - interval '6 seconds'").await;
    let again = stage.ask(&messages[3..]).await;
    assert_eq!(granted(&again), 1, "{again:?}");
    // A day later nothing is owed.
    stage.execute("UPDATE pair_meters SET next_at = next_at - interval '1 day'").await;
    let last: Vec<MessageId> = obstacle_ids(&again);
    assert_eq!(granted(&stage.ask(&last).await), 1);
}

fn obstacle_ids(answers: &[Judged]) -> Vec<MessageId> {
    answers.iter().filter(|j| matches!(j.answer, Answer::NotNow(_))).map(|j| j.message_id).collect()
}

#[tokio::test]
async fn people_of_one_account_who_wait_hold_up_nobody_else_at_its_rate() {
    let mut stage = Stage::new().await;
    stage.set(Scope::Account, stage.account.0, limit(64.0, None, 0.0)).await;
    stage.set(Scope::Pair, stage.account.0, limit(0.01, Some(1), 0.0)).await;
    let conversation = stage.conversation().await;
    let crowd = stage.bulk_in(conversation, 100).await;
    assert_eq!(granted(&stage.ask(&crowd[..1]).await), 1);
    let (_, other) = stage.lone_send().await;
    stage.hand_to_bulk(&[other]).await;
    let mut waiting: Vec<MessageId> = crowd[1..].to_vec();
    waiting.push(other);
    // Only so many are looked at in a question; those told to wait for their person are not asked for again.
    for _ in 0..10 {
        let answers = stage.ask(&waiting).await;
        if granted(&answers) == 1 {
            return;
        }
        let paired = |judged: &Judged| matches!(judged.answer, Answer::NotNow(Obstacle::Pair(_)));
        let told: Vec<MessageId> = answers.iter().filter(|judged| paired(judged)).map(|j| j.message_id).collect();
        assert!(!told.is_empty(), "somebody is told: {answers:?}");
        waiting.retain(|id| !told.contains(id));
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
    panic!("the other person never got theirs");
}

#[tokio::test]
async fn a_portfolio_reaches_so_many_people_a_day_outside_their_window() {
    let mut stage = Stage::new().await;
    let portfolio = stage.portfolio(3.0).await;
    let messages = stage.templates(5).await;
    let answers = stage.ask(&messages).await;
    assert_eq!((granted(&answers), stage.used().await), (3, (3, 3)), "{answers:?}");
    for obstacle in obstacles(&answers) {
        let Obstacle::Portfolio(wait) = obstacle else { panic!("{obstacle:?}") };
        assert!(*wait <= Duration::from_secs(86_400), "{wait:?}");
    }
    let waiting = obstacle_ids(&answers);
    assert_eq!(granted(&stage.ask(&waiting).await), 0);
    // Who wrote to us is no stranger.
    sqlx::query(
        "UPDATE conversations SET window_expires_at = now() + interval '1 hour'
        WHERE id = (SELECT conversation_id FROM sends WHERE message_id = $1)",
    )
    .bind(waiting[0])
    .execute(&mut stage.admin)
    .await
    .unwrap();
    assert_eq!((granted(&stage.ask(&waiting).await), stage.used().await), (1, (3, 3)));
    // Another message to somebody who is reached already takes no other place.
    let reached = answers.iter().find(|judged| matches!(judged.answer, Answer::Granted(_))).unwrap();
    let given = Given { conversation: reached.conversation_id, seq: 2, state: Queued, attempt: AttemptId::new() };
    let more = stage.send(given).await;
    stage.execute("UPDATE sends SET needs_window = false").await;
    stage.hand_to_bulk(&[more]).await;
    assert_eq!((granted(&stage.ask(&[more]).await), stage.used().await), (1, (3, 3)));
    // One day over is one place free.
    stage
        .execute(
            "UPDATE portfolio_people SET reached_at = now() - interval '25 hours'
            WHERE contact_id = (SELECT min(contact_id::text)::uuid FROM portfolio_people)",
        )
        .await;
    assert_eq!((granted(&stage.ask(&waiting[1..]).await), stage.used().await), (1, (3, 3)));
    // The limit is raised while everything runs.
    let more = stage.templates(2).await;
    assert_eq!(granted(&stage.ask(&more).await), 0);
    stage.set(Scope::Portfolio, portfolio, limit(10.0, None, 0.0)).await;
    assert_eq!((granted(&stage.ask(&more).await), stage.used().await), (2, (5, 5)));
}

#[tokio::test]
async fn room_is_kept_for_what_comes_in_where_it_counts() {
    let mut stage = Stage::new().await;
    let waiting = stage.templates(60).await;
    stage.hand_to_bulk(&waiting).await;
    let receive = async |stage: &Stage, messages: i32| {
        let mut tx = stage.fleet().await;
        received::count(&mut tx, &BTreeMap::from([((stage.tenant, stage.account), messages)])).await.unwrap();
        tx.commit().await.unwrap();
    };
    stage.set(Scope::Account, stage.account.0, limit(320.0, None, 0.0)).await;
    receive(&stage, 200).await;
    let first = stage.ask(&waiting).await;
    assert_eq!(granted(&first), at_once(320.0), "inbound is not counted unless the limit says so: {first:?}");
    stage.set(Scope::Account, stage.account.0, limit(320.0, None, 1.0)).await;
    stage.execute("UPDATE limits SET next_at = '-infinity'").await;
    receive(&stage, 100).await;
    receive(&stage, 100).await;
    let shown = async |stage: &Stage| {
        let mut tx = stage.workers.tenant(&stage.placement, stage.tenant).await.unwrap();
        let limits = limits::list(&mut tx).await.unwrap();
        tx.commit().await.unwrap();
        limits[0].reserved
    };
    let reserved = shown(&stage).await;
    // Two hundred in one second, or a hundred in each of two, and a fortieth of the rate besides.
    assert!(reserved == 208.0 || reserved == 108.0, "{reserved}");
    let second = stage.ask(&obstacle_ids(&first)).await;
    assert_eq!(granted(&second), at_once(320.0 - reserved), "{second:?}");
    // Eleven seconds later that is forgotten.
    stage.execute("UPDATE received_seconds SET second = second - 11").await;
    assert_eq!(shown(&stage).await, 8.0);
}

#[tokio::test]
async fn a_campaigns_message_takes_no_turn_that_another_workers_answer_waits_for() {
    let mut stage = Stage::new().await;
    stage.set(Scope::Account, stage.account.0, limit(1.0, None, 0.0)).await;
    let (_, first) = stage.lone_send().await;
    let bulk = stage.templates(2).await;
    stage.hand_to_bulk(&bulk).await;
    let (_, answer) = stage.lone_send().await;
    assert_eq!(granted(&stage.ask(&[first]).await), 1);
    let told = stage.ask(&[answer]).await;
    assert!(matches!(obstacles(&told)[..], [Obstacle::Rate(_)]), "{told:?}");
    // Its turn has come, and another worker is first to ask.
    stage.execute("UPDATE limits SET next_at = now()").await;
    let told = stage.ask(&bulk).await;
    assert!(matches!(obstacles(&told)[..], [Obstacle::Rate(_), Obstacle::Rate(_)]), "{told:?}");
    assert_eq!(granted(&stage.ask(&[answer]).await), 1);
    stage.execute("UPDATE limits SET next_at = now()").await;
    assert_eq!(granted(&stage.ask(&bulk).await), 1, "nobody waits any more");
    // A worker that died while it held an answer stops nobody for long.
    let (_, lost) = stage.lone_send().await;
    stage.ask(&[lost]).await;
    stage.execute("UPDATE limits SET next_at = now()").await;
    assert_eq!(granted(&stage.ask(&bulk).await), 0);
    stage.execute("UPDATE limits SET answers_wait_until = answers_wait_until - interval '3 seconds'").await;
    assert_eq!(granted(&stage.ask(&bulk).await), 1);
}

#[tokio::test]
async fn a_limit_holds_from_the_moment_it_is_set_and_no_more_once_it_is_removed() {
    let mut stage = Stage::new().await;
    let waiting = stage.templates(40).await;
    stage.hand_to_bulk(&waiting).await;
    stage.set(Scope::Account, stage.account.0, limit(0.01, None, 0.0)).await;
    let answers = stage.ask(&waiting).await;
    assert_eq!(granted(&answers), 1);
    stage.set(Scope::Account, stage.account.0, limit(320.0, None, 0.0)).await;
    let answers = stage.ask(&obstacle_ids(&answers)).await;
    assert_eq!(granted(&answers), 0, "what the slow meter let go counts within this second");
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let answers = stage.ask(&obstacle_ids(&answers)).await;
    assert_eq!(granted(&answers), at_once(320.0), "what it owed is forgotten");
    let before: i32 =
        sqlx::query_scalar("SELECT revision FROM channel_accounts").fetch_one(&mut stage.admin).await.unwrap();
    let mut tx = stage.workers.tenant(&stage.placement, stage.tenant).await.unwrap();
    let removed = limits::remove(&mut tx, Scope::Account, stage.account.0, Actor::Operator).await.unwrap();
    assert_eq!(removed, limits::Removed::Done);
    let nobody = limits::set(&mut tx, Scope::Account, Uuid::now_v7(), limit(1.0, None, 0.0), Actor::Operator);
    assert_eq!(nobody.await.unwrap(), Set::NoSuchThing);
    tx.commit().await.unwrap();
    let after: i32 =
        sqlx::query_scalar("SELECT revision FROM channel_accounts").fetch_one(&mut stage.admin).await.unwrap();
    assert_eq!(after, before + 1, "senders are told to look again at what they remember of the account");
    let rest = obstacle_ids(&answers);
    assert_eq!(granted(&stage.ask(&rest).await), rest.len());
}

#[tokio::test]
async fn what_is_not_given_stays_as_it_is_or_is_what_the_provider_is_known_for() {
    let stage = Stage::new().await;
    let change = |rate, burst| LimitChange { rate, burst, inbound_cost: None };
    let listed = async || {
        let mut tx = stage.workers.tenant(&stage.placement, stage.tenant).await.unwrap();
        let listed = limits::list(&mut tx).await.unwrap();
        tx.commit().await.unwrap();
        listed.iter().map(|limit| (limit.scope, limit.values)).collect::<Vec<_>>()
    };
    stage.set(Scope::Account, stage.account.0, change(80.0, Some(2))).await;
    stage.set(Scope::Account, stage.account.0, change(40.0, None)).await;
    let kept = LimitValues { rate: 40.0, burst: Some(2), inbound_cost: 1.0 };
    assert_eq!(listed().await, [(Scope::Account, kept)], "WhatsApp counts both ways");
    let mut tx = stage.workers.tenant(&stage.placement, stage.tenant).await.unwrap();
    let bad = limits::set(&mut tx, Scope::Account, stage.account.0, change(1.0, Some(2)), Actor::Operator).await;
    assert_eq!(bad.unwrap(), Set::Bad(BadLimit::AccountBurst { burst: 2, most: 1, rate: 1.0 }));
}

#[tokio::test]
async fn what_owes_nothing_is_forgotten() {
    let mut stage = Stage::new().await;
    stage.set(Scope::Pair, stage.account.0, limit(1.0, Some(5), 0.0)).await;
    stage.portfolio(10.0).await;
    let messages = stage.templates(4).await;
    assert_eq!(granted(&stage.ask(&messages).await), 4);
    stage
        .execute(
            "UPDATE pair_meters SET next_at = now() - interval '2 hours'
            WHERE contact_id IN (SELECT contact_id FROM pair_meters LIMIT 3)",
        )
        .await;
    stage
        .execute(
            "UPDATE portfolio_people SET reached_at = now() - interval '25 hours'
            WHERE contact_id IN (SELECT contact_id FROM portfolio_people LIMIT 3)",
        )
        .await;
    let mut tx = stage.fleet().await;
    assert_eq!(retention::expire_pair_meters(&mut tx).await.unwrap(), Removed { rows: 3, more: false });
    assert_eq!(retention::expire_portfolio_people(&mut tx).await.unwrap(), Removed { rows: 3, more: false });
    tx.commit().await.unwrap();
    assert_eq!(stage.used().await, (1, 1));
    stage.execute("UPDATE limits SET used = used + 5 WHERE scope = 'portfolio'").await;
    let mut tx = stage.fleet().await;
    assert_eq!(retention::expire_portfolio_people(&mut tx).await.unwrap(), Removed { rows: 0, more: false });
    tx.commit().await.unwrap();
    assert_eq!(stage.used().await, (1, 1), "a count that is off does not stay so");
}

#[tokio::test]
async fn whom_a_portfolio_reaches_while_its_day_has_no_limit_counts_once_it_has_one() {
    let mut stage = Stage::new().await;
    let portfolio = stage.portfolio(5.0).await;
    stage.execute("DELETE FROM limits").await;
    let messages = stage.templates(3).await;
    assert_eq!(granted(&stage.ask(&messages).await), 3);
    stage.set(Scope::Portfolio, portfolio, limit(4.0, None, 0.0)).await;
    let more = stage.templates(3).await;
    assert_eq!((granted(&stage.ask(&more).await), stage.used().await), (1, (4, 4)));
}

#[tokio::test]
async fn a_meter_that_was_much_slower_leaves_a_second_free_and_goes_on() {
    let mut stage = Stage::new().await;
    stage.set(Scope::Account, stage.account.0, limit(50.0, None, 0.0)).await;
    let messages = stage.templates(2).await;
    stage.execute("UPDATE limits SET next_at = now() + interval '1 hour'").await;
    let wait = async |stage: &Stage| match obstacles(&stage.ask(&messages).await).first() {
        Some(Obstacle::Rate(wait)) => *wait,
        other => panic!("{other:?}"),
    };
    let first = wait(&stage).await;
    assert!(first <= Duration::from_secs(1), "{first:?}");
    tokio::time::sleep(Duration::from_millis(400)).await;
    let second = wait(&stage).await;
    assert!(second + Duration::from_millis(390) <= first, "it is not put off again: {first:?}, {second:?}");
    tokio::time::sleep(second).await;
    // A machine that is busy may ask so late that both have come due.
    assert_ne!(granted(&stage.ask(&messages).await), 0);
}
