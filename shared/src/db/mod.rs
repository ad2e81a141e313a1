//! All SQL. Free functions `verb(&mut TenantTx | &mut FleetTx | &mut ControlTx, …)`, checked at compile time. A tenant's data
//! lives in the database of its placement; code asks for a tenant's transaction and never knows which that is.

pub mod audit;
pub mod campaigns;
pub mod channel_accounts;
pub mod contacts;
pub mod conversations;
pub mod erasing;
pub mod error;
pub mod feed;
pub mod files;
pub mod idempotency;
pub mod inbound;
pub mod limits;
pub mod media;
pub mod merging;
pub mod messages;
pub mod outbound;
pub mod outbox;
mod placements;
mod pulse;
pub mod receiving;
pub mod retention;
pub mod routing;
mod schema;
pub mod scope;
pub mod spill;
pub mod suppressions;
pub mod templates;
pub mod tenants;
pub mod tokens;
pub mod trace;
pub mod unroutable;
pub mod waiting;
pub mod webhook_log;

pub use error::{Error, Kind, Result};
pub use placements::{Databases, Placement, Settings};
pub use pulse::Away;
pub use schema::{MigrateError, Migrated, NotReady, allow_login, migrate};
pub use scope::{ControlTx, FleetTx, TenantTx};
