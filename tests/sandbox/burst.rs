//! A generated load of inbound webhooks, posted by a fixed number of connections, and what was answered.

use super::{
    generator::{Generator, Mix},
    ledger::Flaw,
    mixture::{self, Accounts, Mixture},
    provider::Provider,
    webhooks::{self, InboundWebhook},
};
use anyhow::Context;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

/// What to send, and how.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Burst {
    /// What to send to WhatsApp's numbers. `ends: 0` is the current time.
    pub mix: Mix,
    /// What to send to all accounts of all platforms instead. `begins_ms: 0` is as long ago as it takes for the last webhook to be
    /// of the current time.
    pub mixture: Option<Mixture>,
    /// Webhooks on their way at once.
    pub concurrency: usize,
    /// To these numbers in turn; empty for all.
    pub phone_number_ids: Vec<String>,
}

/// What was answered.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Webhooks sent.
    pub webhooks: u64,
    /// First answers: a status, `timeout` or `broken`, by what was wrong with the webhook on purpose.
    pub first_answers: BTreeMap<String, BTreeMap<String, u64>>,
    /// The same by platform.
    pub platforms: BTreeMap<String, BTreeMap<String, BTreeMap<String, u64>>>,
    /// Times a message was told, repetitions included.
    pub messages_told: u64,
    /// Different messages in webhooks that are whole and rightly signed.
    pub messages: u64,
    /// How long it took.
    pub seconds: f64,
    /// First answers a second.
    pub webhooks_per_second: f64,
    /// Time to the first answer.
    pub p50_ms: f64,
    /// See `p50_ms`.
    pub p99_ms: f64,
    /// See `p50_ms`.
    pub max_ms: f64,
}

impl Default for Burst {
    fn default() -> Self {
        Self { mix: Mix { ends: 0, ..Mix::default() }, mixture: None, concurrency: 32, phone_number_ids: Vec::new() }
    }
}

/// Sends everything once. What was not answered with 200 is tried again in the background, as for any webhook.
pub(super) async fn run(provider: &Arc<Provider>, burst: Burst) -> anyhow::Result<Report> {
    let now = provider.clock.unix(provider.clock.now_us());
    let chosen = |id: &String| burst.phone_number_ids.is_empty() || burst.phone_number_ids.contains(id);
    let numbers: Vec<_> = provider
        .registry
        .numbers()
        .into_iter()
        .filter(|number| chosen(&number.id))
        .map(|number| (number.clone(), provider.app_secret(&number).to_owned()))
        .collect();
    let generator: Webhooks = match burst.mixture {
        Some(mut mixture) => {
            let others = provider.registry.accounts().into_iter().map(|account| provider.resolved(account)).collect();
            anyhow::ensure!(mixture.people > 0, "somebody must write: people is 0");
            anyhow::ensure!(mixture.webhooks > 0, "a burst comes to an end: webhooks is 0");
            if mixture.begins_ms == 0 {
                mixture.begins_ms = now * 1_000 - mixture.step_ms * mixture.webhooks as i64;
            }
            Box::new(mixture::Generator::new(mixture, Accounts { numbers, others }))
        }
        None => {
            let mut mix = burst.mix;
            if mix.ends == 0 {
                mix.ends = now;
            }
            anyhow::ensure!(!numbers.is_empty(), "none of these numbers exists");
            anyhow::ensure!(mix.people > 0, "somebody must write: people is 0");
            Box::new(Generator::new(mix, numbers))
        }
    };
    let generator = Arc::new(Mutex::new(generator));
    let tally = Arc::new(Mutex::new(Tally::default()));
    let started = Instant::now();
    let connections: Vec<_> = (0..burst.concurrency.clamp(1, 4_096))
        .map(|_| provider.tasks.spawn(connection(provider.clone(), generator.clone(), tally.clone())))
        .collect();
    for connection in connections {
        connection.await.context("a connection of the burst panicked")??;
    }
    let seconds = started.elapsed().as_secs_f64();
    let tally = std::mem::take(&mut *tally.lock().unwrap_or_else(PoisonError::into_inner));
    Ok(tally.report(seconds))
}

type Webhooks = Box<dyn Iterator<Item = InboundWebhook> + Send>;

#[derive(Debug, Default)]
struct Tally {
    report: Report,
    took_us: Vec<u64>,
    ids: HashSet<Box<str>>,
}

async fn connection(
    provider: Arc<Provider>,
    generator: Arc<Mutex<Webhooks>>,
    tally: Arc<Mutex<Tally>>,
) -> anyhow::Result<()> {
    while !provider.stopping.is_cancelled() {
        let Some(webhook) = generator.lock().unwrap_or_else(PoisonError::into_inner).next() else { break };
        let (platform, flaw, told) = (webhook.platform, webhook.flaw, webhook.told.clone());
        let outgoing = webhooks::admit_any(&provider, webhook, None)?;
        provider.agenda.begun();
        let started = Instant::now();
        let reply = webhooks::deliver(&provider, outgoing).await;
        let took_us = started.elapsed().as_micros() as u64;
        let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
        tally.took_us.push(took_us);
        tally.report.webhooks += 1;
        let answers = tally.report.first_answers.entry(name(&flaw)).or_default();
        *answers.entry(reply.to_string()).or_default() += 1;
        let answers = tally.report.platforms.entry(platform.name().into()).or_default().entry(name(&flaw)).or_default();
        *answers.entry(reply.to_string()).or_default() += 1;
        if matches!(flaw, Flaw::None | Flaw::Repeated) {
            tally.report.messages_told += told.len() as u64;
            tally.ids.extend(told.into_iter().map(|told| told.id));
        }
    }
    Ok(())
}

impl Tally {
    fn report(mut self, seconds: f64) -> Report {
        self.took_us.sort_unstable();
        let at = |share: f64| {
            let index = (self.took_us.len() as f64 * share) as usize;
            self.took_us.get(index.min(self.took_us.len().saturating_sub(1))).map_or(0.0, |us| *us as f64 / 1000.0)
        };
        Report {
            messages: self.ids.len() as u64,
            seconds,
            webhooks_per_second: self.report.webhooks as f64 / seconds.max(f64::EPSILON),
            p50_ms: at(0.5),
            p99_ms: at(0.99),
            max_ms: at(1.0),
            ..self.report
        }
    }
}

fn name(flaw: &Flaw) -> String {
    serde_json::to_value(flaw).ok().and_then(|name| name.as_str().map(str::to_owned)).unwrap_or_default()
}
