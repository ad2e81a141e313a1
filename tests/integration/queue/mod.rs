//! The queue layer against a real broker, directly and through a relay that breaks the connection.

mod bundle;
mod consume;
mod dead;
mod management;
mod publish;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures_util::FutureExt;
use secrecy::SecretString;
use shared::{
    domain::ids::{JobId, TenantId},
    jobs::Job,
    lifecycle::Lifecycle,
    queue::{Broker, Consumer, Delivery, Outgoing, Publisher, Queue, Settings, Target},
};
use std::{panic::AssertUnwindSafe, time::Duration};
use support::relay::Relay;
use url::Url;

pub(crate) const SOON: Duration = Duration::from_secs(20);

fn required(name: &str) -> String {
    std::env::var(name)
        .unwrap_or_else(|_| panic!("{name} is not set: the tests need a running server, see deploy/dev test"))
}

/// A namespace of one test.
pub(crate) struct Stage {
    namespace: String,
    life: Lifecycle,
}

impl Stage {
    /// The broker, directly.
    pub(crate) fn broker(&self) -> Broker {
        self.broker_at(required("AMQP_URL"))
    }

    /// The broker behind a relay.
    pub(crate) async fn relayed(&self) -> (Broker, Relay) {
        let mut url: Url = required("AMQP_URL").parse().expect("AMQP_URL is a URL");
        let server = (url.host_str().expect("a host").to_owned(), url.port().unwrap_or(5672));
        let server = tokio::net::lookup_host(server).await.unwrap().next().expect("an address");
        let relay = Relay::to_broker(server).await.unwrap();
        url.set_ip_host(relay.address().ip()).unwrap();
        url.set_port(Some(relay.address().port())).unwrap();
        (self.broker_at(url.into()), relay)
    }

    fn broker_at(&self, url: String) -> Broker {
        Broker::new(Settings {
            url: SecretString::from(url),
            namespace: self.namespace.clone(),
            process: "mijra-tests".to_owned(),
        })
    }

    /// A publisher that is ready.
    pub(crate) async fn publisher(&self, broker: &Broker) -> Publisher {
        let publisher = broker.publisher(&self.life);
        soon("the publisher is ready", publisher.ready()).await;
        publisher
    }
}

/// Runs a test in a namespace of its own and deletes its queues, also if it fails.
pub(crate) async fn staged(test: impl AsyncFnOnce(&Stage)) {
    let stage = Stage { namespace: format!("test.{}", JobId::new()), life: Lifecycle::new(SOON) };
    stage.broker().declare().await.expect("the broker at AMQP_URL can be used");
    let outcome = AssertUnwindSafe(test(&stage)).catch_unwind().await;
    let removed = stage.broker().remove().await;
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
    removed.expect("the queues can be deleted");
}

pub(crate) async fn soon<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, work).await.unwrap_or_else(|_| panic!("not in time: {what}"))
}

/// Waits until the condition holds.
pub(crate) async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    soon(what, async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
}

/// To the second, as the broker keeps it.
pub(crate) fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(Utc::now().timestamp(), 0).expect("now is a date")
}

fn job(body: impl Into<Bytes>) -> Job {
    Job::new("test.job", 1, Some(TenantId::new()), now(), body)
}

pub(crate) fn to(queue: &'static Queue, job: Job) -> Outgoing {
    Outgoing { to: Target::Queue(queue), job }
}

async fn next(consumer: &mut Consumer) -> Delivery {
    soon("a delivery", consumer.next()).await.expect("the consumer goes on")
}

/// Takes everything there is, acknowledged, until nothing has come for a while.
async fn drain(broker: &Broker, queue: &'static Queue) -> Vec<Job> {
    let session = broker.session().await.unwrap();
    let mut consumer = session.consumer(queue, 500).await.unwrap();
    let mut jobs = Vec::new();
    while let Ok(Some(delivery)) = tokio::time::timeout(Duration::from_secs(1), consumer.next()).await {
        consumer.acker().ack(delivery.tag).await.unwrap();
        jobs.push(delivery.job);
    }
    session.close().await;
    jobs
}
