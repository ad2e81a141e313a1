//! Messages to providers: wait → claim → call → record → acknowledge. A job is only a hint that a send may go; Postgres
//! decides (grants), the provider is called, and what became of it is written down before the job is acknowledged.

mod accounts;
mod breaker;
mod call;
mod carrier;
mod hold;
mod signal;
mod uploads;

pub use hold::OutboundSettings;

use crate::{
    placements::Placements,
    worker::{CrashPoints, Part, Placed, Settle, Ticket, Worker},
};
use accounts::Accounts;
use anyhow::anyhow;
use call::Caller;
use carrier::Carrier;
use hold::{Brought, Holder};
use shared::{
    clock::Clock,
    crash::CrashPoint,
    db::{
        self, Databases, FleetTx, Placement,
        outbound::{
            aftermath::Reported,
            outcomes::{self, Patience, Record, What},
        },
    },
    domain::ids::TenantId,
    health::Readiness,
    jobs::{
        Job, Undecodable,
        outbound::{AftermathJob, OutboundJob, OutboundSlice, SignalJob, Task},
    },
    lifecycle::Lifecycle,
    providers::http::ProviderClient,
    queue::{Queue, topology},
    seal::Keyring,
    storage::Storage,
};
use signal::Signals;
use std::sync::Arc;
use tokio::sync::Semaphore;
use uploads::Uploads;

/// So many slices are held at once. They come shortly before their turn: hundreds of slow accounts have one each here, of a few
/// sends, and none of them must keep out the others.
const SLICES: u16 = 400;

/// What this worker is asked to do.
#[derive(Debug)]
pub enum Outbound {
    /// About one send.
    One(OutboundJob),
    /// A part of a campaign.
    Slice(OutboundSlice),
    /// Something to tell a person beside messages.
    Signal(SignalJob),
    /// What a report leads to beside its message.
    Aftermath(AftermathJob),
}

impl Outbound {
    fn tenant_id(&self) -> TenantId {
        match self {
            Outbound::One(job) => job.tenant_id,
            Outbound::Slice(slice) => slice.tenant_id,
            Outbound::Signal(job) => job.tenant_id,
            Outbound::Aftermath(job) => job.tenant_id,
        }
    }
}

/// The outbound worker.
pub struct OutboundWorker {
    placements: Placements,
    holder: Holder,
    signals: Arc<Signals>,
    patience: Patience,
    life: Lifecycle,
}

impl OutboundWorker {
    /// A worker on these databases, calling providers through this client and sending them files of this storage. Its tasks end with
    /// this life.
    pub fn new(
        databases: Databases,
        client: ProviderClient,
        keyring: Keyring,
        storage: Storage,
        settings: OutboundSettings,
        readiness: &Readiness,
        life: &Lifecycle,
    ) -> Self {
        let accounts = Accounts::new(databases.clone(), keyring, client.clone(), settings.public_url.clone());
        let accounts = Arc::new(accounts);
        let signals = Signals {
            databases: databases.clone(),
            accounts: accounts.clone(),
            client: client.clone(),
            clock: Clock::system(),
            turns: Semaphore::new(signal::AT_ONCE),
        };
        let patience = settings.patience;
        let uploads = Uploads::new(databases.clone(), storage, client.clone(), life.clone());
        let keys = readiness.condition("keys");
        let caller = Caller::new(client, accounts, uploads, settings.max_calls, keys, life.clone());
        Self {
            holder: Holder::new(databases.clone(), caller, settings, life),
            placements: Placements::new(databases),
            signals: Arc::new(signals),
            patience,
            life: life.clone(),
        }
    }
}

