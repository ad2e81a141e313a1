//! Campaigns: freezing an audience, releasing people at the pace of their account, waking, retrying, cancelling, and checking the books
//! of what has ended. A job is one step; all that a step does is in one transaction of its own, so performing one only finds
//! where its tenant's data lives.

use crate::{
    placements::Placements,
    worker::{CrashPoints, Placed, Settle, Ticket, Worker},
};
use anyhow::anyhow;
use shared::{
    crash::CrashPoint,
    db::{
        self, Databases, FleetTx, Placement,
        campaigns::{
            cancel::cancel,
            freeze::freeze,
            ledger::{Ledger, ledger},
            release::release,
            retry::retry,
            wake::wake,
        },
        outbound::accounts,
    },
    domain::ids::{CampaignId, ChannelAccountId, TenantId},
    jobs::{
        Job, Undecodable,
        campaign::{CampaignJob, Task},
    },
    queue::{Queue, topology},
    telemetry::names,
};
use std::{collections::HashSet, time::Duration};
use tokio::time::error::Elapsed;

/// Longer than the statement that reads them may take.
const BOOKS_WITHIN: Duration = Duration::from_secs(150);
/// Books that could not be read are read after this time.
const BOOKS_LATER: Duration = Duration::from_secs(60);

/// The campaign worker.
pub struct CampaignWorker {
    databases: Databases,
    placements: Placements,
}

impl CampaignWorker {
    /// A worker on these databases.
    pub fn new(databases: Databases) -> Self {
        Self { placements: Placements::new(databases.clone()), databases }
    }

    /// The books of a campaign that has ended. A million people take their time: that is no outage.
    async fn books(
        &self,
        placement: &Placement,
        tenant_id: TenantId,
        id: CampaignId,
    ) -> Result<db::Result<Option<Ledger>>, Elapsed> {
        let read = async {
            let mut tx = self.databases.tenant(placement, tenant_id).await?;
            let books = ledger(&mut tx, id).await?;
            tx.commit().await?;
            Ok(books)
        };
        tokio::time::timeout(BOOKS_WITHIN, read).await
    }

    async fn step(&self, job: CampaignJob, ticket: Ticket<()>, settle: &Settle<CampaignJob>) {
        let placement = match self.placements.find(job.tenant_id, settle).await {
            Ok(Some(placement)) => placement,
            Ok(None) => return settle.reject(ticket, anyhow!("there is no tenant {}", job.tenant_id)),
            Err(error) => return settle.retry(ticket, None, error),
        };
        let Task::Check { campaign_id } = job.task else {
            return settle.done(ticket, vec![Placed { placement, tenant: job.tenant_id, effect: job }]);
        };
        let why = match self.books(&placement, job.tenant_id, campaign_id).await {
            Ok(Ok(Some(books))) => {
                check(job.tenant_id, campaign_id, &books);
                return settle.done(ticket, Vec::new());
            }
            Ok(Ok(None)) => return settle.reject(ticket, anyhow!("there is no campaign {campaign_id}")),
            Ok(Err(error)) if error.kind() == db::Kind::Data => return settle.retry(ticket, None, error),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("not read within {} s", BOOKS_WITHIN.as_secs()),
        };
        tracing::warn!(tenant = %job.tenant_id, campaign = %campaign_id, why, "a campaign's books are read later");
        settle.later(ticket, BOOKS_LATER);
    }
}

impl Worker for CampaignWorker {
    const NAME: &'static str = "campaign";
    const QUEUES: &'static [&'static Queue] = &[&topology::CAMPAIGN];
    // Every step is a transaction of its own: two accounts' campaigns in one would be locked in no order.
    const BATCH_WEIGHT: usize = 1;
    const COMMITTERS: usize = 4;

    type Job = CampaignJob;
    type Effect = CampaignJob;

    fn decode(job: &Job) -> Result<Self::Job, Undecodable> {
        CampaignJob::from_job(job)
    }

    async fn perform(&self, mut jobs: Vec<Ticket<CampaignJob>>, settle: &Settle<CampaignJob>) {
        // Reading books takes long, and nobody's messages wait for it.
        jobs.sort_by_key(|ticket| matches!(ticket.job.task, Task::Check { .. }));
        let mut released: HashSet<(TenantId, ChannelAccountId)> = HashSet::new();
        for ticket in jobs {
            let (job, ticket) = ticket.take();
            match job.task {
                // One release makes up for all that were asked for meanwhile.
                Task::Release { account } if !released.insert((job.tenant_id, account)) => {
                    settle.done(ticket, Vec::new());
                }
                _ => self.step(job, ticket, settle).await,
            }
        }
    }

    async fn apply(&self, tx: &mut FleetTx, effects: &[CampaignJob]) -> Result<(), db::Error> {
        for CampaignJob { tenant_id, task } in effects.iter().copied() {
            match task {
                Task::Freeze { campaign_id, after } => freeze(tx, tenant_id, campaign_id, after).await?,
                Task::Release { account } => release(tx, tenant_id, account).await?,
                Task::Wake { campaign_id, before } => wake(tx, tenant_id, campaign_id, before).await?,
                Task::WakeAccount { account, after } => {
                    if let Some(last) = accounts::wake(tx, tenant_id, account, after).await? {
                        let task = Task::WakeAccount { account, after: Some(last) };
                        let job = CampaignJob { tenant_id, task }.to_job(tx.now().await?);
                        tx.enqueue(tenant_id, topology::CAMPAIGN.name, job, None);
                    }
                }
                Task::Retry { campaign_id, before } => retry(tx, tenant_id, campaign_id, before).await?,
                Task::Cancel { campaign_id, before } => cancel(tx, tenant_id, campaign_id, before).await?,
                // Read while it was performed.
                Task::Check { .. } => {}
            }
        }
        Ok(())
    }

    // The place within a step is passed where the step is taken.
    fn crash_points() -> CrashPoints {
        CrashPoints { after_commit: Some(CrashPoint::CampaignAfterRelease), ..CrashPoints::default() }
    }
}

fn check(tenant: TenantId, campaign: CampaignId, books: &Ledger) {
    if books.disagreements.is_empty() {
        tracing::info!(%tenant, %campaign, people = books.frozen, "a campaign has ended, its books agree");
    } else {
        metrics::counter!(names::CAMPAIGN_BOOKS_WRONG).increment(1);
        let wrong = books.disagreements.join("; ");
        tracing::error!(%tenant, %campaign, wrong, "a campaign has ended, and its books do not agree");
    }
}
