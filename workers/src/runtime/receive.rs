//! Taking deliveries: queues in order of preference, slowly at first, nothing while there is an outage of ours, and whatever
//! has been delivered three times or more by itself, with nothing else unacknowledged in this process.

use super::{
    Runtime,
    decode::Waiting,
    drain,
    held::Settled,
    lane::{Event, Lane, LaneId},
    ramp::{Ramp, SUSPICIOUS_DELIVERIES},
};
use crate::worker::Worker;
use shared::{
    queue::{self, Delivery, Queue, Session},
    telemetry::names,
};
use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// Why receiving ended.
#[derive(Debug)]
pub(crate) enum End {
    /// The process is to stop.
    Stopping,
    /// The session is lost; a new one must be made.
    Lost(queue::Error),
}

/// How often to look whether a queue's start is over.
const LOOK: Duration = Duration::from_millis(100);
/// After a suspicious delivery the other queues wait so long for another one of its queue.
const MORE_SUSPECTS: Duration = Duration::from_millis(200);

/// One session's deliveries.
pub(crate) struct Receiving<W: Worker> {
    runtime: Arc<Runtime<W>>,
    session: Session,
    pub(super) queues: Vec<Source>,
    pub(super) lanes: HashMap<LaneId, Lane>,
    /// Which queue a lane drains, also after it has ended.
    sources: Vec<usize>,
    pub(super) suspects: Vec<(LaneId, Waiting)>,
    /// Until then the lanes that were cancelled for a suspicious delivery are not opened again.
    wait_for_suspects: Option<Instant>,
    events: UnboundedReceiver<Event>,
    event_sender: UnboundedSender<Event>,
}

/// One queue.
pub(crate) struct Source {
    queue: &'static Queue,
    pub(super) waiting: VecDeque<Waiting>,
    /// The lane that takes one at a time.
    slow: Option<LaneId>,
    /// The lane with the full prefetch, once it has joined.
    full: Option<LaneId>,
    ramp: Ramp,
}

