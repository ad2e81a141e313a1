//! Files that a provider wants uploaded before a message can name them. Each is uploaded once for an account, whoever needs it, and
//! however many messages wait for it: in this process one task does it, among processes a row says whose turn it is. The bytes go
//! from storage to the provider as they come.
//!
//! Nobody waits here for long: a message whose grant would become too old gives it back and comes again.

use super::accounts::Account;
use futures_util::StreamExt;
use moka::sync::Cache;
use shared::{
    db::{
        Databases, Placement,
        files::{self, Claimed, Wanted},
    },
    domain::{
        ids::ChannelAccountId,
        outcome::{NotSent, Outcome},
    },
    lifecycle::Lifecycle,
    providers::http::{ProviderClient, Upload, Uploaded},
    retry,
    storage::{Reading, Storage},
    telemetry::names,
};
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{Semaphore, watch},
    time::Instant,
};

/// So many files are on their way to providers at once. Each has some pieces of itself in memory.
const AT_ONCE: usize = 16;
/// So many of one account, so that a slow provider or large files do not hold up all others.
const OF_AN_ACCOUNT: usize = 2;
/// The turns of an account that uploads nothing are forgotten after this time: no upload takes as long.
const ACCOUNT_IDLE: Duration = Duration::from_secs(60 * 60);
/// An upload takes so long at most, and so much longer for each MiB: 256 KiB a second are slow.
const WITHIN: Duration = Duration::from_secs(30);
const FOR_EACH_MIB: Duration = Duration::from_secs(4);
/// When nobody else may begin any more and we have long given up.
const AFTER_GIVING_UP: Duration = Duration::from_secs(10);
/// A message whose file is still on its way comes again after the time that it has been on its way, within these: a large file does not
/// cost its messages a grant every moment.
const SOONEST: Duration = Duration::from_secs(2);
const LATEST: Duration = Duration::from_secs(9);
/// Since when a file is on its way is forgotten when no message has come again for so long.
const NOBODY_CAME: Duration = Duration::from_secs(60);
/// What failed by our own fault is tried again after this time.
const OUR_FAULT: Duration = Duration::from_secs(10);
/// What came of an upload in vain is remembered for so long: who had given back their grant meanwhile is told of it when they come
/// again, and does not begin anew.
const REMEMBERED: Duration = Duration::from_secs(15);

/// Why a send's file is not with its provider.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NotUploaded {
    /// It is not done yet, or has failed and the send is not charged with that: it comes again after this time.
    Later(String, Duration),
    /// The provider did not take it.
    Refused(Outcome),
}

/// What became of an upload.
#[derive(Clone, Debug)]
enum End {
    /// The provider has it under this id.
    Kept(String),
    /// It is not done yet, here or by another process.
    NotYet,
    /// Our storage does not have it, or not here: the provider may try the link.
    NotHere,
    /// The storage or the database did not do what they should.
    OurFault(String),
    /// The provider did not take it; what that means for a message, and whether one has been charged with it.
    Refused(Outcome, Arc<AtomicBool>),
}

impl End {
    /// What it means for one of the messages that wait for it, `under_way` being for how long they have: the provider's id of the file,
    /// or none where our storage lacks it.
    fn meet(self, under_way: Duration) -> Result<Option<String>, NotUploaded> {
        match self {
            Self::Kept(id) => Ok(Some(id)),
            Self::NotHere => Ok(None),
            Self::NotYet => {
                let wait = retry::spread(under_way.clamp(SOONEST, LATEST));
                Err(NotUploaded::Later("its file is being uploaded".to_owned(), wait))
            }
            Self::OurFault(reason) => {
                tracing::warn!(reason, "a file could not be uploaded, the message waits");
                Err(NotUploaded::Later(reason, OUR_FAULT))
            }
            // What is wrong with the file is so in every message.
            Self::Refused(outcome @ Outcome::Failed { .. }, _) => Err(NotUploaded::Refused(outcome)),
            // All else is of one call, and counts once.
            Self::Refused(outcome, charged) if !charged.swap(true, Ordering::Relaxed) => {
                Err(NotUploaded::Refused(outcome))
            }
            Self::Refused(outcome, _) => {
                let wait = match outcome {
                    Outcome::NotSent(NotSent { retry_after: Some(retry_after), .. }) => retry_after,
                    _ => REMEMBERED,
                };
                Err(NotUploaded::Later("its file was refused a moment ago, with another message".to_owned(), wait))
            }
        }
    }
}

/// A file, and the revision of the account it is for: what one revision was refused with says nothing of the next.
type Key = (Wanted, i32);
type UnderWay = Arc<Mutex<HashMap<Key, watch::Receiver<Option<End>>>>>;

/// An upload among those under way, whatever its end.
struct Entry {
    of: UnderWay,
    key: Key,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.of.lock().expect("nothing panics while this is locked").remove(&self.key);
    }
}

