//! Secrets at rest: sealed with XChaCha20-Poly1305 under a key from the environment. What a secret belongs to (its context)
//! is authenticated with it, so that a row's secret moved to another row does not open. Keys have names: the first of the
//! ring seals, every one opens, and `mijra secrets rotate` seals all anew with the first. The same ring signs what we hand out
//! and want back unchanged (links to files).

use base64::{Engine, engine::general_purpose::STANDARD};
use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Generate, Payload},
};
use hmac::{Hmac, Mac};
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;
use std::{fmt, sync::Arc};
use subtle::ConstantTimeEq;

const KEY_BYTES: usize = 32;
const NONCE_BYTES: usize = 24;

/// The keys of this installation. Cheap to clone; shows none of them.
#[derive(Clone)]
pub struct Keyring(Arc<[NamedKey]>);

struct NamedKey {
    id: String,
    cipher: XChaCha20Poly1305,
    /// Signs; made of the key, so that what a signature gives away says nothing of the key that seals.
    signer: Hmac<Sha256>,
}

/// A sealed secret, as it is stored.
#[derive(Clone, PartialEq, Eq)]
pub struct Sealed {
    /// Which key opens it.
    pub key_id: String,
    /// Nonce, ciphertext and tag.
    pub bytes: Vec<u8>,
}

/// Why a key ring cannot be read. Never says what was in it.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BadKeyring {
    /// Nothing there.
    #[error("no sealing key is set: make one with `openssl rand -base64 32` and set it as `2026-01:<the key>`")]
    Empty,
    /// One entry is not `id:base64`.
    #[error("sealing key number {0} is not of the form `id:base64`; an id has 1–32 of a–z, A–Z, 0–9, `-`, `_`")]
    Shape(usize),
    /// One entry's key is not 32 bytes of base64.
    #[error("sealing key {0} is not 32 bytes in base64")]
    Key(String),
    /// Two entries have the same id.
    #[error("sealing key {0} is there twice")]
    Twice(String),
}

/// Why a secret does not open.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CannotOpen {
    /// Its key is not in the ring.
    #[error("sealed with key {0}, which is not among the configured ones")]
    UnknownKey(String),
    /// The key, the context or a bit of it is another.
    #[error("sealed bytes do not open: another key of the same name, another owner, or damage")]
    Tampered,
}

impl Keyring {
    /// Reads `id:base64,id2:base64`: the first seals, all open.
    ///
    /// # Errors
    /// If it is not of that form; the message names the entry, never a key.
    pub fn parse(text: &SecretString) -> Result<Self, BadKeyring> {
        let mut keys: Vec<NamedKey> = Vec::new();
        for (index, entry) in text.expose_secret().split(',').map(str::trim).filter(|e| !e.is_empty()).enumerate() {
            let (id, key) = entry.split_once(':').ok_or(BadKeyring::Shape(index + 1))?;
            let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
            if id.is_empty() || id.len() > 32 || !id.bytes().all(plain) {
                return Err(BadKeyring::Shape(index + 1));
            }
            if keys.iter().any(|other| other.id == id) {
                return Err(BadKeyring::Twice(id.to_owned()));
            }
            let key = STANDARD.decode(key).ok().and_then(|key| <[u8; KEY_BYTES]>::try_from(key).ok());
            let key = key.ok_or_else(|| BadKeyring::Key(id.to_owned()))?;
            keys.push(NamedKey {
                id: id.to_owned(),
                cipher: XChaCha20Poly1305::new(&key.into()),
                signer: signer(&key),
            });
        }
        if keys.is_empty() { Err(BadKeyring::Empty) } else { Ok(Self(keys.into())) }
    }

    /// The name of the key that seals.
    pub fn sealing_key_id(&self) -> &str {
        &self.0[0].id
    }

    /// Seals a secret of `context` (such as `channel_account/<id>`).
    pub fn seal(&self, context: &[u8], plaintext: &[u8]) -> Sealed {
        let key = &self.0[0];
        let nonce = XNonce::generate();
        let sealed = key
            .cipher
            .encrypt(&nonce, Payload { msg: plaintext, aad: context })
            .expect("a secret is far below the cipher's limit of 256 GiB");
        let bytes = [nonce.as_slice(), &sealed].concat();
        Sealed { key_id: key.id.clone(), bytes }
    }

    /// Signs a message with the key that seals.
    pub fn sign(&self, message: &[u8]) -> [u8; 32] {
        tag(&self.0[0], message)
    }

    /// Whether one of the keys signed the message so. Takes as long whatever is wrong with the signature.
    pub fn signed(&self, message: &[u8], signature: &[u8]) -> bool {
        self.0.iter().fold(false, |signed, key| signed | bool::from(tag(key, message).as_slice().ct_eq(signature)))
    }

