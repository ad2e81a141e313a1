//! Webhooks of tenants' logs that are published once more. What is live goes first: a few small bundles at a time, each confirmed
//! before the next, at a pace that leaves most of what the consumers can do, and none while the queue has more than a little in it.
//!
//! Who publishes a slice holds the replay's row by a lease, and no transaction is open while the broker is waited for: how far it is moves
//! only with what is confirmed, and only for who holds it. After a crash one slice is published twice, which changes nothing; the counts
//! are those of the row.

use super::{Fault, steps::Next};
use bytes::Bytes;
use shared::{
    clock::Clock,
    crash::{self, CrashPoint},
    db::{
        Databases, Placement, TenantTx, receiving,
        webhook_log::{
            self, Bounds, Logged,
            replays::{self, Published, State, Wanted},
        },
    },
    domain::ids::{ReplayId, TenantId},
    jobs::inbound::{self, MAX_INLINE_BYTES, RawWebhook},
    queue::{Broker, Outgoing, Publisher, Target, topology},
    telemetry::names,
};
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::{info, warn};
use uuid::Uuid;

/// Published at a time. Few, for what is published stands before what comes next.
const SLICE: Bounds = Bounds { webhooks: 64, bytes: 4 * 1024 * 1024 };
/// In one job, so that who writes live is between them.
const BUNDLE: usize = 16;
/// A slice no more often than this: a thousand webhooks a second, a part of what one consumer can do.
const PACE: Duration = Duration::from_millis(60);
/// With more jobs than this waiting in the queue, its consumers have enough to do.
const QUEUED: u32 = 8;
/// The queue is looked at again after this long, over a connection of its own.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// What waits for another release is told as often as this.
const TELL_EVERY: Duration = Duration::from_secs(60);
/// Counted in one statement.
const COUNT: u32 = 50_000;

/// What a slice came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gone {
    /// Something was published.
    On,
    /// There was nothing to be published yet.
    OnSilently,
    /// It has ended, or another scheduler is at it.
    Elsewhere,
}

