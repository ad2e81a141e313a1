//! What Messenger's answer to a send means. A refusal is a result, not an error.

use super::errors::PRODUCT;
use crate::{domain::outcome::Outcome, providers::sending::Outgoing};

/// What an answer to `message` means. `retry_after` is the header's value; only seconds are understood.
pub fn outcome(message: &Outgoing<'_>, status: u16, retry_after: Option<&str>, body: &[u8]) -> Outcome {
    PRODUCT.outcome(message, status, retry_after, body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        domain::{
            channel::{Channel, Provider},
            content::OutboundContent,
        },
        providers::{
            answering::in_words,
            testing::sending::{Example, error},
        },
    };
    use serde_json::json;

    fn said(status: u16, retry_after: Option<&str>, body: &str, human_agent: bool) -> String {
        let text = serde_json::from_value(json!({"type": "text", "text": "x"})).unwrap();
        answered(text, status, retry_after, body, human_agent)
    }

    fn answered(content: OutboundContent, status: u16, wait: Option<&str>, body: &str, human_agent: bool) -> String {
        let example = Example { human_agent, ..Example::new(Provider::Messenger, Channel::Messenger, content) };
        in_words(&outcome(&example.outgoing(), status, wait, body.as_bytes()))
    }

    /// The contract's table, section 10, again and by reaction, so that a slip in one of the two shows.
    #[test]
    fn every_code_leads_where_the_contract_says() {
        let expected: &[(&[(u32, u32)], &str)] = &[
            (&[(1, 0), (1, 1357046), (3, 0), (99, 0)], "unknown"),
            (&[(2, 0), (1200, 0)], "not sent, transient"),
            (&[(2018321, 0)], "not sent, transient after 300"),
            (&[(100, 2018008), (100, 2018294)], "not sent, once"),
            (&[(100, 2018074)], "not sent, file"),
            (&[(4, 0)], "not sent, provider_account"),
            (&[(17, 0), (32, 0), (613, 0), (613, 2534040), (80006, 0)], "not sent, account"),
            (&[(2018300, 0), (10, 2018300), (100, 2534037)], "not sent, thread"),
            (&[(10, 2018278), (10, 2018065), (10, 2534022)], "template"),
            (
                &[
                    (10, 0),
                    (10, 1893063),
                    (10, 2534077),
                    (100, 2534013),
                    (100, 2534029),
                    (190, 0),
                    (190, 458),
                    (190, 463),
                    (200, 0),
                    (200, 2018021),
                    (200, 2018027),
                    (200, 2018028),
                    (200, 2534041),
                    (368, 0),
                    (2022, 0),
                    (36103, 0),
                ],
                "down",
            ),
            (
                &[
                    (1, 2018382),
                    (2, 2018344),
                    (4, 2018354),
                    (9, 2018352),
                    (10, 2018108),
                    (10, 1404170),
                    (10, 1893015),
                    (10, 2018336),
                    (100, 0),
                    (100, 33),
                    (100, 2018001),
                    (100, 2018014),
                    (100, 2018047),
                    (100, 2018109),
                    (100, 2018164),
                    (100, 2018320),
                    (100, 2018328),
                    (100, 2534014),
                    (100, 2534015),
                    (100, 2534025),
                    (100, 2534068),
                    (200, 1545041),
                    (230, 0),
                    (551, 0),
                    (551, 1545041),
                    (613, 1893016),
                    (613, 2018338),
                    (10303, 0),
                    (2018218, 0),
                    (2018247, 0),
                    (2018389, 0),
                    (2018396, 0),
                    (9000001, 0),
                ],
                "failed",
            ),
        ];
        let mut rows = std::collections::HashSet::new();
        for (codes, expected) in expected {
            for (code, subcode) in *codes {
                let name = if *subcode == 0 { code.to_string() } else { format!("{code}/{subcode}") };
                let expected = match *expected {
                    "template" | "down" | "failed" => format!("{expected} {name}"),
                    other => other.to_owned(),
                };
                // The status decides nothing: the documented one varies.
                for status in [200, 400, 401, 403, 429, 500] {
                    assert_eq!(said(status, None, &error(*code, *subcode), false), expected, "{name} with {status}");
                }
                rows.insert(std::ptr::from_ref(PRODUCT.find(*code, Some(*subcode).filter(|s| *s != 0)).unwrap()));
            }
        }
        assert_eq!(rows.len(), super::super::errors::CODES.len(), "every row is tried");
    }

    #[test]
    fn answers_without_a_code_of_the_table_are_judged_by_their_status() {
        let taken = r#"{"recipient_id":"24000000000000077","message_id":"m_invented-0007"}"#;
        let kept = r#"{"recipient_id":"24","message_id":"m_1","attachment_id":"770000000000031"}"#;
        let transient = r#"{"error":{"code":777777,"is_transient":true}}"#;
        for (status, wait, body, expected) in [
            (200, None, taken, "accepted m_invented-0007"),
            (200, None, kept, "accepted m_1 keeping 770000000000031"),
            (200, None, r#"{"recipient_id":"24"}"#, "unknown"),
            (200, None, "", "unknown"),
            (302, None, "", "down http_302"),
            (400, None, "<html>", "failed http_400"),
            (400, None, &error(777_777, 0), "failed 777777"),
            (400, None, transient, "not sent, transient"),
            (429, Some("7"), &error(777_777, 0), "not sent, account after 7"),
            (429, None, "", "not sent, account"),
            (400, Some("9"), &error(613, 0), "not sent, account after 9"),
            (500, None, transient, "unknown"),
            (502, None, "<html>", "unknown"),
        ] {
            assert_eq!(said(status, wait, body, false), expected, "{status} {body}");
        }
    }

    #[test]
    fn a_reaction_that_was_taken_has_the_attempts_id() {
        let reaction = json!({"type": "reaction", "message_id": uuid::Uuid::from_u128(1), "emoji": "❤"});
        let content = serde_json::from_value(reaction).unwrap();
        let taken = answered(content, 200, None, r#"{"recipient_id":"24000000000000077"}"#, false);
        assert_eq!(taken, "accepted reaction:0193e6b5a1c27d3e8f4a5b6c7d8e9f01");
    }

    #[test]
    fn whom_nobody_reaches_outside_the_window_is_perhaps_outside_the_window_alone() {
        for (code, subcode) in [(551, 0), (551, 1545041), (200, 1545041)] {
            assert!(said(400, None, &error(code, subcode), false).starts_with("failed"));
            assert!(said(400, None, &error(code, subcode), true).starts_with("template"));
        }
    }

    #[test]
    fn the_reason_is_a_sentence_with_metas_words() {
        let text = serde_json::from_value(json!({"type": "text", "text": "x"})).unwrap();
        let example = Example::new(Provider::Messenger, Channel::Messenger, text);
        let Outcome::Failed { code, reason } = outcome(&example.outgoing(), 400, None, error(100, 2018001).as_bytes())
        else {
            panic!("failed")
        };
        assert_eq!(
            (code.as_str(), reason.as_str()),
            ("100/2018001", "Messenger knows no such person on this Page. Messenger says: (#100) no")
        );
        assert_eq!(super::super::errors::report_reason(&code), Some("Messenger knows no such person on this Page."));
    }
}