    /// Opens what was sealed for `context`.
    ///
    /// # Errors
    /// If its key is not in the ring, or if it is not what was sealed for this context.
    pub fn open(&self, key_id: &str, context: &[u8], sealed: &[u8]) -> Result<Vec<u8>, CannotOpen> {
        let key = self.0.iter().find(|key| key.id == key_id);
        let key = key.ok_or_else(|| CannotOpen::UnknownKey(key_id.to_owned()))?;
        let (nonce, sealed) = sealed.split_at_checked(NONCE_BYTES).ok_or(CannotOpen::Tampered)?;
        let nonce: [u8; NONCE_BYTES] = nonce.try_into().map_err(|_| CannotOpen::Tampered)?;
        key.cipher.decrypt(&nonce.into(), Payload { msg: sealed, aad: context }).map_err(|_| CannotOpen::Tampered)
    }
}

fn signer(key: &[u8; KEY_BYTES]) -> Hmac<Sha256> {
    let of_key = |key: &[u8]| Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    of_key(&of_key(key).chain_update(b"mijra signatures").finalize().into_bytes())
}

fn tag(key: &NamedKey, message: &[u8]) -> [u8; 32] {
    key.signer.clone().chain_update(message).finalize().into_bytes().into()
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.iter().map(|key| &key.id)).finish()
    }
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealed({}, {} bytes)", self.key_id, self.bytes.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(text: &str) -> Result<Keyring, BadKeyring> {
        Keyring::parse(&SecretString::from(text))
    }

    fn key(byte: u8) -> String {
        STANDARD.encode([byte; KEY_BYTES])
    }

    #[test]
    fn what_a_key_of_the_ring_signed_is_known_and_nothing_else() {
        let (old, new) = (STANDARD.encode([1; 32]), STANDARD.encode([2; 32]));
        let ring = |text: String| Keyring::parse(&SecretString::from(text)).unwrap();
        let (before, after) = (ring(format!("1:{old}")), ring(format!("2:{new},1:{old}")));
        let signature = before.sign(b"link");
        assert!(after.signed(b"link", &signature), "links survive a rotation");
        assert_ne!(after.sign(b"link"), signature);
        assert!(!before.signed(b"link", &after.sign(b"link")));
        assert!(!after.signed(b"another", &signature) && !after.signed(b"link", &signature[..31]));
    }

    #[test]
    fn what_is_sealed_opens_with_the_same_key_and_context_only() {
        let ring = ring(&format!("a:{}", key(1))).unwrap();
        let sealed = ring.seal(b"channel_account/1", b"EAAG-token");
        assert_eq!(ring.open(&sealed.key_id, b"channel_account/1", &sealed.bytes).unwrap(), b"EAAG-token");
        assert_eq!(ring.open(&sealed.key_id, b"channel_account/2", &sealed.bytes), Err(CannotOpen::Tampered));
        let other = self::ring(&format!("a:{}", key(2))).unwrap();
        assert_eq!(other.open("a", b"channel_account/1", &sealed.bytes), Err(CannotOpen::Tampered));
    }

    #[test]
    fn any_changed_or_missing_byte_keeps_it_shut() {
        let ring = ring(&format!("a:{}", key(1))).unwrap();
        let sealed = ring.seal(b"c", b"secret").bytes;
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert_eq!(ring.open("a", b"c", &changed), Err(CannotOpen::Tampered), "changed at {at}");
            assert_eq!(ring.open("a", b"c", &sealed[..at]), Err(CannotOpen::Tampered), "cut at {at}");
        }
    }

    #[test]
    fn after_a_rotation_the_old_key_still_opens_and_the_new_one_seals() {
        let old = ring(&format!("2026-01:{}", key(1))).unwrap();
        let sealed = old.seal(b"c", b"secret");
        let both = ring(&format!("2026-11:{}, 2026-01:{}", key(2), key(1))).unwrap();
        assert_eq!(both.open(&sealed.key_id, b"c", &sealed.bytes).unwrap(), b"secret");
        let again = both.seal(b"c", b"secret");
        assert_eq!((again.key_id.as_str(), both.sealing_key_id()), ("2026-11", "2026-11"));
        assert_eq!(old.open(&again.key_id, b"c", &again.bytes), Err(CannotOpen::UnknownKey("2026-11".into())));
    }

    #[test]
    fn the_same_secret_is_never_sealed_the_same_twice() {
        let ring = ring(&format!("a:{}", key(1))).unwrap();
        assert_ne!(ring.seal(b"c", b"secret").bytes, ring.seal(b"c", b"secret").bytes);
    }

    #[test]
    fn a_bad_ring_is_refused_without_showing_it() {
        for (text, expected) in [
            (String::new(), BadKeyring::Empty),
            (" , ".into(), BadKeyring::Empty),
            (key(1), BadKeyring::Shape(1)),
            (format!("a:{},:{}", key(1), key(2)), BadKeyring::Shape(2)),
            ("a:hunter2".into(), BadKeyring::Key("a".into())),
            (format!("a:{},a:{}", key(1), key(2)), BadKeyring::Twice("a".into())),
        ] {
            let error = ring(&text).unwrap_err();
            assert_eq!(error, expected);
            assert!(!error.to_string().contains("hunter2"));
        }
    }

    #[test]
    fn debug_shows_names_only() {
        let ring = ring(&format!("a:{}", key(1))).unwrap();
        assert_eq!(format!("{ring:?}"), r#"{"a"}"#);
        let shown = format!("{:?}", ring.seal(b"c", b"secret"));
        assert_eq!(shown, "Sealed(a, 46 bytes)");
    }
}
