//! A tenant's own templates: words with variables, `{{name}}` or `{name}`, and files. They are filled in when a message is accepted and
//! sent as any other words; a provider never hears of them, so they need an open window where there is one.

use super::{
    content::{Album, Audio, Document, FileRef, Image, OutboundContent, Text, Video},
    ids::FileId,
    templates::Lack,
};
use std::collections::{BTreeMap, BTreeSet};

/// More files than any channel takes at once are none that were meant.
pub const MAX_FILES: usize = 10;
/// A variable's name is no longer.
const MAX_NAME_BYTES: usize = 64;

/// What a tenant's own template is for.
pub const CATEGORIES: [&str; 5] = ["greeting", "follow_up", "reminder", "promotional", "custom"];

/// A tenant's own template in one language.
#[derive(Clone, Copy, Debug)]
pub struct LocalTemplate<'a> {
    /// The words.
    pub body: &'a str,
    /// The files that go with them, each with its type.
    pub files: &'a [(FileId, String)],
}

/// A piece of words: as they are, or a variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Piece<'a> {
    Words(&'a str),
    Variable(&'a str),
}

/// The names of a body's variables.
pub fn variables(body: &str) -> BTreeSet<&str> {
    let named = pieces(body).into_iter().filter_map(|piece| match piece {
        Piece::Variable(name) => Some(name),
        Piece::Words(_) => None,
    });
    named.collect()
}

/// The words with their variables filled in.
///
/// # Errors
/// The variables that have no value, and the values that are nobody's.
pub fn fill(body: &str, values: &BTreeMap<String, String>) -> Result<String, Vec<Lack>> {
    let variables = variables(body);
    let missing = variables.iter().filter(|name| !values.contains_key(**name));
    let strangers = values.keys().filter(|name| !variables.contains(name.as_str()));
    let missing =
        missing.map(|name| (format!("named_variables.{name}"), format!("is missing: the value of {{{{{name}}}}}")));
    let strangers =
        strangers.map(|name| (format!("named_variables.{name}"), "is no variable of this template".to_owned()));
    let lacks: Vec<Lack> = missing.chain(strangers).collect();
    if !lacks.is_empty() {
        return Err(lacks);
    }
    Ok(fill_known(body, values))
}

/// The words with those variables filled in that have a value; the others stand as `{{name}}`.
pub fn fill_known(body: &str, values: &BTreeMap<String, String>) -> String {
    let mut filled = String::with_capacity(body.len());
    for piece in pieces(body) {
        match piece {
            Piece::Words(words) => filled.push_str(words),
            Piece::Variable(name) => match values.get(name) {
                Some(value) => filled.push_str(value),
                None => filled.extend(["{{", name, "}}"]),
            },
        }
    }
    filled
}

impl LocalTemplate<'_> {
    /// What is said: words, or files with words beside them.
    ///
    /// # Errors
    /// As [`fill`].
    pub fn content(&self, values: &BTreeMap<String, String>) -> Result<OutboundContent, Vec<Lack>> {
        let words = fill(self.body, values)?;
        let caption = (!words.is_empty()).then_some(words);
        let file = |id: FileId| FileRef { id: Some(id), link: None };
        Ok(match self.files {
            [] => OutboundContent::Text(Text { text: caption.unwrap_or_default(), ..Text::default() }),
            [(id, mime_type)] => match mime_type.split('/').next().unwrap_or_default() {
                "image" => OutboundContent::Image(Image { file: file(*id), caption }),
                "video" => OutboundContent::Video(Video { file: file(*id), caption }),
                "audio" if caption.is_none() => OutboundContent::Audio(Audio { file: file(*id), voice: false }),
                _ => OutboundContent::Document(Document { file: file(*id), caption, filename: None }),
            },
            several => OutboundContent::Album(Album {
                files: several.iter().map(|(id, _)| file(*id)).collect(),
                text: caption,
            }),
        })
    }
}

/// Of `{{{x}}}` the inner pair counts. Braces around anything but a name are words.
fn pieces(body: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let (mut from, mut at) = (0, 0);
    while let Some(found) = body[at..].find('{') {
        let start = at + found;
        match variable(&body[start..]) {
            Some((name, length)) => {
                if from < start {
                    pieces.push(Piece::Words(&body[from..start]));
                }
                pieces.push(Piece::Variable(name));
                (from, at) = (start + length, start + length);
            }
            None => at = start + 1,
        }
    }
    if from < body.len() {
        pieces.push(Piece::Words(&body[from..]));
    }
    pieces
}

/// The variable that a text begins with, and how many bytes it has with its braces.
fn variable(text: &str) -> Option<(&str, usize)> {
    [("{{", "}}"), ("{", "}")].into_iter().find_map(|(open, close)| {
        let (inside, _) = text.strip_prefix(open)?.split_once(close)?;
        let name = inside.trim();
        let is_name = !name.is_empty()
            && name.len() <= MAX_NAME_BYTES
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        is_name.then_some((name, open.len() + inside.len() + close.len()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn both_kinds_of_braces_are_variables_and_everything_else_is_words() {
        let given = values(&[("name", "Ada {x}"), ("order_1", "8812")]);
        for (body, expected) in [
            ("Hi {{name}}, your {order_1} is here.", "Hi Ada {x}, your 8812 is here."),
            ("{ name }{{ order_1 }}", "Ada {x}8812"),
            ("{{{name}}} {order_1}", "{Ada {x}} 8812"),
            ("{name} {order_1} {} {a b} {\"a\": 1} {{ } {", "Ada {x} 8812 {} {a b} {\"a\": 1} {{ } {"),
        ] {
            assert_eq!(fill(body, &given).as_deref(), Ok(expected), "{body}");
        }
        assert_eq!(fill("No variables", &values(&[])).as_deref(), Ok("No variables"));
    }

    #[test]
    fn what_is_missing_or_nobodys_is_named() {
        let lacks = fill("Hi {{name}}, {slot}", &values(&[("slot", "9:30"), ("nmae", "Ada")])).unwrap_err();
        let fields: Vec<&str> = lacks.iter().map(|(field, _)| field.as_str()).collect();
        assert_eq!(fields, ["named_variables.name", "named_variables.nmae"]);
        assert_eq!(lacks[0].1, "is missing: the value of {{name}}");
    }

    #[test]
    fn files_decide_what_is_said() {
        let of = |body: &'static str, types: &[&str]| {
            let files: Vec<_> = types.iter().map(|kind| (FileId::new(), (*kind).to_owned())).collect();
            LocalTemplate { body, files: &files }.content(&values(&[])).unwrap().type_name()
        };
        for (body, types, expected) in [
            ("Hi", &[][..], "text"),
            ("Hi", &["image/png"], "image"),
            ("", &["video/mp4"], "video"),
            ("", &["audio/ogg"], "audio"),
            ("Hi", &["application/pdf"], "document"),
            ("Hi", &["image/png", "image/png"], "album"),
        ] {
            assert_eq!(of(body, types), expected, "{body} {types:?}");
        }
    }
}
