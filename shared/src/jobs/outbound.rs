//! Jobs of `outbound.now`: one message each; and of `outbound.bulk`: slices of a campaign.

use super::{Job, Undecodable};
use crate::domain::{
    ids::{AttemptId, ChannelAccountId, ConversationId, MessageId, TenantId},
    outcome::Aftermath,
};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// The newest version this release writes and reads. What a person decides came with version 2, what follows from reports
/// with version 3; all else is as in version 1.
pub const VERSION: u16 = 3;

/// What is to be done with a send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// Hand it to the provider.
    Send,
    /// It is `unknown`: 30 s have passed, let the next of the conversation go.
    ReleaseTurn,
    /// It is `unknown`: the time for evidence is over, hold it or send it again.
    Settle,
    /// It is held, and a person has decided.
    Decide(Decision),
    /// It has failed, and a person wants it tried again.
    Retry,
    /// It was reported as failed for a reason that passes, and is sent anew.
    SendAnew {
        /// Unless it is at another attempt meanwhile.
        attempt_id: AttemptId,
        /// Whether it may have arrived all the same.
        in_doubt: bool,
    },
}

/// What a person decides about a send of which nobody knows whether it arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// It arrived.
    Sent,
    /// It did not, and is not to be sent any more.
    Failed,
    /// It is sent again, whether it arrived or not: it is then shown as possibly doubled.
    Resend,
}

impl Task {
    /// The kind of its job.
    pub(crate) fn kind(self) -> &'static str {
        match self {
            Task::Send => "outbound.send",
            Task::ReleaseTurn => "outbound.release_turn",
            Task::Settle => "outbound.settle",
            Task::Decide(_) => "outbound.decide",
            Task::Retry => "outbound.retry",
            Task::SendAnew { .. } => "outbound.send_anew",
        }
    }

    fn version(self) -> u16 {
        match self {
            Task::Send | Task::ReleaseTurn | Task::Settle => 1,
            Task::Decide(_) | Task::Retry => 2,
            Task::SendAnew { .. } => 3,
        }
    }
}

/// One message's job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OutboundJob {
    /// Whose it is.
    pub tenant_id: TenantId,
    /// Which message.
    pub message_id: MessageId,
    /// From which account, where it is known: a worker then need not ask for what it has no room for.
    pub account: Option<ChannelAccountId>,
    /// What to do.
    pub task: Task,
}

#[derive(Serialize, Deserialize)]
struct Payload {
    message_id: MessageId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    account: Option<ChannelAccountId>,
    task: Task,
}

/// What a person is told beside messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SignalKind {
    /// That what they wrote is read.
    Read,
    /// That an answer is being written.
    Typing,
}

/// Something to tell a person beside messages. It is lost if it is late: nothing depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SignalJob {
    /// Whose conversation.
    pub tenant_id: TenantId,
    /// Which.
    pub conversation_id: ConversationId,
    /// What.
    pub signal: SignalKind,
    /// When it was asked for.
    pub at: DateTime<Utc>,
}

#[derive(Serialize, Deserialize)]
struct SignalPayload {
    conversation_id: ConversationId,
    signal: SignalKind,
}

impl SignalJob {
    /// The kind of its jobs.
    pub const KIND: &'static str = "outbound.signal";

    /// As a job for the queue.
    pub fn to_job(&self) -> Job {
        let payload = SignalPayload { conversation_id: self.conversation_id, signal: self.signal };
        let body = serde_json::to_vec(&payload).expect("plain fields are always JSON");
        Job::new(Self::KIND, 2, Some(self.tenant_id), self.at, body)
    }

    /// From a job.
    ///
    /// # Errors
    /// As [`OutboundJob::from_job`].
    pub fn from_job(job: &Job) -> Result<Self, Undecodable> {
        let (tenant_id, SignalPayload { conversation_id, signal }) = read(job)?;
        Ok(Self { tenant_id, conversation_id, signal, at: job.headers.created_at })
    }
}

/// A report has told that a message failed, with a code that leads to more than that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AftermathJob {
    /// Whose it is.
    pub tenant_id: TenantId,
    /// Which message.
    pub message_id: MessageId,
    /// The attempt that failed, and what is known of it.
    pub failed: FailedAttempt,
    /// What follows.
    pub aftermath: Aftermath,
}

