//! What a fleet is to be.

use super::{Fleet, Tenant, process::Plan};
use crate::{
    channels,
    database::{Role, database},
    programs::Program,
    relay::Relay,
    sandbox::{self, Behaviour, Sandbox},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::PathBuf,
    time::Duration,
};
use url::Url;
use uuid::Uuid;

/// A server that our programs use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Server {
    /// Postgres.
    Postgres,
    /// RabbitMQ.
    Broker,
    /// Redis.
    Redis,
}

impl Server {
    /// All of them.
    pub const ALL: [Server; 3] = [Server::Postgres, Server::Broker, Server::Redis];

    /// For tables.
    pub fn name(self) -> &'static str {
        match self {
            Server::Postgres => "Postgres",
            Server::Broker => "RabbitMQ",
            Server::Redis => "Redis",
        }
    }

    /// Where it really is. Postgres is asked for with the database in the URL.
    fn setting(self) -> &'static str {
        match self {
            Server::Postgres => "DATABASE_URL",
            Server::Broker => "AMQP_URL",
            Server::Redis => "REDIS_URL",
        }
    }
}

/// Builds a fleet: one of each program unless told otherwise.
pub struct Builder {
    counts: BTreeMap<Program, usize>,
    environment: BTreeMap<String, String>,
    environment_of: BTreeMap<Program, BTreeMap<String, String>>,
    crashes: BTreeMap<Program, Vec<String>>,
    relayed: BTreeMap<Server, BTreeSet<Program>>,
    behaviour: Behaviour,
    webhook_concurrency: usize,
    rate: f64,
    seed: u64,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            counts: Program::ALL.map(|program| (program, 1)).into(),
            environment: BTreeMap::new(),
            environment_of: BTreeMap::new(),
            crashes: BTreeMap::new(),
            relayed: BTreeMap::new(),
            // The pair limit would slow down tests in which one person gets several messages; its own test turns it on.
            behaviour: Behaviour { pair_limit: false, throughput_per_second: None, ..Behaviour::default() },
            webhook_concurrency: 32,
            rate: 1000.0,
            seed: 1,
        }
    }
}

impl Builder {
    /// How many of a program.
    pub fn count(mut self, program: Program, count: usize) -> Self {
        self.counts.insert(program, count);
        self
    }

    /// A setting for all programs.
    pub fn env(mut self, name: &str, value: impl ToString) -> Self {
        self.environment.insert(name.to_owned(), value.to_string());
        self
    }

    /// A setting for one program.
    pub fn env_of(mut self, program: Program, name: &str, value: impl ToString) -> Self {
        self.environment_of.entry(program).or_default().insert(name.to_owned(), value.to_string());
        self
    }

    /// Arms a crash point (`shared::crash`) in the first process of a program: at the first start for the first of these passes,
    /// at the second for the second, and then no more.
    pub fn crash(mut self, program: Program, point: &str, passes: &[u64]) -> Self {
        self.crashes.insert(program, passes.iter().map(|pass| format!("{point}:{pass}")).collect());
        self
    }

    /// Puts a relay between these programs and a server.
    pub fn relay(mut self, server: Server, programs: &[Program]) -> Self {
        self.relayed.entry(server).or_default().extend(programs);
        self
    }

    /// How the provider behaves at first.
    pub fn behaviour(mut self, change: impl FnOnce(&mut Behaviour)) -> Self {
        change(&mut self.behaviour);
        self
    }

    /// Messages a second that the account may send.
    pub fn rate(mut self, rate: f64) -> Self {
        self.rate = rate;
        self
    }

    /// What the provider's chances are made from.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Starts everything and waits until all are ready.
    ///
    /// # Panics
    /// If anything cannot be started.
    pub async fn start(self) -> Fleet {
        let mut fleet = self.arrange().await;
        fleet.launch();
        fleet.wait_ready().await;
        fleet
    }

