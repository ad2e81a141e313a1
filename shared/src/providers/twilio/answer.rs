//! What Twilio's answer to a send means. A refusal is a result, not an error. Taken is not sent: what becomes of the message is told
//! by reports, whose codes are of the same [table](super::errors).

use super::errors::{Reaction, explain, is_of_unknown_platform, reaction};
use crate::{
    domain::outcome::{Accepted, Class, NotSent, Outcome},
    providers::{
        answering::{wait, without_code},
        json::{Object, cut},
        repair::readable,
    },
};
use std::time::Duration;

const MAX_WORDS_BYTES: usize = 2048;

/// What an answer means. `retry_after` is the header's value; only seconds are understood.
pub fn outcome(status: u16, retry_after: Option<&str>, body: &[u8]) -> Outcome {
    let retry_after = wait(retry_after);
    let text = readable(body);
    let answer = Object::parse(&text).ok();
    let answer = answer.as_ref();
    if (200..=299).contains(&status) {
        return match answer.and_then(|answer| answer.id("sid")) {
            Some(sid) => Outcome::Accepted(Accepted::with_id(sid)),
            None => Outcome::Unknown { reason: format!("Twilio answered {status} without a message's SID.") },
        };
    }
    // Null and missing are the same: a gateway's answer.
    let Some(code) = answer.and_then(|answer| answer.number("code")) else {
        return without_code("Twilio", status, retry_after, Class::ProviderAccount);
    };
    let words = answer.and_then(|answer| answer.words("message")).map(|words| cut(words, MAX_WORDS_BYTES));
    let reason = explain(Some(&code), words.as_deref());
    by_code(code.into_owned(), reason, status, retry_after)
}

