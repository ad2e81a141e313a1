//! Parts of a message that Messenger and Instagram are sent in the same form (providers/messenger sections 3.1 to 3.4,
//! providers/instagram section 3.1), and what both refuse in them.

use crate::{
    domain::{
        content::{Button, Card, FileRef, QuickReply},
        people::{Recipient, RecipientKind},
    },
    providers::{
        checking::{Checking, FileLimit, MB, Most},
        http::Signal,
        sending::{Body, Handle, Outgoing, Unsendable},
    },
};
use serde_json::{Map, Value, json};

/// Pictures, whatever Meta makes of them.
pub(in crate::providers) const IMAGE: FileLimit =
    FileLimit { types: &[("image/jpeg", 8 * MB), ("image/png", 8 * MB), ("image/gif", 8 * MB)] };

/// A file as an attachment of this type, by its address or by the provider's id. `reusable`: the answer is to say an id by which the
/// provider keeps it.
///
/// # Errors
/// If it is not at hand.
pub(in crate::providers) fn attachment(
    message: &Outgoing<'_>,
    kind: &str,
    file: &FileRef,
    reusable: bool,
) -> Result<Value, Unsendable> {
    let payload = match message.file(file)? {
        Handle::Id(id) | Handle::NewId(id) => json!({"attachment_id": id}),
        Handle::Link(link) if reusable => json!({"url": link, "is_reusable": true}),
        Handle::Link(link) => json!({"url": link}),
    };
    Ok(json!({"type": kind, "payload": payload}))
}

/// Several pictures.
///
/// # Errors
/// If one is not at hand.
pub(in crate::providers) fn album(message: &Outgoing<'_>, files: &[FileRef]) -> Result<Value, Unsendable> {
    let pictures: Result<Vec<Value>, _> = files.iter().map(|file| attachment(message, "image", file, false)).collect();
    Ok(json!({"attachments": pictures?}))
}

/// Answers to tap on.
pub(in crate::providers) fn quick_replies(replies: &[QuickReply]) -> Vec<Value> {
    let reply = |reply: &QuickReply| match reply {
        QuickReply::Text { title, payload, image_link } => {
            let mut written = json!({"content_type": "text", "title": title, "payload": payload});
            if let Some(link) = image_link {
                written["image_url"] = link.as_str().into();
            }
            written
        }
        QuickReply::PhoneNumber {} => json!({"content_type": "user_phone_number"}),
        QuickReply::Email {} => json!({"content_type": "user_email"}),
    };
    replies.iter().map(reply).collect()
}

/// Words with buttons.
pub(in crate::providers) fn button_template(text: &str, buttons: &[Button]) -> Value {
    let buttons: Vec<Value> = buttons.iter().map(button).collect();
    templated(json!({"template_type": "button", "text": text, "buttons": buttons}))
}

/// Cards beside each other.
///
/// # Errors
/// If a picture is not at hand by its address.
pub(in crate::providers) fn generic_template(message: &Outgoing<'_>, cards: &[Card]) -> Result<Value, Unsendable> {
    let element = |card: &Card| {
        let mut element = json!({"title": card.title});
        if let Some(subtitle) = &card.subtitle {
            element["subtitle"] = subtitle.as_str().into();
        }
        if let Some(image) = &card.image {
            element["image_url"] = message.link(image)?.into();
        }
        if let Some(url) = &card.url {
            element["default_action"] = json!({"type": "web_url", "url": url});
        }
        if !card.buttons.is_empty() {
            element["buttons"] = card.buttons.iter().map(button).collect();
        }
        Ok(element)
    };
    let elements: Result<Vec<Value>, Unsendable> = cards.iter().map(element).collect();
    Ok(templated(json!({"template_type": "generic", "elements": elements?})))
}

fn templated(payload: Value) -> Value {
    json!({"attachment": {"type": "template", "payload": payload}})
}

fn button(button: &Button) -> Value {
    match button {
        Button::Reply { title, id } => json!({"type": "postback", "title": title, "payload": id}),
        Button::Url { title, url } => json!({"type": "web_url", "title": title, "url": url}),
        Button::Call { title, phone } => json!({"type": "phone_number", "title": title, "payload": phone}),
    }
}

