//! Confirmed publishing. [`Publisher`] is a cheap handle; one task owns the channel (`owner`), because two tasks that publish on
//! one channel can have their confirms swapped, and because only it sees every confirm and every returned message.
//!
//! Nothing here decides what to do with a job that could not be published: the caller still has it, in a row, in its
//! transaction, or as a webhook not yet answered.

mod lane;
mod owner;

use super::{
    Broker, Queue, message,
    metrics::{PUBLISH_FAILURES_TOTAL, PUBLISH_SECONDS},
};
use crate::{jobs::Job, lifecycle::Lifecycle};
use bytes::Bytes;
use lapin::{BasicProperties, types::ShortString};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot, watch};

/// Groups that may wait for the owner. Each was asked for by a task that waits, so this only smooths.
const WAITING_GROUPS: usize = 256;
/// A confirm that takes longer is not coming: the group is answered and the connection rebuilt.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(5);

/// A job and where it goes.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// Where.
    pub to: Target,
    /// What.
    pub job: Job,
}

/// Where a job goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// To be worked on.
    Queue(&'static Queue),
    /// To the dead letters of this queue.
    Dead(&'static Queue),
}

/// Why a group was not published. Some of its jobs may have been stored nevertheless; publishing all of them again is safe,
/// because consumers are idempotent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// There is no connection, or the broker has blocked us because it is short of memory or disk. Nothing was stored.
    #[error("the broker is unavailable")]
    Unavailable,
    /// The connection was lost, the broker refused, or it did not confirm in time.
    #[error("the broker did not confirm")]
    Unconfirmed,
    /// The queue does not exist on the broker. It is declared again, so that a later try succeeds.
    #[error("queue {queue} does not exist on the broker")]
    Unroutable {
        /// Which.
        queue: &'static str,
    },
}

/// Publishes over one connection that is kept up until the last clone is dropped.
#[derive(Clone)]
pub struct Publisher {
    broker: Broker,
    groups: mpsc::Sender<Group>,
    state: watch::Receiver<State>,
}

impl Publisher {
    pub(super) fn start(broker: Broker, life: &Lifecycle) -> Self {
        let (groups, inbox) = mpsc::channel(WAITING_GROUPS);
        let (tell, state) = watch::channel(State::Down);
        life.spawn_service(owner::run(broker.clone(), inbox, tell));
        Self { broker, groups, state }
    }

    /// Publishes a group. `Ok` only when every job of it is confirmed and was routed to its queue.
    ///
    /// Ends within a few seconds whatever happens; dropping it leaves open what was stored.
    ///
    /// # Errors
    /// See [`PublishError`]; the worst that happened to any of the group.
    pub async fn publish(&self, jobs: Vec<Outgoing>) -> Result<(), PublishError> {
        if jobs.is_empty() {
            return Ok(());
        }
        let started = Instant::now();
        let published = self.ask(jobs).await;
        match &published {
            Ok(()) => metrics::histogram!(PUBLISH_SECONDS).record(started.elapsed()),
            Err(error) => metrics::counter!(PUBLISH_FAILURES_TOTAL, "reason" => error.reason()).increment(1),
        }
        published
    }

    /// Whether publishing would be tried at all.
    pub fn is_ready(&self) -> bool {
        *self.state.borrow() == State::Ready
    }

    /// Waits until there is a connection that is not blocked.
    pub async fn ready(&self) {
        // An error means that the owner has ended, with the process: then there is nothing to wait for.
        if self.state.clone().wait_for(|state| *state == State::Ready).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    async fn ask(&self, jobs: Vec<Outgoing>) -> Result<(), PublishError> {
        if !self.is_ready() {
            return Err(PublishError::Unavailable);
        }
        let (reply, answer) = oneshot::channel();
        let items = jobs.into_iter().map(|outgoing| Item::new(&self.broker, outgoing)).collect();
        self.groups.send(Group { items, reply }).await.map_err(|_| PublishError::Unavailable)?;
        answer.await.unwrap_or(Err(PublishError::Unconfirmed))
    }
}

impl PublishError {
    fn reason(self) -> &'static str {
        match self {
            PublishError::Unavailable => "unavailable",
            PublishError::Unconfirmed => "unconfirmed",
            PublishError::Unroutable { .. } => "unroutable",
        }
    }

    /// The graver of two, for a group that met both.
    fn or_graver(self, other: Self) -> Self {
        let gravity = |error: &Self| match error {
            PublishError::Unavailable => 0,
            PublishError::Unconfirmed => 1,
            PublishError::Unroutable { .. } => 2,
        };
        if gravity(&other) > gravity(&self) { other } else { self }
    }
}

/// Whether the owner can publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// No connection.
    Down,
    /// A connection on which the broker reads nothing because of an alarm.
    Blocked,
    Ready,
}

/// What one call of [`Publisher::publish`] asks for.
struct Group {
    items: Vec<Item>,
    reply: oneshot::Sender<Result<(), PublishError>>,
}

impl Group {
    fn refuse(self) {
        let _ = self.reply.send(Err(PublishError::Unavailable));
    }
}

/// A job ready to be written.
struct Item {
    queue: &'static str,
    routing_key: ShortString,
    id: crate::domain::ids::JobId,
    properties: BasicProperties,
    body: Bytes,
}

impl Item {
    fn new(broker: &Broker, Outgoing { to, job }: Outgoing) -> Self {
        let (queue, routing_key) = match to {
            Target::Queue(queue) => (queue.name, broker.broker_name(queue)),
            Target::Dead(queue) => (queue.name, broker.dead_broker_name(queue)),
        };
        let properties = message::properties(&job);
        Self { queue, routing_key: routing_key.into(), id: job.id, properties, body: job.body }
    }
}
