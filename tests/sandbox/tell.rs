//! Webhooks written by hand: a test says who wrote what, the sandbox signs and posts it and keeps its books.

use super::{
    account,
    inbound::{self, Event},
    ledger::{Flaw, Reply, Told},
    people::{Kind, Person},
    platform::Platform,
    provider::Provider,
    registry::{Number, NumberSpec},
    sign,
    webhooks::{self, Deed, InboundWebhook, Outgoing, Parcel},
};
use anyhow::{Context, bail};
use serde_json::Value;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::oneshot;

/// Something a person does towards a number.
#[derive(Debug, Clone)]
pub struct Incoming {
    /// Who.
    pub person: Person,
    /// What.
    pub kind: Kind,
    /// Text, or caption.
    pub text: String,
    /// The message's id; made up if there is none.
    pub id: Option<String>,
    /// The message it refers to.
    pub about: Option<String>,
    /// Unix seconds; now if there is none.
    pub timestamp: Option<i64>,
}

/// What came of telling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToldOff {
    /// The ids of the messages, in order.
    pub ids: Vec<String>,
    /// The receiver's first answer.
    pub reply: Reply,
}

impl Incoming {
    /// A text.
    pub fn text(person: &Person, text: impl Into<String>) -> Self {
        Self { text: text.into(), ..Self::of(Kind::Text, person) }
    }

    /// Anything else, with a text where that has one.
    pub fn of(kind: Kind, person: &Person) -> Self {
        let text = "Is the blue one back in stock?".into();
        Self { person: person.clone(), kind, text, id: None, about: None, timestamp: None }
    }

    /// With this id instead of one made up.
    pub fn with_id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// Referring to this message.
    pub fn about(mut self, id: impl Into<String>) -> Self {
        self.about = Some(id.into());
        self
    }

    /// At this time (Unix seconds) instead of now.
    pub fn at(mut self, timestamp: i64) -> Self {
        self.timestamp = Some(timestamp);
        self
    }
}

pub(super) async fn tell(
    provider: &Arc<Provider>,
    number_id: &str,
    incoming: Vec<Incoming>,
) -> anyhow::Result<ToldOff> {
    let number = number(provider, number_id)?;
    let webhook = write(provider, &number.spec, incoming)?;
    let ids = webhook.told.iter().map(|told| told.id.to_string()).collect();
    let reply = submit(provider, &number, webhook).await?;
    Ok(ToldOff { ids, reply })
}

pub(super) async fn payload(provider: &Arc<Provider>, number_id: &str, payload: &Value) -> anyhow::Result<Reply> {
    let number = number(provider, number_id)?;
    let webhook = sealed(provider, &number.spec, payload, vec![], vec![]);
    submit(provider, &number, webhook).await
}

pub(super) async fn post(provider: &Arc<Provider>, webhook: InboundWebhook) -> anyhow::Result<Reply> {
    let (sender, reply) = oneshot::channel();
    let outgoing = webhooks::admit_any(provider, webhook, Some(sender))?;
    begin(provider, outgoing);
    reply.await.context(STOPPED)
}

pub(super) async fn handshake(provider: &Provider, verify_token: &str) -> anyhow::Result<bool> {
    const CHALLENGE: &str = "1158201444";
    let url = provider.default_webhook_url();
    let response = provider
        .http
        .get(&url)
        .query(&[("hub.mode", "subscribe"), ("hub.challenge", CHALLENGE), ("hub.verify_token", verify_token)])
        .timeout(Duration::from_secs(10))
        .send()
        .await
        .with_context(|| format!("no answer from {url}"))?;
    let status = response.status();
    Ok(status == 200 && response.text().await? == CHALLENGE)
}

pub(super) async fn settle(provider: &Provider, most: Duration) -> bool {
    let deadline = Instant::now() + most;
    while provider.agenda.open() > 0 {
        if Instant::now() >= deadline {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    true
}

/// One webhook with all the messages; news that is no message fills a webhook of its own.
fn write(provider: &Provider, number: &NumberSpec, incoming: Vec<Incoming>) -> anyhow::Result<InboundWebhook> {
    let now = provider.clock.unix(provider.clock.now_us());
    let (mut messages, mut contacts, mut told, mut deeds) = (vec![], vec![], vec![], vec![]);
    let alone = incoming.len() == 1;
    for incoming in &incoming {
        let id = incoming.id.clone().unwrap_or_else(|| provider.inbound_id());
        if incoming.id.is_some() {
            provider.remember_id(&id);
        }
        let timestamp = incoming.timestamp.unwrap_or(now);
        let event = Event {
            kind: incoming.kind,
            person: &incoming.person,
            id: &id,
            about: incoming.about.as_deref().unwrap_or("wamid.U0JYLU9VVC0wMDE2"),
            text: &incoming.text,
            timestamp,
        };
        deeds.push(Deed { person: incoming.person.clone(), kind: incoming.kind, timestamp });
        if !incoming.kind.is_message() {
            if !alone {
                bail!("{} fills a webhook of its own", incoming.kind.name());
            }
            return Ok(sealed(provider, number, &account::webhook(&event, number), vec![], deeds));
        }
        messages.push(inbound::message(&event, number));
        if inbound::has_contact(incoming.kind) {
            contacts.push(inbound::contact(&incoming.person));
        }
        told.push(Told {
            platform: Platform::Whatsapp,
            id: id.as_str().into(),
            kind: incoming.kind.name(),
            person: incoming.person.key().into(),
            text: incoming.kind.carries_text().then(|| incoming.text.as_str().into()),
            garbled: false,
            timestamp,
        });
    }
    contacts.dedup();
    let change = inbound::change(number, vec![("contacts", contacts), ("messages", messages)]);
    Ok(sealed(provider, number, &inbound::envelope(&number.waba_id, vec![change]), told, deeds))
}

fn sealed(
    provider: &Provider,
    number: &NumberSpec,
    payload: &Value,
    told: Vec<Told>,
    deeds: Vec<Deed>,
) -> InboundWebhook {
    let body = sign::emit(payload, provider.behaviour().escape_slashes);
    InboundWebhook {
        platform: Platform::Whatsapp,
        account: number.id.clone(),
        parcel: Parcel::json(body, provider.app_secret(number)),
        fallback: None,
        flaw: Flaw::None,
        told,
        statuses: 0,
        at_ms: deeds.last().map_or(0, |deed| deed.timestamp * 1_000),
        deeds,
    }
}

async fn submit(provider: &Arc<Provider>, number: &Number, webhook: InboundWebhook) -> anyhow::Result<Reply> {
    let (sender, reply) = oneshot::channel();
    begin(provider, webhooks::admit(provider, number, webhook, Some(sender)));
    reply.await.context(STOPPED)
}

fn begin(provider: &Arc<Provider>, outgoing: Outgoing) {
    provider.agenda.begun();
    let delivering = provider.clone();
    provider.tasks.spawn(async move { webhooks::deliver(&delivering, outgoing).await });
}

const STOPPED: &str = "the sandbox stopped before the webhook was answered";

fn number(provider: &Provider, id: &str) -> anyhow::Result<Arc<Number>> {
    provider.registry.number(id).with_context(|| format!("the sandbox has no number {id}"))
}
