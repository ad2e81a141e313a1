//! From a message to the request for `POST /{version}/{number}/messages` (contract, section 7). Makes no call; what the
//! answer means is [`answer`](super::answer)'s.

use crate::domain::{
    events::SendToken,
    messages::OutboundContent,
    people::{Alias, AliasKind},
};
use serde::Serialize;
use std::fmt::Write;

/// How a message is addressed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recipient {
    /// `+` and full international digits. Without the `+` the business number's country code may be put before it.
    Phone(String),
    /// A business-scoped user id.
    UserId(String),
}

impl Recipient {
    /// The best address among a person's aliases: the `wa_id` they wrote from, another telephone number, their user id.
    /// A number comes first because some templates cannot be sent to a user id (131062).
    pub fn of(aliases: &[Alias]) -> Option<Self> {
        let find = |kind| aliases.iter().find(|alias| alias.kind == kind).map(|alias| alias.value.as_str());
        let number = find(AliasKind::WhatsappId).or_else(|| find(AliasKind::Phone));
        let phone = number.map(|number| Recipient::Phone(format!("+{}", number.trim_start_matches('+'))));
        phone.or_else(|| find(AliasKind::WhatsappBsuid).map(|id| Recipient::UserId(id.to_owned())))
    }
}

/// The path of the call, with its leading slash. The id is opaque and cannot leave its segment.
pub fn path(version: &str, phone_number_id: &str) -> String {
    let mut path = String::with_capacity(64);
    for segment in [version, phone_number_id] {
        path.push('/');
        for byte in segment.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => path.push(byte.into()),
                _ => write!(path, "%{byte:02X}").expect("writing to a string"),
            }
        }
    }
    path + "/messages"
}

/// The body of the call. `quoted` is the provider's id of the message this one answers. The token comes back in every
/// status: it is the evidence of an attempt whose answer was lost, for the call has no idempotency key.
pub fn request(content: &OutboundContent, to: &Recipient, token: &SendToken, quoted: Option<&str>) -> Vec<u8> {
    let (to, recipient) = match to {
        Recipient::Phone(number) => (Some(number.as_str()), None),
        Recipient::UserId(id) => (None, Some(id.as_str())),
    };
    let content = match content {
        OutboundContent::Text { text, preview_url } => {
            Content::Text { text: Text { preview_url: *preview_url, body: text } }
        }
        OutboundContent::Template { name, language, variables } => {
            let parameters: Vec<_> = variables.iter().map(|text| Parameter { kind: "text", text }).collect();
            let body = (!parameters.is_empty()).then_some([Component { kind: "body", parameters }]);
            Content::Template { template: Template { name, language: Language { code: language }, components: body } }
        }
    };
    let request = Request {
        messaging_product: "whatsapp",
        recipient_type: "individual",
        to,
        recipient,
        context: quoted.map(|message_id| Context { message_id }),
        biz_opaque_callback_data: token.encode(),
        content,
    };
    serde_json::to_vec(&request).expect("strings and lists always serialise")
}

#[derive(Serialize)]
struct Request<'a> {
    messaging_product: &'static str,
    recipient_type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    recipient: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    context: Option<Context<'a>>,
    biz_opaque_callback_data: String,
    #[serde(flatten)]
    content: Content<'a>,
}

#[derive(Serialize)]
struct Context<'a> {
    message_id: &'a str,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Content<'a> {
    Text { text: Text<'a> },
    Template { template: Template<'a> },
}

#[derive(Serialize)]
struct Text<'a> {
    preview_url: bool,
    body: &'a str,
}

#[derive(Serialize)]
struct Template<'a> {
    name: &'a str,
    language: Language<'a>,
    /// Only with variables.
    #[serde(skip_serializing_if = "Option::is_none")]
    components: Option<[Component<'a>; 1]>,
}

#[derive(Serialize)]
struct Language<'a> {
    code: &'a str,
}

#[derive(Serialize)]
struct Component<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    parameters: Vec<Parameter<'a>>,
}

