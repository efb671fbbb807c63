//! Which addresses a key provider may have.
//!
//! A name is resolved once, and what is dialled are the addresses that passed here: an answer that is another one the
//! second time has no second time. Forms that hold an IPv4 address inside an IPv6 one count as the inner one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// How far a provider may be away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Addresses that are reachable from everywhere.
    Public,
    /// Those of a private network and of this machine as well. Never link-local ones, where clouds keep credentials.
    Private,
    /// This machine alone: for what is not encrypted.
    Loopback,
}

impl Reach {
    /// Whether an address may be dialled.
    #[must_use]
    pub fn admits(self, address: IpAddr) -> bool {
        match (self, inner(address)) {
            (Self::Public, IpAddr::V4(address)) => is_public(address),
            (Self::Public, IpAddr::V6(address)) => is_public_v6(address),
            (Self::Private, IpAddr::V4(address)) => is_unicast(address) && !address.is_link_local(),
            (Self::Private, IpAddr::V6(address)) => {
                is_public_v6(address) || address.is_unique_local() || address.is_loopback()
            }
            (Self::Loopback, address) => address.is_loopback(),
        }
    }

    /// Those of `addresses` that may be dialled.
    pub fn admitted(self, addresses: impl Iterator<Item = SocketAddr>) -> Vec<SocketAddr> {
        addresses.filter(|address| self.admits(address.ip())).collect()
    }
}

/// The IPv4 address that is meant: of `::ffff:0:0/96` (mapped) and of `64:ff9b::/96` (NAT64, RFC 6052).
fn inner(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    match v6.segments() {
        [0, 0, 0, 0, 0, 0xffff, ..] | [0x64, 0xff9b, 0, 0, 0, 0, ..] => {
            let [.., a, b, c, d] = v6.octets();
            IpAddr::V4(Ipv4Addr::new(a, b, c, d))
        }
        _ => address,
    }
}

/// Neither "this network", nor multicast, nor reserved, nor broadcast.
const fn is_unicast(address: Ipv4Addr) -> bool {
    let [first, ..] = address.octets();
    first != 0 && first < 224
}

/// IANA's registry of special-purpose IPv4 addresses, as of 2025: what is left is global.
const fn is_public(address: Ipv4Addr) -> bool {
    let special = match address.octets() {
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => true,
        // Loopback, link-local, shared by a carrier.
        [127, ..] | [169, 254, ..] | [100, 64..=127, ..] => true,
        // Protocol assignments, 6to4 relays, benchmarks.
        [192, 0, 0, _] | [192, 88, 99, _] | [198, 18 | 19, ..] => true,
        // Documentation.
        [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => true,
        _ => false,
    };
    is_unicast(address) && !special
}

/// Global unicast is `2000::/3`. Of it are special: protocol assignments with Teredo, documentation, and 6to4, whose inner
/// IPv4 address nobody needs any more. NAT64 for local use (`64:ff9b:1::/48`) is outside.
const fn is_public_v6(address: Ipv6Addr) -> bool {
    match address.segments() {
        [0x2001, 0..=0x1ff | 0xdb8, ..] | [0x2002, ..] | [0x3fff, 0..=0xfff, ..] => false,
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admitted(address: &str) -> (bool, bool, bool) {
        let address = address.parse().unwrap();
        (Reach::Public.admits(address), Reach::Private.admits(address), Reach::Loopback.admits(address))
    }

    #[test]
    fn public_addresses_are_admitted_and_private_ones_where_allowed() {
        for address in [
            "8.8.8.8",
            "100.63.255.255",
            "100.128.0.0",
            "172.15.0.1",
            "172.32.0.1",
            "192.0.1.1",
            "223.255.255.255",
            "2606:4700::1111",
            "2001:4860:4860::8888",
            "2001:200::1",
            "::ffff:8.8.8.8",
            "64:ff9b::8.8.8.8",
        ] {
            assert_eq!(admitted(address), (true, true, false), "{address}");
        }
        for address in [
            "10.0.0.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "100.64.0.1",
            "100.127.255.255",
            "192.0.0.8",
            "198.18.0.1",
            "203.0.113.1",
            "fc00::1",
            "fd12:3456::1",
            "::ffff:10.0.0.1",
            "::ffff:100.64.0.1",
            "64:ff9b::192.168.0.1",
        ] {
            assert_eq!(admitted(address), (false, true, false), "{address}");
        }
        for address in ["127.0.0.1", "127.255.255.254", "::1", "::ffff:127.0.0.1", "64:ff9b::127.0.0.1"] {
            assert_eq!(admitted(address), (false, true, true), "{address}");
        }
    }

    #[test]
    fn what_no_provider_has_is_never_admitted() {
        for address in [
            "0.0.0.0",
            "0.1.2.3",
            "169.254.169.254",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::2",
            "::127.0.0.1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "100::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "3fff::1",
            "64:ff9b:1::1",
            "64:ff9b::169.254.169.254",
            "::ffff:169.254.169.254",
            "::ffff:0.0.0.0",
            "::ffff:0:127.0.0.1",
            "5f00::1",
        ] {
            assert_eq!(admitted(address), (false, false, false), "{address}");
        }
    }

    #[test]
    fn of_several_addresses_those_that_may_are_dialled() {
        let all = ["127.0.0.1:443", "8.8.8.8:443", "[::ffff:10.0.0.1]:443"].map(|address| address.parse().unwrap());
        assert_eq!(Reach::Public.admitted(all.into_iter()), ["8.8.8.8:443".parse().unwrap()]);
    }
}
