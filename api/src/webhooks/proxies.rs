//! The proxies that stand before us, and what they say of a request: where it came from and which URL it was sent to. Anybody
//! can write such headers; they are believed from our own proxies alone.

use axum::http::{HeaderMap, HeaderName};
use std::{
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
/// A hop that is no address is kept no longer than this.
const MAX_HOP_CHARACTERS: usize = 64;

/// Addresses of proxies of ours.
#[derive(Clone, Debug, Default)]
pub struct Proxies(Vec<Network>);

/// An address, or all that begin with the same bits (`10.0.0.0/8`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u32,
}

/// Why a text is no network.
#[derive(Debug, thiserror::Error)]
#[error("is no address and no network like 10.0.0.0/8")]
pub struct NotANetwork;

impl FromStr for Network {
    type Err = NotANetwork;

    fn from_str(text: &str) -> Result<Self, NotANetwork> {
        let (address, bits) = text.trim().split_once('/').map_or((text.trim(), None), |(a, bits)| (a, Some(bits)));
        let address: IpAddr = address.parse().map_err(|_| NotANetwork)?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(longest), str::parse).map_err(|_| NotANetwork)?;
        if bits <= longest { Ok(Self { address, bits }) } else { Err(NotANetwork) }
    }
}

impl Network {
    fn contains(&self, address: IpAddr) -> bool {
        let same = |a: u128, b: u128, length: u32| (a ^ b).checked_shr(length - self.bits).unwrap_or(0) == 0;
        match (self.address, address) {
            (IpAddr::V4(a), IpAddr::V4(b)) => same(a.to_bits().into(), b.to_bits().into(), 32),
            (IpAddr::V6(a), IpAddr::V6(b)) => same(a.to_bits(), b.to_bits(), 128),
            _ => false,
        }
    }
}

impl Proxies {
    /// These, and nobody else.
    pub fn new(networks: Vec<Network>) -> Self {
        Self(networks)
    }

    /// Where a request came from: the last address on its way that is no proxy of ours. Those before it are the sender's word.
    pub(super) fn source(&self, headers: &HeaderMap, peer: Option<SocketAddr>) -> String {
        let Some(peer) = peer else { return String::new() };
        let mut last = peer.ip().to_canonical();
        let lines = headers.get_all(FORWARDED_FOR).iter().rev().filter_map(|line| line.to_str().ok());
        for hop in lines.flat_map(|line| line.rsplit(',')).map(str::trim) {
            if !self.trust(last) {
                break;
            }
            match hop.parse::<IpAddr>() {
                Ok(address) => last = address.to_canonical(),
                Err(_) => return hop.chars().take(MAX_HOP_CHARACTERS).collect(),
            }
        }
        last.to_string()
    }

    /// Scheme and host of the URL a request was sent to, if a proxy of ours says so.
    pub(super) fn base(&self, headers: &HeaderMap, peer: Option<SocketAddr>) -> Option<String> {
        if !self.trust(peer?.ip().to_canonical()) {
            return None;
        }
        // Some proxies hand on what the sender put there: what is no host could turn our path into the rest of another's URL.
        let host = said(headers, &FORWARDED_HOST).filter(|host| is_host(host))?;
        let scheme = said(headers, &FORWARDED_PROTO).unwrap_or("https");
        if !matches!(scheme, "http" | "https") {
            return None;
        }
        let port = said(headers, &FORWARDED_PORT).filter(|_| !host.ends_with(']') && !host.contains(':'));
        let port = port.filter(|port| port.parse::<u16>().is_ok());
        Some(match port {
            Some(port) => format!("{scheme}://{host}:{port}"),
            None => format!("{scheme}://{host}"),
        })
    }

    fn trust(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(address))
    }
}

/// Whether it can be a host, with or without a port.
fn is_host(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b':' | b'[' | b']'))
}

