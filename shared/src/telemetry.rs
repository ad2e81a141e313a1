//! Logs, metrics and traces: set up once per process. Metrics are rendered by whoever serves them ([`crate::health`]); traces
//! are W3C trace contexts that travel in message headers and show as the field `trace_id`.

pub mod names;
mod trace;

pub use trace::TraceContext;

use crate::{config::LogFormat, lifecycle::Lifecycle};
use metrics::Unit;
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use names::{Kind, Metric};
use std::{io::IsTerminal, time::Duration};
use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt};

/// What is rendered at `/metrics`. Cheap to clone.
#[derive(Clone)]
pub struct Metrics(PrometheusHandle);

/// Why telemetry could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// The log filter cannot be read.
    #[error("RUST_LOG is not a filter: {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// There is a recorder already, or a name cannot be used.
    #[error("metrics cannot be recorded: {0}")]
    Metrics(#[from] BuildError),
    /// There is a subscriber already.
    #[error("logs are already written elsewhere: {0}")]
    Logs(#[from] tracing_subscriber::util::TryInitError),
}

/// Unless asked for by name: sqlx warns of each connection that it closes when a server has gone away, which who was using it says
/// better.
const QUIET: &str = "sqlx_core::pool=error";

/// Sets up logs (to standard error, so that the output of commands stays clean) and metrics for this process.
///
/// # Errors
/// If the filter cannot be read, or this process has done it before.
pub fn init(format: LogFormat, filter: &str) -> Result<Metrics, InitError> {
    // lapin writes returned messages with their bodies, which are nobody's business in a log.
    let filter = EnvFilter::try_new(format!("{QUIET},{filter}"))?.add_directive("lapin=off".parse()?);
    let layer = fmt::layer().with_writer(std::io::stderr);
    // On a terminal NO_COLOR decides; in a file colours are dirt.
    let layer = if std::io::stderr().is_terminal() { layer } else { layer.with_ansi(false) };
    let registry = tracing_subscriber::registry().with(filter);
    match format {
        LogFormat::Pretty => registry.with(layer).try_init()?,
        LogFormat::Json => registry.with(layer.json().flatten_event(true).with_span_list(false)).try_init()?,
    }
    let metrics = Metrics(builder()?.install_recorder()?);
    describe();
    Ok(metrics)
}

impl Metrics {
    /// Metrics that nobody records to. For tests.
    ///
    /// # Panics
    /// If a name cannot be used.
    pub fn detached() -> Self {
        Self(builder().expect("our names can be used").build_recorder().handle())
    }

    /// The Prometheus text format.
    pub fn render(&self) -> String {
        self.0.render()
    }

    /// Keeps the memory of distributions bounded until the process stops.
    pub fn keep_up(&self, life: &Lifecycle) {
        let (handle, stopping) = (self.0.clone(), life.token());
        life.spawn(async move {
            let mut every = tokio::time::interval(Duration::from_secs(5));
            while stopping.run_until_cancelled(every.tick()).await.is_some() {
                handle.run_upkeep();
            }
        });
    }
}

fn builder() -> Result<PrometheusBuilder, BuildError> {
    let mut builder = PrometheusBuilder::new().with_recommended_naming(true);
    for metric in names::ALL {
        if let Kind::Histogram(bounds) = metric.kind {
            builder = builder.set_buckets_for_metric(Matcher::Full(metric.name.to_owned()), bounds)?;
        }
    }
    // A histogram that is not in the table is rendered with buckets too: summaries cannot be added up over processes.
    builder.set_buckets(names::SECONDS)
}

fn describe() {
    for Metric { name, kind, help } in names::ALL {
        let (name, help) = (*name, help.trim());
        let unit = if name.ends_with("_seconds") { Unit::Seconds } else { Unit::Count };
        match kind {
            Kind::Counter => metrics::describe_counter!(name, help),
            Kind::Gauge => metrics::describe_gauge!(name, help),
            Kind::Histogram(_) if unit == Unit::Seconds => metrics::describe_histogram!(name, unit, help),
            Kind::Histogram(_) => metrics::describe_histogram!(name, help),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_rendered_carries_our_names_as_they_are() {
        let recorder = builder().unwrap().build_recorder();
        let handle = recorder.handle();
        metrics::with_local_recorder(&recorder, || {
            describe();
            metrics::counter!(names::JOBS_TOTAL, "verdict" => "done").increment(2);
            metrics::histogram!(names::JOB_PERFORM_SECONDS).record(0.003);
            metrics::histogram!(names::BATCH_EFFECTS).record(7.0);
        });
        let text = handle.render();
        assert!(text.contains("mijra_jobs_total{verdict=\"done\"} 2"), "{text}");
        assert!(text.contains("mijra_job_perform_seconds_bucket{le=\"0.005\"} 1"), "{text}");
        assert!(text.contains("mijra_batch_effects_bucket{le=\"10\"} 1"), "{text}");
    }
}
