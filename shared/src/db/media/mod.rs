//! Files of messages: rows are written with the messages they belong to, and filled in by whoever fetches them. Beside them stand
//! what providers say of people, and what lies in storage.
//!
//! Locks: contacts, media, contact_profiles, media_objects; the last three after all that an inbound batch locks; within a table by
//! key.

pub mod again;
pub mod fetching;
mod insert;
pub mod objects;
pub mod profiles;
pub mod reading;

pub use insert::{NewMedia, insert};

use super::{error::Result, scope::FleetTx};
use crate::domain::ids::{ContactId, MediaId, TenantId};
use uuid::Uuid;

/// The queue of files, by its name in the topology.
pub const QUEUE: &str = "media";

/// Locks these files, and what is known of these people, in the order in which everybody does: for who is about to write down
/// several of them, and of what they have in storage.
///
/// # Errors
/// If the database does not answer.
pub async fn lock(tx: &mut FleetTx, files: &[(TenantId, MediaId)], people: &[(TenantId, ContactId)]) -> Result<()> {
    let (tenants, contacts): (Vec<Uuid>, Vec<Uuid>) = people.iter().map(|(tenant, id)| (tenant.0, id.0)).unzip();
    if !people.is_empty() {
        sqlx::query_scalar!(
            "SELECT id
            FROM contacts
            WHERE (tenant_id, id) IN (SELECT tenant, id FROM unnest($1::uuid[], $2::uuid[]) AS p (tenant, id))
            ORDER BY tenant_id, id
            FOR NO KEY UPDATE",
            &tenants,
            &contacts,
        )
        .fetch_all(tx.conn())
        .await?;
    }
    if !files.is_empty() {
        let (tenants, ids): (Vec<Uuid>, Vec<Uuid>) = files.iter().map(|(tenant, id)| (tenant.0, id.0)).unzip();
        sqlx::query_scalar!(
            "SELECT id
            FROM media
            WHERE (tenant_id, id) IN (SELECT tenant, id FROM unnest($1::uuid[], $2::uuid[]) AS f (tenant, id))
            ORDER BY tenant_id, id
            FOR NO KEY UPDATE",
            &tenants,
            &ids,
        )
        .fetch_all(tx.conn())
        .await?;
    }
    if !people.is_empty() {
        sqlx::query_scalar!(
            "SELECT contact_id
            FROM contact_profiles
            WHERE (tenant_id, contact_id) IN (SELECT tenant, id FROM unnest($1::uuid[], $2::uuid[]) AS p (tenant, id))
            ORDER BY tenant_id, contact_id
            FOR NO KEY UPDATE",
            &tenants,
            &contacts,
        )
        .fetch_all(tx.conn())
        .await?;
    }
    Ok(())
}
