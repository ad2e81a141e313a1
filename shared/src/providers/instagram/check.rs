//! What Instagram would refuse in a message and can be seen without asking it (contract, section 3.1).

use crate::{
    domain::content::{OutboundContent, QuickReply, Text},
    providers::{
        FieldProblem,
        checking::{Checking, FileLimit, MB, Most},
        meta::said::{Calls, IMAGE, check_buttons, check_cards, check_quick_replies},
        sending::Facts,
    },
};

const VIDEO: FileLimit = FileLimit {
    types: &[
        ("video/mp4", 25 * MB),
        ("video/ogg", 25 * MB),
        ("video/x-msvideo", 25 * MB),
        ("video/quicktime", 25 * MB),
        ("video/webm", 25 * MB),
    ],
};
const AUDIO: FileLimit = FileLimit {
    types: &[("audio/aac", 25 * MB), ("audio/mp4", 25 * MB), ("audio/wav", 25 * MB), ("video/mp4", 25 * MB)],
};
const FILE: FileLimit = FileLimit { types: &[("application/pdf", 25 * MB)] };

const NO_CAPTION: &str = "must be a message of its own: on Instagram a file has no words beside it";
const NO_FRAME: &str = "must be part of the text: on Instagram nothing stands above or below it";

/// Everything Instagram would refuse in `content` that can be seen without asking it. For the API, before anything is stored.
///
/// # Errors
/// The problems, each with its field.
pub fn check(content: &OutboundContent, files: &Facts) -> Result<(), Vec<FieldProblem>> {
    use OutboundContent as Is;
    let mut found = Checking::of(files);
    match content {
        Is::Text(Text { text, quick_replies, .. }) => {
            found.text("text", text, Most::Bytes(1000));
            check_quick_replies(&mut found, quick_replies);
            for (index, reply) in quick_replies.iter().enumerate() {
                if let QuickReply::Text { image_link: Some(_), .. } = reply {
                    found.problem(
                        &format!("quick_replies[{index}].image_link"),
                        "must be missing: Instagram shows no picture there",
                    );
                }
            }
        }
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
            check_buttons(&mut found, "buttons", &buttons.buttons, Calls::Impossible);
        }
        Is::Cards(cards) => check_cards(&mut found, &cards.cards, Calls::Impossible),
        Is::Reaction(reaction) => found.emoji("emoji", &reaction.emoji),
        Is::Heart(_) => {}
        Is::Post(post) => found.text("post_id", &post.post_id, Most::Characters(256)),
        _ => found.no_such_kind("Instagram", content.type_name()),
    }
    found.finish()
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
        let file = || json!({"link": "https://a.example/x"});
        for (said, expected) in [
            (json!({"type": "text", "text": "é".repeat(500)}), &[] as &[&str]),
            (json!({"type": "text", "text": "é".repeat(501)}), &["text"]),
            (
                json!({"type": "text", "text": "x", "quick_replies": [{"type": "text", "title": "a", "payload": "b", "image_link": "https://a.example"}]}),
                &["quick_replies[0].image_link"],
            ),
            (json!({"type": "album", "files": vec![file(); 10]}), &[]),
            (json!({"type": "album", "files": vec![file(); 11], "text": "x"}), &["files", "text"]),
            (json!({"type": "image", "file": file(), "caption": "x"}), &["caption"]),
            (
                json!({"type": "buttons", "text": "x", "buttons": [{"type": "call", "title": "Call", "phone": "+15557770142"}]}),
                &["buttons[0].type"],
            ),
            (json!({"type": "cards", "cards": [{"title": "a", "subtitle": "b"}]}), &[]),
            (json!({"type": "cards", "cards": []}), &["cards"]),
            (json!({"type": "heart"}), &[]),
            (json!({"type": "post", "post_id": ""}), &["post_id"]),
            (json!({"type": "template", "name": "n", "language": "en"}), &["type"]),
            (json!({"type": "sticker", "file": file()}), &["type"]),
        ] {
            assert_eq!(fields(&said), expected, "{said:.200}");
        }
    }

    #[test]
    fn a_file_is_of_the_types_instagram_knows() {
        for (kind, mime_type, mb, is_good) in [
            ("image", "image/png", 8, true),
            ("image", "image/gif", 1, true),
            ("image", "image/webp", 1, false),
            ("image", "image/jpeg", 9, false),
            ("video", "video/quicktime", 25, true),
            ("video", "video/3gpp", 1, false),
            ("audio", "audio/x-wav", 25, true),
            ("audio", "audio/m4a", 25, true),
            ("audio", "audio/ogg", 1, false),
            ("document", "application/pdf", 25, true),
            ("document", "application/zip", 1, false),
        ] {
            let id = FileId::new();
            let facts = Facts::from([(id, FileFacts { mime_type: mime_type.into(), bytes: mb * MB })]);
            let said = content(json!({"type": kind, "file": {"id": id}}));
            assert_eq!(check(&said, &facts).is_ok(), is_good, "{kind} {mime_type} {mb}");
        }
    }
}
