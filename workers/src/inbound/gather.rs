//! Performing: bundles → webhooks → events, each with its tenant. One bad webhook, or one bad element, harms no other.

use super::{Inbound, InboundWorker, LARGE_AT_ONCE, Place, Told, placed};
use crate::worker::{Placed, Settle, Ticket, Worker as _};
use anyhow::anyhow;
use shared::{
    crash,
    db::{self, Databases, routing},
    domain::{
        channel::Provider,
        events::{BadElement, Event, Parsed, Part, RouteKey},
        ids::{TenantId, WebhookId},
        people::Person,
    },
    jobs::inbound::RawWebhook,
    providers::{self, Unreadable},
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};
use tracing::{debug, warn};

/// A provider's id longer than this is no id (WhatsApp's are below 256); an index could not hold it.
const MAX_ID_BYTES: usize = 512;

/// So many of the accounts that nobody has are named.
const STRANGERS: usize = 20;
/// So many of what is bad in a webhook are named.
const SHOWN: usize = 20;

/// A job with the webhooks of it that could be read.
type Read = (Ticket<()>, Vec<(RawWebhook, Parsed)>);

/// Reads and routes the webhooks of these jobs and settles each job: first those whose bodies are here, then those whose
/// bodies are large, as many at a time as there is room for.
pub(super) async fn perform(worker: &InboundWorker, jobs: Vec<Ticket<Vec<RawWebhook>>>, settle: &Settle<Inbound>) {
    let mut light = Vec::with_capacity(jobs.len());
    let mut heavy: Vec<(usize, Vec<Ticket<Vec<RawWebhook>>>)> = Vec::new();
    for ticket in jobs {
        let large = ticket.job.iter().filter(|webhook| is_elsewhere(webhook)).count();
        match heavy.last_mut() {
            _ if large == 0 => light.push(ticket),
            _ if large > LARGE_AT_ONCE => {
                let parts = InboundWorker::divide(ticket.raw());
                settle.divide(ticket, parts);
            }
            Some((together, tickets)) if *together + large <= LARGE_AT_ONCE => {
                *together += large;
                tickets.push(ticket);
            }
            _ => heavy.push((large, vec![ticket])),
        }
    }
    perform_together(worker, light, settle, None).await;
    for (large, tickets) in heavy {
        // All that these need at once, and given back by the commit alone: nobody waits for somebody who waits.
        let places = u32::try_from(large).expect("at most as many as there are");
        let place = worker.large.clone().acquire_many_owned(places).await.expect("the semaphore is never closed");
        perform_together(worker, tickets, settle, Some(Arc::new(place))).await;
    }
}

/// Whether the body was too large to travel.
fn is_elsewhere(webhook: &RawWebhook) -> bool {
    webhook.meta.stored && webhook.body.is_empty()
}

