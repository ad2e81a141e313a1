//! What a mix needs before it starts: an account at every provider, and the messages that its reports are about, each to somebody
//! who had got none. The same rows as the yardstick prepares, in our own tables.

use anyhow::{Context, Result};
use shared::domain::ids::ChannelAccountId;
use uuid::Uuid;

use super::installation::Installation;
use crate::generate::mix::{Door, Known, Mix};
use crate::measure::ingest::MIX_RUN;

/// Messages prepared with one statement.
const AT_ONCE: usize = 10_000;

/// Adds what is missing. Returns how many messages had been sent.
pub(super) async fn prepare(installation: &mut Installation, mix: Mix) -> Result<u64> {
    let number = *installation.accounts.first().context("an installation has a number")?;
    let mut accounts = vec![(Door::Whatsapp, number)];
    for door in Door::ALL.into_iter().filter(|door| *door != Door::Whatsapp) {
        accounts.push((door, add_account(installation, door).await?));
    }
    let known: Vec<Known> = mix.known(MIX_RUN).collect();
    for known in known.chunks(AT_ONCE) {
        add_sends(installation, &accounts, known, mix).await?;
    }
    let conn = installation.database.connection();
    sqlx::raw_sql("ANALYZE").execute(conn).await?;
    installation.database.checkpoint().await?;
    Ok(known.len() as u64)
}

async fn add_account(installation: &mut Installation, door: Door) -> Result<ChannelAccountId> {
    let (tenant_id, id, external_id) = (installation.tenant_id, ChannelAccountId::new(), door.account());
    let kind = match door {
        Door::Whatsapp => "phone_number_id",
        Door::Messenger => "page_id",
        Door::Instagram => "instagram_account_id",
        Door::Sms | Door::TwilioWhatsapp => "twilio_sender",
    };
    sqlx::query(
        "WITH account AS (
            INSERT INTO channel_accounts (tenant_id, id, provider, name, external_id, sealed_secrets, secret_key_id)
            VALUES ($1, $2, $3, 'load', $4, '', 'load')
        )
        INSERT INTO control.channel_routes (provider, kind, external_id, tenant_id, channel_account_id)
        VALUES ($3, $5, $4, $1, $2)",
    )
    .bind(tenant_id)
    .bind(id)
    .bind(door.provider())
    .bind(&external_id)
    .bind(kind)
    .execute(installation.database.connection())
    .await?;
    Ok(id)
}

async fn add_sends(
    installation: &mut Installation,
    accounts: &[(Door, ChannelAccountId)],
    known: &[Known],
    mix: Mix,
) -> Result<()> {
    let account = |door: Door| accounts.iter().find(|(known, _)| *known == door).map(|(_, id)| *id);
    let ids = || known.iter().map(|_| Uuid::now_v7()).collect::<Vec<_>>();
    let (kinds, names): (Vec<&str>, Vec<String>) = known.iter().map(alias).unzip();
    sqlx::query(
        "WITH known AS MATERIALIZED (
            SELECT *
            FROM unnest($2::uuid[], $3::uuid[], $4::uuid[], $5::uuid[], $6::uuid[], $7::text[], $8::text[], $9::text[], $10::text[])
                AS known (contact_id, conversation_id, message_id, attempt_id, account_id, kind, name, recipient, provider_id)
        ),
        contact AS (INSERT INTO contacts (tenant_id, id) SELECT $1, contact_id FROM known),
        alias AS (
            INSERT INTO contact_aliases (tenant_id, kind, value, contact_id) SELECT $1, kind, name, contact_id FROM known
        ),
        conversation AS (
            INSERT INTO conversations (tenant_id, id, contact_id, channel_account_id, state, origin, messages_out, last_message_at,
                last_message_text, last_message_direction, last_send_seq)
            SELECT $1, conversation_id, contact_id, account_id, 'open', 'agent', 1, to_timestamp($11), 'Hello', 'out', 1
            FROM known
        ),
        message AS (
            INSERT INTO messages (tenant_id, id, conversation_id, direction, kind, text, content, at)
            SELECT $1, message_id, conversation_id, 'out', 'text', 'Hello', '{}', to_timestamp($11)
            FROM known
        ),
        send AS (
            INSERT INTO sends (tenant_id, message_id, conversation_id, channel_account_id, seq, recipient_kind, recipient, needs_window,
                state, attempt_id, attempts, provider_message_id, sent_at)
            SELECT $1, message_id, conversation_id, account_id, 1, 'phone', recipient, false, 'sent', attempt_id, 1, provider_id,
                to_timestamp($11)
            FROM known
        )
        INSERT INTO provider_refs (tenant_id, channel_account_id, provider_message_id, message_id)
        SELECT $1, account_id, provider_id, message_id
        FROM known",
    )
    .bind(installation.tenant_id)
    .bind(ids())
    .bind(ids())
    .bind(ids())
    .bind(ids())
    .bind(known.iter().map(|known| account(known.door)).collect::<Vec<_>>())
    .bind(kinds)
    .bind(names)
    .bind(known.iter().map(|known| known.recipient.as_str()).collect::<Vec<_>>())
    .bind(known.iter().map(|known| known.provider_message_id.as_str()).collect::<Vec<_>>())
    .bind(mix.sent_at as f64)
    .execute(installation.database.connection())
    .await?;
    Ok(())
}

fn alias(known: &Known) -> (&'static str, String) {
    let plain = known.recipient.trim_start_matches("whatsapp:+").to_owned();
    match known.door {
        Door::Whatsapp | Door::TwilioWhatsapp => ("whatsapp_id", plain),
        Door::Messenger => ("messenger_id", plain),
        Door::Instagram => ("instagram_id", plain),
        Door::Sms => ("phone", plain),
    }
}
