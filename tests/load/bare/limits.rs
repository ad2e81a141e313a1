//! What the yardsticks cost on the reference machine: 2 vCPU, 24 GiB, RabbitMQ 3.10.8, PostgreSQL 15, release builds, quiet,
//! medians of 2026-11-20. Sums of CPU-µs per message over the processes that do the work; the load generator is left out.
//! There is no figure for the durable send loop: it was never measured as a whole.

use crate::measure::Reference;

/// Receiver 19.6, RabbitMQ 42.1.
const RECEIVER_64: Reference =
    Reference { cpu_us_per_message: 61.7, source: "measured 2026-11-20 on the reference machine, 64 connections" };
/// Receiver 17.1, RabbitMQ 29.8.
const RECEIVER_256: Reference =
    Reference { cpu_us_per_message: 46.9, source: "measured 2026-11-20 on the reference machine, 256 connections" };
/// Receiver 19.4, RabbitMQ 40.8, Postgres 36.9, worker 9.3.
const CHAIN_256: Reference =
    Reference { cpu_us_per_message: 106.4, source: "measured 2026-11-20 on the reference machine, 256 connections" };
/// The caller's process alone; the responder is the load here.
const REQWEST_64: Reference =
    Reference { cpu_us_per_message: 17.1, source: "measured 2026-11-20 on the reference machine, 64 calls at once" };
const REQWEST_256: Reference =
    Reference { cpu_us_per_message: 17.3, source: "measured 2026-11-20 on the reference machine, 256 calls at once" };

/// Measured in a closed loop only: at a lower rate confirms gather less, and a message costs more.
pub(super) fn receiver(connections: usize, rate: Option<f64>) -> Option<Reference> {
    match (connections, rate) {
        (64, None) => Some(RECEIVER_64),
        (256, None) => Some(RECEIVER_256),
        _ => None,
    }
}

/// At 64 connections the chain was never measured with two writers.
pub(super) fn chain(connections: usize, rate: Option<f64>) -> Option<Reference> {
    match (connections, rate) {
        (256, None) => Some(CHAIN_256),
        _ => None,
    }
}

pub(super) fn reqwest(concurrency: u16) -> Option<Reference> {
    match concurrency {
        64 => Some(REQWEST_64),
        256 => Some(REQWEST_256),
        _ => None,
    }
}
