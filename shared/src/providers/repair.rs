//! Makes a webhook's bytes readable: what JSON parsers or Postgres' `jsonb` refuse is replaced in place, so that one
//! damaged string spoils neither its element nor the siblings. An ordinary body is only looked at, not copied.
//!
//! | found | becomes |
//! |---|---|
//! | bytes that are not UTF-8, `\u0000`, half a surrogate pair | U+FFFD |
//! | a raw control character inside a string | its escape |
//! | a backslash that begins no escape | an escaped backslash |
//! | a number outside of `f64` or of endless digits | a string of its digits |
//! | what is nested deeper than [`MAX_DEPTH`] | a string of its text |
//!
//! It does not make JSON of what is none: a truncated body stays truncated.

use std::borrow::Cow;

/// Deeper than any documented body (14), and such that parsers with serde_json's limit of 128 read the result.
pub(super) const MAX_DEPTH: usize = 100;

/// Digits beyond this are nobody's price or id.
const MAX_NUMBER_BYTES: usize = 64;

const REPLACEMENT: &str = "\u{FFFD}";

/// `body` as text in which every string, number and depth is fit for a JSON parser and for `jsonb`.
pub(super) fn readable(body: &[u8]) -> Cow<'_, str> {
    match str::from_utf8(body) {
        Ok(text) if is_sound(text) => Cow::Borrowed(text),
        Ok(text) => Cow::Owned(repair(text)),
        Err(_) => Cow::Owned(repair(&String::from_utf8_lossy(body))),
    }
}

fn is_sound(text: &str) -> bool {
    let bytes = text.as_bytes();
    let (mut at, mut depth) = (0, 0_usize);
    while let Some(&byte) = bytes.get(at) {
        at = match byte {
            b'"' => match sound_string_end(bytes, at + 1) {
                Some(end) => end,
                None => return false,
            },
            b'{' | b'[' if depth == MAX_DEPTH => return false,
            b'{' | b'[' => {
                depth += 1;
                at + 1
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                at + 1
            }
            b'-' | b'0'..=b'9' => {
                let end = number_end(bytes, at);
                if !is_storable(&text[at..end]) {
                    return false;
                }
                end
            }
            _ => at + 1,
        }
    }
    true
}

/// The place after the closing quote of the string that begins at `at`; `None` if something in it needs repair.
fn sound_string_end(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        at += bytes[at..].iter().position(|&byte| byte == b'"' || byte == b'\\' || byte < b' ')?;
        match bytes[at] {
            b'"' => return Some(at + 1),
            b'\\' => match escape(bytes, at) {
                Escape::Sound(length) => at += length,
                Escape::Unstorable | Escape::None => return None,
            },
            _ => return None,
        }
    }
}

enum Escape {
    /// An escape, or a pair of them, of so many bytes.
    Sound(usize),
    /// `\uXXXX` of NUL or of half a surrogate pair: six bytes.
    Unstorable,
    /// No escape at all.
    None,
}

fn escape(bytes: &[u8], at: usize) -> Escape {
    match bytes.get(at + 1) {
        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Escape::Sound(2),
        Some(b'u') => match unit(bytes, at) {
            Some(0xD800..=0xDBFF) if matches!(unit(bytes, at + 6), Some(0xDC00..=0xDFFF)) => Escape::Sound(12),
            Some(0 | 0xD800..=0xDFFF) => Escape::Unstorable,
            Some(_) => Escape::Sound(6),
            None => Escape::None,
        },
        _ => Escape::None,
    }
}

/// The UTF-16 code unit of the `\uXXXX` at `at`.
fn unit(bytes: &[u8], at: usize) -> Option<u16> {
    let digits = bytes.get(at..at + 6)?.strip_prefix(b"\\u")?;
    digits.iter().try_fold(0, |unit, &digit| Some(unit << 4 | char::from(digit).to_digit(16)? as u16))
}

fn number_end(bytes: &[u8], at: usize) -> usize {
    let inside = |byte: &u8| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
    bytes[at..].iter().position(|byte| !inside(byte)).map_or(bytes.len(), |length| at + length)
}

/// Whether `f64` and Postgres' `numeric` (16,383 digits after the point) both hold it. What is no number at all is left
/// to the parser.
fn is_storable(number: &str) -> bool {
    let exponent = number.find(['e', 'E']).map_or("", |e| number[e + 1..].trim_start_matches(['+', '-']));
    number.len() <= 18 && exponent.is_empty()
        || number.len() <= MAX_NUMBER_BYTES && exponent.len() <= 3 && number.parse().is_ok_and(f64::is_finite)
}

fn repair(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut repaired = String::with_capacity(text.len() + 16);
    let (mut at, mut depth) = (0, 0_usize);
    while let Some(&byte) = bytes.get(at) {
        let end = match byte {
            b'"' => {
                at = repair_string(text, at, &mut repaired);
                continue;
            }
            b'{' | b'[' if depth == MAX_DEPTH => {
                let end = nested_end(bytes, at);
                quote(&text[at..end], &mut repaired);
                at = end;
                continue;
            }
            b'-' | b'0'..=b'9' => {
                let end = number_end(bytes, at);
                if !is_storable(&text[at..end]) {
                    quote(&text[at..end], &mut repaired);
                    at = end;
                    continue;
                }
                end
            }
            b'{' | b'[' => {
                depth += 1;
                at + 1
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                at + 1
            }
            _ => at + text[at..].chars().next().map_or(1, char::len_utf8),
        };
        repaired.push_str(&text[at..end]);
        at = end;
    }
    repaired
}

