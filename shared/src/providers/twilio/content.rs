//! What a message from a person says: its kind, the words a person reads and its files (contract, section 2). Which parameters
//! are there decides; `MessageType` is not always sent, and its words are not published.

use super::parse::Parameters;
use crate::{
    domain::messages::{MediaRef, MessageKind},
    providers::json::cut,
};
use base64::{Engine, engine::general_purpose::STANDARD};

/// Words beyond this stay in the raw parameters only. Twilio's own limit is 1600 characters.
pub(super) const MAX_TEXT_BYTES: usize = 64 * 1024;
const MAX_FIELD_BYTES: usize = 2048;
/// An MMS has at most 10 files.
const MAX_FILES: usize = 50;
/// A body in base64 is a concatenated message, so longer than one (contract, sections 2 and 10).
const MIN_ENCODED_BYTES: usize = 160;

/// The content of a message.
#[derive(Debug)]
pub(super) struct Content {
    /// What it is.
    pub(super) kind: MessageKind,
    /// What a person reads.
    pub(super) text: Option<String>,
    /// Its files.
    pub(super) media: Vec<MediaRef>,
}

/// Reads the content; what is not known is "unsupported", with whatever words it has.
pub(super) fn read(message: &Parameters, is_text_message: bool) -> Content {
    let kind_given = message.words("MessageType").unwrap_or_default();
    let body = message.get("Body").filter(|body| !body.trim().is_empty()).map(|body| {
        let decoded = if is_text_message { decoded(body) } else { None };
        cut(decoded.map_or_else(|| body.into(), Into::into), MAX_TEXT_BYTES)
    });
    let mut media = files(message);
    let kind = match kind_given {
        "reaction" => MessageKind::Reaction,
        "order" => MessageKind::Order,
        "system" => MessageKind::System,
        _ if !media.is_empty() => of_files(&media, kind_given),
        _ if message.words("Latitude").is_some() && message.words("Longitude").is_some() => MessageKind::Location,
        _ => of_words(message, kind_given, body.is_some(), is_text_message),
    };
    let text = body.or_else(|| stand_in(message, kind));
    if let Some(first) = media.first_mut() {
        first.caption = text.clone();
    }
    Content { kind, text, media }
}

fn of_words(message: &Parameters, kind_given: &str, has_body: bool, is_text_message: bool) -> MessageKind {
    let has = |names: &[&str]| names.iter().any(|name| message.words(name).is_some());
    match kind_given {
        "interactive" => MessageKind::Interactive,
        "button" => MessageKind::Button,
        _ if has(&["ListId", "ListTitle", "InteractiveData", "FlowData"]) => MessageKind::Interactive,
        _ if has(&["ButtonPayload", "ButtonText"]) => MessageKind::Button,
        "contacts" => MessageKind::Contacts,
        // Words are words, also of a kind that is newer than this release.
        _ if has_body => MessageKind::Text,
        "" if is_text_message => MessageKind::Text,
        "" if has(&["ReferralSourceId", "ReferralSourceUrl", "ReferralCtwaClid"]) => MessageKind::Referral,
        _ => MessageKind::Unsupported,
    }
}

/// The words of what has none in its body.
fn stand_in(message: &Parameters, kind: MessageKind) -> Option<String> {
    let text = match kind {
        MessageKind::Location => {
            let place: Vec<_> = ["Label", "Address"].into_iter().filter_map(|name| message.words(name)).collect();
            let coordinates = || Some(format!("{}, {}", message.words("Latitude")?, message.words("Longitude")?));
            if place.is_empty() { coordinates()? } else { place.join(", ") }
        }
        MessageKind::Interactive | MessageKind::Button => {
            let names = ["ButtonText", "ListTitle", "ButtonPayload", "ListId"];
            names.into_iter().find_map(|name| message.words(name))?.to_owned()
        }
        _ => return None,
    };
    Some(cut(text.into(), MAX_TEXT_BYTES))
}

/// What the files are, by the first that is not only layout.
fn of_files(media: &[MediaRef], kind_given: &str) -> MessageKind {
    let given = match kind_given {
        "image" => Some(MessageKind::Image),
        "video" => Some(MessageKind::Video),
        "audio" | "voice" => Some(MessageKind::Audio),
        "document" => Some(MessageKind::Document),
        "sticker" => Some(MessageKind::Sticker),
        "contacts" => Some(MessageKind::Contacts),
        _ => None,
    };
    let mut types = media.iter().filter_map(|file| file.mime_type.as_deref());
    let telling = types.find(|kind| !kind.eq_ignore_ascii_case("application/smil")).unwrap_or_default();
    given.unwrap_or_else(|| {
        let telling = telling.to_ascii_lowercase();
        match telling.split('/').next().unwrap_or_default() {
            "image" => MessageKind::Image,
            "video" => MessageKind::Video,
            "audio" => MessageKind::Audio,
            _ if ["text/vcard", "text/x-vcard", "text/directory"].contains(&&*telling) => MessageKind::Contacts,
            _ => MessageKind::Document,
        }
    })
}

/// `MediaUrl0`, `MediaContentType0` and so on. `NumMedia` is not needed to find them.
fn files(message: &Parameters) -> Vec<MediaRef> {
    let whole = |name: &str| message.words(name).filter(|words| words.len() <= MAX_FIELD_BYTES).map(str::to_owned);
    let file = |index: usize| {
        let url = whole(&format!("MediaUrl{index}"))?;
        let id = url.split(['?', '#']).next()?.rsplit('/').next().filter(|id| is_sid(id)).map(str::to_owned);
        let mime_type = whole(&format!("MediaContentType{index}"));
        Some(MediaRef { provider_media_id: id, url: Some(url), mime_type, ..MediaRef::default() })
    };
    (0..MAX_FILES).filter_map(file).collect()
}

/// A file's SID: `ME` and 32 hex digits.
fn is_sid(id: &str) -> bool {
    id.len() == 34 && id.starts_with("ME") && id[2..].bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The text of a body that some carriers deliver in base64: only if all of it is that, and it is text.
fn decoded(body: &str) -> Option<String> {
    let text = (body.len() >= MIN_ENCODED_BYTES).then(|| STANDARD.decode(body).ok()).flatten()?;
    let text = String::from_utf8(text).ok()?;
    text.chars().all(|c| !c.is_control() || matches!(c, '\n' | '\r' | '\t')).then_some(text)
}
