//! What a message of Messenger's or Instagram's says: its kind, the words a person reads and its files (providers/messenger
//! section 2.1, providers/instagram section 2.1). What this release does not know becomes "unsupported"; its element is kept
//! either way.

use super::{MAX_FIELD_BYTES, MAX_TEXT_BYTES};
use crate::{
    domain::messages::{MediaRef, MessageKind},
    providers::json::{Object, cut},
};
use std::borrow::Cow;

/// A message carries at most ten files (providers/instagram section 3.1); whoever holds a secret can sign more.
const MAX_ATTACHMENTS: usize = 50;
/// The sizes of the like button (providers/messenger section 2.1).
const LIKES: [&str; 3] = ["369239263222822", "369239343222814", "369239383222810"];

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

impl Content {
    /// Of words alone, if there are any.
    pub(super) fn new(kind: MessageKind, text: Option<Cow<'_, str>>) -> Self {
        let text = text.filter(|text| !text.is_empty()).map(|text| cut(text, MAX_TEXT_BYTES));
        Self { kind, text, media: Vec::new() }
    }
}

/// Reads the content of a message. `is_ours`: the business wrote it.
pub(super) fn read(message: &Object, is_ours: bool) -> Content {
    use MessageKind::*;
    let words = message.words("text").or_else(|| commands(message));
    let mut files = Vec::new();
    let mut lines = Vec::new();
    let mut kind = None;
    let mut has_strangers = message.flag("is_unsupported");
    let mut stickers: Vec<Cow<str>> = Vec::new();
    for attachment in message.items("attachments").into_iter().take(MAX_ATTACHMENTS) {
        let Some(attachment) = Object::of(attachment).and_then(|attachment| Attachment::of(&attachment, is_ours))
        else {
            has_strangers = true;
            continue;
        };
        // Until August 2026 a sticker came twice, as a picture and as itself.
        if let Some(sticker) = attachment.sticker {
            if stickers.contains(&sticker) {
                continue;
            }
            stickers.push(sticker);
        }
        kind = kind.or(Some(attachment.kind));
        lines.extend(attachment.text);
        // A post may come by its old and by its new name.
        files.extend(attachment.file.filter(|file: &MediaRef| {
            file.url.is_none() || files.iter().all(|known: &MediaRef| known.url != file.url)
        }));
    }
    let story = message.object("reply_to").and_then(|target| target.object("story"));
    let kind = match kind {
        _ if story.is_some() => StoryReply,
        Some(kind) => kind,
        None if has_strangers => Unsupported,
        None if message.object("quick_reply").is_some() => Interactive,
        None if words.is_some() => Text,
        None if message.object("referral").is_some() => Referral,
        None => Unsupported,
    };
    let text = words.or_else(|| (!lines.is_empty()).then(|| lines.join("\n").into()));
    // The story is ours: shown beside its answer as long as it can be fetched.
    files.extend(story.and_then(|story| file(&story)));
    Content { media: files, ..Content::new(kind, text) }
}

/// What the person typed, where there are no other words.
fn commands<'a>(message: &Object<'a>) -> Option<Cow<'a, str>> {
    let names = message.objects("commands").take(MAX_ATTACHMENTS).filter_map(|command| command.words("name"));
    names.reduce(|all, name| format!("{all} {name}").into())
}

struct Attachment<'a> {
    kind: MessageKind,
    text: Option<String>,
    file: Option<MediaRef>,
    /// The sticker's id.
    sticker: Option<Cow<'a, str>>,
}

impl<'a> Attachment<'a> {
    /// Reads one; `None` if it is unknown, broken or cannot be shown (`ephemeral`).
    fn of(attachment: &Object<'a>, is_ours: bool) -> Option<Self> {
        use MessageKind::*;
        let name = attachment.text("type")?;
        let payload = attachment.object("payload").unwrap_or_default();
        let of = |kind, text: Option<String>, file| Self { kind, text, file, sticker: None };
        let title = || payload.words("title").or_else(|| attachment.words("title")).map(Cow::into_owned);
        let text = || products(&payload).or_else(title);
        let whole = |kind| Some(of(kind, None, Some(file(&payload)?)));
        match &*name {
            "image" if payload.id("sticker_id").is_some() => Self::sticker(&payload),
            "image" => whole(Image),
            "video" => whole(Video),
            "audio" => whole(Audio),
            "file" => whole(Document),
            "sticker" => Self::sticker(&payload),
            "like_heart" => Some(of(Sticker, Some("❤".to_owned()), None)),
            "story_mention" => Some(of(StoryMention, None, file(&payload))),
            "share" | "ig_post" | "post" | "reel" | "ig_reel" | "ig_story" | "story" | "media" => {
                Some(of(Share, text(), file(&payload)))
            }
            "fallback" => {
                let link = payload.words("url").or_else(|| attachment.words("url")).map(Cow::into_owned);
                let lines: Vec<_> = text().into_iter().chain(link).collect();
                Some(of(Share, Some(lines.join("\n")), None))
            }
            "template" if is_ours => Some(of(Template, template(&payload).or_else(title), None)),
            "template" => Some(of(Share, text().or_else(|| template(&payload)), None)),
            "location" => {
                let place = payload.object("coordinates")?;
                let coordinates = format!("{}, {}", place.number("lat")?, place.number("long")?);
                Some(of(Location, title().or(Some(coordinates)), None))
            }
            "appointment_booking" => {
                let said = ["status", "start_time", "end_time", "timezone"];
                let said: Vec<_> =
                    said.into_iter().filter_map(|key| payload.words(key).or_else(|| payload.number(key))).collect();
                Some(of(Interactive, Some(said.join(" ")), None))
            }
            _ => None,
        }
    }

    fn sticker(payload: &Object<'a>) -> Option<Self> {
        let sticker = payload.id("sticker_id");
        let is_like = sticker.as_deref().is_some_and(|id| LIKES.contains(&id));
        let file = file(payload);
        let text = is_like.then(|| "👍".to_owned());
        (is_like || file.is_some()).then_some(Self { kind: MessageKind::Sticker, text, file, sticker })
    }
}

/// A file: by its link, which expires, or by its id. A link to something that is no web page or file is none.
fn file(payload: &Object) -> Option<MediaRef> {
    let is_link =
        |url: &Cow<str>| url.len() <= MAX_FIELD_BYTES && (url.starts_with("https://") || url.starts_with("http://"));
    let media = MediaRef {
        provider_media_id: payload.id("attachment_id").map(Cow::into_owned),
        url: payload.words("url").filter(is_link).map(Cow::into_owned),
        caption: payload.words("title").map(|title| cut(title, MAX_FIELD_BYTES)),
        ..MediaRef::default()
    };
    (media.provider_media_id.is_some() || media.url.is_some()).then_some(media)
}

/// A line for each product that is shared.
fn products(payload: &Object) -> Option<String> {
    titles(&payload.object("product")?)
}

/// The words of a template of ours, or the titles of its cards.
fn template(payload: &Object) -> Option<String> {
    payload.words("text").map(Cow::into_owned).or_else(|| titles(payload))
}

fn titles(list: &Object) -> Option<String> {
    let title = |element: Object| {
        let title = element.words("title")?;
        Some(match element.words("subtitle") {
            Some(subtitle) => format!("{title} ({subtitle})"),
            None => title.into_owned(),
        })
    };
    let lines: Vec<_> = list.objects("elements").take(MAX_ATTACHMENTS).filter_map(title).collect();
    (!lines.is_empty()).then(|| lines.join("\n"))
}
