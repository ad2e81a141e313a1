//! How a tenant is named in URLs and at the command line.

use serde::Serialize;
use std::{fmt, str::FromStr};

/// A tenant's name in URLs: 1–63 of a–z, 0–9 and `-`, not beginning with `-`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct Slug(String);

/// Why a text is not a slug.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} cannot name a tenant: use 1–63 of a–z, 0–9 and `-`, not beginning with `-`")]
pub struct NotASlug(pub String);

impl Slug {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Slug {
    type Err = NotASlug;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let good = (1..=63).contains(&text.len()) && text.bytes().all(fits) && !text.starts_with('-');
        if good { Ok(Self(text.to_owned())) } else { Err(NotASlug(text.to_owned())) }
    }
}

impl fmt::Display for Slug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slugs_are_what_the_table_allows() {
        for good in ["demo", "a", "7-eleven", &"x".repeat(63)] {
            assert!(good.parse::<Slug>().is_ok(), "{good}");
        }
        for bad in ["", "-a", "A", "a b", "ä", "a_b", &"x".repeat(64)] {
            assert!(bad.parse::<Slug>().is_err(), "{bad}");
        }
    }
}
