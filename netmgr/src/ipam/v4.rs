//! What is peculiar to IPv4.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::Subnet;

impl Subnet for Ipv4Net {
    type Address = Ipv4Addr;

    const BITS: u8 = 32;
    const BROADCAST: bool = true;

    fn of(first: u128, prefix: u8) -> Ipv4Net {
        Ipv4Net::new_assert(Self::address(first), prefix)
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

    fn number(address: Ipv4Addr) -> u128 {
        address.to_bits().into()
    }

    fn address(number: u128) -> Ipv4Addr {
        Ipv4Addr::from_bits(number as u32)
    }

    /// 0.0.0.0/8, 127.0.0.0/8, and multicast.
    fn is_reserved(self) -> bool {
        let first = self.network();
        first.is_loopback() || first.is_multicast() || first.octets()[0] == 0
    }
}

/// `02:42:` and the address, as Docker makes it: unique on the bridge, and a neighbour's cache stays right when an
/// address comes back.
pub fn mac(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [0x02, 0x42, a, b, c, d]
}
