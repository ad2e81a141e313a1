//! One of our programs as a child process under a supervisor: started again when it ends, unless it was told to end.

use crate::programs::Program;
use std::{
    collections::{BTreeMap, VecDeque},
    fs::{File, OpenOptions},
    net::SocketAddr,
    os::unix::process::ExitStatusExt,
    path::PathBuf,
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::{process::Command, sync::watch, task::JoinHandle};

/// What is started, each time.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) program: Program,
    pub(super) number: usize,
    pub(super) environment: BTreeMap<String, String>,
    /// Crash points armed at the first start, the second …; none at later ones but those of [`Process::arm`].
    pub(super) crashes: Vec<String>,
    pub(super) health: SocketAddr,
    pub(super) log: PathBuf,
    pub(super) respawn: bool,
}

impl Plan {
    /// Another process of the same program.
    pub(super) fn nth(&self, number: usize) -> Self {
        let mut plan = self.clone();
        let offset = |number: usize| u16::try_from(number).expect("a small fleet");
        plan.number = number;
        plan.crashes.clear();
        plan.health.set_port(self.health.port() - offset(self.number) + offset(number));
        plan.environment.insert("HEALTH_LISTEN".to_owned(), plan.health.to_string());
        plan.log.set_file_name(format!("{}-{number}.log", self.program.name()));
        plan
    }
}

/// A program that is kept running.
pub struct Process {
    pub(super) plan: Plan,
    shared: Arc<Shared>,
    supervisor: JoinHandle<()>,
}

struct Shared {
    pid: Mutex<Option<u32>>,
    /// Armed at the next start, the one after …
    crashes: Mutex<VecDeque<String>>,
    exits: watch::Sender<Vec<Exit>>,
    /// Not to be started again.
    over: watch::Sender<bool>,
}

/// How a process ended.
#[derive(Clone, Copy, Debug)]
pub struct Exit {
    /// When.
    pub at: Instant,
    /// Its status, or `None` if a signal ended it.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
}

impl Exit {
    /// Whether it ended itself at once, as at a crash point (SIGABRT).
    pub fn is_crash(&self) -> bool {
        self.signal == Some(6)
    }
}

/// A pause before starting again, as a supervisor makes.
const BEFORE_RESPAWN: Duration = Duration::from_millis(300);
/// A program that ends again and again is not started for ever; one that is ended in each of hundreds of rounds is.
const MOST_STARTS: usize = 1_000;

impl Process {
    pub(super) fn start(plan: Plan) -> Self {
        let shared = Arc::new(Shared {
            pid: Mutex::new(None),
            crashes: Mutex::new(plan.crashes.iter().cloned().collect()),
            exits: watch::Sender::new(Vec::new()),
            over: watch::Sender::new(false),
        });
        let supervisor = tokio::spawn(supervise(plan.clone(), shared.clone()));
        Self { plan, shared, supervisor }
    }

    /// Which program.
    pub fn program(&self) -> Program {
        self.plan.program
    }

    /// Its name in tables and of its log.
    pub fn name(&self) -> String {
        format!("{}-{}", self.plan.program.name(), self.plan.number)
    }

