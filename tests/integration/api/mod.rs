//! The API and the receiver, served in this process over real sockets, against a database, queues and a Redis prefix of the
//! test's own; directly or through relays that take the servers away.

mod audit;
mod authorisation;
mod bad_input;
mod campaigns;
mod doors;
mod importing;
mod limits;
mod lists;
mod quarantine;
mod rate;
mod receiving;
mod sending;
mod templates;
mod webhook_log;

use api::{
    auth::BearerToken,
    server::{self, Services},
    webhooks::{
        self,
        platforms::{Platform, Platforms},
        proxies::Proxies,
    },
};
use chrono::{DateTime, TimeDelta, Utc};
use futures_util::FutureExt;
use hmac::{Hmac, KeyInit, Mac};
use reqwest::{Method, RequestBuilder, StatusCode, header::HeaderMap};
use secrecy::SecretString;
use serde_json::Value;
use sha2::Sha256;
use shared::{
    cache::Rate,
    clock::Clock,
    db::{
        self, Databases, Placement,
        channel_accounts::{AccountSecrets, EndpointSecrets, NewAccount, endpoint_seal_context, seal_context},
    },
    domain::{
        channel::Provider,
        ids::{ChannelAccountId, ContactId, ConversationId, JobId, TenantId},
        limits::{LimitChange, Scope},
        permissions::Permission,
    },
    lifecycle::Lifecycle,
    queue::{self, Broker, Publisher, Queue},
    seal::Keyring,
    storage::Storage,
};
use std::{num::NonZeroU32, panic::AssertUnwindSafe, time::Duration};
use support::{
    database::{self, Database, Role},
    programs::binary,
    relay::Relay,
};
use tokio::net::TcpListener;
use url::Url;

const SOON: Duration = Duration::from_secs(30);
const APP_SECRET: &str = "stand_in_app_secret_01";
const VERIFY_TOKEN: &str = "stand_in_verify_token";
/// What Twilio signs: where it thinks that we are.
const PUBLIC_URL: &str = "https://hooks.example.com";

/// A running API with all it needs.
struct Stage {
    database: Database,
    /// Between the API and its database, its broker.
    database_relay: Relay,
    broker_relay: Relay,
    broker: Broker,
    publisher: Publisher,
    namespace: String,
    keyring: Keyring,
    storage: Storage,
    _files: tempfile::TempDir,
    life: Lifecycle,
    base: Url,
    client: reqwest::Client,
}

/// What an API answered.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Value,
}

/// A tenant with a token that may do everything.
struct Tenant {
    id: TenantId,
    slug: String,
    token: String,
}

/// A tenant's number, and its own webhook address if it has one.
struct Account {
    id: ChannelAccountId,
    key: String,
    secret: String,
}

/// Runs a test on a stage of its own.
async fn staged(test: impl AsyncFnOnce(&Stage)) {
    staged_with(rate(10_000), test).await;
}

async fn staged_with(rate: Rate, test: impl AsyncFnOnce(&Stage)) {
    let stage = Stage::open(rate).await;
    let outcome = AssertUnwindSafe(test(&stage)).catch_unwind().await;
    stage.life.stop();
    let removed = broker_at(&required("AMQP_URL"), &stage.namespace).remove().await;
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
    removed.expect("the queues can be deleted");
}

fn rate(per_second: u32) -> Rate {
    let per_second = NonZeroU32::new(per_second).unwrap();
    Rate { per_second, burst: per_second }
}

fn required(name: &str) -> String {
    std::env::var(name)
        .unwrap_or_else(|_| panic!("{name} is not set: the tests need a running server, see deploy/dev test"))
}

fn broker_at(url: &str, namespace: &str) -> Broker {
    Broker::new(queue::Settings {
        url: SecretString::from(url),
        namespace: namespace.to_owned(),
        process: "mijra-tests".to_owned(),
    })
}

/// The same address by way of a relay.
async fn relayed(url: &Url, default_port: u16, speaks_amqp: bool) -> (Relay, Url) {
    let server = (url.host_str().expect("a host").to_owned(), url.port().unwrap_or(default_port));
    let server = tokio::net::lookup_host(server).await.unwrap().next().expect("an address");
    let relay = if speaks_amqp { Relay::to_broker(server).await } else { Relay::to(server).await }.unwrap();
    let mut url = url.clone();
    url.set_ip_host(relay.address().ip()).unwrap();
    url.set_port(Some(relay.address().port())).unwrap();
    (relay, url)
}

impl Stage {
    async fn open(rate: Rate) -> Self {
        let namespace = format!("test.{}", JobId::new());
        let life = Lifecycle::new(SOON);
        let database = database::database().await;
        let (database_relay, database_url) = relayed(&database.url(Role::Api), 5432, false).await;
        let (broker_relay, broker_url) = relayed(&required("AMQP_URL").parse().unwrap(), 5672, true).await;
        let broker = broker_at(broker_url.as_str(), &namespace);
        let publisher = broker.publisher(&life);
        tokio::time::timeout(SOON, publisher.ready()).await.expect("the broker at AMQP_URL can be used");
        let databases = Databases::new(&db::Settings {
            control: SecretString::from(database_url.to_string()),
            placements: [].into(),
            max_connections: 8,
            application_name: "mijra-tests".into(),
        });
