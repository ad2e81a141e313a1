//! Which deliveries of a consumer are out and not settled, and how long it has been waiting for one.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

/// A wait is broken off and taken up again whenever the consumer's owner looks after something else; only a longer pause
/// means that it did not want a delivery.
const SAME_WAIT: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Outstanding {
    prefetch: u16,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    tags: BTreeSet<u64>,
    waiting: Waiting,
    retired: bool,
}

#[derive(Debug, Default)]
struct Waiting {
    since: Option<Instant>,
    /// `None` while somebody is waiting.
    left: Option<Instant>,
}

impl Outstanding {
    pub(super) fn new(prefetch: u16) -> Self {
        Self { prefetch, state: Mutex::default() }
    }

    pub(super) fn delivered(&self, tag: u64) {
        let mut state = self.state();
        state.tags.insert(tag);
        state.waiting.since = None;
    }

    /// Marks as settled, if it was out.
    pub(super) fn settle(&self, tag: u64) -> bool {
        self.state().tags.remove(&tag)
    }

    /// Marks this one and all earlier ones as settled; the last that was out.
    pub(super) fn settle_through(&self, tag: u64) -> Option<u64> {
        let mut state = self.state();
        let later = state.tags.split_off(&tag.saturating_add(1));
        std::mem::replace(&mut state.tags, later).last().copied()
    }

    /// The consumer is cancelled and expects no more.
    pub(super) fn retire(&self) {
        self.state().retired = true;
    }

    /// Says that somebody waits for a delivery, until the guard is dropped.
    pub(super) fn idle(self: Arc<Self>) -> Idle {
        let mut state = self.state();
        let fresh = state.waiting.left.is_some_and(|left| left.elapsed() > SAME_WAIT);
        if fresh || state.waiting.since.is_none() {
            state.waiting.since = Some(Instant::now());
        }
        state.waiting.left = None;
        drop(state);
        Idle(self)
    }

    /// For how long it could have taken a delivery, wanted one, and got none.
    pub(super) fn starved_for(&self) -> Option<Duration> {
        let state = self.state();
        let wanted = state.waiting.left.is_none_or(|left| left.elapsed() <= SAME_WAIT);
        let could = !state.retired && state.tags.len() < usize::from(self.prefetch);
        state.waiting.since.filter(|_| wanted && could).map(|since| since.elapsed())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic while locked")
    }
}

/// Somebody waits for a delivery.
pub(super) struct Idle(Arc<Outstanding>);

impl Drop for Idle {
    fn drop(&mut self) {
        self.0.state().waiting.left = Some(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settling_through_a_tag_settles_all_lower_ones_once() {
        let out = Outstanding::new(10);
        (1..=5).for_each(|tag| out.delivered(tag));
        assert!(out.settle(2));
        assert!(!out.settle(2));
        assert_eq!(out.settle_through(4), Some(4));
        assert_eq!(out.settle_through(4), None);
        assert_eq!(out.settle_through(9), Some(5));
    }

    #[test]
    fn only_who_waits_with_room_starves() {
        let out = Arc::new(Outstanding::new(2));
        assert_eq!(out.starved_for(), None, "nobody asks");
        let idle = out.clone().idle();
        assert!(out.starved_for().is_some());
        drop(idle);
        assert!(out.starved_for().is_some(), "a short pause is the same wait");
        out.delivered(1);
        assert_eq!(out.starved_for(), None, "just got one");
        out.delivered(2);
        let idle = out.clone().idle();
        assert_eq!(out.starved_for(), None, "it holds all it may");
        out.settle(1);
        assert!(out.starved_for().is_some());
        out.retire();
        assert_eq!(out.starved_for(), None, "cancelled");
        drop(idle);
    }
}
