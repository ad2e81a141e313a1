//! Queue in: the runtime, then one module and one thin binary per kind of work. A worker never imports another; they meet at
//! queues.

pub mod boot;
pub mod campaign;
pub mod inbound;
pub mod media;
pub mod outbound;
mod placements;
pub mod runtime;
pub mod scheduler;
pub mod worker;
