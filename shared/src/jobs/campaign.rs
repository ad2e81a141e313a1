//! Jobs of `campaign`: one step of a campaign each. Where a step has more to do than fits a transaction, it says in the next
//! job where to go on, so that a job that comes twice does nothing twice.

use super::{Job, Undecodable};
use crate::domain::ids::{CampaignId, ChannelAccountId, ContactId, MessageId, TenantId};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// The newest version this release writes and reads.
pub const VERSION: u16 = 1;

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "task", rename_all = "snake_case")]
pub enum Task {
    /// Freeze the next people of an audience.
    Freeze {
        /// Whose.
        campaign_id: CampaignId,
        /// Those up to here are frozen.
        after: Option<ContactId>,
    },
    /// Let as many people go as an account's rate asks for, of all campaigns that run on it.
    Release {
        /// Which account.
        account: ChannelAccountId,
    },
    /// It goes on: what waited for that is queued again.
    Wake {
        /// Which campaign.
        campaign_id: CampaignId,
        /// People from here on have been looked at: it goes from the last to the first.
        before: Option<ContactId>,
    },
    /// An account can send again: what waited for that is queued again, campaigns' messages and others.
    WakeAccount {
        /// Which account.
        account: ChannelAccountId,
        /// Sends up to here have been looked at.
        after: Option<MessageId>,
    },
    /// It was cancelled: so is all of it that has not gone out.
    Cancel {
        /// Which campaign.
        campaign_id: CampaignId,
        /// People from here on have been dealt with: it goes from the last to the first.
        before: Option<ContactId>,
    },
    /// Who had failed is tried again.
    Retry {
        /// Which campaign.
        campaign_id: CampaignId,
        /// People from here on have been looked at: it goes from the last to the first.
        before: Option<ContactId>,
    },
    /// It has ended: hold its books against each other.
    Check {
        /// Which campaign.
        campaign_id: CampaignId,
    },
}

/// One step of a tenant's campaign.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CampaignJob {
    /// Whose it is.
    pub tenant_id: TenantId,
    /// What to do.
    pub task: Task,
}

impl Task {
    fn kind(self) -> &'static str {
        match self {
            Task::Freeze { .. } => "campaign.freeze",
            Task::Release { .. } => "campaign.release",
            Task::Wake { .. } => "campaign.wake",
            Task::WakeAccount { .. } => "campaign.wake_account",
            Task::Cancel { .. } => "campaign.cancel",
            Task::Retry { .. } => "campaign.retry",
            Task::Check { .. } => "campaign.check",
        }
    }
}

impl CampaignJob {
    /// As a job for the queue.
    pub fn to_job(&self, now: DateTime<Utc>) -> Job {
        let body = serde_json::to_vec(&self.task).expect("plain fields are always JSON");
        Job::new(self.task.kind(), VERSION, Some(self.tenant_id), now, body)
    }

    /// From a job.
    ///
    /// # Errors
    /// [`Undecodable::NotYet`] for a newer version; [`Undecodable::Broken`] for anything else that cannot be read.
    pub fn from_job(job: &Job) -> Result<Self, Undecodable> {
        if job.headers.version > VERSION {
            return Err(Undecodable::NotYet { found: job.headers.version, known: VERSION });
        }
        let tenant_id = job.headers.tenant.ok_or_else(|| Undecodable::Broken("the tenant header is missing".into()))?;
        let task = serde_json::from_slice(&job.body).map_err(|error| Undecodable::Broken(error.to_string()))?;
        Ok(Self { tenant_id, task })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(task: Task) -> CampaignJob {
        CampaignJob { tenant_id: TenantId::new(), task }
    }

    #[test]
    fn a_job_comes_back_as_it_went() {
        let (campaign_id, contact) = (CampaignId::new(), Some(ContactId::new()));
        for task in [
            Task::Freeze { campaign_id, after: None },
            Task::Freeze { campaign_id, after: contact },
            Task::Release { account: ChannelAccountId::new() },
            Task::Wake { campaign_id, before: contact },
            Task::Cancel { campaign_id, before: contact },
            Task::Retry { campaign_id, before: contact },
            Task::Check { campaign_id },
        ] {
            let job = job(task);
            assert_eq!(CampaignJob::from_job(&job.to_job(DateTime::UNIX_EPOCH)).ok(), Some(job));
        }
    }

    #[test]
    fn a_newer_version_waits_and_a_broken_one_does_not() {
        let good = job(Task::Check { campaign_id: CampaignId::new() }).to_job(DateTime::UNIX_EPOCH);
        let mut newer = good.clone();
        newer.headers.version = VERSION + 1;
        assert!(matches!(CampaignJob::from_job(&newer), Err(Undecodable::NotYet { .. })));
        let mut stranger = good.clone();
        stranger.headers.tenant = None;
        assert!(matches!(CampaignJob::from_job(&stranger), Err(Undecodable::Broken(_))));
        let mut broken = good;
        broken.body = r#"{"task":"dance"}"#.into();
        assert!(matches!(CampaignJob::from_job(&broken), Err(Undecodable::Broken(_))));
    }

    #[test]
    fn version_1_as_it_was_written_is_still_read() {
        let id = "01936f5e-3c00-7000-8000-000000000001";
        let campaign_id = id.parse().unwrap();
        for (golden, expected) in [
            (
                format!(r#"{{"task":"freeze","campaign_id":"{id}","after":null}}"#),
                Task::Freeze { campaign_id, after: None },
            ),
            (
                format!(r#"{{"task":"retry","campaign_id":"{id}","before":"{id}"}}"#),
                Task::Retry { campaign_id, before: id.parse().ok() },
            ),
            (format!(r#"{{"task":"release","account":"{id}"}}"#), Task::Release { account: id.parse().unwrap() }),
        ] {
            let mut job = job(Task::Check { campaign_id }).to_job(DateTime::UNIX_EPOCH);
            job.body = golden.into();
            assert_eq!(CampaignJob::from_job(&job).map(|job| job.task).ok(), Some(expected));
        }
    }
}
