//! The process: what it is made of, how it starts, serves and stops.

use crate::{
    auth::Tokens,
    imports::Imports,
    observe, openapi,
    relay::Relay,
    routes::media::Placements,
    state::{App, Parts},
    webhooks::{
        self, Receiver, Room,
        endpoints::Endpoints,
        platforms::{PlatformArgs, Platforms},
        proxies::{Network, Proxies},
        quarantine::Quarantine,
        spill::PostgresSpill,
    },
};
use anyhow::Context;
use axum::{Router, middleware};
use clap::Args;
use secrecy::SecretString;
use shared::{
    cache::{Rate, RateLimits},
    clock::Clock,
    config::{BrokerArgs, Common, DatabaseArgs, HealthArgs, PublicUrlArgs, RedisArgs, SecretArgs, StorageArgs},
    db::{self, Databases, Placement},
    health::{self, Condition, Readiness},
    lifecycle::Lifecycle,
    queue::{self, Broker, Bundler, Publisher, bundle::Settings as BundlerSettings},
    seal::Keyring,
    storage::Storage,
    telemetry,
};
use std::{net::SocketAddr, num::NonZeroU32, process::ExitCode, sync::Arc, time::Duration};
use tokio::net::TcpListener;

/// The settings of `mijra-api`.
#[derive(clap::Parser, Clone, Debug)]
#[command(name = "mijra-api", version, about = "Serves Mijra's HTTP API and receives webhooks")]
pub struct Settings {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    database: DatabaseArgs,
    #[command(flatten)]
    broker: BrokerArgs,
    #[command(flatten)]
    redis: RedisArgs,
    #[command(flatten)]
    secrets: SecretArgs,
    #[command(flatten)]
    platforms: PlatformArgs,
    #[command(flatten)]
    public_url: PublicUrlArgs,
    #[command(flatten)]
    storage: StorageArgs,
    #[command(flatten)]
    health: HealthArgs,
    #[command(flatten)]
    http: HttpArgs,
}

/// How the API and the webhooks are served.
#[derive(Args, Clone, Debug)]
pub struct HttpArgs {
    /// Address of the API and of the webhooks; port 0 takes a free one and logs it.
    #[arg(long, env = "API_LISTEN", default_value = "127.0.0.1:8080")]
    pub api_listen: SocketAddr,
    /// Requests a second that each token may make.
    #[arg(long, env = "API_RATE_PER_SECOND", default_value = "100")]
    pub api_rate_per_second: NonZeroU32,
    /// Requests a token may make at once, after a rest.
    #[arg(long, env = "API_RATE_BURST", default_value = "200")]
    pub api_rate_burst: NonZeroU32,
    /// Memory for webhooks' bodies, in MiB; beyond it senders wait.
    #[arg(long, env = "WEBHOOK_BODIES_MIB", default_value_t = webhooks::BODIES_BYTES / (1024 * 1024), value_parser = bodies_mib)]
    pub webhook_bodies_mib: usize,
    /// Proxies of ours that stand before us, comma-separated: addresses, or networks like 10.0.0.0/8. What `X-Forwarded-For`,
    /// `-Proto`, `-Host` and `-Port` say is believed from them alone.
    #[arg(long, env = "TRUSTED_PROXIES", value_delimiter = ',')]
    pub trusted_proxies: Vec<Network>,
}

/// The pieces that the API and the receiver are made of.
pub struct Services {
    /// The databases, in the role of the API.
    pub databases: Databases,
    /// The way to the broker.
    pub publisher: Publisher,
    /// Redis, if requests are to be limited over all processes.
    pub redis_url: Option<SecretString>,
    /// Prefix of keys in Redis.
    pub namespace: String,
    /// How often each token may ask.
    pub rate: Rate,
    /// What opens accounts' secrets, and signs links.
    pub keyring: Keyring,
    /// Where files are.
    pub storage: Storage,
    /// The platform's secrets at each provider.
    pub platforms: Platforms,
    /// Memory for webhooks' bodies.
    pub bodies_bytes: usize,
    /// Proxies of ours that stand before us.
    pub proxies: Proxies,
    /// Where we are reached from outside, without a slash at the end.
    pub public_url: String,
    /// The time.
    pub clock: Clock,
}

/// Everything that is served: the API with its layers, the webhooks without.
///
/// # Errors
/// If a setting cannot be used.
pub fn router(services: Services, life: &Lifecycle) -> anyhow::Result<Router> {
    let Services { databases, publisher, redis_url, namespace, rate, keyring, storage, clock, .. } = services;
    let app = App::new(Parts {
        rates: RateLimits::new(redis_url.as_ref(), &namespace, rate)?,
        relay: Relay::start(databases.clone(), publisher.clone(), life),
        tokens: Tokens::new(databases.clone()),
        imports: Imports::new(life.clone()),
        storage,
        links: shared::links::Links::new(keyring.clone()),
        placements: Placements::new(databases.clone()),
        clock: clock.clone(),
        databases: databases.clone(),
    });
    let receiver = Receiver {
        bundler: Bundler::new(
            publisher,
            life,
            clock.clone(),
            Arc::new(PostgresSpill::new(databases.clone())),
            BundlerSettings::default(),
        ),
        endpoints: Endpoints::new(databases.clone(), keyring, life.clone()),
        quarantine: Quarantine::start(databases.clone(), life),
        room: Room::new(services.bodies_bytes),
        platforms: services.platforms,
        proxies: services.proxies,
        public_url: services.public_url,
        databases,
        clock,
    };
    let (api, _) = openapi::router();
    let api = api
        .with_state(app)
        .fallback(|| std::future::ready(axum::http::StatusCode::NOT_FOUND))
        .layer(middleware::from_fn(observe::observe));
    Ok(api.merge(webhooks::router(Arc::new(receiver))))
}

