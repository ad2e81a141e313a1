//! Jobs of `inbound`: a bundle of 1–64 raw webhooks, published as one.
//!
//! Body, versions 1 and 2: a `u32` (big endian) with the length of a JSON index, the index, then the raw bodies one after another
//! in the index's order. The bodies are the provider's bytes untouched, so that what is logged, replayed and verified again
//! is what came. Version 2 says that there is something in it that the first release does not know: another provider than WhatsApp,
//! or a query.

use super::{Job, Undecodable};
use crate::domain::{
    channel::Provider,
    ids::{ChannelAccountId, JobId, TenantId, WebhookId},
};
use bytes::{BufMut, Bytes, BytesMut};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// The newest version this release writes and reads.
pub const VERSION: u16 = 2;
/// The kind of these jobs.
pub const KIND: &str = "inbound.bundle";
/// At most so many webhooks in a bundle.
pub const MAX_WEBHOOKS: usize = 64;
/// A bundle is closed when its bodies reach so many bytes.
pub const MAX_BYTES: usize = 128 * 1024;
/// A body larger than this is stored first and referred to: big messages bloat the broker's log.
pub const MAX_INLINE_BYTES: usize = 128 * 1024;

/// One webhook as the receiver knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawWebhook {
    /// What the receiver knows.
    pub meta: Meta,
    /// The provider's bytes; empty if `meta.stored`.
    pub body: Bytes,
}

/// What the receiver knows of a webhook besides its bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// Given by the receiver.
    pub id: WebhookId,
    /// Whose webhook.
    pub provider: Provider,
    /// When it was received, by the receiver's clock.
    pub received_at: DateTime<Utc>,
    /// The account, where the URL named it; otherwise the body routes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<Account>,
    /// The query of the URL it was sent to, where the provider says something there (Twilio).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// Whether the body is in the table of large bodies under this id instead.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stored: bool,
    /// Whether an operator plays it again: nothing is triggered by it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub replay: bool,
}

/// The account a webhook's URL named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Account {
    /// Whose.
    pub tenant_id: TenantId,
    /// Which.
    pub channel_account_id: ChannelAccountId,
}

#[derive(Serialize, Deserialize)]
struct IndexEntry {
    #[serde(flatten)]
    meta: Meta,
    len: usize,
}

impl RawWebhook {
    /// As it travels: without a body that is stored and can be fetched again.
    #[must_use]
    pub fn to_travel(&self) -> Self {
        let body = if self.meta.stored { Bytes::new() } else { self.body.clone() };
        Self { meta: self.meta.clone(), body }
    }

    /// The webhook as a job of its own, however often it is taken out of its bundle the same one.
    pub fn alone(&self, now: DateTime<Utc>) -> Job {
        Job { id: JobId(self.meta.id.0), ..to_job(&[self.to_travel()], now) }
    }
}

/// Cuts webhooks into bundles of at most so many, and of at most the broker's good size.
pub fn bundles(webhooks: &[RawWebhook], at_most: usize) -> impl Iterator<Item = &[RawWebhook]> {
    let mut rest = webhooks;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = rest.iter().take(at_most).take_while(|w| {
            bytes += w.body.len();
            bytes <= MAX_BYTES
        });
        let len = fits.count().max(1).min(rest.len());
        let (bundle, after) = rest.split_at(len);
        rest = after;
        (!bundle.is_empty()).then_some(bundle)
    })
}

/// The bundle as a job.
pub fn to_job(webhooks: &[RawWebhook], now: DateTime<Utc>) -> Job {
    let index: Vec<IndexEntry> =
        webhooks.iter().map(|w| IndexEntry { meta: w.meta.clone(), len: w.body.len() }).collect();
    let index = serde_json::to_vec(&index).expect("an index of plain fields is always JSON");
    let bodies: usize = webhooks.iter().map(|w| w.body.len()).sum();
    let mut body = BytesMut::with_capacity(4 + index.len() + bodies);
    body.put_u32(u32::try_from(index.len()).expect("an index of 64 entries is far below 4 GiB"));
    body.put_slice(&index);
    for webhook in webhooks {
        body.put_slice(&webhook.body);
    }
    Job::new(KIND, version_of(webhooks), None, now, body.freeze())
}

/// The oldest version that can say this. A worker one release back takes what it understands, and leaves the rest for a newer one.
fn version_of(webhooks: &[RawWebhook]) -> u16 {
    let is_old = |webhook: &RawWebhook| webhook.meta.provider == Provider::Whatsapp && webhook.meta.query.is_none();
    if webhooks.iter().all(is_old) { 1 } else { VERSION }
}

