//! Consuming. A [`Session`] is one connection that is never repaired: when [`Session::lost`] resolves, drop it with all its
//! consumers and open another; the broker hands out again what was not acknowledged. Each [`Consumer`] has a channel of its own,
//! because acknowledging "through" a tag is a matter of one channel.

mod outstanding;
mod watchdog;

use super::{
    ANSWER_TIMEOUT, Broker, Error, Queue,
    link::{Link, Role},
    message, within,
};
use crate::{clock::Clock, jobs::Job};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures_util::Stream;
use lapin::{
    Channel,
    options::{BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions},
    types::FieldTable,
};
use outstanding::Outstanding;
use std::{
    future::poll_fn,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
    time::Duration,
};
use tokio_util::sync::WaitForCancellationFutureOwned;
use watchdog::{Fate, Watched};

/// After so long without a delivery, while jobs are ready and we could hold more, the connection counts as a zombie.
const ZOMBIE_AFTER: Duration = Duration::from_secs(15);

/// One connection to consume from.
pub struct Session {
    broker: Broker,
    link: Link,
    fate: Fate,
    watched: Watched,
    watchdog: watchdog::Guard,
}

impl Session {
    pub(super) async fn open(broker: &Broker) -> Result<Self, Error> {
        Self::open_watched(broker, ZOMBIE_AFTER).await
    }

    /// As [`Broker::session`], with another patience of the watchdog.
    ///
    /// # Errors
    /// If the broker cannot be used.
    pub async fn open_watched(broker: &Broker, zombie_after: Duration) -> Result<Self, Error> {
        let link = Link::open(broker, Role::Consume).await?;
        link.declare(broker).await?;
        let (fate, watched) = (Fate::default(), Watched::default());
        let guard = watchdog::start(broker, &link, fate.clone(), watched.clone(), zombie_after).await?;
        Ok(Self { broker: broker.clone(), link, fate, watched, watchdog: guard })
    }

    /// Begins to consume. At most `prefetch` deliveries are out and not acknowledged; that also bounds what is buffered. To
    /// change it, open another consumer and cancel this one.
    ///
    /// # Errors
    /// If the connection is lost, or the queue is missing.
    pub async fn consumer(&self, queue: &'static Queue, prefetch: u16) -> Result<Consumer, Error> {
        let name = self.broker.broker_name(queue);
        let channel = self.link.channel().await?;
        // Before consuming: lapin's buffer has no other bound.
        let qos = channel.basic_qos(prefetch, BasicQosOptions { global: false });
        within(ANSWER_TIMEOUT, "setting the prefetch", qos).await?;
        let options = BasicConsumeOptions::default();
        let consume = channel.basic_consume(name.clone().into(), "".into(), options, FieldTable::default());
        let stream = within(ANSWER_TIMEOUT, "consuming", consume).await?;
        let outstanding = Arc::new(Outstanding::new(prefetch));
        self.watched.add(name, &outstanding);
        Ok(Consumer {
            queue,
            clock: self.broker.clock.clone(),
            stream,
            cancelled: AtomicBool::new(false),
            ended: Box::pin(self.fate.sealed()),
            acker: Acker { channel, outstanding, fate: self.fate.clone(), turn: Arc::default() },
        })
    }

    /// Waits until the connection, or any channel on it, cannot be used any more, or it delivers nothing though there is work.
    pub async fn lost(&self) -> Error {
        self.fate.lost().await
    }

    /// Ends the session politely. What is not acknowledged is handed out again.
    pub async fn close(self) {
        drop(self.watchdog); // it would take the goodbye for a failure
        self.link.close().await;
    }
}

/// A stream of deliveries from one queue.
pub struct Consumer {
    queue: &'static Queue,
    clock: Clock,
    stream: lapin::Consumer,
    cancelled: AtomicBool,
    ended: Pin<Box<WaitForCancellationFutureOwned>>,
    acker: Acker,
}

impl Consumer {
    /// What it consumes.
    pub fn queue(&self) -> &'static Queue {
        self.queue
    }

    /// The next delivery; `None` when the consumer was cancelled and its buffer is empty, or when the session is lost. Safe
    /// to drop.
    pub async fn next(&mut self) -> Option<Delivery> {
        let _idle = self.acker.outstanding.clone().idle();
        let delivery = poll_fn(|cx| {
            if self.ended.as_mut().poll(cx).is_ready() {
                return Poll::Ready(None); // what is buffered belongs to somebody else by now
            }
            match Pin::new(&mut self.stream).poll_next(cx) {
                Poll::Ready(Some(Ok(delivery))) => Poll::Ready(Some(delivery)),
                Poll::Ready(Some(Err(error))) => {
                    self.acker.fate.seal(Error::from_lapin(&error));
                    Poll::Ready(None)
                }
                Poll::Ready(None) => {
                    if !self.cancelled.load(Ordering::Relaxed) {
                        // The queue was deleted, its leader went, or it took us too long to acknowledge.
                        self.acker.fate.seal(Error::Lost("the broker cancelled a consumer".to_owned()));
                    }
                    Poll::Ready(None)
                }
                Poll::Pending => Poll::Pending,
            }
        })
        .await?;
        self.acker.outstanding.delivered(delivery.delivery_tag);
        Some(Delivery::new(self.queue, self.clock.now(), delivery))
    }

    /// What settles this consumer's deliveries.
    pub fn acker(&self) -> Acker {
        self.acker.clone()
    }

    /// Asks the broker for no more. What is buffered still comes out of [`Consumer::next`], then `None`.
    pub async fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
        self.acker.outstanding.retire();
        let cancel = self.acker.channel.basic_cancel(self.stream.tag(), BasicCancelOptions::default());
        if let Err(error) = within(ANSWER_TIMEOUT, "cancelling a consumer", cancel).await {
            self.acker.fate.seal(error);
        }
    }
}

