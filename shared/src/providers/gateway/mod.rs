//! A provider that is described by configuration instead of code: whoever takes a message by one HTTP call and answers in JSON. It
//! has no webhooks: what it took is sent, and nobody says what became of it. [`config`] says what can be described; BotMasterSender
//! is [built in](preset).

pub mod answer;
pub mod check;
pub mod config;
pub mod send;

pub use answer::outcome;
pub use check::check;
pub use config::{GatewayConfig, preset};
pub use send::{Request, request};
