//! What a person calls themselves on Messenger and Instagram: the call for it and what its answer means (providers/messenger
//! section 5, providers/instagram section 4). On WhatsApp every webhook says it.

use super::MAX_FIELD_BYTES;
use crate::providers::{
    json::{Object, cut},
    repair::readable,
};
use std::{borrow::Cow, fmt::Write};

/// A name longer than this is cut.
const MAX_NAME_BYTES: usize = 200;

/// What the answer to the call means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is known; at least one of its fields.
    Profile(Profile),
    /// Nobody will tell, at least until the person writes again: a person without a profile, one who has not consented or has
    /// blocked us. No fault of anybody's: the id stands in for the name.
    Unavailable {
        /// The provider's code, or `empty`.
        code: String,
    },
    /// A limit or a passing fault: again later.
    Later {
        /// The provider's code, or `http_…`.
        code: String,
    },
    /// The account's token or permission is at fault: the same for everybody, until somebody mends it.
    NotPermitted {
        /// The provider's code.
        code: String,
    },
}

/// A profile. What it lacks is not permitted or not there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Profile {
    /// The name to show.
    pub name: Option<String>,
    /// The name by which they are found (Instagram).
    pub username: Option<String>,
    /// Where their picture can be fetched for a few days.
    pub picture_url: Option<String>,
}

/// The path and query of the call, with its leading slash. The id is opaque and cannot leave its segment.
pub(in crate::providers) fn path(version: &str, person_id: &str, fields: &str) -> String {
    let mut path = String::with_capacity(128);
    for segment in [version, person_id] {
        path.push('/');
        for byte in segment.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => path.push(byte.into()),
                _ => write!(path, "%{byte:02X}").expect("writing to a string"),
            }
        }
    }
    path + "?fields=" + fields
}

/// What an answer means. Codes count, never messages or HTTP statuses, which Meta does not document (providers/messenger
/// section 10, providers/instagram section 7).
pub(in crate::providers) fn read(status: u16, body: &[u8]) -> Answer {
    let text = readable(body);
    let answer = Object::parse(&text).ok();
    let error = answer.as_ref().and_then(|answer| answer.object("error"));
    if let Some((error, code)) = error.as_ref().and_then(|error| Some((error, error.id("code")?))) {
        return refused(status, error, &code);
    }
    match status {
        200..=299 => profile(answer.as_ref()),
        // A refused login without Meta's words for it.
        401 | 403 => Answer::NotPermitted { code: format!("http_{status}") },
        404 | 410 => Answer::Unavailable { code: format!("http_{status}") },
        _ => Answer::Later { code: format!("http_{status}") },
    }
}

fn profile(answer: Option<&Object>) -> Answer {
    let words = |key| Some(cut(answer?.words(key)?, MAX_NAME_BYTES));
    let whole =
        [words("first_name"), words("last_name")].into_iter().flatten().reduce(|first, last| first + " " + &last);
    let is_link = |url: &Cow<str>| url.len() <= MAX_FIELD_BYTES && url.starts_with("http");
    let picture_url = answer.and_then(|answer| answer.words("profile_pic")).filter(is_link);
    let profile = Profile {
        name: words("name").or(whole),
        username: words("username"),
        picture_url: picture_url.map(Cow::into_owned),
    };
    if profile == Profile::default() {
        Answer::Unavailable { code: "empty".to_owned() }
    } else {
        Answer::Profile(profile)
    }
}

fn refused(status: u16, error: &Object, code: &str) -> Answer {
    let subcode = error.id("error_subcode");
    let said = subcode.as_deref().map_or_else(|| code.to_owned(), |subcode| format!("{code}/{subcode}"));
    let number = |text: &str| text.parse::<u32>().ok();
    match (number(code), subcode.as_deref().and_then(number)) {
        // No profile, no consent, nobody of that id, blocked.
        (Some(2_018_218 | 2_018_247 | 230 | 551), _)
        | (_, Some(2_018_218 | 2_018_247 | 2_018_001 | 2_534_014 | 1_545_041)) => Answer::Unavailable { code: said },
        (Some(0 | 3 | 10 | 102 | 104 | 190 | 200..=229 | 231..=299 | 368 | 36_103), _) => {
            Answer::NotPermitted { code: said }
        }
        (Some(1 | 2 | 4 | 17 | 32 | 613 | 80_002 | 80_006), _) => Answer::Later { code: said },
        // Some report 100 where consent is missing (providers/instagram section 4); it does not change by asking again.
        (Some(100), _) => Answer::Unavailable { code: said },
        _ if error.flag("is_transient") || status == 429 || status >= 500 => Answer::Later { code: said },
        _ => Answer::Unavailable { code: said },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(code: u32, subcode: Option<u32>) -> String {
        let subcode = subcode.map(|subcode| format!(r#","error_subcode":{subcode}"#)).unwrap_or_default();
        format!(
            r#"{{"error":{{"message":"(#{code}) no","type":"OAuthException","code":{code}{subcode},"fbtrace_id":"A"}}}}"#
        )
    }

    #[test]
    fn every_documented_refusal_says_whether_to_ask_again() {
        for (status, code, subcode, expected) in [
            (400, 100, Some(2_018_218), "unavailable 100/2018218"),
            (400, 2_018_218, None, "unavailable 2018218"),
            (400, 2_018_247, None, "unavailable 2018247"),
            (400, 100, Some(2_018_001), "unavailable 100/2018001"),
            (400, 100, Some(2_534_014), "unavailable 100/2534014"),
            (400, 100, Some(33), "unavailable 100/33"),
            (400, 100, None, "unavailable 100"),
            (403, 230, None, "unavailable 230"),
            (400, 551, None, "unavailable 551"),
            (400, 200, Some(1_545_041), "unavailable 200/1545041"),
            (400, 9_000_001, None, "unavailable 9000001"),
            (401, 190, Some(463), "not permitted 190/463"),
            (403, 10, None, "not permitted 10"),
            (403, 200, None, "not permitted 200"),
            (400, 368, None, "not permitted 368"),
            (400, 4, None, "later 4"),
            (400, 613, None, "later 613"),
            (400, 80_006, None, "later 80006"),
            (500, 1, None, "later 1"),
            (500, 2, None, "later 2"),
            (503, 999_999, None, "later 999999"),
        ] {
            let shown = match read(status, error(code, subcode).as_bytes()) {
                Answer::Profile(profile) => format!("{profile:?}"),
                Answer::Unavailable { code } => format!("unavailable {code}"),
                Answer::Later { code } => format!("later {code}"),
                Answer::NotPermitted { code } => format!("not permitted {code}"),
            };
            assert_eq!(shown, expected, "{status}");
        }
    }

    #[test]
    fn what_is_no_answer_of_metas_decides_by_its_status() {
        for (status, body, expected) in [
            (200, "", Answer::Unavailable { code: "empty".into() }),
            (200, "{}", Answer::Unavailable { code: "empty".into() }),
            (200, r#"{"id":"7","name":null,"profile_pic":null}"#, Answer::Unavailable { code: "empty".into() }),
            (502, "<html>", Answer::Later { code: "http_502".into() }),
            (429, "", Answer::Later { code: "http_429".into() }),
            (401, "{}", Answer::NotPermitted { code: "http_401".into() }),
            (404, "{}", Answer::Unavailable { code: "http_404".into() }),
        ] {
            assert_eq!(read(status, body.as_bytes()), expected, "{status} {body}");
        }
    }
}
