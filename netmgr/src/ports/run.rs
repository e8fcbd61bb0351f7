//! Runs too long for a socket each: looked through for ports of other programs, and for TCP one listener for all.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use super::{Held, Holding, bind};
use crate::error::Error;
use crate::kernel::{self, sockets};
use crate::model::{PortMap, Protocol};
use crate::proxy::Run;

/// `ip-sysctl`: ports that the kernel gives to no one who has not asked for them.
const RESERVED: &str = "/proc/sys/net/ipv4/ip_local_reserved_ports";

/// Below are the ports of system services.
const UNPRIVILEGED: u16 = 1024;

/// Fills in the map's listener.
pub(super) fn hold(map: &mut PortMap, holding: Holding<'_>) -> Result<Vec<Held>, Error> {
    let last = map.host_port + (map.count - 1);
    check_address(map)?;
    let taken = sockets::in_use(map.protocol, map.host_ip, map.host_port, last)?;
    if let Some(port) = taken {
        let ip = map.host_ip.unwrap_or(Ipv4Addr::UNSPECIFIED.into());
        return Err(kernel::Error::PortTaken { ip, port }.into());
    }
    if map.protocol != Protocol::Tcp {
        return Ok(Vec::new());
    }
    let reserved = fs::read_to_string(RESERVED).unwrap_or_default();
    for port in candidates(map.host_port..=last) {
        if is_listed(&reserved, port) || is_allocated(port, holding)? {
            continue;
        }
        match listen(map, port) {
            Err(kernel::Error::PortTaken { .. }) => {}
            held => {
                map.listener = Some(port);
                return Ok(held?);
            }
        }
    }
    Err(kernel::Error::NoFreePorts {
        protocol: map.protocol.as_str(),
        count: 1,
    }
    .into())
}

/// An address that is not the host's own has no socket here that would tell.
fn check_address(map: &PortMap) -> Result<(), kernel::Error> {
    match map.host_ip {
        Some(address) => bind::free_port(Protocol::Udp, address).map(|_| ()),
        None => Ok(()),
    }
}

/// Listens on every address of the families that the run is published for: a redirect leads to whatever address the
/// packet came to the host by.
pub(super) fn listen(map: &PortMap, port: u16) -> Result<Vec<Held>, kernel::Error> {
    let families: &[IpAddr] = match map.host_ip {
        Some(IpAddr::V4(_)) => &[IpAddr::V4(Ipv4Addr::UNSPECIFIED)],
        Some(IpAddr::V6(_)) => &[IpAddr::V6(Ipv6Addr::UNSPECIFIED)],
        None => &[
            IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        ],
    };
    let mut held = Vec::new();
    for &any in families {
        let socket = match bind::bind(Protocol::Tcp, any, port) {
            // A host without IPv6 has no clients there.
            Err(kernel::Error::AddressNotOnHost { .. }) if any.is_ipv6() => continue,
            socket => socket?,
        };
        held.extend(socket.map(|socket| Held {
            protocol: Protocol::Tcp,
            bind: any,
            host_port: port,
            container_port: map.container_port,
            run: Some(Run {
                host_ip: map.host_ip,
                first: map.host_port,
                count: map.count,
            }),
            socket,
        }));
    }
    Ok(held)
}

/// Ports for a listener, the best first: from above, where few programs and no ephemeral ports are by default; then
/// those of system services; and from within the run only if it leaves none out. There it does no harm, since who calls
/// that port is led to where that port leads.
fn candidates(run: RangeInclusive<u16>) -> impl Iterator<Item = u16> {
    let inside = run.clone();
    let outside = (UNPRIVILEGED..=u16::MAX)
        .rev()
        .chain((1..UNPRIVILEGED).rev())
        .filter(move |port| !run.contains(port));
    outside.chain(inside.rev())
}

fn is_allocated(port: u16, holding: Holding<'_>) -> Result<bool, Error> {
    let listener = PortMap {
        protocol: Protocol::Tcp,
        host_ip: None,
        host_port: port,
        container_port: port,
        count: 1,
        listener: None,
    };
    Ok((holding.allocated)(&listener)?.is_some())
}

/// `1024-2000,3000`.
fn is_listed(list: &str, port: u16) -> bool {
    list.trim().split(',').any(|entry| {
        let (first, last) = entry.split_once('-').unwrap_or((entry, entry));
        match (first.parse::<u16>(), last.parse::<u16>()) {
            (Ok(first), Ok(last)) => (first..=last).contains(&port),
            _ => false,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_is_outside_of_the_run_where_it_can_be() {
        let first = |run| candidates(run).next();
        assert_eq!(first(1024..=65000), Some(65535));
        assert_eq!(first(2000..=65535), Some(1999));
        assert_eq!(first(1024..=65535), Some(1023));
        assert_eq!(first(1..=65535), Some(65535));
        let all: std::collections::HashSet<u16> = candidates(100..=60000).collect();
        assert_eq!(all.len(), 65535);
    }

    #[test]
    fn reserved_ports_are_read_as_the_kernel_writes_them() {
        for (list, port, expected) in [
            ("\n", 80, false),
            ("8080,9000-9100\n", 8080, true),
            ("8080,9000-9100\n", 9100, true),
            ("8080,9000-9100\n", 9101, false),
        ] {
            assert_eq!(is_listed(list, port), expected, "{list} {port}");
        }
    }
}