/// A reaction, set or taken back: an action, not a message. The word for an emoji where there is one, else the emoji itself.
///
/// # Errors
/// If the message reacted to has no id.
pub(in crate::providers) fn reaction(message: &Outgoing<'_>, emoji: &str) -> Result<Map<String, Value>, Unsendable> {
    let mut payload = json!({"message_id": message.target()?});
    let action = if emoji.is_empty() {
        "unreact"
    } else {
        // A heart is written with or without the selector that makes it red.
        let is_heart = emoji.trim_end_matches('\u{fe0f}') == "❤";
        payload["reaction"] = if is_heart { "love".into() } else { emoji.into() };
        "react"
    };
    Ok(Map::from_iter([("sender_action".to_owned(), action.into()), ("payload".to_owned(), payload)]))
}

/// The body of a call to the same path that marks as read, or says that an answer is being written. Both are about the thread; a
/// person of whom there is only a plugin's reference has none yet.
pub(in crate::providers) fn signal(signal: Signal<'_>, recipient: Recipient<'_>) -> Option<Body> {
    let action = match signal {
        Signal::Read { .. } => "mark_seen",
        Signal::Typing { .. } => "typing_on",
    };
    let body = json!({"recipient": {"id": recipient.address}, "sender_action": action});
    (recipient.kind != RecipientKind::UserRef).then(|| Body::Json(body.to_string().into_bytes()))
}

/// At most 13, with words or for a number or an address.
pub(in crate::providers) fn check_quick_replies(found: &mut Checking, replies: &[QuickReply]) {
    found.count("quick_replies", replies.len(), 0..=13);
    for (index, reply) in replies.iter().enumerate() {
        if let QuickReply::Text { title, payload, image_link } = reply {
            found.text(&format!("quick_replies[{index}].title"), title, Most::Characters(20));
            found.text(&format!("quick_replies[{index}].payload"), payload, Most::Characters(1000));
            if let Some(link) = image_link {
                found.https(&format!("quick_replies[{index}].image_link"), link);
            }
        }
    }
}

/// Whether a button may call a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::providers) enum Calls {
    /// It may.
    Possible,
    /// It may not.
    Impossible,
}

/// Buttons of a template, at `field`.
pub(in crate::providers) fn check_buttons(found: &mut Checking, field: &str, buttons: &[Button], calls: Calls) {
    for (index, button) in buttons.iter().enumerate() {
        let at = |name: &str| format!("{field}[{index}].{name}");
        found.text(&at("title"), button.title(), Most::Characters(20));
        match button {
            Button::Reply { id, .. } => found.text(&at("id"), id, Most::Characters(1000)),
            Button::Url { url, .. } => found.https(&at("url"), url),
            Button::Call { phone, .. } if calls == Calls::Possible => found.phone(&at("phone"), phone),
            Button::Call { .. } => found.problem(&at("type"), "must be reply or url: no button calls a number here"),
        }
    }
}

/// At most ten, each with a title and one thing more.
pub(in crate::providers) fn check_cards(found: &mut Checking, cards: &[Card], calls: Calls) {
    found.count("cards", cards.len(), 1..=10);
    for (index, card) in cards.iter().enumerate() {
        let at = |name: &str| format!("cards[{index}].{name}");
        found.text(&at("title"), &card.title, Most::Characters(80));
        found.optional(&at("subtitle"), card.subtitle.as_deref(), Most::Characters(80));
        if let Some(image) = &card.image {
            found.file(&at("image"), image, &IMAGE);
        }
        if let Some(url) = &card.url {
            found.https(&at("url"), url);
        }
        found.count(&at("buttons"), card.buttons.len(), 0..=3);
        check_buttons(found, &at("buttons"), &card.buttons, calls);
        if card.subtitle.is_none() && card.image.is_none() && card.url.is_none() && card.buttons.is_empty() {
            found.problem(
                &format!("cards[{index}]"),
                "must have a subtitle, an image, a url or buttons beside its title",
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_is_told_that_they_are_read_and_answered() {
        let to = |kind| Recipient { kind, address: "24" };
        for (said, kind, expected) in [
            (
                Signal::Read { message_id: "m" },
                RecipientKind::Psid,
                Some(r#"{"recipient":{"id":"24"},"sender_action":"mark_seen"}"#),
            ),
            (
                Signal::Typing { message_id: "m" },
                RecipientKind::Igsid,
                Some(r#"{"recipient":{"id":"24"},"sender_action":"typing_on"}"#),
            ),
            (Signal::Typing { message_id: "m" }, RecipientKind::UserRef, None),
        ] {
            let expected = expected.map(|body| Body::Json(body.as_bytes().to_vec()));
            assert_eq!(signal(said, to(kind)), expected, "{said:?}");
        }
    }
}
