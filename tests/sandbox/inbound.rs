//! Webhook payloads of everything people do and everything an account hears of: one function per shape, each as the
//! contract page prints it (sections 2 to 6 and 13.3).

use super::{
    people::{Kind, Person},
    refusal,
    registry::NumberSpec,
};
use serde_json::{Value, json};

/// What a payload is made from.
#[derive(Debug)]
pub(super) struct Event<'a> {
    pub(super) kind: Kind,
    pub(super) person: &'a Person,
    /// This message's id.
    pub(super) id: &'a str,
    /// A message it refers to (quoted, tapped, edited), of either side.
    pub(super) about: &'a str,
    pub(super) text: &'a str,
    /// Unix seconds.
    pub(super) timestamp: i64,
}

/// The whole webhook around one or more changes of one business account.
pub(super) fn envelope(waba_id: &str, changes: Vec<Value>) -> Value {
    json!({"object": "whatsapp_business_account", "entry": [{"id": waba_id, "changes": changes}]})
}

/// A change of field `messages` with the given arrays inside `value`.
pub(super) fn change(number: &NumberSpec, arrays: Vec<(&str, Vec<Value>)>) -> Value {
    let mut value = json!({
        "messaging_product": "whatsapp",
        "metadata": {"display_phone_number": number.display_phone_number, "phone_number_id": number.id},
    });
    for (name, elements) in arrays.into_iter().filter(|(_, elements)| !elements.is_empty()) {
        value[name] = Value::Array(elements);
    }
    json!({"field": "messages", "value": value})
}

/// An element of `contacts[]`.
pub(super) fn contact(person: &Person) -> Value {
    let mut contact = json!({"profile": {"name": person.name}, "user_id": person.user_id});
    if let Some(username) = &person.username {
        contact["profile"]["username"] = json!(username);
    }
    if person.shares_phone {
        contact["wa_id"] = json!(person.wa_id);
    }
    contact
}

/// Whether `contacts[]` goes with a message of this kind.
pub(super) fn has_contact(kind: Kind) -> bool {
    !matches!(kind, Kind::NumberChanged | Kind::UserIdChanged)
}

/// An element of `messages[]`.
pub(super) fn message(event: &Event<'_>, number: &NumberSpec) -> Value {
    let (kind, content) = content(event);
    let mut message = json!({"id": event.id, "timestamp": event.timestamp.to_string(), "type": kind});
    if event.kind != Kind::UserIdChanged {
        message["from_user_id"] = json!(event.person.user_id);
        if event.person.shares_phone {
            message["from"] = json!(event.person.wa_id);
        }
    }
    if let Some(content) = content {
        message[kind] = content;
    }
    let business = &number.display_phone_number;
    match event.kind {
        Kind::Quote
        | Kind::ButtonReply
        | Kind::ListReply
        | Kind::FlowReply
        | Kind::AddressReply
        | Kind::CallPermission
        | Kind::TemplateButton => {
            message["context"] = json!({"from": business, "id": event.about});
        }
        Kind::Forwarded => message["context"] = json!({"forwarded": true}),
        Kind::FrequentlyForwarded => message["context"] = json!({"frequently_forwarded": true}),
        Kind::ProductEnquiry => {
            message["context"] = json!({"from": business, "id": event.about, "referred_product":
                {"catalog_id": "640000000000003", "product_retailer_id": "tea-green-100"}});
        }
        Kind::AdReferral => {
            message["referral"] = json!({"source_url": "https://fb.me/xYz12", "source_id": "120000000000000042",
                "source_type": "ad", "headline": "Autumn teas", "body": "Two for one until Sunday", "media_type": "image",
                "image_url": "https://scontent.example/ad.jpg", "ctwa_clid": "ARx-invented-click-id",
                "welcome_message": {"text": "Hi! Ask us anything."}});
        }
        Kind::GroupText => message["group_id"] = json!("R3JvdXAtMDAwMQ=="),
        Kind::Unsupported | Kind::UnsupportedBare => {
            message["errors"] = json!([error(131_051, "Message type is currently not supported.")]);
        }
        Kind::MediaTooLarge => message["errors"] = json!([error(131_052, "The file is larger than 100 MB.")]),
        Kind::Unavailable => message["errors"] = json!([error(131_060, "This message is currently unavailable.")]),
        Kind::IdentityChanged => {
            message["identity"] =
                json!({"acknowledged": false, "created_timestamp": event.timestamp.to_string(), "hash": "Qm9ndXM="});
        }
        _ => {}
    }
    message
}

/// An error as it stands in `errors[]` of webhooks.
pub(super) fn error(code: u32, details: &str) -> Value {
    let title = refusal::title(code);
    json!({"code": code, "title": title, "message": title, "error_data": {"details": details},
        "href": "/documentation/business-messaging/whatsapp/support/error-codes"})
}

