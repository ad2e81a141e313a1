//! Bytes → checked contacts, in batches. No I/O.

use super::{
    Format,
    csv::Csv,
    ndjson::Ndjson,
    report::{Report, RowError},
};
use crate::{
    db::contacts::NewContact,
    domain::people::{self, PhoneNumber},
};
use std::{borrow::Cow, collections::HashSet};

/// Longest row that is read.
pub const MAX_ROW_BYTES: usize = 16 * 1024;
/// Most rows of an import: their numbers are kept in memory, to know the ones that come twice. So many fit into 38 MiB.
pub const MAX_ROWS: u64 = 3_500_000;
/// Contacts written together. The more, the longer the numbers are held that others may be waiting for.
const BATCH: usize = 2000;
/// A byte order mark in UTF-8, with which spreadsheets like to begin.
const MARK: &[u8] = b"\xef\xbb\xbf";
/// What is quoted of a file in a complaint about it.
const MAX_QUOTED_CHARACTERS: usize = 200;

/// Why the bytes are not what they are said to be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// The header row is not as it must be.
    #[error("the header row: {}", .0.iter().map(|p| format!("`{}` {}", p.column, p.message)).collect::<Vec<_>>().join(", "))]
    Columns(Vec<ColumnProblem>),
    /// They are no text.
    #[error("row {row} is not UTF-8")]
    NotUtf8 {
        /// The first row that is none.
        row: u64,
    },
    /// There are more rows than are read.
    #[error("it has more than {MAX_ROWS} rows")]
    TooManyRows,
}

/// What is wrong with a column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColumnProblem {
    /// Its name, as the header row has it.
    pub column: String,
    /// What is wrong, to be read after the name.
    pub message: String,
}

/// A row as it was cut out of the bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Row<'a> {
    /// See [`RowError::row`].
    pub(super) number: u64,
    pub(super) fields: Result<Fields<'a>, BadRow>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fields<'a> {
    pub(super) phone: Cow<'a, str>,
    pub(super) name: Option<Cow<'a, str>>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct BadRow {
    pub(super) field: Option<String>,
    pub(super) detail: String,
}

impl BadRow {
    pub(super) fn whole(detail: impl Into<String>) -> Self {
        Self { field: None, detail: detail.into() }
    }

    pub(super) fn field(field: &str, detail: impl Into<String>) -> Self {
        Self { field: Some(shortened(field)), detail: detail.into() }
    }
}

pub(super) fn shortened(text: &str) -> String {
    text.chars().take(MAX_QUOTED_CHARACTERS).collect()
}

/// Contacts to be written together, and what else became of the rows among which they stood.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) contacts: Vec<NewContact>,
    pub(super) report: Report,
}

impl Batch {
    pub(super) fn is_full(&self) -> bool {
        self.contacts.len() >= BATCH
    }
}

/// Reads one stream.
pub(super) struct Reader {
    /// How much of a byte order mark has come; `None` once we are past where it could be.
    mark: Option<usize>,
    rows: Rows,
    check: Check,
}

enum Rows {
    Csv(Box<Csv>),
    Ndjson(Ndjson),
}

/// What a row must be, and what came before it.
struct Check {
    region: Option<String>,
    rows: u64,
    seen: HashSet<u64>,
}

impl Reader {
    pub(super) fn new(format: Format, region: Option<String>) -> Self {
        let rows = match format {
            Format::Csv => Rows::Csv(Box::new(Csv::new())),
            Format::Ndjson => Rows::Ndjson(Ndjson::default()),
        };
        Self { mark: Some(0), rows, check: Check { region, rows: 0, seen: HashSet::new() } }
    }

    /// Reads until the piece is used up or the batch is full. How many bytes it used.
    pub(super) fn read(&mut self, piece: &[u8], batch: &mut Batch) -> Result<usize, Unreadable> {
        let mut used = self.pass_mark(piece)?;
        while used < piece.len() && !batch.is_full() {
            let (of_row, row) = self.rows.next(&piece[used..])?;
            used += of_row;
            if let Some(row) = row {
                self.check.take(row, batch)?;
            }
        }
        Ok(used)
    }

