//! Customer service windows that end soon, or have ended, become events.

use super::{Fault, steps::Next};
use chrono::TimeDelta;
use shared::{
    db::{
        Databases, Placement,
        feed::{self, End},
    },
    domain::ids::TenantId,
};

/// Tells of as many as one call does; those that end within `closing_minutes` before those that have ended.
pub(super) async fn tell(
    databases: &Databases,
    placement: &Placement,
    tenants: &[TenantId],
    closing_minutes: u16,
) -> Result<Next, Fault> {
    // Nobody's windows must be passed over.
    if tenants.is_empty() {
        return Ok(Next::Later);
    }
    let mut more = false;
    for end in [End::Near(TimeDelta::minutes(closing_minutes.into())), End::Reached] {
        let mut tx = databases.fleet(placement, tenants).await?;
        more |= feed::tell_of_windows(&mut tx, end).await?;
        tx.commit().await?;
    }
    Ok(if more { Next::AtOnce } else { Next::Later })
}