/// Type and content of a message; some arrive without the content object.
fn content(event: &Event<'_>) -> (&'static str, Option<Value>) {
    let text = || ("text", Some(json!({"body": event.text})));
    let media = |mime: &str, more: Value| {
        let id = format!("88{:013}", event.timestamp % 10_000_000_000_000);
        // Without `url`, which may be missing: it would be one of the real internet.
        let mut media = json!({"mime_type": mime, "sha256": super::media::declared_digest(&id), "id": id});
        for (key, value) in more.as_object().into_iter().flatten() {
            media[key] = value.clone();
        }
        Some(media)
    };
    match event.kind {
        Kind::Text
        | Kind::Quote
        | Kind::Forwarded
        | Kind::FrequentlyForwarded
        | Kind::ProductEnquiry
        | Kind::AdReferral
        | Kind::GroupText => text(),
        Kind::Image => ("image", media("image/jpeg", json!({"caption": event.text}))),
        Kind::Video => ("video", media("video/mp4", json!({"caption": event.text}))),
        Kind::VoiceNote => ("audio", media("audio/ogg; codecs=opus", json!({"voice": true}))),
        Kind::AudioFile => ("audio", media("audio/mpeg", json!({"voice": false}))),
        Kind::Document | Kind::MediaTooLarge => {
            ("document", media("application/pdf", json!({"caption": event.text, "filename": "contract-114.pdf"})))
        }
        Kind::Sticker => ("sticker", media("image/webp", json!({"animated": false}))),
        Kind::Location => (
            "location",
            Some(json!({"latitude": 41.38792, "longitude": 2.16992, "name": "North Pier Cafe",
            "address": "12 Harbour Walk", "url": "https://northpier.example/"})),
        ),
        Kind::Contacts => ("contacts", Some(json!([card("other")]))),
        Kind::ContactRequestAnswer => ("contacts", Some(json!([card("contact_request")]))),
        Kind::ButtonReply => (
            "interactive",
            Some(json!({"type": "button_reply", "button_reply": {"id": "slot-0930", "title": "09:30"}})),
        ),
        Kind::ListReply => (
            "interactive",
            Some(json!({"type": "list_reply", "list_reply":
            {"id": "ship-express", "title": "Express", "description": "Next working day"}})),
        ),
        Kind::FlowReply => (
            "interactive",
            Some(json!({"type": "nfm_reply", "nfm_reply": {"name": "flow", "body": "Sent",
            "response_json": "{\"flow_token\":\"ft-551\",\"party_size\":\"4\"}"}})),
        ),
        Kind::AddressReply => (
            "interactive",
            Some(json!({"type": "nfm_reply", "nfm_reply": {"name": "address_message",
            "body": "12 Harbour Walk", "response_json": "{\"values\":{\"city\":\"Leeds\"}}"}})),
        ),
        Kind::CallPermission => (
            "interactive",
            Some(json!({"type": "call_permission_reply", "call_permission_reply":
            {"response": "accept", "expiration_timestamp": event.timestamp + 604_800, "response_source": "user_action"}})),
        ),
        Kind::TemplateButton => ("button", Some(json!({"payload": "CONFIRM-7781", "text": "Confirm"}))),
        Kind::Reaction => ("reaction", Some(json!({"message_id": event.about, "emoji": "👍"}))),
        Kind::ReactionRemoved => ("reaction", Some(json!({"message_id": event.about}))),
        Kind::Order => (
            "order",
            Some(json!({"catalog_id": "640000000000003", "text": "please gift-wrap", "product_items":
            [{"product_retailer_id": "tea-green-100", "quantity": 2, "item_price": 7.5, "currency": "EUR"}]})),
        ),
        Kind::NumberChanged => (
            "system",
            Some(json!({"type": "user_changed_number",
            "body": format!("User {} changed from {} to {}7", event.person.name, event.person.wa_id, event.person.wa_id),
            "wa_id": format!("{}7", event.person.wa_id), "user_id": format!("{}7", event.person.user_id),
            "previous_user_id": event.person.user_id})),
        ),
        Kind::UserIdChanged => (
            "system",
            Some(json!({"type": "user_changed_user_id", "body": "User id changed",
            "user_id": format!("{}8", event.person.user_id), "previous_user_id": event.person.user_id})),
        ),
        Kind::IdentityChanged => {
            ("system", Some(json!({"type": "customer_identity_changed", "body": "The customer's identity changed"})))
        }
        Kind::Unsupported => ("unsupported", Some(json!({"type": "poll_creation"}))),
        Kind::UnsupportedBare | Kind::Unavailable => ("unsupported", None),
        Kind::InteractiveBare => ("interactive", None),
        Kind::Edit => (
            "edit",
            Some(json!({"original_message_id": event.about, "message":
            {"context": {"id": "M0"}, "type": "text", "text": {"body": event.text}}})),
        ),
        Kind::Revoke => ("revoke", Some(json!({"original_message_id": event.about}))),
        _ => ("hologram", Some(json!({"depth": 3, "body": event.text}))),
    }
}

fn card(origin: &str) -> Value {
    json!({"name": {"formatted_name": "Dr. Ravi K. Mehta Jr.", "first_name": "Ravi", "middle_name": "K.",
            "last_name": "Mehta", "prefix": "Dr.", "suffix": "Jr."},
        "phones": [{"phone": "+1 (555) 777-0188", "wa_id": "15557770188", "type": "CELL"}],
        "emails": [{"email": "ravi@mehta.example", "type": "WORK"}],
        "addresses": [{"street": "4 Elm Row", "city": "Leeds", "state": "", "zip": "LS1 1AA", "country": "United Kingdom",
            "country_code": "GB", "type": "HOME"}],
        "org": {"company": "Mehta Clinic", "department": "Admin", "title": "Owner"},
        "urls": [{"url": "https://mehta.example", "type": "WORK"}], "birthday": "1984-02-29", "origin": origin})
}
