//! Whether a webhook is Meta's, whichever of its products it is about: HMAC-SHA256 with the app's secret over the bytes as they
//! arrived. Re-serialised JSON has another signature (Meta signs the text with its `\uXXXX` escapes), so this comes before any
//! parsing (providers/whatsapp section 1.2, providers/messenger section 1.2, providers/instagram section 1).

use crate::providers::BadSignature;
use hmac::{Hmac, KeyInit, Mac};
use serde::Deserialize;
use sha2::Sha256;
use subtle::ConstantTimeEq;

/// The header that carries the signature: `sha256=` and 64 hex digits.
pub const SIGNATURE_HEADER: &str = "x-hub-signature-256";

/// Checks `header` (the value of [`SIGNATURE_HEADER`]) against the raw `body`. An empty secret matches nothing.
///
/// # Errors
/// If the signature is missing, malformed or not the body's.
pub fn verify(secret: &[u8], header: Option<&str>, body: &[u8]) -> Result<(), BadSignature> {
    matches(secret, &signature(header)?, body).then_some(()).ok_or(BadSignature::Wrong)
}

/// Like [`verify`] with several secrets that may have been used (a rotation, several apps): the place of the first that fits.
///
/// # Errors
/// If the signature is missing, malformed or fits none of the secrets.
pub fn verify_any<S: AsRef<[u8]>>(
    secrets: impl IntoIterator<Item = S>,
    header: Option<&str>,
    body: &[u8],
) -> Result<usize, BadSignature> {
    let signature = signature(header)?;
    secrets.into_iter().position(|secret| matches(secret.as_ref(), &signature, body)).ok_or(BadSignature::Wrong)
}

/// The query of the GET request by which Meta checks a callback URL.
#[derive(Debug, Default, Deserialize)]
pub struct Handshake {
    /// Always `subscribe`.
    #[serde(rename = "hub.mode")]
    pub mode: Option<String>,
    /// The token agreed on in the app's settings.
    #[serde(rename = "hub.verify_token")]
    pub verify_token: Option<String>,
    /// What to send back. Looks like a number; it is text.
    #[serde(rename = "hub.challenge")]
    pub challenge: Option<String>,
}

impl Handshake {
    /// The body of the answer (status 200), or `None` (status 403) if it was not asked with our token.
    pub fn answer(&self, verify_token: &[u8]) -> Option<&str> {
        let token = self.verify_token.as_deref()?.as_bytes();
        let ours = !verify_token.is_empty() && bool::from(token.ct_eq(verify_token));
        (ours && self.mode.as_deref() == Some("subscribe")).then_some(self.challenge.as_deref()).flatten()
    }
}

fn signature(header: Option<&str>) -> Result<[u8; 32], BadSignature> {
    let digits = header.ok_or(BadSignature::Missing)?.trim().strip_prefix("sha256=").ok_or(BadSignature::Malformed)?;
    let mut signature = [0; 32];
    hex::decode_to_slice(digits, &mut signature).map_err(|_| BadSignature::Malformed)?;
    Ok(signature)
}

