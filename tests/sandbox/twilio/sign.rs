//! `X-Twilio-Signature` (twilio contract page, section 4).

use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};

/// Over a form: the URL, then every name in the order of its bytes with each of its different values in order.
pub fn form(token: &str, url: &str, parameters: &[(String, String)]) -> String {
    let mut sorted: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (name, value) in parameters {
        sorted.entry(name).or_default().insert(value);
    }
    let mut data = url.to_owned();
    for (name, values) in sorted {
        for value in values {
            data.push_str(name);
            data.push_str(value);
        }
    }
    self::url(token, &data)
}

/// Over a URL alone: a GET, or a body whose digest is in the URL.
pub fn url(token: &str, url: &str) -> String {
    let mut mac = Hmac::<Sha1>::new_from_slice(token.as_bytes()).expect("HMAC takes keys of any length");
    mac.update(url.as_bytes());
    STANDARD.encode(mac.finalize().into_bytes())
}

/// The value of `bodySHA256`.
pub fn digest(body: &[u8]) -> String {
    hex::encode(Sha256::digest(body))
}

/// The URL with its scheme's default port in place of whatever port it has: the provider's back end is not consistent.
pub fn with_default_port(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let at = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(at);
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    };
    let port = if scheme == "http" { 80 } else { 443 };
    format!("{scheme}://{host}:{port}{path}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    /// The vectors of the contract page, which are those of the provider's own libraries.
    #[test]
    fn signatures_are_those_of_the_contract() {
        const URL: &str = "https://mycompany.com/myapp.php?foo=1&bar=2";
        let call = parameters(&[
            ("CallSid", "CA1234567890ABCDE"),
            ("Caller", "+14158675309"),
            ("Digits", "1234"),
            ("From", "+14158675309"),
            ("To", "+18005551212"),
        ]);
        let plain = URL.replace("https", "http").replace(".com", ".com:1234");
        for (url, expected) in [
            (URL.to_owned(), "RSOYDt4T1cUTdK1PDd93/VVr8B8="),
            (with_default_port(URL), "kvajT1Ptam85bY51eRf/AJRuM3w="),
            (with_default_port(&plain), "0ZXoZLH/DfblKGATFgpif+LLRf4="),
            (plain, "Zmvh+3yNM1Phv2jhDCwEM3q5ebU="),
        ] {
            assert_eq!(form("12345", &url, &call), expected, "{url}");
        }
        let repeated = parameters(&[
            ("Digits", "5678"),
            ("Digits", "1234"),
            ("Digits", "1234"),
            ("Sid", "CA123"),
            ("SidAccount", "AC123"),
        ]);
        assert_eq!(form("12345", URL, &repeated), "IK+Dwps556ElfBT0I3Rgjkr1wJU=");
        let body = br#"{"property": "value", "boolean": true}"#;
        assert_eq!(digest(body), "0a1ff7634d9ab3b95db5c9a2dfe9416e41502b283a80c7cf19632632f96e6620");
        assert_eq!(url("12345", &format!("{URL}&bodySHA256={}", digest(body))), "a9nBmqA0ju/hNViExpshrM61xv4=");
    }

    #[test]
    fn values_are_signed_as_they_are_decoded() {
        let message = parameters(&[
            ("AccountSid", "AC00000000000000000000000000000001"),
            ("ApiVersion", "2010-04-01"),
            ("Body", "Héllo + 50% off?"),
            ("From", "whatsapp:+14155550123"),
            ("MessageSid", "SM00000000000000000000000000000002"),
            ("NumMedia", "0"),
            ("ProfileName", "Zoë"),
            ("To", "whatsapp:+14155559876"),
            ("WaId", "14155550123"),
        ]);
        let signed =
            form("0123456789abcdef0123456789abcdef", "https://hooks.example.com/twilio/t_42/inbound", &message);
        assert_eq!(signed, "dQvKLuSbdQRXEeEguXdrhYxMQ/g=");
    }

    #[test]
    fn default_port_replaces_any_other() {
        assert_eq!(with_default_port("https://h.example/x?a=b:1"), "https://h.example:443/x?a=b:1");
        assert_eq!(with_default_port("http://127.0.0.1:8080"), "http://127.0.0.1:80");
    }
}
