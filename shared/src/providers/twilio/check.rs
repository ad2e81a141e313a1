//! What Twilio would refuse in a message and can be seen without asking it (contract, sections 7, 10 and 12); by SMS and MMS other
//! things than on WhatsApp.

use crate::{
    domain::{
        channel::Channel,
        content::{OutboundContent, Template, Text},
    },
    providers::{
        FieldProblem,
        checking::{Checking, FileLimit, MB, Most},
        sending::Facts,
    },
};

/// Twilio's limit, on WhatsApp as by SMS. It counts characters, whatever the encoding makes of them; an emoji is two.
const MAX_BODY: Most = Most::Utf16(1600);
/// A template's variables are at most so many.
const MAX_VARIABLES: usize = 100;

/// MMS: what carriers make of pictures is up to them, everything else is small.
const MMS: FileLimit = FileLimit {
    types: &[
        ("image/jpeg", 5 * MB),
        ("image/png", 5 * MB),
        ("image/gif", 5 * MB),
        ("image/*", 500 * 1024),
        ("video/*", 500 * 1024),
        ("audio/*", 500 * 1024),
        ("text/*", 500 * 1024),
        ("application/pdf", 500 * 1024),
    ],
};
const IMAGE: FileLimit = FileLimit { types: &[("image/jpeg", 5 * MB), ("image/png", 5 * MB)] };
const VIDEO: FileLimit = FileLimit { types: &[("video/mp4", 16 * MB), ("video/3gpp", 16 * MB)] };
const AUDIO: FileLimit = FileLimit {
    types: &[
        ("audio/mpeg", 16 * MB),
        ("audio/aac", 16 * MB),
        ("audio/mp4", 16 * MB),
        ("audio/amr", 16 * MB),
        ("audio/ogg", 16 * MB),
    ],
};
const DOCUMENT: FileLimit = FileLimit {
    types: &[
        ("application/pdf", 16 * MB),
        ("application/msword", 16 * MB),
        ("application/vnd.ms-excel", 16 * MB),
        ("application/vnd.ms-powerpoint", 16 * MB),
        ("application/vnd.openxmlformats-officedocument.wordprocessingml.document", 16 * MB),
        ("application/vnd.openxmlformats-officedocument.spreadsheetml.sheet", 16 * MB),
        ("application/vnd.openxmlformats-officedocument.presentationml.presentation", 16 * MB),
        ("text/vcard", 16 * MB),
    ],
};
/// 100 KB of one that does not move, 500 KB of one that does.
const STICKER: FileLimit = FileLimit { types: &[("image/webp", 500 * 1024)] };

