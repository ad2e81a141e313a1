//! JSON objects, one a line → rows.

use super::reader::{BadRow, Fields, MAX_ROW_BYTES, Row, Unreadable, shortened};
use serde::Deserialize;
use std::borrow::Cow;

/// Reads one file.
#[derive(Default)]
pub(super) struct Ndjson {
    /// What has come of a line in earlier pieces.
    held: Vec<u8>,
    /// Whether that has been handed out.
    is_done: bool,
    too_long: bool,
    lines: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Object<'a> {
    #[serde(borrow)]
    phone: Cow<'a, str>,
    #[serde(borrow)]
    name: Option<Cow<'a, str>>,
}

impl Ndjson {
    /// Reads at most one line of bytes that are not empty: how many it used, and the row if it is complete.
    pub(super) fn next<'a>(&'a mut self, bytes: &'a [u8]) -> Result<(usize, Option<Row<'a>>), Unreadable> {
        if std::mem::take(&mut self.is_done) {
            self.held.clear();
        }
        match bytes.iter().position(|byte| *byte == b'\n') {
            Some(end) => Ok((end + 1, self.end_line(&bytes[..end])?)),
            None => {
                self.hold(bytes);
                Ok((bytes.len(), None))
            }
        }
    }

    /// The last row, if it lacks its end of line.
    pub(super) fn finish(&mut self) -> Result<Option<Row<'_>>, Unreadable> {
        if std::mem::take(&mut self.is_done) {
            self.held.clear();
        }
        self.end_line(&[])
    }

    /// What is too long is read to its end, but not kept.
    fn hold(&mut self, bytes: &[u8]) {
        if self.too_long || self.held.len() + bytes.len() > MAX_ROW_BYTES {
            self.too_long = true;
            self.held.clear();
        } else {
            self.held.extend_from_slice(bytes);
        }
    }

    fn end_line<'a>(&'a mut self, rest: &'a [u8]) -> Result<Option<Row<'a>>, Unreadable> {
        self.lines += 1;
        let number = self.lines;
        if !self.held.is_empty() || rest.len() > MAX_ROW_BYTES {
            self.hold(rest);
        }
        if std::mem::take(&mut self.too_long) {
            let bad = BadRow::whole(format!("is longer than {MAX_ROW_BYTES} bytes"));
            return Ok(Some(Row { number, fields: Err(bad) }));
        }
        self.is_done = true;
        let line = if self.held.is_empty() { rest } else { &self.held };
        let text = std::str::from_utf8(line).map_err(|_| Unreadable::NotUtf8 { row: number })?.trim();
        Ok(if text.is_empty() { None } else { Some(Row { number, fields: read(text) }) })
    }
}

fn read(text: &str) -> Result<Fields<'_>, BadRow> {
    // A list of the fields' values would be an object to serde.
    if !text.starts_with('{') {
        return Err(BadRow::whole("is not a JSON object"));
    }
    match serde_json::from_str(text) {
        Ok(Object { phone, name }) => Ok(Fields { phone, name }),
        Err(_) => Err(explain(text)),
    }
}

/// Reads it again, slowly, to say which field is at fault.
fn explain(text: &str) -> BadRow {
    let read = serde_path_to_error::deserialize::<_, Object<'_>>(&mut serde_json::Deserializer::from_str(text));
    let Err(error) = read else { return BadRow::whole("has something after the JSON object") };
    let path = error.path().to_string();
    let text = error.inner().to_string();
    // The row says where; serde's line is always the first.
    let message = shortened(text.split(" at line ").next().unwrap_or(&text));
    if !error.inner().is_data() {
        return BadRow::whole(format!("is not JSON: {message}"));
    }
    // A missing or unknown field is reported at its parent.
    let named = text.split('`').nth(1).filter(|_| text.contains(" field `"));
    match (named, path.as_str()) {
        (Some(field), _) => BadRow::field(field, message),
        (None, ".") => BadRow::whole(message),
        (None, path) => BadRow::field(path, message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A row's number, and its phone and name or what is wrong with it.
    type Seen = (u64, Result<(String, Option<String>), BadRow>);

    fn rows(file: &[u8], piece_bytes: usize) -> Result<Vec<Seen>, Unreadable> {
        let (mut ndjson, mut seen) = (Ndjson::default(), Vec::new());
        for piece in file.chunks(piece_bytes) {
            let mut used = 0;
            while used < piece.len() {
                let (of_row, row) = ndjson.next(&piece[used..])?;
                used += of_row;
                seen.extend(row.map(show));
            }
        }
        seen.extend(ndjson.finish()?.map(show));
        Ok(seen)
    }

    fn show(row: Row<'_>) -> Seen {
        let show = |fields: Fields<'_>| (fields.phone.into_owned(), fields.name.map(|name| name.into_owned()));
        (row.number, row.fields.map(show))
    }

    fn good(number: u64, phone: &str, name: Option<&str>) -> Seen {
        (number, Ok((phone.to_owned(), name.map(str::to_owned))))
    }

    #[test]
    fn every_line_is_a_row_however_it_is_cut() {
        let file = "\n{\"phone\":\"1\"}\r\n \n{ \"name\" : \"Zo\\u00eb \\\"Z\\\"\", \"phone\":\"2\" }\n\n{\"phone\":\"3\",\"name\":null}";
        for piece_bytes in 1..file.len() {
            assert_eq!(
                rows(file.as_bytes(), piece_bytes).unwrap(),
                [good(2, "1", None), good(4, "2", Some("Zoë \"Z\"")), good(6, "3", None)],
                "{piece_bytes}"
            );
        }
        assert_eq!(rows(b"", 1).unwrap(), []);
    }

    #[test]
    fn a_bad_row_is_named_by_field_and_the_next_is_read() {
        let long = format!(r#"{{"phone":"1","name":"{}"}}"#, "x".repeat(MAX_ROW_BYTES));
        for (line, field, detail) in [
            ("{}", Some("phone"), "missing field `phone`"),
            (r#"{"phone":1}"#, Some("phone"), "invalid type: integer `1`, expected a string"),
            (r#"{"phone":null}"#, Some("phone"), "invalid type: null, expected a string"),
            (r#"{"phone":"1","tags":[]}"#, Some("tags"), "unknown field `tags`, expected `phone` or `name`"),
            (r#"{"phone":"1","phone":"2"}"#, Some("phone"), "duplicate field `phone`"),
            (r#"["1","Ada"]"#, None, "is not a JSON object"),
            ("phone,name", None, "is not a JSON object"),
            (r#"{"phone":"1""#, None, "is not JSON: EOF while parsing an object"),
            (r#"{"phone":"1"} {}"#, None, "has something after the JSON object"),
            (long.as_str(), None, "is longer than 16384 bytes"),
        ] {
            let file = format!("{line}\n{{\"phone\":\"2\"}}");
            for piece_bytes in [1, 1000, file.len()] {
                let bad = BadRow { field: field.map(str::to_owned), detail: detail.to_owned() };
                assert_eq!(rows(file.as_bytes(), piece_bytes).unwrap(), [(1, Err(bad)), good(2, "2", None)]);
            }
        }
    }

    #[test]
    fn what_is_not_utf_8_ends_the_reading_at_its_row() {
        let file = b"{\"phone\":\"1\"}\n\n{\"phone\":\"2\",\"name\":\"Zo\xeb\"}\n";
        for piece_bytes in [1, 100] {
            assert_eq!(rows(file, piece_bytes), Err(Unreadable::NotUtf8 { row: 3 }));
        }
    }
}
