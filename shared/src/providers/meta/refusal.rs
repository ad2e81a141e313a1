//! What the Send API of Messenger and Instagram answers: taken, or refused by `code` and `error_subcode` (providers/messenger
//! sections 3 and 10, providers/instagram sections 3 and 7). The tables are each product's own.
//!
//! "Not sent" is claimed only where the answer says that the message was not taken. A code that stands for "something went
//! wrong" (1) leaves it open, and so does a 5xx without a code of the table: those sends become `unknown`, and their echo settles it.

use super::MAX_FIELD_BYTES;
use crate::{
    domain::{
        content::OutboundContent,
        outcome::{Accepted, Class, NotSent, Outcome},
    },
    providers::{
        answering::{wait, without_code},
        json::{Object, cut},
        repair::readable,
        sending::Outgoing,
    },
};
use std::{borrow::Cow, ops::RangeInclusive, time::Duration};

/// What a code asks of us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reaction {
    /// Not sent: again later, with back-off.
    Again,
    /// Not sent: again after so many seconds.
    AgainAfter(u64),
    /// Not sent: once more, and no further.
    Once,
    /// Not sent: the file's id is no longer known.
    File,
    /// Not sent: the Page or professional account has to slow down.
    SlowAccount,
    /// Not sent: everything that the app sends has to slow down.
    SlowApp,
    /// Not sent: another app controls the thread for now.
    Thread,
    /// Perhaps sent.
    Unclear,
    /// Refused for good.
    Refused,
    /// Refused for good because our request was wrong: somebody should look at it.
    OurMistake,
    /// Refused: the window is closed.
    Window,
    /// The person cannot be reached; outside the window it may be that alone.
    Unavailable,
    /// The account cannot send at all.
    AccountDown,
}

impl Reaction {
    /// What it leads to, in a few words.
    pub fn in_words(self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Reaction::Again => "not sent: again later",
            Reaction::AgainAfter(seconds) => return format!("not sent: again after {seconds} s").into(),
            Reaction::Once => "not sent: once more",
            Reaction::File => "not sent: again with the file handed over anew",
            Reaction::SlowAccount => "not sent: the account slows down",
            Reaction::SlowApp => "not sent: all accounts of the app slow down",
            Reaction::Thread => "not sent: waits for the conversation",
            Reaction::Unclear => "unknown",
            Reaction::Refused => "failed",
            Reaction::OurMistake => "failed, our mistake",
            Reaction::Window => "needs a template",
            Reaction::Unavailable => "failed; needs a template if the window is closed",
            Reaction::AccountDown => "the account is down",
        })
    }
}

/// A row of a table.
#[derive(Debug)]
pub struct Row {
    /// The codes it is about.
    pub codes: RangeInclusive<u32>,
    /// The subcode; without, whatever it is.
    pub subcode: Option<u32>,
    /// What to do.
    pub reaction: Reaction,
    /// What it means, for a person.
    pub sentence: &'static str,
}

/// A row for a code with any subcode.
pub(in crate::providers) const fn row(code: u32, reaction: Reaction, sentence: &'static str) -> Row {
    Row { codes: code..=code, subcode: None, reaction, sentence }
}

/// A row for codes with any subcode.
pub(in crate::providers) const fn rows(first: u32, last: u32, reaction: Reaction, sentence: &'static str) -> Row {
    Row { codes: first..=last, subcode: None, reaction, sentence }
}

/// A row for one subcode.
pub(in crate::providers) const fn sub(code: u32, subcode: u32, reaction: Reaction, sentence: &'static str) -> Row {
    Row { codes: code..=code, subcode: Some(subcode), reaction, sentence }
}

/// A product of Meta's, as far as its answers differ.
#[derive(Debug)]
pub(in crate::providers) struct Product {
    /// Its name, for a person.
    pub(in crate::providers) name: &'static str,
    /// Its table.
    pub(in crate::providers) codes: &'static [Row],
}

