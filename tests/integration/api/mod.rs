//! The API and the receiver, served in this process over real sockets, against a database, queues and a Redis prefix of the
//! test's own; directly or through relays that take the servers away.

mod accounts;
mod audit;
mod authorisation;
mod bad_input;
mod campaigns;
mod doors;
mod fates;
mod importing;
mod invalid;
mod limits;
mod lists;
mod quarantine;
mod rate;
mod receiving;
mod sending;
mod templates;
mod unroutable;
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
        let keyring = Keyring::parse(&SecretString::from(SECRET_KEYS)).unwrap();
        let files = tempfile::tempdir().unwrap();
        let storage = Storage::in_folder(files.path()).unwrap();
        let services = Services {
            databases: databases.unwrap(),
            publisher: publisher.clone(),
            redis_url: Some(required("REDIS_URL").into()),
            namespace: namespace.clone(),
            rate,
            keyring: keyring.clone(),
            storage: storage.clone(),
            platforms: Platforms::new(Provider::WITH_WEBHOOKS.iter().map(|provider| (*provider, platform()))),
            bodies_bytes: webhooks::BODIES_BYTES,
            proxies: Proxies::new(vec!["127.0.0.0/8".parse().unwrap()]),
            public_url: PUBLIC_URL.to_owned(),
            clock: Clock::system(),
        };
        let base = serve(services, &life).await;
        let client = reqwest::Client::new();
        Self {
            database,
            database_relay,
            broker_relay,
            broker: broker_at(&required("AMQP_URL"), &namespace),
            publisher,
            namespace,
            keyring,
            storage,
            _files: files,
            life,
            base,
            client,
        }
    }

    /// What the operator's command line has.
    fn operator(&self) -> Databases {
        self.database.databases(Role::Operator)
    }

    async fn tenant(&self, slug: &str) -> Tenant {
        let operator = self.operator();
        let mut tx = operator.control().await.unwrap();
        let id = db::tenants::create(&mut tx, &slug.parse().unwrap(), slug, &Placement::primary()).await.unwrap();
        let id = id.expect("a new name");
        tx.commit().await.unwrap();
        let mut tx = operator.fleet(&Placement::primary(), &[id]).await.unwrap();
        db::tenants::create_settings(&mut tx, id, Some("DE")).await.unwrap();
        tx.commit().await.unwrap();
        let token = self.token(id, Permission::ALL, None).await;
        Tenant { id, slug: slug.to_owned(), token }
    }

    async fn token(&self, tenant: TenantId, may: &[Permission], expires_at: Option<DateTime<Utc>>) -> String {
        let (token, text) = BearerToken::generate();
        let operator = self.operator();
        let mut tx = operator.fleet(&Placement::primary(), &[tenant]).await.unwrap();
        db::tokens::insert(&mut tx, tenant, token.id, "test", &token.digest, may, expires_at).await.unwrap();
        tx.commit().await.unwrap();
        text
    }

    async fn account(&self, tenant: &Tenant) -> Account {
        let (id, operator) = (ChannelAccountId::new(), self.operator());
        let secrets =
            serde_json::to_vec(&AccountSecrets { access_token: "EAAG".into(), ..AccountSecrets::default() }).unwrap();
        let account = NewAccount {
            id,
            provider: Provider::Whatsapp,
            name: Some("Harbour Clinic"),
            external_id: &id.0.simple().to_string(),
            business_account_id: Some("210000000000007"),
            display_address: None,
            secrets: &self.keyring.seal(&seal_context(id), &secrets),
            portfolio: None,
            limits: &[(Scope::Account, LimitChange { rate: 80.0, burst: None, inbound_cost: None })],
            defaults: &[],
            webhook_key: None,
            gateway: None,
            human_agent: None,
        };
        let mut tx = operator.fleet(&Placement::primary(), &[tenant.id]).await.unwrap();
        assert!(db::channel_accounts::insert(&mut tx, tenant.id, &account).await.unwrap());
        tx.commit().await.unwrap();
        let account = Account { id, key: format!("key{}", id.0.simple()), secret: format!("secret of {id}") };
        self.set_secret(tenant, &account, &account.secret).await;
        account
    }

    async fn set_secret(&self, tenant: &Tenant, account: &Account, secret: &str) {
        self.set_secrets(Provider::Whatsapp, tenant, account, &[secret]).await;
    }

    /// Gives an account an address of its own at this provider, or the one it has other secrets.
    async fn set_secrets(&self, provider: Provider, tenant: &Tenant, account: &Account, secrets: &[&str]) {
        let mut secrets = secrets.iter().map(|secret| (*secret).to_owned());
        let secrets = EndpointSecrets {
            app_secret: secrets.next().unwrap(),
            further_secrets: secrets.collect(),
            verify_token: Some("its own token".into()),
        };
        let sealed = self.keyring.seal(&endpoint_seal_context(account.id), &serde_json::to_vec(&secrets).unwrap());
        let operator = self.operator();
        let mut tx = operator.control().await.unwrap();
        db::channel_accounts::scope_routes(&mut tx, tenant.id).await.unwrap();
        db::channel_accounts::upsert_endpoint(&mut tx, tenant.id, account.id, provider, &account.key, &sealed)
            .await
            .unwrap();
        tx.commit().await.unwrap();
    }

    async fn contact(&self, tenant: &Tenant, phone: &str) -> ContactId {
        let made = self.post(tenant, "/contacts", &serde_json::json!({"name": "Ada", "phone": phone})).await;
        assert_eq!(made.status, 201, "{}", made.body);
        made.id()
    }

    /// A conversation in which the customer wrote an hour ago, unless another time is given.
    async fn conversation(&self, tenant: &Tenant, account: &Account, wrote: TimeDelta) -> ConversationId {
        let contact = self.contact(tenant, &phone()).await;
        let (id, at) = (ConversationId::new(), Utc::now() - wrote);
        sqlx::query(
            "INSERT INTO conversations (tenant_id, id, contact_id, channel_account_id, state, origin, unread, messages_in,
                last_message_at, last_message_text, last_message_direction, last_inbound_at, window_expires_at)
            VALUES ($1, $2, $3, $4, 'new', 'inbound', 1, 1, $5, 'Hello?', 'in', $5, $5 + interval '24 hours')",
        )
        .bind(tenant.id)
        .bind(id)
        .bind(contact)
        .bind(account.id)
        .bind(at)
        .execute(&mut self.database.admin().await)
        .await
        .unwrap();
        id
    }

    /// One number of one row.
    async fn count(&self, statement: &'static str) -> i64 {
        sqlx::query_scalar(statement).fetch_one(&mut self.database.admin().await).await.unwrap()
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, self.base.join(path).unwrap())
    }

    async fn get(&self, tenant: &Tenant, path: &str) -> Answer {
        let path = format!("/api/{}{path}", tenant.slug);
        answer(self.request(Method::GET, &path).bearer_auth(&tenant.token)).await
    }

    async fn post(&self, tenant: &Tenant, path: &str, body: &Value) -> Answer {
        answer(self.posting(tenant, path, body)).await
    }

    fn posting(&self, tenant: &Tenant, path: &str, body: &Value) -> RequestBuilder {
        let path = format!("/api/{}{path}", tenant.slug);
        self.request(Method::POST, &path).bearer_auth(&tenant.token).json(body)
    }

    async fn webhook(&self, path: &str, secret: &str, body: impl Into<Vec<u8>>) -> Answer {
        let body = body.into();
        let signature = signature(secret, &body);
        answer(self.request(Method::POST, path).header("X-Hub-Signature-256", signature).body(body)).await
    }

    /// Takes everything there is in a queue, until nothing has come for a while.
    async fn drain(&self, queue: &'static Queue) -> Vec<shared::jobs::Job> {
        let session = self.broker.session().await.unwrap();
        let mut consumer = session.consumer(queue, 500).await.unwrap();
        let mut jobs = Vec::new();
        while let Ok(Some(delivery)) = tokio::time::timeout(Duration::from_secs(1), consumer.next()).await {
            consumer.acker().ack(delivery.tag).await.unwrap();
            jobs.push(delivery.job);
        }
        session.close().await;
        jobs
    }

    /// Takes the broker away, as far as the API is concerned.
    async fn without_broker(&self) {
        self.broker_relay.close();
        until("the publisher has noticed", async || !self.publisher.is_ready()).await;
    }
}

