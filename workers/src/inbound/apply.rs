//! Applying: a batch of webhooks, written set by set. Nothing here depends on the order in which batches commit.

use super::{Inbound, Told, gather::few};
use chrono::{DateTime, TimeDelta, Utc};
use shared::{
    db::{
        self, FleetTx,
        inbound::{
            conversations::{self, Pair, RollUp},
            log::{self, Entry},
            messages::{self, NewMessage, Ref},
            people::{self, Wanted},
            received,
            reports::{self, Report},
        },
        outbound::counts,
    },
    domain::{
        channel::Channel,
        events::{Event, InboundMessage},
        ids::{ChannelAccountId, MessageId, TenantId},
        people::{Alias, AliasKind, Person, PhoneNumber},
    },
};
use std::collections::{BTreeMap, HashMap, HashSet};

/// What is older than this by the provider's time is nobody's news: it is stored and triggers nothing.
const FRESH: TimeDelta = TimeDelta::hours(24);
/// What was received longer ago does not count in this second's messages.
const JUST_NOW: TimeDelta = TimeDelta::seconds(3);
/// So much of a message is shown in a list of conversations.
const PREVIEW_CHARS: usize = 200;

/// One message of the batch.
struct Item<'a> {
    webhook: &'a Inbound,
    channel_account_id: ChannelAccountId,
    channel: Channel,
    message: &'a InboundMessage,
    id: MessageId,
}

impl Item<'_> {
    fn is_fresh(&self) -> bool {
        !self.webhook.meta.replay && self.message.at > self.webhook.meta.received_at - FRESH
    }
}

