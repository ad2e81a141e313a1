//! Applying: a batch of webhooks, written set by set. Nothing here depends on the order in which batches commit, and what none of
//! the batch's events needs is not asked.
//!
//! | file | what of the batch it is about |
//! |---|---|
//! | `news` | accounts and templates |
//! | `people` | whose contacts the people are |
//! | `consent` | who does not want to be written to, or wants to again |
//! | `messages` | what people wrote, and what was written to them elsewhere |
//! | `roll_ups` | what that adds to conversations |
//! | `reports` | what became of our sends: statuses, echoes, watermarks |
//! | `log` | the raw log |

mod consent;
mod log;
mod messages;
mod news;
mod people;
mod reports;
mod roll_ups;

use super::{Inbound, Told};
use chrono::{DateTime, TimeDelta, Utc};
use messages::{Claimed, Item, Placed};
use people::People;
use shared::{
    db::{
        self, FleetTx,
        inbound::{conversations, messages::remove_echoes, received},
        media, merging,
        outbound::counts,
        suppressions,
    },
    domain::{
        channel::Channel,
        events::Event,
        ids::{ChannelAccountId, TenantId},
    },
};

/// What is older than this by the provider's time is nobody's news: it is stored and triggers nothing.
const FRESH: TimeDelta = TimeDelta::hours(24);

/// Something that one webhook of the batch tells.
#[derive(Clone, Copy)]
struct Heard<'a, T> {
    webhook: &'a Inbound,
    channel_account_id: ChannelAccountId,
    channel: Channel,
    what: T,
}

impl<T> Heard<'_, T> {
    /// Whose account heard it.
    fn account(&self) -> (TenantId, ChannelAccountId) {
        (self.webhook.tenant_id, self.channel_account_id)
    }

    fn tenant_id(&self) -> TenantId {
        self.webhook.tenant_id
    }

    /// Whether it is news: neither played again nor long past, however long it was on its way to us or within. Only then it triggers
    /// anything.
    fn is_fresh(&self, at: DateTime<Utc>, now: DateTime<Utc>) -> bool {
        !self.webhook.meta.replay && at > now - FRESH
    }
}

/// What of the batch `pick` knows, in the order in which it came.
fn heard<'a, T>(effects: &'a [Inbound], pick: impl Fn(&'a Event) -> Option<&'a T>) -> Vec<Heard<'a, &'a T>> {
    let of = |webhook: &'a Inbound| webhook.events.iter().map(move |told| (webhook, told));
    let events = effects.iter().flat_map(of);
    events
        .filter_map(|(webhook, Told { channel_account_id, channel, event })| {
            let (channel_account_id, channel) = (*channel_account_id, *channel);
            pick(event).map(|what| Heard { webhook, channel_account_id, channel, what })
        })
        .collect()
}

/// Writes a batch down.
pub(super) async fn apply(tx: &mut FleetTx, effects: &[Inbound], now: DateTime<Utc>) -> Result<(), db::Error> {
    tx.look_up_by_key().await?;
    news::apply(tx, effects).await?;
    let items = messages::distinct(effects, now);
    let consents = consent::heard(effects);
    let mut people = People::resolve(tx, &items, &consents).await?;
    people.follow(&merging::merge_known(tx, &people.same).await?, &items, &consents);
    let mut taken_back = messages::revoke(tx, &items).await?;
    let Claimed { placed, evidence, echoes, revoked } = messages::claim(tx, &items, &people).await?;
    taken_back.add(&placed, revoked);
    let opted_out = suppressions::set(tx, &consent::wishes(&items, &placed, &consents, &people)).await?;
    remove_echoes(tx, &echoes).await?;
    let conversations = conversations::roll_up(tx, &roll_ups::of(&placed)).await?;
    messages::insert(tx, &placed, &conversations).await?;
    media::insert(tx, &messages::files(&items, &people, &placed)).await?;
    media::profiles::ask(tx, &messages::nameless(&items, &people)).await?;
    taken_back.erase(tx).await?;
    let receipts = reports::keep_receipts(tx, effects, &evidence).await?;
    let mut moved = suppressions::end_sends(tx, &opted_out).await?;
    moved.extend(reports::apply(tx, effects, evidence, receipts, now).await?);
    log::insert(tx, effects, &items, &consents, &people, &placed).await?;
    counts::count(tx, &moved).await?;
    received::count(tx, &messages::received_now(&placed, now)).await
}
