//! Twilio's error codes and what each means for a person (contract, section 8, row by row). Codes count, never their texts; one
//! that is newer than this table is told by its family.

use crate::domain::outcome::{Aftermath, Block, Class};
use std::{borrow::Cow, ops::RangeInclusive};

/// What a code asks of us (contract, section 8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reaction {
    /// Not delivered, and may be tried again: so often at most, after so many seconds.
    Later(u32, u32),
    /// The same where nobody can say for certain that it did not arrive.
    LaterInDoubt(u32, u32),
    /// The sender has to slow down.
    SlowSender,
    /// Everything of the Twilio account has to slow down.
    SlowProvider,
    /// A limit of the day is reached.
    Day,
    /// Perhaps taken.
    Unclear,
    /// Refused for good.
    Refused,
    /// Refused for good because our request was wrong: somebody should look at it.
    OurMistake,
    /// Refused for good, and nothing is to be sent to the recipient any more: STOP was said, the sender is blocked, or the law
    /// forbids it.
    Suppress,
    /// Refused: only a template can be sent.
    Template,
    /// Refused, and so is everything else that says the same template.
    TemplateBlocked(Block),
    /// The sender or its account cannot send at all.
    AccountDown,
}

impl Reaction {
    /// What it leads to, in a few words.
    pub fn in_words(self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Reaction::Later(times, seconds) | Reaction::LaterInDoubt(times, seconds) => {
                let minutes = seconds / 60;
                return format!("not sent: again after {minutes} min, {times} at most").into();
            }
            Reaction::SlowSender => "not sent: the account slows down",
            Reaction::SlowProvider => "not sent: all accounts of the Twilio account slow down",
            Reaction::Day => "not sent: the account waits for the next day",
            Reaction::Unclear => "unknown",
            Reaction::Refused => "failed",
            Reaction::OurMistake => "failed, our mistake",
            Reaction::Suppress => "failed, and nothing more is sent to the person",
            Reaction::Template => "needs a template",
            Reaction::TemplateBlocked(_) => "failed, and the template is blocked",
            Reaction::AccountDown => "the account is down",
        })
    }

    /// What it leads to where a report tells it, beside that the message failed.
    pub fn aftermath(self) -> Option<Aftermath> {
        match self {
            Reaction::Later(times, after_seconds) => Some(Aftermath::Again { times, after_seconds, in_doubt: false }),
            Reaction::LaterInDoubt(times, after_seconds) => {
                Some(Aftermath::Again { times, after_seconds, in_doubt: true })
            }
            Reaction::SlowSender => Some(Aftermath::Slow { class: Class::Account }),
            Reaction::SlowProvider => Some(Aftermath::Slow { class: Class::ProviderAccount }),
            Reaction::Day => Some(Aftermath::Slow { class: Class::Day }),
            Reaction::Template => Some(Aftermath::WindowClosed),
            Reaction::TemplateBlocked(block) => Some(Aftermath::TemplateBlocked { block }),
            Reaction::AccountDown => Some(Aftermath::AccountDown),
            Reaction::Unclear | Reaction::Refused | Reaction::OurMistake | Reaction::Suppress => None,
        }
    }
}

/// Whether a code says that nothing is to be sent to the recipient any more.
pub fn suppresses(code: &str) -> bool {
    reaction(code) == Some(Reaction::Suppress)
}

/// What a code asks of us; of an unknown one, what its family does.
pub fn reaction(code: &str) -> Option<Reaction> {
    find(code).map(|row| row.reaction)
}

/// A row of the table.
#[derive(Debug)]
pub struct Row {
    /// The codes it is about.
    pub codes: RangeInclusive<u32>,
    /// What to do.
    pub reaction: Reaction,
    /// What it means, for a person.
    pub sentence: &'static str,
}

const fn row(code: u32, reaction: Reaction, sentence: &'static str) -> Row {
    Row { codes: code..=code, reaction, sentence }
}

