//! What becomes of an accepted message and how its statuses read (contract page, section 4): which ones, when they
//! happen, when they are told.

use super::{
    agenda::{PlannedStatus, Task},
    behaviour::{Behaviour, Status},
    dice::Roll,
    inbound,
    ledger::{Category, SendEntry},
    people,
    provider::Provider,
    refusal,
    registry::{Number, NumberSpec},
};
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::sync::oneshot;

/// What is special about a message's statuses.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Course {
    /// It fails with this code, whatever the rates say.
    pub(super) fails: Option<u32>,
    /// Only `sent` follows (reactions).
    pub(super) only_sent: bool,
}

/// Puts a message's statuses on the agenda. What it returns resolves once the receiver has answered the first one,
/// if that one is to be told before the send itself is answered.
pub(super) fn plan(
    provider: &Provider,
    behaviour: &Behaviour,
    number: &Arc<Number>,
    send: u64,
    course: Course,
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
            number: number.clone(),
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

fn schedule(behaviour: &Behaviour, now_us: u64, course: Course, roll: &mut Roll) -> Vec<Planned> {
    let fails = course
        .fails
        .or_else(|| roll.chance(behaviour.fail_later_rate).then(|| *roll.pick(&behaviour.fail_later_codes)));
    let mut kinds = Vec::with_capacity(3);
    match fails {
        // A failure can come with or without a `sent` before it.
        Some(_) if roll.chance(0.5) => kinds.extend([Status::Sent, Status::Failed]),
        Some(_) => kinds.push(Status::Failed),
        None if course.only_sent => kinds.push(Status::Sent),
        None => {
            kinds.push(Status::Sent);
            let read = behaviour.status_kinds.contains(&Status::Read) && roll.chance(behaviour.read_rate);
            if !(read && roll.chance(behaviour.skip_delivered_rate)) {
                kinds.push(Status::Delivered);
            }
            if read {
                kinds.push(Status::Read);
            }
        }
    }
    kinds.retain(|kind| *kind == Status::Failed || behaviour.status_kinds.contains(kind));
    let mut at_us = now_us;
    let mut planned: Vec<Planned> = kinds
        .into_iter()
        .map(|status| {
            at_us += behaviour.status_delay_ms.draw(roll) * 1000;
            let code = fails.filter(|_| status == Status::Failed);
            Planned { status, code, happened_us: at_us, due_us: at_us, answered: None }
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

/// One element of `statuses[]`.
pub(super) fn status(planned: &PlannedStatus, entry: &SendEntry, behaviour: &Behaviour, happened: i64) -> Value {
    let name = planned.status.name();
    let mut status = json!({"id": entry.wamid(), "status": name, "timestamp": happened.to_string()});
    match addressee(entry) {
        Addressee::Phone => {
            status["recipient_id"] = json!(entry.recipient);
            // Missing on a failure of what was addressed to a phone.
            if planned.status != Status::Failed {
                status["recipient_user_id"] = json!(people::user_id_of(&entry.recipient));
            }
        }
        Addressee::User => status["recipient_user_id"] = json!(entry.recipient),
        Addressee::Group => {
            status["recipient_id"] = json!(entry.recipient);
            status["recipient_type"] = json!("group");
        }
    }
    if let Some(opaque) = &entry.opaque {
        status["biz_opaque_callback_data"] = json!(opaque);
    }
    match planned.status {
        Status::Failed => {
            let code = planned.code.unwrap_or(131_000);
            status["errors"] = json!([inbound::error(code, refusal::details(code))]);
        }
        Status::Sent | Status::Delivered => {
            status["pricing"] = pricing(entry);
            if entry.free_entry || behaviour.webhook_version < 24 {
                status["conversation"] = conversation(entry, planned.status, happened);
            }
        }
        Status::Read => {}
    }
    status
}

/// The element of `contacts[]` beside it: present for all but failures.
pub(super) fn contact(planned: &PlannedStatus, entry: &SendEntry) -> Option<Value> {
    (planned.status != Status::Failed && matches!(addressee(entry), Addressee::Phone))
        .then(|| json!({"wa_id": entry.recipient, "user_id": people::user_id_of(&entry.recipient)}))
}

/// Puts the statuses of one number into one webhook. `shape` chooses between the ways updates may be batched.
pub(super) fn webhook(number: &NumberSpec, statuses: Vec<(Value, Option<Value>)>, shape: u64) -> Value {
    let change = |batch: Vec<(Value, Option<Value>)>| {
        let (statuses, contacts): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
        let mut contacts: Vec<Value> = contacts.into_iter().flatten().collect();
        contacts.dedup();
        inbound::change(number, vec![("contacts", contacts), ("statuses", statuses)])
    };
    match shape % 3 {
        0 if statuses.len() > 1 => {
            inbound::envelope(&number.waba_id, statuses.into_iter().map(|status| change(vec![status])).collect())
        }
        1 if statuses.len() > 1 => {
            let entries: Vec<Value> = statuses
                .into_iter()
                .map(|status| json!({"id": number.waba_id, "changes": [change(vec![status])]}))
                .collect();
            json!({"object": "whatsapp_business_account", "entry": entries})
        }
        _ => inbound::envelope(&number.waba_id, vec![change(statuses)]),
    }
}

enum Addressee {
    Phone,
    User,
    Group,
}

fn addressee(entry: &SendEntry) -> Addressee {
    if entry.recipient.bytes().all(|b| b.is_ascii_digit()) {
        Addressee::Phone
    } else if super::body::is_user_id(&entry.recipient) {
        Addressee::User
    } else {
        Addressee::Group
    }
}

fn pricing(entry: &SendEntry) -> Value {
    let (kind, category) = match (entry.free_entry, entry.category) {
        (true, _) => ("free_entry_point", "referral_conversion"),
        (false, Category::Service) => ("free_customer_service", "service"),
        (false, category) => ("regular", category.name()),
    };
    json!({"billable": kind == "regular", "pricing_model": "PMP", "type": kind, "category": category})
}

fn conversation(entry: &SendEntry, status: Status, happened: i64) -> Value {
    let origin = if entry.free_entry { "referral_conversion" } else { entry.category.name() };
    let mut conversation = json!({"id": format!("{:032x}", entry.seq), "origin": {"type": origin}});
    if status == Status::Sent {
        let hours = if entry.free_entry { 72 } else { 24 };
        conversation["expiration_timestamp"] = json!((happened + hours * 3600).to_string());
    }
    conversation
}

#[cfg(test)]
mod tests {
    use super::super::behaviour::Span;
    use super::*;

    fn kinds(behaviour: &Behaviour, course: Course) -> Vec<Status> {
        let mut planned = schedule(behaviour, 0, course, &mut Roll::new(4));
        planned.sort_by_key(|planned| planned.due_us);
        planned.iter().map(|planned| planned.status).collect()
    }

    #[test]
    fn statuses_come_in_order_unless_told_otherwise() {
        let delays = Span { min: 5, max: 9 };
        let all =
            Behaviour { read_rate: 1.0, skip_delivered_rate: 0.0, status_delay_ms: delays, ..Behaviour::default() };
        assert_eq!(kinds(&all, Course::default()), [Status::Sent, Status::Delivered, Status::Read]);
        let skipping = Behaviour { skip_delivered_rate: 1.0, ..all.clone() };
        assert_eq!(kinds(&skipping, Course::default()), [Status::Sent, Status::Read]);
        let reordered = Behaviour { reorder_rate: 1.0, ..all.clone() };
        assert_eq!(kinds(&reordered, Course::default()), [Status::Read, Status::Delivered, Status::Sent]);
        assert_eq!(kinds(&all, Course { only_sent: true, ..Course::default() }), [Status::Sent]);
        assert_eq!(kinds(&all, Course { fails: Some(131_026), ..Course::default() }).last(), Some(&Status::Failed));
    }
}
