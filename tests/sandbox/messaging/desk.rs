//! What Messenger and Instagram count and keep for one account: people and their windows, threads and who controls them, comments,
//! uploads, and how much is sent and received (messenger contract page, sections 3, 6, 7 and 8; instagram, 3 and 6). Asked under the
//! account's lock; does no I/O.

use super::super::{
    behaviour::{Behaviour, WindowRule},
    bucket::Bucket,
    platform::Api,
    refusal::Refusal,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{HashMap, HashSet, VecDeque};

/// What is the matter with a person.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Someone {
    /// Nothing.
    #[default]
    Reachable,
    /// They blocked the account: 551/1545041.
    Blocked,
    /// They left: 200/1545041.
    Unavailable,
    /// They do not receive messages now: 10/2018108.
    NotReceiving,
    /// Nobody of this id is known to the account: 100/2018001.
    Unknown,
    /// Their account was made with a phone number: they can be written to, and have no profile.
    PhoneCreated,
    /// Another app controls their thread: 2018300, and 100/2534037 at Instagram.
    Elsewhere,
}

/// The account's side of its threads.
#[derive(Debug, Default)]
pub(crate) struct Desk {
    people: HashMap<Box<str>, Person>,
    said: HashMap<Box<str>, Said>,
    comments: HashMap<Box<str>, Comment>,
    uploads: HashMap<Box<str>, Upload>,
    calls: Bucket,
    files: Bucket,
    private_replies: Bucket,
    conversations: Bucket,
    /// When messages of either side passed in the last second.
    volume: VecDeque<u64>,
    /// Sends so far, and the day in which they were counted.
    calls_of_day: (u64, u64),
    /// Everybody who wrote.
    engaged: HashSet<Box<str>>,
}

#[derive(Debug, Default)]
struct Person {
    someone: Someone,
    elsewhere: bool,
    wrote_us: Option<i64>,
    /// Ids of the thread's messages, oldest first.
    thread: Vec<Box<str>>,
}

/// A message of a thread.
#[derive(Debug, Clone)]
pub(crate) struct Said {
    pub(crate) person: Box<str>,
    pub(crate) by_account: bool,
    pub(crate) at_us: u64,
    pub(crate) text: Option<Box<str>>,
    /// What else an echo shows of it: an object with `attachments` and the like.
    pub(crate) parts: Value,
}

#[derive(Debug)]
struct Comment {
    person: Box<str>,
    written_us: i64,
    is_answered: bool,
}

#[derive(Debug)]
struct Upload {
    kind: Box<str>,
    uploaded_us: u64,
}

/// Whom a message is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum To<'a> {
    Person(&'a str),
    /// Who wrote this comment or post.
    Comment(&'a str),
    /// A `user_ref`, or the token of who asked for notifications: their ids are not known.
    Stranger(&'a str),
}

/// A send that asks to be let through.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ask<'a> {
    pub(crate) api: Api,
    pub(crate) to: To<'a>,
    pub(crate) window: Window,
    /// Audio or video.
    pub(crate) is_heavy: bool,
    /// A sender action: it needs a window and is no message.
    pub(crate) is_action: bool,
    pub(crate) now_us: u64,
    /// Instead of the behaviour's calls a second.
    pub(crate) limit: Option<u32>,
}

/// Which window a message needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Window {
    Standard,
    HumanAgent,
    /// It may be sent at any time.
    None,
}

const SECOND_US: u64 = 1_000_000;
const DAY_US: u64 = 24 * 3600 * SECOND_US;
/// How long a comment can be answered privately.
const COMMENT_LIVES_US: i64 = 7 * 24 * 3600 * 1_000_000;
/// How many messages of a thread can be read in detail.
const READABLE: usize = 20;

impl Desk {
    /// Counts the send if everything allows it, and says who gets it (nobody known for a stranger).
    pub(crate) fn admit(&mut self, ask: &Ask<'_>, behaviour: &Behaviour) -> Result<Option<Box<str>>, Refusal> {
        let now = ask.now_us as i64;
        let person: Option<Box<str>> = match ask.to {
            To::Person(person) => Some(person.into()),
            To::Stranger(_) => None,
            To::Comment(comment) => Some(self.author(ask.api, comment, now)?),
        };
        if let Some(person) = &person {
            self.reach(ask, person, now, behaviour)?;
        }
        self.throttle(ask, behaviour)?;
        match ask.to {
            To::Comment(comment) => {
                let rate = behaviour.private_replies_per_hour.unwrap_or(u32::MAX);
                if !self.private_replies.take_at(ask.now_us, f64::from(rate) / 3600.0, rate) {
                    return Err(Refusal::of(ask.api, 613, (ask.api == Api::Instagram).then_some(2_534_040)));
                }
                if let Some(comment) = self.comments.get_mut(comment) {
                    comment.is_answered = true;
                }
            }
            To::Person(_) | To::Stranger(_) => {}
        }
        if !ask.is_action {
            self.count(ask.now_us, 1);
        }
        Ok(person)
    }

