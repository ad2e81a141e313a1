//! Mijra's shared layers. Imports go one way: `domain` ← `jobs` ← `queue`; `domain` ← `db`, `providers`;
//! `clock`, `config`, `telemetry`, `lifecycle` and `crash` lie below all. A test (`tests/tidy.rs`) holds the arrows.

pub mod clock;
pub mod domain;
