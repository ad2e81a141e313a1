//! What goes on while something goes wrong: people write, agents answer, and one campaign follows the other.

use super::{Settle, Unknown};
use crate::channel::{Channel, Mixture, allow};
use anyhow::Result;
use support::{
    campaigns::{Audience, Started},
    fleet::{Accepted, Builder, Fleet, Server},
    programs::Program,
    sandbox::behaviour::Span,
    traffic::Traffic,
};
use tokio_util::sync::CancellationToken;

/// How much of each a second.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rates {
    /// Messages of people.
    pub(super) webhooks: f64,
    /// Answers of agents.
    pub(super) replies: f64,
    /// What the account may send and receive; campaigns get what is left of it.
    pub(super) account: f64,
}

/// How a fleet is troubled besides by faults.
#[derive(Debug, Clone, Copy)]
pub(super) struct Manner {
    pub(super) settle: Settle,
    pub(super) unknown: Unknown,
    pub(super) rates: Rates,
    pub(super) seed: u64,
}

/// Who takes part.
pub(super) struct Load {
    traffic: Traffic,
    pub(super) mixture: Mixture,
    audience: Audience,
}

/// What the API accepted.
#[derive(Default)]
pub(super) struct Handed {
    pub(super) replies: Vec<Accepted>,
    pub(super) campaigns: Vec<Started>,
}

const PEOPLE: u32 = 200;
/// Seconds of the account's rate in an audience: five are released at once, so some people are left at any moment.
const AUDIENCE_SECONDS: f64 = 7.0;
/// One in so many of an audience has no address.
const WITHOUT_ADDRESS: usize = 50;

impl Manner {
    /// Real programs, behind relays where faults need those, and a provider that is difficult in every way.
    pub(super) async fn fleet(self, relays: &[Server]) -> Fleet {
        let (settle, delay) = match self.settle {
            Settle::Slow => (3, Span { min: 8_000, max: 9_000 }),
            Settle::Fast | Settle::Both => (10, Span { min: 50, max: 250 }),
        };
        let account = self.rates.account;
        let builder = Fleet::builder()
            .env("PROVIDER_CALL_TIMEOUT_SECONDS", 3)
            .env("UNKNOWN_TURN_SECONDS", 2)
            .env("UNKNOWN_SETTLE_SECONDS", settle)
            .env("RUST_LOG", "warn")
            // One goes on while the other stands still, and finds its claims.
            .count(Program::Outbound, 2)
            .seed(self.seed)
            .rate(account)
            .behaviour(|b| {
                allow(b, account as u32);
                b.latency_ms = Span { min: 10, max: 60 };
                b.unavailable_rate = 0.03;
                b.refuse_rate = 0.005;
                b.refuse_code = 131_026;
                b.cut_before_rate = 0.002;
                b.cut_after_rate = if self.unknown == Unknown::Resend { 0.01 } else { 0.002 };
                b.duplicate_rate = 0.02;
                b.reorder_rate = 0.02;
                b.status_before_answer_rate = 0.05;
                b.status_delay_ms = delay;
            });
        let relayed = |builder: Builder, server: &Server| builder.relay(*server, &Program::ALL);
        relays.iter().fold(builder, relayed).start().await
    }

    /// What the accounts do with what nobody knows.
    async fn set_policy(self, fleet: &Fleet) {
        if self.unknown == Unknown::Resend {
            sqlx::query("UPDATE channel_accounts SET when_unknown = 'resend'")
                .execute(&mut fleet.database.admin().await)
                .await
                .expect("the database answers");
        }
    }
}

impl Load {
    /// The accounts are made here, but for the fleet's own.
    pub(super) async fn of(manner: Manner, channels: &[Channel], fleet: &Fleet) -> Result<Self> {
        let Rates { webhooks, replies, account } = manner.rates;
        let people = (account * AUDIENCE_SECONDS) as usize;
        let mixture = Mixture::make(fleet, channels, account as u32, manner.seed, PEOPLE).await?;
        // Other accounts have come since.
        manner.set_policy(fleet).await;
        Ok(Self {
            traffic: Traffic {
                webhooks_per_second: webhooks,
                replies_per_second: replies,
                lasts: std::time::Duration::from_secs(24 * 3600),
                seed: manner.seed,
            },
            mixture,
            audience: fleet.audience(people, people.div_ceil(WITHOUT_ADDRESS)).await,
        })
    }

    /// Goes on for as long as the trouble does; what was accepted meanwhile, and what came of the trouble.
    pub(super) async fn during<T>(&self, fleet: &Fleet, trouble: impl Future<Output = T>) -> (Handed, T) {
        let stop = CancellationToken::new();
        let trouble = async {
            let outcome = trouble.await;
            stop.cancel();
            outcome
        };
        let (replies, campaigns, outcome) = tokio::join!(
            self.traffic.run_until(&stop, fleet, &self.mixture.people),
            fleet.campaigns(&self.audience, &stop),
            trouble
        );
        (Handed { replies, campaigns }, outcome)
    }
}
