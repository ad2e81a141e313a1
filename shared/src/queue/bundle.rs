//! Group publish for the receiver. What gathers while the previous confirm is in flight is published as one job, so that the
//! broker is paid per bundle instead of per webhook. There is no timer: at low load a bundle is one webhook and nothing waits.
//!
//! A webhook is accepted when its bundle is confirmed by the broker or, while the broker is away, spilled. Neither: the
//! provider is told to come again.

use super::{
    Outgoing, Publisher, Target,
    metrics::{BUNDLE_WEBHOOKS, BUNDLED_TOTAL},
    topology::INBOUND,
};
use crate::{
    clock::Clock,
    crash::{self, CrashPoint},
    jobs::inbound::{MAX_BYTES, MAX_WEBHOOKS, RawWebhook, to_job},
    lifecycle::Lifecycle,
};
use futures_util::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use std::{sync::Arc, time::Duration};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

/// Webhooks that may wait to be bundled. At 20,000 a second that is a fifth of a second's worth.
const MAX_WAITING: usize = 4096;
/// Bytes of bodies from being accepted until being answered: what bounds the receiver's memory.
const MAX_HELD_BYTES: usize = 64 * 1024 * 1024;
/// Providers wait some 10 s for an answer; the confirm may have taken 5 s of them.
const SPILL_TIMEOUT: Duration = Duration::from_secs(5);

/// Where webhooks go while the broker is away.
pub trait Spill: Send + Sync + 'static {
    /// Stores all of them durably, in one go, or none. `true` if they are stored. Storing one twice must not harm: whether
    /// the broker has them may be unknown.
    fn spill(&self, webhooks: Vec<RawWebhook>) -> BoxFuture<'_, bool>;
}

/// How the bundler works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Bundles in flight at once, 1 or 2. More only makes bundles smaller, and it is their size that saves work.
    pub in_flight: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { in_flight: 2 }
    }
}

/// Nobody stored the webhook: the provider must send it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("neither the broker nor the database took the webhook")]
pub struct NotStored;

/// Bundles webhooks and publishes them to `inbound`. Cheap to clone; its task ends with the last clone.
#[derive(Clone)]
pub struct Bundler {
    waiting: mpsc::Sender<Waiting>,
    bytes: Arc<Semaphore>,
}

/// A webhook whose sender waits for the answer.
struct Waiting {
    webhook: RawWebhook,
    stored: oneshot::Sender<bool>,
    _bytes: OwnedSemaphorePermit,
}

impl Bundler {
    /// Starts the task.
    pub fn new(
        publisher: Publisher,
        life: &Lifecycle,
        clock: Clock,
        spill: Arc<dyn Spill>,
        settings: Settings,
    ) -> Self {
        let (waiting, inbox) = mpsc::channel(MAX_WAITING);
        let to = Destination { publisher, clock, spill };
        life.spawn_service(run(inbox, to, settings.in_flight.clamp(1, 2)));
        Self { waiting, bytes: Arc::new(Semaphore::new(MAX_HELD_BYTES)) }
    }

    /// Returns when the webhook is durable. Dropping the call does not take the webhook back.
    ///
    /// # Errors
    /// [`NotStored`], at once if too much is waiting already.
    pub async fn accept(&self, webhook: RawWebhook) -> Result<(), NotStored> {
        let accepted = self.store(webhook).await;
        if accepted.is_none() {
            metrics::counter!(BUNDLED_TOTAL, "outcome" => "refused").increment(1);
        }
        accepted.ok_or(NotStored)
    }

    async fn store(&self, webhook: RawWebhook) -> Option<()> {
        let bytes = u32::try_from(webhook.body.len()).ok()?;
        let _bytes = self.bytes.clone().try_acquire_many_owned(bytes).ok()?;
        let (stored, answer) = oneshot::channel();
        self.waiting.try_send(Waiting { webhook, stored, _bytes }).ok()?;
        answer.await.unwrap_or(false).then_some(())
    }
}

/// Where bundles go.
struct Destination {
    publisher: Publisher,
    clock: Clock,
    spill: Arc<dyn Spill>,
}

