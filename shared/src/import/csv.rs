//! CSV (RFC 4180) → rows. Commas alone separate; the header row names the columns.

use super::reader::{BadRow, ColumnProblem, Fields, MAX_ROW_BYTES, Row, Unreadable, shortened};
use csv_core::ReadRecordResult;

const PHONE: &str = "phone";
const NAME: &str = "name";
/// A row of more fields is too long whatever its bytes.
const MAX_FIELDS: usize = 64;

/// Reads one file.
pub(super) struct Csv {
    core: csv_core::Reader,
    /// What has come of the row under way: its text without quotes and commas, and where each field ends in it.
    text: Box<[u8]>,
    text_bytes: usize,
    ends: [usize; MAX_FIELDS],
    fields: usize,
    quotes: usize,
    too_long: bool,
    /// Whether a row is under way.
    within: bool,
    /// Its number, or the next one's.
    number: u64,
    /// Whether a line feed would still belong to the last end of line.
    after_return: bool,
    columns: Option<Columns>,
}

/// Where a row has what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Columns {
    count: usize,
    phone: usize,
    name: Option<usize>,
}

impl Csv {
    pub(super) fn new() -> Self {
        Self {
            core: csv_core::Reader::new(),
            // One byte more, so that a row of just that length is not taken for a longer one.
            text: vec![0; MAX_ROW_BYTES + 1].into(),
            text_bytes: 0,
            ends: [0; MAX_FIELDS],
            fields: 0,
            quotes: 0,
            too_long: false,
            within: false,
            number: 1,
            after_return: false,
            columns: None,
        }
    }

    /// Reads at most one row of bytes that are not empty: how many it used, and the row if it is complete.
    pub(super) fn next(&mut self, bytes: &[u8]) -> Result<(usize, Option<Row<'_>>), Unreadable> {
        let mut used = if self.within { 0 } else { self.pass_empty_lines(bytes) };
        while used < bytes.len() {
            self.within = true;
            let (result, of_row, text_bytes, fields) =
                self.core.read_record(&bytes[used..], &mut self.text[self.text_bytes..], &mut self.ends[self.fields..]);
            self.quotes += bytes[used..used + of_row].iter().filter(|byte| **byte == b'"').count();
            used += of_row;
            self.text_bytes += text_bytes;
            self.fields += fields;
            match result {
                ReadRecordResult::Record => {
                    self.after_return = bytes[used - 1] == b'\r';
                    return Ok((used, self.end_row()?));
                }
                ReadRecordResult::OutputFull | ReadRecordResult::OutputEndsFull => self.overflow(),
                ReadRecordResult::InputEmpty | ReadRecordResult::End => {}
            }
        }
        Ok((used, None))
    }

    /// The last row, if it lacks its end of line.
    pub(super) fn finish(&mut self) -> Result<Option<Row<'_>>, Unreadable> {
        if self.within {
            let (_, _, _, fields) = self.core.read_record(&[], &mut [], &mut self.ends[self.fields..]);
            self.fields += fields;
            return self.end_row();
        }
        match self.columns {
            Some(_) => Ok(None),
            None => Err(Unreadable::Columns(vec![missing(PHONE)])),
        }
    }

    /// Empty lines are no rows, but they are counted.
    fn pass_empty_lines(&mut self, bytes: &[u8]) -> usize {
        for (at, byte) in bytes.iter().enumerate() {
            match byte {
                b'\n' if self.after_return => self.after_return = false,
                b'\n' => self.number += 1,
                b'\r' => (self.number, self.after_return) = (self.number + 1, true),
                _ => {
                    self.after_return = false;
                    return at;
                }
            }
        }
        bytes.len()
    }

    /// What is too long is read to its end, but not kept.
    fn overflow(&mut self) {
        (self.too_long, self.text_bytes, self.fields) = (true, 0, 0);
    }

    /// A row is complete: the first is the header.
    fn end_row(&mut self) -> Result<Option<Row<'_>>, Unreadable> {
        let number = self.number;
        let (text_bytes, fields) = (std::mem::take(&mut self.text_bytes), std::mem::take(&mut self.fields));
        let (quotes, too_long) = (std::mem::take(&mut self.quotes), std::mem::take(&mut self.too_long));
        self.within = false;
        self.number += 1;
        let text = &self.text[..text_bytes];
        let ends = &self.ends[..fields];
        let Some(columns) = self.columns else {
            self.columns = Some(Columns::read(text, ends, too_long, number)?);
            return Ok(None);
        };
        let bad = |detail: String| Ok(Some(Row { number, fields: Err(BadRow::whole(detail)) }));
        if too_long {
            let hint = if quotes % 2 == 0 { "" } else { "; is a quotation mark not closed?" };
            return bad(format!("is longer than {MAX_ROW_BYTES} bytes or has more than {MAX_FIELDS} fields{hint}"));
        }
        if quotes % 2 != 0 {
            return bad("has a quotation mark that is not closed, or not doubled inside a field".to_owned());
        }
        if fields != columns.count {
            return bad(format!("has {fields} fields where the header row has {}", columns.count));
        }
        let phone = field(text, ends, columns.phone, number)?;
        let name = columns.name.map(|column| field(text, ends, column, number)).transpose()?;
        Ok(Some(Row { number, fields: Ok(Fields { phone: phone.into(), name: name.map(Into::into) }) }))
    }
}

