//! From a message to the request for `POST /{version}/{page-id}/messages` (contract, section 3). Makes no call; what the answer
//! means is [`answer`](super::answer)'s.

use crate::{
    domain::{
        content::{Album, Audio, Buttons, Cards, Document, Image, OutboundContent, Reaction, Text, Video},
        people::RecipientKind,
    },
    providers::{
        meta::{said, template::components},
        sending::{Body, Outgoing, Unsendable},
    },
};
use serde_json::{Map, Value, json};

/// The path of the call, with its leading slash.
pub fn path(version: &str, page_id: &str) -> String {
    crate::providers::whatsapp::path(version, page_id)
}

/// The body of the call. The token comes back in the message's echo as `metadata`: it is the evidence of an attempt whose answer was
/// lost, for the call has no idempotency key. A reaction has none: its echo says nothing of ours.
///
/// # Errors
/// If Messenger has nothing of the kind, or a file of it is not at hand.
pub fn request(message: &Outgoing<'_>) -> Result<Body, Unsendable> {
    let key = if message.recipient.kind == RecipientKind::UserRef { "user_ref" } else { "id" };
    let recipient = json!({key: message.recipient.address});
    let mut request = Map::from_iter([("recipient".to_owned(), recipient)]);
    if let OutboundContent::Reaction(Reaction { emoji, .. }) = message.content {
        request.extend(said::reaction(message, emoji)?);
    } else {
        let mut said = said(message)?;
        said["metadata"] = message.token.encode().into();
        let (messaging_type, tag) = match message.content {
            OutboundContent::Template(_) => ("UTILITY", None),
            _ if message.human_agent => ("MESSAGE_TAG", Some("HUMAN_AGENT")),
            _ => ("RESPONSE", None),
        };
        request.insert("messaging_type".to_owned(), messaging_type.into());
        request.extend(tag.map(|tag| ("tag".to_owned(), tag.into())));
        request.insert("message".to_owned(), said);
        request.extend(message.refers_to.map(|mid| ("reply_to".to_owned(), json!({"mid": mid}))));
    }
    Ok(Body::Json(serde_json::to_vec(&request).expect("strings and lists always serialise")))
}

