//! Messages → providers, within their limits.

use clap::Args;
use shared::{
    config::{ProviderApis, PublicUrlArgs, SecretArgs, StorageArgs},
    db::outbound::outcomes::Patience,
    domain::{channel::Provider, content::Class},
    providers::{gateway::config::MAX_TIMEOUT_SECONDS, http::ProviderClient},
    seal::Keyring,
    storage::Storage,
};
use std::{process::ExitCode, time::Duration};
use workers::{
    boot,
    outbound::{OutboundSettings, OutboundWorker},
};

#[derive(Args, Debug)]
struct Own {
    #[command(flatten)]
    secrets: SecretArgs,
    #[command(flatten)]
    storage: StorageArgs,
    #[command(flatten)]
    apis: ProviderApis,
    #[command(flatten)]
    public_url: PublicUrlArgs,
    /// A call to a provider takes at most so many seconds.
    #[arg(long, env = "PROVIDER_CALL_TIMEOUT_SECONDS", default_value_t = 10)]
    call_timeout: u64,
    /// The provider is given so many seconds to tell what became of a send whose answer was lost; then it is held.
    #[arg(long, env = "UNKNOWN_SETTLE_SECONDS", default_value_t = 300)]
    unknown_settle: u64,
    /// A send whose fate is unknown holds up the next of its conversation for so many seconds.
    #[arg(long, env = "UNKNOWN_TURN_SECONDS", default_value_t = 30)]
    unknown_turn: u64,
    /// So many calls at once, a quarter of them for one account.
    #[arg(long, env = "OUTBOUND_MAX_CALLS", default_value_t = 2048)]
    max_calls: usize,
}

/// Between the end of the longest call and the deadline of its attempt: time to write down what became of it.
const AFTER_THE_CALL: Duration = Duration::from_secs(10);

/// What is under way when it stops is waited for until the latest of its deadlines: a call that was cut off would be unknown.
fn grace(own: &Own, usual: Duration) -> Duration {
    let fetches = Provider::ALL.iter().map(|provider| provider.fetches_for(Class::Heavy)).max().unwrap_or_default();
    let longest =
        (Duration::from_secs(own.call_timeout) + fetches).max(Duration::from_secs(MAX_TIMEOUT_SECONDS.into()));
    usual.max(longest + AFTER_THE_CALL)
}

fn main() -> ExitCode {
    boot::run_with_grace(grace, async |process: &boot::Process<Own>| {
        let own = &process.own;
        let call_timeout = Duration::from_secs(own.call_timeout);
        let client = ProviderClient::new(own.apis.clone(), call_timeout)?;
        let keyring = Keyring::parse(&own.secrets.secret_keys)?;
        let storage = Storage::open(&own.storage)?;
        let settings = OutboundSettings {
            public_url: own.public_url.public_url.clone(),
            patience: Patience {
                turn: Duration::from_secs(own.unknown_turn),
                evidence: Duration::from_secs(own.unknown_settle),
            },
            call_within: call_timeout + AFTER_THE_CALL,
            max_calls: own.max_calls,
        };
        let parts = &process.parts;
        let databases = parts.databases.clone();
        Ok(OutboundWorker::new(databases, client, keyring, storage, settings, &parts.readiness, &parts.life))
    })
}