fn matches(secret: &[u8], signature: &[u8; 32], body: &[u8]) -> bool {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes a key of any length");
    mac.update(body);
    !secret.is_empty() && mac.verify_slice(signature).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &[u8] = b"stand_in_app_secret_01";
    const BODY: &[u8] = br#"{"object":"whatsapp_business_account","entry":[]}"#;
    const SIGNATURE: &str = "sha256=dc26716b8858ed480cf28c851fa9d36175ef06114acbbdb8ea63a81a2d985a0b";

    #[test]
    fn the_exact_bytes_count() {
        let escaped = br#"{"object":"page","entry":[{"id":"1","time":1,"messaging":[{"message":{"mid":"m1","text":"\u00e5\u00e9 ok"}}]}]}"#;
        let plain =
            r#"{"object":"page","entry":[{"id":"1","time":1,"messaging":[{"message":{"mid":"m1","text":"åé ok"}}]}]}"#;
        assert_eq!((escaped.len(), plain.len()), (111, 103));
        for (key, body, signature) in [
            (KEY, BODY, "dc26716b8858ed480cf28c851fa9d36175ef06114acbbdb8ea63a81a2d985a0b"),
            (
                KEY,
                br#"{"object": "whatsapp_business_account", "entry": []}"#,
                "77d79e6dbce08fea92defac1be0e42ef94bfa2af1c27500303dd4fa1f6f8b6fb",
            ),
            (b"another_secret", BODY, "2e4c945d3639cf2b93779d82e7acaf55f2f064a8bcc101749de1fc9d2d8d3e7e"),
            (KEY, escaped, "4f50b2fd597051daf70777dec87cbfa54cc8b41d7dc75c182b7432c5044e0e18"),
            (KEY, plain.as_bytes(), "3ac362c285e59e8cf4b7bbd73f5e7e5e15ffccb0e6c6724211398f9c1ee032d3"),
        ] {
            assert_eq!(verify(key, Some(&format!("sha256={signature}")), body), Ok(()), "{signature}");
            assert_eq!(verify(key, Some(&format!("sha256={signature}")), &body[1..]), Err(BadSignature::Wrong));
        }
    }

    #[test]
    fn anything_but_a_whole_signature_is_refused() {
        for (header, expected) in [
            (None, BadSignature::Missing),
            (Some(""), BadSignature::Malformed),
            (Some("sha256="), BadSignature::Malformed),
            (Some(&SIGNATURE["sha256=".len()..]), BadSignature::Malformed),
            (Some(&SIGNATURE[..SIGNATURE.len() - 2]), BadSignature::Malformed),
            (Some(&format!("{SIGNATURE}00")), BadSignature::Malformed),
            (Some("sha1=dc26716b8858ed480cf28c851fa9d36175ef0611"), BadSignature::Malformed),
            (Some(&SIGNATURE.replace("dc", "zz")), BadSignature::Malformed),
            (Some(&SIGNATURE.replace("dc", "dd")), BadSignature::Wrong),
        ] {
            assert_eq!(verify(KEY, header, BODY), Err(expected), "{header:?}");
        }
    }

    #[test]
    fn an_empty_secret_opens_nothing() {
        let mut mac = Hmac::<Sha256>::new_from_slice(b"").unwrap();
        mac.update(BODY);
        let genuine = format!("sha256={}", hex::encode(mac.finalize().into_bytes()));
        assert_eq!(verify(b"", Some(&genuine), BODY), Err(BadSignature::Wrong));
    }

    #[test]
    fn any_of_several_secrets_may_have_signed() {
        assert_eq!(verify_any([b"old".as_slice(), KEY], Some(SIGNATURE), BODY), Ok(1));
        assert_eq!(verify_any([b"old", b"new"], Some(SIGNATURE), BODY), Err(BadSignature::Wrong));
        assert_eq!(verify_any(Vec::<Vec<u8>>::new(), Some(SIGNATURE), BODY), Err(BadSignature::Wrong));
    }

    #[test]
    fn the_handshake_is_answered_only_to_our_token() {
        let asked = |mode: &str, token: Option<&str>| Handshake {
            mode: Some(mode.into()),
            verify_token: token.map(Into::into),
            challenge: Some("1158201444".into()),
        };
        assert_eq!(asked("subscribe", Some("tok")).answer(b"tok"), Some("1158201444"));
        for (mode, token, ours) in [
            ("subscribe", Some("toc"), "tok"),
            ("subscribe", None, "tok"),
            ("other", Some("tok"), "tok"),
            ("subscribe", Some(""), ""),
        ] {
            assert_eq!(asked(mode, token).answer(ours.as_bytes()), None, "{mode} {token:?}");
        }
        assert_eq!(Handshake::default().answer(b"tok"), None);
    }
}
