//! What follows from the ledger's entries: totals, doubles and the busiest second. Reads only.

use super::{
    Delivery, Flaw, SendEntry, Told, Verdict, WebhookEntry,
    entry::{Direction, STATUSES},
};
use crate::sandbox::platform::{Api, Platform};
use serde::Serialize;
use std::collections::{BTreeMap, HashMap, HashSet};

/// All totals.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Summary {
    /// Requests to send a message, however they ended.
    pub requests: u64,
    /// Messages taken.
    pub accepted: u64,
    /// Different messages among those that carry the caller's token.
    pub distinct_messages: u64,
    /// Messages taken more than once.
    pub accepted_twice: u64,
    /// (recipient, text) pairs taken more than once.
    pub texts_accepted_twice: u64,
    /// Not taken, by error code.
    pub refused: BTreeMap<u32, u64>,
    /// Not taken and not looked at.
    pub not_processed: u64,
    /// Accepted, but the caller did not get the answer.
    pub accepted_unanswered: u64,
    /// Read receipts and the like.
    pub noted: u64,
    /// Requests by what the caller got to see.
    pub answers: BTreeMap<String, u64>,
    /// Messages by status.
    pub statuses: BTreeMap<&'static str, StatusTotals>,
    /// Messages that failed after they were accepted, by code.
    pub failed_later: BTreeMap<u32, u64>,
    /// Webhooks to the product.
    pub webhooks: WebhookTotals,
    /// Messages of people.
    pub inbound: InboundTotals,
    /// WhatsApp's, number by number.
    pub numbers: BTreeMap<String, NumberTotals>,
    /// Everybody's, account by account.
    pub accounts: BTreeMap<Api, BTreeMap<String, NumberTotals>>,
    /// Requests, by who was asked.
    pub providers: BTreeMap<Api, ProviderTotals>,
    /// Requests whose body never arrived whole.
    pub requests_cut_short: u64,
    /// The longest time the sandbox itself stood still: busiest seconds are not to be trusted beyond it.
    pub longest_stall_ms: f64,
}

/// One status.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct StatusTotals {
    /// Messages it went out for.
    pub made: u64,
    /// Messages whose receiver answered 200 to it.
    pub taken: u64,
}

/// Webhooks to the product.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct WebhookTotals {
    /// All of them, repeated and forged ones included.
    pub made: u64,
    /// Answered with 200.
    pub acknowledged: u64,
    /// Still to be delivered.
    pub pending: u64,
    /// Not tried any more.
    pub given_up: u64,
    /// Deliveries tried.
    pub attempts: u64,
    /// Attempts by what was answered: a status, `timeout` or `broken`.
    pub replies: BTreeMap<String, u64>,
    /// By what is wrong with them on purpose, and what they came to.
    pub flaws: BTreeMap<Flaw, BTreeMap<Delivery, u64>>,
    /// By whose they are, and what they came to.
    pub platforms: BTreeMap<Platform, BTreeMap<Delivery, u64>>,
}

/// Messages of people.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct InboundTotals {
    /// Times a message was told, repetitions included.
    pub told: u64,
    /// Different messages the receiver has acknowledged.
    pub acknowledged: u64,
    /// Those by kind.
    pub by_kind: BTreeMap<&'static str, u64>,
    /// Different people among them.
    pub people: u64,
}

/// One provider.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ProviderTotals {
    /// Requests to send.
    pub requests: u64,
    /// Messages taken.
    pub accepted: u64,
    /// Of these, those whose caller did not get the answer.
    pub accepted_unanswered: u64,
    /// Not taken, by `code` or `code/subcode`.
    pub refused: BTreeMap<String, u64>,
    /// Not taken and not looked at.
    pub not_processed: u64,
    /// Read receipts, typing and the like.
    pub noted: u64,
}

/// One account. The busiest seconds are sliding, to the microsecond.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct NumberTotals {
    /// Requests to send.
    pub requests: u64,
    /// Messages taken.
    pub accepted: u64,
    /// Most requests in any second, whatever became of them.
    pub busiest_second_requests: u64,
    /// Most accepted messages in any second.
    pub busiest_second_accepted: u64,
    /// Most accepted and inbound messages together in any second.
    pub busiest_second_in_and_out: u64,
    /// The most in any second in the provider's own units: segments of accepted messages at Twilio, in and out together at Meta's,
    /// accepted messages at the gateway.
    pub busiest_second_units: u64,
}

/// One recipient.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct PersonTotals {
    /// As in [`SendEntry::recipient`].
    pub recipient: String,
    /// Messages taken.
    pub accepted: u64,
    /// Different ones among them, by the caller's token; those without count each.
    pub distinct: u64,
    /// Not taken, by error code.
    pub refused: BTreeMap<u32, u64>,
    /// Not taken and not looked at.
    pub not_processed: u64,
    /// Messages by the furthest status the receiver has taken (`accepted` if none).
    pub furthest: BTreeMap<&'static str, u64>,
}

