//! RabbitMQ for the yardsticks: quorum queues; persistent, mandatory, confirmed publishing on four channels of one
//! connection; consuming in batches that are acknowledged with one multiple each. No reconnecting: a yardstick whose
//! broker went away has measured nothing.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures_util::StreamExt;
use futures_util::future::{poll_fn, try_join_all};
use lapin::message::Delivery;
use lapin::options::{
    BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions, QueueDeclareOptions,
    QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, Consumer};

/// Publishing channels of a process; 1, 4 and 16 were the same within noise.
const CHANNELS: usize = 4;
/// Most messages of a batch, and how long its first one waits for the others.
pub(super) const BATCH: usize = 500;
const LINGER: Duration = Duration::from_millis(20);
/// Two batches: one in work, one on the way.
const PREFETCH: u16 = 2 * BATCH as u16;
/// A queue that a killed harness left behind goes away by itself; no run is as long.
const ABANDONED_AFTER: Duration = Duration::from_secs(3_600);
/// AMQP's delivery mode "persistent".
const PERSISTENT: u8 = 2;

/// Connects under a name that the management page shows.
pub(super) async fn connect(amqp_url: &str, name: &str) -> Result<Connection> {
    let properties = ConnectionProperties::default().with_connection_name(name.into());
    Connection::connect(amqp_url, properties).await.context("connect to RabbitMQ")
}

/// A queue of the harness's own.
pub(super) struct PrivateQueue {
    connection: Connection,
    channel: Channel,
    pub(super) name: String,
}

impl PrivateQueue {
    /// Declares a new durable quorum queue.
    pub(super) async fn declare(amqp_url: &str) -> Result<Self> {
        let connection = connect(amqp_url, "load harness").await?;
        let channel = connection.create_channel().await?;
        let name = format!("load.bare.{:08x}", rand::random::<u32>());
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
        arguments.insert("x-expires".into(), AMQPValue::LongInt(ABANDONED_AFTER.as_millis() as i32));
        channel.queue_declare(name.as_str().into(), QueueDeclareOptions::durable(), arguments).await?;
        Ok(Self { connection, channel, name })
    }

    /// Publishes all bodies and returns when every one is confirmed.
    pub(super) async fn fill(&self, bodies: &[Vec<u8>]) -> Result<()> {
        const IN_FLIGHT: usize = 256;
        let publisher = Publisher::open(&self.connection, &self.name).await?;
        for bodies in bodies.chunks(IN_FLIGHT) {
            try_join_all(bodies.iter().map(|body| publisher.publish(body))).await?;
        }
        Ok(())
    }

    pub(super) async fn delete(self) -> Result<()> {
        self.channel.queue_delete(self.name.as_str().into(), QueueDeleteOptions::default()).await?;
        self.connection.close(200, "done".into()).await?;
        Ok(())
    }
}

/// Publishes to one queue, for many tasks at once.
pub(super) struct Publisher {
    queue: ShortString,
    lanes: Vec<Lane>,
    next: AtomicUsize,
}

struct Lane {
    channel: Channel,
    /// lapin takes a publish's confirm number and queues its frames under different locks: without this one, two threads
    /// could get each other's confirms.
    order: Mutex<()>,
}

impl Publisher {
    pub(super) async fn open(connection: &Connection, queue: &str) -> Result<Self> {
        let mut lanes = Vec::with_capacity(CHANNELS);
        for _ in 0..CHANNELS {
            let channel = connection.create_channel().await?;
            channel.confirm_select(ConfirmSelectOptions::default()).await?;
            lanes.push(Lane { channel, order: Mutex::new(()) });
        }
        Ok(Self { queue: queue.into(), lanes, next: AtomicUsize::new(0) })
    }

    /// Returns once the broker has confirmed that the queue holds the message.
    pub(super) async fn publish(&self, body: &[u8]) -> Result<()> {
        let lane = &self.lanes[self.next.fetch_add(1, Ordering::Relaxed) % self.lanes.len()];
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let properties = BasicProperties::default().with_delivery_mode(PERSISTENT);
        let mut written =
            std::pin::pin!(lane.channel.basic_publish("".into(), self.queue.clone(), options, body, properties));
        let confirm = poll_fn(|context| {
            let _order = lane.order.lock().expect("nobody panics while publishing");
            written.as_mut().poll(context)
        });
        match confirm.await?.await? {
            Confirmation::Ack(None) => Ok(()),
            other => bail!("not stored: {other:?}"),
        }
    }
}

/// Deliveries in batches, on a channel of its own, because a multiple acknowledgement counts by channel.
pub(super) struct Batches(Consumer);

impl Batches {
    pub(super) async fn consume(connection: &Connection, queue: &str) -> Result<Self> {
        let channel = connection.create_channel().await?;
        channel.basic_qos(PREFETCH, BasicQosOptions::default()).await?;
        let options = BasicConsumeOptions::default();
        Ok(Self(channel.basic_consume(queue.into(), "".into(), options, FieldTable::default()).await?))
    }

    /// Waits for the first delivery, then takes what comes within 20 ms, at most 500.
    pub(super) async fn next(&mut self) -> Result<Vec<Delivery>> {
        let mut batch = Vec::with_capacity(BATCH);
        batch.push(self.0.next().await.context("the consumer was cancelled")??);
        let mut lingered = std::pin::pin!(tokio::time::sleep(LINGER));
        while batch.len() < BATCH {
            tokio::select! {
                biased;
                delivery = self.0.next() => batch.push(delivery.context("the consumer was cancelled")??),
                () = &mut lingered => break,
            }
        }
        Ok(batch)
    }
}