/// Everything Twilio would refuse in `content` that can be seen without asking it. For the API, before anything is stored.
///
/// # Errors
/// The problems, each with its field.
pub fn check(channel: Channel, content: &OutboundContent, files: &Facts) -> Result<(), Vec<FieldProblem>> {
    use OutboundContent as Is;
    let is_whatsapp = channel == Channel::Whatsapp;
    let of = |limit| if is_whatsapp { limit } else { &MMS };
    let mut found = Checking::of(files);
    match content {
        Is::Text(Text { text, quick_replies, .. }) => {
            found.text("text", text, MAX_BODY);
            found.absent(
                "quick_replies",
                quick_replies.is_empty(),
                "must be missing: Twilio has quick replies in templates only",
            );
        }
        Is::Template(template) => self::template(&mut found, template, channel),
        Is::Image(image) => {
            found.file("file", &image.file, of(&IMAGE));
            found.optional("caption", image.caption.as_deref(), MAX_BODY);
        }
        Is::Video(video) => {
            found.file("file", &video.file, of(&VIDEO));
            found.optional("caption", video.caption.as_deref(), MAX_BODY);
        }
        Is::Audio(audio) => found.file("file", &audio.file, of(&AUDIO)),
        Is::Document(document) => {
            found.file("file", &document.file, of(&DOCUMENT));
            found.optional("caption", document.caption.as_deref().filter(|_| !is_whatsapp), MAX_BODY);
            let is_absent = document.caption.is_none() || !is_whatsapp;
            found.absent(
                "caption",
                is_absent,
                "must be a message of its own: Twilio drops the words beside a document on WhatsApp",
            );
        }
        Is::Sticker(sticker) if is_whatsapp => found.file("file", &sticker.file, &STICKER),
        Is::Location(location) if is_whatsapp => {
            found.degrees("latitude", location.latitude, 90.0);
            found.degrees("longitude", location.longitude, 180.0);
            found.optional("name", location.name.as_deref(), MAX_BODY);
            found.optional("address", location.address.as_deref(), MAX_BODY);
        }
        Is::Album(album) if !is_whatsapp => {
            found.count("files", album.files.len(), 1..=10);
            for (index, file) in album.files.iter().enumerate() {
                found.file(&format!("files[{index}]"), file, &MMS);
            }
            let bytes: u64 = album.files.iter().filter_map(|file| Some(files.get(&file.id?)?.bytes)).sum();
            if bytes > 5 * MB {
                found.problem("files", "must have at most 5 MB together");
            }
            found.optional("text", album.text.as_deref(), MAX_BODY);
        }
        _ => found.no_such_kind(if is_whatsapp { "Twilio's WhatsApp" } else { "SMS" }, content.type_name()),
    }
    found.finish()
}

/// On WhatsApp a value is one line without four spaces in a row (contract, section 14); by SMS it is any text.
fn value(found: &mut Checking, field: &str, value: &str, channel: Channel) {
    if channel == Channel::Whatsapp {
        found.line(field, value, 3, MAX_BODY)
    } else {
        found.text(field, value, MAX_BODY)
    }
}

/// A template of Twilio's Content API: by its SID, given or found by its name; its variables by name or number, and nothing else that could
/// be given.
fn template(found: &mut Checking, template: &Template, channel: Channel) {
    let Template { variables, named_variables, header, buttons, cards, offer_expires_at, .. } = template;
    if !is_content_sid(template.provider_name()) {
        let message = "must be the name of one of the account's templates, as last fetched, or the SID of a content template: HX and \
            32 hexadecimal digits";
        found.problem("name", message);
    }
    if variables.len() + named_variables.len() > MAX_VARIABLES {
        found.problem("variables", format!("must have at most {MAX_VARIABLES}"));
    }
    for (index, value) in variables.iter().enumerate().take(MAX_VARIABLES) {
        self::value(found, &format!("variables[{index}]"), value, channel);
    }
    for (name, value) in named_variables.iter().take(MAX_VARIABLES) {
        self::value(found, &format!("named_variables.{name}"), value, channel);
    }
    let why = "must be variables: Twilio fills a template by them alone";
    found.absent("header", header.is_none(), why);
    found.absent("buttons", buttons.is_empty(), why);
    found.absent("cards", cards.is_empty(), why);
    found.absent("offer_expires_at", offer_expires_at.is_none(), why);
}

