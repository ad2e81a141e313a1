//! What is to be done later: statuses that are due, webhooks to deliver or to try again. One task works it off;
//! everything else only adds to it.

use super::{behaviour::Status, course::Owner, webhooks::Outgoing};
use std::{
    cmp::Ordering,
    collections::BinaryHeap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};
use tokio::sync::{Notify, oneshot};

#[derive(Debug, Default)]
pub(super) struct Agenda {
    entries: Mutex<BinaryHeap<Entry>>,
    changed: Notify,
    /// Entries, and what was taken from the agenda and is not finished.
    open: AtomicUsize,
}

#[derive(Debug)]
pub(super) enum Task {
    Status(PlannedStatus),
    Deliver(Box<Outgoing>),
}

/// Something that happens to an accepted message, to be told.
#[derive(Debug)]
pub(super) struct PlannedStatus {
    /// The send in the ledger.
    pub(super) send: u64,
    pub(super) owner: Owner,
    pub(super) status: Status,
    pub(super) code: Option<u32>,
    /// When it happened, which is not when it is told.
    pub(super) happened_us: u64,
    /// Told once the receiver has answered.
    pub(super) answered: Option<oneshot::Sender<()>>,
}

#[derive(Debug)]
struct Entry {
    due_us: u64,
    task: Task,
}

impl Agenda {
    pub(super) fn add(&self, due_us: u64, task: Task) {
        self.open.fetch_add(1, SeqCst);
        let mut entries = self.lock();
        let earliest = entries.peek().is_none_or(|first| due_us < first.due_us);
        entries.push(Entry { due_us, task });
        drop(entries);
        if earliest {
            self.changed.notify_one();
        }
    }

    /// Takes what is due, at most `most` entries, and says when the next one is.
    pub(super) fn take(&self, now_us: u64, most: usize) -> (Vec<Task>, Option<u64>) {
        let mut entries = self.lock();
        let mut due = Vec::new();
        while due.len() < most && entries.peek().is_some_and(|entry| entry.due_us <= now_us) {
            due.extend(entries.pop().map(|entry| entry.task));
        }
        (due, entries.peek().map(|entry| entry.due_us))
    }

    /// A task that was taken is finished for good.
    pub(super) fn finished(&self, tasks: usize) {
        self.open.fetch_sub(tasks, SeqCst);
    }

    /// A task was taken that does not come from the agenda, but is to be waited for like one.
    pub(super) fn begun(&self) {
        self.open.fetch_add(1, SeqCst);
    }

    /// How much is still to be done.
    pub(super) fn open(&self) -> usize {
        self.open.load(SeqCst)
    }

    /// Forgets everything that was not taken yet.
    pub(super) fn clear(&self) {
        let forgotten = std::mem::take(&mut *self.lock());
        self.finished(forgotten.len());
    }

    /// Returns once something earlier than before was added.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, BinaryHeap<Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ord for Entry {
    /// The earliest is the greatest: the heap gives out the greatest first.
    fn cmp(&self, other: &Self) -> Ordering {
        other.due_us.cmp(&self.due_us)
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.due_us == other.due_us
    }
}

impl Eq for Entry {}