async fn perform_together(
    worker: &InboundWorker,
    jobs: Vec<Ticket<Vec<RawWebhook>>>,
    settle: &Settle<Inbound>,
    place: Option<Place>,
) {
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
                    let effects = webhooks
                        .into_iter()
                        .flat_map(|(webhook, parsed)| split(webhook, parsed, &routes, place.as_ref()));
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
async fn read_job(worker: &InboundWorker, settle: &Settle<Inbound>, ticket: Ticket<Vec<RawWebhook>>) -> Option<Read> {
    let (mut webhooks, ticket) = ticket.take();
    let (mut gone, mut done) = (HashSet::new(), HashSet::new());
    for webhook in webhooks.iter_mut().filter(|webhook| is_elsewhere(webhook)) {
        match fetch_body(&worker.databases, settle, webhook.meta.id).await {
            Ok(Some(body)) => webhook.body = body.into(),
            // Who has played one again drops the copy: it was done.
            Ok(None) => {
                // Who has played one again drops the copy: it was done.
                let which = if webhook.meta.replay { &mut done } else { &mut gone };
                which.insert(webhook.meta.id);
            }
            Err(error) => {
                settle.retry(ticket, None, error);
                return None;
            }
        }
    }
    let alone = webhooks.len() == 1;
    webhooks.retain(|webhook| !done.contains(&webhook.meta.id));
    let mut read = Vec::with_capacity(webhooks.len());
    let mut unreadable = None;
    for webhook in webhooks {
        crash::taste(&webhook.body);
        let parsed = match gone.contains(&webhook.meta.id) {
            false => usable(providers::parse(&webhook)),
            true => Err(anyhow!("the stored body of webhook {} is gone", webhook.meta.id)),
        };
        match parsed {
            Ok(parsed) => read.push((webhook, parsed)),
            Err(why) if alone => unreadable = Some(why),
            Err(why) => settle.dead_part(&ticket, webhook.alone(worker.clock.now()), format!("{why:#}")),
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

/// A webhook of which something can be put down somewhere. One that says only what nobody can read for nobody who can be made
/// out would vanish.
fn usable(parsed: Result<Parsed, Unreadable>) -> anyhow::Result<Parsed> {
    let parsed = parsed?;
    if parsed.parts.is_empty() && !parsed.bad.is_empty() {
        let bad: Vec<String> = parsed.bad.iter().map(BadElement::to_string).collect();
        return Err(anyhow!("nothing of it can be used: {}", few(&bad)));
    }
    Ok(parsed)
}

/// The first of many complaints, and how many more there are.
pub(super) fn few(bad: &[String]) -> String {
    let mut text = bad[..bad.len().min(SHOWN)].join("; ");
    if bad.len() > SHOWN {
        text.push_str(&format!("; and {} more", bad.len() - SHOWN));
    }
    text
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
        let keys = parsed.parts.iter().flat_map(|part| [Some(&part.route), part.fallback.as_ref()]).flatten().cloned();
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
fn route<'a>(webhook: &RawWebhook, part: &Part, routes: &'a Found) -> Option<&'a routing::Route> {
    let of = |key: &RouteKey| routes.get(&(webhook.meta.provider, key.clone()));
    let route = of(&part.route).or_else(|| of(part.fallback.as_ref()?))?;
    webhook.meta.account.is_none_or(|account| account.tenant_id == route.tenant_id).then_some(route)
}

/// Keeps the webhooks for accounts that nobody has.
async fn record_strangers(
    databases: &Databases,
    settle: &Settle<Inbound>,
    read: &[Read],
    routes: &Found,
) -> db::Result<()> {
    // What is played again is in the log already.
    let webhooks = read.iter().flat_map(|(_, webhooks)| webhooks).filter(|(webhook, _)| !webhook.meta.replay);
    let strangers: Vec<_> = webhooks.filter_map(|(webhook, parsed)| stranger(webhook, parsed, routes)).collect();
    if strangers.is_empty() {
        return Ok(());
    }
    let parts: usize = strangers.iter().map(|webhook| 1 + webhook.others).sum();
    metrics::counter!(shared::telemetry::names::INBOUND_UNROUTABLE).increment(parts as u64);
    debug!(webhooks = strangers.len(), parts, "webhooks for accounts that nobody has");
    let strangers = strangers.as_slice();
    let record = || async move {
        let mut tx = databases.control().await?;
        routing::record_unroutable(&mut tx, strangers).await?;
        tx.commit().await
    };
    settle.outlast("recording unroutable webhooks", record).await
}

/// What is kept of a webhook for accounts that nobody has, or of which a part is so broken that nobody can say for whom it is: its body
/// once, however many they are. Such a part has no id.
fn stranger(webhook: &RawWebhook, parsed: &Parsed, routes: &Found) -> Option<routing::Unroutable> {
    let unknown = parsed.parts.iter().filter(|part| route(webhook, part, routes).is_none());
    let ids = unknown.map(|part| part.route.external_id().chars().take(MAX_ID_BYTES).collect::<String>());
    let mut ids = (!parsed.bad.is_empty()).then(String::new).into_iter().chain(ids);
    let external_id = ids.next()?;
    let other_ids: Vec<String> = ids.by_ref().take(STRANGERS - 1).collect();
    Some(routing::Unroutable {
        meta: webhook.meta.clone(),
        external_id,
        others: other_ids.len() + ids.count(),
        other_ids,
        body_lz4: lz4_flex::compress_prepend_size(&webhook.body),
    })
}

/// What of a webhook is one tenant's.
struct Share {
    route: routing::Route,
    keys: HashSet<RouteKey>,
    events: Vec<Told>,
    bad: Vec<String>,
}

/// What a webhook means for each tenant it speaks to.
fn split(webhook: RawWebhook, parsed: Parsed, routes: &Found, place: Option<&Place>) -> Vec<Placed<Inbound>> {
    let mut shares: BTreeMap<TenantId, Share> = BTreeMap::new();
    // What is for nobody we know, or could not be read, may be anybody's.
    let mut has_strangers = !parsed.bad.is_empty();
    for part in parsed.parts {
        let Some(route) = route(&webhook, &part, routes) else {
            has_strangers = true;
            continue;
        };
        let share = shares.entry(route.tenant_id).or_insert_with(|| Share {
            route: route.clone(),
            keys: HashSet::new(),
            events: Vec::new(),
            bad: Vec::new(),
        });
        share.bad.extend(part.bad.iter().map(BadElement::to_string));
        let (channel_account_id, channel) = (route.channel_account_id, part.route.channel());
        for event in part.events {
            let event = out_of_group(event);
            match unfit(&event) {
                None => share.events.push(Told { channel_account_id, channel, event }),
                Some(why) => share.bad.push(why.to_owned()),
            }
        }
        share.keys.extend([Some(part.route), part.fallback].into_iter().flatten());
    }
    let is_shared = shares.len() > 1 || has_strangers;
    shares
        .into_iter()
        .map(|(tenant_id, Share { route, keys, events, mut bad })| {
            bad.extend(parsed.bad.iter().map(BadElement::to_string));
            let body = if is_shared { providers::excerpt(&webhook, &keys).into() } else { webhook.body.clone() };
            let effect = Inbound {
                meta: webhook.meta.clone(),
                tenant_id,
                channel_account_id: route.channel_account_id,
                events,
                bad,
                body_lz4: lz4_flex::compress_prepend_size(&body),
                body_bytes: body.len(),
                raw: webhook.to_travel(),
                _place: place.cloned(),
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
        Event::Echo(e) if e.provider_message_id.len() > MAX_ID_BYTES => Some("a message's id is too long to be one"),
        Event::Echo(e) => unfit_person(&e.recipient),
        Event::Watermark(w) => unfit_person(&w.person),
        Event::Consent(c) => unfit_person(&c.person),
        _ => None,
    }
}

fn unfit_person(person: &Person) -> Option<&'static str> {
    match person.aliases.as_slice() {
        [] => Some("nobody is named"),
        aliases if aliases.iter().any(|alias| alias.value.len() > MAX_ID_BYTES) => {
            Some("a person's id is too long to be one")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::DateTime;
    use serde_json::{Value, json};
    use shared::{db::Placement, domain::ids::ChannelAccountId, jobs::inbound::Meta};

    fn webhook(changes: &[Value]) -> (RawWebhook, Parsed) {
        let body =
            json!({"object": "whatsapp_business_account", "entry": [{"id": "1", "changes": changes}]}).to_string();
        let meta = Meta {
            id: WebhookId::new(),
            provider: Provider::Whatsapp,
            received_at: DateTime::UNIX_EPOCH,
            account: None,
            query: None,
            stored: false,
            replay: false,
        };
        let webhook = RawWebhook { meta, body: body.into() };
        let parsed = providers::parse(&webhook).unwrap();
        (webhook, parsed)
    }

    /// A change for a number, of messages as they are.
    fn change(number: &str, messages: Value) -> Value {
        json!({"field": "messages", "value": {"metadata": {"phone_number_id": number}, "messages": messages}})
    }

    fn text(id: &str) -> Value {
        json!({"id": id, "from": "15557770142", "type": "text", "text": {"body": "hello"}})
    }

    #[test]
    fn what_nobody_can_be_made_out_for_is_kept_whole_also_if_the_rest_has_found_its_tenant() {
        let (raw, parsed) = webhook(&[change("11", json!([text("a")])), json!(7), change("22", json!([text("b")]))]);
        let kept = stranger(&raw, &parsed, &routes(&["11", "22"])).unwrap();
        assert_eq!((kept.external_id.as_str(), kept.others), ("", 0));
        assert_eq!(lz4_flex::decompress_size_prepended(&kept.body_lz4).unwrap(), raw.body);
        let kept = stranger(&raw, &parsed, &routes(&["11"])).unwrap();
        assert_eq!((kept.external_id.as_str(), kept.other_ids), ("", vec!["22".to_owned()]));
    }

    /// Each of these numbers is a tenant's of its own.
    fn routes(numbers: &[&str]) -> Found {
        let route = |number: &&str| {
            let route = routing::Route {
                tenant_id: TenantId::new(),
                channel_account_id: ChannelAccountId::new(),
                placement: Placement::primary(),
            };
            ((Provider::Whatsapp, RouteKey::PhoneNumberId((*number).to_owned())), route)
        };
        numbers.iter().map(route).collect()
    }

    #[test]
    fn a_webhook_that_says_nothing_readable_to_anybody_is_refused_with_all_that_is_bad() {
        let (_, nothing) = webhook(&[]);
        assert!(usable(Ok(nothing)).is_ok(), "that is not bad");
        let (_, bad) = webhook(&vec![json!(7); 30]);
        let refused = usable(Ok(bad)).unwrap_err().to_string();
        assert!(refused.starts_with("nothing of it can be used: entry[0].changes[0]: is no object; "), "{refused}");
        assert!(refused.ends_with("entry[0].changes[19]: is no object; and 10 more"), "{refused}");
        let (_, bad_for_somebody) = webhook(&[change("11", json!([7]))]);
        assert!(usable(Ok(bad_for_somebody)).is_ok());
    }

    #[test]
    fn what_is_bad_is_shown_to_the_tenant_it_is_for_even_if_nothing_else_is() {
        let (raw, parsed) = webhook(&[change("11", json!([7])), change("22", json!([text("a")]))]);
        let routes = routes(&["11", "22"]);
        let tenant = |number: &str| routes[&(Provider::Whatsapp, RouteKey::PhoneNumberId(number.into()))].tenant_id;
        let effects = split(raw, parsed, &routes, None);
        assert_eq!(effects.len(), 2);
        let of = |number| &effects.iter().find(|placed| placed.tenant == tenant(number)).unwrap().effect;
        assert_eq!(of("11").bad, ["entry[0].changes[0].value.messages[0]: is no object"]);
        assert_eq!((of("11").events.len(), of("22").events.len()), (0, 1));
        assert!(of("22").bad.is_empty());
        for (number, other) in [("11", "22"), ("22", "11")] {
            let body = lz4_flex::decompress_size_prepended(&of(number).body_lz4).unwrap();
            let body = String::from_utf8(body).unwrap();
            assert!(body.contains(number) && !body.contains(other), "{body}");
        }
    }

    #[test]
    fn a_webhook_for_many_strangers_is_kept_once() {
        let numbers: Vec<String> = (100..150).map(|number| number.to_string()).collect();
        let changes: Vec<Value> = numbers.iter().map(|number| change(number, json!([text("a")]))).collect();
        let (raw, parsed) = webhook(&changes);
        let kept = stranger(&raw, &parsed, &routes(&["101"])).unwrap();
        assert_eq!((kept.external_id.as_str(), kept.others), ("100", 48));
        assert_eq!(kept.other_ids, (102..121).map(|number| number.to_string()).collect::<Vec<_>>());
        assert_eq!(lz4_flex::decompress_size_prepended(&kept.body_lz4).unwrap(), raw.body);
        let known: Vec<&str> = numbers.iter().map(String::as_str).collect();
        assert!(stranger(&raw, &parsed, &routes(&known)).is_none());
    }
}