impl<W: Worker> Receiving<W> {
    pub(crate) fn new(runtime: Arc<Runtime<W>>, session: Session) -> Self {
        let (event_sender, events) = unbounded_channel();
        let now = Instant::now();
        let source = |queue: &&'static Queue| Source {
            queue,
            waiting: VecDeque::new(),
            slow: None,
            full: None,
            ramp: Ramp::new(now),
        };
        Self {
            runtime,
            session,
            queues: W::QUEUES.iter().map(source).collect(),
            lanes: HashMap::new(),
            sources: Vec::new(),
            suspects: Vec::new(),
            wait_for_suspects: None,
            events,
            event_sender,
        }
    }

    /// Receives until the process stops or the session is lost. When it stops, it is drained.
    pub(crate) async fn run(mut self) -> End {
        let end = match self.receive().await {
            Ok(never) => match never {},
            Err(end) => end,
        };
        if matches!(end, End::Stopping) {
            drain::drain(self).await;
        }
        end
    }

    async fn receive(&mut self) -> Result<std::convert::Infallible, End> {
        loop {
            while let Ok(event) = self.events.try_recv() {
                self.on(event);
            }
            if self.runtime.pause.is_paused() {
                let pause = self.runtime.pause.clone();
                self.until(pause.resumed()).await?;
                continue;
            }
            if !self.suspects.is_empty() {
                self.take_alone().await?;
                continue;
            }
            let batch = self.next_batch();
            if !batch.is_empty() {
                self.start(batch);
                continue;
            }
            self.open_lanes().await?;
            // Waking now and then is enough for what depends on time alone.
            let paused = self.runtime.pause.clone();
            self.event_or(async move {
                tokio::select! { () = tokio::time::sleep(LOOK) => {}, () = paused.entered() => {} }
            })
            .await?;
        }
    }

    /// What waits, from the most preferred queue first, as much as makes a batch.
    fn next_batch(&mut self) -> Vec<Waiting> {
        let mut batch = Vec::new();
        for source in &mut self.queues {
            let count = source.waiting.len().min(W::BATCH - batch.len());
            batch.extend(source.waiting.drain(..count));
        }
        batch
    }

    fn start(&self, batch: Vec<Waiting>) {
        let in_company = batch.len() > 1;
        let tickets: Vec<_> =
            batch.into_iter().filter_map(|waiting| self.runtime.decode(waiting, in_company)).collect();
        self.runtime.perform(tickets);
    }

    fn on(&mut self, event: Event) {
        let now = Instant::now();
        match event {
            Event::Delivered(id, delivery) => self.delivered(id, *delivery, now),
            Event::Acked(id, count) => {
                let source = &mut self.queues[self.sources[id]];
                if source.slow == Some(id) {
                    source.ramp.acked(count, now);
                }
            }
            Event::Ended(id) => {
                let source = &mut self.queues[self.sources[id]];
                source.slow.take_if(|slow| *slow == id);
                source.full.take_if(|full| *full == id);
                // The lane itself lives on until its deliveries are settled.
                self.lanes.remove(&id);
            }
        }
    }

    fn delivered(&mut self, id: LaneId, delivery: Delivery, now: Instant) {
        let Some(lane) = self.lanes.get(&id) else { return };
        let source = &mut self.queues[self.sources[id]];
        if source.slow == Some(id) {
            source.ramp.delivered(delivery.deliveries, now);
        }
        let deliveries = delivery.deliveries;
        let waiting = Waiting { delivery, lane: lane.settled() };
        if deliveries >= SUSPICIOUS_DELIVERIES {
            self.suspects.push((id, waiting));
        } else {
            self.wait_for_suspects = None;
            source.waiting.push_back(waiting);
        }
    }

    /// Opens the lanes that are missing, and those whose time has come.
    async fn open_lanes(&mut self) -> Result<(), End> {
        let now = Instant::now();
        if self.wait_for_suspects.is_some_and(|until| now < until) {
            return Ok(());
        }
        self.wait_for_suspects = None;
        for index in 0..self.queues.len() {
            let source = &self.queues[index];
            if source.slow.is_none() {
                let id = self.open(index, 1).await?;
                self.queues[index].slow = Some(id);
                self.queues[index].ramp = Ramp::new(Instant::now());
            } else if source.full.is_none() && W::prefetch(source.queue) > 1 && source.ramp.is_over(now) {
                let id = self.open(index, W::prefetch(source.queue)).await?;
                self.queues[index].full = Some(id);
            }
        }
        Ok(())
    }

    async fn open(&mut self, source: usize, prefetch: u16) -> Result<LaneId, End> {
        let queue = self.queues[source].queue;
        // A channel of its own each time: cancelling and consuming again on one is a known fault of RabbitMQ 3.10.8.
        let consumer = self.session.consumer(queue, prefetch).await.map_err(End::Lost)?;
        let id = self.sources.len();
        self.sources.push(source);
        let before_ack = W::crash_points().before_ack;
        let lane = Lane::start(id, consumer, self.event_sender.clone(), before_ack, &self.runtime.parts.life);
        self.lanes.insert(id, lane);
        tracing::debug!(queue = queue.name, prefetch, "consuming");
        Ok(id)
    }

    /// Takes suspicious deliveries one by one. First everything else of this process is acknowledged and no more can come:
    /// should the job abort the process, nothing else is counted as delivered once more.
    async fn take_alone(&mut self) -> Result<(), End> {
        loop {
            self.cancel_all_but(self.sole_slow_suspect());
            // What had come before that is finished as usual.
            while self.lanes.values().any(Lane::is_cancelled) || self.queues.iter().any(|q| !q.waiting.is_empty()) {
                self.go_on().await?;
            }
            while !self.runtime.ledger.is_empty() {
                let ledger = self.runtime.ledger.clone();
                self.until(ledger.empty()).await?;
            }
            // More may have come meanwhile.
            let settled =
                !self.lanes.values().any(Lane::is_cancelled) && self.queues.iter().all(|q| q.waiting.is_empty());
            if settled && (self.suspects.len() == 1 || self.lanes.is_empty()) {
                break;
            }
        }
        // Those that went down with another one, fewer times than it, first.
        self.suspects.sort_by_key(|(_, waiting)| std::cmp::Reverse(waiting.delivery.deliveries));
        while let Some((_, waiting)) = self.suspects.pop() {
            let delivery = &waiting.delivery;
            tracing::warn!(
                job = %delivery.job.id,
                queue = delivery.queue.name,
                deliveries = delivery.deliveries,
                "delivered again and again: taken alone"
            );
            metrics::counter!(names::JOBS_ALONE_TOTAL, "worker" => W::NAME, "queue" => delivery.queue.name)
                .increment(1);
            if let Some(whole) = self.runtime.divide(waiting) {
                self.start(vec![whole]);
            }
            let ledger = self.runtime.ledger.clone();
            self.until(ledger.empty()).await?;
            if !self.lanes.is_empty() {
                break; // Its own lane was left open: what comes next from it is looked at first.
            }
        }
        self.wait_for_suspects = (!self.lanes.is_empty()).then(|| Instant::now() + MORE_SUSPECTS);
        Ok(())
    }

    /// The lane that need not be cancelled: it takes one at a time, and that one is the only suspect.
    fn sole_slow_suspect(&self) -> Option<LaneId> {
        let [(id, _)] = self.suspects.as_slice() else { return None };
        self.queues.iter().any(|source| source.slow == Some(*id)).then_some(*id)
    }

    fn cancel_all_but(&self, kept: Option<LaneId>) {
        self.lanes.iter().filter(|(id, _)| Some(**id) != kept).for_each(|(_, lane)| lane.cancel());
    }

    /// Starts what waits, or waits for something to happen.
    async fn go_on(&mut self) -> Result<(), End> {
        let pause = self.runtime.pause.clone();
        if pause.is_paused() {
            return self.until(pause.resumed()).await;
        }
        let batch = self.next_batch();
        if batch.is_empty() {
            return self.event_or(std::future::pending()).await;
        }
        self.start(batch);
        Ok(())
    }

    /// Waits for this, taking note of what happens meanwhile.
    async fn until(&mut self, done: impl Future<Output = ()>) -> Result<(), End> {
        tokio::pin!(done);
        loop {
            tokio::select! {
                biased;
                () = self.runtime.parts.life.stopping() => return Err(End::Stopping),
                error = self.session.lost() => return Err(End::Lost(error)),
                () = &mut done => return Ok(()),
                Some(event) = self.events.recv() => self.on(event),
            }
        }
    }

    /// Waits for this or for something to happen.
    async fn event_or(&mut self, other: impl Future<Output = ()>) -> Result<(), End> {
        tokio::select! {
            biased;
            () = self.runtime.parts.life.stopping() => Err(End::Stopping),
            error = self.session.lost() => Err(End::Lost(error)),
            Some(event) = self.events.recv() => {
                self.on(event);
                Ok(())
            }
            () = other => Ok(()),
        }
    }

    /// What [`drain`] needs of it.
    pub(super) fn into_parts(self) -> Remains<W> {
        let waiting = self.queues.into_iter().flat_map(|source| source.waiting);
        let waiting = waiting.chain(self.suspects.into_iter().map(|(_, waiting)| waiting)).collect();
        (self.runtime, self.session, waiting, self.lanes, self.events)
    }
}

/// What is left of a session: what was not started, the lanes, and what still happens on them.
pub(super) type Remains<W> = (Arc<Runtime<W>>, Session, Vec<Waiting>, HashMap<LaneId, Lane>, UnboundedReceiver<Event>);

/// Gives a delivery back that was never started.
pub(super) fn give_back(lane: &UnboundedSender<Settled>, delivery: &Delivery) {
    let _ = lane.send(Settled::Requeue { tag: delivery.tag });
}
