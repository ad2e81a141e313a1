//! The clock: what is due becomes jobs; what a crash left in the outbox or a broker's absence in the spill is published; what
//! is too old goes. Any number may run: due rows are claimed with SKIP LOCKED, there is no leader.

mod campaigns;
mod housekeeping;
mod replays;
mod steps;
mod sweep;
mod windows;

use futures_util::future::join_all;
use shared::{
    clock::Clock,
    db::{self, Databases, Placement, retention::Expiring, routing},
    domain::ids::TenantId,
    health::Condition,
    lifecycle::Lifecycle,
    queue::{self, Broker, PublishError, Publisher},
};
use std::{collections::BTreeMap, time::Duration};
use steps::{Limits, Next, Step, Steps};
use tokio::sync::watch;
use tracing::debug;

/// An idle sweep looks again after this long: how late a due job may be at most.
const IDLE: Duration = Duration::from_millis(200);
/// Between calls of what need not be exact.
const HOUSEKEEPING: Duration = Duration::from_secs(60);
/// Files whose time is over go, and objects to which nobody refers any more, this long after at most.
const FILES: Duration = Duration::from_secs(60);
/// Between looks for accounts that are to be tried again, or whose messages are to be woken.
const ACCOUNTS: Duration = Duration::from_secs(2);
/// Between steps of rates that creep back.
const RATES: Duration = Duration::from_secs(1);
/// Between looks whose campaigns' people are to be released: those of accounts without a limit each time, others each second.
const RELEASES: Duration = Duration::from_millis(250);
/// Between looks for tables that have grown: plans made for an empty table are good for no longer.
const STATISTICS: Duration = Duration::from_secs(2);
/// A tenant made elsewhere is noticed within this time.
const TENANTS: Duration = Duration::from_secs(5);
/// Between looks for webhooks that are to be played again, where there were none.
const REPLAYS: Duration = Duration::from_secs(1);
/// Between looks for customer service windows that end.
const WINDOWS: Duration = Duration::from_secs(5);
/// How long before its end a window is said to be closing unless it is set, in minutes.
pub const WINDOW_CLOSING_MINUTES: u16 = 60;
/// Between looks for accounts whose templates are to be fetched.
const TEMPLATES: Duration = Duration::from_secs(10);
/// Templates are fetched anew after so many minutes unless it is set.
pub const TEMPLATES_MAX_AGE_MINUTES: u32 = 6 * 60;
/// Days for which a raw webhook is kept unless it is set.
pub const LOG_DAYS: u16 = 30;

/// What the scheduler works with.
#[derive(Clone)]
pub struct Scheduler {
    /// The databases, in the role of the workers.
    pub databases: Databases,
    /// Where queues are looked at.
    pub broker: Broker,
    /// Publishes what is due.
    pub publisher: Publisher,
    /// The time.
    pub clock: Clock,
    /// Days for which a raw webhook is kept.
    pub log_days: u16,
    /// How long before its end a customer service window is said to be closing, in minutes.
    pub window_closing_minutes: u16,
    /// Templates that are older are fetched anew; none: only when somebody asks for it.
    pub templates_max_age: Option<Duration>,
}

