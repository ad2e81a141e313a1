//! One consumer with its channel: deliveries go in, acknowledgements go out, in order and in as few frames as possible.

use super::{
    acks::AckWindow,
    acks::PATIENCE,
    held::{Settled, Slot},
};
use shared::{
    crash::{self, CrashPoint},
    lifecycle::Lifecycle,
    queue::{Acker, Consumer, Delivery, Lost},
};
use std::time::Instant;
use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

/// Names a lane within a session.
pub(crate) type LaneId = usize;

/// What happens on lanes.
#[derive(Debug)]
pub(crate) enum Event {
    /// Somebody's turn.
    Delivered(LaneId, Box<Delivery>),
    /// So many of its deliveries are acknowledged.
    Acked(LaneId, usize),
    /// No more deliveries come: it was cancelled, or the session is lost.
    Ended(LaneId),
}

/// A running lane. Dropped, it ends as soon as its deliveries are settled.
#[derive(Debug)]
pub(crate) struct Lane {
    settled: UnboundedSender<Settled>,
    cancel: CancellationToken,
    task: JoinHandle<()>,
}

impl Lane {
    pub(crate) fn start(
        id: LaneId,
        consumer: Consumer,
        events: UnboundedSender<Event>,
        before_ack: Option<CrashPoint>,
        life: &Lifecycle,
    ) -> Self {
        let (settled, incoming) = unbounded_channel();
        let cancel = CancellationToken::new();
        let acks = Acks { acker: consumer.acker(), window: AckWindow::default(), before_ack };
        let task = life.spawn(run(id, consumer, acks, incoming, events, cancel.clone()));
        Self { settled, cancel, task }
    }

    /// Where its deliveries are settled.
    pub(crate) fn settled(&self) -> UnboundedSender<Settled> {
        self.settled.clone()
    }

    /// Asks for no more deliveries; what has come already still comes out.
    pub(crate) fn cancel(&self) {
        self.cancel.cancel();
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancel.is_cancelled()
    }

    /// Waits until all its deliveries are settled with the broker, or the session is lost.
    pub(crate) async fn ended(self) {
        drop(self.settled);
        let _ = self.task.await;
    }
}

async fn run(
    id: LaneId,
    mut consumer: Consumer,
    mut acks: Acks,
    mut settled: UnboundedReceiver<Settled>,
    events: UnboundedSender<Event>,
    cancel: CancellationToken,
) {
    let (mut open, mut cancelled) = (true, false);
    let mut group = Vec::new();
    while open || !acks.window.is_empty() {
        let straggling = acks.window.has_stragglers();
        tokio::select! {
            biased;
            count = settled.recv_many(&mut group, 1024) => {
                if count == 0 {
                    return; // Nobody is left who could settle anything.
                }
                match acks.take(&mut group).await {
                    Ok(0) => {}
                    Ok(acked) => drop(events.send(Event::Acked(id, acked))),
                    Err(Lost) => break,
                }
            }
            () = cancel.cancelled(), if !cancelled => {
                cancelled = true;
                consumer.cancel().await;
            }
            delivery = consumer.next(), if open => match delivery {
                Some(delivery) => {
                    acks.window.received(delivery.tag);
                    drop(events.send(Event::Delivered(id, Box::new(delivery))));
                }
                None => {
                    open = false;
                    drop(events.send(Event::Ended(id)));
                }
            },
            () = tokio::time::sleep(PATIENCE / 2), if straggling => {
                match acks.stragglers().await {
                    Ok(0) => {}
                    Ok(acked) => drop(events.send(Event::Acked(id, acked))),
                    Err(Lost) => break,
                }
            }
        }
    }
    if open {
        drop(events.send(Event::Ended(id)));
    }
}

struct Acks {
    acker: Acker,
    window: AckWindow<Slot>,
    before_ack: Option<CrashPoint>,
}

impl Acks {
    /// Settles a group; how many are acknowledged now. Their slots are freed after the frame is written.
    async fn take(&mut self, group: &mut Vec<Settled>) -> Result<usize, Lost> {
        let now = Instant::now();
        for settled in group.drain(..) {
            match settled {
                Settled::Ack { tag, slot } => self.window.done(tag, now, slot),
                // At once: an acknowledgement through a higher tag would take it along.
                Settled::Requeue { tag } => {
                    self.window.gone(tag);
                    self.acker.requeue(tag).await?;
                }
            }
        }
        let Some((through, slots)) = self.window.prefix() else { return Ok(0) };
        self.pass();
        self.acker.ack_through(through).await?;
        Ok(slots.len())
    }

    async fn stragglers(&mut self) -> Result<usize, Lost> {
        let stragglers = self.window.stragglers(Instant::now());
        for (tag, _slot) in &stragglers {
            self.pass();
            self.acker.ack(*tag).await?;
        }
        Ok(stragglers.len())
    }

    fn pass(&self) {
        if let Some(point) = self.before_ack {
            crash::pass(point);
        }
    }
}
