//! What the senders ask of and tell the database: grants, outcomes, whose turn it is, what becomes of the unknown,
//! what is shown of campaigns.

pub mod accounts;
pub mod aftermath;
pub(in crate::db) mod again;
pub mod counts;
pub mod grant;
pub mod outcomes;
pub mod probes;
pub mod signals;
pub mod turns;
pub mod undecided;
