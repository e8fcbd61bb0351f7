//! Holds host ports: a bound socket is the proof that a port is free, and keeps other programs off it.
//!
//! Chooses ephemeral ports too. What a port leads to, and who serves it, is decided elsewhere.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, sockopt};

use crate::kernel::Error;
use crate::model::{PortMap, PortRequest, Protocol};

/// The kernel cuts it down to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// How many starting points are tried for an ephemeral port, or for a run of them.
const ATTEMPTS: usize = 64;

pub fn is_long(map: &PortMap) -> bool {
    map.count > 128
}
/// A host port that is ours as long as the socket is open.
#[derive(Debug)]
pub struct Held {
    pub protocol: Protocol,
    pub bind: IpAddr,
    pub host_port: u16,
    pub container_port: u16,
    /// Listening for TCP; bound for UDP, and for SCTP, which the proxy does not relay.
    pub socket: OwnedFd,
}

/// Binds every host port of the request; all of them, or none. Without an address that is `0.0.0.0` and, where the
/// host has IPv6, also `::`.
///
/// An ephemeral port is the same number for both families, and the first of a run of free ones for a range.
pub fn hold(request: &PortRequest) -> Result<(PortMap, Vec<Held>), Error> {
    let Some(first) = request.host_port else {
        return hold_ephemeral(request);
    };
    let held = hold_run(request, first)?;
    Ok((port_map(request, first), held))
}

fn hold_ephemeral(request: &PortRequest) -> Result<(PortMap, Vec<Held>), Error> {
    let address = request.host_ip.unwrap_or(Ipv4Addr::UNSPECIFIED.into());
    for _ in 0..ATTEMPTS {
        // The kernel chooses from `ip_local_port_range`. Its socket is closed before the port is bound for good: the
        // probe may be of another type than what is held.
        let first = free_port(request.protocol, address)?;
        match hold_run(request, first) {
            Ok(held) => return Ok((port_map(request, first), held)),
            // Free for one family or one port of the run only.
            Err(Error::PortTaken { .. } | Error::PortBeyondRange { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Err(Error::NoFreePorts {
        protocol: request.protocol.as_str(),
        count: request.count,
    })
}

fn hold_run(request: &PortRequest, first: u16) -> Result<Vec<Held>, Error> {
    let beyond = Error::PortBeyondRange {
        first,
        count: request.count,
    };
    let last = request.count.saturating_sub(1);
    if first.checked_add(last).is_none() || request.container_port.checked_add(last).is_none() {
        return Err(beyond);
    }
    let mut held = Vec::new();
    for offset in 0..request.count {
        let port = first + offset;
        let mut hold = |bind: IpAddr| -> Result<(), Error> {
            let socket = bind_socket(request.protocol, SocketAddr::new(bind, port))
                .map_err(|errno| failed(request.protocol, bind, port, errno))?;
            held.extend(socket.map(|socket| Held {
                protocol: request.protocol,
                bind,
                host_port: port,
                container_port: request.container_port + offset,
                socket,
            }));
            Ok(())
        };
        match request.host_ip {
            Some(address) => hold(address)?,
            None => {
                hold(Ipv4Addr::UNSPECIFIED.into())?;
                match hold(Ipv6Addr::UNSPECIFIED.into()) {
                    // A host without IPv6 has nothing to hold there.
                    Err(Error::AddressNotOnHost { .. }) => {}
                    result => result?,
                }
            }
        }
    }
    Ok(held)
}

/// `None`: this kernel has no SCTP; the rule is written all the same and no one here can take the port.
fn bind_socket(protocol: Protocol, address: SocketAddr) -> Result<Option<OwnedFd>, Errno> {
    let socket = match open(protocol, address.ip()) {
        Err(Errno::PROTONOSUPPORT | Errno::SOCKTNOSUPPORT) if protocol == Protocol::Sctp => {
            return Ok(None);
        }
        socket => socket?,
    };
    if protocol == Protocol::Tcp {
        // Connections of the last holder may be in TIME_WAIT. A live listener still refuses us. Not for UDP, where the
        // option would let two programs share a port.
        sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    if address.is_ipv6() {
        // Each family has its own socket, so that one does not answer for the other.
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    rustix::net::bind(&socket, &address)?;
    if protocol == Protocol::Tcp {
        // Of two sockets bound under SO_REUSEADDR only one may listen: the conflict can show as late as here.
        rustix::net::listen(&socket, BACKLOG)?;
    }
    Ok(Some(socket))
}

fn free_port(protocol: Protocol, address: IpAddr) -> Result<u16, Error> {
    // SCTP's own numbers cannot be probed where the kernel has none; any number does.
    let probe = match protocol {
        Protocol::Sctp => Protocol::Udp,
        other => other,
    };
    let find = || -> Result<u16, Errno> {
        let socket = open(probe, address)?;
        rustix::net::bind(&socket, &SocketAddr::new(address, 0))?;
        let bound = SocketAddr::try_from(rustix::net::getsockname(&socket)?)
            .map_err(|_| Errno::AFNOSUPPORT)?;
        Ok(bound.port())
    };
    find().map_err(|errno| match errno {
        Errno::ADDRINUSE => Error::NoFreePorts {
            protocol: protocol.as_str(),
            count: 1,
        },
        errno => failed(protocol, address, 0, errno),
    })
}

fn open(protocol: Protocol, address: IpAddr) -> Result<OwnedFd, Errno> {
    let family = match address {
        IpAddr::V4(_) => AddressFamily::INET,
        IpAddr::V6(_) => AddressFamily::INET6,
    };
    let (kind, protocol) = match protocol {
        Protocol::Tcp => (SocketType::STREAM, ipproto::TCP),
        Protocol::Udp => (SocketType::DGRAM, ipproto::UDP),
        Protocol::Sctp => (SocketType::STREAM, ipproto::SCTP),
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    rustix::net::socket_with(family, kind, flags, Some(protocol))
}

fn failed(protocol: Protocol, ip: IpAddr, port: u16, errno: Errno) -> Error {
    match errno {
        Errno::ADDRINUSE => Error::PortTaken { ip, port },
        Errno::ADDRNOTAVAIL | Errno::AFNOSUPPORT => Error::AddressNotOnHost { ip },
        errno => Error::HoldPort {
            ip,
            port,
            protocol: protocol.as_str(),
            source: io::Error::from(errno),
        },
    }
}

fn port_map(request: &PortRequest, first: u16) -> PortMap {
    PortMap {
        protocol: request.protocol,
        host_ip: request.host_ip,
        host_port: first,
        container_port: request.container_port,
        count: request.count,
        listener: None,
    }
}
