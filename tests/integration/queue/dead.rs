//! Dead letters: how they get there, and what an operator can do.

use super::{drain, job, next, now, soon, staged, to, until};
use lapin::{BasicProperties, Connection, ConnectionProperties, options::BasicPublishOptions};
use shared::queue::{
    DELIVERY_LIMIT, INBOUND, Outgoing, Target,
    dead::{self, Moved, Which},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_ends_every_process_ends_among_the_dead_letters_and_can_be_replayed() {
    staged(async |stage| {
        let broker = stage.broker();
        let poison = job("poison").charged("before");
        stage.publisher(&broker).await.publish(vec![to(&INBOUND, poison.clone())]).await.unwrap();
        // Each time the connection ends with the delivery unacknowledged, as it does when a process dies.
        let mut deliveries = 0;
        while broker.depth(&INBOUND).await.unwrap().dead == 0 {
            let session = broker.session().await.unwrap();
            let mut consumer = session.consumer(&INBOUND, 1).await.unwrap();
            match tokio::time::timeout(std::time::Duration::from_millis(500), consumer.next()).await {
                Ok(Some(delivery)) => deliveries = deliveries.max(delivery.deliveries),
                Ok(None) => panic!("the session was lost"),
                Err(_) => {}
            }
            assert!(deliveries <= 30);
        }
        assert_eq!(i64::from(deliveries), i64::from(DELIVERY_LIMIT) + 1);

        let letters = dead::list(&broker, &INBOUND, 10).await.unwrap();
        assert_eq!(letters.len(), 1);
        assert_eq!((letters[0].job.id, letters[0].readable), (poison.id, true));
        assert!(letters[0].reason.contains("delivery_limit"), "{}", letters[0].reason);
        assert!(letters[0].died_at.is_some());

        let moved = dead::replay(&broker, &INBOUND, Which::Job(poison.id), now()).await.unwrap();
        assert_eq!(moved, Moved { moved: 1, left: 0 });
        assert_eq!(broker.depth(&INBOUND).await.unwrap().dead, 0);
        let session = broker.session().await.unwrap();
        let mut consumer = session.consumer(&INBOUND, 1).await.unwrap();
        let replayed = next(&mut consumer).await;
        assert_eq!(replayed.deliveries, 1, "as if it had never been tried");
        let replayed = replayed.job;
        assert_eq!((replayed.id, replayed.body, replayed.headers.attempt), (poison.id, poison.body, 0));
        session.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn looking_changes_neither_number_nor_order() {
    staged(async |stage| {
        let broker = stage.broker();
        let jobs: Vec<_> = (0..30).map(|n: u32| job(n.to_string()).charged("broken")).collect();
        let group = jobs.iter().cloned().map(|job| Outgoing { to: Target::Dead(&INBOUND), job }).collect();
        stage.publisher(&broker).await.publish(group).await.unwrap();
        for _ in 0..25 {
            // More often than a delivery limit of 20 would bear.
            let seen = dead::list(&broker, &INBOUND, 10).await.unwrap();
            assert!(seen.iter().map(|letter| &letter.job).eq(&jobs[..10]));
        }
        let shown = dead::show(&broker, &INBOUND, jobs[20].id).await.unwrap().expect("it is there");
        assert_eq!((shown.job, shown.reason.as_str()), (jobs[20].clone(), "broken"));
        assert!(dead::show(&broker, &INBOUND, job("other").id).await.unwrap().is_none());
        until("all are back", async || broker.depth(&INBOUND).await.unwrap().dead == 30).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_is_discarded_and_the_rest_replayed_but_not_the_unreadable() {
    staged(async |stage| {
        let broker = stage.broker();
        let jobs: Vec<_> = (0..5).map(|n: u32| job(n.to_string()).charged("broken")).collect();
        let group = jobs.iter().cloned().map(|job| Outgoing { to: Target::Dead(&INBOUND), job }).collect();
        stage.publisher(&broker).await.publish(group).await.unwrap();
        let connection =
            Connection::connect(&super::required("AMQP_URL"), ConnectionProperties::default()).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        let name = broker.dead_broker_name(&INBOUND);
        let stray = BasicProperties::default();
        channel.basic_publish("".into(), name.into(), BasicPublishOptions::default(), b"?", stray).await.unwrap();
        until("the stray is there", async || broker.depth(&INBOUND).await.unwrap().dead == 6).await;

        let moved = dead::discard(&broker, &INBOUND, Which::Job(jobs[2].id)).await.unwrap();
        assert_eq!(moved, Moved { moved: 1, left: 0 });
        let moved = dead::replay(&broker, &INBOUND, Which::All, now()).await.unwrap();
        assert_eq!(moved, Moved { moved: 4, left: 1 });
        let replayed = soon("replayed", drain(&broker, &INBOUND)).await;
        assert_eq!(replayed.len(), 4);
        let left = dead::list(&broker, &INBOUND, 10).await.unwrap();
        assert_eq!(left.len(), 1);
        assert!(left[0].reason.starts_with("unreadable headers"), "{}", left[0].reason);
        let moved = dead::discard(&broker, &INBOUND, Which::All).await.unwrap();
        assert_eq!(moved, Moved { moved: 1, left: 0 });
        assert_eq!(broker.depth(&INBOUND).await.unwrap().dead, 0);
    })
    .await;
}
