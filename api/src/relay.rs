//! Publishes what requests have committed. The jobs are in the outbox already, so nothing here can lose one: what is not
//! published, or published and not deleted, the sweep takes up. One task gathers what many requests left while it was busy, so
//! that the broker and the database are asked once per group.

use shared::{
    db::{
        self, Databases, Placement,
        outbox::{self, OutboxRow},
    },
    domain::ids::TenantId,
    lifecycle::Lifecycle,
    queue::{Outgoing, Publisher, Target, topology},
};
use std::{collections::BTreeMap, time::Duration};
use tokio::sync::{mpsc, oneshot};

/// A request does not wait longer than this for its job to be confirmed: it is durable, the sweep will publish it.
const PATIENCE: Duration = Duration::from_secs(1);
/// A database that does not answer for so long holds up the jobs of the other tenants no more.
const DELETE: Duration = Duration::from_secs(30);
/// Requests whose jobs may wait; those beyond leave theirs to the sweep.
const WAITING: usize = 1024;
/// Requests taken together.
const GROUP: usize = 128;

/// A handle on the task. Cheap to clone.
#[derive(Clone)]
pub struct Relay(mpsc::Sender<Committed>);

struct Committed {
    placement: Placement,
    rows: Vec<OutboxRow>,
    published: oneshot::Sender<()>,
}

impl Relay {
    /// Starts the task. It ends when every handle is gone.
    pub fn start(databases: Databases, publisher: Publisher, life: &Lifecycle) -> Self {
        let (sender, inbox) = mpsc::channel(WAITING);
        life.spawn_service(run(databases, publisher, inbox));
        Self(sender)
    }

    /// Publishes what was committed. Returns when it is confirmed, or when waiting longer would only keep the caller.
    pub async fn publish(&self, placement: Placement, rows: Vec<OutboxRow>) {
        if rows.is_empty() {
            return;
        }
        let (published, confirmed) = oneshot::channel();
        if self.0.try_send(Committed { placement, rows, published }).is_ok() {
            let _ = tokio::time::timeout(PATIENCE, confirmed).await;
        }
    }
}

async fn run(databases: Databases, publisher: Publisher, mut inbox: mpsc::Receiver<Committed>) {
    let mut group = Vec::with_capacity(GROUP);
    while inbox.recv_many(&mut group, GROUP).await > 0 {
        relay(&databases, &publisher, std::mem::take(&mut group)).await;
    }
}

async fn relay(databases: &Databases, publisher: &Publisher, group: Vec<Committed>) {
    let outgoing = group.iter().flat_map(|committed| &committed.rows).filter_map(|row| {
        let queue = topology::by_name(&row.queue)?;
        Some(Outgoing { to: Target::Queue(queue), job: row.job.clone() })
    });
    if let Err(error) = publisher.publish(outgoing.collect()).await {
        tracing::warn!(%error, requests = group.len(), "jobs of requests are left to the sweep");
        return;
    }
    // The role of the API sees one tenant at a time.
    let mut by_tenant: BTreeMap<(Placement, TenantId), Vec<OutboxRow>> = BTreeMap::new();
    for Committed { placement, rows, published } in group {
        let _ = published.send(());
        for row in rows {
            by_tenant.entry((placement.clone(), row.tenant_id)).or_default().push(row);
        }
    }
    for ((placement, _), rows) in by_tenant {
        let deleted = tokio::time::timeout(DELETE, outbox::delete(databases, &placement, &rows)).await;
        if let Err(error) = deleted.unwrap_or_else(|_| Err(db::Error::timed_out("deleting what is published"))) {
            tracing::warn!(%error, "published jobs stay in the outbox until the sweep");
        }
    }
}