impl Product {
    /// The row of a code and its subcode: that of both, else of the subcode where that stands as a code of its own (2018300
    /// comes as either), else of the code.
    pub(in crate::providers) fn find(&self, code: u32, subcode: Option<u32>) -> Option<&'static Row> {
        let of = |code: u32, subcode: Option<u32>| {
            self.codes.iter().find(|row| row.codes.contains(&code) && row.subcode == subcode)
        };
        let both = subcode.and_then(|subcode| of(code, Some(subcode)));
        let alone = || subcode.filter(|subcode| *subcode > 100_000).and_then(|subcode| of(subcode, None));
        both.or_else(alone).or_else(|| of(code, None))
    }

    /// What an answer means. `retry_after` is the header's value.
    pub(in crate::providers) fn outcome(
        &self,
        message: &Outgoing<'_>,
        status: u16,
        retry_after: Option<&str>,
        body: &[u8],
    ) -> Outcome {
        let retry_after = wait(retry_after);
        let text = readable(body);
        let answer = Object::parse(&text).ok();
        let error = answer.as_ref().and_then(|answer| answer.object("error")).and_then(|error| Refusal::of(&error));
        if let Some(refusal) = error {
            return self.refused(&refusal, message.human_agent, status, retry_after);
        }
        match (status, &answer) {
            (200..=299, Some(answer)) => self.taken(message, status, answer),
            (200..=299, None) => Outcome::Unknown { reason: format!("{} answered {status} without JSON.", self.name) },
            _ => without_code(self.name, status, retry_after, Class::Account),
        }
    }

    fn taken(&self, message: &Outgoing<'_>, status: u16, answer: &Object) -> Outcome {
        let kept_file = answer.id("attachment_id").map(Into::into);
        match (answer.id("message_id"), message.content) {
            (Some(id), _) => Outcome::Accepted(Accepted { kept_file, ..Accepted::with_id(id) }),
            // A sender action answers with the recipient alone (providers/messenger section 3.1).
            (None, OutboundContent::Reaction(_)) if answer.id("recipient_id").is_some() => {
                Outcome::Accepted(Accepted::with_id(reaction_id(message)))
            }
            (None, _) => Outcome::Unknown { reason: format!("{} answered {status} without a message id.", self.name) },
        }
    }

    fn refused(&self, refusal: &Refusal, human_agent: bool, status: u16, retry_after: Option<Duration>) -> Outcome {
        let row = self.find(refusal.number, refusal.subcode);
        let reaction = row.map_or_else(|| by_status(status, refusal.is_transient), |row| row.reaction);
        let reason = match (row.map(|row| row.sentence), &refusal.words) {
            (Some(sentence), Some(words)) => format!("{sentence} {} says: {words}", self.name),
            (Some(sentence), None) => sentence.to_owned(),
            (None, Some(words)) => format!("{} says: {words}", self.name),
            (None, None) => format!("{} gave no reason.", self.name),
        };
        let code = refusal.code();
        let again = |code, reason, after, class| {
            Outcome::NotSent(NotSent { code, reason, retry_after: retry_after.or(after), class })
        };
        match reaction {
            Reaction::Again => again(code, reason, None, Class::Transient),
            Reaction::AgainAfter(seconds) => again(code, reason, Some(Duration::from_secs(seconds)), Class::Transient),
            Reaction::Once => again(code, reason, None, Class::Once),
            Reaction::File => again(code, reason, None, Class::File),
            Reaction::SlowAccount => again(code, reason, None, Class::Account),
            Reaction::SlowApp => again(code, reason, None, Class::ProviderAccount),
            Reaction::Thread => again(code, reason, None, Class::Thread),
            Reaction::Unclear => Outcome::Unknown { reason: format!("{reason} (code {code})") },
            Reaction::Unavailable if human_agent => Outcome::NeedsTemplate { code, reason },
            Reaction::Refused | Reaction::OurMistake | Reaction::Unavailable => Outcome::Failed { code, reason },
            Reaction::Window => Outcome::NeedsTemplate { code, reason },
            Reaction::AccountDown => Outcome::AccountDown { code, reason },
        }
    }
}

/// The id of a reaction, which the provider gives none: that of our attempt.
fn reaction_id(message: &Outgoing<'_>) -> String {
    format!("reaction:{}", message.token.attempt_id.0.simple())
}

/// A code that is newer than the table. A 5xx may have been processed, whatever it says.
fn by_status(status: u16, is_transient: bool) -> Reaction {
    match status {
        429 => Reaction::SlowAccount,
        400..=499 if is_transient => Reaction::Again,
        400..=499 => Reaction::Refused,
        _ => Reaction::Unclear,
    }
}

/// The error object of an answer.
struct Refusal {
    number: u32,
    subcode: Option<u32>,
    words: Option<String>,
    is_transient: bool,
}

impl Refusal {
    /// Reads one; `None` without a code to decide by.
    fn of(error: &Object) -> Option<Self> {
        let number = error.number("code")?.parse().ok()?;
        let subcode =
            error.number("error_subcode").and_then(|number| number.parse().ok()).filter(|number| *number != 0);
        let words = ["error_user_msg", "message"].into_iter().find_map(|key| error.words(key));
        let words = words.map(|words| cut(words, MAX_FIELD_BYTES));
        Some(Self { number, subcode, words, is_transient: error.flag("is_transient") })
    }

    /// `10/2018278`, or the code alone.
    fn code(&self) -> String {
        match self.subcode {
            Some(subcode) => format!("{}/{subcode}", self.number),
            None => self.number.to_string(),
        }
    }
}
