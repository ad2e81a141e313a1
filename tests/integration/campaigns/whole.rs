//! A campaign from its start to its end with the real worker, two schedulers and a broker; only the senders are stood in for.

use super::Stage;
use crate::queue::{self, SOON, soon, staged, to, until};
use shared::{
    clock::Clock,
    db::Databases,
    domain::{
        campaigns::Action,
        ids::{CampaignId, MessageId},
    },
    health::Readiness,
    jobs::outbound::OutboundSlice,
    lifecycle::Lifecycle,
    queue::{Broker, CAMPAIGN, OUTBOUND_BULK, Publisher},
};
use std::collections::BTreeSet;
use workers::{
    campaign::CampaignWorker,
    runtime::{self, Parts},
    scheduler::{self, Scheduler},
};

async fn run(broker: Broker, databases: Databases, publisher: Publisher, life: Lifecycle) {
    let readiness = Readiness::default();
    let parts = Parts {
        life: life.clone(),
        databases: databases.clone(),
        broker: broker.clone(),
        publisher: publisher.clone(),
        clock: Clock::system(),
        readiness: readiness.clone(),
    };
    let sweep = |name| {
        let scheduler = Scheduler {
            databases: databases.clone(),
            broker: broker.clone(),
            publisher: publisher.clone(),
            clock: Clock::system(),
            log_days: scheduler::LOG_DAYS,
            window_closing_minutes: scheduler::WINDOW_CLOSING_MINUTES,
            templates_max_age: None,
        };
        scheduler::run(scheduler, life.clone(), readiness.condition(name))
    };
    let worker = Box::pin(runtime::run(CampaignWorker::new(databases.clone()), parts));
    tokio::join!(worker, Box::pin(sweep("one")), Box::pin(sweep("other")));
}

/// Stands in for the senders: takes slices until so many messages have come, each once.
async fn send_all(stage: &mut Stage, queues: &queue::Stage, id: CampaignId, messages: usize) {
    let session = queues.broker().session().await.unwrap();
    let mut bulk = session.consumer(&OUTBOUND_BULK, 100).await.unwrap();
    let mut sent: BTreeSet<MessageId> = BTreeSet::new();
    while sent.len() < messages {
        let delivery = soon("a slice", bulk.next()).await.expect("the consumer goes on");
        bulk.acker().ack(delivery.tag).await.unwrap();
        let slice = OutboundSlice::from_job(&delivery.job).unwrap();
        let shown = stage.show(id).await;
        assert!(shown.in_flight <= 100, "{shown:?}");
        for message in &slice.message_ids {
            assert!(sent.insert(*message), "{message} is released twice");
        }
        stage.end(&slice.message_ids, "sent").await;
    }
    session.close().await;
}

#[tokio::test]
async fn a_campaign_is_frozen_released_second_by_second_and_completed() {
    staged(async |queues| {
        let mut stage = Stage::new().await;
        stage.people(230).await;
        let publisher = queues.publisher(&queues.broker()).await;
        let life = Lifecycle::new(SOON);
        // Boxed: it holds all the steps of two schedulers.
        let working = Box::pin(run(queues.broker(), stage.workers.clone(), publisher.clone(), life.clone()));
        let watching = Box::pin(async {
            let id = stage.draft("Hello {{name}}").await;
            let (_, steps) = stage.act(id, Action::Start).await;
            let jobs = steps.iter().map(|step| to(&CAMPAIGN, step.to_job(queue::now())));
            publisher.publish(jobs.collect()).await.unwrap();
            send_all(&mut stage, queues, id, 230).await;
            until("it is completed", async || stage.show(id).await.state == "completed").await;
            until("its last job is done", async || {
                let depth = queues.broker().depth(&CAMPAIGN).await.unwrap();
                assert_eq!(depth.dead, 0);
                depth.ready == 0
            })
            .await;
            let shown = stage.show(id).await;
            assert_eq!((shown.sent, shown.in_flight, shown.waiting, shown.frozen_count), (230, 0, 0, Some(230)));
            stage.expect_books_to_agree(id).await;
            life.stop();
        });
        tokio::join!(working, watching);
    })
    .await;
}
