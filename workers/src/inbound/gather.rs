//! Performing: bundles → webhooks → events, each with its tenant. One bad webhook, or one bad element, harms no other.

use super::{Inbound, InboundWorker, parse, placed};
use crate::worker::{Placed, Settle, Ticket};
use anyhow::anyhow;
use shared::{
    crash,
    db::{self, Databases, routing},
    domain::{
        channel::Provider,
        events::{Event, Parsed, RouteKey},
        ids::WebhookId,
    },
    jobs::inbound::{self, RawWebhook},
};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use tracing::{debug, warn};

/// A provider's id longer than this is no id (WhatsApp's are below 256); an index could not hold it.
const MAX_ID_BYTES: usize = 512;

/// A job with the webhooks of it that could be read.
type Read = (Ticket<()>, Vec<(RawWebhook, Parsed)>);

/// Reads and routes the webhooks of these jobs and settles each job.
pub(super) async fn perform(worker: &InboundWorker, jobs: Vec<Ticket<Vec<RawWebhook>>>, settle: &Settle<Inbound>) {
    let mut read: Vec<Read> = Vec::with_capacity(jobs.len());
    for ticket in jobs {
        read.extend(read_job(worker, settle, ticket).await);
    }
    // One question for all; where it cannot be answered, one for each job, so that a bad one harms no other.
    let mut together = vec![read];
    while let Some(mut jobs) = together.pop() {
        match find_routes(worker, settle, &jobs).await {
            Ok(routes) => {
                for (ticket, webhooks) in jobs {
                    let effects = webhooks.into_iter().flat_map(|(webhook, parsed)| split(webhook, parsed, &routes));
                    settle.done(ticket, effects.collect());
                }
            }
            Err(error) if jobs.len() > 1 => {
                warn!(%error, jobs = jobs.len(), "jobs cannot be routed together: each by itself");
                together.extend(jobs.into_iter().map(|job| vec![job]));
            }
            // Not the end of it: who cannot be asked about is not known to be nobody's.
            Err(error) => {
                if let Some((ticket, _)) = jobs.pop() {
                    settle.retry(ticket, None, error);
                }
            }
        }
    }
}

/// Fetches and parses the webhooks of a job; `None` if it is settled already.
async fn read_job(
    worker: &InboundWorker,
    settle: &Settle<Inbound>,
    ticket: Ticket<Vec<RawWebhook>>,
) -> Option<Read> {
    let (mut webhooks, ticket) = ticket.take();
    let mut gone = HashSet::new();
    for webhook in webhooks.iter_mut().filter(|webhook| webhook.meta.stored && webhook.body.is_empty()) {
        match fetch_body(&worker.databases, settle, webhook.meta.id).await {
            Ok(Some(body)) => webhook.body = body.into(),
            Ok(None) => drop(gone.insert(webhook.meta.id)),
            Err(error) => {
                settle.retry(ticket, None, error);
                return None;
            }
        }
    }
    let alone = webhooks.len() == 1;
    let mut read = Vec::with_capacity(webhooks.len());
    let mut unreadable = None;
    for webhook in webhooks {
        crash::taste(&webhook.body);
        let parsed = match gone.contains(&webhook.meta.id) {
            false => parse(webhook.meta.provider, &webhook.body, &webhook.meta).map_err(anyhow::Error::from),
            true => Err(anyhow!("the stored body of webhook {} is gone", webhook.meta.id)),
        };
        match parsed {
            Ok(parsed) => read.push((webhook, parsed)),
            Err(why) if alone => unreadable = Some(why),
            Err(why) => settle.dead_part(&ticket, inbound::to_job(&[webhook], worker.clock.now()), format!("{why:#}")),
        }
    }
    match unreadable {
        None => Some((ticket, read)),
        Some(why) => {
            settle.reject(ticket, why);
            None
        }
    }
}

