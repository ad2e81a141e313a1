//! The durable send loop's process. Several lanes, each with its own channel and connection to Postgres, so that while one
//! claims or records the others call.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use futures_util::future::try_join_all;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize};
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use super::broker::{self, Batches};
use super::database;
use super::plain::Caller;
use super::wire::Way;
use super::worker::acknowledge;
use crate::measure::sends::Work;
use crate::role::{Orders, Role, announce};
use crate::services::Services;

const LANES: u16 = 2;

#[derive(Serialize, Deserialize)]
struct Plan {
    amqp_url: String,
    queue: String,
    database_url: String,
    database: String,
    provider: SocketAddr,
    way: Way,
    concurrency: u16,
}

pub(super) async fn start(
    services: &Services,
    queue: &str,
    database: &str,
    provider: SocketAddr,
    work: &Work,
) -> Result<Role> {
    let plan = Plan {
        amqp_url: services.amqp_url.to_string(),
        queue: queue.into(),
        database_url: services.database_url.to_string(),
        database: database.into(),
        provider,
        way: work.way,
        concurrency: work.concurrency,
    };
    let (role, ()) = Role::start("sender", &plan).await?;
    Ok(role)
}

/// The process itself.
pub(super) async fn role(mut orders: Orders) -> Result<()> {
    let plan: Plan = orders.plan().await?;
    let connection = broker::connect(&plan.amqp_url, "bare sender").await?;
    let caller = Arc::new(Caller::new(plan.provider, plan.way)?);
    let mut connections = Vec::new();
    for _ in 0..LANES {
        connections.push(database::connect(&plan.database_url, &plan.database).await?);
    }
    announce(&())?;
    if orders.next().await.is_none() {
        return Ok(());
    }
    let at_once = usize::from(plan.concurrency.div_ceil(LANES));
    let mut lanes = Vec::new();
    for postgres in connections {
        let batches = Batches::consume(&connection, &plan.queue).await?;
        lanes.push(tokio::spawn(Lane { batches, postgres, caller: Arc::clone(&caller), at_once }.run()));
    }
    tokio::select! {
        ended = try_join_all(lanes) => ended?.into_iter().collect(),
        _ = orders.next() => Ok(()),
    }
}

struct Lane {
    batches: Batches,
    postgres: PgConnection,
    caller: Arc<Caller>,
    /// Calls open at once.
    at_once: usize,
}

#[derive(Deserialize)]
struct Job {
    send: Uuid,
}

#[derive(sqlx::FromRow)]
struct Claimed {
    id: Uuid,
    recipient: String,
    content: String,
}

impl Lane {
    async fn run(mut self) -> Result<()> {
        loop {
            let batch = self.batches.next().await?;
            let jobs = batch.iter().map(|delivery| serde_json::from_slice::<Job>(&delivery.data));
            let sends: Vec<Uuid> = jobs.map(|job| job.map(|job| job.send)).collect::<Result<_, _>>()?;
            let attempt = Uuid::now_v7();
            let claimed = self.claim(&sends, attempt).await?;
            let sent = self.call(claimed).await?;
            self.record(attempt, sent).await?;
            acknowledge(&batch).await?;
        }
    }

    /// Nobody else may call what this returns: a redelivered job finds its send taken.
    async fn claim(&mut self, sends: &[Uuid], attempt: Uuid) -> Result<Vec<Claimed>> {
        sqlx::query_as(
            "UPDATE sends
             SET state = 'sending', attempt_id = $2, deadline = clock_timestamp() + interval '60 seconds'
             FROM unnest($1::uuid[]) AS job (id)
             WHERE sends.id = job.id AND sends.state = 'queued'
             RETURNING sends.id, sends.recipient, sends.content",
        )
        .bind(sends)
        .bind(attempt)
        .fetch_all(&mut self.postgres)
        .await
        .context("claim")
    }

    async fn call(&self, claimed: Vec<Claimed>) -> Result<Vec<(Uuid, String)>> {
        let calls = claimed.into_iter().map(|send| async move {
            let provider_message_id = self.caller.call(&send.recipient, &send.content, send.id).await?;
            anyhow::Ok((send.id, provider_message_id))
        });
        stream::iter(calls).buffer_unordered(self.at_once).try_collect().await
    }

    async fn record(&mut self, attempt: Uuid, sent: Vec<(Uuid, String)>) -> Result<()> {
        let (ids, provider_message_ids): (Vec<Uuid>, Vec<String>) = sent.into_iter().unzip();
        let recorded = sqlx::query(
            "UPDATE sends
             SET state = 'sent', provider_message_id = result.provider_message_id, settled_at = clock_timestamp()
             FROM unnest($1::uuid[], $2::text[]) AS result (id, provider_message_id)
             WHERE sends.id = result.id AND sends.state = 'sending' AND sends.attempt_id = $3",
        )
        .bind(&ids)
        .bind(&provider_message_ids)
        .bind(attempt)
        .execute(&mut self.postgres)
        .await
        .context("record")?;
        if recorded.rows_affected() != ids.len() as u64 {
            bail!("{} of {} results found their send", recorded.rows_affected(), ids.len());
        }
        Ok(())
    }
}
