//! Holds host ports: a bound socket is the proof that a port is free, and keeps other programs off it.
//!
//! Chooses ephemeral ports too, and ports from a range. What a port leads to, and who serves it, is decided elsewhere.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;

use rustix::process::Resource;

use crate::error::Error;
use crate::kernel;
use crate::model::{PortMap, PortRequest, Protocol};
use crate::proxy::{Forward, Run, Targets};

mod bind;
mod run;

/// How many ports of a run are held by a socket each.
///
/// Measured (`tests/long_runs.rs`): a port costs 9 us, and two descriptors in each of two processes. So this many cost
/// 1.2 ms of a start that takes 65 ms, and 256 of the 1,024 descriptors that a process may have by default.
pub const LONGEST_BOUND: u16 = 128;

/// How many starting points are tried for an ephemeral port, or for a run of them.
const ATTEMPTS: usize = 64;

/// Descriptors that are left for connections when a run is bound port by port.
const SPARE_DESCRIPTORS: u64 = 1024;

/// A host port, or a long run of them, that is ours as long as the socket is open.
#[derive(Debug)]
pub struct Held {
    pub protocol: Protocol,
    pub bind: IpAddr,
    /// What the socket is bound to: with a run, its listener.
    pub host_port: u16,
    /// With a run: where its first port leads to.
    pub container_port: u16,
    pub run: Option<Run>,
    /// Bound, and listening but for UDP.
    pub socket: OwnedFd,
}

impl Held {
    /// Leads it to a container.
    pub fn forward(self, targets: Targets) -> Forward {
        Forward {
            protocol: self.protocol,
            target: (targets.reached_by(self.bind), self.container_port).into(),
            listener: self.socket,
            run: self.run,
        }
    }
}

/// What to know before ports are held.
#[derive(Clone, Copy)]
pub struct Holding<'a> {
    /// Whether a firewall redirects local clients of a long run to its one listener.
    pub redirects: bool,
    /// The first port of a map that the tables have as published: of a container whose sockets were lost, for one.
    pub allocated: &'a dyn Fn(&PortMap) -> Result<Option<u16>, Error>,
}

/// Whether a run is too long for a socket each. Its ports are to be kept from ephemeral use in another way.
pub fn is_long(map: &PortMap) -> bool {
    map.count > LONGEST_BOUND
}

/// Holds every host port of the request; all of them, or none. Without an address that is `0.0.0.0` and, where the host
/// has IPv6, also `::`.
///
/// An ephemeral port is the same number for both families, and the first of a run of free ones for several.
///
/// A long run ([`is_long`]) is only looked through for ports of other programs. For TCP it has one listener for all, on
/// [`PortMap.listener`]; for UDP and SCTP it has no socket at all, so that local clients reach it by any address of the
/// host but loopback ones. Without a redirect a run is bound port by port if there are descriptors enough.
pub fn hold(request: &PortRequest, holding: Holding<'_>) -> Result<(PortMap, Vec<Held>), Error> {
    match (request.host_port, request.host_port_last) {
        (None, _) => hold_ephemeral(request, holding),
        (Some(first), None) => hold_at(request, first, holding),
        (Some(first), Some(last)) => hold_one_of(request, first, last, holding),
    }
}

/// Holds the ports of a map that is published already, whose sockets were lost with their process.
pub fn hold_again(map: &PortMap, redirects: bool) -> Result<Vec<Held>, Error> {
    match map.listener {
        Some(port) => Ok(run::listen(map, port)?),
        None if is_long(map) && redirects => Ok(Vec::new()),
        None => Ok(hold_each(map)?),
    }
}

fn hold_ephemeral(
    request: &PortRequest,
    holding: Holding<'_>,
) -> Result<(PortMap, Vec<Held>), Error> {
    let address = request.host_ip.unwrap_or(Ipv4Addr::UNSPECIFIED.into());
    for _ in 0..ATTEMPTS {
        // The kernel chooses from `ip_local_port_range`. Its socket is closed before the port is bound for good: the
        // probe may be of another type than what is held.
        let first = bind::free_port(request.protocol, address)?;
        match hold_at(request, first, holding) {
            // Free for one family or one port of the run only.
            Err(error) if is_taken(&error) || is_beyond(&error) => {}
            result => return result,
        }
    }
    Err(kernel::Error::NoFreePorts {
        protocol: request.protocol.as_str(),
        count: request.count,
    }
    .into())
}

