//! What went wrong in the database, by what a caller can do next.

use std::{borrow::Cow, fmt};

/// An error of the database.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    doing: Cow<'static, str>,
    source: sqlx::Error,
}

/// What a caller can do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Ours: the database is away, full, of another schema, or forbids it. Wait and do the same again; charge nobody.
    Ours,
    /// Somebody else was there first (serialization failure, deadlock, lock timeout). The same again at once, a few times.
    Contention,
    /// The data's: this input can never be stored.
    Data,
}

impl Error {
    /// What a caller can do next.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The name of the constraint that was violated, if it was one.
    pub fn constraint(&self) -> Option<&str> {
        self.source.as_database_error().and_then(|error| error.constraint())
    }

    /// The same error with what was being done.
    #[must_use]
    pub fn doing(self, what: impl Into<Cow<'static, str>>) -> Self {
        Self { doing: what.into(), ..self }
    }

    /// An answer of the database that took too long.
    pub fn timed_out(what: &'static str) -> Self {
        Self { kind: Kind::Ours, doing: what.into(), source: sqlx::Error::PoolTimedOut }
    }

    /// Somebody else was there first, as what was read says.
    pub fn contention(doing: &'static str) -> Self {
        Self { kind: Kind::Contention, doing: doing.into(), source: sqlx::Error::RowNotFound }
    }

    /// An error that no database made, for tests of what is done with errors.
    pub fn made_up(kind: Kind, doing: &'static str) -> Self {
        Self { kind, doing: doing.into(), source: sqlx::Error::Protocol("made up for a test".into()) }
    }
}

impl From<sqlx::Error> for Error {
    fn from(source: sqlx::Error) -> Self {
        Self { kind: classify(&source), doing: "asking the database".into(), source }
    }
}

/// The classes of PostgreSQL's appendix A ("Error Codes").
fn classify(error: &sqlx::Error) -> Kind {
    match error {
        sqlx::Error::Database(error) => {
            let code = error.code();
            let code = code.as_deref().unwrap_or_default();
            match code {
                "40001" | "40P01" | "55P03" => Kind::Contention,
                // Two batches made the first conversation of one contact at once: the second finds it on the next try.
                "23505" if error.constraint() == Some("conversations_one_open") => Kind::Contention,
                // 54: a value larger than an index or a row can hold.
                _ if ["22", "23", "54"].iter().any(|class| code.starts_with(class)) => Kind::Data,
                _ => Kind::Ours,
            }
        }
        // A value that cannot be turned into the column's type is the data's fault; all else is the connection's or ours.
        sqlx::Error::Encode(_) => Kind::Data,
        _ => Kind::Ours,
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.doing, self.source)
    }
}

// What caused it is part of what it says: as a source it would be said twice.
impl std::error::Error for Error {}

/// The result of asking the database.
pub type Result<T> = std::result::Result<T, Error>;
