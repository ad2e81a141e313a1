//! One pass over what is due: publish, confirmed, then delete. A crash between the two publishes again, which is harmless.

use shared::{
    clock::Clock,
    crash::{self, CrashPoint},
    db::{self, Databases, Placement, outbox, spill},
    domain::ids::TenantId,
    jobs::{Job, inbound},
    queue::{Outgoing, PublishError, Publisher, Target, topology},
    telemetry::names,
};

/// At most so many rows in one transaction.
const BATCH: i64 = 500;

/// Why a pass could not be finished. Nothing is lost: the rows are still there.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// The database.
    #[error(transparent)]
    Database(#[from] db::Error),
    /// The broker.
    #[error("publishing what is due: {0}")]
    Broker(#[from] PublishError),
}

/// Due jobs of tenants. Whether there may be more.
pub(super) async fn outbox(
    databases: &Databases,
    publisher: &Publisher,
    placement: &Placement,
    tenants: &[TenantId],
) -> Result<bool, Fault> {
    if tenants.is_empty() {
        return Ok(false);
    }
    let mut tx = databases.fleet(placement, tenants).await?;
    let due = outbox::take_due(&mut tx, &queues(), BATCH).await?;
    if due.is_empty() {
        tx.commit().await?;
        return Ok(false);
    }
    let full = due.len() >= usize::try_from(BATCH).unwrap_or(usize::MAX);
    let ids: Vec<_> = due.iter().map(|row| (row.tenant_id, row.job.id)).collect();
    publish(publisher, due.into_iter().map(|row| (row.queue, row.job))).await?;
    crash::pass(CrashPoint::SchedulerAfterPublishBeforeDelete);
    outbox::delete_published(&mut tx, &ids).await?;
    tx.commit().await?;
    Ok(full)
}

/// Due jobs that belong to no tenant. Whether there may be more.
pub(super) async fn control(databases: &Databases, publisher: &Publisher) -> Result<bool, Fault> {
    let mut tx = databases.control().await?;
    let due = outbox::control::take_due(&mut tx, &queues(), BATCH).await?;
    let full = due.len() >= usize::try_from(BATCH).unwrap_or(usize::MAX);
    if !due.is_empty() {
        let ids: Vec<_> = due.iter().map(|(_, job)| job.id).collect();
        publish(publisher, due.into_iter()).await?;
        crash::pass(CrashPoint::SchedulerAfterPublishBeforeDelete);
        outbox::control::delete_published(&mut tx, &ids).await?;
    }
    tx.commit().await?;
    Ok(full)
}

/// Webhooks accepted while the broker was away. Whether there may be more.
pub(super) async fn spill(databases: &Databases, publisher: &Publisher, clock: &Clock) -> Result<bool, Fault> {
    let mut tx = databases.control().await?;
    let spilled = spill::take(&mut tx, inbound::MAX_WEBHOOKS).await?;
    if spilled.is_empty() {
        tx.commit().await?;
        return Ok(false);
    }
    let ids: Vec<_> = spilled.iter().map(|webhook| webhook.meta.id).collect();
    let jobs: Vec<Outgoing> = bundles(&spilled)
        .map(|bundle| Outgoing { to: Target::Queue(&topology::INBOUND), job: inbound::to_job(bundle, clock.now()) })
        .collect();
    publisher.publish(jobs).await?;
    crash::pass(CrashPoint::SchedulerAfterPublishBeforeDelete);
    spill::delete(&mut tx, &ids).await?;
    tx.commit().await?;
    metrics::counter!(names::SPILL_SWEPT).increment(ids.len() as u64);
    Ok(true)
}

/// Cuts webhooks into bundles of at most the broker's good size.
fn bundles(webhooks: &[inbound::RawWebhook]) -> impl Iterator<Item = &[inbound::RawWebhook]> {
    let mut rest = webhooks;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = rest.iter().take_while(|w| {
            bytes += w.body.len();
            bytes <= inbound::MAX_BYTES
        });
        let len = fits.count().max(1).min(rest.len());
        let (bundle, after) = rest.split_at(len);
        rest = after;
        (!bundle.is_empty()).then_some(bundle)
    })
}

/// The queues this release can publish to.
fn queues() -> Vec<String> {
    topology::ALL.iter().map(|queue| queue.name.to_owned()).collect()
}

async fn publish(publisher: &Publisher, jobs: impl Iterator<Item = (String, Job)>) -> Result<(), Fault> {
    // Only rows for queues that are known were taken.
    let outgoing =
        jobs.filter_map(|(queue, job)| Some(Outgoing { to: Target::Queue(topology::by_name(&queue)?), job }));
    let outgoing: Vec<Outgoing> = outgoing.collect();
    let published = outgoing.len() as u64;
    publisher.publish(outgoing).await?;
    metrics::counter!(names::OUTBOX_SWEPT).increment(published);
    Ok(())
}