/// The key of [`Stage::keyring`], as it is set.
const SECRET_KEYS: &str = "test:QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE=";

/// Runs the operator's command line: whether it was content, and what it said; its complaint if it said nothing else.
async fn mijra(stage: &Stage, arguments: &[&str], environment: &[(&str, &str)]) -> (bool, Value) {
    let arguments = [&["--json"], arguments].concat();
    let output = mijra_output(stage, &arguments, environment).await;
    let said = serde_json::from_slice(&output.stdout);
    let said = said.unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&output.stderr).into_owned()));
    (output.status.success(), said)
}

/// The same for a person, with all that it wrote.
async fn mijra_output(stage: &Stage, arguments: &[&str], environment: &[(&str, &str)]) -> std::process::Output {
    tokio::process::Command::new(binary("mijra"))
        .env_clear()
        .env("DATABASE_URL", stage.database.url(Role::Operator).as_str())
        .env("MIJRA_SECRET_KEYS", SECRET_KEYS)
        .env("PUBLIC_URL", PUBLIC_URL)
        .envs(environment.iter().copied())
        .args(arguments)
        .kill_on_drop(true)
        .output()
        .await
        .expect("mijra runs")
}

/// What the platform has at each provider.
fn platform() -> Platform {
    Platform { secrets: vec!["the_secret_before".into(), APP_SECRET.into()], verify_token: Some(VERIFY_TOKEN.into()) }
}