const fn rows(first: u32, last: u32, reaction: Reaction, sentence: &'static str) -> Row {
    Row { codes: first..=last, reaction, sentence }
}

/// Every code of the contract, in ascending order.
pub const CODES: &[Row] = {
    use Reaction::*;
    const MINUTE: u32 = 60;
    const HOUR: u32 = 60 * MINUTE;
    &[
        row(10001, AccountDown, "The Twilio account is not active."),
        row(11751, Refused, "The message's file is too large for an MMS."),
        row(20001, OurMistake, "Twilio did not understand the request: a parameter is unknown or invalid."),
        row(20003, AccountDown, "Twilio refused the account's credentials or lacks a permission."),
        row(20004, OurMistake, "Twilio does not allow this kind of request."),
        row(20005, AccountDown, "The Twilio account is suspended."),
        row(20008, Refused, "This is not available with Twilio's test credentials."),
        row(20404, AccountDown, "Twilio does not know the account or the resource."),
        row(20422, OurMistake, "Twilio did not understand the request: a parameter is unknown or invalid."),
        row(20429, SlowProvider, "Too many requests at once for the Twilio account."),
        rows(20500, 20503, Unclear, "Twilio had a fault or was not available for a moment."),
        row(21211, Refused, "The recipient's number is not valid."),
        row(21212, AccountDown, "The sender's number is not valid."),
        row(21214, Refused, "The recipient's number cannot be reached."),
        rows(21265, 21269, Refused, "The recipient's or the sender's number is not of a kind that can be used here."),
        row(21408, Refused, "Messages to the recipient's region are not enabled in the Twilio account."),
        row(21601, AccountDown, "The sender cannot send text messages."),
        row(21602, OurMistake, "The message has neither words nor a file."),
        row(21603, OurMistake, "The message has no sender."),
        row(21604, OurMistake, "The message has no recipient."),
        row(21606, AccountDown, "The sender cannot be used by this Twilio account for this recipient."),
        row(21608, Refused, "The Twilio account is on trial and the recipient's number is not verified for it."),
        row(21609, OurMistake, "The address for reports about the message is not valid."), // fail; fix config
        row(21610, Suppress, "The recipient has unsubscribed from this sender with STOP."),
        row(21611, SlowSender, "Too many messages wait for this sender at Twilio."),
        row(21612, Refused, "There is no route from this sender to the recipient."),
        row(21614, Refused, "The recipient's number is not that of a mobile telephone."),
        row(21617, Refused, "The message is longer than 1600 characters."),
        row(21619, OurMistake, "The message has neither words nor a file."),
        row(21620, Refused, "The address of the message's file is not valid."),
        row(21623, Refused, "The message has too many files."),
        row(21635, Refused, "The recipient's number is a landline."),
        rows(21654, 21656, Refused, "The template or the values for its variables are not valid."),
        row(21657, AccountDown, "The sender is not valid."),
        row(21658, Refused, "A parameter of the message is too long."),
        rows(
            21659,
            21661,
            AccountDown,
            "The sender does not belong to the Twilio account or cannot send text messages.",
        ),
        row(21701, AccountDown, "The messaging service does not exist."),
        row(21703, AccountDown, "The messaging service has no sender that can be used for the recipient."),
        row(21704, AccountDown, "The messaging service has no sender."),
        row(21705, AccountDown, "The messaging service is not valid."),
        row(21910, OurMistake, "The sender and the recipient are not on the same channel."),
        row(30001, SlowSender, "Too many messages wait at Twilio, or this one waited too long."),
        row(30002, AccountDown, "The Twilio account was suspended before the message was delivered."),
        row(30003, Later(2, 2 * HOUR), "The recipient's telephone is switched off or out of reach."),
        row(30004, Suppress, "The recipient or their carrier blocks messages from this sender."),
        row(30005, Refused, "The recipient's number does not exist or is not in use any more."),
        row(30006, Refused, "The recipient's number is a landline or its carrier cannot be reached."),
        row(30007, Refused, "The message was filtered as spam or for violating a policy."),
        row(30008, LaterInDoubt(1, 10 * MINUTE), "The carrier reported an unknown failure."),
        row(30009, Refused, "A part of the message is missing."),
        row(30010, Refused, "The message costs more than was allowed for it."),
        row(30011, Refused, "Files cannot be sent to the recipient's number."),
        row(30017, Later(3, 30 * MINUTE), "The carrier's network was congested."),
        row(30018, Refused, "The sender has to be registered in the recipient's country."),
        row(30019, Refused, "The message is too large for the carrier."),
        row(30022, SlowSender, "The sender has exceeded its registered rate (10DLC)."),
        row(30023, Day, "The sender has reached its carrier's limit for the day."),
        row(30024, Refused, "The sender has to be registered in the recipient's country."),
        row(30025, SlowSender, "The sender has used half of its carrier's limit for the day."),
        row(30026, SlowSender, "The sender has used 70 % of its carrier's limit for the day."),
        row(30027, Day, "The sender has reached its carrier's limit for the day."),
        row(30032, AccountDown, "The toll-free number is not verified."),
        row(30033, AccountDown, "The sender's registered campaign is suspended (10DLC)."),
        row(30034, AccountDown, "The sender is not registered for messages in the United States (10DLC)."),
        row(30035, AccountDown, "The sender's registration is still being set up (10DLC)."),
        row(30036, Refused, "The message waited longer than it was to be valid."),
        row(30410, LaterInDoubt(3, 10 * MINUTE), "The carrier did not answer in time."),
        row(30450, Refused, "Twilio took the message for part of a fraud with premium traffic."),
        row(30610, Later(1, 12 * HOUR), "The recipient has quiet hours at present."),
        row(30640, Suppress, "The recipient is on a list of people who take senders to court."),
        row(35111, Refused, "The scheduled message is not in a state in which this is possible."),
        row(35114, Refused, "The time for which the message is scheduled is not possible."),
        row(35118, Refused, "Only a messaging service can schedule messages."),
        row(35125, Refused, "The Twilio account has too many scheduled messages."),
        row(63001, AccountDown, "WhatsApp did not accept Twilio's authentication for this sender."),
        row(63002, AccountDown, "Twilio does not know the WhatsApp sender."),
        row(63003, Refused, "The recipient is not on WhatsApp."),
        row(63005, Refused, "WhatsApp refused the message's content."),
        row(63006, Refused, "The message could not be put into WhatsApp's form."),
        row(63007, AccountDown, "The WhatsApp sender is not enabled for the Twilio account."),
        row(63008, AccountDown, "The WhatsApp sender is not configured rightly at Twilio."),
        rows(63009, 63010, LaterInDoubt(3, MINUTE), "WhatsApp or Twilio had a fault."),
        row(63012, LaterInDoubt(3, MINUTE), "WhatsApp or Twilio had a fault or was not available for a moment."),
        row(63013, Refused, "The message violates WhatsApp's policy."),
        row(63014, Suppress, "The recipient has blocked the sender."),
        row(63015, Refused, "The recipient has not joined Twilio's WhatsApp sandbox."),
        row(63016, Template, "The customer last wrote more than 24 hours ago; only a template can be sent now."),
        row(63017, SlowProvider, "The Twilio account sends more messages a second than it may."),
        row(63018, SlowSender, "The sender has reached WhatsApp's limit."),
        row(63019, Later(1, MINUTE), "WhatsApp could not fetch the message's file."),
        row(63020, AccountDown, "Meta has a problem with the business account."),
        row(63021, Refused, "WhatsApp refused the message's content."),
        row(63022, AccountDown, "The sender's display name or certificate is not valid."),
        row(63024, Refused, "WhatsApp does not accept the recipient."),
        row(63026, Refused, "The message was taken for spam."),
        row(63027, Refused, "The template does not exist in this language."),
        row(63028, Refused, "The number of values does not match the template's variables."),
        row(63029, Refused, "WhatsApp could not load the template."),
        row(63030, Refused, "WhatsApp does not support a parameter of the template."),
        row(63031, Refused, "The sender and the recipient are the same."),
        row(63032, Refused, "WhatsApp did not send it: the recipient is part of an experiment."),
        row(63033, Suppress, "The recipient has blocked the sender."),
        row(63034, Refused, "The message's file is larger than WhatsApp allows."),
        row(63038, Day, "The Twilio account has reached its limit for the day."),
        row(63040, TemplateBlocked(Block::Rejected), "WhatsApp has rejected the template."),
        row(63041, TemplateBlocked(Block::Paused), "WhatsApp has paused the template."),
        row(63042, TemplateBlocked(Block::Disabled), "WhatsApp has disabled the template."),
        row(
            63049,
            Refused,
            "WhatsApp did not deliver it to spare the recipient; the same not before a day has passed.",
        ),
        row(63051, AccountDown, "WhatsApp has locked the business account."),
        row(63062, AccountDown, "The terms for marketing messages are not accepted."),
    ]
};

