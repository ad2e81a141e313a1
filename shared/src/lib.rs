//! Mijra's shared layers. Imports go one way: `domain` ← `jobs` ← `queue`; `domain` ← `db`, `providers`; `db` ← `import`;
//! `clock`, `config`, `telemetry`, `lifecycle` and `crash` lie below all. A test (`tests/tidy.rs`) holds the arrows.

pub mod cache;
pub mod clock;
pub mod config;
pub mod crash;
pub mod db;
pub mod domain;
pub mod health;
pub mod import;
pub mod jobs;
pub mod lifecycle;
pub mod links;
pub mod providers;
pub mod queue;
pub mod retry;
pub mod seal;
pub mod storage;
pub mod telemetry;
