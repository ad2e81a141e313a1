//! A file, from its provider into storage.

use super::{
    Claimed, Effect, FETCH_WITHIN, Inner, Of,
    accounts::{self, Account},
    examine::is_drawn,
    fetch::{Fetched, asks_who},
    looks::Look,
};
use crate::worker::Settle;
use sha2::{Digest, Sha256};
use shared::{
    crash::{self, CrashPoint},
    db::{
        self,
        media::{
            fetching::{self, File, Stored, Why},
            objects,
        },
    },
    domain::{
        ids::{ChannelAccountId, TenantId},
        media::{Judgement, declared_digest, is_bomb, judge, object_key},
    },
    providers::download::{Failure, Next, STORAGE_AWAY, Saved},
};

/// So often a file whose digest is not the declared one is fetched anew before we take it as it is.
const DIGEST_ATTEMPTS: i32 = 2;
/// What it was stored as is being deleted.
pub(super) const STORAGE_BUSY: &str = "storage_busy";
const NOT_EXAMINED: &str = "Workers that looked at it ended, so that nobody looks at it any more.";

impl Inner {
    /// Fetches a file and stores it.
    pub(super) async fn fetch_and_store(
        &self,
        of: &Of,
        claimed: &Claimed<'_>,
        settle: &Settle<Effect>,
    ) -> Result<Stored, Failure> {
        let file = claimed.file;
        if file.keep_until.is_some_and(|until| until <= file.now) {
            return Err(Failure::new("kept_long_enough", Next::Expire, "A story may be kept for 24 hours only."));
        }
        let account = match asks_who(file.provider) {
            true => Some(self.account(of, file.channel_account_id, settle).await?),
            false => None,
        };
        let Fetched { saved, declared_type, declared_sha256, filename } = self.fetch(file, account.as_ref()).await?;
        if saved.size_bytes == 0 {
            return Err(Failure::new("empty", Next::Again(None), "The provider sent a file of no bytes."));
        }
        let content_type = match judge(declared_type.as_deref(), &saved.head) {
            Judgement::Store(content_type) => content_type,
            Judgement::Refuse { declared, found } => {
                let reason = format!("It says that it is {declared} and is {found}, which could do harm.");
                return Err(Failure::new("dangerous_type", Next::Refuse, reason));
            }
        };
        let mut remark = digest_differs(file, declared_sha256.as_deref(), &saved)?;
        let Look { dimensions, findings, spared, came_back } =
            self.look(of, claimed, &saved, &content_type, settle).await;
        if let Some(dimensions) = dimensions {
            refuse_bomb(dimensions, saved.size_bytes)?;
        }
        if spared {
            remark.get_or_insert_with(|| Why { code: "not_examined", reason: NOT_EXAMINED.to_owned() });
        }
        if let (Some(dimensions), None) = (dimensions, &findings.thumbnail) {
            let why = if is_drawn(dimensions, saved.size_bytes) {
                "No small picture could be made of it."
            } else {
                "It is too large for a small picture of it to be made."
            };
            remark.get_or_insert_with(|| Why { code: "no_thumbnail", reason: why.to_owned() });
        }
        let storage_key = object_key(of.tenant_id, &saved.sha256);
        let thumbnail_key =
            findings.thumbnail.as_ref().map(|jpeg| object_key(of.tenant_id, &Sha256::digest(jpeg).into()));
        let keys: Vec<String> = [Some(&storage_key), thumbnail_key.as_ref()].into_iter().flatten().cloned().collect();
        self.announce(of, &keys, Some(claimed).filter(|_| came_back), settle).await?;
        self.put(of, &storage_key, Bytes::In(&saved), settle).await?;
        if let (Some(key), Some(jpeg)) = (&thumbnail_key, &findings.thumbnail) {
            self.put(of, key, Bytes::Here(jpeg), settle).await?;
        }
        crash::pass(CrashPoint::MediaAfterStore);
        Ok(Stored {
            storage_key,
            size_bytes: saved.size_bytes,
            sha256: saved.sha256,
            content_type,
            filename,
            dimensions,
            duration_ms: findings.duration_ms,
            thumbnail_key,
            remark,
        })
    }

    /// The account that asks.
    pub(super) async fn account(
        &self,
        of: &Of,
        id: ChannelAccountId,
        settle: &Settle<Effect>,
    ) -> Result<Account, Failure> {
        let loading = || accounts::load(&self.databases, &self.keyring, &of.placement, of.tenant_id, id);
        settle.outlast("loading an account", loading).await.map_err(asking)?
    }

