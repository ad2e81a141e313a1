//! The clock: what is due becomes jobs; what a crash left in the outbox or a broker's absence in the spill is published; what
//! is too old goes. Any number may run: due rows are claimed with SKIP LOCKED, there is no leader.

mod housekeeping;
mod sweep;

use shared::{
    clock::Clock,
    db::{Databases, Placement, routing},
    domain::ids::TenantId,
    health::Condition,
    lifecycle::Lifecycle,
    queue::Publisher,
};
use std::time::Duration;
use tokio::time::Instant;
use tracing::{debug, warn};

/// An idle sweep looks again after this long: how late a due job may be at most.
const IDLE: Duration = Duration::from_millis(200);
/// After a fault.
const FAULT: Duration = Duration::from_secs(1);
/// Between calls of what need not be exact.
const HOUSEKEEPING: Duration = Duration::from_secs(60);
/// Between steps of rates that creep back.
const RATES: Duration = Duration::from_secs(1);
/// A tenant made elsewhere is noticed within this time.
const TENANTS: Duration = Duration::from_secs(5);

/// Sweeps until the process stops. `ready` tells whether it can.
pub async fn run(databases: Databases, publisher: Publisher, clock: Clock, life: Lifecycle, ready: Condition) {
    let placements: Vec<Placement> = databases.placements().cloned().collect();
    let mut tenants: Vec<(Placement, Vec<TenantId>)> = Vec::new();
    let mut tenants_at: Option<Instant> = None;
    let mut rates_at = Instant::now();
    let mut housekeeping_at: Option<Instant> = None;
    while !life.is_stopping() {
        let pass = async {
            if tenants_at.is_none_or(|at| at.elapsed() > TENANTS) {
                tenants = find_tenants(&databases, &placements).await?;
                tenants_at = Some(Instant::now());
            }
            let mut more = sweep::control(&databases, &publisher).await?;
            more |= sweep::spill(&databases, &publisher, &clock).await?;
            for (placement, tenants) in &tenants {
                more |= sweep::outbox(&databases, &publisher, placement, tenants).await?;
            }
            if rates_at.elapsed() > RATES {
                rates_at = Instant::now();
                for (placement, tenants) in &tenants {
                    housekeeping::rates(&databases, placement, tenants).await?;
                }
            }
            if housekeeping_at.is_none_or(|at| at.elapsed() > HOUSEKEEPING) {
                housekeeping_at = Some(Instant::now());
                housekeeping::control(&databases).await?;
                for (placement, tenants) in &tenants {
                    housekeeping::tenants(&databases, placement, tenants).await?;
                }
            }
            Ok::<bool, sweep::Fault>(more)
        };
        let pause = match pass.await {
            Ok(true) => {
                ready.ready();
                continue;
            }
            Ok(false) => {
                ready.ready();
                IDLE
            }
            Err(fault) => {
                warn!(%fault, "a sweep failed, it is done again");
                ready.not_ready(fault.to_string());
                FAULT
            }
        };
        tokio::select! { () = tokio::time::sleep(pause) => {}, () = life.stopping() => {} }
    }
    debug!("sweeping has ended");
}

async fn find_tenants(
    databases: &Databases,
    placements: &[Placement],
) -> Result<Vec<(Placement, Vec<TenantId>)>, sweep::Fault> {
    let mut tx = databases.control().await?;
    let mut found = Vec::with_capacity(placements.len());
    for placement in placements {
        found.push((placement.clone(), routing::tenants_of(&mut tx, placement).await?));
    }
    tx.commit().await?;
    Ok(found)
}
