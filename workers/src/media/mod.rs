//! Files of messages → storage; who people are, where a provider tells only who asks; accounts' templates, as their providers list them;
//! objects that nobody refers to, deleted.
//!
//! A file is claimed before it is fetched, and what became of it is a row's state with a reason, never a dead letter: what its
//! provider fails at is put off and tried again by the row, for as long as the provider keeps it. Our own failures (the database, the
//! storage, the disk, a key that we were not given) are charged to no file.

mod accounts;
mod dimensions;
mod examine;
mod fetch;
mod looks;
mod outage;
mod profile;
mod shares;
mod store;
mod templates;

use crate::{
    placements::Placements,
    worker::{CrashPoints, Placed, Settle, Ticket, Worker},
};
use anyhow::anyhow;
use chrono::TimeDelta;
use fetch::Fetcher;
use looks::Looks;
use outage::Outage;
use shared::{
    config::ProviderApis,
    crash::CrashPoint,
    db::{
        self, Databases, FleetTx, Placement,
        media::{
            self,
            fetching::{self, Attempt, Claim, Ending, File, Why},
            objects, profiles,
        },
    },
    domain::{
        channel::Provider,
        ids::{ContactId, MediaId, TenantId},
        media::MediaState,
    },
    health::Readiness,
    jobs::{
        Job, Undecodable,
        media::{MediaJob, Task},
    },
    lifecycle::Lifecycle,
    providers::{
        download::{self, Downloader, Failure, NOT_AUTHORISED, Next, PRIVATE_ADDRESS, STORAGE_AWAY},
        templates::TemplateClient,
    },
    queue::{Queue, topology},
    retry::before_retry,
    seal::Keyring,
    storage::{self, Storage},
    telemetry::names,
};
use shares::{Held, Shares};
use std::{
    convert::Infallible,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::Semaphore;
use uuid::Uuid;

/// A job waits for its turn, and for the storage, no longer than this; then it is put back.
const TURN_WITHIN: Duration = Duration::from_secs(45);
/// Nothing is held for longer than this before its bytes are on their way into storage: a job may be held for five minutes.
const HELD_FOR: Duration = Duration::from_secs(4 * 60);
/// Its provider has so much of that.
const FETCH_WITHIN: Duration = Duration::from_secs(3 * 60);
/// Whose file it is for so long. An upload that takes longer renews it.
const LEASE: TimeDelta = TimeDelta::seconds(5 * 60);
const RENEW_EVERY: Duration = Duration::from_secs(2 * 60);
/// After our own failure a file is tried again after this.
const AFTER_OURS: Duration = Duration::from_secs(15);
/// One that waits for an operator of ours (a sealing key is missing), after this.
const AFTER_OPERATOR: Duration = Duration::from_secs(5 * 60);
/// A file of which nobody came back from so many looks is stored as it is: looking at it may be what ends the process.
const EXAMINED_UNTIL_LOST: i32 = 2;
/// What its provider fails at is not given up before so many attempts, however long ago it came: we may have been away.
const FEWEST_ATTEMPTS: i32 = 5;
/// So many files are on their way into storage at once: a slow line finishes some of them instead of none.
const UPLOADED_AT_ONCE: usize = 2;
/// Deleting some objects takes no longer; their marks last longer than that.
const DELETE_WITHIN: Duration = Duration::from_secs(60);
/// What is on its way and has not been written to for so long is nobody's any more: no file takes so long.
const INCOMING_FOR: Duration = Duration::from_secs(10 * 60);
/// Leftovers are removed as often as this.
const TIDY_EVERY: Duration = Duration::from_secs(3600);
/// How the worker works.
#[derive(Clone, Debug)]
pub struct MediaSettings {
    /// Where providers' APIs are.
    pub apis: ProviderApis,
    /// So many files at once.
    pub at_once: usize,
    /// What is on its way lies here.
    pub folder: PathBuf,
}

/// The media worker.
pub struct MediaWorker(Arc<Inner>);

struct Inner {
    databases: Databases,
    placements: Placements,
    keyring: Keyring,
    fetcher: Fetcher,
    templates: TemplateClient,
    storage: Storage,
    looks: Looks,
    at_once: Semaphore,
    uploading: Semaphore,
    shares: Shares,
    outage: Arc<Outage>,
    life: Lifecycle,
}

/// What is to be written down.
#[derive(Debug)]
pub enum Effect {
    /// An attempt at a file has ended.
    Ended(Attempt),
    /// A provider has said who somebody is, or not.
    Asked(TenantId, ContactId, profiles::Answer),
    /// A provider has said something of templates.
    Templates(templates::Said),
    /// Objects are deleted.
    Deleted(TenantId, Vec<String>),
}

impl MediaWorker {
    /// A worker on these databases and this storage.
    pub fn new(
        databases: Databases,
        keyring: Keyring,
        (downloader, templates): (Downloader, TemplateClient),
        storage: Storage,
        settings: MediaSettings,
        readiness: &Readiness,
        life: &Lifecycle,
    ) -> Self {
        let outage = Outage::new(readiness.condition("files"), storage.clone(), settings.folder.clone(), life.clone());
        life.spawn(tidy(settings.folder.clone(), storage.clone(), life.clone()));
        let fetcher = Fetcher { downloader, apis: settings.apis, folder: settings.folder };
        Self(Arc::new(Inner {
            placements: Placements::new(databases.clone()),
            databases,
            keyring,
            fetcher,
            templates,
            storage,
            looks: Looks::new(),
            at_once: Semaphore::new(settings.at_once),
            uploading: Semaphore::new(UPLOADED_AT_ONCE),
            shares: Shares::of(settings.at_once),
            outage,
            life: life.clone(),
        }))
    }
}

impl Worker for MediaWorker {
    const NAME: &'static str = "media";
    const QUEUES: &'static [&'static Queue] = &[&topology::MEDIA];
    // Those that are fetched, and a few that follow: what waits for its turn is held, and may be for five minutes only.
    const PREFETCH: u16 = 32;

    type Job = MediaJob;
    type Effect = Effect;

    fn decode(job: &Job) -> Result<Self::Job, Undecodable> {
        MediaJob::from_job(job)
    }

    async fn perform(&self, jobs: Vec<Ticket<MediaJob>>, settle: &Settle<Effect>) {
        for ticket in jobs {
            let (inner, settle) = (self.0.clone(), settle.clone());
            self.0.life.spawn(async move { inner.perform(ticket, &settle).await });
        }
    }

    async fn apply(&self, tx: &mut FleetTx, effects: &[Effect]) -> Result<(), db::Error> {
        // What is locked for them comes before media.
        for effect in effects {
            if let Effect::Templates(said) = effect {
                templates::record(tx, said).await?;
            }
        }
        let ended: Vec<&Attempt> = effects
            .iter()
            .filter_map(|effect| if let Effect::Ended(attempt) = effect { Some(attempt) } else { None })
            .collect();
        let mut asked: Vec<_> = effects
            .iter()
            .filter_map(|effect| {
                if let Effect::Asked(tenant, contact, answer) = effect { Some((tenant, contact, answer)) } else { None }
            })
            .collect();
        asked.sort_by_key(|(tenant, contact, _)| (**tenant, **contact));
        let files: Vec<_> = ended.iter().map(|attempt| (attempt.tenant_id, attempt.media_id)).collect();
        let people: Vec<_> = asked.iter().map(|(tenant, contact, _)| (**tenant, **contact)).collect();
        media::lock(tx, &files, &people).await?;
        fetching::record(tx, &ended).await?;
        for (tenant_id, contact_id, answer) in asked {
            profiles::record(tx, *tenant_id, *contact_id, answer).await?;
        }
        for effect in effects {
            if let Effect::Deleted(tenant_id, keys) = effect {
                objects::forget(tx, *tenant_id, keys).await?;
            }
        }
        Ok(())
    }

    fn weight(effect: &Effect) -> usize {
        match effect {
            Effect::Templates(said) => said.weight(),
            _ => 1,
        }
    }

    // The other place is passed where a file is stored.
    fn crash_points() -> CrashPoints {
        CrashPoints { after_commit: Some(CrashPoint::MediaAfterCommit), ..CrashPoints::default() }
    }
}