fn said(message: &Outgoing<'_>) -> Result<Value, Unsendable> {
    use OutboundContent as Is;
    let file = |kind, file| Ok(json!({"attachment": said::attachment(message, kind, file, true)?}));
    match message.content {
        Is::Text(Text { text, quick_replies, .. }) if quick_replies.is_empty() => Ok(json!({"text": text})),
        Is::Text(Text { text, quick_replies, .. }) => {
            Ok(json!({"text": text, "quick_replies": said::quick_replies(quick_replies)}))
        }
        Is::Image(Image { file: picture, .. }) => file("image", picture),
        Is::Video(Video { file: film, .. }) => file("video", film),
        Is::Audio(Audio { file: recording, .. }) => file("audio", recording),
        Is::Document(Document { file: document, .. }) => file("file", document),
        Is::Album(Album { files, .. }) => said::album(message, files),
        Is::Buttons(Buttons { text, buttons, .. }) => Ok(said::button_template(text, buttons)),
        Is::Cards(Cards { cards }) => said::generic_template(message, cards),
        Is::Template(template) => {
            let mut filled = json!({"name": template.name, "language": {"code": template.language}});
            let components = components(message, template)?;
            if !components.is_empty() {
                filled["components"] = components.into();
            }
            Ok(json!({"template": filled}))
        }
        _ => Err(Unsendable::kind(message)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        domain::channel::{Channel, Provider},
        providers::testing::sending::{Example, SHARED, TOKEN, UPLOADED, content},
    };

    fn example(said: Value) -> Example {
        Example::new(Provider::Messenger, Channel::Messenger, content(said))
    }

    #[test]
    fn a_request_is_what_the_contract_shows() {
        let text = || json!({"type": "text", "text": "Delivery takes three days."});
        let message = json!({"text": "Delivery takes three days.", "metadata": TOKEN});
        let to = json!({"id": "24000000000000077"});
        for (example, expected) in [
            (example(text()), json!({"recipient": to, "messaging_type": "RESPONSE", "message": message})),
            (
                Example { human_agent: true, refers_to: Some("m_1"), ..example(text()) },
                json!({"recipient": to, "messaging_type": "MESSAGE_TAG", "tag": "HUMAN_AGENT", "message": message, "reply_to": {"mid": "m_1"}}),
            ),
            (
                Example { recipient: (RecipientKind::UserRef, "ref-1"), ..example(text()) },
                json!({"recipient": {"user_ref": "ref-1"}, "messaging_type": "RESPONSE", "message": message}),
            ),
            (
                Example {
                    human_agent: true,
                    ..example(json!({"type": "template", "name": "n", "language": "en", "variables": ["a"]}))
                },
                json!({"recipient": to, "messaging_type": "UTILITY", "message": {"metadata": TOKEN, "template":
                    {"name": "n", "language": {"code": "en"}, "components": [{"type": "body", "parameters": [{"type": "text", "text": "a"}]}]}}}),
            ),
            (
                Example {
                    refers_to: Some("m_1"),
                    ..example(json!({"type": "reaction", "message_id": uuid::Uuid::from_u128(1), "emoji": "❤️"}))
                },
                json!({"recipient": to, "sender_action": "react", "payload": {"message_id": "m_1", "reaction": "love"}}),
            ),
            (
                Example {
                    refers_to: Some("m_1"),
                    ..example(json!({"type": "reaction", "message_id": uuid::Uuid::from_u128(1), "emoji": ""}))
                },
                json!({"recipient": to, "sender_action": "unreact", "payload": {"message_id": "m_1"}}),
            ),
        ] {
            assert_eq!(example.written(request), expected);
        }
    }

    #[test]
    fn every_kind_is_written_as_the_contract_shows() {
        for (said, expected) in [
            (
                json!({"type": "text", "text": "Pick a size", "quick_replies": [{"type": "text", "title": "Small", "payload": "SIZE_S"},
                    {"type": "text", "title": "Large", "payload": "SIZE_L", "image_link": "https://a.example/l.png"},
                    {"type": "phone_number"}, {"type": "email"}]}),
                json!({"text": "Pick a size", "quick_replies": [{"content_type":"text","title":"Small","payload":"SIZE_S"},
                    {"content_type":"text","title":"Large","payload":"SIZE_L","image_url":"https://a.example/l.png"},
                    {"content_type":"user_phone_number"},{"content_type":"user_email"}]}),
            ),
            (
                json!({"type": "image", "file": {"id": SHARED}}),
                json!({"attachment": {"type": "image", "payload": {"url": "https://files.shop.example/map.png", "is_reusable": true}}}),
            ),
            (
                json!({"type": "document", "file": {"id": UPLOADED}, "filename": "a.pdf"}),
                json!({"attachment": {"type": "file", "payload": {"attachment_id": "770000000000031"}}}),
            ),
            (
                json!({"type": "video", "file": {"link": "https://a.example/v.mp4"}}),
                json!({"attachment": {"type": "video", "payload": {"url": "https://a.example/v.mp4", "is_reusable": true}}}),
            ),
            (
                json!({"type": "audio", "file": {"id": UPLOADED}}),
                json!({"attachment": {"type": "audio", "payload": {"attachment_id": "770000000000031"}}}),
            ),
            (
                json!({"type": "album", "files": [{"id": SHARED}, {"id": UPLOADED}]}),
                json!({"attachments": [{"type": "image", "payload": {"url": "https://files.shop.example/map.png"}},
                    {"type": "image", "payload": {"attachment_id": "770000000000031"}}]}),
            ),
            (
                json!({"type": "buttons", "text": "Anything else?", "buttons": [{"type": "url", "title": "Help centre", "url": "https://shop.example/help"},
                    {"type": "reply", "title": "Talk to us", "id": "HUMAN"}, {"type": "call", "title": "Call", "phone": "+15557770142"}]}),
                json!({"attachment":{"type":"template","payload":{"template_type":"button","text":"Anything else?","buttons":[
                    {"type":"web_url","url":"https://shop.example/help","title":"Help centre"},{"type":"postback","title":"Talk to us","payload":"HUMAN"},
                    {"type":"phone_number","title":"Call","payload":"+15557770142"}]}}}),
            ),
            (
                json!({"type": "cards", "cards": [{"title": "Kettle 1.7 l", "subtitle": "In stock", "image": {"id": SHARED}, "url": "https://shop.example/k",
                    "buttons": [{"type": "reply", "title": "Reserve", "id": "RESERVE_K17"}]}, {"title": "Pot", "subtitle": "Sold out"}]}),
                json!({"attachment":{"type":"template","payload":{"template_type":"generic","elements":[{"title":"Kettle 1.7 l","subtitle":"In stock",
                    "image_url":"https://files.shop.example/map.png","default_action":{"type":"web_url","url":"https://shop.example/k"},
                    "buttons":[{"type":"postback","title":"Reserve","payload":"RESERVE_K17"}]},{"title":"Pot","subtitle":"Sold out"}]}}}),
            ),
        ] {
            let mut expected = expected;
            expected["metadata"] = TOKEN.into();
            assert_eq!(example(said.clone()).written(request)["message"], expected, "{said}");
        }
    }

    #[test]
    fn what_messenger_has_not_is_not_written() {
        let card = json!({"title": "a", "image": {"id": UPLOADED}});
        for (said, words) in [
            (json!({"type": "sticker", "file": {"id": SHARED}}), "messenger has no messages of the type sticker"),
            (
                json!({"type": "location", "latitude": 1.0, "longitude": 1.0}),
                "messenger has no messages of the type location",
            ),
            (json!({"type": "heart"}), "messenger has no messages of the type heart"),
            (json!({"type": "cards", "cards": [card]}), "a file of the message has to be given by its address"),
            (json!({"type": "image", "file": {}}), "a file of the message has not been handed over"),
            (
                json!({"type": "reaction", "message_id": uuid::Uuid::from_u128(1), "emoji": "❤"}),
                "the message reacted to has no id at the provider",
            ),
        ] {
            assert_eq!(example(said.clone()).written(request), words, "{said}");
        }
        assert_eq!(path("v25.0", "100900000000001"), "/v25.0/100900000000001/messages");
    }
}