    /// What its provider gives, in the time that a provider has.
    async fn fetch(&self, file: &File, account: Option<&Account>) -> Result<Fetched, Failure> {
        tokio::time::timeout(FETCH_WITHIN, self.fetcher.fetch(file, account)).await.unwrap_or_else(|_| {
            let reason = format!("The file did not come within {} minutes.", FETCH_WITHIN.as_secs() / 60);
            Err(Failure::new("too_slow", Next::Again(None), reason))
        })
    }

    /// Says that these objects are about to be stored, so that nobody deletes them; and, if so, that the look at this file is over.
    pub(super) async fn announce(
        &self,
        of: &Of,
        keys: &[String],
        looked_at: Option<&Claimed<'_>>,
        settle: &Settle<Effect>,
    ) -> Result<(), Failure> {
        let touching = || async move {
            let mut tx = self.databases.fleet(&of.placement, &[of.tenant_id]).await?;
            if let Some(claimed) = looked_at {
                fetching::examined(&mut tx, of.tenant_id, claimed.file.id, claimed.claim).await?;
            }
            let busy = objects::touch(&mut tx, of.tenant_id, keys).await?;
            tx.commit().await?;
            Ok(busy)
        };
        match settle.outlast("announcing objects", touching).await.map_err(asking)? {
            None => Ok(()),
            Some(left) => {
                let wait = left.to_std().unwrap_or_default() + std::time::Duration::from_secs(1);
                Err(Failure::new(STORAGE_BUSY, Next::Again(Some(wait)), "What it was stored as is being deleted."))
            }
        }
    }

    /// Puts bytes into storage, again and again while that is away; but once it may be held no longer, what has come is let go of.
    pub(super) async fn put(
        &self,
        of: &Of,
        key: &str,
        bytes: Bytes<'_>,
        settle: &Settle<Effect>,
    ) -> Result<(), Failure> {
        loop {
            if tokio::time::timeout_at(of.until.into(), self.outage.over()).await.is_err() {
                return Err(Failure::new(STORAGE_AWAY, Next::Ours, "The storage was away for too long."));
            }
            let _turn = self.uploading.acquire().await;
            if self.outage.is_on() {
                continue;
            }
            let put = match bytes {
                Bytes::Here(bytes) => self.storage.put(key, bytes, bytes.len() as u64).await,
                Bytes::In(saved) => {
                    let file = tokio::fs::File::open(&saved.path).await;
                    let file = file.map_err(|error| Failure::new(STORAGE_AWAY, Next::Ours, error.to_string()))?;
                    self.storage.put(key, file, saved.size_bytes).await
                }
            };
            match put {
                Ok(()) => {
                    self.outage.stored();
                    return Ok(());
                }
                Err(error) => self.outage.begin(&error.to_string(), settle),
            }
        }
    }
}

/// What is put into storage.
#[derive(Clone, Copy)]
pub(super) enum Bytes<'a> {
    /// A few.
    Here(&'a [u8]),
    /// Those of a file that has come.
    In(&'a Saved),
}

/// A picture that is made to hurt who opens it is not stored.
pub(super) fn refuse_bomb((width, height): (u32, u32), size_bytes: u64) -> Result<(), Failure> {
    if !is_bomb(width, height, size_bytes) {
        return Ok(());
    }
    let reason = format!(
        "The picture has {width} × {height} pixels in {size_bytes} bytes: it is made to fill the memory of who opens it."
    );
    Err(Failure::new("image_bomb", Next::Refuse, reason))
}

/// What is odd about a file whose digest is not the declared one. It may have broken on its way; if it comes so again, it is what
/// the provider has (providers/whatsapp section 9: log it, do not reject it).
fn digest_differs(file: &File, declared: Option<&str>, saved: &Saved) -> Result<Option<Why>, Failure> {
    match declared.and_then(declared_digest) {
        Some(declared) if declared != saved.sha256 => {
            let why = Why {
                code: "digest_differs",
                reason: "Its SHA-256 is not the one that the provider declared.".to_owned(),
            };
            if file.attempts < DIGEST_ATTEMPTS {
                return Err(Failure::new(why.code, Next::Again(None), why.reason));
            }
            Ok(Some(why))
        }
        _ => Ok(None),
    }
}

/// The database refused a question about it: the file can wait until somebody has looked.
fn asking(error: db::Error) -> Failure {
    Failure::new("database_refused", Next::Ours, error.to_string())
}

/// The key of what has these bytes.
pub(super) fn key_of(tenant_id: TenantId, saved: &Saved) -> String {
    object_key(tenant_id, &saved.sha256)
}
