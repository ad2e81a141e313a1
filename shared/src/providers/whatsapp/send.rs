//! From a message to the request for `POST /{version}/{number}/messages` (contract, section 7). Makes no call; what the
//! answer means is [`answer`](super::answer)'s.

use crate::{
    domain::{
        content::{OutboundContent, Template, Text},
        people::{Recipient, RecipientKind},
    },
    providers::sending::{Body, Outgoing, Unsendable},
};
use serde::Serialize;
use std::fmt::Write;

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

/// The body of the call. The token comes back in every status: it is the evidence of an attempt whose answer was lost, for the call has
/// no idempotency key.
///
/// # Errors
/// If WhatsApp has nothing of the kind.
pub fn request(message: &Outgoing<'_>) -> Result<Body, Unsendable> {
    let Recipient { kind, address } = message.recipient;
    let (to, recipient) = if kind == RecipientKind::Bsuid { (None, Some(address)) } else { (Some(address), None) };
    let content = match message.content {
        OutboundContent::Text(Text { text, preview_url, .. }) => {
            Content::Text { text: Words { preview_url: *preview_url, body: text } }
        }
        OutboundContent::Template(Template { name, language, variables, .. }) => {
            let parameters: Vec<_> = variables.iter().map(|text| Parameter { kind: "text", text }).collect();
            let body = (!parameters.is_empty()).then_some([Component { kind: "body", parameters }]);
            Content::Template { template: Filled { name, language: Language { code: language }, components: body } }
        }
        _ => return Err(Unsendable::kind(message)),
    };
    let request = Request {
        messaging_product: "whatsapp",
        recipient_type: "individual",
        to,
        recipient,
        context: message.refers_to.map(|message_id| Context { message_id }),
        biz_opaque_callback_data: message.token.encode(),
        content,
    };
    Ok(Body::Json(serde_json::to_vec(&request).expect("strings and lists always serialise")))
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
    Text { text: Words<'a> },
    Template { template: Filled<'a> },
}

#[derive(Serialize)]
struct Words<'a> {
    preview_url: bool,
    body: &'a str,
}

#[derive(Serialize)]
struct Filled<'a> {
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
    use crate::{
        domain::{
            channel::{Channel, Provider},
            events::SendToken,
        },
        providers::sending::{Handles, Sender},
    };
    use serde_json::{Value, json};

    const TOKEN: &str = "m1:0193e6b5a1c27d3e8f4a5b6c7d8e9f00:0193e6b5a1c27d3e8f4a5b6c7d8e9f01";

    fn sent(content: OutboundContent, recipient: Recipient<'_>, refers_to: Option<&str>) -> Value {
        let sender = Sender {
            provider: Provider::Whatsapp,
            channel: Channel::Whatsapp,
            external_id: "330000000000009".into(),
            status_url: None,
        };
        let token = SendToken::decode(TOKEN).unwrap();
        let files = Handles::new();
        let message = Outgoing {
            sender: &sender,
            recipient,
            content: &content,
            files: &files,
            token: &token,
            refers_to,
            human_agent: false,
        };
        let Ok(Body::Json(body)) = request(&message) else { panic!("JSON") };
        serde_json::from_slice(&body).unwrap()
    }

    #[test]
    fn a_request_is_what_the_contract_shows() {
        let phone = Recipient { kind: RecipientKind::Phone, address: "+15557770142" };
        let text =
            |text: &str, preview_url| OutboundContent::Text(Text { text: text.into(), preview_url, ..Text::default() });
        let template = |variables: &[&str]| {
            OutboundContent::Template(Template {
                name: "booking_reminder".into(),
                language: "en_US".into(),
                variables: variables.iter().map(|value| (*value).to_owned()).collect(),
                ..Template::default()
            })
        };
        for (content, to, quoted, expected) in [
            (
                text("Your parcel left our warehouse.", false),
                phone,
                None,
                json!({"messaging_product":"whatsapp","recipient_type":"individual","to":"+15557770142","biz_opaque_callback_data":TOKEN,
                    "type":"text","text":{"preview_url":false,"body":"Your parcel left our warehouse."}}),
            ),
            (
                text("„see“ https://x.example \\ 👍", true),
                Recipient { kind: RecipientKind::Bsuid, address: "US.70311904455821" },
                Some("wamid.U0JYLUlOLVRYVA=="),
                json!({"messaging_product":"whatsapp","recipient_type":"individual","recipient":"US.70311904455821","biz_opaque_callback_data":TOKEN,
                    "context":{"message_id":"wamid.U0JYLUlOLVRYVA=="},"type":"text","text":{"preview_url":true,"body":"„see“ https://x.example \\ 👍"}}),
            ),
            (
                template(&["Ada", "4 Dec, 09:30"]),
                phone,
                None,
                json!({"messaging_product":"whatsapp","recipient_type":"individual","to":"+15557770142","biz_opaque_callback_data":TOKEN,
                    "type":"template","template":{"name":"booking_reminder","language":{"code":"en_US"},
                    "components":[{"type":"body","parameters":[{"type":"text","text":"Ada"},{"type":"text","text":"4 Dec, 09:30"}]}]}}),
            ),
            (
                template(&[]),
                phone,
                None,
                json!({"messaging_product":"whatsapp","recipient_type":"individual","to":"+15557770142","biz_opaque_callback_data":TOKEN,
                    "type":"template","template":{"name":"booking_reminder","language":{"code":"en_US"}}}),
            ),
        ] {
            assert_eq!(sent(content, to, quoted), expected);
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
