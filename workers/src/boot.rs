//! From `main` to the end of a process: settings, telemetry, health, a database and a broker that are as they must be, then
//! the work, then draining. What is away is waited for (not ready); a mistake in the set-up ends the process with status 2
//! and says what to do.

use crate::{
    runtime::{self, Parts},
    worker::Worker,
};
use clap::{Args, CommandFactory, FromArgMatches, Parser, parser::ValueSource};
use shared::{
    clock::Clock,
    config::{BrokerArgs, Common, DatabaseArgs, HealthArgs, Mistake},
    db::{self, Databases},
    health::{self, Condition, Readiness},
    lifecycle::Lifecycle,
    queue::{self, Broker},
    retry::Pauses,
    telemetry,
};
use std::{process::ExitCode, time::Duration};
use tokio::time::Instant;

/// A process that is about to work.
pub struct Process<A> {
    /// What it works with.
    pub parts: Parts,
    /// Prefix of queues and cache keys.
    pub namespace: String,
    /// Its own settings.
    pub own: A,
}

/// The settings every process of ours has, and its own.
#[derive(Parser, Debug)]
#[command(version, about = "One of Mijra's workers. Everything can be set in the environment.")]
struct Settings<A: Args> {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    database: DatabaseArgs,
    #[command(flatten)]
    broker: BrokerArgs,
    #[command(flatten)]
    health: HealthArgs,
    #[command(flatten)]
    own: A,
}

/// A mistake in the set-up, or in the settings.
const SET_UP: u8 = 2;
/// Anything else.
const FAILED: u8 = 1;

/// Runs a worker as this process. `build` makes it from the process's own settings.
pub fn run<W: Worker, A: Args>(build: impl AsyncFnOnce(&Process<A>) -> anyhow::Result<W>) -> ExitCode {
    run_with_grace(|_, usual| usual, build)
}

/// As [`run`], of a worker whose grace period follows from its own settings, and from the usual one, unless it is set.
pub fn run_with_grace<W: Worker, A: Args>(
    grace: impl FnOnce(&A, Duration) -> Duration,
    build: impl AsyncFnOnce(&Process<A>) -> anyhow::Result<W>,
) -> ExitCode {
    process_with_grace(W::NAME, grace, async |process: Process<A>| {
        let worker = build(&process).await?;
        let drained = runtime::run(worker, process.parts).await;
        if drained.left > 0 {
            tracing::warn!(left = drained.left, "jobs were not finished in time: the broker delivers them again");
        }
        Ok(())
    })
}

/// Runs anything else as this process: `work` is to return when the life is stopping and it has finished. An error that is a
/// [`Mistake`] is one of the set-up.
pub fn process<A: Args>(name: &str, work: impl AsyncFnOnce(Process<A>) -> anyhow::Result<()>) -> ExitCode {
    process_with_grace(name, |_, usual| usual, work)
}

fn process_with_grace<A: Args>(
    name: &str,
    grace: impl FnOnce(&A, Duration) -> Duration,
    work: impl AsyncFnOnce(Process<A>) -> anyhow::Result<()>,
) -> ExitCode {
    let matches = Settings::<A>::command()
        .name(Box::leak(format!("mijra-{name}").into_boxed_str()) as &'static str)
        .get_matches();
    let mut settings = match Settings::<A>::from_arg_matches(&matches) {
        Ok(settings) => settings,
        Err(error) => error.exit(),
    };
    if matches.value_source("grace_period") == Some(ValueSource::DefaultValue) {
        settings.common.grace_period = grace(&settings.own, settings.common.grace_period);
    }
    let metrics = match telemetry::init(settings.common.log_format, &settings.common.log_filter) {
        Ok(metrics) => metrics,
        Err(error) => return say(error.into()),
    };
    let executor = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(executor) => executor,
        Err(error) => return say(error.into()),
    };
    let ended = executor.block_on(live(name, settings, metrics, work));
    // What is left is dropped, not waited for: it had its grace period.
    executor.shutdown_background();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => say(error),
    }
}

fn say(error: anyhow::Error) -> ExitCode {
    tracing::error!("{error:#}");
    let set_up = error.is::<Mistake>() || error.is::<telemetry::InitError>() || error.is::<db::NotReady>();
    ExitCode::from(if set_up || error.is::<queue::Error>() { SET_UP } else { FAILED })
}