    /// There is no more: the last row may lack its end of line.
    pub(super) fn finish(mut self, batch: &mut Batch) -> Result<(), Unreadable> {
        self.give_back_mark()?;
        match self.rows.finish()? {
            Some(row) => self.check.take(row, batch),
            None => Ok(()),
        }
    }

    /// Passes over a byte order mark, however it is cut into pieces. How many bytes of this piece belong to it.
    fn pass_mark(&mut self, piece: &[u8]) -> Result<usize, Unreadable> {
        let Some(seen) = self.mark else { return Ok(0) };
        let wanted = &MARK[seen..];
        let more = wanted.len().min(piece.len());
        if piece[..more] != wanted[..more] {
            self.give_back_mark()?;
            return Ok(0);
        }
        self.mark = Some(seen + more).filter(|seen| *seen < MARK.len());
        Ok(more)
    }

    /// What looked like the beginning of a mark was none: it belongs to the first row.
    fn give_back_mark(&mut self) -> Result<(), Unreadable> {
        if let Some(seen @ 1..) = self.mark.take() {
            self.rows.next(&MARK[..seen])?;
        }
        Ok(())
    }
}

impl Rows {
    /// Reads at most one row of bytes that are not empty: how many it used, and the row if it is complete.
    fn next<'a>(&'a mut self, bytes: &'a [u8]) -> Result<(usize, Option<Row<'a>>), Unreadable> {
        match self {
            Rows::Csv(rows) => rows.next(bytes),
            Rows::Ndjson(rows) => rows.next(bytes),
        }
    }

    fn finish(&mut self) -> Result<Option<Row<'_>>, Unreadable> {
        match self {
            Rows::Csv(rows) => rows.finish(),
            Rows::Ndjson(rows) => rows.finish(),
        }
    }
}

impl Check {
    fn take(&mut self, row: Row<'_>, batch: &mut Batch) -> Result<(), Unreadable> {
        if self.rows == MAX_ROWS {
            return Err(Unreadable::TooManyRows);
        }
        self.rows += 1;
        batch.report.rows += 1;
        match row.fields.and_then(|fields| self.contact(&fields)) {
            Ok(contact) if self.seen.insert(key(&contact.phone)) => batch.contacts.push(contact),
            Ok(_) => batch.report.duplicates += 1,
            Err(BadRow { field, detail }) => batch.report.reject(RowError { row: row.number, field, detail }),
        }
        Ok(())
    }

    fn contact(&self, fields: &Fields<'_>) -> Result<NewContact, BadRow> {
        if fields.phone.trim().is_empty() {
            return Err(BadRow::field("phone", "is missing"));
        }
        let phone = PhoneNumber::typed(&fields.phone, self.region.as_deref());
        let phone = phone.map_err(|detail| BadRow::field("phone", detail))?;
        let name = fields.name.as_deref().map(people::typed_name).transpose();
        let name = name.map_err(|error| BadRow::field("name", error.to_string()))?.flatten();
        Ok(NewContact { phone, phone_raw: fields.phone.to_string(), name: name.map(str::to_owned) })
    }
}