impl Inner {
    async fn perform(&self, ticket: Ticket<MediaJob>, settle: &Settle<Effect>) {
        let (job, ticket) = ticket.take();
        let share = match job.task {
            Task::Fetch { channel_account_id: Some(id), .. } => match self.shares.enter(id, Instant::now()) {
                Ok(share) => Some(share),
                Err(wait) => return settle.later(ticket, wait),
            },
            _ => None,
        };
        // Nothing is begun that could not be put down.
        let turn = async {
            self.outage.over().await;
            self.at_once.acquire().await
        };
        let turn = tokio::select! {
            biased;
            turn = tokio::time::timeout(TURN_WITHIN, turn) => turn,
            () = self.life.stopping() => return settle.later(ticket, Duration::from_secs(1)),
        };
        let Ok(Ok(_turn)) = turn else { return settle.later(ticket, AFTER_OURS) };
        let placement = match self.placements.find(job.tenant_id, settle).await {
            Ok(Some(placement)) => placement,
            Ok(None) => return settle.reject(ticket, anyhow!("there is no tenant {}", job.tenant_id)),
            Err(error) => return settle.retry(ticket, None, error),
        };
        let of = Of { tenant_id: job.tenant_id, placement, until: Instant::now() + HELD_FOR };
        match job.task {
            Task::Fetch { media_id, .. } => self.file(&of, media_id, share.as_ref(), ticket, settle).await,
            Task::Profile { contact_id } => self.person(&of, contact_id, ticket, settle).await,
            Task::Templates { channel_account_id } => self.templates(&of, channel_account_id, ticket, settle).await,
            Task::MakeTemplate { template_id } => self.make_template(&of, template_id, ticket, settle).await,
            Task::DeleteTemplate { template_id } => self.delete_template(&of, template_id, ticket, settle).await,
            Task::Delete { keys } => self.delete(&of, keys, ticket, settle).await,
        }
    }

