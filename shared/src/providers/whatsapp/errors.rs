//! Meta's error codes: what each lets us conclude about a send, and what it means for a person. The table is the
//! contract's section 12.2, row by row; codes count, never titles, messages or HTTP statuses.
//!
//! "Not sent" is claimed only where the answer says that the message was not taken: a limit, or a service that was
//! not there. A code that stands for "something went wrong" (1, 131000) leaves it open, and so does a 5xx without a code
//! of the table: those sends become `unknown` and are not repeated by themselves.

use super::wire::ErrorObject;
use crate::domain::outcome::{Aftermath, Block, Class};
use std::{borrow::Cow, ops::RangeInclusive};

/// What a code asks of us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reaction {
    /// Not sent: again later, with back-off.
    Again,
    /// Not sent: again after so many seconds.
    AgainAfter(u64),
    /// Not sent: the account has to slow down.
    SlowAccount,
    /// Not sent: this account has to slow down towards this person.
    SlowPair,
    /// Perhaps sent.
    Unclear,
    /// Refused for good.
    Refused,
    /// Refused for good because our request was wrong: somebody should look at it.
    OurMistake,
    /// Refused: only a template can be sent.
    Template,
    /// Refused, and so is everything else that says the same template.
    TemplateBlocked(Block),
    /// The account cannot send at all.
    AccountDown,
}

impl Reaction {
    /// What it leads to, in a few words.
    pub fn in_words(self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Reaction::Again => "not sent: again later",
            Reaction::AgainAfter(seconds) => return format!("not sent: again after {seconds} s").into(),
            Reaction::SlowAccount => "not sent: the account slows down",
            Reaction::SlowPair => "not sent: slower towards this person",
            Reaction::Unclear => "unknown",
            Reaction::Refused => "failed",
            Reaction::OurMistake => "failed, our mistake",
            Reaction::Template => "needs a template",
            Reaction::TemplateBlocked(_) => "failed, and the template is blocked",
            Reaction::AccountDown => "the account is down",
        })
    }

    /// What it leads to where a report tells it, beside that the message failed. A report says for certain that it did not arrive.
    pub fn aftermath(self) -> Option<Aftermath> {
        let again = |after_seconds| Some(Aftermath::Again { times: 3, after_seconds, in_doubt: false });
        match self {
            Reaction::Again => again(A_MINUTE),
            Reaction::AgainAfter(seconds) => again(u32::try_from(seconds).unwrap_or(A_MINUTE)),
            Reaction::SlowAccount => Some(Aftermath::Slow { class: Class::Account }),
            Reaction::SlowPair => Some(Aftermath::Slow { class: Class::Pair }),
            Reaction::Template => Some(Aftermath::WindowClosed),
            Reaction::TemplateBlocked(block) => Some(Aftermath::TemplateBlocked { block }),
            Reaction::AccountDown => Some(Aftermath::AccountDown),
            Reaction::Unclear | Reaction::Refused | Reaction::OurMistake => None,
        }
    }
}

/// What was reported as failed for a moment's reason is sent anew after so many seconds.
const A_MINUTE: u32 = 60;

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