/// A number in eight bytes.
fn key(phone: &PhoneNumber) -> u64 {
    phone.digits().parse().expect("a telephone number has at most 15 digits")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a file cut into pieces of so many bytes.
    fn read(format: Format, file: &[u8], piece_bytes: usize) -> Result<(Vec<NewContact>, Report), Unreadable> {
        let mut reader = Reader::new(format, Some("DE".into()));
        let (mut batch, mut contacts, mut report) = (Batch::default(), Vec::new(), Report::default());
        for piece in file.chunks(piece_bytes) {
            let mut used = 0;
            while used < piece.len() {
                used += reader.read(&piece[used..], &mut batch)?;
                if batch.is_full() {
                    let full = std::mem::take(&mut batch);
                    contacts.extend(full.contacts);
                    report.add(full.report, Default::default());
                }
            }
        }
        reader.finish(&mut batch)?;
        contacts.extend(batch.contacts);
        report.add(batch.report, Default::default());
        Ok((contacts, report))
    }

    fn shown(contacts: &[NewContact]) -> Vec<(&str, Option<&str>)> {
        contacts.iter().map(|contact| (contact.phone.as_str(), contact.name.as_deref())).collect()
    }

    #[test]
    fn a_mark_in_front_is_passed_over_however_it_is_cut() {
        for (format, text) in
            [(Format::Csv, "\"phone\"\n+4915123456789\n"), (Format::Ndjson, r#"{"phone":"015123456789"}"#)]
        {
            for file in [text.to_owned(), format!("\u{feff}{text}")] {
                for piece_bytes in [1, 2, 3, 4, 1000] {
                    let (contacts, report) = read(format, file.as_bytes(), piece_bytes).unwrap();
                    assert_eq!(shown(&contacts), [("+4915123456789", None)], "{file:?} {piece_bytes}");
                    assert_eq!(report.rejected, 0);
                }
            }
        }
    }

    #[test]
    fn half_a_mark_is_no_text() {
        for format in [Format::Csv, Format::Ndjson] {
            for file in [b"\xef\xbb".as_slice(), b"\xef\xbb\n", b"\xff\xfep\0h\0\n\0"] {
                for piece_bytes in [1, 1000] {
                    let refused = read(format, file, piece_bytes).unwrap_err();
                    assert_eq!(refused, Unreadable::NotUtf8 { row: 1 }, "{format:?} {file:?}");
                }
            }
        }
    }

    #[test]
    fn every_row_is_a_contact_a_duplicate_or_named() {
        let file = "name,phone\nAda,0151 23456789\n Bob ,+49 151 23456780\nAda again,+4915123456789\n,12\n\
            ,+49 151 23456781\n,\nC\0,+4915123456782\nD,+4915\0\n";
        let (contacts, report) = read(Format::Csv, file.as_bytes(), 7).unwrap();
        assert_eq!(
            shown(&contacts),
            [("+4915123456789", Some("Ada")), ("+4915123456780", Some("Bob")), ("+4915123456781", None)]
        );
        assert_eq!(contacts[0].phone_raw, "0151 23456789");
        assert_eq!((report.rows, report.duplicates, report.rejected), (8, 1, 4));
        let named: Vec<_> = report.errors.iter().map(|error| (error.row, error.field.as_deref().unwrap())).collect();
        assert_eq!(named, [(5, "phone"), (7, "phone"), (8, "name"), (9, "phone")]);
        assert!(report.errors[0].detail.contains("DE is assumed"), "{}", report.errors[0].detail);
    }

    #[test]
    fn a_batch_ends_when_it_is_full_and_the_next_goes_on_where_it_ended() {
        let file: String = (0..BATCH * 2 + 1).map(|n| format!("{{\"phone\":\"+49151{n:08}\"}}\n")).collect();
        let mut reader = Reader::new(Format::Ndjson, None);
        let (mut used, mut sizes) = (0, Vec::new());
        while used < file.len() {
            let mut batch = Batch::default();
            used += reader.read(&file.as_bytes()[used..], &mut batch).unwrap();
            sizes.push(batch.contacts.len());
        }
        assert_eq!(sizes, [BATCH, BATCH, 1]);
        assert_eq!(read(Format::Ndjson, file.as_bytes(), 100).unwrap().1.rows, 4001);
    }

    #[test]
    fn more_rows_than_are_read_end_the_import() {
        let mut reader = Reader::new(Format::Ndjson, None);
        reader.check.rows = MAX_ROWS - 1;
        let mut batch = Batch::default();
        assert_eq!(reader.read(b"{}\n", &mut batch), Ok(3));
        assert_eq!(reader.read(b"{}\n", &mut batch), Err(Unreadable::TooManyRows));
    }
}
