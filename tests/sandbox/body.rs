//! The body of `POST /{version}/{PNID}/messages`, read as strictly as the provider reads it (contract page, section 7).
//! Knows nothing of accounts, limits or templates' definitions.

use super::{
    content::{self, File},
    fields::Fields,
    interactive,
    refusal::Refusal,
};
use serde_json::Value;
use std::borrow::Cow;

/// What was asked for.
#[derive(Debug)]
pub(super) enum Call<'a> {
    Message(Message<'a>),
    /// Mark as read, perhaps with a typing indicator.
    ReadReceipt {
        message_id: &'a str,
    },
}

/// A message whose body is in order.
#[derive(Debug)]
pub(super) struct Message<'a> {
    /// `to` or `recipient` as it was given; echoed in the answer.
    pub(super) input: &'a str,
    pub(super) recipient: Recipient<'a>,
    pub(super) content: Content<'a>,
}

#[derive(Debug)]
pub(super) enum Content<'a> {
    Template(Fields<'a>),
    Media(&'static str, File<'a>),
    Reaction { message_id: &'a str },
    Other,
}

/// Whom a message is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Recipient<'a> {
    /// The `wa_id`: digits, perhaps not those that were dialled.
    Phone(Cow<'a, str>),
    /// A business-scoped user id.
    User(&'a str),
    Group(&'a str),
}

impl Recipient<'_> {
    pub(super) fn key(&self) -> &str {
        match self {
            Self::Phone(digits) => digits,
            Self::User(id) | Self::Group(id) => id,
        }
    }
}

/// What can be seen of a request before it is checked, for the ledger.
#[derive(Debug, Default)]
pub(super) struct Glance<'a> {
    pub(super) recipient: Cow<'a, str>,
    pub(super) kind: &'static str,
    pub(super) opaque: Option<&'a str>,
    pub(super) text: Option<&'a str>,
}

const KINDS: [&str; 11] = [
    "text",
    "template",
    "image",
    "document",
    "audio",
    "video",
    "sticker",
    "location",
    "contacts",
    "interactive",
    "reaction",
];

const COMMON: [&str; 9] = [
    "messaging_product",
    "recipient_type",
    "to",
    "recipient",
    "type",
    "context",
    "biz_opaque_callback_data",
    "recipient_identity_key_hash",
    "messaging_account_id",
];

/// Looks at a body without judging it.
pub(super) fn glance<'a>(body: &'a Value, country_code: &str) -> Glance<'a> {
    let text = |key: &str| body.get(key).and_then(Value::as_str);
    if text("status").is_some() {
        let kind = if body.get("typing_indicator").is_some() { "typing" } else { "read_receipt" };
        return Glance { kind, ..Glance::default() };
    }
    let input = text("to").or_else(|| text("recipient")).unwrap_or_default();
    Glance {
        recipient: wa_id(input, country_code).unwrap_or(Cow::Borrowed(input)),
        kind: kind(text("type").unwrap_or("text")).unwrap_or("unknown"),
        opaque: text("biz_opaque_callback_data"),
        text: body.get("text").and_then(|text| text.get("body")).and_then(Value::as_str),
    }
}

/// Checks the whole body.
pub(super) fn check<'a>(body: &'a Value, country_code: &str) -> Result<Call<'a>, Refusal> {
    let fields = Fields::of(body, "body")?;
    if fields.text("messaging_product", 32)? != "whatsapp" {
        return Err(fields.wrong("messaging_product", "must be whatsapp."));
    }
    if fields.has("status") {
        return read_receipt(fields);
    }
    let kind = match fields.optional_text("type", 32)? {
        None => "text",
        Some(given) => kind(given).ok_or_else(|| fields.wrong("type", "is not a known message type."))?,
    };
    fields.only_with(&COMMON, kind)?;
    fields.optional_text("biz_opaque_callback_data", 512)?;
    fields.optional_text("recipient_identity_key_hash", 256)?;
    fields.optional_text("messaging_account_id", 64)?;
    let (input, recipient) = recipient(&fields, country_code)?;
    if let Some(context) = fields.optional_object("context", "context")? {
        context.only(&["message_id"])?.text("message_id", 512)?;
        if kind == "reaction" {
            return Err(fields.wrong("context", "cannot stand beside a reaction."));
        }
    }
    let content = content(&fields, kind)?;
    Ok(Call::Message(Message { input, recipient, content }))
}

fn kind(given: &str) -> Option<&'static str> {
    KINDS.iter().find(|kind| **kind == given).copied()
}

