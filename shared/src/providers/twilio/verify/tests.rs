use super::*;
use serde::Deserialize;

const FORM_TYPE: Option<&str> = Some("application/x-www-form-urlencoded; charset=utf-8");
const URL: &str = "https://mycompany.com/myapp.php?foo=1&bar=2";
const CALL: &str = "CallSid=CA1234567890ABCDE&Caller=%2B14158675309&Digits=1234&From=%2B14158675309&To=%2B18005551212";
const SIGNATURE: &str = "RSOYDt4T1cUTdK1PDd93/VVr8B8=";

fn check(token: &str, signature: &str, url: &str, content_type: Option<&str>, body: &str) -> Result<(), BadSignature> {
    verify(token.as_bytes(), Some(signature), &Request { url, content_type, body: body.as_bytes() })
}

#[test]
fn the_documented_vectors_agree() {
    for (url, body, signature) in [
        (URL, CALL, SIGNATURE),
        ("https://mycompany.com:443/myapp.php?foo=1&bar=2", CALL, "kvajT1Ptam85bY51eRf/AJRuM3w="),
        ("http://mycompany.com:80/myapp.php?foo=1&bar=2", CALL, "0ZXoZLH/DfblKGATFgpif+LLRf4="),
        ("http://mycompany.com:1234/myapp.php?foo=1&bar=2", CALL, "Zmvh+3yNM1Phv2jhDCwEM3q5ebU="),
        (URL, "Digits=5678&Digits=1234&Digits=1234&Sid=CA123&SidAccount=AC123", "IK+Dwps556ElfBT0I3Rgjkr1wJU="),
    ] {
        assert_eq!(check("12345", signature, url, FORM_TYPE, body), Ok(()), "{url}");
        assert_eq!(check("12345", signature, url, FORM_TYPE, &format!("{body}&x=")), Err(BadSignature::Wrong));
        assert_eq!(check("12346", signature, url, FORM_TYPE, body), Err(BadSignature::Wrong));
    }
    let url = format!("{URL}&bodySHA256=0a1ff7634d9ab3b95db5c9a2dfe9416e41502b283a80c7cf19632632f96e6620");
    let body = r#"{"property": "value", "boolean": true}"#;
    assert_eq!(check("12345", "a9nBmqA0ju/hNViExpshrM61xv4=", &url, Some("application/json"), body), Ok(()));
    let own = "AccountSid=AC00000000000000000000000000000001&ApiVersion=2010-04-01&Body=H%C3%A9llo+%2B+50%25+off%3F\
        &From=whatsapp%3A%2B14155550123&MessageSid=SM00000000000000000000000000000002&NumMedia=0&ProfileName=Zo%C3%AB\
        &To=whatsapp%3A%2B14155559876&WaId=14155550123";
    let url = "https://hooks.example.com/twilio/t_42/inbound";
    assert_eq!(check("0123456789abcdef0123456789abcdef", "dQvKLuSbdQRXEeEguXdrhYxMQ/g=", url, FORM_TYPE, own), Ok(()));
}

#[derive(Deserialize)]
struct Vectors {
    vectors: Vec<Vector>,
}

#[derive(Deserialize)]
struct Vector {
    name: String,
    token: String,
    url: String,
    content_type: Option<String>,
    body: String,
    signature: String,
    genuine: bool,
}

#[test]
fn what_the_providers_own_library_says_is_what_we_say() {
    let Vectors { vectors } = serde_json::from_str(include_str!("vectors.json")).unwrap();
    assert!(vectors.len() >= 20);
    for Vector { name, token, url, content_type, body, signature, genuine } in vectors {
        let ours = check(&token, &signature, &url, content_type.as_deref(), &body);
        assert_eq!(ours, if genuine { Ok(()) } else { Err(BadSignature::Wrong) }, "{name}");
    }
}

#[test]
fn the_fragment_is_never_signed() {
    assert_eq!(check("12345", SIGNATURE, &format!("{URL}#rc=5&rp=all"), FORM_TYPE, CALL), Ok(()));
}

