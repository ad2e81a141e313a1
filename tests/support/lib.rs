//! What Mijra's tests share: stand-ins for the providers, and tools to build what a test needs and to break it. Nothing here
//! is shipped.

#![allow(
    clippy::disallowed_methods,
    reason = "the sandbox and the test tools are not the product: they have their own clock and their own tasks"
)]

pub mod books;
pub mod campaigns;
pub mod channels;
pub mod database;
pub mod fleet;
pub mod frames;
pub mod lateness;
pub mod media;
pub mod metering;
pub mod programs;
pub mod relay;
#[path = "../sandbox/mod.rs"]
pub mod sandbox;
pub mod traffic;