/// What the nearest proxy says.
fn said<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let line = headers.get_all(name).iter().next_back()?.to_str().ok()?;
    line.rsplit(',').next().map(str::trim).filter(|said| !said.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn proxies(networks: &[&str]) -> Proxies {
        Proxies::new(networks.iter().map(|network| network.parse().unwrap()).collect())
    }

    fn headers(lines: &[(HeaderName, &str)]) -> HeaderMap {
        lines.iter().map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap())).collect()
    }

    #[test]
    fn a_network_is_an_address_or_all_with_the_same_bits() {
        for (network, address, inside) in [
            ("192.0.2.1", "192.0.2.1", true),
            ("192.0.2.1", "192.0.2.2", false),
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("10.1.2.3/31", "10.1.2.2", true),
            ("0.0.0.0/0", "203.0.113.9", true),
            ("0.0.0.0/0", "::1", false),
            ("fd00::/8", "fd12::1", true),
            ("fd00::/8", "fe00::1", false),
            ("::/0", "2001:db8::1", true),
            ("::1", "::1", true),
        ] {
            let network: Network = network.parse().unwrap();
            assert_eq!(network.contains(address.parse().unwrap()), inside, "{network:?} {address}");
        }
        for wrong in ["", "localhost", "10.0.0.0/33", "::/129", "10.0.0.0/-1", "10.0.0.0/x", "10.0.0"] {
            assert!(wrong.parse::<Network>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_sender_cannot_choose_where_it_comes_from() {
        let forged = headers(&[(FORWARDED_FOR, "203.0.113.9, 198.51.100.7")]);
        let twice = headers(&[(FORWARDED_FOR, "203.0.113.9"), (FORWARDED_FOR, "198.51.100.7, 10.0.0.9")]);
        let peer = Some("192.0.2.1:4711".parse().unwrap());
        let mapped = Some("[::ffff:192.0.2.1]:4711".parse().unwrap());
        let ours = proxies(&["192.0.2.0/24", "10.0.0.0/8"]);
        for (proxies, lines, peer, expected) in [
            (&proxies(&[]), &forged, peer, "192.0.2.1"),
            (&proxies(&["10.0.0.0/8"]), &forged, peer, "192.0.2.1"),
            (&ours, &forged, peer, "198.51.100.7"),
            (&ours, &forged, mapped, "198.51.100.7"),
            (&ours, &twice, peer, "198.51.100.7"),
            (&ours, &HeaderMap::new(), peer, "192.0.2.1"),
            (&ours, &headers(&[(FORWARDED_FOR, "unknown")]), peer, "unknown"),
            (&proxies(&["0.0.0.0/0"]), &forged, peer, "203.0.113.9"),
            (&ours, &forged, None, ""),
        ] {
            assert_eq!(proxies.source(lines, peer), expected, "{proxies:?}");
        }
    }

    #[test]
    fn only_a_proxy_of_ours_says_which_url_it_was() {
        let (proto, host, port) = (FORWARDED_PROTO, FORWARDED_HOST, FORWARDED_PORT);
        let peer = Some("192.0.2.1:4711".parse().unwrap());
        let ours = proxies(&["192.0.2.1"]);
        let whole = headers(&[(proto.clone(), "https"), (host.clone(), "hooks.example"), (port.clone(), "8443")]);
        for (proxies, lines, expected) in [
            (&proxies(&[]), &whole, None),
            (&proxies(&["192.0.2.2"]), &whole, None),
            (&ours, &whole, Some("https://hooks.example:8443")),
            (&ours, &headers(&[(host.clone(), "hooks.example")]), Some("https://hooks.example")),
            (
                &ours,
                &headers(&[(host.clone(), "evil, hooks.example"), (proto.clone(), "http")]),
                Some("http://hooks.example"),
            ),
            (
                &ours,
                &headers(&[(host.clone(), "hooks.example:81"), (port.clone(), "82")]),
                Some("https://hooks.example:81"),
            ),
            (&ours, &headers(&[(proto.clone(), "https"), (port.clone(), "443")]), None),
        ] {
            assert_eq!(proxies.base(lines, peer).as_deref(), expected);
        }
        assert_eq!(ours.base(&whole, None), None);
    }
}