async fn live<A: Args>(
    name: &str,
    settings: Settings<A>,
    metrics: telemetry::Metrics,
    work: impl AsyncFnOnce(Process<A>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let Settings { common, database, broker, health: HealthArgs { health_listen }, own } = settings;
    let life = Lifecycle::with_signals(common.grace_period)?;
    let readiness = Readiness::default();
    metrics.keep_up(&life);
    let address = health::serve(health_listen, &life, &readiness, &metrics)
        .await
        .map_err(|error| Mistake { setting: "HEALTH_LISTEN", problem: format!("{health_listen}: {error}") })?;
    tracing::info!(%address, database = %database.database_url, broker = %broker.amqp_url, "starting {name}");

    let process_name = format!("mijra-{name}/{}", std::process::id());
    let databases = databases(&database, &process_name)?;
    let broker = Broker::new(queue::Settings {
        url: broker.amqp_url.secret().clone(),
        namespace: common.namespace.clone(),
        process: process_name,
    });
    let stopping = life.token();
    let there = readiness.condition("database");
    let ready = async {
        check(&databases, &there).await?;
        declare(&broker, &readiness.condition("queues")).await?;
        anyhow::Ok(())
    };
    match stopping.run_until_cancelled(ready).await {
        Some(ready) => ready?,
        None => return Ok(()),
    }
    watch(databases.clone(), there, &life);
    let publisher = broker.publisher(&life);
    let parts = Parts {
        life: life.clone(),
        databases: databases.clone(),
        broker,
        publisher,
        clock: Clock::system(),
        readiness,
    };
    tracing::info!("working");
    // The grace period runs from the signal, for the work and for what it leaves behind.
    let mut asked = None;
    let working = work(Process { parts, namespace: common.namespace, own });
    tokio::pin!(working);
    let ended = loop {
        tokio::select! {
            ended = &mut working => break ended,
            () = life.stopping(), if asked.is_none() => asked = Some(Instant::now()),
        }
    };
    life.stop();
    let rest = asked.map_or(life.grace(), |asked| life.grace().saturating_sub(asked.elapsed()));
    if tokio::time::timeout(rest.max(Duration::from_millis(100)), life.drained()).await != Ok(true) {
        tracing::warn!("some tasks had not ended when the grace period was over");
    }
    let _ = tokio::time::timeout(Duration::from_secs(1), databases.close()).await;
    tracing::info!("stopped");
    ended
}

fn databases(settings: &DatabaseArgs, application_name: &str) -> Result<Databases, Mistake> {
    let settings = db::Settings {
        control: settings.database_url.secret().clone(),
        placements: settings.placements.by_name("PLACEMENTS")?,
        max_connections: settings.database_max_connections,
        application_name: application_name.to_owned(),
    };
    // The error could quote the URL.
    Databases::new(&settings).map_err(|_| Mistake {
        setting: "DATABASE_URL",
        problem: "not a URL of a Postgres database (or in PLACEMENTS)".into(),
    })
}

/// Waits for the databases; an error is a mistake in their set-up.
async fn check(databases: &Databases, condition: &Condition) -> Result<(), db::NotReady> {
    let mut pauses = Pauses::for_outage();
    loop {
        match databases.check().await {
            Ok(()) => {
                condition.ready();
                return Ok(());
            }
            Err(error) if error.is_away() => {
                tracing::warn!(%error, "waiting for the database");
                condition.not_ready(error.to_string());
                tokio::time::sleep(pauses.next_wait()).await;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Says of the databases whether they are there until the process stops, also while it has nothing to do with them.
fn watch(databases: Databases, condition: Condition, life: &Lifecycle) {
    let stopping = life.token();
    life.spawn(async move {
        let watching = databases.watch(|away| {
            if away.is_nobody() {
                condition.ready();
            } else {
                condition.not_ready(away.to_string());
            }
        });
        stopping.run_until_cancelled(watching).await;
    });
}

/// Waits for the broker; an error is a mistake in its queues.
async fn declare(broker: &Broker, condition: &Condition) -> Result<(), queue::Error> {
    let mut pauses = Pauses::for_outage();
    loop {
        match broker.declare().await {
            Ok(()) => {
                condition.ready();
                return Ok(());
            }
            Err(error @ queue::Error::Mismatch(_)) => return Err(error),
            Err(error) => {
                tracing::warn!(%error, "waiting for the broker");
                condition.not_ready(error.to_string());
                tokio::time::sleep(pauses.next_wait()).await;
            }
        }
    }
}
