//! What the provider counts for one number: its throughput, each person's pair limit and 24-hour window
//! (contract page, sections 11 and 13). Asked under the number's lock; does no I/O.

use super::{
    behaviour::{Behaviour, WindowRule},
    bucket::Bucket,
    refusal::{Refusal, details},
};
use std::collections::HashMap;

/// A number's meters.
#[derive(Debug, Default)]
pub(super) struct Meters {
    bucket: Bucket,
    people: HashMap<Box<str>, Person>,
    /// Business-scoped user id to the phone it belongs to, for those who wrote with both.
    phones: HashMap<Box<str>, Box<str>>,
}

/// A send that asks to be let through.
#[derive(Debug)]
pub(super) struct Ask<'a> {
    pub(super) person: &'a str,
    /// Free-form messages need an open window.
    pub(super) free_form: bool,
    pub(super) marketing: bool,
    pub(super) now_us: u64,
}

/// What comes with being let through.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Admitted {
    /// Accepted, but to fail later with this code.
    pub(super) fails_later: Option<u32>,
    /// Inside a free entry point window.
    pub(super) free_entry: bool,
}

/// Something a person did that the meters care about.
#[derive(Debug)]
pub(super) struct Wrote<'a> {
    pub(super) phone: Option<&'a str>,
    pub(super) user_id: Option<&'a str>,
    /// On the sandbox's scale; negative if it was before the start.
    pub(super) at_us: i64,
    pub(super) opens_window: bool,
    pub(super) from_ad: bool,
}

#[derive(Debug, Default)]
struct Person {
    /// The time by which the pair's quota would be free again (GCRA's theoretical arrival time).
    pair_us: u64,
    window_until_us: i64,
    free_entry_until_us: i64,
    stopped_marketing: bool,
}

/// One message in 6 s to the same person …
const PAIR_INTERVAL_US: u64 = 6_000_000;
/// … 45 at once.
const PAIR_BURST: u64 = 45;
const FREE_ENTRY_S: i64 = 72 * 3600;

impl Meters {
    /// Counts the send if every limit allows it; a refused one is not counted.
    pub(super) fn admit(&mut self, ask: &Ask<'_>, behaviour: &Behaviour) -> Result<Admitted, Refusal> {
        let mut admitted = Admitted::default();
        let personal = behaviour.pair_limit || behaviour.window != WindowRule::Ignore;
        let key = self.phones.get(ask.person).map_or(ask.person, |phone| phone);
        let person = self.people.get(key);
        let now = ask.now_us as i64;
        if let Some(person) = person {
            admitted.free_entry = person.free_entry_until_us > now;
            if ask.marketing && person.stopped_marketing {
                return Err(Refusal::new(131_050, details(131_050)));
            }
        }
        if ask.free_form && person.is_none_or(|person| person.window_until_us <= now) {
            match behaviour.window {
                WindowRule::Refuse => return Err(Refusal::new(131_047, details(131_047))),
                WindowRule::FailLater => admitted.fails_later = Some(131_047),
                WindowRule::Ignore => {}
            }
        }
        let pair_us = person.map_or(0, |person| person.pair_us).max(ask.now_us);
        if behaviour.pair_limit && pair_us - ask.now_us > (PAIR_BURST - 1) * PAIR_INTERVAL_US {
            return Err(Refusal::new(131_056, details(131_056)).with_status(behaviour.throttle_status));
        }
        if let Some(rate) = behaviour.throughput_per_second {
            let burst = behaviour.throughput_burst.unwrap_or(rate);
            if !self.bucket.take(ask.now_us, rate, burst) {
                return Err(Refusal::new(130_429, details(130_429)).with_status(behaviour.throttle_status));
            }
        }
        if personal {
            match self.people.get_mut(self.phones.get(ask.person).map_or(ask.person, |phone| phone)) {
                Some(person) => person.pair_us = pair_us + PAIR_INTERVAL_US,
                None => {
                    let person = Person { pair_us: pair_us + PAIR_INTERVAL_US, ..Person::default() };
                    self.people.insert(ask.person.into(), person);
                }
            }
        }
        Ok(admitted)
    }