/// Every code of the contract, in ascending order. Behind each row: the contract's reaction, and why ours differs.
pub const CODES: &[Row] = {
    use Reaction::*;
    &[
        row(0, AccountDown, "WhatsApp no longer accepts the account's access token."), // PAUSE
        row(1, Unclear, "WhatsApp reported a fault and did not say whether it took the message."), // RETRY few, then BUG; "possible server error" leaves open what happened
        row(2, Again, "WhatsApp was overloaded or down for a moment."),                            // RETRY
        row(3, AccountDown, "The app lacks a capability or permission to send for this account."), // PAUSE
        row(4, SlowAccount, "The app has reached its limit of calls."),                            // SLOW-ACCT (app)
        row(10, AccountDown, "The permission to send for this account is missing or was removed."), // PAUSE
        row(17, SlowAccount, "The access token's user has reached a limit of calls."),             // SLOW-ACCT
        row(32, SlowAccount, "A limit of calls has been reached."),                                // SLOW-ACCT
        row(33, AccountDown, "The business number no longer exists at WhatsApp."),                 // PAUSE
        row(100, OurMistake, "WhatsApp did not understand the request: a parameter is invalid."),  // BUG
        row(104, AccountDown, "The request carried no access token."), // BUG/PAUSE: an account without a token can send nothing
        row(190, AccountDown, "The account's access token has expired or was revoked."), // PAUSE
        rows(200, 299, AccountDown, "A permission of the account was not granted or was removed."), // PAUSE
        row(368, AccountDown, "WhatsApp has blocked the account for violating its policies."), // PAUSE
        row(613, SlowAccount, "A limit of calls has been reached."),   // SLOW-ACCT
        row(803, AccountDown, "The business number does not exist at WhatsApp."), // FAIL / PAUSE if the number: a send names no other object
        row(1026, Refused, "The recipient's app cannot show this kind of message."), // FAIL
        row(80007, SlowAccount, "The WhatsApp Business Account has reached its limit of calls."), // SLOW-ACCT
        row(80008, SlowAccount, "The WhatsApp Business Account has reached its limit of calls."), // SLOW-ACCT
        row(130429, SlowAccount, "The number has reached its throughput."),       // SLOW-ACCT
        row(130472, Refused, "WhatsApp did not send it: the recipient is part of a marketing experiment."), // FAIL
        row(130497, Refused, "The business may not write to people in the recipient's country."), // FAIL-USER (country)
        row(131000, Unclear, "WhatsApp reported an unknown failure and did not say whether it took the message."), // RETRY few; "unknown failure" leaves open what happened
        row(131005, AccountDown, "WhatsApp denied access to the account."), // PAUSE
        row(131008, OurMistake, "WhatsApp misses a required parameter."),   // BUG
        row(131009, Refused, "A value in the message is not valid for WhatsApp."), // FAIL
        row(131016, Again, "WhatsApp's service was unavailable for a moment."), // RETRY
        row(131020, Refused, "The group has no other member."),             // FAIL
        row(131021, Refused, "The recipient is the business number itself."), // FAIL
        row(
            131026,
            Refused,
            "The message cannot be delivered: the recipient is not on WhatsApp, uses an old version, or does not accept messages.",
        ), // FAIL-USER
        row(131030, Refused, "The recipient is not on the test number's list of allowed recipients."), // FAIL
        row(131031, AccountDown, "WhatsApp has locked the account."),       // PAUSE
        row(131037, AccountDown, "The number's display name is not approved yet."), // PAUSE
        row(131041, Refused, "The group does not exist."),                  // FAIL
        row(131042, AccountDown, "WhatsApp has a problem with the account's payment method."), // PAUSE
        row(131044, AccountDown, "WhatsApp has a problem with the account's payment for calls."), // PAUSE
        row(131045, AccountDown, "The number's registration or certificate has a problem."), // PAUSE
        row(131047, Template, "The customer last wrote more than 24 hours ago; only a template can be sent now."), // TEMPLATE
        row(131048, SlowAccount, "WhatsApp restricts the number because messages were reported or its quality is low."), // SLOW-ACCT, then PAUSE + alert
        row(
            131049,
            Refused,
            "WhatsApp did not deliver it to spare the recipient; the same template not before a day has passed.",
        ), // FAIL
        row(131050, Refused, "The recipient has stopped marketing messages from this business."), // FAIL-USER (opt-out)
        row(131051, OurMistake, "WhatsApp does not support this type of message."),               // BUG
        row(131052, Refused, "A file could not be fetched or is larger than 100 MB."),            // inbound notice
        row(131053, Refused, "WhatsApp could not process the message's file."),                   // FAIL
        row(131055, OurMistake, "This way of sending takes marketing templates only."),           // BUG
        row(131056, SlowPair, "Too many messages to this recipient in a short time."),            // SLOW-PAIR (4^X s)
        row(131057, Again, "The number is being maintained or upgraded by WhatsApp for a moment."), // RETRY
        row(131059, OurMistake, "A cursor is invalid or expired."), // restart paging: not on a send
        row(131060, Refused, "The message is not available."),      // inbound notice
        row(131062, Refused, "This message cannot be sent to a user id; it needs the telephone number."), // FAIL or resend to phone
        row(131063, Refused, "Marketing templates are disabled on this way of sending."),                 // FAIL, alert
        row(
            131064,
            TemplateBlocked(Block::AllTemplates),
            "WhatsApp limits the account's templates because some were put into the wrong category.",
        ), // PAUSE (templates): answers may still go out, so the account is not down
        rows(131201, 131207, Refused, "WhatsApp refused it for the group."),                              // FAIL
        row(131208, SlowAccount, "The limit of group messages has been reached."),                        // SLOW-ACCT
        rows(131209, 131215, Refused, "WhatsApp refused it for the group."),                              // FAIL
        row(132000, OurMistake, "The number of values does not match the template's variables."),         // BUG
        row(132001, Refused, "The template does not exist in this language or is not approved."), // FAIL; resync templates
        row(132005, Refused, "The template's text becomes too long with these values."),          // FAIL
        row(132007, TemplateBlocked(Block::Rejected), "The template violates WhatsApp's content policy."), // FAIL, block template
        row(132008, OurMistake, "A value does not fit the template's variable."),                          // BUG
        row(132012, OurMistake, "A value does not have the form the template's variable asks for."),       // BUG
        row(132015, TemplateBlocked(Block::Paused), "The template is paused by WhatsApp because of its quality."), // FAIL, block template until APPROVED
        row(132016, TemplateBlocked(Block::Disabled), "The template is disabled by WhatsApp for good."), // FAIL, block template
        row(132018, OurMistake, "A value is not valid for the template."),                               // BUG
        row(132068, Refused, "The flow is blocked by WhatsApp."),                                        // FAIL
        row(132069, AgainAfter(360), "The flow may be sent only ten times an hour at present."), // RETRY later (10 per hour)
        row(133000, AccountDown, "An earlier deregistration of the number was not completed."), // deregister again: an operator's work
        row(133004, Again, "WhatsApp's server was unavailable for a moment."),                  // RETRY
        row(133005, AccountDown, "The number's PIN does not match."),                           // operator
        row(133006, AccountDown, "The number has to be verified again."),                       // operator
        row(133008, AccountDown, "The number's PIN was tried too often."), // wait per details: an operator's work
        row(133009, AccountDown, "The number's PIN was tried too fast."),  // wait per details: an operator's work
        row(133010, AccountDown, "The number is not registered at WhatsApp."), // PAUSE
        row(133015, AgainAfter(300), "The number was deleted a moment ago and can be used again in five minutes."), // RETRY after 5 min
        row(133016, AccountDown, "The number was registered too often."), // wait: an operator's work
        row(134011, Refused, "The terms for payments are not accepted."), // PAUSE (payments): other messages may go out
        row(134100, OurMistake, "This way of sending takes marketing templates only."), // BUG
        row(134101, AgainAfter(600), "The template is still being prepared by WhatsApp."), // RETRY (10 min)
        row(134102, Refused, "The template is not available on this way of sending."), // FAIL
        row(135000, OurMistake, "WhatsApp did not understand the request: a parameter is wrong."), // BUG
        row(137000, Refused, "The recipient's identity has changed and has to be confirmed."), // FAIL; re-confirm identity
        rows(138000, 138024, Refused, "WhatsApp refused the call."),                           // calling only
        rows(139000, 139004, Refused, "WhatsApp refused the flow."),                           // operator
        rows(139100, 139103, Refused, "WhatsApp could not change the list of blocked people."), // operator
        rows(147001, 147005, Refused, "WhatsApp refused the business' user name."),            // operator
        row(2388019, Refused, "The account has as many templates as it may have."),            // operator
        row(2388040, Refused, "A part of the template is too long."),                          // operator
        row(2388047, Refused, "The template's header is not valid."),                          // operator
        row(2388072, Refused, "The template's body is not valid."),                            // operator
        row(2388073, Refused, "The template's footer is not valid."),                          // operator
        row(2388293, Refused, "The template has too many variables for its length."),          // operator
        row(2388299, Refused, "The template's text begins or ends with a variable."),          // operator
        row(2494100, AgainAfter(120), "The number is being moved by WhatsApp and back in minutes."), // RETRY minutes
        row(2593107, Refused, "The history can be synchronised only once."),                   // operator
        row(2593108, Refused, "The history can be synchronised only within 24 hours."),        // operator
        row(2593109, Refused, "The business declined to share its history."),                  // operator
    ]
};

