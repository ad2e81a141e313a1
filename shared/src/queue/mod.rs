//! Jobs over RabbitMQ. All of lapin is in here: the topology in one table, connections that their owners rebuild, confirmed
//! and mandatory publishing, consuming with acknowledgements, dead letters. What jobs mean, when they are retried and what is
//! committed before they are acknowledged is decided elsewhere (the workers' runtime).

pub mod bundle;
pub mod consume;
pub mod dead;
mod link;
pub mod management;
mod message;
pub mod metrics;
pub mod publish;
pub mod reconnect;
pub mod topology;

pub use bundle::{Bundler, NotStored, Spill};
pub use consume::{Acker, Consumer, Delivery, Lost, Session};
pub use publish::{Outgoing, PublishError, Publisher, Target};
pub use reconnect::Delay;
pub use topology::{ALL, CAMPAIGN, DELIVERY_LIMIT, INBOUND, MEDIA, OUTBOUND_BULK, OUTBOUND_NOW, Queue, by_name};

use crate::{clock::Clock, lifecycle::Lifecycle};
use lapin::{
    ErrorKind,
    options::{QueueDeclareOptions, QueueDeleteOptions},
    protocol::{AMQPErrorKind, AMQPSoftError},
    types::FieldTable,
};
use link::{ANSWER_TIMEOUT, Link, Role, within};
use secrecy::SecretString;
use std::sync::Arc;

/// The broker as this process knows it: where it is and under which names. Holds no connection; cheap to clone.
#[derive(Clone)]
pub struct Broker {
    settings: Arc<Settings>,
    clock: Clock,
}

/// Where the broker is.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `amqp://user:password@host:port/vhost`, the vhost escaped (`%2f` for `/`).
    pub url: SecretString,
    /// Queues are called `<namespace>.<name>`, so that several installations, and tests, can share a vhost.
    pub namespace: String,
    /// What this process calls its connections, e.g. `mijra-inbound/3f2a`.
    pub process: String,
}

/// What is known of a queue without the management plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Depth {
    /// Jobs that wait and are with no consumer.
    pub ready: u32,
    /// Consumers.
    pub consumers: u32,
    /// Dead letters.
    pub dead: u32,
}

/// Why the broker could not be used. Never the fault of a job.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It cannot be reached, or does not let us in: try again later.
    #[error("broker unavailable: {0}")]
    Unavailable(String),
    /// What was open is gone, or does not answer: build it again.
    #[error("broker connection lost: {0}")]
    Lost(String),
    /// A queue stands there with other arguments than ours, or is missing: an operator must act.
    #[error("the broker's queues are not as declared: {0}")]
    Mismatch(String),
}

impl Broker {
    /// Nothing is connected yet.
    pub fn new(settings: Settings) -> Self {
        Self { settings: Arc::new(settings), clock: Clock::system() }
    }

    /// The same with another clock, by which deliveries are stamped.
    #[must_use]
    pub fn with_clock(self, clock: Clock) -> Self {
        Self { clock, ..self }
    }

    /// What the queue is called on the broker.
    pub fn broker_name(&self, queue: &Queue) -> String {
        format!("{}.{}", self.settings.namespace, queue.name)
    }

    /// What its queue of dead letters is called on the broker.
    pub fn dead_broker_name(&self, queue: &Queue) -> String {
        format!("{}.{}", self.settings.namespace, queue.dead_name())
    }

    /// The virtual host in the URL, unescaped; RabbitMQ's default if the URL cannot be read.
    pub fn vhost(&self) -> String {
        link::parse(&self.settings).map_or_else(|_| "/".to_owned(), |uri| uri.vhost)
    }

    /// Declares every queue. Publishers and sessions do the same whenever they connect.
    ///
    /// # Errors
    /// [`Error::Mismatch`] if one stands there with other arguments.
    pub async fn declare(&self) -> Result<(), Error> {
        let link = Link::open(self, Role::Operate).await?;
        link.declare(self).await?;
        link.close().await;
        Ok(())
    }

    /// Deletes every queue of the namespace with all that is in it. For tests.
    ///
    /// # Errors
    /// If the broker cannot be used.
    pub async fn remove(&self) -> Result<(), Error> {
        let link = Link::open(self, Role::Operate).await?;
        let channel = link.channel().await?;
        for queue in ALL {
            for name in [self.broker_name(queue), self.dead_broker_name(queue)] {
                let deleted = channel.queue_delete(name.into(), QueueDeleteOptions::default());
                within(ANSWER_TIMEOUT, "deleting a queue", deleted).await?;
            }
        }
        link.close().await;
        Ok(())
    }

    /// How much is in the queue, asked over a connection of its own.
    ///
    /// # Errors
    /// If the broker cannot be used, or the queue is not declared.
    pub async fn depth(&self, queue: &Queue) -> Result<Depth, Error> {
        let link = Link::open(self, Role::Operate).await?;
        let channel = link.channel().await?;
        let (ready, consumers) = look(&channel, self.broker_name(queue)).await?;
        let (dead, _) = look(&channel, self.dead_broker_name(queue)).await?;
        link.close().await;
        Ok(Depth { ready, consumers, dead })
    }

    /// A publisher with a connection of its own, kept up until the last clone is dropped.
    pub fn publisher(&self, life: &Lifecycle) -> Publisher {
        Publisher::start(self.clone(), life)
    }

    /// A connection to consume from, with the queues declared.
    ///
    /// # Errors
    /// If the broker cannot be used; the caller tries again (see [`Delay`]).
    pub async fn session(&self) -> Result<Session, Error> {
        Session::open(self).await
    }
}

/// Messages ready and consumers, by a passive declaration.
async fn look(channel: &lapin::Channel, name: String) -> Result<(u32, u32), Error> {
    let declared = channel.queue_declare(name.into(), QueueDeclareOptions::durable().passive(), FieldTable::default());
    let declared = within(ANSWER_TIMEOUT, "looking at a queue", declared).await?;
    Ok((declared.message_count(), declared.consumer_count()))
}

impl Error {
    fn from_lapin(error: &lapin::Error) -> Self {
        let text = error.to_string();
        match error.kind() {
            ErrorKind::ProtocolError(protocol) => match protocol.kind() {
                AMQPErrorKind::Soft(AMQPSoftError::PRECONDITIONFAILED | AMQPSoftError::NOTFOUND) => {
                    Error::Mismatch(text)
                }
                _ => Error::Lost(text),
            },
            _ => Error::Lost(text),
        }
    }

    fn into_unavailable(self) -> Self {
        match self {
            Error::Lost(text) => Error::Unavailable(text),
            other => other,
        }
    }
}