    /// Notes that a person wrote; `counted` says how many messages of the number's throughput that took.
    pub(super) fn wrote(&mut self, wrote: &Wrote<'_>, behaviour: &Behaviour) {
        let Some(key) = wrote.phone.or(wrote.user_id) else { return };
        if let (Some(phone), Some(user)) = (wrote.phone, wrote.user_id)
            && !self.phones.contains_key(user)
        {
            self.phones.insert(user.into(), phone.into());
        }
        let person = self.people.entry(key.into()).or_default();
        if wrote.opens_window {
            let until = wrote.at_us.saturating_add((behaviour.window_s * 1_000_000) as i64);
            person.window_until_us = person.window_until_us.max(until);
        }
        if wrote.from_ad {
            person.free_entry_until_us = wrote.at_us.saturating_add(FREE_ENTRY_S * 1_000_000);
        }
    }

    /// Counts inbound messages: they take from the same throughput, and are never refused.
    pub(super) fn count_inbound(&mut self, messages: u32, now_us: u64, behaviour: &Behaviour) {
        if let Some(rate) = behaviour.throughput_per_second {
            self.bucket.drain(messages, now_us, rate, behaviour.throughput_burst.unwrap_or(rate));
        }
    }

    pub(super) fn set_marketing(&mut self, person: &str, stopped: bool) {
        self.people.entry(person.into()).or_default().stopped_marketing = stopped;
    }

    /// Forgets every person's window, as if nobody had written for a day.
    pub(super) fn close_windows(&mut self) {
        self.people.values_mut().for_each(|person| person.window_until_us = i64::MIN);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    fn ask(person: &str, now_us: u64) -> Ask<'_> {
        Ask { person, free_form: false, marketing: false, now_us }
    }

    fn code(result: Result<Admitted, Refusal>) -> u32 {
        result.err().map_or(0, |refusal| refusal.code)
    }

    #[test]
    fn pair_takes_45_at_once_then_one_in_six_seconds() {
        let behaviour = Behaviour { throughput_per_second: None, ..Behaviour::default() };
        let mut meters = Meters::default();
        for _ in 0..45 {
            assert_eq!(code(meters.admit(&ask("1", SECOND), &behaviour)), 0);
        }
        assert_eq!(code(meters.admit(&ask("1", SECOND), &behaviour)), 131_056);
        assert_eq!(code(meters.admit(&ask("2", SECOND), &behaviour)), 0, "another person is not slowed");
        assert_eq!(code(meters.admit(&ask("1", 6 * SECOND), &behaviour)), 131_056);
        assert_eq!(code(meters.admit(&ask("1", 7 * SECOND), &behaviour)), 0);
        assert_eq!(code(meters.admit(&ask("1", 7 * SECOND), &behaviour)), 131_056);
    }

    #[test]
    fn throughput_counts_in_and_out() {
        let behaviour = Behaviour { pair_limit: false, ..Behaviour::default() };
        let mut meters = Meters::default();
        meters.count_inbound(30, SECOND, &behaviour);
        let taken = (0..80).filter(|_| meters.admit(&ask("1", SECOND), &behaviour).is_ok()).count();
        assert_eq!(taken, 50);
        assert_eq!(code(meters.admit(&ask("1", SECOND), &behaviour)), 130_429);
        assert_eq!(code(meters.admit(&ask("1", SECOND + SECOND / 80), &behaviour)), 0);
    }

    #[test]
    fn window_opens_by_what_a_person_wrote_and_by_either_of_their_names() {
        let behaviour = Behaviour { window_s: 10, ..Behaviour::default() };
        let mut meters = Meters::default();
        let free = |person, now_us| Ask { person, free_form: true, marketing: false, now_us };
        assert_eq!(code(meters.admit(&free("1", SECOND), &behaviour)), 131_047);
        let wrote = Wrote { phone: Some("1"), user_id: Some("US.1"), at_us: 0, opens_window: true, from_ad: false };
        meters.wrote(&wrote, &behaviour);
        assert_eq!(code(meters.admit(&free("1", 2 * SECOND), &behaviour)), 0);
        assert_eq!(code(meters.admit(&free("US.1", 2 * SECOND), &behaviour)), 0);
        assert_eq!(code(meters.admit(&free("1", 11 * SECOND), &behaviour)), 131_047);
        assert_eq!(code(meters.admit(&ask("1", 11 * SECOND), &behaviour)), 0, "templates always");
        let later = Behaviour { window: WindowRule::FailLater, ..behaviour };
        assert_eq!(meters.admit(&free("1", 11 * SECOND), &later).unwrap().fails_later, Some(131_047));
    }
}
