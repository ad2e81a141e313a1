//! One publishing channel with all that is in flight on it: jobs go out as they come, up to a limit; confirms come back in any
//! order and are put together into answers, one a group.

use super::{CONFIRM_TIMEOUT, Group, Item, PublishError};
use crate::{
    domain::ids::JobId,
    queue::{Error, message, metrics::PUBLISHED_TOTAL},
};
use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use lapin::{Channel, Confirmation, options::BasicPublishOptions};
use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    future::poll_fn,
    task::Poll,
    time::Instant,
};
use tokio::sync::oneshot;

/// Jobs written and not confirmed. Beyond some hundreds more in flight buys latency only.
const MAX_IN_FLIGHT: usize = 1024;
/// No more groups are taken while so many jobs have not been written.
const GATHERED: usize = 256;

type Settled = (u64, lapin::Result<Confirmation>);

/// One publishing channel. Every group it takes is answered: by [`Lane::settle`], [`Lane::give_up`] or, at the latest, its drop.
pub(super) struct Lane {
    channel: Channel,
    /// Not written yet, with the number of its group.
    backlog: VecDeque<(u64, Item)>,
    /// Every confirm is held until it is there: a dropped one would be kept, and leak, inside lapin.
    confirms: FuturesUnordered<BoxFuture<'static, Settled>>,
    /// By the order of writing, so that the first is the oldest.
    in_flight: BTreeMap<u64, InFlight>,
    groups: HashMap<u64, Open>,
    returned: Returned,
    /// Whether a job found no queue since this was last asked.
    unroutable: bool,
    next: u64,
}

struct InFlight {
    group: u64,
    queue: &'static str,
    id: JobId,
    since: Instant,
}

/// A group that is not answered yet.
struct Open {
    remaining: usize,
    written: bool,
    outcome: Result<(), PublishError>,
    reply: oneshot::Sender<Result<(), PublishError>>,
}

impl Lane {
    pub(super) fn new(channel: Channel) -> Self {
        Self {
            channel,
            backlog: VecDeque::new(),
            confirms: FuturesUnordered::new(),
            in_flight: BTreeMap::new(),
            groups: HashMap::new(),
            returned: Returned::default(),
            unroutable: false,
            next: 0,
        }
    }

    /// Takes a group: writes what the limit allows, keeps the rest for later.
    pub(super) fn take(&mut self, Group { items, reply }: Group) {
        self.next += 1;
        let open = Open { remaining: items.len(), written: false, outcome: Ok(()), reply };
        self.groups.insert(self.next, open);
        let group = self.next;
        self.backlog.extend(items.into_iter().map(|item| (group, item)));
        self.write();
    }

    /// Whether another group can be taken.
    pub(super) fn has_room(&self) -> bool {
        self.backlog.len() < GATHERED && self.in_flight.len() < MAX_IN_FLIGHT
    }

    /// Whether nothing is in flight or waiting.
    pub(super) fn is_idle(&self) -> bool {
        self.in_flight.is_empty() && self.backlog.is_empty()
    }

    /// Whether the oldest confirm should have come long ago.
    pub(super) fn is_overdue(&self) -> bool {
        self.in_flight.first_key_value().is_some_and(|(_, oldest)| oldest.since.elapsed() > CONFIRM_TIMEOUT)
    }

    /// Whether a job found no queue since this was last asked.
    pub(super) fn take_unroutable(&mut self) -> bool {
        std::mem::take(&mut self.unroutable)
    }

    /// The time spent blocked is not the confirms' fault.
    pub(super) fn restart_clocks(&mut self) {
        let now = Instant::now();
        self.in_flight.values_mut().for_each(|job| job.since = now);
    }

    /// Answers every group now, as far as is known, and forgets what was not written. Confirms still in flight are awaited all
    /// the same by later calls of [`Lane::settle`].
    pub(super) fn give_up(&mut self) {
        self.backlog.clear();
        for (_, open) in self.groups.drain() {
            let error = if open.written { PublishError::Unconfirmed } else { PublishError::Unavailable };
            let _ = open.reply.send(Err(open.outcome.err().unwrap_or(error).or_graver(error)));
        }
    }

    /// Waits for confirms and answers the groups they complete. Safe to drop.
    pub(super) async fn settle(&mut self) -> Result<(), Error> {
        let settled = all_settled(&mut self.confirms).await;
        // Every return among them first: lapin hands a returned message to whichever confirm completes next, which may be
        // another job's. The returned job's own confirm never completes before the one that carries its return.
        for (_, result) in &settled {
            if let Ok(Confirmation::Ack(Some(returned)) | Confirmation::Nack(Some(returned))) = result {
                self.returned.add(message::id(&returned.delivery.properties));
                self.unroutable = true;
            }
        }
        let mut failed = None;
        for (number, result) in settled {
            let Some(job) = self.in_flight.remove(&number) else { continue };
            let outcome = match result {
                Ok(confirmation) => self.returned.judge(&job, &confirmation),
                Err(error) => {
                    failed.get_or_insert_with(|| Error::from_lapin(&error));
                    Err(PublishError::Unconfirmed)
                }
            };
            if outcome.is_ok() {
                metrics::counter!(PUBLISHED_TOTAL, "queue" => job.queue).increment(1);
            }
            self.record(job.group, outcome);
        }
        self.write();
        failed.map_or(Ok(()), Err)
    }

