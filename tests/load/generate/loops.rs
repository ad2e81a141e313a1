//! The two ways to send: a closed loop and an open one. All connections live on one thread, so they share their
//! counters without locks; only the pacer of the open loop has a thread of its own.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures_util::future::join_all;
use hdrhistogram::Histogram;
use tokio::sync::Semaphore;
use tokio::task::LocalSet;

use super::connection::Connection;
use super::{GRACE, Plan, Report, Requests};

/// Requests of an open loop fall due on a grid this fine, a few at once: a finer one costs more processor time for waking up
/// than for sending. Tokio's timers know whole milliseconds only, so a thread sleeps for the pacer, which is exact to 60 µs.
const PACER_TICK: Duration = Duration::from_micros(500);

/// The longest answer time told apart from longer ones.
const LONGEST_US: u64 = 120_000_000;

/// Opens all connections.
pub(crate) async fn connect(plan: &Plan) -> Result<Vec<Connection>> {
    let mut connections = Vec::with_capacity(plan.connections);
    for _ in 0..plan.connections {
        let connection = Connection::open(plan.address).await;
        connections.push(connection.with_context(|| format!("connect to {}", plan.address))?);
    }
    Ok(connections)
}

/// Sends everything and says what came of it.
pub(crate) async fn drive(plan: &Plan, connections: Vec<Connection>) -> Report {
    let due = plan.rate.map(|_| Due::default());
    let start = Instant::now();
    let load = Rc::new(RefCell::new(Load::new(plan, start)));
    if let (Some(due), Some(rate)) = (&due, plan.rate) {
        let (due, connections) = (due.clone(), connections.len());
        let total = load.borrow().total;
        std::thread::spawn(move || due.release(start, rate, total, connections));
    }
    let local = LocalSet::new();
    let tasks: Vec<_> = connections
        .into_iter()
        .map(|connection| local.spawn_local(send(Rc::clone(&load), connection, plan.address, due.clone())))
        .collect();
    let within = Duration::from_secs_f64(plan.seconds) + GRACE;
    let finished = local.run_until(tokio::time::timeout(within, join_all(tasks))).await;
    let mut load = load.borrow_mut();
    if finished.is_err() {
        load.report.unanswered += load.in_flight;
    }
    load.report.unsent = load.total.saturating_sub(load.sent);
    load.report.latency = (&load.latency).into();
    load.report.big_latency = (&load.big_latency).into();
    load.report.clone()
}

/// What all connections share.
struct Load {
    start: Instant,
    end: Instant,
    /// Requests of the usual size due in an open loop; 0 in a closed one.
    total: u64,
    /// Requests of the usual size taken up so far.
    sent: u64,
    first_serial: u64,
    rate: Option<f64>,
    big_bodies: u64,
    big_sent: u64,
    in_flight: u64,
    writer: Requests,
    latency: Histogram<u64>,
    big_latency: Histogram<u64>,
    report: Report,
}

/// One request about to be sent.
struct Request {
    /// From when its time counts.
    since: Instant,
    messages: u64,
    big: bool,
}

impl Load {
    fn new(plan: &Plan, start: Instant) -> Self {
        let histogram = || Histogram::new_with_max(LONGEST_US, 3).expect("three digits up to two minutes");
        Self {
            start,
            end: start + Duration::from_secs_f64(plan.seconds),
            total: plan.rate.map_or(0, |rate| (rate * plan.seconds) as u64),
            sent: 0,
            first_serial: plan.first_serial,
            rate: plan.rate,
            big_bodies: plan.big_bodies,
            big_sent: 0,
            in_flight: 0,
            writer: Requests::of(plan),
            latency: histogram(),
            big_latency: histogram(),
            report: Report::default(),
        }
    }

    /// Writes the next request, or says that there is none.
    fn next(&mut self, bytes: &mut Vec<u8>) -> Option<Request> {
        let now = Instant::now();
        if self.big_is_due(now) {
            let serial = self.first_serial + self.big_sent;
            self.big_sent += 1;
            self.in_flight += 1;
            let messages = self.writer.write_big(serial, bytes);
            return Some(Request { since: Instant::now(), messages, big: true });
        }
        let since = match self.rate {
            None if now >= self.end => return None,
            None => now,
            Some(_) if self.sent >= self.total => return None,
            Some(rate) => self.start + due_after(self.sent, rate),
        };
        self.writer.write(self.first_serial + self.sent, bytes);
        self.sent += 1;
        self.in_flight += 1;
        Some(Request { since, messages: 1, big: false })
    }

    /// They are spread evenly, the first after one share of the time and the last before its end.
    fn big_is_due(&self, now: Instant) -> bool {
        let passed = (now - self.start).as_secs_f64() / (self.end - self.start).as_secs_f64();
        self.big_sent < self.big_bodies && self.big_sent < (passed * (self.big_bodies + 1) as f64) as u64
    }

