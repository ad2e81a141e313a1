//! People as campaigns need them: what fills in the words, and where they can be reached.

use crate::{
    db::{error::Result, scope::FleetTx},
    domain::{
        campaigns::Addressee,
        ids::{ChannelAccountId, ContactId, TenantId},
        people::Address,
    },
};
use std::collections::HashMap;
use uuid::Uuid;

/// These contacts of a tenant, as a campaign of this account needs them.
pub(super) async fn addressees(
    tx: &mut FleetTx,
    tenant_id: TenantId,
    account: ChannelAccountId,
    ids: &[Uuid],
) -> Result<HashMap<ContactId, Addressee>> {
    let rows = sqlx::query!(
        r#"SELECT c.id AS "id: ContactId", c.name, coalesce(CASE reach.kind WHEN 'phone' THEN reach.address END, c.phone) AS phone,
            reach.kind AS "reach_kind?", reach.address AS "reach_address?", c.language,
            (SELECT default_language FROM tenant_settings WHERE tenant_id = $1) AS default_language,
            EXISTS (
                SELECT FROM suppressions s
                WHERE s.tenant_id = $1 AND s.contact_id = c.id AND s.state = 'opted_out' AND s.channel = a.channel
            ) AS "opted_out!"
        FROM unnest($2::uuid[]) AS asked (id)
        JOIN contacts c ON c.tenant_id = $1 AND c.id = asked.id
        JOIN channel_accounts a ON a.tenant_id = $1 AND a.id = $3
        LEFT JOIN LATERAL address_of(c.tenant_id, c.id, a.id, a.channel) AS reach ON true"#,
        tenant_id.0,
        ids,
        account.0,
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| {
            let address = Address::from_row(row.reach_kind.as_deref(), row.reach_address);
            let (language, default_language) = (row.language, row.default_language);
            let opted_out = row.opted_out;
            (row.id, Addressee { name: row.name, phone: row.phone, address, opted_out, language, default_language })
        })
        .collect())
}
