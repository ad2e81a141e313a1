//! Types and rules as pure functions: no I/O, no clock, no provider's wire format.

pub mod campaigns;
pub mod channel;
pub mod consent;
pub mod content;
pub mod conversations;
pub mod events;
pub mod feed;
pub mod ids;
pub mod languages;
pub mod limits;
pub mod local_templates;
pub mod media;
pub mod messages;
pub mod outcome;
pub mod people;
pub mod permissions;
pub mod retrying;
pub mod sends;
pub mod sms;
pub mod templates;
pub mod tenants;
pub mod uploads;
pub mod words;
