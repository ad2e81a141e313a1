//! Files on their way out: an upload gives an id, by which the number's messages name the file for 30 days (contract, section 9). Makes
//! no call.

use super::answer::answered;
use crate::{
    domain::outcome::{Class, NotSent, Outcome},
    providers::{checking::canonical, json::Object, repair::readable},
};
use uuid::Uuid;

/// For documents, a message says how it is called; WhatsApp wants some name here.
const NAME: &str = "file";

/// The path of the call, with its leading slash.
pub fn path(version: &str, phone_number_id: &str) -> String {
    let messages = super::path(version, phone_number_id);
    format!("{}/media", messages.trim_end_matches("/messages"))
}

/// The form's type, as a header says it. `boundary` stands between the parts, and no file knows it beforehand.
pub fn content_type(boundary: Uuid) -> String {
    format!("multipart/form-data; boundary={boundary}")
}

/// What stands in the form before the file and after it. Its type is the one by which WhatsApp knows it.
pub fn around(boundary: Uuid, mime_type: &str) -> (String, String) {
    // Types are what first bytes say; whatever it is, it ends no line.
    let mime_type: String = canonical(mime_type).chars().filter(|c| !c.is_control() && *c != '"').collect();
    let field = |name: &str, value: &str| {
        format!("--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
    };
    let before = format!(
        "{}{}--{boundary}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{NAME}\"\r\nContent-Type: {mime_type}\r\n\r\n",
        field("messaging_product", "whatsapp"),
        field("type", &mime_type),
    );
    (before, format!("\r\n--{boundary}--\r\n"))
}

/// The id in an answer.
///
/// # Errors
/// What it means for the message that was to be sent with the file. None of it was: where nobody knows what became of the upload, it is
/// tried again.
pub fn uploaded(status: u16, retry_after: Option<&str>, body: &[u8]) -> Result<String, Outcome> {
    let text = readable(body);
    let answer = Object::parse(&text).ok();
    if let (200..=299, Some(id)) = (status, answer.as_ref().and_then(|answer| answer.id("id"))) {
        return Ok(id.into_owned());
    }
    Err(match answered(status, retry_after, body) {
        Outcome::Unknown { reason } => not_uploaded("upload", reason),
        Outcome::Accepted(_) => not_uploaded("upload", "WhatsApp answered an upload as a message.".to_owned()),
        other => other,
    })
}

/// A file that was not uploaded, for a reason that passes.
pub fn not_uploaded(code: &str, reason: String) -> Outcome {
    let reason = format!("The message's file could not be uploaded: {reason}");
    Outcome::NotSent(NotSent { code: code.to_owned(), reason, retry_after: None, class: Class::Transient })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::providers::answering::in_words;

    #[test]
    fn a_form_is_what_the_contract_says() {
        assert_eq!(path("v25.0", "330000000000009"), "/v25.0/330000000000009/media");
        let boundary = Uuid::from_u128(7);
        let (before, after) = around(boundary, "audio/x-m4a\r\n");
        let form = format!("{before}BYTES{after}");
        let parts: Vec<&str> = form.split(&format!("--{boundary}")).collect();
        assert_eq!(
            parts,
            [
                "",
                "\r\nContent-Disposition: form-data; name=\"messaging_product\"\r\n\r\nwhatsapp\r\n",
                "\r\nContent-Disposition: form-data; name=\"type\"\r\n\r\naudio/mp4\r\n",
                "\r\nContent-Disposition: form-data; name=\"file\"; filename=\"file\"\r\nContent-Type: audio/mp4\r\n\r\nBYTES\r\n",
                "--\r\n",
            ]
        );
        assert!(content_type(boundary).ends_with(&boundary.to_string()));
    }

    #[test]
    fn an_answer_has_an_id_or_says_what_becomes_of_the_message() {
        let error = |code: u32| format!(r#"{{"error":{{"message":"no","code":{code}}}}}"#);
        for (status, body, expected) in [
            (200, r#"{"id":"880200000000001"}"#.to_owned(), "880200000000001"),
            (200, r#"{"id":880200000000001}"#.to_owned(), "880200000000001"),
            (200, "{}".to_owned(), "not sent, transient"),
            (200, error(131_009), "failed 131009"),
            (400, error(131_053), "failed 131053"),
            (400, error(100), "failed 100"),
            (401, error(190), "down 190"),
            (429, error(130_429), "not sent, account"),
            (400, error(131_016), "not sent, transient"),
            (500, error(131_000), "not sent, transient"),
            (502, "<html>".to_owned(), "not sent, transient"),
            (413, String::new(), "failed http_413"),
        ] {
            let said = uploaded(status, None, body.as_bytes()).unwrap_or_else(|outcome| in_words(&outcome));
            assert_eq!(said, expected, "{status} {body}");
        }
    }
}