/// Whether it is the SID of a content template.
pub fn is_content_sid(name: &str) -> bool {
    let sid = name.strip_prefix("HX").unwrap_or_default();
    sid.len() == 32 && sid.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        domain::ids::FileId,
        providers::{sending::FileFacts, testing::sending::content},
    };
    use serde_json::{Value, json};

    fn fields(channel: Channel, said: &Value) -> Vec<String> {
        let problems = check(channel, &content(said.clone()), &Facts::new()).err().unwrap_or_default();
        problems.into_iter().map(|problem| problem.field).collect()
    }

    #[test]
    fn every_kind_has_its_limits_on_each_channel() {
        let file = || json!({"link": "https://a.example/x"});
        let a = |count: usize| "a".repeat(count);
        let template = |more: Value| {
            let mut said = json!({"type": "template", "name": "HX0123456789abcdef0123456789ABCDEF", "language": ""});
            said.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            said
        };
        for (said, on_sms, on_whatsapp) in [
            (json!({"type": "text", "text": a(1600)}), &[] as &[&str], &[] as &[&str]),
            (json!({"type": "text", "text": a(1601)}), &["text"], &["text"]),
            (json!({"type": "text", "text": "👍".repeat(801)}), &["text"], &["text"]),
            (
                json!({"type": "text", "text": "x", "quick_replies": [{"type": "email"}]}),
                &["quick_replies"],
                &["quick_replies"],
            ),
            (json!({"type": "image", "file": file(), "caption": a(1601)}), &["caption"], &["caption"]),
            (json!({"type": "document", "file": file(), "caption": "x"}), &[], &["caption"]),
            (json!({"type": "album", "files": vec![file(); 10], "text": "x"}), &[], &["type"]),
            (json!({"type": "album", "files": vec![file(); 11]}), &["files"], &["type"]),
            (json!({"type": "location", "latitude": 91.0, "longitude": 1.0}), &["type"], &["latitude"]),
            (json!({"type": "sticker", "file": file()}), &["type"], &[]),
            (json!({"type": "buttons", "text": "x", "buttons": []}), &["type"], &["type"]),
            (json!({"type": "contacts", "contacts": []}), &["type"], &["type"]),
            (template(json!({"variables": ["a"], "named_variables": {"b": "c"}})), &[], &[]),
            (template(json!({"variables": vec!["a"; 101]})), &["variables"], &["variables"]),
            (
                template(json!({"variables": ["a    b"], "buttons": [{"type": "url", "index": 0, "text": "x"}]})),
                &["buttons"],
                &["variables[0]", "buttons"],
            ),
            (
                template(json!({"variables": ["a   b"], "named_variables": {"x": "two\nlines"}})),
                &[],
                &["named_variables.x"],
            ),
            (
                template(json!({"name": "parcel_sent", "header": {"type": "text", "text": "x"}})),
                &["name", "header"],
                &["name", "header"],
            ),
        ] {
            assert_eq!(fields(Channel::Sms, &said), on_sms, "{said:.200}");
            assert_eq!(fields(Channel::Whatsapp, &said), on_whatsapp, "{said:.200}");
        }
    }

    #[test]
    fn a_file_is_as_large_as_its_channel_may_carry() {
        for (kind, mime_type, kb, on_sms, on_whatsapp) in [
            ("image", "image/jpeg", 5120, true, true),
            ("image", "image/gif", 10, true, false),
            ("image", "image/jpeg", 5121, false, false),
            ("video", "video/mp4", 500, true, true),
            ("video", "video/mp4", 16384, false, true),
            ("audio", "audio/ogg", 501, false, true),
            ("document", "application/pdf", 500, true, true),
            ("document", "application/zip", 1, false, false),
        ] {
            let id = FileId::new();
            let facts = Facts::from([(id, FileFacts { mime_type: mime_type.into(), bytes: kb * 1024 })]);
            let said = content(json!({"type": kind, "file": {"id": id}}));
            assert_eq!(check(Channel::Sms, &said, &facts).is_ok(), on_sms, "SMS {kind} {mime_type} {kb}");
            assert_eq!(
                check(Channel::Whatsapp, &said, &facts).is_ok(),
                on_whatsapp,
                "WhatsApp {kind} {mime_type} {kb}"
            );
        }
        let ids = [FileId::new(), FileId::new()];
        let facts = FileFacts { mime_type: "image/png".into(), bytes: 3 * MB };
        let facts = Facts::from(ids.map(|id| (id, facts.clone())));
        let said = content(json!({"type": "album", "files": ids.map(|id| json!({"id": id}))}));
        assert_eq!(check(Channel::Sms, &said, &facts).unwrap_err()[0].field, "files");
    }
}
