//! What the senders ask of and tell the database: grants, outcomes, whose turn it is, what becomes of the unknown.

pub mod accounts;
pub mod grant;
pub mod outcomes;
pub mod turns;
