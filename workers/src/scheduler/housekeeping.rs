//! What need not be exact: rates that creep back, partitions ahead and behind, rows past their time, the planner's statistics.

use super::{Fault, steps::Next};
use chrono::TimeDelta;
use shared::{
    db::{
        Databases, Placement, erasing,
        outbound::{outcomes, probes, undecided},
        retention::{self, Expiring, Removed},
        templates::sync,
    },
    domain::ids::TenantId,
};
use std::time::Duration;
use tokio::time::Instant;
use tracing::{debug, info};

/// Removing what is too old goes on for so long at a time, while there is more.
const REMOVE_FOR: Duration = Duration::from_secs(20);
/// That tables were analysed is said no more often than this.
const SAY_EVERY: Duration = Duration::from_secs(10 * 60);

/// Rates that a provider's throttling lowered creep back.
pub(super) async fn rates(databases: &Databases, placement: &Placement, tenants: &[TenantId]) -> Result<Next, Fault> {
    if !tenants.is_empty() {
        let mut tx = databases.fleet(placement, tenants).await?;
        outcomes::creep_back(&mut tx).await?;
        tx.commit().await?;
    }
    Ok(Next::Later)
}

/// Accounts that are down are tried again, and what waits for those that are back is woken.
pub(super) async fn accounts(
    databases: &Databases,
    placement: &Placement,
    tenants: &[TenantId],
) -> Result<Next, Fault> {
    if tenants.is_empty() {
        return Ok(Next::Later);
    }
    let mut tx = databases.fleet(placement, tenants).await?;
    let more = probes::see_to(&mut tx).await?;
    // What is due comes by the sweep.
    drop(tx.commit().await?);
    Ok(if more { Next::AtOnce } else { Next::Later })
}

/// Templates that are old, or not known although a webhook named them, are asked for. That is a job of another worker: a list takes
/// seconds, and nothing here waits for a provider.
pub(super) async fn templates(
    databases: &Databases,
    placement: &Placement,
    tenants: &[TenantId],
    max_age: Option<Duration>,
) -> Result<Next, Fault> {
    let max_age = max_age.and_then(|age| TimeDelta::from_std(age).ok());
    let (false, Some(max_age)) = (tenants.is_empty(), max_age) else { return Ok(Next::Later) };
    let mut tx = databases.fleet(placement, tenants).await?;
    let more = sync::ask_for_due(&mut tx, max_age).await?;
    // What is due comes by the sweep.
    drop(tx.commit().await?);
    Ok(if more { Next::AtOnce } else { Next::Later })
}

/// Partitions ahead, and those past their time: of the raw log, after `log_days`.
pub(super) async fn partitions(databases: &Databases, placement: &Placement, log_days: u16) -> Result<Next, Fault> {
    let mut tx = databases.fleet(placement, &[]).await?;
    let changed = retention::maintain_partitions(&mut tx, log_days).await?;
    let missing = retention::missing_partitions(&mut tx).await?;
    tx.commit().await?;
    if changed > 0 {
        info!(%placement, changed, "partitions");
    }
    if missing > 0 { Err(Fault::Partitions { missing }) } else { Ok(Next::Later) }
}

/// What the planner knows of tables that have grown.
pub(super) async fn statistics(
    databases: &Databases,
    placement: &Placement,
    analysed: &mut Analysed,
) -> Result<Next, Fault> {
    let mut tx = databases.fleet(placement, &[]).await?;
    let tables = retention::analyze_grown_tables(&mut tx).await?;
    tx.commit().await?;
    debug!(%placement, tables, "looked for tables that have grown");
    if let Some(times) = analysed.count(tables, Instant::now()) {
        info!(%placement, times, "tables had grown and were analysed");
    }
    Ok(Next::Later)
}

/// How often tables were analysed since that was last said. Some are emptied and filled all the time: they are looked at every other
/// second, which is worth a line now and then.
#[derive(Debug, Default)]
pub(super) struct Analysed {
    times: i64,
    said: Option<Instant>,
}

impl Analysed {
    fn count(&mut self, tables: i32, now: Instant) -> Option<i64> {
        self.times += i64::from(tables);
        if self.times == 0 || self.said.is_some_and(|said| now < said + SAY_EVERY) {
            return None;
        }
        self.said = Some(now);
        Some(std::mem::take(&mut self.times))
    }
}

/// Contacts that were merged or erased lately, to whom a batch under way may have added something.
pub(super) async fn gone(databases: &Databases, placement: &Placement, tenants: &[TenantId]) -> Result<Next, Fault> {
    if tenants.is_empty() {
        return Ok(Next::Later);
    }
    let began = Instant::now();
    let contacts = while_more(REMOVE_FOR, async || {
        let mut tx = databases.fleet(placement, tenants).await?;
        let due = erasing::due(&mut tx).await?;
        tx.commit().await?;
        let Some(gone) = due else { return Ok(Removed { rows: 0, more: false }) };
        let mut tx = databases.fleet(placement, tenants).await?;
        erasing::settle(&mut tx, &gone).await?;
        tx.commit().await?;
        Ok(Removed { rows: 1, more: true })
    });
    let contacts = contacts.await?;
    debug!(%placement, contacts, "looked once more through contacts that are gone");
    Ok(if began.elapsed() >= REMOVE_FOR { Next::AtOnce } else { Next::Later })
}

