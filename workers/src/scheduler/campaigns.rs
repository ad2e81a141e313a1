//! Each second a job for every account on which campaigns run: release people; for those without a limit four a second.

use super::{Fault, steps::Next};
use shared::{
    clock::Clock,
    db::{Databases, Placement, campaigns::due},
    domain::ids::TenantId,
    jobs::campaign::{CampaignJob, Task},
    queue::{Outgoing, Publisher, Target, topology},
};

/// Asks for a release wherever nobody has lately. Not by way of the outbox: one that is lost is made up for by the
/// next, and those of a long outage would only be in each other's way.
pub(super) async fn release(
    databases: &Databases,
    publisher: &Publisher,
    clock: &Clock,
    placement: &Placement,
    tenants: &[TenantId],
) -> Result<Next, Fault> {
    if tenants.is_empty() {
        return Ok(Next::Later);
    }
    let mut tx = databases.fleet(placement, tenants).await?;
    let accounts = due::ask(&mut tx).await?;
    tx.commit().await?;
    let job = |(tenant_id, account)| CampaignJob { tenant_id, task: Task::Release { account } }.to_job(clock.now());
    let outgoing: Vec<Outgoing> =
        accounts.into_iter().map(|due| Outgoing { to: Target::Queue(&topology::CAMPAIGN), job: job(due) }).collect();
    if !outgoing.is_empty() {
        publisher.publish(outgoing).await?;
    }
    Ok(Next::Later)
}
