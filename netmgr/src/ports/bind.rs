//! One socket on one port of the host.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, sockopt};

use crate::kernel::Error;
use crate::model::Protocol;

/// The kernel cuts it down to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// `None`: this kernel has no SCTP; the rule is written all the same and no one here can take the port.
pub(super) fn bind(protocol: Protocol, ip: IpAddr, port: u16) -> Result<Option<OwnedFd>, Error> {
    bind_socket(protocol, SocketAddr::new(ip, port))
        .map_err(|errno| failed(protocol, ip, port, errno))
}

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
    if protocol != Protocol::Udp {
        // Of two sockets bound under SO_REUSEADDR only one may listen: the conflict can show as late as here.
        rustix::net::listen(&socket, BACKLOG)?;
    }
    Ok(Some(socket))
}

pub(super) fn free_port(protocol: Protocol, address: IpAddr) -> Result<u16, Error> {
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
