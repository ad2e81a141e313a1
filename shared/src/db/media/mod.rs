//! Files of messages: rows are written with the messages they belong to, and filled in by whoever fetches them. Beside them stand
//! what providers say of people, and what lies in storage.
//!
//! Locks: media, contacts, contact_profiles, media_objects, after all that an inbound batch locks; within a table by key.

pub mod fetching;
mod insert;
pub mod objects;
pub mod profiles;
pub mod reading;

pub use insert::{NewMedia, insert};

/// The queue of files, by its name in the topology.
pub const QUEUE: &str = "media";
