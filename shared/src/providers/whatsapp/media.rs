//! Files: an id leads to an address that lives for five minutes, and the address gives bytes to who brings the token (contract,
//! section 9).

use crate::providers::download::{Failure, Next};
use serde::Deserialize;
use url::Url;

/// The path that says where the file with this id is now; `number` is the `phone_number_id` that received it.
pub fn path(version: &str, id: &str, number: &str) -> String {
    let plain =
        |text: &str| text.chars().filter(|c| c.is_ascii_alphanumeric() || "._-".contains(*c)).collect::<String>();
    format!("/{version}/{}?phone_number_id={}", plain(id), plain(number))
}

/// Where a file is, as the provider says it.
#[derive(Debug, PartialEq, Eq)]
pub struct Place {
    /// For five minutes.
    pub url: Url,
    /// Its digest, hex or base64.
    pub sha256: Option<String>,
    /// Its type.
    pub mime_type: Option<String>,
}

#[derive(Deserialize)]
struct Wire {
    url: String,
    sha256: Option<String>,
    mime_type: Option<String>,
}

#[derive(Deserialize)]
struct ErrorWire {
    error: ErrorCode,
}

#[derive(Deserialize)]
struct ErrorCode {
    code: Option<u32>,
}

/// What the answer to [`path`] says.
///
/// # Errors
/// What to do instead: the id is too old, the account's token is not accepted, or the provider is busy.
pub fn place(status: u16, retry_after: Option<std::time::Duration>, body: &[u8]) -> Result<Place, Failure> {
    if status == 200 {
        let unreadable = || Failure::new("unreadable_answer", Next::Again(None), "WhatsApp's answer says no place.");
        let Wire { url, sha256, mime_type } = serde_json::from_slice(body).map_err(|_| unreadable())?;
        return Ok(Place { url: url.parse().map_err(|_| unreadable())?, sha256, mime_type });
    }
    let code = serde_json::from_slice::<ErrorWire>(body).ok().and_then(|wire| wire.error.code);
    Err(match (code, status) {
        // "Object missing": ids live for seven days.
        (Some(100 | 33 | 803), _) | (None, 404) => {
            Failure::new("expired", Next::Expire, "WhatsApp has the file no longer: it keeps them for seven days.")
        }
        (Some(0 | 3 | 10 | 104 | 190 | 200..=299 | 368 | 131_005), _) | (None, 401 | 403) => {
            let code = code.map(|code| format!(" (code {code})")).unwrap_or_default();
            let reason = format!("WhatsApp does not accept the account's access token{code}.");
            Failure::new("not_authorised", Next::Again(retry_after), reason)
        }
        (_, 429) | (Some(4 | 17 | 32 | 613 | 80_007 | 80_008 | 130_429), _) => {
            Failure::new("throttled", Next::Again(retry_after), "WhatsApp asked us to come back later.")
        }
        (Some(131_052), _) => Failure::new("unavailable", Next::GiveUp, "WhatsApp could not fetch the file."),
        _ => Failure::new("provider_failed", Next::Again(retry_after), format!("WhatsApp failed (status {status}).")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_read_whether_its_size_is_a_text_or_a_number() {
        for size in ["\"303833\"", "303833"] {
            let body = format!(
                r#"{{"messaging_product":"whatsapp","url":"https://lookaside.fbsbx.com/a?mid=1","mime_type":"image/jpeg","sha256":"3b0c","file_size":{size},"id":"88"}}"#
            );
            let place = place(200, None, body.as_bytes()).unwrap();
            assert_eq!((place.url.host_str(), place.sha256.as_deref()), (Some("lookaside.fbsbx.com"), Some("3b0c")));
        }
    }

    #[test]
    fn refusals_say_what_to_do() {
        let error = |code: u32| format!(r#"{{"error":{{"message":"m","code":{code}}}}}"#);
        for (status, body, code, next) in [
            (400, error(100), "expired", Next::Expire),
            (401, error(190), "not_authorised", Next::Again(None)),
            (400, error(130_429), "throttled", Next::Again(None)),
            (500, error(2), "provider_failed", Next::Again(None)),
            (503, "no JSON".to_owned(), "provider_failed", Next::Again(None)),
            (404, String::new(), "expired", Next::Expire),
            (200, "{}".to_owned(), "unreadable_answer", Next::Again(None)),
        ] {
            let failure = place(status, None, body.as_bytes()).unwrap_err();
            assert_eq!((failure.code, failure.next), (code, next), "{status} {body}");
        }
    }

    #[test]
    fn an_id_cannot_lead_elsewhere() {
        assert_eq!(path("v25.0", "88/../me?x", "33"), "/v25.0/88..mex?phone_number_id=33");
    }
}
