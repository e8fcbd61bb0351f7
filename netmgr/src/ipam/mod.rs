//! Address arithmetic: which subnet a network gets and which address a container gets. Pure.
//!
//! One way for both families ([`Subnet`]); what is peculiar to one of them is in its own file. Nothing here walks through
//! a subnet: the cost is that of what is in use, however large the subnet is.

use std::collections::HashSet;
use std::fmt::Display;
use std::hash::Hash;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::error::Error;

mod pools;
mod v4;
mod v6;

pub use pools::{check_pool, default_subnet, is_in_use, next_subnet, overlaps_route};
pub use v4::mac;
pub use v6::{next_unique_local, unique_local};

/// A block of addresses of one family, seen as a run of numbers.
pub trait Subnet: Copy + Eq + Display + Into<IpNet> {
    type Address: Copy + Eq + Hash + Display + Into<IpAddr>;

    /// The length of an address.
    const BITS: u8;
    /// Whether the last address is no host's.
    const BROADCAST: bool;

    fn of(first: u128, prefix: u8) -> Self;
    fn first(self) -> u128;
    fn last(self) -> u128;
    fn prefix(self) -> u8;
    fn number(address: Self::Address) -> u128;
    fn address(number: u128) -> Self::Address;
    /// Whether hosts have no addresses of their own here: loopback, multicast and the like.
    fn is_reserved(self) -> bool;

    fn holds(self, address: Self::Address) -> bool {
        (self.first()..=self.last()).contains(&Self::number(address))
    }

    /// First and last address that a host may have. Both addresses of a /31 (RFC 3021) and of a /127 (RFC 6164) are
    /// hosts'. Otherwise the first is the network's own, or all routers' (RFC 4291, 2.6.1).
    fn hosts(self) -> (u128, u128) {
        match self.prefix() < Self::BITS - 1 {
            true => (self.first() + 1, self.last() - u128::from(Self::BROADCAST)),
            false => (self.first(), self.last()),
        }
    }

    fn is_host(self, address: Self::Address) -> bool {
        let (first, last) = self.hosts();
        (first..=last).contains(&Self::number(address))
    }
}

pub fn overlap<S: Subnet>(a: S, b: S) -> bool {
    a.first() <= b.last() && b.first() <= a.last()
}

/// Whether a subnet that a user asks for can be a network's at all.
pub fn check_subnet<S: Subnet>(subnet: S) -> Result<(), Error> {
    let canonical = S::of(subnet.first(), subnet.prefix());
    if subnet != canonical {
        return Err(Error::SubnetHasHostBits {
            subnet: subnet.into(),
            canonical: canonical.into(),
        });
    }
    if subnet.prefix() == 0 || subnet.is_reserved() {
        return Err(Error::SubnetReserved(subnet.into()));
    }
    if subnet.prefix() == S::BITS {
        return Err(Error::SubnetTooSmall(subnet.into()));
    }
    Ok(())
}

/// Whether containers can get their addresses from a part of a subnet.
pub fn check_range<S: Subnet>(subnet: S, range: S) -> Result<(), Error> {
    let canonical = S::of(range.first(), range.prefix());
    if range != canonical {
        return Err(Error::RangeHasHostBits {
            range: range.into(),
            canonical: canonical.into(),
        });
    }
    if !(subnet.first()..=subnet.last()).contains(&range.first()) {
        return Err(Error::RangeOutsideSubnet(range.into()));
    }
    if range.prefix() < subnet.prefix() {
        return Err(Error::RangeBeyondSubnet {
            range: range.into(),
            subnet: subnet.into(),
        });
    }
    Ok(())
}

/// The gateway asked for, checked, or the first address of the subnet that is not in `aux`.
pub fn gateway<S: Subnet>(
    subnet: S,
    asked: Option<S::Address>,
    aux: &HashSet<S::Address>,
) -> Result<S::Address, Error> {
    let Some(gateway) = asked else {
        return lowest_free(subnet, None, aux).ok_or(Error::SubnetTooSmall(subnet.into()));
    };
    if !subnet.holds(gateway) {
        return Err(Error::GatewayOutsideSubnet(gateway.into()));
    }
    if !subnet.is_host(gateway) {
        return Err(Error::GatewayNotHost {
            gateway: gateway.into(),
            subnet: subnet.into(),
        });
    }
    Ok(gateway)
}

/// The lowest address of a subnet, or of a range inside it, that is not taken.
pub fn lowest_free<S: Subnet>(
    subnet: S,
    range: Option<S>,
    taken: &HashSet<S::Address>,
) -> Option<S::Address> {
    let (mut first, mut last) = subnet.hosts();
    if let Some(range) = range {
        first = first.max(range.first());
        last = last.min(range.last());
    }
    // Ends after as many steps as addresses are taken, at most.
    (first..=last)
        .map(S::address)
        .find(|address| !taken.contains(address))
}

#[cfg(test)]
mod tests;
