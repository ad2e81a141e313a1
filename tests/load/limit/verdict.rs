//! Whether a limit was kept, and used: in the units in which its provider counts.

use super::{Backlog, say, subject::Subject};
use anyhow::Result;
use chrono::{DateTime, Utc};
use comfy_table::{Table, presets};
use std::time::Duration;
use support::{
    fleet::Fleet,
    metering::{self, Moment},
    sandbox::{Api, ledger::SendEntry, ledger::Verdict},
};

/// What is measured, the measure, what is wanted, and whether it is met.
pub(super) type Row = (String, String, String, bool);

/// Nothing waits longer than this with a provider that takes what is too much and lets it wait.
const WAITS_AT_MOST: f64 = 0.5;

/// Shows it. Whether nothing was exceeded or refused, and those senders that were told to end did so.
pub(super) async fn report(
    fleet: &Fleet,
    subject: &Subject,
    (from, until): Backlog,
    longest_stall: Duration,
    ended_well: bool,
) -> Result<bool> {
    let mut admin = fleet.database.admin().await;
    let between = (from, until);
    let grants = metering::granted(&mut admin, subject.account, between).await;
    let received = metering::received(&mut admin, subject.account, subject.channel.provider(), between).await;
    let both = together(&grants, &received);
    let sends = fleet.sandbox.ledger().sends_from(1, usize::MAX);
    let refused = sends.iter().filter(|send| matches!(send.verdict, Verdict::Refused { .. })).count();
    let arrived = arrived(&sends, between);
    let (rate, over) = (f64::from(subject.rate), subject.over());
    let most = u64::from(subject.rate) + over;
    let busiest = metering::busiest(&both);
    let arrivals = metering::seconds(&arrived);
    let late = percentile(&arrivals, 0.999);
    let seconds = (until - from).as_seconds_f64();
    let used = metering::sum(&both) as f64 / (rate * seconds);
    let at_most = match over {
        0 => format!("<= {most}"),
        over => format!("<= {} + {over}: a message goes whole", subject.rate),
    };
    let mut rows: Vec<Row> = vec![
        ("taken of the limit, busiest sliding second".into(), busiest.to_string(), at_most, busiest <= most),
        ("refused by the provider".into(), refused.to_string(), "0".into(), refused == 0),
        (
            "arrivals in a sliding second, p99.9".into(),
            late.to_string(),
            format!("<= {:.0}", most as f64 * 1.05),
            late as f64 <= most as f64 * 1.05,
        ),
        (
            "arrivals in a sliding second, most".into(),
            arrivals.last().copied().unwrap_or_default().to_string(),
            format!("(longest stall of the provider {} ms)", longest_stall.as_millis()),
            true,
        ),
        ("used of the limit".into(), format!("{:.1} %", used * 100.0), ">= 95 %".into(), used >= 0.95),
        ("senders told to end did, with status 0".into(), ended_well.to_string(), "true".into(), ended_well),
    ];
    if subject.channel.api() == Api::Twilio {
        let wait = metering::longest_wait(&arrived, rate);
        let wanted = format!("<= {WAITS_AT_MOST} s");
        rows.push((
            "longest wait in the provider's queue".into(),
            format!("{wait:.2} s"),
            wanted,
            wait <= WAITS_AT_MOST,
        ));
    }
    say(&format!(
        "{}: {} granted, counting for {}, and {} received in {seconds:.1} s: {:.1} + {:.1} a second",
        subject.id,
        grants.len(),
        metering::sum(&grants),
        received.len(),
        metering::sum(&grants) as f64 / seconds,
        received.len() as f64 / seconds
    ));
    let until = metering::busiest_until(&both);
    say(&format!(
        "the busiest sliding second: {} granted + {} received; of each alone at most {} and {}",
        metering::taken_until(&grants, until),
        metering::taken_until(&received, until),
        metering::busiest(&grants),
        metering::busiest(&received),
    ));
    show(&rows);
    Ok(busiest <= most && refused == 0 && ended_well)
}

/// What came to the provider between two moments, whatever it made of it, by what each counts for.
pub(super) fn arrived(sends: &[SendEntry], (from, until): (DateTime<Utc>, DateTime<Utc>)) -> Vec<Moment> {
    let within = sends.iter().filter(|send| (from..=until).contains(&send.at) && send.verdict != Verdict::Noted);
    let mut arrived: Vec<Moment> = within.map(|send| (send.at.timestamp_micros(), send.units.into())).collect();
    arrived.sort_unstable();
    arrived
}

/// Both in order.
pub(super) fn together(some: &[Moment], others: &[Moment]) -> Vec<Moment> {
    let mut both = [some, others].concat();
    both.sort_unstable();
    both
}

pub(super) fn show(rows: &[Row]) {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_header(["", "measured", "wanted", ""]);
    for (what, measured, wanted, met) in rows {
        table.add_row([what.as_str(), measured, wanted, if *met { "met" } else { "MISSED" }]);
    }
    say(&table.to_string());
}

fn percentile(sorted: &[u64], part: f64) -> u64 {
    let place = (sorted.len() as f64 * part).ceil() as usize;
    sorted.get(place.saturating_sub(1)).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_one_of_the_values() {
        assert_eq!((percentile(&[1, 2, 3, 4], 0.5), percentile(&[7], 0.999), percentile(&[], 0.5)), (2, 7, 0));
    }
}