    /// Everything but the programs: [`Fleet::launch`] starts those.
    ///
    /// # Panics
    /// If anything cannot be arranged.
    pub async fn arrange(self) -> Fleet {
        let database = database().await;
        let id = Uuid::new_v4();
        // An address of its own on the loopback interface: its ports are nobody else's.
        let [a, b, c, ..] = id.into_bytes();
        let host = std::net::Ipv4Addr::new(127, a.max(1), b, c.clamp(1, 254));
        let address = |port: u16| SocketAddr::from((host, port));
        let pair_limit = self.behaviour.pair_limit;
        let sandbox = Sandbox::start(sandbox::Config {
            webhook_url: format!("http://{}/webhooks/whatsapp", address(API_PORT)),
            behaviour: self.behaviour,
            seed: self.seed,
            webhook_concurrency: self.webhook_concurrency,
            ..sandbox::Config::default()
        });
        let sandbox = sandbox.await.expect("the sandbox starts");
        let folder = std::env::temp_dir().join(format!("mijra-test-{}", id.simple()));
        std::fs::create_dir_all(&folder).expect("a folder for logs");
        let namespace = format!("test.{}", id.simple());
        let mut relays = BTreeMap::new();
        for server in self.relayed.keys() {
            relays.insert(*server, relay(*server).await);
        }

        let secrets = sandbox::Config::default();
        let url_for = |server: Server, program: Option<Program>, mut url: Url| -> String {
            let relayed =
                program.is_some_and(|program| self.relayed.get(&server).is_some_and(|of| of.contains(&program)));
            if let Some(relay) = relays.get(&server).filter(|_| relayed) {
                url.set_ip_host(relay.address().ip()).expect("a URL with a host");
                url.set_port(Some(relay.address().port())).expect("a URL with a host");
            }
            url.into()
        };
        let environment = |program: Option<Program>| -> BTreeMap<String, String> {
            let role = match program {
                Some(Program::Api) => Role::Api,
                Some(_) => Role::Worker,
                None => Role::Operator,
            };
            let mut environment: BTreeMap<String, String> = [
                ("DATABASE_URL", url_for(Server::Postgres, program, database.url(role))),
                ("AMQP_URL", url_for(Server::Broker, program, required(Server::Broker))),
                ("REDIS_URL", url_for(Server::Redis, program, required(Server::Redis))),
                ("MIJRA_NAMESPACE", namespace.clone()),
                ("STORAGE_URL", format!("file://{}", folder.join("files").display())),
                // 32 bytes.
                ("MIJRA_SECRET_KEYS", "test:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=".to_owned()),
                ("WHATSAPP_BASE_URL", sandbox.url()),
                ("WHATSAPP_APP_SECRET", secrets.app_secret.clone()),
                ("WHATSAPP_VERIFY_TOKEN", VERIFY_TOKEN.to_owned()),
                ("PUBLIC_URL", format!("http://{}", address(API_PORT))),
                ("MESSENGER_BASE_URL", sandbox.url()),
                ("MESSENGER_APP_SECRET", secrets.app_secret.clone()),
                ("MESSENGER_VERIFY_TOKEN", VERIFY_TOKEN.to_owned()),
                ("INSTAGRAM_BASE_URL", sandbox.url()),
                ("INSTAGRAM_APP_SECRET", secrets.app_secret.clone()),
                ("INSTAGRAM_VERIFY_TOKEN", VERIFY_TOKEN.to_owned()),
                ("TWILIO_BASE_URL", sandbox.url()),
                ("TWILIO_MESSAGING_BASE_URL", sandbox.url()),
                ("TWILIO_CONTENT_BASE_URL", sandbox.url()),
                ("TWILIO_AUTH_TOKEN", channels::AUTH_TOKEN.to_owned()),
                // Tests make templates behind the provider's back: they are fetched when a test says so.
                ("TEMPLATES_MAX_AGE_MINUTES", "0".to_owned()),
                ("DATABASE_MAX_CONNECTIONS", "6".to_owned()),
                ("GRACE_PERIOD_SECONDS", "15".to_owned()),
                ("API_RATE_PER_SECOND", "100000".to_owned()),
                ("API_RATE_BURST", "100000".to_owned()),
                ("RUST_LOG", std::env::var("RUST_LOG").unwrap_or_else(|_| "info".to_owned())),
                ("RUST_BACKTRACE", "1".to_owned()),
                ("NO_COLOR", "1".to_owned()),
            ]
            .map(|(name, value)| (name.to_owned(), value))
            .into();
            environment.extend(self.environment.clone());
            environment
                .extend(program.and_then(|program| self.environment_of.get(&program)).cloned().unwrap_or_default());
            environment
        };

        let mut plans = Vec::new();
        for (program, count) in &self.counts {
            for number in 0..*count {
                let offset = u16::try_from(number).expect("a small fleet");
                let health = address(HEALTH_PORT + 100 * *program as u16 + offset);
                let mut environment = environment(Some(*program));
                environment.insert("HEALTH_LISTEN".to_owned(), health.to_string());
                if *program == Program::Api {
                    environment.insert("API_LISTEN".to_owned(), address(API_PORT + offset).to_string());
                }
                let armed = self.crashes.get(program).filter(|_| number == 0);
                plans.push(Plan {
                    program: *program,
                    number,
                    environment,
                    crashes: armed.cloned().unwrap_or_default(),
                    health,
                    log: folder.join(format!("{}-{number}.log", program.name())),
                    respawn: true,
                });
            }
        }
        let operator = environment(None);
        let mut fleet = Fleet {
            processes: Vec::new(),
            plans,
            relays,
            sandbox,
            tenant: Tenant::nobody(),
            pair_limit,
            http: client(),
            api: format!("http://{}", address(API_PORT)),
            operator,
            namespace,
            folder,
            database,
        };
        fleet.tenant = fleet.make_tenant("acme", self.rate).await;
        fleet
    }
}

const API_PORT: u16 = 8080;
const HEALTH_PORT: u16 = 9000;
/// The word of the handshake.
pub const VERIFY_TOKEN: &str = "fleet-verify-token";

fn client() -> reqwest::Client {
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(20));
    client.build().expect("a client without TLS needs nothing")
}

async fn relay(server: Server) -> Relay {
    let url = required(server);
    let default = match server {
        Server::Postgres => 5432,
        Server::Broker => 5672,
        Server::Redis => 6379,
    };
    let host = (url.host_str().expect("a URL with a host").to_owned(), url.port().unwrap_or(default));
    let address =
        tokio::net::lookup_host(host).await.ok().and_then(|mut found| found.next()).expect("the server's address");
    match server {
        Server::Broker => Relay::to_broker(address).await,
        _ => Relay::to(address).await,
    }
    .expect("a relay can listen")
}

fn required(server: Server) -> Url {
    let url = std::env::var(server.setting());
    let url = url.unwrap_or_else(|_| panic!("{} is not set, see deploy/dev test", server.setting()));
    url.parse().expect("a URL")
}

/// The last lines of a file.
pub(super) fn tail(path: &PathBuf, lines: usize) -> String {
    let text = std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