/// Copies the string whose opening quote stands at `at`; the place after its closing quote.
fn repair_string(text: &str, mut at: usize, repaired: &mut String) -> usize {
    let bytes = text.as_bytes();
    repaired.push('"');
    at += 1;
    loop {
        let stop = |&byte: &u8| byte == b'"' || byte == b'\\' || byte < b' ';
        let end = bytes[at..].iter().position(stop).map_or(bytes.len(), |length| at + length);
        repaired.push_str(&text[at..end]);
        at = end;
        match bytes.get(at) {
            None => return at,
            Some(b'"') => {
                repaired.push('"');
                return at + 1;
            }
            Some(b'\\') => match escape(bytes, at) {
                Escape::Sound(length) => {
                    repaired.push_str(&text[at..at + length]);
                    at += length;
                }
                Escape::Unstorable => {
                    repaired.push_str(REPLACEMENT);
                    at += 6;
                }
                Escape::None => {
                    repaired.push_str("\\\\");
                    at += 1;
                }
            },
            Some(0) => {
                repaired.push_str(REPLACEMENT);
                at += 1;
            }
            Some(control) => {
                repaired.push_str(&format!("\\u{control:04x}"));
                at += 1;
            }
        }
    }
}

/// The place after the bracket that closes the one at `at`.
fn nested_end(bytes: &[u8], mut at: usize) -> usize {
    let (mut depth, mut in_string) = (0_usize, false);
    while let Some(&byte) = bytes.get(at) {
        at += 1;
        match byte {
            b'\\' if in_string => at += 1,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'{' | b'[' => depth += 1,
            b'}' | b']' => {
                depth -= 1;
                if depth == 0 {
                    break;
                }
            }
            _ => {}
        }
    }
    at.min(bytes.len())
}

fn quote(text: &str, repaired: &mut String) {
    repaired.push_str(&serde_json::Value::String(text.replace('\0', REPLACEMENT)).to_string());
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn sound_bodies_are_not_copied() {
        for body in [
            r#"{"a":"gr\u00fc\u00df \ud83d\udc4d \/ \n \"","b":[1,-2.5e3,12345678901234567890123,true,null]}"#,
            "{\"a\": \"åé 👍\",\n\t\"b\" : [ ]\r\n}",
            "",
            "no JSON at all",
            r#""\\""#,
        ] {
            assert!(matches!(readable(body.as_bytes()), Cow::Borrowed(text) if text == body), "{body}");
        }
    }

    #[test]
    fn what_cannot_be_stored_is_replaced_where_it_stands() {
        let deep = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
        let cases: &[(&[u8], &str)] = &[
            (br#"["a\u0000b",1]"#, "[\"a\u{FFFD}b\",1]"),
            (br#"["\\u0000"]"#, r#"["\\u0000"]"#),
            (br#"["\ud83d"]"#, "[\"\u{FFFD}\"]"),
            (br#"["\udc4d\ud83d"]"#, "[\"\u{FFFD}\u{FFFD}\"]"),
            (br#"["\ud83d\ud83d\udc4d"]"#, "[\"\u{FFFD}\\ud83d\\udc4d\"]"),
            (br#"["\ud83d\n"]"#, "[\"\u{FFFD}\\n\"]"),
            (br#"{"\u0000k":1}"#, "{\"\u{FFFD}k\":1}"),
            (b"[\"a\xffb\"]", "[\"a\u{FFFD}b\"]"),
            (b"[\"a\x00\x01\nb\"]", "[\"a\u{FFFD}\\u0001\\u000ab\"]"),
            (br#"["\x \u12 \"]"#, r#"["\\x \\u12 \"]"#),
            (br#"[1e400,-1E-99999,1e+300,0.5e-10]"#, r#"["1e400","-1E-99999",1e+300,0.5e-10]"#),
            (br#"["1e400"]"#, r#"["1e400"]"#),
        ];
        for (body, expected) in cases {
            assert_eq!(readable(body), *expected, "{}", String::from_utf8_lossy(body));
        }
        let digits = "9".repeat(200_000);
        assert_eq!(readable(format!("[{digits}]").as_bytes()), format!("[\"{digits}\"]"));
        assert!(matches!(readable(deep(MAX_DEPTH).as_bytes()), Cow::Borrowed(_)));
        for depth in [MAX_DEPTH + 1, 100_000] {
            let value: Value = serde_json::from_str(&readable(deep(depth).as_bytes())).unwrap();
            let mut inner = &value;
            while let Value::Array(items) = inner {
                inner = &items[0];
            }
            assert_eq!(inner, &Value::String(deep(depth - MAX_DEPTH)));
        }
    }

    #[test]
    fn broken_json_stays_broken() {
        for body in ["[\"a\\u0000", "[1,", "{\"a\\", "[\"\\ud83d", "[1-2]", &"[".repeat(1000)] {
            assert!(serde_json::from_str::<Value>(&readable(body.as_bytes())).is_err(), "{body}");
        }
    }
}
