//! What Instagram's answer to a send means, by either login. A refusal is a result, not an error.

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
        domain::channel::{Channel, Provider},
        providers::{
            answering::in_words,
            testing::sending::{Example, error},
        },
    };
    use serde_json::json;

    fn said(status: u16, body: &str) -> String {
        let text = serde_json::from_value(json!({"type": "text", "text": "x"})).unwrap();
        let example = Example::new(Provider::Instagram, Channel::Instagram, text);
        in_words(&outcome(&example.outgoing(), status, None, body.as_bytes()))
    }

    /// The contract's table, section 7, again and by reaction, so that a slip in one of the two shows.
    #[test]
    fn every_code_leads_where_the_contract_says() {
        let expected: &[(&[(u32, u32)], &str)] = &[
            (&[(1, 0)], "unknown"),
            (&[(2, 0)], "not sent, transient"),
            (&[(100, 2018008), (100, 2018294)], "not sent, once"),
            (&[(100, 2018074)], "not sent, file"),
            (&[(4, 0)], "not sent, provider_account"),
            (&[(17, 0), (32, 0), (613, 0), (613, 2534040), (80002, 0), (80006, 0)], "not sent, account"),
            (&[(2018300, 0), (200, 2018300), (100, 2534037)], "not sent, thread"),
            (&[(10, 2534022), (10, 2018278)], "template"),
            (
                &[
                    (10, 0),
                    (10, 2534077),
                    (100, 2534013),
                    (100, 2534029),
                    (190, 0),
                    (190, 463),
                    (200, 0),
                    (200, 2534041),
                    (368, 0),
                    (36103, 0),
                ],
                "down",
            ),
            (
                &[
                    (100, 0),
                    (100, 33),
                    (100, 2018001),
                    (100, 2534014),
                    (100, 2018047),
                    (100, 2018109),
                    (100, 2534015),
                    (100, 2534025),
                    (100, 2534068),
                    (200, 1545041),
                    (230, 0),
                    (551, 0),
                    (551, 1545041),
                    (9010, 0),
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
                for status in [200, 400, 403, 500] {
                    assert_eq!(said(status, &error(*code, *subcode)), expected, "{name} with {status}");
                }
                rows.insert(std::ptr::from_ref(PRODUCT.find(*code, Some(*subcode).filter(|s| *s != 0)).unwrap()));
            }
        }
        assert_eq!(rows.len(), super::super::errors::CODES.len(), "every row is tried");
    }

    #[test]
    fn both_logins_answer_alike() {
        let taken = r#"{"recipient_id":"980000000000066","message_id":"aW1faW52ZW50ZWQtMDEx"}"#;
        assert_eq!(said(200, taken), "accepted aW1faW52ZW50ZWQtMDEx");
        let refused = r#"{"error":{"message":"(#10) no","type":"IGApiException","code":10,"error_subcode":2534022}}"#;
        assert_eq!(said(400, refused), "template 10/2534022");
        assert_eq!(super::super::errors::report_reason("190/463"), super::super::errors::report_reason("190"));
    }
}
