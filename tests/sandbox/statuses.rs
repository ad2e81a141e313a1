//! The statuses of WhatsApp's messages (contract page, section 4): which ones a message has, and how they read. When they are told is
//! `course`.

use super::{
    agenda::PlannedStatus,
    behaviour::{Behaviour, Status},
    course::Course,
    dice::Roll,
    inbound,
    ledger::{Category, SendEntry},
    people, refusal,
    registry::NumberSpec,
};
use serde_json::{Value, json};

/// What is special about a message's statuses.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Special {
    /// It fails with this code, whatever the rates say.
    pub(super) fails: Option<u32>,
    /// Only `sent` follows (reactions).
    pub(super) only_sent: bool,
}

/// Which statuses a message is to have.
pub(super) fn course(behaviour: &Behaviour, special: Special, roll: &mut Roll) -> Course {
    let fails = special.fails.or_else(|| {
        if !roll.chance(behaviour.fail_later_rate) {
            return None;
        }
        // The others are Twilio's.
        let codes: Vec<u32> = behaviour.fail_later_codes.iter().copied().filter(|code| *code >= 130_000).collect();
        (!codes.is_empty()).then(|| *roll.pick(&codes))
    });
    let kinds: &[Status] = match fails {
        // A failure can come with or without a `sent` before it.
        Some(_) if roll.chance(0.5) => &[Status::Sent, Status::Failed],
        Some(_) => &[Status::Failed],
        None if special.only_sent => &[Status::Sent],
        None => {
            let read = behaviour.status_kinds.contains(&Status::Read) && roll.chance(behaviour.read_rate);
            match (read && roll.chance(behaviour.skip_delivered_rate), read) {
                (true, _) => &[Status::Sent, Status::Read],
                (false, true) => &[Status::Sent, Status::Delivered, Status::Read],
                (false, false) => &[Status::Sent, Status::Delivered],
            }
        }
    };
    let happens = kinds.iter().map(|status| (*status, fails.filter(|_| *status == Status::Failed))).collect();
    Course { happens, ..Course::default() }
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
        Status::Read | Status::Queued | Status::Echo | Status::Undelivered => {}
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
    use super::*;

    fn kinds(behaviour: &Behaviour, special: Special) -> Vec<Status> {
        course(behaviour, special, &mut Roll::new(4)).happens.into_iter().map(|(status, _)| status).collect()
    }

    #[test]
    fn message_has_the_statuses_its_fate_allows() {
        let all = Behaviour { read_rate: 1.0, skip_delivered_rate: 0.0, ..Behaviour::default() };
        assert_eq!(kinds(&all, Special::default()), [Status::Sent, Status::Delivered, Status::Read]);
        let skipping = Behaviour { skip_delivered_rate: 1.0, ..all.clone() };
        assert_eq!(kinds(&skipping, Special::default()), [Status::Sent, Status::Read]);
        assert_eq!(kinds(&all, Special { only_sent: true, ..Special::default() }), [Status::Sent]);
        assert_eq!(kinds(&all, Special { fails: Some(131_026), ..Special::default() }).last(), Some(&Status::Failed));
    }
}
