//! The real programs, end to end, with everything that can go wrong on the way. Servers are found in the environment
//! (DATABASE_URL, AMQP_URL, REDIS_URL), the programs in MIJRA_BIN_DIR or beside the test; they must be built with crash points.
//! Every test has a database, queues and an address of its own.
#![allow(clippy::disallowed_methods, reason = "tests spawn their own tasks and read the machine's clock")]
#![allow(clippy::unwrap_used, reason = "a test ends where something unexpected happens, in its helpers, too")]

mod bad_input;
mod campaigns;
mod channels;
mod crashes;
mod ends;
mod importing;
mod media;
mod order;
mod outages;
mod poison;
mod replays;
mod starts;
mod templates;
mod ways;

use std::time::Duration;
use support::fleet::{Builder, Fleet};

/// What must happen happens within this.
const SOON: Duration = Duration::from_secs(30);
/// The books may take so long to close: a claim of a crashed worker expires after its call could have ended, then evidence
/// is waited for.
const CLOSING: Duration = Duration::from_secs(90);

/// A fleet that is quick about what it does not know.
fn quick() -> Builder {
    Fleet::builder()
        .env("PROVIDER_CALL_TIMEOUT_SECONDS", 2)
        .env("UNKNOWN_TURN_SECONDS", 1)
        .env("UNKNOWN_SETTLE_SECONDS", 4)
}

/// What passes by itself is tried again within seconds, not within minutes as is usual.
async fn soon_again(fleet: &Fleet) {
    let rule = ["--class", "transient", "--delays", "1,2,4", "--endless"];
    fleet.mijra(&[["tenant", "retry", "--tenant", &fleet.tenant.slug].as_slice(), &rule].concat()).await;
}

/// Waits until the condition holds.
async fn until(what: &str, within: Duration, mut condition: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(within, waiting).await.unwrap_or_else(|_| panic!("not in time: {what}"));
}
