//! Webhook payloads that are no message of a person: statuses nobody asked for, preferences, and the account-level
//! fields with their integer `time` and without `metadata` (contract page, sections 3.5, 6 and 13.3).

use super::{
    inbound::{self, Event},
    people::Kind,
    registry::NumberSpec,
};
use serde_json::{Value, json};

/// The whole webhook for one piece of news of this kind.
pub(super) fn webhook(event: &Event<'_>, number: &NumberSpec) -> Value {
    match event.kind {
        Kind::ValueError => {
            let error = inbound::error(130_429, crate::sandbox::refusal::details(130_429));
            on_number(number, "messages", json!({"errors": [error]}))
        }
        Kind::StrayStatus => on_number(
            number,
            "messages",
            json!({"statuses": [{"id": event.about, "status": "delivered",
            "timestamp": event.timestamp.to_string(), "recipient_id": event.person.wa_id,
            "recipient_user_id": event.person.user_id}]}),
        ),
        Kind::MarketingStopped => preference(event, number, "stop"),
        Kind::MarketingResumed => preference(event, number, "resume"),
        Kind::BusinessEcho => on_number(
            number,
            "smb_message_echoes",
            json!({"message_echoes": [{
            "from": number.display_phone_number, "to": event.person.wa_id, "to_user_id": event.person.user_id,
            "id": event.id, "timestamp": event.timestamp.to_string(), "type": "text", "text": {"body": event.text}}]}),
        ),
        Kind::ContactSync => on_number(
            number,
            "smb_app_state_sync",
            json!({"state_sync": [{"type": "contact",
            "contact": {"full_name": event.person.name, "first_name": event.person.name, "phone_number": event.person.wa_id},
            "action": "add", "metadata": {"timestamp": event.timestamp.to_string()}}]}),
        ),
        Kind::History => on_number(
            number,
            "history",
            json!({"history": [{
            "metadata": {"phase": 0, "chunk_order": 1, "progress": 55},
            "threads": [{"id": event.person.wa_id, "messages": [{"from": event.person.wa_id, "id": event.id,
                "timestamp": (event.timestamp - 864_000).to_string(), "type": "text", "text": {"body": event.text},
                "history_context": {"status": "READ"}}]}]}]}),
        ),
        Kind::Call => on_number(
            number,
            "calls",
            json!({"calls": [{"id": event.id.replacen("wamid.", "wacid.", 1),
            "from": event.person.wa_id, "to": number.display_phone_number, "event": "connect",
            "timestamp": event.timestamp.to_string(), "direction": "USER_INITIATED",
            "session": {"sdp_type": "offer", "sdp": "v=0"}}]}),
        ),
        Kind::GroupUpdate => on_number(
            number,
            "group_participants_update",
            json!({"groups": [{
            "timestamp": event.timestamp, "group_id": "R3JvdXAtMDAwMQ==", "type": "group_participants_add",
            "request_id": "req-1", "added_participants": [{"input": event.person.dial, "wa_id": event.person.wa_id}]}]}),
        ),
        kind => {
            let (field, value) = account_level(kind, event, number);
            let mut change = json!({"value": value});
            // The provider's own sample of alerts lacks the field's name.
            if kind != Kind::AccountAlert {
                change["field"] = json!(field);
            }
            json!({"object": "whatsapp_business_account",
                "entry": [{"id": number.waba_id, "time": event.timestamp, "changes": [change]}]})
        }
    }
}

fn on_number(number: &NumberSpec, field: &str, more: Value) -> Value {
    let mut change = inbound::change(number, vec![]);
    change["field"] = json!(field);
    for (key, value) in more.as_object().into_iter().flatten() {
        change["value"][key] = value.clone();
    }
    inbound::envelope(&number.waba_id, vec![change])
}

fn preference(event: &Event<'_>, number: &NumberSpec, value: &str) -> Value {
    let mut preference = json!({"user_id": event.person.user_id, "detail": format!("User requested to {value} marketing messages"),
        "category": "marketing_messages", "value": value, "timestamp": event.timestamp});
    if event.person.shares_phone {
        preference["wa_id"] = json!(event.person.wa_id);
    }
    let more = json!({"contacts": [inbound::contact(event.person)], "user_preferences": [preference]});
    on_number(number, "user_preferences", more)
}