    async fn file(
        &self,
        of: &Of,
        media_id: MediaId,
        share: Option<&Held>,
        ticket: Ticket<()>,
        settle: &Settle<Effect>,
    ) {
        let claim = Uuid::now_v7();
        let claiming = || async move {
            let mut tx = self.databases.fleet(&of.placement, &[of.tenant_id]).await?;
            let claimed = fetching::claim(&mut tx, of.tenant_id, media_id, claim, LEASE).await?;
            tx.commit().await?;
            Ok(claimed)
        };
        let file = match settle.outlast("claiming a file", claiming).await {
            Ok(Claim::Ours(file)) => file,
            Ok(Claim::Anothers(left)) => {
                let left = left.to_std().unwrap_or_default() + Duration::from_secs(1);
                return settle.later(ticket, left.min(Duration::from_secs(600)));
            }
            Ok(Claim::Over) => return settle.done(ticket, Vec::new()),
            Err(error) => return settle.retry(ticket, None, error),
        };
        let claimed = Claimed { file: &file, claim };
        let stored = tokio::select! {
            biased;
            stored = self.fetch_and_store(of, &claimed, settle) => stored,
            // The process ends: another fetches it.
            () = self.life.stopping() => {
                self.release(of, &claimed, None, settle).await;
                return settle.later(ticket, Duration::from_secs(1));
            }
            never = self.keep(of, &claimed, settle) => match never {},
        };
        let ending = match stored {
            Ok(stored) => {
                if let Some(share) = share {
                    share.allowed();
                }
                Ending::Stored(Box::new(stored))
            }
            Err(failure) => {
                if failure.code == NOT_AUTHORISED
                    && let Some(share) = share
                {
                    share.refused(Instant::now());
                }
                match ending(&file, failure) {
                    Ok(ending) => ending,
                    Err(ours) => {
                        let wait = if ours.code == STORAGE_AWAY { AFTER_OURS } else { AFTER_OPERATOR };
                        if ours.code == STORAGE_AWAY {
                            self.outage.begin(&ours.reason, settle);
                        } else {
                            tracing::warn!(code = ours.code, reason = ours.reason, "a file waits for us");
                        }
                        self.release(of, &claimed, Some(&ours), settle).await;
                        return settle.later(ticket, wait);
                    }
                }
            }
        };
        count(&file, &ending);
        let effect = Effect::Ended(Attempt { tenant_id: of.tenant_id, media_id, claim, ending });
        settle.done(ticket, vec![of.placed(effect)]);
    }