#[derive(Serialize)]
struct Parameter<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    text: &'a str,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const TOKEN: &str = "m1:0193e6b5a1c27d3e8f4a5b6c7d8e9f00:0193e6b5a1c27d3e8f4a5b6c7d8e9f01";

    fn sent(content: OutboundContent, to: Recipient, quoted: Option<&str>) -> Value {
        serde_json::from_slice(&request(&content, &to, &SendToken::decode(TOKEN).unwrap(), quoted)).unwrap()
    }

    #[test]
    fn a_request_is_what_the_contract_shows() {
        let phone = || Recipient::Phone("+15557770142".into());
        let text = |text: &str| OutboundContent::Text { text: text.into(), preview_url: false };
        let template = |variables: &[&str]| OutboundContent::Template {
            name: "booking_reminder".into(),
            language: "en_US".into(),
            variables: variables.iter().map(|value| (*value).to_owned()).collect(),
        };
        for (content, to, quoted, expected) in [
            (
                text("Your parcel left our warehouse."),
                phone(),
                None,
                json!({"messaging_product":"whatsapp","recipient_type":"individual","to":"+15557770142","biz_opaque_callback_data":TOKEN,
                    "type":"text","text":{"preview_url":false,"body":"Your parcel left our warehouse."}}),
            ),
            (
                OutboundContent::Text { text: "„see“ https://x.example \\ 👍".into(), preview_url: true },
                Recipient::UserId("US.70311904455821".into()),
                Some("wamid.U0JYLUlOLVRYVA=="),
                json!({"messaging_product":"whatsapp","recipient_type":"individual","recipient":"US.70311904455821","biz_opaque_callback_data":TOKEN,
                    "context":{"message_id":"wamid.U0JYLUlOLVRYVA=="},"type":"text","text":{"preview_url":true,"body":"„see“ https://x.example \\ 👍"}}),
            ),
            (
                template(&["Ada", "4 Dec, 09:30"]),
                phone(),
                None,
                json!({"messaging_product":"whatsapp","recipient_type":"individual","to":"+15557770142","biz_opaque_callback_data":TOKEN,
                    "type":"template","template":{"name":"booking_reminder","language":{"code":"en_US"},
                    "components":[{"type":"body","parameters":[{"type":"text","text":"Ada"},{"type":"text","text":"4 Dec, 09:30"}]}]}}),
            ),
            (
                template(&[]),
                phone(),
                None,
                json!({"messaging_product":"whatsapp","recipient_type":"individual","to":"+15557770142","biz_opaque_callback_data":TOKEN,
                    "type":"template","template":{"name":"booking_reminder","language":{"code":"en_US"}}}),
            ),
        ] {
            assert_eq!(sent(content, to, quoted), expected);
        }
    }

    #[test]
    fn a_person_is_addressed_by_the_number_they_wrote_from() {
        use AliasKind::*;
        for (aliases, expected) in [
            (
                &[(WhatsappBsuid, "US.7"), (WhatsappId, "551187654321"), (Phone, "+5511987654321")] as &[_],
                Some(Recipient::Phone("+551187654321".into())),
            ),
            (&[(Phone, "+15557770142")], Some(Recipient::Phone("+15557770142".into()))),
            (&[(WhatsappBsuid, "US.7")], Some(Recipient::UserId("US.7".into()))),
            (&[], None),
        ] {
            let aliases: Vec<_> =
                aliases.iter().map(|&(kind, value)| Alias { kind, value: value.to_owned() }).collect();
            assert_eq!(Recipient::of(&aliases), expected);
        }
    }

    #[test]
    fn a_path_has_three_segments_whatever_the_id() {
        for (version, id, expected) in [
            ("v25.0", "330000000000009", "/v25.0/330000000000009/messages"),
            ("v25.0", "../33?a=b", "/v25.0/..%2F33%3Fa%3Db/messages"),
        ] {
            assert_eq!(path(version, id), expected);
        }
    }
}