/// Goes on with what is being played again in a placement, in turn, for a second.
pub(super) async fn go_on(
    databases: &Databases,
    broker: &Broker,
    publisher: &Publisher,
    clock: &Clock,
    placement: &Placement,
    tenants: &[TenantId],
    told: &mut Option<Instant>,
) -> Result<Next, Fault> {
    if tenants.is_empty() {
        return Ok(Next::Later);
    }
    let began = Instant::now();
    let mut pace = interval(PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut room = None;
    loop {
        let mut tx = databases.fleet(placement, tenants).await?;
        let replays::UnderWay { ours: under_way, newer } = replays::under_way(&mut tx).await?;
        tx.commit().await?;
        if newer > 0 && told.is_none_or(|at| at.elapsed() >= TELL_EVERY) {
            *told = Some(Instant::now());
            warn!(%placement, replays = newer, "replays of providers or outcomes that only a newer release knows wait for one");
        }
        if under_way.is_empty() {
            return Ok(Next::Later);
        }
        // Only who has something to publish asks the broker.
        let room = match room {
            Some(room) => room,
            None => *room.insert(broker.depth(&topology::INBOUND).await?.ready <= QUEUED),
        };
        let mut gone_on = false;
        for (tenant, id) in under_way {
            let gone = go_on_with(databases, publisher, clock, placement, (tenant, id), room).await?;
            gone_on |= gone != Gone::Elsewhere;
            if gone == Gone::On {
                pace.tick().await;
            }
            if began.elapsed() >= LOOK_EVERY {
                return Ok(if room { Next::AtOnce } else { Next::Later });
            }
        }
        if !gone_on {
            return Ok(Next::Later);
        }
    }
}

/// A slice of one replay. Without room it is only counted.
async fn go_on_with(
    databases: &Databases,
    publisher: &Publisher,
    clock: &Clock,
    placement: &Placement,
    (tenant, id): (TenantId, ReplayId),
    room: bool,
) -> Result<Gone, Fault> {
    let working = Uuid::now_v7();
    let mut tx = databases.tenant(placement, tenant).await?;
    let Some(replay) = replays::hold(&mut tx, id, working).await? else { return Ok(Gone::Elsewhere) };
    match (replay.state, &replay.wanted) {
        (State::Counting, Wanted::Stretch(filter)) => {
            let counted = webhook_log::count(&mut tx, filter, replay.behind, COUNT).await?;
            replays::counted(&mut tx, id, counted.webhooks, counted.next).await?;
            tx.commit().await?;
            return Ok(Gone::OnSilently);
        }
        (State::Running, _) if room => {}
        // Not committed: nobody has held it.
        _ => return Ok(Gone::Elsewhere),
    }
    let slice = match &replay.wanted {
        Wanted::Stretch(filter) => webhook_log::slice(&mut tx, filter, replay.behind, SLICE).await?,
        Wanted::Named(places) => webhook_log::slice_of(&mut tx, places, replay.behind, SLICE).await?,
    };
    let webhooks: Vec<RawWebhook> =
        slice.webhooks.iter().filter_map(|logged| to_webhook(&tx, replay.id, logged)).collect();
    tx.commit().await?;
    let unreadable = slice.webhooks.len() - webhooks.len();
    if unreadable > 0 {
        warn!(%tenant, replay = %id, unreadable, "webhooks of the log of which nothing is kept that could be read");
    }
    if let Err(fault) = publish(databases, publisher, clock, &webhooks).await {
        let mut tx = databases.tenant(placement, tenant).await?;
        replays::let_go(&mut tx, id, working).await?;
        tx.commit().await?;
        return Err(fault);
    }
    crash::pass(CrashPoint::SchedulerAfterPublishBeforeDelete);
    metrics::counter!(names::WEBHOOKS_REPLAYED).increment(webhooks.len() as u64);
    let done = Published { webhooks: count(webhooks.len()), unreadable: count(unreadable), next: slice.next };
    let mut tx = databases.tenant(placement, tenant).await?;
    let counts = replays::published(&mut tx, id, working, done).await?;
    tx.commit().await?;
    if counts && done.next.is_none() {
        info!(%tenant, replay = %id, published = replay.published + done.webhooks, "all of a replay is published");
    }
    Ok(if webhooks.is_empty() { Gone::OnSilently } else { Gone::On })
}

async fn publish(
    databases: &Databases,
    publisher: &Publisher,
    clock: &Clock,
    webhooks: &[RawWebhook],
) -> Result<(), Fault> {
    store_large(databases, webhooks).await?;
    let travelling: Vec<RawWebhook> = webhooks.iter().map(RawWebhook::to_travel).collect();
    let jobs = inbound::bundles(&travelling, BUNDLE)
        .map(|bundle| Outgoing { to: Target::Queue(&topology::INBOUND), job: inbound::to_job(bundle, clock.now()) });
    Ok(publisher.publish(jobs.collect()).await?)
}

fn count(webhooks: usize) -> i64 {
    i64::try_from(webhooks).unwrap_or(i64::MAX)
}

/// As it is played again; `None` if nothing is kept of it that could be read.
fn to_webhook(tx: &TenantTx, replay: ReplayId, logged: &Logged) -> Option<RawWebhook> {
    // Of what told of somebody who was erased nothing is kept; what came by GET says all in its query.
    let body = logged.body().filter(|body| !body.is_empty() || logged.query.is_some())?;
    let (mut meta, body) = (logged.to_replay(tx, replay)?, Bytes::from(body));
    meta.stored = body.len() > MAX_INLINE_BYTES;
    Some(RawWebhook { meta, body })
}

/// Bodies too large for the broker. Whoever has played one again drops it; a slice that is published twice has each once.
async fn store_large(databases: &Databases, webhooks: &[RawWebhook]) -> Result<(), Fault> {
    if webhooks.iter().all(|webhook| !webhook.meta.stored) {
        return Ok(());
    }
    let mut tx = databases.control().await?;
    for webhook in webhooks.iter().filter(|webhook| webhook.meta.stored) {
        receiving::store_large_body(&mut tx, webhook.meta.id, &webhook.body).await?;
    }
    Ok(tx.commit().await?)
}
