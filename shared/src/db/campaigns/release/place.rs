//! Where a campaign's messages go: into each person's latest conversation with the account, or a new one.

use super::Released;
use crate::{
    db::{error::Result, inbound::conversations::hold_pairs, scope::FleetTx},
    domain::{
        content::OutboundContent,
        ids::{ChannelAccountId, ContactId, ConversationId, TenantId},
    },
};
use std::collections::{BTreeMap, HashMap};
use uuid::Uuid;

/// Finds or makes everybody's conversation and takes places there. One that is resolved stays so; what an agent's inbox shows
/// and is sorted by does not change, or a campaign would turn it upside down.
pub(super) async fn place(
    tx: &mut FleetTx,
    tenant_id: TenantId,
    account: ChannelAccountId,
    released: &mut [Released],
) -> Result<()> {
    if released.is_empty() {
        return Ok(());
    }
    let mut wanted: BTreeMap<ContactId, Place<'_>> = BTreeMap::new();
    for person in released.iter() {
        let place = wanted.entry(person.contact_id).or_insert_with(|| Place { messages: 0, last: &person.content });
        place.messages += 1;
        place.last = &person.content;
    }
    let mut places = find_and_add(tx, tenant_id, account, &wanted).await?;
    for person in released {
        let (conversation, next) = places.get_mut(&person.contact_id).expect("everybody has a place");
        person.conversation = (*conversation, *next);
        *next += 1;
    }
    Ok(())
}

/// What comes into a person's conversation.
struct Place<'a> {
    messages: i32,
    last: &'a OutboundContent,
}

/// Everybody's conversation with the first place taken in it. New ones are made before others are locked: making one locks the
/// person for a moment, and people come before conversations.
async fn find_and_add(
    tx: &mut FleetTx,
    tenant_id: TenantId,
    account: ChannelAccountId,
    wanted: &BTreeMap<ContactId, Place<'_>>,
) -> Result<HashMap<ContactId, (ConversationId, i64)>> {
    let contacts: Vec<Uuid> = wanted.keys().map(|id| id.0).collect();
    let mut found = find(tx, tenant_id, account, &contacts).await?;
    let without: Vec<Uuid> = contacts.into_iter().filter(|id| !found.contains_key(&ContactId(*id))).collect();
    if !without.is_empty() {
        // Of conversations that are resolved no index keeps out a second one: a batch of webhooks may make one at the same time.
        hold_pairs(tx, &without, &vec![account.0; without.len()]).await?;
        found.extend(find(tx, tenant_id, account, &without).await?);
    }
    let (old, new): (Vec<_>, Vec<_>) = wanted.iter().partition(|(contact, _)| found.contains_key(contact));
    let mut places = start(tx, tenant_id, account, &new).await?;
    places.extend(add(tx, tenant_id, &old, &found).await?);
    Ok(places)
}

/// The open or latest conversations of these people with the account.
async fn find(
    tx: &mut FleetTx,
    tenant_id: TenantId,
    account: ChannelAccountId,
    contacts: &[Uuid],
) -> Result<HashMap<ContactId, ConversationId>> {
    let found = sqlx::query!(
        r#"SELECT asked.id AS "contact_id!: ContactId", latest.id AS "conversation_id!: ConversationId"
        FROM unnest($3::uuid[]) AS asked (id)
        CROSS JOIN LATERAL (
            (SELECT id, 0 AS rank
            FROM conversations
            WHERE tenant_id = $1 AND contact_id = asked.id AND channel_account_id = $2 AND state <> 'resolved'
            LIMIT 1)
            UNION ALL
            (SELECT id, 1
            FROM conversations
            WHERE tenant_id = $1 AND contact_id = asked.id AND channel_account_id = $2 AND state = 'resolved'
                AND merged_into IS NULL
            ORDER BY resolved_at DESC NULLS LAST
            LIMIT 1)
            ORDER BY rank
            LIMIT 1
        ) AS latest"#,
        tenant_id.0,
        account.0,
        contacts,
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(found.into_iter().map(|row| (row.contact_id, row.conversation_id)).collect())
}

/// Conversations for people with whom the account has none: resolved and unlisted until they write.
async fn start(
    tx: &mut FleetTx,
    tenant_id: TenantId,
    account: ChannelAccountId,
    new: &[(&ContactId, &Place<'_>)],
) -> Result<HashMap<ContactId, (ConversationId, i64)>> {
    if new.is_empty() {
        return Ok(HashMap::new());
    }
    let ids: Vec<Uuid> = new.iter().map(|_| ConversationId::new().0).collect();
    let contacts: Vec<Uuid> = new.iter().map(|(contact, _)| contact.0).collect();
    let messages: Vec<i32> = new.iter().map(|(_, place)| place.messages).collect();
    let words: Vec<String> = new.iter().map(|(_, place)| place.last.preview()).collect();
    sqlx::query!(
        "INSERT INTO conversations (tenant_id, id, contact_id, channel_account_id, state, origin, listed, messages_out,
            last_send_seq, last_message_at, last_message_text, last_message_direction, resolved_at)
        SELECT $1, id, contact_id, $2, 'resolved', 'campaign', false, messages, messages, now(), words, 'out', now()
        FROM unnest($3::uuid[], $4::uuid[], $5::int[], $6::text[]) AS new (id, contact_id, messages, words)
        ORDER BY contact_id",
        tenant_id.0,
        account.0,
        &ids,
        &contacts,
        &messages,
        &words,
    )
    .execute(tx.conn())
    .await?;
    Ok(new.iter().zip(ids).map(|((contact, _), id)| (**contact, (ConversationId(id), 1))).collect())
}

/// Takes places in conversations that are there.
async fn add(
    tx: &mut FleetTx,
    tenant_id: TenantId,
    old: &[(&ContactId, &Place<'_>)],
    found: &HashMap<ContactId, ConversationId>,
) -> Result<HashMap<ContactId, (ConversationId, i64)>> {
    if old.is_empty() {
        return Ok(HashMap::new());
    }
    let ids: Vec<Uuid> = old.iter().map(|(contact, _)| found[contact].0).collect();
    let messages: Vec<i32> = old.iter().map(|(_, place)| place.messages).collect();
    let words: Vec<String> = old.iter().map(|(_, place)| place.last.preview()).collect();
    let rows = sqlx::query!(
        r#"WITH added AS MATERIALIZED (
            SELECT v.id, a.messages, a.words
            FROM unnest($2::uuid[], $3::int[], $4::text[]) AS a (id, messages, words)
            JOIN conversations v ON v.tenant_id = $1 AND v.id = a.id
            ORDER BY v.id
            FOR UPDATE OF v
        )
        UPDATE conversations v
        SET last_send_seq = v.last_send_seq + added.messages,
            messages_out = v.messages_out + added.messages,
            last_message_at = CASE WHEN v.listed THEN v.last_message_at ELSE greatest(v.last_message_at, now()) END,
            last_message_text = CASE WHEN v.listed THEN v.last_message_text ELSE added.words END,
            last_message_direction = CASE WHEN v.listed THEN v.last_message_direction ELSE 'out' END
        FROM added
        WHERE v.tenant_id = $1 AND v.id = added.id
        RETURNING v.id AS "id: ConversationId", v.contact_id AS "contact_id: ContactId",
            v.last_send_seq - added.messages + 1 AS "next!""#,
        tenant_id.0,
        &ids,
        &messages,
        &words,
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(rows.into_iter().map(|row| (row.contact_id, (row.id, row.next))).collect())
}
