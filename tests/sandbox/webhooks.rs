//! Delivers webhooks as the providers do: signed, over kept-alive connections. Meta tries again on anything but 200, at once and
//! then ever more rarely, until they are too old (contract page, section 1.3); Twilio as the URL says, and then at the fallback.

use super::{
    accounts::Account,
    agenda::{PlannedStatus, Task},
    behaviour::{Behaviour, Status},
    course::Owner,
    ledger::{Attempt, Delivery, Direction, Flaw, Reply, Told, WebhookEntry},
    messaging,
    meters::Wrote,
    people::{Kind, Person},
    platform::Platform,
    provider::Provider,
    registry::Number,
    sign, statuses,
    twilio::{self, Overrides},
};
use anyhow::Context;
use bytes::Bytes;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::sync::{Semaphore, oneshot};

/// A webhook about people, ready to be sent.
#[derive(Debug, Clone)]
pub struct InboundWebhook {
    /// Whose.
    pub platform: Platform,
    /// The number, Page, professional account or sender it is about.
    pub account: String,
    /// What is sent, and how.
    pub parcel: Parcel,
    /// Where it goes when the first address did not take it (Twilio).
    pub fallback: Option<Parcel>,
    /// What is wrong with it on purpose.
    pub flaw: Flaw,
    /// The messages in it.
    pub told: Vec<Told>,
    /// How many statuses, receipts and watermarks are in it.
    pub statuses: usize,
    /// What the provider's clock says when it sends it first.
    pub at_ms: i64,
    pub(super) deeds: Vec<Deed>,
}

/// What is sent, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parcel {
    /// The URL with everything in it, connection overrides included; where the account's webhooks go if there is none.
    pub url: Option<String>,
    /// The body's type; without one it is a GET.
    pub content_type: Option<&'static str>,
    /// The bytes.
    pub body: Bytes,
    /// `X-Hub-Signature-256` or `X-Twilio-Signature`.
    pub signature: String,
    /// `I-Twilio-Idempotency-Token`: the same however often it is tried.
    pub idempotency_token: Option<String>,
}

impl Parcel {
    /// Meta's: JSON to wherever the account's webhooks go.
    pub(super) fn json(body: Bytes, app_secret: &str) -> Self {
        let signature = sign::signature(app_secret, &body);
        Self { url: None, content_type: Some("application/json"), body, signature, idempotency_token: None }
    }
}

/// What a person did, for the provider's own books.
#[derive(Debug, Clone)]
pub(super) struct Deed {
    pub(super) person: Person,
    pub(super) kind: Kind,
    pub(super) timestamp: i64,
}

/// A webhook on its way.
#[derive(Debug)]
pub(super) struct Outgoing {
    seq: u64,
    platform: Platform,
    url: String,
    parcel: Parcel,
    fallback: Option<Parcel>,
    statuses: Vec<(u64, Status)>,
    failures: u32,
    /// Twilio's, of the URL in use.
    overrides: Overrides,
    give_up_us: u64,
    /// Somebody waits for the first answer.
    replied: Option<oneshot::Sender<Reply>>,
    told: Vec<oneshot::Sender<()>>,
}

