//! What WhatsApp's answer to a send means. A refusal is a result, not an error.

use super::{
    errors::{Reaction, explain, find},
    wire::ErrorObject,
};
use crate::{
    domain::outcome::{Accepted, Class, NotSent, Outcome},
    providers::{
        answering::{wait, without_code},
        json::Object,
        repair::readable,
        sending::{Handle, Outgoing},
    },
};
use std::time::Duration;

/// Refusals of a value in the message, or of its file (contract, section 12.2): an id that is no longer known is refused by one of them.
const PERHAPS_ITS_FILE: [&str; 3] = ["100", "131009", "131053"];

/// What an answer to `message` means. `retry_after` is the header's value; only seconds are understood. Where it names a file by an id
/// and is refused for a value of it, it may be the id, which nothing tells: the file is handed over anew, once. An id of a few minutes ago
/// is known: it is another value then.
pub fn outcome(message: &Outgoing<'_>, status: u16, retry_after: Option<&str>, body: &[u8]) -> Outcome {
    match answered(status, retry_after, body) {
        Outcome::Failed { code, reason }
            if PERHAPS_ITS_FILE.contains(&code.as_str())
                && message.files.values().any(|handle| matches!(handle, Handle::Id(_))) =>
        {
            Outcome::NotSent(NotSent { code, reason, retry_after: None, class: Class::File })
        }
        outcome => outcome,
    }
}

/// What an answer means, whatever was asked.
pub(super) fn answered(status: u16, retry_after: Option<&str>, body: &[u8]) -> Outcome {
    let retry_after = wait(retry_after);
    let text = readable(body);
    let answer = Object::parse(&text).ok();
    let error = answer.as_ref().and_then(|answer| answer.object("error")).map(|error| ErrorObject::of(&error));
    if let Some((error, code)) = error.as_ref().and_then(|error| Some((error, error.code.clone()?))) {
        return by_code(error, code, status, retry_after);
    }
    let id = || answer.as_ref()?.objects("messages").find_map(|message| Some(message.id("id")?.into_owned()));
    match status {
        200..=299 => match id() {
            Some(id) => Outcome::Accepted(Accepted::with_id(id)),
            None => Outcome::Unknown { reason: format!("WhatsApp answered {status} without a message id.") },
        },
        _ => without_code("WhatsApp", status, retry_after, Class::Account),
    }
}

/// An answer with an error code. `status` decides only for codes that the contract does not have.
fn by_code(error: &ErrorObject, code: String, status: u16, retry_after: Option<Duration>) -> Outcome {
    let reason = explain(error);
    let reaction = find(&code).map_or_else(|| by_status(status, error.is_transient), |row| row.reaction);
    let again = |code, reason, after, class| {
        Outcome::NotSent(NotSent { code, reason, retry_after: retry_after.or(after), class })
    };
    match reaction {
        Reaction::Again => again(code, reason, None, Class::Transient),
        Reaction::AgainAfter(seconds) => again(code, reason, Some(Duration::from_secs(seconds)), Class::Transient),
        Reaction::SlowAccount => again(code, reason, None, Class::Account),
        Reaction::SlowPair => again(code, reason, None, Class::Pair),
        Reaction::Unclear => Outcome::Unknown { reason: format!("{reason} (code {code})") },
        Reaction::Refused | Reaction::OurMistake => Outcome::Failed { code, reason },
        Reaction::Template => Outcome::NeedsTemplate { code, reason },
        Reaction::TemplateBlocked(block) => Outcome::TemplateBlocked { code, reason, block },
        Reaction::AccountDown => Outcome::AccountDown { code, reason },
    }
}

/// An error object with a code newer than the contract. A 5xx may have been processed, whatever it says.
fn by_status(status: u16, is_transient: bool) -> Reaction {
    match status {
        429 => Reaction::SlowAccount,
        400..=499 if is_transient => Reaction::Again,
        400..=499 => Reaction::Refused,
        _ => Reaction::Unclear,
    }
}

#[cfg(test)]
mod tests {
    use super::{answered as outcome, *};
    use crate::{
        domain::channel::{Channel, Provider},
        providers::{
            answering::in_words as kind,
            testing::sending::{Example, content},
        },
    };

    fn error(code: impl std::fmt::Display) -> String {
        format!(
            r#"{{"error":{{"message":"(#{code}) no","type":"OAuthException","code":{code},"error_data":{{"messaging_product":"whatsapp","details":"Because."}},"fbtrace_id":"A0"}}}}"#
        )
    }

