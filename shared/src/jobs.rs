//! What travels on queues. A [`Job`] is a payload with the headers every job has; the payload types of each kind of work
//! stand in the modules below, each with its version. Payloads stay readable one release back: a newer version than ours is
//! not an error of the job, it waits for a newer worker (golden files hold old payloads).

pub mod campaign;
pub mod inbound;
pub mod media;
pub mod outbound;

use crate::{
    domain::ids::{JobId, TenantId},
    telemetry::TraceContext,
};
use bytes::Bytes;
use chrono::{DateTime, Utc};

/// One job, ready to be published or as it was received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// Its identity (`message_id` on the broker). A retry is a new delivery of the same job and keeps it.
    pub id: JobId,
    /// What kind of payload (`type` on the broker), e.g. `outbound.send`.
    pub kind: String,
    /// The headers that every job has.
    pub headers: Headers,
    /// The payload.
    pub body: Bytes,
}

/// What every job says about itself outside its payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Headers {
    /// The payload's version.
    pub version: u16,
    /// The tenant, where the job belongs to one.
    pub tenant: Option<TenantId>,
    /// How many times it has been tried and charged with the failure; 0 at first.
    pub attempt: u32,
    /// W3C trace context (`traceparent`), where the work that caused it was traced.
    pub traceparent: Option<String>,
    /// When the job was first published (`timestamp` on the broker, whole seconds): bounds its age across retries.
    pub created_at: DateTime<Utc>,
    /// The first error, on a retry and in the dead-letter queue.
    pub first_error: Option<String>,
    /// The last error, on a retry; the reason, in the dead-letter queue.
    pub last_error: Option<String>,
}

impl Job {
    /// A new job.
    pub fn new(kind: &str, version: u16, tenant: Option<TenantId>, now: DateTime<Utc>, body: impl Into<Bytes>) -> Self {
        Self {
            id: JobId::new(),
            kind: kind.to_owned(),
            headers: Headers {
                version,
                tenant,
                attempt: 0,
                traceparent: None,
                created_at: now,
                first_error: None,
                last_error: None,
            },
            body: body.into(),
        }
    }

    /// The same job, as part of a trace.
    #[must_use]
    pub fn traced(mut self, trace: TraceContext) -> Self {
        self.headers.traceparent = Some(trace.to_string());
        self
    }

    /// The same job, charged with a failure.
    pub fn charged(mut self, error: &str) -> Self {
        self.headers.attempt += 1;
        self.headers.first_error.get_or_insert_with(|| error.to_owned());
        self.headers.last_error = Some(error.to_owned());
        self
    }
}

/// Why a delivery could not be turned into a job's payload.
#[derive(Debug, thiserror::Error)]
pub enum Undecodable {
    /// Written by a newer release: it comes back later, never dead.
    #[error("payload version {found} is newer than {known}, the newest this release knows")]
    NotYet {
        /// The version found.
        found: u16,
        /// The newest version known.
        known: u16,
    },
    /// Can never be read: dead-letter.
    #[error("unreadable payload: {0}")]
    Broken(String),
}