/// The body of a webhook that was too large to travel; `None` if it is not there any more.
async fn fetch_body(databases: &Databases, settle: &Settle<Inbound>, id: WebhookId) -> db::Result<Option<Vec<u8>>> {
    let load = || async move {
        let mut tx = databases.control().await?;
        routing::load_large_body(&mut tx, id.0).await
    };
    settle.outlast("fetching a large webhook", load).await
}

type Found = HashMap<(Provider, RouteKey), routing::Route>;

/// Where the parts of these jobs' webhooks go. Those for accounts that nobody has are kept for the operator.
async fn find_routes(worker: &InboundWorker, settle: &Settle<Inbound>, read: &[Read]) -> db::Result<Found> {
    let mut wanted: BTreeMap<Provider, BTreeSet<RouteKey>> = BTreeMap::new();
    for (webhook, parsed) in read.iter().flat_map(|(_, webhooks)| webhooks) {
        let keys = parsed.parts.iter().map(|part| part.route.clone());
        wanted.entry(webhook.meta.provider).or_default().extend(keys);
    }
    let mut found = HashMap::new();
    for (provider, keys) in wanted {
        let keys: Vec<RouteKey> = keys.into_iter().collect();
        let keys = keys.as_slice();
        let routes = settle.outlast("finding routes", || worker.routes.find(provider, keys)).await?;
        found.extend(routes.into_iter().map(|(key, route)| ((provider, key), route)));
    }
    record_strangers(&worker.databases, settle, read, &found).await?;
    Ok(found)
}

/// The route of a part, if the webhook may speak for it: one signed with an account's own secret speaks for its tenant only.
fn route<'a>(webhook: &RawWebhook, key: &RouteKey, routes: &'a Found) -> Option<&'a routing::Route> {
    let route = routes.get(&(webhook.meta.provider, key.clone()))?;
    webhook.meta.account.is_none_or(|account| account.tenant_id == route.tenant_id).then_some(route)
}

/// Keeps the parts for accounts that nobody has.
async fn record_strangers(
    databases: &Databases,
    settle: &Settle<Inbound>,
    read: &[Read],
    routes: &Found,
) -> db::Result<()> {
    let mut strangers = Vec::new();
    for (webhook, parsed) in read.iter().flat_map(|(_, webhooks)| webhooks) {
        for part in parsed.parts.iter().filter(|part| route(webhook, &part.route, routes).is_none()) {
            strangers.push(routing::Unroutable {
                webhook_id: webhook.meta.id.0,
                provider: webhook.meta.provider,
                external_id: part.route.external_id().chars().take(MAX_ID_BYTES).collect(),
                received_at: webhook.meta.received_at,
                body_lz4: lz4_flex::compress_prepend_size(&webhook.body),
            });
        }
    }
    if strangers.is_empty() {
        return Ok(());
    }
    metrics::counter!(shared::telemetry::names::INBOUND_UNROUTABLE).increment(strangers.len() as u64);
    debug!(parts = strangers.len(), "webhooks for accounts that nobody has");
    let strangers = strangers.as_slice();
    let record = || async move {
        let mut tx = databases.control().await?;
        routing::record_unroutable(&mut tx, strangers).await?;
        tx.commit().await
    };
    settle.outlast("recording unroutable webhooks", record).await
}