    /// Keeps a claim for as long as it is waited for.
    async fn keep(&self, of: &Of, claimed: &Claimed<'_>, settle: &Settle<Effect>) -> Infallible {
        loop {
            tokio::time::sleep(RENEW_EVERY).await;
            let renewing = || async move {
                let mut tx = self.databases.fleet(&of.placement, &[of.tenant_id]).await?;
                let renewed = fetching::renew(&mut tx, of.tenant_id, claimed.file.id, claimed.claim, LEASE).await?;
                tx.commit().await?;
                Ok(renewed)
            };
            if let Err(error) = settle.outlast("renewing a claim", renewing).await {
                tracing::debug!(%error, "a claim is not renewed");
            }
        }
    }

    /// Gives a claim back, uncharged.
    async fn release(&self, of: &Of, claimed: &Claimed<'_>, why: Option<&Why>, settle: &Settle<Effect>) {
        let releasing = || async move {
            let mut tx = self.databases.fleet(&of.placement, &[of.tenant_id]).await?;
            fetching::release(&mut tx, of.tenant_id, claimed.file.id, claimed.claim, why).await?;
            tx.commit().await?;
            Ok(())
        };
        if let Err(error) = settle.outlast("giving a claim back", releasing).await {
            tracing::debug!(%error, "a claim ends by itself");
        }
    }

    async fn delete(&self, of: &Of, keys: Vec<String>, ticket: Ticket<()>, settle: &Settle<Effect>) {
        let asked = Instant::now();
        let wanted = keys.as_slice();
        let looking = || async move {
            let mut tx = self.databases.fleet(&of.placement, &[of.tenant_id]).await?;
            let keys = objects::deletable(&mut tx, of.tenant_id, wanted).await?;
            tx.commit().await?;
            Ok(keys)
        };
        let keys = match settle.outlast("looking for objects to delete", looking).await {
            Ok(keys) => keys,
            Err(error) => return settle.retry(ticket, None, error),
        };
        let deleted = self.delete_in_time(keys, asked).await;
        let effects =
            if deleted.is_empty() { Vec::new() } else { vec![of.placed(Effect::Deleted(of.tenant_id, deleted))] };
        settle.done(ticket, effects);
    }

    /// Deletes objects while their marks last; which are deleted. The others are looked at again when their marks are over.
    ///
    /// Who stores the same waits for the mark alone, so it is looked at the clock before each call. What remains: a process that
    /// is stopped between that and its call for longer than the rest of the mark (a minute at least), or a storage that carries a
    /// call out when that has long been given up, deletes what was stored anew.
    async fn delete_in_time(&self, keys: Vec<String>, asked: Instant) -> Vec<String> {
        let mut deleted = Vec::new();
        for key in keys {
            let Some(left) = DELETE_WITHIN.checked_sub(asked.elapsed()) else {
                tracing::warn!("objects are deleted later: the time is over");
                break;
            };
            match tokio::time::timeout(left, self.storage.delete(std::slice::from_ref(&key))).await {
                Ok(Ok(())) => deleted.push(key),
                Ok(Err(error)) => {
                    tracing::warn!(%error, "objects are deleted later");
                    break;
                }
                Err(_) => {
                    tracing::warn!("objects are deleted later: the storage is slow");
                    break;
                }
            }
        }
        deleted
    }
}