impl Columns {
    fn read(text: &[u8], ends: &[usize], too_long: bool, number: u64) -> Result<Self, Unreadable> {
        if too_long {
            let message =
                format!("must come in a header row of at most {MAX_ROW_BYTES} bytes and {MAX_FIELDS} columns");
            return Err(Unreadable::Columns(vec![ColumnProblem { column: PHONE.to_owned(), message }]));
        }
        let (mut phone, mut name, mut wrong) = (None, None, Vec::new());
        for column in 0..ends.len() {
            let written = field(text, ends, column, number)?.trim();
            let place = match written.to_ascii_lowercase().as_str() {
                PHONE => &mut phone,
                NAME => &mut name,
                _ => {
                    wrong.push(unknown(written));
                    continue;
                }
            };
            if place.replace(column).is_some() {
                wrong.push(ColumnProblem { column: shortened(written), message: "is there twice".to_owned() });
            }
        }
        match phone {
            Some(phone) if wrong.is_empty() => Ok(Self { count: ends.len(), phone, name }),
            Some(_) => Err(Unreadable::Columns(wrong)),
            None => Err(Unreadable::Columns(wrong.into_iter().chain([missing(PHONE)]).collect())),
        }
    }
}

fn unknown(written: &str) -> ColumnProblem {
    let message = if written.contains([';', '\t']) {
        "is not a column; columns are separated by commas".to_owned()
    } else {
        format!("is not a column of contacts; there are {PHONE} and {NAME}")
    };
    ColumnProblem { column: shortened(written), message }
}

fn missing(column: &str) -> ColumnProblem {
    ColumnProblem { column: column.to_owned(), message: "is missing".to_owned() }
}

