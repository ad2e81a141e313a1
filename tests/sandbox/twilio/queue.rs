//! What Twilio keeps for one sender: its queue, which drains at its rate in segments, the customers it may write to freely (WhatsApp),
//! those who sent STOP, and every message of either side (contract page, sections 9, 11, 13 and 15). Asked under the account's lock.

use super::super::{behaviour::Behaviour, ledger::Told, platform::AccountSpec};
use std::collections::{HashMap, HashSet};

#[derive(Debug, Default)]
pub(crate) struct Queue {
    /// Segments that wait, as of `drained_us`.
    waiting: f64,
    drained_us: u64,
    /// When each customer wrote last.
    wrote_us: HashMap<String, i64>,
    stopped: HashSet<String>,
    messages: Vec<Message>,
    by_sid: HashMap<Box<str>, usize>,
}

/// A message as Twilio keeps it.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    pub(crate) sid: Box<str>,
    pub(crate) from: Option<String>,
    pub(crate) to: String,
    pub(crate) body: String,
    pub(crate) status: &'static str,
    pub(crate) is_inbound: bool,
    pub(crate) segments: u32,
    pub(crate) media: Vec<String>,
    pub(crate) service: Option<String>,
    pub(crate) created_us: u64,
    pub(crate) sent_us: Option<u64>,
    pub(crate) error_code: Option<u32>,
    pub(crate) callback: Option<String>,
    pub(crate) is_template: bool,
    pub(crate) is_deleted: bool,
}

const STOP: [&str; 8] = ["STOP", "STOPALL", "UNSUBSCRIBE", "END", "QUIT", "CANCEL", "REVOKE", "OPTOUT"];
const START: [&str; 3] = ["START", "UNSTOP", "YES"];

/// What an address is, whatever is in front of it.
pub(super) fn key(address: &str) -> String {
    address.trim_start_matches("whatsapp:").trim_start_matches('+').to_owned()
}

/// Segments a second of a sender, by what kind it is (contract page, section 9).
pub(super) fn rate_of(spec: &AccountSpec) -> u32 {
    const TOLL_FREE: [&str; 7] = ["+1800", "+1833", "+1844", "+1855", "+1866", "+1877", "+1888"];
    match spec.id.as_str() {
        _ if spec.segments_per_second.is_some() => spec.segments_per_second.unwrap_or(1),
        _ if spec.is_twilio_whatsapp() => 80,
        id if TOLL_FREE.iter().any(|prefix| id.starts_with(prefix)) => 3,
        id if id.starts_with('+') => 1,
        id if id.bytes().all(|byte| byte.is_ascii_digit()) => 100,
        _ => 10,
    }
}

impl Queue {
    /// A customer wrote.
    pub(crate) fn wrote(&mut self, spec: &AccountSpec, told: &Told, at_us: i64, now_us: u64) {
        let customer = key(&told.person);
        if spec.is_twilio_whatsapp() {
            let wrote_us = self.wrote_us.entry(customer.clone()).or_insert(at_us);
            *wrote_us = (*wrote_us).max(at_us);
        } else if spec.id.starts_with('+') {
            // Short codes are the application's own business.
            let word = told.text.as_deref().unwrap_or(told.kind).trim().to_ascii_uppercase();
            if STOP.contains(&word.as_str()) {
                self.stopped.insert(customer.clone());
            } else if START.contains(&word.as_str()) {
                self.stopped.remove(&customer);
            }
        }
        let digits = customer.bytes().all(|byte| byte.is_ascii_digit());
        let from = match (spec.is_twilio_whatsapp(), digits) {
            (true, true) => format!("whatsapp:+{customer}"),
            (true, false) => format!("whatsapp:{customer}"),
            (false, _) => told.person.to_string(),
        };
        self.keep(Message {
            sid: told.id.clone(),
            from: Some(from),
            to: spec.id.clone(),
            body: told.text.as_deref().unwrap_or_default().to_owned(),
            status: "received",
            is_inbound: true,
            segments: 1,
            media: Vec::new(),
            service: spec.messaging_service_sid.clone(),
            created_us: now_us,
            sent_us: Some(now_us),
            error_code: None,
            callback: None,
            is_template: false,
            is_deleted: false,
        });
    }

    pub(super) fn is_stopped(&self, customer: &str) -> bool {
        self.stopped.contains(&key(customer))
    }

    /// Whether a customer can be written to freely.
    pub(super) fn is_open(&self, customer: &str, now_us: u64, behaviour: &Behaviour) -> bool {
        let lasts_us = behaviour.window_s.saturating_mul(1_000_000).min(i64::MAX as u64) as i64;
        self.wrote_us.get(&key(customer)).is_some_and(|wrote_us| (now_us as i64) < wrote_us.saturating_add(lasts_us))
    }

    pub(crate) fn close_windows(&mut self) {
        self.wrote_us.clear();
    }

    /// Takes a place in the queue: when the message leaves, or nothing if the queue is full.
    pub(super) fn enqueue(&mut self, segments: u32, rate: u32, deep_s: u64, now_us: u64) -> Option<u64> {
        let rate = f64::from(rate);
        let drained = now_us.saturating_sub(self.drained_us) as f64 * rate / 1_000_000.0;
        (self.waiting, self.drained_us) = ((self.waiting - drained).max(0.0), now_us);
        if self.waiting >= rate * deep_s as f64 {
            return None;
        }
        let leaves_us = now_us + (self.waiting / rate * 1_000_000.0) as u64;
        self.waiting += f64::from(segments);
        Some(leaves_us)
    }

    pub(super) fn keep(&mut self, message: Message) {
        self.by_sid.insert(message.sid.clone(), self.messages.len());
        self.messages.push(message);
    }

    pub(super) fn message(&mut self, sid: &str) -> Option<&mut Message> {
        let at = *self.by_sid.get(sid)?;
        self.messages.get_mut(at).filter(|message| !message.is_deleted)
    }

    pub(super) fn messages(&self) -> impl Iterator<Item = &Message> {
        self.messages.iter().filter(|message| !message.is_deleted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queue_drains_at_its_rate_in_segments_and_has_an_end() {
        let mut queue = Queue::default();
        assert_eq!(queue.enqueue(3, 1, 5, 0), Some(0));
        assert_eq!(queue.enqueue(3, 1, 5, 0), Some(3_000_000));
        assert_eq!(queue.enqueue(1, 1, 5, 0), None, "six wait, where five seconds are allowed");
        assert_eq!(queue.enqueue(1, 1, 5, 2_000_000), Some(6_000_000));
        // A faster sender empties it sooner.
        assert_eq!(queue.enqueue(1, 5, 5, 2_000_000), Some(3_000_000));
    }
}