fn hold_one_of(
    request: &PortRequest,
    first: u16,
    last: u16,
    holding: Holding<'_>,
) -> Result<(PortMap, Vec<Held>), Error> {
    for port in first..=last {
        match hold_at(request, port, holding) {
            Err(error) if is_taken(&error) => {}
            result => return result,
        }
    }
    Err(kernel::Error::AllPortsTaken {
        ip: request.host_ip.unwrap_or(Ipv4Addr::UNSPECIFIED.into()),
        first,
        last,
    }
    .into())
}

fn hold_at(
    request: &PortRequest,
    first: u16,
    holding: Holding<'_>,
) -> Result<(PortMap, Vec<Held>), Error> {
    let mut map = PortMap {
        protocol: request.protocol,
        host_ip: request.host_ip,
        host_port: first,
        container_port: request.container_port,
        count: request.count,
        listener: None,
    };
    check_range(&map)?;
    // A socket alone does not know that a port is published when its holder was killed.
    if let Some(port) = (holding.allocated)(&map)? {
        return Err(Error::PortAllocated {
            ip: map.host_ip.unwrap_or(Ipv4Addr::UNSPECIFIED.into()),
            port,
        });
    }
    let held = match (is_long(&map), holding.redirects) {
        (false, _) => hold_each(&map)?,
        (true, true) => run::hold(&mut map, holding)?,
        (true, false) if fits(&map) => hold_each(&map)?,
        (true, false) => {
            return Err(kernel::Error::RunTooLong {
                count: map.count,
                most: bindable(&map),
            }
            .into());
        }
    };
    Ok((map, held))
}

/// A socket for each port and family.
fn hold_each(map: &PortMap) -> Result<Vec<Held>, kernel::Error> {
    let mut held = Vec::new();
    for offset in 0..map.count {
        let port = map.host_port + offset;
        for bind in binds(map.host_ip) {
            let socket = match bind::bind(map.protocol, bind, port) {
                // A host without IPv6 has nothing to hold there.
                Err(kernel::Error::AddressNotOnHost { .. })
                    if map.host_ip.is_none() && bind.is_ipv6() =>
                {
                    continue;
                }
                socket => socket?,
            };
            held.extend(socket.map(|socket| Held {
                protocol: map.protocol,
                bind,
                host_port: port,
                container_port: map.container_port + offset,
                run: None,
                socket,
            }));
        }
    }
    Ok(held)
}

/// The addresses that are bound for what is published on one address, or on all.
fn binds(host_ip: Option<IpAddr>) -> Vec<IpAddr> {
    match host_ip {
        Some(address) => vec![address],
        None => vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()],
    }
}

fn check_range(map: &PortMap) -> Result<(), kernel::Error> {
    let last = map.count.saturating_sub(1);
    let fits = |first: u16| first.checked_add(last).is_some();
    match map.count > 0 && fits(map.host_port) && fits(map.container_port) {
        true => Ok(()),
        false => Err(kernel::Error::PortBeyondRange {
            first: map.host_port,
            count: map.count,
        }),
    }
}

fn fits(map: &PortMap) -> bool {
    u64::from(map.count) <= bindable(map)
}

/// How many ports this process has descriptors for.
fn bindable(map: &PortMap) -> u64 {
    let limit = rustix::process::getrlimit(Resource::Nofile).current;
    let room = limit.unwrap_or(u64::MAX).saturating_sub(SPARE_DESCRIPTORS);
    room / binds(map.host_ip).len() as u64
}

fn is_taken(error: &Error) -> bool {
    matches!(
        error,
        Error::PortAllocated { .. } | Error::Kernel(kernel::Error::PortTaken { .. })
    )
}

fn is_beyond(error: &Error) -> bool {
    matches!(error, Error::Kernel(kernel::Error::PortBeyondRange { .. }))
}
