//! People as campaigns need them: what fills in the words, and where they can be reached.

use crate::{
    db::{error::Result, scope::FleetTx},
    domain::{
        campaigns::Addressee,
        ids::{ChannelAccountId, ContactId, TenantId},
    },
};
use std::collections::HashMap;
use uuid::Uuid;

/// These contacts of a tenant, as a campaign of this account needs them. The name the provider itself uses comes first: it may differ from the number dialled (as in
/// `conversations::lock`).
pub(super) async fn addressees(
    tx: &mut FleetTx,
    tenant_id: TenantId,
    account: ChannelAccountId,
    ids: &[Uuid],
) -> Result<HashMap<ContactId, Addressee>> {
    let rows = sqlx::query!(
        r#"SELECT c.id AS "id: ContactId", c.name, coalesce('+' || a.whatsapp_id, c.phone, a.phone) AS phone, a.bsuid,
            EXISTS (
                SELECT FROM suppressions s
                WHERE s.tenant_id = $1 AND s.contact_id = c.id AND s.state = 'opted_out'
                    AND s.channel = (SELECT channel FROM channel_accounts WHERE tenant_id = $1 AND id = $3)
            ) AS "opted_out!"
        FROM unnest($2::uuid[]) AS asked (id)
        JOIN contacts c ON c.tenant_id = $1 AND c.id = asked.id
        CROSS JOIN LATERAL (
            SELECT
                (array_agg(value ORDER BY created_at DESC) FILTER (WHERE kind = 'whatsapp_id'))[1] AS whatsapp_id,
                (array_agg(value ORDER BY created_at DESC) FILTER (WHERE kind = 'phone'))[1] AS phone,
                (array_agg(value ORDER BY created_at DESC) FILTER (WHERE kind = 'whatsapp_bsuid'))[1] AS bsuid
            FROM contact_aliases
            WHERE tenant_id = c.tenant_id AND contact_id = c.id
        ) AS a"#,
        tenant_id.0,
        ids,
        account.0,
    )
    .fetch_all(tx.conn())
    .await?;
    let person = |name, phone, bsuid, opted_out| Addressee { name, phone, bsuid, opted_out };
    Ok(rows.into_iter().map(|row| (row.id, person(row.name, row.phone, row.bsuid, row.opted_out))).collect())
}
