//! What a release writes: messages, their sends, and what became of the people.

use super::{Released, Running, Skipped};
use crate::{
    db::{error::Result, outbound::turns::CAMPAIGN_LANE, scope::FleetTx},
    domain::{
        campaigns::{Addressee, SkipReason},
        channel::{Channel, Provider},
        content::Class,
        ids::{ChannelAccountId, TenantId},
        people::{Address, RecipientKind},
        sms,
    },
};
use uuid::Uuid;

/// Writes the messages and their sends.
pub(super) async fn insert(
    tx: &mut FleetTx,
    tenant_id: TenantId,
    (account, provider, channel): (ChannelAccountId, Provider, Channel),
    campaigns: &[Running],
    released: &[Released],
) -> Result<()> {
    if released.is_empty() {
        return Ok(());
    }
    let messages: Vec<Uuid> = released.iter().map(|person| person.message_id.0).collect();
    let conversations: Vec<Uuid> = released.iter().map(|person| person.conversation.0.0).collect();
    let kinds: Vec<String> = released.iter().map(|person| person.content.kind().as_str().to_owned()).collect();
    let texts: Vec<String> = released.iter().map(|person| person.content.preview()).collect();
    let content = |person: &Released| serde_json::to_value(&person.content).expect("plain fields are always JSON");
    let contents: Vec<serde_json::Value> = released.iter().map(content).collect();
    let authors: Vec<Option<Uuid>> = released.iter().map(|person| campaigns[person.campaign].author).collect();
    sqlx::query!(
        "INSERT INTO messages (tenant_id, id, conversation_id, direction, kind, text, content, at, author)
        SELECT $1, id, conversation_id, 'out', kind, words, content, now(), author
        FROM unnest($2::uuid[], $3::uuid[], $4::text[], $5::text[], $6::jsonb[], $7::uuid[])
            AS m (id, conversation_id, kind, words, content, author)",
        tenant_id.0,
        &messages,
        &conversations,
        &kinds,
        &texts,
        &contents,
        &authors as &[Option<Uuid>],
    )
    .execute(tx.conn())
    .await?;
    let seqs: Vec<i64> = released.iter().map(|person| person.conversation.1).collect();
    let recipient = |to: &Addressee| match &to.address {
        Some(Address { kind, value }) => (kind.as_str().to_owned(), value.clone()),
        // Nobody without an address is released.
        None => (RecipientKind::Address.as_str().to_owned(), String::new()),
    };
    let (kinds, recipients): (Vec<String>, Vec<String>) = released.iter().map(|person| recipient(&person.to)).unzip();
    let windows: Vec<bool> =
        released.iter().map(|person| person.content.needs_open_window(provider, channel)).collect();
    let units: Vec<i16> = released.iter().map(|person| sms::units(channel, &person.content)).collect();
    let heavy: Vec<bool> = released.iter().map(|person| person.content.class() == Class::Heavy).collect();
    let of: Vec<Uuid> = released.iter().map(|person| campaigns[person.campaign].id.0).collect();
    sqlx::query!(
        "INSERT INTO sends (tenant_id, message_id, conversation_id, channel_account_id, seq, lane, recipient_kind, recipient,
            needs_window, state, campaign_id, units, heavy)
        SELECT $1, message_id, conversation_id, $2, seq, $10, kind, recipient, needs_window, 'queued', campaign_id, units, heavy
        FROM unnest($3::uuid[], $4::uuid[], $5::bigint[], $6::text[], $7::text[], $8::bool[], $9::uuid[], $11::smallint[], $12::bool[])
            AS s (message_id, conversation_id, seq, kind, recipient, needs_window, campaign_id, units, heavy)",
        tenant_id.0,
        account.0,
        &messages,
        &conversations,
        &seqs,
        &kinds,
        &recipients,
        &windows,
        &of,
        CAMPAIGN_LANE,
        &units,
        &heavy,
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Writes down who was let go, and with which message, and who was not and why.
pub(super) async fn mark(
    tx: &mut FleetTx,
    tenant_id: TenantId,
    campaigns: &[Running],
    released: &[Released],
    skipped: &[Skipped],
) -> Result<()> {
    let mut rows: Vec<(Uuid, Uuid, Option<Uuid>, Option<String>)> = Vec::with_capacity(released.len() + skipped.len());
    rows.extend(released.iter().map(|p| (campaigns[p.campaign].id.0, p.contact_id.0, Some(p.message_id.0), None)));
    let reason = |reason: SkipReason| Some(reason.as_str().to_owned());
    rows.extend(skipped.iter().map(|p| (campaigns[p.campaign].id.0, p.contact_id.0, None, reason(p.reason))));
    if rows.is_empty() {
        return Ok(());
    }
    let of: Vec<Uuid> = rows.iter().map(|row| row.0).collect();
    let contacts: Vec<Uuid> = rows.iter().map(|row| row.1).collect();
    let messages: Vec<Option<Uuid>> = rows.iter().map(|row| row.2).collect();
    let reasons: Vec<Option<String>> = rows.into_iter().map(|row| row.3).collect();
    sqlx::query!(
        "UPDATE campaign_recipients r
        SET state = CASE WHEN marked.message_id IS NULL THEN 'skipped' ELSE 'released' END,
            message_id = marked.message_id, skip_reason = marked.reason
        FROM unnest($2::uuid[], $3::uuid[], $4::uuid[], $5::text[]) AS marked (campaign_id, contact_id, message_id, reason)
        WHERE r.tenant_id = $1 AND r.campaign_id = marked.campaign_id AND r.contact_id = marked.contact_id",
        tenant_id.0,
        &of,
        &contacts,
        &messages as &[Option<Uuid>],
        &reasons as &[Option<String>],
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}
