//! Every queue there is, in one table. Start-up declares them from here; the command line, dashboards and scaling manifests
//! are checked against it. Jobs travel through the default exchange, straight to the queue they name.
//!
//! Arguments hold what is needed for correctness (type, delivery limit, where the dead go); sizes are left to optional policies,
//! because declaring a queue again with another argument is refused.

use lapin::types::{AMQPValue, FieldTable};
use std::time::Duration;

/// A queue of jobs, with its queue of dead letters beside it.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Queue {
    /// Its name, without the namespace.
    pub name: &'static str,
    /// A job that has failed so many times is dead.
    pub max_attempts: u32,
    /// A job that is older than this is not tried again, however few its attempts.
    pub max_age: Duration,
}

const HOUR: Duration = Duration::from_secs(3600);

/// Raw webhooks, in bundles. Their failures are the data's, so a few attempts tell; a day covers a night without a person.
pub static INBOUND: Queue = Queue { name: "inbound", max_attempts: 8, max_age: HOUR.saturating_mul(24) };
/// Messages of agents and automation, one each. After a day nobody wants the answer sent by itself.
pub static OUTBOUND_NOW: Queue = Queue { name: "outbound.now", max_attempts: 8, max_age: HOUR.saturating_mul(24) };
/// Slices of campaigns. They may wait out a weekend.
pub static OUTBOUND_BULK: Queue = Queue { name: "outbound.bulk", max_attempts: 8, max_age: HOUR.saturating_mul(72) };
/// Steps of campaigns: small transactions of our own that fail by their data alone, so a few attempts tell. A step that is lost
/// stops its campaign, so it lasts over a weekend without a person.
pub static CAMPAIGN: Queue = Queue { name: "campaign", max_attempts: 8, max_age: HOUR.saturating_mul(72) };

/// Files to be fetched, objects to be deleted, people to be asked about. What a provider fails at is tried again by the file's own
/// row; a job fails by what is wrong with us, so a few attempts tell.
pub static MEDIA: Queue = Queue { name: "media", max_attempts: 8, max_age: HOUR.saturating_mul(72) };

/// All of them.
pub const ALL: &[&Queue] = &[&INBOUND, &OUTBOUND_NOW, &OUTBOUND_BULK, &CAMPAIGN, &MEDIA];

/// The queue of this name.
pub fn by_name(name: &str) -> Option<&'static Queue> {
    ALL.iter().copied().find(|queue| queue.name == name)
}

/// A delivery given back (mostly: its process died) more often than this goes to the dead letters. The documented default of
/// RabbitMQ 4; 3.10 has none, so it is always stated. Our own failures never requeue, so that only crashes count.
pub const DELIVERY_LIMIT: i32 = 20;

/// Looking at dead letters gives them back each time, which counts as well. RabbitMQ 4 would apply its default of 20 and then
/// drop them; -1 for "none" is refused by 3.10. So: a number nobody reaches.
const DEAD_DELIVERY_LIMIT: i32 = 1_000_000;

impl Queue {
    /// The name of its dead letters, without the namespace.
    pub fn dead_name(&self) -> String {
        format!("{}.dead", self.name)
    }

    /// The arguments of the queue itself. `dead` is the broker's name of its dead letters.
    pub(super) fn arguments(&self, dead: &str) -> FieldTable {
        table([
            ("x-queue-type", text("quorum")),
            ("x-delivery-limit", AMQPValue::LongInt(DELIVERY_LIMIT)),
            ("x-dead-letter-exchange", text("")),
            ("x-dead-letter-routing-key", text(dead)),
            ("x-dead-letter-strategy", text("at-least-once")),
            // At-least-once dead-lettering silently falls back to at-most-once without it.
            ("x-overflow", text("reject-publish")),
        ])
    }

    /// The arguments of its dead letters.
    pub(super) fn dead_arguments(&self) -> FieldTable {
        table([("x-queue-type", text("quorum")), ("x-delivery-limit", AMQPValue::LongInt(DEAD_DELIVERY_LIMIT))])
    }
}

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.into())
}

fn table<const N: usize>(entries: [(&str, AMQPValue); N]) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in entries {
        table.insert(name.into(), value);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back_to_their_queues_and_are_unique() {
        for queue in ALL {
            assert_eq!(by_name(queue.name), Some(*queue));
        }
        let mut names: Vec<_> = ALL.iter().flat_map(|queue| [queue.name.to_owned(), queue.dead_name()]).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), 2 * ALL.len());
        assert_eq!(by_name("inbound.dead"), None);
    }

    #[test]
    fn work_queues_say_where_their_dead_go_and_never_drop() {
        let arguments = INBOUND.arguments("ns.inbound.dead");
        let of = |name: &str| arguments.inner().get(name).cloned();
        assert_eq!(of("x-dead-letter-routing-key"), Some(text("ns.inbound.dead")));
        assert_eq!(of("x-dead-letter-strategy"), Some(text("at-least-once")));
        assert_eq!(of("x-overflow"), Some(text("reject-publish")));
        assert_eq!(of("x-delivery-limit"), Some(AMQPValue::LongInt(20)));
    }
}
