//! What one element of `messages[]` says: its kind, the words a person reads, its files and what it refers to
//! (contract, section 3). What is missing the part its kind lives by, or is of a kind this release does not know, has no
//! content here and becomes "unsupported"; its element is kept either way.

use crate::{
    domain::messages::{MediaRef, MessageKind},
    providers::{
        json::{Object, cut},
        meta::{MAX_FIELD_BYTES, MAX_TEXT_BYTES},
    },
};
use std::borrow::Cow;

/// The content of a message.
#[derive(Debug)]
pub(super) struct Content {
    /// What it is.
    pub(super) kind: MessageKind,
    /// What a person reads.
    pub(super) text: Option<String>,
    /// Its file.
    pub(super) media: Option<MediaRef>,
    /// The message it reacts to, edits or revokes.
    pub(super) target: Option<String>,
}

impl Content {
    fn new(kind: MessageKind, text: Option<Cow<'_, str>>) -> Self {
        Self { kind, text: text.filter(|text| !text.is_empty()).map(shorten), media: None, target: None }
    }

    /// What cannot be shown.
    pub(super) fn unsupported() -> Self {
        Self::new(MessageKind::Unsupported, None)
    }
}

/// Reads the content; `None` if it is unknown or broken.
pub(super) fn read(message: &Object) -> Option<Content> {
    use MessageKind::*;
    let kind = message.text("type")?;
    let inner = || message.object(&kind);
    match &*kind {
        "text" => Some(Content::new(Text, Some(inner()?.text("body")?))),
        "image" => file(Image, &inner()?),
        "video" => file(Video, &inner()?),
        "audio" => file(Audio, &inner()?),
        "document" => file(Document, &inner()?),
        "sticker" => file(Sticker, &inner()?),
        "location" => location(&inner()?),
        "contacts" => cards(message),
        "interactive" => interactive(&inner()?),
        "button" => {
            let button = inner()?;
            Some(Content::new(Button, Some(button.words("text").or_else(|| button.words("payload"))?)))
        }
        "reaction" => {
            let reaction = inner()?;
            aimed(Reaction, reaction.id("message_id"), reaction.words("emoji"))
        }
        "order" => Some(Content::new(Order, Some(order(&inner()?)?.into()))),
        "system" => Some(Content::new(System, inner()?.words("body"))),
        "edit" => {
            let edit = inner()?;
            let words = read(&edit.object("message")?)?.text;
            aimed(Edit, edit.id("original_message_id"), words.map(Into::into))
        }
        "revoke" => aimed(Revoke, inner()?.id("original_message_id"), None),
        _ => None,
    }
}

fn shorten(text: Cow<'_, str>) -> String {
    cut(text, MAX_TEXT_BYTES)
}

/// A content that means nothing without the message it is about.
fn aimed(kind: MessageKind, target: Option<Cow<'_, str>>, text: Option<Cow<'_, str>>) -> Option<Content> {
    Some(Content { target: Some(target?.into_owned()), ..Content::new(kind, text) })
}

fn file(kind: MessageKind, file: &Object) -> Option<Content> {
    let field = |key| file.words(key).map(|words| cut(words, MAX_FIELD_BYTES));
    let whole = |key| file.words(key).filter(|words| words.len() <= MAX_FIELD_BYTES).map(Cow::into_owned);
    let caption = file.words("caption").map(shorten);
    let media = MediaRef {
        provider_media_id: file.id("id").map(Cow::into_owned),
        url: whole("url"),
        mime_type: whole("mime_type"),
        sha256: whole("sha256"),
        filename: field("filename"),
        caption: caption.clone(),
        voice: file.flag("voice"),
    };
    let can_be_fetched = media.provider_media_id.is_some() || media.url.is_some();
    can_be_fetched.then(|| Content { media: Some(media), ..Content::new(kind, caption.map(Into::into)) })
}

fn location(place: &Object) -> Option<Content> {
    let address: Vec<_> = ["name", "address"].into_iter().filter_map(|key| place.words(key)).collect();
    let coordinates = || Some(format!("{}, {}", place.number("latitude")?, place.number("longitude")?));
    let text = if address.is_empty() { coordinates()? } else { address.join(", ") };
    Some(Content::new(MessageKind::Location, Some(text.into())))
}

fn cards(message: &Object) -> Option<Content> {
    let names: Vec<_> = message.objects("contacts").filter_map(|card| card_name(&card)).collect();
    let is_empty = message.items("contacts").is_empty();
    (!is_empty).then(|| Content::new(MessageKind::Contacts, Some(names.join(", ").into())))
}

/// The formatted name; without one the first and last name, or the first number.
fn card_name(card: &Object) -> Option<String> {
    let name = card.object("name");
    let part = |key| name.as_ref()?.words(key).map(Cow::into_owned);
    let parts =
        || [part("first_name"), part("last_name")].into_iter().flatten().reduce(|first, last| first + " " + &last);
    let number = || card.objects("phones").find_map(|phone| Some(phone.words("phone")?.into_owned()));
    part("formatted_name").or_else(parts).or_else(number)
}

/// An answer to buttons, a list, a flow, an address form or a call permission request. One that is newer than this
/// release is an answer as well, by its title if it has one.
fn interactive(answer: &Object) -> Option<Content> {
    let kind = answer.text("type")?;
    let reply = answer.object(&kind)?;
    let words = |keys: &[&str]| keys.iter().find_map(|key| reply.words(key));
    let text = match &*kind {
        "button_reply" | "list_reply" => Some(words(&["title", "id"])?),
        "nfm_reply" => words(&["body", "name"]),
        "call_permission_reply" => Some(words(&["response"])?),
        _ => words(&["title", "body", "text"]),
    };
    Some(Content::new(MessageKind::Interactive, text))
}

/// The buyer's words and a line for each product: `2 × tea-green-100 (7.5 EUR)`.
fn order(order: &Object) -> Option<String> {
    let lines = order.objects("product_items").filter_map(|item| {
        let product = item.id("product_retailer_id")?;
        let quantity = item.number("quantity").unwrap_or(Cow::Borrowed("?"));
        let price = item.number("item_price").zip(item.words("currency"));
        let price = price.map(|(price, currency)| format!(" ({price} {currency})")).unwrap_or_default();
        Some(format!("{quantity} × {product}{price}"))
    });
    let lines: Vec<_> = order.words("text").map(Cow::into_owned).into_iter().chain(lines).collect();
    (!lines.is_empty()).then(|| lines.join("\n"))
}