    fn author(&self, api: Api, comment: &str, now: i64) -> Result<Box<str>, Refusal> {
        let open = self
            .comments
            .get(comment)
            .filter(|comment| !comment.is_answered && now - comment.written_us <= COMMENT_LIVES_US);
        let subcode = (api == Api::Instagram).then_some(2_534_025);
        open.map(|comment| comment.person.clone()).ok_or_else(|| Refusal::of(api, 100, subcode))
    }

    /// Whether this person can be written to now.
    fn reach(&self, ask: &Ask<'_>, person: &str, now: i64, behaviour: &Behaviour) -> Result<(), Refusal> {
        let api = ask.api;
        let known = self.people.get(person);
        let refused = |code, subcode| Err(Refusal::of(api, code, subcode));
        match known.map(|person| person.someone).unwrap_or_default() {
            Someone::Blocked => return refused(551, Some(1_545_041)),
            Someone::Unavailable => return refused(200, Some(1_545_041)),
            Someone::NotReceiving => return refused(10, Some(2_018_108)),
            Someone::Unknown => return refused(100, Some(2_018_001)),
            Someone::Reachable | Someone::PhoneCreated | Someone::Elsewhere => {}
        }
        if known.is_some_and(|person| person.elsewhere) {
            return if api == Api::Instagram { refused(100, Some(2_534_037)) } else { refused(2_018_300, None) };
        }
        let private_reply = matches!(ask.to, To::Comment(_));
        if behaviour.window == WindowRule::Ignore || private_reply {
            return Ok(());
        }
        let Some(known) = known else { return refused(100, Some(2_018_001)) };
        let lasts_s = match ask.window {
            Window::Standard => behaviour.window_s,
            Window::HumanAgent => behaviour.human_agent_window_s,
            Window::None => return Ok(()),
        };
        let lasts_us = lasts_s.saturating_mul(SECOND_US).min(i64::MAX as u64) as i64;
        let open = known.wrote_us.is_some_and(|wrote_us| now < wrote_us.saturating_add(lasts_us));
        if open { Ok(()) } else { refused(10, Some(if api == Api::Instagram { 2_534_022 } else { 2_018_278 })) }
    }

    fn throttle(&mut self, ask: &Ask<'_>, behaviour: &Behaviour) -> Result<(), Refusal> {
        let api = ask.api;
        let refused = |code, subcode| Err(Refusal::of(api, code, subcode).with_status(behaviour.throttle_status));
        if let Some(most) = behaviour.high_volume_per_second
            && !ask.is_action
            && self.passed(ask.now_us) >= most as usize
        {
            return refused(behaviour.high_volume_code, None);
        }
        let day = ask.now_us / DAY_US;
        if self.calls_of_day.0 != day {
            self.calls_of_day = (day, 0);
        }
        self.calls_of_day.1 += 1;
        if let Some(each) = behaviour.calls_per_engaged_person
            && self.calls_of_day.1 > u64::from(each) * (self.engaged.len() as u64).max(1)
        {
            return refused(80_006, None);
        }
        let subcode = (api == Api::Instagram).then_some(2_534_040);
        let (bucket, rate) = match ask.is_heavy {
            true => (&mut self.files, behaviour.messaging_files_per_second),
            false => (&mut self.calls, ask.limit.or(behaviour.messaging_per_second)),
        };
        match rate {
            Some(rate) if !bucket.take(ask.now_us, rate, rate) => refused(613, subcode),
            _ => Ok(()),
        }
    }

    /// Messages of either side in the last second.
    fn passed(&mut self, now_us: u64) -> usize {
        while self.volume.front().is_some_and(|at_us| now_us.saturating_sub(*at_us) >= SECOND_US) {
            self.volume.pop_front();
        }
        self.volume.len()
    }

    /// Notes messages that passed, in or out.
    pub(crate) fn count(&mut self, now_us: u64, messages: usize) {
        self.passed(now_us);
        self.volume.extend(std::iter::repeat_n(now_us, messages));
    }

