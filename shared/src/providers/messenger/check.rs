//! What Messenger would refuse in a message and can be seen without asking it (contract, sections 3.2 and 3.3).

use crate::{
    domain::content::{OutboundContent, Template, TemplateButton, TemplateHeader, Text},
    providers::{
        FieldProblem,
        checking::{Checking, FileLimit, MB, Most},
        meta::said::{Calls, check_buttons, check_cards, check_quick_replies},
        sending::Facts,
    },
};

const MAX_TEXT: Most = Most::Characters(2000);
const IMAGE: FileLimit = FileLimit { types: &[("image/*", 8 * MB)] };
const VIDEO: FileLimit = FileLimit { types: &[("video/*", 25 * MB)] };
const AUDIO: FileLimit = FileLimit { types: &[("audio/*", 25 * MB)] };
const FILE: FileLimit = FileLimit { types: &[("*", 25 * MB)] };

const NO_CAPTION: &str = "must be a message of its own: on Messenger a file has no words beside it";
const NO_FRAME: &str = "must be part of the text: on Messenger nothing stands above or below it";

/// Everything Messenger would refuse in `content` that can be seen without asking it. For the API, before anything is stored.
///
/// # Errors
/// The problems, each with its field.
pub fn check(content: &OutboundContent, files: &Facts) -> Result<(), Vec<FieldProblem>> {
    use OutboundContent as Is;
    let mut found = Checking::of(files);
    match content {
        Is::Text(Text { text, quick_replies, .. }) => {
            found.text("text", text, MAX_TEXT);
            check_quick_replies(&mut found, quick_replies);
        }
        Is::Template(template) => self::template(&mut found, template),
        Is::Image(image) => {
            found.file("file", &image.file, &IMAGE);
            found.absent("caption", image.caption.is_none(), NO_CAPTION);
        }
        Is::Video(video) => {
            found.file("file", &video.file, &VIDEO);
            found.absent("caption", video.caption.is_none(), NO_CAPTION);
        }
        Is::Audio(audio) => found.file("file", &audio.file, &AUDIO),
        Is::Document(document) => {
            found.file("file", &document.file, &FILE);
            found.absent("caption", document.caption.is_none(), NO_CAPTION);
        }
        Is::Album(album) => {
            // No limit is documented; Instagram's is ten.
            found.count("files", album.files.len(), 2..=10);
            for (index, file) in album.files.iter().enumerate() {
                found.file(&format!("files[{index}]"), file, &IMAGE);
            }
            found.absent("text", album.text.is_none(), NO_CAPTION);
        }
        Is::Buttons(buttons) => {
            found.text("text", &buttons.text, Most::Characters(640));
            found.absent("header", buttons.header.is_none(), NO_FRAME);
            found.absent("footer", buttons.footer.is_none(), NO_FRAME);
            found.count("buttons", buttons.buttons.len(), 1..=3);
            check_buttons(&mut found, "buttons", &buttons.buttons, Calls::Possible);
        }
        Is::Cards(cards) => check_cards(&mut found, &cards.cards, Calls::Possible),
        Is::Reaction(reaction) => found.emoji("emoji", &reaction.emoji),
        _ => found.no_such_kind("Messenger", content.type_name()),
    }
    found.finish()
}