/// Removes what processes that were killed left behind, at once and from time to time.
async fn tidy(folder: PathBuf, storage: Storage, life: Lifecycle) {
    loop {
        let incoming = folder.clone();
        let swept = tokio::task::spawn_blocking(move || sweep(&incoming)).await.map_err(io::Error::other);
        for swept in [swept.flatten(), storage.sweep().await] {
            match swept {
                Ok(0) => {}
                Ok(files) => tracing::info!(files, "removed what was left of files by processes that were killed"),
                Err(error) => tracing::warn!(%error, "what may be left of files is not removed"),
            }
        }
        tokio::select! {
            () = tokio::time::sleep(TIDY_EVERY) => {}
            () = life.stopping() => return,
        }
    }
}

/// Removes what was on its way to processes that were killed. How many files. Blocks.
fn sweep(incoming: &Path) -> io::Result<u64> {
    storage::remove_old(incoming, &download::is_incoming, INCOMING_FOR, false)
}

/// Whose job it is.
struct Of {
    tenant_id: TenantId,
    placement: Placement,
    /// It is held no longer than this before its bytes are on their way.
    until: Instant,
}

/// A file that is ours for a while.
struct Claimed<'a> {
    file: &'a File,
    claim: Uuid,
}

impl Of {
    fn placed(&self, effect: Effect) -> Placed<Effect> {
        Placed { placement: self.placement.clone(), tenant: self.tenant_id, effect }
    }
}

/// A file is asked for again for so long: for as long as its provider may give it. WhatsApp keeps files for seven days
/// (providers/whatsapp section 9), Twilio until they are deleted (providers/twilio section 12); the links of the others live for
/// hours, and what is wrong with them is said at once.
fn patience(provider: Provider) -> TimeDelta {
    match provider {
        Provider::Whatsapp | Provider::Twilio => TimeDelta::days(6),
        Provider::Messenger | Provider::Instagram | Provider::Gateway => TimeDelta::days(1),
    }
}

/// What a failure means for a file.
///
/// # Errors
/// If it is ours: it means nothing for the file, which waits until we are in order.
fn ending(file: &File, failure: Failure) -> Result<Ending, Why> {
    let Failure { code, reason, next } = failure;
    let over = |state, reason| Ending::Over { state, why: Why { code, reason } };
    let is_over = file.now - file.asked_at > patience(file.provider) && file.attempts + 1 >= FEWEST_ATTEMPTS;
    Ok(match next {
        Next::Expire => over(MediaState::Expired, reason),
        Next::Refuse => over(MediaState::Refused, reason),
        Next::GiveUp => over(MediaState::Failed, reason),
        Next::Again(_) if is_over => {
            let state = if code == PRIVATE_ADDRESS { MediaState::Refused } else { MediaState::Failed };
            over(state, format!("Given up after {} attempts. {reason}", file.attempts + 1))
        }
        Next::Again(after) => put_off(file, code, reason, after),
        Next::Ours => return Err(Why { code, reason }),
    })
}

fn put_off(file: &File, code: &'static str, reason: String, after: Option<Duration>) -> Ending {
    let attempts = u32::try_from(file.attempts + 1).unwrap_or(1);
    let after = after.unwrap_or_else(|| before_retry(attempts));
    Ending::PutOff { after: TimeDelta::from_std(after).unwrap_or(LEASE), why: Why { code, reason } }
}