/// Exit status of a mistake in the set-up, as the workers have it.
const SET_UP: u8 = 2;

/// Runs the process until it is told to stop. A failure to start, or to end within the grace period, is the exit status.
pub async fn run(settings: Settings) -> ExitCode {
    match start(settings).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            crate::cli::complain(&error);
            if error.is::<db::NotReady>() { ExitCode::from(SET_UP) } else { ExitCode::FAILURE }
        }
    }
}

/// Whether all was finished in time.
async fn start(settings: Settings) -> anyhow::Result<bool> {
    let metrics = telemetry::init(settings.common.log_format, &settings.common.log_filter)?;
    let life = Lifecycle::with_signals(settings.common.grace_period)?;
    metrics.keep_up(&life);
    let databases = Databases::new(&db::Settings {
        control: settings.database.database_url.secret().clone(),
        placements: settings.database.placements.by_name("PLACEMENTS")?,
        max_connections: settings.database.database_max_connections,
        application_name: "mijra-api".to_owned(),
    })?;
    let readiness = Readiness::default();
    let conditions = Conditions {
        storage: readiness.condition("storage"),
        database: readiness.remark("database"),
        broker: readiness.remark("broker"),
    };
    let listening = readiness.condition("listening");
    let health = health::serve(settings.health.health_listen, &life, &readiness, &metrics).await?;
    if !schema_fits(&databases, &conditions, &life).await? {
        return Ok(true);
    }
    let broker = Broker::new(queue::Settings {
        url: settings.broker.amqp_url.secret().clone(),
        namespace: settings.common.namespace.clone(),
        process: "mijra-api".to_owned(),
    });
    let publisher = broker.publisher(&life);
    watch(databases.clone(), publisher.clone(), conditions, &life);
    let services = Services {
        databases: databases.clone(),
        publisher,
        redis_url: Some(settings.redis.redis_url.secret().clone()),
        namespace: settings.common.namespace,
        rate: Rate { per_second: settings.http.api_rate_per_second, burst: settings.http.api_rate_burst },
        keyring: Keyring::parse(&settings.secrets.secret_keys).context("MIJRA_SECRET_KEYS")?,
        storage: Storage::open(&settings.storage)?,
        platforms: settings.platforms.platforms(),
        bodies_bytes: settings.http.webhook_bodies_mib * 1024 * 1024,
        proxies: Proxies::new(settings.http.trusted_proxies),
        public_url: settings.public_url.public_url,
        clock: Clock::system(),
    };
    let router = router(services, &life)?;
    let listener = TcpListener::bind(settings.http.api_listen).await.context("API_LISTEN")?;
    listening.ready();
    tracing::info!(api = %listener.local_addr()?, %health, "serving");
    serve(listener, router, &life).await?;
    let drained = life.drained().await;
    databases.close().await;
    Ok(drained)
}

/// Serves until the process is told to stop and what is in flight is answered, or the grace period is over.
///
/// # Errors
/// If the listener fails.
pub async fn serve(listener: TcpListener, router: Router, life: &Lifecycle) -> anyhow::Result<()> {
    use axum::serve::ListenerExt;
    let listener = listener.tap_io(|stream| {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a connection answers slower than it could");
        }
    });
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    let stopping = life.clone();
    let serving = axum::serve(listener, service).with_graceful_shutdown(async move { stopping.stopping().await });
    let over = async {
        life.stopping().await;
        tokio::time::sleep(life.grace()).await;
    };
    tokio::select! {
        served = serving => served?,
        () = over => tracing::warn!("requests are still open at the end of the grace period"),
    }
    Ok(())
}

/// What readiness is made of. Webhooks can be accepted with either server: without the database those of known endpoints are
/// published, without the broker they are kept in Postgres; taking us out of service would lose them. So only both together are a
/// reason; one alone is told beside it.
struct Conditions {
    storage: Condition,
    database: Condition,
    broker: Condition,
}

/// Waits for a database that is away; a database that is wrong ends the start. False if told to stop meanwhile.
async fn schema_fits(databases: &Databases, conditions: &Conditions, life: &Lifecycle) -> anyhow::Result<bool> {
    loop {
        match databases.check().await {
            Ok(()) => {
                conditions.storage.ready();
                return Ok(true);
            }
            Err(error) if error.is_away() => {
                tracing::warn!(%error, "waiting for the database");
                conditions.storage.not_ready(error.to_string());
                conditions.database.not_ready(error.to_string());
            }
            Err(error) => return Err(error.into()),
        }
        tokio::select! {
            () = life.stopping() => return Ok(false),
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
        }
    }
}

/// Keeps saying what is there and whether anything can be accepted.
fn watch(databases: Databases, publisher: Publisher, conditions: Conditions, life: &Lifecycle) {
    let stopping = life.token();
    life.spawn(async move {
        let Conditions { storage, database, broker } = conditions;
        let watching = databases.watch(|away| {
            let published = publisher.is_ready();
            if away.is_nobody() {
                database.ready();
            } else {
                database.not_ready(format!("{away}; requests are answered 503"));
            }
            if published {
                broker.ready();
            } else {
                broker.not_ready("the broker is away; what is accepted waits in Postgres");
            }
            if published || !away.includes(&Placement::primary()) {
                storage.ready();
            } else {
                storage.not_ready(format!("the broker is away, and {away}"));
            }
        });
        stopping.run_until_cancelled(watching).await;
    });
}

fn bodies_mib(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(mib @ 8..=4095) => Ok(mib),
        _ => Err("must be 8 to 4095".to_owned()),
    }
}
