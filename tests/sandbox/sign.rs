//! What leaves as a webhook, byte by byte: non-ASCII as lower-case `\uXXXX`, and the signature over exactly those bytes
//! (contract page, section 1.2).

use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::Value;
use sha2::Sha256;

/// Stands for a lone surrogate (`\ud83d`) in texts: Rust's strings cannot hold one, the provider's JSON can.
pub const LONE_SURROGATE: char = '\u{f8ff}';

/// The bytes the provider would emit for this payload.
pub fn emit(payload: &Value, escape_slashes: bool) -> Bytes {
    let json = payload.to_string();
    let mut emitted = Vec::with_capacity(json.len() + json.len() / 8);
    let mut units = [0; 2];
    for character in json.chars() {
        match character {
            '/' if escape_slashes => emitted.extend_from_slice(br"\/"),
            LONE_SURROGATE => emitted.extend_from_slice(br"\ud83d"),
            ascii if ascii.is_ascii() => emitted.push(ascii as u8),
            other => {
                for unit in other.encode_utf16(&mut units) {
                    emitted.extend_from_slice(format!("\\u{unit:04x}").as_bytes());
                }
            }
        }
    }
    emitted.into()
}

/// The value of `X-Hub-Signature-256`.
pub fn signature(app_secret: &str, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(app_secret.as_bytes()).expect("HMAC takes keys of any length");
    mac.update(body);
    format!("sha256={}", hex::encode(mac.finalize().into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// The vectors of the contract page.
    #[test]
    fn signatures_are_those_of_the_contract() {
        let page = r#"{"object":"page","entry":[{"id":"1","time":1,"messaging":[{"message":{"mid":"m1","text":"\u00e5\u00e9 ok"}}]}]}"#;
        let raw = page.replace(r"\u00e5\u00e9", "åé");
        for (key, body, expected) in [
            (
                "stand_in_app_secret_01",
                r#"{"object":"whatsapp_business_account","entry":[]}"#,
                "dc26716b8858ed480cf28c851fa9d36175ef06114acbbdb8ea63a81a2d985a0b",
            ),
            (
                "stand_in_app_secret_01",
                r#"{"object": "whatsapp_business_account", "entry": []}"#,
                "77d79e6dbce08fea92defac1be0e42ef94bfa2af1c27500303dd4fa1f6f8b6fb",
            ),
            (
                "another_secret",
                r#"{"object":"whatsapp_business_account","entry":[]}"#,
                "2e4c945d3639cf2b93779d82e7acaf55f2f064a8bcc101749de1fc9d2d8d3e7e",
            ),
            ("stand_in_app_secret_01", page, "4f50b2fd597051daf70777dec87cbfa54cc8b41d7dc75c182b7432c5044e0e18"),
            ("stand_in_app_secret_01", &raw, "3ac362c285e59e8cf4b7bbd73f5e7e5e15ffccb0e6c6724211398f9c1ee032d3"),
        ] {
            assert_eq!(signature(key, body.as_bytes()), format!("sha256={expected}"));
        }
    }

    #[test]
    fn non_ascii_leaves_as_lower_case_escapes() {
        let payload = json!({"a": format!("Å/é 👍{LONE_SURROGATE}\u{0}")});
        assert_eq!(emit(&payload, false), r#"{"a":"\u00c5/\u00e9 \ud83d\udc4d\ud83d\u0000"}"#.as_bytes());
        assert_eq!(emit(&json!("a/b"), true), br#""a\/b""#.as_slice());
    }
}