    /// A person did what opens or refreshes the window.
    pub(crate) fn wrote(&mut self, person: &str, at_us: i64) {
        self.engaged.insert(person.into());
        let person = self.people.entry(person.into()).or_default();
        person.wrote_us = Some(person.wrote_us.map_or(at_us, |before| before.max(at_us)));
    }

    /// Whether the account has heard of this person.
    pub(crate) fn knows(&self, person: &str) -> bool {
        self.people.contains_key(person)
    }

    pub(crate) fn someone(&self, person: &str) -> Option<Someone> {
        self.people.get(person).map(|person| person.someone)
    }

    /// Whether the person ever wrote: that is their consent.
    pub(crate) fn heard_from(&self, person: &str) -> bool {
        self.people.get(person).is_some_and(|person| person.wrote_us.is_some())
    }

    pub(crate) fn set(&mut self, person: &str, someone: Someone) {
        let person = self.people.entry(person.into()).or_default();
        match someone {
            Someone::Elsewhere => person.elsewhere = true,
            Someone::Reachable => (person.someone, person.elsewhere) = (someone, false),
            someone => person.someone = someone,
        }
    }

    /// Hands a thread over, or takes it back.
    pub(crate) fn control(&mut self, person: &str, elsewhere: bool) {
        self.people.entry(person.into()).or_default().elsewhere = elsewhere;
    }

    pub(crate) fn is_elsewhere(&self, person: &str) -> bool {
        self.people.get(person).is_some_and(|person| person.elsewhere)
    }

    pub(crate) fn comment(&mut self, comment: &str, person: &str, written_us: i64) {
        self.comments.insert(comment.into(), Comment { person: person.into(), written_us, is_answered: false });
    }

    pub(crate) fn close_windows(&mut self) {
        self.people.values_mut().for_each(|person| person.wrote_us = person.wrote_us.map(|_| i64::MIN / 2));
    }

    pub(crate) fn upload(&mut self, id: &str, kind: &str, now_us: u64) {
        self.uploads.insert(id.into(), Upload { kind: kind.into(), uploaded_us: now_us });
    }

    /// What was uploaded so far is gone.
    pub(crate) fn forget_uploads(&mut self) {
        self.uploads.clear();
    }

    /// Whether an upload of this kind can (still) be sent.
    pub(crate) fn has_upload(&self, id: &str, kind: &str, now_us: u64, life_s: u64) -> bool {
        self.uploads.get(id).is_some_and(|upload| {
            *upload.kind == *kind && now_us < upload.uploaded_us.saturating_add(life_s.saturating_mul(SECOND_US))
        })
    }

    pub(crate) fn keep_theirs(&mut self, person: &str, mid: &str, text: Option<&str>, now_us: u64) {
        let (person, text, parts) = (person.into(), text.map(Into::into), Value::Null);
        self.keep(mid, Said { person, by_account: false, at_us: now_us, text, parts });
    }

    pub(crate) fn keep(&mut self, mid: &str, said: Said) {
        self.people.entry(said.person.clone()).or_default().thread.push(mid.into());
        self.said.insert(mid.into(), said);
    }

    pub(crate) fn said(&self, mid: &str) -> Option<&Said> {
        self.said.get(mid)
    }

    /// Whether a message is among those of its thread that can be read in detail.
    pub(crate) fn is_readable(&self, mid: &str) -> bool {
        let thread = self.said.get(mid).and_then(|said| self.people.get(&said.person)).map(|person| &person.thread);
        thread.is_some_and(|thread| thread.iter().rev().take(READABLE).any(|known| **known == *mid))
    }

    /// People with a thread, who wrote or were written to last first, and when that was.
    pub(crate) fn threads(&self) -> Vec<(&str, u64)> {
        let last = |person: &Person| person.thread.last().and_then(|mid| self.said.get(mid)).map(|said| said.at_us);
        let mut threads: Vec<(&str, u64)> =
            self.people.iter().filter_map(|(id, person)| Some((&**id, last(person)?))).collect();
        threads.sort_by_key(|(_, at_us)| std::cmp::Reverse(*at_us));
        threads
    }

    /// The messages of a thread, newest first.
    pub(crate) fn thread(&self, person: &str) -> Vec<(&str, &Said)> {
        let ids = self.people.get(person).map(|person| person.thread.as_slice()).unwrap_or_default();
        ids.iter().rev().filter_map(|mid| Some((&**mid, self.said.get(mid)?))).collect()
    }

    /// Counts a call to the Conversations API.
    pub(crate) fn admit_reading(&mut self, now_us: u64, behaviour: &Behaviour) -> bool {
        behaviour.conversations_per_second.is_none_or(|rate| self.conversations.take(now_us, rate, rate))
    }
}
