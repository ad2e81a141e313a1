//! Whether a process is alive and ready, over HTTP: `/livez` (it answers), `/readyz` (it can do its work, with the reasons if
//! not) and `/metrics`. Readiness is made of named conditions that the parts of a process set themselves; beside them stand
//! remarks: what is amiss although the process can do its work.

use crate::{lifecycle::Lifecycle, telemetry::Metrics};
use axum::{Json, Router, extract::State, http::StatusCode, response::IntoResponse, routing::get};
use serde::Serialize;
use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

/// What a process needs to be ready. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<Mutex<BTreeMap<&'static str, Standing>>>);

/// One of the things it needs, or would rather have.
#[derive(Clone, Debug)]
pub struct Condition {
    name: &'static str,
    of: Readiness,
}

/// How one of them stands.
#[derive(Debug)]
struct Standing {
    /// Why it is not met; nothing if it is.
    reason: Option<String>,
    /// Whether the process is ready all the same.
    remark: bool,
}

/// What `/readyz` answers.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Whether every condition holds and the process is not stopping. Remarks do not count.
    pub ready: bool,
    /// By name, remarks included: `ready`, or the reason why not.
    pub conditions: BTreeMap<&'static str, String>,
}

impl Readiness {
    /// Adds a condition, which is not met until it says so.
    pub fn condition(&self, name: &'static str) -> Condition {
        self.add(name, false)
    }

    /// Adds something that is told beside the conditions: the process is ready also without it.
    pub fn remark(&self, name: &'static str) -> Condition {
        self.add(name, true)
    }

    fn add(&self, name: &'static str, remark: bool) -> Condition {
        let standing = Standing { reason: Some("starting".to_owned()), remark };
        self.0.lock().expect("nothing panics while this is locked").insert(name, standing);
        Condition { name, of: self.clone() }
    }

    /// Whether every condition is met.
    pub fn is_ready(&self) -> bool {
        self.report().ready
    }

    /// All conditions.
    pub fn report(&self) -> Report {
        let conditions = self.0.lock().expect("nothing panics while this is locked");
        Report {
            ready: conditions.values().all(|standing| standing.remark || standing.reason.is_none()),
            conditions: conditions
                .iter()
                .map(|(name, standing)| (*name, standing.reason.clone().unwrap_or_else(|| "ready".to_owned())))
                .collect(),
        }
    }

    fn set(&self, name: &'static str, reason: Option<String>) {
        let mut conditions = self.0.lock().expect("nothing panics while this is locked");
        if let Some(standing) = conditions.get_mut(name) {
            standing.reason = reason;
        }
    }
}

impl Condition {
    /// It is met.
    pub fn ready(&self) {
        self.of.set(self.name, None);
    }

    /// It is not met.
    pub fn not_ready(&self, reason: impl Into<String>) {
        self.of.set(self.name, Some(reason.into()));
    }
}

#[derive(Clone)]
struct Health {
    life: Lifecycle,
    readiness: Readiness,
    metrics: Metrics,
}

/// The three routes.
pub fn router(life: &Lifecycle, readiness: &Readiness, metrics: &Metrics) -> Router {
    let health = Health { life: life.clone(), readiness: readiness.clone(), metrics: metrics.clone() };
    Router::new()
        .route("/livez", get(|| async { "alive\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(render))
        .with_state(health)
}

/// Serves the routes on an address of their own until the process ends: also while it drains. The address it got.
///
/// # Errors
/// If the address cannot be had.
pub async fn serve(
    listen: SocketAddr,
    life: &Lifecycle,
    readiness: &Readiness,
    metrics: &Metrics,
) -> io::Result<SocketAddr> {
    let listener = tokio::net::TcpListener::bind(listen).await?;
    let address = listener.local_addr()?;
    let router = router(life, readiness, metrics);
    #[allow(clippy::disallowed_methods, reason = "it answers while draining, so draining must not wait for it")]
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(%error, "health is no longer served");
        }
    });
    Ok(address)
}

async fn readyz(State(health): State<Health>) -> impl IntoResponse {
    let mut report = health.readiness.report();
    if health.life.is_stopping() {
        report.ready = false;
        report.conditions.insert("lifecycle", "stopping".to_owned());
    }
    let status = if report.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(report))
}

async fn render(State(health): State<Health>) -> impl IntoResponse {
    ([("content-type", "text/plain; version=0.0.4; charset=utf-8")], health.metrics.render())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_ready_when_every_condition_is() {
        let readiness = Readiness::default();
        let (database, broker) = (readiness.condition("database"), readiness.condition("broker"));
        assert!(!readiness.is_ready());
        database.ready();
        broker.ready();
        assert!(readiness.is_ready());
        broker.not_ready("connection refused");
        let report = readiness.report();
        assert!(!report.ready);
        assert_eq!(report.conditions["broker"], "connection refused");
        assert_eq!(report.conditions["database"], "ready");
    }

    #[test]
    fn a_remark_is_told_and_keeps_nobody_from_being_ready() {
        let readiness = Readiness::default();
        readiness.condition("storage").ready();
        let database = readiness.remark("database");
        database.not_ready("connection refused");
        let report = readiness.report();
        assert!(report.ready);
        assert_eq!(report.conditions["database"], "connection refused");
        database.ready();
        assert_eq!(readiness.report().conditions["database"], "ready");
    }
}
