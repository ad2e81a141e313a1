//! What brings a send to this worker: a job of its own, or a slice of a campaign that brings up to fifty. A slice is
//! acknowledged when each of its sends is dealt with and what became of it is stored.

use crate::worker::{Placed, Settle, Ticket};
use anyhow::anyhow;
use chrono::DateTime;
use shared::{
    db::outbound::outcomes::Record,
    domain::ids::{ChannelAccountId, MessageId, TenantId},
    jobs::{Job, outbound::OutboundSlice},
};
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

/// A campaign's send is tried again after this time (± 50 %) at the latest.
pub(super) const CAMPAIGN_WAIT: Duration = Duration::from_secs(16);

/// A send's job, or its share in one.
pub(super) enum Carrier {
    Job(Ticket<()>),
    Slice(Share),
}

/// One send's share in a slice. Dropped without a word it makes the slice fail: the send's own fate is then found by whoever
/// gets the slice next.
pub(super) struct Share {
    slice: Arc<Slice>,
    dealt_with: bool,
}

/// A slice while its sends are under way.
struct Slice {
    account: ChannelAccountId,
    sends: usize,
    /// Taken when the last share is gone.
    ticket: Option<Ticket<()>>,
    settle: Settle<Record>,
    again: Mutex<Again>,
}

/// What becomes of a slice whose sends are not all dealt with. The worse overrides the better.
#[derive(Clone, Copy, PartialEq, PartialOrd)]
enum Again {
    No,
    Later(Duration),
    Failed,
}

/// The shares in a slice, as many as it has sends.
pub(super) fn shares(slice: &OutboundSlice, ticket: Ticket<()>, settle: &Settle<Record>) -> Vec<Carrier> {
    let sends = slice.message_ids.len();
    let slice = Arc::new(Slice {
        account: slice.account,
        sends,
        ticket: Some(ticket),
        settle: settle.clone(),
        again: Mutex::new(Again::No),
    });
    (0..sends).map(|_| Carrier::Slice(Share { slice: slice.clone(), dealt_with: false })).collect()
}

/// A slice with this message alone.
pub(super) fn alone(tenant_id: TenantId, account: ChannelAccountId, message_id: MessageId) -> Job {
    // As the part of a job it gets the age of its whole.
    OutboundSlice { tenant_id, account, message_ids: vec![message_id] }.to_job(DateTime::UNIX_EPOCH)
}

impl Carrier {
    /// The account of the slice, if it is one.
    pub(super) fn slice_account(&self) -> Option<ChannelAccountId> {
        match self {
            Carrier::Job(_) => None,
            Carrier::Slice(share) => Some(share.slice.account),
        }
    }

    /// People's and automation's messages go before campaigns'.
    pub(super) fn lane(&self) -> u8 {
        match self {
            Carrier::Job(_) => 0,
            Carrier::Slice(_) => 1,
        }
    }

    /// The longest wait before another try, if there is one. A campaign's send has a place among its account's sends in flight,
    /// of which there are few: when the provider is back after an outage, these must not be asleep for minutes.
    pub(super) fn longest_wait(&self) -> Option<Duration> {
        match self {
            Carrier::Job(_) => None,
            Carrier::Slice(_) => Some(CAMPAIGN_WAIT),
        }
    }

    /// Whether nobody else than this job would bring the send again.
    pub(super) fn is_sole(&self) -> bool {
        match self {
            Carrier::Job(_) => true,
            // Later than at first a send of a campaign comes in a slice of its own.
            Carrier::Slice(share) => share.slice.sends == 1,
        }
    }

    /// This became of it.
    pub(super) fn record(self, settle: &Settle<Record>, records: Vec<Placed<Record>>) {
        match self {
            Carrier::Job(ticket) => settle.done(ticket, records),
            Carrier::Slice(share) => share.end(|slice, ticket| slice.settle.progress(ticket, records)),
        }
    }

    /// There is nothing to do.
    pub(super) fn nothing(self, settle: &Settle<Record>) {
        match self {
            Carrier::Job(ticket) => settle.done(ticket, Vec::new()),
            Carrier::Slice(share) => share.end(|_, _| {}),
        }
    }

    /// It comes back after a while, uncharged; a slice when all its sends are dealt with.
    pub(super) fn later(self, settle: &Settle<Record>, wait: Duration) {
        match self {
            Carrier::Job(ticket) => settle.later(ticket, wait),
            Carrier::Slice(share) => share.end(|slice, _| slice.again(Again::Later(wait))),
        }
    }

    /// There is no such send.
    pub(super) fn reject(self, settle: &Settle<Record>, tenant_id: TenantId, message_id: MessageId) {
        let why = anyhow!("there is no send {message_id} of tenant {tenant_id}");
        match self {
            Carrier::Job(ticket) => settle.reject(ticket, why),
            Carrier::Slice(share) => share.end(|slice, ticket| {
                slice.settle.dead_part(ticket, alone(tenant_id, slice.account, message_id), why);
            }),
        }
    }
}

impl Share {
    fn end(mut self, how: impl FnOnce(&Slice, &Ticket<()>)) {
        self.dealt_with = true;
        let ticket = self.slice.ticket.as_ref().expect("it is taken when no share is left");
        how(&self.slice, ticket);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if !self.dealt_with {
            self.slice.again(Again::Failed);
        }
    }
}

impl Slice {
    fn again(&self, again: Again) {
        let mut worst = self.again.lock().expect("nothing panics while this is locked");
        if again > *worst {
            *worst = again;
        }
    }
}

impl Drop for Slice {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket.take() else { return };
        let again = *self.again.lock().expect("nothing panics while this is locked");
        match again {
            Again::No => self.settle.done(ticket, Vec::new()),
            Again::Later(wait) => self.settle.later(ticket, wait),
            Again::Failed => self.settle.retry(ticket, None, anyhow!("a send of the slice was dropped without a word")),
        }
    }
}