impl Worker for OutboundWorker {
    const NAME: &'static str = "outbound";
    const QUEUES: &'static [&'static Queue] = &[&topology::OUTBOUND_NOW, &topology::OUTBOUND_BULK];
    const BATCH: usize = 500;
    // A call under way holds its delivery: room for all of them, and for as many that wait.
    const PREFETCH: u16 = 4000;

    type Job = Outbound;
    type Effect = Record;

    fn prefetch(queue: &Queue) -> u16 {
        if *queue == topology::OUTBOUND_BULK { SLICES } else { Self::PREFETCH }
    }

    fn decode(job: &Job) -> Result<Self::Job, Undecodable> {
        match job.kind.as_str() {
            OutboundSlice::KIND => OutboundSlice::from_job(job).map(Outbound::Slice),
            SignalJob::KIND => SignalJob::from_job(job).map(Outbound::Signal),
            AftermathJob::KIND => AftermathJob::from_job(job).map(Outbound::Aftermath),
            _ => OutboundJob::from_job(job).map(Outbound::One),
        }
    }

    async fn perform(&self, jobs: Vec<Ticket<Outbound>>, settle: &Settle<Record>) {
        for ticket in jobs {
            let (job, ticket) = ticket.take();
            let placement = match self.placements.find(job.tenant_id(), settle).await {
                Ok(Some(placement)) => placement,
                Ok(None) => {
                    settle.reject(ticket, anyhow!("there is no tenant {}", job.tenant_id()));
                    continue;
                }
                Err(error) => {
                    // That the question could not be answered says nothing about the message.
                    settle.retry(ticket, None, error);
                    continue;
                }
            };
            match job {
                Outbound::One(OutboundJob { tenant_id, message_id, account, task: Task::Send }) => {
                    let carrier = Carrier::Job(ticket);
                    self.holder.hold(Brought { tenant_id, message_id, account, carrier }, placement, settle.clone());
                }
                Outbound::One(job) => {
                    let what = match job.task {
                        Task::ReleaseTurn => What::TurnReleased,
                        Task::Decide(decision) => What::Decided(decision),
                        Task::Retry => What::Retried,
                        Task::SendAnew { attempt_id, in_doubt } => What::SendAnew { attempt_id, in_doubt },
                        Task::Settle | Task::Send => What::Settled,
                    };
                    settle.done(ticket, vec![timer(job, placement, what)]);
                }
                Outbound::Aftermath(AftermathJob { tenant_id, message_id, failed, aftermath }) => {
                    let what = What::Reported(Box::new(Reported { failed, aftermath }));
                    let effect = Record { tenant_id, message_id, place: None, what, slice: None };
                    settle.done(ticket, vec![Placed { placement, tenant: tenant_id, effect }]);
                }
                Outbound::Signal(job) => {
                    let (signals, settle) = (self.signals.clone(), settle.clone());
                    self.life.spawn(async move {
                        if let Err(error) = signals.tell(&placement, job).await {
                            tracing::info!(%error, "a signal was lost");
                        }
                        settle.done(ticket, Vec::new());
                    });
                }
                Outbound::Slice(slice) => {
                    let (tenant_id, account) = (slice.tenant_id, Some(slice.account));
                    let carriers = carrier::shares(&slice, ticket, settle);
                    for (message_id, carrier) in slice.message_ids.into_iter().zip(carriers) {
                        let brought = Brought { tenant_id, message_id, account, carrier };
                        self.holder.hold(brought, placement.clone(), settle.clone());
                    }
                }
            }
        }
    }

    async fn apply(&self, tx: &mut FleetTx, effects: &[Record]) -> Result<(), db::Error> {
        outcomes::record(tx, effects, self.patience).await
    }

    fn part(record: &Record) -> Option<Part> {
        let job = carrier::alone(record.tenant_id, record.slice?, record.message_id);
        Some(Part { job })
    }

    fn divide(job: &Job) -> Vec<Job> {
        let slice = if job.kind == OutboundSlice::KIND { OutboundSlice::from_job(job).ok() } else { None };
        let parts = slice.map(|OutboundSlice { tenant_id, account, message_ids }| {
            message_ids.into_iter().map(|id| carrier::alone(tenant_id, account, id)).collect()
        });
        parts.unwrap_or_default()
    }

    fn crash_points() -> CrashPoints {
        CrashPoints {
            before_commit: Some(CrashPoint::OutboundBeforeCommit),
            after_commit: Some(CrashPoint::OutboundAfterCommit),
            ..CrashPoints::default()
        }
    }
}

fn timer(job: OutboundJob, placement: Placement, what: What) -> Placed<Record> {
    let effect = Record { tenant_id: job.tenant_id, message_id: job.message_id, place: None, what, slice: None };
    Placed { placement, tenant: job.tenant_id, effect }
}