fn read_receipt<'a>(fields: Fields<'a>) -> Result<Call<'a>, Refusal> {
    fields.only(&["messaging_product", "status", "message_id", "typing_indicator"])?;
    if fields.text("status", 16)? != "read" {
        return Err(fields.wrong("status", "must be read."));
    }
    if let Some(typing) = fields.optional_object("typing_indicator", "typing_indicator")?
        && typing.only(&["type"])?.text("type", 16)? != "text"
    {
        return Err(typing.wrong("type", "must be text."));
    }
    Ok(Call::ReadReceipt { message_id: fields.text("message_id", 512)? })
}

fn recipient<'a>(fields: &Fields<'a>, country_code: &str) -> Result<(&'a str, Recipient<'a>), Refusal> {
    let group = match fields.optional_text("recipient_type", 16)? {
        None | Some("individual") => false,
        Some("group") => true,
        Some(_) => return Err(fields.wrong("recipient_type", "must be individual or group.")),
    };
    let user = fields.optional_text("recipient", 140)?;
    if let (None, Some(user)) = (fields.get("to"), user) {
        return if is_user_id(user) {
            Ok((user, Recipient::User(user)))
        } else {
            Err(fields.wrong("recipient", "is not a business-scoped user id."))
        };
    }
    let to = fields.text("to", 128)?;
    if group {
        return Ok((to, Recipient::Group(to)));
    }
    match wa_id(to, country_code) {
        Some(wa_id) => Ok((to, Recipient::Phone(wa_id))),
        None => Err(fields.wrong("to", "is not a valid phone number.")),
    }
}

fn content<'a>(fields: &Fields<'a>, kind: &'static str) -> Result<Content<'a>, Refusal> {
    if kind == "contacts" {
        content::contacts(fields.array("contacts", 1, 257)?)?;
        return Ok(Content::Other);
    }
    let object = fields.object(kind, kind)?;
    match kind {
        "text" => drop(content::text(object)?),
        "image" | "video" => return content::media(object, &["caption"]).map(|file| Content::Media(kind, file)),
        "document" => return content::media(object, &["caption", "filename"]).map(|file| Content::Media(kind, file)),
        "audio" => return content::media(object, &["voice"]).map(|file| Content::Media(kind, file)),
        "sticker" => return content::media(object, &[]).map(|file| Content::Media(kind, file)),
        "location" => content::location(object)?,
        "interactive" => interactive::interactive(object)?,
        "reaction" => return Ok(Content::Reaction { message_id: content::reaction(object)? }),
        _ => return Ok(Content::Template(object.only(&["name", "language", "components", "namespace"])?)),
    }
    Ok(Content::Other)
}

/// The WhatsApp id of what was dialled. Without a leading `+` the business's own country code may be put in front.
/// Brazilian mobiles outside the oldest area codes lose their extra 9: the id is not always what was dialled.
pub(super) fn wa_id<'a>(to: &'a str, country_code: &str) -> Option<Cow<'a, str>> {
    let plain = to.strip_prefix('+').unwrap_or(to);
    let mut digits = if plain.bytes().all(|b| b.is_ascii_digit()) {
        Cow::Borrowed(plain)
    } else {
        if !plain.chars().all(|c| c.is_ascii_digit() || "+-() ".contains(c)) {
            return None;
        }
        Cow::Owned(plain.chars().filter(char::is_ascii_digit).collect())
    };
    if !to.trim_start().starts_with('+') && !digits.starts_with(country_code) {
        digits = Cow::Owned(format!("{country_code}{digits}"));
    }
    if digits.len() == 13 && digits.starts_with("55") && digits.as_bytes()[2] >= b'3' && digits.as_bytes()[4] == b'9' {
        digits = Cow::Owned(format!("{}{}", &digits[..4], &digits[5..]));
    }
    (7..=15).contains(&digits.len()).then_some(digits)
}

