//! Tests against real servers, addressed by the environment: DATABASE_URL (an administrator's), AMQP_URL,
//! AMQP_MANAGEMENT_URL, REDIS_URL. A missing one is a failure, not a reason to skip. Every test has names of its own on the
//! servers, so all run at once.
#![allow(clippy::disallowed_methods, reason = "tests read the environment and the machine's clock")]
#![allow(clippy::unwrap_used, reason = "a test ends where something unexpected happens, in its helpers, too")]

mod api;
mod campaigns;
mod digest;
mod inbound;
mod isolation;
mod media;
mod outbound_db;
mod people;
mod queue;
mod retention;
mod runtime;
mod scheduler;
mod templates;