/// The webhooks of a job. Bodies are slices of the job's bytes, not copies.
///
/// # Errors
/// [`Undecodable::NotYet`] for a newer version; [`Undecodable::Broken`] if the frame does not hold together.
pub fn from_job(job: &Job) -> Result<Vec<RawWebhook>, Undecodable> {
    if job.headers.version > VERSION {
        return Err(Undecodable::NotYet { found: job.headers.version, known: VERSION });
    }
    let broken = |why: &str| Undecodable::Broken(why.to_owned());
    let head: [u8; 4] =
        job.body.get(..4).and_then(|b| b.try_into().ok()).ok_or_else(|| broken("shorter than 4 bytes"))?;
    let start = usize::try_from(u32::from_be_bytes(head)).ok().and_then(|len| len.checked_add(4));
    let start = start.filter(|start| *start <= job.body.len()).ok_or_else(|| broken("the index is cut short"))?;
    let index: Vec<IndexEntry> =
        serde_json::from_slice(&job.body[4..start]).map_err(|e| broken(&format!("the index is not readable: {e}")))?;
    let mut rest = job.body.slice(start..);
    let mut webhooks = Vec::with_capacity(index.len());
    for IndexEntry { meta, len } in index {
        if len > rest.len() {
            return Err(broken("a body is cut short"));
        }
        webhooks.push(RawWebhook { meta, body: rest.split_to(len) });
    }
    if rest.is_empty() { Ok(webhooks) } else { Err(broken("bytes are left over")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn webhook(body: &'static str) -> RawWebhook {
        let meta = Meta {
            id: WebhookId::new(),
            provider: Provider::Whatsapp,
            received_at: DateTime::UNIX_EPOCH,
            account: None,
            query: None,
            stored: false,
            replay: false,
        };
        RawWebhook { meta, body: Bytes::from_static(body.as_bytes()) }
    }

    #[test]
    fn a_bundle_comes_back_as_it_went() {
        let webhooks = vec![webhook("{}"), webhook(""), webhook("{\"a\":1}")];
        assert_eq!(from_job(&to_job(&webhooks, DateTime::UNIX_EPOCH)).ok(), Some(webhooks));
    }

    #[test]
    fn what_the_first_release_does_not_know_is_not_given_to_it() {
        let mut other = webhook("{}");
        other.meta.provider = Provider::Messenger;
        for (webhooks, version) in [(vec![webhook("{}")], 1), (vec![webhook("{}"), other.clone()], 2), (vec![other], 2)]
        {
            assert_eq!(to_job(&webhooks, DateTime::UNIX_EPOCH).headers.version, version);
        }
    }

    #[test]
    fn bundles_are_as_many_and_as_large_as_they_may_be_and_leave_none_out() {
        let mut webhooks = vec![webhook("{}"); 5];
        webhooks[2].body = vec![b' '; MAX_BYTES].into();
        let sizes = |at_most| bundles(&webhooks, at_most).map(<[RawWebhook]>::len).collect::<Vec<_>>();
        assert_eq!(sizes(64), [2, 1, 2]);
        assert_eq!(sizes(1), [1; 5]);
        assert_eq!(bundles(&[], 64).count(), 0);
    }

    #[test]
    fn a_webhook_taken_out_of_its_bundle_twice_is_one_job() {
        let (mut large, small) = (webhook("[1]"), webhook("{}"));
        large.meta.stored = true;
        for webhook in [&large, &small] {
            let (once, again) = (webhook.alone(DateTime::UNIX_EPOCH), webhook.alone(DateTime::UNIX_EPOCH));
            assert_eq!(once, again);
            assert_eq!(from_job(&once).ok(), Some(vec![webhook.to_travel()]));
        }
        assert_eq!((large.to_travel().body.len(), small.to_travel().body.len()), (0, 2));
    }

    #[test]
    fn a_bundle_cut_anywhere_is_broken_and_does_not_panic() {
        let whole = to_job(&[webhook("{}"), webhook("[1,2]")], DateTime::UNIX_EPOCH);
        for len in 0..whole.body.len() {
            let mut cut = whole.clone();
            cut.body.truncate(len);
            assert!(matches!(from_job(&cut), Err(Undecodable::Broken(_))), "{len}");
        }
    }

    #[test]
    fn version_1_as_it_was_written_is_still_read() {
        let index = r#"[{"id":"01936f5e-3c00-7000-8000-000000000001","provider":"whatsapp","received_at":"2026-11-21T10:00:00Z","len":2}]"#;
        let mut body = u32::try_from(index.len()).unwrap().to_be_bytes().to_vec();
        body.extend_from_slice(index.as_bytes());
        body.extend_from_slice(b"{}");
        let job = Job::new(KIND, 1, None, DateTime::UNIX_EPOCH, body);
        let read = from_job(&job).unwrap();
        assert_eq!((read.len(), &read[0].body[..], read[0].meta.account), (1, &b"{}"[..], None));
    }
}
