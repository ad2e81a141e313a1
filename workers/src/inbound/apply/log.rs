//! The raw log: every webhook of the batch as it came, with what became of it. What is played again is in it already.

use super::{Heard, Inbound, Item, Placed, Told, people::People};
use crate::inbound::gather::few;
use shared::{
    db::{
        self, FleetTx,
        inbound::log::{self, Entry, Outcome},
    },
    domain::{
        events::{ConsentChange, Event},
        ids::{TenantId, WebhookId},
    },
};
use std::collections::{BTreeSet, HashSet};

/// What became of messages.
#[derive(Default)]
struct Fate {
    /// Webhooks of which something was stored.
    stored: HashSet<(WebhookId, TenantId)>,
    /// Those that tell of somebody who was erased since.
    erased: HashSet<(WebhookId, TenantId)>,
}

pub(super) async fn insert(
    tx: &mut FleetTx,
    effects: &[Inbound],
    items: &[Item<'_>],
    consents: &[Heard<'_, &ConsentChange>],
    people: &People,
    placed: &[Placed<'_>],
) -> Result<(), db::Error> {
    let fate = Fate {
        stored: placed.iter().map(|p| p.item.webhook_key()).collect(),
        erased: items
            .iter()
            .zip(&people.items)
            .filter(|(_, contact)| contact.is_none())
            .map(|(item, _)| item.webhook_key())
            .chain(consents.iter().zip(&people.consents).filter(|(_, who)| who.is_none()).map(|(c, _)| c.webhook.key()))
            .collect(),
    };
    let entries: Vec<Entry> =
        effects.iter().filter(|webhook| !webhook.meta.replay).map(|webhook| entry(webhook, &fate)).collect();
    log::insert(tx, &entries).await
}

fn entry(webhook: &Inbound, fate: &Fate) -> Entry {
    let (mut messages, mut statuses, mut notices) = (0_usize, 0_usize, BTreeSet::<&str>::new());
    for Told { event, .. } in &webhook.events {
        match event {
            // Of a send of ours.
            Event::Echo(echo) if echo.token.is_some() => statuses += 1,
            Event::Message(_) | Event::Echo(_) => messages += 1,
            Event::Status(_) | Event::Watermark(_) => statuses += 1,
            Event::Consent(change) => drop(notices.insert(change.source)),
            Event::Account(change) => drop(notices.insert(&change.field)),
            Event::Template(change) => drop(notices.insert(&change.field)),
            Event::Notice { field } => drop(notices.insert(field)),
        }
    }
    let key = webhook.key();
    let (stored, erased) = (fate.stored.contains(&key), fate.erased.contains(&key));
    let outcome = match () {
        () if !webhook.bad.is_empty() => Outcome::PartlyBad,
        () if erased && !stored => Outcome::Erased,
        () if messages > 0 && !stored && statuses == 0 => Outcome::Duplicate,
        () if messages == 0 && statuses == 0 => Outcome::Notice,
        () => Outcome::Stored,
    };
    let mut detail: Vec<String> = notices.into_iter().map(str::to_owned).collect();
    detail.extend((!webhook.bad.is_empty()).then(|| few(&webhook.bad)));
    detail.extend(erased.then(|| "the body is not kept: somebody it tells of was erased".to_owned()));
    Entry {
        tenant_id: webhook.tenant_id,
        received_at: webhook.meta.received_at,
        webhook_id: webhook.meta.id,
        provider: webhook.meta.provider,
        channel_account_id: Some(webhook.channel_account_id),
        outcome,
        detail: (!detail.is_empty()).then(|| detail.join("; ")),
        query: webhook.meta.query.clone().filter(|_| !erased),
        // What else it tells is stored.
        body_lz4: if erased { lz4_flex::compress_prepend_size(&[]) } else { webhook.body_lz4.clone() },
        body_bytes: if erased { 0 } else { webhook.body_bytes },
    }
}
