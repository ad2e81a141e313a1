//! Raw webhooks → events → contacts, conversations, messages, reports: in batches. Performing reads and routes; applying
//! writes a whole batch set by set. Media is stored as references; fetching is another worker's.

mod apply;
mod gather;
mod routes;

pub use routes::Routes;

use crate::worker::{CrashPoints, Part, Placed, Settle, Ticket, Worker};
use shared::{
    clock::Clock,
    crash::CrashPoint,
    db::{self, Databases, FleetTx, receiving},
    domain::{
        channel::Channel,
        events::Event,
        ids::{ChannelAccountId, TenantId, WebhookId},
    },
    jobs::{
        Job, Undecodable,
        inbound::{self, Meta, RawWebhook},
    },
    queue::{
        Queue,
        topology::{self},
    },
};
use std::{sync::Arc, time::Duration};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What one webhook means for one tenant.
#[derive(Debug)]
pub struct Inbound {
    /// What the receiver knew.
    pub meta: Meta,
    /// Whose part this is.
    pub tenant_id: TenantId,
    /// An account of the tenant's that it is for.
    pub channel_account_id: ChannelAccountId,
    /// What it says.
    pub events: Vec<Told>,
    /// What could not be read, for the log.
    pub bad: Vec<String>,
    /// The body for the log, LZ4 with its size before it.
    pub body_lz4: Vec<u8>,
    /// How large the body was.
    pub body_bytes: usize,
    /// The webhook as it came, to be dead-lettered alone should it prove unfit to be stored.
    pub raw: RawWebhook,
    /// If its body was large: the place it takes until it is stored.
    _place: Option<Place>,
}

impl Inbound {
    /// One tenant's webhook that says this.
    pub fn new(raw: RawWebhook, tenant_id: TenantId, channel_account_id: ChannelAccountId, events: Vec<Told>) -> Self {
        let (meta, body) = (raw.meta.clone(), raw.body.clone());
        Self {
            meta,
            tenant_id,
            channel_account_id,
            events,
            bad: Vec::new(),
            body_lz4: lz4_flex::compress_prepend_size(&body),
            body_bytes: body.len(),
            raw,
            _place: None,
        }
    }

    /// Which webhook, and whose part of it.
    fn key(&self) -> (WebhookId, TenantId) {
        (self.meta.id, self.tenant_id)
    }
}

/// An event and the account it is for.
#[derive(Debug)]
pub struct Told {
    /// The account.
    pub channel_account_id: ChannelAccountId,
    /// On which channel people write to it.
    pub channel: Channel,
    /// What happened.
    pub event: Event,
}

/// A place among the large webhooks in memory.
type Place = Arc<OwnedSemaphorePermit>;

/// So many webhooks whose bodies were too large to travel are in memory at once, 64 MiB together.
const LARGE_AT_ONCE: usize = 16;

/// Dropping copies of what was played again takes no longer; what is left goes by itself after some days.
const DROP_WITHIN: Duration = Duration::from_secs(5);

/// The inbound worker.
pub struct InboundWorker {
    databases: Databases,
    routes: Arc<Routes>,
    clock: Clock,
    large: Arc<Semaphore>,
}

impl InboundWorker {
    /// A worker on these databases.
    pub fn new(databases: Databases, clock: Clock) -> Self {
        let large = Arc::new(Semaphore::new(LARGE_AT_ONCE));
        Self { routes: Arc::new(Routes::new(databases.clone())), databases, clock, large }
    }
}

impl Worker for InboundWorker {
    const NAME: &'static str = "inbound";
    const QUEUES: &'static [&'static Queue] = &[&topology::INBOUND];
    // An effect is one webhook, a job up to 64 of them; batches of this size are what Postgres takes best.
    const BATCH: usize = 500;
    const PREFETCH: u16 = 100;

    type Job = Vec<RawWebhook>;
    type Effect = Inbound;

    fn decode(job: &Job) -> Result<Self::Job, Undecodable> {
        inbound::from_job(job)
    }

    async fn perform(&self, jobs: Vec<Ticket<Self::Job>>, settle: &Settle<Inbound>) {
        gather::perform(self, jobs, settle).await;
    }

    async fn apply(&self, tx: &mut FleetTx, effects: &[Inbound]) -> Result<(), db::Error> {
        apply::apply(tx, effects, self.clock.now()).await
    }

    /// Of large bodies that were played again the log has another copy.
    async fn committed(&self, effects: &[Inbound]) {
        let played: Vec<WebhookId> = effects
            .iter()
            .map(|effect| &effect.meta)
            .filter(|meta| meta.replay && meta.stored)
            .map(|meta| meta.id)
            .collect();
        if played.is_empty() {
            return;
        }
        let dropping = async {
            let mut tx = self.databases.control().await?;
            receiving::forget_bodies(&mut tx, &played).await?;
            tx.commit().await
        };
        let dropped = tokio::time::timeout(DROP_WITHIN, dropping).await;
        if let Err(error) = dropped.unwrap_or_else(|_| Err(db::Error::timed_out("dropping bodies"))) {
            tracing::debug!(%error, bodies = played.len(), "copies of large bodies are left to go by themselves");
        }
    }

    fn weight(effect: &Inbound) -> usize {
        effect.events.len().max(1)
    }

    fn part(effect: &Inbound) -> Option<Part> {
        Some(Part { job: effect.raw.alone(effect.meta.received_at) })
    }

    fn divide(job: &Job) -> Vec<Job> {
        let webhooks = inbound::from_job(job).unwrap_or_default();
        webhooks.iter().map(|webhook| webhook.alone(job.headers.created_at)).collect()
    }

    fn crash_points() -> CrashPoints {
        CrashPoints {
            after_commit: Some(CrashPoint::InboundAfterCommit),
            before_ack: Some(CrashPoint::InboundBeforeAck),
            ..CrashPoints::default()
        }
    }
}

/// Puts an effect where its tenant's data lives.
fn placed(placement: db::Placement, effect: Inbound) -> Placed<Inbound> {
    Placed { placement, tenant: effect.tenant_id, effect }
}
