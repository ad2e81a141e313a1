//! The closing tables: everything counted on both sides.

use std::time::Duration;

use comfy_table::{Table, presets};

use shared::providers::whatsapp;

use super::books::{Comparison, Counted, Tally};
use super::{Received, Sent};

/// Webhooks in and replies out.
pub(super) fn traffic(comparison: &Comparison, received: &Received, sent: &Sent) -> Table {
    let answered = |status: &str| -> u64 { received.answers.values().filter_map(|a| a.get(status)).sum() };
    let mut table = table("");
    let mut row = |what: &str, ours: String, theirs: String| {
        table.add_row([what.to_owned(), ours, theirs]);
    };
    let refused: u64 = received.webhooks - answered("200");
    row("webhooks accepted", String::new(), answered("200").to_string());
    row("webhooks refused: forged on purpose", String::new(), refused.to_string());
    row("  kept in quarantine", counted(comparison.quarantined), String::new());
    row("webhooks that were only duplicates", counted(comparison.duplicates), String::new());
    for (platform, answers) in &received.platforms {
        let of = |forged: bool| -> u64 {
            let answers = answers.iter().filter(|(flaw, _)| (*flaw == "forged") == forged);
            answers.flat_map(|(_, answers)| answers.values()).sum()
        };
        row(
            &format!("  {platform}: webhooks, of them forged"),
            String::new(),
            format!("{}, {}", of(false) + of(true), of(true)),
        );
    }
    for (platform, (told, stored)) in &comparison.platforms {
        row(&format!("  {platform}: messages from people"), stored.to_string(), told.to_string());
    }
    row("messages from people", comparison.stored.to_string(), comparison.told.to_string());
    row("people", String::new(), comparison.people.to_string());
    let rate = format!(
        "{:.0}/s, p50 {:.1} ms, p99 {:.1} ms",
        received.webhooks as f64 / received.seconds,
        received.p50_ms,
        received.p99_ms
    );
    row("webhooks, rate and answer", String::new(), rate);
    row("replies accepted", sent.ids.len().to_string(), String::new());
    let (p50, p99) = (sent.latency_us.value_at_quantile(0.5), sent.latency_us.value_at_quantile(0.99));
    let rate = format!(
        "{:.0}/s, p50 {:.1} ms, p99 {:.1} ms",
        sent.ids.len() as f64 / sent.seconds,
        p50 as f64 / 1e3,
        p99 as f64 / 1e3
    );
    row("replies, rate and answer", rate, String::new());
    states(&comparison.replies, &mut row);
    row("messages taken twice, all in all", String::new(), comparison.taken_twice.to_string());
    for (code, count) in &comparison.refused {
        row(&format!("refusals, code {code}: {}", meaning(code)), String::new(), count.to_string());
    }
    table
}

/// The campaign's own ledger, beside what the stand-in says of the same people.
pub(super) fn campaign(comparison: &Comparison, took: Duration) -> Table {
    let ledger = &comparison.ledger;
    let mut table = table("people of the campaign");
    let mut row = |what: &str, ours: String, theirs: String| {
        table.add_row([what.to_owned(), ours, theirs]);
    };
    let theirs = &comparison.campaign.theirs;
    let asked: u64 = theirs.values().sum();
    row("frozen", ledger.frozen_count.unwrap_or(0).to_string(), String::new());
    for line in ledger.lines.iter().filter(|line| line.people > 0 || line.shown > 0) {
        let said = match line.state.as_str() {
            // Refused at the call, or taken and reported later.
            "failed" => ["failed", "refused"].iter().filter_map(|state| theirs.get(*state)).sum::<u64>().to_string(),
            "held" => theirs.get("never taken").copied().unwrap_or(0).to_string(),
            "skipped" => String::new(),
            state => theirs.get(state).copied().unwrap_or(0).to_string(),
        };
        row(&line.state, line.people.to_string(), said);
    }
    row("from start to end", format!("{:.1} s", took.as_secs_f64()), String::new());
    row("in all", ledger.lines.iter().map(|line| line.people).sum::<u64>().to_string(), format!("{asked} asked for"));
    table
}

/// What this run made, and what is there with that of earlier ones.
fn counted(counted: Counted) -> String {
    let Counted { this_run, in_all } = counted;
    if this_run == in_all { this_run.to_string() } else { format!("{this_run} this run, {in_all} in all") }
}

/// What a provider's code means, in a few words.
fn meaning(code: &str) -> &'static str {
    match code {
        "130429" => "too many at once, sent again later",
        "131047" => "the person has not written for a day",
        "131026" => "the person cannot be reached",
        "131056" => "too many to one person, sent again later",
        _ => whatsapp::report_reason(code).unwrap_or("see the provider's page of codes"),
    }
}

fn table(what: &str) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_header([what, "Mijra", "the provider's stand-in"]);
    table
}

/// What became of messages, each side in its words.
fn states(tally: &Tally, row: &mut impl FnMut(&str, String, String)) {
    let of_both = tally.ours.keys().chain(tally.theirs.keys()).collect::<std::collections::BTreeSet<_>>();
    for state in of_both {
        let count =
            |side: &std::collections::BTreeMap<String, u64>| side.get(state).map_or(String::new(), u64::to_string);
        row(&format!("replies {state}"), count(&tally.ours), count(&tally.theirs));
    }
}
