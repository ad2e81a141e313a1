//! Whether a webhook is Twilio's: HMAC-SHA1 with the account's auth token over the URL it was sent to and, of a form, its
//! parameters (contract, section 4). The URL is the public one, byte for byte as it was configured: with its query and its
//! escapes, without its fragment.

use super::form;
use crate::providers::BadSignature;
use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use subtle::ConstantTimeEq;

/// The header that carries the signature: 20 bytes in base64.
pub const SIGNATURE_HEADER: &str = "x-twilio-signature";

const FORM: &str = "application/x-www-form-urlencoded";
/// Twilio sends some forty. They are put in order before anybody is known to have signed them.
const MAX_PARAMETERS: usize = 1000;
/// The parameter of the URL by which a body that is no form is signed along.
const BODY_HASH: &[u8] = b"bodySHA256";

/// What of a request is signed.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The URL it was sent to as its sender has it: our public base and the request's target as it came.
    pub url: &'a str,
    /// What the body is, by its header.
    pub content_type: Option<&'a str>,
    /// The body as it came; of a GET an empty one.
    pub body: &'a [u8],
}

/// Checks `header` (the value of [`SIGNATURE_HEADER`]) against the request. An empty token matches nothing.
///
/// # Errors
/// If the signature is missing, malformed or not the request's.
pub fn verify(token: &[u8], header: Option<&str>, request: &Request) -> Result<(), BadSignature> {
    verify_any([token], header, request).map(|_| ())
}

/// Like [`verify`] with several tokens that may have been used (a rotation, several accounts): the place of the first that fits.
///
/// # Errors
/// If the signature is missing, malformed or fits none of the tokens.
pub fn verify_any<S: AsRef<[u8]>>(
    tokens: impl IntoIterator<Item = S>,
    header: Option<&str>,
    request: &Request,
) -> Result<usize, BadSignature> {
    let signature = signature(header)?;
    if request.body.iter().filter(|byte| **byte == b'&').take(MAX_PARAMETERS).count() == MAX_PARAMETERS {
        return Err(BadSignature::Malformed);
    }
    let signed = Signed::of(request).ok_or(BadSignature::Wrong)?;
    tokens.into_iter().position(|token| signed.by(token.as_ref(), &signature)).ok_or(BadSignature::Wrong)
}

fn signature(header: Option<&str>) -> Result<[u8; 20], BadSignature> {
    let header = header.ok_or(BadSignature::Missing)?.trim();
    let signature = STANDARD.decode(header).map_err(|_| BadSignature::Malformed)?;
    signature.try_into().map_err(|_| BadSignature::Malformed)
}

/// What is signed, in the ways in which Twilio may have written the URL.
struct Signed<'a> {
    scheme: &'a str,
    authorities: Vec<Cow<'a, str>>,
    /// Path and query.
    target: &'a str,
    parameters: Vec<form::Pair<'a>>,
}

impl<'a> Signed<'a> {
    /// `None` if no signature can be that of the body.
    fn of(request: &Request<'a>) -> Option<Self> {
        let url = request.url.split('#').next().unwrap_or_default();
        let (scheme, rest) = url.split_once("://")?;
        let (authority, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let is_form = request
            .content_type
            .is_some_and(|kind| kind.get(..FORM.len()).is_some_and(|kind| kind.eq_ignore_ascii_case(FORM)));
        let mut parameters = Vec::new();
        if is_form {
            parameters.extend(form::pairs(request.body));
            // By name, and of a name its values; each of them once.
            parameters.sort_unstable();
            parameters.dedup();
        } else if !is_vouched_for(target, request.body) {
            return None;
        }
        Some(Self { scheme, authorities: authorities(scheme, authority), target, parameters })
    }

    fn by(&self, token: &[u8], signature: &[u8; 20]) -> bool {
        !token.is_empty() && self.authorities.iter().any(|authority| self.matches(token, authority, signature))
    }

    fn matches(&self, token: &[u8], authority: &str, signature: &[u8; 20]) -> bool {
        let mut mac = Hmac::<Sha1>::new_from_slice(token).expect("HMAC takes a key of any length");
        for part in [self.scheme, "://", authority, self.target] {
            mac.update(part.as_bytes());
        }
        for (name, value) in &self.parameters {
            mac.update(name);
            mac.update(value);
        }
        mac.verify_slice(signature).is_ok()
    }
}

/// Twilio signs with and without a port, whatever the URL has (contract, section 4, rule 2): as it is, without the port, and with
/// the scheme's own.
fn authorities<'a>(scheme: &str, authority: &'a str) -> Vec<Cow<'a, str>> {
    let host = authority.rfind('@').map_or(0, |at| at + 1);
    let port = authority[host..].rfind(':').map(|colon| host + colon);
    let port = port.filter(|colon| authority[colon + 1..].bytes().all(|byte| byte.is_ascii_digit()));
    let bare = &authority[..port.unwrap_or(authority.len())];
    let own = if scheme.eq_ignore_ascii_case("https") { 443 } else { 80 };
    let mut authorities = vec![Cow::Borrowed(authority)];
    for other in [Cow::Borrowed(bare), Cow::Owned(format!("{bare}:{own}"))] {
        if !authorities.contains(&other) {
            authorities.push(other);
        }
    }
    authorities
}

/// Whether the URL, which is signed, vouches for a body that is no form; nothing need vouch for an empty one.
fn is_vouched_for(target: &str, body: &[u8]) -> bool {
    let query = target.split_once('?').map_or("", |(_, query)| query);
    match form::pairs(query.as_bytes()).find(|(name, _)| **name == *BODY_HASH) {
        Some((_, hash)) => hash.to_ascii_lowercase().ct_eq(hex::encode(Sha256::digest(body)).as_bytes()).into(),
        None => body.is_empty(),
    }
}

#[cfg(test)]
mod tests;