#[test]
fn a_body_that_nothing_vouches_for_is_refused() {
    // Signed for an empty body; somebody who saw it sends another.
    let mut mac = Hmac::<Sha1>::new_from_slice(b"12345").unwrap();
    mac.update(URL.as_bytes());
    let signed = STANDARD.encode(mac.finalize().into_bytes());
    let sent = |content_type, body| check("12345", &signed, URL, content_type, body);
    assert_eq!(sent(None, ""), Ok(()));
    assert_eq!(sent(Some("application/json"), ""), Ok(()));
    for (content_type, body) in [
        (None, "MessageSid=SM1"),
        (FORM_TYPE, "MessageSid=SM1"),
        (Some("application/json"), "{}"),
        (Some("text/plain"), "MessageSid=SM1"),
        (Some("multipart/form-data"), "MessageSid=SM1"),
        (Some(""), "x"),
    ] {
        assert_eq!(sent(content_type, body), Err(BadSignature::Wrong), "{content_type:?} {body}");
    }
}

#[test]
fn anything_but_a_whole_signature_is_refused() {
    let request = Request { url: URL, content_type: FORM_TYPE, body: CALL.as_bytes() };
    for (header, expected) in [
        (None, BadSignature::Missing),
        (Some(""), BadSignature::Malformed),
        (Some("RSOYDt4T1cUTdK1PDd93/VVr8B8"), BadSignature::Malformed),
        (Some("UlNPWURUNFQ="), BadSignature::Malformed),
        (Some("sha256=dc26716b8858ed480cf28c851fa9d36175ef06114acbbdb8ea63a81a2d985a0b"), BadSignature::Malformed),
        (Some("RSOYDt4T1cUTdK1PDd93/VVr8B9="), BadSignature::Malformed),
        (Some("SSOYDt4T1cUTdK1PDd93/VVr8B8="), BadSignature::Wrong),
    ] {
        assert_eq!(verify(b"12345", header, &request), Err(expected), "{header:?}");
    }
    for url in ["", "mycompany.com/myapp.php", "/myapp.php"] {
        assert_eq!(check("12345", SIGNATURE, url, FORM_TYPE, CALL), Err(BadSignature::Wrong), "{url}");
    }
}

#[test]
fn any_of_several_tokens_may_have_signed_and_an_empty_one_has_not() {
    let request = Request { url: URL, content_type: FORM_TYPE, body: CALL.as_bytes() };
    assert_eq!(verify_any(["old", "12345"], Some(SIGNATURE), &request), Ok(1));
    assert_eq!(verify_any(["old", "new"], Some(SIGNATURE), &request), Err(BadSignature::Wrong));
    assert_eq!(verify_any(Vec::<Vec<u8>>::new(), Some(SIGNATURE), &request), Err(BadSignature::Wrong));
    let mut mac = Hmac::<Sha1>::new_from_slice(b"").unwrap();
    mac.update(URL.as_bytes());
    let signed = STANDARD.encode(mac.finalize().into_bytes());
    assert_eq!(check("", &signed, URL, None, ""), Err(BadSignature::Wrong));
}

#[test]
fn a_port_is_one_of_the_host_alone() {
    for (scheme, authority, expected) in [
        ("https", "h", &["h", "h:443"] as &[_]),
        ("https", "h:443", &["h:443", "h"]),
        ("https", "h:8443", &["h:8443", "h", "h:443"]),
        ("http", "h:80", &["h:80", "h"]),
        ("https", "u:1@h", &["u:1@h", "u:1@h:443"]),
        ("https", "u:1@h:8443", &["u:1@h:8443", "u:1@h", "u:1@h:443"]),
        ("https", "[::1]", &["[::1]", "[::1]:443"]),
        ("https", "[::1]:8443", &["[::1]:8443", "[::1]", "[::1]:443"]),
    ] {
        assert_eq!(authorities(scheme, authority), expected, "{authority}");
    }
}