/// The status decides only where it says that nobody knows, or for codes that are newer than the table.
fn by_code(code: String, reason: String, status: u16, retry_after: Option<Duration>) -> Outcome {
    let again = |code, reason, class| Outcome::NotSent(NotSent { code, reason, retry_after, class });
    if status >= 500 {
        return Outcome::Unknown { reason: format!("{reason} (code {code}, status {status})") };
    }
    // Turned away by the platform for a reason that is newer than the table: it is not the message's.
    if matches!(status, 401 | 403) && is_of_unknown_platform(&code) {
        return Outcome::AccountDown { code, reason };
    }
    match reaction(&code).unwrap_or(Reaction::Refused) {
        // The daily limit comes with 429, too (contract, section 8, 63038).
        Reaction::Day => again(code, reason, Class::Day),
        Reaction::SlowSender => again(code, reason, Class::Account),
        _ if status == 429 => again(code, reason, Class::ProviderAccount),
        Reaction::SlowProvider => again(code, reason, Class::ProviderAccount),
        Reaction::Later(1, _) | Reaction::LaterInDoubt(1, _) => again(code, reason, Class::Once),
        Reaction::Later(..) | Reaction::LaterInDoubt(..) => again(code, reason, Class::Transient),
        Reaction::Unclear => Outcome::Unknown { reason: format!("{reason} (code {code})") },
        Reaction::Refused | Reaction::OurMistake => Outcome::Failed { code, reason },
        Reaction::Suppress => Outcome::OptedOut { code, reason },
        Reaction::Template => Outcome::NeedsTemplate { code, reason },
        Reaction::TemplateBlocked(block) => Outcome::TemplateBlocked { code, reason, block },
        Reaction::AccountDown => Outcome::AccountDown { code, reason },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::providers::{answering::in_words, twilio::errors::CODES};

    fn error(code: u32, status: u16) -> String {
        format!(
            r#"{{"code":{code},"message":"no","more_info":"https://www.twilio.com/docs/errors/{code}","status":{status}}}"#
        )
    }

    fn said(status: u16, body: &str) -> String {
        in_words(&outcome(status, None, body.as_bytes()))
    }

    /// The contract's table, section 8, again and by reaction, so that a slip in one of the two shows.
    #[test]
    fn every_code_leads_where_the_contract_says() {
        let expected: &[(&[u32], &str)] = &[
            (&[20500, 20503], "unknown"),
            (&[20429, 63017], "not sent, provider_account"),
            (&[21611, 30001, 30022, 30025, 30026, 63018], "not sent, account"),
            (&[30023, 30027, 63038], "not sent, day"),
            (&[30003, 30017, 30410, 63009, 63010, 63012], "not sent, transient"),
            (&[30008, 30610, 63019], "not sent, once"),
            (&[21610, 30004, 30640, 63014, 63033], "opted out"),
            (&[63016], "template"),
            (&[63040, 63041, 63042], "blocked"),
            (
                &[
                    10001, 20003, 20005, 20404, 21212, 21601, 21606, 21657, 21659, 21660, 21661, 21701, 21703, 21704,
                    21705, 30002, 30032, 30033, 30034, 30035, 63001, 63002, 63007, 63008, 63020, 63022, 63051, 63062,
                ],
                "down",
            ),
            (
                &[
                    11751, 20001, 20004, 20008, 20422, 21211, 21214, 21265, 21269, 21408, 21602, 21603, 21604, 21608,
                    21609, 21612, 21614, 21617, 21619, 21620, 21623, 21635, 21654, 21656, 21658, 21910, 30005, 30006,
                    30007, 30009, 30010, 30011, 30018, 30019, 30024, 30036, 30450, 35111, 35114, 35118, 35125, 63003,
                    63005, 63006, 63013, 63015, 63021, 63024, 63026, 63027, 63028, 63029, 63030, 63031, 63032, 63034,
                    63049,
                ],
                "failed",
            ),
        ];
        let mut rows = std::collections::HashSet::new();
        for (codes, expected) in expected {
            for code in *codes {
                let expected = match *expected {
                    "template" | "blocked" | "down" | "failed" | "opted out" => format!("{expected} {code}"),
                    other => other.to_owned(),
                };
                for status in [400, 401, 403, 404] {
                    assert_eq!(said(status, &error(*code, status)), expected, "{code} with {status}");
                }
                rows.extend(CODES.iter().filter(|row| row.codes.contains(code)).map(|row| *row.codes.start()));
            }
        }
        assert_eq!(rows.len(), CODES.len(), "every row is tried");
    }

    #[test]
    fn other_answers_are_judged_by_their_status() {
        let created = r#"{"sid":"SM6f1e0c3b9a7d4e5f8a0b1c2d3e4f5a6b","status":"queued","error_code":null,"tags":null}"#;
        for (status, body, expected) in [
            (201, created, "accepted SM6f1e0c3b9a7d4e5f8a0b1c2d3e4f5a6b"),
            (200, created, "accepted SM6f1e0c3b9a7d4e5f8a0b1c2d3e4f5a6b"),
            (201, "", "unknown"),
            (201, r#"{"status":"queued"}"#, "unknown"),
            (403, &error(20999, 403), "down 20999"),
            (400, &error(20999, 400), "failed 20999"),
            (400, &error(21999, 400), "failed 21999"),
            (400, &error(63999, 400), "failed 63999"),
            (400, r#"{"code":null,"message":"x"}"#, "failed http_400"),
            (401, "", "down http_401"),
            (404, "<html>", "down http_404"),
            (429, &error(20429, 429), "not sent, provider_account"),
            (429, &error(63038, 429), "not sent, day"),
            (429, &error(21999, 429), "not sent, provider_account"),
            (429, "", "not sent, provider_account"),
            (500, &error(20500, 500), "unknown"),
            (500, &error(21211, 500), "unknown"),
            (502, "<html>", "unknown"),
            (503, &error(20503, 503), "unknown"),
        ] {
            assert_eq!(said(status, body), expected, "{status} {body}");
        }
        let throttled = outcome(429, Some("7"), error(20429, 429).as_bytes());
        assert_eq!(in_words(&throttled), "not sent, provider_account after 7");
    }

    #[test]
    fn a_code_that_comes_late_says_whether_and_when_to_send_anew() {
        for (code, expected) in [
            ("30003", Some(Reaction::Later(2, 7200))),
            ("30008", Some(Reaction::LaterInDoubt(1, 600))),
            ("30017", Some(Reaction::Later(3, 1800))),
            ("63016", Some(Reaction::Template)),
            ("21610", Some(Reaction::Suppress)),
            ("30023", Some(Reaction::Day)),
            ("63049", Some(Reaction::Refused)),
            ("30999", Some(Reaction::Refused)),
            ("5", None),
        ] {
            assert_eq!(reaction(code), expected, "{code}");
        }
    }
}