/// Serves on a port of its own. Where.
async fn serve(services: Services, life: &Lifecycle) -> Url {
    let router = server::router(services, life).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    let serving = life.clone();
    tokio::spawn(async move { server::serve(listener, router, &serving).await });
    base
}

impl Answer {
    /// Status, and the problem's kind without its prefix, and the fields at fault.
    fn problem(&self) -> (u16, &str, Vec<&str>) {
        assert_eq!(self.headers["content-type"], "application/problem+json", "{}", self.body);
        assert_eq!(self.body["status"], self.status.as_u16());
        let kind = self.body["type"].as_str().unwrap().strip_prefix("urn:mijra:problem:").unwrap();
        let fields = self.body["errors"].as_array().map(Vec::as_slice).unwrap_or_default();
        (self.status.as_u16(), kind, fields.iter().map(|error| error["field"].as_str().unwrap()).collect())
    }

    fn id<T: std::str::FromStr<Err: std::fmt::Debug>>(&self) -> T {
        self.body["id"].as_str().unwrap_or_else(|| panic!("no id in {}", self.body)).parse().unwrap()
    }
}

async fn answer(request: RequestBuilder) -> Answer {
    let response = tokio::time::timeout(SOON, request.send()).await.expect("an answer in time").expect("an answer");
    let (status, headers) = (response.status(), response.headers().clone());
    let text = response.text().await.unwrap();
    let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
    Answer { status, headers, body }
}

fn signature(secret: &str, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(body);
    format!("sha256={}", hex::encode(mac.finalize().into_bytes()))
}

/// A number that nobody else in this process has.
fn phone() -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("+49151{:07}", 1_000_000 + NEXT.fetch_add(1, Ordering::Relaxed))
}

fn text(words: &str) -> Value {
    serde_json::json!({"type": "text", "text": words})
}

/// Waits until the condition holds.
async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let holds = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(SOON, holds).await.unwrap_or_else(|_| panic!("not in time: {what}"));
}