/// What an unknown code is about, by its family (contract, section 8).
const FAMILIES: &[Row] = &[
    rows(20000, 20999, Reaction::Refused, "Twilio's platform refused the request."),
    rows(21000, 21999, Reaction::Refused, "Twilio refused the message."),
    rows(30000, 30999, Reaction::Refused, "The message could not be delivered."),
    rows(35000, 35999, Reaction::Refused, "The message could not be scheduled."),
    rows(63000, 63999, Reaction::Refused, "WhatsApp did not take the message."),
];

/// The code's row; of an unknown one, its family's.
fn find(code: &str) -> Option<&'static Row> {
    let code: u32 = code.parse().ok()?;
    let find = |rows: &'static [Row]| {
        rows.get(rows.partition_point(|row| *row.codes.end() < code)).filter(|row| row.codes.contains(&code))
    };
    find(CODES).or_else(|| find(FAMILIES))
}

/// Whether it is a code of the platform itself (20xxx) that is in no row.
pub(super) fn is_of_unknown_platform(code: &str) -> bool {
    code.parse()
        .is_ok_and(|code: u32| (20_000..=20_999).contains(&code) && CODES.iter().all(|row| !row.codes.contains(&code)))
}

/// What the code means, as a sentence for a person; of an unknown one, what its family is about.
pub fn report_reason(code: &str) -> Option<&'static str> {
    find(code).map(|row| row.sentence)
}