/// What a webhook means for each tenant it speaks to.
fn split(webhook: RawWebhook, parsed: Parsed, routes: &Found) -> Vec<Placed<Inbound>> {
    let bad: Vec<String> = parsed.bad.iter().map(|b| format!("{}: {}", b.path, b.reason)).collect();
    let mut tenants: BTreeMap<_, (routing::Route, Vec<_>, Vec<RouteKey>, Vec<String>)> = BTreeMap::new();
    for part in parsed.parts {
        let Some(route) = route(&webhook, &part.route, routes) else { continue };
        let (_, events, keys, bad) =
            tenants.entry(route.tenant_id).or_insert_with(|| (route.clone(), Vec::new(), Vec::new(), bad.clone()));
        for event in part.events {
            let event = out_of_group(event);
            match unfit(&event) {
                None => events.push((route.channel_account_id, event)),
                Some(why) => bad.push(why.to_owned()),
            }
        }
        keys.push(part.route);
    }
    let shared_by_many = tenants.len() > 1;
    tenants
        .into_iter()
        .map(|(tenant_id, (route, events, keys, bad))| {
            let body = if shared_by_many { only(&webhook.body, &keys) } else { webhook.body.clone() };
            let effect = Inbound {
                meta: webhook.meta.clone(),
                tenant_id,
                events,
                bad,
                body_lz4: lz4_flex::compress_prepend_size(&body),
                body_bytes: body.len(),
                raw: webhook.clone(),
            };
            placed(route.placement, effect)
        })
        .collect()
}

/// What is written in a group is not said to us alone: it opens no window and belongs to no conversation of ours. It stays in
/// the log.
fn out_of_group(event: Event) -> Event {
    match event {
        Event::Message(message) if message.group_id.is_some() => Event::Notice { field: "group_message".to_owned() },
        event => event,
    }
}

/// Why an event cannot be stored although it could be read.
fn unfit(event: &Event) -> Option<&'static str> {
    match event {
        Event::Message(m) if m.provider_message_id.len() > MAX_ID_BYTES => Some("a message's id is too long to be one"),
        Event::Message(m) if m.sender.aliases.is_empty() => Some("a message without a sender"),
        Event::Message(m) if m.sender.aliases.iter().chain(&m.new_aliases).any(|a| a.value.len() > MAX_ID_BYTES) => {
            Some("a sender's id is too long to be one")
        }
        Event::Status(s) if s.provider_message_id.len() > MAX_ID_BYTES => {
            Some("a status's message id is too long to be one")
        }
        _ => None,
    }
}

/// The changes of a webhook that are for these accounts: what else it holds is another tenant's business.
fn only(body: &[u8], keys: &[RouteKey]) -> bytes::Bytes {
    let Ok(mut whole) = serde_json::from_slice::<serde_json::Value>(body) else {
        return bytes::Bytes::from_static(b"{}");
    };
    for entry in whole["entry"].as_array_mut().into_iter().flatten() {
        let account = RouteKey::BusinessAccountId(entry["id"].as_str().unwrap_or_default().to_owned());
        if let Some(changes) = entry["changes"].as_array_mut() {
            changes.retain(|change| match change["value"]["metadata"]["phone_number_id"].as_str() {
                Some(number) => keys.contains(&RouteKey::PhoneNumberId(number.to_owned())),
                None => keys.contains(&account),
            });
        }
    }
    if let Some(entries) = whole["entry"].as_array_mut() {
        entries.retain(|entry| entry["changes"].as_array().is_some_and(|changes| !changes.is_empty()));
    }
    whole.to_string().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shared_webhook_is_logged_for_each_tenant_without_the_others() {
        let change =
            |number: &str| serde_json::json!({"field": "messages", "value": {"metadata": {"phone_number_id": number}}});
        let body = serde_json::json!({"object": "whatsapp_business_account", "entry": [
            {"id": "1", "changes": [change("11"), change("22")]},
            {"id": "2", "changes": [change("33")]},
            {"id": "3", "changes": [{"field": "account_update", "value": {}}]},
        ]});
        let keys = [RouteKey::PhoneNumberId("22".into()), RouteKey::BusinessAccountId("3".into())];
        let kept: serde_json::Value = serde_json::from_slice(&only(body.to_string().as_bytes(), &keys)).unwrap();
        assert_eq!(
            kept["entry"],
            serde_json::json!([
                {"id": "1", "changes": [change("22")]},
                {"id": "3", "changes": [{"field": "account_update", "value": {}}]},
            ])
        );
    }
}
