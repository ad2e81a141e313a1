//! Gathers what is wrong with a message before it is stored: every provider's `check` holds its limits against the fields with
//! the words of this one. A limit is of the thing the provider counts: characters, bytes or UTF-16 units.

use super::{FieldProblem, sending::Facts};
use crate::domain::content::FileRef;
use std::{collections::HashSet, ops::RangeInclusive};
use url::Url;

/// A mebibyte, in which providers say how large a file may be.
pub(super) const MB: u64 = 1024 * 1024;
/// No provider documents how long an address may be; what is longer is none that was meant.
const MAX_LINK_BYTES: usize = 2000;
/// Somebody who sends a list without end is told of its beginning.
const MAX_PROBLEMS: usize = 100;

/// How much of a text there may be.
#[derive(Clone, Copy, Debug)]
pub(super) enum Most {
    /// Characters, as Unicode counts them.
    Characters(usize),
    /// Bytes of UTF-8.
    Bytes(usize),
    /// UTF-16 units: what is beyond the basic plane (most emoji) is two.
    Utf16(usize),
}

/// What files a provider takes in some place.
#[derive(Clone, Copy, Debug)]
pub(super) struct FileLimit {
    /// Their types and the largest of each; a type that ends with `/*` is its whole family. The first that fits counts.
    pub(super) types: &'static [(&'static str, u64)],
}

/// Problems that were found, and the files to look at.
pub(super) struct Checking<'a> {
    files: &'a Facts,
    problems: Vec<FieldProblem>,
}

impl<'a> Checking<'a> {
    /// Nothing found yet.
    pub(super) fn of(files: &'a Facts) -> Self {
        Self { files, problems: Vec::new() }
    }

    /// What was found.
    pub(super) fn finish(self) -> Result<(), Vec<FieldProblem>> {
        if self.problems.is_empty() { Ok(()) } else { Err(self.problems) }
    }

    /// Something is wrong with a field; `message` is read after its name.
    pub(super) fn problem(&mut self, field: &str, message: impl Into<String>) {
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(FieldProblem { field: field.to_owned(), message: message.into() });
        }
    }

    /// A field that the provider has no place for.
    pub(super) fn absent(&mut self, field: &str, is_absent: bool, why: &str) {
        if !is_absent {
            self.problem(field, why);
        }
    }

    /// The whole kind is nothing that the provider carries.
    pub(super) fn no_such_kind(&mut self, who: &str, kind: &str) {
        self.problem("type", format!("must be another: {who} has no messages of the type {kind}"));
    }

    /// Words that must be there, within a limit.
    pub(super) fn text(&mut self, field: &str, text: &str, most: Most) {
        if text.trim().is_empty() {
            self.problem(field, "must not be empty");
        }
        self.at_most(field, text, most);
        if text.contains('\0') {
            self.problem(field, "must not contain NUL");
        }
    }

    /// Words that may be missing, but not be empty.
    pub(super) fn optional(&mut self, field: &str, text: Option<&str>, most: Most) {
        if let Some(text) = text {
            self.text(field, text, most);
        }
    }

    fn at_most(&mut self, field: &str, text: &str, most: Most) {
        let (has, may, what) = match most {
            Most::Characters(may) => (text.chars().count(), may, "characters"),
            Most::Bytes(may) => (text.len(), may, "bytes (most letters beyond a–z are two or more)"),
            Most::Utf16(may) => (text.encode_utf16().count(), may, "characters (an emoji is two)"),
        };
        if has > may {
            self.problem(field, format!("must have at most {may} {what}"));
        }
    }

    /// How many of something there are.
    pub(super) fn count(&mut self, field: &str, has: usize, may: RangeInclusive<usize>) {
        let (least, most) = (*may.start(), *may.end());
        if has < least {
            self.problem(field, format!("must have at least {least}"));
        } else if has > most {
            self.problem(field, format!("must have at most {most}"));
        }
    }

    /// Texts of which none may be there twice, each with its field.
    pub(super) fn unique<'t>(&mut self, texts: impl IntoIterator<Item = (String, &'t str)>) {
        let mut seen = HashSet::new();
        for (field, text) in texts {
            if !seen.insert(text) {
                self.problem(&field, "must not be the same as an earlier one");
            }
        }
    }

    /// An address on the web.
    pub(super) fn https(&mut self, field: &str, address: &str) {
        let is_https = Url::parse(address).is_ok_and(|url| url.scheme() == "https" && url.has_host());
        if !is_https {
            self.problem(field, "must be an address that begins with https://");
        } else if address.len() > MAX_LINK_BYTES {
            self.problem(field, format!("must have at most {MAX_LINK_BYTES} characters"));
        }
    }

    /// A telephone number as it is dialled from anywhere.
    pub(super) fn phone(&mut self, field: &str, number: &str) {
        let digits = number.strip_prefix('+').unwrap_or_default();
        if !(7..=15).contains(&digits.len()) || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            self.problem(
                field,
                "must be a telephone number with + and the country code, and nothing but digits after it",
            );
        }
    }

    /// A file: exactly one of id and link; of an uploaded one type and size. What lies behind a link nobody knows.
    pub(super) fn file(&mut self, field: &str, file: &FileRef, limit: &FileLimit) {
        match (&file.id, &file.link) {
            (Some(_), Some(_)) => self.problem(field, "must have an id or a link, not both"),
            (None, None) => self.problem(field, "must have an id or a link"),
            (None, Some(link)) => self.https(&format!("{field}.link"), link),
            (Some(id), None) => match self.files.get(id) {
                None => self.problem(&format!("{field}.id"), "is no file that was uploaded"),
                Some(facts) => {
                    let mime_type = canonical(&facts.mime_type);
                    match limit.types.iter().find(|(pattern, _)| fits(mime_type, pattern)) {
                        None => {
                            let types: Vec<_> = limit.types.iter().map(|(pattern, _)| *pattern).collect();
                            let message = format!("is {mime_type} and must be {}", types.join(", "));
                            self.problem(&format!("{field}.id"), message);
                        }
                        Some((_, most)) if facts.bytes > *most => {
                            let message = format!("must have at most {}, and has {} bytes", size(*most), facts.bytes);
                            self.problem(&format!("{field}.id"), message);
                        }
                        Some(_) => {}
                    }
                }
            },
        }
    }

    /// One emoji, or nothing.
    pub(super) fn emoji(&mut self, field: &str, emoji: &str) {
        // A family of four with its joiners has eleven characters.
        // Some emoji are letters in a frame; a digit is one with a key's frame after it.
        let is_letter = |c: char| c.is_alphabetic() && !matches!(c, 'ℹ' | 'Ⓜ' | '\u{1f170}'..='\u{1f189}');
        let is_no_emoji = |c: char| is_letter(c) || c.is_whitespace() || c.is_control();
        if emoji.chars().count() > 11 || emoji.chars().any(is_no_emoji) || (emoji.is_ascii() && !emoji.is_empty()) {
            self.problem(field, "must be one emoji, or empty to take a reaction back");
        }
    }

    /// Degrees of a circle around nought.
    pub(super) fn degrees(&mut self, field: &str, degrees: f64, most: f64) {
        if !(-most..=most).contains(&degrees) {
            self.problem(field, format!("must be a number of degrees from -{most} to {most}"));
        }
    }

    /// Values for a template's variables at Meta: no line breaks, tabs or more than four spaces in a row (providers/whatsapp section 7.4).
    pub(super) fn value(&mut self, field: &str, value: &str, most: Most) {
        self.line(field, value, 4, most);
    }

    /// The same with so many spaces in a row at most.
    pub(super) fn line(&mut self, field: &str, value: &str, spaces: usize, most: Most) {
        if value.contains(['\n', '\r', '\t']) {
            self.problem(field, "must not contain newlines or tabs");
        } else if value.contains(&" ".repeat(spaces + 1)) {
            self.problem(field, format!("must not contain more than {} spaces in a row", COUNTS[spaces.min(4)]));
        } else {
            self.text(field, value, most);
        }
    }
}