/// An attempt that the provider had taken and then reported as failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedAttempt {
    /// Which.
    pub attempt_id: AttemptId,
    /// From which account.
    pub account: ChannelAccountId,
    /// In which conversation.
    pub conversation_id: ConversationId,
    /// When it was made: the code says nothing about what has changed since.
    pub granted_at: DateTime<Utc>,
    /// The provider's code.
    pub code: String,
    /// What it means.
    pub reason: String,
}

#[derive(Serialize, Deserialize)]
struct AftermathPayload {
    message_id: MessageId,
    failed: FailedAttempt,
    aftermath: Aftermath,
}

impl AftermathJob {
    /// The kind of its jobs.
    pub const KIND: &'static str = "outbound.aftermath";

    /// As a job for the queue.
    pub fn to_job(&self, now: DateTime<Utc>) -> Job {
        let Self { message_id, failed, aftermath, .. } = self.clone();
        let body = serde_json::to_vec(&AftermathPayload { message_id, failed, aftermath });
        Job::new(Self::KIND, 3, Some(self.tenant_id), now, body.expect("plain fields are always JSON"))
    }

    /// From a job.
    ///
    /// # Errors
    /// As [`OutboundJob::from_job`].
    pub fn from_job(job: &Job) -> Result<Self, Undecodable> {
        let (tenant_id, AftermathPayload { message_id, failed, aftermath }) = read(job)?;
        Ok(Self { tenant_id, message_id, failed, aftermath })
    }
}

/// As many messages of a campaign make one job at most.
pub const SLICE: usize = 50;

/// Some messages of one account that are to be handed over, each whenever it may go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboundSlice {
    /// Whose they are.
    pub tenant_id: TenantId,
    /// From which account.
    pub account: ChannelAccountId,
    /// Which; 1 to [`SLICE`].
    pub message_ids: Vec<MessageId>,
}

#[derive(Serialize, Deserialize)]
struct SlicePayload {
    account: ChannelAccountId,
    message_ids: Vec<MessageId>,
}

impl OutboundJob {
    /// As a job for the queue.
    pub fn to_job(&self, now: DateTime<Utc>) -> Job {
        let body = serde_json::to_vec(&Payload { message_id: self.message_id, account: self.account, task: self.task });
        let body = body.expect("plain fields are always JSON");
        Job::new(self.task.kind(), self.task.version(), Some(self.tenant_id), now, body)
    }

    /// From a job.
    ///
    /// # Errors
    /// [`Undecodable::NotYet`] for a newer version; [`Undecodable::Broken`] for anything else that cannot be read.
    pub fn from_job(job: &Job) -> Result<Self, Undecodable> {
        let (tenant_id, Payload { message_id, account, task }) = read(job)?;
        Ok(Self { tenant_id, message_id, account, task })
    }
}

impl OutboundSlice {
    /// The kind of its jobs.
    pub const KIND: &'static str = "outbound.slice";

    /// As a job for the queue.
    pub fn to_job(&self, now: DateTime<Utc>) -> Job {
        let payload = SlicePayload { account: self.account, message_ids: self.message_ids.clone() };
        let body = serde_json::to_vec(&payload).expect("plain fields are always JSON");
        Job::new(Self::KIND, 1, Some(self.tenant_id), now, body)
    }

    /// From a job.
    ///
    /// # Errors
    /// As [`OutboundJob::from_job`].
    pub fn from_job(job: &Job) -> Result<Self, Undecodable> {
        let (tenant_id, SlicePayload { account, message_ids }) = read(job)?;
        if message_ids.is_empty() || message_ids.len() > SLICE {
            return Err(Undecodable::Broken(format!("{} messages; 1 to {SLICE} make a slice", message_ids.len())));
        }
        Ok(Self { tenant_id, account, message_ids })
    }
}