/// Field and value of news about the account itself.
fn account_level(kind: Kind, event: &Event<'_>, number: &NumberSpec) -> (&'static str, Value) {
    let template = |mut value: Value| {
        value["message_template_id"] = json!(710_000_000_000_011_u64);
        value["message_template_name"] = json!("cart_nudge");
        // Both spellings occur.
        value["message_template_language"] = json!(if event.timestamp % 2 == 0 { "en_US" } else { "en-US" });
        value
    };
    let phone = &number.display_phone_number;
    match kind {
        Kind::TemplateStatus => (
            "message_template_status_update",
            template(json!({"event": "REJECTED",
            "reason": "INVALID_FORMAT", "message_template_category": "MARKETING", "rejection_info":
            {"reason": "Two variables stand side by side.", "recommendation": "Put words between them."}})),
        ),
        Kind::TemplateQuality => (
            "message_template_quality_update",
            template(json!({"previous_quality_score": "GREEN", "new_quality_score": "YELLOW"})),
        ),
        Kind::TemplateComponents => (
            "message_template_components_update",
            template(json!({
            "message_template_element": "Hi {{1}}, your cart is waiting.", "message_template_title": "Your cart",
            "message_template_footer": "Harbour Clinic", "message_template_buttons": [{"message_template_button_type": "URL",
            "message_template_button_text": "Open", "message_template_button_url": "https://shop.example/cart"}]})),
        ),
        Kind::TemplateCategory => {
            ("template_category_update", template(json!({"previous_category": "UTILITY", "new_category": "MARKETING"})))
        }
        Kind::NumberQuality => (
            "phone_number_quality_update",
            json!({"display_phone_number": phone,
            "event": "THROUGHPUT_UPGRADE", "max_daily_conversations_per_business": "TIER_UNLIMITED"}),
        ),
        Kind::NumberName => (
            "phone_number_name_update",
            json!({"display_phone_number": phone, "decision": "APPROVED",
            "requested_verified_name": "Harbour Clinic", "rejection_reason": null}),
        ),
        Kind::Capability => (
            "business_capability_update",
            json!({"max_daily_conversations_per_business": 2000, "max_phone_numbers_per_business": 25}),
        ),
        Kind::AccountUpdate => (
            "account_update",
            json!({"event": "ACCOUNT_RESTRICTION", "restriction_info":
            [{"restriction_type": "RESTRICTED_ADD_PHONE_NUMBER_ACTION", "expiration": event.timestamp + 86_400}]}),
        ),
        Kind::AccountReview => ("account_review_update", json!({"decision": "APPROVED"})),
        Kind::AccountAlert => (
            "account_alerts",
            json!({"entity_type": "PHONE_NUMBER", "entity_id": number.id,
            "alert_info": {"alert_severity": "WARNING", "alert_status": "ACTIVE", "alert_type": "PROFILE_PICTURE_LOST",
            "alert_description": "The profile picture was lost."}}),
        ),
        Kind::Security => {
            ("security", json!({"display_phone_number": phone, "event": "PIN_CHANGED", "requester": "410000000000004"}))
        }
        Kind::UsernameUpdate => (
            "business_username_update",
            json!({"display_phone_number": phone, "username": "harbourclinic", "status": "approved"}),
        ),
        Kind::PartnerSolution => (
            "partner_solutions",
            json!({"event": "SOLUTION_UPDATED", "solution_id": "430000000000006", "solution_status": "ACTIVE"}),
        ),
        _ => ("field_of_tomorrow", json!({"shape": ["unknown", 1, null]})),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::{Config, people::Person};

    #[test]
    fn account_level_news_has_integer_time_and_no_metadata() {
        let number = Config::default().numbers.remove(0);
        let person = Person::nth(1, 1);
        for kind in Kind::ALL.into_iter().filter(|kind| !kind.is_message()) {
            let event =
                Event { kind, person: &person, id: "wamid.a", about: "wamid.b", text: "t", timestamp: 1_794_830_500 };
            let webhook = webhook(&event, &number);
            let entry = &webhook["entry"][0];
            let value = &entry["changes"][0]["value"];
            assert_eq!(entry["time"].is_i64(), value.get("metadata").is_none(), "{kind:?}: {webhook}");
        }
    }
}