async fn run(mut inbox: mpsc::Receiver<Waiting>, to: Destination, max_in_flight: usize) {
    let mut in_flight = FuturesUnordered::new();
    // The webhook that did not fit into the last bundle opens the next.
    let mut left_over = None;
    loop {
        tokio::select! {
            biased;
            Some(()) = in_flight.next() => {}
            first = first(&mut left_over, &mut inbox), if in_flight.len() < max_in_flight => match first {
                Some(first) => in_flight.push(deliver(gather(first, &mut left_over, &mut inbox), &to)),
                None => break,
            },
        }
    }
    while in_flight.next().await.is_some() {}
}

async fn first(left_over: &mut Option<Waiting>, inbox: &mut mpsc::Receiver<Waiting>) -> Option<Waiting> {
    match left_over.take() {
        Some(waiting) => Some(waiting),
        None => inbox.recv().await,
    }
}

/// The first webhook and whatever waits behind it, up to the limits of a bundle.
fn gather(first: Waiting, left_over: &mut Option<Waiting>, inbox: &mut mpsc::Receiver<Waiting>) -> Vec<Waiting> {
    let mut bytes = first.webhook.body.len();
    let mut bundle = vec![first];
    while bundle.len() < MAX_WEBHOOKS
        && let Ok(next) = inbox.try_recv()
    {
        bytes += next.webhook.body.len();
        if bytes > MAX_BYTES {
            *left_over = Some(next);
            break;
        }
        bundle.push(next);
    }
    bundle
}

async fn deliver(bundle: Vec<Waiting>, to: &Destination) {
    let count = bundle.len();
    let (webhooks, answers): (Vec<_>, Vec<_>) =
        bundle.into_iter().map(|waiting| (waiting.webhook, (waiting.stored, waiting._bytes))).unzip();
    let job = to_job(&webhooks, to.clock.now());
    let outcome = match to.publisher.publish(vec![Outgoing { to: Target::Queue(&INBOUND), job }]).await {
        Ok(()) => {
            crash::pass(CrashPoint::ApiAfterConfirm);
            metrics::histogram!(BUNDLE_WEBHOOKS).record(u32::try_from(count).unwrap_or(u32::MAX));
            Outcome::Confirmed
        }
        // The whole bundle, also if it may have been stored: that it is twice there is harmless, that it is not is not.
        Err(_) => match tokio::time::timeout(SPILL_TIMEOUT, to.spill.spill(webhooks)).await {
            Ok(true) => Outcome::Spilled,
            Ok(false) | Err(_) => Outcome::Refused,
        },
    };
    if let Some(name) = outcome.counted_here() {
        metrics::counter!(BUNDLED_TOTAL, "outcome" => name).increment(count as u64);
    }
    for (stored, _bytes) in answers {
        let _ = stored.send(outcome != Outcome::Refused);
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Confirmed,
    Spilled,
    Refused,
}

impl Outcome {
    /// The refused are counted where they are told so, with those that were not even taken.
    fn counted_here(self) -> Option<&'static str> {
        match self {
            Outcome::Confirmed => Some("confirmed"),
            Outcome::Spilled => Some("spilled"),
            Outcome::Refused => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        domain::{channel::Provider, ids::WebhookId},
        jobs::inbound::Meta,
    };
    use chrono::DateTime;

    fn waiting(bytes: usize) -> Waiting {
        let meta = Meta {
            id: WebhookId::new(),
            provider: Provider::Whatsapp,
            received_at: DateTime::UNIX_EPOCH,
            account: None,
            query: None,
            stored: false,
            replay: false,
        };
        let permit = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        Waiting {
            webhook: RawWebhook { meta, body: vec![b'x'; bytes].into() },
            stored: oneshot::channel().0,
            _bytes: permit,
        }
    }

    fn gathered(sizes: &[usize]) -> (usize, bool) {
        let (sender, mut inbox) = mpsc::channel(1000);
        for size in &sizes[1..] {
            assert!(sender.try_send(waiting(*size)).is_ok());
        }
        let mut left_over = None;
        let bundle = gather(waiting(sizes[0]), &mut left_over, &mut inbox);
        (bundle.len(), left_over.is_some())
    }

    #[test]
    fn a_bundle_takes_what_waits_up_to_its_limits() {
        assert_eq!(gathered(&[100]), (1, false), "nothing else waits");
        assert_eq!(gathered(&[100; 10]), (10, false));
        assert_eq!(gathered(&[100; 100]), (64, false));
        assert_eq!(gathered(&[50_000; 10]), (2, true), "128 KiB, the third opens the next");
        assert_eq!(gathered(&[200_000, 1]), (1, true), "larger than any bundle: alone");
    }
}
