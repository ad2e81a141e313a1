//! Deliveries: again after a lost session, alone after two crashes, given back when stopping.

use super::{SOON, Task, soon, until, with_toys};
use shared::queue::topology::INBOUND;
use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_whose_acknowledgement_is_lost_is_applied_twice_and_stored_once() {
    with_toys(async |stage| {
        let (broker, relay) = stage.queues.relayed().await;
        let running = stage.run_on(broker, stage.databases(), SOON).await;
        // The batch commits, its acknowledgement reaches nobody.
        let relay = Arc::new(relay);
        let cut = relay.clone();
        *stage.log.in_next_batch.lock().unwrap() = Some(Box::new(move || cut.close()));
        stage.publish(&[(1, Task::Store)]).await;
        stage.until_stored([1]).await;
        until("the loss is noticed", async || !running.readiness.is_ready()).await;
        until("committed, not acknowledged", async || stage.depth().await.ready == 1).await;
        relay.restore();
        until("it is applied again", async || stage.log.times_applied(1) == 2).await;
        assert_eq!(running.stop().await.left, 0);
        assert_eq!(stage.stored().await, [1]);
        assert!(stage.all_is_acknowledged().await);
        assert!(stage.postponed().await.is_empty());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_goes_on_is_stored_so_far_and_not_acknowledged() {
    with_toys(async |stage| {
        let (broker, relay) = stage.queues.relayed().await;
        let running = stage.run_on(broker, stage.databases(), SOON).await;
        stage.publish(&[(1, Task::Progress)]).await;
        stage.until_stored([1]).await;
        // Had it been acknowledged it would not come again.
        relay.cut();
        until("it comes again", async || stage.log.times_performed(1) == 2).await;
        until("it is stored so far again", async || stage.log.times_applied(1) == 2).await;
        stage.log.may_end.notify_waiters();
        until("it is acknowledged", async || running.readiness.is_ready() && stage.depth().await.ready == 0).await;
        assert_eq!(running.stop().await.left, 0);
        assert!(stage.all_is_acknowledged().await);
        assert_eq!(stage.stored().await, [1]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_or_doubled_when_the_connection_is_cut_again_and_again() {
    with_toys(async |stage| {
        let (broker, relay) = stage.queues.relayed().await;
        let running = stage.run_on(broker, stage.databases(), SOON).await;
        let orders: Vec<_> = (1..=400).map(|number| (number, Task::Slow(u64::from(number % 50)))).collect();
        for some in orders.chunks(100) {
            stage.publish(some).await;
            until("it works", async || running.readiness.is_ready()).await;
            relay.cut();
        }
        stage.until_stored(1..=400).await;
        until("all is acknowledged", async || running.readiness.is_ready() && stage.depth().await.ready == 0).await;
        assert_eq!(running.stop().await.left, 0);
        assert!(stage.all_is_acknowledged().await);
        assert!(stage.postponed().await.is_empty(), "nobody was charged");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_delivered_again_and_again_is_taken_alone() {
    with_toys(async |stage| {
        let mut orders: Vec<_> = (1..=120).map(|number| (number, Task::Slow(5))).collect();
        orders.push((121, Task::Alone));
        let suspicious = stage.publish(&orders).await.pop().unwrap();
        // A process that holds them all gives one back twice, then dies.
        let session = stage.broker.session().await.unwrap();
        let mut consumer = session.consumer(&INBOUND, 500).await.unwrap();
        for _ in 0..orders.len() + 2 {
            let delivery = soon("a delivery", consumer.next()).await.unwrap();
            if delivery.job.id == suspicious.id && delivery.deliveries < 3 {
                consumer.acker().requeue(delivery.tag).await.unwrap();
            }
        }
        session.close().await;

        let running = stage.run().await;
        stage.until_stored(1..=121).await;
        assert_eq!(stage.log.company.load(Ordering::SeqCst), 0, "others were performed at the same time");
        // And then it goes on as usual.
        stage.until_at_full_speed().await;
        stage.publish(&[(122, Task::Store)]).await;
        stage.until_stored(1..=122).await;
        assert_eq!(running.stop().await.left, 0);
        assert!(stage.all_is_acknowledged().await);
        assert!(stage.postponed().await.is_empty());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopping_finishes_what_was_started_and_charges_nobody() {
    with_toys(async |stage| {
        let running = stage.run().await;
        stage.until_at_full_speed().await;
        let orders: Vec<_> = (1..=700).map(|number| (number, Task::Slow(300))).collect();
        stage.publish(&orders).await;
        until("many are started", async || stage.log.performed.lock().unwrap().len() > 100).await;
        assert_eq!(running.stop().await.left, 0);
        let (stored, ready) = (stage.stored().await.len(), stage.depth().await.ready);
        let started = stage.log.performed.lock().unwrap().len();
        assert_eq!(stored, started, "what was started is stored");
        assert_eq!(stored + usize::try_from(ready).unwrap(), orders.len(), "and the rest is on the queue");
        assert!(stage.postponed().await.is_empty());
        assert_eq!(stage.depth().await.dead, 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopping_in_an_outage_ends_within_the_grace_period_and_loses_nothing() {
    with_toys(async |stage| {
        let (databases, relay) = stage.relayed_databases().await;
        let grace = Duration::from_secs(3);
        let running = stage.run_on(stage.broker.clone(), databases, grace).await;
        relay.close();
        stage.publish(&[(1, Task::Store), (2, Task::Store), (3, Task::Store)]).await;
        until("it says that it is not ready", async || !running.readiness.is_ready()).await;
        let asked = Instant::now();
        assert!(running.stop().await.left > 0);
        assert!(asked.elapsed() <= grace, "{:?}", asked.elapsed());
        until("all is on the queue again", async || stage.depth().await.ready == 3).await;
        assert_eq!(stage.depth().await.dead, 0);
        assert!(stage.postponed().await.is_empty());
    })
    .await;
}
