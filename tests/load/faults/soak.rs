//! A soak: faults by chance, one after the other, on one fleet under load. The books hold everything since the beginning each
//! time they are closed, so what one fault leaves behind is found even if it shows only many faults later.

use super::{
    CALM, CLOSING, Command,
    fault::Fault,
    load::{Handed, Load},
    say,
};
use anyhow::Result;
use comfy_table::{Table, presets};
use indicatif::{ProgressBar, ProgressStyle};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};
use support::{
    books::{self, Books},
    fleet::Fleet,
};

/// Longer than a call may take, short enough for two hundred faults.
const STANDSTILL: Duration = Duration::from_secs(5);
const AWAY: Duration = Duration::from_secs(2);

/// A fault, and how many passes of its point it waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Strike {
    fault: Fault,
    pass: u64,
}

/// What a seed strikes: known beforehand, so that no timing changes it.
fn strikes(seed: u64, faults: &[Fault], count: u64) -> Vec<Strike> {
    let mut dice = StdRng::seed_from_u64(seed);
    let mut strike = || {
        let fault = faults[dice.random_range(0..faults.len())];
        Strike { fault, pass: dice.random_range(1..=fault.passes()) }
    };
    (0..count).map(|_| strike()).collect()
}

/// What came of one kind of fault.
#[derive(Default)]
struct Tally {
    times: usize,
    longest: Duration,
}

/// Runs the soak, shows each strike and each closing, and says whether all went well.
pub(super) async fn run(command: &Command, faults: &[Fault], count: u64) -> Result<bool> {
    let manners = command.manners();
    let manner = *manners.first().expect("there is a manner for every choice");
    let fleet = manner.fleet(&command.relays(faults)).await;
    let load = Load::of(manner, &command.channels, &fleet).await?;
    let [statuses, unknown] = manner.words();
    say(&format!(
        "{count} faults by seed {}, books closed after every {}; statuses come {statuses}, unknown messages are {unknown}",
        command.seed, command.close_every
    ));
    let began = Instant::now();
    let mut soak = Soak { command, bar: bar(count), tallies: BTreeMap::new(), struck: 0, wrong: Vec::new() };
    let mut handed = Handed::default();
    let mut books = Books::default();
    for part in strikes(command.seed, faults, count).chunks(usize::try_from(command.close_every)?) {
        let (more, ()) = load.during(&fleet, soak.part(&fleet, part)).await;
        handed.replies.extend(more.replies);
        handed.campaigns.extend(more.campaigns);
        soak.bar.set_message("closing the books");
        books = books::close_with_campaigns(&fleet, &handed.replies, &handed.campaigns, CLOSING).await;
        soak.say(&closing(&books));
        if !books.agree() {
            soak.wrong.push(format!("after {} faults\n{books}\n{}", soak.struck, fleet.logs(20)));
            break;
        }
    }
    soak.bar.finish_and_clear();
    say(&format!("{}\n{books}{} faults in {:.0} s", soak.table(), soak.struck, began.elapsed().as_secs_f64()));
    soak.wrong.iter().for_each(|wrong| say(&format!("! {wrong}")));
    Ok(soak.wrong.is_empty())
}

struct Soak<'a> {
    command: &'a Command,
    bar: ProgressBar,
    tallies: BTreeMap<String, Tally>,
    struck: usize,
    wrong: Vec<String>,
}

impl Soak<'_> {
    /// One fault after the other.
    async fn part(&mut self, fleet: &Fleet, strikes: &[Strike]) {
        let spells = self.command.spells(STANDSTILL, AWAY);
        for Strike { fault, pass } in strikes {
            tokio::time::sleep(CALM).await;
            self.bar.set_message(fault.name());
            self.struck += 1;
            let outcome = fault.strike(fleet, *pass, spells).await;
            self.bar.inc(1);
            match outcome {
                Ok(recovery) => {
                    let tally = self.tallies.entry(fault.name()).or_default();
                    tally.times += 1;
                    tally.longest = tally.longest.max(recovery);
                    self.say(&format!(
                        "{:>4}  {:<38} ready again after {:.1} s",
                        self.struck,
                        fault.name(),
                        recovery.as_secs_f64()
                    ));
                }
                Err(error) => {
                    let wrong = format!("{:>4}  {}: {error:#}", self.struck, fault.name());
                    self.say(&wrong);
                    self.wrong.push(wrong);
                }
            }
        }
        tokio::time::sleep(CALM).await;
    }

    fn say(&self, line: &str) {
        self.bar.suspend(|| say(line));
    }

    fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED).set_header(["fault", "times", "ready again s, at most"]);
        for (fault, Tally { times, longest }) in &self.tallies {
            table.add_row([fault.clone(), times.to_string(), format!("{:.1}", longest.as_secs_f64())]);
        }
        table
    }
}

/// The books in a line.
fn closing(books: &Books) -> String {
    format!(
        "      books {}: {} in, {} out, {} people of {} campaigns; lost {}, doubled {}, possibly doubled {}, unknown {}, held {}, \
        quiet after {}",
        if books.agree() { "agree" } else { "DIFFER" },
        books.stored,
        books.accepted,
        books.people,
        books.campaigns,
        books.lost,
        books.doubled(),
        books.possibly_doubled,
        books.were_unknown,
        books.held,
        books.quiet_after.map_or("never".to_owned(), |after| format!("{:.1} s", after.as_secs_f64())),
    )
}

fn bar(count: u64) -> ProgressBar {
    let bar = ProgressBar::new(count);
    let style = ProgressStyle::with_template("[{bar:40}] {pos}/{len} {elapsed} {msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_strikes_the_same_again() {
        let all = Fault::all();
        assert_eq!(strikes(7, &all, 200), strikes(7, &all, 200));
        assert_eq!(
            strikes(7, &all, 200)[..50],
            strikes(7, &all, 50),
            "a shorter soak is the beginning of a longer one"
        );
        assert_ne!(strikes(7, &all, 200), strikes(8, &all, 200));
        let struck = strikes(7, &all, 200);
        assert!(
            all.iter().all(|fault| struck.iter().any(|strike| strike.fault == *fault)),
            "every fault in two hundred"
        );
    }
}