/// A utility message; what its template needs is not known here.
fn template(found: &mut Checking, template: &Template) {
    let Template { name, language, variables, named_variables, header, buttons, cards, offer_expires_at, .. } =
        template;
    found.text("name", name, Most::Characters(512));
    found.text("language", language, Most::Characters(16));
    for (index, value) in variables.iter().enumerate() {
        found.value(&format!("variables[{index}]"), value, MAX_TEXT);
    }
    for (name, value) in named_variables {
        found.value(&format!("named_variables.{name}"), value, MAX_TEXT);
    }
    match header {
        None => {}
        Some(TemplateHeader::Text { text, .. }) => found.value("header.text", text, MAX_TEXT),
        Some(TemplateHeader::Image { file }) => found.file("header.file", file, &IMAGE),
        Some(_) => found.problem("header.type", "must be text or image"),
    }
    for (index, button) in buttons.iter().enumerate() {
        match button {
            TemplateButton::QuickReply { payload, .. } => {
                found.text(&format!("buttons[{index}].payload"), payload, Most::Characters(1000));
            }
            TemplateButton::Url { text, .. } => found.value(&format!("buttons[{index}].text"), text, MAX_TEXT),
            _ => found.problem(&format!("buttons[{index}].type"), "must be quick_reply or url"),
        }
    }
    found.absent("cards", cards.is_empty(), "must be missing: no template of Messenger has cards");
    found.absent(
        "offer_expires_at",
        offer_expires_at.is_none(),
        "must be missing: no template of Messenger has an offer",
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        domain::ids::FileId,
        providers::{sending::FileFacts, testing::sending::content},
    };
    use serde_json::{Value, json};

    fn fields(said: &Value) -> Vec<String> {
        let problems = check(&content(said.clone()), &Facts::new()).err().unwrap_or_default();
        problems.into_iter().map(|problem| problem.field).collect()
    }

    #[test]
    fn every_kind_has_its_limits() {
        let a = |count: usize| "a".repeat(count);
        let quick = |title: &str, payload: &str| json!({"type": "text", "title": title, "payload": payload});
        let file = || json!({"link": "https://a.example/x"});
        for (said, expected) in [
            (
                json!({"type": "text", "text": "é".repeat(2000), "quick_replies": vec![quick(&a(20), &a(1000)); 13]}),
                &[] as &[&str],
            ),
            (
                json!({"type": "text", "text": a(2001), "quick_replies": vec![quick("a", "b"); 14]}),
                &["text", "quick_replies"],
            ),
            (
                json!({"type": "text", "text": "x", "quick_replies": [quick(&a(21), &a(1001)), {"type": "email"}]}),
                &["quick_replies[0].title", "quick_replies[0].payload"],
            ),
            (
                json!({"type": "text", "text": "x", "quick_replies": [{"type": "text", "title": "a", "payload": "b", "image_link": "http://a"}]}),
                &["quick_replies[0].image_link"],
            ),
            (json!({"type": "image", "file": file()}), &[]),
            (json!({"type": "image", "file": file(), "caption": "x"}), &["caption"]),
            (json!({"type": "document", "file": file(), "caption": "x", "filename": "a"}), &["caption"]),
            (json!({"type": "album", "files": [file(), file()]}), &[]),
            (json!({"type": "album", "files": [file()], "text": "x"}), &["files", "text"]),
            (
                json!({"type": "buttons", "text": a(640), "buttons": [{"type": "call", "title": "Call", "phone": "+15557770142"}]}),
                &[],
            ),
            (
                json!({"type": "buttons", "text": a(641), "footer": "x", "header": {"type": "text", "text": "x"}, "buttons": []}),
                &["text", "header", "footer", "buttons"],
            ),
            (
                json!({"type": "buttons", "text": "x", "buttons": [{"type": "call", "title": a(21), "phone": "15"}, {"type": "url", "title": "x", "url": "x"}]}),
                &["buttons[0].title", "buttons[0].phone", "buttons[1].url"],
            ),
            (json!({"type": "cards", "cards": [{"title": a(80), "subtitle": a(80)}]}), &[]),
            (json!({"type": "cards", "cards": [{"title": a(81)}]}), &["cards[0].title", "cards[0]"]),
            (
                json!({"type": "cards", "cards": vec![json!({"title": "a", "url": "https://a.example"}); 11]}),
                &["cards"],
            ),
            (
                json!({"type": "cards", "cards": [{"title": "a", "url": "a", "buttons": vec![json!({"type": "reply", "title": "a", "id": ""}); 4]}]}),
                &[
                    "cards[0].url",
                    "cards[0].buttons",
                    "cards[0].buttons[0].id",
                    "cards[0].buttons[1].id",
                    "cards[0].buttons[2].id",
                    "cards[0].buttons[3].id",
                ],
            ),
            (
                json!({"type": "template", "name": "n", "language": "en", "variables": ["a\nb"], "cards": [{}], "offer_expires_at": "2026-11-17T12:00:00Z",
                "header": {"type": "video", "file": file()}, "buttons": [{"type": "copy_code", "index": 0, "code": "x"}]}),
                &["variables[0]", "header.type", "buttons[0].type", "cards", "offer_expires_at"],
            ),
            (json!({"type": "sticker", "file": file()}), &["type"]),
            (json!({"type": "location", "latitude": 1.0, "longitude": 1.0}), &["type"]),
            (json!({"type": "list", "text": "x", "button": "b", "sections": []}), &["type"]),
        ] {
            assert_eq!(fields(&said), expected, "{said:.200}");
        }
    }

    #[test]
    fn a_file_is_as_large_as_its_kind_may_be() {
        for (kind, mime_type, mb, is_good) in [
            ("image", "image/webp", 8, true),
            ("image", "image/jpeg", 9, false),
            ("image", "video/mp4", 1, false),
            ("video", "video/webm", 25, true),
            ("audio", "audio/mpeg", 26, false),
            ("document", "application/zip", 25, true),
            ("document", "application/zip", 26, false),
        ] {
            let id = FileId::new();
            let facts = Facts::from([(id, FileFacts { mime_type: mime_type.into(), bytes: mb * MB })]);
            let said = content(json!({"type": kind, "file": {"id": id}}));
            assert_eq!(check(&said, &facts).is_ok(), is_good, "{kind} {mime_type} {mb}");
        }
    }
}
