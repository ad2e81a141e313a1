//! Who used the processors during a run: each watched process with all its children, the harness itself, the kernel's
//! own threads, and everybody else on the machine, because what others take makes a run void.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Instant;

use anyhow::{Result, bail};

use super::proc::{self, Machine, Process};

/// A process whose use is charged to a name. Several processes may share one.
#[derive(Debug, Clone)]
pub(crate) struct Watched {
    pub(crate) name: String,
    pub(crate) pid: u32,
    /// Whether its peak memory belongs to this run: it started for it.
    started_for_the_run: bool,
}

impl Watched {
    /// A process started for this run: a part of a yardstick, one of Mijra's programs.
    pub(crate) fn part(name: impl Into<String>, pid: u32) -> Self {
        Self { name: name.into(), pid, started_for_the_run: true }
    }

    /// A server that was there before: RabbitMQ, the postmaster. Everything it ever forked is charged to it, so it must
    /// serve nobody else meanwhile.
    pub(crate) fn server(name: impl Into<String>, pid: u32) -> Self {
        Self { name: name.into(), pid, started_for_the_run: false }
    }
}

/// The processes of one run.
#[derive(Debug, Clone)]
pub(crate) struct Accounts(Vec<Watched>);

/// What had been used at one moment.
#[derive(Debug, Clone)]
pub(crate) struct Snapshot {
    at: Instant,
    machine: Machine,
    /// By index of the watched process.
    watched_us: Vec<u64>,
    peak_memory_bytes: Vec<Option<u64>>,
    harness_us: u64,
    kernel_us: u64,
    others_us: u64,
}

/// What was used between two moments.
#[derive(Debug, Clone)]
pub(crate) struct Usage {
    /// Processor time in µs by name.
    pub(crate) cpu_us: BTreeMap<String, f64>,
    /// The largest peak of resident memory among the processes of that name.
    pub(crate) peak_memory_bytes: BTreeMap<String, u64>,
    /// Cores taken by processes that are not part of the run.
    pub(crate) others_cores: f64,
    /// Cores taken by other guests of this host.
    pub(crate) steal_cores: f64,
    pub(crate) harness_cores: f64,
    /// Cores taken by the kernel's own threads, mostly writing out what the run wrote.
    pub(crate) kernel_cores: f64,
}

impl Accounts {
    pub(crate) fn open(watched: Vec<Watched>) -> Self {
        Self(watched)
    }

    /// Fails if a watched process is gone: a run in which one died measures nothing.
    pub(crate) fn snapshot(&self) -> Result<Snapshot> {
        let at = Instant::now();
        let machine = proc::machine()?;
        let processes = proc::processes()?;
        let family = Family::of(&processes);
        let mut ours = HashSet::from([std::process::id()]);
        let mut watched_us = Vec::with_capacity(self.0.len());
        for watched in &self.0 {
            if family.by_pid.get(&watched.pid).is_none_or(|process| process.zombie) {
                bail!("{} (process {}) has ended", watched.name, watched.pid);
            }
            let tree = family.tree(watched.pid);
            watched_us.push(tree.iter().map(|process| process.own_us + process.waited_us).sum());
            ours.extend(tree.iter().map(|process| process.pid));
        }
        let sum = |kernel: bool| -> u64 {
            let theirs = processes.iter().filter(|process| process.kernel == kernel && !ours.contains(&process.pid));
            theirs.map(|process| process.own_us + process.waited_us).sum()
        };
        Ok(Snapshot {
            at,
            machine,
            watched_us,
            peak_memory_bytes: self.0.iter().map(|watched| proc::peak_memory_bytes(watched.pid)).collect(),
            harness_us: family.by_pid.get(&std::process::id()).map_or(0, |harness| harness.own_us),
            kernel_us: sum(true),
            others_us: sum(false),
        })
    }

