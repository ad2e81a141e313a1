//! The real programs, as processes, on a database and queues of their own, with a stand-in for the provider. Ends when dropped;
//! what the programs logged is shown if the test fails.

mod builder;
mod pool;
mod process;
mod talk;

pub use builder::{Builder, Server, VERIFY_TOKEN};
pub use pool::Pool;
pub use process::{Exit, Process};
pub use talk::Accepted;

use crate::{
    database::{Database, Role},
    programs::{Program, binary},
    relay::Relay,
    sandbox::{NUMBER, Sandbox, TOKEN, WABA},
};
use process::Plan;
use secrecy::SecretString;
use serde_json::Value;
use shared::{
    db::Databases,
    domain::ids::{ChannelAccountId, TenantId},
    queue::{self, Broker},
    storage::Storage,
};
use std::{
    collections::BTreeMap,
    path::PathBuf,
    process::Output,
    thread,
    time::{Duration, Instant},
};
use tokio::process::Command;

/// Running programs and all they need.
pub struct Fleet {
    processes: Vec<Process>,
    plans: Vec<Plan>,
    relays: BTreeMap<Server, Relay>,
    /// The provider.
    pub sandbox: Sandbox,
    /// The tenant it was made with.
    pub tenant: Tenant,
    /// Whether its accounts are told of the pair limit, as its provider has it.
    pair_limit: bool,
    /// Asks the API.
    pub http: reqwest::Client,
    /// Where the API is.
    pub api: String,
    operator: BTreeMap<String, String>,
    namespace: String,
    folder: PathBuf,
    /// Goes last.
    pub database: Database,
}

/// A tenant with one WhatsApp number.
#[derive(Clone, Debug)]
pub struct Tenant {
    /// Its id.
    pub id: TenantId,
    /// Its name in URLs.
    pub slug: String,
    /// A token with all permissions.
    pub token: String,
    /// Its account.
    pub account: ChannelAccountId,
    /// The provider's id of that.
    pub number: String,
}

/// How long the programs may take to be ready.
const READY_WITHIN: Duration = Duration::from_secs(60);

impl Fleet {
    /// One of each program.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Starts the programs that were planned.
    pub fn launch(&mut self) {
        self.processes.extend(self.plans.drain(..).map(Process::start));
    }

    /// Hands over the processes of a program, to have more or fewer of them while the fleet is at work.
    pub fn pool(&mut self, program: Program) -> Pool {
        let (pool, rest) = self.processes.drain(..).partition(|process| process.program() == program);
        self.processes = rest;
        Pool(pool)
    }

    /// The first process of a program.
    ///
    /// # Panics
    /// If there is none.
    pub fn process(&self, program: Program) -> &Process {
        self.processes.iter().find(|process| process.program() == program).expect("the fleet has one")
    }

    /// All processes.
    pub fn processes(&self) -> &[Process] {
        &self.processes
    }

    /// The relay in front of a server.
    ///
    /// # Panics
    /// If none was asked for.
    pub fn relay(&self, server: Server) -> &Relay {
        &self.relays[&server]
    }

    /// What a program of that role has of the database.
    pub fn databases(&self, role: Role) -> Databases {
        self.database.databases(role)
    }

    /// The broker, directly.
    pub fn broker(&self) -> Broker {
        broker(&self.namespace)
    }

    /// Waits until every program says that it is ready.
    ///
    /// # Panics
    /// If one does not in time.
    pub async fn wait_ready(&self) {
        let late = self.ready_within(READY_WITHIN).await;
        assert!(late.is_empty(), "not ready in time: {}", late.join(", "));
    }

