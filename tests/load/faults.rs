//! `load faults`: everything that can go wrong with our own processes, under load, and the books closed after each. Not a
//! measurement of speed: it passes only if nothing was lost and nothing done twice.

use anyhow::{Result, bail};
use comfy_table::{Table, presets};
use shared::crash::CrashPoint;
use std::{
    process::ExitCode,
    time::{Duration, Instant},
};
use support::{
    books::{self, Books},
    fleet::{Builder, Fleet, Server},
    programs::Program,
    sandbox::behaviour::Span,
    traffic::Traffic,
};

/// Which faults, and under what load.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Command {
    /// Crash points by name, `sigstop`, `cut`, or `all`
    #[arg(long, value_delimiter = ',', default_value = "all")]
    points: Vec<String>,
    /// How many times each
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=20))]
    rounds: u64,
    /// Whether statuses come before evidence is given up, after it, or one after the other
    #[arg(long, value_enum, default_value = "both")]
    settle: Settle,
    /// Messages of people a second
    #[arg(long, default_value_t = 150.0)]
    webhooks: f64,
    /// Answers of agents a second
    #[arg(long, default_value_t = 150.0)]
    replies: f64,
    /// What chance is made from
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Settle {
    /// Statuses come within half a second, evidence is awaited for 10 s.
    Fast,
    /// Statuses come after 8 s, evidence is awaited for 3 s.
    Slow,
    Both,
}

/// One thing that goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Crash(CrashPoint),
    /// The sender's machine stands still for 20 s.
    SigStop,
    /// Every connection to the broker is cut.
    Cut,
}

/// How long a stopped machine stands still.
const STANDSTILL: Duration = Duration::from_secs(20);
/// Longer than every deadline there is, one after the other, with some room.
const CLOSING: Duration = Duration::from_secs(180);
const PEOPLE: u32 = 200;
/// What the provider lets through a second, and what the account is set to.
const RATE: u32 = 400;

impl Fault {
    fn name(self) -> &'static str {
        match self {
            Fault::Crash(point) => point.as_str(),
            Fault::SigStop => "sigstop",
            Fault::Cut => "cut",
        }
    }

    fn all() -> Vec<Fault> {
        CrashPoint::ALL.iter().copied().map(Fault::Crash).chain([Fault::SigStop, Fault::Cut]).collect()
    }

    /// Whose recovery is looked at.
    fn program(self) -> Program {
        match self {
            Fault::Crash(point) => Program::of(point),
            Fault::SigStop => Program::Outbound,
            Fault::Cut => Program::Inbound,
        }
    }
}

