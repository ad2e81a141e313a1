//! The workers' runtime with a toy worker, a real broker and a real database, and relays that take them away.

mod failures;
mod receiving;
mod toy;
mod verdicts;

use crate::queue::{self, SOON, now, soon, staged, to, until};
use secrecy::SecretString;
use shared::{
    clock::Clock,
    db::{self, Databases},
    domain::ids::TenantId,
    health::Readiness,
    jobs::Job,
    lifecycle::Lifecycle,
    queue::{Broker, Depth, Publisher, topology::INBOUND},
};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use support::{
    database::{Database, Role, database},
    relay::Relay,
};
use tokio::task::JoinHandle;
use toy::{Log, Order, Task, Toy};
use workers::runtime::{self, Drained, Parts};

/// What a test of the runtime has to itself.
struct Stage<'a> {
    queues: &'a queue::Stage,
    broker: Broker,
    publisher: Publisher,
    database: Database,
    tenant: TenantId,
    log: Arc<Log>,
}

/// A runtime at work.
struct Running {
    life: Lifecycle,
    readiness: Readiness,
    task: JoinHandle<Drained>,
}

async fn with_toys(test: impl AsyncFnOnce(&Stage)) {
    staged(async |queues| {
        let broker = queues.broker();
        let publisher = queues.publisher(&broker).await;
        let (database, tenant, log) = (database().await, TenantId::new(), Arc::default());
        test(&Stage { queues, broker, publisher, database, tenant, log }).await;
    })
    .await;
}

impl Stage<'_> {
    fn databases(&self) -> Databases {
        self.database.databases(Role::Worker)
    }

    /// The database behind a relay.
    async fn relayed_databases(&self) -> (Databases, Relay) {
        let mut url = self.database.url(Role::Worker);
        let server = (url.host_str().expect("a host").to_owned(), url.port().unwrap_or(5432));
        let server = tokio::net::lookup_host(server).await.unwrap().next().expect("an address");
        let relay = Relay::to(server).await.unwrap();
        url.set_ip_host(relay.address().ip()).unwrap();
        url.set_port(Some(relay.address().port())).unwrap();
        let settings = db::Settings {
            control: SecretString::from(url.to_string()),
            placements: BTreeMap::new(),
            max_connections: 4,
            application_name: "mijra-tests".into(),
        };
        (Databases::new(&settings).unwrap(), relay)
    }

    /// A runtime that is as far as consuming.
    async fn run(&self) -> Running {
        self.run_on(self.broker.clone(), self.databases(), SOON).await
    }

    async fn run_on(&self, broker: Broker, databases: Databases, grace: Duration) -> Running {
        let (life, readiness) = (Lifecycle::new(grace), Readiness::default());
        let parts = Parts {
            life: life.clone(),
            databases,
            broker,
            publisher: self.publisher.clone(),
            clock: Clock::system(),
            readiness: readiness.clone(),
        };
        let task = tokio::spawn(runtime::run(Toy::new(self.log.clone()), parts));
        let running = Running { life, readiness, task };
        until("the runtime is ready", async || {
            running.readiness.is_ready() && !running.readiness.report().conditions.is_empty()
        })
        .await;
        running
    }

    /// Puts jobs on the queue, all at once.
    async fn publish(&self, orders: &[(u32, Task)]) -> Vec<Job> {
        let order = |(number, task): &(u32, Task)| Order { number: *number, task: *task }.to_job(self.tenant, now());
        let jobs: Vec<Job> = orders.iter().map(order).collect();
        self.publish_jobs(&jobs).await;
        jobs
    }

    async fn publish_jobs(&self, jobs: &[Job]) {
        let outgoing = jobs.iter().map(|job| to(&INBOUND, job.clone())).collect();
        self.publisher.publish(outgoing).await.expect("the broker confirms");
    }

    /// The numbers of the orders that are stored, each as often as it is.
    async fn stored(&self) -> Vec<i64> {
        let mut admin = self.database.admin().await;
        let stored = "SELECT (job->>'version')::bigint FROM outbox WHERE job->>'kind' = 'toy.stored' ORDER BY 1";
        sqlx::query_scalar(stored).fetch_all(&mut admin).await.unwrap()
    }

    async fn until_stored(&self, numbers: impl IntoIterator<Item = i64>) {
        let numbers: Vec<i64> = numbers.into_iter().collect();
        until("all is stored", async || self.stored().await == numbers).await;
    }

    /// The jobs that come back: attempts and last error.
    async fn postponed(&self) -> Vec<(i64, Option<String>)> {
        let mut admin = self.database.admin().await;
        let postponed = "SELECT (job->>'attempt')::bigint, job->>'last_error' FROM control.outbox ORDER BY 1, 2";
        sqlx::query_as(postponed).fetch_all(&mut admin).await.unwrap()
    }

    async fn depth(&self) -> Depth {
        self.broker.depth(&INBOUND).await.unwrap()
    }

    /// Nothing waits on the queue and nothing is dead.
    async fn all_is_acknowledged(&self) -> bool {
        let depth = self.depth().await;
        (depth.ready, depth.dead) == (0, 0)
    }

    /// The slow consumer and the one with the full prefetch.
    async fn until_at_full_speed(&self) {
        until("the full prefetch has joined", async || self.depth().await.consumers == 2).await;
    }
}

impl Running {
    /// Stops it: everything that it took is acknowledged by then, or left to the broker.
    async fn stop(self) -> Drained {
        self.life.stop();
        soon("the runtime drains", self.task).await.expect("the runtime does not panic")
    }
}
