//! What a measurement with bars found: figures, bars of speed that are met or missed, and what must be so. Only the last decides
//! about the exit status: a slow machine is no error, a lost message is.

use std::io::Write;
use std::process::ExitCode;

use anyhow::Result;
use comfy_table::{CellAlignment, Table, presets};

use super::machine;

/// The rows of one table.
#[derive(Debug)]
pub(crate) struct Verdicts {
    title: String,
    rows: Vec<[String; 4]>,
    wrong: Vec<String>,
}

impl Verdicts {
    pub(crate) fn new(title: impl Into<String>) -> Self {
        Self { title: title.into(), rows: Vec::new(), wrong: Vec::new() }
    }

    /// A number without a bar.
    pub(crate) fn figure(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.rows.push([name.into(), value.into(), String::new(), String::new()]);
    }

    /// A number and its bar.
    pub(crate) fn bar(&mut self, name: impl Into<String>, value: impl Into<String>, bar: &str, met: bool) {
        let verdict = if met { "met" } else { "MISSED" };
        self.rows.push([name.into(), value.into(), bar.to_owned(), verdict.to_owned()]);
    }

    /// Something that must never be: what there is of it, named.
    pub(crate) fn never(&mut self, name: &str, found: &[String]) {
        let verdict = if found.is_empty() { "right" } else { "WRONG" };
        self.rows.push([name.to_owned(), found.len().to_string(), "0".to_owned(), verdict.to_owned()]);
        self.wrong.extend(found.iter().map(|what| format!("{name}: {what}")));
    }

    /// What is wrong.
    pub(crate) fn into_wrong(self) -> Vec<String> {
        self.wrong
    }

    /// Prints the table and what is wrong, if anything is.
    pub(crate) fn print(&self) -> Result<()> {
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED).set_header([&self.title, "measured", "bar", ""]);
        for row in &self.rows {
            table.add_row(row);
        }
        for column in table.column_iter_mut().skip(1).take(2) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        let mut stdout = std::io::stdout().lock();
        writeln!(stdout, "{table}\nMeasured on {}", machine::describe())?;
        if let Some(why) = machine::unfit_build() {
            writeln!(stdout, "VOID  {why}")?;
        }
        for what in self.wrong.iter().take(MOST_NAMED) {
            writeln!(stdout, "WRONG  {what}")?;
        }
        if let Some(more) = self.wrong.len().checked_sub(MOST_NAMED).filter(|more| *more > 0) {
            writeln!(stdout, "WRONG  and {more} more")?;
        }
        Ok(())
    }

    /// Success unless something is wrong.
    pub(crate) fn exit(all: &[Self]) -> ExitCode {
        if all.iter().all(|verdicts| verdicts.wrong.is_empty()) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

/// Enough to begin to look for the reason.
const MOST_NAMED: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_wrong_decides_about_the_exit_status() {
        let mut slow = Verdicts::new("slow");
        slow.bar("sends", "1/s", "2/s", false);
        slow.never("lost", &[]);
        assert_eq!(Verdicts::exit(&[slow]), ExitCode::SUCCESS);
        let mut wrong = Verdicts::new("wrong");
        wrong.never("lost", &["m1".to_owned()]);
        assert_eq!(Verdicts::exit(&[wrong]), ExitCode::FAILURE);
    }
}