fn read<P: DeserializeOwned>(job: &Job) -> Result<(TenantId, P), Undecodable> {
    if job.headers.version > VERSION {
        return Err(Undecodable::NotYet { found: job.headers.version, known: VERSION });
    }
    let tenant_id = job.headers.tenant.ok_or_else(|| Undecodable::Broken("the tenant header is missing".into()))?;
    let payload = serde_json::from_slice(&job.body).map_err(|error| Undecodable::Broken(error.to_string()))?;
    Ok((tenant_id, payload))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job() -> OutboundJob {
        OutboundJob {
            tenant_id: TenantId::new(),
            message_id: MessageId::new(),
            account: Some(ChannelAccountId::new()),
            task: Task::Settle,
        }
    }

    #[test]
    fn a_job_comes_back_as_it_went() {
        let (job, now) = (job(), DateTime::UNIX_EPOCH);
        assert_eq!(OutboundJob::from_job(&job.to_job(now)).ok(), Some(job));
    }

    #[test]
    fn what_earlier_releases_know_stays_readable_for_them() {
        let of = |task| OutboundJob { task, ..job() }.to_job(DateTime::UNIX_EPOCH);
        let version = |task| of(task).headers.version;
        assert_eq!([version(Task::Send), version(Task::Retry), version(Task::Decide(Decision::Sent))], [1, 2, 2]);
        let body = of(Task::Settle).body;
        assert!(std::str::from_utf8(&body).unwrap().contains(r#""task":"settle""#));
        let anew = Task::SendAnew { attempt_id: AttemptId::new(), in_doubt: true };
        assert_eq!(version(anew), 3);
        for task in [Task::Decide(Decision::Resend), Task::Retry, anew] {
            assert_eq!(OutboundJob::from_job(&of(task)).unwrap().task, task);
        }
    }

    #[test]
    fn what_follows_from_a_report_comes_back_as_it_went() {
        let job = AftermathJob {
            tenant_id: TenantId::new(),
            message_id: MessageId::new(),
            failed: FailedAttempt {
                attempt_id: AttemptId::new(),
                account: ChannelAccountId::new(),
                conversation_id: ConversationId::new(),
                granted_at: DateTime::UNIX_EPOCH,
                code: "30003".into(),
                reason: "It is switched off.".into(),
            },
            aftermath: Aftermath::Again { times: 2, after_seconds: 7200, in_doubt: false },
        };
        let sent = job.to_job(DateTime::UNIX_EPOCH);
        assert_eq!(sent.headers.version, 3);
        let golden = r#""aftermath":{"is":"again","times":2,"after_seconds":7200,"in_doubt":false}"#;
        assert!(std::str::from_utf8(&sent.body).unwrap().contains(golden));
        assert_eq!(AftermathJob::from_job(&sent).ok(), Some(job));
    }

    #[test]
    fn a_newer_version_waits_and_a_broken_one_does_not() {
        let mut newer = job().to_job(DateTime::UNIX_EPOCH);
        newer.headers.version = VERSION + 1;
        assert!(matches!(OutboundJob::from_job(&newer), Err(Undecodable::NotYet { .. })));
        let mut broken = job().to_job(DateTime::UNIX_EPOCH);
        broken.body = "{".into();
        assert!(matches!(OutboundJob::from_job(&broken), Err(Undecodable::Broken(_))));
        let mut stranger = job().to_job(DateTime::UNIX_EPOCH);
        stranger.headers.tenant = None;
        assert!(matches!(OutboundJob::from_job(&stranger), Err(Undecodable::Broken(_))));
    }

    #[test]
    fn a_slice_comes_back_as_it_went_and_has_a_size() {
        let slice = |count: usize| OutboundSlice {
            tenant_id: TenantId::new(),
            account: ChannelAccountId::new(),
            message_ids: (0..count).map(|_| MessageId::new()).collect(),
        };
        for count in [1, SLICE] {
            let slice = slice(count);
            assert_eq!(OutboundSlice::from_job(&slice.to_job(DateTime::UNIX_EPOCH)).ok(), Some(slice));
        }
        for count in [0, SLICE + 1] {
            let job = slice(count).to_job(DateTime::UNIX_EPOCH);
            assert!(matches!(OutboundSlice::from_job(&job), Err(Undecodable::Broken(_))), "{count} messages");
        }
    }

    #[test]
    fn version_1_as_it_was_written_is_still_read() {
        let golden = r#"{"message_id":"01936f5e-3c00-7000-8000-000000000001","task":"send"}"#;
        let mut job = job().to_job(DateTime::UNIX_EPOCH);
        job.body = golden.into();
        assert_eq!(OutboundJob::from_job(&job).map(|j| j.task).ok(), Some(Task::Send));
    }
}