fn count(file: &File, ending: &Ending) {
    let outcome = match ending {
        Ending::Stored(stored) => {
            metrics::counter!(names::MEDIA_BYTES, "provider" => file.provider.as_str()).increment(stored.size_bytes);
            MediaState::Stored.as_str()
        }
        Ending::PutOff { .. } => "put_off",
        Ending::Over { state, .. } => state.as_str(),
    };
    metrics::counter!(names::MEDIA_FILES, "provider" => file.provider.as_str(), "outcome" => outcome).increment(1);
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::{DateTime, Utc};
    use shared::domain::{channel::Channel, ids::ChannelAccountId, messages::MessageKind};

    fn file(age: TimeDelta) -> File {
        let now: DateTime<Utc> = DateTime::UNIX_EPOCH + TimeDelta::days(1000);
        File {
            tenant_id: TenantId::new(),
            id: MediaId::new(),
            channel_account_id: ChannelAccountId::new(),
            provider: Provider::Whatsapp,
            channel: Channel::Whatsapp,
            kind: MessageKind::Image,
            provider_media_id: None,
            url: None,
            declared_type: None,
            declared_sha256: None,
            attempts: 3,
            lost: 0,
            asked_at: now - age,
            keep_until: None,
            now,
        }
    }

    #[test]
    fn what_fails_is_put_off_until_its_provider_has_it_no_longer() {
        let failure = |next| Failure::new("broken_off", next, "It broke off.");
        let after = Duration::from_secs(70);
        let Ok(Ending::PutOff { after: wait, .. }) =
            ending(&file(TimeDelta::hours(1)), failure(Next::Again(Some(after))))
        else {
            panic!("put off");
        };
        assert_eq!(wait, TimeDelta::seconds(70));
        let mut old = file(TimeDelta::days(7));
        let ended = ending(&old, failure(Next::Again(None)));
        assert!(matches!(ended, Ok(Ending::PutOff { .. })), "we may have been away: {ended:?}");
        old.attempts = FEWEST_ATTEMPTS - 1;
        let Ok(Ending::Over { state, why }) = ending(&old, failure(Next::Again(None))) else {
            panic!("over");
        };
        assert_eq!((state, why.reason.as_str()), (MediaState::Failed, "Given up after 5 attempts. It broke off."));
    }

    #[test]
    fn a_name_that_leads_nowhere_public_is_refused_in_the_end() {
        let mut of_messenger = file(TimeDelta::hours(25));
        (of_messenger.provider, of_messenger.attempts) = (Provider::Messenger, 4);
        let ended = ending(&of_messenger, Failure::new(PRIVATE_ADDRESS, Next::Again(None), "It is not public."));
        assert!(matches!(ended, Ok(Ending::Over { state: MediaState::Refused, .. })), "{ended:?}");
    }

    #[test]
    fn our_own_failure_ends_no_file_however_old_it_is() {
        let mut old = file(TimeDelta::days(70));
        old.attempts = 70;
        let ours = ending(&old, Failure::new("storage_away", Next::Ours, "The disk is full."));
        assert_eq!(ours.unwrap_err().code, "storage_away");
    }

    #[test]
    fn what_a_killed_worker_left_goes_when_it_is_old() {
        let folder = tempfile::tempdir().unwrap();
        let old = std::time::SystemTime::now() - 2 * INCOMING_FOR;
        for name in ["mijra-incoming-new", "mijra-incoming-old", "other-old"] {
            let file = std::fs::File::create(folder.path().join(name)).unwrap();
            if name.ends_with("old") {
                file.set_modified(old).unwrap();
            }
        }
        assert_eq!(sweep(folder.path()).unwrap(), 1);
        assert!(!folder.path().join("mijra-incoming-old").exists());
    }

    #[test]
    fn what_cannot_change_is_over_at_once() {
        for (next, expected) in [
            (Next::Expire, MediaState::Expired),
            (Next::Refuse, MediaState::Refused),
            (Next::GiveUp, MediaState::Failed),
        ] {
            let ended = ending(&file(TimeDelta::zero()), Failure::new("x", next, "y"));
            assert!(matches!(ended, Ok(Ending::Over { state, .. }) if state == expected), "{ended:?}");
        }
    }
}
