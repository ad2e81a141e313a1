//! What a session promises: no more than the prefetch, nothing lost with the connection, and never an idle zombie.

use super::{job, next, soon, staged, to, until};
use shared::{
    jobs::Job,
    queue::{Broker, Error, INBOUND, Lost, OUTBOUND_NOW, Session},
};
use std::time::{Duration, Instant};

const A_WHILE: Duration = Duration::from_millis(300);

async fn publish(stage: &super::Stage, broker: &Broker, count: usize) -> Vec<Job> {
    let jobs: Vec<_> = (0..count).map(|n| job(n.to_string())).collect();
    let group = jobs.iter().cloned().map(|job| to(&INBOUND, job)).collect();
    stage.publisher(broker).await.publish(group).await.unwrap();
    jobs
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_than_the_prefetch_is_out_and_acknowledging_through_a_tag_makes_room() {
    staged(async |stage| {
        let broker = stage.broker();
        publish(stage, &broker, 50).await;
        let session = broker.session().await.unwrap();
        let mut consumer = session.consumer(&INBOUND, 10).await.unwrap();
        let mut tags = Vec::new();
        for _ in 0..10 {
            tags.push(next(&mut consumer).await.tag);
        }
        assert!(tokio::time::timeout(A_WHILE, consumer.next()).await.is_err(), "an eleventh");
        let acker = consumer.acker();
        acker.ack_through(tags[6]).await.unwrap();
        for _ in 0..7 {
            next(&mut consumer).await;
        }
        assert!(tokio::time::timeout(A_WHILE, consumer.next()).await.is_err(), "an eighteenth");
        acker.ack_through(tags[6]).await.unwrap();
        acker.ack(tags[8]).await.unwrap();
        acker.ack(tags[8]).await.unwrap();
        next(&mut consumer).await;
        session.close().await;
        until("all but eight are there", async || broker.depth(&INBOUND).await.unwrap().ready == 42).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_acknowledged_comes_again_after_the_connection_is_lost() {
    staged(async |stage| {
        let (broker, relay) = stage.relayed().await;
        let jobs = publish(stage, &stage.broker(), 3).await;
        let session = broker.session().await.unwrap();
        let mut consumer = session.consumer(&INBOUND, 10).await.unwrap();
        let first = next(&mut consumer).await;
        assert_eq!((first.deliveries, &first.job, first.unreadable), (1, &jobs[0], None));
        consumer.acker().ack(first.tag).await.unwrap();
        let second = next(&mut consumer).await;
        tokio::time::sleep(A_WHILE).await; // the acknowledgement reaches the broker
        relay.cut();
        assert!(matches!(soon("the loss is noticed", session.lost()).await, Error::Lost(_)));
        assert!(soon("the consumer ends", consumer.next()).await.is_none());
        assert_eq!(consumer.acker().ack(second.tag).await, Err(Lost));
        drop((consumer, session));

        let session = broker.session().await.unwrap();
        let mut consumer = session.consumer(&INBOUND, 10).await.unwrap();
        for expected in &jobs[1..] {
            let again = next(&mut consumer).await;
            assert_eq!((again.deliveries, &again.job, again.unreadable), (2, expected, None));
        }
        session.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_consumer_gives_out_what_it_holds_and_ends() {
    staged(async |stage| {
        let broker = stage.broker();
        publish(stage, &broker, 20).await;
        let session = broker.session().await.unwrap();
        let mut consumer = session.consumer(&INBOUND, 5).await.unwrap();
        let first = next(&mut consumer).await;
        tokio::time::sleep(A_WHILE).await; // the other four are buffered
        consumer.cancel().await;
        let mut tags = vec![first.tag];
        while let Some(delivery) = soon("the end", consumer.next()).await {
            tags.push(delivery.tag);
        }
        assert_eq!(tags.len(), 5);
        consumer.acker().ack_through(5).await.unwrap();
        assert!(tokio::time::timeout(A_WHILE, session.lost()).await.is_err(), "the session goes on");
        let mut other = session.consumer(&INBOUND, 15).await.unwrap();
        assert_eq!(next(&mut other).await.deliveries, 1, "acknowledged, not given back");
        session.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_requeued_delivery_comes_again_and_is_counted() {
    staged(async |stage| {
        let broker = stage.broker();
        publish(stage, &broker, 1).await;
        let session = broker.session().await.unwrap();
        let mut consumer = session.consumer(&INBOUND, 1).await.unwrap();
        for deliveries in 1..=3 {
            let delivery = next(&mut consumer).await;
            assert_eq!(delivery.deliveries, deliveries);
            assert!(delivery.age.is_some_and(|age| age < super::SOON));
            consumer.acker().requeue(delivery.tag).await.unwrap();
        }
        session.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_queue_ends_the_session_and_the_next_one_declares_it() {
    staged(async |stage| {
        let broker = stage.broker();
        let session = broker.session().await.unwrap();
        let mut consumer = session.consumer(&INBOUND, 1).await.unwrap();
        broker.remove().await.unwrap();
        assert!(soon("the consumer ends", consumer.next()).await.is_none());
        soon("the session is lost", session.lost()).await;
        let session = broker.session().await.unwrap();
        session.consumer(&INBOUND, 1).await.unwrap();
        session.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_connection_is_noticed_before_the_heartbeat() {
    staged(async |stage| {
        let (broker, relay) = stage.relayed().await;
        let session = Session::open_watched(&broker, Duration::from_secs(2)).await.unwrap();
        let _consumer = session.consumer(&INBOUND, 1).await.unwrap();
        relay.stall();
        let stalled = Instant::now();
        soon("the loss is noticed", session.lost()).await;
        assert!(stalled.elapsed() < Duration::from_secs(10), "{:?}", stalled.elapsed());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_delivered_nothing_while_jobs_are_ready_is_lost() {
    staged(async |stage| {
        let (broker, relay) = stage.relayed().await;
        let session = Session::open_watched(&broker, Duration::from_secs(2)).await.unwrap();
        let mut consumer = session.consumer(&INBOUND, 5).await.unwrap();
        relay.withhold_deliveries();
        publish(stage, &stage.broker(), 20).await;
        let began = Instant::now();
        // Asked again and again, as a worker does that looks after other things in between.
        soon("the consumer ends", async {
            while tokio::time::timeout(Duration::from_millis(70), consumer.next()).await.is_err() {}
        })
        .await;
        assert!(began.elapsed() >= Duration::from_secs(2), "{:?}", began.elapsed());
        assert!(soon("the reason", session.lost()).await.to_string().contains("none was delivered"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_full_or_does_not_ask_or_has_nothing_to_do_is_no_zombie() {
    staged(async |stage| {
        let broker = stage.broker();
        publish(stage, &broker, 20).await;
        let session = Session::open_watched(&broker, Duration::from_millis(800)).await.unwrap();
        let mut full = session.consumer(&INBOUND, 2).await.unwrap();
        next(&mut full).await;
        next(&mut full).await;
        let mut idle = session.consumer(&OUTBOUND_NOW, 2).await.unwrap();
        let _unasked = session.consumer(&INBOUND, 2).await.unwrap();
        let waited = Duration::from_secs(4);
        let work = async { tokio::join!(full.next(), idle.next()) };
        assert!(tokio::time::timeout(waited, work).await.is_err());
        assert!(tokio::time::timeout(A_WHILE, session.lost()).await.is_err());
        session.close().await;
    })
    .await;
}