/// As they are written in sentences.
const COUNTS: [&str; 5] = ["no", "one", "two", "three", "four"];

/// The name by which providers know a type that is found by its first bytes under another, without its parameters.
pub(super) fn canonical(mime_type: &str) -> &str {
    match mime_type.split(';').next().unwrap_or_default().trim() {
        "audio/m4a" | "audio/x-m4a" => "audio/mp4",
        "audio/x-wav" | "audio/wave" => "audio/wav",
        "audio/opus" => "audio/ogg",
        "audio/mp3" => "audio/mpeg",
        "video/x-m4v" => "video/mp4",
        other => other,
    }
}

fn fits(mime_type: &str, pattern: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(family) => mime_type.starts_with(family),
        None => mime_type == pattern,
    }
}

/// A limit in the unit it is documented in.
fn size(bytes: u64) -> String {
    if bytes.is_multiple_of(MB) { format!("{} MB", bytes / MB) } else { format!("{} KB", bytes / 1024) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{domain::ids::FileId, providers::sending::FileFacts};

    const PICTURE: FileLimit = FileLimit { types: &[("image/png", 5 * MB), ("audio/*", 500 * 1024)] };

    fn found(check: impl FnOnce(&mut Checking)) -> Vec<(String, String)> {
        found_in(&Facts::new(), check)
    }

    fn found_in(files: &Facts, check: impl FnOnce(&mut Checking)) -> Vec<(String, String)> {
        let mut checking = Checking::of(files);
        check(&mut checking);
        let problems = checking.finish().err().unwrap_or_default();
        problems.into_iter().map(|problem| (problem.field, problem.message)).collect()
    }

    #[test]
    fn a_text_is_counted_as_the_provider_counts() {
        for (text, most, problems) in [
            ("aé👍", Most::Characters(3), 0),
            ("aé👍", Most::Characters(2), 1),
            ("aé👍", Most::Bytes(7), 0),
            ("aé👍", Most::Bytes(6), 1),
            ("aé👍", Most::Utf16(4), 0),
            ("aé👍", Most::Utf16(3), 1),
            (" \n", Most::Characters(3), 1),
            ("", Most::Characters(3), 1),
            ("a\0", Most::Characters(1), 2),
        ] {
            assert_eq!(found(|checking| checking.text("text", text, most)).len(), problems, "{text} {most:?}");
        }
        let messages = found(|checking| checking.text("text", "abc", Most::Bytes(2)));
        assert_eq!(messages[0].0, "text");
        assert!(messages[0].1.starts_with("must have at most 2 bytes"), "{messages:?}");
        assert!(found(|checking| checking.optional("caption", None, Most::Bytes(2))).is_empty());
    }

    #[test]
    fn an_address_begins_with_https_and_goes_somewhere() {
        for (address, is_good) in [
            ("https://shop.example/a?b=c", true),
            ("http://shop.example/", false),
            ("https://", false),
            ("shop.example", false),
            ("javascript:alert(1)", false),
            ("", false),
        ] {
            assert_eq!(found(|checking| checking.https("url", address)).is_empty(), is_good, "{address}");
        }
        let long = format!("https://shop.example/{}", "a".repeat(2000));
        assert_eq!(found(|checking| checking.https("url", &long)).len(), 1);
    }

    #[test]
    fn a_number_is_dialled_from_anywhere() {
        for (number, is_good) in [("+15035550142", true), ("15035550142", false), ("+1 503 555", false), ("+12", false)]
        {
            assert_eq!(found(|checking| checking.phone("phone", number)).is_empty(), is_good, "{number}");
        }
    }

    #[test]
    fn a_file_is_of_a_type_and_a_size() {
        let (known, unknown) = (FileId::new(), FileId::new());
        let id = |id| FileRef { id: Some(id), link: None };
        for (mime_type, bytes, file, expected) in [
            ("image/png", 5 * MB, id(known), None),
            ("image/png", 5 * MB + 1, id(known), Some(("file.id", "must have at most 5 MB, and has 5242881 bytes"))),
            ("audio/ogg; codecs=opus", 500 * 1024, id(known), None),
            ("audio/m4a", 512_001, id(known), Some(("file.id", "must have at most 500 KB, and has 512001 bytes"))),
            ("image/gif", 1, id(known), Some(("file.id", "is image/gif and must be image/png, audio/*"))),
            ("image/png", 1, id(unknown), Some(("file.id", "is no file that was uploaded"))),
            ("", 0, FileRef::default(), Some(("file", "must have an id or a link"))),
            (
                "image/png",
                1,
                FileRef { id: Some(known), link: Some("https://a.example".into()) },
                Some(("file", "must have an id or a link, not both")),
            ),
            ("", 0, FileRef { id: None, link: Some("https://a.example/x.gif".into()) }, None),
            (
                "",
                0,
                FileRef { id: None, link: Some("ftp://a.example".into()) },
                Some(("file.link", "must be an address that begins with https://")),
            ),
        ] {
            let facts = Facts::from([(known, FileFacts { mime_type: mime_type.into(), bytes })]);
            let found = found_in(&facts, |checking| checking.file("file", &file, &PICTURE));
            let expected: Vec<_> =
                expected.into_iter().map(|(field, words): (&str, &str)| (field.to_owned(), words.to_owned())).collect();
            assert_eq!(found, expected, "{mime_type} {bytes}");
        }
    }

    #[test]
    fn a_reaction_is_one_emoji_or_none() {
        for (emoji, is_good) in [
            ("👍🏽", true),
            ("❤️", true),
            ("👨‍👩‍👧‍👦", true),
            ("1️⃣", true),
            ("🅰️", true),
            ("ℹ️", true),
            ("🇳🇴", true),
            ("", true),
            ("ok", false),
            ("7", false),
            (":)", false),
            ("好", false),
            ("👍 👍", false),
            ("👍👍👍👍👍👍👍👍👍👍👍👍", false),
        ] {
            assert_eq!(found(|checking| checking.emoji("emoji", emoji)).is_empty(), is_good, "{emoji}");
        }
    }

    #[test]
    fn counts_and_repetitions_are_seen_and_problems_have_an_end() {
        assert_eq!(found(|checking| checking.count("buttons", 0, 1..=3))[0].1, "must have at least 1");
        assert_eq!(found(|checking| checking.count("buttons", 4, 1..=3))[0].1, "must have at most 3");
        assert!(found(|checking| checking.count("buttons", 3, 1..=3)).is_empty());
        let texts = ["a", "b", "a"].into_iter().enumerate().map(|(i, text)| (format!("rows[{i}].id"), text));
        assert_eq!(found(|checking| checking.unique(texts))[0].0, "rows[2].id");
        let endless = found(|checking| (0..1000).for_each(|_| checking.problem("x", "y")));
        assert_eq!(endless.len(), MAX_PROBLEMS);
    }
}
