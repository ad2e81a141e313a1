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
    domain::outcome::Outcome,
    lifecycle::Lifecycle,
    providers::http::{ProviderClient, Upload, Uploaded},
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
const AT_ONCE: usize = 8;
/// An upload takes so long at most, and so much longer for each MiB: 256 KiB a second are slow.
const WITHIN: Duration = Duration::from_secs(30);
const FOR_EACH_MIB: Duration = Duration::from_secs(4);
/// When nobody else may begin any more and we have long given up.
const AFTER_GIVING_UP: Duration = Duration::from_secs(10);
/// A message whose file is still on its way comes again after this time.
pub(super) const UNDER_WAY: Duration = Duration::from_secs(2);
/// What failed by our own fault is tried again after this time.
pub(super) const OUR_FAULT: Duration = Duration::from_secs(10);
/// What came of an upload in vain is remembered for so long: who had given back their grant meanwhile is told of it when they come
/// again, and does not begin anew.
const REMEMBERED: Duration = Duration::from_secs(15);

/// What became of an upload.
#[derive(Clone, Debug)]
pub(super) enum End {
    /// The provider has it under this id.
    Kept(String),
    /// It is not done yet, here or by another process.
    NotYet,
    /// Our storage does not have it, or not here: the provider may try the link.
    NotHere,
    /// The storage or the database did not do what they should.
    OurFault(String),
    /// The provider did not take it; what that means for a message.
    Refused(Outcome),
}

/// Uploads files. Cheap to clone.
#[derive(Clone)]
pub(super) struct Uploads {
    databases: Databases,
    storage: Storage,
    client: ProviderClient,
    turns: Arc<Semaphore>,
    under_way: Arc<Mutex<HashMap<Wanted, watch::Receiver<Option<End>>>>>,
    /// What was in vain a moment ago.
    in_vain: Cache<Wanted, End>,
    life: Lifecycle,
}

impl Uploads {
    pub(super) fn new(databases: Databases, storage: Storage, client: ProviderClient, life: Lifecycle) -> Self {
        let in_vain = Cache::builder().max_capacity(10_000).time_to_live(REMEMBERED).build();
        let turns = Arc::new(Semaphore::new(AT_ONCE));
        Self { databases, storage, client, turns, under_way: Arc::default(), in_vain, life }
    }

    /// Sees to it that an account's provider has a file, and waits for that until then.
    pub(super) async fn upload(
        &self,
        placement: &Placement,
        account: &Arc<Account>,
        wanted: Wanted,
        until: Instant,
    ) -> End {
        if let Some(end) = self.in_vain.get(&wanted) {
            return end;
        }
        let mut end = self.begun(placement, account, wanted);
        let ended = tokio::time::timeout_at(until, end.wait_for(Option::is_some)).await;
        match ended {
            Ok(Ok(end)) => end.clone().unwrap_or(End::NotYet),
            // The process ends, and with it what was under way.
            Ok(Err(_)) | Err(_) => End::NotYet,
        }
    }

    /// The upload that is under way, or a new one.
    fn begun(&self, placement: &Placement, account: &Arc<Account>, wanted: Wanted) -> watch::Receiver<Option<End>> {
        let mut under_way = self.under_way.lock().expect("nothing panics while this is locked");
        if let Some(end) = under_way.get(&wanted) {
            return end.clone();
        }
        let (tell, end) = watch::channel(None);
        under_way.insert(wanted, end.clone());
        let (uploads, placement, account) = (self.clone(), placement.clone(), account.clone());
        self.life.spawn(async move {
            let end = uploads.run(&placement, &account, wanted).await;
            match &end {
                End::NotHere => {
                    tracing::error!(file = %wanted.2, "a file to be sent is not in this worker's storage (STORAGE_URL)");
                    uploads.in_vain.insert(wanted, end.clone());
                }
                End::OurFault(_) | End::Refused(_) => uploads.in_vain.insert(wanted, end.clone()),
                End::Kept(_) | End::NotYet => {}
            }
            // Whoever comes after this asks the database first, and finds what we left there.
            uploads.under_way.lock().expect("nothing panics while this is locked").remove(&wanted);
            // Perhaps nobody waits any more.
            let _ = tell.send(Some(end));
        });
        end
    }

    async fn run(&self, placement: &Placement, account: &Account, wanted: Wanted) -> End {
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
            Err(outcome) => Err(End::Refused(outcome)),
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
        Err(End::Refused(_)) => "refused",
        Err(End::NotHere) => "not_here",
        Err(_) => "broken_off",
    }
}

fn chrono(duration: Duration) -> chrono::TimeDelta {
    chrono::TimeDelta::from_std(duration).unwrap_or(chrono::TimeDelta::MAX)
}