/// `CC.` or `CC.ENT.` and up to 128 letters and digits.
pub(super) fn is_user_id(text: &str) -> bool {
    let Some((country, rest)) = text.split_once('.') else { return false };
    let rest = rest.strip_prefix("ENT.").unwrap_or(rest);
    country.len() == 2
        && country.bytes().all(|b| b.is_ascii_uppercase())
        && (1..=128).contains(&rest.len())
        && rest.bytes().all(|b| b.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn text() -> Value {
        json!({"messaging_product": "whatsapp", "recipient_type": "individual", "to": "+15557770142", "type": "text",
            "text": {"preview_url": false, "body": "Your parcel left our warehouse."}})
    }

    fn with(change: impl FnOnce(&mut Value)) -> Value {
        let mut body = text();
        change(&mut body);
        body
    }

    #[test]
    fn documented_bodies_are_taken() {
        let to = |mut content: Value| {
            content["messaging_product"] = json!("whatsapp");
            content["to"] = json!("+15557770142");
            content
        };
        for body in [
            text(),
            to(
                json!({"type": "image", "context": {"message_id": "wamid.U0JYLUlOLVRYVA=="}, "image": {"id": "880200000000001", "caption": "Here it is"}}),
            ),
            to(
                json!({"type": "document", "document": {"link": "https://files.shop.example/inv-77.pdf", "filename": "inv-77.pdf", "caption": "Invoice 77"}}),
            ),
            to(json!({"type": "audio", "audio": {"id": "880200000000002", "voice": true}})),
            to(json!({"type": "sticker", "sticker": {"id": "880200000000004"}})),
            to(
                json!({"type": "location", "location": {"latitude": "41.38792", "longitude": "2.16992", "name": "North Pier Cafe", "address": "12 Harbour Walk"}}),
            ),
            to(
                json!({"type": "contacts", "contacts": [{"name": {"formatted_name": "Support desk", "first_name": "Support"}, "phones": [{"phone": "+15557770101", "type": "WORK"}]}]}),
            ),
            to(json!({"type": "reaction", "reaction": {"message_id": "wamid.U0JYLUlOLVRYVA==", "emoji": "👍"}})),
            to(
                json!({"type": "interactive", "interactive": {"type": "button", "header": {"type": "text", "text": "Appointment"}, "body": {"text": "Which slot suits you?"}, "footer": {"text": "Reply any time"}, "action": {"buttons": [{"type": "reply", "reply": {"id": "slot-0930", "title": "09:30"}}]}}}),
            ),
            to(
                json!({"type": "interactive", "interactive": {"type": "cta_url", "body": {"text": "Track your order"}, "action": {"name": "cta_url", "parameters": {"display_text": "Track", "url": "https://shop.example/t/77"}}}}),
            ),
            to(
                json!({"type": "interactive", "interactive": {"type": "list", "body": {"text": "Choose"}, "action": {"button": "See", "sections": [{"title": "Fast", "rows": [{"id": "a", "title": "Express"}]}]}}}),
            ),
        ] {
            check(&body, "1").unwrap_or_else(|refusal| panic!("{body}: {refusal:?}"));
        }
    }

    #[test]
    fn each_mistake_has_its_documented_code() {
        let long = "x".repeat(4097);
        for (code, body) in [
            (131_008, json!({})),
            (131_008, with(|b| drop(b.as_object_mut().unwrap().remove("to")))),
            (131_008, with(|b| drop(b.as_object_mut().unwrap().remove("text")))),
            (131_008, with(|b| b["text"] = json!({"preview_url": true}))),
            (131_009, with(|b| b["text"]["body"] = json!(""))),
            (131_009, with(|b| b["text"]["body"] = json!(long))),
            (131_009, with(|b| b["text"]["preview_url"] = json!("yes"))),
            (131_009, with(|b| b["to"] = json!("not a number"))),
            (131_009, with(|b| b["type"] = json!("hologram"))),
            (131_009, with(|b| b["messaging_product"] = json!("telegram"))),
            (131_009, with(|b| b["biz_opaque_callback_data"] = json!("x".repeat(513)))),
            (100, with(|b| b["idempotency_key"] = json!("k"))),
            (100, with(|b| b["text"]["bold"] = json!(true))),
            (100, with(|b| b["image"] = json!({"id": "1"}))),
        ] {
            assert_eq!(check(&body, "1").unwrap_err().code, code, "{body}");
        }
    }

    #[test]
    fn number_without_plus_gets_the_businesss_own_country_code() {
        assert_eq!(wa_id("+15557770142", "1").unwrap(), "15557770142");
        assert_eq!(wa_id("+1 (555) 777-0142", "1").unwrap(), "15557770142");
        assert_eq!(wa_id("491511234567", "1").unwrap(), "1491511234567");
        assert_eq!(wa_id("+5531987654321", "1").unwrap(), "553187654321");
        assert_eq!(wa_id("+", "1"), None);
    }

    #[test]
    fn user_ids_are_told_from_phones() {
        assert!(is_user_id("US.70311904455821"));
        assert!(is_user_id("US.ENT.7031190"));
        assert!(!is_user_id("15557770142"));
    }
}