    /// The contract's table, 12.2, again and by reaction, so that a slip in one of the two shows.
    #[test]
    fn every_code_leads_where_the_contract_says() {
        let expected: &[(&[u32], &str)] = &[
            (&[1, 131000], "unknown"),
            (&[2, 131016, 131057, 133004], "not sent, transient"),
            (&[132069], "not sent, transient after 360"),
            (&[133015], "not sent, transient after 300"),
            (&[134101], "not sent, transient after 600"),
            (&[2494100], "not sent, transient after 120"),
            (&[4, 17, 32, 613, 80007, 80008, 130429, 131048, 131208], "not sent, account"),
            (&[131056], "not sent, pair"),
            (&[131047], "template"),
            (&[131064, 132007, 132015, 132016], "blocked"),
            (
                &[
                    0, 3, 10, 33, 104, 190, 200, 250, 299, 368, 803, 131005, 131031, 131037, 131042, 131044, 131045,
                    133000, 133005, 133006, 133008, 133009, 133010, 133016,
                ],
                "down",
            ),
            (
                &[
                    100, 1026, 130472, 130497, 131008, 131009, 131020, 131021, 131026, 131030, 131041, 131049, 131050,
                    131051, 131052, 131053, 131055, 131059, 131060, 131062, 131063, 131201, 131202, 131204, 131207,
                    131215, 132000, 132001, 132005, 132008, 132012, 132018, 132068, 134011, 134100, 134102, 135000,
                    137000, 138000, 138024, 139000, 139004, 139100, 139103, 147001, 147005, 2388019, 2388040, 2388047,
                    2388072, 2388073, 2388293, 2388299, 2593107, 2593108, 2593109,
                ],
                "failed",
            ),
        ];
        let mut rows = std::collections::BTreeSet::new();
        for (codes, expected) in expected {
            for code in *codes {
                // The status decides nothing: the documented one varies.
                for status in [200, 400, 401, 403, 404, 429, 500, 503] {
                    let outcome = outcome(status, None, error(code).as_bytes());
                    let expected = match *expected {
                        "template" | "blocked" | "down" | "failed" => format!("{expected} {code}"),
                        other => other.to_owned(),
                    };
                    assert_eq!(kind(&outcome), expected, "{code} with {status}");
                }
                rows.insert(find(&code.to_string()).unwrap().codes.start());
            }
        }
        assert_eq!(rows.len(), super::super::errors::CODES.len(), "every row is tried");
    }

    #[test]
    fn answers_without_a_code_of_the_table_are_judged_by_their_status() {
        let accepted = r#"{"messaging_product":"whatsapp","contacts":[{"input":"+15557770142","wa_id":"15557770142"}],"messages":[{"id":"wamid.OUT1"}]}"#;
        let held = r#"{"messages":[{"id":"wamid.OUT2","message_status":"held_for_quality_assessment"}]}"#;
        let transient = r#"{"error":{"code":777777,"is_transient":true}}"#;
        let html = "<html>Bad gateway</html>";
        for (status, retry_after, body, expected) in [
            (200, None, accepted, "accepted wamid.OUT1"),
            (200, None, held, "accepted wamid.OUT2"),
            (201, None, accepted, "accepted wamid.OUT1"),
            (200, None, r#"{"messages":[null,{"id":"w"}],"news":"\ud800"}"#, "accepted w"),
            (200, None, "", "unknown"),
            (200, None, html, "unknown"),
            (200, None, r#"{"messages":[]}"#, "unknown"),
            (200, None, r#"{"messages":[{"id":""}]}"#, "unknown"),
            (200, None, &accepted[..accepted.len() - 1], "unknown"),
            (204, None, "", "unknown"),
            (302, None, "", "down http_302"),
            (400, None, html, "failed http_400"),
            (400, None, r#"{"error":"no object"}"#, "failed http_400"),
            (400, None, &error(777_777), "failed 777777"),
            (400, None, transient, "not sent, transient"),
            (401, None, "", "down http_401"),
            (401, None, r#"{"error":{"message":"no code"}}"#, "down http_401"),
            (403, None, &error(777_777), "failed 777777"),
            (404, None, html, "down http_404"),
            (408, None, "", "unknown"),
            (413, None, "", "failed http_413"),
            (429, None, html, "not sent, account"),
            (429, Some("7"), &error(777_777), "not sent, account after 7"),
            (429, Some("Wed, 21 Oct 2026 07:28:00 GMT"), "", "not sent, account"),
            (429, Some("99999999999999"), "", "not sent, account after 86400"),
            (400, Some(" 12 "), &error(130_429), "not sent, account after 12"),
            (400, Some("12"), &error(133_015), "not sent, transient after 12"),
            (500, None, "", "unknown"),
            (500, None, &error(777_777), "unknown"),
            (500, None, transient, "unknown"),
            (502, Some("5"), html, "unknown"),
            (503, None, html, "unknown"),
            (599, None, r#"{"error":{"code":"131016"}}"#, "not sent, transient"),
            (100, None, "", "unknown"),
        ] {
            assert_eq!(
                kind(&outcome(status, retry_after, body.as_bytes())),
                expected,
                "{status} {retry_after:?} {body}"
            );
        }
    }

    #[test]
    fn a_file_whose_id_may_be_unknown_is_handed_over_anew() {
        let said = |handle: fn(String) -> Handle, code: u32| {
            let text = content(serde_json::json!({"type": "text", "text": "x"}));
            let mut example = Example::new(Provider::Whatsapp, Channel::Whatsapp, text);
            example.files.values_mut().for_each(|file| *file = handle("770000000000031".into()));
            kind(&super::outcome(&example.outgoing(), 400, None, error(code).as_bytes()))
        };
        for code in [100, 131_009, 131_053] {
            assert_eq!(said(Handle::Id, code), "not sent, file");
            assert_eq!(said(Handle::NewId, code), format!("failed {code}"), "it is still known");
            assert_eq!(said(Handle::Link, code), format!("failed {code}"), "it names no file by an id");
        }
        for (code, expected) in [(131_026, "failed 131026"), (190, "down 190")] {
            assert_eq!(said(Handle::Id, code), expected);
        }
    }

    #[test]
    fn the_reason_is_a_sentence_with_metas_words() {
        let outcome = outcome(400, None, error(131_047).as_bytes());
        let reason =
            "The customer last wrote more than 24 hours ago; only a template can be sent now. WhatsApp says: Because.";
        assert_eq!(outcome, Outcome::NeedsTemplate { code: "131047".into(), reason: reason.into() });
    }
}