    /// What was used from one snapshot of these accounts to a later one.
    pub(crate) fn usage(&self, from: &Snapshot, to: &Snapshot) -> Usage {
        let wall_us = to.at.duration_since(from.at).as_secs_f64() * 1e6;
        let used = |from: u64, to: u64| to.saturating_sub(from) as f64;
        let mut cpu_us = BTreeMap::new();
        let mut peak_memory_bytes = BTreeMap::new();
        for (index, watched) in self.0.iter().enumerate() {
            *cpu_us.entry(watched.name.clone()).or_insert(0.0) += used(from.watched_us[index], to.watched_us[index]);
            if let (true, Some(bytes)) = (watched.started_for_the_run, to.peak_memory_bytes[index]) {
                let peak = peak_memory_bytes.entry(watched.name.clone()).or_insert(0);
                *peak = bytes.max(*peak);
            }
        }
        let watched_us: f64 = cpu_us.values().sum();
        let harness_us = used(from.harness_us, to.harness_us);
        let kernel_us = used(from.kernel_us, to.kernel_us);
        // Two ways to see the neighbours, and each misses some: the list of processes does not show those of other
        // containers, the machine's sum is sampled by the clock tick and leaves out interrupts.
        let listed_us = used(from.others_us, to.others_us);
        let busy_us = used(from.machine.busy_us, to.machine.busy_us);
        let unlisted_us = busy_us - watched_us - harness_us - kernel_us;
        Usage {
            cpu_us,
            peak_memory_bytes,
            others_cores: listed_us.max(unlisted_us) / wall_us,
            steal_cores: used(from.machine.steal_us, to.machine.steal_us) / wall_us,
            harness_cores: harness_us / wall_us,
            kernel_cores: kernel_us / wall_us,
        }
    }
}

/// Who started whom.
struct Family<'a> {
    by_pid: HashMap<u32, &'a Process>,
    children: HashMap<u32, Vec<&'a Process>>,
}

impl<'a> Family<'a> {
    fn of(processes: &'a [Process]) -> Self {
        let mut children: HashMap<u32, Vec<&Process>> = HashMap::new();
        for process in processes {
            children.entry(process.parent).or_default().push(process);
        }
        Self { by_pid: processes.iter().map(|process| (process.pid, process)).collect(), children }
    }

    /// The process and its descendants. Own time plus waited-for time summed over them never goes backwards when one ends.
    fn tree(&self, root: u32) -> Vec<&'a Process> {
        let mut found: Vec<&Process> = self.by_pid.get(&root).copied().into_iter().collect();
        let mut next = 0;
        while let Some(process) = found.get(next) {
            found.extend(self.children.get(&process.pid).into_iter().flatten());
            next += 1;
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: u32, parent: u32, own_us: u64, waited_us: u64) -> Process {
        Process { pid, parent, kernel: false, zombie: false, own_us, waited_us }
    }

    #[test]
    fn a_tree_keeps_the_time_of_a_child_that_ended() {
        let before = [process(10, 1, 5, 0), process(11, 10, 100, 0), process(12, 11, 7, 0), process(20, 1, 900, 0)];
        let after = [process(10, 1, 5, 107), process(20, 1, 950, 0)];
        let total = |processes: &[Process]| -> u64 {
            Family::of(processes).tree(10).iter().map(|process| process.own_us + process.waited_us).sum()
        };
        assert_eq!(total(&before), 112);
        assert_eq!(total(&after), 112);
    }

    #[test]
    fn the_harness_can_account_for_a_process_it_started() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let accounts = Accounts::open(vec![Watched::part("sleep", child.id())]);
        let from = accounts.snapshot().unwrap();
        let usage = accounts.usage(&from, &accounts.snapshot().unwrap());
        assert!(usage.cpu_us.contains_key("sleep") && usage.peak_memory_bytes["sleep"] > 0);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(accounts.snapshot().unwrap_err().to_string().contains("has ended"));
    }

    #[test]
    fn a_process_that_died_is_noticed_before_its_parent_waits_for_it() {
        let mut child = std::process::Command::new("true").stdout(std::process::Stdio::piped()).spawn().unwrap();
        let accounts = Accounts::open(vec![Watched::part("true", child.id())]);
        // The pipe ends a moment before the process does.
        std::io::Read::read_to_end(child.stdout.as_mut().unwrap(), &mut Vec::new()).unwrap();
        let died = (0..1_000).any(|_| {
            std::thread::yield_now();
            accounts.snapshot().is_err()
        });
        assert!(died);
        child.wait().unwrap();
    }
}
