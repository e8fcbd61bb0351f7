//! What is relayed and to where: plain data, and the one place that decides which address a socket leads to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{AddressFamily, sockopt};
use serde::{Deserialize, Serialize};

use crate::model::{Endpoint, Protocol};

/// A bound (and, but for UDP, listening) socket on the host and where its traffic goes.
#[derive(Debug)]
pub struct Forward {
    pub protocol: Protocol,
    pub listener: OwnedFd,
    /// With a run: where its first port leads to.
    pub target: SocketAddr,
    /// The listener stands for a whole run of ports, to which the firewall redirects clients.
    pub run: Option<Run>,
}

/// A run of host ports with one listener of another port: `-j REDIRECT --to-ports LISTENER` (`iptables-extensions(8)`).
/// Which port a client called is asked of conntrack (SO_ORIGINAL_DST).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// `None`: every address of the host.
    pub host_ip: Option<IpAddr>,
    pub first: u16,
    pub count: u16,
}

impl Run {
    /// Where a client is led to that called `called`; `None` if that is not of this run.
    fn target_of(self, called: SocketAddr, first_target: SocketAddr) -> Option<SocketAddr> {
        let published = self
            .host_ip
            .is_none_or(|ip| ip.is_unspecified() || ip == called.ip());
        let offset = called.port().checked_sub(self.first)?;
        if !published || offset >= self.count {
            return None;
        }
        let port = first_target.port().checked_add(offset)?;
        Some(SocketAddr::new(first_target.ip(), port))
    }
}

/// A container's addresses, of which each host socket leads to one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Targets {
    pub v4: Ipv4Addr,
    pub v6: Option<Ipv6Addr>,
}

impl Targets {
    pub fn of(endpoint: &Endpoint) -> Targets {
        Targets {
            v4: endpoint.address,
            v6: endpoint.address6,
        }
    }

    /// Where a socket bound to this address of the host leads to: the container's own IPv6 if it has one.
    pub fn reached_by(self, bind: IpAddr) -> IpAddr {
        match (bind, self.v6) {
            (IpAddr::V6(_), Some(v6)) => v6.into(),
            _ => self.v4.into(),
        }
    }
}

impl Forward {
    /// Where a client that was accepted is led to; `None` if it has no business here.
    pub(super) fn target_for(&self, client: &OwnedFd) -> Option<SocketAddr> {
        match self.run {
            None => Some(self.target),
            Some(run) => run.target_of(called_by(client)?, self.target),
        }
    }

    /// Leads to another endpoint of the container, same port; `false` if that is where it leads to already.
    pub(super) fn replace_target(&mut self, targets: Targets) -> bool {
        let address = targets.reached_by(any_of_family(&self.listener));
        let changes = self.target.ip() != address;
        self.target.set_ip(address);
        changes
    }
}

/// The unspecified address of a socket's family.
pub(super) fn any_of_family(socket: &OwnedFd) -> IpAddr {
    match sockopt::socket_domain(socket) {
        Ok(AddressFamily::INET6) => Ipv6Addr::UNSPECIFIED.into(),
        _ => Ipv4Addr::UNSPECIFIED.into(),
    }
}

/// What the client called before it was redirected; its own destination where it was not. `None` where conntrack knows
/// nothing of the connection: then it was not redirected either.
fn called_by(client: &OwnedFd) -> Option<SocketAddr> {
    let called: Result<SocketAddr, Errno> = match any_of_family(client) {
        IpAddr::V4(_) => sockopt::ip_original_dst(client).map(SocketAddr::V4),
        IpAddr::V6(_) => sockopt::ipv6_original_dst(client).map(SocketAddr::V6),
    };
    called.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_leads_each_of_its_ports_to_the_same_offset_and_no_other() {
        let run = |host_ip: Option<&str>| Run {
            host_ip: host_ip.map(|ip| ip.parse().unwrap()),
            first: 1024,
            count: 100,
        };
        let led = |run: Run, called: &str| {
            let target = run.target_of(called.parse().unwrap(), "10.0.0.2:2024".parse().unwrap());
            target.map(|target| target.to_string())
        };
        let table = [
            (None, "127.0.0.1:1024", Some("10.0.0.2:2024")),
            (None, "127.0.0.1:1123", Some("10.0.0.2:2123")),
            (None, "127.0.0.1:1124", None),
            (None, "127.0.0.1:1023", None),
            (Some("0.0.0.0"), "127.0.0.9:1030", Some("10.0.0.2:2030")),
            (Some("127.0.0.2"), "127.0.0.2:1030", Some("10.0.0.2:2030")),
            (Some("127.0.0.2"), "127.0.0.1:1030", None),
        ];
        for (host_ip, called, expected) in table {
            assert_eq!(led(run(host_ip), called).as_deref(), expected, "{called}");
        }
    }

    #[test]
    fn a_v6_socket_leads_to_the_v6_address_if_there_is_one() {
        let v4 = Ipv4Addr::new(10, 0, 0, 2);
        let v6: Ipv6Addr = "fd00::2".parse().unwrap();
        let (any4, any6) = (
            Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::from(Ipv6Addr::UNSPECIFIED),
        );
        let both = Targets { v4, v6: Some(v6) };
        assert_eq!(
            (both.reached_by(any4), both.reached_by(any6)),
            (v4.into(), v6.into())
        );
        let old = Targets { v4, v6: None };
        assert_eq!(
            (old.reached_by(any4), old.reached_by(any6)),
            (v4.into(), v4.into())
        );
    }
}