/// A job as it was handed to us.
#[derive(Debug)]
pub struct Delivery {
    /// The job; where its headers are unreadable, what can be saved of it.
    pub job: Job,
    /// What is wrong with its headers, if anything is.
    pub unreadable: Option<String>,
    /// Where it came from.
    pub queue: &'static Queue,
    /// Its number on the consumer's channel.
    pub tag: u64,
    /// 1 for the first time it is handed to anybody.
    pub deliveries: u32,
    /// How long ago it was first published, to the second; never negative. Unknown without a timestamp.
    pub age: Option<Duration>,
}

impl Delivery {
    fn new(queue: &'static Queue, received_at: DateTime<Utc>, delivery: lapin::message::Delivery) -> Self {
        let lapin::message::Delivery { delivery_tag: tag, properties, data, .. } = delivery;
        let body = Bytes::from(data);
        let age = message::timestamp(&properties).map(|at| (received_at - at).to_std().unwrap_or_default());
        let deliveries = message::returns(&properties).saturating_add(1);
        let (job, unreadable) = match message::job(&properties, body.clone()) {
            Ok(job) => (job, None),
            Err(why) => (message::salvage(&properties, body, received_at), Some(why)),
        };
        Self { job, unreadable, queue, tag, deliveries, age }
    }

    /// A delivery that no broker made, for tests of what is done with deliveries.
    pub fn made_up(job: Job, queue: &'static Queue, tag: u64, deliveries: u32) -> Self {
        Self { job, unreadable: None, queue, tag, deliveries, age: Some(Duration::ZERO) }
    }
}

/// The deliveries' channel is gone: they will be, or have been, handed out again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the session is lost, the delivery will be handed out again")]
pub struct Lost;

/// Settles deliveries of one consumer. Tags that are settled already are passed over: the broker would close the channel.
#[derive(Clone)]
pub struct Acker {
    channel: Channel,
    outstanding: Arc<Outstanding>,
    fate: Fate,
    /// One at a time, so that they reach the broker in order.
    turn: Arc<tokio::sync::Mutex<()>>,
}

impl Acker {
    /// Acknowledges this delivery and every earlier one of the consumer that is still out.
    ///
    /// # Errors
    /// [`Lost`].
    pub async fn ack_through(&self, tag: u64) -> Result<(), Lost> {
        let _turn = self.turn.lock().await;
        match self.outstanding.settle_through(tag) {
            Some(last) => self.settled(self.channel.basic_ack(last, BasicAckOptions { multiple: true })).await,
            None => self.still_there(),
        }
    }

    /// Acknowledges this delivery.
    ///
    /// # Errors
    /// [`Lost`].
    pub async fn ack(&self, tag: u64) -> Result<(), Lost> {
        let _turn = self.turn.lock().await;
        match self.outstanding.settle(tag) {
            true => self.settled(self.channel.basic_ack(tag, BasicAckOptions { multiple: false })).await,
            false => self.still_there(),
        }
    }

    /// Gives this delivery back, to be handed out again. That counts towards the delivery limit.
    ///
    /// # Errors
    /// [`Lost`].
    pub async fn requeue(&self, tag: u64) -> Result<(), Lost> {
        let _turn = self.turn.lock().await;
        match self.outstanding.settle(tag) {
            true => {
                self.settled(self.channel.basic_nack(tag, BasicNackOptions { multiple: false, requeue: true })).await
            }
            false => self.still_there(),
        }
    }

    /// Written is all that can be known: the broker does not answer acknowledgements.
    async fn settled(&self, written: impl Future<Output = lapin::Result<()>>) -> Result<(), Lost> {
        within(ANSWER_TIMEOUT, "acknowledging", written).await.map_err(|error| {
            self.fate.seal(error);
            Lost
        })
    }

    fn still_there(&self) -> Result<(), Lost> {
        if self.fate.is_sealed() { Err(Lost) } else { Ok(()) }
    }
}
