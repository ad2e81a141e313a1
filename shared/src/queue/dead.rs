//! Dead letters, for an operator's hands: look, replay, discard. A queue of dead letters has no consumer; looking takes from its
//! head without acknowledging and gives everything back at the end, so it is bounded, and another look at the same time sees
//! what the first does not hold.

use super::{
    ANSWER_TIMEOUT, Broker, DELIVERY_LIMIT, Error, Queue,
    link::{Link, Role},
    message, within,
};
use crate::{domain::ids::JobId, jobs::Job};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use lapin::{
    BasicProperties, Channel, Confirmation,
    options::{BasicAckOptions, BasicGetOptions, BasicNackOptions, BasicPublishOptions, ConfirmSelectOptions},
};
use std::ops::ControlFlow;

/// A job that will not be tried again by itself.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    /// The job, or what could be saved of it.
    pub job: Job,
    /// Whether all of its headers could be read; if not, it can only be discarded.
    pub readable: bool,
    /// Where it came from.
    pub queue: &'static Queue,
    /// Why it is dead.
    pub reason: String,
    /// When the broker moved it here; unknown for those our workers laid here.
    pub died_at: Option<DateTime<Utc>>,
}

/// Which dead letters are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// The one of this job.
    Job(JobId),
    /// All that are there when it begins.
    All,
}

/// What became of the dead letters that were meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// Replayed, or discarded.
    pub moved: usize,
    /// Left where they are, because their headers are unreadable.
    pub left: usize,
}

/// The oldest dead letters of a queue, at most `limit`. They stay where they are.
///
/// # Errors
/// If the broker cannot be used.
pub async fn list(broker: &Broker, queue: &'static Queue, limit: usize) -> Result<Vec<DeadLetter>, Error> {
    let mut letters = Vec::new();
    let mut look = Look::open(broker, queue).await?;
    while letters.len() < limit
        && let Some((_, letter)) = look.next().await?
    {
        letters.push(letter);
    }
    look.close().await?;
    Ok(letters)
}

/// The dead letter of this job, if it is among those there.
///
/// # Errors
/// If the broker cannot be used.
pub async fn show(broker: &Broker, queue: &'static Queue, id: JobId) -> Result<Option<DeadLetter>, Error> {
    let mut look = Look::open(broker, queue).await?;
    let mut found = None;
    while let Some((_, letter)) = look.next().await? {
        if letter.job.id == id {
            found = Some(letter);
            break;
        }
    }
    look.close().await?;
    Ok(found)
}

/// Publishes jobs to the queue they came from as if they had never been tried, then takes them from the dead letters. If it is
/// broken off in between, a job is there twice, which its worker must bear anyway.
///
/// # Errors
/// If the broker cannot be used; what was replayed before stays replayed.
pub async fn replay(broker: &Broker, queue: &'static Queue, which: Which, now: DateTime<Utc>) -> Result<Moved, Error> {
    let look = Look::open(broker, queue).await?;
    let confirms = look.channel.confirm_select(ConfirmSelectOptions::default());
    within(ANSWER_TIMEOUT, "asking for confirms", confirms).await?;
    let name = broker.broker_name(queue);
    look.take(which, async |channel, letter| {
        if !letter.readable {
            return Ok(false);
        }
        publish(channel, &name, &fresh(letter.job, now)).await?;
        Ok(true)
    })
    .await
}

/// Takes jobs from the dead letters for good.
///
/// # Errors
/// If the broker cannot be used; what was discarded before is gone.
pub async fn discard(broker: &Broker, queue: &'static Queue, which: Which) -> Result<Moved, Error> {
    Look::open(broker, queue).await?.take(which, async |_, _| Ok(true)).await
}

/// The job as new: with its id, by which it is known, but without its past. Rebuilt from what we know, so that the broker's
/// `x-death` and counts are gone, too.
fn fresh(job: Job, now: DateTime<Utc>) -> Job {
    let mut new = Job::new(&job.kind, job.headers.version, job.headers.tenant, now, job.body);
    new.id = job.id;
    new.headers.traceparent = job.headers.traceparent;
    new
}

/// One at a time, so that a returned message belongs to the confirm that carries it.
async fn publish(channel: &Channel, name: &str, job: &Job) -> Result<(), Error> {
    let options = BasicPublishOptions { mandatory: true, immediate: false };
    let properties = message::properties(job);
    let confirmed =
        async { channel.basic_publish("".into(), name.into(), options, &job.body, properties).await?.await };
    match within(ANSWER_TIMEOUT, "confirming", confirmed).await? {
        Confirmation::Ack(None) => Ok(()),
        Confirmation::Ack(Some(_)) => Err(Error::Mismatch(format!("queue {name} does not exist"))),
        Confirmation::Nack(_) | Confirmation::NotRequested => {
            Err(Error::Unavailable(format!("the broker refused a job for {name}")))
        }
    }
}

/// One pass over the dead letters that are there when it begins.
struct Look {
    link: Link,
    channel: Channel,
    queue: &'static Queue,
    name: String,
    remaining: u32,
    /// Tags taken and not removed. To settle a tag that is settled closes the channel, so the last one counts.
    held: Vec<u64>,
}

