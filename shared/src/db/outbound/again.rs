//! Sends that have failed are let go again: because somebody asks for it, or because the provider's report says that it may be tried.

use crate::{
    db::{error::Result, scope::FleetTx},
    domain::{
        ids::{MessageId, TenantId},
        outcome::Class,
        sends::WaitReason,
    },
};
use std::time::Duration;
use uuid::Uuid;

/// A send that is to begin anew, if it has still failed.
#[derive(Clone, Copy, Debug)]
pub(in crate::db) struct Again {
    pub(in crate::db) tenant_id: TenantId,
    pub(in crate::db) message_id: MessageId,
    /// What it waits for; queued at once if there is nothing.
    pub(in crate::db) waits_for: Option<WaitReason>,
    /// How long it waits at most.
    pub(in crate::db) wait: Option<Duration>,
    /// Whether the attempt that failed may have arrived all the same.
    pub(in crate::db) in_doubt: bool,
    /// As what the attempt that failed is counted.
    pub(in crate::db) class: Option<Class>,
}

/// Lets these sends go again, none twice. Which did; what the provider took and then reported as failed is a failed attempt from here
/// on, as it is in the books. Their jobs are the caller's.
pub(in crate::db) async fn let_go(tx: &mut FleetTx, sends: &[Again]) -> Result<Vec<(TenantId, MessageId)>> {
    if sends.is_empty() {
        return Ok(Vec::new());
    }
    let tenants: Vec<Uuid> = sends.iter().map(|send| send.tenant_id.0).collect();
    let messages: Vec<Uuid> = sends.iter().map(|send| send.message_id.0).collect();
    let reasons: Vec<Option<&str>> = sends.iter().map(|send| send.waits_for.map(WaitReason::as_str)).collect();
    let waits: Vec<Option<f64>> = sends.iter().map(|send| send.wait.map(|wait| wait.as_secs_f64())).collect();
    let doubts: Vec<bool> = sends.iter().map(|send| send.in_doubt).collect();
    let classes: Vec<Option<&str>> = sends.iter().map(|send| send.class.map(Class::as_str)).collect();
    let rows = sqlx::query_file!(
        "src/db/outbound/let_go_again.sql",
        &tenants,
        &messages,
        &reasons as &[Option<&str>],
        &waits as &[Option<f64>],
        &doubts,
        &classes as &[Option<&str>],
    )
    .fetch_all(tx.conn())
    .await?;
    let mut gone: Vec<(TenantId, MessageId)> = rows.into_iter().map(|row| (row.tenant_id, row.message_id)).collect();
    gone.sort_unstable();
    Ok(gone)
}
