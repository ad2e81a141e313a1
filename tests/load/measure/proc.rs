//! What Linux says under `/proc`: processor time of every process and of the machine, peak memory, who listens where.
//! Numbers only; what they mean for a run is decided in `accounts`.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// Ticks a second in everything under `/proc`: part of Linux's contract with user space on the architectures we run on.
const TICKS_PER_S: u64 = 100;
const MICROS_PER_TICK: u64 = 1_000_000 / TICKS_PER_S;
/// `PF_KTHREAD` of the kernel's `sched.h`, as it stands in the ninth field of `stat`.
const KERNEL_THREAD: u64 = 0x0020_0000;

/// One process's line.
#[derive(Debug, Clone)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    pub(crate) parent: u32,
    pub(crate) kernel: bool,
    /// It has ended and its parent has not noticed yet.
    pub(crate) zombie: bool,
    /// Its own processor time in µs, all threads, those that ended included.
    pub(crate) own_us: u64,
    /// The processor time in µs of its children that ended and were waited for, and of theirs.
    pub(crate) waited_us: u64,
}

/// The machine's line: µs of processor time summed over the cores since it started.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Machine {
    pub(crate) busy_us: u64,
    /// Taken by other guests of the same host.
    pub(crate) steal_us: u64,
}

/// Every process that exists now. One that ends while we look is left out.
pub(crate) fn processes() -> Result<Vec<Process>> {
    let pids = pids()?;
    Ok(pids
        .into_iter()
        .filter_map(|pid| parse_process(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?))
        .collect())
}

/// The machine's processor time. Interrupts are left out: kernels without separate accounting have charged them to the
/// process they interrupted, and those with it charge them to nobody.
pub(crate) fn machine() -> Result<Machine> {
    let stat = fs::read_to_string("/proc/stat").context("read /proc/stat")?;
    parse_machine(&stat).context("understand /proc/stat")
}

/// The most memory the process has had resident since it started (`VmHWM`), in bytes.
pub(crate) fn peak_memory_bytes(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let kib = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?.trim().strip_suffix(" kB")?.trim();
    Some(kib.parse::<u64>().ok()? * 1024)
}

/// The process that listens on this TCP port, if this user may see it.
pub(crate) fn listener_on_port(port: u16) -> Option<u32> {
    let mut sockets = HashSet::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let table = fs::read_to_string(table).unwrap_or_default();
        sockets.extend(table.lines().filter_map(|line| parse_tcp_listener(line, port)).map(str::to_owned));
    }
    holder_of(&sockets)
}

/// The process that listens on this Unix socket, if this user may see it.
pub(crate) fn listener_on_path(path: &Path) -> Option<u32> {
    let table = fs::read_to_string("/proc/net/unix").ok()?;
    let path = path.to_str()?;
    let inode = table.lines().find(|line| line.ends_with(path))?.split_whitespace().nth(6)?;
    holder_of(&HashSet::from([inode.to_owned()]))
}

fn pids() -> Result<Vec<u32>> {
    let entries = fs::read_dir("/proc").context("read /proc (the load harness needs Linux)")?;
    Ok(entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect())
}

/// The lowest process id that holds one of these sockets open: a server that forks keeps the listener in its children.
fn holder_of(inodes: &HashSet<String>) -> Option<u32> {
    let wanted: HashSet<String> = inodes.iter().map(|inode| format!("socket:[{inode}]")).collect();
    let mut pids = pids().ok()?;
    pids.sort_unstable();
    pids.into_iter().find(|pid| {
        let Ok(files) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
        files
            .filter_map(|file| fs::read_link(file.ok()?.path()).ok())
            .any(|target| target.to_str().is_some_and(|target| wanted.contains(target)))
    })
}

/// The name stands in parentheses and may itself contain spaces and parentheses.
fn parse_process(stat: &str) -> Option<Process> {
    let (pid, rest) = stat.split_once(' ')?;
    let (_, fields) = rest.rsplit_once(") ")?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    Some(Process {
        pid: pid.parse().ok()?,
        parent: number(1)?.try_into().ok()?,
        kernel: number(6)? & KERNEL_THREAD != 0,
        zombie: *fields.first()? == "Z",
        own_us: (number(11)? + number(12)?) * MICROS_PER_TICK,
        waited_us: (number(13)? + number(14)?) * MICROS_PER_TICK,
    })
}

fn parse_machine(stat: &str) -> Option<Machine> {
    let fields: Vec<u64> =
        stat.lines().next()?.split_whitespace().skip(1).filter_map(|field| field.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal
    let busy = fields.first()? + fields.get(1)? + fields.get(2)?;
    Some(Machine { busy_us: busy * MICROS_PER_TICK, steal_us: fields.get(7)? * MICROS_PER_TICK })
}

/// The socket's inode if this line of `/proc/net/tcp` is a listener (state 0A) on the port.
fn parse_tcp_listener(line: &str, port: u16) -> Option<&str> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (_, local_port) = fields.get(1)?.rsplit_once(':')?;
    let listens = *fields.get(3)? == "0A" && u16::from_str_radix(local_port, 16).ok()? == port;
    if listens { fields.get(9).copied() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_spaces_and_parentheses_does_not_shift_the_fields() {
        let stat = "4711 (a (b) c) S 17 4711 4711 0 -1 4194560 10 20 0 0 150 50 30 20 20 0 9 0 100 1000 10";
        let process = parse_process(stat).unwrap();
        assert_eq!((process.pid, process.parent, process.kernel), (4711, 17, false));
        assert_eq!((process.own_us, process.waited_us), (2_000_000, 500_000));
    }

    #[test]
    fn kernel_threads_are_recognised() {
        let stat = "15 (ksoftirqd/0) S 2 0 0 0 -1 69238848 0 0 0 0 0 7 0 0 20 0 1 0 26 0 0";
        let process = parse_process(stat).unwrap();
        assert!(process.kernel && !process.zombie);
    }

    #[test]
    fn busy_counts_neither_idle_nor_interrupts_nor_steal() {
        let machine = parse_machine("cpu  100 10 40 5000 60 7 8 9 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0").unwrap();
        assert_eq!((machine.busy_us, machine.steal_us), (1_500_000, 90_000));
    }

    #[test]
    fn only_a_listener_on_the_port_is_found() {
        let listening = "0: 0100007F:6448 00000000:0000 0A 00000000:00000000 00:00000000 00000000 105 0 12345 1 0";
        let connected = "1: 0100007F:6448 0100007F:1F90 01 00000000:00000000 00:00000000 00000000 105 0 12346 1 0";
        assert_eq!(parse_tcp_listener(listening, 0x6448), Some("12345"));
        assert_eq!(parse_tcp_listener(listening, 0x6449), None);
        assert_eq!(parse_tcp_listener(connected, 0x6448), None);
    }

    #[test]
    fn this_machine_is_readable() {
        let me = std::process::id();
        assert!(processes().unwrap().iter().any(|process| process.pid == me));
        assert!(machine().unwrap().busy_us > 0);
        assert!(peak_memory_bytes(me).unwrap() > 100_000);
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        assert_eq!(listener_on_port(socket.local_addr().unwrap().port()), Some(me));
    }
}
