//! A webhook's body for a person's terminal: JSON a value a line, a form a field a line, anything else as text. Nothing in it reaches
//! the terminal as anything but letters: strangers wrote it.

use serde::de::IgnoredAny;
use std::fmt::Write;

/// So far apart are the levels of JSON.
const INDENT: &str = "  ";
/// Deeper than this a line is not moved further in.
const MAX_INDENT: usize = 32;

/// The body, laid out.
pub(super) fn readable(body: &[u8]) -> String {
    match std::str::from_utf8(body) {
        Ok(text) if serde_json::from_str::<IgnoredAny>(text).is_ok() => harmless(&laid_out(text)),
        Ok(text) if is_form(text) => {
            let fields = url::form_urlencoded::parse(body);
            let lines: Vec<String> =
                fields.map(|(name, value)| format!("{}: {}", one_line(&name), one_line(&value))).collect();
            lines.join("\n")
        }
        Ok(text) => harmless(text),
        Err(_) => body.utf8_chunks().fold(String::new(), |mut text, chunk| {
            text.push_str(&harmless(chunk.valid()));
            for byte in chunk.invalid() {
                let _ = write!(text, "\\x{byte:02x}");
            }
            text
        }),
    }
}

/// The text with what a terminal would obey, or hide, written out; lines stay lines.
pub(super) fn harmless(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => shown.push(c),
            _ if c.is_control() || turns(c) => shown.extend(c.escape_unicode()),
            _ => shown.push(c),
        }
    }
    shown
}

/// Whether it changes the direction or the look of what stands beside it (Unicode's Bidi_Control, and line separators).
fn turns(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

fn one_line(text: &str) -> String {
    harmless(text).replace('\n', "\\n")
}

/// `name=value&name=value`, as forms are posted: no blanks, and a name in each.
fn is_form(text: &str) -> bool {
    let text = text.trim_end();
    let named = |pair: &str| pair.split_once('=').is_some_and(|(name, _)| !name.is_empty());
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic()) && text.split('&').all(named)
}

/// JSON with a value a line, letter by letter as it came: numbers are not rounded, the order stays, what is there twice is shown twice.
fn laid_out(json: &str) -> String {
    let mut text = String::with_capacity(json.len() * 2);
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    let line = |text: &mut String, depth: usize| {
        text.push('\n');
        text.push_str(&INDENT.repeat(depth.min(MAX_INDENT)));
    };
    let mut rest = json.chars().peekable();
    while let Some(c) = rest.next() {
        if in_string {
            text.push(c);
            in_string = escaped || c != '"';
            escaped = !escaped && c == '\\';
            continue;
        }
        match c {
            ' ' | '\t' | '\r' | '\n' => {}
            '{' | '[' => {
                text.push(c);
                while rest.peek().is_some_and(char::is_ascii_whitespace) {
                    rest.next();
                }
                match rest.peek() {
                    Some(&end @ ('}' | ']')) => {
                        text.push(end);
                        rest.next();
                    }
                    _ => {
                        depth += 1;
                        line(&mut text, depth);
                    }
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                line(&mut text, depth);
                text.push(c);
            }
            ',' => {
                text.push(c);
                line(&mut text, depth);
            }
            ':' => text.push_str(": "),
            _ => {
                in_string = c == '"';
                text.push(c);
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_laid_out_letter_by_letter() {
        let json = r#"{ "z":[1,{}, [ ],2.50e1], "a":"x,\"{y\\", "n":12345678901234567890123, "a":null}"#;
        let expected = "{\n  \"z\": [\n    1,\n    {},\n    [],\n    2.50e1\n  ],\n  \"a\": \"x,\\\"{y\\\\\",\n  \
            \"n\": 12345678901234567890123,\n  \"a\": null\n}";
        assert_eq!(readable(json.as_bytes()), expected);
        let again = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        assert_eq!(again(expected), again(json));
    }

    #[test]
    fn a_form_is_a_field_a_line() {
        let form = b"From=whatsapp%3A%2B15035550199&Body=two%0Alines%1B%5B2J+%26&MediaUrl0=";
        assert_eq!(readable(form), "From: whatsapp:+15035550199\nBody: two\\nlines\\u{1b}[2J &\nMediaUrl0: ");
        for text in ["a = b", "=b", "just words", "a&b=1"] {
            assert_eq!(readable(text.as_bytes()), text);
        }
    }

    #[test]
    fn nothing_reaches_the_terminal_but_letters() {
        assert_eq!(readable(b"a\0b\x1b[31m\r\nc"), "a\\u{0}b\\u{1b}[31m\\u{d}\nc");
        assert_eq!(readable(b"a\xff\xfe\0z"), "a\\xff\\xfe\\u{0}z");
        assert_eq!(readable("\"\u{202e}gpj\u{9b}\"".as_bytes()), "\"\\u{202e}gpj\\u{9b}\"");
        assert_eq!(readable(b""), "");
    }

    #[test]
    fn what_is_nested_deeply_stays_bounded() {
        let json = format!("{}{}", "[".repeat(100), "]".repeat(100));
        assert!(readable(json.as_bytes()).len() < 100 * 2 * (2 * MAX_INDENT + 2));
    }
}
