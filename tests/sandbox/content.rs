//! What each free-form type must look like (contract page, section 7.2).

use super::{fields::Fields, refusal::Refusal};
use serde_json::Value;

/// Where the provider finds the file of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum File<'a> {
    Id(&'a str),
    Link(&'a str),
}

/// `text`: gives back its body.
pub(super) fn text<'a>(text: Fields<'a>) -> Result<&'a str, Refusal> {
    text.only(&["body", "preview_url"])?;
    text.optional_flag("preview_url")?;
    text.text("body", 4096)
}

/// Media by exactly one of `id` and `link`, with what else the type allows.
pub(super) fn media<'a>(media: Fields<'a>, more: &[&str]) -> Result<File<'a>, Refusal> {
    let mut known = vec!["id", "link"];
    known.extend_from_slice(more);
    media.only(&known)?;
    let file = match (media.has("id"), media.has("link")) {
        (true, false) => File::Id(media.text("id", 64)?),
        (false, true) => {
            let link = media.text("link", 2048)?;
            if !link.starts_with("https://") && !link.starts_with("http://") {
                return Err(media.wrong("link", "must be a URL."));
            }
            File::Link(link)
        }
        (false, false) => return Err(Refusal::missing("id or link")),
        (true, true) => return Err(media.wrong("link", "cannot stand beside id.")),
    };
    media.optional_text("caption", 1024)?;
    media.optional_text("filename", 240)?;
    media.optional_flag("voice")?;
    Ok(file)
}

/// `location`: coordinates as strings or as numbers.
pub(super) fn location(location: Fields<'_>) -> Result<(), Refusal> {
    location.only(&["latitude", "longitude", "name", "address"])?;
    for (key, most) in [("latitude", 90.0), ("longitude", 180.0)] {
        let degrees = match location.required(key)? {
            Value::String(text) => text.parse::<f64>().ok(),
            value => value.as_f64(),
        };
        if !degrees.is_some_and(|degrees| degrees.abs() <= most) {
            return Err(location.wrong(key, "must be a number of degrees."));
        }
    }
    location.optional_text("name", 1000)?;
    location.optional_text("address", 1000)?;
    Ok(())
}

/// `contacts`: a formatted name and at least one other part of a name in each.
pub(super) fn contacts(contacts: &[Value]) -> Result<(), Refusal> {
    const OTHER_PARTS: [&str; 5] = ["first_name", "middle_name", "last_name", "prefix", "suffix"];
    for contact in contacts {
        let contact = Fields::of(contact, "contacts[]")?.only(&[
            "name",
            "phones",
            "emails",
            "addresses",
            "org",
            "urls",
            "birthday",
        ])?;
        let name = contact.object("name", "contacts[].name")?;
        name.text("formatted_name", 1024)?;
        if !OTHER_PARTS.iter().any(|part| name.has(part)) {
            return Err(Refusal::missing("contacts[].name needs another part beside formatted_name"));
        }
    }
    Ok(())
}

/// `reaction`: gives back the message reacted to.
pub(super) fn reaction<'a>(reaction: Fields<'a>) -> Result<&'a str, Refusal> {
    reaction.only(&["message_id", "emoji"])?;
    reaction.required("emoji")?;
    reaction.optional_text("emoji", 16)?;
    reaction.text("message_id", 512)
}