    fn record(&mut self, group: u64, outcome: Result<(), PublishError>) {
        let Some(open) = self.groups.get_mut(&group) else { return }; // given up before
        open.remaining -= 1;
        if let Err(error) = outcome {
            open.outcome = Err(open.outcome.err().map_or(error, |worst| worst.or_graver(error)));
        }
        if open.remaining == 0
            && let Some(done) = self.groups.remove(&group)
        {
            let _ = done.reply.send(done.outcome);
        }
    }

    fn write(&mut self) {
        while self.in_flight.len() < MAX_IN_FLIGHT
            && let Some((group, item)) = self.backlog.pop_front()
        {
            self.next += 1;
            let number = self.next;
            let Item { queue, id, .. } = item;
            if let Some(open) = self.groups.get_mut(&group) {
                open.written = true;
            }
            self.in_flight.insert(number, InFlight { group, queue, id, since: Instant::now() });
            let channel = self.channel.clone();
            self.confirms.push(async move { (number, write(&channel, item).await) }.boxed());
        }
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.give_up();
    }
}

/// Writes a job and waits for its confirm. The confirm's number and the frames are handed out at its first poll; all are polled
/// by the one owner task, so that they cannot be swapped.
async fn write(channel: &Channel, item: Item) -> lapin::Result<Confirmation> {
    let options = BasicPublishOptions { mandatory: true, immediate: false };
    let Item { routing_key, properties, body, .. } = item;
    channel.basic_publish("".into(), routing_key, options, &body, properties).await?.await
}

/// Waits until at least one confirm is there and takes all that are. Nothing is judged before everything ready was taken: lapin
/// completes confirms one after another and wakes each before it completes the next, so whatever completed before one of these
/// is among them.
fn all_settled(confirms: &mut FuturesUnordered<BoxFuture<'static, Settled>>) -> impl Future<Output = Vec<Settled>> {
    poll_fn(|cx| {
        let mut settled = Vec::new();
        while let Poll::Ready(Some(one)) = confirms.poll_next_unpin(cx) {
            settled.push(one);
        }
        if settled.is_empty() { Poll::Pending } else { Poll::Ready(settled) }
    })
}

/// Returned messages whose own confirm has not come yet. Counted, because a job may be in flight twice.
#[derive(Default)]
struct Returned(HashMap<JobId, u32>);

impl Returned {
    fn add(&mut self, id: Option<JobId>) {
        if let Some(id) = id {
            *self.0.entry(id).or_default() += 1;
        }
    }

    fn judge(&mut self, job: &InFlight, confirmation: &Confirmation) -> Result<(), PublishError> {
        if let Some(count) = self.0.get_mut(&job.id) {
            *count -= 1;
            if *count == 0 {
                self.0.remove(&job.id);
            }
            return Err(PublishError::Unroutable { queue: job.queue });
        }
        match confirmation {
            Confirmation::Ack(None) => Ok(()),
            // It carries another job's return, so its own could still be waiting inside lapin for the next confirm.
            Confirmation::Ack(Some(_)) => Err(PublishError::Unconfirmed),
            Confirmation::Nack(_) | Confirmation::NotRequested => Err(PublishError::Unconfirmed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_flight() -> InFlight {
        InFlight { group: 1, queue: "inbound", id: JobId::new(), since: Instant::now() }
    }

    #[test]
    fn a_returned_job_is_unroutable_whichever_confirm_carried_the_return() {
        let (lost, other) = (in_flight(), in_flight());
        let mut returned = Returned::default();
        returned.add(Some(lost.id));
        assert_eq!(returned.judge(&other, &Confirmation::Ack(None)), Ok(()));
        let unroutable = Err(PublishError::Unroutable { queue: "inbound" });
        assert_eq!(returned.judge(&lost, &Confirmation::Ack(None)), unroutable);
        assert_eq!(returned.judge(&lost, &Confirmation::Ack(None)), Ok(()), "a later try of the same job");
    }

    #[test]
    fn only_a_plain_ack_is_a_confirm() {
        let mut returned = Returned::default();
        for refused in [Confirmation::Nack(None), Confirmation::NotRequested] {
            assert_eq!(returned.judge(&in_flight(), &refused), Err(PublishError::Unconfirmed));
        }
    }
}