/// A message that was accepted more than once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Doubled {
    /// The message, or the text.
    pub what: String,
    /// The recipient of the first.
    pub recipient: String,
    /// Entries in the ledger.
    pub sends: Vec<u64>,
}

pub(super) fn of_sends(sends: &[SendEntry]) -> Summary {
    let mut summary = Summary::default();
    let mut messages = HashSet::new();
    for entry in sends {
        *summary.answers.entry(name(&entry.answer)).or_default() += 1;
        let theirs = summary.providers.entry(entry.provider).or_default();
        if entry.verdict == Verdict::Noted {
            summary.noted += 1;
            theirs.noted += 1;
            continue;
        }
        summary.requests += 1;
        theirs.requests += 1;
        match &entry.verdict {
            Verdict::Accepted { .. } => {
                let unanswered = u64::from(entry.answer != super::Answer::Success);
                summary.accepted += 1;
                theirs.accepted += 1;
                summary.accepted_unanswered += unanswered;
                theirs.accepted_unanswered += unanswered;
                messages.extend(entry.message());
            }
            Verdict::Refused { code, subcode } => {
                *summary.refused.entry(*code).or_default() += 1;
                let name = subcode.map_or_else(|| code.to_string(), |subcode| format!("{code}/{subcode}"));
                *theirs.refused.entry(name).or_default() += 1;
            }
            Verdict::NotProcessed => {
                summary.not_processed += 1;
                theirs.not_processed += 1;
            }
            Verdict::Noted => {}
        }
        for status in STATUSES {
            if entry.statuses.was_made(status) {
                let totals = summary.statuses.entry(status.name()).or_default();
                totals.made += 1;
                totals.taken += u64::from(entry.statuses.was_taken(status));
            }
        }
        if let Some(code) = entry.statuses.failed_code {
            *summary.failed_later.entry(code).or_default() += 1;
        }
    }
    summary.distinct_messages = messages.len() as u64;
    summary.accepted_twice = doubled(sends).len() as u64;
    summary.texts_accepted_twice = doubled_texts(sends).len() as u64;
    summary
}

pub(super) fn add_webhooks(summary: &mut Summary, webhooks: &[WebhookEntry]) {
    let totals = &mut summary.webhooks;
    for webhook in webhooks {
        totals.made += 1;
        match webhook.delivery {
            Delivery::Acknowledged => totals.acknowledged += 1,
            Delivery::Pending => totals.pending += 1,
            Delivery::GivenUp => totals.given_up += 1,
        }
        totals.attempts += webhook.attempts.len() as u64;
        for attempt in &webhook.attempts {
            *totals.replies.entry(attempt.reply.to_string()).or_default() += 1;
        }
        *totals.flaws.entry(webhook.flaw).or_default().entry(webhook.delivery).or_default() += 1;
        *totals.platforms.entry(webhook.platform).or_default().entry(webhook.delivery).or_default() += 1;
        summary.inbound.told += webhook.told.len() as u64;
    }
    let told = told(webhooks);
    summary.inbound.acknowledged = told.len() as u64;
    summary.inbound.people = told.iter().map(|told| &told.person).collect::<HashSet<_>>().len() as u64;
    for message in &told {
        *summary.inbound.by_kind.entry(message.kind).or_default() += 1;
    }
}

pub(super) fn add_busiest_seconds(summary: &mut Summary, sends: &[SendEntry], webhooks: &[WebhookEntry]) {
    #[derive(Default)]
    struct Times {
        requests: Vec<u64>,
        accepted: Vec<u64>,
        both: Vec<u64>,
        segments: Vec<(u64, u64)>,
    }
    let mut accounts: BTreeMap<(Api, &str), Times> = BTreeMap::new();
    for entry in sends.iter().filter(|entry| entry.verdict != Verdict::Noted) {
        let times = accounts.entry((entry.provider, &entry.account)).or_default();
        times.requests.push(entry.at_us);
        if entry.wamid().is_some() {
            times.accepted.push(entry.at_us);
            times.both.push(entry.at_us);
            times.segments.push((entry.at_us, u64::from(entry.units)));
        }
    }
    for webhook in webhooks.iter().filter(|webhook| webhook.direction == Direction::Inbound) {
        // The provider counts a message once, when it first passes it on.
        let first = webhook.attempts.first().map(|attempt| attempt.at_us);
        if let (Some(at_us), Flaw::None) = (first, webhook.flaw) {
            let times = accounts.entry((webhook.platform.into(), &webhook.account)).or_default();
            times.both.extend(std::iter::repeat_n(at_us, webhook.told.len()));
        }
    }
    for ((provider, account), times) in accounts {
        let busiest_second_accepted = busiest_second(times.accepted.clone());
        let busiest_second_in_and_out = busiest_second(times.both);
        let totals = NumberTotals {
            requests: times.requests.len() as u64,
            accepted: times.accepted.len() as u64,
            busiest_second_requests: busiest_second(times.requests),
            busiest_second_accepted,
            busiest_second_in_and_out,
            busiest_second_units: match provider {
                Api::Whatsapp | Api::Messenger | Api::Instagram => busiest_second_in_and_out,
                Api::Twilio => most_in_a_second(times.segments),
                Api::Botmaster => busiest_second_accepted,
            },
        };
        if provider == Api::Whatsapp {
            summary.numbers.insert(account.to_owned(), totals.clone());
        }
        summary.accounts.entry(provider).or_default().insert(account.to_owned(), totals);
    }
}