/// Why a step could not be finished. Nothing is lost: the rows are still there.
#[derive(Debug, thiserror::Error)]
enum Fault {
    /// The database.
    #[error(transparent)]
    Database(#[from] db::Error),
    /// The broker.
    #[error("publishing what is due: {0}")]
    Broker(#[from] PublishError),
    /// A queue could not be looked at.
    #[error("looking at a queue: {0}")]
    Queue(#[from] queue::Error),
    /// The database has said why.
    #[error("{missing} partitions that are needed next could not be made")]
    Partitions { missing: i64 },
    /// Nobody said anything.
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
}

/// The tenants of each placement, as last asked.
type Tenants = BTreeMap<Placement, Vec<TenantId>>;

/// Sweeps until the process stops. `ready` tells whether it can.
pub async fn run(scheduler: Scheduler, life: Lifecycle, ready: Condition) {
    let Scheduler { databases, publisher, clock, .. } = &scheduler;
    let steps = Steps::new(ready, life, Limits::default());
    let (tell_tenants, tenants) = watch::channel(Tenants::new());
    let placements: Vec<PlacementSteps> = databases.placements().map(|p| PlacementSteps::new(&steps, p)).collect();
    let look = steps.step("finding the tenants");
    let outbox = steps.step("sweeping the control outbox");
    let spill = steps.step("sweeping the spill");
    let expire = steps.step("removing old control rows");
    let mut place = sweep::Place::default();
    tokio::join!(
        look.every(TENANTS, async || {
            tell_tenants.send_replace(find_tenants(databases).await?);
            Ok(Next::Later)
        }),
        outbox.every(IDLE, async || sweep::control(databases, publisher).await),
        spill.every(IDLE, async || sweep::spill(databases, publisher, clock, &mut place).await),
        expire.every(HOUSEKEEPING, async || {
            for what in Expiring::ALL {
                housekeeping::expire_control(databases, what).await?;
            }
            Ok(Next::Later)
        }),
        join_all(placements.iter().map(|placement| placement.run(&scheduler, &tenants))),
    );
    debug!("sweeping has ended");
}

/// What is done for each placement, by itself: a tenant's own database that is away concerns that tenant alone.
struct PlacementSteps {
    placement: Placement,
    partitions: Step,
    outbox: Step,
    campaigns: Step,
    replays: Step,
    rates: Step,
    accounts: Step,
    templates: Step,
    statistics: Step,
    gone: Step,
    expire: Step,
    files: Step,
    windows: Step,
}

impl PlacementSteps {
    fn new(steps: &Steps, placement: &Placement) -> Self {
        let step = |what: &str| steps.step(format!("{what} (placement {placement})"));
        Self {
            placement: placement.clone(),
            partitions: step("making and dropping partitions"),
            outbox: step("sweeping the outbox"),
            campaigns: step("asking for releases of campaigns"),
            replays: step("playing webhooks again"),
            rates: step("raising lowered rates"),
            accounts: step("trying accounts that are down"),
            templates: step("asking for templates"),
            statistics: step("analysing grown tables"),
            gone: step("looking through contacts that are gone"),
            expire: step("removing old rows"),
            files: step("letting go of files"),
            windows: step("telling of windows that end"),
        }
    }

    async fn run(&self, scheduler: &Scheduler, tenants: &watch::Receiver<Tenants>) {
        let Scheduler { databases, broker, publisher, clock, log_days, window_closing_minutes, templates_max_age } =
            scheduler;
        let placement = &self.placement;
        let tenants = || tenants.borrow().get(placement).cloned().unwrap_or_default();
        let mut analysed = housekeeping::Analysed::default();
        let mut told = None;
        // After a long absence there are none for today, and what is published now would go where it has to be moved from.
        self.partitions.once(Box::pin(housekeeping::partitions(databases, placement, *log_days))).await;
        tokio::join!(
            self.partitions
                .every(HOUSEKEEPING, async || housekeeping::partitions(databases, placement, *log_days).await),
            self.outbox.every(IDLE, async || sweep::outbox(databases, publisher, placement, &tenants()).await),
            self.campaigns.every(RELEASES, async || {
                campaigns::release(databases, publisher, clock, placement, &tenants()).await
            }),
            self.replays.every(REPLAYS, async || {
                replays::go_on(databases, broker, publisher, clock, placement, &tenants(), &mut told).await
            }),
            self.rates.every(RATES, async || housekeeping::rates(databases, placement, &tenants()).await),
            self.accounts.every(ACCOUNTS, async || housekeeping::accounts(databases, placement, &tenants()).await),
            self.templates.every(TEMPLATES, async || {
                housekeeping::templates(databases, placement, &tenants(), *templates_max_age).await
            }),
            self.statistics
                .every(STATISTICS, async || { housekeeping::statistics(databases, placement, &mut analysed).await }),
            self.gone.every(HOUSEKEEPING, async || housekeeping::gone(databases, placement, &tenants()).await),
            self.expire.every(HOUSEKEEPING, async || housekeeping::expire(databases, placement, &tenants()).await),
            self.files.every(FILES, async || housekeeping::files(databases, placement, &tenants()).await),
            self.windows.every(WINDOWS, async || {
                windows::tell(databases, placement, &tenants(), *window_closing_minutes).await
            }),
        );
    }
}

async fn find_tenants(databases: &Databases) -> Result<Tenants, Fault> {
    let mut tx = databases.control().await?;
    let mut found = Tenants::new();
    for placement in databases.placements() {
        found.insert(placement.clone(), routing::tenants_of(&mut tx, placement).await?);
    }
    tx.commit().await?;
    Ok(found)
}
