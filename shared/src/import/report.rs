//! What became of an import's rows.

use crate::db::contacts::CreatedMany;
use serde::Serialize;

/// So many bad rows are named; of the others there is only the number.
pub const MAX_ERRORS: usize = 100;

/// What became of the rows so far. Every row is one of created, existing, duplicate and rejected.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Rows dealt with.
    pub rows: u64,
    /// Contacts made.
    pub created: u64,
    /// Numbers that were a contact's already.
    pub existing: u64,
    /// Rows whose number an earlier row had; the first one counts.
    pub duplicates: u64,
    /// Rows that could not be used.
    pub rejected: u64,
    /// Why, for the first [`MAX_ERRORS`] of them.
    pub errors: Vec<RowError>,
    /// Rows rejected that are not among `errors`.
    pub errors_left_out: u64,
}

/// Why a row was rejected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RowError {
    /// Which row, counted as a spreadsheet does: the first of the file is 1, the header and empty lines count.
    pub row: u64,
    /// Which of its fields, unless it is the whole row.
    pub field: Option<String>,
    /// What is wrong with it.
    pub detail: String,
}

impl Report {
    /// Contacts that are in the database because of the import, or were already.
    pub fn stored(&self) -> u64 {
        self.created + self.existing
    }

    /// Notes a row that cannot be used.
    pub(super) fn reject(&mut self, error: RowError) {
        self.rejected += 1;
        self.name(error);
    }

    /// Adds what a batch found and what became of its contacts.
    pub(super) fn add(&mut self, batch: Report, written: CreatedMany) {
        self.rows += batch.rows;
        self.created += written.created;
        self.existing += written.existing;
        self.duplicates += batch.duplicates;
        self.rejected += batch.rejected;
        self.errors_left_out += batch.errors_left_out;
        for error in batch.errors {
            self.name(error);
        }
    }

    fn name(&mut self, error: RowError) {
        if self.errors.len() < MAX_ERRORS {
            self.errors.push(error);
        } else {
            self.errors_left_out += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(row: u64) -> RowError {
        RowError { row, field: Some("phone".into()), detail: "is missing".into() }
    }

    #[test]
    fn the_first_errors_are_named_and_the_others_counted() {
        let mut report = Report::default();
        for batch in 0..3 {
            let mut read = Report { rows: 70, ..Report::default() };
            (1..=70).for_each(|row| read.reject(error(batch * 70 + row)));
            report.add(read, CreatedMany::default());
        }
        assert_eq!((report.rows, report.rejected, report.errors_left_out), (210, 210, 110));
        assert_eq!(report.errors.iter().map(|e| e.row).collect::<Vec<_>>(), (1..=100).collect::<Vec<_>>());
    }

    #[test]
    fn one_batch_may_hold_more_errors_than_are_named() {
        let (mut read, mut report) = (Report { rows: 150, ..Report::default() }, Report::default());
        (1..=150).for_each(|row| read.reject(error(row)));
        report.add(read, CreatedMany::default());
        assert_eq!((report.rejected, report.errors.len(), report.errors_left_out), (150, MAX_ERRORS, 50));
    }
}
