//! A file, from its provider into storage.

use super::{
    EXAMINED_UNTIL_LOST, Effect, FETCH_WITHIN, GIVEN_UP_WHEN_LOST, Inner, LOOK_WITHIN, Of,
    accounts::{self, Account},
    examine::{Findings, examine},
    fetch::Fetched,
};
use crate::worker::Settle;
use sha2::{Digest, Sha256};
use shared::{
    crash::{self, CrashPoint},
    db::{
        self,
        media::{
            fetching::{File, Stored, Why},
            objects,
        },
    },
    domain::{
        ids::TenantId,
        media::{Judgement, MOST_PIXELS_DRAWN, declared_digest, judge, object_key},
    },
    providers::download::{Failure, Next, Saved},
    storage,
};

/// So often a file whose digest is not the declared one is fetched anew before we take it as it is.
const DIGEST_ATTEMPTS: i32 = 2;
const NOT_EXAMINED: &str = "Workers that looked at it ended, so that nobody looks at it any more.";

impl Inner {
    /// Fetches a file and stores it.
    pub(super) async fn fetch_and_store(
        &self,
        of: &Of,
        file: &File,
        settle: &Settle<Effect>,
    ) -> Result<Stored, Failure> {
        if file.keep_until.is_some_and(|until| until <= file.now) {
            return Err(Failure::new("kept_long_enough", Next::Expire, "A story may be kept for 24 hours only."));
        }
        if file.lost >= GIVEN_UP_WHEN_LOST {
            let reason = format!("{} workers that had it ended and never said what became of it.", file.lost);
            return Err(Failure::new("ends_workers", Next::GiveUp, reason));
        }
        let loading =
            || accounts::load(&self.databases, &self.keyring, &of.placement, of.tenant_id, file.channel_account_id);
        let account = settle.outlast("loading an account", loading).await.map_err(asking)?;
        let account = account.map_err(|Why { code, reason }| Failure::new(code, Next::Again(None), reason))?;
        let Fetched { saved, declared_type, declared_sha256, filename } = self.fetch(file, &account).await?;
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
        let findings = if file.lost < EXAMINED_UNTIL_LOST {
            self.examine(&saved, &content_type).await
        } else {
            remark.get_or_insert_with(|| Why { code: "not_examined", reason: NOT_EXAMINED.to_owned() });
            Findings::default()
        };
        if let Some((width, height)) = findings.dimensions {
            if findings.bomb {
                let reason = format!(
                    "The picture has {width} × {height} pixels in {} bytes: it is made to fill the memory of who opens it.",
                    saved.size_bytes
                );
                return Err(Failure::new("image_bomb", Next::Refuse, reason));
            }
            if findings.thumbnail.is_none() && remark.is_none() {
                let large = u64::from(width) * u64::from(height) > MOST_PIXELS_DRAWN;
                let why = if large {
                    "It is too large for a small picture of it to be made."
                } else {
                    "No small picture could be made of it."
                };
                remark = Some(Why { code: "no_thumbnail", reason: why.to_owned() });
            }
        }
        let storage_key = object_key(of.tenant_id, &saved.sha256);
        let thumbnail_key =
            findings.thumbnail.as_ref().map(|jpeg| object_key(of.tenant_id, &Sha256::digest(jpeg).into()));
        let keys: Vec<String> = [Some(&storage_key), thumbnail_key.as_ref()].into_iter().flatten().cloned().collect();
        self.announce(of, &keys, settle).await?;
        let bytes = tokio::fs::File::open(&saved.path).await.map_err(|error| ours(&error))?;
        self.storage.put(&storage_key, bytes, saved.size_bytes).await.map_err(|error| ours(&error))?;
        if let (Some(key), Some(jpeg)) = (&thumbnail_key, &findings.thumbnail) {
            self.storage.put(key, jpeg.as_slice(), jpeg.len() as u64).await.map_err(|error| ours(&error))?;
        }
        crash::pass(CrashPoint::MediaAfterStore);
        Ok(Stored {
            storage_key,
            size_bytes: saved.size_bytes,
            sha256: saved.sha256,
            content_type,
            filename,
            dimensions: findings.dimensions,
            duration_ms: findings.duration_ms,
            thumbnail_key,
            remark,
        })
    }

    /// What its provider gives, in the time that a provider has.
    async fn fetch(&self, file: &File, account: &Account) -> Result<Fetched, Failure> {
        tokio::time::timeout(FETCH_WITHIN, self.fetcher.fetch(file, account)).await.unwrap_or_else(|_| {
            let reason = format!("The file did not come within {} minutes.", FETCH_WITHIN.as_secs() / 60);
            Err(Failure::new("too_slow", Next::Again(None), reason))
        })
    }

    /// Says that these objects are about to be stored, so that nobody deletes them.
    pub(super) async fn announce(&self, of: &Of, keys: &[String], settle: &Settle<Effect>) -> Result<(), Failure> {
        let touching = || async move {
            let mut tx = self.databases.fleet(&of.placement, &[of.tenant_id]).await?;
            let busy = objects::touch(&mut tx, of.tenant_id, keys).await?;
            tx.commit().await?;
            Ok(busy)
        };
        match settle.outlast("announcing objects", touching).await.map_err(asking)? {
            None => Ok(()),
            Some(left) => {
                let wait = left.to_std().unwrap_or_default() + std::time::Duration::from_secs(1);
                Err(Failure::new("storage_busy", Next::Again(Some(wait)), "What it was stored as is being deleted."))
            }
        }
    }

    /// Looks at a file, on a thread where that may take its time. A file on which that fails, or does not end, tells nothing of
    /// itself. Its thread cannot be stopped and keeps its turn: of its kind nothing is looked at until it has ended.
    async fn examine(&self, saved: &Saved, content_type: &str) -> Findings {
        let turns = if content_type.starts_with("image/") { &self.drawing } else { &self.measuring };
        let (turns, path, size_bytes) = (turns.clone(), saved.path.to_path_buf(), saved.size_bytes);
        let kind = content_type.to_owned();
        let looking = async move {
            let turn = turns.acquire_owned().await.ok()?;
            let looking = tokio::task::spawn_blocking(move || {
                let _turn = turn;
                examine(&path, &kind, size_bytes)
            });
            looking.await.inspect_err(|error| tracing::warn!(%error, "a file could not be looked at")).ok()
        };
        let looked = tokio::time::timeout(LOOK_WITHIN, looking).await;
        looked
            .unwrap_or_else(|_| {
                tracing::warn!(content_type, size_bytes, "a file was not looked at in time");
                None
            })
            .unwrap_or_default()
    }
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

fn ours(error: &dyn std::fmt::Display) -> Failure {
    Failure::new("storage_away", Next::Ours, error.to_string())
}

/// The database refused a question about it: the file can wait until somebody has looked.
fn asking(error: db::Error) -> Failure {
    Failure::new("storage_away", Next::Ours, error.to_string())
}

/// The key of what has these bytes.
pub(super) fn key_of(tenant_id: TenantId, saved: &Saved) -> String {
    object_key(tenant_id, &saved.sha256)
}

/// As [`ours`], for others.
pub(super) fn storage_away(error: &storage::Error) -> Failure {
    ours(error)
}