/// Tries every fault, prints a row for each, and says whether all went well.
pub(crate) async fn run(command: Command) -> Result<ExitCode> {
    let faults = chosen(&command.points)?;
    let modes: &[Settle] = match command.settle {
        Settle::Both => &[Settle::Fast, Settle::Slow],
        Settle::Fast => &[Settle::Fast],
        Settle::Slow => &[Settle::Slow],
    };
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_header([
        "statuses",
        "fault",
        "times",
        "messages in",
        "messages out",
        "lost",
        "accepted twice",
        "stored twice",
        "unknown",
        "by evidence",
        "held",
        "dead",
        "ready again s",
        "quiet after s",
        "books",
    ]);
    let (mut failed, mut details) = (false, Vec::new());
    for mode in modes {
        for fault in &faults {
            let run = try_fault(&command, *mode, *fault).await;
            let agrees = run.books.agree() && run.times == command.rounds as usize;
            failed |= !agrees;
            table.add_row(row(*mode, *fault, &run, agrees));
            say(&line(&table));
            if !agrees {
                details.push(format!(
                    "{mode:?} {}: {} of {} times\n{}",
                    fault.name(),
                    run.times,
                    command.rounds,
                    run.books
                ));
            }
        }
    }
    say(&table.to_string());
    for detail in &details {
        say(detail);
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn chosen(names: &[String]) -> Result<Vec<Fault>> {
    if names.iter().any(|name| name == "all") {
        return Ok(Fault::all());
    }
    let mut faults = Vec::new();
    for name in names {
        match Fault::all().into_iter().find(|fault| fault.name() == name) {
            Some(fault) => faults.push(fault),
            None => {
                let known: Vec<&str> = Fault::all().into_iter().map(Fault::name).collect();
                bail!("there is no fault {name}; there are {}", known.join(", "));
            }
        }
    }
    Ok(faults)
}

/// What came of one fault.
struct Run {
    /// How many times it happened.
    times: usize,
    books: Books,
    /// The longest time until all were ready again.
    recovery: Duration,
}

async fn try_fault(command: &Command, mode: Settle, fault: Fault) -> Run {
    let fleet = builder(command, mode, fault).start().await;
    let parties = fleet.acquaint(command.seed, PEOPLE).await;
    // Long enough for every round to begin under load and for what it left behind to be taken up under load, too.
    let per_round = if fault == Fault::SigStop { STANDSTILL + Duration::from_secs(6) } else { Duration::from_secs(5) };
    let lasts = per_round * u32::try_from(command.rounds).unwrap_or(1);
    let traffic = Traffic {
        webhooks_per_second: command.webhooks,
        replies_per_second: command.replies,
        lasts,
        seed: command.seed,
    };
    let (accepted, (times, recovery)) =
        tokio::join!(traffic.run(&fleet, &parties), trouble(&fleet, fault, command.rounds, lasts));
    let books = books::close(&fleet, &accepted, CLOSING).await;
    Run { times, books, recovery }
}

fn builder(command: &Command, mode: Settle, fault: Fault) -> Builder {
    let (settle, delay) = match mode {
        Settle::Slow => (3, Span { min: 8_000, max: 9_000 }),
        _ => (10, Span { min: 50, max: 250 }),
    };
    let builder = Fleet::builder()
        .env("PROVIDER_CALL_TIMEOUT_SECONDS", 3)
        .env("UNKNOWN_TURN_SECONDS", 2)
        .env("UNKNOWN_SETTLE_SECONDS", settle)
        .env("RUST_LOG", "warn")
        .seed(command.seed)
        .rate(f64::from(RATE))
        .behaviour(|b| {
            b.throughput_per_second = Some(RATE);
            b.latency_ms = Span { min: 10, max: 60 };
            b.unavailable_rate = 0.03;
            b.refuse_rate = 0.005;
            b.refuse_code = 131_026;
            b.cut_before_rate = 0.002;
            b.cut_after_rate = 0.002;
            b.duplicate_rate = 0.02;
            b.reorder_rate = 0.02;
            b.status_before_answer_rate = 0.05;
            b.status_delay_ms = delay;
        });
    match fault {
        Fault::Crash(point) => {
            // Further into the load each time; a busy point is passed hundreds of times a second, the sweep's seldom.
            let step = if Program::of(point) == Program::Scheduler { 2 } else { 20 };
            let passes: Vec<u64> = (1..=command.rounds).map(|round| step * round + command.seed % 5).collect();
            builder.crash(Program::of(point), point.as_str(), &passes)
        }
        // A second sender goes on meanwhile, and finds the claims of the one that stands still.
        Fault::SigStop => builder.count(Program::Outbound, 2),
        Fault::Cut => builder.relay(Server::Broker, &Program::ALL),
    }
}

/// Makes it go wrong, and looks how long it takes until all are ready again. How often it went wrong; the longest time.
async fn trouble(fleet: &Fleet, fault: Fault, rounds: u64, lasts: Duration) -> (usize, Duration) {
    let process = fleet.process(fault.program());
    let (mut times, mut longest) = (0, Duration::ZERO);
    let deadline = Instant::now() + lasts;
    for _ in 0..rounds {
        let began = match fault {
            Fault::Crash(_) => {
                let left = deadline.saturating_duration_since(Instant::now()) + Duration::from_secs(10);
                let Some(exit) = process.ended(times, left).await else { break };
                exit.at
            }
            Fault::SigStop => {
                tokio::time::sleep(Duration::from_secs(2)).await;
                process.signal("STOP");
                tokio::time::sleep(STANDSTILL).await;
                process.signal("CONT");
                Instant::now()
            }
            Fault::Cut => {
                tokio::time::sleep(Duration::from_secs(3)).await;
                let cut = Instant::now();
                fleet.relay(Server::Broker).cut();
                // It takes a moment to be noticed.
                tokio::time::sleep(Duration::from_millis(200)).await;
                cut
            }
        };
        times += 1;
        fleet.ready_within(Duration::from_secs(60)).await;
        longest = longest.max(began.elapsed());
    }
    (times, longest)
}

fn row(mode: Settle, fault: Fault, run: &Run, agrees: bool) -> Vec<String> {
    let books = &run.books;
    let mode = if mode == Settle::Slow { "slower" } else { "faster" };
    let counts = [
        run.times,
        books.stored,
        books.accepted,
        books.lost,
        books.taken_twice,
        books.stored_twice,
        books.were_unknown,
        books.settled_by_evidence,
        books.held,
        books.dead,
    ];
    let mut row = vec![mode.to_owned(), fault.name().to_owned()];
    row.extend(counts.iter().map(usize::to_string));
    row.push(format!("{:.1}", run.recovery.as_secs_f64()));
    row.push(books.quiet_after.map_or("never".to_owned(), |after| format!("{:.1}", after.as_secs_f64())));
    row.push(if agrees { "agree".to_owned() } else { "DIFFER".to_owned() });
    row
}

/// The last row, as it comes: a run takes a while.
fn line(table: &Table) -> String {
    let cells = table.row(table.row_count() - 1).into_iter().flat_map(|row| row.cell_iter());
    cells.map(comfy_table::Cell::content).collect::<Vec<String>>().join("  ")
}

#[allow(clippy::print_stdout, reason = "the result of the run")]
fn say(text: &str) {
    println!("{text}");
}
