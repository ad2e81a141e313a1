//! Jobs of `media`: one file to be fetched, one person to be asked about, an account's templates, one template to be
//! made or deleted, or some objects to be deleted. What there is to know of
//! them stands in rows; a job that comes twice finds the row done, or claimed.

use super::{Job, Undecodable};
use crate::domain::ids::{ChannelAccountId, ContactId, MediaId, TemplateId, TenantId};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// The newest version this release writes and reads.
pub const VERSION: u16 = 2;

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "task", rename_all = "snake_case")]
pub enum Task {
    /// Fetch a file from its provider and store it.
    Fetch {
        /// Which.
        media_id: MediaId,
        /// The account that received it, so that one with many leaves room for the others; unknown to earlier releases.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        channel_account_id: Option<ChannelAccountId>,
    },
    /// Ask a provider who a person is.
    Profile {
        /// Who.
        contact_id: ContactId,
    },
    /// Fetch the templates of an account, and of those that share them.
    Templates {
        /// Which asks.
        channel_account_id: ChannelAccountId,
    },
    /// Make a template at its provider.
    MakeTemplate {
        /// Which.
        template_id: TemplateId,
    },
    /// Delete a template at its provider.
    DeleteTemplate {
        /// Which.
        template_id: TemplateId,
    },
    /// Delete objects that nobody refers to.
    Delete {
        /// Their keys in storage.
        keys: Vec<String>,
    },
}

/// Something to be done for a tenant.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MediaJob {
    /// Whose it is.
    pub tenant_id: TenantId,
    /// What to do.
    pub task: Task,
}

impl Task {
    fn kind(&self) -> &'static str {
        match self {
            Task::Fetch { .. } => "media.fetch",
            Task::Profile { .. } => "media.profile",
            Task::Templates { .. } => "media.templates",
            Task::MakeTemplate { .. } => "media.make_template",
            Task::DeleteTemplate { .. } => "media.delete_template",
            Task::Delete { .. } => "media.delete",
        }
    }

    /// What an earlier release does not know waits there for one that does, instead of ending among the dead letters.
    fn version(&self) -> u16 {
        match self {
            Task::Templates { .. } | Task::MakeTemplate { .. } | Task::DeleteTemplate { .. } => 2,
            Task::Fetch { .. } | Task::Profile { .. } | Task::Delete { .. } => 1,
        }
    }
}

impl MediaJob {
    /// As a job for the queue.
    pub fn to_job(&self, now: DateTime<Utc>) -> Job {
        let body = serde_json::to_vec(&self.task).expect("plain fields are always JSON");
        Job::new(self.task.kind(), self.task.version(), Some(self.tenant_id), now, body)
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

    fn job(task: Task) -> MediaJob {
        MediaJob { tenant_id: TenantId::new(), task }
    }

    #[test]
    fn a_job_comes_back_as_it_went() {
        for task in [
            Task::Fetch { media_id: MediaId::new(), channel_account_id: None },
            Task::Fetch { media_id: MediaId::new(), channel_account_id: Some(ChannelAccountId::new()) },
            Task::Profile { contact_id: ContactId::new() },
            Task::Templates { channel_account_id: ChannelAccountId::new() },
            Task::MakeTemplate { template_id: TemplateId::new() },
            Task::DeleteTemplate { template_id: TemplateId::new() },
            Task::Delete { keys: vec!["tenant/1/2".to_owned()] },
        ] {
            let job = job(task);
            assert_eq!(MediaJob::from_job(&job.to_job(DateTime::UNIX_EPOCH)).ok(), Some(job));
        }
    }

    #[test]
    fn a_newer_version_waits_and_a_broken_one_does_not() {
        let good = job(Task::Fetch { media_id: MediaId::new(), channel_account_id: None }).to_job(DateTime::UNIX_EPOCH);
        let mut newer = good.clone();
        newer.headers.version = VERSION + 1;
        assert!(matches!(MediaJob::from_job(&newer), Err(Undecodable::NotYet { .. })));
        let mut stranger = good.clone();
        stranger.headers.tenant = None;
        assert!(matches!(MediaJob::from_job(&stranger), Err(Undecodable::Broken(_))));
        let mut broken = good;
        broken.body = r#"{"task":"dance"}"#.into();
        assert!(matches!(MediaJob::from_job(&broken), Err(Undecodable::Broken(_))));
    }

    #[test]
    fn only_what_earlier_releases_do_not_know_is_of_a_newer_version() {
        let version = |task| job(task).to_job(DateTime::UNIX_EPOCH).headers.version;
        assert_eq!(version(Task::Profile { contact_id: ContactId::new() }), 1);
        assert_eq!(version(Task::Templates { channel_account_id: ChannelAccountId::new() }), 2);
    }

    #[test]
    fn version_1_as_it_was_written_is_still_read() {
        let id = "01936f5e-3c00-7000-8000-000000000001";
        for (golden, expected) in [
            (
                format!(r#"{{"task":"fetch","media_id":"{id}"}}"#),
                Task::Fetch { media_id: id.parse().unwrap(), channel_account_id: None },
            ),
            (format!(r#"{{"task":"profile","contact_id":"{id}"}}"#), Task::Profile { contact_id: id.parse().unwrap() }),
            (r#"{"task":"delete","keys":["a/b"]}"#.to_owned(), Task::Delete { keys: vec!["a/b".to_owned()] }),
        ] {
            let mut job =
                job(Task::Fetch { media_id: MediaId::new(), channel_account_id: None }).to_job(DateTime::UNIX_EPOCH);
            job.body = golden.into();
            assert_eq!(MediaJob::from_job(&job).map(|job| job.task).ok(), Some(expected));
        }
    }
}
