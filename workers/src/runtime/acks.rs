//! Which deliveries of a channel may be acknowledged: the contiguous prefix in one go, what is done beyond a gap one by one
//! when the gap persists.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// A gap that closes within this costs nothing; acknowledging one by one costs the broker as much as a delivery.
pub(crate) const PATIENCE: Duration = Duration::from_millis(100);

/// The deliveries of one channel that are not settled with the broker. What is done carries something (its slot in the
/// ledger), which comes out when it is to be acknowledged.
#[derive(Debug)]
pub(crate) struct AckWindow<T> {
    out: VecDeque<Out<T>>,
    /// How many of them are done.
    done: usize,
}

#[derive(Debug)]
struct Out<T> {
    tag: u64,
    state: State<T>,
}

#[derive(Debug)]
enum State<T> {
    /// Somebody works on it.
    Open,
    /// It may be acknowledged since then.
    Done(Instant, T),
    /// Acknowledged by itself, or given back.
    Gone,
}

impl<T> Default for AckWindow<T> {
    fn default() -> Self {
        Self { out: VecDeque::new(), done: 0 }
    }
}

impl<T> AckWindow<T> {
    /// Tags come in rising order.
    pub(crate) fn received(&mut self, tag: u64) {
        debug_assert!(self.out.back().is_none_or(|last| last.tag < tag), "tags of a channel rise");
        self.out.push_back(Out { tag, state: State::Open });
    }

    /// It may be acknowledged.
    pub(crate) fn done(&mut self, tag: u64, now: Instant, carried: T) {
        self.set(tag, State::Done(now, carried));
    }

    /// It was given back.
    pub(crate) fn gone(&mut self, tag: u64) {
        self.set(tag, State::Gone);
    }

    fn set(&mut self, tag: u64, state: State<T>) {
        if let Ok(at) = self.out.binary_search_by_key(&tag, |out| out.tag) {
            self.done += usize::from(matches!(state, State::Done(..)));
            let before = std::mem::replace(&mut self.out[at].state, state);
            self.done -= usize::from(matches!(before, State::Done(..)));
        }
    }

    /// Takes the settled prefix: the tag through which to acknowledge, if there is something to acknowledge in it, and what
    /// that carried.
    pub(crate) fn prefix(&mut self) -> Option<(u64, Vec<T>)> {
        let settled = self.out.iter().take_while(|out| !matches!(out.state, State::Open)).count();
        let (mut through, mut carried) = (None, Vec::new());
        for Out { tag, state } in self.out.drain(..settled) {
            if let State::Done(_, of_tag) = state {
                through = Some(tag);
                carried.push(of_tag);
            }
        }
        self.done -= carried.len();
        through.map(|through| (through, carried))
    }

    /// Takes what has been done for longer than [`PATIENCE`] beyond a gap; each to be acknowledged by itself.
    pub(crate) fn stragglers(&mut self, now: Instant) -> Vec<(u64, T)> {
        let mut stragglers = Vec::new();
        for Out { tag, state } in &mut self.out {
            if matches!(state, State::Done(since, _) if now.saturating_duration_since(*since) >= PATIENCE)
                && let State::Done(_, carried) = std::mem::replace(state, State::Gone)
            {
                stragglers.push((*tag, carried));
            }
        }
        self.done -= stragglers.len();
        stragglers
    }

    /// Whether something is done beyond a gap.
    pub(crate) fn has_stragglers(&self) -> bool {
        self.done > 0
    }

    /// Whether everything is settled.
    pub(crate) fn is_empty(&self) -> bool {
        self.out.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each delivery carries its own tag.
    fn window(tags: std::ops::RangeInclusive<u64>) -> AckWindow<u64> {
        let mut window = AckWindow::default();
        tags.for_each(|tag| window.received(tag));
        window
    }

    #[test]
    fn only_the_contiguous_prefix_is_acknowledged_in_one_go() {
        let (mut window, now) = (window(1..=5), Instant::now());
        window.done(2, now, 2);
        window.done(3, now, 3);
        assert_eq!(window.prefix(), None, "1 is open");
        window.done(1, now, 1);
        assert_eq!(window.prefix(), Some((3, vec![1, 2, 3])));
        assert_eq!(window.prefix(), None);
        window.done(5, now, 5);
        window.done(4, now, 4);
        assert_eq!(window.prefix(), Some((5, vec![4, 5])));
        assert!(window.is_empty());
    }

    #[test]
    fn a_gap_that_persists_is_passed_one_by_one_and_once() {
        let (mut window, now) = (window(1..=4), Instant::now());
        window.done(2, now, 2);
        window.done(4, now + PATIENCE / 2, 4);
        assert!(window.has_stragglers());
        assert_eq!(window.stragglers(now + PATIENCE / 2), []);
        assert_eq!(window.stragglers(now + PATIENCE), [(2, 2)]);
        assert_eq!(window.stragglers(now + PATIENCE), []);
        // 2 is acknowledged already: acknowledging through it again would be an error of the channel.
        window.done(1, now, 1);
        assert_eq!(window.prefix(), Some((1, vec![1])));
        window.done(3, now, 3);
        assert_eq!(window.prefix(), Some((4, vec![3, 4])));
        assert!(window.is_empty());
    }

    #[test]
    fn what_was_given_back_is_passed_over() {
        let (mut window, now) = (window(1..=3), Instant::now());
        window.gone(1);
        window.gone(3);
        assert_eq!(window.prefix(), None);
        window.done(2, now, 2);
        assert_eq!(window.prefix(), Some((2, vec![2])));
        assert!(window.is_empty());
    }

    #[test]
    fn tags_that_are_not_out_change_nothing() {
        let (mut window, now) = (window(5..=6), Instant::now());
        window.done(4, now, 4);
        window.done(7, now, 7);
        assert_eq!((window.prefix(), window.has_stragglers()), (None, false));
    }
}
