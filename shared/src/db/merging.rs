//! Two contacts who are one.

use super::{FleetTx, error::Result, inbound::people::Same};

/// Merges contacts of a batch.
///
/// # Errors
/// If the database does not answer.
pub async fn merge_known(_tx: &mut FleetTx, _same: &[Same]) -> Result<()> {
    Ok(())
}
