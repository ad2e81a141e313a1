//! Each fault several times on a fleet of its own, and a row for each.

use super::{
    CALM, CLOSING, Command,
    fault::{Fault, Spells},
    load::{Load, Manner},
    say,
};
use crate::channel::Taken;
use anyhow::Result;
use comfy_table::{Table, presets};
use std::time::Duration;
use support::{
    books::{self, Books},
    fleet::Fleet,
    lateness::lateness,
};

/// How long a stopped machine stands still.
const STANDSTILL: Duration = Duration::from_secs(20);
/// How long a server is away.
const AWAY: Duration = Duration::from_secs(10);

const HEADER: [&str; 20] = [
    "statuses",
    "unknown ones",
    "fault",
    "times",
    "messages in",
    "messages out",
    "people of campaigns",
    "lost",
    "doubled",
    "sent again and shown",
    "of these taken twice",
    "were unknown",
    "by evidence",
    "held",
    "dead",
    "out of order",
    "busiest second",
    "longest to call s",
    "ready again s",
    "quiet after s",
];

/// What came of one fault.
struct Run {
    /// How many times it happened.
    times: u64,
    books: Books,
    /// The longest time until all were ready again.
    recovery: Duration,
    /// What was granted of each account's limit.
    taken: Vec<Taken>,
    /// The longest from a grant to its call.
    longest: chrono::TimeDelta,
    /// What did not happen as it should.
    wrong: Vec<String>,
}

/// Tries every fault in every manner, prints a row for each, and says whether all went well.
pub(super) async fn run(command: &Command, faults: &[Fault]) -> Result<bool> {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_header(HEADER.into_iter().chain(["books"]));
    let mut details = Vec::new();
    for manner in command.manners() {
        for fault in faults {
            let run = try_fault(command, manner, *fault).await?;
            let agrees = run.books.agree() && run.wrong.is_empty();
            let row = row(manner, *fault, &run, agrees);
            // As it comes: a run takes a while.
            say(&row.join("  "));
            table.add_row(row);
            if !agrees {
                let what = format!("{} {}", manner.words().join(", "), fault.name());
                details.push(format!(
                    "{what}: {} of {} times\n{}\n{}",
                    run.times,
                    command.rounds,
                    run.wrong.join("\n"),
                    run.books
                ));
            }
        }
    }
    say(&table.to_string());
    details.iter().for_each(|detail| say(detail));
    Ok(details.is_empty())
}

async fn try_fault(command: &Command, manner: Manner, fault: Fault) -> Result<Run> {
    let fleet = manner.fleet(&command.relays(&[fault])).await;
    let load = Load::of(manner, &command.channels, &fleet).await?;
    let spells = command.spells(STANDSTILL, AWAY);
    let (handed, (times, recovery, mut wrong)) =
        load.during(&fleet, trouble(&fleet, fault, command.rounds, spells)).await;
    let books = books::close_with_campaigns(&fleet, &handed.replies, &handed.campaigns, CLOSING).await;
    if !books.agree() {
        wrong.push(fleet.logs(10));
    }
    let taken = load.mixture.taken(&fleet).await;
    let over = taken.iter().filter(|taken| taken.busiest > u64::from(taken.rate));
    wrong.extend(over.map(|taken| format!("{} was granted {} in a second", taken.channel.name(), taken.busiest)));
    let lateness = lateness(&fleet).await;
    wrong.extend(lateness.late);
    Ok(Run { times, books, recovery, taken, longest: lateness.longest, wrong })
}

/// Makes it go wrong again and again, with a calm before and after each. How often it did; the longest time until all were ready
/// again; what did not go as it should.
async fn trouble(fleet: &Fleet, fault: Fault, rounds: u64, spells: Spells<'_>) -> (u64, Duration, Vec<String>) {
    let (mut times, mut longest, mut wrong) = (0, Duration::ZERO, Vec::new());
    for round in 1..=rounds {
        tokio::time::sleep(CALM).await;
        // Further into the load each time.
        match fault.strike(fleet, (fault.passes() * round).div_ceil(rounds), spells).await {
            Ok(recovery) => {
                times += 1;
                longest = longest.max(recovery);
            }
            Err(error) => wrong.push(format!("{error:#}")),
        }
    }
    tokio::time::sleep(CALM).await;
    (times, longest, wrong)
}

fn row(manner: Manner, fault: Fault, run: &Run, agrees: bool) -> Vec<String> {
    let books = &run.books;
    let mut row: Vec<String> = manner.words().map(str::to_owned).into();
    row.extend([fault.name(), run.times.to_string(), books.stored.to_string(), books.accepted.to_string()]);
    row.push(format!("{} ({} skipped)", books.people, books.skipped));
    let counts = [
        books.lost,
        books.doubled(),
        books.possibly_doubled,
        books.taken_twice_and_shown,
        books.were_unknown,
        books.settled_by_evidence,
        books.held,
        books.dead,
        books.out_of_order,
    ];
    row.extend(counts.iter().map(usize::to_string));
    let taken = run.taken.iter().map(|taken| format!("{} {}/{}", taken.channel.name(), taken.busiest, taken.rate));
    row.push(taken.collect::<Vec<_>>().join(", "));
    row.push(format!("{:.2}", run.longest.as_seconds_f64()));
    row.push(format!("{:.1}", run.recovery.as_secs_f64()));
    row.push(books.quiet_after.map_or("never".to_owned(), |after| format!("{:.1}", after.as_secs_f64())));
    row.push(if agrees { "agree".to_owned() } else { "DIFFER".to_owned() });
    row
}
