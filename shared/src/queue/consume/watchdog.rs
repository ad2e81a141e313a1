//! Notices that a session has become useless: the connection failed, the broker stopped answering, or it is a zombie that
//! looks connected and delivers nothing though jobs are ready.

use super::Outstanding;
use crate::queue::{Broker, Error, link::Link, look};
use futures_util::StreamExt;
use lapin::{Channel, Event};
use std::{
    sync::{Arc, Mutex, OnceLock, Weak},
    time::{Duration, Instant},
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// Checks within the patience, so that one stale answer of the broker decides nothing.
const CHECKS: u32 = 4;
/// A consuming connection is never blocked as it publishes nothing; should a broker do it nevertheless, acknowledgements do not
/// leave either.
const BLOCKED_FOR: Duration = Duration::from_secs(30);

/// What ended a session. The first cause is kept.
#[derive(Clone, Default)]
pub(super) struct Fate(Arc<FateInner>);

#[derive(Default)]
struct FateInner {
    cause: OnceLock<Error>,
    sealed: CancellationToken,
}

impl Fate {
    pub(super) fn seal(&self, cause: Error) {
        let _ = self.0.cause.set(cause);
        self.0.sealed.cancel();
    }

    pub(super) fn is_sealed(&self) -> bool {
        self.0.sealed.is_cancelled()
    }

    pub(super) fn sealed(&self) -> WaitForCancellationFutureOwned {
        self.0.sealed.clone().cancelled_owned()
    }

    pub(super) async fn lost(&self) -> Error {
        self.0.sealed.cancelled().await;
        self.0.cause.get().cloned().unwrap_or_else(|| Error::Lost("ended".to_owned()))
    }
}

/// The consumers of a session, for the watchdog to look at.
#[derive(Clone, Default)]
pub(super) struct Watched(Arc<Mutex<Vec<WatchedConsumer>>>);

struct WatchedConsumer {
    broker_name: String,
    outstanding: Weak<Outstanding>,
}

impl Watched {
    pub(super) fn add(&self, broker_name: String, outstanding: &Arc<Outstanding>) {
        let mut watched = self.0.lock().expect("no panic while locked");
        watched.retain(|consumer| consumer.outstanding.strong_count() > 0);
        watched.push(WatchedConsumer { broker_name, outstanding: Arc::downgrade(outstanding) });
    }

    /// The queues from which a consumer has been waiting for so long.
    fn starved(&self, patience: Duration) -> Vec<String> {
        let watched = self.0.lock().expect("no panic while locked");
        let starved = watched.iter().filter(|consumer| {
            let waited = consumer.outstanding.upgrade().and_then(|outstanding| outstanding.starved_for());
            waited.is_some_and(|waited| waited >= patience)
        });
        starved.map(|consumer| consumer.broker_name.clone()).collect()
    }
}

/// Ends the watchdog, and every consumer, with their session.
pub(super) struct Guard {
    task: tokio::task::AbortHandle,
    fate: Fate,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.task.abort();
        self.fate.seal(Error::Lost("closed by us".to_owned()));
    }
}

/// Starts watching, on a channel of its own.
pub(super) async fn start(
    broker: &Broker,
    link: &Link,
    fate: Fate,
    watched: Watched,
    patience: Duration,
) -> Result<Guard, Error> {
    let channel = link.channel().await?;
    let events = link.events();
    let probe = broker.broker_name(&crate::queue::INBOUND);
    let sealed = fate.clone();
    #[allow(clippy::disallowed_methods, reason = "ends with its session, nobody waits for it")]
    let task = tokio::spawn(async move {
        let cause = tokio::select! {
            cause = connection_failed(events) => cause,
            cause = useless(&channel, &probe, &watched, patience) => cause,
        };
        sealed.seal(cause);
    });
    Ok(Guard { task: task.abort_handle(), fate })
}

async fn connection_failed(mut events: futures_util::stream::BoxStream<'static, Event>) -> Error {
    let mut blocked = None;
    loop {
        let event = match blocked {
            Some(since) => tokio::time::timeout_at(since, events.next()).await,
            None => Ok(events.next().await),
        };
        match event {
            Ok(Some(Event::ConnectionBlocked(_))) => blocked = Some(tokio::time::Instant::now() + BLOCKED_FOR),
            Ok(Some(Event::ConnectionUnblocked)) => blocked = None,
            Ok(Some(Event::Error(error))) => return Error::from_lapin(&error),
            Ok(Some(_)) => {}
            Ok(None) => return Error::Lost("the connection has ended".to_owned()),
            Err(_) => return Error::Lost("the broker has blocked the connection".to_owned()),
        }
    }
}

/// Returns when the broker does not answer, or twice in a row has jobs ready for somebody who has waited in vain.
async fn useless(channel: &Channel, probe: &str, watched: &Watched, patience: Duration) -> Error {
    let mut suspects: Vec<String> = Vec::new();
    loop {
        tokio::time::sleep(patience / CHECKS).await;
        let starved = watched.starved(patience);
        let asked = Instant::now();
        let mut ready = Vec::new();
        for name in &starved {
            match look(channel, name.clone()).await {
                Ok((0, _)) => {}
                Ok(_) => ready.push(name.clone()),
                Err(error) => return error,
            }
        }
        if let Some(name) = ready.iter().find(|name| suspects.contains(name)) {
            return Error::Lost(format!("jobs are ready in {name} and none was delivered for {patience:?}"));
        }
        suspects = ready;
        // Also without suspicion: a broker that has stopped answering is noticed before the heartbeat does.
        if starved.is_empty()
            && let Err(error) = look(channel, probe.to_owned()).await
        {
            return error;
        }
        tracing::trace!(took = ?asked.elapsed(), "looked at the queues");
    }
}
