//! What is peculiar to IPv6: unique local prefixes (RFC 4193).

use std::net::Ipv6Addr;

use ipnet::Ipv6Net;

use super::Subnet;
use super::pools::InUse;

impl Subnet for Ipv6Net {
    type Address = Ipv6Addr;

    const BITS: u8 = 128;
    const BROADCAST: bool = false;

    fn of(first: u128, prefix: u8) -> Ipv6Net {
        Ipv6Net::new_assert(Self::address(first), prefix)
    }

    fn first(self) -> u128 {
        Self::number(self.network())
    }

    fn last(self) -> u128 {
        Self::number(self.broadcast())
    }

    fn prefix(self) -> u8 {
        self.prefix_len()
    }

    fn number(address: Ipv6Addr) -> u128 {
        address.to_bits()
    }

    fn address(number: u128) -> Ipv6Addr {
        Ipv6Addr::from_bits(number)
    }

    /// Where `::1` would be the first host's, IPv4 in other clothes, link-local addresses (each interface has its own
    /// already), and multicast.
    fn is_reserved(self) -> bool {
        let first = self.network();
        self.contains(&Ipv6Addr::LOCALHOST)
            || (first.to_ipv4().is_some() && self.prefix_len() >= 96)
            || first.is_unicast_link_local()
            || first.is_multicast()
    }
}

/// `fd`, and 40 random bits: a /48 that no other site is likely to have (RFC 4193, 3.2.2).
pub fn unique_local(random: [u8; 5]) -> Ipv6Net {
    let [a, b, c, d, e] = random;
    let mut octets = [0; 16];
    octets[..6].copy_from_slice(&[0xfd, a, b, c, d, e]);
    Ipv6Net::new_assert(Ipv6Addr::from(octets), 48)
}

/// The lowest /64 of a prefix that none of the subnets in use touches.
pub fn next_unique_local(prefix: Ipv6Net, taken: &[Ipv6Net]) -> Option<Ipv6Net> {
    InUse::new(taken).first_free(prefix, 64)
}