/// Writes a batch down.
pub(super) async fn apply(tx: &mut FleetTx, effects: &[Inbound], now: DateTime<Utc>) -> Result<(), db::Error> {
    let items = distinct_messages(effects);
    let wanted: Vec<Wanted> = items.iter().map(|item| wanted(item)).collect();
    let contacts = people::resolve(tx, &wanted).await?;
    let refs: Vec<Ref<'_>> = items
        .iter()
        .map(|item| Ref {
            tenant_id: item.webhook.tenant_id,
            channel_account_id: item.channel_account_id,
            provider_message_id: &item.message.provider_message_id,
            message_id: item.id,
        })
        .collect();
    let new = messages::claim(tx, &refs).await?;
    let fresh: Vec<(&Item<'_>, Pair)> = items
        .iter()
        .zip(&contacts)
        .filter(|(item, _)| new.contains(&item.id))
        .map(|(item, contact)| (item, (item.webhook.tenant_id, *contact, item.channel_account_id)))
        .collect();
    let conversations = conversations::roll_up(tx, &roll_ups(&fresh)).await?;
    let rows: Vec<NewMessage<'_>> = fresh
        .iter()
        .map(|(item, pair)| NewMessage {
            tenant_id: item.webhook.tenant_id,
            id: item.id,
            conversation_id: conversations[pair],
            kind: item.message.kind,
            text: item.message.text.as_deref(),
            content: item.message.raw.get(),
            media: &item.message.media,
            refers_to: item.message.refers_to.as_deref(),
            provider_message_id: &item.message.provider_message_id,
            at: item.message.at,
        })
        .collect();
    messages::insert(tx, &rows).await?;
    let moved = reports::apply(tx, &reports(effects)).await?;
    let stored: HashSet<_> = fresh.iter().map(|(item, _)| (item.webhook.meta.id, item.webhook.tenant_id)).collect();
    // What is played again is in the log already, where its first outcome stays.
    let logged = effects.iter().filter(|e| !e.meta.replay);
    let entries: Vec<Entry> = logged.map(|e| entry(e, stored.contains(&(e.meta.id, e.tenant_id)))).collect();
    log::insert(tx, &entries).await?;
    counts::count(tx, &moved).await?;
    received::count(tx, &received_now(&fresh, now)).await
}

/// How many messages each account received now. What a replay brings came long ago, and so did what is made up for after an
/// outage of ours.
fn received_now(fresh: &[(&Item<'_>, Pair)], now: DateTime<Utc>) -> BTreeMap<(TenantId, ChannelAccountId), i32> {
    let mut received = BTreeMap::new();
    let is_now = |item: &Item<'_>| !item.webhook.meta.replay && item.webhook.meta.received_at > now - JUST_NOW;
    for (item, _) in fresh.iter().filter(|(item, _)| is_now(item)) {
        *received.entry((item.webhook.tenant_id, item.channel_account_id)).or_default() += 1;
    }
    received
}

/// The batch's messages, each once: a webhook may be repeated within it.
fn distinct_messages(effects: &[Inbound]) -> Vec<Item<'_>> {
    let mut seen: HashSet<(TenantId, ChannelAccountId, &str)> = HashSet::new();
    let mut items = Vec::new();
    for webhook in effects {
        for Told { channel_account_id, channel, event } in &webhook.events {
            let Event::Message(message) = event else { continue };
            let (channel_account_id, channel) = (*channel_account_id, *channel);
            if seen.insert((webhook.tenant_id, channel_account_id, &message.provider_message_id)) {
                items.push(Item { webhook, channel_account_id, channel, message, id: MessageId::new() });
            }
        }
    }
    items
}

/// The sender with, besides the names given, the telephone number a WhatsApp id stands for: who was entered by hand or
/// imported by number is the same person.
fn wanted(item: &Item<'_>) -> Wanted {
    let mut person: Person = item.message.sender.clone();
    if person.aliases.iter().all(|alias| alias.kind != AliasKind::Phone) {
        let id = person.aliases.iter().find(|alias| alias.kind == AliasKind::WhatsappId);
        if let Some(phone) = id.and_then(|alias| PhoneNumber::from_whatsapp_id(&alias.value)) {
            person.aliases.push(Alias { kind: AliasKind::Phone, value: phone.as_str().to_owned() });
        }
    }
    Wanted { tenant_id: item.webhook.tenant_id, person, new_aliases: item.message.new_aliases.clone() }
}

/// What the new messages of each contact on each account add up to.
fn roll_ups(fresh: &[(&Item<'_>, Pair)]) -> Vec<RollUp> {
    let mut roll_ups: BTreeMap<Pair, RollUp> = BTreeMap::new();
    for (item, pair) in fresh {
        let said = item.message.kind.is_said();
        let news = said && item.is_fresh();
        let at = item.message.at;
        let r = roll_ups.entry(*pair).or_insert_with(|| RollUp {
            pair: *pair,
            messages: 0,
            unread: 0,
            reopens: false,
            said: false,
            last_at: DateTime::<Utc>::MIN_UTC,
            last_text: None,
            last_said_at: None,
            window_expires_at: None,
        });
        r.messages += 1;
        r.unread += i32::from(news);
        r.reopens |= news;
        r.said |= said;
        if at >= r.last_at {
            r.last_at = at;
            r.last_text = item.message.text.as_deref().map(preview);
        }
        if said {
            r.last_said_at = r.last_said_at.max(Some(at));
        }
        if let Some(window) = item.channel.window().filter(|_| item.message.kind.opens_window(item.channel)) {
            r.window_expires_at = r.window_expires_at.max(Some(at + window));
        }
    }
    roll_ups.into_values().collect()
}

fn preview(text: &str) -> String {
    text.chars().take(PREVIEW_CHARS).collect()
}

fn reports(effects: &[Inbound]) -> Vec<Report> {
    let mut reports = Vec::new();
    for webhook in effects {
        for Told { channel_account_id, event, .. } in &webhook.events {
            let Event::Status(status) = event else { continue };
            reports.push(Report {
                tenant_id: webhook.tenant_id,
                channel_account_id: *channel_account_id,
                provider_message_id: status.provider_message_id.clone(),
                state: status.state,
                status: status.status.clone(),
                at: status.at,
                code: status.code.clone(),
                reason: status.reason.clone(),
                token: status.token,
            });
        }
    }
    reports
}

fn entry(webhook: &Inbound, stored: bool) -> Entry {
    let (mut messages, mut statuses, mut notices) = (0_usize, 0_usize, HashMap::<&str, usize>::new());
    for Told { event, .. } in &webhook.events {
        match event {
            Event::Message(_) | Event::Echo(_) => messages += 1,
            Event::Status(_) | Event::Watermark(_) => statuses += 1,
            Event::Consent(change) => *notices.entry(change.source).or_default() += 1,
            Event::Account(change) => *notices.entry(&change.field).or_default() += 1,
            Event::Template(change) => *notices.entry(&change.field).or_default() += 1,
            Event::Notice { field } => *notices.entry(field).or_default() += 1,
        }
    }
    let outcome = match () {
        () if !webhook.bad.is_empty() => "partly_bad",
        () if messages > 0 && !stored && statuses == 0 => "duplicate",
        () if messages == 0 && statuses == 0 => "notice",
        () => "stored",
    };
    let mut detail: Vec<String> = notices.keys().map(|field| (*field).to_owned()).collect();
    detail.sort_unstable();
    detail.extend((!webhook.bad.is_empty()).then(|| few(&webhook.bad)));
    Entry {
        tenant_id: webhook.tenant_id,
        received_at: webhook.meta.received_at,
        webhook_id: webhook.meta.id,
        provider: webhook.meta.provider,
        channel_account_id: Some(webhook.channel_account_id),
        outcome,
        detail: (!detail.is_empty()).then(|| detail.join("; ")),
        query: webhook.meta.query.clone(),
        body_lz4: webhook.body_lz4.clone(),
        body_bytes: webhook.body_bytes,
    }
}
