//! The real [`Store`]: Postgres for the effects, the broker for what follows from them.

use super::{commit::Store, pause::Pause, settle::ANSWER_TIMEOUT};
use crate::worker::Worker;
use shared::{
    crash,
    db::{self, Databases, Placement, outbox::OutboxRow},
    domain::ids::TenantId,
    queue::{Outgoing, PublishError, Publisher, Target, topology},
    telemetry::names,
};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender},
    time::Instant,
};

/// Transactions of one worker.
pub(crate) struct Transactions<W> {
    pub(crate) worker: Arc<W>,
    pub(crate) databases: Databases,
    pub(crate) publisher: Publisher,
    pub(crate) pause: Pause,
    pub(crate) published: UnboundedSender<Published>,
}

/// Rows the broker has confirmed.
pub(crate) struct Published {
    placement: Placement,
    rows: Vec<OutboxRow>,
}

impl<W: Worker> Store for Transactions<W> {
    type Effect = W::Effect;

    async fn store(
        &self,
        placement: &Placement,
        tenants: &[TenantId],
        effects: &[W::Effect],
    ) -> db::Result<Vec<OutboxRow>> {
        let mut tenants = tenants.to_vec();
        tenants.sort_unstable();
        tenants.dedup();
        let mut tx = self.databases.fleet(placement, &tenants).await?;
        let started = Instant::now();
        self.worker.apply(&mut tx, effects).await?;
        let applied = Instant::now();
        if let Some(point) = W::crash_points().before_commit {
            crash::pass(point);
        }
        let rows = tx.commit().await?;
        metrics::histogram!(names::JOB_APPLY_SECONDS, "worker" => W::NAME).record(applied - started);
        metrics::histogram!(names::JOB_COMMIT_SECONDS, "worker" => W::NAME).record(applied.elapsed());
        Ok(rows)
    }

    async fn committed(&self, effects: &[W::Effect]) {
        self.worker.committed(effects).await;
    }

    async fn announce(&self, placement: &Placement, rows: Vec<OutboxRow>) {
        let outgoing = rows.iter().filter_map(outgoing).collect();
        match self.publisher.publish(outgoing).await {
            Ok(()) => {
                let _ = self.published.send(Published { placement: placement.clone(), rows });
            }
            Err(error) => {
                // They are committed; the sweep publishes them. Here it only matters to take no more work than that.
                tracing::warn!(%error, rows = rows.len(), "jobs are not published, they are left to the sweep");
                if !matches!(error, PublishError::Unroutable { .. }) {
                    let _waiting = self.pause.enter("broker", &error.to_string());
                    self.publisher.ready().await;
                }
            }
        }
    }
}

fn outgoing(row: &OutboxRow) -> Option<Outgoing> {
    let queue = topology::by_name(&row.queue);
    if queue.is_none() {
        tracing::error!(queue = row.queue, job = %row.job.id, "no such queue: the job stays in the outbox");
    }
    queue.map(|queue| Outgoing { to: Target::Queue(queue), job: row.job.clone() })
}

/// A delete pays for so many rows at once.
const DELETE_ROWS: usize = 500;
/// The sweep takes rows after 5 s; deleting them well before that avoids publishing them twice.
const DELETE_AFTER: Duration = Duration::from_millis(100);

/// Deletes what was published, off the way of the jobs. What a crash or an outage leaves, the sweep publishes again.
pub(crate) async fn delete_published(mut published: UnboundedReceiver<Published>, databases: Databases) {
    while let Some(first) = published.recv().await {
        let deadline = Instant::now() + DELETE_AFTER;
        let mut rows: BTreeMap<Placement, Vec<OutboxRow>> = BTreeMap::from([(first.placement, first.rows)]);
        let count = |rows: &BTreeMap<Placement, Vec<OutboxRow>>| rows.values().map(Vec::len).sum::<usize>();
        while count(&rows) < DELETE_ROWS
            && let Ok(Some(more)) = tokio::time::timeout_at(deadline, published.recv()).await
        {
            rows.entry(more.placement).or_default().extend(more.rows);
        }
        for (placement, rows) in rows {
            let deleted = tokio::time::timeout(ANSWER_TIMEOUT, db::outbox::delete(&databases, &placement, &rows)).await;
            if let Err(error) = deleted.unwrap_or_else(|_| Err(db::Error::timed_out("deleting published jobs"))) {
                tracing::debug!(%error, %placement, rows = rows.len(), "published jobs stay in the outbox for the sweep");
            }
        }
    }
}
