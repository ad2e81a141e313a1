//! What an inbound batch writes, set by set: people, dedupe, conversations, messages, reports, the log. Every function takes
//! the whole batch; calling one again with the same batch changes nothing more.
//!
//! Locks are taken in one order everywhere: limits, accounts, contacts, suppressions, provider_refs, conversations,
//! watermarks, sends. The dedupe key comes
//! before the conversation because it decides which counters move.

pub mod conversations;
pub mod log;
pub mod messages;
pub mod news;
pub mod people;
pub mod received;
pub mod refs;
pub mod reports;
pub mod watermarks;
