//! The three kinds of failure, and panics: nothing of ours is charged to a job, and a bad job harms no other.

use super::{SOON, Task, until, with_toys};
use shared::queue::{dead, topology::INBOUND};
use std::{sync::atomic::Ordering, time::Duration};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_that_cannot_be_stored_is_dead_alone() {
    with_toys(async |stage| {
        let running = stage.run().await;
        stage.until_at_full_speed().await;
        let mut orders: Vec<_> = (1..=40).map(|number| (number, Task::Store)).collect();
        orders[16].1 = Task::Bad;
        orders[33].1 = Task::HalfBad;
        let jobs = stage.publish(&orders).await;
        stage.until_stored((1..=40).filter(|number| *number != 17)).await;
        until("the whole of one and the part of another are dead", async || stage.depth().await.dead == 2).await;
        let letters = dead::list(&stage.broker, &INBOUND, 10).await.unwrap();
        let whole = letters.iter().find(|letter| letter.job.id == jobs[16].id).expect("the whole job");
        assert!(whole.job.headers.last_error.as_deref().unwrap().contains("Unicode"), "{:?}", whole.job.headers);
        assert!(letters.iter().all(|letter| letter.job.id != jobs[33].id), "only its part is dead");
        assert_eq!(running.stop().await.left, 0);
        assert_eq!(stage.depth().await.ready, 0);
        assert!(stage.postponed().await.is_empty(), "nobody was charged");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn contention_is_tried_again_and_charged_to_nobody() {
    with_toys(async |stage| {
        stage.log.contentions.store(6, Ordering::SeqCst);
        let running = stage.run().await;
        stage.publish(&[(1, Task::Store), (2, Task::Store)]).await;
        stage.until_stored([1, 2]).await;
        assert!(stage.log.times_applied(1) + stage.log.times_applied(2) >= 8);
        running.stop().await;
        assert!(stage.postponed().await.is_empty());
        assert!(stage.all_is_acknowledged().await);
        assert_eq!(stage.log.times_performed(1), 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_database_is_away_nothing_is_taken_charged_or_dead() {
    with_toys(async |stage| {
        let (databases, relay) = stage.relayed_databases().await;
        let running = stage.run_on(stage.broker.clone(), databases, SOON).await;
        stage.until_at_full_speed().await;
        relay.close();
        let orders: Vec<_> = (1..=50).map(|number| (number, Task::Store)).collect();
        stage.publish(&orders).await;
        until("it says that it is not ready", async || !running.readiness.is_ready()).await;
        assert!(running.readiness.report().conditions["work"].starts_with("database"));
        // What comes now waits and is not performed.
        let more: Vec<_> = (51..=100).map(|number| (number, Task::Retry)).collect();
        stage.publish(&more).await;
        tokio::time::sleep(Duration::from_millis(700)).await;
        assert!(stage.log.performed.lock().unwrap().iter().all(|number| *number <= 50));
        relay.restore();
        stage.until_stored(1..=50).await;
        until("the later ones have failed by themselves", async || stage.postponed().await.len() == 50).await;
        assert!(running.readiness.is_ready());
        assert_eq!(running.stop().await.left, 0);
        assert!(stage.all_is_acknowledged().await);
        assert!((1..=50).all(|number| stage.log.times_performed(number) == 1), "held, not delivered again");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_is_charged_to_its_job_alone() {
    with_toys(async |stage| {
        let running = stage.run().await;
        stage.until_at_full_speed().await;
        let mut orders: Vec<_> = (1..=30).map(|number| (number, Task::Slow(20))).collect();
        orders[12].1 = Task::Panic;
        stage.publish(&orders).await;
        stage.until_stored((1..=30).filter(|number| *number != 13)).await;
        until("it comes back, charged", async || !stage.postponed().await.is_empty()).await;
        let postponed = stage.postponed().await;
        let [(1, Some(error))] = postponed.as_slice() else { panic!("one, charged once: {postponed:?}") };
        assert!(error.starts_with("panicked: told to panic at "), "{error}");
        assert_eq!(running.stop().await.left, 0);
        assert!(stage.all_is_acknowledged().await);
    })
    .await;
}