    /// Waits until every program says that it is ready; who does not in time.
    pub async fn ready_within(&self, within: Duration) -> Vec<String> {
        let deadline = Instant::now() + within;
        loop {
            let mut late = Vec::new();
            for process in &self.processes {
                if !process.is_ready(&self.http).await {
                    late.push(process.name());
                }
            }
            if late.is_empty() || Instant::now() > deadline {
                return late;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Runs `mijra` and returns what it said in JSON.
    ///
    /// # Panics
    /// If it fails.
    pub async fn mijra(&self, arguments: &[&str]) -> Value {
        self.mijra_with(arguments, &[]).await
    }

    /// The same, with more in its environment.
    ///
    /// # Panics
    /// If it fails.
    pub async fn mijra_with(&self, arguments: &[&str], more: &[(&str, &str)]) -> Value {
        let output = self.try_mijra(arguments, more).await;
        json_of(arguments, &output)
    }

    /// Runs `mijra` with more in its environment, and returns how it ended.
    ///
    /// # Panics
    /// If it cannot be run.
    pub async fn try_mijra(&self, arguments: &[&str], more: &[(&str, &str)]) -> Output {
        Command::new(binary("mijra"))
            .env_clear()
            .envs(&self.operator)
            .envs(more.iter().copied())
            .arg("--json")
            .args(arguments)
            .kill_on_drop(true)
            .output()
            .await
            .expect("mijra runs")
    }

    /// Makes a tenant with a token and a number, as an operator would.
    ///
    /// # Panics
    /// If `mijra` refuses.
    pub async fn make_tenant(&self, slug: &str, rate: f64) -> Tenant {
        let created = self.mijra(&["tenant", "create", slug, "--region", "US"]).await;
        let token = self.mijra(&["token", "create", "--tenant", slug, "--name", "fleet"]).await;
        let rate = rate.to_string();
        let pair: &[&str] = if self.pair_limit { &[] } else { &["--no-pair-limit"] };
        let add = [
            ["channel-account", "add", "whatsapp"].as_slice(),
            &["--tenant", slug, "--phone-number-id", NUMBER, "--business-account-id", WABA, "--rate", &rate],
            pair,
        ]
        .concat();
        let account = self.mijra_with(&add, &[("ACCESS_TOKEN", TOKEN)]).await;
        let text = |value: &Value, field: &str| value[field].as_str().unwrap_or_default().to_owned();
        Tenant {
            id: text(&created, "id").parse().expect("the tenant's id"),
            slug: slug.to_owned(),
            token: text(&token, "token"),
            account: text(&account, "id").parse().expect("the account's id"),
            number: NUMBER.to_owned(),
        }
    }

    /// Where its files are.
    ///
    /// # Panics
    /// If the folder cannot be made.
    pub fn storage(&self) -> Storage {
        Storage::in_folder(&self.folder.join("files")).expect("a folder for files")
    }

    /// How many dead letters there are, by queue.
    ///
    /// # Panics
    /// If the broker does not answer.
    pub async fn dead_letters(&self) -> BTreeMap<&'static str, u32> {
        let broker = self.broker();
        let mut dead = BTreeMap::new();
        for queue in queue::ALL {
            let depth = broker.depth(queue).await.expect("the broker answers");
            if depth.dead > 0 {
                dead.insert(queue.name, depth.dead);
            }
        }
        dead
    }

    /// Tells every program to end, and returns how each did.
    pub async fn stop(&self, within: Duration) -> Vec<(String, Option<Exit>)> {
        let stops = self.processes.iter().map(|process| async { (process.name(), process.stop(within).await) });
        futures_util::future::join_all(stops).await
    }

    /// The end of each program's log.
    pub fn logs(&self, lines: usize) -> String {
        let mut files: Vec<PathBuf> =
            std::fs::read_dir(&self.folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
        files.sort();
        let part = |path: &PathBuf| format!("--- {} ---\n{}", path.display(), builder::tail(path, lines));
        files.iter().map(part).collect::<Vec<_>>().join("\n")
    }

    /// The whole log of a program's first process.
    pub fn log(&self, program: Program) -> String {
        builder::tail(&self.folder.join(format!("{}-0.log", program.name())), usize::MAX)
    }
}

impl Tenant {
    pub(super) fn nobody() -> Self {
        let (id, account) = (TenantId::new(), ChannelAccountId::new());
        Self { id, slug: String::new(), token: String::new(), account, number: String::new() }
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for process in &self.processes {
            process.kill();
        }
        if thread::panicking() {
            #[allow(clippy::print_stderr, reason = "what a failed test shows")]
            {
                eprintln!("{}", self.logs(25));
            }
        } else {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
        let broker = broker(&self.namespace);
        // A destructor cannot wait on the runtime it may be running in.
        let removing = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
            runtime.block_on(broker.remove()).ok()
        });
        let _ = removing.join();
    }
}

fn broker(namespace: &str) -> Broker {
    let url = std::env::var("AMQP_URL").expect("AMQP_URL is not set, see deploy/dev test");
    let url = SecretString::from(url);
    Broker::new(queue::Settings { url, namespace: namespace.to_owned(), process: "mijra-tests".to_owned() })
}

fn json_of(arguments: &[&str], output: &Output) -> Value {
    let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "mijra {}: {}\n{out}{error}", arguments.join(" "), output.status);
    serde_json::from_str(&out).unwrap_or_else(|why| panic!("mijra {}: {why}: {out}", arguments.join(" ")))
}
