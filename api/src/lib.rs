//! Mijra's front doors. The HTTP API reads Postgres and writes intent; the receiver puts providers' webhooks on the queue;
//! the command line is an operator's hands. Nothing slow is done here and no provider is called on behalf of a request.
//!
//! Reading order: [`server`] puts everything together; [`webhooks`] is the hot path; [`routes`] has one file per resource, all
//! in one order (router, bodies, views, handlers, tests); [`error`] lists everything a caller can be told.

pub mod auth;
pub mod body;
pub mod cli;
pub mod error;
pub mod extract;
pub mod idempotency;
pub mod imports;
mod observe;
pub mod openapi;
pub mod relay;
pub mod routes;
pub mod server;
pub mod state;
pub mod webhooks;
mod words;