/// Each field by itself: half a character at the end of one and half at the beginning of the next are none.
fn field<'a>(text: &'a [u8], ends: &[usize], column: usize, row: u64) -> Result<&'a str, Unreadable> {
    let start = column.checked_sub(1).map_or(0, |before| ends[before]);
    std::str::from_utf8(&text[start..ends[column]]).map_err(|_| Unreadable::NotUtf8 { row })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A row's number, and its phone and name or what is wrong with it.
    type Seen = (u64, Result<(String, Option<String>), String>);

    fn rows(file: &[u8], piece_bytes: usize) -> Result<Vec<Seen>, Unreadable> {
        let (mut csv, mut seen) = (Csv::new(), Vec::new());
        for piece in file.chunks(piece_bytes) {
            let mut used = 0;
            while used < piece.len() {
                let (of_row, row) = csv.next(&piece[used..])?;
                used += of_row;
                seen.extend(row.map(show));
            }
        }
        seen.extend(csv.finish()?.map(show));
        Ok(seen)
    }

    fn show(row: Row<'_>) -> Seen {
        let show = |fields: Fields<'_>| (fields.phone.into_owned(), fields.name.map(|name| name.into_owned()));
        (row.number, row.fields.map(show).map_err(|bad| format!("{bad:?}")))
    }

    fn good(number: u64, phone: &str, name: &str) -> Seen {
        (number, Ok((phone.to_owned(), Some(name.to_owned()))))
    }

    #[test]
    fn fields_are_quoted_as_rfc_4180_says() {
        let file =
            "phone,name\r\n1,plain\r\n2,\"a, b\"\r\n3,\"say \"\"hi\"\"\"\r\n\"4\",\"two\r\nlines\"\r\n5,\"\"\r\n6,Zoë";
        let expected = [
            good(2, "1", "plain"),
            good(3, "2", "a, b"),
            good(4, "3", "say \"hi\""),
            good(5, "4", "two\r\nlines"),
            good(6, "5", ""),
            good(7, "6", "Zoë"),
        ];
        for piece_bytes in 1..file.len() {
            assert_eq!(rows(file.as_bytes(), piece_bytes).unwrap(), expected, "{piece_bytes}");
        }
    }

    #[test]
    fn rows_are_counted_as_a_spreadsheet_does_whatever_ends_a_line() {
        for end in ["\n", "\r\n", "\r"] {
            let file = ["", "name,phone", "", "a,1", "", "", "b,2", ""].join(end);
            for piece_bytes in [1, 2, 3, 100] {
                let seen = rows(file.as_bytes(), piece_bytes).unwrap();
                assert_eq!(seen, [good(4, "1", "a"), good(7, "2", "b")], "{file:?} {piece_bytes}");
            }
        }
    }

    #[test]
    fn the_name_is_optional_and_columns_come_in_any_order_and_case() {
        assert_eq!(rows(b"phone\n1\n", 100).unwrap(), [(2, Ok(("1".into(), None)))]);
        assert_eq!(rows(b" Name , PHONE \nAda,1", 100).unwrap(), [good(2, "1", "Ada")]);
    }

    #[test]
    fn a_wrong_header_row_is_refused_with_every_column_that_is_wrong() {
        for (file, expected) in [
            ("", vec!["phone"]),
            ("\n\n", vec!["phone"]),
            ("name\nAda", vec!["phone"]),
            ("phone,nmae,,email\n", vec!["nmae", "", "email"]),
            ("phone,name,Phone", vec!["Phone"]),
            ("phone;name\n1;Ada", vec!["phone;name", "phone"]),
            ("+4915123456789\n", vec!["+4915123456789", "phone"]),
        ] {
            let Err(Unreadable::Columns(wrong)) = rows(file.as_bytes(), 100) else { panic!("{file:?}") };
            assert_eq!(wrong.iter().map(|problem| problem.column.as_str()).collect::<Vec<_>>(), expected, "{file:?}");
        }
        let long = format!("phone,{}", "x".repeat(MAX_ROW_BYTES));
        assert!(matches!(rows(long.as_bytes(), 100), Err(Unreadable::Columns(_))));
        let many = format!("phone{}\n", ",".repeat(MAX_FIELDS));
        assert!(matches!(rows(many.as_bytes(), 100), Err(Unreadable::Columns(_))));
    }

    #[test]
    fn a_bad_row_is_named_and_the_next_is_read() {
        let long = "x".repeat(MAX_ROW_BYTES);
        for (row, why) in [
            ("1".to_owned(), "has 1 fields"),
            ("1,a,b".to_owned(), "has 3 fields"),
            (format!("1,{long}"), "is longer than"),
            (format!("1,{long}{long}{long}"), "is longer than"),
            (format!("1,\"{long}\n{long}\""), "is longer than"),
            (",".repeat(MAX_FIELDS * 3), "more than 64 fields"),
            ("1,5\" disk".to_owned(), "quotation mark"),
        ] {
            let file = format!("phone,name\n{row}\n2,b\n");
            for piece_bytes in [1, 1000, file.len()] {
                let seen = rows(file.as_bytes(), piece_bytes).unwrap();
                assert_eq!(seen.len(), 2, "{seen:?}");
                assert_eq!((seen[0].0, &seen[1]), (2, &good(3, "2", "b")));
                assert!(seen[0].1.as_ref().is_err_and(|bad| bad.contains(why)), "{:?}", seen[0]);
            }
        }
    }

    #[test]
    fn a_row_may_be_as_long_as_is_allowed() {
        let name = "x".repeat(MAX_ROW_BYTES - 1);
        for piece_bytes in [1, 1000, 100_000] {
            let seen = rows(format!("phone,name\n1,{name}\n2,b").as_bytes(), piece_bytes).unwrap();
            assert_eq!(seen, [good(2, "1", &name), good(3, "2", "b")]);
        }
    }

    #[test]
    fn a_quotation_that_never_ends_is_one_bad_row() {
        for (file, why) in [
            ("phone,name\n1,\"Ada\n2,Bob\n3,Cy\n".to_owned(), "quotation mark"),
            (format!("phone,name\n1,\"Ada\n{}", "2,Bob\n".repeat(10_000)), "quotation mark not closed"),
        ] {
            let seen = rows(file.as_bytes(), 1000).unwrap();
            assert_eq!((seen.len(), seen[0].0), (1, 2));
            assert!(seen[0].1.as_ref().is_err_and(|bad| bad.contains(why)), "{:?}", seen[0]);
        }
    }

    #[test]
    fn what_is_not_utf_8_ends_the_reading_at_its_row() {
        for (file, row) in [
            (b"phone,name\n1,a\n2,Zo\xeb\n3,c".as_slice(), 3),
            // Half a character in each of two fields is none.
            (b"phone,name\n1\xc3,\xa9\n", 2),
            (b"ph\xf6ne\n", 1),
        ] {
            assert_eq!(rows(file, 5), Err(Unreadable::NotUtf8 { row }));
        }
    }
}