pub(super) fn people(sends: &[SendEntry]) -> Vec<PersonTotals> {
    let mut people: BTreeMap<&str, (PersonTotals, HashSet<&str>)> = BTreeMap::new();
    for entry in sends.iter().filter(|entry| entry.verdict != Verdict::Noted) {
        let (totals, messages) = people.entry(&entry.recipient).or_default();
        match &entry.verdict {
            Verdict::Accepted { .. } => {
                totals.accepted += 1;
                totals.distinct += u64::from(entry.message().is_none_or(|message| messages.insert(message)));
                let furthest = STATUSES.into_iter().rfind(|status| entry.statuses.was_taken(*status));
                *totals.furthest.entry(furthest.map_or("accepted", |status| status.name())).or_default() += 1;
            }
            Verdict::Refused { code, .. } => *totals.refused.entry(*code).or_default() += 1,
            Verdict::NotProcessed | Verdict::Noted => totals.not_processed += 1,
        }
    }
    people
        .into_iter()
        .map(|(recipient, (totals, _))| PersonTotals { recipient: recipient.to_owned(), ..totals })
        .collect()
}

pub(super) fn doubled(sends: &[SendEntry]) -> Vec<Doubled> {
    repeated(sends.iter().filter_map(|entry| Some((entry.message()?, entry))), |what| (*what).to_owned())
}

pub(super) fn doubled_texts(sends: &[SendEntry]) -> Vec<Doubled> {
    let texts = sends.iter().filter_map(|entry| Some(((&*entry.recipient, entry.text.as_deref()?), entry)));
    repeated(texts, |(_, text)| (*text).to_owned())
}

pub(super) fn told(webhooks: &[WebhookEntry]) -> Vec<Told> {
    let mut seen = HashSet::new();
    let acknowledged = webhooks.iter().filter(|webhook| {
        webhook.delivery == Delivery::Acknowledged && matches!(webhook.flaw, Flaw::None | Flaw::Repeated)
    });
    acknowledged.flat_map(|webhook| &webhook.told).filter(|told| seen.insert(&*told.id)).cloned().collect()
}

fn repeated<'a, K: std::hash::Hash + Eq>(
    accepted: impl Iterator<Item = (K, &'a SendEntry)>,
    name: impl Fn(&K) -> String,
) -> Vec<Doubled> {
    let mut by_key: HashMap<K, Vec<&SendEntry>> = HashMap::new();
    for (key, entry) in accepted.filter(|(_, entry)| entry.wamid().is_some()) {
        by_key.entry(key).or_default().push(entry);
    }
    let mut doubled: Vec<Doubled> = by_key
        .iter()
        .filter(|(_, entries)| entries.len() > 1)
        .map(|(key, entries)| Doubled {
            what: name(key),
            recipient: entries[0].recipient.to_string(),
            sends: entries.iter().map(|entry| entry.seq).collect(),
        })
        .collect();
    doubled.sort_by(|a, b| a.sends.cmp(&b.sends));
    doubled
}

/// The most events in any half-open second.
fn busiest_second(times_us: Vec<u64>) -> u64 {
    most_in_a_second(times_us.into_iter().map(|at| (at, 1)).collect())
}

/// The same for events of different weight.
fn most_in_a_second(mut events: Vec<(u64, u64)>) -> u64 {
    events.sort_unstable();
    let (mut first, mut sum, mut most) = (0, 0, 0);
    for (at, weight) in &events {
        sum += weight;
        while at - events[first].0 >= 1_000_000 {
            sum -= events[first].1;
            first += 1;
        }
        most = most.max(sum);
    }
    most
}

fn name(value: &impl Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busiest_second_slides() {
        assert_eq!(busiest_second(vec![]), 0);
        assert_eq!(busiest_second(vec![900_000, 0, 1_000_000, 1_100_000]), 3);
        assert_eq!(busiest_second(vec![0, 1_000_000, 2_000_000]), 1);
        assert_eq!(most_in_a_second(vec![(0, 3), (500_000, 2), (1_000_000, 4)]), 6);
    }
}