/// Uploads files. Cheap to clone.
#[derive(Clone)]
pub(super) struct Uploads {
    databases: Databases,
    storage: Storage,
    client: ProviderClient,
    turns: Arc<Semaphore>,
    turns_of_account: Cache<ChannelAccountId, Arc<Semaphore>>,
    under_way: UnderWay,
    /// Since when messages wait for an upload, here or by another process.
    waited_for: Cache<Key, Instant>,
    /// What was in vain a moment ago.
    in_vain: Cache<Key, End>,
    life: Lifecycle,
}

impl Uploads {
    pub(super) fn new(databases: Databases, storage: Storage, client: ProviderClient, life: Lifecycle) -> Self {
        let in_vain = Cache::builder().max_capacity(10_000).time_to_live(REMEMBERED).build();
        let waited_for = Cache::builder().max_capacity(10_000).time_to_idle(NOBODY_CAME).build();
        let turns = Arc::new(Semaphore::new(AT_ONCE));
        let turns_of_account = Cache::builder().max_capacity(10_000).time_to_idle(ACCOUNT_IDLE).build();
        let under_way = Arc::default();
        Self { databases, storage, client, turns, turns_of_account, under_way, waited_for, in_vain, life }
    }

    /// Sees to it that an account's provider has a file, and waits for that until then. The provider's id of it, or none where our
    /// storage lacks it.
    pub(super) async fn upload(
        &self,
        placement: &Placement,
        account: &Arc<Account>,
        wanted: Wanted,
        until: Instant,
    ) -> Result<Option<String>, NotUploaded> {
        let key = (wanted, account.revision);
        if let Some(end) = self.in_vain.get(&key) {
            return end.meet(Duration::ZERO);
        }
        let since = self.waited_for.get_with(key, Instant::now);
        let mut end = self.begun(placement, account, key);
        let ended = tokio::time::timeout_at(until, end.wait_for(Option::is_some)).await;
        let end = match ended {
            Ok(Ok(end)) => end.clone().unwrap_or(End::NotYet),
            // The task or the process ended, and with it what was under way.
            Ok(Err(_)) | Err(_) => End::NotYet,
        };
        if !matches!(end, End::NotYet) {
            self.waited_for.invalidate(&key);
        }
        end.meet(since.elapsed())
    }

    /// The upload that is under way, or a new one.
    fn begun(&self, placement: &Placement, account: &Arc<Account>, key: Key) -> watch::Receiver<Option<End>> {
        let mut under_way = self.under_way.lock().expect("nothing panics while this is locked");
        if let Some(end) = under_way.get(&key) {
            return end.clone();
        }
        let (tell, end) = watch::channel(None);
        under_way.insert(key, end.clone());
        drop(under_way);
        let entry = Entry { of: self.under_way.clone(), key };
        let (uploads, placement, account, wanted) = (self.clone(), placement.clone(), account.clone(), key.0);
        self.life.spawn(async move {
            let end = uploads.run(&placement, &account, wanted).await;
            match &end {
                End::NotHere => {
                    tracing::error!(file = %wanted.2, "a file to be sent is not in this worker's storage (STORAGE_URL)");
                    uploads.in_vain.insert(key, end.clone());
                }
                End::OurFault(_) | End::Refused(..) => uploads.in_vain.insert(key, end.clone()),
                End::Kept(_) | End::NotYet => {}
            }
            // Whoever comes after this asks the database first, and finds what we left there.
            drop(entry);
            // Perhaps nobody waits any more.
            let _ = tell.send(Some(end));
        });
        end
    }

    async fn run(&self, placement: &Placement, account: &Account, wanted: Wanted) -> End {
        let of_account = self.turns_of_account.get_with(wanted.1, || Arc::new(Semaphore::new(OF_AN_ACCOUNT)));
        // In this order: whoever waits for their account takes no turn from others.
        let Ok(_turn_of_account) = of_account.acquire().await else { return End::NotYet };
        let Ok(_turn) = self.turns.acquire().await else { return End::NotYet };
        if self.life.is_stopping() {
            return End::NotYet;
        }
        let file = match self.claim(placement, wanted).await {
            Ok(Claimed::Ours(file)) => file,
            Ok(Claimed::Kept(id)) => return End::Kept(id),
            Ok(Claimed::Others) => return End::NotYet,
            Ok(Claimed::Gone) => return End::NotHere,
            Err(error) => return End::OurFault(format!("the upload could not be begun: {error}")),
        };
        let end = tokio::select! {
            end = self.hand_over(account, &file) => end,
            () = self.life.stopping() => Err(End::NotYet),
        };
        let provider = account.endpoint.sender().provider.as_str();
        metrics::counter!(names::PROVIDER_UPLOADS, "provider" => provider, "outcome" => label(&end)).increment(1);
        match end {
            Ok(uploaded) => match self.keep(placement, wanted, &uploaded).await {
                Ok(()) => End::Kept(uploaded.provider_file_id),
                Err(error) => End::OurFault(format!("the file's id could not be kept: {error}")),
            },
            Err(end) => {
                // If this fails others wait for as long as we had asked for.
                if let Err(error) = self.give_up(placement, wanted, &file).await {
                    tracing::warn!(%error, "an upload that was given up could not be left to others");
                }
                end
            }
        }
    }

