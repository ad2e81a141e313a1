//! What the bundler promises: a webhook is accepted once it is in the broker or spilled, and load makes bundles.

use super::{drain, soon, staged};
use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt, join_all};
use shared::{
    clock::Clock,
    domain::{channel::Provider, ids::WebhookId},
    jobs::inbound::{Meta, RawWebhook, from_job},
    queue::{Bundler, INBOUND, NotStored, Publisher, Spill, bundle},
};
use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

/// A spill in memory.
#[derive(Default)]
struct Tank {
    spilled: Mutex<Vec<Vec<WebhookId>>>,
    broken: AtomicBool,
}

impl Spill for Tank {
    fn spill(&self, webhooks: Vec<RawWebhook>) -> BoxFuture<'_, bool> {
        let broken = self.broken.load(Ordering::SeqCst);
        if !broken {
            self.spilled.lock().unwrap().push(webhooks.iter().map(|webhook| webhook.meta.id).collect());
        }
        async move { !broken }.boxed()
    }
}

impl Tank {
    fn ids(&self) -> HashSet<WebhookId> {
        self.spilled.lock().unwrap().iter().flatten().copied().collect()
    }
}

fn webhook(body: impl Into<Bytes>) -> RawWebhook {
    let meta = Meta {
        id: WebhookId::new(),
        provider: Provider::Whatsapp,
        received_at: super::now(),
        account: None,
        query: None,
        stored: false,
        replay: false,
    };
    RawWebhook { meta, body: body.into() }
}

fn bundler(stage: &super::Stage, publisher: &Publisher, tank: &Arc<Tank>) -> Bundler {
    let settings = bundle::Settings::default();
    Bundler::new(publisher.clone(), &stage.life, Clock::system(), tank.clone(), settings)
}

#[tokio::test(flavor = "multi_thread")]
async fn under_load_many_webhooks_travel_in_few_jobs() {
    staged(async |stage| {
        let broker = stage.broker();
        let tank = Arc::new(Tank::default());
        let bundler = bundler(stage, &stage.publisher(&broker).await, &tank);
        let sent: Vec<_> = (0..1000).map(|n: u32| webhook(n.to_string())).collect();
        let accepted = soon("all are answered", join_all(sent.iter().cloned().map(|w| bundler.accept(w)))).await;
        assert!(accepted.iter().all(Result::is_ok));
        let jobs = drain(&broker, &INBOUND).await;
        assert!(jobs.len() <= 40, "{} jobs for 1000 webhooks at once", jobs.len());
        let arrived: Vec<_> = jobs.iter().flat_map(|job| from_job(job).unwrap()).collect();
        assert_eq!(arrived, sent);
        assert!(tank.ids().is_empty());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn at_low_load_each_webhook_travels_alone() {
    staged(async |stage| {
        let broker = stage.broker();
        let bundler = bundler(stage, &stage.publisher(&broker).await, &Arc::default());
        for n in 0..5 {
            bundler.accept(webhook(n.to_string())).await.unwrap();
        }
        assert_eq!(drain(&broker, &INBOUND).await.len(), 5);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_broker_is_away_whole_bundles_are_spilled() {
    staged(async |stage| {
        let (broker, relay) = stage.relayed().await;
        let tank = Arc::new(Tank::default());
        let publisher = stage.publisher(&broker).await;
        let bundler = bundler(stage, &publisher, &tank);
        relay.deafen();
        // The first bundle is published, and its confirm does not come; the others are refused at once.
        let sent: Vec<_> = (0..300).map(|n: u32| webhook(n.to_string())).collect();
        let accepted = soon("all are answered", join_all(sent.iter().cloned().map(|w| bundler.accept(w)))).await;
        assert!(accepted.iter().all(Result::is_ok));
        assert_eq!(tank.ids(), sent.iter().map(|webhook| webhook.meta.id).collect());
        let batches = tank.spilled.lock().unwrap().len();
        assert!(batches <= 12, "{batches} batches for 300 webhooks");

        tank.broken.store(true, Ordering::SeqCst);
        relay.close();
        assert_eq!(soon("an answer", bundler.accept(webhook("both away"))).await, Err(NotStored));

        relay.restore();
        soon("the broker is back", publisher.ready()).await;
        assert_eq!(bundler.accept(webhook("back")).await, Ok(()));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_can_be_held_is_refused_at_once() {
    staged(async |stage| {
        let (broker, relay) = stage.relayed().await;
        let bundler = bundler(stage, &stage.publisher(&broker).await, &Arc::default());
        relay.stall();
        let body = Bytes::from(vec![b'x'; 100 * 1024]);
        // 64 MiB hold 655 of them.
        let answers = (0..700).map(|_| bundler.accept(webhook(body.clone())));
        let answers = soon("all are answered", join_all(answers)).await;
        assert_eq!(answers.iter().filter(|answer| answer.is_err()).count(), 45);
    })
    .await;
}
