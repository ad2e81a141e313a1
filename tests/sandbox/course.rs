//! What becomes of an accepted message: which things happen to it, when, and when they are told. Which ones a provider knows is its
//! own; delays, repetitions and the wrong order are the same for all.

use super::{
    accounts::Account,
    agenda::{PlannedStatus, Task},
    behaviour::{Behaviour, Status},
    dice::Roll,
    provider::Provider,
    registry::Number,
};
use std::sync::Arc;
use tokio::sync::oneshot;

/// Whose message it is.
#[derive(Debug, Clone)]
pub(super) enum Owner {
    /// A number of WhatsApp's.
    Number(Arc<Number>),
    /// Anybody else's account.
    Account(Arc<Account>),
}

/// What is to happen to a message, in order, each with a code if it is a failure.
#[derive(Debug, Default, Clone)]
pub(super) struct Course {
    pub(super) happens: Vec<(Status, Option<u32>)>,
    /// It is scheduled for then: nothing happens before.
    pub(super) begins_us: u64,
    /// It waits in a queue until then: nothing but `queued` happens before.
    pub(super) leaves_us: u64,
}

/// Puts a message's course on the agenda. What it returns resolves once the receiver has answered the first webhook,
/// if that one is to be told before the send itself is answered.
pub(super) fn plan(
    provider: &Provider,
    behaviour: &Behaviour,
    owner: &Owner,
    send: u64,
    course: &Course,
    roll: &mut Roll,
) -> Option<oneshot::Receiver<()>> {
    if !behaviour.statuses {
        return None;
    }
    let mut told = schedule(behaviour, provider.clock.now_us(), course, roll);
    let mut first_told = None;
    if roll.chance(behaviour.status_before_answer_rate)
        && let Some(first) = told.first_mut()
    {
        first.due_us = 0;
        let (sender, receiver) = oneshot::channel();
        first.answered = Some(sender);
        first_told = Some(receiver);
    }
    for status in told {
        let again_us = roll
            .chance(behaviour.duplicate_rate)
            .then(|| status.due_us + behaviour.status_delay_ms.draw(roll).max(1) * 1000);
        let planned = |answered| PlannedStatus {
            send,
            owner: owner.clone(),
            status: status.status,
            code: status.code,
            happened_us: status.happened_us,
            answered,
        };
        if let Some(again_us) = again_us {
            provider.agenda.add(again_us, Task::Status(planned(None)));
        }
        provider.agenda.add(status.due_us, Task::Status(planned(status.answered)));
    }
    first_told
}

#[derive(Debug)]
struct Planned {
    status: Status,
    code: Option<u32>,
    happened_us: u64,
    due_us: u64,
    answered: Option<oneshot::Sender<()>>,
}

fn schedule(behaviour: &Behaviour, now_us: u64, course: &Course, roll: &mut Roll) -> Vec<Planned> {
    let told = course.happens.iter().filter(|(status, code)| code.is_some() || behaviour.status_kinds.contains(status));
    let mut at_us = now_us.max(course.begins_us);
    let mut planned: Vec<Planned> = told
        .map(|(status, code)| {
            if *status != Status::Queued {
                at_us = at_us.max(course.leaves_us);
            }
            at_us += behaviour.status_delay_ms.draw(roll) * 1000;
            Planned { status: *status, code: *code, happened_us: at_us, due_us: at_us, answered: None }
        })
        .collect();
    if planned.len() > 1 && roll.chance(behaviour.reorder_rate) {
        let last = planned.len() - 1;
        let (first_due, last_due) = (planned[0].due_us, planned[last].due_us);
        // At least a millisecond apart, so that the order is really another one.
        (planned[0].due_us, planned[last].due_us) = (last_due + 1000, first_due);
    }
    planned
}

#[cfg(test)]
mod tests {
    use super::super::behaviour::Span;
    use super::*;

    fn order(behaviour: &Behaviour, course: &Course) -> Vec<Status> {
        let mut planned = schedule(behaviour, 0, course, &mut Roll::new(4));
        planned.sort_by_key(|planned| planned.due_us);
        planned.iter().map(|planned| planned.status).collect()
    }

    #[test]
    fn things_happen_in_order_unless_told_otherwise() {
        let all = [Status::Queued, Status::Sent, Status::Delivered];
        let course = Course { happens: all.map(|status| (status, None)).to_vec(), begins_us: 0, leaves_us: 5_000_000 };
        let plain = Behaviour { status_delay_ms: Span { min: 5, max: 9 }, ..Behaviour::default() };
        assert_eq!(order(&plain, &course), all);
        let planned = schedule(&plain, 0, &course, &mut Roll::new(4));
        assert!(planned[0].due_us < 10_000 && planned[1].due_us >= 5_005_000, "it leaves when the queue lets it");
        let reordered = Behaviour { reorder_rate: 1.0, ..plain.clone() };
        assert_eq!(order(&reordered, &course), [Status::Delivered, Status::Sent, Status::Queued]);
        let some = Behaviour { status_kinds: vec![Status::Sent], ..plain };
        let happens = vec![(Status::Sent, None), (Status::Failed, Some(131_026))];
        let failing = Course { happens, ..Course::default() };
        assert_eq!(order(&some, &failing), [Status::Sent, Status::Failed], "a failure is always told");
    }
}
