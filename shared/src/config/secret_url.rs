//! URLs with passwords in them: shown without.

use super::Mistake;
use secrecy::{ExposeSecret, SecretString};
use std::{collections::BTreeMap, fmt};
use url::Url;

/// A URL whose password is not shown.
#[derive(Clone)]
pub struct SecretUrl(SecretString);

/// Several of them, by name: `name=url,name2=url2`.
#[derive(Clone)]
pub struct SecretUrls(SecretString);

impl SecretUrl {
    /// The whole URL.
    pub fn secret(&self) -> &SecretString {
        &self.0
    }
}

impl SecretUrls {
    /// Each with its name.
    ///
    /// # Errors
    /// If it is not of that form, or a name is there twice.
    pub fn by_name(&self, setting: &'static str) -> Result<BTreeMap<String, SecretString>, Mistake> {
        let mut urls = BTreeMap::new();
        let entries = self.0.expose_secret().split(',').map(str::trim).filter(|entry| !entry.is_empty());
        for (index, entry) in entries.enumerate() {
            let mistake = |problem: String| Mistake { setting, problem };
            let named = entry.split_once('=').filter(|(name, url)| is_name(name) && Url::parse(url).is_ok());
            let (name, url) = named.ok_or_else(|| {
                mistake(format!("entry {} is not `name=url`; names have 1–63 of a–z, 0–9, `-`, `_`", index + 1))
            })?;
            if urls.insert(name.to_owned(), SecretString::from(url)).is_some() {
                return Err(mistake(format!("{name} is there twice")));
            }
        }
        Ok(urls)
    }
}

fn is_name(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'_';
    (1..=63).contains(&text.len()) && text.bytes().all(plain)
}

impl From<&str> for SecretUrl {
    fn from(url: &str) -> Self {
        Self(url.into())
    }
}

impl From<&str> for SecretUrls {
    fn from(urls: &str) -> Self {
        Self(urls.into())
    }
}

impl From<String> for SecretUrl {
    fn from(url: String) -> Self {
        Self(url.into())
    }
}

impl From<String> for SecretUrls {
    fn from(urls: String) -> Self {
        Self(urls.into())
    }
}

impl fmt::Display for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Url::parse(self.0.expose_secret()) {
            Ok(mut url) => {
                if url.password().is_some() {
                    let _ = url.set_password(Some("***"));
                }
                // Options after the question mark can hold passwords, too.
                url.set_query(None);
                url.fmt(f)
            }
            Err(_) => f.write_str("(not a URL)"),
        }
    }
}

impl fmt::Debug for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretUrl({self})")
    }
}

impl fmt::Debug for SecretUrls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretUrls(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_but_the_password_is_shown() {
        let url = SecretUrl::from("postgres://worker:hunter2@db:5432/mijra?sslmode=require&password=hunter3");
        assert_eq!(url.to_string(), "postgres://worker:***@db:5432/mijra");
        assert_eq!(SecretUrl::from("hunter2").to_string(), "(not a URL)");
        assert_eq!(SecretUrl::from("redis://:hunter2@cache").to_string(), "redis://:***@cache");
    }

    #[test]
    fn urls_are_read_by_name() {
        let urls = SecretUrls::from("big=postgres://a/b?x=y, eu-1=postgres://c/d,").by_name("PLACEMENTS").unwrap();
        assert_eq!(urls.keys().collect::<Vec<_>>(), ["big", "eu-1"]);
        assert_eq!(urls["big"].expose_secret(), "postgres://a/b?x=y");
        assert!(SecretUrls::from("").by_name("PLACEMENTS").unwrap().is_empty());
        for wrong in ["postgres://a/b", "Big=postgres://a/b", "a=b", "a=postgres://a/b,a=postgres://a/c"] {
            assert!(SecretUrls::from(wrong).by_name("PLACEMENTS").is_err(), "{wrong}");
        }
    }
}
