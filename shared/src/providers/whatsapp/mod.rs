//! WhatsApp Cloud API, as Meta documents it in November 2026 (Graph API v21.0 to v26.0). "Contract" and its sections are
//! the project's reference of that documentation.

use crate::domain::limits::LimitChange;

pub mod answer;
pub mod check;
pub mod errors;
pub mod excerpt;
pub mod media;
pub mod parse;
pub mod send;
pub mod templates;
pub mod upload;

/// What a number may send to one person: a message in 6 s, with up to 45 at once (contract, section 11).
pub const PAIR_LIMIT: LimitChange = LimitChange { rate: 1.0 / 6.0, burst: Some(45), inbound_cost: None };

/// What a number may send and receive a second, unless it is upgraded or shared with the app (contract, section 11).
pub const MESSAGES_PER_SECOND: f64 = 80.0;

mod account;
mod content;
mod echo;
mod message;
mod people;
mod preferences;
mod wire;

pub use super::meta::verify::{self, Handshake, verify, verify_any};
pub use answer::outcome;
pub use check::check;
pub use errors::report_reason;
pub use excerpt::excerpt;
pub use parse::parse;
pub use send::{path, request};
