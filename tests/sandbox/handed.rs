//! The files that came to providers, how, and which of them each message named: to be held against what was to be sent.

use super::{platform::Platform, provider::Provider};
use sha2::{Digest, Sha256};
use std::sync::{Mutex, PoisonError};

/// A file that came to a provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handed {
    /// How.
    pub how: How,
    /// The account it is for; nothing of what is fetched, which is anybody's.
    pub account: Option<Box<str>>,
    /// By what messages name it: an id, or a link.
    pub name: Box<str>,
    /// Its digest.
    pub sha256: [u8; 32],
    /// Its size.
    pub bytes: u64,
}

/// How a file came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// It was uploaded, and has got an id.
    Uploaded,
    /// It was fetched from a link.
    Fetched,
    /// What was fetched has got an id.
    Kept,
}

/// All that came, in order.
#[derive(Debug, Default)]
pub(super) struct HandedOver {
    files: Mutex<Vec<Handed>>,
    named: Mutex<Vec<(Box<str>, Box<str>)>>,
}

impl HandedOver {
    pub(super) fn uploaded(&self, account: &str, id: &str, bytes: &[u8]) {
        self.add(How::Uploaded, Some(account), id, Sha256::digest(bytes).into(), bytes.len() as u64);
    }

    pub(super) fn fetched(&self, link: &str, bytes: &[u8]) {
        self.add(How::Fetched, None, link, Sha256::digest(bytes).into(), bytes.len() as u64);
    }

    /// What was fetched from this link has this id from now on.
    pub(super) fn kept(&self, account: &str, id: &str, link: &str) {
        let files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let found = files.iter().rev().find(|file| *file.name == *link).cloned();
        drop(files);
        if let Some(file) = found {
            self.add(How::Kept, Some(account), id, file.sha256, file.bytes);
        }
    }

    /// A message that was taken names this file.
    pub(super) fn named(&self, message: &str, file: &str) {
        self.named.lock().unwrap_or_else(PoisonError::into_inner).push((message.into(), file.into()));
    }

    pub(super) fn files(&self) -> Vec<Handed> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn names(&self) -> Vec<(Box<str>, Box<str>)> {
        self.named.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn add(&self, how: How, account: Option<&str>, name: &str, sha256: [u8; 32], bytes: u64) {
        let handed = Handed { how, account: account.map(Into::into), name: name.into(), sha256, bytes };
        self.files.lock().unwrap_or_else(PoisonError::into_inner).push(handed);
    }
}

/// Every id that a file has got so far is not known any more.
pub(super) fn forget(provider: &Provider) {
    provider.media.forget();
    let of = |platform| provider.registry.accounts_of(platform);
    for account in [Platform::Messenger, Platform::Instagram].into_iter().flat_map(of) {
        account.live().desk.forget_uploads();
    }
}
