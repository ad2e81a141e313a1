//! What a command says, to standard output: logs and errors go elsewhere.

use comfy_table::{Table, presets::NOTHING};
use serde::Serialize;
use std::io::{self, Write};

/// How to say it.
pub(super) struct Output {
    json: bool,
}

impl Output {
    pub(super) fn new(json: bool) -> Self {
        Self { json }
    }

    /// Whether programs read it.
    pub(super) fn is_json(&self) -> bool {
        self.json
    }

    /// Says one thing: JSON for programs, the text for people.
    pub(super) fn say(&self, value: &impl Serialize, text: &str) -> anyhow::Result<()> {
        if self.json { self.line(&serde_json::to_string(value)?) } else { self.line(text) }
    }

    /// Says a list: a JSON array for programs, a table for people.
    pub(super) fn list<T: Serialize>(
        &self,
        rows: &[T],
        headers: &[&str],
        cells: impl Fn(&T) -> Vec<String>,
    ) -> anyhow::Result<()> {
        if self.json {
            return self.line(&serde_json::to_string(rows)?);
        }
        self.line(&table(headers, rows.iter().map(cells)))
    }

    /// One line, or several.
    pub(super) fn line(&self, text: &str) -> anyhow::Result<()> {
        self.is_heard(text).map(drop)
    }

    /// The same. Whether somebody still listens: who says much may end then.
    pub(super) fn is_heard(&self, text: &str) -> anyhow::Result<bool> {
        let mut out = io::stdout().lock();
        match writeln!(out, "{text}").and_then(|()| out.flush()) {
            // Whoever read us has read enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
            done => Ok(done.map(|()| true)?),
        }
    }
}

/// What went wrong, to standard error.
pub(crate) fn complain(error: &anyhow::Error) {
    // If nobody listens there, the exit status still says it.
    let _ = writeln!(io::stderr().lock(), "error: {}", chain(error));
}

/// What a person should know beside what is said, to standard error.
pub(super) fn note(text: &str) {
    // If nobody listens there, it is not missed.
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// An error with its causes. Some say what caused them by themselves: that is not said again.
pub(super) fn chain(error: &anyhow::Error) -> String {
    let mut said = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !said.contains(&cause) {
            said = format!("{said}: {cause}");
        }
    }
    said
}

/// A table without lines, as `ps` and `kubectl` have them.
pub(super) fn table(headers: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(headers.iter().map(|header| header.to_uppercase())).add_rows(rows);
    table
        .lines()
        .map(|line| line.strip_prefix(' ').unwrap_or(&line).trim_end().to_owned())
        .collect::<Vec<_>>()
        .join("\n")
}

/// A text, or a dash.
pub(super) fn or_dash(text: Option<impl ToString>) -> String {
    text.map_or_else(|| "-".to_owned(), |text| text.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_said_once() {
        let refused = io::Error::other("connection refused");
        let own = anyhow::Error::new(refused).context("reading a list");
        assert_eq!(chain(&own), "reading a list: connection refused");
        assert_eq!(chain(&own.context("it failed: reading a list")), "it failed: reading a list: connection refused");
    }
}