    /// From storage to the provider.
    async fn hand_over(&self, account: &Account, file: &files::Upload) -> Result<Uploaded, End> {
        let reading = self.storage.read(&file.storage_key, None).await;
        let Some(Reading { size_bytes, bytes, .. }) = reading.map_err(|error| End::OurFault(error.to_string()))? else {
            return Err(End::NotHere);
        };
        // Whether it is our storage that breaks off: no fault of the provider's or the message's.
        let broke_off = Arc::new(AtomicBool::new(false));
        let noted = broke_off.clone();
        let bytes = bytes.map(move |piece| {
            piece.map_err(|error| {
                noted.store(true, Ordering::Relaxed);
                error.into()
            })
        });
        let upload = Upload { mime_type: file.content_type.clone(), size_bytes, bytes: bytes.boxed() };
        let within = WITHIN + FOR_EACH_MIB.mul_f64(size_bytes as f64 / f64::from(1 << 20));
        match self.client.upload(&account.endpoint, upload, within).await {
            Err(_) if broke_off.load(Ordering::Relaxed) => {
                Err(End::OurFault("the storage broke off while a file was read".to_owned()))
            }
            Err(outcome) => Err(End::Refused(outcome, Arc::default())),
            Ok(uploaded) => Ok(uploaded),
        }
    }

    async fn claim(&self, placement: &Placement, wanted: Wanted) -> shared::db::Result<Claimed> {
        let mut tx = self.databases.fleet(placement, &[wanted.0]).await?;
        let within = chrono(WITHIN + AFTER_GIVING_UP);
        let claimed = files::claim_upload(&mut tx, wanted, within, chrono(FOR_EACH_MIB)).await?;
        tx.commit().await?;
        Ok(claimed)
    }

    async fn keep(&self, placement: &Placement, wanted: Wanted, uploaded: &Uploaded) -> shared::db::Result<()> {
        let mut tx = self.databases.fleet(placement, &[wanted.0]).await?;
        files::keep(&mut tx, wanted, &uploaded.provider_file_id, uploaded.lives).await?;
        tx.commit().await?;
        Ok(())
    }

    async fn give_up(&self, placement: &Placement, wanted: Wanted, file: &files::Upload) -> shared::db::Result<()> {
        let mut tx = self.databases.fleet(placement, &[wanted.0]).await?;
        files::give_up_upload(&mut tx, wanted, file.until).await?;
        tx.commit().await?;
        Ok(())
    }
}

fn label(end: &Result<Uploaded, End>) -> &'static str {
    match end {
        Ok(_) => "uploaded",
        Err(End::Refused(..)) => "refused",
        Err(End::NotHere) => "not_here",
        Err(_) => "broken_off",
    }
}

fn chrono(duration: Duration) -> chrono::TimeDelta {
    chrono::TimeDelta::from_std(duration).unwrap_or(chrono::TimeDelta::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::domain::outcome::Class;

    fn refused(outcome: Outcome) -> [Result<Option<String>, NotUploaded>; 2] {
        let end = End::Refused(outcome, Arc::default());
        [end.clone().meet(Duration::ZERO), end.meet(Duration::ZERO)]
    }

    #[test]
    fn a_refused_upload_is_charged_to_one_message_and_a_refused_file_to_all() {
        let throttled = |retry_after| {
            let (code, reason) = ("130429".to_owned(), "slower".to_owned());
            Outcome::NotSent(NotSent { code, reason, retry_after, class: Class::Account })
        };
        for (retry_after, seconds) in [(None, 15), (Some(Duration::from_secs(40)), 40)] {
            let [first, second] = refused(throttled(retry_after));
            assert_eq!(first, Err(NotUploaded::Refused(throttled(retry_after))));
            assert!(matches!(second, Err(NotUploaded::Later(_, wait)) if wait.as_secs() == seconds), "{second:?}");
        }
        let wrong = Outcome::Failed { code: "131053".to_owned(), reason: "it is no picture".to_owned() };
        assert_eq!(
            refused(wrong.clone()),
            [Err(NotUploaded::Refused(wrong.clone())), Err(NotUploaded::Refused(wrong))]
        );
    }

    #[test]
    fn who_waits_for_a_large_file_waits_ever_longer() {
        for (under_way, middle) in [(0, 2.0), (8, 8.0), (300, 9.0)] {
            let end = End::NotYet.meet(Duration::from_secs(under_way));
            let Err(NotUploaded::Later(_, wait)) = end else { panic!("{end:?}") };
            assert!((middle * 0.5..=middle * 1.5).contains(&wait.as_secs_f64()), "{under_way}: {wait:?}");
        }
    }
}
