//! What is shown of campaigns: kept by whoever moves their sends, in the same transaction and after everything else in it,
//! because many transactions move the counts of one campaign.

use crate::{
    db::{error::Result, scope::FleetTx},
    domain::{
        ids::{CampaignId, TenantId},
        sends::SendState,
    },
};
use std::collections::BTreeMap;
use uuid::Uuid;

/// A campaign's send that went from one state to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moved {
    /// Whose.
    pub tenant_id: TenantId,
    /// The campaign it is counted in.
    pub campaign_id: CampaignId,
    /// From here.
    pub before: SendState,
    /// To here.
    pub after: SendState,
}

/// The columns that sends are counted in, and behind them the one that only counts up: how often one was handed over.
const COLUMNS: usize = 9;
const HANDED_OVER: usize = 8;

fn column(state: SendState) -> usize {
    match state {
        SendState::Waiting | SendState::Queued | SendState::Sending => 0,
        SendState::Unknown => 1,
        SendState::Held => 2,
        SendState::Sent => 3,
        SendState::Delivered => 4,
        SendState::Read => 5,
        SendState::Failed => 6,
        SendState::Cancelled => 7,
    }
}

/// Whether this was the end of a call: taken, refused, or perhaps taken.
fn is_hand_over(moved: &Moved) -> bool {
    use SendState::{Delivered, Failed, Read, Sending, Sent, Unknown};
    moved.before == Sending && matches!(moved.after, Sent | Delivered | Read | Failed | Unknown)
}

/// By how much each column of each campaign changes; none where nothing does.
fn changes(moved: &[Moved]) -> BTreeMap<(TenantId, CampaignId), [i64; COLUMNS]> {
    let mut changes: BTreeMap<(TenantId, CampaignId), [i64; COLUMNS]> = BTreeMap::new();
    for m in moved {
        let (from, to) = (column(m.before), column(m.after));
        if from != to {
            let change = changes.entry((m.tenant_id, m.campaign_id)).or_default();
            change[from] -= 1;
            change[to] += 1;
            change[HANDED_OVER] += i64::from(is_hand_over(m));
        }
    }
    changes.retain(|_, change| change.iter().any(|by| *by != 0));
    changes
}

/// Writes down how campaigns' counts change. Once in a transaction, and last.
///
/// # Errors
/// If the database does not answer.
pub async fn count(tx: &mut FleetTx, moved: &[Moved]) -> Result<()> {
    let changes = changes(moved);
    if changes.is_empty() {
        return Ok(());
    }
    let tenants: Vec<Uuid> = changes.keys().map(|(tenant_id, _)| tenant_id.0).collect();
    let campaigns: Vec<Uuid> = changes.keys().map(|(_, id)| id.0).collect();
    let by = |column: usize| -> Vec<i64> { changes.values().map(|change| change[column]).collect() };
    sqlx::query!(
        "WITH change AS MATERIALIZED (
            SELECT c.tenant_id, c.campaign_id, delta.in_flight, delta.unknown, delta.held, delta.sent, delta.delivered, delta.read,
                delta.failed, delta.cancelled, delta.handed_over
            FROM unnest(
                $1::uuid[], $2::uuid[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[], $9::bigint[],
                $10::bigint[], $11::bigint[]
            ) AS delta (tenant_id, campaign_id, in_flight, unknown, held, sent, delivered, read, failed, cancelled, handed_over)
            JOIN campaign_counts c ON c.tenant_id = delta.tenant_id AND c.campaign_id = delta.campaign_id
            ORDER BY c.tenant_id, c.campaign_id
            FOR UPDATE OF c
        )
        UPDATE campaign_counts c
        SET in_flight = c.in_flight + change.in_flight, unknown = c.unknown + change.unknown, held = c.held + change.held,
            sent = c.sent + change.sent, delivered = c.delivered + change.delivered, read = c.read + change.read,
            failed = c.failed + change.failed, cancelled = c.cancelled + change.cancelled, handed_over = c.handed_over + change.handed_over
        FROM change
        WHERE c.tenant_id = change.tenant_id AND c.campaign_id = change.campaign_id",
        &tenants,
        &campaigns,
        &by(0),
        &by(1),
        &by(2),
        &by(3),
        &by(4),
        &by(5),
        &by(6),
        &by(7),
        &by(HANDED_OVER),
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_there_and_back_changes_nothing_and_the_rest_adds_up() {
        let (tenant_id, one, other) = (TenantId::new(), CampaignId::new(), CampaignId::new());
        let moved = |campaign_id, before, after| Moved { tenant_id, campaign_id, before, after };
        let changes = changes(&[
            moved(one, SendState::Sending, SendState::Sent),
            moved(one, SendState::Queued, SendState::Sending),
            moved(one, SendState::Sending, SendState::Unknown),
            moved(one, SendState::Unknown, SendState::Delivered),
            moved(other, SendState::Sending, SendState::Unknown),
            moved(other, SendState::Unknown, SendState::Waiting),
        ]);
        let change = changes.get(&(tenant_id, one)).expect("it changed");
        assert_eq!(change[column(SendState::Queued)], -2);
        assert_eq!((change[column(SendState::Sent)], change[column(SendState::Delivered)]), (1, 1));
        assert_eq!(change[..HANDED_OVER].iter().sum::<i64>(), 0);
        assert_eq!(change[HANDED_OVER], 2, "two calls have ended; what is heard later is no other");
        let change = changes.get(&(tenant_id, other)).expect("a call has ended");
        assert!(change[..HANDED_OVER].iter().all(|by| *by == 0), "as many there as before");
        assert_eq!(change[HANDED_OVER], 1);
    }
}
