//! One pass over what is due: publish, confirmed, then delete. A crash between the two publishes again, which is harmless.

use super::{Fault, steps::Next};
use shared::{
    clock::Clock,
    crash::{self, CrashPoint},
    db::{Databases, Placement, outbox, spill},
    domain::ids::TenantId,
    jobs::{Job, inbound},
    queue::{Outgoing, Publisher, Target, topology},
    telemetry::names,
};
use std::time::Duration;
use tokio::time::Instant;
use uuid::Uuid;

/// At most so many rows in one transaction.
const BATCH: i64 = 500;

/// Due jobs of tenants.
pub(super) async fn outbox(
    databases: &Databases,
    publisher: &Publisher,
    placement: &Placement,
    tenants: &[TenantId],
) -> Result<Next, Fault> {
    if tenants.is_empty() {
        return Ok(Next::Later);
    }
    let mut tx = databases.fleet(placement, tenants).await?;
    let due = outbox::take_due(&mut tx, &queues(), BATCH).await?;
    let next = next(due.found());
    if !due.rows.is_empty() {
        let ids: Vec<_> = due.rows.iter().map(|row| (row.tenant_id, row.job.id)).collect();
        publish(publisher, due.rows.into_iter().map(|row| (row.queue, row.job))).await?;
        crash::pass(CrashPoint::SchedulerAfterPublishBeforeDelete);
        outbox::delete_published(&mut tx, &ids).await?;
    }
    tx.commit().await?;
    complain("outbox", &due.unreadable);
    Ok(next)
}

/// Due jobs that belong to no tenant.
pub(super) async fn control(databases: &Databases, publisher: &Publisher) -> Result<Next, Fault> {
    let mut tx = databases.control().await?;
    let due = outbox::control::take_due(&mut tx, &queues(), BATCH).await?;
    let next = next(due.found());
    if !due.rows.is_empty() {
        let ids: Vec<_> = due.rows.iter().map(|(_, job)| job.id).collect();
        publish(publisher, due.rows.into_iter()).await?;
        crash::pass(CrashPoint::SchedulerAfterPublishBeforeDelete);
        outbox::control::delete_published(&mut tx, &ids).await?;
    }
    tx.commit().await?;
    complain("control_outbox", &due.unreadable);
    Ok(next)
}

/// How far the sweep of the spill has come. It goes back to the beginning only when it had to pass over rows that it cannot
/// read, and then seldom: they must not stand before the others, and a newer release may have taken them meanwhile.
#[derive(Debug, Default)]
pub(super) struct Place {
    behind: Uuid,
    since: Option<Instant>,
}

/// Rows that could not be read are looked at again after this long. What is spilled out of order waits as long then.
const UNREADABLE_AGAIN: Duration = Duration::from_secs(60);

/// Webhooks accepted while the broker was away.
pub(super) async fn spill(
    databases: &Databases,
    publisher: &Publisher,
    clock: &Clock,
    place: &mut Place,
) -> Result<Next, Fault> {
    if place.since.is_some_and(|since| since.elapsed() > UNREADABLE_AGAIN) {
        *place = Place::default();
    }
    let mut tx = databases.control().await?;
    let spilled = spill::take(&mut tx, place.behind, inbound::MAX_WEBHOOKS).await?;
    if !spilled.webhooks.is_empty() {
        let ids: Vec<_> = spilled.webhooks.iter().map(|webhook| webhook.meta.id).collect();
        let jobs: Vec<Outgoing> = inbound::bundles(&spilled.webhooks, inbound::MAX_WEBHOOKS)
            .map(|bundle| Outgoing { to: Target::Queue(&topology::INBOUND), job: inbound::to_job(bundle, clock.now()) })
            .collect();
        publisher.publish(jobs).await?;
        crash::pass(CrashPoint::SchedulerAfterPublishBeforeDelete);
        spill::delete(&mut tx, &ids).await?;
        metrics::counter!(names::SPILL_SWEPT).increment(ids.len() as u64);
    }
    tx.commit().await?;
    if !spilled.unreadable.is_empty() {
        place.behind = spilled.last.unwrap_or_default();
        place.since.get_or_insert_with(Instant::now);
    }
    let unreadable: Vec<_> = spilled.unreadable.into_iter().map(|(id, why)| (id.to_string(), why)).collect();
    complain("spill", &unreadable);
    Ok(if spilled.last.is_some() { Next::AtOnce } else { Next::Later })
}

/// Whether a full batch was found: there may be more.
fn next(found: usize) -> Next {
    if found >= usize::try_from(BATCH).unwrap_or(usize::MAX) { Next::AtOnce } else { Next::Later }
}

/// Says which rows stay where they are because nobody here can read them.
fn complain(table: &'static str, unreadable: &[(String, String)]) {
    let Some((row, why)) = unreadable.first() else { return };
    metrics::counter!(names::SWEEP_UNREADABLE, "table" => table).increment(unreadable.len() as u64);
    tracing::error!(table, rows = unreadable.len(), row, why, "rows that this release cannot read are passed over");
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
