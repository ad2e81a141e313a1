//! A limit that the provider lowers while we send at it, and raises again: how much is refused once we had time to notice, how long
//! it takes until what is allowed is used again, and that nothing is lost or done twice meanwhile.

use super::{
    Backlog, Command, Told, WARM_UP, say,
    subject::Subject,
    verdict::{Row, arrived, show, together},
};
use anyhow::Result;
use chrono::{DateTime, TimeDelta, Utc};
use comfy_table::{Table, presets};
use std::time::Duration;
use support::{
    books,
    campaigns::Started,
    fleet::Fleet,
    metering::{self, Moment},
    sandbox::{
        Limit,
        ledger::{SendEntry, Verdict},
    },
};

/// A time in which the provider allows the same.
pub(super) struct Phase {
    allowed: u32,
    within: Backlog,
}

/// After a change there is so much time to notice it.
const NOTICED: TimeDelta = TimeDelta::seconds(5);
/// A moment is looked at over so long a time.
const LOOKED_AT: i64 = 2;
/// The share of what is allowed that is to be used again.
const USED: f64 = 0.9;
const USED_AGAIN_WITHIN: f64 = 45.0;
const THROTTLED: f64 = 0.02;
/// Whatever was on its way.
const CLOSING: Duration = Duration::from_secs(120);

/// Lowers the limit after a third of the time, and raises it after another. What was allowed when; nothing if nothing is to change.
pub(super) async fn happen(fleet: &Fleet, command: &Command, subject: &Subject) -> Result<Option<Vec<Phase>>> {
    let Some(told) = command.change else { return Ok(None) };
    tokio::time::sleep(WARM_UP).await;
    let part = Duration::from_secs(command.seconds) / 3;
    let mut phases = Vec::new();
    for (place, allowed) in [subject.rate, command.lowered, subject.rate].into_iter().enumerate() {
        let from = Utc::now();
        if place > 0 {
            let limit = Limit::new(subject.channel.api(), &*subject.id, Some(allowed));
            fleet.sandbox.limit(if told == Told::Webhook { limit.told() } else { limit }).await?;
        }
        tokio::time::sleep(part).await;
        phases.push(Phase { allowed, within: (from, Utc::now()) });
    }
    Ok(Some(phases))
}

/// Shows what came of it. Whether the configured limit was never exceeded, and the books agree.
pub(super) async fn report(fleet: &Fleet, subject: &Subject, phases: &[Phase], campaigns: &[Started]) -> Result<bool> {
    let books = books::close_with_campaigns(fleet, &[], campaigns, CLOSING).await;
    let mut admin = fleet.database.admin().await;
    let (Some(first), Some(last)) = (phases.first(), phases.last()) else { return Ok(false) };
    let whole = (first.within.0, last.within.1);
    let grants = metering::granted(&mut admin, subject.account, whole).await;
    let received = metering::received(&mut admin, subject.account, subject.channel.provider(), whole).await;
    let busiest = metering::busiest(&together(&grants, &received));
    let sends = fleet.sandbox.ledger().sends_from(1, usize::MAX);
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_header([
        "allowed a second",
        "calls after 5 s",
        "throttled of them",
        "used of what is allowed",
        "90 % used after s",
        "90 % of the first after s",
    ]);
    let (mut rows, mut again) = (Vec::<Row>::new(), None);
    // On a machine that is busy with other things not all of what is allowed may ever be used.
    let before = together(&taken(&sends, first.within), &within_of(&received, first.within));
    let before = metering::sum(&before) as f64 / (first.within.1 - first.within.0).as_seconds_f64();
    for Phase { allowed, within } in phases {
        let later = (within.0 + NOTICED, within.1);
        let calls = arrived(&sends, later).len();
        let share = throttled(&sends, later) as f64 / calls.max(1) as f64;
        let used = together(&taken(&sends, *within), &within_of(&received, *within));
        let full = f64::from(*allowed) * (within.1 - within.0).as_seconds_f64();
        again = used_after(&used, within.0, f64::from(*allowed));
        table.add_row([
            allowed.to_string(),
            calls.to_string(),
            format!("{:.2} %", share * 100.0),
            format!("{:.1} %", metering::sum(&used) as f64 / full * 100.0),
            again.map_or("never".into(), |after| format!("{after:.1}")),
            used_after(&used, within.0, before).map_or("never".into(), |after| format!("{after:.1}")),
        ]);
        rows.push((
            format!("throttled at {allowed} a second, after 5 s"),
            format!("{:.2} %", share * 100.0),
            format!("<= {:.0} %", THROTTLED * 100.0),
            share <= THROTTLED,
        ));
    }
    say(&table.to_string());
    rows.push((
        "90 % of what is allowed again is used after".into(),
        again.map_or("never".into(), |after| format!("{after:.1} s")),
        format!("<= {USED_AGAIN_WITHIN:.0} s"),
        again.is_some_and(|after| after <= USED_AGAIN_WITHIN),
    ));
    let kept = busiest <= u64::from(subject.rate);
    rows.push((
        "taken of the configured limit, busiest second".into(),
        busiest.to_string(),
        format!("<= {}", subject.rate),
        kept,
    ));
    let bad = [books.lost, books.doubled()];
    rows.push(("lost, doubled".into(), format!("{}, {}", bad[0], bad[1]), "0, 0".into(), bad == [0, 0]));
    show(&rows);
    if !books.agree() {
        say(&books.to_string());
    }
    Ok(kept && books.agree())
}

/// How many were refused because there was too much.
fn throttled(sends: &[SendEntry], (from, until): (DateTime<Utc>, DateTime<Utc>)) -> usize {
    let within = sends.iter().filter(|send| (from..=until).contains(&send.at));
    within.filter(|send| matches!(send.verdict, Verdict::Refused { .. })).count()
}

/// What the provider took.
fn taken(sends: &[SendEntry], (from, until): (DateTime<Utc>, DateTime<Utc>)) -> Vec<Moment> {
    let within = sends.iter().filter(|send| (from..=until).contains(&send.at) && send.wamid().is_some());
    within.map(|send| (send.at.timestamp_micros(), send.units.into())).collect()
}

fn within_of(moments: &[Moment], (from, until): (DateTime<Utc>, DateTime<Utc>)) -> Vec<Moment> {
    let within = from.timestamp_micros()..=until.timestamp_micros();
    moments.iter().filter(|(at, _)| within.contains(at)).copied().collect()
}

/// After how many seconds as much as is wanted was first used for a moment.
fn used_after(used: &[Moment], from: DateTime<Utc>, allowed: f64) -> Option<f64> {
    let long = LOOKED_AT * 1_000_000;
    let wanted = allowed * LOOKED_AT as f64 * USED;
    let enough = used.iter().find(|(begins, _)| {
        let moment = used.iter().filter(|(at, _)| (*begins..begins + long).contains(at));
        moment.map(|(_, units)| *units as f64).sum::<f64>() >= wanted
    });
    enough.map(|(begins, _)| (begins - from.timestamp_micros()) as f64 / 1_000_000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_allowed_is_used_again_from_the_moment_on_in_which_it_is() {
        let from = DateTime::<Utc>::UNIX_EPOCH;
        // One a second, and after ten seconds ten.
        let slow = (0..10).map(|second| (second * 1_000_000, 1));
        let fast = (0..50).map(|tenth| (10_000_000 + tenth * 100_000, 1));
        let used: Vec<Moment> = slow.chain(fast).collect();
        let after = used_after(&used, from, 10.0).unwrap();
        assert!((9.0..=10.0).contains(&after), "{after}");
        assert_eq!(used_after(&used, from, 20.0), None);
    }
}
