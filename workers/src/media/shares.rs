//! No account has more than its share of a worker: one with very many files, or whose provider is slow, leaves room for the others.

use shared::{domain::ids::ChannelAccountId, retry::Pauses};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

/// A file for which its account has no room comes back after this (± 50 %); each further one a little later, so that many do not
/// go round and round.
const COME_BACK: Duration = Duration::from_secs(5);
const APART: Duration = Duration::from_millis(250);
/// At most.
const LONGEST: Duration = Duration::from_secs(400);
/// An account that may not have so many of its files in a row, not one in between, is not asked for the next of them before this. One
/// alone says little: its link may be over.
const REFUSED_IN_A_ROW: u32 = 3;
const REFUSED_FOR: Duration = Duration::from_secs(60);

/// What accounts have of this worker. Cheap to clone.
#[derive(Clone)]
pub(super) struct Shares {
    most: usize,
    accounts: Arc<Mutex<HashMap<ChannelAccountId, Share>>>,
}

#[derive(Default)]
struct Share {
    held: usize,
    /// When the last of those sent away comes back.
    back_at: Option<Instant>,
    refusals: u32,
    refused_until: Option<Instant>,
}

/// A place in an account's share; given back when it is dropped.
pub(super) struct Held {
    shares: Shares,
    account: ChannelAccountId,
}

impl Shares {
    /// A quarter of so many.
    pub(super) fn of(at_once: usize) -> Self {
        Self { most: (at_once / 4).max(1), accounts: Arc::default() }
    }

    /// A place for one more of this account's files.
    ///
    /// # Errors
    /// How long to wait, if it has its share or is not to be asked now.
    pub(super) fn enter(&self, account: ChannelAccountId, now: Instant) -> Result<Held, Duration> {
        let mut accounts = self.accounts.lock().expect("nothing panics while this is locked");
        accounts.retain(|_, share| share.is_wanted(now));
        let share = accounts.entry(account).or_default();
        let refused = share.refused_until.filter(|until| *until > now);
        if refused.is_none() && share.held < self.most {
            share.held += 1;
            return Ok(Held { shares: self.clone(), account });
        }
        let earliest = (now + COME_BACK).max(refused.unwrap_or(now));
        let at = share.back_at.map_or(earliest, |last| (last + APART).max(earliest)).min(now + LONGEST);
        share.back_at = Some(at);
        Err(Pauses::new(at - now, LONGEST).next_wait())
    }
}

impl Share {
    fn is_wanted(&self, now: Instant) -> bool {
        let later = |at: Option<Instant>| at.is_some_and(|at| at > now);
        self.held > 0 || self.refusals > 0 || later(self.back_at) || later(self.refused_until)
    }
}

impl Held {
    /// The account may not have this file: after a few, the others are not tried before a while.
    pub(super) fn refused(&self, now: Instant) {
        let mut accounts = self.shares.accounts.lock().expect("nothing panics while this is locked");
        let share = accounts.entry(self.account).or_default();
        share.refusals += 1;
        if share.refusals >= REFUSED_IN_A_ROW {
            share.refused_until = Some(now + REFUSED_FOR);
        }
    }

    /// It may have this one.
    pub(super) fn allowed(&self) {
        let mut accounts = self.shares.accounts.lock().expect("nothing panics while this is locked");
        accounts.entry(self.account).or_default().refusals = 0;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut accounts = self.shares.accounts.lock().expect("nothing panics while this is locked");
        if let Some(share) = accounts.get_mut(&self.account) {
            share.held -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_has_a_quarter_and_leaves_the_rest_to_others() {
        let (shares, now) = (Shares::of(8), Instant::now());
        let (busy, other) = (ChannelAccountId::new(), ChannelAccountId::new());
        let held: Vec<Held> = (0..2).map(|_| shares.enter(busy, now).ok().unwrap()).collect();
        let waits: Vec<Duration> = (0..200).map(|_| shares.enter(busy, now).err().unwrap()).collect();
        assert!(waits[0] >= COME_BACK / 2 && waits[0] <= COME_BACK * 3 / 2, "{:?}", waits[0]);
        assert!(waits[199] >= Duration::from_secs(25), "many come back one after another: {:?}", waits[199]);
        assert!(shares.enter(other, now).is_ok());
        drop(held);
        assert!(shares.enter(busy, now).is_ok(), "what is given back is free");
    }

    #[test]
    fn the_files_of_an_account_that_may_not_have_them_wait_together() {
        let (shares, now) = (Shares::of(8), Instant::now());
        let account = ChannelAccountId::new();
        let refused = |times: u32| (0..times).for_each(|_| shares.enter(account, now).ok().unwrap().refused(now));
        refused(REFUSED_IN_A_ROW - 1);
        let Ok(share) = shares.enter(account, now) else { panic!("it may be these files alone") };
        share.allowed();
        refused(REFUSED_IN_A_ROW);
        assert!(shares.enter(account, now).err().unwrap() >= REFUSED_FOR / 2);
        assert!(shares.enter(account, now + REFUSED_FOR).is_ok());
    }
}
