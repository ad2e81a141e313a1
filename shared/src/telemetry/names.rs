//! Every metric's name, kind, help and buckets. No ids as labels: what a label can be is said in the help.

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// A distribution over these upper bounds.
    Histogram(&'static [f64]),
}

/// One metric.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Its name, unit included.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// What it says.
    pub help: &'static str,
}

/// Durations of what we do ourselves.
pub const SECONDS: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];
/// Ages of jobs: from at once to a day in a backlog.
pub const AGES: &[f64] =
    &[0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 43_200.0, 86_400.0];
/// Sizes of batches.
pub const SIZES: &[f64] = &[1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0];

macro_rules! metrics {
    ($($(#[doc = $help:literal])+ $kind:expr, $constant:ident = $name:literal;)+) => {
        $($(#[doc = $help])+ pub const $constant: &str = $name;)+

        /// All of them.
        pub const ALL: &[Metric] = &[$(Metric { name: $name, kind: $kind, help: concat!($($help),+) }),+];
    };
}

use Kind::{Counter, Gauge, Histogram};

metrics! {
    /// Requests to the API, by `method`, `path` (the route) and `status`.
    Counter, HTTP_REQUESTS_TOTAL = "mijra_http_requests_total";
    /// Time to answer a request to the API, by `method` and `path` (the route).
    Histogram(SECONDS), HTTP_REQUEST_SECONDS = "mijra_http_request_seconds";
    /// Webhooks, by `provider` and `outcome` (accepted, bad_signature, too_large, unreadable, unknown_endpoint, unavailable).
    Counter, WEBHOOKS_TOTAL = "mijra_webhooks_total";
    /// Time from a webhook's headers to the answer that it is stored, by `provider`.
    Histogram(SECONDS), WEBHOOK_SECONDS = "mijra_webhook_seconds";
    /// Wrongly signed webhooks that were not kept because there were too many.
    Counter, QUARANTINE_DROPPED_TOTAL = "mijra_quarantine_dropped_total";
    /// Requests whose rate was decided by this process alone because Redis was away.
    Counter, RATE_LIMIT_LOCAL_TOTAL = "mijra_rate_limit_local_total";
    /// What providers told of accounts and templates, by `kind` (quality, throughput, messaging_limit, down, up, alert, template).
    Counter, INBOUND_NEWS_TOTAL = "mijra_inbound_news_total";
    /// Events about people who had been erased since, which were not stored.
    Counter, INBOUND_ERASED_TOTAL = "mijra_inbound_erased_total";
    /// Jobs settled, by `worker`, `queue` and `verdict` (done, later, retry, reject, divide, undecodable, not_yet, panicked, dropped).
    Counter, JOBS_TOTAL = "mijra_jobs_total";
    /// Time from the start of a job to its verdict, by `worker` and `queue`.
    Histogram(SECONDS), JOB_PERFORM_SECONDS = "mijra_job_perform_seconds";
    /// Time to apply a batch of effects in its transaction, by `worker`.
    Histogram(SECONDS), JOB_APPLY_SECONDS = "mijra_job_apply_seconds";
    /// Time to write the outbox and commit a batch, by `worker`.
    Histogram(SECONDS), JOB_COMMIT_SECONDS = "mijra_job_commit_seconds";
    /// Jobs started and not acknowledged yet, by `worker`.
    Gauge, JOBS_IN_FLIGHT = "mijra_jobs_in_flight";
    /// Age of a job at its receipt, by `worker` and `queue`: the head of the queue as consumers see it.
    Histogram(AGES), JOB_AGE_SECONDS = "mijra_job_age_seconds";
    /// Effects in a batch, by `worker`.
    Histogram(SIZES), BATCH_EFFECTS = "mijra_batch_effects";
    /// 1 while no new deliveries are taken, by `reason` (database, broker).
    Gauge, RUNTIME_PAUSED = "mijra_runtime_paused";
    /// Jobs and parts of jobs sent to dead letters, by `queue` and `reason` (rejected, exhausted, undecodable, data, part).
    Counter, DEAD_LETTERED_TOTAL = "mijra_dead_lettered_total";
    /// Transactions that had to be done again, by `worker` and `cause` (ours, contention, data, panic, too_much).
    Counter, COMMIT_RETRIES_TOTAL = "mijra_commit_retries_total";
    /// Jobs held longer than five minutes and put back, by `worker`.
    Counter, JOBS_OVERDUE_TOTAL = "mijra_jobs_overdue_total";
    /// Deliveries taken alone because they were delivered three times or more, by `worker` and `queue`.
    Counter, JOBS_ALONE_TOTAL = "mijra_jobs_alone_total";
    /// Jobs replaced by their parts: they brought their process down, panicked, or were too large; by `worker` and `queue`.
    Counter, JOBS_DIVIDED_TOTAL = "mijra_jobs_divided_total";
    /// Sessions with the broker that were lost, by `worker`.
    Counter, SESSIONS_LOST_TOTAL = "mijra_sessions_lost_total";
    /// Parts of webhooks for an account that nobody has.
    Counter, INBOUND_UNROUTABLE = "mijra_inbound_unroutable_total";
    /// Messages of a kind that we do not know, stored as such with what came, by `provider`.
    Counter, INBOUND_UNSUPPORTED = "mijra_inbound_unsupported_total";
    /// Sends held by this worker that wait for a grant.
    Gauge, OUTBOUND_HELD = "mijra_outbound_held";
    /// Time to ask for grants.
    Histogram(SECONDS), OUTBOUND_GRANT_SECONDS = "mijra_outbound_grant_seconds";
    /// Sends granted.
    Counter, OUTBOUND_GRANTED = "mijra_outbound_granted_total";
    /// Time of a call to a provider, by `provider`.
    Histogram(SECONDS), PROVIDER_CALL_SECONDS = "mijra_provider_call_seconds";
    /// Calls to providers, by `provider` and `outcome` (accepted, not_sent, unknown, failed, needs_template, account_down).
    Counter, PROVIDER_CALLS = "mijra_provider_calls_total";
    /// Files uploaded to be sent, by `provider` and `outcome` (uploaded, refused, not_here, broken_off).
    Counter, PROVIDER_UPLOADS = "mijra_provider_uploads_total";
    /// Read receipts and signs of writing, by provider and what became of each.
    Counter, PROVIDER_SIGNALS = "mijra_provider_signals_total";
    /// Campaigns that have ended and whose books do not agree.
    Counter, CAMPAIGN_BOOKS_WRONG = "mijra_campaign_books_wrong_total";
    /// Attempts at files of messages, by `provider` and `outcome` (stored, put_off, failed, refused, expired).
    Counter, MEDIA_FILES = "mijra_media_files_total";
    /// Accounts' templates asked for, by `provider` and `outcome` (fetched, failed).
    Counter, TEMPLATE_LISTS = "mijra_template_lists_total";
    /// Bytes of files stored, by `provider`.
    Counter, MEDIA_BYTES = "mijra_media_bytes_total";
    /// Webhooks published from the spill once the broker was back.
    Counter, SPILL_SWEPT = "mijra_spill_swept_total";
    /// Webhooks of the raw log that were published once more.
    Counter, WEBHOOKS_REPLAYED = "mijra_webhooks_replayed_total";
    /// Jobs published from the outbox by the sweep: due later, or left by a crash.
    Counter, OUTBOX_SWEPT = "mijra_outbox_swept_total";
    /// Rows that the sweep passed over because it cannot read them, each once a minute, by `table` (outbox, control_outbox, spill).
    Counter, SWEEP_UNREADABLE = "mijra_sweep_unreadable_total";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_say_their_unit() {
        let mut names: Vec<_> = ALL.iter().map(|metric| metric.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ALL.len());
        for Metric { name, kind, help } in ALL {
            assert!(name.starts_with("mijra_"), "{name}");
            assert_eq!(*kind == Counter, name.ends_with("_total"), "{name}");
            if let Histogram(bounds) = kind {
                assert!(bounds.is_sorted(), "{name}");
                assert_eq!(*bounds != SIZES, name.ends_with("_seconds"), "{name}");
            }
            assert!(help.trim().ends_with('.'), "{name}");
        }
    }
}
