//! Links to files: whoever has one may have what it leads to, until it is over. So it is signed, lives for minutes, and leads to
//! one thing alone. Within a quarter of an hour the same thing has the same link, so that browsers and proxies fetch it once.

use crate::{
    domain::{
        ids::{MediaId, TenantId},
        media::{Linked, link_message},
    },
    seal::Keyring,
};
use chrono::{DateTime, Utc};

/// A link lives for one to two of these.
const STEP_S: i64 = 15 * 60;

/// Makes links and knows its own.
#[derive(Clone, Debug)]
pub struct Links(Keyring);

/// Why a link opens nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shut {
    /// We never made it.
    NotOurs,
    /// Its time is over.
    Over,
}

impl Links {
    /// Signs with the key that seals.
    pub fn new(keyring: Keyring) -> Self {
        Self(keyring)
    }

    /// The path of a link, and until when it opens.
    pub fn make(
        &self,
        tenant_id: TenantId,
        id: MediaId,
        linked: Linked,
        now: DateTime<Utc>,
    ) -> (String, DateTime<Utc>) {
        let expires = (now.timestamp() / STEP_S + 2) * STEP_S;
        let signature = self.0.sign(link_message(tenant_id, id, linked, expires).as_bytes());
        let path = format!("/media/{}/{}/{}/{expires}/{}", tenant_id.0, id.0, linked.as_str(), hex::encode(signature));
        (path, DateTime::from_timestamp(expires, 0).unwrap_or(now))
    }

    /// For how many seconds a link still opens.
    ///
    /// # Errors
    /// If it opens nothing.
    pub fn check(
        &self,
        (tenant_id, id, linked): (TenantId, MediaId, Linked),
        expires: i64,
        signature: &str,
        now: DateTime<Utc>,
    ) -> Result<i64, Shut> {
        let signature = hex::decode(signature).map_err(|_| Shut::NotOurs)?;
        if !self.0.signed(link_message(tenant_id, id, linked, expires).as_bytes(), &signature) {
            return Err(Shut::NotOurs);
        }
        let left = expires - now.timestamp();
        if left > 0 { Ok(left) } else { Err(Shut::Over) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::SecretString;

    fn links() -> Links {
        let keys = SecretString::from("test:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=");
        Links::new(Keyring::parse(&keys).unwrap())
    }

    #[test]
    fn a_link_opens_one_thing_until_it_is_over() {
        let (links, tenant, id) = (links(), TenantId::new(), MediaId::new());
        let at = |s: i64| DateTime::from_timestamp(s, 0).unwrap();
        let now = at(1_800_000_100);
        let (path, expires) = links.make(tenant, id, Linked::File, now);
        let (_, signature) = path.rsplit_once('/').unwrap();
        let check = |what, s| links.check(what, expires.timestamp(), signature, at(s));
        let this = (tenant, id, Linked::File);
        assert_eq!(check(this, 1_800_000_100), Ok(expires.timestamp() - 1_800_000_100));
        assert!((STEP_S..=2 * STEP_S).contains(&(expires - now).num_seconds()));
        assert_eq!(check(this, expires.timestamp()), Err(Shut::Over));
        for other in [
            (TenantId::new(), id, Linked::File),
            (tenant, MediaId::new(), Linked::File),
            (tenant, id, Linked::Thumbnail),
        ] {
            assert_eq!(check(other, 1_800_000_100), Err(Shut::NotOurs));
        }
        assert_eq!(links.check(this, expires.timestamp() + 1, signature, now), Err(Shut::NotOurs));
        assert_eq!(links.check(this, expires.timestamp(), "zz", now), Err(Shut::NotOurs));
    }

    #[test]
    fn links_stay_the_same_for_a_while() {
        let (links, tenant, id) = (links(), TenantId::new(), MediaId::new());
        let at = |s: i64| links.make(tenant, id, Linked::Thumbnail, DateTime::from_timestamp(s, 0).unwrap());
        assert_eq!(at(1_800_000_000), at(1_800_000_000 + STEP_S - 1));
        assert_ne!(at(1_800_000_000), at(1_800_000_000 + STEP_S));
    }
}
