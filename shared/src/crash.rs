//! Named places at which a process aborts, and marked payloads that kill whoever performs them, for fault tests. Without the
//! feature `crash-points` this compiles to nothing.

/// The places, in the order a message passes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CrashPoint {
    /// The receiver has its confirm, the webhook is not answered yet.
    ApiAfterConfirm,
    /// An API request has committed, its outbox row is not published yet.
    ApiAfterCommitBeforePublish,
    /// The inbound batch has committed, its outbox is not published yet.
    InboundAfterCommit,
    /// Everything is done but the acknowledgement.
    InboundBeforeAck,
    /// Sends are claimed, the provider is not called yet.
    OutboundAfterClaim,
    /// The provider has answered, nothing is recorded yet.
    OutboundAfterCall,
    /// The outcomes are applied, not committed.
    OutboundBeforeCommit,
    /// The outcomes are committed, the jobs not acknowledged.
    OutboundAfterCommit,
    /// Part of a chunk of people, or of a release, is written, nothing is committed.
    CampaignMidChunk,
    /// A release, or another step that leads to jobs, has committed; these are not published yet.
    CampaignAfterRelease,
    /// A file is in storage, nothing is recorded.
    MediaAfterStore,
    /// What became of files is committed, the jobs are not acknowledged.
    MediaAfterCommit,
    /// The sweep has published due rows, they are not deleted yet.
    SchedulerAfterPublishBeforeDelete,
}

impl CrashPoint {
    /// All of them.
    pub const ALL: &'static [CrashPoint] = &[
        CrashPoint::ApiAfterConfirm,
        CrashPoint::ApiAfterCommitBeforePublish,
        CrashPoint::InboundAfterCommit,
        CrashPoint::InboundBeforeAck,
        CrashPoint::OutboundAfterClaim,
        CrashPoint::OutboundAfterCall,
        CrashPoint::OutboundBeforeCommit,
        CrashPoint::OutboundAfterCommit,
        CrashPoint::CampaignMidChunk,
        CrashPoint::CampaignAfterRelease,
        CrashPoint::MediaAfterStore,
        CrashPoint::MediaAfterCommit,
        CrashPoint::SchedulerAfterPublishBeforeDelete,
    ];

    /// The name in `MIJRA_CRASH_POINT`.
    pub fn as_str(self) -> &'static str {
        match self {
            CrashPoint::ApiAfterConfirm => "api.after_confirm",
            CrashPoint::ApiAfterCommitBeforePublish => "api.after_commit_before_publish",
            CrashPoint::InboundAfterCommit => "inbound.after_commit",
            CrashPoint::InboundBeforeAck => "inbound.before_ack",
            CrashPoint::OutboundAfterClaim => "outbound.after_claim",
            CrashPoint::OutboundAfterCall => "outbound.after_call",
            CrashPoint::OutboundBeforeCommit => "outbound.before_commit",
            CrashPoint::OutboundAfterCommit => "outbound.after_commit",
            CrashPoint::CampaignMidChunk => "campaign.mid_chunk",
            CrashPoint::CampaignAfterRelease => "campaign.after_release",
            CrashPoint::MediaAfterStore => "media.after_store",
            CrashPoint::MediaAfterCommit => "media.after_commit",
            CrashPoint::SchedulerAfterPublishBeforeDelete => "scheduler.after_publish_before_delete",
        }
    }
}

/// Aborts the process if `MIJRA_CRASH_POINT` is `<this point>:<n>` and this is its nth pass.
#[cfg(feature = "crash-points")]
pub fn pass(point: CrashPoint) {
    use std::sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    };
    #[allow(clippy::disallowed_methods, reason = "a switch of fault tests, not a setting")]
    static ARMED: LazyLock<Option<(String, u64)>> = LazyLock::new(|| {
        let text = std::env::var("MIJRA_CRASH_POINT").ok()?;
        let (name, nth) = text.rsplit_once(':')?;
        Some((name.to_owned(), nth.parse().ok()?))
    });
    static PASSES: AtomicU64 = AtomicU64::new(0);
    let Some((name, nth)) = ARMED.as_ref() else { return };
    if name == point.as_str() && PASSES.fetch_add(1, Ordering::Relaxed) + 1 == *nth {
        tracing::error!(point = name, "crash point reached, aborting");
        std::process::abort();
    }
}

/// Does nothing: the feature `crash-points` is off.
#[cfg(not(feature = "crash-points"))]
#[inline(always)]
pub fn pass(_point: CrashPoint) {}

/// A payload that holds the text of `MIJRA_POISON` kills who performs it, each time: `abort:<text>` the process,
/// `panic:<text>` the task. Unlike [`pass`] this follows the job through redeliveries and restarts.
///
/// # Panics
/// If told to.
#[cfg(feature = "crash-points")]
pub fn taste(payload: &[u8]) {
    use std::sync::LazyLock;
    #[allow(clippy::disallowed_methods, reason = "a switch of fault tests, not a setting")]
    static POISON: LazyLock<Option<(bool, String)>> = LazyLock::new(|| {
        let text = std::env::var("MIJRA_POISON").ok()?;
        let (how, mark) = text.split_once(':')?;
        (!mark.is_empty()).then(|| (how == "abort", mark.to_owned()))
    });
    let Some((abort, mark)) = POISON.as_ref() else { return };
    if !payload.windows(mark.len()).any(|part| part == mark.as_bytes()) {
        return;
    }
    if *abort {
        tracing::error!("poisoned payload, aborting");
        std::process::abort();
    }
    panic!("poisoned payload");
}

/// Does nothing: the feature `crash-points` is off.
#[cfg(not(feature = "crash-points"))]
#[inline(always)]
pub fn taste(_payload: &[u8]) {}