/// The code's row, unless the contract does not have it.
pub fn find(code: &str) -> Option<&'static Row> {
    let code: u32 = code.parse().ok()?;
    let row = &CODES[CODES.partition_point(|row| *row.codes.end() < code)..].first()?;
    row.codes.contains(&code).then_some(row)
}

/// What the code means, as a sentence for a person.
pub fn report_reason(code: &str) -> Option<&'static str> {
    find(code).map(|row| row.sentence)
}

/// Whether the code says that our request was wrong: nothing the sender could have done better.
pub fn is_our_mistake(code: &str) -> bool {
    find(code).is_some_and(|row| row.reaction == Reaction::OurMistake)
}

/// The code's sentence, followed by Meta's own words.
pub(super) fn explain(error: &ErrorObject) -> String {
    let code = error.code.as_deref().unwrap_or_default();
    match (report_reason(code), &error.words) {
        (Some(sentence), Some(words)) => format!("{sentence} WhatsApp says: {words}"),
        (Some(sentence), None) => sentence.to_owned(),
        (None, Some(words)) => format!("WhatsApp says: {words}"),
        (None, None) => "WhatsApp gave no reason.".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_found_in_one_row_only() {
        assert!(CODES.windows(2).all(|pair| pair[0].codes.end() < pair[1].codes.start()), "ascending, none twice");
        for row in CODES {
            for code in row.codes.clone() {
                assert_eq!(find(&code.to_string()).map(|found| found.sentence), Some(row.sentence), "{code}");
            }
            assert!(row.sentence.ends_with('.') && row.sentence.len() > 20, "{}", row.sentence);
        }
        for unknown in
            ["5", "199", "300", "131046", "131216", "2593110", "99999999999999999999", "-1", "", "x", "http_500"]
        {
            assert!(find(unknown).is_none(), "{unknown}");
        }
    }

    #[test]
    fn an_explanation_is_ours_first_and_then_metas() {
        let explain = |code: Option<&str>, words: Option<&str>| {
            explain(&ErrorObject { code: code.map(Into::into), words: words.map(Into::into), is_transient: false })
        };
        assert_eq!(
            explain(Some("131056"), Some("pair rate limit hit")),
            "Too many messages to this recipient in a short time. WhatsApp says: pair rate limit hit"
        );
        assert_eq!(explain(Some("131056"), None), "Too many messages to this recipient in a short time.");
        assert_eq!(explain(Some("1310560"), Some("news")), "WhatsApp says: news");
        assert_eq!(explain(None, None), "WhatsApp gave no reason.");
    }

    #[test]
    fn our_own_mistakes_are_told_from_the_senders() {
        assert!(is_our_mistake("100") && is_our_mistake("132000"));
        assert!(!is_our_mistake("131026") && !is_our_mistake("190") && !is_our_mistake("7777"));
    }
}