/// The code's sentence, followed by the provider's own words.
pub(super) fn explain(code: Option<&str>, words: Option<&str>) -> String {
    match (code.and_then(report_reason), words) {
        (Some(sentence), Some(words)) => format!("{sentence} Twilio says: {words}"),
        (Some(sentence), None) => sentence.to_owned(),
        (None, Some(words)) => format!("Twilio says: {words}"),
        (None, None) => "Twilio gave no reason.".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_found_in_one_row_only() {
        for table in [CODES, FAMILIES] {
            assert!(table.windows(2).all(|pair| pair[0].codes.end() < pair[1].codes.start()), "ascending, none twice");
        }
        for row in CODES {
            for code in row.codes.clone() {
                assert_eq!(report_reason(&code.to_string()), Some(row.sentence), "{code}");
            }
            assert!(row.sentence.ends_with('.') && row.sentence.len() > 20, "{}", row.sentence);
        }
        for unknown in ["5", "40000", "99999999999999999999", "-1", "", "x"] {
            assert_eq!(report_reason(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn a_code_that_is_newer_than_the_table_is_told_by_its_family() {
        assert_eq!(report_reason("30999"), Some("The message could not be delivered."));
        assert_eq!(report_reason("63077"), Some("WhatsApp did not take the message."));
        assert_eq!(explain(Some("63077"), Some("news")), "WhatsApp did not take the message. Twilio says: news");
        assert_eq!(explain(None, None), "Twilio gave no reason.");
    }
}
