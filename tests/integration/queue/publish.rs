//! What a publisher promises: `Ok` means stored and routed, whatever happens to the connection; and never a long wait.

use super::{drain, job, required, soon, staged, to, until};
use lapin::{Connection, ConnectionProperties, options::QueueDeleteOptions};
use shared::queue::{Broker, Error, INBOUND, OUTBOUND_BULK, OUTBOUND_NOW, PublishError, Settings, Target};
use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use support::frames;
use tokio::task::JoinSet;

#[tokio::test(flavor = "multi_thread")]
async fn jobs_arrive_as_they_were_sent() {
    staged(async |stage| {
        let broker = stage.broker();
        let publisher = stage.publisher(&broker).await;
        let mut retry = job("again").charged("first").charged("last");
        retry.headers.traceparent = Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned());
        let sent = vec![job("{}"), job(""), retry, job(vec![7; 300_000])];
        let group = sent.iter().cloned().map(|job| to(&INBOUND, job)).collect();
        assert_eq!(publisher.publish(group).await, Ok(()));
        assert_eq!(drain(&broker, &INBOUND).await, sent);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_larger_than_the_channel_may_hold_is_published_whole_and_in_order() {
    staged(async |stage| {
        let broker = stage.broker();
        let publisher = stage.publisher(&broker).await;
        let sent: Vec<_> = (0..3000).map(|n: u32| job(n.to_string())).collect();
        let group = sent.iter().cloned().map(|job| to(&OUTBOUND_NOW, job)).collect();
        assert_eq!(publisher.publish(group).await, Ok(()));
        assert_eq!(drain(&broker, &OUTBOUND_NOW).await, sent);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_broker_the_answer_is_unavailable_at_once() {
    staged(async |stage| {
        let (broker, relay) = stage.relayed().await;
        relay.close();
        let publisher = broker.publisher(&stage.life);
        for _ in 0..20 {
            let asked = Instant::now();
            let answer = publisher.publish(vec![to(&INBOUND, job("x"))]).await;
            assert_eq!(answer, Err(PublishError::Unavailable));
            assert!(asked.elapsed() < Duration::from_millis(100), "{:?}", asked.elapsed());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(!publisher.is_ready());
        relay.restore();
        soon("it connects by itself", publisher.ready()).await;
        assert_eq!(publisher.publish(vec![to(&INBOUND, job("x"))]).await, Ok(()));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_confirmed_is_lost_while_the_connection_is_cut_again_and_again() {
    staged(async |stage| {
        let (broker, relay) = stage.relayed().await;
        let publisher = stage.publisher(&broker).await;
        let stop = Arc::new(Mutex::new(false));
        let mut tasks = JoinSet::new();
        for _ in 0..16 {
            let (publisher, stop) = (publisher.clone(), stop.clone());
            tasks.spawn(async move {
                let (mut confirmed, mut refused) = (Vec::new(), 0);
                while !*stop.lock().unwrap() {
                    let jobs = vec![job("a"), job("b"), job("c")];
                    let ids: Vec<_> = jobs.iter().map(|job| job.id).collect();
                    match publisher.publish(jobs.into_iter().map(|job| to(&INBOUND, job)).collect()).await {
                        Ok(()) => confirmed.extend(ids),
                        Err(_) => {
                            refused += 1;
                            publisher.ready().await;
                        }
                    }
                }
                (confirmed, refused)
            });
        }
        for round in 0..6 {
            tokio::time::sleep(Duration::from_millis(300)).await;
            if round % 2 == 0 {
                // So that jobs are lost on their way, and not only confirms on theirs.
                relay.stall();
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            relay.cut();
            relay.restore();
            soon("it connects again", publisher.ready()).await;
        }
        *stop.lock().unwrap() = true;
        let (mut confirmed, mut refused) = (HashSet::new(), 0);
        while let Some(done) = soon("every publish ends", tasks.join_next()).await {
            let (ids, errors) = done.unwrap();
            confirmed.extend(ids);
            refused += errors;
        }
        assert!(refused > 0 && confirmed.len() > 100, "{refused} refused, {} confirmed", confirmed.len());
        let stored: HashSet<_> = drain(&stage.broker(), &INBOUND).await.iter().map(|job| job.id).collect();
        assert_eq!(confirmed.difference(&stored).count(), 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_confirm_that_does_not_come_is_unconfirmed_and_the_connection_is_rebuilt() {
    staged(async |stage| {
        let (broker, relay) = stage.relayed().await;
        let publisher = stage.publisher(&broker).await;
        relay.deafen();
        let asked = Instant::now();
        let doubtful = job("did it arrive?");
        let answer = soon("it gives up", publisher.publish(vec![to(&INBOUND, doubtful.clone())])).await;
        assert_eq!(answer, Err(PublishError::Unconfirmed));
        assert!(asked.elapsed() < Duration::from_secs(8), "{:?}", asked.elapsed());
        assert!(!publisher.is_ready());
        relay.restore();
        soon("it connects again", publisher.ready()).await;
        assert_eq!(publisher.publish(vec![to(&INBOUND, doubtful.clone())]).await, Ok(()));
        let stored = drain(&stage.broker(), &INBOUND).await;
        assert!(stored.len() == 2 && stored.iter().all(|job| job.id == doubtful.id), "it was there, and is twice");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unroutable_job_is_never_reported_as_confirmed_and_harms_no_other() {
    staged(async |stage| {
        let broker = stage.broker();
        let publisher = stage.publisher(&broker).await;
        let connection = Connection::connect(&required("AMQP_URL"), ConnectionProperties::default()).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        let name = broker.broker_name(&OUTBOUND_BULK).into();
        channel.queue_delete(name, QueueDeleteOptions::default()).await.unwrap();

        let mut tasks = JoinSet::new();
        for n in 0..2000 {
            let publisher = publisher.clone();
            let queue = if n % 3 == 0 { &OUTBOUND_BULK } else { &INBOUND };
            tasks.spawn(async move {
                let job = job("x");
                (queue, job.id, publisher.publish(vec![to(queue, job)]).await)
            });
        }
        let (mut confirmed, mut lost, mut unsure) = (HashSet::new(), 0, 0);
        while let Some(done) = soon("every publish ends", tasks.join_next()).await {
            let (queue, id, answer) = done.unwrap();
            match answer {
                Ok(()) => drop(confirmed.insert(id)),
                Err(PublishError::Unroutable { queue: named }) => {
                    assert_eq!((queue, named), (&OUTBOUND_BULK, OUTBOUND_BULK.name));
                    lost += 1;
                }
                Err(PublishError::Unconfirmed) => unsure += 1,
                Err(PublishError::Unavailable) => panic!("the connection is up"),
            }
        }
        // A confirm that carries another job's return proves nothing; such are rare and may be published again.
        assert!(lost > 0 && confirmed.len() > 500, "{lost} lost, {} confirmed, {unsure} unsure", confirmed.len());
        assert!(publisher.is_ready());
        // The queue was declared again meanwhile, so that what was lost at first can be published now.
        until("the queue is there again", async || {
            publisher.publish(vec![to(&OUTBOUND_BULK, job("again"))]).await.is_ok()
        })
        .await;
        let (bulk, inbound) = (drain(&broker, &OUTBOUND_BULK).await, drain(&broker, &INBOUND).await);
        let stored: HashSet<_> = bulk.iter().chain(&inbound).map(|job| job.id).collect();
        assert_eq!(confirmed.difference(&stored).count(), 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blocked_broker_is_unavailable_until_it_unblocks() {
    staged(async |stage| {
        let (broker, relay) = stage.relayed().await;
        let publisher = stage.publisher(&broker).await;
        relay.say(frames::blocked("low on memory"));
        until("it notices", async || !publisher.is_ready()).await;
        let asked = Instant::now();
        assert_eq!(publisher.publish(vec![to(&INBOUND, job("x"))]).await, Err(PublishError::Unavailable));
        assert!(asked.elapsed() < Duration::from_millis(100));
        relay.say(frames::unblocked());
        soon("it goes on", publisher.ready()).await;
        assert_eq!(publisher.publish(vec![to(&INBOUND, job("x"))]).await, Ok(()));
        assert_eq!(relay.accepted(), 1, "the connection was kept");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_dead_letters_can_be_published_to() {
    staged(async |stage| {
        let broker = stage.broker();
        let publisher = stage.publisher(&broker).await;
        let outgoing = shared::queue::Outgoing { to: Target::Dead(&INBOUND), job: job("x").charged("broken") };
        assert_eq!(publisher.publish(vec![outgoing]).await, Ok(()));
        let depth = broker.depth(&INBOUND).await.unwrap();
        assert_eq!((depth.ready, depth.dead), (0, 1));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_of_dead_letters_that_was_deleted_is_there_again_when_it_is_needed() {
    staged(async |stage| {
        let broker = stage.broker();
        let publisher = stage.publisher(&broker).await;
        let connection = Connection::connect(&required("AMQP_URL"), ConnectionProperties::default()).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        let name = broker.dead_broker_name(&INBOUND).into();
        channel.queue_delete(name, QueueDeleteOptions::default()).await.unwrap();
        let letter = || vec![shared::queue::Outgoing { to: Target::Dead(&INBOUND), job: job("x").charged("broken") }];
        assert_eq!(publisher.publish(letter()).await, Err(PublishError::Unroutable { queue: INBOUND.name }));
        until("the dead can be buried", async || publisher.publish(letter()).await.is_ok()).await;
        assert_eq!(broker.depth(&INBOUND).await.unwrap().dead, 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forgotten_publisher_does_not_hold_up_the_exit() {
    staged(async |stage| {
        let _forgotten = stage.publisher(&stage.broker()).await;
        stage.life.stop();
        assert!(stage.life.drained().await);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_is_refused_says_so_and_does_not_repeat_the_password() {
    let mut url: url::Url = required("AMQP_URL").parse().unwrap();
    url.set_password(Some("not-the-password")).unwrap();
    let settings = Settings { url: url.to_string().into(), namespace: "test".into(), process: "mijra-tests".into() };
    let refused = Broker::new(settings).declare().await.unwrap_err();
    assert!(matches!(&refused, Error::Unavailable(text) if text.contains("ACCESS_REFUSED")), "{refused}");
    assert!(!refused.to_string().contains("not-the-password"));
}