    /// Its process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        *lock(&self.shared.pid)
    }

    /// How it has ended so far.
    pub fn exits(&self) -> Vec<Exit> {
        self.shared.exits.borrow().clone()
    }

    /// Whether it says that it is ready.
    pub async fn is_ready(&self, client: &reqwest::Client) -> bool {
        let url = format!("http://{}/readyz", self.plan.health);
        matches!(client.get(url).send().await, Ok(response) if response.status().is_success())
    }

    /// Each of its conditions, as it says them: `ready` or why not; empty if it does not answer.
    pub async fn conditions(&self, client: &reqwest::Client) -> BTreeMap<String, String> {
        let url = format!("http://{}/readyz", self.plan.health);
        let Ok(response) = client.get(url).send().await else { return BTreeMap::new() };
        let said: serde_json::Value = response.json().await.unwrap_or_default();
        let said = said["conditions"].as_object().cloned().unwrap_or_default();
        said.into_iter().map(|(name, why)| (name, why.as_str().unwrap_or_default().to_owned())).collect()
    }

    /// Its metrics, in Prometheus' text form; empty if it does not answer.
    pub async fn metrics(&self, client: &reqwest::Client) -> String {
        let url = format!("http://{}/metrics", self.plan.health);
        match client.get(url).send().await {
            Ok(response) => response.text().await.unwrap_or_default(),
            Err(_) => String::new(),
        }
    }

    /// Sends a signal, by its name without SIG.
    pub fn signal(&self, name: &str) {
        if let Some(pid) = self.pid() {
            signal(name, &[pid]);
        }
    }

    /// Tells it to end (SIGTERM) and not to come back; how it ended, or `None` if it did not in time.
    pub async fn stop(&self, within: Duration) -> Option<Exit> {
        let before = self.exits().len();
        self.shared.over.send_replace(true);
        self.signal("TERM");
        self.ended(before, within).await
    }

    /// Tells it to end (SIGTERM); its supervisor starts it again. How it ended, or `None` if it did not in time.
    pub async fn restart(&self, within: Duration) -> Option<Exit> {
        let before = self.exits().len();
        self.signal("TERM");
        self.ended(before, within).await
    }

    /// Arms a crash point (`shared::crash`) for one more start: `<point>:<pass>`.
    pub fn arm(&self, point: &str, pass: u64) {
        lock(&self.shared.crashes).push_back(format!("{point}:{pass}"));
    }

    /// Waits until it has ended once more than `before` times.
    pub async fn ended(&self, before: usize, within: Duration) -> Option<Exit> {
        let mut exits = self.shared.exits.subscribe();
        let ended = tokio::time::timeout(within, exits.wait_for(|exits| exits.len() > before)).await;
        ended.ok()?.ok()?.get(before).copied()
    }

    /// Kills it for good, without waiting.
    pub(super) fn kill(&self) {
        self.shared.over.send_replace(true);
        self.signal("KILL");
        self.supervisor.abort();
    }
}

async fn supervise(plan: Plan, shared: Arc<Shared>) {
    let mut over = shared.over.subscribe();
    for _ in 0..MOST_STARTS {
        let mut command = Command::new(plan.program.path());
        command.env_clear().envs(std::env::var("PATH").map(|path| ("PATH", path))).envs(&plan.environment);
        command.envs(lock(&shared.crashes).pop_front().map(|point| ("MIJRA_CRASH_POINT", point)));
        let log = || OpenOptions::new().create(true).append(true).open(&plan.log).map(Stdio::from);
        let (Ok(out), Ok(err)) = (log(), log()) else { return };
        let child = command.stdin(Stdio::null()).stdout(out).stderr(err).kill_on_drop(true).spawn();
        let mut child = match child {
            Ok(child) => child,
            Err(error) => {
                let _ = File::create(&plan.log).and_then(|mut log| {
                    use std::io::Write;
                    writeln!(log, "cannot be started: {error}")
                });
                return;
            }
        };
        *lock(&shared.pid) = child.id();
        let status = child.wait().await;
        *lock(&shared.pid) = None;
        shared.exits.send_modify(|exits| exits.push(exit(status.ok())));
        if !plan.respawn || *over.borrow() {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(BEFORE_RESPAWN) => {}
            _ = over.wait_for(|over| *over) => return,
        }
    }
}

fn exit(status: Option<ExitStatus>) -> Exit {
    Exit { at: Instant::now(), code: status.and_then(|s| s.code()), signal: status.and_then(|s| s.signal()) }
}

/// Sends a signal by its name without SIG. A process that has ended meanwhile is no error.
pub(super) fn signal(name: &str, pids: &[u32]) {
    // The shell's own kill: it is everywhere, and calling the system's needs unsafe code.
    let pids: Vec<String> = pids.iter().map(u32::to_string).collect();
    let _ = std::process::Command::new("sh")
        .args(["-c", &format!("kill -{name} {}", pids.join(" "))])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
