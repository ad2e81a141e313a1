//! From a message to the request for `POST /{version}/me/messages`, the same by either login (contract, section 3). Makes no call;
//! what the answer means is [`answer`](super::answer)'s.

use crate::{
    domain::content::{Album, Audio, Buttons, Cards, Document, Image, OutboundContent, Post, Reaction, Text, Video},
    providers::{
        meta::said,
        sending::{Body, Outgoing, Unsendable},
    },
};
use serde_json::{Map, Value, json};

/// The path of the call, with its leading slash: the token says whose messages they are.
pub fn path(version: &str) -> String {
    crate::providers::whatsapp::path(version, "me")
}

/// The body of the call. It has no place for a token: what came of an attempt whose answer was lost is told by its echo's words.
///
/// # Errors
/// If Instagram has nothing of the kind, or a file of it is not at hand.
pub fn request(message: &Outgoing<'_>) -> Result<Body, Unsendable> {
    let recipient = json!({"id": message.recipient.address});
    let mut request = Map::from_iter([("recipient".to_owned(), recipient)]);
    if let OutboundContent::Reaction(Reaction { emoji, .. }) = message.content {
        request.extend(said::reaction(message, emoji)?);
    } else {
        if message.human_agent {
            request.insert("messaging_type".to_owned(), "MESSAGE_TAG".into());
            request.insert("tag".to_owned(), "HUMAN_AGENT".into());
        }
        request.insert("message".to_owned(), said(message)?);
        request.extend(message.refers_to.map(|mid| ("reply_to".to_owned(), json!({"mid": mid}))));
    }
    Ok(Body::Json(serde_json::to_vec(&request).expect("strings and lists always serialise")))
}

fn said(message: &Outgoing<'_>) -> Result<Value, Unsendable> {
    use OutboundContent as Is;
    let file = |kind, file| Ok(json!({"attachment": said::attachment(message, kind, file, false)?}));
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
        Is::Heart(_) => Ok(json!({"attachment": {"type": "like_heart"}})),
        Is::Post(Post { post_id }) => Ok(json!({"attachment": {"type": "MEDIA_SHARE", "payload": {"id": post_id}}})),
        _ => Err(Unsendable::kind(message)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        domain::channel::{Channel, Provider},
        providers::testing::sending::{Example, SHARED, UPLOADED, content},
    };

    fn example(said: Value) -> Example {
        Example::new(Provider::Instagram, Channel::Instagram, content(said))
    }

    #[test]
    fn a_request_is_what_the_contract_shows() {
        let text = || json!({"type": "text", "text": "It is in stock until Friday."});
        let message = json!({"text": "It is in stock until Friday."});
        let to = json!({"id": "980000000000066"});
        let reaction = |emoji| json!({"type": "reaction", "message_id": uuid::Uuid::from_u128(1), "emoji": emoji});
        for (example, expected) in [
            (example(text()), json!({"recipient": to, "message": message})),
            (
                Example { human_agent: true, refers_to: Some("aW1"), ..example(text()) },
                json!({"recipient": to, "messaging_type": "MESSAGE_TAG", "tag": "HUMAN_AGENT", "message": message, "reply_to": {"mid": "aW1"}}),
            ),
            (
                Example { refers_to: Some("aW1"), ..example(reaction("😮")) },
                json!({"recipient": to, "sender_action": "react", "payload": {"message_id": "aW1", "reaction": "😮"}}),
            ),
            (
                Example { refers_to: Some("aW1"), ..example(reaction("")) },
                json!({"recipient": to, "sender_action": "unreact", "payload": {"message_id": "aW1"}}),
            ),
        ] {
            assert_eq!(example.written(request), expected);
        }
        assert_eq!(path("v25.0"), "/v25.0/me/messages");
    }

    #[test]
    fn every_kind_is_written_as_the_contract_shows() {
        for (said, expected) in [
            (
                json!({"type": "text", "text": "Which metal?", "quick_replies": [{"type": "text", "title": "Silver", "payload": "METAL_AG"}]}),
                json!({"text": "Which metal?", "quick_replies": [{"content_type":"text","title":"Silver","payload":"METAL_AG"}]}),
            ),
            (
                json!({"type": "image", "file": {"id": SHARED}}),
                json!({"attachment": {"type": "image", "payload": {"url": "https://files.shop.example/map.png"}}}),
            ),
            (
                json!({"type": "document", "file": {"id": UPLOADED}}),
                json!({"attachment": {"type": "file", "payload": {"attachment_id": "770000000000031"}}}),
            ),
            (
                json!({"type": "album", "files": [{"id": SHARED}, {"id": UPLOADED}]}),
                json!({"attachments": [{"type": "image", "payload": {"url": "https://files.shop.example/map.png"}},
                    {"type": "image", "payload": {"attachment_id": "770000000000031"}}]}),
            ),
            (json!({"type": "heart"}), json!({"attachment": {"type": "like_heart"}})),
            (
                json!({"type": "post", "post_id": "18000000000000099"}),
                json!({"attachment": {"type": "MEDIA_SHARE", "payload": {"id": "18000000000000099"}}}),
            ),
            (
                json!({"type": "cards", "cards": [{"title": "Silver ring", "subtitle": "48 EUR", "image": {"id": SHARED}, "buttons": [
                    {"type": "url", "url": "https://shop.example/r", "title": "View"}, {"type": "reply", "title": "Reserve", "id": "RESERVE_R"}]}]}),
                json!({"attachment":{"type":"template","payload":{"template_type":"generic","elements":[{"title":"Silver ring","subtitle":"48 EUR",
                    "image_url":"https://files.shop.example/map.png","buttons":[{"type":"web_url","url":"https://shop.example/r","title":"View"},
                    {"type":"postback","title":"Reserve","payload":"RESERVE_R"}]}]}}}),
            ),
            (
                json!({"type": "buttons", "text": "Well?", "buttons": [{"type": "reply", "title": "Yes", "id": "Y"}]}),
                json!({"attachment":{"type":"template","payload":{"template_type":"button","text":"Well?","buttons":[
                    {"type":"postback","title":"Yes","payload":"Y"}]}}}),
            ),
        ] {
            assert_eq!(example(said.clone()).written(request)["message"], expected, "{said}");
        }
        let template = json!({"type": "template", "name": "n", "language": "en"});
        assert_eq!(example(template).written(request), "instagram has no messages of the type template");
    }
}
