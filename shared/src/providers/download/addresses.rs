//! Names are looked up here, and only addresses of the public internet are let through. These are what is then connected to: a name
//! that leads elsewhere a moment later finds nobody who asks again.

use super::Hosts;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

/// A name that leads to no address of the public internet.
#[derive(Debug, thiserror::Error)]
#[error("{name} leads to {address}, which is not on the public internet")]
pub(super) struct NotPublic {
    name: String,
    address: IpAddr,
}

/// Looks names up at the system.
pub(super) struct PublicOnly {
    hosts: Arc<Hosts>,
}

impl PublicOnly {
    pub(super) fn new(hosts: Arc<Hosts>) -> Self {
        Self { hosts }
    }
}

impl Resolve for PublicOnly {
    fn resolve(&self, name: Name) -> Resolving {
        let hosts = self.hosts.clone();
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            Ok(Box::new(public(name.as_str(), found, &hosts)?.into_iter()) as Addrs)
        })
    }
}

/// Those of a name's addresses to which one may connect.
fn public(name: &str, mut found: Vec<SocketAddr>, hosts: &Hosts) -> Result<Vec<SocketAddr>, NotPublic> {
    if hosts.is_stand_in(name) {
        return Ok(found);
    }
    let first = found.first().copied();
    found.retain(|address| is_public(address.ip()));
    match first {
        Some(address) if found.is_empty() => Err(NotPublic { name: name.to_owned(), address: address.ip() }),
        _ => Ok(found),
    }
}

/// Whether an address is one of the public internet: of none of the special purposes in IANA's registries of 2026 (loopback,
/// private, shared, link-local with the clouds' metadata, documentation, multicast, reserved), also where it hides in another.
pub(super) fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let special = matches!(
        (a, b, c),
        (0 | 10 | 127 | 224..=255, _, _)
            | (100, 64..=127, _)
            | (169, 254, _)
            | (172, 16..=31, _)
            | (192, 0, 0 | 2)
            | (192, 88, 99)
            | (192, 168, _)
            | (198, 18 | 19, _)
            | (198, 51, 100)
            | (203, 0, 113)
    );
    !special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    let embedded = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        is_public_v4(Ipv4Addr::new(a, b, c, d))
    };
    match segments {
        // IPv4 in IPv6, and translated by a gateway.
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => embedded(high, low),
        // 6to4.
        [0x2002, high, low, ..] => embedded(high, low),
        // Teredo and other protocol assignments; documentation.
        [0x2001, 0..=0x1ff, ..] | [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => false,
        // Global unicast is all that is given out.
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_public_internet_is_public() {
        for address in [
            "127.0.0.1",
            "0.0.0.0",
            "10.1.2.3",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.0.1",
            "169.254.169.254",
            "100.64.0.1",
            "100.127.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "198.18.0.1",
            "198.51.100.1",
            "203.0.113.9",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::1",
            "::",
            "fe80::1",
            "fc00::1",
            "fd00:ec2::254",
            "ff02::1",
            "::ffff:10.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "2001::1",
            "2001:db8::1",
            "::127.0.0.1",
            "fec0::1",
        ] {
            assert!(!is_public(address.parse().unwrap()), "{address}");
        }
        for address in [
            "8.8.8.8",
            "100.63.0.1",
            "100.128.0.1",
            "172.32.0.1",
            "192.0.1.1",
            "2606:4700::1111",
            "64:ff9b::808:808",
            "2a03:2880::1",
        ] {
            assert!(is_public(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn of_many_addresses_the_public_ones_are_taken() {
        let at = |address: &str| SocketAddr::new(address.parse().unwrap(), 0);
        let hosts = Hosts::parse("http://sandbox:80").unwrap();
        let both = vec![at("10.0.0.1"), at("8.8.8.8")];
        assert_eq!(public("a.example", both, &hosts).unwrap(), [at("8.8.8.8")]);
        let refused = public("a.example", vec![at("10.0.0.1")], &hosts).unwrap_err();
        assert_eq!(refused.to_string(), "a.example leads to 10.0.0.1, which is not on the public internet");
        assert_eq!(public("sandbox", vec![at("10.0.0.1")], &hosts).unwrap(), [at("10.0.0.1")]);
    }
}