/// Tenants' rows past their time.
pub(super) async fn expire(databases: &Databases, placement: &Placement, tenants: &[TenantId]) -> Result<Next, Fault> {
    if tenants.is_empty() {
        return Ok(Next::Later);
    }
    let removed = while_more(REMOVE_FOR, async || {
        let mut tx = databases.fleet(placement, tenants).await?;
        let removed = retention::expire_idempotency_keys(&mut tx).await?;
        tx.commit().await?;
        Ok(removed)
    });
    let mut removed = removed.await?;
    removed += while_more(REMOVE_FOR, async || {
        let mut tx = databases.fleet(placement, tenants).await?;
        let removed = retention::expire_parked_reports(&mut tx).await?;
        tx.commit().await?;
        Ok(removed)
    })
    .await?;
    removed += while_more(REMOVE_FOR, async || {
        let mut tx = databases.fleet(placement, tenants).await?;
        let removed = retention::add_up_template_uses(&mut tx).await?;
        tx.commit().await?;
        Ok(removed)
    })
    .await?;
    removed += while_more(REMOVE_FOR, async || {
        let mut tx = databases.fleet(placement, tenants).await?;
        let removed = retention::expire_pair_meters(&mut tx).await?;
        tx.commit().await?;
        Ok(removed)
    })
    .await?;
    removed += while_more(REMOVE_FOR, async || {
        let mut tx = databases.fleet(placement, tenants).await?;
        let removed = retention::expire_portfolio_people(&mut tx).await?;
        tx.commit().await?;
        Ok(removed)
    })
    .await?;
    removed += while_more(REMOVE_FOR, async || {
        let mut tx = databases.fleet(placement, tenants).await?;
        let removed = undecided::forget_settled(&mut tx).await?;
        tx.commit().await?;
        Ok(removed)
    })
    .await?;
    if removed > 0 {
        info!(%placement, removed, "rows past their time are gone");
    }
    Ok(Next::Later)
}

/// Files that may not be kept any longer, and objects in storage that nobody refers to.
pub(super) async fn files(databases: &Databases, placement: &Placement, tenants: &[TenantId]) -> Result<Next, Fault> {
    if tenants.is_empty() {
        return Ok(Next::Later);
    }
    let expired = while_more(REMOVE_FOR, async || {
        let mut tx = databases.fleet(placement, tenants).await?;
        let removed = retention::expire_files(&mut tx).await?;
        tx.commit().await?;
        Ok(removed)
    })
    .await?;
    let looked_at = while_more(REMOVE_FOR, async || {
        let mut tx = databases.fleet(placement, tenants).await?;
        let looked_at = retention::check_objects(&mut tx).await?;
        // The jobs are in the outbox, and the sweep is ours.
        tx.commit().await?;
        Ok(looked_at)
    })
    .await?;
    if expired > 0 {
        info!(%placement, expired, "files may not be kept any longer");
    }
    debug!(%placement, looked_at, "looked for objects that nobody refers to");
    Ok(Next::Later)
}

/// Control rows past their time.
pub(super) async fn expire_control(databases: &Databases, what: Expiring) -> Result<(), Fault> {
    let removed = while_more(REMOVE_FOR, async || {
        let mut tx = databases.control().await?;
        let removed = retention::expire_control(&mut tx, what).await?;
        tx.commit().await?;
        Ok(removed)
    });
    let removed = removed.await?;
    if removed > 0 {
        info!(?what, removed, "control rows past their time are gone");
    }
    Ok(())
}

/// Removes, a transaction at a time, until nothing is left or the time is over. How many rows.
async fn while_more(at_most: Duration, mut remove: impl AsyncFnMut() -> Result<Removed, Fault>) -> Result<u64, Fault> {
    let began = Instant::now();
    let mut rows = 0;
    loop {
        let removed = remove().await?;
        rows += removed.rows;
        if !removed.more || began.elapsed() >= at_most {
            return Ok(rows);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn that_tables_were_analysed_is_said_now_and_then_and_added_up() {
        let (mut analysed, began) = (Analysed::default(), Instant::now());
        let said: Vec<Option<i64>> = [(0, 0), (2, 2), (4, 1), (6, 2), (700, 0), (702, 1), (1300, 1)]
            .map(|(second, tables)| analysed.count(tables, began + Duration::from_secs(second)))
            .into();
        assert_eq!(said, [None, Some(2), None, None, Some(3), None, Some(2)]);
    }

    #[tokio::test]
    async fn removing_goes_on_while_there_is_more_and_has_an_end() {
        for (at_most, expected) in [(Duration::MAX, 27), (Duration::ZERO, 10)] {
            let mut left = vec![7, 10, 10];
            let removed = while_more(at_most, async || {
                let rows = left.pop().expect("it ends with the first that is not full");
                Ok(Removed { rows, more: rows == 10 })
            });
            assert_eq!(removed.await.unwrap(), expected);
        }
    }
}