impl Look {
    async fn open(broker: &Broker, queue: &'static Queue) -> Result<Self, Error> {
        let link = Link::open(broker, Role::Operate).await?;
        let channel = link.channel().await?;
        let name = broker.dead_broker_name(queue);
        let (remaining, _) = super::look(&channel, name.clone()).await?;
        Ok(Self { link, channel, queue, name, remaining, held: Vec::new() })
    }

    async fn next(&mut self) -> Result<Option<(u64, DeadLetter)>, Error> {
        if self.remaining == 0 {
            return Ok(None);
        }
        self.remaining -= 1;
        let got = self.channel.basic_get(self.name.clone().into(), BasicGetOptions { no_ack: false });
        let Some(message) = within(ANSWER_TIMEOUT, "looking at dead letters", got).await? else { return Ok(None) };
        let delivery = message.delivery;
        self.held.push(delivery.delivery_tag);
        Ok(Some((delivery.delivery_tag, letter(self.queue, &delivery.properties, delivery.data.into()))))
    }

    /// Does `deal` with each that is meant and removes those for which it says so.
    async fn take(
        mut self,
        which: Which,
        mut deal: impl AsyncFnMut(&Channel, DeadLetter) -> Result<bool, Error>,
    ) -> Result<Moved, Error> {
        let mut moved = Moved::default();
        while let Some((tag, letter)) = self.next().await? {
            let ControlFlow::Continue(last) = meant(which, letter.job.id) else { continue };
            if deal(&self.channel, letter).await? {
                let ack = self.channel.basic_ack(tag, BasicAckOptions { multiple: false });
                within(ANSWER_TIMEOUT, "removing a dead letter", ack).await?;
                self.held.pop();
                moved.moved += 1;
            } else {
                moved.left += 1;
            }
            if last {
                break;
            }
        }
        self.close().await?;
        Ok(moved)
    }

    /// Gives back everything that was taken and not removed, in one go, which keeps the order.
    async fn close(self) -> Result<(), Error> {
        if let Some(last) = self.held.last() {
            let nack = self.channel.basic_nack(*last, BasicNackOptions { multiple: true, requeue: true });
            within(ANSWER_TIMEOUT, "giving back dead letters", nack).await?;
        }
        self.link.close().await;
        Ok(())
    }
}

/// Whether this one is meant and, if so, whether it is the last.
fn meant(which: Which, id: JobId) -> ControlFlow<(), bool> {
    match which {
        Which::All => ControlFlow::Continue(false),
        Which::Job(wanted) if wanted == id => ControlFlow::Continue(true),
        Which::Job(_) => ControlFlow::Break(()),
    }
}

fn letter(queue: &'static Queue, properties: &BasicProperties, body: Bytes) -> DeadLetter {
    let death = message::death(properties);
    let unreadable = message::job(properties, Bytes::new()).err();
    let epoch = DateTime::UNIX_EPOCH;
    let job = message::salvage(properties, body, epoch);
    // The broker's reason is the later one: a job that our workers laid here has none, unless it was replayed by hand.
    let reason = match (&death, &job.headers.last_error, &unreadable) {
        (Some(death), _, _) if death.reason == "delivery_limit" => {
            format!("handed out more than {DELIVERY_LIMIT} times without being acknowledged (delivery_limit)")
        }
        (Some(death), _, _) => format!("dead-lettered by the broker ({})", death.reason),
        (None, Some(error), _) => error.clone(),
        (None, None, Some(unreadable)) => format!("unreadable headers: {unreadable}"),
        (None, None, None) => "unknown".to_owned(),
    };
    DeadLetter { job, readable: unreadable.is_none(), queue, reason, died_at: death.and_then(|death| death.at) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::INBOUND;

    #[test]
    fn a_replayed_job_keeps_its_id_and_loses_its_past() {
        let (then, now) = (DateTime::UNIX_EPOCH, DateTime::from_timestamp(9, 0).unwrap());
        let dead = Job::new("inbound.bundle", 1, None, then, "x").charged("broken").charged("again");
        let new = fresh(dead.clone(), now);
        assert_eq!((new.id, &new.body, new.headers.created_at), (dead.id, &dead.body, now));
        assert_eq!((new.headers.attempt, new.headers.first_error), (0, None));
    }

    #[test]
    fn the_reason_is_our_own_where_the_broker_gives_none() {
        let job = Job::new("inbound.bundle", 1, None, DateTime::UNIX_EPOCH, "x").charged("cannot be read");
        let letter = letter(&INBOUND, &message::properties(&job), job.body.clone());
        assert_eq!((letter.reason.as_str(), letter.readable), ("cannot be read", true));
    }

    #[test]
    fn unreadable_headers_are_a_reason_too() {
        let letter = letter(&INBOUND, &BasicProperties::default(), Bytes::new());
        assert_eq!(letter.reason, "unreadable headers: no message_id, or not a UUID");
        assert!(!letter.readable);
    }
}