    fn answered(&mut self, request: &Request, status: u16) {
        let now = Instant::now();
        self.in_flight -= 1;
        let time_us = (now - request.since).as_micros() as u64;
        let histogram = if request.big { &mut self.big_latency } else { &mut self.latency };
        histogram.saturating_record(time_us);
        if status == 200 {
            self.report.accepted += 1;
            self.report.accepted_in_time += u64::from(now <= self.end);
            self.report.messages_accepted += request.messages;
        } else {
            *self.report.refused.entry(status).or_default() += 1;
        }
    }

    fn broke(&mut self, error: &std::io::Error) {
        self.in_flight -= 1;
        self.report.unanswered += 1;
        self.report.broken.get_or_insert_with(|| error.to_string());
    }
}

/// One connection's life. When it breaks it is opened again, at most once a request.
async fn send(load: Rc<RefCell<Load>>, mut connection: Connection, address: std::net::SocketAddr, due: Option<Due>) {
    let mut bytes = Vec::with_capacity(4_096);
    // Big bodies come on top of the rate: one leaves the connection what it was released for.
    let mut released = false;
    loop {
        if let (Some(due), false) = (&due, released) {
            due.wait().await;
        }
        let Some(request) = load.borrow_mut().next(&mut bytes) else { break };
        released = request.big;
        let answer = connection.exchange(&bytes).await;
        match &answer {
            Ok(status) => load.borrow_mut().answered(&request, *status),
            Err(error) => load.borrow_mut().broke(error),
        }
        if answer.is_err() || connection.is_closing() {
            match reconnect(address, &load).await {
                Some(again) => connection = again,
                None => break,
            }
        }
    }
}

/// Tries until the time is up.
async fn reconnect(address: std::net::SocketAddr, load: &Rc<RefCell<Load>>) -> Option<Connection> {
    let end = load.borrow().end;
    loop {
        match Connection::open(address).await {
            Ok(connection) => return Some(connection),
            Err(_) if Instant::now() < end => tokio::time::sleep(Duration::from_millis(50)).await,
            Err(_) => return None,
        }
    }
}

/// Requests that have become due, in an open loop, and not yet been taken by a connection.
#[derive(Clone)]
struct Due(Arc<Semaphore>);

impl Default for Due {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(0)))
    }
}

impl Due {
    async fn wait(&self) {
        if let Ok(permit) = self.0.acquire().await {
            permit.forget();
        }
    }

    /// The pacer. At the end every connection gets one permit more, finds nothing to send and ends.
    fn release(&self, start: Instant, rate: f64, total: u64, connections: usize) {
        let mut released = 0;
        for tick in 0.. {
            let now = PACER_TICK * tick;
            std::thread::sleep((start + now).saturating_duration_since(Instant::now()));
            let first = released;
            while released < total && due_after(released, rate) <= now {
                released += 1;
            }
            self.0.add_permits((released - first) as usize);
            if released == total {
                break;
            }
        }
        self.0.add_permits(connections);
    }
}

/// When the nth request is due, counted from the start: on the grid, never before its share of the rate.
fn due_after(nth: u64, rate: f64) -> Duration {
    let ticks = (nth as f64 / rate / PACER_TICK.as_secs_f64()).ceil();
    PACER_TICK * ticks as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::payload::Payloads;

    fn plan(rate: Option<f64>) -> Plan {
        Plan {
            address: "127.0.0.1:9".parse().unwrap(),
            path: "/".into(),
            connections: 1,
            seconds: 1.0,
            rate,
            big_bodies: 0,
            first_serial: 100,
            payloads: Payloads { app_secret: "s".into(), run: "abcd1234".into(), people: 10, numbers: 1 },
            mix: None,
        }
    }

    #[test]
    fn in_an_open_loop_time_counts_from_when_a_request_was_due() {
        let start = Instant::now() - Duration::from_secs(2);
        let mut load = Load::new(&plan(Some(1_000.0)), start);
        let mut bytes = Vec::new();
        let requests: Vec<_> = std::iter::from_fn(|| load.next(&mut bytes)).collect();
        assert_eq!(requests.len(), 1_000);
        assert_eq!(requests[500].since - start, Duration::from_millis(500));
        assert_eq!(requests[501].since - start, Duration::from_millis(501));
        load.answered(&requests[0], 200);
        assert!(load.latency.max() >= 1_990_000);
    }

    #[test]
    fn requests_fall_due_on_the_grid_and_never_early() {
        assert_eq!(due_after(0, 10_000.0), Duration::ZERO);
        assert_eq!(due_after(1, 10_000.0), PACER_TICK);
        assert_eq!(due_after(5, 10_000.0), PACER_TICK);
        assert_eq!(due_after(6, 10_000.0), 2 * PACER_TICK);
    }

    #[test]
    fn a_closed_loop_ends_with_the_time() {
        let mut load = Load::new(&plan(None), Instant::now() - Duration::from_secs(2));
        assert!(load.next(&mut Vec::new()).is_none());
    }

    #[test]
    fn big_bodies_are_spread_over_the_time() {
        let plan = Plan { big_bodies: 3, ..plan(None) };
        let load = Load::new(&plan, Instant::now());
        assert!(!load.big_is_due(load.start + Duration::from_millis(240)));
        assert!(load.big_is_due(load.start + Duration::from_millis(260)));
    }
}
