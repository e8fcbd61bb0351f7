//! Which host ports other programs have, for runs that are too long to be bound port by port.
//!
//! A listing nominates and the kernel's own `bind` decides: a listing shows neither whether a socket of `[::]` takes IPv4
//! too (IPV6_V6ONLY) nor to what device it is bound. One pass over the sockets, however long the run is.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, sockopt};

use crate::kernel::{Error, listeners};
use crate::model::{Family, Protocol};

/// `thread-self`: `/proc/net` is the main thread's namespace.
const TABLES: &str = "/proc/thread-self/net";

/// `TCP_LISTEN` in the fourth column (`include/net/tcp_states.h`).
const LISTENING: &str = "0A";

/// The first port from `first` to `last` that a program of the caller's network namespace has, so that it cannot be bound
/// on `host_ip` (`None`: on every address, of both families).
///
/// TCP: ports that somebody listens on. Not those of connections alone: a client's own port, which `bind` would refuse
/// for as long as a minute after the connection ended (TIME_WAIT), takes nothing from a published run, because conntrack
/// knows its packets; and a host with no such port in a run of thousands is rare. UDP: every bound socket. SCTP: every
/// endpoint.
pub fn in_use(
    protocol: Protocol,
    host_ip: Option<IpAddr>,
    first: u16,
    last: u16,
) -> Result<Option<u16>, Error> {
    let mut nominated = BTreeSet::new();
    let mut nominate = |port: u16| {
        if (first..=last).contains(&port) {
            nominated.insert(port);
        }
    };
    match protocol {
        Protocol::Tcp => {
            for (family, table) in [(Family::V4, "tcp"), (Family::V6, "tcp6")] {
                match listeners::of_tcp(family) {
                    Ok(ports) => ports.into_iter().for_each(&mut nominate),
                    Err(error) => {
                        tracing::debug!(%error, table, "read in /proc");
                        for_each_row(table, |row| listening(row).map(&mut nominate).is_some())?;
                    }
                }
            }
        }
        Protocol::Udp => {
            for table in ["udp", "udp6"] {
                for_each_row(table, |row| {
                    local_port(row).into_iter().for_each(&mut nominate);
                    true
                })?;
            }
        }
        Protocol::Sctp => for_each_row("sctp/eps", |row| {
            endpoint_port(row).into_iter().for_each(&mut nominate);
            true
        })?,
    }
    for port in nominated {
        if is_taken(protocol, host_ip, port)? {
            return Ok(Some(port));
        }
    }
    Ok(None)
}

/// Hands out the rows below the head of a table until `more` says no. A table that this kernel does not have is empty.
fn for_each_row(table: &str, mut more: impl FnMut(&str) -> bool) -> Result<(), Error> {
    let path = Path::new(TABLES).join(table);
    let mut read = || -> io::Result<()> {
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            file => file?,
        };
        for row in BufReader::new(file).lines().skip(1) {
            if !more(&row?) {
                break;
            }
        }
        Ok(())
    };
    read().map_err(|source| Error::ListSockets {
        path: path.clone(),
        source,
    })
}

/// `None` at the first socket that does not listen: all those that do come before it (`tcp_seq_next`,
/// `net/ipv4/tcp_ipv4.c`), and connections may be many.
fn listening(row: &str) -> Option<u16> {
    let state = row.split_whitespace().nth(3)?;
    (state == LISTENING).then(|| local_port(row))?
}

/// `  sl  local_address rem_address st ...`, the address as `0100007F:1F90`.
fn local_port(row: &str) -> Option<u16> {
    let (_, port) = row.split_whitespace().nth(1)?.rsplit_once(':')?;
    u16::from_str_radix(port, 16).ok()
}

/// ` ENDPT SOCK STY SST HBKT LPORT UID INODE LADDRS`, the port in decimal digits.
fn endpoint_port(row: &str) -> Option<u16> {
    row.split_whitespace().nth(5)?.parse().ok()
}

fn is_taken(protocol: Protocol, host_ip: Option<IpAddr>, port: u16) -> Result<bool, Error> {
    let everywhere = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
    let addresses: &[IpAddr] = match &host_ip {
        Some(address) => std::slice::from_ref(address),
        None => &everywhere,
    };
    for &ip in addresses {
        match try_bind(protocol, SocketAddr::new(ip, port)) {
            Ok(()) => {}
            Err(Errno::ADDRINUSE) => return Ok(true),
            // No such address, family or protocol here: whoever publishes on it is told elsewhere.
            Err(
                Errno::ADDRNOTAVAIL
                | Errno::AFNOSUPPORT
                | Errno::PROTONOSUPPORT
                | Errno::SOCKTNOSUPPORT,
            ) => {}
            Err(errno) => {
                return Err(Error::HoldPort {
                    ip,
                    port,
                    protocol: protocol.as_str(),
                    source: errno.into(),
                });
            }
        }
    }
    Ok(false)
}

/// Binds as `ports` does, and lets go at once.
fn try_bind(protocol: Protocol, address: SocketAddr) -> Result<(), Errno> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let (kind, number) = match protocol {
        Protocol::Tcp => (SocketType::STREAM, ipproto::TCP),
        Protocol::Udp => (SocketType::DGRAM, ipproto::UDP),
        Protocol::Sctp => (SocketType::STREAM, ipproto::SCTP),
    };
    let socket = rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, Some(number))?;
    if protocol == Protocol::Tcp {
        sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    rustix::net::bind(&socket, &address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_the_tables_are_read() {
        let listener = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1";
        assert_eq!(listening(listener), Some(8080));
        let connection = listener.replace(" 0A ", " 01 ");
        assert_eq!(listening(&connection), None);
        let udp6 = "  215: 00000000000000000000000000000000:0035 00000000000000000000000000000000:0000 07 0:0";
        assert_eq!(local_port(udp6), Some(53));
        let endpoint = "ffff8800 ffff8801 2   10  29   11168  0 12345 10.0.0.1 ";
        assert_eq!(endpoint_port(endpoint), Some(11168));
        assert_eq!(local_port(""), None);
        assert_eq!(endpoint_port(""), None);
    }
}
