//! Where providers keep files, and nobody else's business.

use super::{Failure, Next, PRIVATE_ADDRESS, addresses};
use std::net::IpAddr;
use url::{Host, Url};

/// Whose file it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OfProvider {
    /// Meta's: WhatsApp, Messenger and Instagram.
    Meta,
    /// Twilio's API, which takes credentials and leads on.
    TwilioApi,
    /// Where Twilio's API leads to.
    TwilioFiles,
}

impl OfProvider {
    /// The hosts, with all below them.
    fn hosts(self) -> &'static [&'static str] {
        match self {
            // `lookaside.fbsbx.com` (providers/whatsapp section 9, providers/instagram section 2.1), `scontent….fbcdn.net`,
            // `….cdninstagram.com`; the API itself.
            OfProvider::Meta => &[
                "fbsbx.com",
                "fbcdn.net",
                "cdninstagram.com",
                "whatsapp.net",
                "graph.facebook.com",
                "graph.instagram.com",
            ],
            OfProvider::TwilioApi => &["api.twilio.com"],
            // `….twiliocdn.com`, S3 (providers/twilio section 12).
            OfProvider::TwilioFiles => &["twiliocdn.com", "s3.amazonaws.com", "s3-external-1.amazonaws.com"],
        }
    }
}

/// Where one may go. To what an operator adds: `files.example.com` is as a host of a provider's, with TLS and a public address;
/// `http://127.0.0.1:8081` is a stand-in for all of them, at this very port, wherever it is.
#[derive(Clone, Debug, Default)]
pub struct Hosts {
    more: Vec<String>,
    stand_ins: Vec<(String, u16)>,
}

/// An entry of the list that means nothing.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is neither a host (`files.example.com`) nor a stand-in's address (`http://127.0.0.1:8081`)")]
pub struct BadHost(String);