/// Works off the agenda until the sandbox stops.
pub(super) async fn run(provider: Arc<Provider>) {
    let slots = Arc::new(Semaphore::new(provider.config.webhook_concurrency));
    loop {
        let behaviour = provider.behaviour();
        let (due, next_us) = provider.agenda.take(provider.clock.now_us(), 4_096);
        if due.is_empty() {
            let next = async {
                match next_us {
                    Some(at_us) => tokio::time::sleep_until(provider.clock.instant(at_us).into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = next => {
                    let linger = Duration::from_millis(behaviour.batch_linger_ms);
                    if !linger.is_zero() {
                        tokio::time::sleep(linger).await;
                    }
                }
                () = provider.agenda.changed() => {}
                () = provider.stopping.cancelled() => return,
            }
            continue;
        }
        let mut by_number: BTreeMap<Arc<str>, Vec<PlannedStatus>> = BTreeMap::new();
        let mut outgoing = Vec::new();
        for task in due {
            match task {
                Task::Status(planned) => match &planned.owner {
                    Owner::Number(number) => by_number.entry(number.id.clone()).or_default().push(planned),
                    Owner::Account(account) => {
                        let account = account.clone();
                        outgoing.extend(happened(&provider, &account, planned));
                    }
                },
                Task::Deliver(webhook) => outgoing.push(*webhook),
            }
        }
        for planned in by_number.into_values() {
            outgoing.extend(status_webhooks(&provider, &behaviour, planned));
        }
        for webhook in outgoing {
            let Ok(slot) = slots.clone().acquire_owned().await else { return };
            let provider = provider.clone();
            provider.clone().tasks.spawn(async move {
                deliver(&provider, webhook).await;
                drop(slot);
            });
        }
    }
}

/// Records a webhook about people and does what it means for the provider's own books. It is not posted yet.
pub(super) fn admit(
    provider: &Provider,
    number: &Number,
    webhook: InboundWebhook,
    replied: Option<oneshot::Sender<Reply>>,
) -> Outgoing {
    let behaviour = number.behaviour(provider.behaviour());
    if matches!(webhook.flaw, Flaw::None | Flaw::Repeated) {
        let now_us = provider.clock.now_us();
        let mut live = number.live();
        if webhook.flaw == Flaw::None {
            live.meters.count_inbound(webhook.told.len() as u32, now_us, &behaviour);
        }
        for deed in &webhook.deeds {
            let person = &deed.person;
            live.meters.wrote(
                &Wrote {
                    phone: person.shares_phone.then_some(&person.wa_id),
                    user_id: Some(&person.user_id),
                    at_us: provider.clock.since_start_us(deed.timestamp),
                    opens_window: deed.kind.opens_window(),
                    from_ad: deed.kind == Kind::AdReferral,
                },
                &behaviour,
            );
            match deed.kind {
                Kind::MarketingStopped => live.meters.set_marketing(person.key(), true),
                Kind::MarketingResumed => live.meters.set_marketing(person.key(), false),
                _ => {}
            }
        }
    }
    record(provider, number.id.clone(), provider.webhook_url(&number.spec), webhook, replied)
}

/// Records a webhook of another account and does what it means for its provider's own books. It is not posted yet.
pub(super) fn admit_of(
    provider: &Provider,
    account: &Account,
    webhook: InboundWebhook,
    replied: Option<oneshot::Sender<Reply>>,
) -> Outgoing {
    if webhook.flaw == Flaw::None {
        account.told(provider, &webhook.told);
    }
    record(provider, account.id.clone(), provider.account_url(&account.spec), webhook, replied)
}

/// Records a webhook of whichever account it names.
///
/// # Errors
/// If there is no such account.
pub(super) fn admit_any(
    provider: &Provider,
    webhook: InboundWebhook,
    replied: Option<oneshot::Sender<Reply>>,
) -> anyhow::Result<Outgoing> {
    let (platform, id) = (webhook.platform, &webhook.account);
    if platform == Platform::Whatsapp {
        let number = provider.registry.number(id).with_context(|| format!("the sandbox has no number {id}"))?;
        return Ok(admit(provider, &number, webhook, replied));
    }
    let account = provider
        .registry
        .account(platform, id)
        .with_context(|| format!("the sandbox has no {platform} account {id}"))?;
    Ok(admit_of(provider, &account, webhook, replied))
}

fn record(
    provider: &Provider,
    account: Arc<str>,
    url: String,
    webhook: InboundWebhook,
    replied: Option<oneshot::Sender<Reply>>,
) -> Outgoing {
    let behaviour = provider.behaviour();
    let now_us = provider.clock.now_us();
    let InboundWebhook { platform, parcel, fallback, flaw, told, statuses, .. } = webhook;
    let entry = WebhookEntry {
        seq: 0,
        at_us: now_us,
        platform,
        account,
        direction: Direction::Inbound,
        flaw,
        told,
        statuses,
        bytes: parcel.body.len(),
        digest: Sha256::digest(&parcel.body).into(),
        attempts: Vec::new(),
        delivery: Delivery::Pending,
    };
    let url = parcel.url.clone().unwrap_or(url);
    let overrides = Overrides::of(&url);
    // Nobody tries a forged or mutilated webhook again.
    let whole = matches!(flaw, Flaw::None | Flaw::Repeated);
    Outgoing {
        seq: provider.ledger.webhook(entry),
        platform,
        url,
        parcel,
        fallback: fallback.filter(|_| whole),
        statuses: Vec::new(),
        failures: 0,
        overrides,
        give_up_us: if whole { now_us + patience_us(platform, &behaviour, &overrides) } else { now_us },
        replied,
        told: Vec::new(),
    }
}

/// Posts a webhook once; on anything but 200 it goes back on the agenda, or is given up.
pub(super) async fn deliver(provider: &Provider, mut webhook: Outgoing) -> Reply {
    let behaviour = provider.behaviour();
    let at_us = provider.clock.now_us();
    let reply = tokio::select! {
        reply = post(provider, &webhook, &behaviour) => reply,
        () = provider.stopping.cancelled() => Reply::Broken,
    };
    let now_us = provider.clock.now_us();
    webhook.failures += 1;
    let wait_us = 1000
        * match webhook.failures {
            1 => 0,
            failures => behaviour
                .webhook_retry_ms
                .saturating_mul(1 << (failures - 2).min(30))
                .min(behaviour.webhook_retry_most_ms.max(1)),
        };
    let is_taken = matches!(reply, Reply::Status(status) if webhook.platform.is_taken(status));
    let patient = now_us + wait_us < webhook.give_up_us
        && (webhook.platform != Platform::Twilio
            || (webhook.failures <= webhook.overrides.retries && webhook.overrides.repeats(reply)));
    let fallback = if is_taken || patient { None } else { webhook.fallback.take() };
    let delivery = match fallback {
        _ if is_taken => Delivery::Acknowledged,
        None if !patient => Delivery::GivenUp,
        _ => Delivery::Pending,
    };
    let attempt = Attempt { at_us, took_us: now_us - at_us, reply };
    provider.ledger.attempted(webhook.seq, attempt, delivery, &webhook.statuses);
    for waiting in webhook.told.drain(..) {
        let _ = waiting.send(());
    }
    if let Some(waiting) = webhook.replied.take() {
        let _ = waiting.send(reply);
    }
    if let Some(fallback) = fallback {
        // At once, and with tries of its own (twilio contract page, section 5).
        webhook.url = fallback.url.clone().unwrap_or(webhook.url);
        webhook.overrides = Overrides::of(&webhook.url);
        webhook.give_up_us = now_us + webhook.overrides.total.as_micros() as u64;
        (webhook.parcel, webhook.failures) = (fallback, 0);
        provider.agenda.add(now_us, Task::Deliver(Box::new(webhook)));
    } else if delivery == Delivery::Pending {
        provider.agenda.add(now_us + wait_us, Task::Deliver(Box::new(webhook)));
    } else if delivery == Delivery::GivenUp {
        tracing::debug!(webhook = webhook.seq, ?reply, "webhook given up");
    }
    provider.agenda.finished(1);
    reply
}

async fn post(provider: &Provider, webhook: &Outgoing, behaviour: &Behaviour) -> Reply {
    let Parcel { content_type, body, signature, idempotency_token, .. } = &webhook.parcel;
    let most = Duration::from_millis(behaviour.webhook_timeout_ms);
    let most = if webhook.platform == Platform::Twilio { most.min(webhook.overrides.read_timeout) } else { most };
    // What is behind `#` stays here.
    let url = webhook.url.split('#').next().unwrap_or_default();
    let mut request = match content_type {
        Some(content_type) => provider.http.post(url).header("content-type", *content_type).body(body.clone()),
        None => provider.http.get(url),
    };
    request = request.header(webhook.platform.signature_header(), signature).timeout(most);
    if webhook.platform == Platform::Twilio {
        request =
            request.header("user-agent", "TwilioProxy/1.1").header("x-home-region", "us1").header("accept", "*/*");
    }
    if let Some(token) = idempotency_token {
        request = request.header("i-twilio-idempotency-token", token);
    }
    match request.send().await {
        Ok(response) => {
            let status = response.status().as_u16();
            // Read to the end, or the connection is not used again.
            let _ = response.bytes().await;
            Reply::Status(status)
        }
        Err(error) if error.is_timeout() => Reply::Timeout,
        Err(_) => Reply::Broken,
    }
}

/// Renders the due statuses of one number into as few webhooks as may carry them.
fn status_webhooks(provider: &Provider, behaviour: &Behaviour, planned: Vec<PlannedStatus>) -> Vec<Outgoing> {
    let mut webhooks = Vec::new();
    let mut planned = planned.into_iter().peekable();
    while planned.peek().is_some() {
        let batch: Vec<PlannedStatus> = planned.by_ref().take(behaviour.batch_most).collect();
        let Owner::Number(number) = batch[0].owner.clone() else { unreachable!("they were gathered by number") };
        // All but one of the agenda's entries end here; that one stands for the webhook.
        provider.agenda.finished(batch.len() - 1);
        let (mut rendered, mut sent, mut told) = (Vec::new(), Vec::new(), Vec::new());
        for mut planned in batch {
            let Some(entry) = provider.ledger.send(planned.send) else { continue };
            provider.ledger.status_made(planned.send, planned.status, planned.code);
            let happened = provider.clock.unix(planned.happened_us);
            rendered
                .push((statuses::status(&planned, &entry, behaviour, happened), statuses::contact(&planned, &entry)));
            sent.push((planned.send, planned.status));
            told.extend(planned.answered.take());
        }
        if rendered.is_empty() {
            // The ledger was cleared in between.
            provider.agenda.finished(1);
            continue;
        }
        let payload = statuses::webhook(&number.spec, rendered, sent[0].0);
        webhooks.push(status_webhook(provider, behaviour, &number, &payload, sent, told));
    }
    webhooks
}

/// What happened to a message of another account: noted there, and told if anybody is to be told. One event fills one webhook.
fn happened(provider: &Provider, account: &Arc<Account>, planned: PlannedStatus) -> Option<Outgoing> {
    let parcel = match account.spec.platform {
        Platform::Messenger | Platform::Instagram => messaging::receipts::parcel(provider, account, &planned),
        Platform::Twilio => twilio::callback(provider, account, &planned),
        Platform::Whatsapp => None,
    };
    provider.ledger.status_made(planned.send, planned.status, planned.code);
    let Some(parcel) = parcel else {
        // Nobody is told.
        provider.agenda.finished(1);
        return None;
    };
    let url = parcel.url.clone().unwrap_or_else(|| provider.account_url(&account.spec));
    let statuses = vec![(planned.send, planned.status)];
    let owner = (account.spec.platform, account.id.clone(), url);
    Some(outgoing_statuses(provider, owner, parcel, statuses, planned.answered.into_iter().collect()))
}

fn status_webhook(
    provider: &Provider,
    behaviour: &Behaviour,
    number: &Number,
    payload: &Value,
    statuses: Vec<(u64, Status)>,
    told: Vec<oneshot::Sender<()>>,
) -> Outgoing {
    let parcel = Parcel::json(sign::emit(payload, behaviour.escape_slashes), provider.app_secret(&number.spec));
    let owner = (Platform::Whatsapp, number.id.clone(), provider.webhook_url(&number.spec));
    outgoing_statuses(provider, owner, parcel, statuses, told)
}

/// Posts a webhook of an account's as soon as there is room.
pub(super) fn send_off(provider: &Provider, account: &Account, parcel: Parcel) {
    let url = parcel.url.clone().unwrap_or_else(|| provider.account_url(&account.spec));
    let owner = (account.spec.platform, account.id.clone(), url);
    let outgoing = outgoing_statuses(provider, owner, parcel, Vec::new(), Vec::new());
    provider.agenda.add(provider.clock.now_us(), Task::Deliver(Box::new(outgoing)));
}

fn outgoing_statuses(
    provider: &Provider,
    (platform, account, url): (Platform, Arc<str>, String),
    parcel: Parcel,
    statuses: Vec<(u64, Status)>,
    told: Vec<oneshot::Sender<()>>,
) -> Outgoing {
    let now_us = provider.clock.now_us();
    let overrides = Overrides::of(&url);
    let entry = WebhookEntry {
        seq: 0,
        at_us: now_us,
        platform,
        account,
        direction: Direction::Statuses,
        flaw: Flaw::None,
        told: Vec::new(),
        statuses: statuses.len(),
        bytes: parcel.body.len(),
        digest: Sha256::digest(&parcel.body).into(),
        attempts: Vec::new(),
        delivery: Delivery::Pending,
    };
    Outgoing {
        seq: provider.ledger.webhook(entry),
        platform,
        url,
        parcel,
        fallback: None,
        statuses,
        failures: 0,
        overrides,
        give_up_us: now_us + patience_us(platform, &provider.behaviour(), &overrides),
        replied: None,
        told,
    }
}

/// For how long a webhook is tried.
fn patience_us(platform: Platform, behaviour: &Behaviour, overrides: &Overrides) -> u64 {
    match platform {
        Platform::Whatsapp => behaviour.webhook_give_up_s * 1_000_000,
        // An app that fails for so long is unsubscribed (messenger contract page, section 1.3).
        Platform::Messenger => behaviour.webhook_give_up_s.min(3_600) * 1_000_000,
        // Instagram contract page, section 1.
        Platform::Instagram => behaviour.webhook_give_up_s.min(36 * 3_600) * 1_000_000,
        Platform::Twilio => overrides.total.as_micros() as u64,
    }
}
