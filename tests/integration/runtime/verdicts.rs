//! What becomes of jobs, by their verdict.

use super::{Order, SOON, Task, now, to, until, with_toys};
use shared::{
    jobs::Job,
    queue::{
        dead,
        topology::{INBOUND, OUTBOUND_BULK, OUTBOUND_NOW},
    },
};
use support::database::{Role, placement};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn done_jobs_are_stored_acknowledged_and_what_follows_is_published() {
    with_toys(async |stage| {
        let running = stage.run().await;
        let orders: Vec<_> = (1..=300).map(|number| (number, Task::Store)).collect();
        stage.publish(&orders).await;
        stage.publish(&[(400, Task::Publish)]).await;
        stage.until_stored(1..=300).await;
        until("the follower is published", async || stage.broker.depth(&OUTBOUND_BULK).await.unwrap().ready == 1).await;
        let mut admin = stage.database.admin().await;
        until("and deleted from the outbox", async || {
            let followers = "SELECT count(*) FROM outbox WHERE job->>'kind' = 'toy.followed'";
            sqlx::query_scalar::<_, i64>(followers).fetch_one(&mut admin).await.unwrap() == 0
        })
        .await;
        assert_eq!(running.stop().await.left, 0);
        assert!(stage.all_is_acknowledged().await);
        assert!(stage.postponed().await.is_empty());
        assert!(orders.iter().all(|(number, _)| stage.log.times_performed(*number) == 1));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn later_is_not_charged_retry_is_and_reject_is_dead_with_its_reason() {
    with_toys(async |stage| {
        let running = stage.run().await;
        stage.publish(&[(1, Task::Later), (2, Task::Retry), (3, Task::Reject), (4, Task::Drop)]).await;
        until("three come back and one is dead", async || {
            stage.postponed().await.len() == 3 && stage.depth().await.dead == 1
        })
        .await;
        let charged = |error: &str| (1, Some(error.to_owned()));
        let expected = [(0, None), charged("dropped without a verdict"), charged("told to fail")];
        assert_eq!(stage.postponed().await, expected);
        let letters = dead::list(&stage.broker, &INBOUND, 10).await.unwrap();
        assert_eq!(letters[0].job.headers.last_error.as_deref(), Some("told to give up"));
        assert_eq!(running.stop().await.left, 0);
        assert_eq!(stage.depth().await.ready, 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_attempt_ends_among_the_dead_with_the_first_and_the_last_error() {
    with_toys(async |stage| {
        let running = stage.run().await;
        let mut job = Order { number: 1, task: Task::Retry }.to_job(stage.tenant, now());
        job.headers.attempt = INBOUND.max_attempts - 1;
        job.headers.first_error = Some("the first".to_owned());
        stage.publish_jobs(std::slice::from_ref(&job)).await;
        until("it is dead", async || stage.depth().await.dead == 1).await;
        let letters = dead::list(&stage.broker, &INBOUND, 10).await.unwrap();
        let headers = &letters[0].job.headers;
        assert_eq!((headers.attempt, headers.first_error.as_deref()), (INBOUND.max_attempts, Some("the first")));
        let last = format!("gave up after {} attempts: told to fail", INBOUND.max_attempts);
        assert_eq!(headers.last_error, Some(last));
        running.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_read_is_dead_and_what_cannot_be_read_yet_comes_back() {
    with_toys(async |stage| {
        let running = stage.run().await;
        let broken = Job::new("toy.order", 1, Some(stage.tenant), now(), "{");
        let newer = Job::new("toy.order", 2, Some(stage.tenant), now(), "anything");
        stage.publish_jobs(&[broken.clone(), newer]).await;
        until("both are dealt with", async || stage.postponed().await == [(0, None)] && stage.depth().await.dead == 1)
            .await;
        let letters = dead::list(&stage.broker, &INBOUND, 10).await.unwrap();
        assert_eq!(letters[0].job.id, broken.id);
        assert!(letters[0].job.headers.last_error.as_deref().unwrap().starts_with("unreadable payload"));
        running.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_with_effects_in_two_databases_is_stored_in_both() {
    with_toys(async |stage| {
        let elsewhere = placement().await;
        let databases = stage.database.databases_with(Role::Worker, &[("elsewhere", &elsewhere)]);
        let running = stage.run_on(stage.broker.clone(), databases, SOON).await;
        stage.publish(&[(1, Task::Everywhere), (2, Task::Store)]).await;
        stage.until_stored([1, 2]).await;
        let mut admin = elsewhere.admin().await;
        until("the other database has it", async || {
            let stored = "SELECT count(*) FROM outbox WHERE job->>'kind' = 'toy.stored'";
            sqlx::query_scalar::<_, i64>(stored).fetch_one(&mut admin).await.unwrap() == 1
        })
        .await;
        assert_eq!(running.stop().await.left, 0);
        assert!(stage.all_is_acknowledged().await);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_queue_of_the_worker_is_drained() {
    with_toys(async |stage| {
        let running = stage.run().await;
        let second = Order { number: 2, task: Task::Store }.to_job(stage.tenant, now());
        stage.publisher.publish(vec![to(&OUTBOUND_NOW, second)]).await.unwrap();
        stage.publish(&[(1, Task::Store)]).await;
        stage.until_stored([1, 2]).await;
        running.stop().await;
    })
    .await;
}
