//! The load generator: signed webhooks over HTTP/1.1 keep-alive connections, in a process of its own, on one thread, for
//! a few microseconds a request. The same for every side of a measurement. Closed loop: each connection sends as soon as
//! it was answered, which finds the most the other side takes. Open loop: requests are due at a given rate and their time
//! counts from when they were due, so that a stall is felt by every request that it delayed.

mod connection;
mod loops;
pub(crate) mod mix;
pub(crate) mod payload;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::role::{Orders, Role, announce};
use mix::Mix;
use payload::Payloads;

/// How the generator is called in the accounts.
pub(crate) const GENERATOR: &str = "generator";

/// How long after the last request was due or sent its answer may still come.
pub(crate) const GRACE: Duration = Duration::from_secs(30);

/// What to send where.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub(crate) address: SocketAddr,
    pub(crate) path: String,
    pub(crate) connections: usize,
    pub(crate) seconds: f64,
    /// Requests a second, in an open loop; a closed loop without.
    pub(crate) rate: Option<f64>,
    /// Bodies of 2.9 MiB, spread evenly over the time.
    pub(crate) big_bodies: u64,
    pub(crate) first_serial: u64,
    pub(crate) payloads: Payloads,
    /// Webhooks of all providers instead of WhatsApp's messages alone.
    pub(crate) mix: Option<Mix>,
}

/// Writes the requests of a plan.
enum Requests {
    Messages(payload::Writer),
    Mixed(mix::Writer),
}

impl Requests {
    fn of(plan: &Plan) -> Self {
        let host = plan.address.to_string();
        match plan.mix {
            Some(mix) => Self::Mixed(mix::Writer::new(mix, &plan.payloads, &host)),
            None => Self::Messages(payload::Writer::new(plan.payloads.clone(), &host, &plan.path)),
        }
    }

    fn write(&mut self, serial: u64, request: &mut Vec<u8>) {
        match self {
            Self::Messages(writer) => writer.write(serial, request),
            Self::Mixed(writer) => writer.write(serial, request),
        }
    }

    /// There are no big ones in a mix.
    fn write_big(&mut self, serial: u64, request: &mut Vec<u8>) -> u64 {
        match self {
            Self::Messages(writer) => writer.write_big(serial, request),
            Self::Mixed(writer) => {
                writer.write(serial, request);
                1
            }
        }
    }
}

/// What came of it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Report {
    /// Requests answered 200, in all.
    pub(crate) accepted: u64,
    /// Of those, the ones answered before the time was up.
    pub(crate) accepted_in_time: u64,
    /// Messages in the requests answered 200.
    pub(crate) messages_accepted: u64,
    /// Other answers by status.
    pub(crate) refused: BTreeMap<u16, u64>,
    /// Requests whose connection broke, or that were not answered within the grace: taken or not, nobody knows.
    pub(crate) unanswered: u64,
    /// Open loop: requests that were due and could not be sent any more.
    pub(crate) unsent: u64,
    /// The first reason a connection broke.
    pub(crate) broken: Option<String>,
    /// Answer times of requests of the usual size.
    pub(crate) latency: Latency,
    /// Answer times of big bodies.
    pub(crate) big_latency: Latency,
}

/// Answer times in µs.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Latency {
    pub(crate) count: u64,
    pub(crate) p50_us: u64,
    pub(crate) p90_us: u64,
    pub(crate) p99_us: u64,
    pub(crate) p999_us: u64,
    pub(crate) max_us: u64,
}

impl From<&Histogram<u64>> for Latency {
    fn from(histogram: &Histogram<u64>) -> Self {
        Self {
            count: histogram.len(),
            p50_us: histogram.value_at_quantile(0.50),
            p90_us: histogram.value_at_quantile(0.90),
            p99_us: histogram.value_at_quantile(0.99),
            p999_us: histogram.value_at_quantile(0.999),
            max_us: histogram.max(),
        }
    }
}

/// A generator that is connected and waits.
pub(crate) struct Generator {
    pub(crate) role: Role,
    seconds: f64,
}

impl Generator {
    /// Starts the process; its connections are open when this returns.
    pub(crate) async fn start(plan: &Plan) -> Result<Self> {
        let (role, connections): (Role, usize) = Role::start(GENERATOR, plan).await?;
        if connections != plan.connections {
            bail!("the generator opened {connections} of {} connections", plan.connections);
        }
        Ok(Self { role, seconds: plan.seconds })
    }

    /// Sends the whole plan. The process stays, so that its processor time can be read, until it is stopped.
    pub(crate) async fn run(&mut self) -> Result<Report> {
        self.role.tell("go").await?;
        self.role.hear(Duration::from_secs_f64(self.seconds) + GRACE * 2).await.context("the load")
    }
}

/// The process itself.
pub(crate) async fn role(mut orders: Orders) -> Result<()> {
    let plan: Plan = orders.plan().await?;
    let connections = loops::connect(&plan).await?;
    announce(&connections.len())?;
    if orders.next().await.is_none() {
        return Ok(());
    }
    tokio::select! {
        report = loops::drive(&plan, connections) => announce(&report)?,
        // Nobody wants the load any more.
        _ = orders.next() => return Ok(()),
    }
    while orders.next().await.is_some() {}
    Ok(())
}