impl Hosts {
    /// What an operator adds, with commas between.
    ///
    /// # Errors
    /// If an entry means nothing.
    pub fn parse(list: &str) -> Result<Self, BadHost> {
        let mut hosts = Self::default();
        for entry in list.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
            let bad = || BadHost(entry.to_owned());
            if let Some(rest) = entry.strip_prefix("http://") {
                let url: Url = entry.parse().map_err(|_| bad())?;
                if rest.contains(['/', '@', '?', '#']) {
                    return Err(bad());
                }
                hosts.trust(&url);
            } else {
                let url: Url = format!("https://{entry}").parse().map_err(|_| bad())?;
                match url.host() {
                    Some(Host::Domain(name)) if name.eq_ignore_ascii_case(entry) => hosts.more.push(name.to_owned()),
                    _ => return Err(bad()),
                }
            }
        }
        Ok(hosts)
    }

    /// Where a provider's API is said to be: without TLS, as none is, it is a stand-in; else a host like the provider's own.
    pub fn trust(&mut self, base: &Url) {
        match (base.scheme(), base.host_str(), base.port_or_known_default()) {
            ("http", Some(host), Some(port)) => self.stand_ins.push((host.to_owned(), port)),
            _ => self.more.extend(base.domain().map(str::to_owned)),
        }
    }

    /// Whether somebody may go there for a file of this provider's.
    pub(super) fn check(&self, url: &Url, of: OfProvider) -> Result<(), Failure> {
        let refuse = |code, reason: String| Err(Failure::new(code, Next::Refuse, reason));
        let (Some(host), Some(port)) = (url.host(), url.port_or_known_default()) else {
            return refuse("bad_address", "The file's address is not one of the web.".to_owned());
        };
        if !url.username().is_empty() || url.password().is_some() {
            return refuse("bad_address", "The file's address holds credentials.".to_owned());
        }
        if matches!(url.scheme(), "http" | "https")
            && self.stand_ins.iter().any(|(name, at)| Some(name.as_str()) == url.host_str() && *at == port)
        {
            return Ok(());
        }
        let literal = match &host {
            Host::Ipv4(address) => Some(IpAddr::V4(*address)),
            Host::Ipv6(address) => Some(IpAddr::V6(*address)),
            Host::Domain(_) => None,
        };
        if let Some(address) = literal.filter(|address| !addresses::is_public(*address)) {
            return refuse(
                PRIVATE_ADDRESS,
                format!("The file's address is refused: {address} is not on the public internet."),
            );
        }
        let Some(name) = url.domain().filter(|name| self.is_of(name, of)) else {
            return refuse("host_not_allowed", format!("The provider keeps no files at {host}."));
        };
        if url.scheme() != "https" || port != 443 {
            return refuse("not_secure", format!("Files of {name} are fetched over HTTPS and at its port only."));
        }
        Ok(())
    }

    fn is_of(&self, name: &str, of: OfProvider) -> bool {
        let below = |host: &str| name == host || name.strip_suffix(host).is_some_and(|rest| rest.ends_with('.'));
        of.hosts().iter().any(|host| below(host)) || self.more.iter().any(|host| below(host))
    }

    /// Whether this name is a stand-in's, which may be anywhere.
    pub(super) fn is_stand_in(&self, name: &str) -> bool {
        self.stand_ins.iter().any(|(host, _)| host == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(hosts: &Hosts, url: &str, of: OfProvider) -> &'static str {
        hosts.check(&url.parse().unwrap(), of).err().map_or("", |failure| failure.code)
    }

    #[test]
    fn a_provider_is_followed_to_its_own_hosts_alone() {
        let hosts = Hosts::default();
        for (url, of, expected) in [
            ("https://lookaside.fbsbx.com/x?y", OfProvider::Meta, ""),
            ("https://scontent.xx.fbcdn.net/x", OfProvider::Meta, ""),
            ("https://LOOKASIDE.FBSBX.COM./x", OfProvider::Meta, "host_not_allowed"),
            ("https://evil-fbsbx.com/x", OfProvider::Meta, "host_not_allowed"),
            ("https://fbsbx.com.evil.example/x", OfProvider::Meta, "host_not_allowed"),
            ("https://api.twilio.com/x", OfProvider::Meta, "host_not_allowed"),
            ("https://api.twilio.com/x", OfProvider::TwilioApi, ""),
            ("https://media.twiliocdn.com/x", OfProvider::TwilioApi, "host_not_allowed"),
            ("https://media.twiliocdn.com/x", OfProvider::TwilioFiles, ""),
            ("https://media.twiliocdn.com.s3-external-1.amazonaws.com/x", OfProvider::TwilioFiles, ""),
            ("https://ec2.amazonaws.com/x", OfProvider::TwilioFiles, "host_not_allowed"),
            ("http://lookaside.fbsbx.com/x", OfProvider::Meta, "not_secure"),
            ("https://lookaside.fbsbx.com:8443/x", OfProvider::Meta, "not_secure"),
            ("https://user:word@lookaside.fbsbx.com/x", OfProvider::Meta, "bad_address"),
            ("file:///etc/passwd", OfProvider::Meta, "bad_address"),
            ("https://169.254.169.254/latest/meta-data", OfProvider::Meta, "private_address"),
            ("http://169.254.169.254/latest/meta-data", OfProvider::Meta, "private_address"),
            ("http://2852039166/latest", OfProvider::Meta, "private_address"),
            ("http://0x7f.1/", OfProvider::Meta, "private_address"),
            ("http://[::ffff:169.254.169.254]/", OfProvider::Meta, "private_address"),
            ("https://8.8.8.8/x", OfProvider::Meta, "host_not_allowed"),
        ] {
            assert_eq!(code(&hosts, url, of), expected, "{url}");
        }
    }

    #[test]
    fn an_operator_adds_hosts_and_stand_ins() {
        let hosts = Hosts::parse(" files.example.com, http://127.0.0.1:8081 ,").unwrap();
        for (url, expected) in [
            ("https://a.files.example.com/x", ""),
            ("http://files.example.com/x", "not_secure"),
            ("http://127.0.0.1:8081/x", ""),
            ("http://127.0.0.1:8082/x", "private_address"),
            ("http://127.0.0.2:8081/x", "private_address"),
        ] {
            assert_eq!(code(&hosts, url, OfProvider::TwilioFiles), expected, "{url}");
        }
        assert!(hosts.is_stand_in("127.0.0.1") && !hosts.is_stand_in("files.example.com"));
        for wrong in ["http://", "a b", "127.0.0.1", "https://x", "http://x/y", "x:80", "http://u@x:1"] {
            assert_eq!(Hosts::parse(wrong).unwrap_err(), BadHost(wrong.to_owned()), "{wrong}");
        }
    }
}
